//! A record as a JSON object.

use super::grpc::{self, GrpcCall, Truncated};
use super::{Outcome, TapHead, TapRecord, version};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use std::net::{Ipv6Addr, SocketAddr};

/// The JSON object. Absent: `authority` without one; `method` to `headers` without a head; `headers` unless asked
/// for; `grpc` unless it is a call; `reason` unless dropped. Header values are UTF-8; other bytes become U+FFFD.
impl Serialize for TapRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("time", &self.time().to_string())?;
        object.serialize_entry("time_unix_ns", &self.at_unix_ns)?;
        object.serialize_entry("client_ip", &self.client_ip)?;
        let flow = &self.flow;
        object.serialize_entry("remote", &address(flow.remote_addr, flow.remote_port))?;
        object.serialize_entry("gateway", &address(flow.gateway_addr, flow.gateway_port))?;
        object.serialize_entry("capture_point", &flow.capture_point)?;
        object.serialize_entry("number", &self.number.0)?;
        if let Some(head) = &self.head {
            object.serialize_entry("method", &head.method)?;
            if let Some(authority) = &head.authority {
                object.serialize_entry("authority", authority)?;
            }
            object.serialize_entry("path", &head.path)?;
            object.serialize_entry("version", version(head.version))?;
            if !head.headers.is_empty() {
                object.serialize_entry("headers", &Headers(&head.headers))?;
            }
        }
        object.serialize_entry("body_bytes", &self.body_bytes)?;
        object.serialize_entry("trailers", &self.trailers)?;
        if let Some((head, call)) = self.head.as_ref().zip(self.grpc.as_ref()) {
            object.serialize_entry("grpc", &Call(head, call))?;
        }
        match self.outcome {
            Outcome::Started => object.serialize_entry("outcome", "started")?,
            Outcome::Complete => object.serialize_entry("outcome", "complete")?,
            Outcome::Dropped(reason) => {
                object.serialize_entry("outcome", "dropped")?;
                object.serialize_entry("reason", reason.label())?;
            }
        }
        object.end()
    }
}

/// Messages that are whole; `truncated` only when the body ends in one, without `message_bytes` when its prefix is
/// not whole; `malformed` only when it is true.
struct Call<'a>(&'a TapHead, &'a GrpcCall);

impl Serialize for Call<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(head, call) = self;
        let (service, method) = grpc::service_and_method(&head.path);
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("service", service)?;
        object.serialize_entry("method", method)?;
        object.serialize_entry("messages", &call.messages)?;
        object.serialize_entry("total_bytes", &call.total_bytes)?;
        object.serialize_entry("message_bytes", &call.message_bytes)?;
        object.serialize_entry("compressed", &call.compressed)?;
        if let Some(last) = call.truncated() {
            object.serialize_entry("truncated", &Cut(last))?;
        }
        if call.is_malformed() {
            object.serialize_entry("malformed", &true)?;
        }
        object.end()
    }
}

struct Cut(Truncated);

impl Serialize for Cut {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(last) = self;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("seen_bytes", &last.seen_bytes)?;
        if let Some(bytes) = last.message_bytes {
            object.serialize_entry("message_bytes", &bytes)?;
        }
        object.end()
    }
}

struct Headers<'a>(&'a [(String, Vec<u8>)]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for (name, value) in self.0 {
            list.serialize_element(&(name, String::from_utf8_lossy(value)))?;
        }
        list.end()
    }
}

fn address(octets: [u8; 16], port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), port)
}
