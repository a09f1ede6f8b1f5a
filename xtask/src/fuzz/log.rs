//! What libFuzzer writes while it runs.

/// What is known of a run so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    /// How often the target was run.
    pub(super) executions: u64,
    /// Edges of the program that were reached.
    pub(super) coverage: u64,
    /// The file with the input that made the target fail.
    pub(super) finding: Option<String>,
}

impl Log {
    pub(super) fn read(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines() {
            log.read_line(line);
        }
        log
    }

    fn read_line(&mut self, line: &str) {
        // `#1024<tab>NEW    cov: 266 ft: 1034 corp: ...`
        if let Some(line) = line.strip_prefix('#') {
            let mut words = line.split_whitespace();
            if let Some(executions) = words.next().and_then(|word| word.parse().ok()) {
                self.executions = executions;
            }
            let coverage = words.skip_while(|word| *word != "cov:").nth(1).and_then(|word| word.parse().ok());
            self.coverage = coverage.unwrap_or(self.coverage);
        }
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = count.trim().parse().unwrap_or(self.executions);
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.finding = Some(path.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_coverage_and_finding_are_read() {
        let text = "INFO: Seed: 1\n\
                    #2\tINITED cov: 26 ft: 27 corp: 1/1b exec/s: 0 rss: 28Mb\n\
                    #4414833\tREDUCE cov: 266 ft: 1092 corp: 329/41Kb lim: 2048 exec/s: 24526\n";
        let log = Log::read(text);
        assert_eq!(log, Log { executions: 4_414_833, coverage: 266, finding: None });
        let end = "artifact_prefix='/x/'; Test unit written to /x/crash-1\n\
                   stat::number_of_executed_units: 4414900\n";
        let log = Log::read(&[text, end].concat());
        assert_eq!((log.executions, log.finding.as_deref()), (4_414_900, Some("/x/crash-1")));
    }
}
