//! What `check` and `explain` print: a configuration in brief, and what becomes of one request. No I/O.

mod question;

pub use question::{ExplainError, Question};

use crate::config::{CapturePoint, Config, Leg, PodAttach, ShadowConfig, ShadowId};
use crate::http::{RequestHead, RequestNumber, Version};
use crate::rewrite::{HeadForm, shadow_head};
use crate::rule::{
    self, Considered, GatewaySet, KeyUsed, MirrorChoice, Outcome, SampleBy, Sender, is_mirrored,
};
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
    /// The version it comes in, `HTTP/1.1` or `HTTP/2`.
    pub version: &'static str,
    /// The request carries the loop mark: it is itself a mirror and no rule is asked.
    pub is_mirror: bool,
    /// The request is CONNECT: it is passed over with its connection or stream, and no rule is asked.
    pub is_connect: bool,
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
    /// The version of HTTP that the shadow is spoken to in, `HTTP/1.1` or `HTTP/2`.
    pub version: &'static str,
    /// The host that the shadow sees.
    pub host: String,
    /// The head that the shadow gets, as text, in HTTP/2 a line for each field; bytes that are no UTF-8 are
    /// replaced.
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

/// Says what becomes of a request.
///
/// # Errors
/// The request is none that could come over the wire.
pub fn explain(config: &Config, question: &Question<'_>) -> Result<Explanation, ExplainError> {
    question.ask(|head| explain_head(config, head, question.client_ip.unwrap_or(UNKNOWN_IP)))
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
    for pods in &config.pods.selections {
        let (selector, namespace, ports) = (&pods.selector, &pods.namespace, &capture.ports);
        let how = match &pods.attach {
            PodAttach::Cgroup => "by their cgroups".to_owned(),
            PodAttach::Interface(name) => format!("at their interface {name}"),
        };
        lines.push(format!("capture pods {selector} of {namespace} {how}, {leg} leg, ports {ports:?}"));
    }
    for shadow in &config.shadows {
        lines.push(format!("shadow {} at {}", shadow.name, show_url(shadow)));
    }
    match config.admin.listen {
        Some(listen) => lines.push(format!("admin pages at http://{listen}")),
        None => lines.push("admin pages off".to_owned()),
    }
    lines.push("this machine's interfaces, namespaces and cgroups were not looked up".to_owned());
    lines.extend(warnings(config).iter().map(|warning| format!("warning: {warning}")));
    lines.join("\n")
}

/// What `check` does not call a fault, but an operator may not have meant.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let kubernetes = &config.kubernetes;
    let missing: Vec<&str> = [
        (config.capture.points.is_empty() && !config.selects_pods(), "no capture point"),
        (config.shadows.is_empty() && !kubernetes.gateway_api, "no shadow"),
        (config.rules.route_count() == 0 && !kubernetes.gateway_api, "no route"),
    ]
    .into_iter()
    .filter_map(|(is_missing, what)| is_missing.then_some(what))
    .collect();
    let mut warnings = Vec::new();
    if !missing.is_empty() {
        warnings.push(format!("nothing is mirrored: {} in what was checked", missing.join(", ")));
    }
    if kubernetes.gateway_api && !config.selects_pods() {
        warnings.push(
            "kubernetes.gateway_api takes the routes of all Gateways, for every capture point: bind each Gateway to its pods \
             with [[kubernetes.gateway]], or choose the gateway's pods with capture.kubernetes"
                .to_owned(),
        );
    }
    warnings
}

fn explain_head(config: &Config, head: &RequestHead<'_>, peer: IpAddr) -> Explanation {
    let is_mirror = is_mirrored(head, &config.loop_mark);
    let is_connect = head.method == "CONNECT";
    let is_asked = !is_mirror && !is_connect;
    let considered = if is_asked { config.rules.considered(head, GatewaySet::ALL) } else { vec![] };
    let taken = considered.iter().find(|one| one.outcome == Outcome::Taken).map(|one| one.rule.to_owned());
    let sender = sender(config, head, peer);
    let choices = if is_asked { config.rules.choices(head, &sender) } else { vec![] };
    let mirrors = choices.iter().filter_map(|choice| explain_mirror(config, head, choice, &sender)).collect();
    Explanation {
        method: head.method.to_owned(),
        host: head.authority().filter(|host| !host.is_empty()).map(str::to_owned),
        target: head.target.to_owned(),
        version: if head.version == Version::Http2 { HTTP2 } else { HTTP1 },
        is_mirror,
        is_connect,
        rule: taken,
        considered: considered.into_iter().map(explain_rule).collect(),
        mirrors,
    }
}

const HTTP1: &str = "HTTP/1.1";
const HTTP2: &str = "HTTP/2";
const UNKNOWN_IP: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// No connection is known: what hangs on it is said to be by chance. The client's address is known when a
/// trusted proxy tells it.
fn sender(config: &Config, head: &RequestHead<'_>, peer: IpAddr) -> Sender {
    Sender {
        client_ip: rule::client_ip(head, config.trusted_proxies, peer),
        flow: crate::flow::FlowKey::default(),
        number: RequestNumber(0),
        gateways: GatewaySet::ALL,
    }
}

fn explain_rule(considered: Considered<'_>) -> ExplainedRule {
    let outcome = match considered.outcome {
        Outcome::Taken => "takes the request".to_owned(),
        Outcome::Guarded => {
            "takes the request, but its `methods` do not allow this method: not mirrored".to_owned()
        }
        Outcome::Unmirrored => "takes the request, and has no mirror: not mirrored".to_owned(),
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
        version: match form {
            HeadForm::Http1 => HTTP1,
            HeadForm::Http2 => HTTP2,
        },
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

/// "1 fault", "2 faults".
pub(crate) fn count(number: usize, what: &str) -> String {
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
        CapturePoint::Cgroup { .. } | CapturePoint::Pod { .. } => point.to_string(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("(no host)");
        writeln!(f, "{} {} for {host}, in {}", self.method, self.target, self.version)?;
        match &self.rule {
            _ if self.is_mirror => {
                writeln!(f, "not mirrored: it carries the loop mark, so it is a mirror itself")?
            }
            _ if self.is_connect => writeln!(
                f,
                "not mirrored: what follows CONNECT is no HTTP, so it is passed over as an upgrade"
            )?,
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
        writeln!(f, "mirror to {} at {}, in {}", self.shadow, self.url, self.version)?;
        writeln!(f, "  {} by {}: {picked}", self.share, self.key)?;
        writeln!(f, "  host {}", self.host)?;
        for line in self.head.lines().filter(|line| !line.is_empty()) {
            writeln!(f, "  > {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
