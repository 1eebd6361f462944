//! `/metrics`: Prometheus text by upstream's names.

use std::fmt::{Display, Write};
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use dask_protocol::message::WorkerStatus;

use super::frame::{Frame, PrefixRow, STATES};
use super::process::Process;
use super::site::{Site, Unavailable};
use crate::server::extensions::SemaphoreFigures;
use crate::state::{TaskState, Usage};

/// Most semaphores told of.
const SEMAPHORES_MAX: usize = 1_000;

/// `/metrics`.
pub(super) async fn page(State(site): State<Arc<Site>>) -> Result<Response, Unavailable> {
    let frame = site.frame().await?;
    let semaphores = site.server.extensions.semaphores.figures(SEMAPHORES_MAX);
    let text = text(&frame, &semaphores, site.take_longest_turn());
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// The whole exposition; `longest_turn` is in seconds.
fn text(frame: &Frame, semaphores: &[SemaphoreFigures], longest_turn: f64) -> String {
    let mut out = Exposition { text: String::new(), subsystem: "dask_scheduler" };
    peers(&mut out, frame);
    let tasks = STATES.iter().zip(frame.tasks).map(|(state, count)| (label("state", state.name()), count));
    out.family("tasks", "gauge", "Number of tasks known by the scheduler", tasks);
    out.one("tasks_forgotten_total", "counter", "Tasks forgotten while others of their group remain", frame.forgotten);
    out.one("task_groups", "gauge", "Number of task groups known by the scheduler", frame.task_groups);
    out.one("task_prefixes", "gauge", "Number of task prefixes remembered", frame.prefix_count);
    prefixes(&mut out, frame);
    usages(&mut out, frame);
    let (topics, events, bytes) = frame.events;
    out.one("event_topics", "gauge", "Number of topics of the event log", topics);
    out.one("events", "gauge", "Number of events kept", events);
    out.one("events_bytes", "gauge", "Bytes of the events kept", bytes);
    out.one("gc_collection_seconds_total", "counter", "Seconds of garbage collection: there is none", 0);
    out.one("last_time_total", "counter", "Unix time of these figures", frame.now);
    let longest = "Longest turn of the scheduler's driver since these figures were last read, in seconds";
    out.one("tick_duration_maximum_seconds", "gauge", longest, longest_turn);
    out.one("tick_count_total", "counter", "Turns of the scheduler's driver", frame.turns.count);
    out.one("busy_seconds_total", "counter", "Seconds the scheduler's driver worked", frame.turns.busy);
    out.one("transitions_total", "counter", "Transitions of tasks", frame.transitions);
    steals(&mut out, frame);
    leases(&mut out, semaphores);
    process(&mut out, frame);
    out.text
}

fn peers(out: &mut Exposition, frame: &Frame) {
    let totals = &frame.totals;
    out.one("clients", "gauge", "Number of clients connected", frame.clients);
    out.one("client_connections_added_total", "counter", "Client connections added", totals.clients_added);
    out.one("client_connections_removed_total", "counter", "Client connections removed", totals.clients_removed);
    let desired = "Number of workers the scheduler needs for its tasks";
    out.one("desired_workers", "gauge", desired, frame.desired_workers);
    let workers = worker_states(frame).map(|(state, count)| (label("state", state), count));
    out.family("workers", "gauge", "Number of workers known by the scheduler", workers);
    out.one("workers_added_total", "counter", "Workers added", totals.workers_added);
    out.one("workers_removed_total", "counter", "Workers removed", totals.workers_removed);
}

fn prefixes(out: &mut Exposition, frame: &Frame) {
    fn each<V: Display>(frame: &Frame, value: impl Fn(&PrefixRow) -> V) -> impl Iterator<Item = (String, V)> {
        frame.prefixes.iter().map(move |prefix| (label("task_prefix_name", &prefix.name), value(prefix)))
    }
    let seconds = |prefix: &PrefixRow, action: &str| {
        prefix.seconds.iter().find(|(name, _)| name == action).map_or(0.0, |(_, seconds)| *seconds)
    };
    let suspicious = "Times a worker was lost while a task of the prefix ran";
    out.family("tasks_suspicious_total", "counter", suspicious, each(frame, |prefix| prefix.suspicious));
    let compute = "Seconds of computing per prefix";
    out.family("tasks_compute_seconds_total", "counter", compute, each(frame, |p| seconds(p, "compute")));
    let transfer = "Seconds of transfers per prefix";
    out.family("tasks_transfer_seconds_total", "counter", transfer, each(frame, |p| seconds(p, "transfer")));
    let output = "Bytes of results in memory per prefix, without duplicates";
    out.family("tasks_output_bytes", "gauge", output, each(frame, |prefix| prefix.nbytes));
    let reached = frame.prefixes.iter().flat_map(|prefix| {
        let states = TaskState::ALL.iter().zip(prefix.reached);
        states.map(|(state, count)| {
            let name = quoted(&prefix.name);
            (format!("{{task_prefix_name={name},state=\"{}\"}}", state.name()), count)
        })
    });
    out.family("prefix_state_totals_total", "counter", "How often tasks of the prefix reached each state", reached);
}

/// Names of ours: upstream does not tell clients apart.
fn usages(out: &mut Exposition, frame: &Frame) {
    fn each<V: Display>(frame: &Frame, value: impl Fn(&Usage) -> V) -> impl Iterator<Item = (String, V)> {
        frame.usages.iter().map(move |(client, usage)| (label("client", client), value(usage)))
    }
    out.family("client_tasks_finished_total", "counter", "Runs that made a result", each(frame, |u| u.finished));
    out.family("client_tasks_erred_total", "counter", "Runs of tasks that raised", each(frame, |u| u.erred));
    let compute = "Seconds that threads computed for the client";
    out.family("client_compute_seconds_total", "counter", compute, each(frame, |usage| usage.compute));
    let transfer = "Seconds of transfers for the client's tasks";
    out.family("client_transfer_seconds_total", "counter", transfer, each(frame, |usage| usage.transfer));
    let output = "Bytes of results made for the client";
    out.family("client_output_bytes_total", "counter", output, each(frame, |usage| usage.nbytes));
}

fn steals(out: &mut Exposition, frame: &Frame) {
    out.subsystem = "dask_stealing";
    let level = |at: usize| label("cost_multiplier", &cost_multiplier(at).to_string());
    let counts = frame.steals.iter().enumerate().map(|(at, (count, _))| (level(at), count));
    out.family("request_count_total", "counter", "Tasks asked back from a worker, per cost multiplier", counts);
    let costs = frame.steals.iter().enumerate().map(|(at, (_, seconds))| (level(at), seconds));
    out.family("request_cost_total", "counter", "Seconds of work asked back, per cost multiplier", costs);
}

/// Upstream's `cost_multipliers`: how much a transfer may cost, as a multiple of computing.
fn cost_multiplier(level: usize) -> f64 {
    match i32::try_from(level) {
        Ok(0) => 1.0,
        Ok(level) => 1.0 + 2_f64.powi(level - 6),
        Err(_) => f64::INFINITY,
    }
}

fn leases(out: &mut Exposition, semaphores: &[SemaphoreFigures]) {
    fn each<'a, V: Display>(
        all: &'a [SemaphoreFigures],
        value: impl Fn(&SemaphoreFigures) -> V + 'a,
    ) -> impl Iterator<Item = (String, V)> + 'a {
        all.iter().map(move |semaphore| (label("name", &semaphore.name), value(semaphore)))
    }
    out.subsystem = "dask_semaphore";
    out.family("max_leases", "gauge", "Leases of the semaphore", each(semaphores, |s| s.leases_max));
    out.family("active_leases", "gauge", "Leases held", each(semaphores, |s| s.leases));
    out.family("acquire_total", "counter", "Leases granted", each(semaphores, |s| s.acquired));
    out.family("release_total", "counter", "Leases given back", each(semaphores, |s| s.released));
}

