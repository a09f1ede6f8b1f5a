//! The real binary behind capture files: what `tap` prints, and what `run` sends to a shadow.

use crate::http2::{call, data, message, preface};
use crate::world::{joined, opened};
use mirror_tests::daemon::binary;
use mirror_tests::netns::Netns;
use mirror_tests::pcap::{ACK, Conversation, PcapWriter, RST};
use mirror_tests::process::Launch;
use mirror_tests::server::{LogMode, TestApp};
use mirror_tests::wire::body_hash;
use std::path::{Path, PathBuf};
use std::time::Duration;

type Pcap = PcapWriter<Vec<u8>>;

/// Writes the packets of one case.
type Write = fn(&mut Pcap);

const GET: &[u8] = b"GET /a?b=c HTTP/1.1\r\nHost: shadowing.example\r\nX-Odd:  kept \r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The capture files in `tests/golden`, each with the listing that `tap --json` makes of it.
const GOLDEN: [(&str, Write); 6] = [
    ("keep_alive", keep_alive),
    ("pipelined_and_chunked", pipelined_and_chunked),
    ("joined_in_upload", joined_in_upload),
    ("hole_in_body", hole_in_body),
    ("refused", refused),
    ("grpc_calls", grpc_calls),
];

fn keep_alive(pcap: &mut Pcap) {
    let mut talk = opened(pcap);
    for request in [
        GET,
        b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"POST http://abs.example/x HTTP/1.1\r\nHost: y\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        talk.request(pcap, request).unwrap();
        pcap.advance_ms(7);
        talk.answer(pcap, OK).unwrap();
    }
    talk.close(pcap).unwrap();
    let mut v6 = Conversation::new("[fd77::1]:40001".parse().unwrap(), "[fd77::2]:8080".parse().unwrap());
    v6.open(pcap).unwrap();
    v6.request(pcap, b"OPTIONS * HTTP/1.1\r\nHost: [fd77::2]:8080\r\n\r\n").unwrap();
    v6.answer(pcap, OK).unwrap();
    v6.close(pcap).unwrap();
}

fn pipelined_and_chunked(pcap: &mut Pcap) {
    let mut talk = opened(pcap);
    let chunked = b"PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n";
    for segment in [GET, &chunked[..], GET].concat().chunks(50) {
        talk.request(pcap, segment).unwrap();
    }
    talk.answer(pcap, &OK.repeat(3)).unwrap();
}

fn joined_in_upload(pcap: &mut Pcap) {
    let mut talk = joined();
    for _ in 0..3 {
        talk.request(pcap, b"GET /embedded HTTP/1.1\r\nHost: shadowing.example\r\n\r\n").unwrap();
    }
    talk.answer(pcap, OK).unwrap();
    for _ in 0..3 {
        talk.request(pcap, GET).unwrap();
        talk.answer(pcap, OK).unwrap();
    }
    talk.close(pcap).unwrap();
}

fn hole_in_body(pcap: &mut Pcap) {
    let mut talk = opened(pcap);
    talk.request(pcap, b"POST /hole HTTP/1.1\r\nHost: h\r\nContent-Length: 3000\r\n\r\n").unwrap();
    talk.skip_request(1000);
    talk.request(pcap, &[b'x'; 2000]).unwrap();
    talk.answer(pcap, OK).unwrap();
    talk.request(pcap, GET).unwrap();
    talk.answer(pcap, OK).unwrap();
    talk.request(pcap, b"GET /cut HTTP/1.1\r\nHos").unwrap();
    talk.close(pcap).unwrap();
}

