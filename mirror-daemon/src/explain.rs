//! What `check` and `explain` print: a configuration in brief, and what becomes of one request. No I/O.

use crate::config::{CapturePoint, Config, Leg, ShadowConfig, ShadowId, is_token};
use crate::http::{BodyLength, Field, RequestHead, RequestNumber, Version, message::split_absolute};
use crate::rewrite::{HeadForm, shadow_head};
use crate::rule::{self, Considered, KeyUsed, MirrorChoice, Outcome, SampleBy, Sender, is_mirrored};
use serde::Serialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// What becomes of one request, for a person or as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The method.
    pub method: String,
    /// The host that rules are matched with; `None`: the request names none.
    pub host: Option<String>,
    /// The path, with its query.
    pub target: String,
    /// The request carries the loop mark: it is itself a mirror and no rule is asked.
    pub is_mirror: bool,
    /// Name of the rule that takes it; `None`: nothing is mirrored.
    pub rule: Option<String>,
    /// Every alternative of every rule in order of precedence, and what became of it.
    pub considered: Vec<ExplainedRule>,
    /// The mirrors of the rule that takes it.
    pub mirrors: Vec<ExplainedMirror>,
}

/// One alternative of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedRule {
    /// The rule's name.
    pub rule: String,
    /// Its condition in words.
    pub condition: String,
    /// What became of it, in words.
    pub outcome: String,
}

/// One mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedMirror {
    /// The shadow's name.
    pub shadow: String,
    /// The shadow's URL.
    pub url: String,
    /// Its share, e.g. `12.5 %` or `1/3`.
    pub share: String,
    /// What the share is taken by, and what that is for this request.
    pub key: String,
    /// Whether this request is sent.
    pub picked: Picked,
    /// The host that the shadow sees.
    pub host: String,
    /// The head that the shadow gets, as text; bytes that are no UTF-8 are replaced.
    pub head: String,
}

/// Whether a request is picked by a mirror's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Picked {
    /// It is, on every node and each time.
    Yes,
    /// It is not, on no node, ever.
    No,
    /// Each request is decided by itself, by its connection and number, or by its client's address: nothing
    /// that could be told beforehand.
    ByChance,
}

/// Why a request can't be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The URL is neither absolute nor a path.
    #[error("\"{0}\" is no URL; write http://host/path, or /path with -H \"Host: ...\"")]
    Url(String),
    /// The method is no token.
    #[error("\"{0}\" is no method; write a word such as GET")]
    Method(String),
    /// A header is no `name: value`.
    #[error("header \"{0}\" can't be sent; a name is a token, and a value has no control characters")]
    Header(String),
}

/// Says what becomes of a request for `url` with `headers`, which are pairs of name and value. The URL's host
/// becomes the Host header unless there is one. `client_ip` is the peer's address, if it matters.
///
/// # Errors
/// The request is none that could come over the wire.
pub fn explain(
    config: &Config,
    method: &str,
    url: &str,
    headers: &[(String, String)],
    client_ip: Option<IpAddr>,
) -> Result<Explanation, ExplainError> {
    if !is_token(method) {
        return Err(ExplainError::Method(method.to_owned()));
    }
    let (authority, target) = split_url(url)?;
    let mut fields = Vec::new();
    if !authority.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        fields.push(Field { name: "Host", value: authority.as_bytes(), line: b"" });
    }
    for (name, value) in headers {
        if !is_token(name) || value.chars().any(|found| found.is_control() && found != '\t') {
            return Err(ExplainError::Header(format!("{name}: {value}")));
        }
        fields.push(Field { name, value: value.trim().as_bytes(), line: b"" });
    }
    let body = body_length(&fields);
    let head = RequestHead { method, target: &target, version: Version::Http11, fields: &fields, body };
    Ok(explain_head(config, &head, client_ip.unwrap_or(UNKNOWN_IP)))
}

