//! Heads from and to HTTP/2.

use super::*;

/// What an HTTP/2 decoder makes of a head; pseudo-header fields are among `fields`.
fn http2<'a>(
    method: &'a str,
    path: &'a str,
    fields: &'a [(&'a str, &'a str)],
    body: BodyLength,
) -> Captured<'a> {
    let fields = fields.iter().map(|(name, value)| Field { name, value: value.as_bytes(), line: b"" });
    Captured { version: Version::Http2, method, target: path, fields: fields.collect(), body }
}

/// What an HTTP/1 decoder makes of a head.
fn http1<'a>(method: &'a str, target: &'a str, lines: &[&'a str], body: BodyLength) -> Captured<'a> {
    let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    Captured { version: Version::Http11, method, target, fields: captured(&lines), body }
}

struct Captured<'a> {
    version: Version,
    method: &'a str,
    target: &'a str,
    fields: Vec<Field<'a>>,
    body: BodyLength,
}

impl Captured<'_> {
    fn rewritten(&self, config: &RewriteConfig, form: HeadForm) -> Rewritten {
        let Self { version, method, target, fields, body } = self;
        let head = RequestHead { method, target, version: *version, fields, body: *body };
        let made = shadow_head(&head, config, "X-Mirrored-By", form);
        assert!(made.head.wire.len() <= capacity(&head, config, "X-Mirrored-By"));
        assert_eq!(made.head.form, form);
        made
    }

    /// The lines of the head that a shadow gets, without the loop mark at its end.
    fn to(&self, form: HeadForm) -> Vec<String> {
        self.to_with(&config(), form)
    }

    fn to_with(&self, config: &RewriteConfig, form: HeadForm) -> Vec<String> {
        let wire = self.rewritten(config, form).head.wire;
        let text = std::str::from_utf8(&wire).unwrap();
        let end = match form {
            HeadForm::Http1 => "X-Mirrored-By: mirror-daemon\r\n\r\n",
            HeadForm::Http2 => "x-mirrored-by: mirror-daemon\r\n",
        };
        let text = text.strip_suffix(end).expect("the loop mark at the end");
        text.split_terminator("\r\n").map(str::to_owned).collect()
    }
}

const NONE: BodyLength = BodyLength::None;
const FRONT: [(&str, &str); 2] = [(":scheme", "https"), (":authority", "h.example:443")];

/// An HTTP/2 request with these ordinary fields, for `h.example:443`.
fn fields_to(fields: &[(&'static str, &'static str)], form: HeadForm, body: BodyLength) -> Vec<String> {
    let all: Vec<_> = FRONT.iter().chain(fields).copied().collect();
    let mut lines = http2("POST", "/p", &all, body).to(form);
    let front: &[&str] = match form {
        HeadForm::Http1 => &["POST /p HTTP/1.1", "Host: h.example-shadow:443"],
        HeadForm::Http2 => {
            &[":method: POST", ":scheme: https", ":authority: h.example-shadow:443", ":path: /p"]
        }
    };
    assert_eq!(&lines[..front.len()], front);
    lines.split_off(front.len())
}

/// An HTTP/1 request with these lines, for `h.example`.
fn lines_to_http2(lines: &[&str], body: BodyLength) -> Vec<String> {
    let all: Vec<&str> = std::iter::once("Host: h.example\r\n").chain(lines.iter().copied()).collect();
    let mut lines = http1("POST", "/p", &all, body).to(HeadForm::Http2);
    let front = [":method: POST", ":scheme: http", ":authority: h.example-shadow", ":path: /p"];
    assert_eq!(&lines[..front.len()], front);
    lines.split_off(front.len())
}

#[test]
fn form_is_the_captured_version_unless_the_shadow_wants_one() {
    for version in [Version::Http10, Version::Http11, Version::Http2] {
        let same = if version == Version::Http2 { HeadForm::Http2 } else { HeadForm::Http1 };
        assert_eq!(HeadForm::of(ShadowProtocol::Same, version), same);
        assert_eq!(HeadForm::of(ShadowProtocol::Http1, version), HeadForm::Http1);
        assert_eq!(HeadForm::of(ShadowProtocol::Http2, version), HeadForm::Http2);
    }
}

#[test]
fn authority_suffix_table() {
    for (captured, replayed) in SUFFIXED {
        let front = [(":scheme", "http"), (":authority", captured)];
        let request = http2("GET", "/", &front, NONE);
        assert_eq!(request.to(HeadForm::Http2)[2], format!(":authority: {replayed}"));
        assert_eq!(request.to(HeadForm::Http1)[1], format!("Host: {replayed}"));
        let line = format!("Host: {captured}\r\n");
        assert_eq!(
            http1("GET", "/", &[&line], NONE).to(HeadForm::Http2)[2],
            format!(":authority: {replayed}")
        );
    }
}

