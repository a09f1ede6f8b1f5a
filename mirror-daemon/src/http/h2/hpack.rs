//! Header compression (RFC 7541), read passively: from the start of a connection, or from anywhere in it.
//!
//! [`HpackDecoder`] turns a header block into the fields of a [`FieldBlock`]. What cannot be known (see
//! `table`) comes out as [`DecodedField::Unknown`]; nothing is ever guessed. After an error, and after
//! [`HpackDecoder::forget`], every earlier entry is unknown, and decoding goes on.
//!
//! Left out: joining the fragments of a block (`connection`), what fields mean (`head`).

mod fields;
mod huffman;
mod integer;
mod static_table;
mod table;
#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, clippy::disallowed_methods)]
pub(in crate::http::h2) mod tests;

pub use fields::{DecodedField, FieldBlock, FieldLimits};
pub use table::{INITIAL_TABLE_BYTES, MAX_TABLE_BYTES, UNKNOWN_LIMIT_BYTES};

use super::kind::closed_kinds;
use fields::{Mark, Text};
use static_table::STATIC_COUNT;
use table::{DynamicTable, Lookup};

closed_kinds! {
    /// Which rule of RFC 7541 a header block broke, or which bound it reached.
    HpackError;
    /// The block ended inside a field.
    Truncated = "hpack_truncated", "header block ends inside a field";
    /// An integer beyond 32 bits, or with more than five further octets (5.1).
    IntegerTooLarge = "hpack_integer", "integer larger than 32 bits";
    /// An index of 0, or beyond a table that is known whole (2.3.3).
    InvalidIndex = "hpack_index", "index beyond the table";
    /// EOS inside a Huffman-coded string (5.2).
    HuffmanEos = "hpack_huffman_eos", "EOS inside a Huffman-coded string";
    /// Padding of more than 7 bits, or not of ones (5.2).
    HuffmanPadding = "hpack_huffman_padding", "wrong padding of a Huffman-coded string";
    /// A size update above the acknowledged SETTINGS_HEADER_TABLE_SIZE (6.3).
    SizeUpdateTooLarge = "hpack_size_update_too_large", "table size update above the acknowledged setting";
    /// A size update behind the first field of the block (4.2).
    SizeUpdateMisplaced = "hpack_size_update_misplaced", "table size update behind a field";
    /// The fields exceed the [`FieldLimits`]. Unless they do so many times over, the block was decoded to its
    /// end and the table is right.
    FieldsTooLarge = "hpack_fields_too_large", "more header fields, or larger ones, than the limit";
}

/// Decodes the header blocks of one direction of one connection, in order.
#[derive(Debug)]
pub struct HpackDecoder {
    table: DynamicTable,
    /// What a size update may not exceed; `None`: the setting was not seen.
    setting_bytes: Option<u32>,
    limits: FieldLimits,
}

impl HpackDecoder {
    /// At the start of a connection: the table is empty.
    #[must_use]
    pub fn new(limits: FieldLimits) -> Self {
        Self { table: DynamicTable::empty(), setting_bytes: None, limits }
    }

    /// In the middle of a connection: nothing is known of the table.
    #[must_use]
    pub fn joined(limits: FieldLimits) -> Self {
        Self { table: DynamicTable::unknown(), setting_bytes: None, limits }
    }

    /// Takes the other side's SETTINGS_HEADER_TABLE_SIZE as the bound of size updates. Only an upper bound:
    /// the encoder says what it uses by size updates.
    pub fn bound_size_updates(&mut self, setting_bytes: u32) {
        self.setting_bytes = Some(setting_bytes);
    }

    /// Header blocks may have been missed: every entry is unknown from here on.
    pub fn forget(&mut self) {
        self.table.forget();
    }

