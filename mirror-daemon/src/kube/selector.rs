//! Label selectors (Kubernetes API conventions, `LabelSelector`): which objects are meant, by their labels.

use std::collections::BTreeMap;
use std::fmt;

/// Most requirements of one selector.
const MAX_REQUIREMENTS: usize = 64;
/// Longest name of a label, without its prefix, and longest value, in bytes.
const MAX_LABEL_BYTES: usize = 63;
/// Longest prefix of a label's name, in bytes.
const MAX_PREFIX_BYTES: usize = 253;

/// A label selector: all of its requirements hold. The default one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Name of the label, with its prefix.
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
}

/// What is asked of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// It is there, with one of these values.
    In(Vec<String>),
    /// It is not there, or has none of these values.
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// Why a text is no label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorFault {
    /// No label can have this name.
    #[error(
        "{0:?} is no label name; allowed are up to 63 letters, digits, `-`, `_` and `.`, with a DNS name and `/` in front"
    )]
    Key(String),
    /// No label can have this value.
    #[error("{0:?} is no label value; allowed are up to 63 letters, digits, `-`, `_` and `.`")]
    Value(String),
    /// Neither `=`, `==`, `!=`, `in (..)` nor `notin (..)`.
    #[error("{0:?} is no requirement; write `a=b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a` or `!a`")]
    Requirement(String),
    /// `in` or `notin` of nothing.
    #[error("{0:?} has no values; write them in ( ) with commas between")]
    NoValues(String),
    /// A parenthesis without its other half.
    #[error("has a parenthesis without its other half")]
    Parenthesis,
    /// More than `MAX_REQUIREMENTS`.
    #[error("has more than {MAX_REQUIREMENTS} requirements")]
    TooMany,
}

impl LabelSelector {
    /// Reads the text form, as `kubectl --selector` takes it: `a=b,c in (d,e),!f`. An empty text selects
    /// everything.
    ///
    /// # Errors
    /// See [`SelectorFault`].
    pub fn parse(text: &str) -> Result<Self, SelectorFault> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut requirements = Vec::new();
        for part in split(text)? {
            requirements.push(requirement(part.trim())?);
        }
        Self::new(requirements)
    }

    /// A selector of these requirements.
    ///
    /// # Errors
    /// A name or value that no label can have, `In` or `NotIn` without values, or too many requirements.
    pub fn new(requirements: Vec<Requirement>) -> Result<Self, SelectorFault> {
        if requirements.len() > MAX_REQUIREMENTS {
            return Err(SelectorFault::TooMany);
        }
        for Requirement { key, operator } in &requirements {
            if !is_key(key) {
                return Err(SelectorFault::Key(key.clone()));
            }
            let (Operator::In(values) | Operator::NotIn(values)) = operator else { continue };
            if values.is_empty() {
                return Err(SelectorFault::NoValues(key.clone()));
            }
            if let Some(value) = values.iter().find(|value| !is_value(value)) {
                return Err(SelectorFault::Value(value.clone()));
            }
        }
        Ok(Self { requirements })
    }

    /// Whether an object with these labels is meant.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

impl fmt::Display for LabelSelector {
    /// The text form, which an API server takes too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { key, operator }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match operator {
                Operator::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Operator::Exists => f.write_str(key)?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

/// Cuts at the commas that are not in parentheses.
fn split(text: &str) -> Result<Vec<&str>, SelectorFault> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut is_inside = false;
    let mut start = text;
    while let Some(at) = rest.find([',', '(', ')']) {
        let (_, from) = rest.split_at(at);
        let mut chars = from.chars();
        let found = chars.next();
        rest = chars.as_str();
        match found {
            Some('(') if !is_inside => is_inside = true,
            Some(')') if is_inside => is_inside = false,
            Some(',') if is_inside => {}
            Some(',') => {
                let length = start.len().saturating_sub(from.len());
                parts.push(start.get(..length).unwrap_or_default());
                start = rest;
            }
            _ => return Err(SelectorFault::Parenthesis),
        }
    }
    if is_inside {
        return Err(SelectorFault::Parenthesis);
    }
    parts.push(start);
    Ok(parts)
}

fn requirement(text: &str) -> Result<Requirement, SelectorFault> {
    let of = |key: &str, operator| Requirement { key: key.trim().to_owned(), operator };
    if let Some(key) = text.strip_prefix('!') {
        return Ok(of(key, Operator::DoesNotExist));
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(of(key, Operator::NotIn(vec![value.trim().to_owned()])));
    }
    if let Some((key, value)) = text.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Ok(of(key, Operator::In(vec![value.trim().to_owned()])));
    }
    if let Some((front, values)) = text.split_once('(') {
        let unread = || SelectorFault::Requirement(text.to_owned());
        let values = values.strip_suffix(')').ok_or_else(unread)?;
        // `()` stands for the empty value alone.
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = front.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok(of(key, Operator::In(values))),
            (Some(key), Some("notin"), None) => Ok(of(key, Operator::NotIn(values))),
            _ => Err(unread()),
        };
    }
    if text.contains(char::is_whitespace) {
        return Err(SelectorFault::Requirement(text.to_owned()));
    }
    Ok(of(text, Operator::Exists))
}

fn is_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| {
        (1..=MAX_PREFIX_BYTES).contains(&prefix.len())
            && prefix
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
    };
    !name.is_empty() && is_value(name) && prefix.is_none_or(is_prefix)
}

/// A value may be empty.
fn is_value(text: &str) -> bool {
    text.len() <= MAX_LABEL_BYTES
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn text_form_selects_as_kubectl_does() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], bool);
        let cases: [Case; 19] = [
            ("", &[], true),
            ("a=b", &[("a", "b")], true),
            ("a=b", &[("a", "c")], false),
            ("a=b", &[], false),
            ("a == b", &[("a", "b")], true),
            ("a=", &[("a", "")], true),
            ("a!=b", &[], true),
            ("a!=b", &[("a", "b")], false),
            ("c in (d,e)", &[("c", "e")], true),
            ("c in (d, e)", &[("c", "f")], false),
            ("c in ()", &[("c", "")], true),
            ("c notin (d,e)", &[("c", "e")], false),
            ("c notin (d,e)", &[], true),
            ("f", &[("f", "")], true),
            ("f", &[], false),
            ("!f", &[("f", "x")], false),
            ("!f", &[], true),
            ("a=b,c in (d,e),!f", &[("a", "b"), ("c", "d")], true),
            ("example.com/team in (a),!f", &[("example.com/team", "a"), ("f", "")], false),
        ];
        for (text, given, expected) in cases {
            let selector = LabelSelector::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!(selector.selects(&labels(given)), expected, "{text} {given:?}");
            let again = LabelSelector::parse(&selector.to_string()).unwrap();
            assert_eq!(again, selector, "{text} as {selector}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_with_its_fault() {
        for text in [
            "a=b,",
            ",",
            "a in (b",
            "a in b)",
            "a within (b)",
            "a b",
            "=b",
            "a=b=c",
            "a=b c",
            "a,(b)",
            "a in ((b))",
            "!",
            "a=/",
            "a/b/c",
            "in (a)",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text} {:?}", LabelSelector::parse(text));
        }
        assert_eq!(LabelSelector::parse(&vec!["a"; 65].join(",")), Err(SelectorFault::TooMany));
    }
}
