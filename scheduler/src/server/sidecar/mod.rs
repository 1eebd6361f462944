//! Python beside the scheduler: functions of `run_on_scheduler`, scheduler plugins, preload modules, feeds of users.
//!
//! One process, started when it is first needed, runs them with an object that stands for upstream's `Scheduler`. What user
//! code looks at or calls there comes back as a question ([`facts`] and the RPC handlers answer); what happens in the
//! scheduler reaches plugins through [`hooks`]. The driver never waits for Python. A process that dies fails what it was
//! asked, and the next question starts another one with the same plugins.

mod facts;
pub(crate) mod hooks;
mod process;

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use dask_protocol::Value;
use dask_protocol::message::Message;
use indexmap::IndexMap;
use tokio::sync::Mutex as AsyncMutex;
use tracing::{error, info, warn};

use self::process::Process;
use super::failure::Failure;
use super::shared::Server;

/// Most scheduler plugins; every `Client.upload_file` of another name is one.
const PLUGINS_MAX: usize = 1_000;

/// The process, if there is one, and what a new one must be told.
#[derive(Default)]
pub(crate) struct Sidecar {
    running: AsyncMutex<Option<Arc<Process>>>,
    /// Pickled plugins by name.
    plugins: Mutex<IndexMap<String, Bytes>>,
}

impl Sidecar {
    /// Asks the process, which is started if need be. What Python raised is the failure.
    pub(crate) async fn ask<const N: usize>(
        &self,
        server: &Arc<Server>,
        op: &str,
        fields: [(&'static str, Value); N],
    ) -> Result<Value, Failure> {
        let process = self.process(server).await?;
        exchange(&process, op, fields).await
    }

    /// Whether Python has been needed so far.
    pub(crate) async fn is_running(&self) -> bool {
        self.running.lock().await.as_ref().is_some_and(|process| process.is_alive())
    }

    /// Loads the preload modules of the options and runs their `dask_setup`.
    pub(crate) async fn preload(&self, server: &Arc<Server>) -> Result<(), Failure> {
        let texts = |texts: &[String]| Value::Array(texts.iter().map(|text| text.as_str().into()).collect());
        let options = &server.options;
        if options.preload.is_empty() {
            return Ok(());
        }
        let directory = server.graphs.helpers().directory().map_err(Failure::from)?;
        let fields = [
            ("modules", texts(&options.preload)),
            ("argv", texts(&options.preload_argv)),
            ("directory", directory.to_string_lossy().into_owned().into()),
        ];
        self.ask(server, "preload", fields).await?;
        Ok(())
    }

    /// Lets plugins and preload modules close, if there is a process that has any.
    pub(crate) async fn tear_down(&self, server: &Arc<Server>) {
        if !self.is_running().await {
            return;
        }
        if let Err(failure) = self.ask(server, "tear-down", []).await {
            warn!(target: "distributed.scheduler", "Plugins and preload modules could not be torn down: {failure}");
        }
    }

    /// Keeps a plugin that has started, for processes to come.
    pub(crate) fn keep_plugin(&self, name: String, plugin: Bytes) {
        let mut plugins = self.plugins();
        if plugins.len() >= PLUGINS_MAX && !plugins.contains_key(&name) {
            warn!(target: "distributed.scheduler", "Plugin {name} is one of more than {PLUGINS_MAX}: it will not survive the death of its process");
            return;
        }
        plugins.insert(name, plugin);
    }

    /// Forgets a plugin.
    pub(crate) fn drop_plugin(&self, name: &str) {
        self.plugins().shift_remove(name);
    }

    fn plugins(&self) -> MutexGuard<'_, IndexMap<String, Bytes>> {
        self.plugins.lock().expect("no code panics while it holds the plugins")
    }

    async fn process(&self, server: &Arc<Server>) -> Result<Arc<Process>, Failure> {
        let mut running = self.running.lock().await;
        if let Some(process) = running.as_ref().filter(|process| process.is_alive()) {
            return Ok(Arc::clone(process));
        }
        let process = Process::start(server).await.map_err(|why| no_python(&why))?;
        let plugins: Vec<(String, Bytes)> =
            self.plugins().iter().map(|(name, plugin)| (name.clone(), plugin.clone())).collect();
        for (name, plugin) in plugins {
            info!(target: "distributed.scheduler", "Starting scheduler plugin {name} in a new process");
            if let Err(failure) = add_plugin(&process, plugin, Some(name.clone()), true).await {
                error!(target: "distributed.scheduler", "Scheduler plugin {name} does not start again: {failure}");
            }
        }
        *running = Some(Arc::clone(&process));
        Ok(process)
    }

    /// Starts a plugin; the reply of the process.
    pub(crate) async fn add_plugin(
        &self,
        server: &Arc<Server>,
        plugin: Bytes,
        name: Option<String>,
        idempotent: bool,
    ) -> Result<Value, Failure> {
        let process = self.process(server).await?;
        add_plugin(&process, plugin, name, idempotent).await
    }
}

async fn add_plugin(
    process: &Process,
    plugin: Bytes,
    name: Option<String>,
    idempotent: bool,
) -> Result<Value, Failure> {
    let fields = [("plugin", plugin.into()), ("name", name.into()), ("idempotent", idempotent.into())];
    exchange(process, "plugin-add", fields).await
}

async fn exchange<const N: usize>(
    process: &Process,
    op: &str,
    fields: [(&'static str, Value); N],
) -> Result<Value, Failure> {
    let reply = process.ask(op, fields).await.ok_or_else(|| {
        Failure::runtime(format!("the Python process beside the scheduler ended while it was asked for {op:?}"))
    })?;
    if reply.get("status").and_then(Value::as_str) == Some("uncaught-error") {
        let message = Message::encode(&reply).map_err(|error| Failure::runtime(error.to_string()))?;
        return Err(Failure::Relayed(message));
    }
    Ok(reply)
}

fn no_python(why: &str) -> Failure {
    Failure::runtime(format!(
        "dask-rs: Python code on the scheduler runs in a Python process beside it, and none with dask and distributed was \
         found: {why}. Start the scheduler in an environment that has them, or point --python or DASK_PYTHON to it."
    ))
}
