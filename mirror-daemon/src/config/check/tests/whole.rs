//! Whole configurations: the printed ones, every key, and text that is none.

use super::*;

/// As printed in DESIGN.md.
const PRINTED: &str = r#"
[capture]
interfaces = ["eth0"]          # or capture.kubernetes = { namespace = "gloo-system", selector = "..." }
leg   = "downstream"           # connections the gateway accepts; "upstream": those it opens
ports = [8080]

[[shadow]]
name = "httpbin"
url  = "http://httpbin.shadow.svc.cluster.local:8000"
max_in_flight = 256
timeout = "15s"

[[route]]
hosts = ["shadowing.example"]
  [[route.rule]]
  match  = [{ path = { prefix = "/" }, methods = ["GET"] }]
  mirror = [{ shadow = "httpbin", percentage = 100 }]
"#;

#[test]
fn configuration_printed_in_the_design_works_as_printed() {
    let config = read(PRINTED);
    let point = CapturePoint::Interface { name: "eth0".into(), netns: None, host_side: false };
    assert_eq!(config.capture.points, [point]);
    assert_eq!((config.capture.leg, config.capture.ports.as_slice()), (Leg::Downstream, &[8080][..]));
    let shadow = &config.shadows[0];
    assert_eq!((shadow.max_in_flight, shadow.timeout), (256, Duration::from_secs(15)));
    assert_eq!(shadow.rewrite.host, HostRewrite::Suffix("-shadow".into()));
    let Decision::Matched { rule, mirrors } = decide(&config, "GET", "shadowing.example:80", 0) else {
        panic!("unmatched")
    };
    assert_eq!(rule, "route[0].rule[0]");
    assert!(mirrors.iter().all(|verdict| verdict.picked && verdict.shadow == ShadowId(0)));
    assert_eq!(decide(&config, "POST", "shadowing.example", 0), Decision::Unmatched);
    assert_eq!(decide(&config, "GET", "other.example", 0), Decision::Unmatched);
}

#[test]
fn empty_configuration_is_right_and_has_the_documented_defaults() {
    let config = read("");
    assert!(config.capture.points.is_empty() && config.shadows.is_empty());
    assert_eq!(config.admin.listen, Some("127.0.0.1:9900".parse().unwrap()));
    assert_eq!((config.loop_mark.as_str(), config.trusted_proxies), ("x-mirrored-by", 0));
    assert_eq!(decide(&config, "GET", "h", 0), Decision::Unmatched);
}

#[test]
fn defaults_leave_room_within_64_mib() {
    let config = read(&with_shadow(""));
    let shadow = &config.shadows[0];
    let flows = u64::try_from(config.capture.limits.max_total_bytes).unwrap();
    let bounded =
        u64::from(config.capture.ring_bytes) + flows * u64::from(config.capture.shards) + shadow.queue_bytes;
    assert!(bounded <= 48 * 1024 * 1024, "{bounded} bytes of bounded buffers");
    assert!(shadow.buffer_body_bytes <= shadow.queue_bytes);
}

#[test]
fn every_key_is_read() {
    let config = read(EVERY_KEY);
    let capture = &config.capture;
    let interface = |name: &str, netns: &str, host_side| CapturePoint::Interface {
        name: name.into(),
        netns: Some(netns.into()),
        host_side,
    };
    let cgroup = CapturePoint::Cgroup { path: "/sys/fs/cgroup/gw".into() };
    assert_eq!(
        capture.points,
        [interface("eth0", "/run/netns/gw", false), interface("veth1", "/proc/1/ns/net", true), cgroup]
    );
    assert_eq!((capture.leg, capture.tc_mode), (Leg::Upstream, TcMode::Clsact));
    assert_eq!(capture.gateway_cgroups, [std::path::PathBuf::from("/sys/fs/cgroup/gw")]);
    assert_eq!((capture.ring_bytes, capture.shards, capture.answer_snap_bytes), (8 << 20, 2, 128));
    assert_eq!((capture.tick, capture.proxy_protocol), (Duration::from_millis(1), true));
    assert_eq!(capture.exclude, ["10.0.0.7:18000".parse().unwrap()]);
    let limits = FlowLimits {
        max_flows: 100,
        max_reorder_bytes: 65_536,
        max_total_bytes: 1 << 20,
        hole_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(60),
        ..FlowLimits::default()
    };
    assert_eq!(capture.limits, limits);
    assert_eq!((config.loop_mark.as_str(), config.trusted_proxies), ("x-copy", 2));
    assert_eq!((config.admin.listen, config.drain_timeout), (None, Duration::from_secs(3)));
    assert_eq!(config.nice, 3);
    check_every_shadow_key(&config.shadows[0]);
    assert!(matches!(decide(&config, "GET", "x.example", 0), Decision::Unmatched));
}

