//! The options of `dask-worker`.

use clap::Parser;

use super::memory_args::MemoryArgs;
use super::tls::TlsArgs;
use super::worker_settings::is_task_library;

/// Launch a Dask worker attached to an existing scheduler
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "dask-worker", disable_version_flag = true)]
pub struct WorkerArgs {
    /// The scheduler's address, such as tcp://10.0.0.1:8786; else --scheduler-file or DASK_SCHEDULER_ADDRESS
    pub scheduler: Option<String>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Serving computation port, defaults to random. With --nworkers give a range: --worker-port=3000:3026
    #[arg(long)]
    pub worker_port: Option<String>,
    /// Serving nanny port, defaults to random. With --nworkers give a range: --nanny-port=3000:3026
    #[arg(long)]
    pub nanny_port: Option<String>,
    /// Address on which to serve /health, /status and /metrics
    #[arg(long, default_value = ":0", alias = "bokeh-port", alias = "http-port")]
    pub dashboard_address: String,
    /// Launch the dashboard (the default)
    #[arg(long, overrides_with = "no_dashboard", alias = "bokeh")]
    pub dashboard: bool,
    /// Do not launch the dashboard; /health and /metrics stay, as upstream
    #[arg(long, overrides_with = "dashboard", alias = "no-bokeh")]
    pub no_dashboard: bool,
    /// The address to which the worker binds. Example: tcp://0.0.0.0:9000
    #[arg(long)]
    pub listen_address: Option<String>,
    /// The address the worker advertises to the scheduler and other workers. Example: tcp://127.0.0.1:9000
    #[arg(long)]
    pub contact_address: Option<String>,
    /// Serving host: an IP address visible to the scheduler and other workers. See --listen-address, --interface
    #[arg(long)]
    pub host: Option<String>,
    /// Network interface like 'eth0' or 'ib0'
    #[arg(long)]
    pub interface: Option<String>,
    /// Protocol: tcp, tls, ws or wss
    #[arg(long)]
    pub protocol: Option<String>,
    /// Number of threads per process; a fraction is rounded up
    #[arg(long, allow_hyphen_values = true)]
    pub nthreads: Option<String>,
    /// Number of worker processes. If negative, (CPU_COUNT + 1 + nworkers); 'auto' sets nworkers and nthreads from
    /// CPU_COUNT
    #[arg(long, allow_hyphen_values = true, alias = "nprocs")]
    pub nworkers: Option<String>,
    /// A unique name for this worker like 'worker-1'. With --nworkers: name-0, name-1, ...
    #[arg(long, allow_hyphen_values = true)]
    pub name: Option<String>,
    /// Memory per process: bytes (0 for no limit), a fraction of the system's memory, a size like 5GB or 5000M, or
    /// 'auto'
    #[arg(long, default_value = "auto", allow_hyphen_values = true)]
    pub memory_limit: String,
    #[command(flatten)]
    pub memory: MemoryArgs,
    /// Start workers in a nanny process for management (the default)
    #[arg(long, overrides_with = "no_nanny")]
    pub nanny: bool,
    /// Start the worker in this process
    #[arg(long, overrides_with = "nanny")]
    pub no_nanny: bool,
    /// File to write the process PID
    #[arg(long, default_value = "", hide_default_value = true)]
    pub pid_file: String,
    /// Directory to place worker files
    #[arg(long)]
    pub local_directory: Option<String>,
    /// Resources for task constraints like "GPU=2 MEM=10e9", for each worker process
    #[arg(long)]
    pub resources: Option<String>,
    /// Filename to JSON encoded scheduler information. Use with dask-scheduler --scheduler-file
    #[arg(long)]
    pub scheduler_file: Option<String>,
    /// Seconds to wait for a scheduler before closing
    #[arg(long)]
    pub death_timeout: Option<String>,
    /// Shut down the worker after this duration
    #[arg(long)]
    pub lifetime: Option<String>,
    /// Random amount by which to stagger lifetime values
    #[arg(long)]
    pub lifetime_stagger: Option<String>,
    /// Restart the worker after its lifetime lapses; needs the nanny
    #[arg(long, overrides_with = "no_lifetime_restart")]
    pub lifetime_restart: bool,
    /// Do not restart the worker after its lifetime lapses (the default)
    #[arg(long, overrides_with = "lifetime_restart")]
    pub no_lifetime_restart: bool,
    /// Let a running task that nobody wants any more run on, as upstream does; else it is interrupted
    #[arg(long)]
    pub no_interrupt_cancelled: bool,
    /// How long a task that was interrupted at its `timeout` may go on before its executor is replaced; default: 5s
    #[arg(long, value_name = "DURATION")]
    pub interrupt_grace: Option<String>,
    /// How long a worker that gets SIGTERM may take to move what only it holds to other workers; 0 to close at once, as
    /// upstream's workers do. Default: 20s
    #[arg(long, value_name = "DURATION")]
    pub drain_grace: Option<String>,
    /// How long a connection to the scheduler that was cut may take to be made again before the worker closes; 0 to close at
    /// once, as upstream's workers do. Default: 30s
    #[arg(long, value_name = "DURATION")]
    pub reconnect_grace: Option<String>,
    /// Scheduler SNI (if different from scheduler hostname)
    #[arg(long)]
    pub scheduler_sni: Option<String>,
    /// The Python that runs Python tasks; 'none' for native tasks only. Default: DASK_PYTHON, the active virtual
    /// environment, or python3
    #[arg(long, value_name = "PATH")]
    pub python: Option<String>,
    /// Give each Python task that runs a process of its own; values stay in one
    #[arg(long, overrides_with = "no_task_processes")]
    pub task_processes: bool,
    /// Run Python tasks in the threads of one process (the default)
    #[arg(long, overrides_with = "task_processes")]
    pub no_task_processes: bool,
    /// Log level of dask: debug, info, warning, error
    #[arg(long)]
    pub log_level: Option<String>,
    /// Show the version and exit.
    #[arg(long)]
    pub version: bool,

