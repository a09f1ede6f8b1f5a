//! The request that is asked about, made as a client would send it.

use crate::config::is_token;
use crate::http::{BodyLength, Field, RequestHead, Version, message::split_absolute};
use std::net::IpAddr;

/// A request, in words of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// The method.
    pub method: &'a str,
    /// An absolute URL, whose host becomes Host (unless there is one among the headers) or `:authority`; or a
    /// path, where there is a Host among the headers, though an empty one.
    pub url: &'a str,
    /// Pairs of name and value. In HTTP/2 names go out in lower case, as clients send them.
    pub headers: &'a [(String, String)],
    /// The peer's address, if it matters.
    pub client_ip: Option<IpAddr>,
    /// The request comes in HTTP/2, not in HTTP/1.1.
    pub is_http2: bool,
}

/// Why a request can't be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The URL is neither absolute nor a path.
    #[error("\"{0}\" is no URL; write one such as http://shop.example/cart")]
    Url(String),
    /// A path, and nobody says of which host.
    #[error("\"{0}\" names no host; {with_host}-H \"Host: shop.example\"", with_host = with_host(.0))]
    NoHost(String),
    /// The method is no token.
    #[error("\"{0}\" is no method; write a word such as GET")]
    Method(String),
    /// A header that HTTP/2 does not have.
    #[error("header \"{0}\" is none of HTTP/2's: it belongs to a connection of HTTP/1 (RFC 9113, 8.2.2)")]
    Http2Header(String),
    /// A header is no `name: value`.
    #[error("header \"{0}\" can't be sent; a name is a token, and a value has no control characters")]
    Header(String),
}

fn with_host(target: &str) -> String {
    match target.starts_with('/') {
        true => format!("write http://shop.example{target}, or add "),
        // "*" has no other form.
        false => "add ".to_owned(),
    }
}

impl Question<'_> {
    /// Hands the head to `answer`.
    pub(super) fn ask<T>(&self, answer: impl FnOnce(&RequestHead<'_>) -> T) -> Result<T, ExplainError> {
        if !is_token(self.method) {
            return Err(ExplainError::Method(self.method.to_owned()));
        }
        let url = split_url(self.url)?;
        let headers = self.checked_headers()?;
        let mut fields = Vec::new();
        let mut add = |name, value| fields.push(Field { name, value, line: b"" });
        if self.is_http2 {
            add(":scheme", url.scheme.as_bytes());
        }
        let has_host = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        // Clients hardly ever leave it out, people do. `-H Host:` asks about a request without one.
        if url.authority.is_empty() && !has_host {
            return Err(ExplainError::NoHost(self.url.to_owned()));
        }
        if !url.authority.is_empty() && (self.is_http2 || !has_host) {
            add(if self.is_http2 { ":authority" } else { "Host" }, url.authority.as_bytes());
        }
        for (name, value) in &headers {
            add(name, value.as_bytes());
        }
        let body = body_length(&fields);
        let version = if self.is_http2 { Version::Http2 } else { Version::Http11 };
        let target = url.target.as_str();
        Ok(answer(&RequestHead { method: self.method, target, version, fields: &fields, body }))
    }

    fn checked_headers(&self) -> Result<Vec<(String, &str)>, ExplainError> {
        let check = |(name, value): &(String, String)| {
            if !is_token(name) || value.chars().any(|found| found.is_control() && found != '\t') {
                return Err(ExplainError::Header(format!("{name}: {value}")));
            }
            Ok(())
        };
        self.headers.iter().try_for_each(check)?;
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.trim()));
        if !self.is_http2 {
            return Ok(headers.map(|(name, value)| (name.to_owned(), value)).collect());
        }
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value));
        headers
            .map(|(name, value)| match is_of_http1(&name, value) {
                true => Err(ExplainError::Http2Header(format!("{name}: {value}"))),
                false => Ok((name, value)),
            })
            .collect()
    }
}

/// Fields that make a request of HTTP/2 malformed (RFC 9113, 8.2.2). `name` is in lower case.
fn is_of_http1(name: &str, value: &str) -> bool {
    match name {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => true,
        "te" => !value.eq_ignore_ascii_case("trailers"),
        _ => false,
    }
}

struct Url<'a> {
    scheme: &'static str,
    /// Empty when there is none.
    authority: &'a str,
    target: String,
}

/// The parts of a URL as a client would send them, with an origin-form target (RFC 9112, 3.2.1).
fn split_url(url: &str) -> Result<Url<'_>, ExplainError> {
    let fault = || ExplainError::Url(url.to_owned());
    if url.is_empty() || url.chars().any(|found| found.is_control() || found == ' ') {
        return Err(fault());
    }
    let bare = url.split_once('#').map_or(url, |(bare, _)| bare);
    if bare.starts_with('/') || bare == "*" {
        return Ok(Url { scheme: "http", authority: "", target: bare.to_owned() });
    }
    let (scheme, authority, rest) = split_absolute(bare).ok_or_else(fault)?;
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    let scheme = if is("https://") { "https" } else { "http" };
    if !(is("http://") || is("https://")) || authority.is_empty() {
        return Err(fault());
    }
    let target = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    Ok(Url { scheme, authority, target })
}

fn body_length(fields: &[Field<'_>]) -> BodyLength {
    if fields.iter().any(|field| field.is("transfer-encoding")) {
        return BodyLength::Chunked;
    }
    let length = fields.iter().find(|field| field.is("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    length.map_or(BodyLength::None, BodyLength::Known)
}
