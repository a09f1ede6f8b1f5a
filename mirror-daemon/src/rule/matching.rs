//! What a rule asks of a request: path, method, header fields, query parameters.
//!
//! Everything is compared as it is on the wire: no percent-decoding, no removal of dot segments or double
//! slashes. This is what Envoy does unless it is told to normalise.

use crate::http::RequestHead;
use regex_automata::meta::{self, BuildError, Regex};
use regex_automata::util::syntax;
use std::fmt;

/// Most bytes of one compiled regular expression.
pub const MAX_REGEX_BYTES: usize = 1024 * 1024;
/// Most bytes of the cache that one regular expression fills while it runs, per thread.
const MAX_REGEX_CACHE_BYTES: usize = 256 * 1024;
/// Most bytes of the automata that only make one faster.
const MAX_REGEX_EXTRA_BYTES: usize = 64 * 1024;

/// One alternative of a rule: all of its conditions hold. The default matches every request.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// The path without its query.
    pub path: PathMatch,
    /// Any of these methods, case-sensitive (RFC 9110, 9.1); empty: every method.
    pub methods: Vec<String>,
    /// All of these header fields; no name twice.
    pub headers: Vec<ValueMatch>,
    /// All of these query parameters; no name twice.
    pub query: Vec<ValueMatch>,
}

/// What a path must be.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// Exactly this.
    Exact(String),
    /// These elements first: `/abc` matches `/abc` and `/abc/d`, not `/abcd`. Kept without a `/` at its end,
    /// so that `""` stands for `/` and matches every request, `OPTIONS *` too.
    Prefix(String),
    /// The whole path matches.
    Regex(FullRegex),
}

/// A condition on one header field or query parameter.
///
/// Several header fields of one name count as one, with commas between (RFC 9110, 5.3, as in Envoy); putting
/// them together for a regular expression is the only case in which matching allocates. Of several query
/// parameters of one name the first counts.
#[derive(Clone, Debug)]
pub struct ValueMatch {
    /// Header field names in any case; query parameter names case-sensitive.
    pub name: String,
    /// What its value must be.
    pub value: TextMatch,
}

/// What a value must be.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// Exactly this.
    Exact(String),
    /// The whole value matches.
    Regex(FullRegex),
}

/// A regular expression that must match from the first byte to the last, as Envoy's `safe_regex` does, and
/// with it most implementations of Gateway API. Write `.*x.*` to look for `x` anywhere.
///
/// Classes such as `\w` and `\d` mean ASCII, and `.` a byte, as nearly all patterns want it and as RE2, Envoy's engine,
/// reads classes; that also keeps them small. Only a pattern that can't be read so, such as `\p{Greek}` or `[é]`, is
/// read as Unicode.
#[derive(Clone, Debug)]
pub struct FullRegex {
    pattern: String,
    regex: Regex,
}

/// Why a text is no regular expression: its first line of explanation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegexFault(String);

impl RegexFault {
    /// The pattern is right, and too large when it is compiled.
    #[must_use]
    pub fn is_size(&self) -> bool {
        self.0 == TOO_LARGE
    }
}

/// What a pattern beyond [`MAX_REGEX_BYTES`] is told.
const TOO_LARGE: &str = "it takes more than 1 MiB when it is compiled";

/// Which methods may be mirrored: the write guard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MethodGuard {
    /// Every method.
    #[default]
    Any,
    /// Safe ones: GET, HEAD, OPTIONS and TRACE (RFC 9110, 9.2.1).
    Safe,
    /// These.
    Only(Vec<String>),
}

/// The condition that failed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch<'r> {
    /// The route is for other hosts.
    Host,
    /// The route is for other gateways.
    Gateway,
    /// The path.
    Path,
    /// The method.
    Method,
    /// The header field of this name.
    Header(&'r str),
    /// The query parameter of this name.
    Query(&'r str),
}

/// What conditions look at, taken out of a head once.
pub(super) struct Facets<'a> {
    head: &'a RequestHead<'a>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Facets<'a> {
    pub(super) fn of(head: &'a RequestHead<'a>) -> Self {
        Self { head, path: head.path(), query: head.query().unwrap_or_default() }
    }
}