    /// Worker class; only the usual one exists here.
    #[arg(long, hide = true)]
    pub worker_class: Option<String>,
    /// Module, file or URL with a dask_setup function, which the worker's Python process loads when it starts; or a shared
    /// library (.so) of native tasks, which the worker itself loads
    #[arg(long)]
    pub preload: Vec<String>,
    /// Arguments for the preload modules, after --
    #[arg(last = true)]
    pub preload_argv: Vec<String>,
    /// Module, file or URL with a dask_setup function, which the nanny's Python process loads before the nanny starts
    /// its worker
    #[arg(long)]
    pub preload_nanny: Vec<String>,
    /// Deprecated upstream.
    #[arg(long, hide = true)]
    pub dashboard_prefix: Option<String>,
    /// Removed upstream.
    #[arg(long, hide = true)]
    pub reconnect: bool,
    /// Removed upstream.
    #[arg(long, hide = true)]
    pub no_reconnect: bool,
    /// Set by a nanny for the process it starts.
    #[arg(long, hide = true)]
    pub nanny_address: Option<String>,
}

/// Names of the one worker class there is.
const WORKER_CLASSES: [&str; 5] = [
    "dask.distributed.Worker",
    "distributed.Worker",
    "distributed.worker.Worker",
    "dask.distributed.Nanny",
    "distributed.Nanny",
];

