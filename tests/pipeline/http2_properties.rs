//! Random true connections of HTTP/2: whatever the network does to them, only true requests come out, and the books
//! balance.

use crate::http2_model::{Connection, Expected, connections};
use crate::network::{Dice, Network, Packet, Snap, client_bytes, joined_at, network, snap};
use crate::world::{Outcome, Sent, observed, sorted, stranger};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

/// One shadow that gets whole bodies, one that gets nearly all streamed and in HTTP/1, one that gets every second
/// request.
const CONFIG: &str = r#"
[capture]
interfaces = ["unused"]
ports = [8080]

[[shadow]]
name = "buffered"
url = "http://127.0.0.1:9"
buffer_body = "1MiB"
stream_window = "4MiB"

[[shadow]]
name = "streamed"
url = "http://127.0.0.1:9"
protocol = "http1"
buffer_body = "16B"
stream_window = "4MiB"

[[shadow]]
name = "half"
url = "http://127.0.0.1:9"
protocol = "http2"
stream_window = "4MiB"

[[route]]
hosts = ["shadowing.example"]
  [[route.rule]]
  mirror = [{ shadow = "buffered" }, { shadow = "streamed" }, { shadow = "half", percentage = 50, key = "query:id" }]
"#;

/// What a capture without any accident gives: every whole request, once for each mirror that is due.
fn truth(connection: &Connection) -> Outcome {
    let outcome = observed(CONFIG, &connection.packets(Network::PLAIN, Dice(0)));
    assert_eq!(outcome.ledger.matched.value(), connection.requests() as u64);
    assert_eq!(outcome.ledger.seen(), connection.requests() as u64);
    let whole = connection.whole();
    for shadow in [0, 1] {
        let sent: Vec<_> = outcome.sent.iter().filter(|sent| sent.shadow == shadow).collect();
        assert_eq!(sent.len(), whole.len());
        whole.iter().for_each(|expected| assert_was_sent(&sent, expected));
    }
    outcome
}

fn assert_was_sent(sent: &[&Sent], expected: &Expected<'_>) {
    // Behind the path, the line ends or names the version.
    let [in_http2, in_http1] =
        ["\r\n", " HTTP/1.1\r\n"].map(|end| format!("/true?id={}{end}", expected.number));
    let is_it = |sent: &&&Sent| sent.head.contains(&in_http2) || sent.head.contains(&in_http1);
    let found = sent.iter().find(is_it).expect("every whole request was sent");
    assert_eq!(found.body, expected.body);
    assert_eq!(found.trailers, if expected.has_trailers { "x-sum: 7\r\n" } else { "" });
    assert!(found.head.contains("shadowing.example-shadow\r\n"), "{}", found.head);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn any_segmentation_reordering_repetition_and_overlap_gives_the_same_requests(
        connection in connections(), network in network(), seed in any::<u64>(), snap in snap()
    ) {
        let mut packets = connection.packets(network, Dice(seed));
        snap.apply(&mut packets);
        let outcome = observed(CONFIG, &packets);
        prop_assert_eq!(sorted(&outcome), sorted(&truth(&connection)));
        prop_assert_eq!(outcome.ledger.dropped.total(), 0);
    }

    #[test]
    fn joining_at_any_byte_gives_only_true_requests(
        connection in connections(), network in network(), seed in any::<u64>(), snap in snap(),
        at in any::<proptest::sample::Index>()
    ) {
        let mut packets = connection.packets(network, Dice(seed));
        snap.apply(&mut packets);
        let bytes = client_bytes(&packets);
        joined_at(&mut packets, at.index(bytes.max(1)));
        let outcome = observed(CONFIG, &packets);
        prop_assert_eq!(stranger(&outcome.sent, &truth(&connection).sent), None);
    }

    #[test]
    fn lost_records_give_only_whole_true_requests(
        connection in connections(), network in network(), seed in any::<u64>(), snap in snap(), one_in in 2_usize..60
    ) {
        let mut packets = connection.packets(network, Dice(seed));
        snap.apply(&mut packets);
        let mut dice = Dice(!seed);
        packets.retain(|_| !dice.one_in(one_in));
        let outcome = observed(CONFIG, &packets);
        prop_assert_eq!(stranger(&outcome.sent, &truth(&connection).sent), None);
    }

    #[test]
    fn records_lost_after_a_join_give_only_whole_true_requests(
        connection in connections(), network in network(), seed in any::<u64>(), snap in snap(),
        skipped in 1_usize..20, one_in in 5_usize..60
    ) {
        let mut packets = connection.packets(network, Dice(seed));
        snap.apply(&mut packets);
        packets.drain(..skipped.min(packets.len()));
        let mut dice = Dice(!seed);
        packets.retain(|_| !dice.one_in(one_in));
        let outcome = observed(CONFIG, &packets);
        prop_assert_eq!(stranger(&outcome.sent, &truth(&connection).sent), None);
    }
}

/// Connections of many rounds, the same in every run. What refers to the time before a join can't be known, so these
/// do not.
fn long_connections(parts: usize) -> impl Iterator<Item = Connection> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    std::iter::from_fn(move || {
        let many = proptest::collection::vec(connections(), parts);
        let many = many.new_tree(&mut runner).expect("a tree").current();
        many.into_iter().reduce(Connection::then).map(Connection::without_table)
    })
}

/// Which part of the requests of so many connections, of so many parts, is mirrored, in percent, where `harm` was done
/// to the packets.
fn mirrored_percent((connections, parts): (usize, usize), harm: impl Fn(&mut Vec<Packet>)) -> usize {
    let network = Network { cut_bytes: Some(1448), is_rough: false };
    let (mut sent, mut all) = (0, 0);
    for (connection, seed) in long_connections(parts).take(connections).zip(0..) {
        let mut packets = connection.packets(network, Dice(seed));
        harm(&mut packets);
        let outcome = observed(CONFIG, &packets);
        sent += outcome.sent.iter().filter(|sent| sent.shadow == 0).count();
        all += connection.whole().len();
    }
    sent * 100 / all
}

// So that "only true requests" is not kept by mirroring none.

#[test]
fn most_requests_of_a_joined_connection_are_mirrored() {
    let percent = mirrored_percent((4, 60), |packets| joined_at(packets, 100));
    assert!(percent > 50, "{percent} % mirrored");
}

#[test]
fn many_requests_of_a_connection_with_lost_records_are_mirrored() {
    let percent = mirrored_percent((8, 12), |packets| {
        let mut dice = Dice(7);
        packets.retain(|_| !dice.one_in(100));
    });
    assert!(percent > 20, "{percent} % mirrored");
}

#[test]
fn beginnings_of_answers_are_enough_for_a_connection_that_was_seen_from_its_start() {
    let percent = mirrored_percent((8, 12), |packets| Snap::Beginning.apply(packets));
    assert_eq!(percent, 100);
}
