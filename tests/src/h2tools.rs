//! HTTP/2 clients that somebody else wrote: `h2` in Python for what is odd, curl, nghttp.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::netns::Netns;
use crate::process::Launch;
use crate::{peers, wire};

/// The scenes of the odd client that nginx 1.22 lives through: it takes trailers for a fault of the connection.
pub const SCENES_FOR_NGINX: &[&str] = &[
    "plain",
    "padding",
    "continuation",
    "priority",
    "table_sizes",
    "fresh_table",
    "never_indexed",
    "crumbs",
    "both_hosts",
    "ports",
    "resets",
    "interleaved",
    "empty_data",
    "large",
    "connection_frames",
    "embedded",
];

/// A request as `fixtures/peers/h2_client.py` sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OddRequest {
    /// Its method.
    pub method: String,
    /// `:path`; its query has the number.
    pub target: String,
    /// `:authority`.
    pub authority: String,
    /// All other fields, in order.
    pub fields: Vec<(String, String)>,
    /// The body, or as much of it as was sent.
    pub body: Vec<u8>,
    /// Fields of the trailer section, in order.
    pub trailers: Vec<(String, String)>,
    /// What was answered; `None`: the stream was reset by the gateway.
    pub status: Option<u16>,
    /// The client reset the stream before its end.
    pub was_cut: bool,
}

/// What the odd client is to do.
#[derive(Clone, Copy, Debug)]
pub struct OddClient<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// `:authority`.
    pub authority: &'a str,
    /// Number of the first request.
    pub first_id: u64,
    /// How often all scenes are played.
    pub repeat: u32,
    /// Scenes; none: all.
    pub scenes: &'a [&'a str],
}

impl OddClient<'_> {
    /// Sends all on one connection.
    ///
    /// # Errors
    /// When the gateway closes it early, or an answer does not come.
    pub fn run(&self, netns: &Netns) -> Result<Vec<OddRequest>> {
        let lines = self.launch()?.in_netns(netns).run()?;
        lines.lines().map(|line| OddRequest::read(line).with_context(|| line.to_owned())).collect()
    }

    /// The client, to be started.
    ///
    /// # Errors
    /// When set-up has not been done.
    pub fn launch(&self) -> Result<Launch> {
        Ok(peers::script("h2_client.py")?
            .args(["--to".to_owned(), self.to.to_string(), "--authority".to_owned()])
            .args([self.authority.to_owned(), "--first-id".to_owned(), self.first_id.to_string()])
            .args(["--repeat".to_owned(), self.repeat.to_string()])
            .args(self.scenes.iter().map(|scene| (*scene).to_owned())))
    }
}

impl OddRequest {
    /// From a line that the client printed.
    ///
    /// # Errors
    /// When it is no such line.
    pub fn read(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line)?;
        let text = |key: &str| -> Result<String> {
            Ok(value[key].as_str().with_context(|| format!("no {key}"))?.to_owned())
        };
        Ok(Self {
            method: text("method")?,
            target: text("target")?,
            authority: text("authority")?,
            fields: pairs(&value["fields"]),
            body: wire::from_latin1(&text("body")?)?,
            trailers: pairs(&value["trailers"]),
            status: value["status"].as_u64().and_then(|status| u16::try_from(status).ok()),
            was_cut: value["cut"] == Value::Bool(true),
        })
    }
}

/// curl over HTTP/2 by prior knowledge; gives what it printed.
///
/// # Errors
/// When it fails.
pub fn curl(netns: &Netns, args: &[&str]) -> Result<String> {
    curl_with("--http2-prior-knowledge", netns, args)
}

/// curl that asks in its first request to go on in HTTP/2 (`Upgrade: h2c`); gives what it printed.
///
/// # Errors
/// When it fails.
pub fn upgrading_curl(netns: &Netns, args: &[&str]) -> Result<String> {
    curl_with("--http2", netns, args)
}

fn curl_with(option: &str, netns: &Netns, args: &[&str]) -> Result<String> {
    Launch::new("curl")
        .args(["-sS", "--max-time", "30", option])
        .args(args.iter().copied())
        .in_netns(netns)
        .run()
}

/// nghttp; gives what it printed.
///
/// # Errors
/// When it fails.
pub fn nghttp(netns: &Netns, args: &[&str]) -> Result<String> {
    Launch::new("nghttp").args(["--timeout=30", "--stat"]).args(args.iter().copied()).in_netns(netns).run()
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    value.as_array().into_iter().flatten().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}