/// A configuration that was found right, in brief: `ok: 1 capture point, 2 routes ...` and what they are.
#[must_use]
pub fn summary(config: &Config) -> String {
    let capture = &config.capture;
    let leg = match capture.leg {
        Leg::Downstream => "downstream",
        Leg::Upstream => "upstream",
    };
    let mut lines = vec![format!(
        "ok: {}, {}, {} with {}",
        count(capture.points.len(), "capture point"),
        count(config.shadows.len(), "shadow"),
        count(config.rules.route_count(), "route"),
        count(config.rules.rule_count(), "rule"),
    )];
    for point in &capture.points {
        lines.push(format!("capture {}, {leg} leg, ports {:?}", show_point(point), capture.ports));
    }
    for shadow in &config.shadows {
        lines.push(format!("shadow {} at {}", shadow.name, show_url(shadow)));
    }
    match config.admin.listen {
        Some(listen) => lines.push(format!("admin pages at http://{listen}")),
        None => lines.push("admin pages off".to_owned()),
    }
    lines.join("\n")
}

fn explain_head(config: &Config, head: &RequestHead<'_>, peer: IpAddr) -> Explanation {
    let is_mirror = is_mirrored(head, &config.loop_mark);
    let considered = config.rules.considered(head);
    let taken = considered.iter().find(|one| one.outcome == Outcome::Taken).map(|one| one.rule.to_owned());
    let sender = sender(config, head, peer);
    let choices = if is_mirror { vec![] } else { config.rules.choices(head, &sender) };
    let mirrors = choices.iter().filter_map(|choice| explain_mirror(config, head, choice, &sender)).collect();
    Explanation {
        method: head.method.to_owned(),
        host: head.authority().filter(|host| !host.is_empty()).map(str::to_owned),
        target: head.target.to_owned(),
        is_mirror,
        rule: taken.filter(|_| !is_mirror),
        considered: considered.into_iter().map(explain_rule).collect(),
        mirrors,
    }
}

const UNKNOWN_IP: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// No connection is known: what hangs on it is said to be by chance. The client's address is known when a
/// trusted proxy tells it.
fn sender(config: &Config, head: &RequestHead<'_>, peer: IpAddr) -> Sender {
    Sender {
        client_ip: rule::client_ip(head, config.trusted_proxies, peer),
        flow: crate::flow::FlowKey::default(),
        number: RequestNumber(0),
    }
}

fn explain_rule(considered: Considered<'_>) -> ExplainedRule {
    let outcome = match considered.outcome {
        Outcome::Taken => "takes the request".to_owned(),
        Outcome::Guarded => {
            "takes the request, but its `methods` do not allow this method: not mirrored".to_owned()
        }
        Outcome::Outranked => "matches too, but another takes precedence".to_owned(),
        Outcome::Mismatch(mismatch) => format!("no: {mismatch}"),
    };
    ExplainedRule { rule: considered.rule.to_owned(), condition: considered.condition, outcome }
}

fn explain_mirror(
    config: &Config,
    head: &RequestHead<'_>,
    choice: &MirrorChoice<'_>,
    sender: &Sender,
) -> Option<ExplainedMirror> {
    let ShadowId(index) = choice.shadow;
    let shadow = config.shadows.get(usize::from(index))?;
    let is_keyed = match choice.by {
        SampleBy::ClientIp => sender.client_ip != UNKNOWN_IP,
        _ => choice.key != KeyUsed::Connection,
    };
    let is_known = choice.share.is_certain() || is_keyed;
    let picked = match (is_known, choice.picked) {
        (false, _) => Picked::ByChance,
        (true, true) => Picked::Yes,
        (true, false) => Picked::No,
    };
    let key = match choice.key {
        KeyUsed::Wanted => choice.by.to_string(),
        KeyUsed::RequestId => format!("{}, here the request id header", choice.by),
        KeyUsed::Connection => format!("{}, here the connection and the request's number in it", choice.by),
    };
    let form = HeadForm::of(shadow.protocol, head.version);
    let wire = shadow_head(head, &shadow.rewrite, &config.loop_mark, form).head.wire;
    let head = String::from_utf8_lossy(&wire).into_owned();
    Some(ExplainedMirror {
        shadow: shadow.name.clone(),
        url: show_url(shadow),
        share: choice.share.to_string(),
        key,
        picked,
        host: host_line(&head),
        head,
    })
}

