//! From options to what has to be started: one plan for each worker process.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use dask_nanny::server::TERMINATE_FRACTION;
use dask_protocol::comm::{outgoing_ip, resolve};
use dask_protocol::{Address, Value};
use dask_worker::MemoryOptions;
use serde::Deserialize;

use super::address::{Where, full_address, scheduler_address};
use super::parse::{self, PortShare, apportion_ports, parse_timedelta, parse_workers};
use super::system::System;
use super::worker_args::WorkerArgs;
use super::worker_settings::WorkerSettings;
use crate::config::{DaskConfig, Said};

/// Default of [`WorkerPlan::drain_grace`]: Kubernetes kills 30 s after SIGTERM, and closing takes up to 10 s.
const DRAIN_GRACE: Duration = Duration::from_secs(20);
/// The key of dask's configuration that names the scheduler.
pub const SCHEDULER_ADDRESS: &str = "scheduler-address";
/// What to say when no scheduler is named.
pub const NO_SCHEDULER: &str = "Need to provide scheduler address like `dask worker SCHEDULER_ADDRESS:8786`";
/// How often to look for the scheduler's file.
const SCHEDULER_FILE_INTERVAL: Duration = Duration::from_millis(100);
/// What `--memory-limit` calls the absence of a limit.
const MEMORY_LIMIT_OFF: &str = "0";

/// One worker, with or without its nanny.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerPlan {
    /// Text or number; nil for its address.
    pub name: Value,
    /// Threads.
    pub nthreads: usize,
    /// Bytes; `None` for no limit.
    pub memory_limit: Option<u64>,
    /// What happens as memory fills up.
    pub memory: MemoryOptions,
    /// The share of the limit at which the nanny ends the process; `None` for never.
    pub terminate_fraction: Option<f64>,
    /// The addresses it may listen on, to be tried in turn.
    pub listen: Vec<Address>,
    /// The address to tell peers, where another one.
    pub contact: Option<Address>,
    /// The addresses its nanny may listen on.
    pub nanny_listen: Vec<Address>,
    /// Resources.
    pub resources: Vec<(String, f64)>,
    /// How long to wait for the scheduler.
    pub death_timeout: Option<Duration>,
    /// When to close, before the random part.
    pub lifetime: Option<Duration>,
    /// How long an interrupted task may go on; the worker's default when absent.
    pub interrupt_grace: Option<Duration>,
    /// How long a cut connection to the scheduler may take to come back; the worker's default when absent.
    pub reconnect_grace: Option<Duration>,
    /// How long a worker that gets SIGTERM may take to hand over what only it holds.
    pub drain_grace: Duration,
    /// What the configuration says beside this.
    pub settings: WorkerSettings,
    /// The random part, in either direction.
    pub lifetime_stagger: Duration,
    /// What its nanny must pass on to the process: the ports, as `--worker-port` takes them.
    worker_ports: Vec<u16>,
    name_text: Option<String>,
}

