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
fn cluster_configuration_is_recognised_and_refused_in_plain_words() {
    let found = faults(
        "[capture]\nkubernetes = { namespace = 'a', selector = 'b' }\n[kubernetes]\ngateway_api = true\n",
    );
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 2, "{found}");
    assert!(lines.iter().all(|line| line.contains("not in this build yet")), "{found}");
}
