//! `restart`, `restart_workers`, `terminate`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dask_protocol::message::{Pairs, Request, StimulusId};
use dask_protocol::{Address, CommError, Key, Value};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::super::core::Core;
use super::super::failure::{Failure, Reply, nil, reply};
use super::super::shared::Server;
use super::queries::named_workers;
use super::scatter::timeout_argument;
use crate::state::Event;

/// How long workers may take to come back where the caller does not say.
const RESTART_TIMEOUT: Duration = Duration::from_secs(30);
/// How often to count the workers that came back.
const RETURN_POLL: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Args {
    #[serde(default)]
    workers: Value,
    #[serde(default)]
    client: Option<String>,
    #[serde(default)]
    timeout: Value,
    #[serde(default = "yes")]
    wait_for_workers: bool,
    #[serde(default)]
    on_error: Option<String>,
    #[serde(default)]
    stimulus_id: Option<StimulusId>,
}

fn yes() -> bool {
    true
}

/// `restart`: forget all tasks, then restart all workers.
pub(crate) async fn restart(server: &Server, request: &Request) -> Reply {
    let args: Args = request.args()?;
    let stimulus_id = stimulus_id(server, &args, "restart");
    info!(target: "distributed.scheduler", "Restarting workers and releasing all keys (stimulus_id='{stimulus_id}')");
    server.driver.event(Event::Restart { stimulus_id: stimulus_id.clone() }).await?;
    server.driver.run(super::super::core::Core::restarted).await?;
    server.extensions.restart();
    server.metadata.clear();
    restart_all(server, Args { workers: Value::Nil, on_error: None, ..args }, stimulus_id).await?;
    nil()
}

/// `restart_workers`.
pub(crate) async fn restart_workers(server: &Server, request: &Request) -> Reply {
    let args: Args = request.args()?;
    let stimulus_id = stimulus_id(server, &args, "restart-workers");
    reply(&restart_all(server, args, stimulus_id).await?)
}

fn stimulus_id(server: &Server, args: &Args, cause: &str) -> StimulusId {
    args.stimulus_id.clone().unwrap_or_else(|| format!("{cause}-{}", server.clock.now()).into())
}

/// What became of each worker.
type Outcomes = Pairs<Address, &'static str>;

async fn restart_all(server: &Server, args: Args, stimulus_id: StimulusId) -> Result<Outcomes, Failure> {
    let patience = timeout_argument(&args.timeout, RESTART_TIMEOUT)?;
    let deadline = Instant::now().checked_add(patience);
    let raise = args.on_error.as_deref() != Some("return");
    let named = args.workers.clone();
    let found = server.driver.run(move |core| (core.workers.len(), chosen(core, &named))).await?;
    let (count_before, workers) = found;
    info!(target: "distributed.scheduler", "Restarting {} workers (stimulus_id='{stimulus_id}')", workers.len());
    let (with_nanny, without): (Vec<_>, Vec<_>) = workers.into_iter().partition(|(_, nanny)| nanny.is_some());
    let without: Vec<Address> = without.into_iter().map(|(address, _)| address).collect();
    let mut outcomes = Outcomes::default();
    let with_nanny: Vec<(Address, Address)> =
        with_nanny.into_iter().filter_map(|(address, nanny)| Some((address, nanny?))).collect();
    dismiss(server, &without, &stimulus_id).await?;
    outcomes.0.extend(without.iter().map(|address| (address.clone(), "removed")));
    kill(server, &with_nanny, patience, &stimulus_id, raise, &mut outcomes).await?;
    log(server, &args.client, &outcomes).await?;
    if !args.wait_for_workers {
        info!(target: "distributed.scheduler", "Workers restart finished (did not wait for new workers) (stimulus_id='{stimulus_id}')");
        return Ok(outcomes);
    }
    wait_for_return(server, count_before, deadline, patience, &without, raise, &stimulus_id).await?;
    Ok(outcomes)
}

fn chosen(core: &Core, named: &Value) -> Vec<(Address, Option<Address>)> {
    let nanny = |address: Address| core.workers.get(&address).map(|peer| (address, peer.info.nanny.clone()));
    let named = named_workers(core, named).unwrap_or_else(|| core.workers.keys().cloned().collect());
    named.into_iter().filter_map(nanny).collect()
}

