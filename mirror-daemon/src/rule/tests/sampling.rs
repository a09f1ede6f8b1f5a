//! Which requests a share picks.

use super::*;

#[test]
fn percentages_are_read_exactly() {
    let same = |text: &str, numerator, denominator| {
        assert_eq!(Share::percent(text), Share::fraction(numerator, denominator), "{text}");
    };
    same("0.39", 39, 10_000);
    same("100", 1, 1);
    same("100.000", 1, 1);
    same("0", 0, 1);
    same("-0.0", 0, 1);
    same("1e2", 1, 1);
    same("1.5e-3", 15, 1_000_000);
    same("0.0001", 1, 1_000_000);
    same("33.333333333333", 33_333_333_333_333, 100_000_000_000_000);
    for text in ["100.01", "-1", "101", "nan", "inf", "1e99", "99999999999999999999999"] {
        assert_eq!(Share::percent(text), Err(ShareFault::Range), "{text}");
    }
    for text in ["", ".", "x", "1.2.3", "1e", "--1", "1%", "0x10"] {
        assert_eq!(Share::percent(text), Err(ShareFault::NotANumber), "{text}");
    }
    assert_eq!(Share::percent("0.0000000000001"), Err(ShareFault::TooFine));
    assert_eq!(Share::percent("1e-99999"), Err(ShareFault::TooFine));
    assert_eq!(Share::percent("0.39").unwrap().to_string(), "0.39 %");
    assert_eq!(Share::ALL.to_string(), "100 %");
    assert_eq!(Share::fraction(1, 3).unwrap().to_string(), "1/3");
}

#[test]
fn none_picks_nothing_and_all_picks_everything() {
    for hash in [0, 1, u64::MAX / 2, u64::MAX] {
        assert!(!Share::NONE.picks(hash));
        assert!(Share::ALL.picks(hash));
        assert!(Share::fraction(u64::MAX, u64::MAX).unwrap().picks(hash));
    }
    let half = Share::fraction(1, 2).unwrap();
    assert!(half.picks((1 << 63) - 1));
    assert!(!half.picks(1 << 63));
}

#[test]
fn same_key_gets_the_same_answer_whatever_the_connection() {
    let half = Share::percent("50").unwrap();
    let keys = [
        (SampleBy::Header("X-User".into()), "/", ("x-user", "u1")),
        (SampleBy::Cookie("user".into()), "/", ("cookie", "a=b; user=u1; c=d")),
        (SampleBy::Query("user".into()), "/?x=1&user=u1", ("x", "")),
        (SampleBy::ClientIp, "/", ("x", "")),
        (SampleBy::Request, "/", ("X-Request-Id", "r1")),
    ];
    for (by, target, field) in keys {
        let rules = sampled(vec![mirror(half, by.clone(), "")], "seed");
        let fields = fields(&[field]);
        let request = head("GET", target, &fields);
        let answers: std::collections::BTreeSet<_> =
            (0..64).map(|number| picked_of(&rules, &request, &sender(number))).collect();
        assert_eq!(answers.len(), 1, "{by}");
    }
}

#[test]
fn request_without_the_key_is_sampled_by_itself() {
    let ten = Share::percent("10").unwrap();
    let rules = sampled(vec![mirror(ten, SampleBy::Header("x-user".into()), "")], "seed");
    let by_request = sampled(vec![mirror(ten, SampleBy::Request, "")], "seed");
    let empty = fields(&[("x-user", "")]);
    let mut picked = 0;
    for number in 0..10_000 {
        let here = picked_of(&rules, &head("GET", "/", &[]), &sender(number));
        assert_eq!(here, picked_of(&by_request, &head("GET", "/", &empty), &sender(number)));
        picked += u32::from(here[0]);
    }
    assert!((880..=1120).contains(&picked), "{picked} of 10000 at 10 %");
}

#[test]
fn capture_point_does_not_change_the_choice() {
    let rules = sampled(vec![mirror(Share::percent("50").unwrap(), SampleBy::Request, "")], "seed");
    for number in 0..100 {
        let here = sender(number);
        let mut there = here;
        there.flow.capture_point = 7;
        let request = head("GET", "/", &[]);
        assert_eq!(picked_of(&rules, &request, &here), picked_of(&rules, &request, &there));
    }
}

