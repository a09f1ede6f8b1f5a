//! The objects that the API server has told of, within bounds, and what is wrong with those that are of no use.

use super::item::Item;
use crate::kube::{Finding, Kind, ObjectRef, Objects, Reason};
use std::collections::BTreeMap;

/// Most objects of one kind; those beyond are left out, and told.
pub const MAX_OBJECTS: usize = 20_000;
/// Most bytes of one object, as it is held.
pub const MAX_OBJECT_BYTES: usize = 1024 * 1024;
/// Most bytes of all objects together.
pub const MAX_TOTAL_BYTES: usize = 64 * 1024 * 1024;
/// Most objects of one kind whose faults are told one by one.
const MAX_REFUSED: usize = 1_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    objects: Objects,
    kinds: BTreeMap<Kind, Books>,
    bytes: usize,
    limits: Limits,
}

/// The bounds above, or a test's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) objects: usize,
    pub(super) object_bytes: usize,
    pub(super) total_bytes: usize,
    pub(super) refused: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            objects: MAX_OBJECTS,
            object_bytes: MAX_OBJECT_BYTES,
            total_bytes: MAX_TOTAL_BYTES,
            refused: MAX_REFUSED,
        }
    }
}

/// What is known of one kind.
#[derive(Debug, Default)]
struct Books {
    held: BTreeMap<ObjectRef, Held>,
    refused: BTreeMap<ObjectRef, Refused>,
    /// Objects that are neither held nor told, since the list that is the latest: nameless ones, and those
    /// beyond [`MAX_REFUSED`].
    untold: u64,
    /// Counts lists: an object that the latest list did not have is gone.
    list: u64,
}

#[derive(Debug)]
struct Held {
    bytes: usize,
    list: u64,
    uid: Box<str>,
}

#[derive(Debug)]
struct Refused {
    finding: Finding,
    list: u64,
    uid: Box<str>,
}

/// How much there is of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) held: usize,
    pub(super) refused: u64,
}

impl Store {
    pub(super) fn new(limits: Limits) -> Self {
        Self { objects: Objects::of_cluster(), kinds: BTreeMap::new(), bytes: 0, limits }
    }

    /// The objects that rules can be made from.
    pub(super) const fn objects(&self) -> &Objects {
        &self.objects
    }

