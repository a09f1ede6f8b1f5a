//! Rules from a file to the shadows: which requests go where, and how they are changed.

use std::collections::BTreeSet;

use mirror_tests::client::Connection;
use mirror_tests::haproxy::{Haproxy, Sides};
use mirror_tests::netns::Role;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::{LogMode, LoggedRequest, TestApp};
use mirror_tests::wire::latin1;

use super::corpus::{Ids, Sent, keep_alive};
use super::expected::assert_same;
use super::rig::{DOWNSTREAM, GATEWAY_PORT, LIMIT, World, all_to, dropped, of_shadow};

/// Four shadows, and a route for each claim.
const CONFIG: &str = r#"
[[shadow]]
name = "v2"
url = "http://10.77.0.4:9000"

[[shadow]]
name = "kept"
url = "http://10.77.0.4:9001"
host = "keep"

[[shadow]]
name = "literal"
url = "http://[fd77::4]:9002"
host = { literal = "x.example:8443" }

[[shadow]]
name = "edited"
url = "http://10.77.0.4:9003"
suffix = "-canary"
headers = [
  { set = { name = "X-Env", value = "shadow" } },
  { append = { name = "X-Tag", value = "b" } },
  { remove = "x-gone" },
]
[shadow.redact]
headers = ["authorization"]
cookies = ["sid"]
query = ["token"]

[[route]]
hosts = ["all.example"]
[[route.rule]]
mirror = [{ shadow = "v2", percentage = 100 }]

[[route]]
hosts = ["none.example"]
[[route.rule]]
mirror = [{ shadow = "v2", percentage = 0 }]

[[route]]
hosts = ["guarded.example"]
methods = "safe"
[[route.rule]]
mirror = [{ shadow = "v2" }]

[[route]]
hosts = ["*.wild.example"]
[[route.rule]]
match = [{ path = { prefix = "/in" }, headers = [{ name = "x-env", exact = "test" }] }]
mirror = [{ shadow = "v2" }]

[[route]]
hosts = ["keyed.example"]
[[route.rule]]
mirror = [
  { shadow = "kept", percentage = 10, key = "header:X-User" },
  { shadow = "literal", percentage = 10, key = "header:x-user" },
  { shadow = "edited", percentage = 10, key = "header:x-user", salt = "other" },
]

[[route]]
hosts = ["many.example"]
[[route.rule]]
mirror = [{ shadow = "v2" }, { shadow = "kept" }, { shadow = "literal" }, { shadow = "edited" }]
"#;

/// The apps behind "kept", "literal" and "edited"; "v2" is the world's own.
struct Apps {
    kept: TestApp,
    literal: TestApp,
    edited: TestApp,
}

impl Apps {
    fn start(world: &World) -> Self {
        let at = |address| TestApp::start(&world.lab.shadow, address, LogMode::Full).unwrap();
        Self {
            kept: at(Role::Shadow.at(9001)),
            literal: at(Role::Shadow.at_v6(9002)),
            edited: at(Role::Shadow.at(9003)),
        }
    }
}

fn config() -> String {
    format!("[capture]\n{DOWNSTREAM}\n{CONFIG}")
}

fn get(id: u64, host: &str, more: &str) -> Sent {
    Sent::new(id, &format!("GET /get?id={{id}} HTTP/1.1\r\nHost: {host}\r\n{more}"), b"")
}

fn post(id: u64, host: &str) -> Sent {
    Sent::new(
        id,
        &format!("POST /post?id={{id}} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {{length}}\r\n"),
        b"12345",
    )
}

fn ids_of(requests: &[LoggedRequest]) -> BTreeSet<u64> {
    requests.iter().map(|request| request.id().unwrap()).collect()
}