/// All workers of one command, and the warnings that came up.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// One for each process.
    pub workers: Vec<WorkerPlan>,
    /// To be logged.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Works out what to start. `towards` is the scheduler's IP, which chooses the interface to listen on.
    ///
    /// # Errors
    /// What to tell the user.
    pub fn new(
        args: &WorkerArgs,
        dask: &DaskConfig,
        scheduler: &Address,
        towards: Option<IpAddr>,
        system: &System,
    ) -> Result<Plan, String> {
        let (workers, nthreads) = parse_workers(args.nworkers.as_deref(), args.nthreads.as_deref(), system.cpus)?;
        check_combinations(args, workers)?;
        let memory = parse::parse_memory_limit(&args.memory_limit, nthreads, system)?;
        let (memory_options, terminate_fraction) = args.memory.options(dask, TERMINATE_FRACTION)?;
        let listen = args.listen_address.as_deref().map(|text| full_address("--listen-address", text)).transpose()?;
        let contact =
            args.contact_address.as_deref().map(|text| full_address("--contact-address", text)).transpose()?;
        let shares = apportion_ports(args.worker_port.as_deref(), args.nanny_port.as_deref(), workers, !args.no_nanny)?;
        let duration = |name, option: &Option<String>, key| {
            let said = match key {
                Some(key) => dask.said(name, option.as_deref(), key),
                None => option.as_deref().map(|text| Said::option(name, text)),
            };
            said.map(|said| said.duration()).transpose()
        };
        let death_timeout = duration("--death-timeout", &args.death_timeout, None)?;
        let lifetime = duration("--lifetime", &args.lifetime, Some("distributed.worker.lifetime.duration"))?;
        let interrupt_grace = duration("--interrupt-grace", &args.interrupt_grace, None)?;
        let drain_grace = duration("--drain-grace", &args.drain_grace, None)?.unwrap_or(DRAIN_GRACE);
        let reconnect_grace = duration("--reconnect-grace", &args.reconnect_grace, None)?;
        let stagger = Some("distributed.worker.lifetime.stagger");
        let lifetime_stagger = duration("--lifetime-stagger", &args.lifetime_stagger, stagger)?.unwrap_or_default();
        let settings = WorkerSettings::read(args, dask)?;
        let resources = match args.resources.as_deref() {
            Some(text) => parse::parse_resources(text)?,
            None => configured_resources(dask)?,
        };
        let own_ip = outgoing_ip(towards).to_string();
        let at = Where {
            // As upstream: listen only on the interface that leads to the scheduler, unless told otherwise.
            host: args.host.as_deref().or(args.interface.is_none().then_some(own_ip.as_str())),
            interface: args.interface.as_deref(),
            protocol: args.protocol.as_deref(),
            port: None,
        };
        let addresses = |ports: &[u16]| -> Result<Vec<Address>, String> {
            ports.iter().map(|&port| at.listen_address(scheduler.scheme(), port)).collect()
        };
        let plan = |(i, share): (usize, PortShare)| -> Result<WorkerPlan, String> {
            let name_text = worker_name(args.name.as_deref(), i, workers);
            Ok(WorkerPlan {
                name: name_text.as_deref().map_or(Value::Nil, name_value),
                nthreads,
                memory_limit: memory.bytes,
                memory: memory_options.clone(),
                terminate_fraction,
                listen: match &listen {
                    Some(address) => vec![address.clone()],
                    None => addresses(&share.worker)?,
                },
                contact: contact.clone(),
                nanny_listen: addresses(&share.nanny)?,
                resources: resources.clone(),
                death_timeout,
                lifetime,
                interrupt_grace,
                reconnect_grace,
                drain_grace,
                lifetime_stagger,
                settings: settings.clone(),
                worker_ports: share.worker,
                name_text,
            })
        };
        let workers = shares.into_iter().enumerate().map(plan).collect::<Result<_, _>>()?;
        Ok(Plan { workers, warnings: memory.warning.into_iter().collect() })
    }
}

fn configured_resources(dask: &DaskConfig) -> Result<Vec<(String, f64)>, String> {
    let entries = dask.entries("distributed.worker.resources")?;
    entries.into_iter().map(|(name, said)| Ok((name.to_owned(), said.number()?))).collect()
}

fn check_combinations(args: &WorkerArgs, workers: usize) -> Result<(), String> {
    let wrong = if workers > 1 && args.no_nanny {
        " You cannot use the --no-nanny argument when n_workers > 1."
    } else if args.contact_address.is_some() && args.listen_address.is_none() {
        "Must specify --listen-address when --contact-address is given"
    } else if workers > 1 && args.listen_address.is_some() {
        "You cannot specify --listen-address when n_workers > 1."
    } else if args.listen_address.is_some() && (args.worker_port.is_some() || args.host.is_some()) {
        "You cannot specify --listen-address when --worker-port or --host is given."
    } else {
        return Ok(());
    };
    Err(format!("Failed to launch worker. {wrong}"))
}

fn worker_name(name: Option<&str>, i: usize, workers: usize) -> Option<String> {
    let name = name.filter(|name| !name.is_empty())?;
    Some(if workers == 1 { name.to_owned() } else { format!("{name}-{i}") })
}

/// A name that is a number is sent as one.
fn name_value(text: &str) -> Value {
    text.trim().parse::<i64>().map_or_else(|_| Value::from(text), Value::from)
}

