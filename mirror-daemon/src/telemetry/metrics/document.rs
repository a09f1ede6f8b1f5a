//! Writes `docs/METRICS.md` from the definitions, so that it can't go stale.

use super::{ALL, Family, Kind};
use crate::drop_reason::DropReason;
use std::fmt::Write;

const INTRODUCTION: &str = "\
# Metrics and drop reasons

Made from `mirror-daemon/src/telemetry/metrics.rs` and `drop_reason.rs`; a test compares them. To write it \
again: `UPDATE_GOLDEN=1 cargo test -p mirror-daemon documentation_is_what_the_code_says`.

The page is `/metrics` of the admin address, in the OpenMetrics text format. Nothing that these numbers say \
touches production: the worst case is always that copies are missing.

## Alerts to start from

```yaml
- alert: MirrorLosesRequests          # somebody should look: which reason?
  expr: sum by (reason) (rate(mirror_requests_total{intended=\"no\"}[5m])) > 0.1
- alert: MirrorLosesCopies
  expr: sum by (shadow, reason) (rate(mirror_copies_total{intended=\"no\"}[5m])) > 0.1
- alert: MirrorKernelLoss             # the ledger can no longer explain everything
  expr: sum by (counter) (rate(mirror_kernel_lost_bytes_total[5m]) or rate(mirror_kernel_losses_total[5m])) > 0
- alert: MirrorNotAttached
  expr: mirror_capture_points{state=\"missing\"} > 0
  for: 5m
- alert: MirrorPodNotCaptured
  expr: mirror_pods{state=\"failed\"} > 0 or mirror_pod_watch{state=\"forbidden\"} > 0
  for: 5m
- alert: MirrorPodSilent              # it may just have no traffic
  expr: mirror_points_silent > 0
  for: 1h
- alert: MirrorRulesUnread           # rules of the cluster are those of an earlier moment, or none
  expr: mirror_rules_watch{state=~\"forbidden|failing\"} > 0
  for: 5m
- alert: MirrorConfigRefused          # an older configuration still runs
  expr: mirror_config_last_reload_ok == 0 or mirror_config_rules_cut == 1
```

## Sums

- All requests seen: `sum(mirror_requests_total)`. Each is in exactly one line.
- All copies: `mirror_copies_owed_total == sum by (shadow) (mirror_copies_total) + mirror_copies_open`.
- Share of the copies that reached the shadow: \
`sum by (shadow) (rate(mirror_copies_total{outcome=\"replayed\"}[5m])) / sum by (shadow) (rate(mirror_copies_owed_total[5m]))`.

## Metrics

";

/// The text of `docs/METRICS.md`.
#[must_use]
pub fn document() -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str("| metric | kind | labels | meaning | what to do |\n|---|---|---|---|---|\n");
    for family in &ALL {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Info => "info",
            Kind::Histogram => "histogram",
        };
        let labels = labels(family);
        // Writing to a string does not fail.
        let _ =
            writeln!(page, "| `{}` | {kind} | {labels} | {} | {} |", family.name, family.help, family.action);
    }
    page.push_str(
        "\n## Drop reasons\n\nThe label `reason`. \"Shed\": not sent by choice, to protect the daemon, the shadow or \
         production. \"Intended\": nobody need be called.\n\n| reason | outcome | intended | meaning | what to \
         do |\n|---|---|---|---|---|\n",
    );
    for reason in DropReason::ALL {
        let outcome = if reason.is_shed() { "shed" } else { "dropped" };
        let intended = if reason.is_intended() { "yes" } else { "no" };
        let (meaning, action) = guidance(reason);
        let _ = writeln!(page, "| `{}` | {outcome} | {intended} | {meaning} | {action} |", reason.label());
    }
    page
}

fn labels(family: &Family) -> String {
    let labels: Vec<_> = family.labels.iter().map(|(name, values)| format!("`{name}`: {values}")).collect();
    labels.join("; ")
}

