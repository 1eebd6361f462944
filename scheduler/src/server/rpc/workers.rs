//! Requests about the cluster's size and its workers: adaptive scaling, `unregister`, resources.

use std::time::Duration;

use dask_protocol::message::{Request, Resources, StimulusId};
use dask_protocol::{Address, Value};
use serde::Deserialize;

use super::super::failure::{Reply, SchedulerClosed, nil, reply};
use super::super::shared::Server;
use super::ok;
use super::scatter::timeout_argument;
use crate::state::{Event, ScalingAdvice};

/// `adaptive_target`: how many workers there should be. A caller that names a duration, as dask's `Adaptive` does, waits by
/// itself before it closes workers and gets the figure of the moment; all others get the advice that pages and metrics show.
pub(crate) async fn adaptive_target(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        target_duration: Value,
    }
    let duration = request.args::<Args>()?.target_duration;
    if duration.is_nil() {
        return reply(&advice(server).await?.workers);
    }
    let target = timeout_argument(&duration, Duration::ZERO)?.as_secs_f64();
    reply(&server.driver.run(move |core| core.state.adaptive_target(target)).await?)
}

/// `scaling_advice`: how many workers there should be, and why. Ours.
pub(crate) async fn scaling_advice(server: &Server) -> Reply {
    let advice = advice(server).await?;
    let count = |n: usize| Value::from(i64::try_from(n).unwrap_or(i64::MAX));
    reply(&Value::map([
        ("workers", count(advice.workers)),
        ("momentary", count(advice.momentary)),
        ("present", count(advice.present)),
        ("reason", advice.reason.to_string().into()),
    ]))
}

async fn advice(server: &Server) -> Result<ScalingAdvice, SchedulerClosed> {
    server.driver.run(|core| core.state.scaling_advice(core.clock.now())).await
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
