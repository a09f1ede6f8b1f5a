//! HTTP/2 and gRPC, with real gateways and real clients on the real kernel.

mod complete;
mod expected;
mod faithful;
mod grpc;
mod harness;
mod hostile;
mod joining;
mod loss;
mod oracle;
mod rig;
mod tls;
mod upgrade;
