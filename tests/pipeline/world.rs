//! A pipeline behind a capture file, with an outlet that only remembers.

use crate::network::{Packet, write};
use mirror_daemon::capture::pcap::PcapSource;
use mirror_daemon::config::Config;
use mirror_daemon::flow::HashSeed;
use mirror_daemon::pipeline::{Pipeline, View};
use mirror_daemon::telemetry::Ledger;
use mirror_tests::outlet::Memory;
pub(crate) use mirror_tests::outlet::Sent;
use mirror_tests::pcap::{Conversation, PcapWriter};
use std::sync::Arc;

/// Everything a run made.
pub(crate) struct Outcome {
    pub(crate) sent: Vec<Sent>,
    /// Streamed bodies that were aborted.
    pub(crate) aborted: usize,
    pub(crate) ignored_flows: usize,
    /// Bytes that the pipeline still held after the end.
    pub(crate) held_bytes: usize,
    pub(crate) ledger: Arc<Ledger>,
}

/// Runs the pipeline of `config` over what `write` puts into a capture file.
pub(crate) fn run(config: &str, write: impl FnOnce(&mut PcapWriter<Vec<u8>>)) -> Outcome {
    let mut pcap = PcapWriter::new(Vec::new()).expect("a Vec takes all");
    write(&mut pcap);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), pcap.into_inner()).expect("the temporary file is writable");

    let config = Arc::new(Config::from_toml(config, "test.toml").expect("the test's configuration is right"));
    let ledger = Arc::new(Ledger::default());
    let view = Arc::new(View::new(0, Arc::clone(&config), &ledger));
    let mut pipeline = Pipeline::new(view, Arc::clone(&ledger), HashSeed([1, 2]), Memory::default());
    let mut source = PcapSource::open(file.path(), config.capture.leg, &config.capture.ports)
        .expect("our own file is right");
    source
        .for_each(|segment| {
            pipeline.handle_timeout(segment.at);
            pipeline.handle_segment(segment);
        })
        .expect("our own file is right to its end");
    pipeline.handle_end();
    let held_bytes = pipeline.held_bytes();
    let memory = std::mem::take(pipeline.outlet_mut());
    let (offered, ignored_flows) = (memory.offered(), memory.ignored.len());
    let sent = memory.into_whole();
    Outcome { aborted: offered - sent.len(), ignored_flows, held_bytes, sent, ledger }
}

/// What `config`, whose every rule has three mirrors, makes of `packets`.
pub(crate) fn observed(config: &str, packets: &[Packet]) -> Outcome {
    let outcome = run(config, |pcap| write(pcap, packets));
    assert_books_balance(&outcome);
    outcome
}

/// What is owed was offered (whole or aborted), sampled out or lost; three mirrors for each matched request.
fn assert_books_balance(outcome: &Outcome) {
    let (mut owed, mut closed) = (0, outcome.sent.len() as u64 + outcome.aborted as u64);
    for (_, books) in outcome.ledger.shadows() {
        owed += books.owed.value();
        closed += books.sampled_out.value() + books.shed.total() + books.dropped.total();
    }
    assert_eq!(owed, outcome.ledger.matched.value() * 3, "three mirrors a request");
    assert_eq!(owed, closed, "owed = offered + sampled out + lost");
    assert_eq!(outcome.held_bytes, 0, "nothing is held after the end");
}

/// What was sent, in an order that does not depend on when.
pub(crate) fn sorted(outcome: &Outcome) -> Vec<Sent> {
    let mut sent = outcome.sent.clone();
    sent.sort_by(|a, b| (a.shadow, &a.head, &a.body).cmp(&(b.shadow, &b.head, &b.body)));
    sent
}

/// The first of `sent` that is not one of `all`, each of `all` being good for one.
pub(crate) fn stranger<'a>(sent: &'a [Sent], all: &[Sent]) -> Option<&'a Sent> {
    let mut left: Vec<_> = all.iter().collect();
    sent.iter().find(|found| match left.iter().position(|one| one == found) {
        Some(index) => {
            left.swap_remove(index);
            false
        }
        None => true,
    })
}

/// A connection between two fixed addresses, opened.
pub(crate) fn opened(pcap: &mut PcapWriter<Vec<u8>>) -> Conversation {
    let mut talk = joined();
    talk.open(pcap).expect("a Vec takes all");
    talk
}

/// The same connection, without its opening.
pub(crate) fn joined() -> Conversation {
    Conversation::new(
        "10.77.0.1:40000".parse().expect("an address"),
        "10.77.0.2:8080".parse().expect("an address"),
    )
}
