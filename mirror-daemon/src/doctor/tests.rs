use super::*;
use crate::cluster::probe::{Answers, NodePod, Right};
use crate::kube::{Kind, PodCgroup};
use std::path::PathBuf;

fn node() -> Facts {
    Facts {
        kernel: KernelRelease::parse("6.12.1"),
        has_btf: true,
        trial: Some(Ok(())),
        capabilities: vec![
            Capability::Bpf,
            Capability::NetAdmin,
            Capability::SysAdmin,
            Capability::SysPtrace,
            Capability::Perfmon,
        ],
        cgroup2: Some(PathBuf::from("/sys/fs/cgroup")),
        interfaces: vec!["eth0".into(), "cali12345".into()],
        pods: vec![PodCgroup { uid: "u".into(), path: "/sys/fs/cgroup/kubepods/podu".into() }],
        namespaces: 3,
        node: Some("node-1".into()),
        cluster: Some(Ok(answers())),
        ..Facts::default()
    }
}

fn answers() -> Answers {
    Answers {
        server: "https://10.96.0.1/".into(),
        pods: Some(vec![pod("gw/gateway-1", "u")]),
        ..Answers::default()
    }
}

fn pod(name: &str, uid: &str) -> NodePod {
    NodePod { name: name.into(), cgroup_uid: uid.into() }
}

fn with_answers(change: impl FnOnce(&mut Answers)) -> Facts {
    let mut answers = answers();
    change(&mut answers);
    Facts { cluster: Some(Ok(answers)), ..node() }
}

fn found(facts: &Facts, topic: &str) -> Option<Finding> {
    Report::of(facts).findings.into_iter().find(|finding| finding.topic == topic)
}

fn state_of(facts: &Facts, topic: &str) -> State {
    found(facts, topic).unwrap_or_else(|| panic!("{topic} is not in {}", Report::of(facts))).state
}

#[test]
fn good_node_has_nothing_to_change() {
    let report = Report::of(&node());
    assert!(report.findings.iter().all(|finding| finding.state == State::Good), "{report}");
    assert!(report.findings.iter().all(|finding| finding.advice.is_empty()), "{report}");
    assert!(!report.is_bad());
}

#[test]
fn old_kernels_lack_tcx_and_older_ones_everything() {
    let kernel = |text| Facts { kernel: KernelRelease::parse(text), ..node() };
    assert_eq!(state_of(&kernel("6.1.0"), "interfaces"), State::Limited);
    assert_eq!(state_of(&kernel("6.1.0"), "kernel"), State::Good);
    assert_eq!(state_of(&kernel("5.10.1"), "kernel"), State::Limited);
    assert_eq!(state_of(&kernel("5.4.0"), "kernel"), State::Bad);
    assert!(Report::of(&kernel("5.4.0")).is_bad());
}

#[test]
fn capabilities_decide_which_modes_work() {
    let with = |capabilities: &[Capability], kernel| Facts {
        capabilities: capabilities.to_vec(),
        kernel: KernelRelease::parse(kernel),
        ..node()
    };
    let two = [Capability::Bpf, Capability::NetAdmin];
    assert_eq!(state_of(&with(&two, "6.12"), "capabilities"), State::Limited);
    assert_eq!(state_of(&with(&two, "6.1"), "capabilities"), State::Bad);
    assert_eq!(state_of(&with(&two[..1], "6.12"), "capabilities"), State::Bad);
}

#[test]
fn cilium_is_warned_about_and_missing_cgroups_are_no_end() {
    let cilium = Facts { interfaces: vec!["cilium_host".into()], ..node() };
    assert_eq!(state_of(&cilium, "network"), State::Limited);
    let none = Facts { cgroup2: None, pods: vec![], ..node() };
    assert_eq!((state_of(&none, "cgroups"), state_of(&none, "pods")), (State::Limited, State::Limited));
    assert!(!Report::of(&none).is_bad());
}

#[test]
fn what_the_kernel_refused_is_said_with_a_way_out() {
    let refused = Facts { trial: Some(Err("not permitted to make a map".into())), ..node() };
    let report = Report::of(&refused);
    assert!(
        report.is_bad() && report.to_string().contains("BAD      loading       not permitted"),
        "{report}"
    );
    assert!(report.findings.iter().all(|f| f.state != State::Bad || !f.advice.is_empty()), "{report}");
}

