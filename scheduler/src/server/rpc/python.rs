//! Python functions and plugins that clients send to the scheduler: a graph helper runs them, with a stand-in for upstream's
//! `Scheduler` object.

use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::Value;
use dask_protocol::message::{ErrorInfo, ErrorReply, Message, Request};
use dask_protocol::pickle::PickledFunction;
use serde::Deserialize;
use tracing::info;

use super::super::failure::{Failure, Reply, nil, reply};
use super::super::identity;
use super::super::shared::Server;
use crate::graph::helper::{HelperError, RunFunction};

/// `run_function`, the RPC of `Client.run_on_scheduler`.
pub(crate) async fn run_function(server: &Arc<Server>, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        function: Bytes,
        #[serde(default)]
        args: Bytes,
        #[serde(default)]
        kwargs: Bytes,
    }
    let Args { function, args, kwargs } = request.args()?;
    if asks_for_monitor_count(&function) {
        return reply(&Value::map([("status", "OK".into()), ("result", Value::Int(0))]));
    }
    info!(target: "distributed.worker", "Run out-of-band function");
    let function = RunFunction { function, args, kwargs };
    let facts = facts(server).await?;
    match server.graphs.helpers().run_function(&function, &facts).await {
        Ok(result) => reply(&Value::map([("status", "OK".into()), ("result", result.into())])),
        Err(HelperError::Raised(error)) => reply(&error_reply("error", *error)),
        Err(error) => Err(Failure::runtime(error.to_string())),
    }
}

/// The question that `performance_report` begins with. Our reports show no system monitor, so any number will do, and no
/// Python is needed to give it.
fn asks_for_monitor_count(function: &Bytes) -> bool {
    let known = PickledFunction::read(function).ok().flatten();
    known.is_some_and(|function| function.is("distributed.client", "performance_report.__aenter__.<locals>.<lambda>"))
}

/// `register_scheduler_plugin`: uploaded files, and other plugins that do nothing but start.
pub(crate) async fn register_scheduler_plugin(server: &Arc<Server>, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        plugin: Bytes,
        #[serde(default)]
        name: Option<String>,
    }
    let Args { plugin, name } = request.args()?;
    info!(target: "distributed.scheduler", "Starting scheduler plugin {}", name.unwrap_or_default());
    let facts = facts(server).await?;
    match server.graphs.helpers().start_plugin(plugin, &facts).await {
        Ok(()) => nil(),
        Err(HelperError::Raised(error)) => Err(Failure::Relayed(
            Message::encode(&error_reply("uncaught-error", *error)).expect("an error reply always packs"),
        )),
        Err(error) => Err(Failure::runtime(error.to_string())),
    }
}

/// The attributes of the stand-in.
async fn facts(server: &Arc<Server>) -> Result<Value, Failure> {
    let shared = server.clone();
    Ok(server.driver.run(move |core| identity::scheduler(&shared, core, -1)).await?)
}

fn error_reply(status: &str, error: ErrorInfo) -> ErrorReply {
    ErrorReply {
        status: status.to_owned(),
        exception: error.exception,
        traceback: error.traceback,
        exception_text: error.exception_text.to_string(),
        traceback_text: error.traceback_text.to_string(),
    }
}
