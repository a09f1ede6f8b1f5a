//! What `tap` lists from a capture of real HTTP/2 traffic, against what tshark's dissector lists.

use std::collections::BTreeMap;
use std::path::Path;

use mirror_tests::daemon::binary;
use mirror_tests::h2tools::{self, OddRequest};
use mirror_tests::loadtool::H2Load;
use mirror_tests::peers::peers_or_skip;
use mirror_tests::process::Launch;
use mirror_tests::server::answer::pattern;
use mirror_tests::wait;
use rustix::process::Signal;
use serde_json::Value;

use super::rig::{GATEWAY, Gateway, HOST, Kind, send_odd};
use crate::faithful::rig::{LIMIT, World};
use crate::oracle::{changed, start_tcpdump};

/// Method, path, authority; how often.
type Listed = BTreeMap<(String, String, String), usize>;

/// What tshark lists: every stream's head.
fn tshark(pcap: &Path) -> Listed {
    let fields = ["http2.headers.method", "http2.headers.path", "http2.headers.authority"];
    let out = Launch::new("tshark")
        .args(["-n", "-d", "tcp.port==8080,http2", "-o", "tcp.reassemble_out_of_order:TRUE"])
        .args([
            "-Y",
            "http2.headers.method",
            "-T",
            "fields",
            "-E",
            "separator=/t",
            "-E",
            "aggregator=/s",
            "-r",
        ])
        .arg(pcap)
        .args(fields.iter().flat_map(|field| ["-e", field]))
        .run()
        .unwrap();
    let mut listed = Listed::new();
    for line in out.lines() {
        // Streams that share a packet share a line.
        let columns: Vec<Vec<&str>> = line.split('\t').map(|column| column.split(' ').collect()).collect();
        let [methods, paths, authorities] = columns.as_slice() else { panic!("{line:?}") };
        assert_eq!((methods.len(), paths.len()), (paths.len(), authorities.len()), "{line:?}");
        for ((method, path), authority) in methods.iter().zip(paths).zip(authorities) {
            let request = ((*method).to_owned(), (*path).to_owned(), (*authority).to_owned());
            *listed.entry(request).or_default() += 1;
        }
    }
    listed
}

/// What the daemon lists: of all requests, and of those that came whole.
fn tap(pcap: &Path) -> (Listed, Listed) {
    let out = Launch::new(binary().unwrap())
        .args(["tap", "--ports", "8080", "--json", "--pcap"])
        .arg(pcap)
        .run()
        .unwrap();
    let (mut all, mut whole) = (Listed::new(), Listed::new());
    for line in out.lines() {
        let request: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
        let key = (text("method"), text("path"), text("authority"));
        if request["outcome"] == "complete" {
            *whole.entry(key.clone()).or_default() += 1;
        }
        *all.entry(key).or_default() += 1;
    }
    (all, whole)
}

fn count(listed: &Listed) -> usize {
    listed.values().sum()
}

/// The requests that come more often in `one` than in `other`.
fn beyond<'a>(one: &'a Listed, other: &Listed) -> Vec<&'a (String, String, String)> {
    let often = |request| other.get(request).copied().unwrap_or(0);
    one.iter().filter(|(request, count)| **count > often(request)).map(|(request, _)| request).collect()
}

#[test]
fn tap_and_tshark_list_the_same_requests_over_http2() {
    if !peers_or_skip("tap_and_tshark_list_the_same_requests_over_http2") {
        return;
    }
    let world = World::new();
    let lab = &world.lab;
    let _gateway = Gateway::start(lab, Kind::Envoy, world.production.address(), true);
    let pcap = lab.dir().join("http2.pcap");
    let mut dump = start_tcpdump(lab, "eth0", &pcap);
    let sent = send_odd(&world, GATEWAY, Kind::Envoy, 0);
    let body = lab.dir().join("body");
    std::fs::write(&body, pattern(100_000)).unwrap();
    let (netns, body) = (&lab.client, body.to_str().unwrap());
    h2tools::curl(netns, &["-d", &format!("@{body}"), &format!("http://{GATEWAY}/curl?id=1")]).unwrap();
    let url = format!("http://{GATEWAY}/nghttp?id=2");
    h2tools::nghttp(netns, &["-n", "-m", "10", "-d", body, "-b", "50", "--continuation", &url]).unwrap();
    assert_eq!(H2Load::new(GATEWAY, HOST, 2000).run(netns).unwrap().answers, 2000);
    let total = sent.len() + 1 + 10 + 2000;
    let cut = sent.iter().filter(|request| request.was_cut).count();
    wait::until_true("all is written", LIMIT, || count(&tap(&pcap).0) >= total).unwrap_or_else(|late| {
        panic!("{late:#}: tap lists {}, tshark {} of {total}", count(&tap(&pcap).0), count(&tshark(&pcap)))
    });
    dump.signal(Signal::INT).unwrap();
    dump.wait_for_end(LIMIT).unwrap();
    let ((all, whole), mut theirs) = (tap(&pcap), tshark(&pcap));
    // tshark 4.0 does not put a header block together that has an empty CONTINUATION in it: that one is known by hand.
    let in_parts = |request: &&OddRequest| request.fields.iter().any(|(name, _)| name == "x-part-19");
    let in_parts = sent.iter().find(in_parts).unwrap();
    let key = (in_parts.method.clone(), in_parts.target.clone(), in_parts.authority.clone());
    assert_eq!(whole.get(&key), Some(&1));
    if theirs.remove(&("GET".to_owned(), String::new(), String::new())).is_some() {
        theirs.insert(key, 1);
    }
    assert_eq!(beyond(&all, &theirs), Vec::<&(String, String, String)>::new());
    assert_eq!(beyond(&theirs, &all), Vec::<&(String, String, String)>::new());
    assert_eq!((count(&all), count(&whole)), (total, total - cut));
    for every in [11, 60] {
        let lossy = changed(&pcap, "lossy.pcap", |records| {
            let mut number = 0;
            records.retain(|_| {
                number += 1;
                number % every != 0
            });
        });
        let (_, ours) = tap(&lossy);
        assert_eq!(beyond(&ours, &whole), Vec::<&(String, String, String)>::new(), "one in {every} lost");
        eprintln!("one packet in {every} lost: {} of {} whole", count(&ours), count(&whole));
        assert!(count(&ours) > 0 && count(&ours) < count(&whole));
    }
}
