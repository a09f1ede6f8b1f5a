//! Logging to standard error, and warnings that can't flood it.

use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable with a log filter, used when `--log` is absent.
pub const FILTER_VARIABLE: &str = "MIRROR_LOG";

/// What is logged when nobody says otherwise.
pub const DEFAULT_FILTER: &str = "info";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people: one line each, coloured on a terminal (unless `NO_COLOR` is set).
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not understood.
    #[error(
        "log filter {filter:?} from {origin} is not understood: {source}; write a level (error, warn, info, \
         debug, trace, off) or a list such as \"info,mirror_daemon::capture=debug\""
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// `--log` or the environment variable.
        origin: &'static str,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A word that is no level; it would be taken for a module that does not exist, and nothing be logged.
    #[error(
        "log filter {filter:?} from {origin} is not understood: {word:?} is no level; write error, warn, info, debug, \
         trace or off, or a list such as \"info,mirror_daemon::capture=debug\""
    )]
    NoLevel {
        /// The filter as given.
        filter: String,
        /// `--log` or the environment variable.
        origin: &'static str,
        /// What is no level.
        word: String,
    },
    /// Logging was set up before.
    #[error("logging was set up twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging to standard error. `option` is `--log`; without it `variable`, the value of
/// [`FILTER_VARIABLE`], counts; without both, [`DEFAULT_FILTER`].
///
/// # Errors
/// When the filter is not understood, or logging runs already.
pub fn start(option: Option<&str>, variable: Option<&str>, format: LogFormat) -> Result<(), LoggingError> {
    let filter = filter(option, variable)?;
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    tracing_subscriber::registry().with(filter).with(layer(format, colours, io::stderr)).try_init()?;
    Ok(())
}

fn filter(option: Option<&str>, variable: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let variable = variable.filter(|text| !text.trim().is_empty());
    let (text, origin) = match (option, variable) {
        (Some(text), _) => (text, "--log"),
        (None, Some(text)) => (text, FILTER_VARIABLE),
        (None, None) => (DEFAULT_FILTER, "the default"),
    };
    let no_level = text.split(',').map(str::trim).find(|word| !may_be_directive(word));
    if let Some(word) = no_level {
        return Err(LoggingError::NoLevel { filter: text.to_owned(), origin, word: word.to_owned() });
    }
    EnvFilter::try_new(text).map_err(|source| LoggingError::Filter {
        filter: text.to_owned(),
        origin,
        source,
    })
}

/// Whether a part of a filter is a level, a module of ours, or says what is meant by a sign; [`EnvFilter`] judges these.
fn may_be_directive(word: &str) -> bool {
    word.is_empty()
        || word.contains(['=', '[', ']', '{', '}', ':'])
        || word.starts_with(env!("CARGO_CRATE_NAME"))
        || word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
}

/// An error and its causes on one line. A cause whose words an error repeats is not told again.
#[must_use]
pub fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.ends_with(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        cause = error.source();
    }
    words
}

fn layer<S, W>(format: LogFormat, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Human => lines.with_ansi(colours).boxed(),
        LogFormat::Json => lines.with_ansi(false).json().flatten_event(true).boxed(),
    }
}

/// Lets at most one event per interval through, and counts the rest. One for each call site:
///
/// ```
/// use mirror_daemon::telemetry::logging::Throttle;
/// use std::time::{Duration, Instant};
///
/// static RING_FULL: Throttle = Throttle::every(Duration::from_secs(10));
///
/// if let Some(suppressed) = RING_FULL.admit(Instant::now()) {
///     tracing::warn!(suppressed, "the ring is full: copies are lost");
/// }
/// ```
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    state: Mutex<ThrottleState>,
}

#[derive(Debug)]
struct ThrottleState {
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// At most one event per `interval`.
    #[must_use]
    pub const fn every(interval: Duration) -> Self {
        Self { interval, state: Mutex::new(ThrottleState { last: None, suppressed: 0 }) }
    }

    /// `Some` when the event may be told now, with how many were kept back since the last one. Never waits:
    /// when two threads come at once, one of them stays silent, uncounted.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.try_lock().ok()?;
        let is_due = state.last.is_none_or(|last| now.saturating_duration_since(last) >= self.interval);
        if !is_due {
            state.suppressed = state.suppressed.saturating_add(1);
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(option: Option<&str>, variable: Option<&str>, format: LogFormat, colours: bool) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::registry().with(filter(option, variable).unwrap()).with(layer(
            format,
            colours,
            move || writer.clone(),
        ));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("fine print");
            tracing::warn!(shadow = "a", "breaker\u{1b}[31m opened");
        });
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn default_shows_warnings_without_debug_or_colours() {
        let text = logged(None, None, LogFormat::Human, false);
        assert!(text.contains("WARN") && text.contains("opened") && text.contains("shadow=\"a\""), "{text}");
        assert!(!text.contains("fine print"));
        assert!(!text.contains('\u{1b}'), "escapes must not reach a log file: {text:?}");
        assert!(logged(None, None, LogFormat::Human, true).contains("\u{1b}["));
    }

    #[test]
    fn option_beats_variable_and_empty_variable_is_no_filter() {
        assert!(logged(Some("debug"), Some("off"), LogFormat::Human, false).contains("fine print"));
        assert_eq!(logged(None, Some("error"), LogFormat::Human, false), "");
        assert!(logged(None, Some(" "), LogFormat::Human, false).contains("opened"));
    }

    #[test]
    fn json_format_writes_one_object_a_line() {
        let text = logged(Some("debug"), None, LogFormat::Json, true);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[1]["level"], &lines[1]["shadow"]), (&"WARN".into(), &"a".into()));
    }

    #[test]
    fn bad_filter_names_itself_and_where_it_came_from() {
        let error = filter(Some("mirror_daemon=loud"), None).unwrap_err().to_string();
        assert!(error.contains("mirror_daemon=loud") && error.contains("--log"), "{error}");
        for wrong in ["loud", "info,verbose"] {
            let error = filter(Some(wrong), None).unwrap_err().to_string();
            assert!(error.contains("is no level") && error.contains("--log"), "{error}");
        }
        for right in ["INFO", "off", "warn,mirror_daemon::capture=debug", "mirror_daemon", "3"] {
            assert!(filter(Some(right), None).is_ok(), "{right}");
        }
        let error = filter(None, Some("a=b=c")).unwrap_err().to_string();
        assert!(error.contains(FILTER_VARIABLE), "{error}");
    }

    #[test]
    fn cause_that_an_error_repeats_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("map error: {0}")]
        struct Repeats(#[source] std::io::Error);
        let error = anyhow::Error::new(Repeats(std::io::Error::other("no memory"))).context("cannot load");
        assert_eq!(in_words(error.as_ref()), "cannot load: map error: no memory");
        let plain = anyhow::anyhow!("b").context("a");
        assert_eq!(in_words(plain.as_ref()), "a: b");
    }

    #[test]
    fn throttle_lets_one_through_per_interval_and_counts_the_rest() {
        let throttle = Throttle::every(Duration::from_secs(10));
        let start = Instant::now();
        assert_eq!(throttle.admit(start), Some(0));
        assert_eq!(throttle.admit(start), None);
        assert_eq!(throttle.admit(start + Duration::from_millis(9_999)), None);
        assert_eq!(throttle.admit(start + Duration::from_secs(10)), Some(2));
        assert_eq!(throttle.admit(start + Duration::from_secs(20)), Some(0));
    }
}
