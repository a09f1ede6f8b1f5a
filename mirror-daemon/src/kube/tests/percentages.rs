//! Shares, exactly as they are written.

use super::*;

fn share_of_mirror(share: &str) -> Imported {
    let filter =
        format!("{{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: s, port: 80 }}{share} }} }}");
    import(&(service("a", "s", 80) + &route("a", "r", "[]", &format!("[{{ filters: [{filter}] }}]"))))
}

fn share_of_option(share: &str) -> Imported {
    let replaced = GUIDE.replace("      percentage: 100\n", share);
    assert_ne!(replaced, GUIDE);
    import(&replaced)
}

/// How much the only mirror takes, as `explain` says it.
fn share(imported: &Imported) -> String {
    let host = [Field { name: "Host", value: b"shadowing.example", line: b"" }];
    let head = RequestHead {
        method: "GET",
        target: "/",
        version: Version::Http11,
        fields: &host,
        body: BodyLength::None,
    };
    let client_ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let sender =
        Sender { client_ip, flow: FlowKey::default(), number: RequestNumber(1), gateways: GatewaySet::ALL };
    let choices = imported.config.rules.choices(&head, &sender);
    assert_eq!(choices.len(), 1, "{}", imported.toml);
    choices[0].share.to_string()
}

#[test]
fn request_mirror_takes_all_or_its_percentage_or_its_fraction() {
    for (written, expected) in [
        ("", "100 %"),
        (", percent: 0", "0 %"),
        (", percent: 42", "42 %"),
        (", percent: 100", "100 %"),
        (", fraction: { numerator: 1, denominator: 3 }", "1/3"),
        (", fraction: { numerator: 5 }", "5 %"),
        (", fraction: { numerator: 39, denominator: 10000 }", "0.39 %"),
        (", fraction: { numerator: 0, denominator: 7 }", "0 %"),
    ] {
        assert_eq!(share(&share_of_mirror(written)), expected, "{written}");
    }
}

#[test]
fn request_mirror_out_of_range_is_told_and_not_mirrored() {
    for written in [
        ", percent: 101",
        ", percent: -1",
        ", percent: 5, fraction: { numerator: 1 }",
        ", fraction: { numerator: 101 }",
        ", fraction: { numerator: -1 }",
        ", fraction: { numerator: 0, denominator: 0 }",
        ", fraction: { numerator: 0, denominator: 9999999999 }",
        ", percent: 1.5",
        ", percent: lots",
    ] {
        let imported = share_of_mirror(written);
        assert_eq!(imported.reasons(), [Reason::InvalidField], "{written}");
        assert_eq!(imported.config.shadows.len(), 0, "{written}");
    }
}

#[test]
fn shadowing_takes_its_float_exactly_and_nothing_when_absent() {
    for (written, expected) in [
        ("", "0 %"),
        ("      percentage: 0\n", "0 %"),
        ("      percentage: 0.39\n", "0.39 %"),
        ("      percentage: 33.333\n", "33.333 %"),
        ("      percentage: 1.0e-3\n", "0.001 %"),
        ("      percentage: 1e2\n", "100 %"),
        ("      percentage: 100.0\n", "100 %"),
    ] {
        let imported = share_of_option(written);
        assert_eq!(imported.findings, [], "{written}");
        assert_eq!(share(&imported), expected, "{written}");
    }
    for written in ["100.01", "-0.5", "1e300", "'5'", "true"] {
        let imported = share_of_option(&format!("      percentage: {written}\n"));
        assert!(!imported.findings.is_empty(), "{written}");
        assert_eq!(imported.config.shadows.len(), 0, "{written}");
    }
}
