//! The dynamic table of an encoder that was perhaps never seen from its start (RFC 7541, 2.3.2 and 4).
//!
//! # What can be known
//! A new entry always goes in front, and entries leave only from the back. So whatever happened before we
//! looked, the true table is
//!
//! ```text
//! newest                                        oldest
//! [ entries inserted since we look ][ unknown tail ]
//! ```
//!
//! and the *n*-th position of the true table, as long as it exists and lies within the first part, holds the
//! *n*-th newest entry that we saw. An encoder only refers to positions that exist, or its own peer ends the
//! connection. So a reference within the known part is certain **even while the size limit in force is not
//! known**: the reference itself proves that the entry has not been evicted. (An entry larger than the limit
//! empties the table instead of entering it, RFC 7541, 4.4. Then later positions count from behind it, in
//! the true table as in ours, and an entry at or beyond it cannot be referred to.) A reference beyond the
//! known part is unknown, never guessed.
//!
//! The limit matters for one question only: is there still an unknown tail? It is gone for certain
//! * when the limit was set to less than what is known plus the 32 bytes that any entry takes at least;
//! * when what is known leaves fewer than 32 bytes of the limit;
//! * when a known entry had to leave, for the tail leaves before it.
//!
//! From then on a reference beyond the known part is an error. The limit itself is known from the start of
//! a connection (4,096 until the encoder says otherwise) or from the next size update.
//!
//! An entry whose name was unknown when it was inserted has an unknown size; it counts with its least one,
//! so that all conclusions above stay true.
//!
//! # Bounds
//! What is kept never exceeds [`MAX_TABLE_BYTES`], and [`UNKNOWN_LIMIT_BYTES`] while the limit is unknown.
//! Entries beyond that join the unknown tail.

use super::HpackError;
use std::collections::VecDeque;

/// Most bytes of entries that are kept (RFC 7541, 4.1, counts 32 for each). Larger tables are decoded, but
/// references to their older part are unknown.
pub const MAX_TABLE_BYTES: u32 = 64 * 1024;
/// Most bytes of entries that are kept while the encoder's own limit is unknown. Most encoders use 4,096.
pub const UNKNOWN_LIMIT_BYTES: u32 = 16 * 1024;
/// The limit that a connection starts with (RFC 9113, 6.5.2).
pub const INITIAL_TABLE_BYTES: u32 = 4096;
/// What an entry counts beyond its strings (RFC 7541, 4.1).
const ENTRY_OVERHEAD_BYTES: u32 = 32;
/// Dead bytes before the arena moves its live ones to the front.
const COMPACT_BYTES: usize = 4096;

/// The dynamic table.
#[derive(Debug)]
pub(super) struct DynamicTable {
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// Strings of the entries, oldest first, name before value.
    arena: Vec<u8>,
    /// Bytes at the front of `arena` that belong to evicted entries.
    dead_bytes: usize,
    /// Place of the arena's first byte, counted over all bytes that were ever in it.
    base: usize,
    /// Sum of the entries' least sizes.
    used_bytes: u32,
    /// The size limit in force at the encoder; `None`: never heard of.
    limit_bytes: Option<u32>,
    tail: Tail,
}

/// What lies behind the known entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// Nothing: the table is known whole.
    Empty,
    /// Entries that were never seen, perhaps none.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Place of its first byte, counted as [`DynamicTable::base`] is.
    start: usize,
    /// `None`: the name was unknown.
    name_bytes: Option<u32>,
    value_bytes: u32,
}

/// An entry that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup<'a> {
    /// An entry seen when it was inserted; its name is `None` when that was unknown even then.
    Known(Option<&'a [u8]>, &'a [u8]),
    /// An entry of the unknown tail.
    Unknown,
}

impl DynamicTable {
    /// The table at the start of a connection.
    pub(super) fn empty() -> Self {
        Self { limit_bytes: Some(INITIAL_TABLE_BYTES), tail: Tail::Empty, ..Self::unknown() }
    }

    /// A table of which nothing is known.
    pub(super) fn unknown() -> Self {
        Self {
            entries: VecDeque::new(),
            arena: Vec::new(),
            dead_bytes: 0,
            base: 0,
            used_bytes: 0,
            limit_bytes: None,
            tail: Tail::Unknown,
        }
    }

