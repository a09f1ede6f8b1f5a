#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

use crate::config::*;
use crate::flow::FlowKey;
use crate::http::{BodyLength, Field, RequestHead, RequestNumber, Version};
use crate::rule::{Decision, GatewaySet, Sender};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

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

fn read(text: &str) -> Config {
    Config::from_toml(text, "mirror.toml").unwrap_or_else(|faults| panic!("{faults}"))
}

fn faults(text: &str) -> String {
    Config::from_toml(text, "m").expect_err("a fault").to_string()
}

fn with_shadow(keys: &str) -> String {
    format!("[[shadow]]\nname = \"a\"\nurl = \"http://a\"\n{keys}")
}

fn with_mirror(mirror: &str) -> String {
    with_shadow(&format!("[[route]]\n[[route.rule]]\nmirror = [{{ shadow = \"a\", {mirror} }}]\n"))
}

fn decide<'r>(config: &'r Config, method: &str, host: &str, number: u64) -> Decision<'r> {
    let fields = [Field { name: "Host", value: host.as_bytes(), line: b"" }];
    let body = BodyLength::None;
    let head = RequestHead { method, target: "/x?a", version: Version::Http11, fields: &fields, body };
    let client_ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    config.rules.decide(
        &head,
        &Sender {
            client_ip,
            flow: FlowKey::default(),
            number: RequestNumber(number),
            gateways: GatewaySet::ALL,
        },
    )
}

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
    let example = read(include_str!("../../../../deploy/mirror.toml"));
    assert_eq!((example.shadows.len(), example.rules.rule_count()), (1, 1));
    let readme = include_str!("../../../../README.md");
    let toml = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(read(toml.expect("a TOML block")).rules.rule_count(), 1);
}

