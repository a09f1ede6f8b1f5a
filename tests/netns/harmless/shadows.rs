//! Shadows that are dead, hang, are slow, or break off: none of that reaches production, or another shadow.

use std::time::Duration;

use mirror_tests::client::load::Load;
use mirror_tests::netns::Role;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::{Behaviour, LogMode, TestApp};

use super::production_answers;
use crate::stage::{DEAD_PORT, HOST, STOP_LIMIT, Stage, Wish, gateway, one_at_a_time, quiet_books};

/// A shadow that is given up soon, so that the books close soon.
const IMPATIENT: &str = "timeout = \"500ms\"\nconnect_timeout = \"500ms\"";

#[test]
fn production_answers_alike_whatever_the_shadow_does() {
    if !root_or_skip("production_answers_alike_whatever_the_shadow_does") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let absent = production_answers(&stage);
    let mut daemon = stage.daemon_with(&Wish::shadow_at(DEAD_PORT, IMPATIENT));
    assert_eq!(production_answers(&stage), absent, "refused");
    let books = quiet_books(&daemon, absent.len() as u64);
    books.assert_balanced();
    assert_eq!(books.shadow("app", "replayed"), 0);
    daemon.stop(STOP_LIMIT).unwrap();
    let behaviours = [
        Behaviour::Silent,
        Behaviour::Slow(Duration::from_millis(200)),
        Behaviour::CloseAfterHead,
        Behaviour::Status(503),
    ];
    for behaviour in behaviours {
        stage.shadow.behave(behaviour);
        let mut daemon = stage.daemon_with(&Wish::shadow_at(crate::stage::APP_PORT, IMPATIENT));
        assert_eq!(production_answers(&stage), absent, "{behaviour:?}");
        let books = quiet_books(&daemon, absent.len() as u64);
        books.assert_balanced();
        assert!(books.kernel_complete());
        assert_eq!(books.seen(), absent.len() as u64, "{behaviour:?}");
        daemon.stop(STOP_LIMIT).unwrap();
    }
}

#[test]
fn dead_and_hanging_shadows_do_not_hold_up_another_of_the_same_rule() {
    if !root_or_skip("dead_and_hanging_shadows_do_not_hold_up_another_of_the_same_rule") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::new(&LogMode::Count);
    let hanging = TestApp::start(&stage.lab.shadow, Role::Shadow.at(8001), LogMode::Count).unwrap();
    hanging.behave(Behaviour::Silent);
    let url = |port| format!("http://{}", Role::Shadow.at(port));
    let wish = Wish {
        shadows: vec![
            ("dead", url(DEAD_PORT), IMPATIENT),
            ("hanging", url(8001), "timeout = \"1s\"\nmax_in_flight = 8"),
            ("app", url(crate::stage::APP_PORT), ""),
        ],
        ..Wish::default()
    };
    let daemon = stage.daemon_with(&wish);
    let requests = 4000;
    let load = Load { rate: Some(1000.0), ..Load::new(gateway(), HOST, requests) };
    let report = load.run(&stage.lab.client).unwrap();
    assert_eq!((report.good, report.failed), (requests, 0), "{:?}", report.first_failure);
    let books = quiet_books(&daemon, requests);
    assert!(stage.shadow.log().missing(requests).is_empty(), "{}", books.page());
    books.assert_balanced();
    let of = |shadow: &str, key: &str| books.shadow(shadow, key);
    assert_eq!((of("app", "replayed"), of("dead", "replayed")), (requests, 0));
    assert_eq!(of("hanging", "replayed"), hanging.log().summary().requests);
    assert_eq!(of("hanging", "replayed"), of("hanging", "answer_timeouts"), "{}", books.page());
    assert!(of("hanging", "shed") > 0, "{}", books.page());
}