    /// Forgets everything: insertions, evictions or size updates may have been missed.
    pub(super) fn forget(&mut self) {
        self.clear();
        self.limit_bytes = None;
        self.tail = Tail::Unknown;
    }

    /// True when no entry can be there that is not known.
    pub(super) fn is_whole(&self) -> bool {
        self.tail == Tail::Empty && self.entries.iter().all(|entry| entry.name_bytes.is_some())
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.arena.capacity().saturating_add(self.entries.capacity().saturating_mul(size_of::<Entry>()))
    }

    /// The entry at `position`, 0 being the newest.
    pub(super) fn lookup(&self, position: u32) -> Result<Lookup<'_>, HpackError> {
        let place = usize::try_from(position)
            .ok()
            .and_then(|position| self.entries.len().checked_sub(1)?.checked_sub(position));
        match place {
            Some(place) => Ok(self.entry(place).unwrap_or(Lookup::Unknown)),
            None if self.tail == Tail::Empty => Err(HpackError::InvalidIndex),
            None => Ok(Lookup::Unknown),
        }
    }

    /// A size update (RFC 7541, 6.3).
    pub(super) fn set_limit(&mut self, limit_bytes: u32) {
        self.limit_bytes = Some(limit_bytes);
        self.evict();
    }

    /// Puts an entry in front.
    pub(super) fn insert(&mut self, name: Option<&[u8]>, value: &[u8]) {
        let entry = Entry {
            start: self.base.wrapping_add(self.arena.len()),
            name_bytes: name.map(|name| u32::try_from(name.len()).unwrap_or(u32::MAX)),
            value_bytes: u32::try_from(value.len()).unwrap_or(u32::MAX),
        };
        if entry.least_bytes() > self.bound_bytes() {
            return self.insert_oversize(entry);
        }
        self.arena.extend_from_slice(name.unwrap_or_default());
        self.arena.extend_from_slice(value);
        self.used_bytes = self.used_bytes.saturating_add(entry.least_bytes());
        self.entries.push_back(entry);
        self.evict();
    }

    /// An entry above the limit empties the table (RFC 7541, 4.4); one that is only above what is kept here
    /// takes its place in the tail, with all before it.
    fn insert_oversize(&mut self, entry: Entry) {
        self.clear();
        let above_limit = self.limit_bytes.is_some_and(|limit| entry.least_bytes() > limit);
        self.tail = if above_limit { Tail::Empty } else { Tail::Unknown };
    }

    fn evict(&mut self) {
        while self.used_bytes > self.bound_bytes() {
            let above_limit = self.limit_bytes.is_some_and(|limit| self.used_bytes > limit);
            let Some(oldest) = self.entries.pop_front() else { break };
            self.used_bytes = self.used_bytes.saturating_sub(oldest.least_bytes());
            self.dead_bytes = self.dead_bytes.saturating_add(oldest.stored_bytes());
            self.tail = if above_limit { Tail::Empty } else { Tail::Unknown };
        }
        if let Some(limit) = self.limit_bytes
            && limit.saturating_sub(self.used_bytes) < ENTRY_OVERHEAD_BYTES
        {
            self.tail = Tail::Empty;
        }
        self.compact();
    }

    /// Moves the live bytes to the front once the dead ones are more: each byte moves once at most for each
    /// byte that was inserted.
    fn compact(&mut self) {
        let live_bytes = self.arena.len().saturating_sub(self.dead_bytes);
        if self.dead_bytes >= COMPACT_BYTES && self.dead_bytes >= live_bytes {
            self.arena.drain(..self.dead_bytes.min(self.arena.len()));
            self.base = self.base.wrapping_add(self.dead_bytes);
            self.dead_bytes = 0;
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.base = self.base.wrapping_add(self.arena.len());
        self.arena.clear();
        self.dead_bytes = 0;
        self.used_bytes = 0;
    }

    /// Most bytes that are kept.
    fn bound_bytes(&self) -> u32 {
        self.limit_bytes.map_or(UNKNOWN_LIMIT_BYTES, |limit| limit.min(MAX_TABLE_BYTES))
    }

    fn entry(&self, place: usize) -> Option<Lookup<'_>> {
        let entry = self.entries.get(place)?;
        let bytes = self.arena.get(entry.start.wrapping_sub(self.base)..)?.get(..entry.stored_bytes())?;
        let (name, value) = bytes.split_at_checked(entry.name_bytes.unwrap_or(0) as usize)?;
        Some(Lookup::Known(entry.name_bytes.map(|_| name), value))
    }
}

