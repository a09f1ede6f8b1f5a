//! What `tap` lists from a capture of real traffic, against what tshark's dissector lists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mirror_tests::bpf;
use mirror_tests::client::{Connection, Step, chunked_request};
use mirror_tests::daemon::binary;
use mirror_tests::netns::{Lab, Role};
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::privilege::root_or_skip;
use mirror_tests::process::{Launch, Process};
use mirror_tests::server::{LogMode, TestApp};
use mirror_tests::wait;
use rustix::process::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// Method, target, host.
type Request = (String, String, String);

/// What was listed: how often each request, and the body lengths where they are given.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listed {
    requests: BTreeMap<Request, usize>,
    body_bytes: BTreeMap<Request, u64>,
}

impl Listed {
    fn add(&mut self, request: Request, body_bytes: Option<u64>) {
        if let Some(bytes) = body_bytes {
            self.body_bytes.insert(request.clone(), bytes);
        }
        *self.requests.entry(request).or_default() += 1;
    }

    fn count(&self) -> usize {
        self.requests.values().sum()
    }

    /// The requests that come more often here than in `all`.
    fn beyond(&self, all: &Self) -> Vec<&Request> {
        let often = |request| all.requests.get(request).copied().unwrap_or(0);
        self.requests
            .iter()
            .filter(|(request, count)| **count > often(request))
            .map(|(request, _)| request)
            .collect()
    }
}

/// What the daemon lists as complete.
fn tap(pcap: &Path) -> Listed {
    let out = Launch::new(binary().unwrap())
        .args(["tap", "--ports", "8080", "--json", "--pcap"])
        .arg(pcap)
        .run()
        .unwrap();
    let mut listed = Listed::default();
    for line in out.lines() {
        let request: Value = serde_json::from_str(line).unwrap();
        if request["outcome"] == "complete" {
            let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
            listed.add((text("method"), text("path"), text("authority")), request["body_bytes"].as_u64());
        }
    }
    listed
}

/// What tshark lists. Requests that share a packet share a line; its body lengths can then not be told apart.
fn tshark(pcap: &Path) -> Listed {
    let fields = ["http.request.method", "http.request.uri", "http.host", "http.content_length"];
    let launch = Launch::new("tshark")
        .args([
            "-n",
            "-d",
            "tcp.port==8080,http",
            "-o",
            "tcp.reassemble_out_of_order:TRUE",
            "-Y",
            "http.request",
        ])
        .args(["-T", "fields", "-E", "separator=/t", "-E", "aggregator=/s", "-r"])
        .arg(pcap)
        .args(fields.iter().flat_map(|field| ["-e", field]));
    let mut listed = Listed::default();
    for line in launch.run().unwrap().lines() {
        let columns: Vec<Vec<&str>> = line.split('\t').map(|column| column.split(' ').collect()).collect();
        let [methods, targets, hosts, lengths] = columns.as_slice() else { panic!("{line:?}") };
        assert_eq!((methods.len(), hosts.len()), (targets.len(), targets.len()), "{line:?}");
        for ((method, target), host) in methods.iter().zip(targets).zip(hosts) {
            let length = if methods.len() == 1 { lengths[0].parse().ok() } else { None };
            listed.add(((*method).to_owned(), (*target).to_owned(), (*host).to_owned()), length);
        }
    }
    listed
}

pub(crate) fn start_tcpdump(lab: &Lab, interface: &str, file: &Path) -> Process {
    let log = lab.dir().join(format!("tcpdump-{interface}"));
    let process = Launch::new("tcpdump")
        .args(["-i", interface, "-s", "0", "-B", "32768", "-U", "-w"])
        .arg(file)
        .args(["tcp", "port", "8080"])
        .output_to(log)
        .in_netns(&lab.gateway)
        .spawn()
        .unwrap();
    wait::until_true("tcpdump listens", LIMIT, || process.output().contains("listening on")).unwrap();
    process
}

