//! Capture file in, shadow requests out: the whole pure middle, without a kernel or privileges.

mod cases;
mod world;
