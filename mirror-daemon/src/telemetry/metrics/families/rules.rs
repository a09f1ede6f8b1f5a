//! Rules from the cluster.

use super::super::{Family, Kind};
use super::OBJECT_KIND;

/// Watches of the objects that rules are made from.
pub const RULES_WATCH: Family = Family {
    name: "mirror_rules_watch",
    kind: Kind::Gauge,
    labels: &[OBJECT_KIND, ("state", "`starting`, `listing`, `watching`, `absent`, `forbidden`, `failing`")],
    help: "With `gateway_api`: 1 for the state that the watch of a kind is in, 0 for the others. `absent`: the API server \
           does not know the kind, which is right where its gateway is not used.",
    action: "Alert on `forbidden`: the daemon's ClusterRole lacks `list` or `watch` of the kind; the log names it. \
             `failing` for minutes: the API server, or a network policy. The rules that are known hold meanwhile.",
};

/// Whether the cluster's rules are known.
pub const RULES_SYNCED: Family = Family {
    name: "mirror_rules_synced",
    kind: Kind::Gauge,
    labels: &[],
    help: "With `gateway_api`: 1 once all kinds are known, and rules are made of them; until then, and without it, 0.",
    action: "0 for minutes: `/readyz` names the kinds that are missing, `mirror_rules_watch` says why.",
};

/// How long nothing was heard of a kind.
pub const RULES_SILENCE: Family = Family {
    name: "mirror_rules_silence_seconds",
    kind: Kind::Gauge,
    labels: &[OBJECT_KIND],
    help: "Time since the API server last said anything about a kind: a list, a change, or that its watch lives.",
    action: "Above 600 for a kind that is `watching`: something on the way keeps its answers back.",
};

/// Objects that rules are made from.
pub const RULES_OBJECTS: Family = Family {
    name: "mirror_rules_objects",
    kind: Kind::Gauge,
    labels: &[OBJECT_KIND, ("use", "`held`, `refused`")],
    help: "Objects in the cluster that rules are made from. `refused`: they can't be read, or are beyond a bound.",
    action: "`refused` above 0: the log and the Events of these objects say why.",
};

/// Memory of these objects.
pub const RULES_OBJECT: Family = Family {
    name: "mirror_rules_object_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Bytes that the objects of all kinds take, as far as rules look at them. At most 64 MiB.",
    action: "Near the bound: objects are refused. Are there some that large on purpose?",
};

/// What watches told.
pub const RULES_CHANGES: Family = Family {
    name: "mirror_rules_changes_total",
    kind: Kind::Counter,
    labels: &[OBJECT_KIND],
    help: "Changes of objects that watches told of, whether or not they changed a rule.",
    action: "None. Changes of rules are counted by `mirror_config_generation`.",
};

/// Lists that were read.
pub const RULES_LISTS: Family = Family {
    name: "mirror_rules_lists_total",
    kind: Kind::Counter,
    labels: &[OBJECT_KIND],
    help: "How often all objects of a kind were listed. Once is enough while watches can go on where they were.",
    action: "Growing by more than a few an hour: the API server keeps too few changes, or something cuts watches off.",
};

/// Watches that were begun.
pub const RULES_WATCHES: Family = Family {
    name: "mirror_rules_watches_total",
    kind: Kind::Counter,
    labels: &[OBJECT_KIND],
    help: "How often the watch of a kind was begun. The API server ends each after a few minutes.",
    action: "Growing by more than one a minute: something on the way cuts connections off.",
};

/// Requests to the API server that failed.
pub const RULES_FAILURES: Family = Family {
    name: "mirror_rules_failures_total",
    kind: Kind::Counter,
    labels: &[
        OBJECT_KIND,
        (
            "cause",
            "`unauthorized`, `forbidden`, `not_found`, `conflict`, `gone`, `busy`, `refused`, `unreachable`, `garbage`, \
             `too_large`",
        ),
    ],
    help: "Lists and watches that failed. Each is tried again, with growing pauses.",
    action: "None while `mirror_rules_watch` is `watching` again soon. `garbage`: something on the way changes answers.",
};

/// Findings now.
pub const RULES_FINDINGS: Family = Family {
    name: "mirror_rules_findings",
    kind: Kind::Gauge,
    labels: &[("reason", "`RefNotPermitted`, `BackendNotFound`, ...: as in Events and logs")],
    help: "What is wrong now with routes that ask for a mirror, and with what they refer to. Nothing is mirrored for it.",
    action: "The Events of the objects (`kubectl describe`) and the log say what and where. `GatewayNotBound`: routes of \
             Gateways that the configuration does not bind; nothing to do unless they should be.",
};

/// Events that were written.
pub const RULES_EVENTS: Family = Family {
    name: "mirror_rules_events_total",
    kind: Kind::Counter,
    labels: &[("outcome", "`created`, `refreshed`, `exists`, `forbidden`, `failed`")],
    help: "Events about findings. `exists`: the daemon of another node has written it.",
    action: "`forbidden`: the daemon's ClusterRole lacks `create` or `patch` of events in `events.k8s.io`. Rules are not \
             touched by that.",
};
