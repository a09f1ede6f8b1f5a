//! What the decoder claims: one by one, on random connections, and with a real client and server.

mod claims;
mod harness;
mod peers;
mod random;
