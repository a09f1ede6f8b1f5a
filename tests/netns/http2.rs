//! HTTP/2 and gRPC, with real gateways and real clients on the real kernel.

mod harness;
