#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

use super::*;
use crate::config::{HostRewrite, Redaction};
use crate::http::{BodyLength, Version};
use proptest::prelude::*;

mod properties;
mod translation;

fn config() -> RewriteConfig {
    RewriteConfig {
        host: HostRewrite::Suffix("-shadow".into()),
        own_authority: "own.example:8000".into(),
        own_scheme: "http",
        edits: vec![],
        redact: Redaction::default(),
    }
}

/// A decoder's view of `lines`, each without its line end.
fn captured<'a>(lines: &[&'a [u8]]) -> Vec<Field<'a>> {
    lines
        .iter()
        .map(|line| {
            let bare = line.trim_ascii_end();
            let colon = bare.iter().position(|byte| *byte == b':').unwrap();
            let name = std::str::from_utf8(&bare[..colon]).unwrap();
            Field { name, value: bare[colon + 1..].trim_ascii(), line }
        })
        .collect()
}

fn head<'a>(target: &'a str, fields: &'a [Field<'a>], body: BodyLength) -> RequestHead<'a> {
    RequestHead { method: "POST", target, version: Version::Http11, fields, body }
}

fn rewritten(config: &RewriteConfig, target: &str, lines: &[&str], body: BodyLength) -> (String, HostSource) {
    let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    let fields = captured(&lines);
    let made = shadow_head(&head(target, &fields, body), config, "x-mirrored-by", HeadForm::Http1);
    (String::from_utf8(made.head.wire.to_vec()).unwrap(), made.host)
}

/// The lines between the request line and the loop mark, for a request with a Host line in front.
fn lines_of(config: &RewriteConfig, lines: &[&str], body: BodyLength) -> Vec<String> {
    let mut all = vec!["Host: h\r\n"];
    all.extend_from_slice(lines);
    let (wire, _) = rewritten(config, "/", &all, body);
    let wire = wire.strip_prefix("POST / HTTP/1.1\r\nHost: h-shadow\r\n").expect("request line and host");
    let wire = wire.strip_suffix("x-mirrored-by: mirror-daemon\r\n\r\n").expect("loop mark and blank line");
    wire.split_terminator("\r\n").map(str::to_owned).collect()
}

fn kept(lines: &[&str]) -> Vec<String> {
    lines_of(&config(), lines, BodyLength::None)
}

fn host_of(config: &RewriteConfig, target: &str, host: Option<&str>) -> (String, String, HostSource) {
    let line = host.map(|host| format!("Host: {host}\r\n"));
    let lines: Vec<&str> = line.iter().map(String::as_str).collect();
    let (wire, source) = rewritten(config, target, &lines, BodyLength::None);
    let mut parts = wire.split("\r\n");
    let target = parts.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    (target, parts.next().unwrap().strip_prefix("Host: ").unwrap().to_owned(), source)
}

/// Hosts as captured and as replayed, in every form of head.
const SUFFIXED: [(&str, &str); 7] = [
    ("foo.bar.com", "foo.bar.com-shadow"),
    ("foo.bar.com:8080", "foo.bar.com-shadow:8080"),
    ("[::1]:80", "[::1]-shadow:80"),
    ("[::1]", "[::1]-shadow"),
    ("h:", "h-shadow:"),
    // Better than Envoy: several colons without brackets hold no port, so none is split off.
    ("::1", "::1-shadow"),
    ("2001:db8::1", "2001:db8::1-shadow"),
];

#[test]
fn host_suffix_table() {
    for (captured, replayed) in SUFFIXED {
        let (_, host, source) = host_of(&config(), "/", Some(captured));
        assert_eq!((host.as_str(), source), (replayed, HostSource::Known), "{captured}");
    }
}

#[test]
fn empty_or_absent_host_becomes_the_shadows_own_and_is_reported() {
    for host in [Some(""), None] {
        let (_, host, source) = host_of(&config(), "/", host);
        assert_eq!((host.as_str(), source), ("own.example:8000", HostSource::OwnAuthority));
        let keep = RewriteConfig { host: HostRewrite::Keep, ..config() };
        assert_eq!(host_of(&keep, "/", None).1, "own.example:8000");
    }
}

