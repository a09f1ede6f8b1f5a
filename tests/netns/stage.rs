//! The whole play: client, real nginx, production app, shadow app, the real daemon; and its books.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mirror_tests::client::Connection;
use mirror_tests::daemon::{Daemon, Metrics};
use mirror_tests::netns::{Lab, Role};
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::server::{LogMode, TestApp};
use mirror_tests::wait;
use serde_json::Value;

/// The host that clients ask for.
pub(crate) const HOST: &str = "shadowing.example";

/// Where nginx listens, and what is captured.
pub(crate) const PORT: u16 = 8080;

/// Where the apps listen.
pub(crate) const APP_PORT: u16 = 8000;

/// A shadow's port at which nobody listens.
pub(crate) const DEAD_PORT: u16 = 8999;

/// How long the daemon may take to work off what it was given, on a machine that others use too.
pub(crate) const QUIET_LIMIT: Duration = Duration::from_secs(180);

/// How long a daemon may take to end: longer than it may drain when its configuration says nothing (10 s).
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Held by tests that need a good part of the machine, so that they do not disturb each other.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOUD: Mutex<()> = Mutex::new(());
    LOUD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// nginx between client and production, and a shadow app beside it. Fields end in this order.
pub(crate) struct Stage {
    pub(crate) nginx: Nginx,
    pub(crate) production: TestApp,
    pub(crate) shadow: TestApp,
    pub(crate) lab: Lab,
}

impl Stage {
    /// Both apps note as `log` says.
    pub(crate) fn new(log: &LogMode) -> Self {
        Self::with_nginx(log, |_| {})
    }

    /// As [`Self::new`], with changes to nginx.
    pub(crate) fn with_nginx(log: &LogMode, change: impl FnOnce(&mut NginxConfig)) -> Self {
        let lab = Lab::new().unwrap();
        let app = |role: Role| TestApp::start(lab.netns(role), role.at(APP_PORT), log.clone()).unwrap();
        let (production, shadow) = (app(Role::Production), app(Role::Shadow));
        let mut config = NginxConfig::new([gateway()], production.address());
        config.access_log = false;
        change(&mut config);
        let nginx = Nginx::start(&lab.gateway, &config).unwrap();
        Self { nginx, production, shadow, lab }
    }

    /// The daemon with the default limits, at the gateway's interface, all requests to the shadow app.
    pub(crate) fn daemon(&self) -> Daemon {
        self.daemon_with(&Wish::default())
    }

    /// The daemon as wished.
    pub(crate) fn daemon_with(&self, wish: &Wish) -> Daemon {
        Daemon::start(&self.lab.gateway, &wish.toml()).unwrap()
    }

    /// A client's connection to the gateway.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.lab.client, gateway()).unwrap()
    }
}

/// Where the gateway listens.
pub(crate) fn gateway() -> SocketAddr {
    Role::Gateway.at(PORT)
}

/// What a test's configuration has beside the usual.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Lines for the top of the file.
    pub(crate) top: &'static str,
    /// Captured ports.
    pub(crate) ports: Vec<u16>,
    /// Lines for `[capture]`; `interfaces` comes of itself unless it is named here.
    pub(crate) capture: String,
    /// Lines for `[capture.limits]`.
    pub(crate) limits: &'static str,
    /// Name, URL, and lines for each `[[shadow]]`; every one is a mirror of the only rule.
    pub(crate) shadows: Vec<(&'static str, String, &'static str)>,
}

impl Default for Wish {
    fn default() -> Self {
        let url = format!("http://{}", Role::Shadow.at(APP_PORT));
        Self {
            top: "",
            ports: vec![PORT],
            capture: String::new(),
            limits: "",
            shadows: vec![("app", url, "")],
        }
    }
}

impl Wish {
    /// The only shadow is at another port of the shadow's namespace.
    pub(crate) fn shadow_at(port: u16, lines: &'static str) -> Self {
        let url = format!("http://{}", Role::Shadow.at(port));
        Self { shadows: vec![("app", url, lines)], ..Self::default() }
    }