#[test]
fn authority_and_host_of_http2_go_out_as_far_as_they_came_in() {
    let of = |fields: &[(&str, &str)], form| {
        let all: Vec<_> = [(":scheme", "http")].iter().chain(fields).copied().collect();
        let request = http2("GET", "/", &all, NONE);
        let lines = request.to(form);
        let hosts: Vec<String> = lines
            .into_iter()
            .filter(|line| line.starts_with(":authority") || line.to_lowercase().starts_with("host"))
            .collect();
        (hosts.join("|"), request.rewritten(&config(), form).host)
    };
    let (known, own) = (HostSource::Known, HostSource::OwnAuthority);
    let both = [(":authority", "a:1"), ("x", "1"), ("host", "b:2")];
    let two_hosts = [("host", "b"), ("host", "c")];
    let empty_first = [(":authority", ""), ("host", "b")];
    for (fields, to_http2, to_http1, source) in [
        (&both[..], ":authority: a-shadow:1|host: b-shadow:2", "Host: a-shadow:1", known),
        (&both[..1], ":authority: a-shadow:1", "Host: a-shadow:1", known),
        (&both[2..], "host: b-shadow:2", "host: b-shadow:2", known),
        (&[], ":authority: own.example:8000", "Host: own.example:8000", own),
        (&two_hosts, "host: b-shadow", "host: b-shadow", known),
        (&[("host", "")], "host: own.example:8000", "host: own.example:8000", own),
        (&empty_first, "host: b-shadow", "host: b-shadow", known),
    ] {
        assert_eq!(of(fields, HeadForm::Http2), (to_http2.to_owned(), source), "{fields:?}");
        assert_eq!(of(fields, HeadForm::Http1), (to_http1.to_owned(), source), "{fields:?}");
    }
}

#[test]
fn authority_can_be_kept_or_replaced_whole() {
    let keep = RewriteConfig { host: HostRewrite::Keep, ..config() };
    let literal = RewriteConfig { host: HostRewrite::Literal("x.example:8443".into()), ..config() };
    let both = [(":scheme", "http"), (":authority", "a:1"), ("host", "b:2")];
    let request = http2("GET", "/", &both, NONE);
    assert_eq!(request.to_with(&keep, HeadForm::Http2)[2..], [":authority: a:1", ":path: /", "host: b:2"]);
    assert_eq!(request.to_with(&keep, HeadForm::Http1)[1..], ["Host: a:1"]);
    let replaced = [":authority: x.example:8443", ":path: /", "host: x.example:8443"];
    assert_eq!(request.to_with(&literal, HeadForm::Http2)[2..], replaced);
    let nameless = http2("GET", "/", &both[..1], NONE);
    assert_eq!(nameless.to_with(&literal, HeadForm::Http2)[2], ":authority: x.example:8443");
    assert_eq!(nameless.rewritten(&literal, HeadForm::Http2).host, HostSource::Known);
    assert_eq!(http1("GET", "/", &[], NONE).to_with(&literal, HeadForm::Http2)[2], replaced[0]);
}

#[test]
fn user_information_does_not_outlive_a_change_of_version() {
    let front = [(":scheme", "http"), (":authority", "u:p@h:1")];
    let request = http2("GET", "/", &front, NONE);
    assert_eq!(request.to(HeadForm::Http2)[2], ":authority: u:p@h-shadow:1", "as the client sent it");
    assert_eq!(request.to(HeadForm::Http1)[1], "Host: h-shadow:1");
    assert_eq!(http1("GET", "http://u@h/", &[], NONE).to(HeadForm::Http2)[2], ":authority: h-shadow");
}

