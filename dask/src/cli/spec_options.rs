//! Keyword arguments of dask's classes as options of our commands.

use crate::config::{Map, Node, Setting};

/// What a class of dask is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// `distributed.Scheduler`.
    Scheduler,
    /// `distributed.Nanny`: a worker with its nanny.
    Nanny,
    /// `distributed.Worker`: a worker alone.
    Worker,
}

impl Role {
    /// The role of a class of dask.distributed; `None` for all others.
    pub(super) fn of_class(class: &str) -> Option<Role> {
        let (module, name) = class.rsplit_once('.')?;
        let (role, own_module) = match name {
            "Scheduler" => (Role::Scheduler, "scheduler"),
            "Nanny" => (Role::Nanny, "nanny"),
            "Worker" => (Role::Worker, "worker"),
            _ => return None,
        };
        let modules = ["distributed", "dask.distributed", "dask_rs", "dask_rs.processes"];
        let is_ours = modules.contains(&module)
            || module
                .strip_suffix(own_module)
                .is_some_and(|rest| ["distributed.", "dask.distributed."].contains(&rest));
        is_ours.then_some(role)
    }

    /// The command of `dask`.
    pub(super) fn command(self) -> &'static str {
        match self {
            Role::Scheduler => "scheduler",
            Role::Nanny | Role::Worker => "worker",
        }
    }

    /// The command that stands alone.
    pub(super) fn program(self) -> &'static str {
        match self {
            Role::Scheduler => "dask-scheduler",
            Role::Nanny | Role::Worker => "dask-worker",
        }
    }
}

/// A command line, and variables for the process.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) args: Vec<String>,
    pub(super) variables: Vec<(String, String)>,
}