/// By the names that Prometheus' own clients use.
fn process(out: &mut Exposition, frame: &Frame) {
    let process = Process::sample();
    out.subsystem = "process";
    out.one("cpu_seconds_total", "counter", "Processor time of the scheduler, in seconds", process.cpu_seconds);
    out.one("resident_memory_bytes", "gauge", "Resident memory of the scheduler", process.memory);
    out.one("open_fds", "gauge", "Open files and connections of the scheduler", process.open_files);
    out.one("start_time_seconds", "gauge", "Unix time of the scheduler's start", frame.started);
}

fn label(name: &str, value: &str) -> String {
    format!("{{{name}={}}}", quoted(value))
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn worker_states(frame: &Frame) -> impl Iterator<Item = (&'static str, usize)> {
    let mut counts = [("idle", 0), ("partially_saturated", 0), ("saturated", 0), ("paused", 0), ("retiring", 0)];
    for worker in &frame.workers {
        let at = match (worker.status, worker.idle, worker.saturated) {
            (WorkerStatus::Paused, _, _) => 3,
            (WorkerStatus::ClosingGracefully | WorkerStatus::Closing | WorkerStatus::Closed, _, _) => 4,
            (WorkerStatus::Init | WorkerStatus::Running, true, _) => 0,
            (WorkerStatus::Init | WorkerStatus::Running, false, true) => 2,
            (WorkerStatus::Init | WorkerStatus::Running, false, false) => 1,
        };
        counts[at].1 += 1;
    }
    counts.into_iter()
}

struct Exposition {
    text: String,
    subsystem: &'static str,
}

impl Exposition {
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help, [(String::new(), value)]);
    }

    fn family<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        let subsystem = self.subsystem;
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {subsystem}_{name} {help}\n# TYPE {subsystem}_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(self.text, "{subsystem}_{name}{labels} {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users_are_quoted() {
        assert_eq!(label("name", "a\"b\\c\nd"), "{name=\"a\\\"b\\\\c\\nd\"}");
    }

    #[test]
    fn multipliers_are_upstreams() {
        assert_eq!([0, 1, 6, 7].map(cost_multiplier), [1.0, 1.031_25, 2.0, 3.0]);
    }
}
