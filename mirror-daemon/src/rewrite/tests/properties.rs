//! Whatever was captured, in whichever form it goes out: a small parser that shares nothing with the writer reads
//! back what a model of the rules expects.

use super::*;

/// A head as it means something: names in lower case, cookies joined.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Meaning {
    /// Method and target of a request line, or the four pseudo-header fields.
    front: Vec<String>,
    fields: Vec<(String, Vec<u8>)>,
}

/// A captured head that owns its parts.
#[derive(Clone, Debug)]
struct Sample {
    is_http2: bool,
    method: &'static str,
    scheme: &'static str,
    /// In a target or in `:authority`.
    authority: Option<String>,
    path: String,
    fields: Vec<(String, String)>,
    body: BodyLength,
}

impl Sample {
    fn target(&self) -> String {
        match &self.authority {
            Some(authority) if !self.is_http2 => format!("{}://{authority}{}", self.scheme, self.path),
            _ => self.path.clone(),
        }
    }

    fn rewritten(&self, form: HeadForm) -> Bytes {
        let target = self.target();
        let lines: Vec<String> =
            self.fields.iter().map(|(name, value)| format!("{name}:  {value} \r\n")).collect();
        let mut fields = vec![];
        if self.is_http2 {
            fields.push(Field { name: ":scheme", value: self.scheme.as_bytes(), line: b"" });
            if let Some(authority) = &self.authority {
                fields.push(Field { name: ":authority", value: authority.as_bytes(), line: b"" });
            }
        }
        for ((name, value), line) in self.fields.iter().zip(&lines) {
            let line = if self.is_http2 { b"" } else { line.as_bytes() };
            fields.push(Field { name, value: value.as_bytes(), line });
        }
        let version = if self.is_http2 { Version::Http2 } else { Version::Http11 };
        let head =
            RequestHead { method: self.method, target: &target, version, fields: &fields, body: self.body };
        let wire = shadow_head(&head, &config(), "X-Mark", form).head.wire;
        assert!(wire.len() <= capacity(&head, &config(), "X-Mark"), "one buffer, sized up front");
        wire
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.fields.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// The rules, told once more in another way.
    fn expected(&self, form: HeadForm) -> Meaning {
        let is_to_http2 = form == HeadForm::Http2;
        let authority = self.authority.clone();
        let first_host = self.values("host").next().map(str::to_owned);
        let named = |host: &Option<String>| host.as_deref().map(suffixed);
        let said = named(&authority.clone().or(first_host.clone())).unwrap_or("own.example:8000".into());
        let scheme = if self.is_http2 || authority.is_some() { self.scheme } else { "http" };
        let front = if is_to_http2 {
            let authority = match (self.is_http2, &authority, &first_host) {
                (true, None, Some(_)) => String::new(),
                _ => said.clone(),
            };
            vec![self.method.into(), scheme.into(), authority, self.path.clone()]
        } else if let (false, Some(authority)) = (self.is_http2, &authority) {
            vec![self.method.into(), format!("{scheme}://{}{}", suffixed(authority), self.path)]
        } else {
            vec![self.method.into(), self.path.clone()]
        };

        let mut fields: Vec<(String, Vec<u8>)> = vec![];
        let mut push = |name: &str, value: &str| fields.push((name.into(), value.into()));
        let host_stays = match (self.is_http2, is_to_http2) {
            (false, to_http2) => !to_http2,
            (true, true) => true,
            (true, false) => authority.is_none(),
        };
        let is_in_place = host_stays && first_host.is_some();
        if !is_to_http2 && !is_in_place {
            push("host", &said);
        }
        let mut seen: Vec<String> = vec![];
        for (name, value) in &self.fields {
            let name = name.to_ascii_lowercase();
            let is_first = !seen.contains(&name);
            seen.push(name.clone());
            match name.as_str() {
                "host" if host_stays && is_first => push("host", &suffixed(value)),
                "cookie" if self.is_http2 && !is_to_http2 && is_first => {
                    push("cookie", &self.values("cookie").collect::<Vec<_>>().join("; "));
                }
                "cookie" if self.is_http2 && !is_to_http2 => {}
                "transfer-encoding" if !is_to_http2 => push("transfer-encoding", "chunked"),
                "content-length" if is_first => push("content-length", value),
                "te" if value.contains("trailers") => push("te", "trailers"),
                "host" | "transfer-encoding" | "content-length" | "te" | "connection" | "keep-alive"
                | "upgrade" | "x-hop" => {}
                _ => push(&name, value),
            }
        }
        if self.is_http2 && !is_to_http2 {
            match self.body {
                BodyLength::Chunked => push("transfer-encoding", "chunked"),
                BodyLength::None if self.method == "POST" => push("content-length", "0"),
                _ => {}
            }
        }
        push("x-mark", LOOP_MARK_VALUE);
        Meaning { front, fields }
    }
}

fn suffixed(authority: impl AsRef<str>) -> String {
    match authority.as_ref().split_once(':') {
        Some((host, port)) => format!("{host}-shadow:{port}"),
        None => format!("{}-shadow", authority.as_ref()),
    }
}

fn read_http1(wire: &[u8]) -> Meaning {
    let text = wire.strip_suffix(b"\r\n\r\n").expect("a blank line at the end");
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = String::from_utf8(lines.next().unwrap().to_vec()).unwrap();
    let front = request_line.strip_suffix(" HTTP/1.1").expect("the version").split(' ').map(str::to_owned);
    let fields = lines.map(|line| {
        let colon = line.iter().position(|byte| *byte == b':').expect("a colon in each line");
        let name = std::str::from_utf8(&line[..colon]).unwrap().to_ascii_lowercase();
        (name, line[colon + 1..].trim_ascii().to_vec())
    });
    Meaning { front: front.collect(), fields: fields.collect() }
}

/// As the documentation of [`HeadForm::Http2`] has it, to the letter.
fn read_http2(wire: &[u8]) -> Meaning {
    let text = std::str::from_utf8(wire).unwrap();
    let mut front = vec![String::new(); 4];
    let mut last = None;
    let mut fields = vec![];
    for line in text.strip_suffix("\r\n").expect("a line end at the end").split("\r\n") {
        assert!(!line.contains(['\r', '\n']), "{line}");
        let colon = line[1..].find(": ").expect("a colon and a space in each line") + 1;
        let (name, value) = (&line[..colon], &line[colon + 2..]);
        assert_eq!(value.trim(), value, "no blanks around a value");
        match [":method", ":scheme", ":authority", ":path"].iter().position(|pseudo| *pseudo == name) {
            Some(place) => {
                assert!(last < Some(place) && fields.is_empty(), "pseudo-header fields in order, in front");
                last = Some(place);
                front[place] = value.to_owned();
            }
            None => {
                assert!(is_token(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name}");
                fields.push((name.to_owned(), value.as_bytes().to_vec()));
            }
        }
    }
    Meaning { front, fields }
}

fn host() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9.]{0,8}(:[0-9]{1,4})?"
}

