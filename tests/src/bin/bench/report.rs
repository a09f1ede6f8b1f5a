//! From runs to figures: medians of paired ratios, with their range and what two equal cases differ by.

use serde_json::{Value, json};

use crate::case::{Case, Figures, ProgramCost, Traffic};

/// Everything measured with one kind of traffic.
pub(crate) struct Measured {
    pub(crate) traffic: Traffic,
    /// One entry a repetition: the figures of every case, in the order of [`Case::ALL`].
    pub(crate) repetitions: Vec<[Figures; 4]>,
    pub(crate) programs: Vec<ProgramCost>,
}

/// Median, least and most of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { at(middle) } else { (at(middle.wrapping_sub(1)) + at(middle)) / 2.0 };
        Self { median, least: at(0), most: at(values.len().wrapping_sub(1)) }
    }

    fn width(self) -> f64 {
        self.most - self.least
    }

    fn to_json(self) -> Value {
        json!({ "median": self.median, "least": self.least, "most": self.most })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>6.2} ({:.2} to {:.2})", self.median, self.least, self.most)
    }
}

/// A figure that has a goal: at most so much.
struct Goal {
    name: &'static str,
    at_most: f64,
    figure: Spread,
    /// The same figure of two equal cases; `None` for counts.
    equal_cases: Option<Spread>,
}

impl Goal {
    fn verdict(&self) -> &'static str {
        let margin = (self.at_most - self.figure.median).abs();
        // NaN is no measurement.
        let is_noise = self.equal_cases.is_some_and(|equal| equal.width().is_nan() || equal.width() > margin);
        match self.figure.median <= self.at_most {
            _ if is_noise => "inconclusive",
            true => "reached",
            false => "missed",
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "at_most": self.at_most,
            "figure": self.figure.to_json(),
            "equal_cases": self.equal_cases.map(Spread::to_json),
            "verdict": self.verdict(),
        })
    }
}

impl Measured {
    fn of(&self, case: Case, figure: impl Fn(&Figures) -> f64) -> Spread {
        Spread::of(self.repetitions.iter().map(|cases| figure(&cases[case as usize])))
    }

    /// `case` by the case without mirroring, pair by pair.
    fn ratio(&self, case: Case, figure: impl Fn(&Figures) -> f64) -> Spread {
        let pair =
            |cases: &[Figures; 4]| figure(&cases[case as usize]) / figure(&cases[Case::Without as usize]);
        Spread::of(self.repetitions.iter().map(pair))
    }

    /// What `case` costs the node beyond no mirroring, by what nginx's own `mirror` costs, pair by pair.
    fn extra(&self, case: Case) -> Spread {
        let pair = |cases: &[Figures; 4]| {
            let beyond = |case: Case| cases[case as usize].node_us - cases[Case::Without as usize].node_us;
            beyond(case) / beyond(Case::NginxMirror)
        };
        Spread::of(self.repetitions.iter().map(pair))
    }

    fn goals(&self) -> [Goal; 5] {
        let ratio = |name, at_most, figure: fn(&Figures) -> f64| Goal {
            name,
            at_most,
            figure: self.ratio(Case::Daemon, figure),
            equal_cases: Some(self.ratio(Case::Again, figure)),
        };
        let count = |name, at_most, figure: fn(&Figures) -> f64| {
            let spread = self.of(Case::Daemon, figure);
            // The worst repetition counts.
            Goal { name, at_most, figure: Spread { median: spread.most, ..spread }, equal_cases: None }
        };
        [
            Goal {
                name: "extra node CPU / nginx mirror's",
                at_most: 0.6,
                figure: self.extra(Case::Daemon),
                equal_cases: Some(self.extra(Case::Again)),
            },
            ratio("gateway process CPU / without", 1.10, |figures| figures.gateway_us),
            ratio("production p99 / without", 1.3, |figures| figures.p99_ms),
            count("peak memory, MiB (worst)", 64.0, |figures| mib(figures.peak_bytes)),
            count("missing or duplicate (worst)", 0.0, |figures| {
                (figures.missing + figures.duplicates) as f64
            }),
        ]
    }

    /// For people.
    pub(crate) fn print(&self) {
        let Traffic { name, rate, .. } = self.traffic;
        let requests = self.repetitions.first().map_or(0, |cases| cases[0].requests);
        println!(
            "\n{name}, {rate} a second, {requests} requests a repetition, {} repetitions",
            self.repetitions.len()
        );
        println!("  {:<28}{:>12}{:>12}{:>12}{:>14}", "median", "without", "again", "daemon", "nginx mirror");
        let row = |name: &str, digits: usize, figure: &dyn Fn(&Figures) -> f64| {
            let [without, again, daemon, nginx] = Case::ALL.map(|case| self.of(case, figure).median);
            println!(
                "  {name:<28}{without:>12.digits$}{again:>12.digits$}{daemon:>12.digits$}{nginx:>14.digits$}"
            );
        };
        row("node CPU, us/request", 1, &|figures| figures.node_us);
        let extra = |case: Case| {
            let pair = |cases: &[Figures; 4]| cases[case as usize].node_us - cases[0].node_us;
            Spread::of(self.repetitions.iter().map(pair)).median
        };
        let [_, again, daemon, nginx] = Case::ALL.map(extra);
        println!("  {:<28}{:>12}{again:>12.1}{daemon:>12.1}{nginx:>14.1}", "  of this extra", "-");
        row("gateway process, us/request", 1, &|figures| figures.gateway_us);
        row("mirror process, us/request", 1, &|figures| figures.mirror_us);
        row("production p50, ms", 2, &|figures| figures.p50_ms);
        row("production p99, ms", 2, &|figures| figures.p99_ms);
        row("production failed", 0, &|figures| figures.failed as f64);
        row("missing at the shadow", 0, &|figures| figures.missing as f64);
        row("duplicate at the shadow", 0, &|figures| figures.duplicates as f64);
        row("connections to the shadow", 0, &|figures| figures.shadow_connections as f64);
        row("peak memory, MiB", 1, &|figures| mib(figures.peak_bytes));
        row("disturbed, % of the time", 1, &|figures| figures.disturbed * 100.0);
        for program in &self.programs {
            println!(
                "  kernel program {:<20} {:>7.0} ns a run, {:.2} runs a request",
                program.name, program.ns_a_run, program.runs_a_request
            );
        }
        println!("\n  {:<34}{:>8}  {:<26}{:<26}", "goal", "at most", "median (range)", "two equal cases");
        for goal in self.goals() {
            let equal = goal.equal_cases.map_or_else(|| "-".to_owned(), |spread| spread.to_string());
            let (figure, verdict) = (goal.figure.to_string(), goal.verdict());
            println!("  {:<34}{:>8.2}  {figure:<26}{equal:<26}{verdict}", goal.name, goal.at_most);
        }
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> Value {
        let of_repetition = |cases: &[Figures; 4]| {
            let named = Case::ALL.map(|case| (case.label().to_owned(), cases[case as usize].to_json()));
            Value::Object(named.into_iter().collect())
        };
        json!({
            "traffic": self.traffic.name,
            "requests_a_second": self.traffic.rate,
            "body_bytes": self.traffic.body_bytes,
            "repetitions": self.repetitions.iter().map(of_repetition).collect::<Vec<_>>(),
            "programs": self.programs.iter().map(ProgramCost::to_json).collect::<Vec<_>>(),
            "goals": self.goals().iter().map(Goal::to_json).collect::<Vec<_>>(),
        })
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
