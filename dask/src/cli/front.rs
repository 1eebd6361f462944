//! The command `dask`: the native commands, and for everything else the `dask` of a Python that has it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::follow::follow_parent;
use super::{completion, config, explain, scheduler, spec, ssh, worker};

/// What this program may also be called, as a link to it: then it is that command.
const NAMES: [(&str, &str); 4] =
    [("dask-scheduler", "scheduler"), ("dscheduler", "scheduler"), ("dask-worker", "worker"), ("dworker", "worker")];

/// What `dask --help` prints.
const USAGE: &str = "Usage: dask [OPTIONS] COMMAND [ARGS]...

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
  scheduler   Launch a Dask scheduler.
  worker      Launch a Dask worker attached to an existing scheduler
  spec        Launch Dask processes defined by a JSON/YAML specification
  ssh         Launch a Dask cluster over SSH
  explain     Tell why a task waits, why it is where it is, and what happened to it
  config      Show the effective configuration and where each value comes from
  completion  Print a completion script for a shell

Other commands are passed on to the dask of Python, where there is one.";

/// Runs the command that these arguments, the program's name first, ask for.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    follow_parent();
    let mut args = args.into_iter();
    let program = args.next().unwrap_or_default();
    let called = Path::new(&program).file_name().and_then(OsStr::to_str).unwrap_or_default();
    let command = match NAMES.iter().find(|(name, _)| *name == called) {
        Some((_, command)) => OsString::from(*command),
        None => args.next().unwrap_or_default(),
    };
    let rest = |name: &str| [OsString::from(name)].into_iter().chain(args).collect::<Vec<_>>();
    match command.to_str() {
        Some("scheduler") => scheduler::main(rest("dask-scheduler")),
        Some("worker") => worker::main(rest("dask-worker"), &["worker"]),
        Some("spec") => spec::main(rest("dask spec")),
        Some("ssh") => ssh::main(rest("dask ssh")),
        Some("explain") => explain::main(rest("dask explain")),
        Some("config") => config::main(rest("dask config")),
        Some("completion") => completion::main(rest("dask completion")),
        Some("--version") => super::show_version("dask"),
        Some("--help" | "-h") => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Some(name) if !name.is_empty() && !name.starts_with('-') => {
            let name = name.to_owned();
            pass_on(&name, rest(&name))
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Becomes Python's `dask` with these arguments.
pub(super) fn pass_on(command: &str, args: Vec<OsString>) -> ExitCode {
    become_python(&["-m", "dask"], &args, &format!("dask {command} is a command of Python's dask"))
}

/// Becomes the first Python there is, with these arguments; `what` is what cannot be done without.
pub(super) fn become_python(module: &[&str], args: &[OsString], what: &str) -> ExitCode {
    let candidates = worker::python_candidates(None);
    for python in &candidates {
        let error = Command::new(python).args(module).args(args).exec();
        // It only comes back where the program could not be started.
        tracing::debug!(python = %python.display(), %error, "not started");
    }
    let named = if env::var_os("DASK_PYTHON").is_some() { "the one in DASK_PYTHON" } else { "python3" };
    eprintln!("Error: {what}, and no Python was found; looked for {named}");
    ExitCode::FAILURE
}