    pub(crate) fn toml(&self) -> String {
        let (top, ports, capture, limits) = (self.top, &self.ports, &self.capture, self.limits);
        let places = if capture.contains("cgroups =") || capture.contains("interfaces =") {
            ""
        } else {
            "interfaces = [\"eth0\"]\n"
        };
        let mut toml = format!("{top}\n[capture]\n{places}ports = {ports:?}\n{capture}\n");
        toml.push_str(&format!("[capture.limits]\n{limits}\n"));
        let mut mirrors = Vec::new();
        for (name, url, lines) in &self.shadows {
            toml.push_str(&format!("[[shadow]]\nname = \"{name}\"\nurl = \"{url}\"\n{lines}\n"));
            mirrors.push(format!("{{ shadow = \"{name}\", percentage = 100 }}"));
        }
        toml.push_str(&format!("[[route]]\n[[route.rule]]\nmirror = [{}]\n", mirrors.join(", ")));
        toml
    }
}

/// `/ledger` at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Books(pub(crate) Value);

impl Books {
    pub(crate) fn of(daemon: &Daemon) -> Self {
        Self(daemon.ledger().unwrap_or_else(|failure| panic!("{failure:#}\n{}", daemon.output())))
    }

    /// A number by its path; 0 when it is not there.
    pub(crate) fn at(&self, path: &[&str]) -> u64 {
        path.iter().fold(&self.0, |value, key| &value[*key]).as_u64().unwrap_or(0)
    }

    pub(crate) fn seen(&self) -> u64 {
        self.at(&["requests", "seen"])
    }

    /// A number of a shadow's books.
    pub(crate) fn shadow(&self, shadow: &str, key: &str) -> u64 {
        self.at(&["shadows", shadow, key])
    }

    /// Any kernel counter.
    pub(crate) fn kernel(&self, counter: &str) -> u64 {
        self.at(&["kernel", counter]) + self.at(&["kernel_losses", counter])
    }

    /// Why requests were dropped, and why copies for a shadow were shed or dropped; reasons that never occurred are
    /// left out.
    pub(crate) fn reasons(&self, shadow: &str) -> [(&'static str, BTreeMap<String, u64>); 3] {
        let copies = &self.0["shadows"][shadow];
        [
            ("requests dropped", counts(&self.0["requests"]["dropped_by_reason"])),
            ("copies shed", counts(&copies["shed_by_reason"])),
            ("copies dropped", counts(&copies["dropped_by_reason"])),
        ]
    }

    /// A flow counter.
    pub(crate) fn flow(&self, counter: &str) -> u64 {
        self.at(&["flow", counter])
    }

    /// Counters of a section whose names begin like this, that are not 0.
    pub(crate) fn like(&self, section: &str, start: &str) -> BTreeMap<String, u64> {
        let mut wanted = counts(&self.0[section]);
        wanted.retain(|name, _| name.starts_with(start));
        wanted
    }

    /// Bytes of all gaps that the flow stage found.
    pub(crate) fn gap_bytes(&self) -> u64 {
        self.like("flow", "gaps_").iter().filter(|(name, _)| name.ends_with("_bytes")).map(|(_, n)| n).sum()
    }

    pub(crate) fn kernel_complete(&self) -> bool {
        self.0["kernel_complete"] == Value::Bool(true)
    }

    /// Nothing waits anywhere between the kernel and the books.
    pub(crate) fn is_quiet(&self) -> bool {
        let nothing_is_held = self.flow("received_bytes") == self.booked_flow_bytes();
        self.at(&["open"]) == 0 && self.kernel("records") == self.flow("segments") && nothing_is_held
    }

    /// Bytes that the flow stage has done with.
    fn booked_flow_bytes(&self) -> u64 {
        let dropped: u64 = self.like("flow", "dropped_").values().sum();
        self.flow("forwarded_bytes") + self.flow("duplicate_bytes") + dropped
    }

    /// What a failed test shows.
    pub(crate) fn page(&self) -> String {
        format!("{:#}", self.0)
    }

    /// Every sum that must be right at a quiet moment, whatever was lost.
    pub(crate) fn assert_balanced(&self) {
        let page = self.page();
        let requests = ["unmatched", "matched", "dropped"].map(|key| self.at(&["requests", key]));
        assert_eq!(self.seen(), requests.iter().sum::<u64>(), "{page}");
        for (name, shadow) in self.0["shadows"].as_object().unwrap() {
            let of = |key: &str| shadow[key].as_u64().unwrap();
            assert_eq!(of("owed"), self.at(&["requests", "matched"]), "{name} {page}");
            assert_eq!(
                of("owed"),
                of("replayed") + of("sampled_out") + of("shed") + of("dropped"),
                "{name} {page}"
            );
        }
        self.assert_bytes_balanced();
    }

    /// The kernel's bytes, and the flow stage's.
    pub(crate) fn assert_bytes_balanced(&self) {
        let page = self.page();
        let kernel = [
            "copied_bytes",
            "snapped_bytes",
            "passed_over_bytes",
            "ignored_bytes",
            "shed_bytes",
            "ring_full_bytes",
            "load_failed_bytes",
            "beyond_pieces_bytes",
            "test_dropped_bytes",
        ];
        assert_eq!(
            self.kernel("payload_bytes"),
            kernel.iter().map(|c| self.kernel(c)).sum::<u64>(),
            "{page}"
        );
        assert_eq!(
            self.kernel("tried_records"),
            self.kernel("records") + self.kernel("ring_full_records") + self.kernel("test_dropped_records"),
            "{page}"
        );
        assert_eq!(self.flow("received_bytes"), self.booked_flow_bytes(), "{page}");
        assert_eq!(self.kernel("records"), self.flow("segments"), "{page}");
        assert_eq!(self.kernel("copied_bytes"), self.flow("received_bytes"), "{page}");
    }
}

/// The numbers of an object that are not 0.
fn counts(section: &Value) -> BTreeMap<String, u64> {
    let counters = section.as_object().into_iter().flatten();
    let numbers = counters.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)));
    numbers.filter(|(_, count)| *count > 0).collect()
}

