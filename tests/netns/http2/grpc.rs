//! gRPC: the shadow's messages are production's, as they come, until each call's own end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use mirror_tests::grpc::{Call, End, GrpcServer, make_calls};
use mirror_tests::netns::Role;
use mirror_tests::peers::peers_or_skip;
use serde_json::{Value, json};

use super::rig::{
    DOWNSTREAM, GATEWAY, GRPC_PORT, Gateway, HOST, Kind, SHADOW_GRPC_PORT, UPSTREAM, to_shadow,
};
use crate::faithful::rig::{LIMIT, Watch, World};

/// A gateway between gRPC servers. Fields end in this order.
struct Calls {
    _gateway: Gateway,
    watch: Watch,
    production: GrpcServer,
    shadow: GrpcServer,
    world: World,
}

impl Calls {
    fn new(kind: Kind, capture: &str) -> Self {
        let world = World::new();
        let server = |role: Role, port| GrpcServer::start(world.lab.netns(role), role.at(port)).unwrap();
        let production = server(Role::Production, GRPC_PORT);
        let shadow = server(Role::Shadow, SHADOW_GRPC_PORT);
        // Before the gateway, whose connections to production it would join otherwise.
        let watch = world.watch(&world.lab.gateway, &to_shadow(shadow.address(), capture, ""));
        let gateway = Gateway::start(&world.lab, kind, production.address(), true);
        Self { _gateway: gateway, watch, production, shadow, world }
    }

    #[track_caller]
    fn make(&self, batches: &[Value]) {
        make_calls(&self.world.lab.client, GATEWAY, HOST, batches).unwrap();
    }

    /// Both servers' calls, `count` of them, all ended.
    #[track_caller]
    fn ended(&self, count: usize) -> (BTreeMap<String, Call>, BTreeMap<String, Call>) {
        let production = self.production.wait_for_ended(count, LIMIT).unwrap();
        let shadow = self.shadow.wait_for_ended(count, LIMIT).unwrap_or_else(|failure| {
            panic!("{failure:#}\n{:#}\n{}", self.watch.daemon.ledger().unwrap(), self.watch.daemon.output())
        });
        assert_eq!((production.len(), shadow.len()), (count, count));
        (production, shadow)
    }
}

/// The same messages in the same calls, to the last, each with the same end.
#[track_caller]
fn assert_same_calls(production: &BTreeMap<String, Call>, shadow: &BTreeMap<String, Call>) {
    for (name, original) in production {
        let Some(copy) = shadow.get(name) else { panic!("{name} is not at the shadow") };
        assert_eq!(copy.times, 1, "{name} came more than once");
        assert_eq!(copy.method, original.method, "{name}");
        assert_eq!(copy.authority, format!("{}-shadow", original.authority), "{name}");
        assert_eq!(copy.messages, original.messages, "{name}");
        assert_eq!(copy.end, original.end, "{name}");
    }
    assert_eq!(production.len(), shadow.len());
}

/// All four kinds, from nothing to some megabytes.
fn every_kind() -> Vec<Value> {
    let mut batches = Vec::new();
    for (index, (bytes, messages)) in
        [(1, 1), (1000, 30), (70_000, 10), (3_000_000, 2)].into_iter().enumerate()
    {
        let first = |kind: usize| 1000 * kind + 100 * index;
        let sizes = json!({ "calls": 3, "bytes": bytes, "messages": messages });
        for (number, kind) in ["Unary", "ClientStream", "ServerStream", "Bidi"].into_iter().enumerate() {
            let mut batch = sizes.clone();
            batch["kind"] = kind.into();
            batch["first_id"] = first(number).into();
            batch["replies"] = messages.into();
            batch["metadata"] = json!([["x-own", "a b"], ["x-own", "c"], ["x-raw-bin-less", "~!"]]);
            batches.push(batch);
        }
    }
    batches
}

#[track_caller]
fn assert_every_kind(kind: Kind, capture: &str) {
    let calls = Calls::new(kind, capture);
    let batches = every_kind();
    calls.make(&batches);
    let (production, shadow) = calls.ended(3 * batches.len());
    assert_same_calls(&production, &shadow);
    if capture == UPSTREAM {
        // On this leg the captured fields are production's own.
        for (name, original) in &production {
            let mut wanted = original.metadata.clone();
            // nginx says the host twice.
            for (_, value) in wanted.iter_mut().filter(|(name, _)| name == "host") {
                value.push_str("-shadow");
            }
            wanted.push(("x-mirrored-by".to_owned(), "mirror-daemon".to_owned()));
            let mut got = shadow[name].metadata.clone();
            wanted.sort();
            got.sort();
            assert_eq!(got, wanted, "{name}");
        }
    }
    calls.watch.all_replayed(production.len() as u64);
    calls.watch.end();
}

#[test]
fn every_kind_of_call_through_nginx_has_the_same_messages_at_the_shadow() {
    if !peers_or_skip("every_kind_of_call_through_nginx_has_the_same_messages_at_the_shadow") {
        return;
    }
    assert_every_kind(Kind::Nginx, DOWNSTREAM);
}

#[test]
fn every_kind_of_call_through_envoy_has_the_same_messages_at_the_shadow() {
    if !peers_or_skip("every_kind_of_call_through_envoy_has_the_same_messages_at_the_shadow") {
        return;
    }
    assert_every_kind(Kind::Envoy, DOWNSTREAM);
}

#[test]
fn every_kind_of_call_that_nginx_sends_has_the_same_messages_at_the_shadow() {
    if !peers_or_skip("every_kind_of_call_that_nginx_sends_has_the_same_messages_at_the_shadow") {
        return;
    }
    assert_every_kind(Kind::Nginx, UPSTREAM);
}

