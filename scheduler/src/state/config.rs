//! The settings the state decides by; names follow dask's `distributed.scheduler.*`.

use super::event::Seconds;

/// Which of a worker's memory figures counts for balancing (`distributed.scheduler.MemoryState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMeasure {
    /// Resident memory of the process.
    Process,
    /// Managed by dask plus unmanaged for longer than `memory_recent_to_old_time`.
    Optimistic,
    /// Results in memory.
    Managed,
}

/// How tasks are placed and held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// As dask.distributed 2026.8.0 decides.
    #[default]
    Upstream,
    /// Root-ish tasks that are used together stay together, and are held back from busy workers all the same.
    Native,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Policy; 2] = [Policy::Upstream, Policy::Native];

    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Upstream => "upstream",
            Policy::Native => "native",
        }
    }
}

impl std::str::FromStr for Policy {
    type Err = String;

    fn from_str(name: &str) -> Result<Policy, String> {
        let found = Policy::ALL.into_iter().find(|policy| policy.name() == name);
        found.ok_or_else(|| format!("{name:?} is no policy; there are upstream and native"))
    }
}

/// Settings of [`super::State`]; the default is dask's.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Who decides where tasks run and how long they wait (an addition to dask's settings).
    pub policy: Policy,
    /// Unexpected losses of workers that a task may be part of (`allowed-failures`).
    pub allowed_failures: u32,
    /// Bytes per second between workers, until they report what they measure (`bandwidth`).
    pub bandwidth: f64,
    /// Bytes assumed for results of unknown size (`default-data-size`).
    pub default_data_size: u64,
    /// Seconds per prefix before any was observed (`default-task-durations`).
    pub default_task_durations: Vec<(String, Seconds)>,
    /// Seconds assumed for all other prefixes (`unknown-task-duration`).
    pub unknown_task_duration: Seconds,
    /// Root-ish tasks sent per thread of a worker; infinite switches queuing off (`worker-saturation`).
    pub worker_saturation: f64,
    /// Root-ish groups depend on fewer groups than this (`rootish-taskgroup`).
    pub rootish_taskgroup: usize,
    /// ... which have fewer tasks than this together (`rootish-taskgroup-dependencies`).
    pub rootish_taskgroup_dependencies: usize,
    /// Tasks that no worker can run err after this long (`no-workers-timeout`).
    pub no_workers_timeout: Option<Seconds>,
    /// Whether idle workers take tasks from busy ones (`work-stealing`).
    pub work_stealing: bool,
    /// Seconds between two rounds of stealing (`work-stealing-interval`).
    pub work_stealing_interval: Seconds,
    /// Whether the active memory manager runs from the start (`active-memory-manager.start`).
    pub amm_start: bool,
    /// Whether it drops copies that nobody needs (`ReduceReplicas` of `active-memory-manager.policies`).
    pub amm_reduce_replicas: bool,
    /// Seconds between two of its rounds (`active-memory-manager.interval`).
    pub amm_interval: Seconds,
    /// What it balances by (`active-memory-manager.measure`).
    pub amm_measure: MemoryMeasure,
    /// Unmanaged memory that a worker has held for this many seconds counts as permanent
    /// (`worker.memory.recent-to-old-time`).
    pub memory_recent_to_old_time: Seconds,
    /// Whether workers are killed when they outgrow their limit (`worker.memory.terminate`); then a task whose inputs
    /// cannot fit any memory errs at once.
    pub memory_terminate: bool,
    /// Seconds in which the work at hand should be done, for [`super::State::scaling_advice`] (`adaptive.target-duration`).
    pub adaptive_target_duration: Seconds,
    /// Seconds for which fewer workers must have been enough before they are advised (`adaptive.interval` times
    /// `adaptive.wait-count`).
    pub adaptive_hold: Seconds,
    /// Transitions kept for `story` (`admin.low-level-log-length`).
    pub transition_log_length: usize,
    /// Choices of workers, and incidents, each kept for [`super::State::explain`]; about 150 bytes each once used, none
    /// for 0.
    pub decision_log_length: usize,
    /// Whether [`super::State::check`] runs after every event (`validate`).
    pub validate: bool,
}

impl Default for Config {
    fn default() -> Config {
        const ONE_MICROSECOND: Seconds = 1e-6;
        let fast = ["rechunk-split", "split-shuffle", "split-taskshuffle", "split-stage"];
        Config {
            policy: Policy::default(),
            allowed_failures: 3,
            bandwidth: 100_000_000.0,
            default_data_size: 1024,
            default_task_durations: fast.map(|prefix| (prefix.to_owned(), ONE_MICROSECOND)).into(),
            unknown_task_duration: 0.5,
            worker_saturation: 1.1,
            rootish_taskgroup: 5,
            rootish_taskgroup_dependencies: 5,
            no_workers_timeout: None,
            work_stealing: true,
            work_stealing_interval: 1.0,
            amm_start: true,
            amm_reduce_replicas: true,
            amm_interval: 2.0,
            amm_measure: MemoryMeasure::Optimistic,
            memory_recent_to_old_time: 30.0,
            memory_terminate: true,
            adaptive_target_duration: 5.0,
            adaptive_hold: 3.0,
            transition_log_length: 1000,
            decision_log_length: 10_000,
            validate: false,
        }
    }
}
