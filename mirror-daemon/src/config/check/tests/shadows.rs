//! Shadows, and what is done to their heads.

use super::*;

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
