//! What the decoder claims: one by one, on random connections, and with a real client and server.

mod ends;
mod harness;
mod joining;
mod peers;
mod random;
mod requests;
mod violations;