#[test]
fn http1_targets_become_scheme_authority_and_path() {
    for (method, target, scheme, authority, path) in [
        ("GET", "/a?b", "http", "host-shadow", "/a?b"),
        ("GET", "http://a.example:81/p?q", "http", "a.example-shadow:81", "/p?q"),
        ("GET", "HTTPS://a", "https", "a-shadow", "/"),
        ("GET", "https://a?q", "https", "a-shadow", "/?q"),
        ("GET", "http:///p", "http", "host-shadow", "/p"),
        ("GET", "ftp://a/p", "http", "a-shadow", "/p"),
        ("OPTIONS", "*", "http", "host-shadow", "*"),
        ("OPTIONS", "http://a:1", "http", "a-shadow:1", "*"),
        ("OPTIONS", "http://a/", "http", "a-shadow", "/"),
        ("GET", "*", "http", "host-shadow", "/*"),
        ("GET", "*?u=http://a/", "http", "host-shadow", "/*?u=http://a/"),
        ("GET", "a b\r\n", "http", "host-shadow", "/a%20b%0D%0A"),
    ] {
        let lines = http1(method, target, &["Host: host\r\n"], NONE).to(HeadForm::Http2);
        let expected = [
            format!(":method: {method}"),
            format!(":scheme: {scheme}"),
            format!(":authority: {authority}"),
            format!(":path: {path}"),
        ];
        assert_eq!(lines, expected, "{method} {target}");
    }
    let tls = RewriteConfig { own_scheme: "https", ..config() };
    assert_eq!(http1("GET", "/", &[], NONE).to_with(&tls, HeadForm::Http2)[1], ":scheme: https");
}

#[test]
fn http1_request_without_host_gets_the_shadows_own_authority_and_is_reported() {
    for lines in [&[][..], &["Host:\r\n"]] {
        let request = http1("GET", "/", lines, NONE);
        assert_eq!(request.to(HeadForm::Http2)[2], ":authority: own.example:8000");
        assert_eq!(request.rewritten(&config(), HeadForm::Http2).host, HostSource::OwnAuthority);
    }
}

#[test]
fn http2_path_and_scheme_go_out_as_captured() {
    for (method, path) in [("GET", "/a//b/?x=%20&y#z"), ("OPTIONS", "*"), ("GET", "/")] {
        let request = http2(method, path, &FRONT, NONE);
        assert_eq!(request.to(HeadForm::Http1)[0], format!("{method} {path} HTTP/1.1"));
        assert_eq!(request.to(HeadForm::Http2)[1], ":scheme: https");
        assert_eq!(request.to(HeadForm::Http2)[3], format!(":path: {path}"));
    }
    // Other schemes leave other paths; a request line always has one.
    let front = [(":scheme", "urn")];
    for (path, line) in [("", "GET / HTTP/1.1"), ("x:y", "GET /x:y HTTP/1.1")] {
        assert_eq!(http2("GET", path, &front, NONE).to(HeadForm::Http1)[0], line);
        assert_eq!(http2("GET", path, &front, NONE).to(HeadForm::Http2)[3], format!(":path: {path}"));
    }
}

#[test]
fn names_are_lower_case_in_http2_and_values_lose_their_spacing() {
    let lines =
        ["X-B:1\r\n", "x-a:   two  words  \r\n", "X-B:\t2\n", "X-Empty:\r\n", "Expect: 100-continue\r\n"];
    let sent = lines_to_http2(&lines, NONE);
    assert_eq!(sent, ["x-b: 1", "x-a: two  words", "x-b: 2", "x-empty: ", "expect: 100-continue"]);
}

#[test]
fn what_belongs_to_one_http1_connection_stays_behind() {
    let lines = [
        "Connection: keep-alive, X-Hop\r\n",
        "Keep-Alive: timeout=5\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "Upgrade: h2c\r\n",
        "HTTP2-Settings: abc\r\n",
        "Transfer-Encoding: chunked\r\n",
        "x-hop: 1\r\n",
        "TE: gzip;q=1, Trailers\r\n",
        "X-End: 1\r\n",
    ];
    assert_eq!(lines_to_http2(&lines, BodyLength::Chunked), ["te: trailers", "x-end: 1"]);
    assert_eq!(lines_to_http2(&["TE: gzip\r\n"], NONE), Vec::<String>::new());
}

#[test]
fn http2_fields_go_to_http2_as_they_came() {
    let fields =
        [("te", "trailers"), ("cookie", "a=1"), ("x", ""), ("cookie", "b=2"), ("http2-settings", "z")];
    let expected = ["te: trailers", "cookie: a=1", "x: ", "cookie: b=2", "http2-settings: z"];
    assert_eq!(fields_to(&fields, HeadForm::Http2, NONE), expected);
}

#[test]
fn cookie_crumbs_become_one_field_at_the_place_of_the_first() {
    let fields =
        [("a", "1"), ("cookie", "x=1"), ("b", "2"), ("cookie", "y=2; z=3"), ("cookie", ""), ("cookie", "w")];
    let sent = fields_to(&fields, HeadForm::Http1, BodyLength::Known(1));
    assert_eq!(sent, ["a: 1", "cookie: x=1; y=2; z=3; w", "b: 2", "Content-Length: 1"]);
}