/// Ordinary fields that are no framing; those of HTTP/1 connections only where they may stand.
fn fields(is_http2: bool) -> impl Strategy<Value = Vec<(String, String)>> {
    let plain = ("[a-z][a-z0-9!#$%&'*+.^_`|~-]{0,12}", "([!-~]([ -~]{0,20}[!-~])?)?")
        .prop_filter("names with a meaning of their own", |(name, _)| {
            FieldKind::of(name) == FieldKind::Other && name != "trailer" && name != "x-hop"
        });
    let te = if is_http2 { "trailers" } else { "gzip, trailers" };
    let special = move |name: &'static str, value: &'static str| Just((name.to_owned(), value.to_owned()));
    let cookie = "[a-z]=[a-z0-9]{1,4}(; [a-z]=1)?".prop_map(|pairs| ("cookie".to_owned(), pairs));
    let named_host = host().prop_map(|host| ("host".to_owned(), host));
    let common = prop_oneof![6 => plain, 2 => cookie, 1 => named_host, 1 => special("te", te)];
    let one = if is_http2 {
        common.boxed()
    } else {
        let hop = prop_oneof![
            special("Connection", "keep-alive, X-Hop"),
            special("Keep-Alive", "timeout=5"),
            special("Upgrade", "h2c"),
        ];
        prop_oneof![5 => common, 1 => hop].boxed()
    };
    proptest::collection::vec(one, 0..16).prop_map(move |mut fields| {
        // HTTP/1 has one Host at most, and x-hop is for this hop where Connection names it.
        let mut hosts = 0;
        fields.retain(|(name, _)| {
            hosts += usize::from(name == "host");
            name != "host" || hosts == 1
        });
        if fields.iter().any(|(name, _)| name == "Connection") {
            fields.push(("X-Hop".to_owned(), "1".to_owned()));
        }
        if !is_http2 {
            for (name, _) in fields.iter_mut().step_by(2) {
                *name = name.to_ascii_uppercase();
            }
        }
        fields
    })
}