fn check_every_shadow_key(shadow: &ShadowConfig) {
    assert_eq!(
        shadow.endpoint,
        Endpoint { host: EndpointHost::Ip("2001:db8::1".parse().unwrap()), port: 8443 }
    );
    assert_eq!((shadow.max_in_flight, shadow.max_connections, shadow.queue_items), (1, 2, 3));
    assert_eq!(
        (shadow.queue_bytes, shadow.buffer_body_bytes, shadow.stream_window_bytes),
        (4096, 1024, 65_536)
    );
    let times = (shadow.connect_timeout, shadow.timeout, shadow.idle_timeout);
    assert_eq!(times, (Duration::from_millis(1), Duration::from_secs(1), Duration::from_secs(2)));
    assert_eq!((shadow.max_rps, shadow.protocol), (Some(0.5), ShadowProtocol::Http2));
    assert_eq!(shadow.breaker, BreakerConfig { failures: 7, open_for: Duration::from_secs(9) });
    let tls = TlsConfig {
        ca_file: Some("/ca.pem".into()),
        server_name: Some("v2.example".into()),
        insecure_skip_verify: true,
    };
    assert_eq!(shadow.tls, Some(tls));
    let owned = |text: &str| text.to_owned();
    let rewrite = RewriteConfig {
        host: HostRewrite::Literal(owned("x.example:8443")),
        own_authority: owned("[2001:db8::1]:8443"),
        own_scheme: "https",
        edits: vec![
            HeaderEdit::Set { name: owned("X-A"), value: owned("1") },
            HeaderEdit::Append { name: owned("X-B"), value: String::new() },
            HeaderEdit::Remove { name: owned("X-C") },
        ],
        redact: Redaction {
            headers: vec![owned("authorization")],
            cookies: vec![owned("sid")],
            query: vec![owned("token")],
        },
    };
    assert_eq!(shadow.rewrite, rewrite);
}

const EVERY_KEY: &str = r#"
loop_mark = "x-copy"
trusted_proxies = 2
drain_timeout = "3s"
nice = 3
seed = "s"
request_id = "x-id"
[admin]
listen = "off"
[capture]
interfaces = ["eth0", { name = "veth1", netns = "/proc/1/ns/net", side = "host" }]
cgroups = ["/sys/fs/cgroup/gw"]
netns = "gw"
leg = "upstream"
ports = [1, 65535]
attach = "clsact"
gateway_cgroups = ["/sys/fs/cgroup/gw"]
ring_bytes = 8_388_608
shards = 2
answer_snap = 128
tick = "1ms"
proxy_protocol = true
exclude = ["10.0.0.7:18000"]
limits = { max_flows = 100, max_reorder_bytes = "64KiB", max_total_bytes = "1MiB", hole_timeout = "1s", idle_timeout = "1m" }
[[shadow]]
name = "v2"
url = "https://[2001:db8::1]:8443/"
protocol = "http2"
max_in_flight = 1
max_connections = 2
queue_items = 3
queue_bytes = "4KiB"
buffer_body = "1 KiB"
stream_window = 65536
connect_timeout = "1ms"
timeout = "1s"
idle_timeout = "2s"
max_rps = 0.5
breaker = { failures = 7, open_for = "9s" }
tls = { ca_file = "/ca.pem", server_name = "v2.example", insecure_skip_verify = true }
host = { literal = "x.example:8443" }
headers = [
  { set = { name = "X-A", value = "1" } },
  { append = { name = "X-B", value = "" } },
  { remove = "X-C" },
]
redact = { headers = ["Authorization"], cookies = ["sid"], query = ["token"] }
[[route]]
hosts = ["*.example"]
methods = ["GET"]
  [[route.rule]]
  match = [
    { path = { exact = "/a" }, headers = [{ name = "x", exact = "" }], query = [{ name = "q", regex = "[0-9]" }] },
    { path = { regex = "/b.*" } },
  ]
  methods = "safe"
  mirror = [
    { shadow = "v2", percentage = 0.39, key = "header:x-user" },
    { shadow = "v2", fraction = "1/3", key = "cookie:u", salt = "other" },
    { shadow = "v2", fraction = { numerator = 1 }, key = "query:u" },
    { shadow = "v2", percentage = 1e1, key = "client_ip" },
    { shadow = "v2", key = "request" },
  ]