impl Match {
    /// The first condition that does not hold; `None`: it matches.
    pub(super) fn mismatch(&self, facets: &Facets<'_>) -> Option<Mismatch<'_>> {
        if !self.path.matches(facets.path) {
            return Some(Mismatch::Path);
        }
        if !self.methods.is_empty() && !self.methods.iter().any(|method| method == facets.head.method) {
            return Some(Mismatch::Method);
        }
        if let Some(header) = self.headers.iter().find(|header| !header.matches_header(facets.head)) {
            return Some(Mismatch::Header(&header.name));
        }
        let query = self.query.iter().find(|parameter| !parameter.matches_query(facets.query))?;
        Some(Mismatch::Query(&query.name))
    }
}

impl PathMatch {
    /// A prefix; a `/` at its end is of no meaning.
    #[must_use]
    pub fn prefix(text: &str) -> Self {
        Self::Prefix(text.trim_end_matches('/').to_owned())
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => {
                prefix.is_empty()
                    || path
                        .strip_prefix(prefix.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(regex) => regex.matches(path.as_bytes()),
        }
    }
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix(String::new())
    }
}

impl ValueMatch {
    fn matches_header(&self, head: &RequestHead<'_>) -> bool {
        let mut values = head.fields.iter().filter(|field| field.is(&self.name)).map(|field| field.value);
        let Some(first) = values.next() else { return false };
        let Some(second) = values.next() else { return self.value.matches(first) };
        let all = [first, second].into_iter().chain(values);
        match &self.value {
            TextMatch::Exact(exact) => is_joined(exact.as_bytes(), all),
            TextMatch::Regex(regex) => regex.matches(&all.collect::<Vec<_>>().join(&b',')),
        }
    }

    fn matches_query(&self, query: &str) -> bool {
        query_value(query, &self.name).is_some_and(|value| self.value.matches(value.as_bytes()))
    }
}

impl TextMatch {
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == value,
            Self::Regex(regex) => regex.matches(value),
        }
    }
}

impl FullRegex {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// It is no regular expression, or a too large one.
    pub fn new(pattern: &str) -> Result<Self, RegexFault> {
        let whole = format!("^(?:{pattern})$");
        let read = |is_unicode: bool| -> Result<Regex, Box<BuildError>> {
            // Alone first: an unbalanced `)` must not close the group that follows.
            build(pattern, is_unicode)?;
            build(&whole, is_unicode)
        };
        let regex = match read(false) {
            // When it can't be read as Unicode either, that is what is told.
            Err(error) if error.syntax_error().is_some() => read(true),
            read => read,
        };
        let regex = regex.map_err(|error| match error.syntax_error() {
            Some(error) => RegexFault(last_line(&error.to_string())),
            None if error.size_limit().is_some() => RegexFault(TOO_LARGE.to_owned()),
            None => RegexFault(error.to_string()),
        })?;
        Ok(Self { pattern: pattern.to_owned(), regex })
    }

    /// Bytes that it takes, without the caches that fill while it runs.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.regex.memory_usage()
    }

    fn matches(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

impl MethodGuard {
    /// Whether a request of this method may be mirrored.
    #[must_use]
    pub fn allows(&self, method: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Safe => matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE"),
            Self::Only(methods) => methods.iter().any(|allowed| allowed == method),
        }
    }
}

/// The value of the first parameter called `name`, as written; empty when it has no `=`.
pub(super) fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|parameter| {
        let (found, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (found == name).then_some(value)
    })
}

/// True when `whole` is `parts` with commas between.
fn is_joined<'a>(whole: &[u8], parts: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut rest = Some(whole);
    for (index, part) in parts.enumerate() {
        let after_comma = if index == 0 { rest } else { rest.and_then(|rest| rest.strip_prefix(b",")) };
        rest = after_comma.and_then(|rest| rest.strip_prefix(part));
    }
    rest.is_some_and(<[u8]>::is_empty)
}

fn build(text: &str, is_unicode: bool) -> Result<Regex, Box<BuildError>> {
    let bounds = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(MAX_REGEX_BYTES))
        .hybrid_cache_capacity(MAX_REGEX_CACHE_BYTES)
        .onepass_size_limit(Some(MAX_REGEX_EXTRA_BYTES));
    let syntax = syntax::Config::new().utf8(false).unicode(is_unicode);
    Regex::builder().configure(bounds).syntax(syntax).build(text).map_err(Box::new)
}

/// The parser draws the pattern over several lines; the last one says what is wrong.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default().trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            PathMatch::Exact(path) => write!(f, "path {path}")?,
            PathMatch::Prefix(prefix) if prefix.is_empty() => f.write_str("any path")?,
            PathMatch::Prefix(prefix) => write!(f, "path prefix {prefix}")?,
            PathMatch::Regex(regex) => write!(f, "path regex {}", regex.pattern)?,
        }
        if !self.methods.is_empty() {
            write!(f, ", method {}", self.methods.join(" or "))?;
        }
        for header in &self.headers {
            write!(f, ", header {header}")?;
        }
        for parameter in &self.query {
            write!(f, ", query {parameter}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            TextMatch::Exact(exact) => write!(f, "{}={exact}", self.name),
            TextMatch::Regex(regex) => write!(f, "{}~{}", self.name, regex.pattern),
        }
    }
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("other host"),
            Self::Gateway => f.write_str("other gateway"),
            Self::Path => f.write_str("other path"),
            Self::Method => f.write_str("other method"),
            Self::Header(name) => write!(f, "header {name} differs or is missing"),
            Self::Query(name) => write!(f, "query parameter {name} differs or is missing"),
        }
    }
}
