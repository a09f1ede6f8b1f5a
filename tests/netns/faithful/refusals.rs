//! What the real binary says and does when it can't do what it was told: exit code 2, a message that names the
//! thing and the way out, nothing attached.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mirror_tests::bpf;
use mirror_tests::cgroup::Cgroup;
use mirror_tests::cleanup::RunDir;
use mirror_tests::daemon::{self, Daemon};
use mirror_tests::netns::Lab;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::process::{Launch, Process};
use mirror_tests::wait;

use super::rig::LIMIT;

const GOOD: &str = "[capture]\ninterfaces = [\"eth0\"]\nports = [8080]\n[[shadow]]\nname = \"v2\"\n\
    url = \"http://10.77.0.4:9000\"\n[[route]]\n[[route.rule]]\nmirror = [{ shadow = \"v2\", percentage = 10 }]\n\
    [admin]\nlisten = \"127.0.0.1:0\"\n";

/// A lab's gateway with a copy of the daemon that everybody may read and start.
struct Desk {
    lab: Lab,
    dir: RunDir,
    binary: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let (lab, dir) = (Lab::new().unwrap(), RunDir::new().unwrap());
        let binary = dir.path().join("mirror-daemon");
        // By another process: a file that this one has open to write is open in each child that another test starts at
        // that moment, and then it can't be run.
        Launch::new("cp").args([Path::new(&daemon::binary().unwrap()), &binary]).run().unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { lab, dir, binary }
    }

    fn write(&self, toml: &str) -> PathBuf {
        let file = self.dir.path().join("mirror.toml");
        std::fs::write(&file, toml).unwrap();
        file
    }

    /// Starts the daemon, by `before` in front of it: it must end with code 2 and say all of `words`.
    #[track_caller]
    fn refuses_as(&self, before: &[&str], file: PathBuf, words: &[&str]) {
        let output = self.dir.path().join("output");
        let mut line: Vec<std::ffi::OsString> = before.iter().map(Into::into).collect();
        line.extend([self.binary.clone().into(), "run".into(), "--config".into(), file.into()]);
        let mut process = Launch::new(line.remove(0))
            .args(line)
            .output_to(&output)
            .in_netns(&self.lab.gateway)
            .spawn()
            .unwrap();
        let ended = process.wait_for_end(LIMIT);
        let said = process.output();
        let code = ended.unwrap_or_else(|_| panic!("it runs:\n{said}")).code();
        assert_eq!(code, Some(2), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in:\n{said}");
        }
        assert_eq!(bpf::attached_in(&self.lab.gateway).unwrap(), Vec::<String>::new());
    }

    /// As [`Self::refuses_as`], as root, with a configuration made of [`GOOD`].
    #[track_caller]
    fn refuses(&self, replaced: (&str, &str), words: &[&str]) {
        let toml = GOOD.replace(replaced.0, replaced.1);
        assert_ne!(toml, GOOD);
        self.refuses_as(&[], self.write(&toml), words);
    }
}

#[test]
fn faulty_configuration_is_refused_with_key_line_and_way_out() {
    if !root_or_skip("faulty_configuration_is_refused_with_key_line_and_way_out") {
        return;
    }
    let desk = Desk::new();
    desk.refuses(("ports", "prots"), &["capture.prots", "mirror.toml:3", "did you mean `ports`"]);
    desk.refuses(("[8080]", "\"8080\""), &["capture.ports", "mirror.toml:3", "list"]);
    desk.refuses(("percentage = 10", "percentage = 100.5"), &["percentage", "100.5", "0 to 100"]);
    desk.refuses(("percentage = 10", "percentage = -1"), &["percentage", "-1", "0 to 100"]);
    desk.refuses(("shadow = \"v2\",", "shadow = \"v3\","), &["v3", "did you mean \"v2\""]);
    desk.refuses(("http://10.77.0.4:9000", "ftp://10.77.0.4"), &["shadow[0].url", "http://"]);
    // All at once.
    let toml = GOOD
        .replace("ports", "prots")
        .replace("percentage = 10", "percentage = 101")
        .replace("\"v2\",", "\"v9\",");
    desk.refuses_as(&[], desk.write(&toml), &["prots", "101", "v9"]);
    desk.refuses_as(&[], desk.write("[capture\n"), &["mirror.toml:1"]);
}