/// How a keyword is said on the command line.
enum Way {
    /// `--option=value`.
    Option(&'static str),
    /// `--option` or `--no-option`.
    Flag(&'static str, &'static str),
    /// `--option=value` for each item.
    Each(&'static str),
    /// `NAME=NUMBER,...`.
    Resources,
    /// Variables for the process.
    Variables,
    /// One variable, as dask's configuration is written in it.
    Setting(&'static str),
    /// Words after `--`.
    Words,
    /// A mapping of `distributed.security.Security`.
    Security,
    /// It changes nothing here.
    Nothing,
}

/// The command line for a class called with `opts`; `positional` is what it is called with before.
pub(super) fn arguments(role: Role, opts: &Map, positional: &[String]) -> Result<Arguments, String> {
    let mut out = Arguments::default();
    match (role, positional) {
        (Role::Scheduler, []) => {}
        (Role::Scheduler, [first, ..]) => return Err(format!("a scheduler takes no argument such as {first:?}")),
        (Role::Nanny | Role::Worker, positional) => out.args.extend(positional.iter().take(1).cloned()),
    }
    if role == Role::Worker {
        out.args.push("--no-nanny".to_owned());
    }
    let mut words = Vec::new();
    for (name, node) in opts.iter().filter(|(_, node)| node.setting != Setting::Null) {
        match way(role, name) {
            Some(Way::Option(option)) => out.args.push(format!("{option}={}", scalar(name, node)?)),
            Some(Way::Flag(on, off)) => {
                let text = scalar(name, node)?;
                let truth = node.setting == Setting::Bool(true) || text == "1";
                out.args.push(if truth { on } else { off }.to_owned());
            }
            Some(Way::Each(option)) => out.args.extend(items(node).map(|item| format!("{option}={item}"))),
            Some(Way::Words) => words.extend(items(node)),
            Some(Way::Resources) => {
                let amounts = entries(name, node)?.map(|(name, amount)| format!("{name}={amount}"));
                out.args.push(format!("--resources={}", amounts.collect::<Vec<_>>().join(",")));
            }
            Some(Way::Variables) => out.variables.extend(entries(name, node)?),
            Some(Way::Setting(variable)) => out.variables.push((variable.to_owned(), scalar(name, node)?)),
            Some(Way::Security) => security(role, node, &mut out.args)?,
            Some(Way::Nothing) => {}
            None => tracing::warn!(target: "distributed", "spec: {name} has no effect on a native {role:?}"),
        }
    }
    if !words.is_empty() {
        out.args.push("--".to_owned());
        out.args.extend(words);
    }
    Ok(out)
}

/// How to say a keyword, by its name in dask's classes; `None` for one without a meaning here.
fn way(role: Role, name: &str) -> Option<Way> {
    let both = match name {
        "host" => Way::Option("--host"),
        "interface" => Way::Option("--interface"),
        "protocol" => Way::Option("--protocol"),
        "dashboard_address" => Way::Option("--dashboard-address"),
        "dashboard" => Way::Flag("--dashboard", "--no-dashboard"),
        "scheduler_file" => Way::Option("--scheduler-file"),
        "preload" => Way::Each("--preload"),
        "preload_argv" => Way::Words,
        "security" => Way::Security,
        "log_level" => Way::Option("--log-level"),
        "python" => Way::Option("--python"),
        "silence_logs" | "quiet" | "loop" | "asynchronous" | "validate" | "service_kwargs" => Way::Nothing,
        _ => return if role == Role::Scheduler { of_scheduler(name) } else { of_worker(role, name) },
    };
    Some(both)
}

fn of_scheduler(name: &str) -> Option<Way> {
    match name {
        "port" => Some(Way::Option("--port")),
        "idle_timeout" => Some(Way::Option("--idle-timeout")),
        "worker_ttl" => Some(Way::Option("--worker-ttl")),
        "http_prefix" | "dashboard_prefix" => Some(Way::Option("--dashboard-prefix")),
        "policy" => Some(Way::Option("--policy")),
        "event_log" => Some(Way::Option("--event-log")),
        "allowed_failures" => Some(Way::Setting("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES")),
        "jupyter" => Some(Way::Flag("--jupyter", "--no-jupyter")),
        _ => None,
    }
}

fn of_worker(role: Role, name: &str) -> Option<Way> {
    match name {
        "nthreads" | "ncores" => Some(Way::Option("--nthreads")),
        "name" => Some(Way::Option("--name")),
        "memory_limit" => Some(Way::Option("--memory-limit")),
        "local_directory" => Some(Way::Option("--local-directory")),
        "port" if role == Role::Nanny => Some(Way::Option("--nanny-port")),
        "port" | "worker_port" => Some(Way::Option("--worker-port")),
        "resources" => Some(Way::Resources),
        "death_timeout" => Some(Way::Option("--death-timeout")),
        "lifetime" => Some(Way::Option("--lifetime")),
        "lifetime_stagger" => Some(Way::Option("--lifetime-stagger")),
        "lifetime_restart" => Some(Way::Flag("--lifetime-restart", "--no-lifetime-restart")),
        "contact_address" => Some(Way::Option("--contact-address")),
        "listen_address" => Some(Way::Option("--listen-address")),
        "scheduler_sni" => Some(Way::Option("--scheduler-sni")),
        "max_spill" => Some(Way::Option("--max-spill")),
        "memory_target_fraction" => Some(Way::Option("--memory-target")),
        "memory_spill_fraction" => Some(Way::Option("--memory-spill")),
        "memory_pause_fraction" => Some(Way::Option("--memory-pause")),
        "memory_terminate_fraction" => Some(Way::Option("--memory-terminate")),
        "drain_grace" => Some(Way::Option("--drain-grace")),
        "interrupt_grace" => Some(Way::Option("--interrupt-grace")),
        "reconnect_grace" => Some(Way::Option("--reconnect-grace")),
        "task_processes" => Some(Way::Flag("--task-processes", "--no-task-processes")),
        "preload_nanny" => Some(Way::Each("--preload-nanny")),
        "env" => Some(Way::Variables),
        "worker_class" | "reconnect" | "nanny" | "config" | "heartbeat_interval" => Some(Way::Nothing),
        _ => None,
    }
}

fn scalar(name: &str, node: &Node) -> Result<String, String> {
    match &node.setting {
        Setting::List(_) | Setting::Map(_) => Err(format!("{name}: {} is neither text nor number", node.setting)),
        Setting::Null | Setting::Bool(_) | Setting::Int(_) | Setting::Float(_) | Setting::Text(_) => {
            Ok(node.setting.to_string())
        }
    }
}

/// A list's items, or the one value.
fn items(node: &Node) -> impl Iterator<Item = String> {
    let items = match &node.setting {
        Setting::List(items) => items.iter().map(|item| item.setting.to_string()).collect(),
        Setting::Map(_) => Vec::new(),
        other => vec![other.to_string()],
    };
    items.into_iter()
}

fn entries<'a>(name: &str, node: &'a Node) -> Result<impl Iterator<Item = (String, String)> + 'a, String> {
    let Setting::Map(entries) = &node.setting else { return Err(format!("{name}: {} is no mapping", node.setting)) };
    Ok(entries.iter().map(|(name, node)| (name.clone(), node.setting.to_string())))
}

/// The fields of a `Security` that this role needs.
fn security(role: Role, node: &Node, out: &mut Vec<String>) -> Result<(), String> {
    let owner = if role == Role::Scheduler { "scheduler" } else { "worker" };
    let fields: Vec<(String, String)> = entries("security", node)?.collect();
    let mut option = |option: &str, field: String| {
        let value = fields.iter().find(|(name, _)| *name == field).map(|(_, value)| value);
        out.extend(value.filter(|value| *value != "null").map(|value| format!("{option}={value}")));
    };
    option("--tls-ca-file", "tls_ca_file".to_owned());
    option("--tls-cert", format!("tls_{owner}_cert"));
    option("--tls-key", format!("tls_{owner}_key"));
    Ok(())
}