#[test]
fn framing_is_said_as_each_version_says_it() {
    let length = [("content-length", "5")];
    let twice = [("content-length", "5"), ("a", "1"), ("content-length", "5")];
    for (body, fields, to_http1, to_http2, framing) in [
        (
            BodyLength::Known(5),
            &length[..],
            &["content-length: 5"][..],
            &["content-length: 5"][..],
            Framing::Length(5),
        ),
        (
            BodyLength::Known(5),
            &twice,
            &["content-length: 5", "a: 1"],
            &["content-length: 5", "a: 1"],
            Framing::Length(5),
        ),
        (BodyLength::Chunked, &[], &["Transfer-Encoding: chunked"], &[], Framing::Chunked),
    ] {
        assert_eq!(fields_to(fields, HeadForm::Http1, body), to_http1);
        assert_eq!(fields_to(fields, HeadForm::Http2, body), to_http2);
        let all: Vec<_> = FRONT.iter().chain(fields).copied().collect();
        for form in [HeadForm::Http1, HeadForm::Http2] {
            assert_eq!(http2("POST", "/p", &all, body).rewritten(&config(), form).head.framing, framing);
        }
    }
    assert_eq!(lines_to_http2(&["Content-Length: 5, 5\r\n"], BodyLength::Known(5)), ["content-length: 5"]);
    assert_eq!(lines_to_http2(&["Content-Length: 0\r\n"], BodyLength::Known(0)), ["content-length: 0"]);
    assert_eq!(
        lines_to_http2(&["Transfer-Encoding: Chunked\r\n"], BodyLength::Chunked),
        Vec::<String>::new()
    );
    assert_eq!(lines_to_http2(&["Content-Length: 9\r\n"], NONE), Vec::<String>::new());
}

#[test]
fn http1_says_that_a_post_of_http2_has_no_content() {
    for (method, line) in [
        ("POST", Some("Content-Length: 0")),
        ("PUT", Some("Content-Length: 0")),
        ("GET", None),
        ("DELETE", None),
    ] {
        let request = http2(method, "/", &FRONT, NONE);
        assert_eq!(request.to(HeadForm::Http1).get(2).map(String::as_str), line, "{method}");
        assert_eq!(request.to(HeadForm::Http2).get(4), None);
        assert_eq!(http1(method, "/", &["Host: h\r\n"], NONE).to(HeadForm::Http1).get(2), None);
    }
}

#[test]
fn announced_trailers_of_http2_get_chunks_in_http1() {
    let fields = [("content-length", "5"), ("trailer", "x-sum")];
    let body = BodyLength::Known(5);
    assert_eq!(fields_to(&fields, HeadForm::Http1, body), ["trailer: x-sum", "Transfer-Encoding: chunked"]);
    assert_eq!(fields_to(&fields, HeadForm::Http2, body), ["content-length: 5", "trailer: x-sum"]);
    let lines = ["Content-Length: 5\r\n", "Trailer: x-sum\r\n"];
    assert_eq!(lines_of(&config(), &lines, body), ["Content-Length: 5", "Trailer: x-sum"], "as captured");
}

#[test]
fn edits_and_loop_mark_are_in_lower_case_in_http2() {
    let edits = vec![set("X-Set", "New"), append("A", "2"), remove("X-Gone")];
    let config = RewriteConfig { edits, ..config() };
    let all: Vec<_> = FRONT.into_iter().chain([("a", "1"), ("x-gone", "1"), ("x-set", "1")]).collect();
    let request = http2("GET", "/", &all, NONE);
    assert_eq!(request.to_with(&config, HeadForm::Http2)[4..], ["a: 1", "x-set: New", "a: 2"]);
    assert_eq!(request.to_with(&config, HeadForm::Http1)[2..], ["a: 1", "X-Set: New", "A: 2"]);
}