#[test]
fn hosts_percentages_and_the_write_guard_decide_what_is_mirrored() {
    if !root_or_skip("hosts_percentages_and_the_write_guard_decide_what_is_mirrored") {
        return;
    }
    let world = World::new();
    let _nginx = world.nginx(|_| {});
    let watch = world.watch(&world.lab.gateway, &config());
    let mut ids = Ids::default();
    let mut batch = |make: &dyn Fn(u64) -> Sent| -> Vec<Sent> { (0..20).map(|_| make(ids.next())).collect() };
    let all = batch(&|id| get(id, "ALL.example:8080", ""));
    let none = batch(&|id| post(id, "none.example"));
    let safe = batch(&|id| get(id, "guarded.example", ""));
    let unsafe_ones = batch(&|id| post(id, "guarded.example"));
    let unknown = batch(&|id| get(id, "unknown.example", ""));
    let wild = batch(&|id| {
        Sent::new(id, "GET /in/side?id={id} HTTP/1.1\r\nhost: a.b.wild.example\r\nX-Env: test\r\n", b"")
    });
    let apex =
        batch(&|id| Sent::new(id, "GET /in?id={id} HTTP/1.1\r\nHost: wild.example\r\nX-Env: test\r\n", b""));
    let beside = batch(&|id| {
        Sent::new(id, "GET /inside?id={id} HTTP/1.1\r\nHost: a.wild.example\r\nX-Env: test\r\n", b"")
    });
    let sent = [&all, &none, &safe, &unsafe_ones, &unknown, &wild, &apex, &beside].map(Clone::clone).concat();
    keep_alive(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), &sent);
    let books = watch.books(sent.len() as u64);
    let mirrored = [all, safe, wild].concat();
    assert_same(&mirrored, &world.shadow.wait_for_requests(mirrored.len(), LIMIT).unwrap());
    assert_eq!(of_shadow(&books, "v2", "sampled_out"), 20, "{books:#}");
    assert_eq!(books["requests"]["unmatched"], 80, "{books:#}");
    watch.end();
}

#[test]
fn sample_by_key_is_the_same_for_two_shadows_and_another_with_salt() {
    if !root_or_skip("sample_by_key_is_the_same_for_two_shadows_and_another_with_salt") {
        return;
    }
    const USERS: u64 = 400;
    let world = World::new();
    let (_nginx, apps) = (world.nginx(|_| {}), Apps::start(&world));
    let watch = world.watch(&world.lab.gateway, &config());
    // Two requests of each user, far apart.
    let sent: Vec<Sent> = (0..2 * USERS)
        .map(|id| get(id + 1, "keyed.example", &format!("X-User: user {}\r\n", id % USERS)))
        .collect();
    keep_alive(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), &sent);
    let books = watch.books(2 * USERS);
    for (name, app) in [("kept", &apps.kept), ("literal", &apps.literal), ("edited", &apps.edited)] {
        let replayed = usize::try_from(of_shadow(&books, name, "replayed")).unwrap();
        let got = ids_of(&app.wait_for_requests(replayed, LIMIT).unwrap());
        assert_eq!(got.len(), replayed);
        let users: BTreeSet<u64> = got.iter().map(|id| (id - 1) % USERS).collect();
        assert_eq!(got.len(), 2 * users.len(), "both requests of a user, or none");
        // 40 are expected; the standard deviation is 6.
        assert!((10..=70).contains(&users.len()), "{} of {USERS} users", users.len());
    }
    let [kept, literal, salted] =
        [&apps.kept, &apps.literal, &apps.edited].map(|app| ids_of(&app.requests()));
    assert_eq!(kept, literal);
    assert_ne!(kept, salted);
    watch.end();
}

