//! Pods of this node.

use super::super::{Family, Kind};

/// Pods to capture.
pub const PODS: Family = Family {
    name: "mirror_pods",
    kind: Kind::Gauge,
    labels: &[("state", "`waiting`, `wanted`, `attached`, `failed`, `left_out`")],
    help: "Pods of this node that `capture.kubernetes` and `kubernetes.gateway` choose. `waiting`: no cgroup of theirs \
           is there. `wanted`: about to be attached, or beyond the number of capture points that there can be. \
           `failed`: they can't be attached, and it is tried again. `left_out`: more pods than are kept.",
    action: "Alert on `failed` above 0 for minutes: the log says why. `wanted` for minutes: choose fewer pods. \
             `waiting` for a pod that runs: the node's cgroup tree is not mounted, or not all of it.",
};

/// Pods without traffic.
pub const POINTS_SILENT: Family = Family {
    name: "mirror_points_silent",
    kind: Kind::Gauge,
    labels: &[],
    help: "Attached pods that have been Ready for `pod_silent_after`, and at which no segment was ever captured.",
    action: "A gateway without traffic is silent, too. If it has traffic: does it listen on one of `ports`, is `leg` \
             the right one, and do its connections pass the capture point (its cgroup, or its interface)?",
};

/// Time to attach.
pub const POD_ATTACH: Family = Family {
    name: "mirror_pod_attach_seconds",
    kind: Kind::Histogram,
    labels: &[],
    help: "Time from when a pod could be attached (it was known, and its cgroup was there) until it was.",
    action: "Requests of that time are not mirrored. Above a second: the daemon gets too little processor time.",
};

/// Watch of pods.
pub const POD_WATCH: Family = Family {
    name: "mirror_pod_watch",
    kind: Kind::Gauge,
    labels: &[("state", "`off`, `listing`, `synchronised`, `unreachable`, `forbidden`")],
    help: "1 for the state that the watch of this node's pods is in, 0 for the others. `off`: no pod is looked for.",
    action: "Alert on `forbidden`: the daemon's ServiceAccount lacks `list` and `watch` of pods. `unreachable` for \
             minutes: the API server, or a network policy. What is attached stays; new pods are not found.",
};

/// Watch of pods, failures.
pub const POD_WATCH_FAILURES: Family = Family {
    name: "mirror_pod_watch_failures_total",
    kind: Kind::Counter,
    labels: &[],
    help: "How often the watch of this node's pods broke off, or could not begin.",
    action: "None as long as `mirror_pod_watch` is `synchronised` again soon.",
};
