//! An encoder for tests, with a dynamic table of its own and every freedom that RFC 7541 gives.

use super::super::huffman;
use super::super::static_table;
use super::Random;
use std::collections::VecDeque;

pub(in crate::http::h2) type Pair = (Vec<u8>, Vec<u8>);

/// Encodes fields with random choices of representation.
pub(in crate::http::h2) struct Encoder {
    table: VecDeque<Pair>,
    size: usize,
    limit: usize,
    /// Largest limit that a size update may choose.
    setting: usize,
    /// Chance of a size update before a block, in percent.
    resize_percent: u32,
}

impl Encoder {
    pub(in crate::http::h2) fn new(setting: usize, resize_percent: u32) -> Self {
        Self { table: VecDeque::new(), size: 0, limit: 4096, setting, resize_percent }
    }

    pub(in crate::http::h2) fn encode(&mut self, fields: &[Pair], random: &mut Random) -> Vec<u8> {
        let mut block = Vec::new();
        if random.percent(self.resize_percent) {
            if random.percent(30) {
                self.resize(0, &mut block);
            }
            let limit = random.below(self.setting as u32 + 1) as usize;
            self.resize(limit, &mut block);
        }
        for field in fields {
            self.encode_field(field, random, &mut block);
        }
        block
    }

    /// Empties the table; whoever calls it announces it.
    pub(in crate::http::h2) fn flush(&mut self) {
        self.table.clear();
        self.size = 0;
    }

    fn resize(&mut self, limit: usize, block: &mut Vec<u8>) {
        integer(limit, 5, 0x20, block);
        self.limit = limit;
        self.evict();
    }

    fn encode_field(&mut self, field: &Pair, random: &mut Random, block: &mut Vec<u8>) {
        if let Some(index) = self.find(|(name, value)| name == field.0 && value == field.1)
            && random.percent(90)
        {
            return integer(index, 7, 0x80, block);
        }
        let (prefix, pattern, insert) = match random.below(10) {
            0..7 => (6, 0x40, true),
            7..9 => (4, 0x00, false),
            _ => (4, 0x10, false),
        };
        match self.find(|(name, _)| name == field.0) {
            Some(index) if random.percent(90) => integer(index, prefix, pattern, block),
            _ => {
                integer(0, prefix, pattern, block);
                string(&field.0, random, block);
            }
        }
        string(&field.1, random, block);
        if insert {
            self.size += field.0.len() + field.1.len() + 32;
            self.table.push_front(field.clone());
            self.evict();
        }
    }

    fn find(&self, is: impl Fn((&[u8], &[u8])) -> bool) -> Option<usize> {
        let fixed = (1..62).find(|&index| static_table::entry(index).is_some_and(&is));
        let dynamic = || self.table.iter().position(|(name, value)| is((name, value)));
        fixed.map(|index| index as usize).or_else(|| dynamic().map(|place| place + 62))
    }

    fn evict(&mut self) {
        while self.size > self.limit {
            let (name, value) = self.table.pop_back().expect("entries make the size");
            self.size -= name.len() + value.len() + 32;
        }
    }
}

pub(in crate::http::h2) fn integer(value: usize, prefix_bits: u32, pattern: u8, block: &mut Vec<u8>) {
    let mask = (1_usize << prefix_bits) - 1;
    if value < mask {
        return block.push(pattern | value as u8);
    }
    block.push(pattern | mask as u8);
    let mut left = value - mask;
    while left >= 128 {
        block.push((left % 128) as u8 | 0x80);
        left /= 128;
    }
    block.push(left as u8);
}

fn string(text: &[u8], random: &mut Random, block: &mut Vec<u8>) {
    if random.percent(60) {
        let coded = huffman::tests::encode(text);
        integer(coded.len(), 7, 0x80, block);
        block.extend(coded);
    } else {
        integer(text.len(), 7, 0, block);
        block.extend(text);
    }
}