#[test]
fn absolute_form_target_gets_the_suffix_too() {
    let ask = |target: &str, host| host_of(&config(), target, host);
    let (target, host, _) = ask("http://a.example:81/p?q#f", Some("b.example"));
    assert_eq!((target.as_str(), host.as_str()), ("http://a.example-shadow:81/p?q#f", "b.example-shadow"));
    let (target, host, source) = ask("http://a.example", None);
    assert_eq!((target.as_str(), host.as_str()), ("http://a.example-shadow", "a.example-shadow"));
    assert_eq!(source, HostSource::Known);
    let (target, host, _) = ask("http://u:p@a.example:81?q", Some(""));
    assert_eq!(target, "http://u:p@a.example-shadow:81?q");
    assert_eq!(host, "u:p@a.example-shadow:81");
    assert_eq!(ask("/x?u=http://a.example/", Some("h")).0, "/x?u=http://a.example/");
    assert_eq!(ask("*?u=http://a.example/", Some("h")).0, "*?u=http://a.example/");
}

#[test]
fn host_can_be_kept_or_replaced_whole() {
    let keep = RewriteConfig { host: HostRewrite::Keep, ..config() };
    assert_eq!(
        host_of(&keep, "http://a:1/", Some("b:2")),
        ("http://a:1/".into(), "b:2".into(), HostSource::Known)
    );
    let literal = RewriteConfig { host: HostRewrite::Literal("x.example:8443".into()), ..config() };
    for host in [Some("b:2"), Some(""), None] {
        let (target, host, source) = host_of(&literal, "http://u@a:1/", host);
        assert_eq!(target, "http://x.example:8443/");
        assert_eq!((host.as_str(), source), ("x.example:8443", HostSource::Known));
    }
    let other = RewriteConfig { host: HostRewrite::Suffix(".canary".into()), ..config() };
    assert_eq!(host_of(&other, "/", Some("h:1")).1, "h.canary:1");
}

#[test]
fn field_lines_keep_order_case_duplicates_and_spacing() {
    let lines =
        ["X-B:1\r\n", "x-a:   two  words  \r\n", "X-B:\t2\r\n", "X-Empty:\r\n", "Host:  H.Example:1 \t\r\n"];
    let (wire, _) = rewritten(&config(), "/a?b", &lines, BodyLength::None);
    let expected = "POST /a?b HTTP/1.1\r\nX-B:1\r\nx-a:   two  words  \r\nX-B:\t2\r\nX-Empty:\r\n\
                    Host:  H.Example-shadow:1 \t\r\nx-mirrored-by: mirror-daemon\r\n\r\n";
    assert_eq!(wire, expected);
}

#[test]
fn bare_lf_lines_go_out_with_crlf() {
    assert_eq!(kept(&["A: 1\n", "B: 2\r\n"]), ["A: 1", "B: 2"]);
}

#[test]
fn hop_by_hop_fields_stay_behind() {
    let lines = [
        "Connection: keep-alive, X-Hop, HTTP2-Settings\r\n",
        "Keep-Alive: timeout=5\r\n",
        "proxy-connection: keep-alive\r\n",
        "Upgrade: h2c\r\n",
        "HTTP2-Settings: abc\r\n",
        "x-hop: 1\r\n",
        "X-End: 1\r\n",
    ];
    assert_eq!(kept(&lines), ["X-End: 1"]);
}

#[test]
fn te_keeps_trailers_alone() {
    assert_eq!(kept(&["TE:  trailers\r\n", "Connection: TE\r\n"]), ["TE:  trailers"]);
    assert_eq!(kept(&["Te: gzip;q=1, Trailers\r\n"]), ["Te: trailers"]);
    assert_eq!(kept(&["TE: gzip\r\n"]), Vec::<String>::new());
}

#[test]
fn connection_can_not_name_framing_or_end_to_end_fields() {
    let lines = [
        "Connection: host, content-length, transfer-encoding, content-type, authorization, cookie, expect\r\n",
        "Content-Length: 3\r\n",
        "Content-Type: text/plain\r\n",
        "Authorization: a\r\n",
        "Cookie: a=b\r\n",
        "Expect: 100-continue\r\n",
    ];
    assert_eq!(
        lines_of(&config(), &lines, BodyLength::Known(3)),
        lines[1..].iter().map(|line| line.trim_end()).collect::<Vec<_>>()
    );
}

