//! What goes to a shadow is a right request, with the framing that its head names.

use mirror_daemon::flow::{Chunk, CloseCause, Direction, FlowEvent, SeqNumber, Timestamp};
use mirror_daemon::http::{HttpEvent, HttpFlow, HttpOptions};
use mirror_daemon::rewrite::{Framing, HeadForm, ShadowHead};
use mirror_daemon::rule::is_mirrored;

const LOOP_MARK: &str = "x-mirrored-by";
/// RFC 9113, 8.2.2.
const CONNECTION_SPECIFIC: [&[u8]; 5] =
    [b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"];

/// Checks a head of which the body was whole.
pub(super) fn check(head: &ShadowHead, body: &[u8], trailers: &[u8]) {
    match head.framing {
        Framing::None => assert_eq!(body, b""),
        Framing::Length(bytes) => assert_eq!(body.len() as u64, bytes),
        Framing::Chunked => {}
    }
    match head.form {
        HeadForm::Http1 => check_http1(head, body, trailers),
        HeadForm::Http2 => {
            check_http2_head(head);
            fields_of(trailers).iter().for_each(check_ordinary);
        }
    }
}

/// Our own decoder reads it as one request, which is marked.
fn check_http1(head: &ShadowHead, body: &[u8], trailers: &[u8]) {
    let mut bytes = head.wire.to_vec();
    if head.framing == Framing::Chunked {
        if !body.is_empty() {
            bytes.extend([format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat());
        }
        bytes.extend([b"0\r\n", trailers, b"\r\n"].concat());
    } else {
        bytes.extend(body);
    }
    let (mut heads, mut whole, mut read) = (0, 0, Vec::new());
    let mut flow = HttpFlow::new(HttpOptions::default());
    let direction = Direction::Request;
    let (start, ack, at) = (SeqNumber(0), SeqNumber(0), Timestamp(0));
    let chunk = Chunk { direction, start, at_segment_start: true, ack, at, bytes: &bytes };
    for event in [
        FlowEvent::Opened { direction, joined: false },
        FlowEvent::Chunk(chunk),
        FlowEvent::Finished { direction },
        FlowEvent::Closed(CloseCause::Finished),
    ] {
        flow.handle_event(&event, &mut |event| match event {
            HttpEvent::Request { head, held, .. } => {
                assert!(!held && is_mirrored(&head, LOOP_MARK));
                heads += 1;
            }
            HttpEvent::Body { bytes, .. } => read.extend_from_slice(bytes),
            HttpEvent::Complete { .. } => whole += 1,
            HttpEvent::Trailers { .. } => {}
            other => panic!("{other:?} in {}", bytes.escape_ascii()),
        });
    }
    assert_eq!((heads, whole, read.as_slice()), (1, 1, body), "{}", bytes.escape_ascii());
}

/// RFC 9113, 8.2 and 8.3.1, and what `HeadForm` says.
fn check_http2_head(head: &ShadowHead) {
    let fields = fields_of(&head.wire);
    let count = fields.iter().take_while(|(name, _)| name.starts_with(b":")).count();
    let (pseudo, ordinary) = fields.split_at(count);
    let names: Vec<_> = pseudo.iter().map(|(name, _)| *name).collect();
    let all = [&b":method"[..], b":scheme", b":authority", b":path"];
    assert!(names == all || names == [all[0], all[1], all[3]], "{}", head.wire.escape_ascii());
    assert!(pseudo.iter().all(|(_, value)| value.iter().all(|byte| *byte > b' ')));
    assert!(!pseudo[0].1.is_empty() && !pseudo[1].1.is_empty() && !pseudo[count - 1].1.is_empty());
    ordinary.iter().for_each(check_ordinary);
    assert!(ordinary.iter().any(|(name, _)| *name == LOOP_MARK.as_bytes()));
    let lengths: Vec<_> = ordinary.iter().filter(|(name, _)| *name == b"content-length").collect();
    match (head.framing, lengths.as_slice()) {
        (Framing::Length(bytes), [(_, value)]) => assert_eq!(*value, bytes.to_string().as_bytes()),
        (Framing::None | Framing::Chunked, []) => {}
        other => panic!("{other:?}"),
    }
}

fn check_ordinary((name, value): &(&[u8], &[u8])) {
    let is_right = |byte: &u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && *byte != b':';
    assert!(!name.is_empty() && name.iter().all(is_right), "{}", name.escape_ascii());
    assert!(!CONNECTION_SPECIFIC.contains(name), "{}", name.escape_ascii());
    assert!(*name != b"te" || value.eq_ignore_ascii_case(b"trailers"));
    assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{}", value.escape_ascii());
    assert_eq!(value.trim_ascii(), *value, "white space around a value");
}

/// The lines of a head in HTTP/2 form.
fn fields_of(lines: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut fields = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").expect("every line has its end");
        let line = &rest[..end];
        let colon = line.windows(2).skip(1).position(|pair| pair == b": ").expect("name: value") + 1;
        fields.push((&line[..colon], &line[colon + 2..]));
        rest = &rest[end + 2..];
    }
    fields
}
