//! Explanations of requests and configurations.

use super::*;

const TOML: &str = r#"
[capture]
interfaces = ["eth0", { name = "veth1", netns = "gw", side = "host" }]
ports = [8080]
[[shadow]]
name = "v2"
url = "http://v2.example:8000"
[[shadow]]
name = "v3"
url = "https://v3.example"
host = "keep"
redact = { query = ["token"] }
[[route]]
hosts = ["shadowing.example"]
  [[route.rule]]
  match = [{ path = { prefix = "/write" } }]
  methods = "safe"
  mirror = [{ shadow = "v2" }]
  [[route.rule]]
  mirror = [
    { shadow = "v2", percentage = 100 },
    { shadow = "v3", percentage = 50, key = "header:x-user" },
    { shadow = "v3", percentage = 0 },
  ]
[[route]]
  [[route.rule]]
  match = [{ path = { exact = "/other" }, headers = [{ name = "x-a", exact = "1" }] }]
  mirror = [{ shadow = "v2", fraction = "1/3", key = "client_ip" }]
"#;

fn question<'a>(method: &'a str, url: &'a str, headers: &'a [(String, String)]) -> Question<'a> {
    Question { method, url, headers, client_ip: None, is_http2: false }
}

fn ask(method: &str, url: &str, headers: &[(&str, &str)]) -> Explanation {
    let config = Config::from_toml(TOML, "m").expect("right");
    let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    explain(&config, &question(method, url, &headers)).expect("a request")
}

#[test]
fn explanation_names_rule_mirrors_hosts_and_heads() {
    let found = ask("GET", "http://shadowing.example/get?token=1", &[("X-User", "u1")]);
    assert_eq!(found.rule.as_deref(), Some("route[0].rule[1]"));
    let [first, second, third] = found.mirrors.as_slice() else { panic!("three mirrors") };
    assert_eq!(
        (first.host.as_str(), first.url.as_str()),
        ("shadowing.example-shadow", "http://v2.example:8000")
    );
    assert_eq!((first.picked, first.share.as_str()), (Picked::Yes, "100 %"));
    assert!(first.head.starts_with("GET /get?token=1 HTTP/1.1\r\nHost: shadowing.example-shadow\r\n"));
    assert_eq!(second.host, "shadowing.example");
    assert_ne!(second.picked, Picked::ByChance, "the key is known");
    assert!(second.head.contains("/get?token=redacted"));
    assert_eq!(third.picked, Picked::No);
    let text = found.to_string();
    assert!(text.contains("taken by route[0].rule[1]"), "{text}");
    assert!(
        text.contains("route[0].rule[0] (host shadowing.example, path prefix /write): no: other path"),
        "{text}"
    );
    assert!(serde_json::to_string(&found).expect("JSON").contains("\"picked\":\"yes\""));
}

#[test]
fn what_hangs_on_the_connection_is_said_to_be_by_chance() {
    let found = ask("GET", "http://shadowing.example/", &[]);
    assert_eq!(found.mirrors[1].picked, Picked::ByChance);
    let found = ask("GET", "http://shadowing.example/", &[("x-request-id", "7")]);
    assert_ne!(found.mirrors[1].picked, Picked::ByChance);
    let found = ask("GET", "/other", &[("x-a", "1"), ("Host", "h")]);
    assert_eq!((found.mirrors[0].picked, found.mirrors[0].share.as_str()), (Picked::ByChance, "1/3"));
}

#[test]
fn client_address_from_a_trusted_proxy_decides_by_client_ip() {
    let config = Config::from_toml(&format!("trusted_proxies = 1\n{TOML}"), "m").expect("right");
    let headers =
        [("x-a".to_owned(), "1".to_owned()), ("X-Forwarded-For".to_owned(), "192.0.2.1".to_owned())];
    let found = explain(&config, &question("GET", "http://h/other", &headers)).expect("a request");
    assert_ne!(found.mirrors[0].picked, Picked::ByChance);
}

#[test]
fn write_guard_and_mismatches_are_explained() {
    let found = ask("POST", "http://shadowing.example/write", &[]);
    assert_eq!((found.rule, found.mirrors), (None, vec![]));
    assert!(found.considered.iter().any(|one| one.outcome.contains("`methods` do not allow")));
    let found = ask("GET", "http://h/other", &[]);
    assert!(found.considered.iter().any(|one| one.outcome == "no: header x-a differs or is missing"));
    assert!(found.to_string().contains("no rule takes it"));
}

#[test]
fn connect_is_said_to_be_passed_over_in_both_versions() {
    let config =
        Config::from_toml(&format!("{TOML}[[route]]\n[[route.rule]]\nmirror = [{{ shadow = \"v2\" }}]"), "m");
    let config = config.expect("right");
    for is_http2 in [false, true] {
        let of = |method| {
            let question = Question { is_http2, ..question(method, "http://tunnel.example/", &[]) };
            explain(&config, &question).expect("a request")
        };
        let found = of("CONNECT");
        assert!(found.is_connect && found.rule.is_none() && found.mirrors.is_empty(), "{found}");
        assert!(found.to_string().contains("passed over as an upgrade"), "{found}");
        let found = of("GET");
        assert!(!found.is_connect && found.mirrors.len() == 1, "{found}");
    }
}

#[test]
fn request_with_the_loop_mark_is_not_mirrored() {
    let found = ask("GET", "http://shadowing.example/", &[("X-Mirrored-By", "x")]);
    assert!(found.is_mirror && found.rule.is_none() && found.mirrors.is_empty());
}