#[test]
fn mirrors_of_a_rule_pick_the_same_requests_and_salt_makes_one_independent() {
    let ten = Share::percent("10").unwrap();
    let rules = sampled(
        vec![
            mirror(ten, SampleBy::Request, ""),
            mirror(ten, SampleBy::Request, ""),
            mirror(ten, SampleBy::Request, "other"),
        ],
        "seed",
    );
    let (mut first, mut both) = (0_u32, 0_u32);
    for number in 0..20_000 {
        let picked = picked_of(&rules, &head("GET", "/", &[]), &sender(number));
        assert_eq!(picked[0], picked[1]);
        first += u32::from(picked[0]);
        both += u32::from(picked[0] && picked[2]);
    }
    assert!((1830..=2170).contains(&first), "{first}");
    assert!((140..=260).contains(&both), "independent: about 1 % of 20000, not {both}");
}

#[test]
fn hash_is_the_same_in_every_build() {
    let rules =
        sampled(vec![mirror(Share::percent("50").unwrap(), SampleBy::Header("k".into()), "")], DEFAULT_SEED);
    let answers: String = (0..32)
        .map(|key| {
            let key = key.to_string();
            let fields = fields(&[("k", &key)]);
            if picked_of(&rules, &head("GET", "/", &fields), &sender(0))[0] { '1' } else { '0' }
        })
        .collect();
    assert_eq!(answers, PINNED_ANSWERS);
}

/// Nodes of different versions must agree: a change here is a change for users.
const PINNED_ANSWERS: &str = "11010011100001101000011011000011";

#[test]
fn every_two_decimal_percentage_hits_its_share_and_samples_nest() {
    const KEYS: u64 = 40_000;
    let by_key = sampled(vec![mirror(Share::percent("50").unwrap(), SampleBy::Request, "")], "share");
    // One hash for each key serves all percentages, as in the daemon.
    let sampler = &by_key.rules[0].mirrors[0].sampler;
    let mut hashes: Vec<u64> =
        (0..KEYS).map(|number| sampler.hash(&head("GET", "/", &[]), &sender(number))).collect();
    hashes.sort_unstable();
    let mut before = 0;
    for hundredths in 0..=10_000_u64 {
        let share = Share::percent(&format!("{}.{:02}", hundredths / 100, hundredths % 100)).unwrap();
        // Sorted: picked hashes are a prefix, so that a larger share holds every smaller one.
        let picked = hashes.partition_point(|hash| share.picks(*hash));
        assert!(picked >= before);
        before = picked;
        let (n, p) = (KEYS as f64, hundredths as f64 / 10_000.0);
        let sigma = (n * p * (1.0 - p)).sqrt();
        assert!((picked as f64 - n * p).abs() <= 4.0 * sigma, "{hundredths}: {picked}");
    }
    assert_eq!(before, usize::try_from(KEYS).unwrap());
}

#[test]
fn several_mirrors_of_a_rule_are_each_listed_with_their_own_share() {
    let mut second = mirror(Share::NONE, SampleBy::Request, "");
    second.shadow = ShadowId(1);
    let rules = sampled(vec![mirror(Share::ALL, SampleBy::Request, ""), second], "seed");
    let Decision::Matched { rule, mirrors } = rules.decide(&head("GET", "/", &[]), &sender(0)) else {
        panic!("the rule matches all")
    };
    assert_eq!(rule, "r");
    let expected = [(ShadowId(0), true), (ShadowId(1), false)];
    assert_eq!(mirrors.iter().map(|verdict| (verdict.shadow, verdict.picked)).collect::<Vec<_>>(), expected);
}

#[test]
fn request_id_header_has_a_configurable_name() {
    let rule = RouteRule {
        mirrors: vec![mirror(Share::percent("50").unwrap(), SampleBy::Request, "")],
        ..rule("r", Match::default())
    };
    let sampling = Sampling { request_id: "x-trace".into(), ..Sampling::default() };
    let rules = Rules::new(vec![route(&[], vec![rule])], &sampling);
    let answers = |fields: &[Field<'_>]| -> std::collections::BTreeSet<Vec<bool>> {
        (0..64).map(|number| picked_of(&rules, &head("GET", "/", fields), &sender(number))).collect()
    };
    assert_eq!(answers(&fields(&[("X-Trace", "t1")])).len(), 1);
    assert_eq!(answers(&fields(&[("x-request-id", "t1")])).len(), 2, "no longer the request id");
}