#[test]
fn each_of_several_mirrors_gets_its_own_host_and_headers() {
    if !root_or_skip("each_of_several_mirrors_gets_its_own_host_and_headers") {
        return;
    }
    let world = World::new();
    let (_nginx, apps) = (world.nginx(|_| {}), Apps::start(&world));
    let watch = world.watch(&world.lab.gateway, &config());
    let head = "POST /many?id={id}&token=s3cret&x=1 HTTP/1.1\r\nHost: many.example:8080\r\nX-Env: live\r\nx-tag:a\r\n\
        X-Gone: 1\r\nAuthorization: Bearer abc\r\nCookie: a=1; sid=s3cret; b=2\r\nContent-Length: {length}\r\n";
    let sent = Sent::new(1, head, b"token=stays");
    keep_alive(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), std::slice::from_ref(&sent));
    let with_host = |host: &str| {
        let head = latin1(&sent.head).replace("many.example:8080", host);
        head.replace("\r\n\r\n", "\r\nx-mirrored-by: mirror-daemon\r\n\r\n")
    };
    let edited = "POST /many?id=1&token=redacted&x=1 HTTP/1.1\r\nHost: many.example-canary:8080\r\nx-tag:a\r\n\
        Authorization: redacted\r\nCookie: a=1; sid=redacted; b=2\r\nContent-Length: 11\r\nX-Env: shadow\r\nX-Tag: b\r\n\
        x-mirrored-by: mirror-daemon\r\n\r\n";
    for (app, head) in [
        (&world.shadow, with_host("many.example-shadow:8080")),
        (&apps.kept, with_host("many.example:8080")),
        (&apps.literal, with_host("x.example:8443")),
        (&apps.edited, edited.to_owned()),
    ] {
        let got = app.wait_for_requests(1, LIMIT).unwrap();
        assert_eq!((got.len(), latin1(&got[0].head)), (1, head));
        assert_eq!(got[0].body_hash, sent.body_hash);
    }
    let books = watch.books(1);
    assert_eq!((&books["requests"]["matched"], &books["open"]), (&1.into(), &0.into()), "{books:#}");
    watch.end();
}

#[test]
fn mirror_that_comes_back_through_the_gateway_is_not_mirrored_again() {
    if !root_or_skip("mirror_that_comes_back_through_the_gateway_is_not_mirrored_again") {
        return;
    }
    const ROUNDS: u64 = 10;
    let world = World::new();
    let (_nginx, gateway) = (world.nginx(|_| {}), Role::Gateway.at(GATEWAY_PORT));
    let back = Role::Shadow.at(9100);
    let _haproxy = Haproxy::start(&world.lab.shadow, back, gateway, Sides::default()).unwrap();
    let watch = world.watch(&world.lab.gateway, &all_to(back, DOWNSTREAM));
    let mut connection = Connection::open(&world.lab.client, gateway).unwrap();
    for id in 1..=ROUNDS {
        assert_eq!(Sent::get(id).exchange(&mut connection).status, 200);
    }
    world.production.wait_for_requests(2 * ROUNDS as usize, LIMIT).unwrap();
    let books = watch.books(2 * ROUNDS);
    assert_eq!(dropped(&books, "loop"), ROUNDS, "{books:#}");
    assert_eq!(of_shadow(&books, "v2", "replayed"), ROUNDS, "{books:#}");
    watch.end();
}

#[test]
fn daemon_does_not_capture_its_own_connections_on_the_upstream_leg() {
    if !root_or_skip("daemon_does_not_capture_its_own_connections_on_the_upstream_leg") {
        return;
    }
    let mut world = World::new();
    // The same port as production's: only the daemon's own doing tells its connections from the gateway's.
    world.shadow = TestApp::start(&world.lab.shadow, Role::Shadow.at(8000), LogMode::Full).unwrap();
    let _nginx = world.nginx(|_| {});
    let watch = world.mirror_all("interfaces = [\"eth0\"]\nports = [8000]\nleg = \"upstream\"");
    let sent: Vec<Sent> = (1..=20).map(|id| Sent::post(id, 100)).collect();
    keep_alive(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), &sent);
    world.shadow.wait_for_requests(sent.len(), LIMIT).unwrap();
    watch.all_replayed(sent.len() as u64);
    assert_eq!(ids_of(&world.shadow.requests()), (1..=20).collect());
    assert_eq!(world.shadow.requests().len(), sent.len());
    watch.end();
}
