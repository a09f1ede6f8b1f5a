//! `explain` on the command line.

use super::SourceArgs;
use clap::Args;
use std::net::IpAddr;

const EXPLAIN_HELP: &str = "\
Examples:
  Which rule takes this request, and what would each shadow get as host?
    mirror-daemon explain --config mirror.toml --method GET --url http://shop.example/cart

  With headers, and a client address for sampling by client_ip:
    mirror-daemon explain --config mirror.toml --method POST --url http://shop.example/cart \\
        -H 'Cookie: session=abc' -H 'X-Canary: yes' --client-ip 203.0.113.9

  A gRPC call, as the shadow would get it in the version of HTTP that it is spoken to in:
    mirror-daemon explain --config mirror.toml --http2 --method POST \\
        --url http://shop.example/shop.Cart/Add -H 'Content-Type: application/grpc' -H 'TE: trailers'

  What would become of it by the rules of Kubernetes manifests?
    mirror-daemon explain --manifests manifests/ --url http://shop.example/cart

Nothing is sent. Exit codes:
  0  it was explained, whether or not a rule matches
  2  the command line, the configuration or a manifest is wrong
";

/// `explain`
#[derive(Clone, Debug, Args)]
#[command(after_help = EXPLAIN_HELP)]
pub struct ExplainArgs {
    /// By what it is explained.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Method of the request
    #[arg(long, default_value = "GET", value_parser = token)]
    pub method: String,
    /// URL of the request, with scheme and host; or a path, with -H 'Host: ...'
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// A header field of the request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header_field)]
    pub headers: Vec<HeaderArg>,
    /// The request comes in HTTP/2, not in HTTP/1.1
    #[arg(long)]
    pub http2: bool,
    /// Address of the client, for sampling by client_ip
    #[arg(long, value_name = "IP")]
    pub client_ip: Option<IpAddr>,
    /// Write the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// One header field of `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderArg {
    /// A token (RFC 9110, 5.1), case kept.
    pub name: String,
    /// Without surrounding white space; no CR, LF or NUL.
    pub value: String,
}

fn token(text: &str) -> Result<String, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_token) {
        return Ok(text.to_owned());
    }
    Err("letters, digits and !#$%&'*+-.^_`|~ only (RFC 9110, 5.6.2)".to_owned())
}

fn header_field(text: &str) -> Result<HeaderArg, String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value'")?;
    let name = token(name).map_err(|error| format!("header name {name:?}: {error}"))?;
    if value.contains(['\r', '\n', '\0']) {
        return Err("a header value can't have a line end or NUL in it".to_owned());
    }
    Ok(HeaderArg { name, value: value.trim_matches([' ', '\t']).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_are_split_at_the_first_colon() {
        let field = header_field("X-Url: http://a:1/ ").unwrap();
        assert_eq!((field.name.as_str(), field.value.as_str()), ("X-Url", "http://a:1/"));
        assert_eq!(header_field("Empty:").unwrap().value, "");
        assert!(header_field("a b: c").is_err() && header_field("a: b\r\nc: d").is_err());
    }
}
