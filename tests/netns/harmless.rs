//! That production never notices the daemon, whatever becomes of it, of its shadows, or of the bytes.

mod bounds;
mod connections;
pub(crate) mod hostile;
mod life;
mod remains;
mod shadows;

use std::time::Duration;

use mirror_tests::client::{self, Connection, Step};

use crate::stage::{HOST, Stage, gateway};

/// Requests of every kind, and what production answers to each, without `Date`. The same on every call.
fn production_answers(stage: &Stage) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    let mut keep = |connection: &mut Connection, script: &[Step]| {
        let played = connection.play(script).expect("production answers");
        answers.extend(played.iter().map(client::Answer::without_date));
    };
    let mut connection = stage.connect();
    for target in ["/bytes/0", "/bytes/100", "/bytes/70000", "/chunked/5000", "/status/404", "/anything?a=1"]
    {
        keep(&mut connection, &[Step::Send(head("GET", target, "\r\n")), Step::Read(1)]);
    }
    connection.expect_heads([true]);
    keep(&mut connection, &[Step::Send(head("HEAD", "/bytes/500", "\r\n")), Step::Read(1)]);
    let mut upload = head("POST", "/echo-hash", "Content-Length: 200000\r\n\r\n");
    upload.resize(upload.len() + 200_000, b'u');
    keep(&mut connection, &[Step::SendInPieces(upload, 30_000), Step::Read(1)]);
    let start = String::from_utf8(head("POST", "/echo-hash", "")).unwrap();
    let chunked = client::chunked_request(&start, &[&[b'c'; 3000], b"d"], "X-Sum: 3001\r\n");
    keep(&mut connection, &[Step::Send(chunked), Step::Read(1)]);
    let expecting = head("PUT", "/echo-hash", "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    keep(
        &mut connection,
        &[Step::Send(expecting), Step::ReadInterim, Step::Send(b"body".to_vec()), Step::Read(1)],
    );
    let pipelined: Vec<u8> =
        (0..20).flat_map(|bytes| head("GET", &format!("/bytes/{bytes}"), "\r\n")).collect();
    keep(&mut connection, &[Step::Send(pipelined), Step::Read(20)]);
    keep(&mut stage.connect(), &[Step::Send(head("GET", "/until-close/9000", "\r\n")), Step::Read(1)]);
    answers
}

/// A request's head; `more` ends it, and holds more fields.
fn head(method: &str, target: &str, more: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{more}").into_bytes()
}

/// A GET of `/?id=N`, with its answer read.
pub(crate) fn ask(stage: &Stage, id: u64) {
    let answer = client::get(&stage.lab.client, gateway(), HOST, &format!("/?id={id}")).unwrap();
    assert_eq!(answer.status, 200);
}

/// Waits until a request that is sent now also arrives at the shadow; `first_id` was never used before.
pub(crate) fn wait_until_mirrored(stage: &Stage, first_id: u64) {
    let mut id = first_id;
    mirror_tests::wait::until_true("requests are mirrored", Duration::from_secs(120), || {
        ask(stage, id);
        id += 1;
        !stage.shadow.log().missing(id).contains(&(id - 1))
    })
    .unwrap();
}