impl WorkerPlan {
    /// The arguments of the process that a nanny starts for this plan: all is decided, nothing counted again.
    pub fn child_args(&self, args: &WorkerArgs, scheduler: &Address) -> Vec<String> {
        let mut out = vec![scheduler.as_str().to_owned(), "--no-nanny".to_owned()];
        let mut option = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                // One argument, so that a value may begin with a dash.
                out.push(format!("{name}={value}"));
            }
        };
        option("--nthreads", Some(&self.nthreads.to_string()));
        let memory_limit = self.memory_limit.map(memory_text);
        option("--memory-limit", Some(memory_limit.as_deref().unwrap_or(MEMORY_LIMIT_OFF)));
        option("--name", self.name_text.as_deref());
        if args.listen_address.is_none() {
            let ports: Vec<String> = self.worker_ports.iter().map(u16::to_string).collect();
            option("--worker-port", Some(&ports.join(",")));
        }
        option("--listen-address", args.listen_address.as_deref());
        option("--contact-address", args.contact_address.as_deref());
        option("--host", args.host.as_deref());
        option("--interface", args.interface.as_deref());
        option("--protocol", args.protocol.as_deref());
        option("--dashboard-address", Some(&args.dashboard_address));
        option("--local-directory", args.local_directory.as_deref());
        option("--resources", args.resources.as_deref());
        option("--death-timeout", args.death_timeout.as_deref());
        option("--lifetime", args.lifetime.as_deref());
        option("--interrupt-grace", args.interrupt_grace.as_deref());
        option("--drain-grace", args.drain_grace.as_deref());
        option("--reconnect-grace", args.reconnect_grace.as_deref());
        option("--lifetime-stagger", args.lifetime_stagger.as_deref());
        option("--scheduler-sni", args.scheduler_sni.as_deref());
        option("--python", args.python.as_deref());
        option("--log-level", args.log_level.as_deref());
        let flags = [
            (args.no_dashboard, "--no-dashboard"),
            (args.lifetime_restart, "--lifetime-restart"),
            (args.no_interrupt_cancelled, "--no-interrupt-cancelled"),
            (args.task_processes, "--task-processes"),
        ];
        out.extend(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| (*flag).to_owned()));
        out.extend(args.memory.to_args());
        out.extend(args.tls.to_args());
        out.extend(args.preload.iter().map(|module| format!("--preload={module}")));
        if !args.preload_argv.is_empty() {
            out.push("--".to_owned());
            out.extend(args.preload_argv.iter().cloned());
        }
        out
    }

    /// The lifetime with its random part, given a number between 0 and 1.
    pub fn staggered_lifetime(&self, chance: f64) -> Option<Duration> {
        let seconds = self.lifetime?.as_secs_f64() + self.lifetime_stagger.as_secs_f64() * (2.0 * chance - 1.0);
        Some(Duration::from_secs_f64(seconds.max(0.0)))
    }
}

/// Bytes as `--memory-limit` takes them: with a unit, for a bare 1 would be all of the memory.
fn memory_text(bytes: u64) -> String {
    format!("{bytes}B")
}

/// The scheduler to join: the argument, the scheduler's file, or the configuration.
///
/// # Errors
/// What to tell the user.
pub async fn find_scheduler(args: &WorkerArgs, dask: &DaskConfig) -> Result<Address, String> {
    let scheme = match args.protocol.as_deref() {
        Some(protocol) => protocol.trim_end_matches("://"),
        None => args.tls.default_scheme(dask)?,
    };
    let timeout = args.death_timeout.as_deref().map(parse_timedelta).transpose()?;
    let configured = dask.key(SCHEDULER_ADDRESS);
    let configured = configured.as_ref().map(Said::text);
    locate_scheduler(args.scheduler.as_deref(), args.scheduler_file.as_deref(), timeout, configured, scheme).await
}

/// The same for any command; `timeout` is how long to wait for the file, none for ever.
///
/// # Errors
/// What to tell the user.
pub async fn locate_scheduler(
    given: Option<&str>,
    file: Option<&str>,
    timeout: Option<Duration>,
    configured: Option<&str>,
    scheme: &str,
) -> Result<Address, String> {
    let address = match (given, file, configured) {
        (Some(text), _, _) if !text.is_empty() => text.to_owned(),
        (_, Some(file), _) => read_scheduler_file(Path::new(file), timeout).await?,
        (_, None, Some(text)) if !text.is_empty() => text.to_owned(),
        (_, None, _) => return Err(NO_SCHEDULER.to_owned()),
    };
    scheduler_address(&address, scheme).map_err(|error| format!("scheduler address {address:?}: {error}"))
}

