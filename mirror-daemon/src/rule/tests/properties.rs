//! What holds for any request and any rules.

use super::*;

/// Gateway API's own acceptance: 500 requests, within 3 sigma of the binomial, at most 5 tries.
fn accepted_within_five_tries(percent: f64, mut pick: impl FnMut(u64) -> bool) -> bool {
    let (n, p) = (500_u32, percent / 100.0);
    let allowed = 3.0 * (f64::from(n) * p * (1.0 - p)).sqrt();
    (0..5_u64).any(|attempt| {
        let picked = (0..u64::from(n)).filter(|number| pick(attempt * 1000 + number)).count();
        (picked as f64 - f64::from(n) * p).abs() <= allowed
    })
}

proptest! {
    #[test]
    fn shares_nest_whatever_their_denominators(
        hash: u64, a in 0..=u64::MAX, b in 1..=u64::MAX, c in 0..=u64::MAX, d in 1..=u64::MAX,
    ) {
        if let (Ok(left), Ok(right)) = (Share::fraction(a.min(b), b), Share::fraction(c.min(d), d)) {
            let smaller_left = u128::from(a.min(b)) * u128::from(d) <= u128::from(c.min(d)) * u128::from(b);
            let (smaller, larger) = if smaller_left { (left, right) } else { (right, left) };
            prop_assert!(!smaller.picks(hash) || larger.picks(hash));
        }
    }

    #[test]
    fn gateway_api_acceptance_holds_for_any_seed(seed in "[a-z]{1,12}", hundredths in 0..=10_000_u32) {
        let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        let rules = sampled(vec![mirror(Share::percent(&text).unwrap(), SampleBy::Request, "")], &seed);
        let pick = |number| picked_of(&rules, &head("GET", "/", &[]), &sender(number))[0];
        prop_assert!(accepted_within_five_tries(f64::from(hundredths) / 100.0, pick));
    }

    #[test]
    fn percent_never_panics(text in "[-+0-9.eEnaif]{0,40}") {
        let _ = Share::percent(&text);
    }

    #[test]
    fn authority_parts_are_the_whole(whole in proptest::collection::vec(any::<u8>(), 0..40)) {
        let parts = Authority::split(&whole);
        prop_assert_eq!([parts.userinfo, parts.host, parts.port].concat(), whole);
    }

    #[test]
    fn deciding_never_panics(target in "\\PC{0,40}", host in "\\PC{0,40}", value in "\\PC{0,20}") {
        let matched = Match { headers: vec![is("k", "v")], query: vec![is("q", "v")], ..prefix("/a") };
        let rules = rules(vec![route(&["*.x"], vec![rule("r", matched)]), route(&[], vec![rule("s", exact("/"))])]);
        let fields = fields(&[("host", &host), ("k", &value), ("k", "v"), ("cookie", &value)]);
        let request = head("GET", &target, &fields);
        let _ = rules.decide(&request, &sender(0));
        let _ = rules.considered(&request, GatewaySet::ALL);
    }
}

/// One condition of one route, as the oracle sees it.
#[derive(Clone, Debug)]
struct Spec {
    host: Option<String>,
    path: (u8, String),
    has_method: bool,
    headers: usize,
    query: usize,
}

fn spec() -> impl Strategy<Value = Spec> {
    let host =
        proptest::option::of(proptest::sample::select(vec!["b.c", "a.b.c", "*.c", "*.b.c", "c", "*.a.b.c"]));
    let path = (0..2_u8, proptest::sample::select(vec!["/", "/p", "/p/q", "/p/q/r", "/pq"]));
    (host, path, any::<bool>(), 0..3_usize, 0..3_usize).prop_map(
        |(host, (kind, path), has_method, headers, query)| Spec {
            host: host.map(str::to_owned),
            path: (kind, path.to_owned()),
            has_method,
            headers,
            query,
        },
    )
}

impl Spec {
    fn route(&self, name: usize) -> Route {
        let names = ["x", "y"];
        let values = |count: usize| names.iter().take(count).map(|name| is(name, "1")).collect();
        let (kind, path) = &self.path;
        let matched = Match {
            path: if *kind == 0 { PathMatch::Exact(path.clone()) } else { PathMatch::prefix(path) },
            methods: if self.has_method { vec!["GET".into()] } else { vec![] },
            headers: values(self.headers),
            query: values(self.query),
        };
        let hosts: Vec<&str> = self.host.iter().map(String::as_str).collect();
        route(&hosts, vec![rule(&name.to_string(), matched)])
    }

    /// How good this condition is for a request, larger is better; `None`: it does not match. Written from the
    /// text of Gateway API, with nothing of the code under test.
    fn grade(&self, host: &str, path: &str, headers: usize, query: usize) -> Option<impl Ord + use<>> {
        let host_grade = match &self.host {
            None => (0, 0),
            Some(pattern) => match pattern.strip_prefix('*') {
                Some(tail) if host.len() > tail.len() && host.ends_with(tail) => (1, pattern.len()),
                None if pattern == host => (2, pattern.len()),
                _ => return None,
            },
        };
        let elements =
            |text: &str| text.split('/').filter(|one| !one.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let (kind, wanted) = &self.path;
        let path_grade = match kind {
            0 if wanted == path => (1, 0),
            1 if elements(path).starts_with(&elements(wanted)) => (0, wanted.len()),
            _ => return None,
        };
        (self.headers <= headers && self.query <= query).then_some((
            host_grade,
            path_grade,
            self.has_method,
            self.headers,
            self.query,
        ))
    }
}

proptest! {
    #[test]
    fn decisions_agree_with_a_naive_reading_of_gateway_api(
        specs in proptest::collection::vec(spec(), 0..12),
        host in proptest::sample::select(vec!["c", "b.c", "a.b.c", "z.a.b.c", "d"]),
        path in proptest::sample::select(vec!["/", "/p", "/p/q", "/p/q/r", "/pq", "/p/qr"]),
        headers in 0..3_usize,
        query in 0..3_usize,
    ) {
        let graded = specs.iter().enumerate().filter_map(|(index, spec)| {
            // Among equals the first: the larger reversed index.
            Some((spec.grade(host, path, headers, query)?, std::cmp::Reverse(index)))
        });
        let expected = graded.max().map_or("-".to_owned(), |(_, std::cmp::Reverse(index))| index.to_string());
        let rules = rules(specs.iter().enumerate().map(|(index, spec)| spec.route(index)).collect());
        let target = format!("{path}?{}", ["x=1", "y=1"][..query].join("&"));
        let found = taken(&rules, "GET", host, &target, &[("x", "1"), ("y", "1")][..headers]);
        prop_assert_eq!(found, expected);
    }
}
