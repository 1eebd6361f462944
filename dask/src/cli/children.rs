//! Several processes that one command starts and ends together.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::runtime::Builder;

use super::signals::Signals;
use super::{Failure, follow};

/// How long the processes may take to end after a signal; workers may need to hand over what only they hold.
const END_WAIT: Duration = Duration::from_secs(40);
/// Longest line of a process that is printed whole.
const LINE_BYTES_MAX: usize = 64 << 10;

/// One process to start.
#[derive(Debug, Clone)]
pub(super) struct Child {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) variables: Vec<(String, String)>,
    /// Printed before each of its lines; without one it writes for itself.
    pub(super) label: Option<String>,
}

/// Starts them all and waits until all have ended. A signal is passed on to them; when one fails, the others are ended.
pub(super) fn run_all(children: Vec<Child>) -> Result<ExitCode, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Usage(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(run(children));
    runtime.shutdown_background();
    ended
}

async fn run(children: Vec<Child>) -> Result<ExitCode, Failure> {
    let cannot = |what: String| move |error: std::io::Error| Failure::Usage(format!("{what}: {error}"));
    let mut signals = Signals::listen().map_err(cannot("cannot listen to signals".to_owned()))?;
    let mut started = Vec::new();
    let mut outputs = tokio::task::JoinSet::new();
    for child in children {
        let mut command = Command::new(&child.program);
        command.args(&child.args).envs(child.variables).kill_on_drop(true).stdin(Stdio::null());
        command.env(follow::VARIABLE, std::process::id().to_string());
        // A terminal's signals reach this process alone: a second one would end the others at once.
        command.process_group(0);
        if child.label.is_some() {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut process = command.spawn().map_err(cannot(format!("cannot start {}", child.program.display())))?;
        if let Some(label) = child.label {
            outputs.spawn(print_lines(process.stdout.take(), label.clone()));
            outputs.spawn(print_lines(process.stderr.take(), label));
        }
        started.push(process);
    }
    let pids: Vec<Pid> = started.iter().filter_map(|child| Pid::from_raw(i32::try_from(child.id()?).ok()?)).collect();
    let tell = |signal: Signal| {
        for &pid in &pids {
            // It may have ended already.
            let _ = kill_process(pid, signal);
        }
    };
    let (failed, mut failure) = tokio::sync::mpsc::channel::<()>(1);
    let waits = started.iter_mut().map(|process| {
        let failed = failed.clone();
        async move {
            let good = process.wait().await.is_ok_and(|status| status.success());
            if !good {
                let _ = failed.try_send(());
            }
            good
        }
    });
    let mut all = Box::pin(join_all(waits));
    let good = tokio::select! {
        ends = &mut all => ends.into_iter().all(|good| good),
        signal = signals.received() => {
            tell(Signal::from_named_raw(signal).unwrap_or(Signal::TERM));
            signals.while_closing(END_WAIT, &mut all).await.is_some()
        }
        _ = failure.recv() => {
            tell(Signal::TERM);
            signals.while_closing(END_WAIT, &mut all).await;
            false
        }
    };
    while outputs.join_next().await.is_some() {}
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what comes out of a process, line by line, until it ends.
async fn print_lines(output: Option<impl AsyncRead + Unpin>, label: String) {
    let Some(output) = output else { return };
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        let available = match reader.fill_buf().await {
            Ok(available) if !available.is_empty() => available,
            Ok(_) | Err(_) => break,
        };
        let (taken, whole) = match available.iter().position(|&b| b == b'\n') {
            Some(end) => (end + 1, true),
            None => (available.len(), false),
        };
        line.extend_from_slice(&available[..taken]);
        reader.consume(taken);
        if whole || line.len() > LINE_BYTES_MAX {
            print_line(&label, &line);
            line.clear();
        }
    }
    if !line.is_empty() {
        print_line(&label, &line);
    }
}

fn print_line(label: &str, line: &[u8]) {
    println!("[ {label} ] : {}", String::from_utf8_lossy(line).trim_end());
}
