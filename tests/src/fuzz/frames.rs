//! HTTP/2 that is right, so that a fuzzer need not find out how to write it.

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Parts of header blocks; two are chosen by six bits.
const PARTS: [&[u8]; 8] = [
    b"",
    // GET http / and `:authority: h`, which goes into the table.
    b"\x82\x86\x84\x41\x01h",
    // POST http /a and the same.
    b"\x83\x86\x04\x02/a\x41\x01h",
    // GET http / with whatever is the newest entry.
    b"\x82\x86\x84\xbe",
    // content-type: application/grpc
    b"\x5f\x10application/grpc",
    // content-length: 3
    b"\x5c\x013",
    b"\x40\x05x-sum\x016",
    // A table of no bytes, and again of 4,096.
    b"\x20\x3f\xe1\x1f",
];

/// A header block.
pub(super) fn block(choice: u8) -> Vec<u8> {
    [PARTS[usize::from(choice & 7)], PARTS[usize::from(choice >> 3 & 7)]].concat()
}

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}
