//! The scheduler's settings from dask's configuration and from options that override it.

use std::time::Duration;

use clap::Args;
use dask_scheduler::SchedulerOptions;
use dask_scheduler::state::{Config, MemoryMeasure, Policy};

use crate::config::{DaskConfig, Said, Setting};

/// Options of `dask-scheduler` about how it schedules; each also has a key of dask's configuration.
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

type Read = fn(&mut Config, &Said<'_>) -> Result<(), String>;

/// A setting: the option, the key, and how what is said is read.
struct Entry {
    option: fn(&ConfigArgs) -> Option<&str>,
    name: &'static str,
    key: &'static str,
    read: Read,
}

const fn entry(key: &'static str, read: Read) -> Entry {
    Entry { option: |_| None, name: "", key, read }
}

const ENTRIES: &[Entry] = &[
    Entry {
        option: |args| args.policy.as_deref(),
        name: "--policy",
        key: "distributed.scheduler.policy",
        read: |config, said| said.read(str::parse::<Policy>).map(|policy| config.policy = policy),
    },
    Entry {
        option: |args| args.work_stealing.as_deref(),
        name: "--work-stealing",
        key: "distributed.scheduler.work-stealing",
        read: |config, said| said.truth().map(|on| config.work_stealing = on),
    },
    Entry {
        option: |args| args.work_stealing_interval.as_deref(),
        name: "--work-stealing-interval",
        key: "distributed.scheduler.work-stealing-interval",
        read: |config, said| interval(said).map(|seconds| config.work_stealing_interval = seconds),
    },
    Entry {
        option: |args| args.active_memory_manager.as_deref(),
        name: "--active-memory-manager",
        key: "distributed.scheduler.active-memory-manager.start",
        read: |config, said| said.truth().map(|on| config.amm_start = on),
    },
    Entry {
        option: |args| args.active_memory_manager_interval.as_deref(),
        name: "--active-memory-manager-interval",
        key: "distributed.scheduler.active-memory-manager.interval",
        read: |config, said| interval(said).map(|seconds| config.amm_interval = seconds),
    },
    Entry {
        option: |args| args.active_memory_manager_measure.as_deref(),
        name: "--active-memory-manager-measure",
        key: "distributed.scheduler.active-memory-manager.measure",
        read: |config, said| said.read(measure).map(|measure| config.amm_measure = measure),
    },
    entry("distributed.scheduler.worker-saturation", |config, said| {
        said.positive().map(|x| config.worker_saturation = x)
    }),
    entry("distributed.scheduler.bandwidth", |config, said| {
        // Some write it with a unit, as upstream's configuration never does.
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let bandwidth = said.bytes()?.max(1) as f64;
        config.bandwidth = bandwidth;
        Ok(())
    }),
    entry("distributed.scheduler.allowed-failures", |config, said| {
        let failures = said.count()?;
        config.allowed_failures = u32::try_from(failures).unwrap_or(u32::MAX);
        Ok(())
    }),
    entry("distributed.scheduler.default-data-size", |config, said| {
        said.bytes().map(|bytes| config.default_data_size = bytes)
    }),
    entry("distributed.scheduler.unknown-task-duration", |config, said| {
        interval(said).map(|seconds| config.unknown_task_duration = seconds)
    }),
    entry("distributed.scheduler.no-workers-timeout", |config, said| {
        interval(said).map(|seconds| config.no_workers_timeout = Some(seconds))
    }),
    entry("distributed.scheduler.rootish-taskgroup", |config, said| said.count().map(|n| config.rootish_taskgroup = n)),
    entry("distributed.scheduler.rootish-taskgroup-dependencies", |config, said| {
        said.count().map(|n| config.rootish_taskgroup_dependencies = n)
    }),
    entry("distributed.scheduler.validate", |config, said| said.truth().map(|on| config.validate = on)),
    entry("distributed.worker.memory.recent-to-old-time", |config, said| {
        said.duration().map(|time| config.memory_recent_to_old_time = time.as_secs_f64())
    }),
    entry("distributed.worker.memory.terminate", |config, said| {
        said.fraction().map(|share| config.memory_terminate = share.is_some())
    }),
    entry("distributed.adaptive.target-duration", |config, said| {
        interval(said).map(|seconds| config.adaptive_target_duration = seconds)
    }),
    entry("distributed.admin.low-level-log-length", |config, said| {
        // More of what explains: a task's decisions are looked for long after its transitions.
        said.count().map(|n| (config.transition_log_length, config.decision_log_length) = (n, n.saturating_mul(10)))
    }),
];

impl ConfigArgs {
    /// A scheduler's default settings with those changed about which an option or the configuration says something;
    /// options count more.
    ///
    /// # Errors
    /// Naming the option, the file and line, or the variable that cannot be read.
    pub fn config(&self, dask: &DaskConfig) -> Result<Config, String> {
        let mut config = SchedulerOptions::default().state;
        for entry in ENTRIES {
            if let Some(said) = dask.said(entry.name, (entry.option)(self), entry.key) {
                (entry.read)(&mut config, &said)?;
            }
        }
        for (prefix, said) in dask.entries("distributed.scheduler.default-task-durations")? {
            let seconds = said.duration()?.as_secs_f64();
            config.default_task_durations.retain(|(known, _)| known != prefix);
            config.default_task_durations.push((prefix.to_owned(), seconds));
        }
        let pace = dask.key("distributed.adaptive.interval").map(|said| interval(&said)).transpose()?;
        let count = dask.key("distributed.adaptive.wait-count").map(|said| said.count()).transpose()?;
        #[expect(clippy::cast_precision_loss, reason = "a handful of rounds")]
        let hold = pace.unwrap_or(ADAPTIVE_INTERVAL) * count.unwrap_or(ADAPTIVE_WAIT_COUNT) as f64;
        config.adaptive_hold = hold;
        if let Some(classes) = memory_policies(dask) {
            config.amm_reduce_replicas = classes.iter().any(|class| class.ends_with(REDUCE_REPLICAS));
        }
        Ok(config)
    }

    /// How long a worker may be silent; `None` for ever.
    ///
    /// # Errors
    /// Naming the option, the file and line, or the variable that cannot be read.
    pub fn worker_ttl(&self, dask: &DaskConfig) -> Result<Option<Duration>, String> {
        const KEY: &str = "distributed.scheduler.worker-ttl";
        let null = dask.get(KEY).is_some_and(|node| node.setting == Setting::Null);
        match dask.said("--worker-ttl", self.worker_ttl.as_deref(), KEY) {
            Some(said) if said.is_off() => Ok(None),
            Some(said) => said.duration().map(Some),
            None if null => Ok(None),
            None => Ok(SchedulerOptions::default().worker_ttl),
        }
    }

    /// Policies of the active memory manager that are Python's, which nothing runs here.
    pub fn foreign_memory_policies(dask: &DaskConfig) -> Vec<String> {
        let classes = memory_policies(dask).unwrap_or_default();
        classes.into_iter().filter(|class| !class.ends_with(REDUCE_REPLICAS)).collect()
    }
}

/// Default of `distributed.adaptive.interval`, in seconds.
const ADAPTIVE_INTERVAL: f64 = 1.0;
/// Default of `distributed.adaptive.wait-count`.
const ADAPTIVE_WAIT_COUNT: usize = 3;

/// The one policy that is ours too.
const REDUCE_REPLICAS: &str = "ReduceReplicas";

/// The classes that the configuration names; `None` where it names no list.
fn memory_policies(dask: &DaskConfig) -> Option<Vec<String>> {
    let node = dask.get("distributed.scheduler.active-memory-manager.policies")?;
    let Setting::List(policies) = &node.setting else { return None };
    let class = |setting: &Setting| match setting {
        Setting::Map(entries) => entries.get("class").map(|class| class.setting.to_string()),
        other => Some(other.to_string()),
    };
    Some(policies.iter().filter_map(|policy| class(&policy.setting)).collect())
}

/// Seconds between rounds: a zero would never let go of the processor.
fn interval(said: &Said<'_>) -> Result<f64, String> {
    const INTERVAL_MIN: f64 = 0.001;
    let seconds = said.duration()?.as_secs_f64();
    if seconds < INTERVAL_MIN {
        return Err(said.wrong(&format!("{:?} is less than a millisecond", said.text())));
    }
    Ok(seconds)
}

fn measure(text: &str) -> Result<MemoryMeasure, String> {
    match text {
        "process" => Ok(MemoryMeasure::Process),
        "optimistic" => Ok(MemoryMeasure::Optimistic),
        "managed" => Ok(MemoryMeasure::Managed),
        _ => Err(format!("{text:?} is no measure of memory; there are optimistic, process and managed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "DASK_DISTRIBUTED__SCHEDULER__";

    fn dask(variables: &[(&str, &str)]) -> DaskConfig {
        let variables = variables.iter().map(|(name, text)| (format!("{PREFIX}{name}"), (*text).to_owned()));
        DaskConfig::from_sources(&[], variables).expect("a configuration")
    }

    fn config(args: &ConfigArgs, variables: &[(&str, &str)]) -> Result<Config, String> {
        args.config(&dask(variables))
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(config(&ConfigArgs::default(), &[]), Ok(SchedulerOptions::default().state));
    }

    #[test]
    fn the_defaults_of_the_keys_are_those_of_the_scheduler() {
        let shown = DaskConfig::default().show();
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("defaults.yaml");
        std::fs::write(&path, shown).expect("written");
        let dask = DaskConfig::from_sources(&[path], []).expect("YAML");
        let mut said = ConfigArgs::default().config(&dask).expect("readable");
        let mut default = SchedulerOptions::default().state;
        // Said one by one they come in another order.
        said.default_task_durations.sort_by(|a, b| a.0.cmp(&b.0));
        default.default_task_durations.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(said, default);
        assert_eq!(ConfigArgs::default().worker_ttl(&dask), Ok(SchedulerOptions::default().worker_ttl));
    }

    #[test]
    fn the_configuration_changes_settings_and_options_count_more() {
        let variables = [
            ("WORK_STEALING", "False"),
            ("ACTIVE_MEMORY_MANAGER__START", "false"),
            ("ACTIVE_MEMORY_MANAGER__INTERVAL", "\"500ms\""),
            ("ACTIVE_MEMORY_MANAGER__MEASURE", "managed"),
            ("ACTIVE_MEMORY_MANAGER__POLICIES", "[{'class': 'mine.Policy'}]"),
            ("WORKER_SATURATION", "inf"),
            ("NO_WORKERS_TIMEOUT", "1 minute"),
            ("DEFAULT_TASK_DURATIONS", "{'my-task': '2h', 'split-stage': 1}"),
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
        assert!(!config.amm_reduce_replicas);
        assert_eq!(ConfigArgs::foreign_memory_policies(&dask(&variables)), ["mine.Policy"]);
        let duration =
            |name: &str| config.default_task_durations.iter().find(|(known, _)| known == name).map(|(_, s)| *s);
        assert_eq!((duration("my-task"), duration("split-stage")), (Some(7200.0), Some(1.0)));
        assert_eq!(duration("rechunk-split"), Some(1e-6));
    }

    #[test]
    fn a_workers_silence_has_an_end_unless_told_otherwise() {
        let ttl = |option: Option<&str>, variable: Option<&str>| {
            let args = ConfigArgs { worker_ttl: option.map(str::to_owned), ..ConfigArgs::default() };
            let variables: Vec<_> = variable.map(|text| ("WORKER_TTL", text)).into_iter().collect();
            args.worker_ttl(&dask(&variables))
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
            assert!(error.starts_with(PREFIX) && error.contains(variable) && error.contains(text), "{error}");
        }
        let args = ConfigArgs { policy: Some("best".to_owned()), ..ConfigArgs::default() };
        assert!(config(&args, &[]).expect_err("nonsense").starts_with("--policy"));
    }
}
