//! The scheduler's settings from dask's configuration variables and from options that override them.

use std::time::Duration;

use clap::Args;
use dask_scheduler::SchedulerOptions;
use dask_scheduler::state::{Config, MemoryMeasure, Policy};

use super::parse::{parse_timedelta, unquoted};

/// What all of dask's configuration variables for the scheduler begin with.
const PREFIX: &str = "DASK_DISTRIBUTED__SCHEDULER__";

/// Options of `dask-scheduler` about how it schedules; each also has a variable of dask's configuration.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// How tasks are placed, held back and stolen: native or upstream (as dask.distributed 2026.8.0) [default: native]
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
    /// Let idle workers take tasks from busy ones: true or false [default: true]
    #[arg(long, value_name = "BOOL")]
    pub work_stealing: Option<String>,
    /// Time between two rounds of work stealing [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub work_stealing_interval: Option<String>,
    /// Run the active memory manager from the start: true or false [default: true]
    #[arg(long, value_name = "BOOL")]
    pub active_memory_manager: Option<String>,
    /// Time between two rounds of the active memory manager [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub active_memory_manager_interval: Option<String>,
    /// What the active memory manager balances by: optimistic, process or managed [default: optimistic]
    #[arg(long, value_name = "MEASURE")]
    pub active_memory_manager_measure: Option<String>,
    /// Time without a heartbeat after which a worker is taken for dead; None for no end [default: 5 minutes]
    #[arg(long, value_name = "TIME")]
    pub worker_ttl: Option<String>,
}

type Read = fn(&mut Config, &str) -> Result<(), String>;

/// A setting: the option, the rest of the variable's name, and how its text is read.
struct Setting {
    option: fn(&ConfigArgs) -> Option<&str>,
    name: &'static str,
    variable: &'static str,
    read: Read,
}

const fn variable(variable: &'static str, read: Read) -> Setting {
    Setting { option: |_| None, name: "", variable, read }
}

const SETTINGS: &[Setting] = &[
    Setting {
        option: |args| args.policy.as_deref(),
        name: "--policy",
        variable: "POLICY",
        read: |config, text| text.parse::<Policy>().map(|policy| config.policy = policy),
    },
    Setting {
        option: |args| args.work_stealing.as_deref(),
        name: "--work-stealing",
        variable: "WORK_STEALING",
        read: |config, text| boolean(text).map(|on| config.work_stealing = on),
    },
    Setting {
        option: |args| args.work_stealing_interval.as_deref(),
        name: "--work-stealing-interval",
        variable: "WORK_STEALING_INTERVAL",
        read: |config, text| interval(text).map(|seconds| config.work_stealing_interval = seconds),
    },
    Setting {
        option: |args| args.active_memory_manager.as_deref(),
        name: "--active-memory-manager",
        variable: "ACTIVE_MEMORY_MANAGER__START",
        read: |config, text| boolean(text).map(|on| config.amm_start = on),
    },
    Setting {
        option: |args| args.active_memory_manager_interval.as_deref(),
        name: "--active-memory-manager-interval",
        variable: "ACTIVE_MEMORY_MANAGER__INTERVAL",
        read: |config, text| interval(text).map(|seconds| config.amm_interval = seconds),
    },
    Setting {
        option: |args| args.active_memory_manager_measure.as_deref(),
        name: "--active-memory-manager-measure",
        variable: "ACTIVE_MEMORY_MANAGER__MEASURE",
        read: |config, text| measure(text).map(|measure| config.amm_measure = measure),
    },
    variable("WORKER_SATURATION", |config, text| positive(text).map(|x| config.worker_saturation = x)),
    variable("BANDWIDTH", |config, text| positive(text).map(|x| config.bandwidth = x)),
    variable("ALLOWED_FAILURES", |config, text| count(text).map(|n| config.allowed_failures = n)),
    variable("UNKNOWN_TASK_DURATION", |config, text| interval(text).map(|x| config.unknown_task_duration = x)),
    variable("NO_WORKERS_TIMEOUT", |config, text| {
        config.no_workers_timeout = if text == "None" { None } else { Some(interval(text)?) };
        Ok(())
    }),
];

