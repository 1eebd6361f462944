//! An explanation in words, as `dask explain` prints it.

use std::fmt::{self, Display, Formatter};

use super::super::errors::format_bytes;
use super::super::event::Seconds;
use super::super::task::TaskState;
use super::{Blocker, Explanation, Placement, Reason, ScoreRow};

/// Seconds as people read them.
struct Span(Seconds);

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const MINUTE: Seconds = 60.0;
        const HOUR: Seconds = 3600.0;
        let Span(seconds) = *self;
        if seconds < 0.001 {
            write!(f, "{:.0} us", seconds.max(0.0) * 1e6)
        } else if seconds < 1.0 {
            write!(f, "{:.0} ms", seconds * 1e3)
        } else if seconds < 10.0 * MINUTE {
            write!(f, "{seconds:.1} s")
        } else if seconds < 2.0 * HOUR {
            write!(f, "{:.0} min", seconds / MINUTE)
        } else {
            write!(f, "{:.1} h", seconds / HOUR)
        }
    }
}

/// A state after "is" or "has been".
fn in_words(state: TaskState) -> &'static str {
    match state {
        TaskState::NoWorker => "without a worker",
        TaskState::Memory => "in memory",
        TaskState::Released
        | TaskState::Waiting
        | TaskState::Queued
        | TaskState::Processing
        | TaskState::Erred
        | TaskState::Forgotten => state.name(),
    }
}

fn bytes(count: u64) -> String {
    format_bytes(u128::from(count))
}

/// The whole explanation: what is so now, then how it came about.
impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.state, self.since) {
            (None, _) => write!(f, "{} is unknown.", self.key)?,
            (Some(state), None) => write!(f, "{} is {}.", self.key, in_words(state))?,
            (Some(state), Some(since)) => {
                write!(f, "{} has been {} for {}.", self.key, in_words(state), Span(self.now - since))?;
            }
        }
        write!(f, "\n{}", self.reason)?;
        if let Some(stealing) = &self.stealing {
            write!(f, "\n{stealing}")?;
        }
        if let Some(placement) = &self.placement {
            write!(f, "\nIt was sent to {}", Told { placement, now: self.now })?;
        }
        for placement in &self.earlier {
            write!(f, "\nBefore that it was sent to {}", Told { placement, now: self.now })?;
        }
        if !self.incidents.is_empty() {
            write!(f, "\nWhat happened to it:")?;
        }
        for (at, incident) in &self.incidents {
            write!(f, "\n  {} ago: {incident}", Span(self.now - at))?;
        }
        for (worker, death) in &self.deaths {
            write!(f, "\nWorker {worker} {death}")?;
        }
        Ok(())
    }
}

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Unknown => {
                write!(f, "It was never submitted here, or nobody wanted it any more and it was forgotten.")
            }
            Reason::NotNeeded => write!(f, "No client and no other task needs its result now."),
            Reason::AboutToWait => write!(f, "It is needed, and about to be computed."),
            Reason::WaitsFor { inputs, missing, of, behind } => {
                write!(f, "It waits for {missing} of its {of} input(s)")?;
                list(f, inputs, *missing)?;
                if !behind.is_empty() {
                    write!(f, "\nBehind these are in the end")?;
                    list(f, behind, behind.len())?;
                }
                Ok(())
            }
            Reason::Queued { workers: 0, .. } => write!(f, "It is queued: no running worker could run it."),
            Reason::Queued { ahead, workers, saturation } => write!(
                f,
                "It is queued behind {ahead} other(s): all {workers} running worker(s) have as many root-ish tasks as \
                 they take (worker-saturation {saturation})."
            ),
            Reason::NoWorkers => write!(f, "There are no workers."),
            Reason::NoSuitableWorker { refusals, workers, hopeless } => {
                write!(f, "None of the {workers} worker(s) may run it")?;
                if *hopeless {
                    write!(f, ", and none of them ever will")?;
                }
                write!(f, ":")?;
                for refusal in refusals {
                    let (count, example) = (refusal.workers, &refusal.example);
                    let others = if count > 1 { format!(" and {} other(s)", count - 1) } else { String::new() };
                    write!(f, "\n  {example}{others}: {}", refusal.why)?;
                }
                Ok(())
            }
            Reason::Processing { .. } => self.write_processing(f),
            Reason::InMemory { holders, copies, nbytes } => {
                let size =
                    nbytes.map_or_else(|| "of unknown size".to_owned(), |nbytes| format!("of {}", bytes(nbytes)));
                let names: Vec<&str> = holders.iter().map(dask_protocol::Address::as_str).collect();
                write!(f, "Its result {size} is on {copies} worker(s): {}", names.join(", "))?;
                if *copies > holders.len() {
                    write!(f, ", ...")?;
                }
                write!(f, ".")
            }
            Reason::Erred { cause, exception, on } => {
                write!(f, "{cause} raised {exception}")?;
                if !on.is_empty() {
                    let names: Vec<&str> = on.iter().map(dask_protocol::Address::as_str).collect();
                    write!(f, " on {}", names.join(", "))?;
                }
                write!(f, ".")
            }
        }
    }
}

