//! Names and texts that end up on the wire.

use crate::config::read::Node;

/// Header fields that the replayer writes itself: nobody may edit or hide them.
const OWN_HEADERS: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
    "http2-settings",
    "trailer",
];

/// A token (RFC 9110, 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A header field name, as written.
pub(super) fn header(node: Node<'_>) -> Option<String> {
    let found = node.found();
    let name = node.as_text().filter(|name| is_token(name));
    if node.as_text().is_some_and(|name| name.starts_with(':')) {
        node.fault(format!(
            "{found} is a pseudo-header field of HTTP/2, no header; it can't be named here (the shadow's `host` changes the authority)"
        ));
    } else if name.is_none() {
        node.fault(format!(
            "{found} is no header name; allowed are letters, digits and !#$%&'*+-.^_`|~, without spaces or colon"
        ));
    }
    name.map(str::to_owned)
}

/// The name of a header field that the daemon does not need for itself.
pub(super) fn own_header(node: Node<'_>) -> Option<String> {
    let taken = node.as_text().filter(|name| OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)));
    let Some(name) = taken else { return header(node) };
    let way_out = match name.eq_ignore_ascii_case("host") {
        true => "set the shadow's `host` instead",
        false => "it describes the connection or the body that is really sent, choose another header",
    };
    node.fault(format!("{} can't be changed here; {way_out}", node.found()));
    None
}

/// A header field value (RFC 9110, 5.5): visible characters, spaces and tabs inside.
pub(super) fn header_value(node: Node<'_>) -> Option<String> {
    let Some(text) = node.as_text() else {
        node.wrong_type("a text in quotes");
        return None;
    };
    if text.trim_matches([' ', '\t']) != text || text.chars().any(|found| found.is_control() && found != '\t')
    {
        node.fault(format!(
            "{} is no header value; line ends and other control characters are not allowed, nor spaces around it",
            node.found()
        ));
        return None;
    }
    Some(text.to_owned())
}

/// A method (RFC 9110, 9.1).
pub(super) fn method(node: Node<'_>) -> Option<String> {
    let Some(text) = node.as_text().filter(|text| is_token(text)) else {
        node.wrong_type("a method such as \"GET\"");
        return None;
    };
    let upper = text.to_ascii_uppercase();
    let standard = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    if upper != text && standard.contains(&upper.as_str()) {
        node.fault(format!("\"{text}\" never matches, for methods are case-sensitive; write \"{upper}\""));
        return None;
    }
    Some(text.to_owned())
}

/// A list, each member read by `read`; members with faults are left out.
pub(super) fn list<T>(node: Node<'_>, read: impl Fn(Node<'_>) -> Option<T>) -> Option<Vec<T>> {
    Some(node.list()?.into_iter().filter_map(read).collect())
}