#[test]
fn all_faults_are_reported_at_once_with_path_and_line() {
    let text = include_str!("../../../tests/golden/config_faults.toml");
    let expected = include_str!("../../../tests/golden/config_faults.txt");
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

#[test]
fn ports_are_required_where_something_is_captured() {
    assert!(faults("[capture]\ninterfaces = ['eth0']\n").contains("capture.ports: is missing"));
    assert!(faults("[capture]\nports = []\n").contains("capture.ports: has 0 ports"));
    assert_eq!(read("[capture]\nports = [80]\n").capture.ports, [80]);
}

#[test]
fn one_place_under_two_names_is_refused() {
    let with = |places: &str| format!("[capture]\nports = [80]\n{places}\n");
    for places in [
        "interfaces = [\"eth0\", { name = \"eth0\", side = \"host\" }]",
        "interfaces = [{ name = \"eth0\", netns = \"gw\" }, { name = \"eth0\", netns = \"/var/run/netns/gw\" }]",
        "netns = \"/run//netns/./gw/\"\ninterfaces = [\"eth0\", { name = \"eth0\", netns = \"gw\" }]",
        "cgroups = [\"/sys/fs/cgroup/pod\", \"/sys/fs//cgroup/pod/\"]",
    ] {
        let found = faults(&with(places));
        assert!(found.contains("listed twice") && found.lines().count() == 1, "{places}: {found}");
    }
    for places in [
        "cgroups = [\"/sys/fs/cgroup/pod\", \"/sys/fs/cgroup/pod/container\"]",
        "cgroups = [\"/sys/fs/cgroup/pod/container\", \"/sys/fs/cgroup/pod\"]",
    ] {
        let found = faults(&with(places));
        assert!(found.contains("is nested with /sys/fs/cgroup/pod"), "{places}: {found}");
    }
    let apart = "interfaces = [\"eth0\", \"lo\", { name = \"eth0\", netns = \"gw\" }]\n\
        cgroups = [\"/sys/fs/cgroup/pod\", \"/sys/fs/cgroup/pod2\"]";
    assert_eq!(read(&with(apart)).capture.points.len(), 5);
}

#[test]
fn ring_bytes_is_a_power_of_two_for_each_shard() {
    let ask = |bytes: &str, shards: u32| {
        Config::from_toml(&format!("[capture]\nring_bytes = '{bytes}'\nshards = {shards}"), "m")
    };
    assert!(ask("12MiB", 1).unwrap_err().to_string().contains("the nearest are \"8MiB\" and \"16MiB\""));
    assert_eq!(ask("12MiB", 3).unwrap().capture.ring_bytes, 12 << 20);
    assert!(ask("16MiB", 3).unwrap_err().to_string().contains("for each of 3 shards"));
    assert!(ask("63KiB", 1).unwrap_err().to_string().contains("allowed is 64KiB to 1GiB"));
}

#[test]
fn percentage_is_read_exactly_and_its_bounds_hold() {
    for right in [
        "percentage = 0",
        "percentage = 100",
        "percentage = 100.0",
        "percentage = 0.0001",
        "fraction = '0/1'",
    ] {
        let _ = read(&with_mirror(right));
    }
    for wrong in [
        "percentage = 100.0001",
        "percentage = -0.01",
        "percentage = inf",
        "percentage = 101",
        "fraction = '2/1'",
    ] {
        assert!(faults(&with_mirror(wrong)).contains("out of range"), "{wrong}");
    }
    let config = read(&with_mirror("percentage = 0"));
    let Decision::Matched { mirrors, .. } = decide(&config, "GET", "h", 1) else { panic!("unmatched") };
    assert!(mirrors.iter().all(|verdict| !verdict.picked));
}

#[test]
fn missing_percentage_is_all() {
    let config = read(&with_mirror(""));
    let Decision::Matched { mirrors, .. } = decide(&config, "GET", "h", 1) else { panic!("unmatched") };
    assert!(mirrors.iter().all(|verdict| verdict.picked));
}

#[test]
fn rule_without_methods_has_the_guard_of_its_route() {
    let rules = "[[route.rule]]\nmirror = [{ shadow = 'a' }]\nmatch = [{ path = { exact = '/y' } }]\n\
                 [[route.rule]]\nmirror = [{ shadow = 'a' }]";
    let config = read(&with_shadow(&format!("[[route]]\nmethods = 'safe'\n{rules}")));
    assert_eq!(decide(&config, "POST", "h", 0), Decision::Unmatched);
    let own = read(&with_shadow(&format!("[[route]]\nmethods = 'safe'\n{rules}\nmethods = 'any'")));
    assert!(matches!(decide(&own, "POST", "h", 0), Decision::Matched { .. }));
}

#[test]
fn shadow_urls_are_host_and_port_alone() {
    let url = |url: &str| Config::from_toml(&format!("[[shadow]]\nname='a'\nurl='{url}'"), "m");
    let endpoint = |text: &str| {
        let config = url(text).unwrap();
        let shadow = &config.shadows[0];
        (shadow.endpoint.port, shadow.rewrite.own_authority.clone(), shadow.tls.is_some())
    };
    assert_eq!(endpoint("http://a.b"), (80, "a.b".into(), false));
    assert_eq!(endpoint("HTTPS://a:443/"), (443, "a".into(), true));
    assert_eq!(endpoint("http://[::1]:81"), (81, "[::1]:81".into(), false));
    for bad in [
        "a:80",
        "http://",
        "http://a/b",
        "http://a?b",
        "http://u@a",
        "http://a:0",
        "http://a:99999",
        "http://::1",
        "http://a b",
    ] {
        assert!(url(bad).is_err(), "{bad}");
    }
}

#[test]
fn cluster_configuration_is_recognised_and_refused_in_plain_words() {
    let found = faults("[kubernetes]\ngateway_api = true\n");
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 1, "{found}");
    assert!(lines.iter().all(|line| line.contains("not in this build yet")), "{found}");
}

#[test]
fn pods_are_chosen_by_one_entry_or_several() {
    let pods = |kubernetes: &str| read(&format!("[capture]\nports = [80]\nkubernetes = {kubernetes}")).pods;
    let one = pods("{ namespace = 'gloo-system', selector = 'app=gateway' }");
    let [gateway] = one.selections.as_slice() else { panic!("{one:?}") };
    assert_eq!((gateway.namespace.as_str(), &gateway.attach), ("gloo-system", &PodAttach::Cgroup));
    assert_eq!(gateway.selector.to_string(), "app in (gateway)");
    assert_eq!(one.silent_after, Some(DEFAULT_SILENT_AFTER));
    let two = pods(
        "[{ attach = 'interface' }, { namespace = 'a', selector = 'b', attach = 'interface', interface = 'net1' }]",
    );
    assert_eq!(two.gateway_attach, PodAttach::Interface("eth0".to_owned()));
    assert_eq!(two.selections.len(), 1);
    assert_eq!(two.selections[0].attach, PodAttach::Interface("net1".to_owned()));
    assert_eq!(pods("{}"), PodsConfig::default());
    let off = read("[capture]\npod_silent_after = 'off'");
    assert_eq!(off.pods.silent_after, None);
}