#[test]
fn connection_options_are_looked_at_up_to_a_bound() {
    let many = format!("Connection: {}late\r\n", "a,".repeat(MAX_OPTIONS));
    let just = format!("Connection: {}last\r\n", "a,".repeat(MAX_OPTIONS - 1));
    assert_eq!(kept(&[&many, "late: 1\r\n"]), ["late: 1"]);
    assert_eq!(kept(&[&just, "last: 1\r\n"]), Vec::<String>::new());
}
const MAX_OPTIONS: usize = 32;

#[test]
fn framing_describes_the_body_that_follows() {
    let of = |lines: &[&str], body| lines_of(&config(), lines, body);
    assert_eq!(of(&["Content-Length:  5\r\n"], BodyLength::Known(5)), ["Content-Length:  5"]);
    assert_eq!(of(&["Content-Length: 5, 5\r\n"], BodyLength::Known(5)), ["Content-Length: 5"]);
    let twice = ["content-length: 5\r\n", "A: 1\r\n", "content-length: 5\r\n"];
    assert_eq!(of(&twice, BodyLength::Known(5)), ["content-length: 5", "A: 1"]);
    assert_eq!(of(&["Transfer-Encoding: Chunked\r\n"], BodyLength::Chunked), ["Transfer-Encoding: Chunked"]);
    let codings = ["Transfer-Encoding: gzip\r\n", "Transfer-Encoding: chunked\r\n"];
    assert_eq!(of(&codings, BodyLength::Chunked), ["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"]);
    assert_eq!(of(&["Content-Length: 9\r\n"], BodyLength::Chunked), ["Transfer-Encoding: chunked"]);
    assert_eq!(of(&["Transfer-Encoding: chunked\r\n"], BodyLength::Known(0)), ["Content-Length: 0"]);
    assert_eq!(of(&["Content-Length: 9\r\n"], BodyLength::None), Vec::<String>::new());
    assert_eq!(of(&[], BodyLength::Known(u64::MAX)), [format!("Content-Length: {}", u64::MAX)]);
}

#[test]
fn expect_request_id_and_trace_context_are_kept() {
    let lines = ["Expect: 100-continue\r\n", "X-Request-Id: 7\r\n", "traceparent: 00-a-b-01\r\n"];
    assert_eq!(kept(&lines), ["Expect: 100-continue", "X-Request-Id: 7", "traceparent: 00-a-b-01"]);
}

#[test]
fn version_is_always_http_1_1() {
    let fields = captured(&[b"A: 1\r\n"]);
    let old =
        RequestHead { version: Version::Http10, method: "HEAD", ..head("/", &fields, BodyLength::None) };
    let made = shadow_head(&old, &config(), "m", HeadForm::Http1).head;
    assert_eq!(
        &made.wire[..],
        b"HEAD / HTTP/1.1\r\nHost: own.example:8000\r\nA: 1\r\nm: mirror-daemon\r\n\r\n"
    );
    assert_eq!(made.method, MethodTraits { is_safe: true, is_head: true });
}

#[test]
fn http2_fields_without_lines_are_written_out() {
    let fields =
        [Field { name: "x-a", value: b"1", line: b"" }, Field { name: "host", value: b"h:1", line: b"" }];
    let request = RequestHead { version: Version::Http2, ..head("/", &fields, BodyLength::Chunked) };
    let made = shadow_head(&request, &config(), "m", HeadForm::Http1).head;
    let expected = b"POST / HTTP/1.1\r\nx-a: 1\r\nhost: h-shadow:1\r\nTransfer-Encoding: chunked\r\nm: mirror-daemon\r\n\r\n";
    assert_eq!(&made.wire[..], expected);
    assert_eq!(made.framing, Framing::Chunked);
}

fn set(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit::Set { name: name.into(), value: value.into() }
}
fn append(name: &str, value: &str) -> HeaderEdit {
    HeaderEdit::Append { name: name.into(), value: value.into() }
}
fn remove(name: &str) -> HeaderEdit {
    HeaderEdit::Remove { name: name.into() }
}