#[test]
fn missing_file_interface_and_namespace_are_named() {
    if !root_or_skip("missing_file_interface_and_namespace_are_named") {
        return;
    }
    let desk = Desk::new();
    desk.refuses_as(&[], desk.dir.path().join("nowhere.toml"), &["nowhere.toml", "No such file"]);
    desk.refuses(("\"eth0\"", "\"eth7\""), &["eth7", "interface"]);
    // The first is there: it must not stay attached when the second is not.
    desk.refuses(("\"eth0\"", "\"eth0\", \"eth7\""), &["eth7", "interface"]);
    desk.refuses(("ports", "netns = \"gone\"\nports"), &["/run/netns/gone"]);
    desk.refuses(
        ("interfaces = [\"eth0\"]", "cgroups = [\"/sys/fs/cgroup/gone\"]"),
        &["/sys/fs/cgroup/gone"],
    );
    desk.refuses(
        ("http://10.77.0.4:9000\"", "https://10.77.0.4:9000\"\n[shadow.tls]\nca_file = \"/nowhere/ca.pem\""),
        &["/nowhere/ca.pem"],
    );
    desk.refuses(("127.0.0.1:0", "192.0.2.1:9"), &["192.0.2.1:9"]);
}

#[test]
fn missing_privilege_is_named_with_what_it_takes() {
    if !root_or_skip("missing_privilege_is_named_with_what_it_takes") {
        return;
    }
    let desk = Desk::new();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    desk.refuses_as(
        &nobody,
        desk.write(GOOD),
        &["not permitted", "run as root", "CAP_BPF and CAP_NET_ADMIN"],
    );
    let file = desk.write(GOOD);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    desk.refuses_as(&nobody, file, &["mirror.toml", "Permission denied"]);
}

/// A process of the cgroup in the gateway's namespace.
fn resident(desk: &Desk, cgroup: &Cgroup) -> Process {
    let sleeper =
        Launch::new("sleep").arg("300").in_cgroup(cgroup).in_netns(&desk.lab.gateway).spawn().unwrap();
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let is_there = || namespace(sleeper.pid()) != namespace(std::process::id());
    wait::until_true("it is in the namespace", LIMIT, is_there).unwrap();
    sleeper
}

#[test]
fn two_places_that_see_the_same_connections_are_refused() {
    if !root_or_skip("two_places_that_see_the_same_connections_are_refused") {
        return;
    }
    let desk = Desk::new();
    let [gateway, node] = [&desk.lab.gateway, &desk.lab.node].map(|netns| netns.path().unwrap().display());
    let refuses = |places: &str, words: &[&str]| {
        desk.refuses(("interfaces = [\"eth0\"]", places), words);
    };
    let one = ["sees the same connections as interface eth0", "they are one interface"];
    refuses(&format!("interfaces = [\"eth0\", {{ name = \"eth0\", netns = \"{gateway}\" }}]"), &one);
    let host_side = format!("{{ name = \"gateway0\", netns = \"{node}\", side = \"host\" }}");
    refuses(&format!("interfaces = [\"eth0\", {host_side}]"), &["the two ends of one veth pair"]);
    let bridge = format!("{{ name = \"br0\", netns = \"{node}\" }}");
    refuses(&format!("interfaces = [{host_side}, {bridge}]"), &["one interface is on top of the other"]);
    refuses(&format!("interfaces = [{bridge}, {host_side}]"), &["one interface is on top of the other"]);

    let cgroup = Cgroup::new().unwrap();
    let (path, alias) = (cgroup.path().display(), desk.dir.path().join("alias"));
    std::os::unix::fs::symlink(cgroup.path(), &alias).unwrap();
    let twice = format!("cgroups = [\"{path}\", \"{}\"]", alias.display());
    refuses(&twice, &["sees the same connections as cgroup", "in the other"]);
    let _resident = resident(&desk, &cgroup);
    let beside = |interface: &str| format!("interfaces = [{interface}]\ncgroups = [\"{path}\"]");
    let words = ["sees the same connections as interface", "processes of the cgroup"];
    refuses(&beside("\"eth0\""), &words);
    refuses(&beside(&host_side), &words);
}

#[test]
fn places_that_do_not_see_the_same_connections_are_taken() {
    if !root_or_skip("places_that_do_not_see_the_same_connections_are_taken") {
        return;
    }
    let desk = Desk::new();
    let (cgroup, other) = (Cgroup::new().unwrap(), Cgroup::new().unwrap());
    let _resident = resident(&desk, &cgroup);
    let node = desk.lab.node.path().unwrap().display();
    let (cgroup, other) = (cgroup.path().display(), other.path().display());
    let host_side_of_another = format!("{{ name = \"client0\", netns = \"{node}\", side = \"host\" }}");
    for places in [
        // The interface is for another gateway's connections.
        format!("interfaces = [\"eth0\"]\ngateway_cgroups = [\"{other}\"]\ncgroups = [\"{cgroup}\"]"),
        format!("interfaces = [{host_side_of_another}]\ncgroups = [\"{cgroup}\", \"{other}\"]"),
        format!("interfaces = [\"eth0\", \"lo\", {host_side_of_another}]"),
    ] {
        let toml = GOOD.replace("interfaces = [\"eth0\"]", &places);
        let (toml, _) = toml.split_once("[admin]").unwrap();
        let mut daemon = Daemon::start(&desk.lab.gateway, toml).unwrap();
        daemon.stop(LIMIT).unwrap();
    }
}
