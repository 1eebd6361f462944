//! Python functions and plugins that clients send to the scheduler: a process beside it runs them.

use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::Value;
use dask_protocol::message::Request;
use dask_protocol::pickle::PickledFunction;
use serde::Deserialize;
use tracing::info;

use super::super::failure::{Failure, Reply, nil, reply};
use super::super::identity;
use super::super::shared::Server;

/// `run_function`, the RPC of `Client.run_on_scheduler`.
pub(crate) async fn run_function(server: &Arc<Server>, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        function: Bytes,
        #[serde(default)]
        args: Bytes,
        #[serde(default)]
        kwargs: Bytes,
        #[serde(default = "yes")]
        wait: bool,
    }
    fn yes() -> bool {
        true
    }
    let Args { function, args, kwargs, wait } = request.args()?;
    if asks_for_monitor_count(&function) {
        return reply(&Value::map([("status", "OK".into()), ("result", Value::Int(0))]));
    }
    info!(target: "distributed.worker", "Run out-of-band function");
    let fields =
        [("function", function.into()), ("args", args.into()), ("kwargs", kwargs.into()), ("wait", wait.into())];
    reply(&server.sidecar.ask(server, "run", fields).await?)
}

/// The question that `performance_report` begins with. Our reports show no system monitor, so any number will do, and no
/// Python is needed to give it.
fn asks_for_monitor_count(function: &Bytes) -> bool {
    let known = PickledFunction::read(function).ok().flatten();
    known.is_some_and(|function| function.is("distributed.client", "performance_report.__aenter__.<locals>.<lambda>"))
}

/// `register_scheduler_plugin`. Plugins that bring modules for graphs start in the graph helpers too.
pub(crate) async fn register_scheduler_plugin(server: &Arc<Server>, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        plugin: Bytes,
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        idempotent: bool,
    }
    let Args { plugin, name, idempotent } = request.args()?;
    let label = name.clone().unwrap_or_default();
    info!(target: "distributed.scheduler", "Starting scheduler plugin {label}");
    let added = server.sidecar.add_plugin(server, plugin.clone(), name, idempotent).await?;
    let says = |what: &str| added.get(what).and_then(Value::as_bool).unwrap_or(false);
    if says("everywhere") {
        let shared = Arc::clone(server);
        let facts = server.driver.run(move |core| identity::scheduler(&shared, core, -1)).await?;
        server.graphs.helpers().start_plugin(plugin.clone(), &facts).await?;
    }
    if let (true, Some(name)) = (says("added"), added.get("name").and_then(Value::as_str)) {
        server.sidecar.keep_plugin(name.to_owned(), plugin);
    }
    nil()
}

/// `unregister_scheduler_plugin`.
pub(crate) async fn unregister_scheduler_plugin(server: &Arc<Server>, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        name: String,
    }
    let Args { name } = request.args()?;
    if !server.sidecar.is_running().await {
        let text = format!("Could not find plugin '{name}' among the current scheduler plugins");
        return Err(Failure::value(text));
    }
    server.sidecar.ask(server, "plugin-remove", [("name", name.as_str().into())]).await?;
    server.sidecar.drop_plugin(&name);
    nil()
}

/// An operation that nothing here knows: Python code on the scheduler may have added a handler (`Scheduler.handlers`). None
/// if no Python runs, or none was added.
pub(crate) async fn added_handler(server: &Arc<Server>, request: &Request) -> Option<Reply> {
    if !server.sidecar.is_running().await {
        return None;
    }
    Some(match handle(server, request).await {
        Ok(answer) if answer.get("known").and_then(Value::as_bool) == Some(false) => return None,
        Ok(answer) => reply(answer.get("result").unwrap_or(&Value::Nil)),
        Err(failure) => Err(failure),
    })
}

async fn handle(server: &Arc<Server>, request: &Request) -> Result<Value, Failure> {
    let request: Value = request.args()?;
    server.sidecar.ask(server, "handle", [("request", request)]).await
}
