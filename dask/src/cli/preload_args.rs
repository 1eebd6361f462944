//! Options that are not ours but those of a preloaded module, which upstream lets stand among the command's own: dask-gateway
//! starts `dask-scheduler --preload dask_gateway.scheduler_preload --dg-api-address :8788`.

use std::ffi::OsString;

use clap::Command;

const PRELOAD: &str = "--preload";

/// The same arguments with those that `command` does not know behind a `--`, where a module is preloaded that may know
/// them. `positionals` is how many plain arguments the command itself takes, before all others.
pub(super) fn sorted(command: &Command, args: impl IntoIterator<Item = OsString>, positionals: usize) -> Vec<OsString> {
    let args: Vec<OsString> = args.into_iter().collect();
    let preloads = |arg: &OsString| arg.to_str().is_some_and(|text| text == PRELOAD || text.starts_with("--preload="));
    if !args.iter().any(preloads) {
        return args;
    }
    let mut args = args.into_iter();
    let mut known: Vec<OsString> = args.next().into_iter().collect();
    let (mut others, mut plain) = (Vec::new(), 0);
    while let Some(arg) = args.next() {
        let text = arg.to_str().unwrap_or_default().to_owned();
        if text == "--" {
            others.extend(args);
            break;
        }
        let Some(option) = text.strip_prefix("--") else {
            let own = text.starts_with('-') || others.is_empty() && plain < positionals;
            plain += usize::from(!text.starts_with('-'));
            if own {
                known.push(arg)
            } else {
                others.push(arg)
            }
            continue;
        };
        let name = option.split('=').next().unwrap_or_default();
        match takes_value(command, name) {
            None => others.push(arg),
            Some(takes) => {
                known.push(arg);
                if takes && !option.contains('=') {
                    known.extend(args.next());
                }
            }
        }
    }
    if !others.is_empty() {
        known.push("--".into());
        known.extend(others);
    }
    known
}

/// Whether a value follows this option; `None` for an option that the command has not.
fn takes_value(command: &Command, name: &str) -> Option<bool> {
    if name == "help" {
        return Some(false);
    }
    let is = |arg: &&clap::Arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        arg.get_long() == Some(name) || aliases.contains(&name)
    };
    command.get_arguments().find(is).map(|arg| arg.get_action().takes_values())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::scheduler_args::SchedulerArgs;
    use crate::cli::worker_args::WorkerArgs;
    use clap::{CommandFactory, Parser};

    fn line(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn options_of_a_preloaded_module_are_passed_to_it() {
        let gateway = "dask-scheduler --protocol tls --port 8786 --dg-api-address :8788 \
                       --preload dask_gateway.scheduler_preload --dg-heartbeat-period=0 --dashboard-address :0";
        let args = SchedulerArgs::try_parse_from(sorted(&SchedulerArgs::command(), line(gateway), 0)).expect("known");
        assert_eq!(args.preload_argv, ["--dg-api-address", ":8788", "--dg-heartbeat-period=0"]);
        assert_eq!((args.protocol.as_deref(), args.dashboard_address.as_str()), (Some("tls"), ":0"));
        let worker = "dask-worker tcp://a:1 --preload x.py --theirs 1 --nthreads 2 plain -- --name n";
        let args = WorkerArgs::try_parse_from(sorted(&WorkerArgs::command(), line(worker), 1)).expect("known");
        assert_eq!((args.scheduler.as_deref(), args.nthreads.as_deref()), (Some("tcp://a:1"), Some("2")));
        assert_eq!(args.preload_argv, ["--theirs", "1", "plain", "--name", "n"]);
    }

    #[test]
    fn without_a_module_an_unknown_option_is_wrong() {
        let args = sorted(&SchedulerArgs::command(), line("dask-scheduler --no-such-option"), 0);
        assert!(SchedulerArgs::try_parse_from(args).is_err());
    }
}
