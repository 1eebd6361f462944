//! `dask ssh`: a scheduler and workers on other machines, started by the `ssh` program and ended with this one.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use super::Failure;
use super::children::{Child, run_all};

/// Launch a Dask cluster over SSH. The scheduler runs on the first host, unless --scheduler names another; workers run on
/// every host
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "dask ssh", disable_version_flag = true)]
pub struct SshArgs {
    /// The machines
    pub hostnames: Vec<String>,
    /// The scheduler's machine; default: the first host
    #[arg(long)]
    pub scheduler: Option<String>,
    /// The scheduler's port
    #[arg(long, default_value_t = 8786)]
    pub scheduler_port: u16,
    /// Threads per worker process; 0 for the machine's CPUs divided by its processes
    #[arg(long, default_value_t = 0)]
    pub nthreads: u32,
    /// Worker processes per host
    #[arg(long, alias = "nprocs", default_value_t = 1)]
    pub nworkers: u32,
    /// A file with host names or IP addresses, separated by spaces or line breaks
    #[arg(long, value_name = "PATH")]
    pub hostfile: Option<String>,
    /// The user to log in as
    #[arg(long)]
    pub ssh_username: Option<String>,
    /// The port of the SSH servers
    #[arg(long, default_value_t = 22)]
    pub ssh_port: u16,
    /// The file with the private key
    #[arg(long, value_name = "PATH")]
    pub ssh_private_key: Option<String>,
    /// Do not pass the host's name to its workers
    #[arg(long)]
    pub nohost: bool,
    /// A directory on all machines for what the processes print
    #[arg(long, value_name = "PATH")]
    pub log_directory: Option<String>,
    /// A directory on all machines for the workers' files
    #[arg(long, value_name = "PATH")]
    pub local_directory: Option<String>,
    /// A Python on the machines whose distributed.cli modules are run; default: this program, at the same path
    #[arg(long, value_name = "PATH")]
    pub remote_python: Option<String>,
    /// Memory of each worker, as dask worker takes it
    #[arg(long, default_value = "auto")]
    pub memory_limit: String,
    /// The workers' port; 0 for any
    #[arg(long, default_value_t = 0)]
    pub worker_port: u16,
    /// The nannies' port; 0 for any
    #[arg(long, default_value_t = 0)]
    pub nanny_port: u16,
    /// The Python module that is a worker; only with --remote-python
    #[arg(long, default_value = "distributed.cli.dask_worker")]
    pub remote_dask_worker: String,
    /// Show the version and exit.
    #[arg(long)]
    pub version: bool,
}

/// Runs the command with these arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match SshArgs::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => return super::usage(&error),
    };
    if args.version {
        return super::show_version("dask ssh");
    }
    super::report(run(&args))
}

fn run(args: &SshArgs) -> Result<ExitCode, Failure> {
    let mut hosts = args.hostnames.clone();
    if let Some(file) = &args.hostfile {
        let text =
            std::fs::read_to_string(file).map_err(|error| Failure::Usage(format!("--hostfile {file}: {error}")))?;
        hosts.extend(text.split_whitespace().map(str::to_owned));
    }
    let Some(scheduler) = args.scheduler.clone().or_else(|| hosts.first().cloned()) else {
        // Nobody to tell when the terminal is gone.
        let _ = SshArgs::command().print_help();
        return Ok(ExitCode::FAILURE);
    };
    let program = env::current_exe().map_err(|error| Failure::Usage(format!("cannot find this program: {error}")))?;
    println!("Worker nodes: {}\nScheduler node: {scheduler}:{}", hosts.join(" "), args.scheduler_port);
    run_all(sessions(args, &scheduler, &hosts, &program.to_string_lossy()))
}

/// One session of SSH for each process.
fn sessions(args: &SshArgs, scheduler: &str, hosts: &[String], program: &str) -> Vec<Child> {
    let head = args.session(scheduler, format!("scheduler {scheduler}"), "scheduler", args.scheduler_command(program));
    let worker = |host: &String| {
        args.session(
            host,
            format!("worker {host}"),
            &format!("worker_{host}"),
            args.worker_command(program, scheduler, host),
        )
    };
    [head].into_iter().chain(hosts.iter().map(worker)).collect()
}

