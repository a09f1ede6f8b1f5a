//! Random true connections: whatever the network does to them, only true requests come out, and the books balance.

use crate::model::{Message, Turn, packets, turns};
use crate::network::{Dice, Network, client_bytes, joined_at, network, snap};
use crate::world::{Outcome, observed, sorted, stranger};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

/// One shadow that gets whole bodies, one that gets nearly all streamed, one that gets every second request.
const CONFIG: &str = r#"
[capture]
interfaces = ["unused"]
ports = [8080]

[[shadow]]
name = "buffered"
url = "http://127.0.0.1:9"
buffer_body = "1MiB"

[[shadow]]
name = "streamed"
url = "http://127.0.0.1:9"
buffer_body = "16B"
stream_window = "4MiB"

[[shadow]]
name = "half"
url = "http://127.0.0.1:9"

[[route]]
hosts = ["shadowing.example"]
  [[route.rule]]
  mirror = [{ shadow = "buffered" }, { shadow = "streamed" }, { shadow = "half", percentage = 50, key = "query:id" }]
"#;

fn flat(turns: &[Turn]) -> Vec<&Message> {
    turns.iter().flatten().collect()
}

/// What a capture without any accident gives: every request, once for each mirror that is due.
fn truth(turns: &[Turn]) -> Outcome {
    let outcome = observed(CONFIG, &packets(turns, Network::PLAIN, Dice(0)));
    let messages = flat(turns);
    assert_eq!(outcome.ledger.matched.value(), messages.len() as u64);
    assert_eq!(outcome.ledger.seen(), messages.len() as u64);
    for shadow in [0, 1] {
        let sent: Vec<_> = outcome.sent.iter().filter(|sent| sent.shadow == shadow).collect();
        assert_eq!(sent.len(), messages.len());
        for (number, message) in messages.iter().enumerate() {
            let target = format!(" {} HTTP/1.1\r\n", Message::target(number));
            let found = sent.iter().find(|sent| sent.head.contains(&target)).expect("every request was sent");
            assert_eq!(
                (found.body.as_slice(), found.trailers.as_str()),
                (message.body(), message.trailers())
            );
        }
    }
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_segmentation_reordering_repetition_and_overlap_gives_the_same_requests(
        turns in turns(), network in network(), seed in any::<u64>(), snap in snap()
    ) {
        let mut packets = packets(&turns, network, Dice(seed));
        snap.apply(&mut packets);
        let outcome = observed(CONFIG, &packets);
        prop_assert_eq!(sorted(&outcome), sorted(&truth(&turns)));
        prop_assert_eq!(outcome.ledger.dropped.total(), 0);
        prop_assert_eq!(outcome.aborted, 0);
    }

    #[test]
    fn joining_at_any_byte_gives_only_true_requests(
        turns in turns(), network in network(), seed in any::<u64>(), snap in snap(),
        at in any::<proptest::sample::Index>()
    ) {
        let mut packets = packets(&turns, network, Dice(seed));
        snap.apply(&mut packets);
        let bytes = client_bytes(&packets);
        joined_at(&mut packets, at.index(bytes.max(1)));
        let outcome = observed(CONFIG, &packets);
        let truth = truth(&turns);
        prop_assert_eq!(stranger(&outcome.sent, &truth.sent), None);
        prop_assert!(outcome.ledger.matched.value() <= truth.ledger.matched.value());
    }

    #[test]
    fn lost_records_give_only_whole_true_requests(
        turns in turns(), network in network(), seed in any::<u64>(), snap in snap(), one_in in 2_usize..60
    ) {
        let mut packets = packets(&turns, network, Dice(seed));
        snap.apply(&mut packets);
        let mut dice = Dice(!seed);
        packets.retain(|_| !dice.one_in(one_in));
        let outcome = observed(CONFIG, &packets);
        prop_assert_eq!(stranger(&outcome.sent, &truth(&turns).sent), None);
    }

    #[test]
    fn records_lost_after_a_join_give_only_whole_true_requests(
        turns in turns(), network in network(), seed in any::<u64>(), snap in snap(),
        skipped in 1_usize..20, one_in in 5_usize..60
    ) {
        let mut packets = packets(&turns, network, Dice(seed));
        snap.apply(&mut packets);
        packets.drain(..skipped.min(packets.len()));
        let mut dice = Dice(!seed);
        packets.retain(|_| !dice.one_in(one_in));
        let outcome = observed(CONFIG, &packets);
        prop_assert_eq!(stranger(&outcome.sent, &truth(&turns).sent), None);
    }

    #[test]
    fn same_packets_give_the_same_outcome(turns in turns(), network in network(), seed in any::<u64>()) {
        let packets = packets(&turns, network, Dice(seed));
        prop_assert_eq!(observed(CONFIG, &packets).sent, observed(CONFIG, &packets).sent);
    }
}

#[test]
fn most_requests_of_a_joined_connection_are_mirrored() {
    // So that "only true requests" is not kept by mirroring none.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut sent, mut all) = (0, 0);
    for seed in 0..200 {
        let turns = proptest::collection::vec(turns(), 4..6)
            .new_tree(&mut runner)
            .expect("a tree")
            .current()
            .concat();
        let network = Network { cut_bytes: Some(1000), is_rough: false };
        let mut packets = packets(&turns, network, Dice(seed));
        joined_at(&mut packets, 100);
        sent += observed(CONFIG, &packets).ledger.matched.value();
        all += flat(&turns).len() as u64;
    }
    assert!(sent * 10 > all * 7, "{sent} of {all}");
}