impl WorkerArgs {
    /// Options that upstream has and this worker has not: the warnings to log.
    ///
    /// # Errors
    /// For one whose absence would change what the user gets.
    pub fn check_unsupported(&self) -> Result<Vec<String>, String> {
        if let Some(class) = self.worker_class.as_deref().filter(|class| !WORKER_CLASSES.contains(class)) {
            return Err(format!("--worker-class {class}: this native worker has no Python classes to start"));
        }
        let modules = [("--preload", &self.preload), ("--preload-nanny", &self.preload_nanny)];
        for (option, modules) in modules {
            let module = modules.iter().find(|module| !is_task_library(module));
            if let (Some(module), Some("none")) = (module, self.python.as_deref()) {
                return Err(format!("{option} {module}: a worker with --python none runs no Python modules"));
            }
        }
        if let Some(library) = self.preload_nanny.iter().find(|it| is_task_library(it)) {
            return Err(format!("--preload-nanny {library}: native tasks run in workers; give it with --preload"));
        }
        let mut warnings = Vec::new();
        let ignored = [
            (self.dashboard_prefix.is_some(), "--dashboard-prefix"),
            (self.reconnect || self.no_reconnect, "--reconnect"),
        ];
        for (_, option) in ignored.iter().filter(|(given, _)| *given) {
            warnings.push(format!("{option} has no effect"));
        }
        if !self.preload_nanny.is_empty() && self.no_nanny {
            warnings.push("--preload-nanny has no effect without a nanny".to_owned());
        }
        if self.lifetime_restart && self.no_nanny {
            warnings.push("--lifetime-restart has no effect without a nanny".to_owned());
        }
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> WorkerArgs {
        WorkerArgs::try_parse_from([&["dask-worker"], args].concat()).expect("known options")
    }

    #[test]
    fn command_lines_of_deployers_are_understood() {
        let helm = parse(&[
            "x-scheduler:8786",
            "--nthreads",
            "0.5",
            "--memory-limit",
            "3G",
            "--no-dashboard",
            "--dashboard-address",
            "8790",
        ]);
        assert_eq!(helm.scheduler.as_deref(), Some("x-scheduler:8786"));
        assert!(helm.no_dashboard);
        let jobqueue = parse(&[
            "tcp://h:1",
            "--name",
            "7",
            "--nthreads",
            "4",
            "--memory-limit",
            "5.59GiB",
            "--nworkers",
            "2",
            "--nanny",
            "--death-timeout",
            "60",
            "--protocol",
            "tls://",
            "--tls-ca-file",
            "a",
            "--tls-key",
            "b",
            "--tls-cert",
            "c",
        ]);
        assert_eq!((jobqueue.nworkers.as_deref(), jobqueue.protocol.as_deref()), (Some("2"), Some("tls://")));
        let airflow = parse(&["H:1", "--resources=QUEUE1=inf,QUEUE2=inf"]);
        assert_eq!(airflow.resources.as_deref(), Some("QUEUE1=inf,QUEUE2=inf"));
        let negative = parse(&["H:1", "--nworkers", "-1"]);
        assert_eq!(negative.nworkers.as_deref(), Some("-1"));
        let old = parse(&["H:1", "--nprocs", "2", "--no-bokeh", "--reconnect"]);
        assert_eq!((old.nworkers.as_deref(), old.no_dashboard), (Some("2"), true));
        assert_eq!(old.check_unsupported().expect("harmless"), ["--reconnect has no effect"]);
    }

    #[test]
    fn the_last_of_two_opposite_flags_wins() {
        assert!(!parse(&["--no-nanny", "--nanny"]).no_nanny);
        assert!(parse(&["--nanny", "--no-nanny"]).no_nanny);
    }

    #[test]
    fn what_needs_python_inside_is_refused() {
        assert!(parse(&["--worker-class", "dask_cuda.CUDAWorker"]).check_unsupported().is_err());
        assert!(parse(&["--worker-class", "distributed.Worker"]).check_unsupported().is_ok());
        assert!(parse(&["--preload", "foo.bar", "--", "x"]).check_unsupported().is_ok());
        assert!(parse(&["--preload", "foo.bar", "--python", "none"]).check_unsupported().is_err());
        assert!(parse(&["--preload-nanny", "foo.bar"]).check_unsupported().is_ok_and(|warnings| warnings.is_empty()));
        assert!(parse(&["--preload-nanny", "foo.bar", "--python", "none"]).check_unsupported().is_err());
        assert!(WorkerArgs::try_parse_from(["dask-worker", "--no-such-option"]).is_err());
    }
}
