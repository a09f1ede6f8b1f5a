//! A shadow's `host`, `suffix`, `headers` and `redact`.

use super::names::{self, list};
use crate::config::read::{Node, Section};
use crate::config::types::{HeaderEdit, HostRewrite, Redaction, RewriteConfig};
use crate::rule::Authority;

const DEFAULT_SUFFIX: &str = "-shadow";
/// Most header edits of one shadow.
const MAX_EDITS: usize = 64;
/// Most names in each list of `redact`: each request is compared with all of them.
const MAX_REDACTED: usize = 64;

/// `None` only after a fault was noted.
pub(super) fn rewrite(
    section: &Section<'_>,
    (own_authority, own_scheme): (String, &'static str),
    loop_mark: &str,
) -> Option<RewriteConfig> {
    let suffix = section.node("suffix");
    let host = host(section.node("host"), suffix);
    let edits = section.or("headers", vec![], |node| edits(node, loop_mark));
    let redact = redact(section.section("redact"), loop_mark);
    Some(RewriteConfig { host: host?, own_authority, own_scheme, edits, redact })
}

/// `"suffix"`, `"keep"` or `{ literal = "x.example:8443" }`.
fn host(host: Option<Node<'_>>, suffix: Option<Node<'_>>) -> Option<HostRewrite> {
    let word = host.as_ref().and_then(Node::as_text);
    if let (Some(node), Some(suffix)) = (&host, &suffix)
        && word != Some("suffix")
    {
        suffix.fault(format!("is of no use with host = {}; leave one of them out", node.found()));
    }
    let suffix = suffix.map_or(Some(DEFAULT_SUFFIX.to_owned()), suffix_text);
    let Some(node) = host else { return suffix.map(HostRewrite::Suffix) };
    match word {
        Some("suffix") => suffix.map(HostRewrite::Suffix),
        Some("keep") => Some(HostRewrite::Keep),
        _ if node.is_table() => {
            let section = node.section()?;
            let literal = section.required("literal", "literal = \"x.example:8443\"").and_then(literal);
            section.close();
            literal.map(HostRewrite::Literal)
        }
        _ => {
            node.wrong_type("\"suffix\", \"keep\" or { literal = \"x.example:8443\" }");
            None
        }
    }
}

fn suffix_text(node: Node<'_>) -> Option<String> {
    let found = node.as_text().filter(|text| !text.is_empty() && text.bytes().all(is_host_byte));
    if found.is_none() {
        node.fault(format!(
            "{} is no host suffix; allowed are letters, digits, `-`, `_` and `.`, or host = \"keep\" for none",
            node.found()
        ));
    }
    found.map(str::to_owned)
}

/// A host, with or without a port, that may replace another.
pub(crate) fn is_host_literal(text: &str) -> bool {
    let parts = Authority::split(text.as_bytes());
    let host = parts.host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    let is_address = |inner: &[u8]| inner.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte));
    let is_host = host.map_or_else(|| parts.host.iter().copied().all(is_host_byte), is_address);
    let port = parts.port.strip_prefix(b":").map(std::str::from_utf8);
    let is_port = port.is_none_or(|port| port.is_ok_and(|port| port.parse::<u16>().is_ok()));
    parts.userinfo.is_empty() && !parts.host.is_empty() && is_host && is_port
}

fn literal(node: Node<'_>) -> Option<String> {
    let found = node.as_text().filter(|text| is_host_literal(text));
    if found.is_none() {
        node.fault(format!(
            "{} is no host; write a host, or host and port such as \"x.example:8443\"",
            node.found()
        ));
    }
    found.map(str::to_owned)
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// `[{ set = { name = "a", value = "b" } }, { append = { .. } }, { remove = "c" }]`, in order.
fn edits(node: Node<'_>, loop_mark: &str) -> Option<Vec<HeaderEdit>> {
    let whole = node.clone();
    let edits = list(node, |node| edit(node, loop_mark))?;
    if edits.len() > MAX_EDITS {
        whole.fault(format!("has {} edits; allowed are {MAX_EDITS}", edits.len()));
    }
    Some(edits)
}

fn edit(node: Node<'_>, loop_mark: &str) -> Option<HeaderEdit> {
    let section = node.section()?;
    let set = section.node("set");
    let append = section.node("append");
    let remove = section.node("remove");
    let count = [set.is_some(), append.is_some(), remove.is_some()].into_iter().filter(|is| *is).count();
    if count != 1 {
        section.fault(format!(
            "has {count} of set, append and remove; write exactly one in each {{ }}, for their order counts"
        ));
    }
    let field = |node: Option<Node<'_>>| name_and_value(node?, loop_mark);
    let set = field(set).map(|(name, value)| HeaderEdit::Set { name, value });
    let append = field(append).map(|(name, value)| HeaderEdit::Append { name, value });
    let remove = remove.and_then(|node| editable(node, loop_mark)).map(|name| HeaderEdit::Remove { name });
    section.close();
    set.or(append).or(remove)
}

fn name_and_value(node: Node<'_>, loop_mark: &str) -> Option<(String, String)> {
    let section = node.section()?;
    let name = section.required("name", "the header, e.g. name = \"x-env\"");
    let name = name.and_then(|node| editable(node, loop_mark));
    let value = section.required("value", "value = \"...\"").and_then(names::header_value);
    section.close();
    name.zip(value)
}

fn editable(node: Node<'_>, loop_mark: &str) -> Option<String> {
    if node.as_text().is_some_and(|name| name.eq_ignore_ascii_case(loop_mark)) {
        node.fault(format!(
            "{} is the loop mark, which keeps mirrors from being mirrored; it can't be changed here",
            node.found()
        ));
        return None;
    }
    names::own_header(node)
}

fn redact(section: Section<'_>, loop_mark: &str) -> Redaction {
    let names = |key, read: &dyn Fn(Node<'_>) -> Option<String>| {
        let Some(node) = section.node(key) else { return vec![] };
        let whole = node.clone();
        let names = list(node, read).unwrap_or_default();
        if names.len() > MAX_REDACTED {
            whole.fault(format!("has {} names; allowed are {MAX_REDACTED}", names.len()));
        }
        names
    };
    let headers = names("headers", &|node| editable(node, loop_mark).map(|name| name.to_ascii_lowercase()));
    let cookies = names("cookies", &cookie_name);
    let query = names("query", &|node| node.text().map(str::to_owned));
    section.close();
    Redaction { headers, cookies, query }
}

fn cookie_name(node: Node<'_>) -> Option<String> {
    let found = node.as_text().filter(|text| names::is_token(text));
    if found.is_none() {
        node.fault(format!(
            "{} is no cookie name; allowed are letters, digits and !#$%&'*+-.^_`|~",
            node.found()
        ));
    }
    found.map(str::to_owned)
}