    /// What is wrong with the others, by object.
    pub(super) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.kinds.values().flat_map(|books| books.refused.values().map(|refused| &refused.finding))
    }

    /// What tells an object from others of the same name; empty: nothing is known.
    pub(super) fn uid(&self, name: &ObjectRef) -> &str {
        let Some(books) = self.kinds.get(&name.kind) else { return "" };
        let held = books.held.get(name).map(|held| &held.uid);
        held.or_else(|| books.refused.get(name).map(|refused| &refused.uid)).map_or("", |uid| uid)
    }

    pub(super) fn amount(&self, kind: Kind) -> Amount {
        let Some(books) = self.kinds.get(&kind) else { return Amount::default() };
        let refused = u64::try_from(books.refused.len()).unwrap_or(u64::MAX);
        Amount { held: books.held.len(), refused: refused.saturating_add(books.untold) }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// A list of all objects of `kind` begins. Those known stay until it has ended: a list that is cut short takes
    /// nothing away.
    pub(super) fn begin_list(&mut self, kind: Kind) {
        let books = self.kinds.entry(kind).or_default();
        books.list = books.list.saturating_add(1);
        books.untold = 0;
    }

    /// The list has ended: what was not in it is gone. True: something was.
    pub(super) fn end_list(&mut self, kind: Kind) -> bool {
        let books = self.kinds.entry(kind).or_default();
        let list = books.list;
        let before = books.refused.len();
        books.refused.retain(|_, refused| refused.list == list);
        let gone: Vec<ObjectRef> =
            books.held.iter().filter(|(_, held)| held.list != list).map(|(name, _)| name.clone()).collect();
        let has_changed = before != books.refused.len() || !gone.is_empty();
        gone.iter().for_each(|name| self.forget(name));
        has_changed
    }

    /// Takes an object in. True: what is known of it has changed.
    pub(super) fn put(&mut self, kind: Kind, version: &str, item: Item) -> bool {
        let Some(name) = item.reference(kind) else {
            let books = self.kinds.entry(kind).or_default();
            books.untold = books.untold.saturating_add(1);
            return false;
        };
        let (bytes, uid) = (item.weight_bytes(), item.uid().into());
        if let Err(message) = self.fits(&name, bytes) {
            let finding = Finding::new(&name, "", Reason::LimitExceeded, message);
            return self.refuse(name, uid, finding);
        }
        match self.objects.insert(item.into_manifest(kind, version)) {
            Err(finding) => self.refuse(name, uid, finding),
            Ok(has_changed) => {
                let books = self.kinds.entry(kind).or_default();
                let list = books.list;
                let was_refused = books.refused.remove(&name).is_some();
                let former = books.held.insert(name, Held { bytes, list, uid });
                let former_bytes = former.map_or(0, |held| held.bytes);
                self.bytes = self.bytes.saturating_sub(former_bytes).saturating_add(bytes);
                has_changed || was_refused
            }
        }
    }

    /// An object is gone. True: it was known.
    pub(super) fn remove(&mut self, name: &ObjectRef) -> bool {
        let Some(books) = self.kinds.get_mut(&name.kind) else { return false };
        let was_refused = books.refused.remove(name).is_some();
        let was_held = books.held.contains_key(name);
        self.forget(name);
        was_held || was_refused
    }

    fn fits(&self, name: &ObjectRef, bytes: usize) -> Result<(), String> {
        let Limits { objects, object_bytes, total_bytes, .. } = self.limits;
        let books = self.kinds.get(&name.kind);
        let former = books.and_then(|books| books.held.get(name));
        let held = books.map_or(0, |books| books.held.len());
        if bytes > object_bytes {
            return Err(format!("takes {bytes} bytes; allowed are {object_bytes}"));
        }
        if former.is_none() && held >= objects {
            return Err(format!("is one {} too many; allowed are {objects}", name.kind.name()));
        }
        let others = self.bytes.saturating_sub(former.map_or(0, |held| held.bytes));
        if others.saturating_add(bytes) > total_bytes {
            return Err(format!("is too much; all objects together may take {total_bytes} bytes"));
        }
        Ok(())
    }

    fn refuse(&mut self, name: ObjectRef, uid: Box<str>, finding: Finding) -> bool {
        self.forget(&name);
        let books = self.kinds.entry(name.kind).or_default();
        if books.refused.len() >= self.limits.refused && !books.refused.contains_key(&name) {
            books.untold = books.untold.saturating_add(1);
            return true;
        }
        let is_same = books.refused.get(&name).is_some_and(|former| former.finding == finding);
        books.refused.insert(name, Refused { finding, list: books.list, uid });
        !is_same
    }

    fn forget(&mut self, name: &ObjectRef) {
        self.objects.remove(name);
        let held = self.kinds.get_mut(&name.kind).and_then(|books| books.held.remove(name));
        self.bytes = self.bytes.saturating_sub(held.map_or(0, |held| held.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn item(value: Value) -> Item {
        serde_json::from_value(value).unwrap()
    }

    fn service(name: &str, port: u16) -> Item {
        item(
            json!({ "metadata": { "name": name, "namespace": "ns", "uid": name }, "spec": { "ports": [{ "port": port }] } }),
        )
    }

    fn name(name: &str) -> ObjectRef {
        ObjectRef { kind: Kind::Service, namespace: "ns".to_owned(), name: name.to_owned() }
    }

    fn put(store: &mut Store, item: Item) -> bool {
        store.put(Kind::Service, "v1", item)
    }

    fn amounts(store: &Store) -> (usize, u64) {
        let Amount { held, refused } = store.amount(Kind::Service);
        assert_eq!(held, store.objects().len());
        (held, refused)
    }

    #[test]
    fn only_changes_of_what_is_used_are_changes() {
        let mut store = Store::new(Limits::default());
        assert!(put(&mut store, service("a", 80)));
        assert!(!put(&mut store, service("a", 80)));
        let annotated = json!({
            "metadata": { "name": "a", "namespace": "ns", "annotations": { "x": "y" } },
            "spec": { "ports": [{ "port": 80 }], "sessionAffinity": "None" }
        });
        assert!(!put(&mut store, item(annotated)));
        assert!(put(&mut store, service("a", 81)));
        assert_eq!(store.uid(&name("a")), "a");
        assert!(store.remove(&name("a")));
        assert!(!store.remove(&name("a")));
        assert_eq!((amounts(&store), store.bytes()), ((0, 0), 0));
    }

    #[test]
    fn what_a_list_does_not_have_is_gone_once_the_list_has_ended() {
        let mut store = Store::new(Limits::default());
        for one in ["a", "b"] {
            put(&mut store, service(one, 80));
        }
        store.begin_list(Kind::Service);
        put(&mut store, service("a", 80));
        assert_eq!(amounts(&store), (2, 0), "a list that is cut short takes nothing away");
        store.begin_list(Kind::Service);
        put(&mut store, service("b", 80));
        assert!(store.end_list(Kind::Service));
        assert!(!store.end_list(Kind::Service));
        assert_eq!((amounts(&store), store.uid(&name("a"))), ((1, 0), ""));
    }

    #[test]
    fn object_that_can_not_be_read_is_a_finding_until_it_can_or_is_gone() {
        let mut store = Store::new(Limits::default());
        let wrong = || {
            item(
                json!({ "metadata": { "name": "a", "namespace": "ns", "uid": "u" }, "spec": { "ports": 7 } }),
            )
        };
        put(&mut store, service("a", 80));
        assert!(put(&mut store, wrong()));
        assert!(!put(&mut store, wrong()));
        assert_eq!((amounts(&store), store.uid(&name("a"))), ((0, 1), "u"));
        let reasons: Vec<Reason> = store.findings().map(|finding| finding.reason).collect();
        assert_eq!(reasons, [Reason::InvalidField]);
        assert!(put(&mut store, service("a", 80)));
        assert_eq!(amounts(&store), (1, 0));
        put(&mut store, wrong());
        assert!(store.remove(&name("a")));
        assert_eq!(amounts(&store), (0, 0));
        put(&mut store, wrong());
        store.begin_list(Kind::Service);
        assert!(store.end_list(Kind::Service));
        assert_eq!(amounts(&store), (0, 0));
    }

    #[test]
    fn objects_beyond_the_bounds_are_left_out_and_told() {
        let limits = Limits { objects: 3, object_bytes: 10_000, total_bytes: 30_000, refused: 2 };
        let mut store = Store::new(limits);
        for index in 0..8 {
            put(&mut store, service(&format!("s{index}"), 80));
        }
        assert_eq!(amounts(&store), (3, 5));
        assert_eq!(store.findings().count(), 2);
        assert!(store.findings().all(|finding| finding.reason == Reason::LimitExceeded));
        assert!(put(&mut store, service("s0", 81)), "those that are in can change");

        let mut store = Store::new(Limits { objects: 100, ..limits });
        let heavy = |name: &str, bytes: usize| {
            let text = "x".repeat(bytes);
            item(json!({ "metadata": { "name": name, "namespace": "ns" }, "spec": { "externalName": text } }))
        };
        put(&mut store, heavy("over", 10_001));
        assert_eq!(amounts(&store), (0, 1));
        for index in 0..8 {
            put(&mut store, heavy(&format!("h{index}"), 9_000));
        }
        assert_eq!(amounts(&store), (3, 6));
        assert!(store.bytes() <= limits.total_bytes);
        put(&mut store, heavy("h0", 10));
        put(&mut store, heavy("late", 10));
        assert_eq!(amounts(&store).0, 4, "there is room again");
    }

    #[test]
    fn nameless_objects_are_counted_only() {
        let mut store = Store::new(Limits::default());
        assert!(!put(&mut store, item(json!({ "spec": {} }))));
        assert_eq!((amounts(&store), store.findings().count()), ((0, 1), 0));
    }
}