#[test]
fn fields_query_and_cookies_are_redacted_in_http2_too() {
    let config = redacting(&["authorization"], &["sid"], &["token"]);
    let all: Vec<_> = FRONT
        .into_iter()
        .chain([
            ("authorization", "secret"),
            ("cookie", "a=1"),
            ("cookie", "sid=secret"),
            ("cookie", "b=2; sid=secret"),
        ])
        .collect();
    let request = http2("GET", "/p?a=1&token=secret", &all, NONE);
    let sent = request.to_with(&config, HeadForm::Http2);
    assert_eq!(sent[3], ":path: /p?a=1&token=redacted");
    let crumbs =
        ["authorization: redacted", "cookie: a=1", "cookie: sid=redacted", "cookie: b=2; sid=redacted"];
    assert_eq!(sent[4..], crumbs);
    let sent = request.to_with(&config, HeadForm::Http1);
    assert_eq!(sent[0], "GET /p?a=1&token=redacted HTTP/1.1");
    assert_eq!(sent[2..], ["authorization: redacted", "cookie: a=1; sid=redacted; b=2; sid=redacted"]);
    let whole = request.to_with(&redacting(&["cookie"], &[], &[]), HeadForm::Http1);
    assert_eq!(whole.last().unwrap(), "cookie: redacted");
    let lines = ["Host: h\r\n", "Authorization:  secret \r\n"];
    let sent = http1("GET", "http://h/?token=secret", &lines, NONE).to_with(&config, HeadForm::Http2);
    assert_eq!(sent[3..], [":path: /?token=redacted", "authorization: redacted"]);
}

#[test]
fn hidden_value_in_quotes_is_hidden_across_crumbs() {
    let config = redacting(&[], &["sid"], &[]);
    for (crumbs, apart, joined) in [
        (&["sid=\"se", "cret\"; a=1"][..], &["sid=redacted", "a=1"][..], "sid=redacted; a=1"),
        (&["sid=\"se", "cr", "et\" x", "a=1"], &["sid=redacted", "a=1"], "sid=redacted; a=1"),
        (&["sid=\"se", "cr\\\"et", "a=1"], &["sid=redacted"], "sid=redacted"),
        (&["sid=\"secret\"", "a=\"1"], &["sid=redacted", "a=\"1"], "sid=redacted; a=\"1"),
    ] {
        let all: Vec<_> = FRONT.into_iter().chain(crumbs.iter().map(|crumb| ("cookie", *crumb))).collect();
        let request = http2("GET", "/", &all, NONE);
        let lines: Vec<String> = apart.iter().map(|pairs| format!("cookie: {pairs}")).collect();
        assert_eq!(request.to_with(&config, HeadForm::Http2)[4..], lines, "{crumbs:?}");
        assert_eq!(request.to_with(&config, HeadForm::Http1)[2..], [format!("cookie: {joined}")]);
    }
}

#[test]
fn no_captured_byte_can_split_a_line_or_make_a_name_in_either_form() {
    let fields = [
        Field { name: "A\r\nx", value: b"1", line: b"" },
        Field { name: ":path", value: b"/evil", line: b"" },
        Field { name: "", value: b"1", line: b"" },
        Field { name: "a b", value: b"1", line: b"" },
        Field { name: "a:b", value: b"1", line: b"" },
        Field { name: "K\u{e4}se", value: b"1", line: b"" },
        Field { name: "Ok", value: b"\r\n1\r\nX: 2\0", line: b"" },
    ];
    let front = [
        Field { name: ":scheme", value: b"http\r\nx: 1", line: b"" },
        Field { name: ":authority", value: b"h\nx y", line: b"" },
    ];
    let all: Vec<_> = front.iter().chain(&fields).copied().collect();
    let request =
        Captured { version: Version::Http2, method: "GET /x", target: "/\r\nx", fields: all, body: NONE };
    assert_eq!(
        request.to(HeadForm::Http2),
        [
            ":method: GET%20/x",
            ":scheme: http%0D%0Ax:%201",
            ":authority: h%0Ax%20y-shadow",
            ":path: /%0D%0Ax",
            "ok: 1  X: 2"
        ]
    );
    assert_eq!(
        request.to(HeadForm::Http1),
        ["GET%20/x /%0D%0Ax HTTP/1.1", "Host: h x y-shadow", "Ok:   1  X: 2 "]
    );
}

#[test]
fn trailers_take_the_form_of_their_head() {
    let config = RewriteConfig { edits: vec![remove("x-gone")], ..redacting(&["x-sec"], &[], &[]) };
    let fields = captured(&[
        b"X-Sum:  abc\r\n",
        b"Host: evil\r\n",
        b"X-Gone: 1\r\n",
        b"X-Sec: s\n",
        b"TE: trailers\r\n",
    ]);
    assert_eq!(&shadow_trailers(&fields, &config, HeadForm::Http2)[..], b"x-sum: abc\r\nx-sec: redacted\r\n");
    let fields = ["grpc-status", ":path", "content-length", "connection"];
    let fields = fields.map(|name| Field { name, value: b"0", line: b"" });
    for form in [HeadForm::Http1, HeadForm::Http2] {
        assert_eq!(&shadow_trailers(&fields, &config, form)[..], b"grpc-status: 0\r\n");
    }
}
