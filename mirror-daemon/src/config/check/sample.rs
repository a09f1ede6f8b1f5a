//! A mirror's `percentage`, `fraction` and `key`.

use super::names;
use crate::config::read::{Node, Section};
use crate::rule::{SampleBy, Share};

/// `percentage` or `fraction`; neither is all. `None` only after a fault was noted.
pub(super) fn share(section: &Section<'_>) -> Option<Share> {
    let percentage = section.node("percentage");
    let fraction = section.node("fraction");
    match (percentage, fraction) {
        (None, None) => Some(Share::ALL),
        (Some(node), None) => percent(node),
        (None, Some(node)) => fraction_of(node),
        (Some(node), Some(_)) => {
            node.fault("is there beside fraction; leave one of them out");
            None
        }
    }
}

fn percent(node: Node<'_>) -> Option<Share> {
    let example = "a number from 0 to 100, e.g. percentage = 12.5";
    let Some(text) = node.as_decimal() else {
        if node.is_text() {
            node.wrong_type(&format!("{example}, without quotes, or fraction = \"1/8\""));
        } else {
            node.wrong_type(example);
        }
        return None;
    };
    Share::percent(&text).inspect_err(|fault| node.fault(format!("{} {fault}", node.found()))).ok()
}

/// `"1/3"` or `{ numerator = 1, denominator = 3 }`; the denominator is 100 when it is left out.
fn fraction_of(node: Node<'_>) -> Option<Share> {
    let again = node.clone();
    let parts = match node.as_text() {
        Some(text) => text.split_once('/').and_then(|(numerator, denominator)| {
            Some((numerator.trim().parse().ok()?, denominator.trim().parse().ok()?))
        }),
        None if node.is_table() => {
            let section = node.section()?;
            let numerator = section.required("numerator", "numerator = 1");
            let numerator = numerator.and_then(|node| node.integer(0..=u32::MAX.into()));
            let denominator =
                section.or("denominator", Some(100), |node| Some(node.integer(1..=u32::MAX.into())));
            section.close();
            return checked(&again, numerator?, denominator?);
        }
        None => None,
    };
    let Some((numerator, denominator)) = parts else {
        again.wrong_type("\"1/3\" or { numerator = 1, denominator = 3 }");
        return None;
    };
    checked(&again, numerator, denominator)
}

fn checked(node: &Node<'_>, numerator: u64, denominator: u64) -> Option<Share> {
    let share = Share::fraction(numerator, denominator);
    share.inspect_err(|fault| node.fault(format!("{numerator}/{denominator} {fault}"))).ok()
}

/// `"request"`, `"header:NAME"`, `"cookie:NAME"`, `"query:NAME"` or `"client_ip"`.
pub(super) fn key(node: Node<'_>) -> Option<SampleBy> {
    let text = node.as_text().unwrap_or_default();
    let (kind, name) = text.split_once(':').unwrap_or((text, ""));
    let found = match (kind, name) {
        ("request", "") => Some(SampleBy::Request),
        ("client_ip", "") => Some(SampleBy::ClientIp),
        ("header", name) if names::is_token(name) => Some(SampleBy::Header(name.to_owned())),
        ("cookie", name) if names::is_token(name) => Some(SampleBy::Cookie(name.to_owned())),
        ("query", name) if !name.is_empty() => Some(SampleBy::Query(name.to_owned())),
        _ => None,
    };
    if found.is_none() {
        node.wrong_type("\"request\", \"header:NAME\", \"cookie:NAME\", \"query:NAME\" or \"client_ip\"");
    }
    found
}
