//! Worker and nanny plugins: pickles that we keep and hand to whoever registers; Python runs them over there.

use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use dask_protocol::Value;
use dask_protocol::message::{Pairs, Request};
use dask_protocol::pickle::write_exception;
use indexmap::IndexMap;
use serde::Deserialize;
use tracing::info;

use super::super::failure::{Failure, Reply, reply};
use super::super::shared::Server;
use super::broadcast::{OnError, targets, to_peers};

/// Most plugins of one kind.
const PLUGINS_MAX: usize = 10_000;

/// The plugins registered so far, by name.
pub(crate) struct Plugins {
    workers: Mutex<IndexMap<String, Bytes>>,
    nannies: Mutex<IndexMap<String, Bytes>>,
}

/// Whose plugins.
#[derive(Clone, Copy)]
enum Kind {
    Worker,
    Nanny,
}

impl Plugins {
    /// With the one every Python worker needs for P2P shuffles.
    pub(crate) fn new() -> Plugins {
        let shuffle = write_exception("distributed.shuffle._worker_plugin", "ShuffleWorkerPlugin", &[], &[]);
        let workers = Mutex::new(IndexMap::from([("shuffle".to_owned(), shuffle)]));
        Plugins { workers, nannies: Mutex::default() }
    }

    fn of(&self, kind: Kind) -> MutexGuard<'_, IndexMap<String, Bytes>> {
        let plugins = match kind {
            Kind::Worker => &self.workers,
            Kind::Nanny => &self.nannies,
        };
        plugins.lock().expect("no code panics while it holds the plugins")
    }

    /// For a worker's registration reply.
    pub(crate) fn worker_plugins(&self) -> Pairs<String, Bytes> {
        self.of(Kind::Worker).iter().map(|(name, plugin)| (name.clone(), plugin.clone())).collect()
    }

    /// For a nanny's registration reply.
    pub(crate) fn nanny_plugins(&self) -> Pairs<String, Bytes> {
        self.of(Kind::Nanny).iter().map(|(name, plugin)| (name.clone(), plugin.clone())).collect()
    }
}

#[derive(Deserialize)]
struct Register {
    plugin: Bytes,
    name: String,
    #[serde(default)]
    idempotent: bool,
}

#[derive(Deserialize)]
struct Unregister {
    name: String,
}

/// `register_worker_plugin`.
pub(crate) async fn register_worker_plugin(server: &Server, request: &Request) -> Reply {
    register(server, request, Kind::Worker).await
}

/// `unregister_worker_plugin`.
pub(crate) async fn unregister_worker_plugin(server: &Server, request: &Request) -> Reply {
    unregister(server, request, Kind::Worker).await
}

/// `register_nanny_plugin`; nannies that start meanwhile have got the plugins of before, so they are waited for.
pub(crate) async fn register_nanny_plugin(server: &Server, request: &Request) -> Reply {
    register(server, request, Kind::Nanny).await
}

/// `unregister_nanny_plugin`.
pub(crate) async fn unregister_nanny_plugin(server: &Server, request: &Request) -> Reply {
    unregister(server, request, Kind::Nanny).await
}

async fn register(server: &Server, request: &Request, kind: Kind) -> Reply {
    let Register { plugin, name, idempotent } = request.args()?;
    let (label, op) = match kind {
        Kind::Worker => ("Worker", "plugin-add"),
        Kind::Nanny => ("Nanny", "plugin_add"),
    };
    info!(target: "distributed.scheduler", "Registering {label} plugin {name}");
    {
        let mut plugins = server.plugins.of(kind);
        if idempotent && plugins.contains_key(&name) {
            return reply(&Pairs::<String, Value>::default());
        }
        if plugins.len() >= PLUGINS_MAX {
            return Err(Failure::runtime(format!("{PLUGINS_MAX} plugins are registered already")));
        }
        plugins.insert(name.clone(), plugin.clone());
    }
    let msg = Value::map([("op", op.into()), ("plugin", plugin.into()), ("name", name.into())]);
    tell(server, msg, kind).await
}

async fn unregister(server: &Server, request: &Request, kind: Kind) -> Reply {
    let Unregister { name } = request.args()?;
    let (label, op) = match kind {
        Kind::Worker => ("worker", "plugin-remove"),
        Kind::Nanny => ("nanny", "plugin_remove"),
    };
    if server.plugins.of(kind).shift_remove(&name).is_none() {
        return Err(Failure::value(format!("The {label} plugin {name} does not exist")));
    }
    tell(server, Value::map([("op", op.into()), ("name", name.into())]), kind).await
}

async fn tell(server: &Server, msg: Value, kind: Kind) -> Reply {
    let nanny = match kind {
        Kind::Worker => false,
        Kind::Nanny => {
            server.nannies.settled().await;
            true
        }
    };
    let targets = targets(server, Value::Nil, Value::Nil, nanny).await?;
    reply(&to_peers(server, targets, msg, &Value::Nil, OnError::Raise).await?)
}