    /// True when every entry of the table is known.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.table.is_whole()
    }

    /// Bytes that are allocated, for the books.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.table.allocated_bytes()
    }

    /// Decodes one whole header block. `out` is emptied first.
    ///
    /// # Errors
    /// Any [`HpackError`]; `out` holds the fields before it. Where the rest of the block is lost, and with it
    /// insertions, the table has been forgotten; [`HpackError::FieldsTooLarge`] loses it only when the fields
    /// exceed the limits many times over.
    pub fn decode(&mut self, block: &[u8], out: &mut FieldBlock) -> Result<(), HpackError> {
        out.clear();
        if let Err(error) = self.decode_fields(block, out) {
            self.forget();
            return Err(error);
        }
        if out.exceeded() { Err(HpackError::FieldsTooLarge) } else { Ok(()) }
    }

    fn decode_fields(&mut self, mut rest: &[u8], out: &mut FieldBlock) -> Result<(), HpackError> {
        let mut any_field = false;
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            let mark = out.mark(self.limits);
            match first {
                0x80.. => {
                    let index = integer::read(first, 7, &mut rest)?;
                    self.indexed(index, (out, mark))?;
                }
                0x40..0x80 => {
                    let strings = self.literal((first, 6), &mut rest, out)?;
                    self.insert(strings, out);
                    out.push(strings, false, mark);
                }
                0x20..0x40 => {
                    let limit = integer::read(first, 5, &mut rest)?;
                    self.update_size(limit, any_field)?;
                    continue;
                }
                _ => self.unindexed(first, &mut rest, (out, mark))?,
            }
            any_field = true;
            if out.is_bomb(self.limits) {
                return Err(HpackError::FieldsTooLarge);
            }
        }
        Ok(())
    }

    fn unindexed(
        &self,
        first: u8,
        rest: &mut &[u8],
        (out, mark): (&mut FieldBlock, Mark),
    ) -> Result<(), HpackError> {
        let strings = self.literal((first, 4), rest, out)?;
        out.push(strings, first & 0x10 != 0, mark);
        Ok(())
    }

    fn update_size(&mut self, limit_bytes: u32, any_field: bool) -> Result<(), HpackError> {
        if any_field {
            return Err(HpackError::SizeUpdateMisplaced);
        }
        if self.setting_bytes.is_some_and(|setting| limit_bytes > setting) {
            return Err(HpackError::SizeUpdateTooLarge);
        }
        self.table.set_limit(limit_bytes);
        Ok(())
    }

    /// Adds the entry at `index` (RFC 7541, 2.3.3).
    #[inline]
    fn indexed(&self, index: u32, (out, mark): (&mut FieldBlock, Mark)) -> Result<(), HpackError> {
        let strings = match static_table::entry(index) {
            Some((name, value)) => (Text::Static(name), Text::Static(value)),
            None => match self.dynamic(index)? {
                Lookup::Known(name, value) => {
                    let bytes = name.map_or(0, <[u8]>::len).saturating_add(value.len());
                    if !out.has_room(bytes, self.limits) {
                        out.leave_out(bytes);
                        return Ok(());
                    }
                    (name.map_or(Text::Unknown, |name| out.store(name)), out.store(value))
                }
                Lookup::Unknown => (Text::Unknown, Text::Unknown),
            },
        };
        out.push(strings, false, mark);
        Ok(())
    }

    /// A literal: name by index or coded, then the value (RFC 7541, 6.2).
    fn literal(
        &self,
        (first, prefix_bits): (u8, u32),
        rest: &mut &[u8],
        out: &mut FieldBlock,
    ) -> Result<(Text, Text), HpackError> {
        let name = match integer::read(first, prefix_bits, rest)? {
            0 => string(rest, out)?,
            index => self.indexed_name(index, out)?,
        };
        Ok((name, string(rest, out)?))
    }

    fn indexed_name(&self, index: u32, out: &mut FieldBlock) -> Result<Text, HpackError> {
        if let Some((name, _)) = static_table::entry(index) {
            return Ok(Text::Static(name));
        }
        Ok(match self.dynamic(index)? {
            Lookup::Known(Some(name), _) => out.store(name),
            Lookup::Known(None, _) | Lookup::Unknown => Text::Unknown,
        })
    }

    fn dynamic(&self, index: u32) -> Result<Lookup<'_>, HpackError> {
        // Index 0 is below the static table and refused here (RFC 7541, 6.1).
        let position = index.checked_sub(STATIC_COUNT.saturating_add(1)).ok_or(HpackError::InvalidIndex)?;
        self.table.lookup(position)
    }

    fn insert(&mut self, (name, value): (Text, Text), out: &FieldBlock) {
        self.table.insert(out.text(name), out.text(value).unwrap_or_default());
    }
}

/// A string literal (RFC 7541, 5.2), stored in `out`'s arena.
fn string(rest: &mut &[u8], out: &mut FieldBlock) -> Result<Text, HpackError> {
    let (&first, tail) = rest.split_first().ok_or(HpackError::Truncated)?;
    *rest = tail;
    let length = integer::read(first, 7, rest)?;
    let (coded, tail) = rest.split_at_checked(length as usize).ok_or(HpackError::Truncated)?;
    *rest = tail;
    if first & 0x80 == 0 {
        return Ok(out.store(coded));
    }
    let start = out.arena().len();
    huffman::decode(coded, out.arena())?;
    Ok(Text::Arena(start, out.arena().len()))
}
