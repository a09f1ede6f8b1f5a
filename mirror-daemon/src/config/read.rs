//! Typed readers over parsed TOML, which note faults and go on.
//!
//! A reader returns `None` where there is nothing to use: the key is absent, or its fault has been noted.

use super::fault::{ConfigFaults, Fault};
use super::units;
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Most faults that are kept: enough for anyone, and a bound for hostile text.
const MAX_FAULTS: usize = 1000;

/// The text of a configuration and what was found wrong with it.
pub(super) struct Document<'t> {
    text: &'t str,
    faults: RefCell<Vec<(usize, Fault)>>,
}

/// A value and where it is.
#[derive(Clone)]
pub(super) struct Node<'d> {
    document: &'d Document<'d>,
    path: String,
    /// Byte offset in the text.
    at: usize,
    value: &'d DeValue<'d>,
}

/// A table whose keys are asked for one by one.
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    path: String,
    at: usize,
    /// `None`: the section is not there, which is as an empty one.
    table: Option<&'d DeTable<'d>>,
    known: RefCell<Vec<&'static str>>,
}

impl<'t> Document<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, faults: RefCell::default() }
    }

    /// Parses the text; what is no TOML is noted.
    pub(super) fn parse(&self) -> Spanned<DeTable<'t>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            self.fault("", at, format!("not TOML: {}", error.message()));
        }
        table
    }

    /// The whole document as a section.
    pub(super) fn root<'d>(&'d self, table: &'d DeTable<'d>) -> Section<'d> {
        Section { document: self, path: String::new(), at: 0, table: Some(table), known: RefCell::default() }
    }

    pub(super) fn has_faults(&self) -> bool {
        !self.faults.borrow().is_empty()
    }

    /// All faults, by their place in the text.
    pub(super) fn into_faults(self, source_name: &str) -> ConfigFaults {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|(at, _)| *at);
        let faults = faults.into_iter().map(|(_, fault)| fault).collect();
        ConfigFaults { source_name: source_name.to_owned(), faults }
    }

    fn fault(&self, path: &str, at: usize, message: String) {
        let before = self.text.as_bytes().get(..at).unwrap_or(self.text.as_bytes());
        let line = memchr::memchr_iter(b'\n', before).count().saturating_add(1);
        let mut faults = self.faults.borrow_mut();
        if faults.len() < MAX_FAULTS {
            faults.push((at, Fault { path: path.to_owned(), line, message }));
        }
    }
}

