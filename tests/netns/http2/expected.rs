//! What the shadow must get, in whatever version of HTTP, by a reading of SEMANTICS apart from the daemon's own.
//!
//! A request of either version is brought into one form ([`Parts`]), in which what has to differ between versions
//! does not show, and nothing else is forgiven.

use std::collections::BTreeMap;

use mirror_tests::h2tools::OddRequest;
use mirror_tests::outlet::Sent;
use mirror_tests::server::LoggedRequest;
use mirror_tests::server::answer::query_number;
use mirror_tests::wire::{self, body_hash, latin1};

use crate::faithful::suffixed;

/// Fields of one name in order, by their names in lower case.
type Fields = BTreeMap<String, Vec<String>>;

const LOOP_MARK: (&str, &str) = ("x-mirrored-by", "mirror-daemon");

/// Fields that end at the next hop (RFC 9110, 7.6.1), and those that only frame a body.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "upgrade", "http2-settings", "transfer-encoding"];

/// A request without its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) method: String,
    pub(super) target: String,
    /// From `:authority` or Host; where both are there they must be alike.
    pub(super) authority: String,
    /// Without those above, and without Content-Length, which must be right where it is there. Cookie crumbs are one.
    pub(super) fields: Fields,
    pub(super) body_bytes: u64,
    pub(super) body_hash: String,
    pub(super) trailers: Fields,
}

impl Parts {
    pub(super) fn of_sent(sent: &OddRequest) -> Self {
        let parts = Self {
            method: sent.method.clone(),
            target: sent.target.clone(),
            authority: sent.authority.clone(),
            fields: collect(sent.fields.iter().cloned()),
            body_bytes: sent.body.len() as u64,
            body_hash: body_hash(&sent.body),
            trailers: collect(sent.trailers.iter().cloned()),
        };
        parts.normal()
    }

    pub(super) fn of_noted(noted: &LoggedRequest) -> Self {
        let trailers = [b"\n".as_slice(), &noted.trailers].concat();
        let parts = Self {
            method: noted.method().to_owned(),
            target: noted.target().to_owned(),
            authority: noted.host().unwrap_or_default(),
            fields: collect(noted.fields()),
            body_bytes: noted.body_bytes,
            body_hash: noted.body_hash.clone(),
            trailers: collect(texts(wire::fields(&trailers))),
        };
        parts.normal()
    }

    /// Of what would be sent to a shadow over HTTP/2.
    pub(super) fn of_http2(sent: &Sent) -> Self {
        let head = format!("\n{}", sent.head);
        let mut fields = collect(texts(wire::fields(head.as_bytes())));
        let mut pseudo = |name: &str| fields.remove(name).map(|values| values.concat()).unwrap_or_default();
        let (method, target, authority) = (pseudo(":method"), pseudo(":path"), pseudo(":authority"));
        let trailers = format!("\n{}", sent.trailers);
        let parts = Self {
            method,
            target,
            authority,
            fields,
            body_bytes: sent.body.len() as u64,
            body_hash: body_hash(&sent.body),
            trailers: collect(texts(wire::fields(trailers.as_bytes()))),
        };
        parts.normal()
    }

    pub(super) fn id(&self) -> Option<u64> {
        query_number(&self.target, "id")
    }

    /// What a shadow must get of this.
    pub(super) fn mirrored(mut self) -> Self {
        self.authority = suffixed(&self.authority);
        let named: Vec<String> = self.fields.get("connection").cloned().unwrap_or_default();
        let named = named.iter().flat_map(|value| value.split(',')).map(|name| name.trim().to_lowercase());
        for name in named.chain(HOP_BY_HOP.map(str::to_owned)) {
            self.fields.remove(&name);
        }
        if let Some(values) = self.fields.get_mut("te") {
            match values.iter().any(|value| value.contains("trailers")) {
                true => *values = vec!["trailers".to_owned()],
                false => drop(self.fields.remove("te")),
            }
        }
        self.fields.insert(LOOP_MARK.0.to_owned(), vec![LOOP_MARK.1.to_owned()]);
        self
    }

    #[track_caller]
    fn normal(mut self) -> Self {
        for pseudo in [":scheme", ":authority"] {
            self.fields.remove(pseudo);
        }
        if let Some(hosts) = self.fields.remove("host") {
            assert_eq!(hosts, [self.authority.as_str()], "{self:?}");
        }
        if let Some(lengths) = self.fields.remove("content-length") {
            assert_eq!(lengths, [self.body_bytes.to_string()], "{self:?}");
        }
        self.fields.remove("transfer-encoding");
        if let Some(crumbs) = self.fields.get_mut("cookie") {
            *crumbs = vec![crumbs.join("; ")];
        }
        self
    }
}

/// Every wanted request arrived once, whole and true, and nothing else did.
#[track_caller]
pub(super) fn assert_arrived(wanted: impl IntoIterator<Item = Parts>, got: &[LoggedRequest]) {
    let got = got.iter().map(Parts::of_noted).collect();
    let faults = faults(wanted, got);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), shown(&faults));
}

/// Nothing arrived but wanted requests, each at most once, whole and true. Gives how many did.
#[track_caller]
pub(super) fn assert_subset(wanted: impl IntoIterator<Item = Parts>, got: Vec<Parts>) -> usize {
    let count = got.len();
    let mut faults = faults(wanted, got);
    faults.retain(|fault| !fault.starts_with(MISSING));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), shown(&faults));
    count
}

const MISSING: &str = "never came: ";

fn faults(wanted: impl IntoIterator<Item = Parts>, got: Vec<Parts>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut missing = BTreeMap::new();
    for parts in wanted {
        let id = parts.id().unwrap_or_else(|| panic!("no id in {parts:?}"));
        assert!(missing.insert(id, parts).is_none(), "{id} was sent twice");
    }
    for parts in got {
        match parts.id().and_then(|id| missing.remove(&id)) {
            None => faults.push(format!("came twice, or was not sent: {parts:?}")),
            Some(wanted) if wanted != parts => faults.push(format!("wanted {wanted:?}\n     got {parts:?}")),
            Some(_) => {}
        }
    }
    faults.extend(missing.into_values().map(|parts| format!("{MISSING}{parts:?}")));
    faults
}

fn shown(faults: &[String]) -> String {
    let cut = |fault: &String| fault.chars().take(2000).collect::<String>();
    faults.iter().take(10).map(cut).collect::<Vec<_>>().join("\n")
}

fn collect(fields: impl IntoIterator<Item = (String, String)>) -> Fields {
    let mut all = Fields::new();
    for (name, value) in fields {
        all.entry(name.to_lowercase()).or_default().push(value);
    }
    all
}

fn texts<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> impl Iterator<Item = (String, String)> {
    fields.map(|(name, value)| (latin1(name), latin1(value)))
}
