//! Rules as TOML, as a user would write them.

use super::matches::{Condition, RuleMatch};
use super::mirrors::{Host, Mirror};
use super::resolve::{Resolved, Route, Rule, Shadow};
use super::views::{PathKind, ValueKind};
use std::fmt::{self, Write};

impl Resolved {
    /// The rules as `[[shadow]]` and `[[route]]` tables, which may be added at the end of a configuration file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        for (shadow, name) in &self.shadows {
            write_shadow(out, name, shadow, &self.cluster_domain)?;
        }
        for route in &self.routes {
            write_route(out, route)?;
        }
        Ok(())
    }
}

/// How long a route is as TOML, in bytes.
pub(super) fn route_bytes(route: &Route) -> usize {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = write_route(&mut text, route);
    text.len()
}

fn write_shadow(out: &mut String, name: &str, shadow: &Shadow, cluster_domain: &str) -> fmt::Result {
    let Shadow { backend, host } = shadow;
    let authority =
        format!("{}.{}.svc.{cluster_domain}:{}", backend.service, backend.namespace, backend.port);
    writeln!(out, "[[shadow]]\nname = {}", quoted(name))?;
    writeln!(out, "url  = {}", quoted(&format!("http://{authority}")))?;
    if backend.is_http2 {
        writeln!(out, "protocol = \"http2\"")?;
    }
    match host {
        Host::Suffix => {}
        Host::Keep => writeln!(out, "host = \"keep\"")?,
        Host::Literal(literal) => writeln!(out, "host = {{ literal = {} }}", quoted(literal))?,
    }
    writeln!(out)
}

fn write_route(out: &mut String, route: &Route) -> fmt::Result {
    writeln!(out, "# {}\n[[route]]", route.object)?;
    if !route.hosts.is_empty() {
        let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
        writeln!(out, "hosts = {}", list(&hosts))?;
    }
    if !route.gateways.is_empty() {
        writeln!(out, "gateways = {}", list(&route.gateways))?;
    }
    for rule in &route.rules {
        let name = format!("{}/{} rule {}", route.object.namespace, route.object.name, rule.index);
        write_rule(out, &name, rule)?;
    }
    writeln!(out)
}

fn write_rule(out: &mut String, name: &str, rule: &Rule) -> fmt::Result {
    writeln!(out, "  [[route.rule]]\n  name = {}", quoted(name))?;
    match rule.matches.as_slice() {
        [] => {}
        [one] => writeln!(out, "  match = [{}]", show_match(one)?)?,
        several => {
            writeln!(out, "  match = [")?;
            for one in several {
                writeln!(out, "    {},", show_match(one)?)?;
            }
            writeln!(out, "  ]")?;
        }
    }
    if rule.mirrors.is_empty() {
        return writeln!(out, "  mirror = [] # its requests are not mirrored");
    }
    writeln!(out, "  mirror = [")?;
    for (shadow, Mirror { share, origin, .. }) in &rule.mirrors {
        writeln!(out, "    {{ shadow = {}, {share} }}, # {origin}", quoted(shadow))?;
    }
    writeln!(out, "  ]")
}

fn show_match(one: &RuleMatch) -> Result<String, fmt::Error> {
    let (kind, path) = &one.path;
    let kind = match kind {
        PathKind::Exact => "exact",
        PathKind::PathPrefix => "prefix",
        PathKind::RegularExpression => "regex",
    };
    let mut text = format!("{{ path = {{ {kind} = {} }}", quoted(path));
    if let Some(method) = &one.method {
        write!(text, ", methods = [{}]", quoted(method))?;
    }
    for (key, conditions) in [("headers", &one.headers), ("query", &one.query)] {
        if !conditions.is_empty() {
            let conditions: Vec<String> = conditions.iter().map(show_condition).collect();
            write!(text, ", {key} = [{}]", conditions.join(", "))?;
        }
    }
    text.push_str(" }");
    Ok(text)
}

fn show_condition(Condition { name, kind, value }: &Condition) -> String {
    let kind = match kind {
        ValueKind::Exact => "exact",
        ValueKind::RegularExpression => "regex",
    };
    format!("{{ name = {}, {kind} = {} }}", quoted(name), quoted(value))
}

fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// A TOML basic string, whatever is in it.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for found in text.chars() {
        match found {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(found);
            }
            found if found.is_control() => {
                // Control characters are below U+10000.
                quoted.push_str(&format!("\\u{:04X}", u32::from(found)));
            }
            found => quoted.push(found),
        }
    }
    quoted.push('"');
    quoted
}