#[test]
fn faults_of_pod_selections_are_all_told() {
    let found = faults(
        "[capture]\nkubernetes = [{ namespace = 'A', selector = '' }, { selector = 'a', interface = 'eth1' }]\n",
    );
    for part in [
        "kubernetes[0].namespace: \"A\" is no namespace",
        "kubernetes[0].selector: is empty",
        "kubernetes[1].namespace: is missing",
        "kubernetes[1].interface: means nothing with attach = \"cgroup\"",
        "capture.ports: is missing",
    ] {
        assert!(found.contains(part), "{part} in {found}");
    }
}

#[test]
fn loop_mark_can_not_be_edited_or_hidden() {
    for keys in ["headers = [{ remove = 'X-Mirrored-By' }]", "redact = { headers = ['x-mirrored-by'] }"] {
        assert!(faults(&with_shadow(keys)).contains("is the loop mark"), "{keys}");
    }
}

#[test]
fn protocol_is_one_of_three_words() {
    let of = |keys: &str| read(&with_shadow(keys)).shadows[0].protocol;
    assert_eq!(of(""), ShadowProtocol::Same, "the default");
    for (word, protocol) in
        [("same", ShadowProtocol::Same), ("http1", ShadowProtocol::Http1), ("http2", ShadowProtocol::Http2)]
    {
        assert_eq!(of(&format!("protocol = '{word}'")), protocol);
    }
    let allowed = "allowed are \"same\", \"http1\" and \"http2\"";
    assert_eq!(
        faults(&with_shadow("protocol = \"h2c\"")),
        format!("m:4: shadow[0].protocol: \"h2c\" is no protocol; {allowed}")
    );
    assert_eq!(
        faults(&with_shadow("protocol = 2")),
        format!("m:4: shadow[0].protocol: 2 is no protocol; {allowed}")
    );
    assert!(faults(&with_shadow("protocols = \"same\"")).contains("did you mean `protocol`?"));
}

