//! The objects that are known now, by name: so that the order in which they came makes no difference.

use super::finding::{Finding, Reason};
use super::manifest::drop_nulls;
use super::object::{Kind, ObjectRef, is_label, is_subdomain};
use super::views::{Gateway, HttpRoute, Metadata, Namespace, ReferenceGrant, RouteOption, Service, Upstream};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Most objects of the kinds that are used.
const MAX_OBJECTS: usize = 100_000;
/// How deep lists may hold lists.
const MAX_LIST_DEPTH: usize = 4;
/// What manifests without a namespace belong to, as for `kubectl`.
const DEFAULT_NAMESPACE: &str = "default";

/// Objects of the kinds that rules are made from.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    objects: BTreeMap<ObjectRef, Object>,
    /// These are all objects there are. If not, a Service that an Upstream names may be elsewhere, and so may the
    /// Gateway of a route.
    pub(super) is_whole_cluster: bool,
}

/// An object, as far as it is used.
#[derive(Clone, Debug, PartialEq)]
enum Object {
    HttpRoute(Box<HttpRoute>),
    Gateway(Box<Gateway>),
    ReferenceGrant(ReferenceGrant),
    RouteOption(Box<RouteOption>),
    Upstream(Box<Upstream>),
    Service(Service),
    Namespace(Namespace),
}

impl Objects {
    /// Nothing yet, of a cluster whose objects will all be told.
    #[must_use]
    pub fn of_cluster() -> Self {
        Self { is_whole_cluster: true, ..Self::default() }
    }

    /// The objects in documents of manifests, in any order; lists are unfolded, and what is of no use here is
    /// passed over. An object that is there twice with different content is left out: which one is meant can't
    /// be told without an order.
    #[must_use]
    pub fn from_documents(documents: Vec<Value>) -> (Self, Vec<Finding>) {
        let (mut objects, mut findings) = (Self::default(), Vec::new());
        let mut ambiguous = BTreeSet::new();
        for value in documents.into_iter().flat_map(|document| unfold(document, MAX_LIST_DEPTH)) {
            let (name, object) = match read(value) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(refused) => {
                    findings.push(refused.finding);
                    continue;
                }
            };
            match objects.objects.get(&name) {
                Some(other) if *other != object => _ = ambiguous.insert(name),
                Some(_) => {}
                None => findings.extend(objects.put(name, object).err()),
            }
        }
        for name in ambiguous {
            let message = "is there more than once, with different content; leave one out";
            findings.push(Finding::new(&name, "", Reason::Duplicate, message));
            objects.remove(&name);
        }
        (objects, findings)
    }

    /// Takes an object in, in place of one of the same name. What is of no use here is passed over. True: what is
    /// known of it has changed.
    ///
    /// # Errors
    /// A field is not what it should be, or there are too many objects. The object's former self is gone, too.
    pub fn insert(&mut self, value: Value) -> Result<bool, Finding> {
        match read(value) {
            Ok(Some((name, object))) => self.put(name, object),
            Ok(None) => Ok(false),
            Err(refused) => {
                if let Some(name) = &refused.name {
                    self.remove(name);
                }
                Err(refused.finding)
            }
        }
    }

    /// Forgets an object; true: it was there.
    pub fn remove(&mut self, name: &ObjectRef) -> bool {
        self.objects.remove(name).is_some()
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    fn put(&mut self, name: ObjectRef, object: Object) -> Result<bool, Finding> {
        if self.objects.len() >= MAX_OBJECTS && !self.objects.contains_key(&name) {
            let message = format!("is one object too many; allowed are {MAX_OBJECTS}");
            return Err(Finding::new(&name, "", Reason::LimitExceeded, message));
        }
        let is_same = self.objects.get(&name) == Some(&object);
        if !is_same {
            self.objects.insert(name, object);
        }
        Ok(!is_same)
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = (&ObjectRef, &HttpRoute)> {
        self.objects.iter().filter_map(|(name, object)| match object {
            Object::HttpRoute(route) => Some((name, route.as_ref())),
            _ => None,
        })
    }

    pub(super) fn grants(&self) -> impl Iterator<Item = (&ObjectRef, &ReferenceGrant)> {
        self.objects.iter().filter_map(|(name, object)| match object {
            Object::ReferenceGrant(grant) => Some((name, grant)),
            _ => None,
        })
    }

    pub(super) fn route_options(&self) -> impl Iterator<Item = (&ObjectRef, &RouteOption)> {
        self.objects.iter().filter_map(|(name, object)| match object {
            Object::RouteOption(options) => Some((name, options.as_ref())),
            _ => None,
        })
    }

    pub(super) fn route_option(&self, name: &ObjectRef) -> Option<&RouteOption> {
        match self.objects.get(name)? {
            Object::RouteOption(options) => Some(options),
            _ => None,
        }
    }

    pub(super) fn upstream(&self, name: &ObjectRef) -> Option<&Upstream> {
        match self.objects.get(name)? {
            Object::Upstream(upstream) => Some(upstream),
            _ => None,
        }
    }

    pub(super) fn gateway(&self, name: &ObjectRef) -> Option<&Gateway> {
        match self.objects.get(name)? {
            Object::Gateway(gateway) => Some(gateway),
            _ => None,
        }
    }

    pub(super) fn namespace(&self, name: &str) -> Option<&Namespace> {
        let name = ObjectRef { kind: Kind::Namespace, namespace: String::new(), name: name.to_owned() };
        match self.objects.get(&name)? {
            Object::Namespace(namespace) => Some(namespace),
            _ => None,
        }
    }

    pub(super) fn service(&self, name: &ObjectRef) -> Option<&Service> {
        match self.objects.get(name)? {
            Object::Service(service) => Some(service),
            _ => None,
        }
    }
}

/// The objects of a list, or the object itself. Members of typed lists (`HTTPRouteList`) may leave out what they
/// are.
fn unfold(mut document: Value, depth: usize) -> Vec<Value> {
    let text = |document: &Value, key| document.get(key).and_then(Value::as_str).map(str::to_owned);
    let member_kind = text(&document, "kind").and_then(|kind| kind.strip_suffix("List").map(str::to_owned));
    let (Some(member_kind), Some(depth)) = (member_kind, depth.checked_sub(1)) else { return vec![document] };
    let Some(Value::Array(members)) = document.get_mut("items").map(Value::take) else {
        return vec![document];
    };
    let version = text(&document, "apiVersion").filter(|_| !member_kind.is_empty());
    let named = members.into_iter().map(|mut member| {
        if let (Value::Object(fields), Some(version)) = (&mut member, &version) {
            fields.entry("apiVersion").or_insert_with(|| version.as_str().into());
            fields.entry("kind").or_insert_with(|| member_kind.as_str().into());
        }
        member
    });
    named.flat_map(|member| unfold(member, depth)).collect()
}

/// An object and its name.
type Named = (ObjectRef, Object);

/// An object that can't be read, and its name where that can.
struct Refused {
    name: Option<ObjectRef>,
    finding: Finding,
}

/// Reads an object; `None`: it is of no use here.
fn read(mut value: Value) -> Result<Option<Named>, Box<Refused>> {
    let Some((kind, version)) = kind_of(&value) else { return Ok(None) };
    drop_nulls(&mut value);
    let name = match name_of(kind, &value) {
        Ok(name) => name,
        Err(finding) => return Err(Box::new(Refused { name: None, finding })),
    };
    let found = if kind.versions().contains(&version.as_str()) {
        object(kind, &name, value)
    } else {
        let known = kind.versions().join(" and ");
        let message = format!("is of version {version:?}; known are {known}");
        Err(Finding::new(&name, "apiVersion", Reason::UnknownVersion, message))
    };
    match found {
        Ok(object) => Ok(Some((name, object))),
        Err(finding) => Err(Box::new(Refused { name: Some(name), finding })),
    }
}

fn object(kind: Kind, name: &ObjectRef, value: Value) -> Result<Object, Finding> {
    Ok(match kind {
        Kind::HttpRoute => Object::HttpRoute(typed(name, value)?),
        Kind::Gateway => Object::Gateway(typed(name, value)?),
        Kind::ReferenceGrant => Object::ReferenceGrant(typed(name, value)?),
        Kind::RouteOption => Object::RouteOption(typed(name, value)?),
        Kind::Upstream => Object::Upstream(typed(name, value)?),
        Kind::Service => Object::Service(typed(name, value)?),
        Kind::Namespace => Object::Namespace(typed(name, value)?),
    })
}

fn typed<T: DeserializeOwned>(name: &ObjectRef, value: Value) -> Result<T, Finding> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        Finding::new(name, path, Reason::InvalidField, error.into_inner().to_string())
    })
}