/// Waits for the file, as the scheduler may be starting at the same time.
async fn read_scheduler_file(path: &Path, timeout: Option<Duration>) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Identity {
        address: String,
    }
    let since = Instant::now();
    loop {
        let failure = match std::fs::read(path) {
            Ok(text) => match serde_json::from_slice::<Identity>(&text) {
                Ok(identity) => return Ok(identity.address),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        if timeout.is_some_and(|timeout| since.elapsed() >= timeout) {
            return Err(format!("--scheduler-file {}: {failure}", path.display()));
        }
        tokio::time::sleep(SCHEDULER_FILE_INTERVAL).await;
    }
}

/// The scheduler's IP, if its name can be resolved now.
pub async fn scheduler_ip(scheduler: &Address) -> Option<IpAddr> {
    let resolved = resolve(scheduler).await.ok()?;
    resolved.host().parse().ok()
}

/// How many threads the runtime of a worker needs: user code runs elsewhere.
pub fn runtime_threads(cpus: NonZeroUsize) -> usize {
    const RUNTIME_THREADS_MAX: usize = 4;
    cpus.get().clamp(2, RUNTIME_THREADS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    const SYSTEM: System = System { memory: 16_000_000_000, cpus: NonZeroUsize::new(8).expect("not zero") };
    const LOOPBACK: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn args(line: &[&str]) -> WorkerArgs {
        WorkerArgs::try_parse_from([&["dask-worker"], line].concat()).expect("known options")
    }

    fn plan(line: &[&str]) -> Result<Plan, String> {
        Plan::new(&args(line), &DaskConfig::default(), &"tcp://127.0.0.1:8786".into(), LOOPBACK, &SYSTEM)
    }

    #[test]
    fn one_worker_takes_the_whole_machine() {
        let plan = plan(&["tcp://127.0.0.1:8786"]).expect("valid");
        let [worker] = &plan.workers[..] else { panic!("{plan:?}") };
        assert_eq!((worker.nthreads, worker.memory_limit), (8, Some(16_000_000_000)));
        assert_eq!(worker.listen, [Address::from("tcp://127.0.0.1:0")]);
        assert_eq!(worker.nanny_listen, [Address::from("tcp://127.0.0.1:0")]);
        assert_eq!(worker.name, Value::Nil);
    }

    #[test]
    fn several_workers_share_cpus_memory_ports_and_name() {
        let plan = plan(&["x", "--nworkers", "2", "--name", "a", "--worker-port", "100:103"]).expect("valid");
        let names: Vec<&Value> = plan.workers.iter().map(|worker| &worker.name).collect();
        assert_eq!(names, [&Value::from("a-0"), &Value::from("a-1")]);
        assert_eq!(plan.workers[1].listen, ["tcp://127.0.0.1:101".into(), "tcp://127.0.0.1:103".into()]);
        assert_eq!((plan.workers[0].nthreads, plan.workers[0].memory_limit), (4, Some(8_000_000_000)));
    }

    #[test]
    fn numeric_names_are_numbers_unless_numbered() {
        assert_eq!(plan(&["x", "--name", "3"]).expect("valid").workers[0].name, Value::Int(3));
        assert_eq!(plan(&["x", "--name", "3", "--nworkers", "2"]).expect("valid").workers[0].name, "3-0".into());
    }

    #[test]
    fn children_read_their_arguments_back_to_the_same_plan() {
        let line = [
            "x",
            "--nworkers=2",
            "--name=n",
            "--worker-port=100:103",
            "--memory-limit=5GB",
            "--resources=A=1,B=2",
            "--death-timeout=5 minutes",
            "--lifetime=1h",
            "--lifetime-stagger=5m",
            "--log-level=debug",
            "--lifetime-restart",
        ];
        let parent = plan(&line).expect("valid");
        let (given, scheduler) = (args(&line), Address::from("tcp://127.0.0.1:8786"));
        for worker in &parent.workers {
            let child_line = worker.child_args(&given, &scheduler);
            let child_args = args(&child_line.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(child_args.no_nanny && child_args.lifetime_restart);
            assert_eq!(child_args.log_level.as_deref(), Some("debug"));
            let child = Plan::new(&child_args, &DaskConfig::default(), &scheduler, LOOPBACK, &SYSTEM).expect("valid");
            let nanny_listen = worker.nanny_listen.clone();
            let expected = WorkerPlan { nanny_listen, ..child.workers[0].clone() };
            assert_eq!(expected, *worker);
        }
    }

    #[test]
    fn children_keep_the_absence_of_a_limit_and_tiny_limits() {
        for limit in ["0", "1B"] {
            let parent = plan(&["x", "--memory-limit", limit]).expect("valid");
            let line = parent.workers[0].child_args(&args(&["x"]), &"tcp://127.0.0.1:8786".into());
            let child = plan(&line.iter().map(String::as_str).collect::<Vec<_>>()).expect("valid");
            assert_eq!(child.workers[0].memory_limit, parent.workers[0].memory_limit, "{limit}");
        }
    }

    #[test]
    fn contradictions_are_refused_with_upstreams_words() {
        let error = |line: &[&str]| plan(line).expect_err("contradiction");
        assert!(error(&["x", "--nworkers=2", "--no-nanny"]).contains("cannot use the --no-nanny argument"));
        assert!(error(&["x", "--contact-address=tcp://a:1"]).contains("Must specify --listen-address"));
        assert!(error(&["x", "--listen-address=tcp://:1", "--nworkers=2"]).contains("when n_workers > 1"));
        assert!(error(&["x", "--listen-address=tcp://:1", "--host=a"]).contains("--worker-port or --host"));
        assert!(error(&["x", "--nworkers=2", "--worker-port=5"]).contains("Not enough ports"));
        assert!(error(&["x", "--death-timeout=soon"]).contains("--death-timeout"));
        assert!(error(&["x", "--protocol=ucx"]).contains("ucx"));
    }

    #[test]
    fn the_configuration_says_what_no_option_says() {
        let variables = [
            ("DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION", "1 hour"),
            ("DASK_DISTRIBUTED__WORKER__LIFETIME__STAGGER", "5m"),
            ("DASK_DISTRIBUTED__WORKER__RESOURCES", "{'GPU': 1}"),
        ];
        let variables = variables.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let dask = DaskConfig::from_sources(&[], variables).expect("a configuration");
        let plan = |line: &[&str]| {
            let plan = Plan::new(&args(line), &dask, &"tcp://127.0.0.1:8786".into(), LOOPBACK, &SYSTEM);
            plan.expect("valid").workers.remove(0)
        };
        let configured = plan(&["x"]);
        assert_eq!(configured.lifetime.map(|time| time.as_secs()), Some(3600));
        assert_eq!(configured.lifetime_stagger.as_secs(), 300);
        assert_eq!(configured.resources, [("GPU".to_owned(), 1.0)]);
        assert_eq!(plan(&["x", "--lifetime=1m"]).lifetime.map(|time| time.as_secs()), Some(60));
        assert_eq!(plan(&["x", "--resources=A=2"]).resources, [("A".to_owned(), 2.0)]);
    }

    #[test]
    fn lifetimes_are_staggered_both_ways() {
        let worker = &plan(&["x", "--lifetime=1h", "--lifetime-stagger=10m"]).expect("valid").workers[0];
        let minutes = |n: u64| Some(Duration::from_secs(60 * n));
        assert_eq!(worker.staggered_lifetime(0.0), minutes(50));
        assert_eq!(worker.staggered_lifetime(0.5), minutes(60));
        assert_eq!(worker.staggered_lifetime(1.0), minutes(70));
        let short = &plan(&["x", "--lifetime=1s", "--lifetime-stagger=1h"]).expect("valid").workers[0];
        assert_eq!(short.staggered_lifetime(0.0), minutes(0));
        assert_eq!(plan(&["x"]).expect("valid").workers[0].staggered_lifetime(0.5), None);
    }

    #[tokio::test]
    async fn scheduler_is_named_by_argument_file_or_environment() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("scheduler.json");
        std::fs::write(&file, r#"{"type": "Scheduler", "address": "tcp://file:1"}"#).expect("written");
        let by_file = format!("--scheduler-file={}", file.display());
        let find = async |line: &[&str], variable: Option<&str>| {
            let variable = variable.map(|text| ("DASK_SCHEDULER_ADDRESS".to_owned(), text.to_owned()));
            let dask = DaskConfig::from_sources(&[], variable).expect("a configuration");
            find_scheduler(&args(line), &dask).await.map(|address| address.as_str().to_owned())
        };
        assert_eq!(find(&["arg:1", &by_file], Some("env:1")).await.as_deref(), Ok("tcp://arg:1"));
        assert_eq!(find(&[&by_file], Some("env:1")).await.as_deref(), Ok("tcp://file:1"));
        assert_eq!(find(&[], Some("\"tcp://env:1\"")).await.as_deref(), Ok("tcp://env:1"));
        assert_eq!(find(&[], None).await, Err(NO_SCHEDULER.to_owned()));
        assert_eq!(find(&[], Some("")).await, Err(NO_SCHEDULER.to_owned()));
        assert_eq!(find(&["h", "--tls-ca-file=ca"], None).await.as_deref(), Ok("tls://h:8786"));
        let missing = find(&["--scheduler-file=/no/file", "--death-timeout=0"], None).await;
        assert!(missing.expect_err("missing").contains("/no/file"));
    }
}