/// Workers without a nanny cannot be restarted from here; they are told to close.
async fn dismiss(server: &Server, workers: &[Address], stimulus_id: &StimulusId) -> Result<(), Failure> {
    if workers.is_empty() {
        return Ok(());
    }
    warn!(
        target: "distributed.scheduler",
        "Workers {workers:?} do not use a nanny and will be terminated without restarting them"
    );
    remove(server, workers.to_vec(), stimulus_id).await
}

async fn remove(server: &Server, workers: Vec<Address>, stimulus_id: &StimulusId) -> Result<(), Failure> {
    let stimulus_id = stimulus_id.clone();
    let removed = server.driver.run(move |core| {
        for address in workers {
            core.remove_worker(&address, true, true, stimulus_id.clone());
        }
    });
    Ok(removed.await?)
}

#[derive(Serialize)]
struct Kill<'a> {
    reason: &'a str,
}

/// Tells all nannies to kill their workers; they start new ones by themselves.
async fn kill(
    server: &Server,
    workers: &[(Address, Address)],
    patience: Duration,
    stimulus_id: &StimulusId,
    raise: bool,
    outcomes: &mut Outcomes,
) -> Result<(), Failure> {
    let calls = workers.iter().map(|(worker, nanny)| async move {
        let kill = Kill { reason: stimulus_id };
        let killed = match timeout(patience, server.pool.call::<_, Value>(nanny, "kill", &kill)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error @ CommError::Remote { .. })) => Err(Failure::from(error)),
            Ok(Err(_)) | Err(_) => Ok(false),
        };
        (worker, killed)
    });
    let mut stuck = Vec::new();
    for (worker, killed) in join_all(calls).await {
        let killed = killed?;
        outcomes.0.push((worker.clone(), if killed { "OK" } else { "timed out" }));
        if !killed {
            stuck.push(worker.clone());
        }
    }
    if stuck.is_empty() {
        return Ok(());
    }
    let seconds = patience.as_secs_f64();
    error!(target: "distributed.scheduler", "Workers {stuck:?} did not shut down within {seconds}s; force closing");
    let text =
        format!("{}/{} nanny worker(s) did not shut down within {seconds}s: {stuck:?}", stuck.len(), workers.len());
    remove(server, stuck, stimulus_id).await?;
    if raise { Err(Failure::timeout(text)) } else { Ok(()) }
}

async fn log(server: &Server, client: &Option<String>, outcomes: &Outcomes) -> Result<(), Failure> {
    let workers: Vec<Value> = outcomes.iter().map(|(address, _)| address.as_str().into()).collect();
    let client = client.clone();
    let logged = server.driver.run(move |core| {
        let name = client.as_deref().map(Value::from);
        let msg = Value::map([
            ("action", "restart-workers".into()),
            ("workers", Value::Array(workers)),
            ("client", name.into()),
        ]);
        client.iter().for_each(|client| core.log_event(&Key::from(client.as_str()), msg.clone()));
        core.log_event(&Key::from("all"), msg);
    });
    Ok(logged.await?)
}

async fn wait_for_return(
    server: &Server,
    count_before: usize,
    deadline: Option<Instant>,
    patience: Duration,
    without_nanny: &[Address],
    raise: bool,
    stimulus_id: &StimulusId,
) -> Result<(), Failure> {
    loop {
        let count = server.driver.run(|core| core.workers.len()).await?;
        if count >= count_before {
            info!(target: "distributed.scheduler", "Workers restart finished (stimulus_id='{stimulus_id}')");
            return Ok(());
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let text = missing_workers(count_before, count, patience, without_nanny.len());
            if raise {
                return Err(Failure::timeout(text));
            }
            error!(target: "distributed.scheduler", "{text} (stimulus_id='{stimulus_id}')");
            return Ok(());
        }
        tokio::time::sleep(RETURN_POLL).await;
    }
}

fn missing_workers(before: usize, now: usize, patience: Duration, without_nanny: usize) -> String {
    let mut text = format!(
        "Waited for {before} worker(s) to reconnect after restarting but, after {}s, {} have not returned. \
         Consider a longer timeout, or `wait_for_workers=False`.",
        patience.as_secs_f64(),
        before - now
    );
    if without_nanny > 0 {
        text += &format!(
            " The {without_nanny} worker(s) without a nanny were only shut down, because nothing here can start them \
             again. If your deployment system does not relaunch them they will not come back."
        );
    }
    text
}

/// `terminate`: close the scheduler.
pub(crate) fn terminate(server: &Arc<Server>, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        reason: Option<String>,
    }
    let Args { reason } = request.args()?;
    server.request_close(reason.as_deref().unwrap_or("unknown"));
    nil()
}
