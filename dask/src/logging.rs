//! Log lines as dask's users know them: `2026-11-22 00:00:00,123 - distributed.scheduler - INFO - message` on stderr.
//!
//! A record's tracing target is its logger name. The same lines go into a [`LogRing`], from which `get_logs` answers.

use std::env;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dask_protocol::logs::{LogRecord, LogRing};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, registry};

use crate::config::{DaskConfig, Said};

/// The logger above all of dask's.
const WHOLE: &str = "distributed";

/// Sets logging up for the whole process and returns the ring that keeps its recent lines. The filter comes from
/// `level` (`--log-level`), else the levels that the configuration has for each logger (`logging`), else `RUST_LOG`, else
/// `info`. When a subscriber is already set
/// up, as in a test binary, that one stays and the ring stays empty.
///
/// # Errors
/// A text for the user when the level or the filter cannot be understood.
pub fn init(level: Option<&str>, dask: &DaskConfig) -> Result<LogRing, String> {
    let filter = filter(level, &dask.entries("logging")?, env::var("RUST_LOG").ok().as_deref())?;
    let ring = match dask.key("distributed.admin.log-length") {
        Some(said) => LogRing::with_length(said.count()?),
        None => LogRing::new(),
    };
    let lines = DaskLayer { ring: ring.clone() };
    if registry().with(filter).with(lines).try_init().is_err() {
        return Ok(LogRing::new());
    }
    Ok(ring)
}

/// The filter that `--log-level`, the configuration and `RUST_LOG` ask for, in that order of precedence.
fn filter(option: Option<&str>, loggers: &[(&str, Said<'_>)], rust_log: Option<&str>) -> Result<EnvFilter, String> {
    let option = option.map(|text| Said::option("--log-level", text));
    let whole = option.as_ref().or(loggers.iter().find(|(name, _)| *name == WHOLE).map(|(_, said)| said));
    let mut directives = match (whole, rust_log) {
        (Some(said), _) => directives_at(said.read(level)?),
        (None, Some(text)) if !text.is_empty() => text.to_owned(),
        (None, _) => directives_at("info"),
    };
    // Single loggers; others, such as tornado, are Python's. A mapping with a version is for Python's logging.config.
    let single = |name: &str| name.starts_with("distributed.");
    for (name, said) in loggers.iter().filter(|(name, _)| option.is_none() && single(name)) {
        let _ = write!(directives, ",{name}={}", said.read(level)?);
    }
    EnvFilter::try_new(&directives).map_err(|error| format!("cannot read the log filter {directives:?}: {error}"))
}

fn level(text: &str) -> Result<&'static str, String> {
    let known = parse_level(text);
    known.ok_or_else(|| format!("{text:?} is no log level; use debug, info, warning, error or critical"))
}

/// Our crates log as `dask_*` where a record has no dask logger name; libraries stay at warnings.
fn directives_at(level: &str) -> String {
    let ours = ["distributed", "dask", "dask_protocol", "dask_scheduler", "dask_worker", "dask_nanny", "dask_client"];
    let mut directives = "warn".to_owned();
    for logger in ours {
        let _ = write!(directives, ",{logger}={level}");
    }
    directives
}

/// Reads Python's level names and numbers, with or without the quotes of a YAML value, and tracing's own names.
fn parse_level(text: &str) -> Option<&'static str> {
    match text.trim().trim_matches(['"', '\'']).to_ascii_lowercase().as_str() {
        "trace" => Some("trace"),
        "debug" | "10" | "notset" | "0" => Some("debug"),
        "info" | "20" => Some("info"),
        "warn" | "warning" | "30" => Some("warn"),
        "error" | "40" | "critical" | "fatal" | "50" => Some("error"),
        "off" => Some("off"),
        _ => None,
    }
}