impl ConfigArgs {
    /// A scheduler's default settings with those changed that an option or a variable names; options count more.
    ///
    /// # Errors
    /// Naming the option or variable that cannot be read.
    pub fn config(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Config, String> {
        let mut config = SchedulerOptions::default().state;
        for setting in SETTINGS {
            let variable = format!("{PREFIX}{}", setting.variable);
            let (name, text) = match ((setting.option)(self), environment(&variable)) {
                (Some(text), _) => (setting.name.to_owned(), text.to_owned()),
                (None, Some(text)) => (variable, unquoted(&text).to_owned()),
                (None, None) => continue,
            };
            (setting.read)(&mut config, &text).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(config)
    }

    /// How long a worker may be silent; `None` for ever.
    ///
    /// # Errors
    /// Naming the option or variable that cannot be read.
    pub fn worker_ttl(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Option<Duration>, String> {
        let variable = format!("{PREFIX}WORKER_TTL");
        let (name, text) = match (self.worker_ttl.as_deref(), environment(&variable)) {
            (Some(text), _) => ("--worker-ttl".to_owned(), text.to_owned()),
            (None, Some(text)) => (variable, unquoted(&text).to_owned()),
            (None, None) => return Ok(SchedulerOptions::default().worker_ttl),
        };
        if matches!(text.as_str(), "None" | "null") {
            return Ok(None);
        }
        parse_timedelta(&text).map(Some).map_err(|error| format!("{name}: {error}"))
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// Seconds between rounds: a zero would never let go of the processor.
fn interval(text: &str) -> Result<f64, String> {
    const INTERVAL_MIN: f64 = 0.001;
    let seconds = parse_timedelta(text)?.as_secs_f64();
    if seconds < INTERVAL_MIN { Err(format!("{text:?} is less than a millisecond")) } else { Ok(seconds) }
}

fn measure(text: &str) -> Result<MemoryMeasure, String> {
    match text {
        "process" => Ok(MemoryMeasure::Process),
        "optimistic" => Ok(MemoryMeasure::Optimistic),
        "managed" => Ok(MemoryMeasure::Managed),
        _ => Err(format!("{text:?} is no measure of memory; there are optimistic, process and managed")),
    }
}

/// A positive number, perhaps infinite.
fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|x: &f64| *x > 0.0).ok_or_else(|| format!("{text:?} is not a positive number"))
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is not a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &ConfigArgs, variables: &[(&str, &str)]) -> Result<Config, String> {
        let environment = |name: &str| {
            let name = name.strip_prefix(PREFIX).expect("only dask's variables of the scheduler are asked for");
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, text)| (*text).to_owned())
        };
        args.config(environment)
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(config(&ConfigArgs::default(), &[]), Ok(SchedulerOptions::default().state));
    }

    #[test]
    fn variables_change_settings_and_options_count_more() {
        let variables = [
            ("WORK_STEALING", "False"),
            ("ACTIVE_MEMORY_MANAGER__START", "false"),
            ("ACTIVE_MEMORY_MANAGER__INTERVAL", "\"500ms\""),
            ("ACTIVE_MEMORY_MANAGER__MEASURE", "managed"),
            ("WORKER_SATURATION", "inf"),
            ("NO_WORKERS_TIMEOUT", "1 minute"),
            ("POLICY", "upstream"),
        ];
        let args = ConfigArgs {
            active_memory_manager: Some("true".to_owned()),
            policy: Some("native".to_owned()),
            ..ConfigArgs::default()
        };
        let config = config(&args, &variables).expect("all can be read");
        assert_eq!((config.work_stealing, config.amm_start, config.amm_interval), (false, true, 0.5));
        assert_eq!((config.amm_measure, config.policy), (MemoryMeasure::Managed, Policy::Native));
        assert_eq!((config.worker_saturation, config.no_workers_timeout), (f64::INFINITY, Some(60.0)));
    }

    #[test]
    fn a_workers_silence_has_an_end_unless_told_otherwise() {
        let ttl = |option: Option<&str>, variable: Option<&str>| {
            let args = ConfigArgs { worker_ttl: option.map(str::to_owned), ..ConfigArgs::default() };
            args.worker_ttl(|name| variable.filter(|_| name.ends_with("__WORKER_TTL")).map(str::to_owned))
        };
        assert_eq!(ttl(None, None), Ok(SchedulerOptions::default().worker_ttl));
        assert_eq!(ttl(None, Some("\"30s\"")), Ok(Some(Duration::from_secs(30))));
        assert_eq!(ttl(Some("5s"), Some("30s")), Ok(Some(Duration::from_secs(5))));
        assert_eq!(ttl(None, Some("None")), Ok(None));
        assert!(ttl(Some("soon"), None).expect_err("nonsense").starts_with("--worker-ttl"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (variable, text) in
            [("WORK_STEALING", "maybe"), ("ACTIVE_MEMORY_MANAGER__INTERVAL", "0s"), ("WORKER_SATURATION", "-1")]
        {
            let error = config(&ConfigArgs::default(), &[(variable, text)]).expect_err("nonsense");
            assert!(error.contains(variable) && error.contains(text), "{error}");
        }
        let args = ConfigArgs { policy: Some("best".to_owned()), ..ConfigArgs::default() };
        assert!(config(&args, &[]).expect_err("nonsense").starts_with("--policy"));
    }
}
