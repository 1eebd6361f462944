//! `workers_to_close`: which workers could go, and what `retire_workers` chooses by.

use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::message::Request;
use dask_protocol::pickle::{PickleValue, loads_plain};
use dask_protocol::{Address, Value};
use indexmap::IndexMap;
use serde::Deserialize;

use super::super::core::Core;
use super::super::failure::{Failure, Reply, reply};
use super::super::shared::Server;
use crate::state::WorkersToClose;

/// Which workers may be closed, by dask's names.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct CloseCriteria {
    #[serde(default)]
    memory_ratio: Option<f64>,
    #[serde(default)]
    n: Option<i64>,
    /// A pickled function; workers for which it says the same are closed together.
    #[serde(default)]
    key: Value,
    #[serde(default)]
    minimum: Option<i64>,
    #[serde(default)]
    target: Option<i64>,
    #[serde(default)]
    attribute: Option<String>,
}

/// `workers_to_close`: by address, or whichever attribute is asked for.
pub(crate) async fn workers_to_close(server: &Arc<Server>, request: &Request) -> Reply {
    let criteria: CloseCriteria = request.args()?;
    let attribute = criteria.attribute.clone().unwrap_or_else(|| "address".to_owned());
    let chosen = workers_to_close_now(server, criteria).await?;
    let answer = server.driver.run(move |core| {
        let all = chosen.iter().map(|address| attribute_of(core, address, &attribute));
        all.collect::<Option<Vec<_>>>().ok_or(attribute)
    });
    match answer.await? {
        Ok(attributes) => reply(&attributes),
        Err(attribute) => Err(Failure::builtin("AttributeError", &format!("workers have no attribute {attribute:?}"))),
    }
}

/// The addresses of workers that may be closed now.
pub(crate) async fn workers_to_close_now(
    server: &Arc<Server>,
    criteria: CloseCriteria,
) -> Result<Vec<Address>, Failure> {
    let CloseCriteria { memory_ratio, n, key, minimum, target, attribute: _ } = criteria;
    // Python's negative numbers mean none, as in upstream.
    let count = |n: Option<i64>| n.map(|n| usize::try_from(n).unwrap_or(0));
    let by = WorkersToClose { memory_ratio, n: count(n), minimum: count(minimum), target: count(target) };
    let groups = groups(server, key).await?;
    let group = move |address: &Address| match groups.get(address) {
        Some(group) => group.clone(),
        // It came after the workers were grouped.
        None => address.as_str().to_owned(),
    };
    let chosen = server.driver.run(move |core| {
        let mut chosen = core.state.workers_to_close(&by, group);
        chosen.retain(|worker| !core.shuffles.participants().any(|busy| busy == worker));
        chosen
    });
    let chosen = chosen.await?;
    if !server.driver.run(|core| core.has_hook("valid_workers_downscaling")).await? {
        return Ok(chosen);
    }
    let answer = server.sidecar.ask(server, "downscale", [("workers", as_value(&chosen))]).await?;
    let allowed: Vec<&str> = answer.as_items().unwrap_or_default().iter().filter_map(Value::as_str).collect();
    Ok(chosen.into_iter().filter(|address| allowed.contains(&address.as_str())).collect())
}

fn as_value(addresses: &[Address]) -> Value {
    Value::Array(addresses.iter().map(|address| address.as_str().into()).collect())
}

/// The group of each worker by the user's function; empty where each stands alone. `operator.attrgetter("host")` and the
/// like need no Python; other functions run beside the scheduler.
async fn groups(server: &Arc<Server>, key: Value) -> Result<IndexMap<Address, String>, Failure> {
    let pickled = match key {
        Value::Nil => return Ok(IndexMap::new()),
        Value::Bin(pickled) => pickled,
        _ => return Err(Failure::builtin("TypeError", "key must be a pickled function")),
    };
    if let Some(attribute) = plain_attribute(&pickled) {
        let by_attribute = server.driver.run(move |core| {
            let group =
                |address: &Address| Some((address.clone(), format!("{:?}", attribute_of(core, address, &attribute)?)));
            core.workers.keys().map(group).collect::<Option<_>>()
        });
        if let Some(groups) = by_attribute.await? {
            return Ok(groups);
        }
    }
    let workers: Vec<Address> = server.driver.run(|core| core.workers.keys().cloned().collect()).await?;
    let fields = [("function", Value::Bin(pickled)), ("workers", as_value(&workers))];
    let answer = server.sidecar.ask(server, "group-workers", fields).await?;
    let Value::Map(entries) = answer else {
        return Err(Failure::runtime("the function that groups workers gave no groups"));
    };
    let text = |(address, group): (Value, Value)| Some((Address::from(address.as_str()?), group.as_str()?.to_owned()));
    Ok(entries.into_iter().filter_map(text).collect())
}

/// The attribute that `operator.attrgetter(attribute)` reads.
fn plain_attribute(pickled: &Bytes) -> Option<String> {
    let PickleValue::Opaque(function) = loads_plain(pickled, &[]).ok()? else { return None };
    match (function.module.as_str(), function.name.as_str(), function.args.as_slice()) {
        ("operator" | "_operator", "attrgetter", [PickleValue::Str(attribute)]) => Some(attribute.clone()),
        _ => None,
    }
}

/// An attribute of upstream's `WorkerState`, of those that programs group and name workers by.
fn attribute_of(core: &Core, address: &Address, attribute: &str) -> Option<Value> {
    let (peer, view) = (core.workers.get(address)?, core.state.worker(address)?);
    match attribute {
        "address" => Some(address.as_str().into()),
        "name" => Some(peer.info.name.clone()),
        "host" => Some(address.host().into()),
        "nanny" => Some(peer.info.nanny.as_ref().map(Address::as_str).into()),
        "local_directory" => Some(peer.info.local_directory.as_str().into()),
        "nthreads" => Some(i64::from(view.nthreads).into()),
        "memory_limit" => Some(view.memory_limit.into()),
        "status" => Some(view.status.name().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_attribute_is_read_without_python() {
        // pickle.dumps(operator.attrgetter("host"), protocol=4)
        let host = b"\x80\x04\x95$\x00\x00\x00\x00\x00\x00\x00\x8c\x08operator\x94\x8c\nattrgetter\x94\x93\x94\x8c\x04host\x94\x85\x94R\x94.";
        assert_eq!(plain_attribute(&Bytes::from_static(host)), Some("host".to_owned()));
        // pickle.dumps(len, protocol=4)
        let len = b"\x80\x04\x95\x14\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x03len\x94\x93\x94.";
        assert_eq!(plain_attribute(&Bytes::from_static(len)), None);
        assert_eq!(plain_attribute(&Bytes::from_static(b"nonsense")), None);
    }
}
