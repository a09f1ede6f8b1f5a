//! PURE. Turns the lines of a head or of trailers into what `h2` wants.

use ::http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use ::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use ::http::{Method, Request, Version};
use bytes::{BufMut as _, Bytes, BytesMut};
use memchr::{memchr, memmem};
use std::fmt::Write as _;

/// The request that the lines of `wire` describe ([`HeadForm::Http2`](crate::rewrite::HeadForm)).
///
/// An authority that `http` does not take (an IPv6 address without brackets, say) goes into `host`, which means
/// the same (RFC 9113, 8.3.1). `None`: it cannot be said with `http` (a fragment in the path, say), or it is no
/// head.
pub(super) fn request(wire: &Bytes) -> Option<Request<()>> {
    let mut pseudo = Pseudo::default();
    let mut headers = HeaderMap::new();
    for line in lines(wire) {
        let (name, value) = split(&line)?;
        match &name[..] {
            b":method" => pseudo.method = Some(Method::from_bytes(&value).ok()?),
            b":scheme" => pseudo.scheme = Some(Scheme::try_from(&value[..]).ok()?),
            b":authority" => pseudo.authority = Some(value),
            b":path" => pseudo.path = Some(value),
            _ => append(&mut headers, &name, value)?,
        }
    }
    let mut request = Request::new(());
    *request.method_mut() = pseudo.method.take()?;
    (*request.uri_mut(), *request.version_mut()) = pseudo.target(&mut headers)?;
    *request.headers_mut() = headers;
    Some(request)
}

/// The trailers that the lines describe. `None`: they cannot be said.
pub(super) fn trailers(wire: &Bytes) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines(wire) {
        let (name, value) = split(&line)?;
        append(&mut headers, &name, value)?;
    }
    Some(headers)
}

#[derive(Default)]
struct Pseudo {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
}

impl Pseudo {
    /// `h2` sends `:scheme` as it is with an authority, and `http` without one, which it takes for a request of
    /// HTTP/1.
    fn target(self, headers: &mut HeaderMap) -> Option<(Uri, Version)> {
        let mut parts = ::http::uri::Parts::default();
        parts.path_and_query = Some(path(self.path?)?);
        let authority = match self.authority {
            Some(authority) if !authority.is_empty() => authority,
            _ => return Some((Uri::from_parts(parts).ok()?, Version::HTTP_11)),
        };
        match Authority::from_maybe_shared(authority.clone()) {
            Ok(authority) => {
                parts.authority = Some(authority);
                parts.scheme = Some(self.scheme?);
                Some((Uri::from_parts(parts).ok()?, Version::HTTP_2))
            }
            Err(_) => {
                if !headers.contains_key(HOST) {
                    headers.try_insert(HOST, HeaderValue::from_maybe_shared(authority).ok()?).ok()?;
                }
                Some((Uri::from_parts(parts).ok()?, Version::HTTP_11))
            }
        }
    }
}

/// What `http` refuses and RFC 3986 does not know goes percent-encoded, which means the same. `None`: a
/// fragment, which `http` would cut off, or no path at all.
fn path(value: Bytes) -> Option<PathAndQuery> {
    if let Some(path) = path_as_it_is(&value) {
        return Some(path);
    }
    let mut encoded = BytesMut::with_capacity(value.len().saturating_mul(3));
    for byte in value {
        if byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte) {
            encoded.put_u8(byte);
        } else {
            // Writing to a BytesMut cannot fail: it grows.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    path_as_it_is(&encoded.freeze())
}

fn path_as_it_is(value: &Bytes) -> Option<PathAndQuery> {
    PathAndQuery::from_maybe_shared(value.clone()).ok().filter(|path| path.as_str().len() == value.len())
}

fn append(headers: &mut HeaderMap, name: &[u8], value: Bytes) -> Option<()> {
    let name = HeaderName::from_bytes(name).ok()?;
    headers.try_append(name, HeaderValue::from_maybe_shared(value).ok()?).ok()?;
    Some(())
}

/// The lines, without their ends.
fn lines(wire: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut rest = wire.clone();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memmem::find(&rest, b"\r\n").unwrap_or(rest.len());
        let line = rest.split_to(end);
        drop(rest.split_to(rest.len().min(2)));
        Some(line)
    })
}

