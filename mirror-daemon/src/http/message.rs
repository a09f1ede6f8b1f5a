//! A request head as it was captured: views into the bytes, nothing owned.

/// HTTP version of the captured request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

/// How long the body is (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyLength {
    /// Neither Content-Length nor Transfer-Encoding: no body.
    None,
    /// Content-Length; may be 0.
    Known(u64),
    /// `Transfer-Encoding: chunked`; in HTTP/2 a body without Content-Length.
    Chunked,
}

/// One header or trailer field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as captured (case kept); a token (RFC 9110, 5.1).
    pub name: &'a str,
    /// The value without surrounding white space; any bytes but CR, LF and NUL.
    pub value: &'a [u8],
    /// The whole line as captured with its line end; empty when the capture had no lines (HTTP/2).
    pub line: &'a [u8],
}

impl Field<'_> {
    /// True when this field is called `name`, whatever the case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// A request head.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method, case-sensitive.
    pub method: &'a str,
    /// The request target as captured: origin, absolute, authority or asterisk form (RFC 9112, 3.2). In HTTP/2
    /// `:path`.
    pub target: &'a str,
    /// Version.
    pub version: Version,
    /// Fields in order, duplicates kept. In HTTP/2 `:scheme`, and `:authority` where there is one, come first.
    pub fields: &'a [Field<'a>],
    /// Framing of the body that follows.
    pub body: BodyLength,
}

impl<'a> RequestHead<'a> {
    /// The value of the first field called `name`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|field| field.is(name)).map(|field| field.value)
    }

    /// The ordinary fields: without those whose name begins with a colon (HTTP/2).
    #[must_use]
    pub fn ordinary_fields(&self) -> &'a [Field<'a>] {
        let count = self.fields.iter().take_while(|field| field.name.starts_with(':')).count();
        self.fields.get(count..).unwrap_or_default()
    }

    /// The authority the request is for: that of an absolute-form target, else the Host field
    /// (RFC 9112, 3.3); in HTTP/2 `:authority`, else the Host field (RFC 9113, 8.3.1). `None` when neither is
    /// there, or the value is no UTF-8.
    #[must_use]
    pub fn authority(&self) -> Option<&'a str> {
        let host = || self.field("host").and_then(|value| std::str::from_utf8(value).ok());
        if self.version == Version::Http2 {
            let authority = self.field(":authority").and_then(|value| std::str::from_utf8(value).ok());
            return authority.or_else(host);
        }
        split_absolute(self.target).map(|(_, authority, _)| authority).or_else(host)
    }

    /// Path without query; `/` for an absolute-form target without a path, `*` for asterisk form.
    #[must_use]
    pub fn path(&self) -> &'a str {
        let origin = self.origin_form();
        origin.split_once('?').map_or(origin, |(path, _)| path)
    }

    /// Query without its `?`; `None` when there is no `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.origin_form().split_once('?').map(|(_, query)| query)
    }

    fn origin_form(&self) -> &'a str {
        match split_absolute(self.target) {
            Some((_, _, "")) => "/",
            Some((_, _, rest)) => rest,
            None => self.target,
        }
    }
}

/// Splits an absolute-form target into scheme with `://`, authority, and the rest from its `/` or `?`.
#[must_use]
pub fn split_absolute(target: &str) -> Option<(&str, &str, &str)> {
    if target.starts_with('/') {
        return None;
    }
    let scheme_end = target.find("://")?.checked_add(3)?;
    let (scheme, rest) = target.split_at_checked(scheme_end)?;
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(authority_end)?;
    Some((scheme, authority, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str) -> RequestHead<'_> {
        RequestHead { method: "GET", target, version: Version::Http11, fields: &[], body: BodyLength::None }
    }

    #[test]
    fn target_forms_split_into_path_and_query() {
        assert_eq!((head("/a?b=c?d").path(), head("/a?b=c?d").query()), ("/a", Some("b=c?d")));
        assert_eq!((head("http://h:1").path(), head("http://h:1").authority()), ("/", Some("h:1")));
        assert_eq!(head("http://h/x?y").query(), Some("y"));
        assert_eq!(head("*").path(), "*");
        assert_eq!(head("/a://b").path(), "/a://b");
    }
}