/// Prints records in dask's format and keeps them.
struct DaskLayer {
    ring: LogRing,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for DaskLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let level = python_level(*event.metadata().level());
        let logger = event.metadata().target();
        let message = text.message + &text.fields;
        let mut line = format!("{} - {logger} - {level} - {message}", local_time(now));
        let record = LogRecord { created: now.as_secs_f64(), level, logger: logger.to_owned(), line: line.clone() };
        self.ring.push(record);
        line.push('\n');
        // One write per line, so that lines of several processes do not mix; nobody to tell when stderr is gone.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

fn python_level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// The message, and every other field as ` name=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

/// `2026-11-22 00:00:00,123` in the local time zone, as Python's `%(asctime)s`.
fn local_time(since_epoch: Duration) -> String {
    let seconds = libc::time_t::try_from(since_epoch.as_secs()).unwrap_or(libc::time_t::MAX);
    // SAFETY: `tm` is plain data for which all-zero is valid (its pointer, the zone's name, may be null), and
    // `localtime_r` only reads `seconds` and writes `tm`. The time zone database is reachable only through libc.
    let (tm, known) = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        let known = !libc::localtime_r(&raw const seconds, &raw mut tm).is_null();
        (tm, known)
    };
    if !known {
        return format!("{}", since_epoch.as_secs());
    }
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03}",
        i64::from(tm.tm_year) + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        since_epoch.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::{debug, info, warn};

    fn lines(f: impl FnOnce()) -> Vec<String> {
        let ring = LogRing::new();
        let filter = filter(Some("info"), &[], None).expect("a level");
        let subscriber = registry().with(filter).with(DaskLayer { ring: ring.clone() });
        tracing::subscriber::with_default(subscriber, f);
        ring.recent("", 0.0, None).into_iter().rev().map(|record| record.line).collect()
    }

    #[test]
    fn lines_have_the_form_of_dask() {
        let lines = lines(|| {
            info!(target: "distributed.scheduler", "  Scheduler at: {:>25}", "tcp://127.0.0.1:8786");
            warn!(target: "distributed.core", peer = %"tcp://x", text = "t", n = 3, "strange peer");
            debug!(target: "distributed.core", "not shown");
            info!(target: "hyper", "not shown either");
        });
        assert_eq!(lines.len(), 2);
        let (time, rest) = lines[0].split_at("2026-11-22 00:00:00,123".len());
        assert_eq!(rest, " - distributed.scheduler - INFO -   Scheduler at:      tcp://127.0.0.1:8786");
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00,000");
        assert!(lines[1].ends_with(" - distributed.core - WARNING - strange peer peer=tcp://x text=t n=3"));
    }

    #[test]
    fn local_time_agrees_with_the_epoch_to_the_millisecond() {
        let text = local_time(Duration::new(1_700_000_000, 123_999_999));
        // Zones differ by quarters of an hour, never in seconds.
        assert!(text.starts_with("2023-11-1") && text.ends_with(":20,123"), "{text}");
    }

    #[test]
    fn the_option_wins_over_the_configuration_and_that_over_rust_log() {
        let shown = |option, variables: &[(&str, &str)], rust_log| {
            let own = |(name, text): &(&str, &str)| (format!("DASK_LOGGING{name}"), (*text).to_owned());
            let dask = DaskConfig::from_sources(&[], variables.iter().map(own)).expect("a configuration");
            let loggers = dask.entries("logging").expect("a mapping");
            filter(option, &loggers, rust_log).map(|f| f.to_string())
        };
        let of = |parts: Result<String, String>, logger: &str| {
            let text = parts.expect("readable");
            let start = format!("{logger}=");
            text.split(',').find_map(|part| part.strip_prefix(&start)).map(str::to_owned)
        };
        let all = [("__DISTRIBUTED", "error")];
        assert_eq!(of(shown(Some("DEBUG"), &all, Some("off")), WHOLE).as_deref(), Some("debug"));
        assert_eq!(of(shown(None, &[("__DISTRIBUTED", "\"warning\"")], Some("off")), WHOLE).as_deref(), Some("warn"));
        assert_eq!(shown(None, &[], Some("dask_worker=trace")).expect("readable"), "dask_worker=trace");
        assert_eq!(of(shown(None, &[], None), WHOLE).as_deref(), Some("info"));
        let one = [("", "{'distributed.worker': 10, 'tornado': 'loud'}")];
        assert_eq!(of(shown(None, &one, None), "distributed.worker").as_deref(), Some("debug"));
        assert_eq!(of(shown(Some("info"), &one, None), "distributed.worker"), None);
        assert!(shown(Some("loud"), &[], None).expect_err("no level").contains("--log-level"));
        let error = shown(None, &[("__DISTRIBUTED", "loud")], None).expect_err("no level");
        assert!(error.starts_with("DASK_LOGGING__DISTRIBUTED: "), "{error}");
    }
}