#[test]
fn every_kind_of_call_that_envoy_sends_has_the_same_messages_at_the_shadow() {
    if !peers_or_skip("every_kind_of_call_that_envoy_sends_has_the_same_messages_at_the_shadow") {
        return;
    }
    assert_every_kind(Kind::Envoy, UPSTREAM);
}

#[test]
fn call_that_stays_open_is_at_the_shadow_while_it_is_open() {
    if !peers_or_skip("call_that_stays_open_is_at_the_shadow_while_it_is_open") {
        return;
    }
    for kind in [Kind::Nginx, Kind::Envoy] {
        let calls = Calls::new(kind, DOWNSTREAM);
        let until = calls.world.lab.dir().join("let go");
        let batch = |kind: &str, first_id: u64| json!({ "kind": kind, "first_id": first_id, "calls": 4, "messages": 2, "hold": until });
        let (bidi, client_stream) = (batch("Bidi", 0), batch("ClientStream", 10));
        let netns = &calls.world.lab.client;
        std::thread::scope(|scope| {
            let _let_go = LetGo(&until);
            let clients = [bidi, client_stream]
                .map(|batch| scope.spawn(move || make_calls(netns, GATEWAY, HOST, &[batch]).unwrap()));
            let all_there = |calls: &BTreeMap<String, Call>| {
                calls.len() == 8 && calls.values().all(|call| call.messages.len() == 2)
            };
            let what = "every call has both messages";
            let original = calls.production.wait_for_calls(what, LIMIT, all_there).unwrap();
            let copies = calls.shadow.wait_for_calls(what, LIMIT, all_there).unwrap_or_else(|failure| {
                panic!("{kind:?} {failure:#}\n{:#}", calls.watch.daemon.ledger().unwrap())
            });
            assert!(original.values().chain(copies.values()).all(|call| call.end.is_none()));
            std::fs::write(&until, "").unwrap();
            for client in clients {
                client.join().unwrap();
            }
        });
        let (production, shadow) = calls.ended(8);
        assert!(production.values().all(|call| call.end == Some(End::Done)));
        assert_same_calls(&production, &shadow);
        calls.watch.all_replayed(8);
        calls.watch.end();
    }
}

/// Lets the clients go, also when a claim fails: the scope waits for them.
struct LetGo<'a>(&'a Path);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        drop(std::fs::write(self.0, ""));
    }
}

#[test]
fn cancelled_call_is_cancelled_at_the_shadow() {
    if !peers_or_skip("cancelled_call_is_cancelled_at_the_shadow") {
        return;
    }
    for kind in [Kind::Nginx, Kind::Envoy] {
        let calls = Calls::new(kind, DOWNSTREAM);
        let until = calls.world.lab.dir().join("let go");
        let batch = |kind: &str, first_id: u64| json!({ "kind": kind, "first_id": first_id, "calls": 5, "messages": 3, "cancel": true, "hold": until });
        let good = json!({ "kind": "Unary", "first_id": 100, "calls": 20 });
        let lanes = [vec![batch("Bidi", 0), good], vec![batch("ClientStream", 10)]];
        let netns = &calls.world.lab.client;
        std::thread::scope(|scope| {
            let _let_go = LetGo(&until);
            for lane in &lanes {
                scope.spawn(move || make_calls(netns, GATEWAY, HOST, lane).unwrap());
            }
            let all_there = |calls: &BTreeMap<String, Call>| {
                calls.len() == 10 && calls.values().all(|call| call.messages.len() == 3)
            };
            calls.shadow.wait_for_calls("every call has its messages", LIMIT, all_there).unwrap();
        });
        let (production, shadow) = calls.ended(30);
        let is_cancelled = |calls: &BTreeMap<String, Call>, id: u64| {
            calls[&format!("call-{id}")].end == Some(End::Cancelled)
        };
        for id in (0..5).chain(10..15) {
            assert!(is_cancelled(&production, id), "{kind:?} call-{id}");
            assert!(is_cancelled(&shadow, id), "{kind:?} call-{id}");
            let name = format!("call-{id}");
            assert_eq!(shadow[&name].messages, production[&name].messages, "{kind:?} {name}");
        }
        for id in 100..120 {
            assert!(!is_cancelled(&shadow, id), "{kind:?} call-{id}");
        }
        calls.watch.books(30);
        calls.watch.end();
    }
}

#[test]
fn many_calls_at_once_have_the_same_messages_at_the_shadow() {
    if !peers_or_skip("many_calls_at_once_have_the_same_messages_at_the_shadow") {
        return;
    }
    let calls = Calls::new(Kind::Envoy, DOWNSTREAM);
    let lanes: [Value; 4] = [
        json!({ "kind": "Unary", "first_id": 0, "calls": 1500, "concurrent": 32, "bytes": 500 }),
        json!({ "kind": "Bidi", "first_id": 10_000, "calls": 60, "concurrent": 20, "messages": 20 }),
        json!({ "kind": "ClientStream", "first_id": 20_000, "calls": 40, "concurrent": 20, "messages": 50,
            "bytes": 3000 }),
        json!({ "kind": "Bidi", "first_id": 30_000, "calls": 20, "concurrent": 20, "messages": 10,
            "pause_ms": 50 }),
    ];
    let (netns, to): (_, SocketAddr) = (&calls.world.lab.client, GATEWAY);
    std::thread::scope(|scope| {
        for lane in &lanes {
            scope.spawn(move || make_calls(netns, to, HOST, std::slice::from_ref(lane)).unwrap());
        }
    });
    let (production, shadow) = calls.ended(1620);
    assert_same_calls(&production, &shadow);
    calls.watch.all_replayed(1620);
    calls.watch.end();
}
