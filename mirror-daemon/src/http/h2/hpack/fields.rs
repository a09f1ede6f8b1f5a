//! The decoded fields of one header block, in one arena that is used again for every block.

/// How many times the limit the fields of a block may be, and it is still decoded to its end, which keeps the dynamic
/// table known. What a block costs follows from it: a few bytes can name entries of 64 KiB over and over.
///
/// With the limit of connections (128 KiB) that is 512 KiB, and an encoder that means well stays below: its block has
/// at most 128 KiB of literals, which Huffman coding made from at most 205 KiB; it names each entry of a table of at
/// most 64 KiB once; and 32 bytes a field fill the rest only from 7,776 fields on.
const BOMB_FACTOR: usize = 4;
/// What a field counts beyond its strings (RFC 9113, 6.5.2).
const FIELD_BYTES: usize = 32;

/// Fields of a header block, in order. Values lie in one arena; static entries are borrowed for good.
#[derive(Debug, Default)]
pub struct FieldBlock {
    arena: Vec<u8>,
    slots: Vec<Slot>,
    /// Size of all fields, left out or not (RFC 9113, 6.5.2: name, value and 32), in bytes.
    list_bytes: usize,
    unknown_count: usize,
    exceeded: bool,
}

/// What is known of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodedField<'a> {
    /// Name and value are certain.
    Known {
        /// The name as coded.
        name: &'a [u8],
        /// The value as coded.
        value: &'a [u8],
        /// Coded as never indexed (RFC 7541, 6.2.3): sensitive.
        never_indexed: bool,
    },
    /// The name refers to an entry that was inserted before this decoder could see it.
    Unknown {
        /// The value, when it was coded literally, or inserted within sight.
        value: Option<&'a [u8]>,
    },
}

/// A string of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Text {
    /// In the static table.
    Static(&'static [u8]),
    /// In the arena, from byte to byte.
    Arena(usize, usize),
    /// Never seen.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    name: Text,
    value: Text,
    never_indexed: bool,
}

/// Bounds of a [`FieldBlock`].
#[derive(Clone, Copy, Debug)]
pub struct FieldLimits {
    /// Most bytes of all fields together, counted as in RFC 9113, 6.5.2.
    pub list_bytes: usize,
    /// Most fields.
    pub count: usize,
}

impl FieldBlock {
    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = DecodedField<'_>> {
        self.slots.iter().map(|slot| match (self.text(slot.name), self.text(slot.value)) {
            (Some(name), Some(value)) => {
                DecodedField::Known { name, value, never_indexed: slot.never_indexed }
            }
            (_, value) => DecodedField::Unknown { value },
        })
    }

    /// True when there is a field of this name whose value is known too.
    #[must_use]
    pub fn has_known(&self, wanted: &[u8]) -> bool {
        self.iter().any(|field| matches!(field, DecodedField::Known { name, .. } if name == wanted))
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many of them are not known whole.
    #[must_use]
    pub fn unknown_count(&self) -> usize {
        self.unknown_count
    }

    /// Bytes that are allocated, for the books.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.arena.capacity().saturating_add(self.slots.capacity().saturating_mul(size_of::<Slot>()))
    }

    /// Forgets the fields, and gives back memory beyond so many bytes: one large block is no reason to keep it for as
    /// long as the connection lives.
    pub fn give_back(&mut self, kept_bytes: usize) {
        self.clear();
        self.arena.shrink_to(kept_bytes);
        self.slots.shrink_to(kept_bytes.checked_div(size_of::<Slot>()).unwrap_or(0));
    }

    pub(super) fn clear(&mut self) {
        self.arena.clear();
        self.slots.clear();
        self.list_bytes = 0;
        self.unknown_count = 0;
        self.exceeded = false;
    }

    /// True once a field did not fit; it and all after it were left out.
    pub(super) fn exceeded(&self) -> bool {
        self.exceeded
    }

    /// True when the fields are so much beyond the limit that going on would cost too much: a few bytes of a
    /// block can name entries of 64 KiB.
    pub(super) fn is_bomb(&self, limits: FieldLimits) -> bool {
        self.list_bytes > limits.list_bytes.saturating_mul(BOMB_FACTOR)
    }

    /// Whether a field with so many bytes of name and value fits.
    #[inline]
    pub(super) fn has_room(&self, bytes: usize, limits: FieldLimits) -> bool {
        let list_bytes = self.list_bytes.saturating_add(bytes).saturating_add(FIELD_BYTES);
        !self.exceeded && list_bytes <= limits.list_bytes
    }

    /// Counts a field that does not fit. Nothing of it is copied, for a byte of a block can name 64 KiB.
    pub(super) fn leave_out(&mut self, bytes: usize) {
        self.list_bytes = self.list_bytes.saturating_add(bytes).saturating_add(FIELD_BYTES);
        self.exceeded = true;
    }

    /// The end of the arena, where strings are decoded to before their field is pushed.
    pub(super) fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    /// Appends `bytes` to the arena.
    #[inline]
    pub(super) fn store(&mut self, bytes: &[u8]) -> Text {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        Text::Arena(start, self.arena.len())
    }

    #[inline]
    pub(super) fn text(&self, text: Text) -> Option<&[u8]> {
        match text {
            Text::Static(bytes) => Some(bytes),
            Text::Arena(start, end) => self.arena.get(start..end),
            Text::Unknown => None,
        }
    }

    /// Adds a field whose strings are already in the arena. `mark` is the arena's length before them, to
    /// which it falls back when the field does not fit.
    #[inline]
    pub(super) fn push(&mut self, strings: (Text, Text), never_indexed: bool, mark: Mark) {
        let (name, value) = strings;
        let known = |text| self.text(text).map_or(0, <[u8]>::len);
        let size = known(name).saturating_add(known(value)).saturating_add(FIELD_BYTES);
        self.list_bytes = self.list_bytes.saturating_add(size);
        let limits = mark.limits;
        if self.exceeded || self.list_bytes > limits.list_bytes || self.slots.len() >= limits.count {
            self.exceeded = true;
            self.arena.truncate(mark.arena_bytes);
            return;
        }
        if matches!(name, Text::Unknown) || matches!(value, Text::Unknown) {
            self.unknown_count = self.unknown_count.saturating_add(1);
        }
        self.slots.push(Slot { name, value, never_indexed });
    }

    pub(super) fn mark(&self, limits: FieldLimits) -> Mark {
        Mark { arena_bytes: self.arena.len(), limits }
    }
}

/// Where the arena ended before a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    arena_bytes: usize,
    limits: FieldLimits,
}