#[test]
fn requests_that_can_not_be_sent_are_refused() {
    let config = Config::from_toml(TOML, "m").expect("right");
    let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    for url in ["", "h/p", "ftp://h/", "http:///p", "http://h/a b", "/\n"] {
        assert!(matches!(explain(&config, &question("GET", url, &[])), Err(ExplainError::Url(_))), "{url}");
    }
    assert!(matches!(explain(&config, &question("G T", "http://h/", &[])), Err(ExplainError::Method(_))));
    assert!(matches!(
        explain(&config, &question("GET", "/", &header("a b", "1"))),
        Err(ExplainError::Header(_))
    ));
    assert!(matches!(
        explain(&config, &question("GET", "/", &header("a", "1\r\nb: 2"))),
        Err(ExplainError::Header(_))
    ));
}

#[test]
fn path_without_a_host_is_refused_with_what_to_write_instead() {
    let config = Config::from_toml(TOML, "m").expect("right");
    let expected = "\"/get\" names no host; write http://shop.example/get, or add -H \"Host: shop.example\"";
    for is_http2 in [false, true] {
        let asked = Question { is_http2, ..question("GET", "/get", &[]) };
        assert_eq!(explain(&config, &asked).unwrap_err().to_string(), expected);
    }
    let asterisk = explain(&config, &question("OPTIONS", "*", &[])).unwrap_err().to_string();
    assert_eq!(asterisk, "\"*\" names no host; add -H \"Host: shop.example\"");
    let no_url = explain(&config, &question("GET", "shop.example/cart", &[])).unwrap_err().to_string();
    assert_eq!(no_url, "\"shop.example/cart\" is no URL; write one such as http://shop.example/cart");
    assert_eq!(ask("GET", "/get", &[("Host", "h")]).host.as_deref(), Some("h"));
    assert_eq!(ask("GET", "/get", &[("host", "")]).host, None, "a request without host");
}

#[test]
fn summary_counts_and_names_what_there_is() {
    let config = Config::from_toml(TOML, "m").expect("right");
    let expected = "ok: 2 capture points, 2 shadows, 2 routes with 3 rules\n\
                    capture interface eth0, downstream leg, ports [8080]\n\
                    capture interface veth1 in /run/netns/gw, host side, downstream leg, ports [8080]\n\
                    shadow v2 at http://v2.example:8000\n\
                    shadow v3 at https://v3.example\n\
                    admin pages at http://127.0.0.1:9900\n\
                    this machine's interfaces, namespaces and cgroups were not looked up";
    assert_eq!(summary(&config), expected);
}

#[test]
fn configuration_that_mirrors_nothing_is_warned_of() {
    let config = Config::from_toml("[capture]\ninterfaces = ['eth0']\nports = [80]", "m").expect("right");
    let expected = "nothing is mirrored: no shadow, no route in what was checked";
    assert_eq!(warnings(&config), [expected]);
    assert!(summary(&config).ends_with(&format!("\nwarning: {expected}")));
    let empty = Config::from_toml("", "m").expect("right");
    assert_eq!(
        warnings(&empty),
        ["nothing is mirrored: no capture point, no shadow, no route in what was checked"]
    );
}

#[test]
fn http2_request_is_explained_in_the_form_that_each_shadow_gets() {
    let shadows = [("same", ""), ("old", "protocol = 'http1'"), ("new", "protocol = 'http2'")];
    let mut toml = String::new();
    for (name, keys) in shadows {
        toml.push_str(&format!("[[shadow]]\nname = '{name}'\nurl = 'http://{name}'\n{keys}\n"));
    }
    toml.push_str("[[route]]\nhosts = ['h.example']\n[[route.rule]]\nmirror = [");
    for (name, _) in shadows {
        toml.push_str(&format!("{{ shadow = '{name}' }}, "));
    }
    let config = Config::from_toml(&format!("{toml}]"), "m").expect("right");
    let headers = [("X-A".to_owned(), "1".to_owned()), ("Cookie".to_owned(), "a=1".to_owned())];
    let asked = question("GET", "https://h.example/p", &headers);
    let heads = |is_http2| {
        let found = explain(&config, &Question { is_http2, ..asked }).expect("a request");
        assert_eq!(found.host.as_deref(), Some("h.example"));
        assert!(found.mirrors.iter().all(|mirror| mirror.host == "h.example-shadow"), "{found}");
        found.mirrors.into_iter().map(|mirror| (mirror.version, mirror.head)).collect::<Vec<_>>()
    };
    let end = "\r\nx-mirrored-by: mirror-daemon\r\n";
    let http1 = format!("GET /p HTTP/1.1\r\nHost: h.example-shadow\r\nX-A: 1\r\nCookie: a=1{end}\r\n");
    let http2 = |scheme| {
        let front =
            format!(":method: GET\r\n:scheme: {scheme}\r\n:authority: h.example-shadow\r\n:path: /p\r\n");
        (HTTP2, format!("{front}x-a: 1\r\ncookie: a=1{end}"))
    };
    assert_eq!(heads(false), [(HTTP1, http1.clone()), (HTTP1, http1.clone()), http2("http")]);
    let lower = http1.replace("X-A", "x-a").replace("Cookie", "cookie");
    assert_eq!(heads(true), [http2("https"), (HTTP1, lower), http2("https")]);
}

#[test]
fn headers_of_a_connection_are_refused_in_http2() {
    let config = Config::from_toml(TOML, "m").expect("right");
    for (name, value, is_right) in
        [("Upgrade", "h2c", false), ("TE", "gzip", false), ("TE", "trailers", true), ("Host", "x", true)]
    {
        let headers = [(name.to_owned(), value.to_owned())];
        let asked = Question { is_http2: true, ..question("GET", "http://h/", &headers) };
        assert_eq!(explain(&config, &asked).is_ok(), is_right, "{name}: {value}");
        assert!(explain(&config, &Question { is_http2: false, ..asked }).is_ok());
    }
}