#[test]
fn edits_are_applied_in_order() {
    let after = |edits: Vec<HeaderEdit>| {
        let config = RewriteConfig { edits, ..config() };
        lines_of(&config, &["A: 1\r\n", "B: 2\r\n", "a: 3\r\n"], BodyLength::None)
    };
    assert_eq!(after(vec![set("a", "9")]), ["B: 2", "a: 9"]);
    assert_eq!(after(vec![append("a", "9")]), ["A: 1", "B: 2", "a: 3", "a: 9"]);
    assert_eq!(after(vec![remove("A")]), ["B: 2"]);
    assert_eq!(after(vec![append("a", "8"), remove("a"), append("a", "9")]), ["B: 2", "a: 9"]);
    assert_eq!(after(vec![append("a", "8"), set("A", "9")]), ["B: 2", "A: 9"]);
    assert_eq!(after(vec![set("a", "8"), append("a", "9")]), ["B: 2", "a: 8", "a: 9"]);
}

fn redacting(headers: &[&str], cookies: &[&str], query: &[&str]) -> RewriteConfig {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let redact = Redaction { headers: owned(headers), cookies: owned(cookies), query: owned(query) };
    RewriteConfig { redact, ..config() }
}

#[test]
fn redacted_headers_keep_their_name_and_lose_their_value() {
    let config = redacting(&["authorization"], &[], &[]);
    let lines = ["AUTHORIZATION:   Basic secret \r\n", "Authorization2: x\r\n", "authorization: more\r\n"];
    assert_eq!(
        lines_of(&config, &lines, BodyLength::None),
        ["AUTHORIZATION:   redacted ", "Authorization2: x", "authorization: redacted"]
    );
}

#[test]
fn redacted_cookies_leave_the_others_as_they_are() {
    let config = redacting(&[], &["sid"], &[]);
    for (captured, replayed) in [
        ("a=1; sid=secret;  b = 2", "a=1; sid=redacted;  b = 2"),
        ("sid=secret", "sid=redacted"),
        ("sid=;a=1;;", "sid=redacted;a=1;;"),
        ("SID=1; sid2=2; sid; xsid=3", "SID=1; sid2=2; sid; xsid=3"),
        (" sid =secret=more; a=\"x;y\"", "sid =redacted; a=\"x;y\""),
        ("sid=\"se;cr\\\";et\"x; a=1", "sid=redacted; a=1"),
        ("sid= \"se;cret\"; a=1", "sid=redacted; a=1"),
        ("sid=\"se;cret; a=1", "sid=redacted"),
    ] {
        let line = format!("Cookie: {}\r\n", captured.trim_start());
        assert_eq!(
            lines_of(&config, &[&line], BodyLength::None),
            [format!("Cookie: {replayed}")],
            "{captured}"
        );
    }
}

#[test]
fn redacted_query_parameters_leave_the_others_as_they_are() {
    let config = redacting(&[], &[], &["token", "a b"]);
    for (captured, replayed) in [
        ("/p?a=1&token=secret&b=2", "/p?a=1&token=redacted&b=2"),
        ("/p?token=x?y=z", "/p?token=redacted"),
        ("/p?t%6Fken=x&TOKEN=1&token", "/p?t%6Fken=redacted&TOKEN=1&token"),
        ("/p?a+b=1&a%20b=2&a%2=3&%", "/p?a+b=redacted&a%20b=redacted&a%2=3&%"),
        ("/token=1", "/token=1"),
        ("http://h/p?token=1", "http://h-shadow/p?token=redacted"),
    ] {
        assert_eq!(host_of(&config, captured, Some("h")).0, replayed, "{captured}");
    }
}

#[test]
fn no_captured_byte_can_start_a_line_of_its_own() {
    let fields = [
        Field { name: "A", value: b"1\r\nX: 2", line: b"A: 1\r\nX: 2\r\n" },
        Field { name: "Host", value: b"h\nX: 2", line: b"Host: h\nX: 2\r\n" },
        Field { name: "Cookie", value: b"a=1\r\nX: 2", line: b"" },
    ];
    let made = shadow_head(
        &head("/\r\nX:\x7f2", &fields, BodyLength::None),
        &redacting(&[], &["b"], &["q"]),
        "m",
        HeadForm::Http1,
    )
    .head;
    let expected = "POST /%0D%0AX:%7F2 HTTP/1.1\r\nA: 1  X: 2\r\nHost: h X-shadow: 2\r\nCookie: a=1  X: 2\r\nm: mirror-daemon\r\n\r\n";
    assert_eq!(std::str::from_utf8(&made.wire).unwrap(), expected);
}

