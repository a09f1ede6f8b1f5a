//! What is copied, into which ring, and how what is not copied is told.

use super::*;

#[test]
fn nothing_is_told_while_the_heartbeat_is_stale() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut capture = opened(&config(vec![interface(&place, "eth0")]), by_default());
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    server.exchange(&place.client_netns(), SMALL, 1);
    capture.live.beat().expect("a map to write");
    capture.live.stop().expect("a map to write");
    server.exchange(&place.client_netns(), SMALL, 1);
    let mut log = Log::default();
    read_all(&mut capture, &mut log);
    assert_eq!((log.records, log.events.len()), (0, 0));
    let counters = capture.counters.snapshot().expect("counters");
    assert!(counters.of(KernelCounter::Inert) > 0);
    assert_eq!(counters.of(KernelCounter::Segments), 0);
}

#[test]
fn full_ring_costs_the_copy_and_every_lost_byte_is_counted_and_marked() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut config = config(vec![interface(&place, "eth0")]);
    config.ring_bytes = 1;
    let mut capture = opened(&config, by_default());
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    // Nobody reads: production gets its bytes all the same, which `exchange` asserts.
    with_heartbeat(&mut capture.live, || server.exchange(&place.client_netns(), LARGE, 1));
    let mut log = Log::default();
    read_all(&mut capture, &mut log);
    let counters = capture.counters.snapshot().expect("counters");
    assert_eq!(counters.unbalanced_bytes(), 0, "{counters:?}");
    assert!(counters.of(KernelCounter::RingFullRecords) > 0);
    assert_eq!(counters.of(KernelCounter::ControlFull), 0);
    let marked: u64 = log
        .events
        .iter()
        .map(|event| match event {
            ControlEvent::Lost { bytes, reason: LossReason::RingFull, .. } => u64::from(*bytes),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(marked, counters.of(KernelCounter::RingFullBytes));
}

#[test]
fn both_directions_of_a_flow_are_in_one_ring_which_user_space_can_tell() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut config = config(vec![interface(&place, "eth0")]);
    config.shards = 2;
    let mut capture = opened(&config, by_default());
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    let log = record(&mut capture, || server.exchange(&client_netns, SMALL, 40), |log| log.finished() == 40);
    assert_eq!(log.finished(), 40);
    for (flow, shards) in &log.shards {
        assert_eq!(shards, &[flow.hash().shard(2)], "user space finds another ring for {flow:?}");
    }
    for shard in 0..2 {
        assert!(log.shards.values().any(|shards| shards == &[shard]), "ring {shard} is never used");
    }
}

#[test]
fn shed_level_leaves_out_whole_flows() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut capture = opened(&config(vec![interface(&place, "eth0")]), by_default());
    capture.live.shed(SHED_LEVELS / 2);
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    let log = record(
        &mut capture,
        || server.exchange(&client_netns, SMALL, 40),
        |log| log.finished() == log.shards.len(),
    );
    assert!((5..36).contains(&log.finished()), "{} of 40", log.finished());
    assert_eq!(log.finished(), log.shards.len(), "a flow was told in part");
    let counters = capture.counters.snapshot().expect("counters");
    assert_eq!(counters.unbalanced_bytes(), 0);
    assert!(counters.of(KernelCounter::ShedBytes) > 0);
    capture.live.shed(SHED_LEVELS);
    let log = record(&mut capture, || server.exchange(&client_netns, SMALL, 5), |_| true);
    assert_eq!(log.records, 0);
}

#[test]
fn verdicts_stop_the_copy_until_the_next_syn() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut capture = opened(&config(vec![interface(&place, "eth0")]), by_default());
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    let (key, start) = {
        capture.live.beat().expect("a map to write");
        let mut talk = server.talk(&client_netns);
        capture.live.beat().expect("a map to write");
        talk.send(b"first");
        let mut log = Log::default();
        read_all(&mut capture, &mut log);
        let key = *log.shards.keys().next().expect("one connection");
        let start = log.flows[&(key, true)].start().expect("the SYN was told");
        // 5 bytes so far; the next 5 are passed over, what follows is copied.
        capture.verdicts[0].pass_over(&key, SeqNumber(start.wrapping_add(10)));
        capture.verdicts[0].settle().expect("a map to write");
        capture.live.beat().expect("a map to write");
        talk.send(b"over!");
        capture.live.beat().expect("a map to write");
        talk.send(b"third");
        let mut log = Log::default();
        read_all(&mut capture, &mut log);
        let told = &log.flows[&(key, true)];
        assert_eq!(told.segment_bytes, 10, "the header of what is passed over still comes");
        assert_eq!(told.payload(), b"third");
        capture.verdicts[0].ignore(&key);
        capture.verdicts[0].settle().expect("a map to write");
        capture.live.beat().expect("a map to write");
        talk.send(b"fourth");
        let mut log = Log::default();
        read_all(&mut capture, &mut log);
        assert_eq!(log.records, 0);
        capture.verdicts[0].capture(&key);
        capture.verdicts[0].settle().expect("a map to write");
        capture.live.beat().expect("a map to write");
        talk.send(b"fifth");
        read_all(&mut capture, &mut log);
        assert_eq!(log.flows[&(key, true)].payload(), b"fifth");
        (key, start)
    };
    let counters = capture.counters.snapshot().expect("counters");
    assert_eq!(counters.of(KernelCounter::PassedOverBytes), 5);
    assert_eq!(counters.of(KernelCounter::IgnoredBytes), 6);
    assert_eq!(counters.unbalanced_bytes(), 0);
    assert!(key.gateway_port == PORT && start != 0);
}

