//! Capture points, ports and rings.

use super::*;

#[test]
fn ports_are_required_where_something_is_captured() {
    assert!(faults("[capture]\ninterfaces = ['eth0']\n").contains("capture.ports: is missing"));
    assert!(faults("[capture]\nports = []\n").contains("capture.ports: has 0 ports"));
    assert_eq!(read("[capture]\nports = [80]\n").capture.ports, [80]);
}

#[test]
fn one_place_under_two_names_is_refused() {
    let with = |places: &str| format!("[capture]\nports = [80]\n{places}\n");
    for places in [
        "interfaces = [\"eth0\", { name = \"eth0\", side = \"host\" }]",
        "interfaces = [{ name = \"eth0\", netns = \"gw\" }, { name = \"eth0\", netns = \"/var/run/netns/gw\" }]",
        "netns = \"/run//netns/./gw/\"\ninterfaces = [\"eth0\", { name = \"eth0\", netns = \"gw\" }]",
        "cgroups = [\"/sys/fs/cgroup/pod\", \"/sys/fs//cgroup/pod/\"]",
    ] {
        let found = faults(&with(places));
        assert!(found.contains("listed twice") && found.lines().count() == 1, "{places}: {found}");
    }
    for places in [
        "cgroups = [\"/sys/fs/cgroup/pod\", \"/sys/fs/cgroup/pod/container\"]",
        "cgroups = [\"/sys/fs/cgroup/pod/container\", \"/sys/fs/cgroup/pod\"]",
    ] {
        let found = faults(&with(places));
        assert!(found.contains("is nested with /sys/fs/cgroup/pod"), "{places}: {found}");
    }
    let apart = "interfaces = [\"eth0\", \"lo\", { name = \"eth0\", netns = \"gw\" }]\n\
        cgroups = [\"/sys/fs/cgroup/pod\", \"/sys/fs/cgroup/pod2\"]";
    assert_eq!(read(&with(apart)).capture.points.len(), 5);
}

#[test]
fn ring_bytes_is_a_power_of_two_for_each_shard() {
    let ask = |bytes: &str, shards: u32| {
        Config::from_toml(&format!("[capture]\nring_bytes = '{bytes}'\nshards = {shards}"), "m")
    };
    assert!(ask("12MiB", 1).unwrap_err().to_string().contains("the nearest are \"8MiB\" and \"16MiB\""));
    assert_eq!(ask("12MiB", 3).unwrap().capture.ring_bytes, 12 << 20);
    assert!(ask("16MiB", 3).unwrap_err().to_string().contains("for each of 3 shards"));
    assert!(ask("63KiB", 1).unwrap_err().to_string().contains("allowed is 64KiB to 1GiB"));
}

#[test]
fn pods_are_chosen_by_one_entry_or_several() {
    let pods = |kubernetes: &str| read(&format!("[capture]\nports = [80]\nkubernetes = {kubernetes}")).pods;
    let one = pods("{ namespace = 'gloo-system', selector = 'app=gateway' }");
    let [gateway] = one.selections.as_slice() else { panic!("{one:?}") };
    assert_eq!((gateway.namespace.as_str(), &gateway.attach), ("gloo-system", &PodAttach::Cgroup));
    assert_eq!(gateway.selector.to_string(), "app in (gateway)");
    assert_eq!(one.silent_after, Some(DEFAULT_SILENT_AFTER));
    let two = pods(
        "[{ attach = 'interface' }, { namespace = 'a', selector = 'b', attach = 'interface', interface = 'net1' }]",
    );
    assert_eq!(two.gateway_attach, PodAttach::Interface("eth0".to_owned()));
    assert_eq!(two.selections.len(), 1);
    assert_eq!(two.selections[0].attach, PodAttach::Interface("net1".to_owned()));
    assert_eq!(pods("{}"), PodsConfig::default());
    let off = read("[capture]\npod_silent_after = 'off'");
    assert_eq!(off.pods.silent_after, None);
}

#[test]
fn faults_of_pod_selections_are_all_told() {
    let found = faults(
        "[capture]\nkubernetes = [{ namespace = 'A', selector = '' }, { selector = 'a', interface = 'eth1' }]\n",
    );
    for part in [
        "kubernetes[0].namespace: \"A\" is no namespace",
        "kubernetes[0].selector: is empty",
        "kubernetes[1].namespace: is missing",
        "kubernetes[1].interface: means nothing with attach = \"cgroup\"",
        "capture.ports: is missing",
    ] {
        assert!(found.contains(part), "{part} in {found}");
    }
}
