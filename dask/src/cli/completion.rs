//! `dask completion SHELL`: a script that makes a shell complete the commands and their options.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, ValueEnum};
use clap_complete::{Shell, generate};

use super::config::ConfigArgs;
use super::explain::ExplainArgs;
use super::scheduler_args::SchedulerArgs;
use super::spec::SpecArgs;
use super::ssh::SshArgs;
use super::worker_args::WorkerArgs;

/// Print a completion script for a shell: dask completion bash > /etc/bash_completion.d/dask
#[derive(Debug, Clone, Parser)]
#[command(name = "dask completion")]
pub struct CompletionArgs {
    /// Which shell
    shell: Shell,
}

/// The command `dask` with all that it runs natively, for scripts and for documentation.
pub fn whole() -> clap::Command {
    let sub = |command: clap::Command, name: &'static str| command.name(name).bin_name(format!("dask {name}"));
    clap::Command::new("dask")
        .about("A native Dask engine")
        .subcommand(sub(SchedulerArgs::command(), "scheduler"))
        .subcommand(sub(WorkerArgs::command(), "worker"))
        .subcommand(sub(SpecArgs::command(), "spec"))
        .subcommand(sub(SshArgs::command(), "ssh"))
        .subcommand(sub(ExplainArgs::command(), "explain"))
        .subcommand(sub(ConfigArgs::command(), "config"))
        .subcommand(sub(CompletionArgs::command(), "completion"))
}

/// Runs the command with these arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match CompletionArgs::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => return super::usage(&error),
    };
    // Nobody to tell when the reader is gone.
    let _ = std::io::stdout().write_all(&script(args.shell));
    ExitCode::SUCCESS
}

/// The script for `dask` and for the commands that stand alone.
fn script(shell: Shell) -> Vec<u8> {
    let mut out = Vec::new();
    generate(shell, &mut whole(), "dask", &mut out);
    // Other shells take one command for each file.
    if shell.to_possible_value().is_some_and(|value| value.get_name() == "bash") {
        generate(shell, &mut SchedulerArgs::command(), "dask-scheduler", &mut out);
        generate(shell, &mut WorkerArgs::command(), "dask-worker", &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_commands_and_options() {
        for &shell in Shell::value_variants() {
            let text = String::from_utf8(script(shell)).expect("text");
            for word in ["scheduler", "worker", "memory-limit", "dashboard-address"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }
}
