use super::*;
use crate::kube::PodCgroup;
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
        ..Facts::default()
    }
}

fn state_of(facts: &Facts, topic: &str) -> State {
    let report = Report::of(facts);
    let found = report.findings.iter().find(|finding| finding.topic == topic);
    found.unwrap_or_else(|| panic!("{topic} is not in {report}")).state
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