fn refused(pcap: &mut Pcap) {
    let smuggled =
        b"POST /s HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let upgrade = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let requests: [(&[u8], &[u8]); 3] = [
        (smuggled, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        (upgrade, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x16\x03\x03"),
    ];
    for (port, (request, answer)) in (40_000..).zip(requests) {
        let server = "10.77.0.2:8080".parse().unwrap();
        let mut talk = Conversation::new(([10, 77, 0, 1], port).into(), server);
        talk.open(pcap).unwrap();
        talk.request(pcap, request).unwrap();
        talk.answer(pcap, answer).unwrap();
    }
    pcap.packet(
        ("10.77.0.1:40000".parse().unwrap(), "10.77.0.2:8080".parse().unwrap()),
        (0, 0),
        RST | ACK,
        &[],
    )
    .unwrap();
}

/// Two calls at once, one of them cut off within a message, and one whose body is no gRPC.
fn grpc_calls(pcap: &mut Pcap) {
    let mut talk = opened(pcap);
    let body = [message(0, b"abc"), message(1, &[b'x'; 300]), message(0, b"")].concat();
    let bytes = [
        preface(),
        call(1, "/shop.Cart/Add"),
        call(3, "/shop.Cart/Watch"),
        data(1, &body[..100], false),
        data(3, &message(0, b"half")[..7], false),
        data(1, &body[100..], true),
        call(5, "/shop.Cart/Add"),
        data(5, b"{}", true),
    ];
    for segment in bytes.concat().chunks(90) {
        talk.request(pcap, segment).unwrap();
    }
    talk.close(pcap).unwrap();
}

fn golden(name: &str, extension: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.{extension}"))
}

fn capture(write: impl FnOnce(&mut Pcap)) -> Vec<u8> {
    let mut pcap = PcapWriter::new(Vec::new()).unwrap();
    write(&mut pcap);
    pcap.into_inner()
}

#[test]
fn tap_lists_the_golden_captures_as_before() {
    let is_update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for (name, write) in GOLDEN {
        let (pcap, json) = (golden(name, "pcap"), golden(name, "json"));
        if is_update {
            std::fs::create_dir_all(pcap.parent().unwrap()).unwrap();
            std::fs::write(&pcap, capture(write)).unwrap();
        }
        let launch =
            Launch::new(binary().unwrap()).args(["tap", "--ports", "8080", "--json", "--headers", "--pcap"]);
        let listed = launch.arg(&pcap).run().unwrap();
        if is_update {
            std::fs::write(&json, &listed).unwrap();
        }
        assert_eq!(
            listed,
            std::fs::read_to_string(&json).unwrap(),
            "{name}: UPDATE_GOLDEN=1 writes it again"
        );
    }
}

#[test]
fn run_sends_a_capture_file_to_a_live_shadow() {
    let shadow = TestApp::start(&Netns::own(), "127.0.0.1:0".parse().unwrap(), LogMode::Full).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (file, config) = (dir.path().join("traffic.pcap"), dir.path().join("mirror.toml"));
    let body: Vec<u8> = (0..300_000_u32).map(|at| (at * 7) as u8).collect();
    let traffic = |pcap: &mut Pcap| {
        let mut talk = opened(pcap);
        for number in 0..20 {
            let head = format!(
                "POST /p?id={number} HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            talk.request(pcap, head.as_bytes()).unwrap();
            body.chunks(50_000).for_each(|piece| talk.request(pcap, piece).unwrap());
            talk.answer(pcap, OK).unwrap();
            talk.request(pcap, GET).unwrap();
            talk.answer(pcap, OK).unwrap();
        }
        talk.close(pcap).unwrap();
    };
    std::fs::write(&file, capture(traffic)).unwrap();
    let toml = format!(
        "[capture]\ninterfaces = [\"unused\"]\nports = [8080]\n[[shadow]]\nname = \"new\"\nurl = \"http://{}\"\n\
         [[route]]\nhosts = [\"shadowing.example\"]\n[[route.rule]]\nmirror = [{{ shadow = \"new\" }}]\n",
        shadow.address()
    );
    std::fs::write(&config, toml).unwrap();
    let launch =
        Launch::new(binary().unwrap()).args(["run", "--pcap"]).arg(&file).arg("--config").arg(&config);
    let ledger = launch.run().unwrap();
    let arrived = shadow
        .wait_for_requests(40, Duration::from_secs(60))
        .unwrap_or_else(|few| panic!("{few:#}\n{ledger}"));
    let uploads: Vec<_> = arrived.iter().filter(|request| request.method() == "POST").collect();
    assert_eq!((arrived.len(), uploads.len()), (40, 20));
    assert!(uploads.iter().all(|upload| upload.body_hash == body_hash(&body)));
    assert!(arrived.iter().all(|request| request.host().as_deref() == Some("shadowing.example-shadow")));
    let ledger: serde_json::Value = serde_json::from_str(&ledger).unwrap();
    assert!(ledger.to_string().contains("\"replayed\":40"), "{ledger}");
}

/// What `tap` writes about a capture: its listing, and what it says beside.
fn tap_of(write: Write) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("traffic.pcap");
    std::fs::write(&file, capture(write)).unwrap();
    let mut tap = std::process::Command::new(binary().unwrap());
    let done = tap.args(["tap", "--ports", "8080", "--json", "--pcap"]).arg(&file).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(done.stdout), text(done.stderr))
}

#[test]
fn tap_lists_a_request_whose_proof_stays_away_before_its_connection_ends() {
    let (listed, _) = tap_of(|pcap| {
        let mut waiting = opened(pcap);
        waiting.request(pcap, b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n").unwrap();
        pcap.advance_ms(61_000);
        let mut other =
            Conversation::new("10.77.0.1:40001".parse().unwrap(), "10.77.0.2:8080".parse().unwrap());
        other.open(pcap).unwrap();
        for _ in 0..2 {
            other.request(pcap, GET).unwrap();
            other.answer(pcap, OK).unwrap();
        }
    });
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(
        lines[0].contains("\"path\":\"/ws\"") && lines[0].contains("\"outcome\":\"dropped\""),
        "{listed}"
    );
}

#[test]
fn tap_says_how_many_requests_it_had_no_room_for() {
    let (listed, said) = tap_of(|pcap| {
        let talks: Vec<_> = (0..17)
            .map(|number| {
                let client = format!("10.77.0.1:{}", 40_000 + number).parse().unwrap();
                let mut talk = Conversation::new(client, "10.77.0.2:8080".parse().unwrap());
                talk.open(pcap).unwrap();
                talk.request(pcap, &preface()).unwrap();
                let calls: Vec<Vec<u8>> = (0..1000).map(|number| call(2 * number + 1, "/a.B/C")).collect();
                calls.chunks(100).for_each(|some| talk.request(pcap, &some.concat()).unwrap());
                talk
            })
            .collect();
        for mut talk in talks {
            let ends: Vec<u8> = (0..1000).flat_map(|number| data(2 * number + 1, b"", true)).collect();
            talk.request(pcap, &ends).unwrap();
        }
    });
    // 17,000 under way, and room for 16,384.
    assert_eq!(listed.lines().count(), 16_384);
    assert!(said.contains("616 more requests are not shown"), "{said}");
}

#[test]
fn import_prints_the_rules_there_are_and_fails_where_a_file_is_no_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/k8sgateway-shadowing.yaml");
    std::fs::copy(guide, dir.path().join("guide.yaml")).unwrap();
    let import = || {
        let done =
            std::process::Command::new(binary().unwrap()).arg("import").arg(dir.path()).output().unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, whole, said) = import();
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(whole.contains("[[route.rule]]"), "{whole}");
    std::fs::write(dir.path().join("half.yaml"), "a: [").unwrap();
    let (code, rest, said) = import();
    assert_eq!((code, rest), (Some(2), whole));
    assert!(said.contains("half.yaml: InvalidManifest: "), "{said}");
}
