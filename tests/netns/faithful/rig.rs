//! A production app, a shadow app and a daemon between them, and the books that must balance.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mirror_tests::bpf::{self, HeldObjects};
use mirror_tests::daemon::Daemon;
use mirror_tests::netns::{Lab, Netns, Role};
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::server::{LogMode, TestApp};
use mirror_tests::wait;
use serde_json::Value;

/// Where gateways listen.
pub(crate) const GATEWAY_PORT: u16 = 8080;
/// Where production listens.
pub(crate) const PRODUCTION_PORT: u16 = 8000;
/// Where the shadow listens: not production's, so that the upstream leg's ports do not name it too.
pub(crate) const SHADOW_PORT: u16 = 9000;

/// How long a copy, a page or an end may take. Never reached where all goes well.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// A lab with both apps.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) production: TestApp,
    pub(crate) shadow: TestApp,
}

/// A daemon, and where it may have attached programs.
pub(crate) struct Watch {
    pub(crate) daemon: Daemon,
    held: HeldObjects,
    places: Vec<Netns>,
    cgroups: Vec<PathBuf>,
}

impl World {
    pub(crate) fn new() -> Self {
        let lab = Lab::new().unwrap();
        let production =
            TestApp::start(&lab.production, Role::Production.at(PRODUCTION_PORT), LogMode::Full).unwrap();
        let shadow = TestApp::start(&lab.shadow, Role::Shadow.at(SHADOW_PORT), LogMode::Full).unwrap();
        Self { lab, production, shadow }
    }

    /// Empties both logs. A gateway that goes on has open connections to production, which another daemon would
    /// join: start another gateway too.
    pub(crate) fn forget(&self) {
        self.production.log().clear();
        self.shadow.log().clear();
    }

    /// nginx in front of production, over both families.
    pub(crate) fn nginx(&self, change: impl FnOnce(&mut NginxConfig)) -> Nginx {
        let listen = [Role::Gateway.at(GATEWAY_PORT), Role::Gateway.at_v6(GATEWAY_PORT)];
        let mut config = NginxConfig::new(listen, self.production.address());
        change(&mut config);
        Nginx::start(&self.lab.gateway, &config).unwrap()
    }

    /// A daemon in the gateway's namespace that mirrors all it captures.
    pub(crate) fn mirror_all(&self, capture: &str) -> Watch {
        self.watch(&self.lab.gateway, &all_to(self.shadow.address(), capture))
    }

    /// A daemon in the gateway's namespace, on the downstream leg of eth0.
    pub(crate) fn mirror_downstream(&self) -> Watch {
        self.mirror_all(DOWNSTREAM)
    }

    /// A daemon.
    pub(crate) fn watch(&self, netns: &Netns, toml: &str) -> Watch {
        let daemon = Daemon::start(netns, toml).unwrap();
        let held = daemon.held_objects().unwrap();
        assert!(!held.programs.is_empty(), "the daemon is ready and holds no program");
        let places = Role::PODS.into_iter().chain([Role::Node]).map(|role| self.lab.netns(role).clone());
        Watch { daemon, held, places: places.collect(), cgroups: Vec::new() }
    }
}

/// The downstream leg of the gateway's interface.
pub(crate) const DOWNSTREAM: &str = "interfaces = [\"eth0\"]\nports = [8080]\nring_bytes = \"32MiB\"";

/// A configuration that sends a copy of every captured request to `shadow`.
pub(crate) fn all_to(shadow: SocketAddr, capture: &str) -> String {
    format!(
        "[capture]\n{capture}\n[[shadow]]\nname = \"v2\"\nurl = \"http://{shadow}\"\nqueue_bytes = \"64MiB\"\n\
         stream_window = \"16MiB\"\n[[route]]\n[[route.rule]]\nmirror = [{{ shadow = \"v2\" }}]\n"
    )
}

impl Watch {
    /// Programs may be attached to this cgroup as well.
    pub(crate) fn also_at(mut self, cgroup: &std::path::Path) -> Self {
        self.cgroups.push(cgroup.to_owned());
        self
    }

    /// Waits until so many requests are in the books and none is open, and gives the books.
    #[track_caller]
    pub(crate) fn books(&self, seen: u64) -> Value {
        let settled = wait::until("the books are closed", LIMIT, || {
            let books = self.daemon.ledger()?;
            let is_settled = books["requests"]["seen"] == seen && books["open"] == 0;
            Ok(is_settled.then_some(books))
        });
        match settled {
            Ok(books) => {
                assert_balanced(&books);
                books
            }
            Err(_) => panic!("not {seen} requests seen and closed: {:#}", self.daemon.ledger().unwrap()),
        }
    }

    /// As [`Self::books`], where nothing but whole requests was on the wire: every one was replayed.
    #[track_caller]
    pub(crate) fn all_replayed(&self, seen: u64) {
        let books = self.books(seen);
        assert_eq!(books["shadows"]["v2"]["replayed"], seen, "{books:#}");
        assert_eq!(books["kernel_complete"], true, "{books:#}");
    }

    /// Ends the daemon at a quiet moment: its books balance to the last, and it leaves nothing behind.
    #[track_caller]
    pub(crate) fn end(self) {
        assert_balanced(&self.daemon.ledger().unwrap());
        self.end_under_load();
    }

    /// Ends the daemon while requests come in, so that no reading of its books is of one moment: it leaves nothing
    /// behind.
    #[track_caller]
    pub(crate) fn end_under_load(mut self) {
        self.daemon.stop(LIMIT).unwrap();
        let gone = || bpf::still_loaded(&self.held).is_empty();
        if wait::until_true("the kernel frees what the daemon held", LIMIT, gone).is_err() {
            panic!("still loaded: {:?}", bpf::still_loaded(&self.held));
        }
        for place in &self.places {
            assert_eq!(bpf::attached_in(place).unwrap(), Vec::<String>::new(), "in {:?}", place.path());
        }
        for cgroup in &self.cgroups {
            assert_eq!(bpf::attached_to_cgroup(cgroup).unwrap(), Vec::<String>::new());
        }
    }
}

/// The sums of both levels, whatever is still open.
#[track_caller]
pub(crate) fn assert_balanced(books: &Value) {
    let count = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {books:#}"));
    let requests = &books["requests"];
    let ends = ["unmatched", "matched", "dropped"].iter().map(|end| count(&requests[*end])).sum::<u64>();
    assert_eq!(count(&requests["seen"]), ends, "{books:#}");
    let reasons = requests["dropped_by_reason"].as_object().unwrap().values().map(&count).sum::<u64>();
    assert_eq!(count(&requests["dropped"]), reasons, "{books:#}");
    for (name, shadow) in books["shadows"].as_object().unwrap() {
        let ends = ["open", "replayed", "sampled_out", "shed", "dropped"];
        let ends = ends.iter().map(|end| count(&shadow[*end])).sum::<u64>();
        assert_eq!(count(&shadow["owed"]), ends, "shadow {name}: {books:#}");
    }
    assert_eq!(books["balanced"], true, "{books:#}");
}

/// How many requests were dropped for `reason` before any rule looked at them.
pub(crate) fn dropped(books: &Value, reason: &str) -> u64 {
    books["requests"]["dropped_by_reason"][reason]
        .as_u64()
        .unwrap_or_else(|| panic!("no {reason} in {books:#}"))
}

/// How many copies of the shadow "v2" have this end.
pub(crate) fn of_shadow(books: &Value, shadow: &str, end: &str) -> u64 {
    books["shadows"][shadow][end].as_u64().unwrap_or_else(|| panic!("no {shadow}.{end} in {books:#}"))
}