"#;

#[test]
fn example_in_deploy_and_the_one_in_the_readme_are_right() {
    let example = read(include_str!("../../../../../deploy/mirror.toml"));
    assert_eq!((example.shadows.len(), example.rules.rule_count()), (1, 1));
    let readme = include_str!("../../../../../README.md");
    let toml = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(read(toml.expect("a TOML block")).rules.rule_count(), 1);
}

#[test]
fn all_faults_are_reported_at_once_with_path_and_line() {
    let text = include_str!("../../../../tests/golden/config_faults.toml");
    let expected = include_str!("../../../../tests/golden/config_faults.txt");
    let found = Config::from_toml(text, "mirror.toml").expect_err("faults").to_string();
    assert_eq!(format!("{found}\n"), expected, "the faults are now:\n{found}");
}

#[test]
fn text_that_is_no_toml_is_reported_with_its_lines() {
    let found = faults("[capture]\nports = [80\n[[shadow]]\nname = \n");
    assert!(found.starts_with("m:2: not TOML: ") || found.starts_with("m:3: not TOML: "), "{found}");
    assert!(faults("seed = 'a'\nseed = 'b'\n").contains("m:2: not TOML: duplicate key"));
}

#[test]
fn unknown_key_is_answered_with_the_nearest_known_one() {
    assert_eq!(
        faults("[capture]\nring_byte = 1\n"),
        "m:2: capture.ring_byte: unknown key; did you mean `ring_bytes`?"
    );
    let found = faults("[admin]\nzzz = 1\n");
    assert_eq!(found, "m:2: admin.zzz: unknown key; there are: listen");
    assert_eq!(faults("\"a b\" = 1\n").split(": unknown").next(), Some("m:1: \"a b\""));
}

/// Words that bring arbitrary documents near to real ones.
fn toml_soup() -> impl Strategy<Value = String> {
    let words = "\\[capture\\]|\\[\\[shadow\\]\\]|\\[\\[route\\]\\]|\\[\\[route.rule\\]\\]|interfaces|ports|name|url|match|mirror|\
                 shadow|percentage|fraction|hosts|headers|redact|limits|ring_bytes|=|=|=|\\[|\\]|\\{|\\}|,|\n|\n|\n|\"a\"|'http://a'|\
                 -1|0|1e999|nan|0x7f|99999999999999999999|true|1979-05-27|\"\"|\"16MiB\"|\"1s\"|é| ";
    let words: Vec<String> =
        words.split('|').map(|word| word.trim_start_matches(' ').replace('\\', "")).collect();
    proptest::collection::vec(proptest::sample::select(words), 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        let _ = Config::from_toml(&text, "m").map_err(|faults| faults.to_string());
    }

    #[test]
    fn nearly_right_text_never_panics(text in toml_soup()) {
        let _ = Config::from_toml(&text, "m").map_err(|faults| faults.to_string());
    }

    /// Any value in place of any value of a right configuration.
    #[test]
    fn misplaced_values_never_panic(line in 0..60_usize, value in toml_soup()) {
        let mut lines: Vec<String> = EVERY_KEY.lines().map(str::to_owned).collect();
        if let Some(line) = lines.get_mut(line)
            && let Some((key, _)) = line.clone().split_once('=')
        {
            *line = format!("{key}= {}", value.replace('\n', " "));
        }
        let _ = Config::from_toml(&lines.join("\n"), "m").map_err(|faults| faults.to_string());
    }
}

#[test]
fn deep_nesting_is_a_fault() {
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(Config::from_toml(&deep, "m").is_err());
}