/// What a reason means, and what the person on call does about it. A flat table.
#[expect(clippy::too_many_lines, reason = "one row per reason")]
const fn guidance(reason: DropReason) -> (&'static str, &'static str) {
    match reason {
        DropReason::Gap => (
            "Bytes inside the request were never seen.",
            "With kernel losses: see `mirror_kernel_losses_total`. Without: some packets take another way than \
             this capture point; capture the pod's cgroup instead.",
        ),
        DropReason::Truncated => (
            "The connection ended before the request did.",
            "None: the client gave up, and the gateway did not get the whole request either.",
        ),
        DropReason::Reset => (
            "The connection was reset before the request ended.",
            "None, unless the rate jumps: then look at the gateway or its clients.",
        ),
        DropReason::Upgrade => {
            ("A protocol upgrade (WebSocket) or CONNECT succeeded; what follows is no HTTP.", "None.")
        }
        DropReason::UnprovenBoundary => (
            "The daemon joined the connection in its middle, and could not prove that this was a request.",
            "None after a start or after losses. If it goes on: find the cause of the losses.",
        ),
        DropReason::Smuggling => (
            "The framing of the request is ambiguous, as in request smuggling.",
            "Look at who sends it: it may be an attack on production. It is never replayed.",
        ),
        DropReason::Malformed => (
            "The head or the trailer section broke the grammar; a control byte other than a tab in a field value does.",
            "If the gateway answers these with 400: none. If it accepts them: report it with an example.",
        ),
        DropReason::HeadTooLarge => (
            "The head is larger than 128 KiB or has more than 256 fields.",
            "None; gateways refuse such requests too.",
        ),
        DropReason::FlowEvicted => (
            "A memory bound was reached, and this connection was chosen to go.",
            "Raise `max_flows` or `max_total_bytes`, or mirror less.",
        ),
        DropReason::Loop => (
            "The request is itself a mirror.",
            "None; but the shadow's traffic comes back through a captured gateway, which may surprise.",
        ),
        DropReason::NotHttp => (
            "The connection carries TLS or another protocol.",
            "None. To mirror what is inside \
             TLS, capture the upstream leg, where the gateway has decrypted it.",
        ),
        DropReason::UnsupportedProtocol => (
            "The connection carries a version of HTTP that this build does not mirror.",
            "Update the daemon, or accept it.",
        ),
        DropReason::Undecodable => (
            "An HTTP/2 request whose header block refers to table entries that were sent before the daemon saw the connection.",
            "None; it ends when the connection is opened anew.",
        ),
        DropReason::Cancelled => {
            ("The client or the server cancelled the HTTP/2 stream before the request was whole.", "None.")
        }
        DropReason::BufferFull => (
            "The bodies of all requests under way together came near `capture.limits.max_total_bytes`: the oldest ones gave way.",
            "Raise it and the memory limit, or lower `buffer_body` of the shadows so that large bodies are streamed.",
        ),
        DropReason::QueueFull => (
            "The shadow's queue was full.",
            "The shadow is slower than the traffic: scale it, lower `percentage`, or raise `max_in_flight` or \
             `max_connections`. A longer queue only helps against short bursts.",
        ),
        DropReason::RateLimited => ("`max_rps` of the shadow was reached.", "None: it was asked for."),
        DropReason::BreakerOpen => (
            "The shadow failed several times in a row, and is left alone for a while.",
            "Is the shadow up? Look at `connect`, `tls` and `resolve` just before, and at the shadow's log.",
        ),
        DropReason::Resolve => (
            "The shadow's name could not be resolved.",
            "Check `url` of the shadow, and DNS on the node (`getent hosts NAME`). The log says why.",
        ),
        DropReason::Connect => (
            "The shadow refused, or was not reached in time.",
            "Is it up, does the port match, does a network policy forbid it from this node? The log says why.",
        ),
        DropReason::Tls => (
            "The TLS handshake with the shadow failed.",
            "Check its certificate against `ca_file` and `server_name`; the log says what was wrong.",
        ),
        DropReason::ShadowClosed => (
            "The shadow closed the connection before the request was written.",
            "Lower the shadow's `idle_timeout` below its own keep-alive time; else the shadow restarts or crashes.",
        ),
        DropReason::WriteTimeout => (
            "The request could not be written in time.",
            "The shadow does not read: it hangs or is overloaded.",
        ),
        DropReason::StreamOverrun => (
            "A large body came faster than the shadow read it.",
            "Scale the shadow, or raise `stream_window`.",
        ),
        DropReason::Shutdown => (
            "The daemon ended before the request was written.",
            "None at a restart. Raise `drain_timeout` if these matter.",
        ),
        DropReason::ConfigChanged => {
            ("Its shadow or rule vanished from the configuration while it waited.", "None.")
        }
    }
}
