//! One helper process.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tracing::{debug, info};

use super::frames::{read_message, write_message};
use super::python::Candidate;

/// The helper's program.
const SCRIPT: &str =
    concat!(include_str!("../../../python/graph_nodes.py"), include_str!("../../../python/materialize.py"));
/// What Python runs first: it reads the program from standard input, so that `__main__` stays free for unpickling and nothing
/// needs a file.
const BOOTSTRAP: &str = "\
import sys, linecache
source = sys.stdin.buffer.read(int(sys.stdin.buffer.readline())).decode()
name = '<dask-rs graph helper>'
linecache.cache[name] = (len(source), None, source.splitlines(True), name)
program = compile(source, name, 'exec')
del source, name, linecache
exec(program, {'__name__': 'dask_rs_graph_helper'})
";
/// How long Python may take to start and import dask: slow network file systems included.
const START_MAX: Duration = Duration::from_secs(120);
/// How long to wait for the exit status of a helper that closed its output.
const EXIT_MAX: Duration = Duration::from_secs(5);
/// Longest line of a helper's output that is logged as one, in bytes.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// How many of its last lines are kept, to explain a death.
const LAST_LINES: usize = 12;

/// The helper's first message.
#[derive(Debug, serde::Deserialize)]
struct Hello {
    ready: bool,
    #[serde(default)]
    problem: String,
    #[serde(default)]
    distributed: String,
    python: String,
    executable: PathBuf,
}

/// A running helper that waits for a request. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct HelperProcess {
    child: Child,
    input: BufWriter<ChildStdin>,
    output: BufReader<ChildStdout>,
    last_lines: LastLines,
}

/// What a process wrote last, to explain its death.
pub(crate) type LastLines = Arc<Mutex<VecDeque<String>>>;

impl HelperProcess {
    /// Starts a helper and waits until it is ready.
    ///
    /// # Errors
    /// Why this Python cannot serve, as text for the user.
    pub(super) async fn start(candidate: &Candidate) -> Result<HelperProcess, String> {
        let mut child = Command::new(&candidate.program)
            .args(["-u", "-c", BOOTSTRAP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| error.to_string())?;
        let pid = child.id().unwrap_or_default();
        let input = BufWriter::new(child.stdin.take().expect("standard input is piped"));
        let output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let last_lines = LastLines::default();
        let stderr = child.stderr.take().expect("standard error is piped");
        tokio::spawn(forward_lines(stderr, pid, "graph helper", Arc::clone(&last_lines)));
        let mut helper = HelperProcess { child, input, output, last_lines };
        let hello = tokio::time::timeout(START_MAX, helper.greet())
            .await
            .map_err(|_| format!("not ready within {} s", START_MAX.as_secs()))?;
        let hello = match hello {
            Ok(hello) => hello,
            Err(error) => return Err(format!("{error}; {}", helper.epitaph().await)),
        };
        if !hello.ready {
            return Err(format!("{} (Python {}): {}", hello.executable.display(), hello.python, hello.problem));
        }
        info!(
            pid, python = %hello.executable.display(), version = %hello.python, distributed = %hello.distributed,
            "Started graph helper"
        );
        Ok(helper)
    }

    async fn greet(&mut self) -> std::io::Result<Hello> {
        self.input.write_all(format!("{}\n{SCRIPT}", SCRIPT.len()).as_bytes()).await?;
        self.input.flush().await?;
        let frames = read_message(&mut self.output).await?;
        let hello = frames.first().map_or(&[][..], |frame| &frame[..]);
        Ok(serde_json::from_slice(hello)?)
    }

    /// Sends a request and waits for the reply. After an error the helper is of no use any more.
    ///
    /// # Errors
    /// How the helper died, as text for the user.
    pub(super) async fn request(&mut self, frames: &[Bytes]) -> Result<Vec<Bytes>, String> {
        let exchange = async {
            write_message(&mut self.input, frames).await?;
            read_message(&mut self.output).await
        };
        // Processes that user code forked may hold the pipes open beyond the helper's death, so that is watched as well.
        let outcome = tokio::select! {
            biased;
            outcome = exchange => outcome,
            _ = self.child.wait() => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        match outcome {
            Ok(reply) => Ok(reply),
            Err(error) => {
                debug!(%error, "graph helper lost");
                Err(self.epitaph().await)
            }
        }
    }

    /// Whether the process is still there, as far as is known.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, and what it said last.
    async fn epitaph(&mut self) -> String {
        let ending = match tokio::time::timeout(EXIT_MAX, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => format!("its exit status is unknown: {error}"),
            Err(_) => "it closed its output and was killed".to_owned(),
        };
        let lines = self.last_lines.lock().expect("no panic while the lines are held");
        if lines.is_empty() {
            return ending;
        }
        let last = lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n  ");
        format!("{ending}; its last output:\n  {last}")
    }
}

/// Logs what a Python process, or user code in it, writes; `who` it is goes before each line.
pub(crate) async fn forward_lines(stderr: ChildStderr, pid: u32, who: &'static str, last_lines: LastLines) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        info!(pid, "{who}: {text}");
        let mut lines = last_lines.lock().expect("no panic while the lines are held");
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(text.to_owned());
    }
}