#[test]
fn trailers_are_edited_and_redacted_and_carry_no_framing() {
    let config =
        RewriteConfig { edits: vec![set("X-Set", "1"), remove("x-gone")], ..redacting(&["x-sec"], &[], &[]) };
    let fields = captured(&[
        b"X-Sum:  abc\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: evil\r\n",
        b"X-Gone: 1\r\n",
        b"X-Sec: s\n",
        b"Connection: close\r\n",
    ]);
    assert_eq!(
        &shadow_trailers(&fields, &config, HeadForm::Http1)[..],
        b"X-Sum:  abc\r\nX-Sec: redacted\r\n"
    );
}

#[test]
fn head_is_written_into_one_buffer_sized_up_front() {
    let fields = captured(&[b"Host: h\n", b"A: 1\n", b"Content-Length: 12\n"]);
    let config = RewriteConfig { edits: vec![set("X-Long", &"v".repeat(500))], ..config() };
    let request = head("http://h/", &fields, BodyLength::Known(12));
    let made = shadow_head(&request, &config, "x-mirrored-by", HeadForm::Http1);
    assert!(made.head.wire.len() <= capacity(&request, &config, "x-mirrored-by"));
}

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]{0,12}"
}

proptest! {
    /// Whatever the head, the shadow's parser finds the captured fields that stay, in order, byte for byte.
    #[test]
    fn rewritten_heads_parse_back_to_the_expected_fields(
        pairs in proptest::collection::vec((token(), "[ -~]{0,24}", 0..3_usize), 0..20),
        target in "/[!-~]{0,30}",
        host in "[a-z.]{0,8}(:[0-9]{0,4})?",
    ) {
        let lines: Vec<Vec<u8>> = std::iter::once(format!("Host: {host}\r\n").into_bytes())
            .chain(pairs.iter().map(|(name, value, ends)| {
                format!("{name}:{}{value}{}", " ".repeat(*ends), if *ends == 0 { "\n" } else { "\r\n" }).into_bytes()
            }))
            .collect();
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        let fields = captured(&lines);
        let made = shadow_head(&head(&target, &fields, BodyLength::None), &config(), "x-mirrored-by", HeadForm::Http1).head;

        let options = ConnectionOptions::of(&fields);
        let stays = |field: &&Field<'_>| FieldKind::of(field.name) == FieldKind::Other && !options.names(field.name);
        let expected: Vec<(&str, &[u8])> = fields.iter().filter(stays).map(|field| (field.name, field.value)).collect();

        let mut slots = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut slots);
        prop_assert_eq!(parsed.parse(&made.wire), Ok(httparse::Status::Complete(made.wire.len())));
        prop_assert_eq!(parsed.path, Some(target.as_str()));
        let got: Vec<(&str, &[u8])> = parsed.headers.iter()
            .filter(|header| FieldKind::of(header.name) == FieldKind::Other && header.name != "x-mirrored-by")
            .map(|header| (header.name, header.value))
            .collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn any_field_bytes_make_a_head_of_as_many_lines(
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..8),
        target in "\\PC{0,30}",
    ) {
        let fields: Vec<Field<'_>> = values.iter().map(|value| Field { name: "Cookie", value, line: b"" }).collect();
        let config = redacting(&[], &["a"], &["a"]);
        let made = shadow_head(&head(&target, &fields, BodyLength::None), &config, "m", HeadForm::Http1).head;
        let line_ends = made.wire.windows(2).filter(|pair| pair == b"\r\n").count();
        // Request line, Host, the cookies, the loop mark, the blank line.
        prop_assert_eq!(line_ends, values.len() + 4);
        prop_assert_eq!(made.wire.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count(), 2 * line_ends);
    }
}

#[test]
fn query_parameter_behind_a_semicolon_is_hidden_with_all_that_could_be_its_value() {
    let config = redacting(&[], &[], &["token"]);
    for (target, hidden) in [
        ("/?a=1;token=secret;more&b=2", "/?a=1;token=redacted&b=2"),
        ("/?token=se;cret&b=2;c", "/?token=redacted&b=2;c"),
    ] {
        let (sent, ..) = host_of(&config, target, Some("h"));
        assert_eq!(sent, hidden);
    }
}