/// Name and value; the colon that a pseudo-header begins with belongs to its name.
fn split(line: &Bytes) -> Option<(Bytes, Bytes)> {
    let from = usize::from(line.first() == Some(&b':'));
    let colon = memchr(b':', line.get(from..)?)?.checked_add(from)?;
    let value = line.slice(colon.checked_add(1)?..);
    let blank = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    Some((line.slice(..colon), value.slice(blank..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(wire: &str) -> Option<Request<()>> {
        request(&Bytes::copy_from_slice(wire.as_bytes()))
    }

    #[test]
    fn fields_keep_order_duplicates_and_bytes() {
        let request = made(
            ":method: POST\r\n:scheme: https\r\n:authority: h-shadow:8443\r\n:path: /x{a}?y=%20|\r\n\
             cookie: a=1\r\nx-b: 2\r\ncookie: b=2\r\nx-obs: \u{e9}\r\nx-empty: \r\n",
        )
        .unwrap();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri().scheme_str(), Some("https"));
        assert_eq!(request.uri().authority().unwrap().as_str(), "h-shadow:8443");
        assert_eq!(request.uri().path_and_query().unwrap().as_str(), "/x{a}?y=%20|");
        assert_eq!(request.version(), Version::HTTP_2);
        let cookies: Vec<_> = request.headers().get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(request.headers()["x-obs"].as_bytes(), "\u{e9}".as_bytes());
        assert_eq!(request.headers()["x-empty"], "");
    }

    #[test]
    fn suffixed_authorities_of_all_kinds_are_said_one_way_or_the_other() {
        for authority in
            ["a.b-shadow", "a.b-shadow:80", "[::1]-shadow:80", "[::1]-shadow", "h-shadow:", "::1-shadow"]
        {
            let wire = format!(":method: GET\r\n:scheme: http\r\n:authority: {authority}\r\n:path: /\r\n");
            let request = made(&wire).unwrap();
            let said = request.uri().authority().map(|authority| authority.as_str().to_owned());
            let said = said.or_else(|| Some(request.headers().get("host")?.to_str().unwrap().to_owned()));
            assert_eq!(said.as_deref(), Some(authority));
        }
    }

    #[test]
    fn paths_that_are_no_uri_go_percent_encoded() {
        for (path, said) in [
            ("/a{b}|c^?d={e}|f^`~", "/a{b}|c^?d={e}|f^`~"),
            ("/a b\"<c>?d=\"e\\", "/a%20b%22%3Cc%3E?d=%22e%5C"),
        ] {
            let wire = format!(":method: GET\r\n:scheme: http\r\n:authority: h\r\n:path: {path}\r\n");
            assert_eq!(made(&wire).unwrap().uri().path_and_query().unwrap().as_str(), said);
        }
    }

    #[test]
    fn star_and_missing_authority_are_requests_too() {
        let request = made(":method: OPTIONS\r\n:scheme: http\r\n:authority: h\r\n:path: *\r\n").unwrap();
        assert_eq!(request.uri().path(), "*");
        let request = made(":method: GET\r\n:scheme: http\r\n:path: /x\r\nhost: h\r\n").unwrap();
        assert_eq!((request.version(), request.uri().path()), (Version::HTTP_11, "/x"));
    }

    #[test]
    fn what_cannot_be_said_whole_is_not_said() {
        for wire in [
            "",
            "GET / HTTP/1.1\r\nhost: h\r\n\r\n",
            ":method: GET\r\n:scheme: http\r\n:authority: h\r\n",
            ":method: GET\r\n:scheme: http\r\n:authority: h\r\n:path: /a#b\r\n",
            ":method: GET\r\n:scheme: http\r\n:authority: h\r\n:path: /\r\nbad name: x\r\n",
            ":method: GET\r\n:scheme: http\r\n:authority: h\r\n:path: /\r\nx: \u{1}\r\n",
        ] {
            assert!(made(wire).is_none(), "{wire}");
        }
    }

    #[test]
    fn trailers_are_lower_cased() {
        let trailers = trailers(&Bytes::from_static(b"Grpc-Status: 0\r\nX: y\r\n")).unwrap();
        let lines: Vec<_> =
            trailers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(lines, [("grpc-status", "0"), ("x", "y")]);
    }
}
