//! Requests about the cluster's size and its workers: adaptive scaling, `unregister`, resources.

use std::sync::Arc;

use dask_protocol::message::{Request, Resources, StimulusId};
use dask_protocol::{Address, Value};
use serde::Deserialize;

use super::super::failure::{Failure, Reply, nil, reply};
use super::super::shared::Server;
use super::ok;
use super::scatter::timeout_argument;
use crate::state::{Event, WorkersToClose};

/// `distributed.adaptive.target-duration`.
const TARGET_DURATION: std::time::Duration = std::time::Duration::from_secs(5);

/// `adaptive_target`: how many workers the present load would keep busy.
pub(crate) async fn adaptive_target(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        target_duration: Value,
    }
    let target = timeout_argument(&request.args::<Args>()?.target_duration, TARGET_DURATION)?.as_secs_f64();
    reply(&server.driver.run(move |core| core.state.adaptive_target(target)).await?)
}

/// Which workers may be closed, by dask's names.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct CloseCriteria {
    #[serde(default)]
    memory_ratio: Option<f64>,
    #[serde(default)]
    n: Option<usize>,
    #[serde(default)]
    key: Value,
    #[serde(default)]
    minimum: Option<usize>,
    #[serde(default)]
    target: Option<usize>,
    #[serde(default)]
    attribute: Option<String>,
}

/// `workers_to_close`: by address, or whichever attribute is asked for.
pub(crate) async fn workers_to_close(server: &Arc<Server>, request: &Request) -> Reply {
    let criteria: CloseCriteria = request.args()?;
    let attribute = criteria.attribute.clone().unwrap_or_else(|| "address".to_owned());
    let chosen = workers_to_close_now(server, criteria).await?;
    let answer = server.driver.run(move |core| {
        let attribute_of = |address: &Address| match attribute.as_str() {
            "address" => Some(Value::from(address.as_str())),
            "name" => core.workers.get(address).map(|peer| peer.info.name.clone()),
            "host" => Some(Value::from(address.host())),
            "nanny" => core.workers.get(address).map(|peer| peer.info.nanny.as_ref().map(Address::as_str).into()),
            _ => None,
        };
        chosen.iter().map(attribute_of).collect::<Option<Vec<_>>>()
    });
    reply(&answer.await?.ok_or_else(|| Failure::value("attribute must be address, name, host or nanny"))?)
}

/// The addresses of workers that may be closed now.
pub(crate) async fn workers_to_close_now(
    server: &Arc<Server>,
    criteria: CloseCriteria,
) -> Result<Vec<Address>, Failure> {
    let CloseCriteria { memory_ratio, n, key, minimum, target, attribute: _ } = criteria;
    if !key.is_nil() {
        return Err(Failure::unsupported("dask-rs: workers_to_close cannot group workers by a Python function"));
    }
    let by = WorkersToClose { memory_ratio, n, minimum, target };
    let alone = |address: &Address| address.as_str().to_owned();
    let chosen = server.driver.run(move |core| {
        let mut chosen = core.state.workers_to_close(&by, alone);
        chosen.retain(|worker| !core.shuffles.participants().any(|busy| busy == worker));
        chosen
    });
    let chosen = chosen.await?;
    if !server.driver.run(|core| core.has_hook("valid_workers_downscaling")).await? {
        return Ok(chosen);
    }
    let named = Value::Array(chosen.iter().map(|address| address.as_str().into()).collect());
    let allowed = server.sidecar.ask(server, "downscale", [("workers", named)]).await?;
    let allowed: Vec<&str> = allowed.as_items().unwrap_or_default().iter().filter_map(Value::as_str).collect();
    Ok(chosen.into_iter().filter(|address| allowed.contains(&address.as_str())).collect())
}

/// `amm_handler`: the active memory manager.
pub(crate) async fn amm_handler(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Method {
        Start,
        Stop,
        RunOnce,
        Running,
    }
    #[derive(Deserialize)]
    struct Args {
        method: Method,
    }
    let event = match request.args::<Args>()?.method {
        Method::Start => Event::SetActiveMemoryManager { running: true },
        Method::Stop => Event::SetActiveMemoryManager { running: false },
        Method::RunOnce => Event::RunActiveMemoryManager,
        Method::Running => {
            return reply(&server.driver.run(|core| core.state.active_memory_manager_is_running()).await?);
        }
    };
    server.driver.event(event).await?;
    nil()
}

/// `set_resources`.
pub(crate) async fn set_resources(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        worker: Address,
        #[serde(default)]
        resources: Resources,
    }
    let Args { worker, resources } = request.args()?;
    server.driver.event(Event::SetResources { worker, resources }).await?;
    ok()
}

/// `unregister`: a nanny tells that its worker is dead.
pub(crate) async fn unregister(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        address: Address,
        #[serde(default)]
        stimulus_id: Option<StimulusId>,
        #[serde(default)]
        expected: bool,
        #[serde(default = "yes")]
        close: bool,
    }
    fn yes() -> bool {
        true
    }
    let Args { address, stimulus_id, expected, close } = request.args()?;
    let removed = server.driver.run(move |core| {
        let stimulus_id = stimulus_id.unwrap_or_else(|| core.stimulus("unregister"));
        core.remove_worker(&address, expected, close, stimulus_id)
    });
    if removed.await? { ok() } else { reply("already-removed") }
}