impl<'d> Section<'d> {
    /// The value of `key`, if it is there. From now on `key` is a known key.
    pub(super) fn node(&self, key: &'static str) -> Option<Node<'d>> {
        self.known.borrow_mut().push(key);
        let value = self.table?.get(key)?;
        Some(Node {
            document: self.document,
            path: self.path_of(key),
            at: value.span().start,
            value: value.get_ref(),
        })
    }

    /// The value of `key`; that it is missing is a fault. `example` is how it is written.
    pub(super) fn required(&self, key: &'static str, example: &str) -> Option<Node<'d>> {
        let node = self.node(key);
        if node.is_none() {
            let path = self.path_of(key);
            self.document.fault(&path, self.at, format!("is missing; write {example}"));
        }
        node
    }

    /// What `read` makes of `key`, or `default`.
    pub(super) fn or<T>(&self, key: &'static str, default: T, read: impl FnOnce(Node<'d>) -> Option<T>) -> T {
        self.node(key).and_then(read).unwrap_or(default)
    }

    /// The section called `key`; an absent one is as an empty one.
    pub(super) fn section(&self, key: &'static str) -> Section<'d> {
        let path = self.path_of(key);
        let empty =
            Section { document: self.document, path, at: self.at, table: None, known: RefCell::default() };
        self.node(key).and_then(Node::section).unwrap_or(empty)
    }

    /// The tables of `[[key]]`.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'d>> {
        let nodes = self.node(key).and_then(Node::list).unwrap_or_default();
        nodes.into_iter().filter_map(Node::section).collect()
    }

    /// Every key with its value, for tables whose keys are the user's own.
    pub(super) fn entries(self) -> Vec<(&'d str, Node<'d>)> {
        let entries = self.table.into_iter().flat_map(DeTable::iter);
        let entry = |(key, value): (&'d Spanned<_>, &'d Spanned<DeValue<'d>>)| {
            let key: &Spanned<std::borrow::Cow<'d, str>> = key;
            let name: &'d str = key.get_ref();
            let path = self.path_of(name);
            (name, Node { document: self.document, path, at: value.span().start, value: value.get_ref() })
        };
        entries.map(entry).collect()
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Notes a fault of the section as a whole.
    pub(super) fn fault(&self, message: impl Display) {
        self.document.fault(&self.path, self.at, message.to_string());
    }

    /// Notes every key that was not asked for. To be called when all keys have been.
    pub(super) fn close(self) {
        let known = self.known.borrow();
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let message = match nearest(name, &known) {
                Some(near) => format!("unknown key; did you mean `{near}`?"),
                None if known.is_empty() => "unknown key; none is allowed here".to_owned(),
                None => format!("unknown key; there are: {}", sorted(&known)),
            };
            self.document.fault(&self.path_of(name), key.span().start, message);
        }
    }

    fn path_of(&self, key: &str) -> String {
        let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let quoted =
            if !key.is_empty() && key.bytes().all(is_bare) { key.to_owned() } else { format!("{key:?}") };
        if self.path.is_empty() { quoted } else { format!("{}.{quoted}", self.path) }
    }
}

impl<'d> Node<'d> {
    /// Notes a fault of this value.
    pub(super) fn fault(&self, message: impl Display) {
        self.document.fault(&self.path, self.at, message.to_string());
    }

    pub(super) fn is_text(&self) -> bool {
        self.value.is_str()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// The text of this value; for what may be written in several ways.
    pub(super) fn as_text(&self) -> Option<&'d str> {
        self.value.as_str()
    }

    /// A number as it is written, in decimal.
    pub(super) fn as_decimal(&self) -> Option<String> {
        match self.value {
            DeValue::Float(float) => Some(float.as_str().to_owned()),
            DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.as_str().to_owned()),
            DeValue::Integer(_) => self.as_integer().map(|integer| integer.to_string()),
            _ => None,
        }
    }

    /// Notes that this value is not what it should be.
    pub(super) fn wrong_type(&self, wanted: &str) {
        self.fault(format!("is {}; write {wanted}", self.found()));
    }

