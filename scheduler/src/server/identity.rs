//! The identity of the scheduler and of its workers, as clients and cluster objects read it.

use dask_protocol::{Address, Value};

use super::core::Core;
use super::shared::Server;

/// The `identity` reply with at most `n_workers` workers; all when it is negative.
pub(crate) fn scheduler(server: &Server, core: &Core, n_workers: i64) -> Value {
    let shown = usize::try_from(n_workers).unwrap_or(usize::MAX);
    let workers = core.workers.keys().take(shown);
    let workers = workers.filter_map(|address| Some((Value::from(address.as_str()), worker(core, address)?))).collect();
    Value::map([
        ("type", "Scheduler".into()),
        ("id", server.id.as_str().into()),
        ("address", server.address.as_str().into()),
        ("services", server.services()),
        ("started", server.started.into()),
        ("n_workers", core.workers.len().into()),
        ("total_threads", core.state.total_nthreads().into()),
        ("total_memory", core.state.total_memory().into()),
        ("workers", Value::Map(workers)),
    ])
}

/// The identity of one worker.
pub(crate) fn worker(core: &Core, address: &Address) -> Option<Value> {
    let peer = core.workers.get(address)?;
    let view = core.state.worker(address)?;
    let info = &peer.info;
    let or_empty = |value: &Value| if value.is_nil() { Value::Map(Vec::new()) } else { value.clone() };
    let resources = view.resources.iter().map(|(name, amount)| ((*name).into(), (*amount).into())).collect();
    let mut entries = vec![
        ("type", "Worker".into()),
        ("id", info.name.clone()),
        ("host", address.host().into()),
        ("resources", Value::Map(resources)),
        ("local_directory", info.local_directory.as_str().into()),
        ("name", info.name.clone()),
        ("nthreads", i64::from(view.nthreads).into()),
        ("memory_limit", view.memory_limit.into()),
        ("last_seen", peer.last_seen.into()),
        ("services", or_empty(&info.services)),
        ("metrics", or_empty(&peer.metrics)),
        ("status", view.status.name().into()),
        ("nanny", info.nanny.as_ref().map(Address::as_str).into()),
    ];
    let mut identity = Vec::with_capacity(entries.len());
    identity.extend(entries.drain(..).map(|(name, value)| (Value::from(name), value)));
    if let Value::Map(extra) = &info.extra {
        let fresh = extra.iter().filter(|(name, _)| !identity.iter().any(|(known, _)| known == name));
        let fresh: Vec<_> = fresh.cloned().collect();
        identity.extend(fresh);
    }
    Some(Value::Map(identity))
}

/// An identity without what changes all the time, as cluster objects get it.
pub(crate) fn without_metrics(identity: Value) -> Value {
    match identity {
        Value::Map(mut entries) => {
            entries.retain(|(name, _)| !matches!(name.as_str(), Some("metrics" | "last_seen")));
            Value::Map(entries)
        }
        other => other,
    }
}