#[test]
fn host_outside_of_a_cluster_is_told_so_once_and_asked_for_no_name() {
    let host = Facts { cluster: None, node: None, pods: vec![], namespaces: 0, ..node() };
    assert_eq!(state_of(&host, "api server"), State::Limited);
    for topic in ["node", "rights", "gateway api", "namespaces"] {
        assert_eq!(found(&host, topic), None);
    }
    assert!(!Report::of(&host).is_bad());
}

#[test]
fn pod_without_its_nodes_name_or_an_api_server_is_told_what_it_lacks() {
    let nameless = Facts { node: None, ..with_answers(|answers| answers.pods = None) };
    let finding = found(&nameless, "node").unwrap();
    assert!(finding.state == State::Limited && finding.advice.contains("NODE_NAME"), "{finding:?}");
    // Cgroups are found without it.
    assert_eq!(found(&nameless, "pods").unwrap().found, "1 pods with a cgroup: u");

    let away = Facts { cluster: Some(Err("https://10.96.0.1/: connection refused".into())), ..node() };
    assert_eq!(state_of(&away, "api server"), State::Limited);
    assert_eq!((found(&away, "rights"), found(&away, "gateway api")), (None, None));
}

#[test]
fn rights_that_are_lacking_are_named_as_roles_name_them() {
    let wanted: Vec<_> = Right::all().iter().map(ToString::to_string).collect();
    assert_eq!(wanted.len(), 18, "{wanted:?}");
    for right in ["list pods", "watch httproutes.gateway.networking.k8s.io", "patch events.events.k8s.io"] {
        assert!(wanted.iter().any(|one| one == right), "{wanted:?}");
    }
    let facts = with_answers(|answers| answers.refused = Right::all().into_iter().take(2).collect());
    let finding = found(&facts, "rights").unwrap();
    assert_eq!((finding.state, finding.found.as_str()), (State::Limited, "may not list pods, watch pods"));
}

#[test]
fn kinds_of_one_gateway_may_be_absent_but_without_routes_there_are_no_rules() {
    let without = |kinds: &[Kind]| with_answers(|answers| answers.absent = kinds.to_vec());
    let plain = found(&without(&[Kind::RouteOption, Kind::Upstream]), "gateway api").unwrap();
    assert_eq!(plain.state, State::Good);
    assert!(plain.found.ends_with("not installed: RouteOption, Upstream"), "{plain:?}");
    assert_eq!(state_of(&without(&[Kind::HttpRoute]), "gateway api"), State::Limited);
}

#[test]
fn pods_without_a_cgroup_are_named() {
    let facts = with_answers(|answers| answers.pods = Some(vec![pod("gw/a", "u"), pod("gw/b", "other")]));
    let finding = found(&facts, "pods").unwrap();
    assert_eq!(
        (finding.state, finding.found.as_str()),
        (State::Limited, "1 of 2 pods have no cgroup here: gw/b")
    );
}

#[test]
fn namespaces_are_found_in_files_or_by_processes_and_entered_by_a_capability() {
    assert_eq!(state_of(&node(), "namespaces"), State::Good);
    let none = Facts { namespaces: 0, ..node() };
    assert_eq!(state_of(&none, "namespaces"), State::Limited);
    assert_eq!(state_of(&Facts { sees_processes: true, ..none }, "namespaces"), State::Good);
    let two = Facts { capabilities: vec![Capability::Bpf, Capability::NetAdmin], ..node() };
    assert_eq!(state_of(&two, "namespaces"), State::Limited);
}

#[test]
fn network_plugin_is_known_by_its_pod_where_its_interfaces_are_not_seen() {
    let with = |name: &str| {
        let facts = with_answers(|answers| answers.pods = Some(vec![pod(name, "u")]));
        found(&Facts { interfaces: vec!["eth0".into()], ..facts }, "network").unwrap()
    };
    assert_eq!(with("kube-system/cilium-x7k2p").state, State::Limited);
    assert!(with("kube-system/calico-node-x7k2p").found.starts_with("Calico"));
    assert!(with("gw/gateway-1").found.starts_with("an unknown network plugin"));
}
