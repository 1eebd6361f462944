//! `dask spec`: schedulers, nannies and workers from a JSON or YAML specification, as `SSHCluster` and others write them.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::children::{Child, run_all};
use super::spec_options::{Role, arguments};
use super::{Failure, front, scheduler, worker};
use crate::config::{Map, Setting, parse_mapping};

/// Launch Dask processes defined by a JSON/YAML specification
#[derive(Debug, Clone, Parser)]
#[command(name = "dask spec", disable_version_flag = true)]
pub struct SpecArgs {
    /// What the classes are called with: for workers the scheduler's address
    pub args: Vec<String>,
    /// The specification: {"cls": "distributed.Nanny", "opts": {...}}, or names with one each
    #[arg(long, default_value = "", hide_default_value = true)]
    pub spec: String,
    /// A YAML or JSON file with the specification
    #[arg(long)]
    pub spec_file: Option<String>,
    /// Show the version and exit.
    #[arg(long)]
    pub version: bool,
}

/// Runs the command with these arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let raw: Vec<OsString> = args.into_iter().collect();
    let args = match SpecArgs::try_parse_from(&raw) {
        Ok(args) => args,
        Err(error) => return super::usage(&error),
    };
    if args.version {
        return super::show_version("dask spec");
    }
    match processes(&args) {
        Ok(Processes::Native(processes)) => run(processes),
        Ok(Processes::Foreign(class)) => {
            let what = format!("{class} is a class of Python");
            front::become_python(&["-m", "distributed.cli.dask_spec"], &raw[1..], &what)
        }
        Err(error) => super::report(Err(Failure::Usage(error))),
    }
}

/// One process: what runs, and the variables it is to see.
#[derive(Debug, Clone, PartialEq)]
struct Process {
    role: Role,
    /// Without the program's name.
    args: Vec<String>,
    variables: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Processes {
    Native(Vec<Process>),
    /// A class that is not ours, by its name.
    Foreign(String),
}

fn processes(args: &SpecArgs) -> Result<Processes, String> {
    let (text, origin) = match (&args.spec_file, args.spec.as_str()) {
        (Some(file), "") => {
            (std::fs::read_to_string(file).map_err(|error| format!("--spec-file {file}: {error}"))?, file.as_str())
        }
        (None, text) if !text.is_empty() => (text.to_owned(), "--spec"),
        _ => return Err("Must specify exactly one of --spec and --spec-file".to_owned()),
    };
    let root = parse_mapping(origin, &text)?;
    let single = root.contains_key("cls");
    let members: Vec<(&str, &Map)> = if single {
        vec![("0", &root)]
    } else {
        root.iter().map(|(name, node)| member(origin, name, &node.setting)).collect::<Result<_, _>>()?
    };
    let mut processes = Vec::new();
    for (name, member) in members {
        let class = member.get("cls").map(|class| class.setting.to_string());
        let class = class.ok_or_else(|| format!("{origin}: {name} has no cls"))?;
        let Some(role) = Role::of_class(&class) else { return Ok(Processes::Foreign(class)) };
        let none = Map::new();
        let opts = match member.get("opts").map(|opts| &opts.setting) {
            None | Some(Setting::Null) => &none,
            Some(Setting::Map(opts)) => opts,
            Some(other) => return Err(format!("{origin}: {name}: opts: {other} is no mapping")),
        };
        let said = arguments(role, opts, &args.args).map_err(|error| format!("{origin}: {name}: {error}"))?;
        processes.push(Process { role, args: said.args, variables: said.variables });
    }
    if processes.is_empty() {
        return Err(format!("{origin}: nothing to start"));
    }
    Ok(Processes::Native(processes))
}

fn member<'a>(origin: &str, name: &'a str, setting: &'a Setting) -> Result<(&'a str, &'a Map), String> {
    match setting {
        Setting::Map(member) => Ok((name, member)),
        other => Err(format!("{origin}: {name}: {other} is no mapping with cls and opts")),
    }
}

/// One process is this one; several are children of it.
fn run(mut processes: Vec<Process>) -> ExitCode {
    if let [Process { role, args, variables }] = processes.as_mut_slice()
        && variables.is_empty()
    {
        let args = [role.program()].into_iter().map(OsString::from).chain(args.drain(..).map(OsString::from));
        return match role {
            Role::Scheduler => scheduler::main(args),
            Role::Nanny | Role::Worker => worker::main(args, &["worker"]),
        };
    }
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return super::report(Err(Failure::Usage(format!("cannot find this program: {error}")))),
    };
    let child = |process: Process| Child {
        program: program.clone(),
        args: [process.role.command().to_owned()].into_iter().chain(process.args).collect(),
        variables: process.variables,
        label: None,
    };
    super::report(run_all(processes.into_iter().map(child).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str, args: &[&str]) -> Result<Processes, String> {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        processes(&SpecArgs { args, spec: text.to_owned(), spec_file: None, version: false })
    }

    fn native(text: &str, args: &[&str]) -> Vec<Process> {
        match spec(text, args).expect("readable") {
            Processes::Native(processes) => processes,
            Processes::Foreign(class) => panic!("{class} is ours"),
        }
    }

    #[test]
    fn one_scheduler_as_ssh_clusters_ask_for_it() {
        let text = r#"{"cls": "distributed.Scheduler", "opts": {"port": 0, "dashboard_address": ":8797"}}"#;
        let [scheduler] = native(text, &[]).try_into().expect("one");
        assert_eq!(
            (scheduler.role, &*scheduler.args.join(" ")),
            (Role::Scheduler, "--dashboard-address=:8797 --port=0")
        );
    }

    #[test]
    fn several_workers_by_name() {
        let text = r#"{"0": {"cls": "distributed.Nanny", "opts": {"nthreads": 2, "name": "a", "env": {"X": 1}}},
                       "1": {"cls": "dask.distributed.Worker", "opts": {"resources": {"GPU": 2}}}}"#;
        let [nanny, worker] = native(text, &["tcp://s:1"]).try_into().expect("two");
        assert_eq!(nanny.args, ["tcp://s:1", "--name=a", "--nthreads=2"]);
        assert_eq!(nanny.variables, [("X".to_owned(), "1".to_owned())]);
        assert_eq!(worker.args, ["tcp://s:1", "--no-nanny", "--resources=GPU=2"]);
    }

    #[test]
    fn classes_that_are_not_ours_are_pythons() {
        for ours in
            ["distributed.worker.Worker", "dask.distributed.Worker", "dask_rs.Worker", "dask_rs.processes.Worker"]
        {
            native(&format!("{{\"cls\": \"{ours}\"}}"), &["tcp://s:1"]);
        }
        let text = r#"{"cls": "dask_cuda.CUDAWorker", "opts": {}}"#;
        assert_eq!(spec(text, &[]), Ok(Processes::Foreign("dask_cuda.CUDAWorker".to_owned())));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, part) in [
            ("", "exactly one"),
            ("{\"0\": 1}", "no mapping"),
            ("{", "--spec"),
            ("{}", "nothing to start"),
            ("{\"opts\": {}}", "no cls"),
        ] {
            let error = spec(text, &[]).expect_err("wrong");
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