#[test]
fn pseudo_headers_and_headers_of_a_connection_can_not_be_edited_or_hidden() {
    for (name, word) in [
        (":authority", "is a pseudo-header field of HTTP/2"),
        (":path", "is a pseudo-header field of HTTP/2"),
        ("Host", "set the shadow's `host` instead"),
        ("HTTP2-Settings", "it describes the connection"),
        ("te", "it describes the connection"),
    ] {
        for keys in [
            format!("headers = [{{ set = {{ name = '{name}', value = 'x' }} }}]"),
            format!("headers = [{{ remove = '{name}' }}]"),
            format!("redact = {{ headers = ['{name}'] }}"),
        ] {
            let found = faults(&with_shadow(&keys));
            assert!(found.starts_with("m:4: shadow[0].") && found.contains(word), "{keys}: {found}");
        }
    }
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

#[test]
fn kubernetes_settings_are_read_and_have_defaults() {
    let config = Config::from_toml("", "t").unwrap();
    assert_eq!(config.kubernetes, KubernetesConfig::default());
    let text = "[kubernetes]\nroute_selector = \"a=b\"\nalready_mirrored = \"take\"\nrequest_mirror_host = \"keep\"\n\
                cluster_domain = \"corp.example\"\n[[kubernetes.gateway]]\nname = \"http\"\nnamespace = \"gloo-system\"\n\
                pods = { selector = { matchLabels = { app = \"gw\" } }, namespace = \"pods\" }\n\
                [[kubernetes.gateway]]\nname = \"x\"\nnamespace = \"ns\"\npods = { selector = \"app\" }\n";
    let kubernetes = Config::from_toml(text, "t").unwrap_or_else(|faults| panic!("{faults}")).kubernetes;
    assert_eq!(kubernetes.already_mirrored, AlreadyMirrored::Take);
    assert_eq!(kubernetes.request_mirror_host, RequestMirrorHost::Keep);
    assert_eq!(kubernetes.cluster_domain, "corp.example");
    let [first, second] = kubernetes.gateways.as_slice() else { panic!("{:?}", kubernetes.gateways) };
    assert_eq!((first.gateway.as_str(), first.pod_namespace.as_str()), ("gloo-system/http", "pods"));
    assert_eq!(first.pod_selector.to_string(), "app in (gw)");
    assert_eq!((second.gateway.as_str(), second.pod_namespace.as_str()), ("ns/x", "ns"));
}

#[test]
fn faults_of_kubernetes_settings_name_their_keys() {
    for (text, expected) in [
        (
            "gateway_api = true",
            "t:2: kubernetes.gateway_api: reading routes from the API server is not in this build yet",
        ),
        ("route_selector = \"a in b\"", "t:2: kubernetes.route_selector: is no label selector"),
        (
            "route_selector = { matchLabel = {} }",
            "t:2: kubernetes.route_selector.matchLabel: unknown key; did you mean `matchLabels`?",
        ),
        (
            "route_selector = { matchLabels = { a = 1 } }",
            "t:2: kubernetes.route_selector.matchLabels.a: is 1; write",
        ),
        (
            "route_selector = { matchExpressions = [{ key = \"a\", operator = \"Like\" }] }",
            "t:2: kubernetes.route_selector.matchExpressions[0].operator: is \"Like\"",
        ),
        (
            "already_mirrored = \"maybe\"",
            "t:2: kubernetes.already_mirrored: is \"maybe\"; write \"refuse\" or \"take\"",
        ),
        (
            "request_mirror_host = \"x\"",
            "t:2: kubernetes.request_mirror_host: is \"x\"; write \"suffix\" or \"keep\"",
        ),
        ("cluster_domain = \".local\"", "t:2: kubernetes.cluster_domain: \".local\" is no domain"),
        (
            "route_selektor = \"a\"",
            "t:2: kubernetes.route_selektor: unknown key; did you mean `route_selector`?",
        ),
        ("[[kubernetes.gateway]]\nname = \"x\"", "t:2: kubernetes.gateway[0].namespace: is missing"),
        (
            "[[kubernetes.gateway]]\nname = \"x\"\nnamespace = \"ns\"\npods = { selector = \"\" }",
            "t:5: kubernetes.gateway[0].pods.selector: is empty, and would select every pod",
        ),
    ] {
        let faults = Config::from_toml(&format!("[kubernetes]\n{text}\n"), "t").unwrap_err().to_string();
        assert!(faults.contains(expected), "{text}\n{faults}");
    }
}

#[test]
fn routes_are_tied_to_gateways_that_some_point_carries() {
    let text = |gateways: &str| {
        format!(
            "[capture]\nports = [80]\ninterfaces = [{{ name = \"eth0\", gateways = [\"ns/a\"] }}, \"eth1\"]\n\
             cgroups = [{{ path = \"/c\", gateways = [\"ns/a\", \"ns/b\"] }}]\n\
             [[shadow]]\nname = \"s\"\nurl = \"http://s\"\n[[route]]\ngateways = {gateways}\n\
             [[route.rule]]\nname = \"shop/cart\"\nmirror = [{{ shadow = \"s\" }}]\n"
        )
    };
    let config = Config::from_toml(&text("[\"ns/b\"]"), "t").unwrap_or_else(|faults| panic!("{faults}"));
    let carried: Vec<_> =
        config.capture.points.iter().map(|point| config.capture.gateways_at(point).len()).collect();
    assert_eq!(carried, [1, 0, 2]);
    for (gateways, expected) in [
        ("[\"ns/c\"]", "route[0].gateways: \"ns/c\" is neither among a capture point's `gateways` nor"),
        ("[\"a\"]", "route[0].gateways[0]: \"a\" is no gateway; write \"namespace/name\""),
        ("[]", "route[0].gateways: is empty; leave it out"),
        ("\"ns/a\"", "route[0].gateways: is \"ns/a\"; write a list"),
    ] {
        let faults = Config::from_toml(&text(gateways), "t").unwrap_err().to_string();
        assert!(faults.contains(expected), "{gateways}\n{faults}");
    }
}

#[test]
fn more_gateways_than_a_rule_can_tell_apart_are_refused() {
    let text = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("\"ns/g{number}\"")).collect();
        format!(
            "[capture]\nports = [80]\ncgroups = [{{ path = \"/c\", gateways = [{}] }}]\n",
            names.join(", ")
        )
    };
    assert!(Config::from_toml(&text(64), "t").is_ok());
    let faults = Config::from_toml(&text(65), "t").unwrap_err().to_string();
    assert!(faults.contains("names 65 gateways in all; allowed are 64"), "{faults}");
}