/// Everything that HTTP/1.1 has, over both families; returns how many requests.
fn varied_load(lab: &Lab) -> usize {
    let mut count = 0;
    for to in [Role::Gateway.at(8080), Role::Gateway.at_v6(8080)] {
        for round in 0..6 {
            let tag = |what: &str| format!("/bytes/{}?{what}={round}&v6={}", round * 700, to.is_ipv6());
            let head = |method: &str, what: &str, more: &str| {
                format!("{method} {} HTTP/1.1\r\nHost: shop.example:8080\r\n{more}", tag(what))
            };
            let mut connection = Connection::open(&lab.client, to).unwrap();
            connection.exchange(format!("{}\r\n", head("GET", "plain", "X-Long: 1\r\n")).as_bytes()).unwrap();
            connection.exchange(format!("{}\r\n", head("HEAD", "head", "")).as_bytes()).unwrap();
            let body = vec![b'b'; 20_000 * round + 1];
            let length = format!("Content-Length: {}\r\n\r\n", body.len());
            let post = [head("POST", "post", &length).into_bytes(), body.clone()].concat();
            connection.exchange(&post).unwrap();
            let chunks = [&b"GET /trap HTTP/1.1\r\nHost: a\r\n\r\n"[..], &body];
            let chunked =
                chunked_request(&head("PUT", "chunked", "Trailer: X-Sum\r\n"), &chunks, "X-Sum: 1\r\n");
            connection.play(&[Step::SendInPieces(chunked, 40 + 999 * round), Step::Read(1)]).unwrap();
            let expecting = head("POST", "expect", &format!("Expect: 100-continue\r\n{length}"));
            let script =
                [Step::Send(expecting.into_bytes()), Step::ReadInterim, Step::Send(body), Step::Read(1)];
            connection.play(&script).unwrap();
            let pipelined: String =
                (0..5).map(|n| format!("{}\r\n", head("GET", &format!("pipe{n}"), ""))).collect();
            connection.play(&[Step::Send(pipelined.into_bytes()), Step::Read(5)]).unwrap();
            count += 10;
        }
        let large = vec![b'L'; 3 << 20];
        let head =
            format!("POST /echo-hash?large HTTP/1.1\r\nHost: l\r\nContent-Length: {}\r\n\r\n", large.len());
        let mut connection = Connection::open(&lab.client, to).unwrap();
        connection.exchange(&[head.into_bytes(), large].concat()).unwrap();
        count += 1;
    }
    count
}

