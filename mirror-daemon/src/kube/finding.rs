//! What was found wrong, or left out, on the way from objects to rules.

use super::object::ObjectRef;
use std::fmt;

/// Why an object, or a part of it, makes no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A field is not what it should be.
    InvalidField,
    /// A text is no manifest.
    InvalidManifest,
    /// Two manifests of one object differ.
    Duplicate,
    /// An object of a known kind in a version that is not.
    UnknownVersion,
    /// A reference to another namespace that no `ReferenceGrant` there allows.
    RefNotPermitted,
    /// A Service, a port of it, or an Upstream that is not there.
    BackendNotFound,
    /// A `RouteOption` that is not there.
    FilterNotFound,
    /// A reference to a kind that can't be a shadow.
    InvalidKind,
    /// Something that this daemon can't do.
    Unsupported,
    /// A gateway mirrors the route itself.
    AlreadyMirrored,
    /// The route belongs to no gateway that is bound by `[[kubernetes.gateway]]`, or to none at all.
    GatewayNotBound,
    /// No listener of a Gateway that the route names takes it, or there is no such Gateway.
    NotAdmitted,
    /// One too many.
    LimitExceeded,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::InvalidField,
        Self::InvalidManifest,
        Self::Duplicate,
        Self::UnknownVersion,
        Self::RefNotPermitted,
        Self::BackendNotFound,
        Self::FilterNotFound,
        Self::InvalidKind,
        Self::Unsupported,
        Self::AlreadyMirrored,
        Self::GatewayNotBound,
        Self::NotAdmitted,
        Self::LimitExceeded,
    ];

    /// The word for it in output, logs and Events: as in Gateway API where it has one.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::InvalidField => "InvalidField",
            Self::InvalidManifest => "InvalidManifest",
            Self::Duplicate => "Duplicate",
            Self::UnknownVersion => "UnknownVersion",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::BackendNotFound => "BackendNotFound",
            Self::FilterNotFound => "FilterNotFound",
            Self::InvalidKind => "InvalidKind",
            Self::Unsupported => "Unsupported",
            Self::AlreadyMirrored => "AlreadyMirrored",
            Self::GatewayNotBound => "GatewayNotBound",
            Self::NotAdmitted => "NotAdmitted",
            Self::LimitExceeded => "LimitExceeded",
        }
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An object.
    Object(ObjectRef),
    /// A file, or something that calls itself an object of this kind.
    Other(String),
}

impl From<&ObjectRef> for Subject {
    fn from(object: &ObjectRef) -> Self {
        Self::Object(object.clone())
    }
}

impl From<&str> for Subject {
    fn from(name: &str) -> Self {
        Self::Other(name.to_owned())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => write!(f, "{object}"),
            Self::Other(name) => write!(f, "{name}"),
        }
    }
}

/// One finding. Its texts may quote what strangers wrote; [`fmt::Display`] escapes control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object, e.g. `HTTPRoute shop/cart`, or the file.
    pub object: Subject,
    /// The field, e.g. `spec.rules[0].filters[1]`; empty: the object as a whole.
    pub path: String,
    /// Why.
    pub reason: Reason,
    /// What was found, and the way out.
    pub message: String,
}

impl Finding {
    pub(crate) fn new(
        object: impl Into<Subject>,
        path: impl Into<String>,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        /// Longest message, in characters: it may quote a manifest.
        const MAX_MESSAGE_CHARS: usize = 400;
        let message: String = message.into();
        let message = match message.char_indices().nth(MAX_MESSAGE_CHARS) {
            Some((at, _)) => format!("{}...", message.get(..at).unwrap_or_default()),
            None => message,
        };
        Self { object: object.into(), path: path.into(), reason, message }
    }
}

impl fmt::Display for Finding {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, path, reason, message } = self;
        let at = if path.is_empty() { "" } else { ": " };
        let line = format!("{object}{at}{path}: {}: {message}", reason.label());
        for found in line.chars() {
            match found {
                found if found.is_control() => write!(f, "{}", found.escape_default())?,
                found => write!(f, "{found}")?,
            }
        }
        Ok(())
    }
}
