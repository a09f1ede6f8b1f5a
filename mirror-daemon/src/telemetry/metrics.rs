//! Every metric of the daemon: name, kind, labels, meaning, and what to do about it.
//!
//! Numbers are read when a page is asked for; nothing is pushed. Labels are closed sets, but for `shadow`, which
//! is a name of the configuration: at most [`MAX_SHADOW_LABELS`] of them, the rest is summed under
//! [`OTHER_SHADOWS`]. The text is OpenMetrics 1.0. `docs/METRICS.md` is made from what [`Family`] says here, and a test
//! compares them.

mod document;
mod encode;
mod families;

pub use document::document;
pub use families::*;

use super::snapshot::Source;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;
use std::fmt;
use std::time::SystemTime;

/// Most values of the label `shadow`, over all reloads.
pub const MAX_SHADOW_LABELS: usize = 256;

/// The value of `shadow` under which all shadows beyond [`MAX_SHADOW_LABELS`] are summed. No configured name
/// can be this: names don't start with `_`.
pub const OTHER_SHADOWS: &str = "_other";

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the daemon lives; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1; what it says is in its labels; its name ends in `_info`.
    Info,
    /// How often what was measured was within each of several bounds.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name, as in queries.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels: name, and the values it can have.
    pub labels: &'static [(&'static str, &'static str)],
    /// What it counts.
    pub help: &'static str,
    /// What the person on call does about it.
    pub action: &'static str,
}

/// Every metric, in the order of the page and of the documentation.
pub const ALL: [Family; 53] = [
    REQUESTS,
    COPIES,
    COPIES_OWED,
    COPIES_OPEN,
    COPIES_RESENT,
    ANSWERS,
    SHADOW_CONNECTIONS,
    SHADOW_CONNECTIONS_OPENED,
    SHADOW_IN_FLIGHT,
    SHADOW_QUEUE_ITEMS,
    SHADOW_QUEUE_BYTES,
    SHADOW_BREAKER,
    KERNEL_LOSSES,
    KERNEL_LOST_BYTES,
    KERNEL_EVENTS,
    KERNEL_BYTES,
    FLOW_EVENTS,
    FLOW_BYTES,
    HTTP2_EVENTS,
    HTTP2_CONNECTIONS,
    FLOWS,
    FLOW_BUFFERED,
    CAPTURE_POINTS,
    PODS,
    POINTS_SILENT,
    POD_ATTACH,
    POD_WATCH,
    POD_WATCH_FAILURES,
    RULES_WATCH,
    RULES_SYNCED,
    RULES_SILENCE,
    RULES_OBJECTS,
    RULES_OBJECT,
    RULES_CHANGES,
    RULES_LISTS,
    RULES_WATCHES,
    RULES_FAILURES,
    RULES_FINDINGS,
    RULES_EVENTS,
    CONFIG_LAST_RELOAD_OK,
    CONFIG_GENERATION,
    CONFIG_RULES_CUT,
    CONFIG_RELOAD_FAILURES,
    DRAINING,
    PARSER_RESTARTS,
    BUILD,
    PROCESS_START,
    PROCESS_CPU,
    PROCESS_RESIDENT,
    PROCESS_RESIDENT_ANON,
    PROCESS_RESIDENT_PEAK,
    PROCESS_THREADS,
    PROCESS_FDS,
];

/// The metrics page.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A page whose numbers come from `source`, asked once per [`Metrics::render`].
    #[must_use]
    pub fn new(source: Source, started: SystemTime) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Page { source, started }));
        Self { registry }
    }

    /// The page, in the OpenMetrics text format.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(16 * 1024);
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

struct Page {
    source: Source,
    started: SystemTime,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("started", &self.started).finish_non_exhaustive()
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        encode::page(encoder, &(self.source)(), self.started)
    }
}

#[cfg(test)]
mod tests;