impl Entry {
    /// The size that counts (RFC 7541, 4.1), or the least it can be when the name is unknown.
    fn least_bytes(&self) -> u32 {
        let strings = self.name_bytes.unwrap_or(0).saturating_add(self.value_bytes);
        strings.saturating_add(ENTRY_OVERHEAD_BYTES)
    }

    /// Bytes in the arena.
    fn stored_bytes(&self) -> usize {
        (self.name_bytes.unwrap_or(0) as usize).saturating_add(self.value_bytes as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known<'a>(name: &'a [u8], value: &'a [u8]) -> Result<Lookup<'a>, HpackError> {
        Ok(Lookup::Known(Some(name), value))
    }

    #[test]
    fn newest_entry_comes_first_and_oldest_leaves_first() {
        let mut table = DynamicTable::empty();
        table.set_limit(68);
        table.insert(Some(b"a"), b"1");
        table.insert(Some(b"b"), b"2");
        assert_eq!(table.lookup(0), known(b"b", b"2"));
        assert_eq!(table.lookup(1), known(b"a", b"1"));
        table.insert(Some(b"c"), b"3");
        assert_eq!(table.lookup(0), known(b"c", b"3"));
        assert_eq!(table.lookup(1), known(b"b", b"2"));
        assert_eq!(table.lookup(2), Err(HpackError::InvalidIndex));
        assert_eq!(table.lookup(u32::MAX), Err(HpackError::InvalidIndex));
    }

    #[test]
    fn entry_larger_than_the_limit_empties_the_table() {
        for (limit, kept) in [(33, false), (34, true), (35, true)] {
            let mut table = DynamicTable::unknown();
            table.set_limit(limit);
            table.insert(Some(b"a"), b"1");
            assert_eq!(table.lookup(0).is_ok(), kept, "{limit}");
            assert!(table.is_whole());
        }
    }

    #[test]
    fn unknown_tail_ends_once_no_entry_fits_into_the_rest() {
        for (limit, whole) in [(34 + 31, true), (34 + 32, false)] {
            let mut table = DynamicTable::unknown();
            table.set_limit(limit);
            assert!(!table.is_whole());
            table.insert(Some(b"a"), b"1");
            assert_eq!(table.is_whole(), whole, "{limit}");
            assert_eq!(table.lookup(1).is_err(), whole, "{limit}");
        }
        let mut table = DynamicTable::unknown();
        table.set_limit(0);
        table.set_limit(4096);
        assert!(table.is_whole());
    }

    #[test]
    fn unknown_limit_keeps_a_bounded_part_and_never_ends_the_tail() {
        let mut table = DynamicTable::unknown();
        for number in 0..10_000_u32 {
            table.insert(Some(b"name"), &number.to_be_bytes());
            assert!(table.used_bytes <= UNKNOWN_LIMIT_BYTES);
            assert!(table.arena.len() <= 3 * UNKNOWN_LIMIT_BYTES as usize);
        }
        assert_eq!(table.lookup(0), known(b"name", &9_999_u32.to_be_bytes()));
        assert_eq!(table.lookup(9_000), Ok(Lookup::Unknown));
        assert!(!table.is_whole());
    }

    #[test]
    fn table_larger_than_what_is_kept_has_an_unknown_tail() {
        let mut table = DynamicTable::empty();
        table.set_limit(2 * MAX_TABLE_BYTES);
        let value = vec![b'v'; 968];
        for _ in 0..66 {
            table.insert(None, &value);
        }
        assert!(table.used_bytes <= MAX_TABLE_BYTES);
        assert_eq!(table.lookup(64), Ok(Lookup::Known(None, &value)));
        assert_eq!(table.lookup(65), Ok(Lookup::Unknown));
    }

    #[test]
    fn forgetting_leaves_only_an_unknown_tail() {
        let mut table = DynamicTable::empty();
        table.insert(Some(b"a"), b"1");
        table.forget();
        assert_eq!(table.lookup(0), Ok(Lookup::Unknown));
        table.insert(Some(b"b"), b"2");
        assert_eq!(table.lookup(0), known(b"b", b"2"));
        assert_eq!(table.lookup(1), Ok(Lookup::Unknown));
    }
}