/// Writes another classic capture file with the records of `pcap` that `change` leaves, in its order.
pub(crate) fn changed(pcap: &Path, name: &str, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> PathBuf {
    let file = std::fs::read(pcap).unwrap();
    let (header, mut rest) = file.split_at(24);
    let mut records = Vec::new();
    while rest.len() >= 16 {
        let bytes = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let (record, behind) = rest.split_at(16 + bytes);
        records.push(record.to_vec());
        rest = behind;
    }
    change(&mut records);
    let path = pcap.with_file_name(name);
    std::fs::write(&path, [header, &records.concat()].concat()).unwrap();
    path
}

/// Swaps neighbours that travel the same way, where both carry payload; the times stay in order.
fn swap_neighbours(records: &mut [Vec<u8>]) {
    let is_client_payload = |record: &[u8]| {
        record.len() > 16 + 14 + 20 + 32 + 100 && record[16 + 36..16 + 38] == 8080_u16.to_be_bytes()
    };
    let mut at = 1;
    while at < records.len() {
        let ports = |record: &[u8]| record[16 + 34..16 + 38].to_vec();
        if is_client_payload(&records[at - 1])
            && is_client_payload(&records[at])
            && ports(&records[at - 1]) == ports(&records[at])
        {
            let times = [records[at - 1][..8].to_vec(), records[at][..8].to_vec()];
            records.swap(at - 1, at);
            records[at - 1][..8].copy_from_slice(&times[0]);
            records[at][..8].copy_from_slice(&times[1]);
            at += 2;
        }
        at += 1;
    }
}

#[test]
fn tap_and_tshark_list_the_same_requests() {
    if !root_or_skip("tap_and_tshark_list_the_same_requests") {
        return;
    }
    let lab = Lab::new().unwrap();
    let production = TestApp::start(&lab.production, Role::Production.at(8000), LogMode::None).unwrap();
    let listen = [Role::Gateway.at(8080), Role::Gateway.at_v6(8080)];
    let _nginx = Nginx::start(&lab.gateway, &NginxConfig::new(listen, production.address())).unwrap();
    let (ethernet, cooked) = (lab.dir().join("ethernet.pcap"), lab.dir().join("cooked.pcap"));
    let mut dumps = [start_tcpdump(&lab, "eth0", &ethernet), start_tcpdump(&lab, "any", &cooked)];
    let count = varied_load(&lab);
    wait::until_true("all is written", LIMIT, || {
        [&ethernet, &cooked].iter().all(|file| tap(file).count() == count)
    })
    .unwrap_or_else(|late| {
        panic!("{late:#}: {} and {} of {count}", tap(&ethernet).count(), tap(&cooked).count())
    });
    for dump in &mut dumps {
        dump.signal(Signal::INT).unwrap();
        dump.wait_for_end(LIMIT).unwrap();
    }
    let truth = tap(&ethernet);
    assert_eq!(truth.count(), count, "{}", dumps[0].output());
    let ng = lab.dir().join("ethernet.pcapng");
    Launch::new("editcap").args(["-F", "pcapng"]).arg(&ethernet).arg(&ng).run().unwrap();
    let reordered = changed(&ethernet, "reordered.pcap", |records| swap_neighbours(records));
    assert_ne!(std::fs::read(&ethernet).unwrap(), std::fs::read(&reordered).unwrap());
    for file in [&ethernet, &cooked, &ng, &reordered] {
        let (ours, theirs) = (tap(file), tshark(file));
        for (one, other) in [(&ours, &theirs), (&theirs, &ours), (&ours, &truth), (&truth, &ours)] {
            assert_eq!(one.beyond(other), Vec::<&Request>::new(), "{}", file.display());
        }
        assert!(theirs.body_bytes.len() > 20, "tshark gives lengths");
        for (request, bytes) in &theirs.body_bytes {
            assert_eq!(ours.body_bytes[request], *bytes, "{request:?} in {}", file.display());
        }
    }
    for every in [7, 20, 50] {
        let lossy = changed(&ethernet, "lossy.pcap", |records| {
            let mut number = 0;
            records.retain(|_| {
                number += 1;
                number % every != 0
            });
        });
        let ours = tap(&lossy);
        assert_eq!(ours.beyond(&truth), Vec::<&Request>::new(), "one in {every} lost");
        assert!(
            ours.requests.iter().all(|(request, _)| ours.body_bytes[request] == truth.body_bytes[request])
        );
        assert!(ours.count() > 0 && ours.count() < count, "{} of {count}", ours.count());
    }
}

#[test]
fn tap_prints_what_curl_sent() {
    if !root_or_skip("tap_prints_what_curl_sent") {
        return;
    }
    let lab = Lab::new().unwrap();
    let _gateway = TestApp::start(&lab.gateway, Role::Gateway.at(8080), LogMode::None).unwrap();
    let mut tap = Launch::new(binary().unwrap())
        .args(["tap", "--interface", "eth0", "--ports", "8080", "--headers", "--count", "2"])
        .output_to(lab.dir().join("tap"))
        .in_netns(&lab.gateway)
        .spawn()
        .unwrap();
    wait::until("tap is attached", LIMIT, || {
        tap.still_runs()?;
        Ok((!bpf::attached_in(&lab.gateway)?.is_empty()).then_some(()))
    })
    .unwrap();
    let url = format!("http://{}/cart?item=7", Role::Gateway.at(8080));
    let curl = |more: &[&str]| {
        Launch::new("curl")
            .args(["-sS", "--max-time", "10"])
            .args(more)
            .arg(&url)
            .in_netns(&lab.client)
            .run()
            .unwrap()
    };
    curl(&["-H", "Host: shop.example", "-H", "X-Odd: \u{9b}31mred"]);
    curl(&["-H", "Host: shop.example", "-d", "0123456789"]);
    let status = tap.wait_for_end(LIMIT).unwrap_or_else(|late| panic!("{late:#}\n{}", tap.output()));
    let output = tap.output();
    assert!(status.success(), "{output}");
    assert!(output.contains(" GET http://shop.example/cart?item=7 HTTP/1.1 body=0 complete\n"), "{output}");
    assert!(output.contains(" POST http://shop.example/cart?item=7 HTTP/1.1 body=10 complete\n"), "{output}");
    assert!(
        output.contains("    User-Agent: curl/")
            && output.contains("    X-Odd: ")
            && !output.contains('\u{9b}'),
        "{output}"
    );
}