/// The first of `:authority` and Host.
fn host_line(head: &str) -> String {
    let is_host = |name: &str| name.eq_ignore_ascii_case("host") || name == ":authority";
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let host = fields.find(|(name, _)| is_host(name));
    host.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

/// Authority and origin-form target of a URL, as a client would send them (RFC 9112, 3.2.1).
fn split_url(url: &str) -> Result<(&str, String), ExplainError> {
    let fault = || ExplainError::Url(url.to_owned());
    if url.is_empty() || url.chars().any(|found| found.is_control() || found == ' ') {
        return Err(fault());
    }
    let bare = url.split_once('#').map_or(url, |(bare, _)| bare);
    if bare.starts_with('/') || bare == "*" {
        return Ok(("", bare.to_owned()));
    }
    let (scheme, authority, rest) = split_absolute(bare).ok_or_else(fault)?;
    let is_http = scheme.eq_ignore_ascii_case("http://") || scheme.eq_ignore_ascii_case("https://");
    if !is_http || authority.is_empty() {
        return Err(fault());
    }
    let target = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    Ok((authority, target))
}

fn body_length(fields: &[Field<'_>]) -> BodyLength {
    if fields.iter().any(|field| field.is("transfer-encoding")) {
        return BodyLength::Chunked;
    }
    let length = fields.iter().find(|field| field.is("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    length.map_or(BodyLength::None, BodyLength::Known)
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn show_url(shadow: &ShadowConfig) -> String {
    let scheme = if shadow.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", shadow.rewrite.own_authority)
}

fn show_point(point: &CapturePoint) -> String {
    match point {
        CapturePoint::Interface { name, netns, host_side } => {
            let side = if *host_side { ", host side" } else { "" };
            let netns = netns.as_ref().map(|path| format!(" in {}", path.display())).unwrap_or_default();
            format!("interface {name}{netns}{side}")
        }
        CapturePoint::Cgroup { path } => format!("cgroup {}", path.display()),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("(no host)");
        writeln!(f, "{} {} for {host}", self.method, self.target)?;
        match &self.rule {
            _ if self.is_mirror => {
                writeln!(f, "not mirrored: it carries the loop mark, so it is a mirror itself")?
            }
            Some(rule) => writeln!(f, "taken by {rule}")?,
            None => writeln!(f, "not mirrored: no rule takes it")?,
        }
        if !self.considered.is_empty() {
            writeln!(f, "\nrules, in order of precedence:")?;
        }
        for one in &self.considered {
            writeln!(f, "  {} ({}): {}", one.rule, one.condition, one.outcome)?;
        }
        for mirror in &self.mirrors {
            write!(f, "\n{mirror}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ExplainedMirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let picked = match self.picked {
            Picked::Yes => "sent",
            Picked::No => "sampled out",
            Picked::ByChance => "sent or sampled out, each request by itself",
        };
        writeln!(f, "mirror to {} at {}", self.shadow, self.url)?;
        writeln!(f, "  {} by {}: {picked}", self.share, self.key)?;
        writeln!(f, "  host {}", self.host)?;
        for line in self.head.lines().filter(|line| !line.is_empty()) {
            writeln!(f, "  > {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
[capture]
interfaces = ["eth0", { name = "veth1", netns = "gw", side = "host" }]
ports = [8080]
[[shadow]]
name = "v2"
url = "http://v2.example:8000"
[[shadow]]
name = "v3"
url = "https://v3.example"
host = "keep"
redact = { query = ["token"] }
[[route]]
hosts = ["shadowing.example"]
  [[route.rule]]
  match = [{ path = { prefix = "/write" } }]
  methods = "safe"
  mirror = [{ shadow = "v2" }]
  [[route.rule]]
  mirror = [
    { shadow = "v2", percentage = 100 },
    { shadow = "v3", percentage = 50, key = "header:x-user" },
    { shadow = "v3", percentage = 0 },
  ]
[[route]]
  [[route.rule]]
  match = [{ path = { exact = "/other" }, headers = [{ name = "x-a", exact = "1" }] }]
  mirror = [{ shadow = "v2", fraction = "1/3", key = "client_ip" }]
"#;

    fn ask(method: &str, url: &str, headers: &[(&str, &str)]) -> Explanation {
        let config = Config::from_toml(TOML, "m").expect("right");
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        explain(&config, method, url, &headers, None).expect("a request")
    }

    #[test]
    fn explanation_names_rule_mirrors_hosts_and_heads() {
        let found = ask("GET", "http://shadowing.example/get?token=1", &[("X-User", "u1")]);
        assert_eq!(found.rule.as_deref(), Some("route[0].rule[1]"));
        let [first, second, third] = found.mirrors.as_slice() else { panic!("three mirrors") };
        assert_eq!(
            (first.host.as_str(), first.url.as_str()),
            ("shadowing.example-shadow", "http://v2.example:8000")
        );
        assert_eq!((first.picked, first.share.as_str()), (Picked::Yes, "100 %"));
        assert!(first.head.starts_with("GET /get?token=1 HTTP/1.1\r\nHost: shadowing.example-shadow\r\n"));
        assert_eq!(second.host, "shadowing.example");
        assert_ne!(second.picked, Picked::ByChance, "the key is known");
        assert!(second.head.contains("/get?token=redacted"));
        assert_eq!(third.picked, Picked::No);
        let text = found.to_string();
        assert!(text.contains("taken by route[0].rule[1]"), "{text}");
        assert!(
            text.contains("route[0].rule[0] (host shadowing.example, path prefix /write): no: other path"),
            "{text}"
        );
        assert!(serde_json::to_string(&found).expect("JSON").contains("\"picked\":\"yes\""));
    }

    #[test]
    fn what_hangs_on_the_connection_is_said_to_be_by_chance() {
        let found = ask("GET", "http://shadowing.example/", &[]);
        assert_eq!(found.mirrors[1].picked, Picked::ByChance);
        let found = ask("GET", "http://shadowing.example/", &[("x-request-id", "7")]);
        assert_ne!(found.mirrors[1].picked, Picked::ByChance);
        let found = ask("GET", "/other", &[("x-a", "1"), ("Host", "h")]);
        assert_eq!((found.mirrors[0].picked, found.mirrors[0].share.as_str()), (Picked::ByChance, "1/3"));
    }

    #[test]
    fn client_address_from_a_trusted_proxy_decides_by_client_ip() {
        let config = Config::from_toml(&format!("trusted_proxies = 1\n{TOML}"), "m").expect("right");
        let headers =
            [("x-a".to_owned(), "1".to_owned()), ("X-Forwarded-For".to_owned(), "192.0.2.1".to_owned())];
        let found = explain(&config, "GET", "/other", &headers, None).expect("a request");
        assert_ne!(found.mirrors[0].picked, Picked::ByChance);
    }

    #[test]
    fn write_guard_and_mismatches_are_explained() {
        let found = ask("POST", "http://shadowing.example/write", &[]);
        assert_eq!((found.rule, found.mirrors), (None, vec![]));
        assert!(found.considered.iter().any(|one| one.outcome.contains("`methods` do not allow")));
        let found = ask("GET", "http://h/other", &[]);
        assert!(found.considered.iter().any(|one| one.outcome == "no: header x-a differs or is missing"));
        assert!(found.to_string().contains("no rule takes it"));
    }

    #[test]
    fn request_with_the_loop_mark_is_not_mirrored() {
        let found = ask("GET", "http://shadowing.example/", &[("X-Mirrored-By", "x")]);
        assert!(found.is_mirror && found.rule.is_none() && found.mirrors.is_empty());
    }

    #[test]
    fn requests_that_can_not_be_sent_are_refused() {
        let config = Config::from_toml(TOML, "m").expect("right");
        let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        for url in ["", "h/p", "ftp://h/", "http:///p", "http://h/a b", "/\n"] {
            assert!(matches!(explain(&config, "GET", url, &[], None), Err(ExplainError::Url(_))), "{url}");
        }
        assert!(matches!(explain(&config, "G T", "/", &[], None), Err(ExplainError::Method(_))));
        assert!(matches!(
            explain(&config, "GET", "/", &header("a b", "1"), None),
            Err(ExplainError::Header(_))
        ));
        assert!(matches!(
            explain(&config, "GET", "/", &header("a", "1\r\nb: 2"), None),
            Err(ExplainError::Header(_))
        ));
    }

    #[test]
    fn summary_counts_and_names_what_there_is() {
        let config = Config::from_toml(TOML, "m").expect("right");
        let expected = "ok: 2 capture points, 2 shadows, 2 routes with 3 rules\n\
                        capture interface eth0, downstream leg, ports [8080]\n\
                        capture interface veth1 in /run/netns/gw, host side, downstream leg, ports [8080]\n\
                        shadow v2 at http://v2.example:8000\n\
                        shadow v3 at https://v3.example\n\
                        admin pages at http://127.0.0.1:9900";
        assert_eq!(summary(&config), expected);
    }
}