    /// Text that is not empty.
    pub(super) fn text(self) -> Option<&'d str> {
        match self.value.as_str() {
            Some("") => {
                self.fault("is empty; write a text, or leave the key out");
                None
            }
            Some(text) => Some(text),
            None => {
                self.wrong_type("a text in quotes");
                None
            }
        }
    }

    pub(super) fn boolean(self) -> Option<bool> {
        let found = self.value.as_bool();
        if found.is_none() {
            self.wrong_type("true or false");
        }
        found
    }

    pub(super) fn integer(self, allowed: RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (allowed.start(), allowed.end());
        if !self.value.is_integer() {
            self.wrong_type(&format!("a whole number from {low} to {high}"));
            return None;
        }
        let found = self.as_integer().and_then(|found| u64::try_from(found).ok());
        let found = found.filter(|found| allowed.contains(found));
        if found.is_none() {
            self.fault(format!("{} is out of range; allowed is {low} to {high}", self.found()));
        }
        found
    }

    /// A size in bytes: a number, or text with a unit.
    pub(super) fn size(self, allowed: RangeInclusive<u64>) -> Option<u64> {
        let example = "a size such as \"16MiB\" or \"64KiB\", or a number of bytes";
        let (low, high) = (units::show_size(*allowed.start()), units::show_size(*allowed.end()));
        let found = match self.value {
            DeValue::String(text) => units::size_bytes(text),
            DeValue::Integer(_) => self.as_integer().map(|found| u64::try_from(found).unwrap_or(u64::MAX)),
            _ => None,
        };
        match found {
            None => self.wrong_type(example),
            Some(bytes) if allowed.contains(&bytes) => return Some(bytes),
            Some(_) => self.fault(format!("{} is out of range; allowed is {low} to {high}", self.found())),
        }
        None
    }

    pub(super) fn duration(self, allowed: RangeInclusive<Duration>) -> Option<Duration> {
        let (low, high) = (units::show_duration(*allowed.start()), units::show_duration(*allowed.end()));
        match self.value.as_str().map(units::duration) {
            None | Some(None) => self.wrong_type("a duration such as \"15s\", \"200ms\" or \"1m\""),
            Some(Some(found)) if allowed.contains(&found) => return Some(found),
            Some(Some(_)) => {
                self.fault(format!("{} is out of range; allowed is {low} to {high}", self.found()))
            }
        }
        None
    }

    /// The members of an array.
    pub(super) fn list(self) -> Option<Vec<Node<'d>>> {
        let Some(array) = self.value.as_array() else {
            self.wrong_type("a list in [ ]");
            return None;
        };
        let member = |(index, value): (usize, &'d Spanned<DeValue<'d>>)| Node {
            document: self.document,
            path: format!("{}[{index}]", self.path),
            at: value.span().start,
            value: value.get_ref(),
        };
        Some(array.iter().enumerate().map(member).collect())
    }

    pub(super) fn section(self) -> Option<Section<'d>> {
        let Some(table) = self.value.as_table() else {
            self.wrong_type("a table");
            return None;
        };
        let Self { document, path, at, .. } = self;
        Some(Section { document, path, at, table: Some(table), known: RefCell::default() })
    }

    /// What this value is, for a message.
    pub(super) fn found(&self) -> String {
        /// Longest quotation in a message, in characters.
        const MAX_QUOTED: usize = 60;
        match self.value {
            DeValue::String(text) if text.chars().count() > MAX_QUOTED => {
                format!("\"{}...\"", text.chars().take(MAX_QUOTED).collect::<String>().escape_debug())
            }
            DeValue::String(text) => format!("\"{}\"", text.escape_debug()),
            DeValue::Integer(integer) => integer.to_string().chars().take(MAX_QUOTED).collect(),
            DeValue::Float(float) => float.to_string().chars().take(MAX_QUOTED).collect(),
            DeValue::Boolean(boolean) => boolean.to_string(),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }

    fn as_integer(&self) -> Option<i128> {
        let integer = self.value.as_integer()?;
        i128::from_str_radix(integer.as_str(), integer.radix()).ok()
    }
}

fn sorted(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// The known name that is only a few keystrokes from `name`.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let allowed = 1_usize.saturating_add(name.chars().count().div_euclid(4)).min(3);
    let distances = known.iter().map(|known| (keystrokes(name, known), *known));
    distances.filter(|(distance, _)| *distance <= allowed).min().map(|(_, known)| known)
}

/// Insertions, deletions and substitutions between two names (Levenshtein). Long names are not worth it.
fn keystrokes(left: &str, right: &str) -> usize {
    const MAX_NAME_BYTES: usize = 64;
    if left.len() > MAX_NAME_BYTES || right.len() > MAX_NAME_BYTES {
        return usize::MAX;
    }
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut next = vec![index.saturating_add(1)];
        for (pair, to) in row.windows(2).zip(&right) {
            let [diagonal, above] = pair else { continue };
            let before = next.last().copied().unwrap_or_default();
            let substituted = diagonal.saturating_add(usize::from(from != *to));
            next.push(substituted.min(above.saturating_add(1)).min(before.saturating_add(1)));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
