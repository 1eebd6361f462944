//! Requests: one function per op, grouped by what they are about.

pub(super) mod broadcast;
pub(super) mod closing;
pub(super) mod dump;
pub(super) mod events;
pub(crate) mod explain;
pub(super) mod feed;
pub(super) mod gather;
pub(super) mod heartbeat;
pub(super) mod metadata;
pub(super) mod nanny;
pub(super) mod plugins;
pub(crate) mod profile;
pub(super) mod python;
pub(super) mod queries;
pub(super) mod rebalance;
pub(super) mod replicate;
pub(super) mod report;
pub(super) mod restart;
pub(crate) mod retire;
pub(super) mod scatter;
pub(super) mod status;
pub(super) mod tasks;
pub(super) mod workers;

use std::sync::Arc;

use dask_protocol::message::Request;
use tracing::warn;

use super::extensions;
use super::failure::{Failure, Reply, reply};
use super::shared::Server;

/// Ops that do nothing but wait for something to happen: given up when their caller leaves.
pub(super) fn only_waits(op: &str) -> bool {
    matches!(
        op,
        "event_wait"
            | "variable_get"
            | "variable_set"
            | "queue_get"
            | "queue_put"
            | "semaphore_acquire"
            | "multi_lock_acquire"
    )
}

/// Answers a request that does not take its connection over. `gather`, which writes its reply itself, is answered before.
pub(super) async fn answer(server: &Arc<Server>, request: Request) -> Reply {
    let op = request.op();
    if server.blocks(op) {
        let text = format!(
            "The '{op}' handler has been explicitly disallowed in Scheduler, possibly due to security concerns."
        );
        return Err(Failure::value(text));
    }
    match op {
        "identity" => queries::identity(server, &request).await,
        "echo" => queries::echo(&request),
        "ncores" => queries::ncores(server, &request, false).await,
        "ncores_running" => queries::ncores(server, &request, true).await,
        "who_has" => queries::who_has(server, &request).await,
        "has_what" => queries::has_what(server, &request).await,
        "processing" => queries::processing(server, &request).await,
        "nbytes" => queries::nbytes(server, &request).await,
        "get_task_status" => queries::task_status(server, &request).await,
        "get_task_prefix_states" => queries::prefix_states(server).await,
        "get_story" => queries::story(server, &request).await,
        "get_runspec" => queries::run_spec(server, &request).await,
        "get_error_cause" => queries::error_cause(server, &request).await,
        "dump_state" => dump::dump_state(server, &request).await,
        "get_cluster_state" => dump::cluster_state(server, &request).await,
        "explain" => explain::explain(server, &request).await,
        "dump_cluster_state_to_url" => dump::to_url(server, &request).await,
        "check_idle" => queries::idle_since(server).await,
        "versions" => queries::versions(server, &request).await,
        "adaptive_target" => workers::adaptive_target(server, &request).await,
        "scaling_advice" => workers::scaling_advice(server).await,
        "workers_to_close" => closing::workers_to_close(server, &request).await,
        "set_resources" => workers::set_resources(server, &request).await,
        "heartbeat_worker" => heartbeat::heartbeat(server, &request).await,
        "unregister" => workers::unregister(server, &request).await,
        "add_keys" => tasks::add_keys(server, &request).await,
        "scatter" => scatter::scatter(server, &request).await,
        "update_data" => scatter::update_data(server, &request).await,
        "replicate" => replicate::replicate(server, &request).await,
        "rebalance" => rebalance::rebalance(server, &request).await,
        "amm_handler" => workers::amm_handler(server, &request).await,
        "get_task_stream" => tasks::task_stream(server, &request).await,
        "start_task_metadata" => tasks::start_task_metadata(server, &request).await,
        "stop_task_metadata" => tasks::stop_task_metadata(server, &request).await,
        "set_restrictions" => tasks::set_restrictions(server, &request).await,
        "get_task_stream_index" => tasks::task_stream_index(server).await,
        "broadcast" => broadcast::broadcast(server, &request).await,
        "proxy" => broadcast::proxy(server, &request).await,
        "worker_logs" => broadcast::worker_logs(server, &request).await,
        "call_stack" => profile::call_stack(server, &request).await,
        "profile" => profile::profile(server, &request).await,
        "benchmark_hardware" => profile::benchmark_hardware(server).await,
        "restart" => restart::restart(server, &request).await,
        "restart_workers" => restart::restart_workers(server, &request).await,
        "retire_workers" => retire::retire_workers(server, &request).await,
        "terminate" => restart::terminate(server, &request),
        "retry" => tasks::retry(server, &request).await,
        "log_event" => events::log_event(server, &request).await,
        "events" => events::events(server, &request).await,
        "get_logs" | "logs" => events::logs(server, &request),
        "get_metadata" => metadata::get(server, &request),
        "set_metadata" => metadata::set(server, &request),
        "register_worker_plugin" => plugins::register_worker_plugin(server, &request).await,
        "unregister_worker_plugin" => plugins::unregister_worker_plugin(server, &request).await,
        "register_nanny_plugin" => plugins::register_nanny_plugin(server, &request).await,
        "unregister_nanny_plugin" => plugins::unregister_nanny_plugin(server, &request).await,
        "run_function" => python::run_function(server, &request).await,
        "register_scheduler_plugin" => python::register_scheduler_plugin(server, &request).await,
        "performance_report" => report::performance_report(server, &request).await,
        "unregister_scheduler_plugin" => python::unregister_scheduler_plugin(server, &request).await,
        "connection_stream" => Err(no_streams()),
        _ => match extensions::answer(server, &request).await {
            Some(answered) => answered,
            None => python::added_handler(server, &request).await.unwrap_or_else(|| Err(unknown(op))),
        },
    }
}

/// Streams begin with a registration here; nothing in use begins one without.
fn no_streams() -> Failure {
    Failure::unsupported(
        "dask-rs: the scheduler takes streams from registered clients and workers only, not by connection_stream",
    )
}

/// Upstream answers nothing to an unknown op, and its callers then fail far away; an exception names it.
fn unknown(op: &str) -> Failure {
    warn!(target: "distributed.core", "No handler {op} found in Scheduler");
    Failure::unsupported(format!("dask-rs: the scheduler does not know the operation {op:?}"))
}

/// The reply of upstream's handlers that return `OK`.
fn ok() -> Reply {
    reply("OK")
}