impl SshArgs {
    fn scheduler_command(&self, program: &str) -> Vec<String> {
        let mut words = match &self.remote_python {
            Some(python) => vec![python.clone(), "-m".to_owned(), "distributed.cli.dask_scheduler".to_owned()],
            None => vec![program.to_owned(), "scheduler".to_owned()],
        };
        words.extend(["--port".to_owned(), self.scheduler_port.to_string()]);
        words
    }

    fn worker_command(&self, program: &str, scheduler: &str, host: &str) -> Vec<String> {
        let mut words = match &self.remote_python {
            Some(python) => vec![python.clone(), "-m".to_owned(), self.remote_dask_worker.clone()],
            None => vec![program.to_owned(), "worker".to_owned()],
        };
        words.push(format!("{scheduler}:{}", self.scheduler_port));
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.extend([name.to_owned(), value]);
            }
        };
        option("--nthreads", Some(self.nthreads.to_string()));
        option("--nworkers", (self.nworkers != 1).then(|| self.nworkers.to_string()));
        option("--host", (!self.nohost).then(|| host.to_owned()));
        option("--memory-limit", Some(self.memory_limit.clone()));
        option("--worker-port", (self.worker_port != 0).then(|| self.worker_port.to_string()));
        option("--nanny-port", (self.nanny_port != 0).then(|| self.nanny_port.to_string()));
        option("--local-directory", self.local_directory.clone());
        words
    }

    /// The `ssh` that runs these words on a machine. With a terminal there, the end of this process is the end of that one.
    fn session(&self, host: &str, label: String, log: &str, words: Vec<String>) -> Child {
        let mut command = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        if let Some(directory) = &self.log_directory {
            let file = quoted(&format!("{directory}/dask_{log}.log"));
            command = format!("mkdir -p {} && {command} > {file} 2>&1", quoted(directory));
        }
        let mut args = vec!["-tt".to_owned(), "-o".to_owned(), "BatchMode=yes".to_owned()];
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                args.extend([name.to_owned(), value]);
            }
        };
        option("-p", Some(self.ssh_port.to_string()));
        option("-i", self.ssh_private_key.clone());
        option("-l", self.ssh_username.clone());
        // What follows is no option, whatever it looks like.
        args.extend(["--".to_owned(), host.to_owned(), command]);
        Child { program: "ssh".into(), args, variables: Vec::new(), label: Some(label) }
    }
}

/// A word as shells take it whole.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(line: &[&str]) -> Vec<String> {
        let args = SshArgs::try_parse_from([&["dask ssh"], line].concat()).expect("known options");
        let hosts = args.hostnames.clone();
        let sessions = sessions(&args, &hosts[0], &hosts, "/opt/dask");
        sessions.into_iter().map(|child| child.args.join(" ")).collect()
    }

    #[test]
    fn every_host_gets_a_worker_and_the_first_one_the_scheduler() {
        let ssh = "-tt -o BatchMode=yes -p 22 --";
        let worker = "/opt/dask worker a:8786 --nthreads 0";
        assert_eq!(
            lines(&["a", "b"]),
            [
                format!("{ssh} a /opt/dask scheduler --port 8786"),
                format!("{ssh} a {worker} --host a --memory-limit auto"),
                format!("{ssh} b {worker} --host b --memory-limit auto"),
            ]
        );
    }

    #[test]
    fn options_reach_the_sessions() {
        let line = [
            "h",
            "--ssh-username=u",
            "--ssh-port=2222",
            "--ssh-private-key=k",
            "--nohost",
            "--nworkers=2",
            "--remote-python=/p y",
            "--worker-port=5",
            "--log-directory=/l",
        ];
        let [scheduler, worker] = lines(&line).try_into().expect("two");
        let ssh = "-tt -o BatchMode=yes -p 2222 -i k -l u -- h mkdir -p /l &&";
        assert_eq!(
            scheduler,
            format!("{ssh} '/p y' -m distributed.cli.dask_scheduler --port 8786 > /l/dask_scheduler.log 2>&1")
        );
        assert_eq!(
            worker,
            format!(
                "{ssh} '/p y' -m distributed.cli.dask_worker h:8786 --nthreads 0 --nworkers 2 --memory-limit auto \
                     --worker-port 5 > /l/dask_worker_h.log 2>&1"
            )
        );
    }

    #[test]
    fn words_of_the_remote_command_stay_whole() {
        assert_eq!(
            (quoted("a b").as_str(), quoted("it's").as_str(), quoted("").as_str()),
            ("'a b'", "'it'\\''s'", "''")
        );
    }
}