/// What an object is, and in which version; `None`: nothing that is used here.
fn kind_of(value: &Value) -> Option<(Kind, String)> {
    let version = value.get("apiVersion")?.as_str()?;
    let name = value.get("kind")?.as_str()?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = Kind::ALL.into_iter().find(|kind| kind.group() == group && kind.name() == name)?;
    Some((kind, version.to_owned()))
}

fn name_of(kind: Kind, value: &Value) -> Result<ObjectRef, Finding> {
    let metadata: Result<Metadata, _> = match value.get("metadata") {
        Some(metadata) => serde_path_to_error::deserialize(metadata),
        None => Ok(Metadata::default()),
    };
    let metadata = metadata.map_err(|error| {
        let path = format!("metadata.{}", error.path());
        Finding::new(kind.name(), path, Reason::InvalidField, error.into_inner().to_string())
    })?;
    let namespace = match kind.is_namespaced() {
        true => metadata.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        false => String::new(),
    };
    let is_name = if matches!(kind, Kind::Service | Kind::Namespace) { is_label } else { is_subdomain };
    // Also what keeps these names harmless wherever they are written later.
    if !is_name(&metadata.name) {
        let message = format!("{:?} is no name of an object", metadata.name);
        return Err(Finding::new(kind.name(), "metadata.name", Reason::InvalidField, message));
    }
    if kind.is_namespaced() && !is_label(&namespace) {
        let message = format!("{namespace:?} is no namespace");
        return Err(Finding::new(kind.name(), "metadata.namespace", Reason::InvalidField, message));
    }
    Ok(ObjectRef { kind, namespace, name: metadata.name })
}