impl Reason {
    fn write_processing(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Reason::Processing {
            worker,
            since,
            given,
            nthreads,
            expected,
            to_fetch,
            bytes_to_fetch,
            long_running,
            silent,
        } = self
        else {
            return Ok(());
        };
        /// A worker calls at least this often, however many there are.
        const SILENT_FROM: Seconds = 10.0;
        write!(f, "It is processing on {worker}")?;
        if let Some(since) = since {
            write!(f, " for {}", Span(*since))?;
        }
        write!(f, ", expected to take {}.", Span(*expected))?;
        if *long_running {
            write!(f, " It left its thread pool.")?;
        }
        write!(f, " That worker has {given} task(s) for {nthreads} thread(s).")?;
        if let Some(first) = to_fetch.first() {
            write!(f, " It must fetch {} first: {first}", bytes(*bytes_to_fetch))?;
            if to_fetch.len() > 1 {
                write!(f, " and more")?;
            }
            write!(f, ".")?;
        }
        if *silent > SILENT_FROM {
            write!(f, " It has not been heard of for {}.", Span(*silent))?;
        }
        Ok(())
    }
}

fn list(f: &mut Formatter<'_>, blockers: &[Blocker], total: usize) -> fmt::Result {
    write!(f, "{}", if blockers.is_empty() { "." } else { ":" })?;
    for Blocker { key, state, reason } in blockers {
        let reason = reason.to_string().replace('\n', "\n  ");
        write!(f, "\n  {key} ({}): {reason}", state.name())?;
    }
    if total > blockers.len() && !blockers.is_empty() {
        write!(f, "\n  and {} more", total - blockers.len())?;
    }
    Ok(())
}

/// A placement and its score table.
struct Told<'a> {
    placement: &'a Placement,
    now: Seconds,
}

impl Display for Told<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Placement { at, worker, rule, candidates, scores, run_id } = self.placement;
        write!(f, "{worker} {} ago (run {run_id}) because {}.", Span(self.now - at), rule.because())?;
        let width = scores.iter().map(|row| row.worker.len()).max().unwrap_or(0);
        if !scores.is_empty() {
            write!(f, "\n    {:width$}  tasks/threads      work  to fetch  start in    stores", "worker")?;
        }
        for (place, row) in scores.iter().enumerate() {
            let ScoreRow { worker, nthreads, processing, occupancy, missing, start, stored } = row;
            let mark = if place == 0 { '>' } else { ' ' };
            let tasks = format!("{processing}/{nthreads}");
            let [work, start] = [occupancy, start].map(|seconds| Span(*seconds).to_string());
            let [missing, stored] = [missing, stored].map(|count| bytes(*count));
            write!(f, "\n  {mark} {worker:width$}  {tasks:>13}  {work:>8}  {missing:>8}  {start:>8}  {stored:>8}")?;
        }
        if *candidates > scores.len() && !scores.is_empty() {
            write!(f, "\n    and {} more", candidates - scores.len())?;
        }
        Ok(())
    }
}