fn sample() -> impl Strategy<Value = Sample> {
    let body = prop_oneof![
        Just(BodyLength::None),
        Just(BodyLength::Chunked),
        (0..=u64::MAX).prop_map(BodyLength::Known)
    ];
    let methods = prop_oneof![Just("GET"), Just("POST"), Just("BREW")];
    let schemes = prop_oneof![Just("http"), Just("https")];
    (any::<bool>(), methods, schemes, proptest::option::of(host()), "/[!-~]{0,20}", body).prop_flat_map(
        |(is_http2, method, scheme, authority, path, body)| {
            (fields(is_http2), any::<prop::sample::Index>()).prop_map(move |(mut fields, place)| {
                let at = place.index(fields.len() + 1);
                match body {
                    BodyLength::Known(bytes) => {
                        fields.insert(at, ("content-length".into(), bytes.to_string()))
                    }
                    BodyLength::Chunked if !is_http2 => {
                        fields.insert(at, ("Transfer-Encoding".into(), "chunked".into()));
                    }
                    _ => {}
                }
                Sample {
                    is_http2,
                    method,
                    scheme,
                    authority: authority.clone(),
                    path: path.clone(),
                    fields,
                    body,
                }
            })
        },
    )
}

proptest! {
    #[test]
    fn every_captured_head_reads_back_as_expected_in_both_forms(sample in sample()) {
        prop_assert_eq!(read_http1(&sample.rewritten(HeadForm::Http1)), sample.expected(HeadForm::Http1));
        prop_assert_eq!(read_http2(&sample.rewritten(HeadForm::Http2)), sample.expected(HeadForm::Http2));
    }

    #[test]
    fn any_bytes_make_whole_lines_with_right_names_in_both_forms(
        parts in proptest::collection::vec(("(:?[a-zA-Z]{0,3}|\\PC{0,4}|\\s)", proptest::collection::vec(any::<u8>(), 0..12)), 0..12),
        method in "\\PC{0,4}",
        target in "(\\PC|\\s){0,12}",
        is_http2 in any::<bool>(),
    ) {
        let fields: Vec<Field<'_>> = parts.iter().map(|(name, value)| Field { name, value, line: b"" }).collect();
        let version = if is_http2 { Version::Http2 } else { Version::Http11 };
        let head = RequestHead { method: &method, target: &target, version, fields: &fields, body: BodyLength::Chunked };
        for form in [HeadForm::Http1, HeadForm::Http2] {
            let wire = shadow_head(&head, &redacting(&["a"], &["b"], &["c"]), "m", form).head.wire;
            let ends = wire.windows(2).filter(|pair| pair == b"\r\n").count();
            prop_assert_eq!(wire.iter().filter(|byte| matches!(byte, b'\r' | b'\n' | 0)).count(), 2 * ends);
            for (index, line) in wire.split(|byte| *byte == b'\n').enumerate().skip(1) {
                let name_bytes = line.iter().skip(1).position(|byte| *byte == b':').map_or(0, |at| at + 1);
                let Ok(name) = std::str::from_utf8(&line[..name_bytes]) else { panic!("{line:?}") };
                let is_pseudo = form == HeadForm::Http2 && index < 4 && name.starts_with(':');
                prop_assert!(line.len() < 2 || is_pseudo || is_token(name), "{line:?}");
            }
        }
    }
}
