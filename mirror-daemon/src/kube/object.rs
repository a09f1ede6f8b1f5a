//! What objects are called.

use std::fmt;

/// The kinds that rules are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `gateway.networking.k8s.io`
    HttpRoute,
    /// `gateway.networking.k8s.io`
    Gateway,
    /// `gateway.networking.k8s.io`
    ReferenceGrant,
    /// `gateway.solo.io`
    RouteOption,
    /// `gloo.solo.io`
    Upstream,
    /// The core group.
    Service,
    /// The core group.
    Namespace,
}

pub(super) const GATEWAY_API_GROUP: &str = "gateway.networking.k8s.io";
pub(super) const SOLO_GATEWAY_GROUP: &str = "gateway.solo.io";
pub(super) const GLOO_GROUP: &str = "gloo.solo.io";

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::HttpRoute,
        Self::Gateway,
        Self::ReferenceGrant,
        Self::RouteOption,
        Self::Upstream,
        Self::Service,
        Self::Namespace,
    ];

    /// Its name in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HttpRoute => "HTTPRoute",
            Self::Gateway => "Gateway",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::RouteOption => "RouteOption",
            Self::Upstream => "Upstream",
            Self::Service => "Service",
            Self::Namespace => "Namespace",
        }
    }

    /// Its name in the API server's paths.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::HttpRoute => "httproutes",
            Self::Gateway => "gateways",
            Self::ReferenceGrant => "referencegrants",
            Self::RouteOption => "routeoptions",
            Self::Upstream => "upstreams",
            Self::Service => "services",
            Self::Namespace => "namespaces",
        }
    }

    /// Its API group; empty: the core group.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::HttpRoute | Self::Gateway | Self::ReferenceGrant => GATEWAY_API_GROUP,
            Self::RouteOption => SOLO_GATEWAY_GROUP,
            Self::Upstream => GLOO_GROUP,
            Self::Service | Self::Namespace => "",
        }
    }

    /// The versions that can be read, the best first.
    #[must_use]
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::HttpRoute | Self::Gateway | Self::ReferenceGrant => &["v1", "v1beta1"],
            Self::RouteOption | Self::Upstream | Self::Service | Self::Namespace => &["v1"],
        }
    }

    /// Whether its objects live in a namespace.
    #[must_use]
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace)
    }
}

/// The name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// What it is.
    pub kind: Kind,
    /// Its namespace; empty: it lives in none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.is_namespaced() {
            true => write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name),
            false => write!(f, "{} {}", self.kind.name(), self.name),
        }
    }
}

/// A DNS label in small letters (RFC 1123): namespaces, Services.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// DNS labels with dots between: the names of most objects.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}
