//! What the shadow must get for what was sent, by a reading of SEMANTICS apart from the daemon's own, and a
//! comparison that forgives nothing.

use std::collections::{BTreeMap, BTreeSet};

use mirror_tests::server::LoggedRequest;
use mirror_tests::wire::latin1;

use super::corpus::Sent;
use super::rig::{LIMIT, Watch, World};

/// The shadow's own authority, for requests without one.
const OWN_AUTHORITY: &str = "10.77.0.4:9000";
const LOOP_MARK: &str = "x-mirrored-by: mirror-daemon\r\n";

/// The head that the shadow must get for `sent`; both as text by [`latin1`].
pub(super) fn shadow_head(sent: &[u8], own_authority: &str) -> String {
    let text = latin1(sent);
    let mut lines = text.split_terminator("\r\n").take_while(|line| !line.is_empty());
    let request_line: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let [method, target, _version] = request_line[..] else { panic!("no request line in {text:?}") };
    let fields: Vec<(&str, &str)> = lines.map(|line| line.split_once(':').unwrap()).collect();
    let mut head = format!("{method} {} HTTP/1.1\r\n", shadow_target(target));
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("Host: {own_authority}\r\n"));
    }
    let hop_by_hop = named_by_connection(&fields);
    for (name, value) in fields {
        let trimmed = value.trim_matches([' ', '\t']);
        let value = match name.to_ascii_lowercase().as_str() {
            "host" => value.replacen(trimmed, &suffixed(trimmed), 1),
            "te" if trimmed.split(',').any(|member| member.trim() == "trailers") => {
                value.replacen(trimmed, "trailers", 1)
            }
            "connection" | "keep-alive" | "proxy-connection" | "te" | "upgrade" => continue,
            lower if hop_by_hop.iter().any(|named| named == lower) => continue,
            _ => value.to_owned(),
        };
        head.push_str(&format!("{name}:{value}\r\n"));
    }
    head + LOOP_MARK + "\r\n"
}

/// `host` with the suffix, before the port.
pub(crate) fn suffixed(authority: &str) -> String {
    let host_end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    format!("{}-shadow{}", &authority[..host_end], &authority[host_end..])
}

fn shadow_target(target: &str) -> String {
    match target.strip_prefix("http://") {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            format!("http://{}{}", suffixed(&rest[..end]), &rest[end..])
        }
        None => target.to_owned(),
    }
}

fn named_by_connection(fields: &[(&str, &str)]) -> Vec<String> {
    let connection = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    connection.flat_map(|(_, value)| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// Every request of `sent` was mirrored, byte for byte, nothing else was, and the books say the same.
#[track_caller]
pub(super) fn assert_mirrored(world: &World, watch: &Watch, sent: &[Sent]) {
    if world.shadow.wait_for_requests(sent.len(), LIMIT).is_err() {
        eprintln!("{:#}\n{}", watch.daemon.ledger().unwrap(), watch.daemon.output());
    }
    assert_same(sent, &world.shadow.requests());
    watch.all_replayed(sent.len() as u64);
    assert_eq!(world.shadow.log().faults(), Vec::<String>::new());
}

/// Every request of `sent` arrived once, whole and true, and nothing else did.
#[track_caller]
pub(super) fn assert_same(sent: &[Sent], got: &[LoggedRequest]) {
    assert_arrived(wanted(sent), got);
}

/// Nothing arrived but requests of `sent`, each at most once, whole and true.
#[track_caller]
pub(super) fn assert_subset(sent: &[Sent], got: &[LoggedRequest]) {
    let came: BTreeSet<u64> = got.iter().filter_map(LoggedRequest::id).collect();
    let mut wanted = wanted(sent);
    wanted.retain(|id, _| came.contains(id));
    assert_arrived(wanted, got);
}

fn wanted(sent: &[Sent]) -> BTreeMap<u64, Parts> {
    let wanted = sent.iter().map(|one| {
        let head = shadow_head(&one.head, OWN_AUTHORITY);
        (one.id, (head, one.body_bytes, one.body_hash.clone(), latin1(&one.trailers)))
    });
    wanted.collect()
}

/// Every request that the gateway sent to production arrived once, whole and true, and nothing else did.
#[track_caller]
pub(super) fn assert_same_as_production(production: &[LoggedRequest], got: &[LoggedRequest]) {
    let wanted = production.iter().map(|one| {
        let head = shadow_head(&one.head, OWN_AUTHORITY);
        let id = one.id().unwrap_or_else(|| panic!("no id in {}", latin1(&one.head)));
        (id, (head, one.body_bytes, one.body_hash.clone(), latin1(&one.trailers)))
    });
    let wanted: BTreeMap<_, _> = wanted.collect();
    assert_eq!(wanted.len(), production.len(), "production got a request twice");
    assert_arrived(wanted, got);
}

/// Head, length and hash of the body, trailers.
type Parts = (String, u64, String, String);

#[track_caller]
fn assert_arrived(mut wanted: BTreeMap<u64, Parts>, got: &[LoggedRequest]) {
    let mut faults = Vec::new();
    for one in got {
        let parts = (latin1(&one.head), one.body_bytes, one.body_hash.clone(), latin1(&one.trailers));
        match one.id().and_then(|id| wanted.remove(&id)) {
            None => faults.push(format!("came twice, or was not sent: {parts:?}")),
            Some(wanted) if wanted != parts => faults.push(format!("wanted {wanted:?}\n     got {parts:?}")),
            Some(_) => {}
        }
    }
    faults.extend(wanted.into_values().map(|parts| format!("never came: {parts:?}")));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn expected_head_differs_in_what_is_named_and_nothing_else() {
    let sent =
        b"GET http://a.b:81/x?id=1 HTTP/1.0\r\nhOST:  [::1]:80 \r\nX-b:\t1\r\nConnection: close, x-HOP\r\n\
        x-hop: 1\r\nTE: gzip, trailers\r\nExpect: 100-continue\r\n\r\n";
    let head = "GET http://a.b-shadow:81/x?id=1 HTTP/1.1\r\nhOST:  [::1]-shadow:80 \r\nX-b:\t1\r\nTE: trailers\r\n\
        Expect: 100-continue\r\nx-mirrored-by: mirror-daemon\r\n\r\n";
    assert_eq!(shadow_head(sent, "s"), head);
    assert_eq!(
        shadow_head(b"GET / HTTP/1.0\r\n\r\n", "s:1"),
        "GET / HTTP/1.1\r\nHost: s:1\r\nx-mirrored-by: mirror-daemon\r\n\r\n"
    );
}