/// Waits until the daemon has worked off everything, `seen` requests at least, and gives its books.
pub(crate) fn quiet_books(daemon: &Daemon, seen: u64) -> Books {
    quiet_books_or(daemon, seen, |_| false)
}

/// As [`quiet_books`]; or else the books as soon as `is_over`, which need not be quiet.
fn quiet_books_or(daemon: &Daemon, seen: u64, is_over: impl Fn(&Books) -> bool) -> Books {
    let mut last: Option<Books> = None;
    let waited = wait::until("the books are quiet", QUIET_LIMIT, || {
        let books = Books::of(daemon);
        // Twice the same: a request may be between two counters.
        let is_same = last.as_ref().is_some_and(|last| last.0 == books.0);
        let done = is_over(&books) || is_same && books.is_quiet() && books.seen() >= seen;
        last = Some(books.clone());
        std::thread::sleep(Duration::from_millis(50));
        Ok(done.then_some(books))
    });
    let shown = || last.as_ref().map(Books::page).unwrap_or_default();
    waited.unwrap_or_else(|failure| panic!("{failure:#}\n{}\n{}", shown(), daemon.output()))
}

/// So many packets came while the daemon had no processor time for its heartbeat: its programs let them pass, as they
/// should, and what a test wanted to see of them was not to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stalled(pub(crate) u64);

/// As [`quiet_books`], of a daemon whose heartbeat was never stale.
pub(crate) fn books_unless_stalled(daemon: &Daemon, seen: u64) -> Result<Books, Stalled> {
    let stalled = |books: &Books| books.kernel("stalled");
    let books = quiet_books_or(daemon, seen, |books| stalled(books) > 0);
    if stalled(&books) == 0 { Ok(books) } else { Err(Stalled(stalled(&books))) }
}

/// Plays a scene from its beginning to its end; and once more where the first told nothing, for the daemon was stalled.
#[track_caller]
pub(crate) fn again_if_stalled(what: &str, scene: impl Fn() -> Result<(), Stalled>) {
    let Err(Stalled(packets)) = scene() else { return };
    eprintln!("{what}: {packets} packets came while the heartbeat was stale: nothing was tested, so again");
    if let Err(Stalled(packets)) = scene() {
        panic!("{what}: {packets} packets came while the heartbeat was stale, the second time too");
    }
}

/// Waits until a number of `/metrics` is as wanted.
pub(crate) fn wait_for_metric(daemon: &Daemon, what: &str, holds: impl Fn(&Metrics) -> bool) {
    let mut last = String::new();
    let waited = wait::until(what, QUIET_LIMIT, || {
        let metrics = daemon.metrics()?;
        last = metrics.text().to_owned();
        Ok(holds(&metrics).then_some(()))
    });
    waited.unwrap_or_else(|failure| panic!("{failure:#}\n{last}"));
}
