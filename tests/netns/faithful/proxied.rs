//! The PROXY protocol in front of nginx: requests are read behind it, and its address is the client's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mirror_tests::client::Connection;
use mirror_tests::netns::Role;
use mirror_tests::privilege::root_or_skip;

use super::corpus::{Ids, Sent, chunked};
use super::expected::{assert_mirrored, assert_same};
use super::rig::{GATEWAY_PORT, LIMIT, World, of_shadow};

const PROXIED: &str = "interfaces = [\"eth0\"]\nports = [8080]\nproxy_protocol = true";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version 1 header for that client.
fn v1(client: IpAddr) -> Vec<u8> {
    match client {
        IpAddr::V4(_) => format!("PROXY TCP4 {client} 10.77.0.2 40000 8080\r\n").into_bytes(),
        IpAddr::V6(_) => format!("PROXY TCP6 {client} fd77::2 40000 8080\r\n").into_bytes(),
    }
}

/// A version 2 header for that client, with a TLV (a comment) behind the addresses.
fn v2(client: IpAddr) -> Vec<u8> {
    let (family, addresses) = match client {
        IpAddr::V4(client) => (0x11, [client.octets(), [10, 77, 0, 2]].concat()),
        IpAddr::V6(client) => (0x21, [client.octets(), Role::Gateway.v6().octets()].concat()),
    };
    let tlv = [4, 0, 3, b'a', b'b', b'c'];
    let length = u16::try_from(addresses.len() + 4 + tlv.len()).unwrap();
    let ports = [40_000_u16.to_be_bytes(), 8080_u16.to_be_bytes()].concat();
    [SIGNATURE, &[0x21, family], &length.to_be_bytes(), &addresses, &ports, &tlv].concat()
}

fn v4_client(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

fn v6_client(number: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into()
}

#[test]
fn requests_behind_proxy_headers_arrive_without_them() {
    if !root_or_skip("requests_behind_proxy_headers_arrive_without_them") {
        return;
    }
    let world = World::new();
    let _nginx = world.nginx(|config| config.proxy_protocol = true);
    let watch = world.mirror_all(PROXIED);
    let (mut ids, mut sent) = (Ids::default(), Vec::new());
    let unknown = b"PROXY UNKNOWN\r\n".to_vec();
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    for header in [v1(v4_client(1)), v1(v6_client(1)), v2(v4_client(1)), v2(v6_client(1)), unknown, local] {
        for together in [false, true] {
            let batch =
                [vec![Sent::get(ids.next()), Sent::post(ids.next(), 700)], chunked(&mut ids)].concat();
            let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
            if together {
                connection.send(&[header.clone(), batch[0].wire.clone()].concat()).unwrap();
            } else {
                connection.send(&header).unwrap();
                connection.send(&batch[0].wire).unwrap();
            }
            assert_eq!(connection.read_answer().unwrap().status, 200);
            for request in &batch[1..] {
                assert_eq!(request.exchange(&mut connection).status, 200);
            }
            sent.extend(batch);
        }
    }
    assert_mirrored(&world, &watch, &sent);
    watch.end();
}

#[test]
fn sampling_by_client_goes_by_the_address_in_the_proxy_header() {
    if !root_or_skip("sampling_by_client_goes_by_the_address_in_the_proxy_header") {
        return;
    }
    const CLIENTS: u8 = 40;
    let world = World::new();
    let _nginx = world.nginx(|config| config.proxy_protocol = true);
    let mirror = "mirror = [{ shadow = \"v2\", percentage = 40, key = \"client_ip\" }]";
    let config = super::rig::all_to(world.shadow.address(), PROXIED);
    let config = config.replace("mirror = [{ shadow = \"v2\" }]", mirror);
    assert!(config.contains(mirror));
    let watch = world.watch(&world.lab.gateway, &config);
    let (mut ids, mut by_client) = (Ids::default(), BTreeMap::<IpAddr, Vec<Sent>>::new());
    for version in [v1, v2] {
        for client in (1..=CLIENTS).map(v4_client) {
            let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
            connection.send(&version(client)).unwrap();
            for _ in 0..2 {
                let request = Sent::get(ids.next());
                assert_eq!(request.exchange(&mut connection).status, 200);
                by_client.entry(client).or_default().push(request);
            }
        }
    }
    let books = watch.books(u64::from(CLIENTS) * 4);
    let picked = usize::try_from(of_shadow(&books, "v2", "replayed")).unwrap();
    let got = world.shadow.wait_for_requests(picked, LIMIT).unwrap();
    let came = |sent: &Sent| got.iter().any(|one| one.id() == Some(sent.id));
    let clients: Vec<Sent> = by_client.into_values().filter(|sent| came(&sent[0])).flatten().collect();
    // All four requests of a client, or none of them; and some clients, but not all.
    assert_same(&clients, &got);
    assert!((1..usize::from(CLIENTS)).contains(&(clients.len() / 4)), "{} of {CLIENTS}", clients.len() / 4);
    watch.end();
}