#[test]
fn test_knob_drops_one_in_so_many_records_and_counts_them() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut capture =
        capture::open_with(&config(vec![interface(&place, "eth0")]), TestKnobs { drop_one_in: 4 })
            .expect("root");
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    record(&mut capture, || server.exchange(&client_netns, SMALL, 40), |_| true);
    let counters = capture.counters.snapshot().expect("counters");
    let (dropped, tried) =
        (counters.of(KernelCounter::TestDroppedRecords), counters.of(KernelCounter::TriedRecords));
    assert!(dropped > tried / 8 && dropped < tried / 2, "{dropped} of {tried}");
    assert_eq!(counters.unbalanced_bytes(), 0);
}

#[test]
fn records_say_whether_the_flow_is_the_gateways_own() {
    if !may_test_kernel() {
        return;
    }
    let mut place = Place::new(false);
    let cgroup = place.make_cgroup();
    let mut config = config(vec![interface(&place, "eth0")]);
    config.gateway_cgroups = vec![cgroup.clone()];
    let mut capture = opened(&config, by_default());
    let client_netns = place.client_netns();
    let ours = Server::in_cgroup(&cgroup, &place.gateway_netns(), place.gateway_addr(), PORT);
    let is_done = |log: &Log| log.finished() == 1 && log.events.len() >= 2;
    let log = record(&mut capture, || ours.exchange(&client_netns, SMALL, 1), is_done);
    let (request, answer) = log.only();
    assert_eq!(request.selected.last(), Some(&Some(true)));
    assert_eq!(answer.selected.last(), Some(&Some(true)));
    let key = *log.shards.keys().next().expect("one connection");
    let anywhere = key.at_point(ANY_POINT);
    assert!(
        matches!(log.events[0], ControlEvent::Opened { flow, .. } if flow == anywhere),
        "{:?}",
        log.events
    );
    assert!(
        matches!(log.events[1], ControlEvent::Closed { flow, .. } if flow == anywhere),
        "{:?}",
        log.events
    );
    drop(ours);
    let others = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let log = record(&mut capture, || others.exchange(&client_netns, SMALL, 1), |log| log.finished() == 1);
    let (request, answer) = log.only();
    assert!(request.selected.iter().chain(&answer.selected).all(|selected| *selected == Some(false)));
    assert_eq!(log.events, []);
}

/// How long a reader may take to sleep, and a client to be heard.
const SLEEP_LIMIT: Duration = Duration::from_secs(60);
/// A sleep that nothing ends lasts for a second, a tick for some milliseconds.
const LONG_WAIT: Duration = Duration::from_millis(900);

/// Waits until `reader` sleeps instead of ticking.
fn fall_asleep(reader: &mut RingReader) {
    let from = Instant::now();
    let mut long_waits = 0;
    // Two in a row: where the machine paused, a tick looks like one.
    while long_waits < 2 {
        assert!(from.elapsed() < SLEEP_LIMIT, "it ticks on");
        let before = Instant::now();
        reader.wait(None).expect("a ring to wait for");
        long_waits = if before.elapsed() > LONG_WAIT { long_waits + 1 } else { 0 };
    }
}

#[test]
fn sleeping_reader_is_woken_by_the_next_record() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut capture = opened(&config(vec![interface(&place, "eth0")]), by_default());
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    let mut reader = capture.readers.remove(0);
    with_heartbeat(&mut capture.live, || {
        fall_asleep(&mut reader);
        let from = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| server.exchange(&client_netns, SMALL, 1));
            let (mut records, mut sleeps) = (0, 0);
            while records == 0 {
                assert!(from.elapsed() < SLEEP_LIMIT, "no record");
                reader.wait(None).expect("a ring to wait for");
                sleeps += 1;
                records += reader.drain(1000, |_| ()).records;
            }
            // A sleep that nothing ends lasts for a second; a reader that ticked would have looked far more often.
            assert!(sleeps < 5 + from.elapsed().as_secs(), "{sleeps} sleeps in {:?}", from.elapsed());
        });
    });
    assert!(capture.counters.snapshot().expect("counters").of(KernelCounter::WakeUps) >= 1);
    let waker = reader.waker();
    while reader.drain(1000, |_| ()).more {}
    fall_asleep(&mut reader);
    // The quickest counts, for any one may be held up by the machine.
    let quickest = (0..5).map(|_| {
        waker.wake();
        let from = Instant::now();
        reader.wait(None).expect("a ring to wait for");
        from.elapsed()
    });
    assert!(quickest.min().expect("five") < Duration::from_millis(500));
}
