//! `retire_workers`: let workers go after they handed over what only they hold.

use dask_protocol::message::{Pairs, Request, StimulusId};
use dask_protocol::{Address, Value};
use serde::Deserialize;
use tracing::{info, warn};

use super::super::core::Core;
use super::super::failure::{Failure, Reply, reply};
use super::super::identity;
use super::super::peers::name_text;
use super::super::shared::Server;
use super::closing::{CloseCriteria, workers_to_close_now};
use super::queries::names_text;

#[derive(Deserialize)]
struct Args {
    #[serde(default)]
    workers: Option<Vec<Value>>,
    #[serde(default)]
    names: Option<Vec<Value>>,
    #[serde(default)]
    close_workers: bool,
    #[serde(default = "yes")]
    remove: bool,
    #[serde(default)]
    stimulus_id: Option<StimulusId>,
    #[serde(flatten)]
    criteria: CloseCriteria,
}

fn yes() -> bool {
    true
}

/// `retire_workers`.
pub(crate) async fn retire_workers(server: &std::sync::Arc<Server>, request: &Request) -> Reply {
    let Args { workers, names, close_workers, remove, stimulus_id, criteria } = request.args()?;
    let stimulus_id = stimulus_id.unwrap_or_else(|| format!("retire-workers-{}", server.clock.now()).into());
    let chosen = match (workers, names) {
        (Some(_), Some(_)) => {
            return Err(Failure::builtin("TypeError", "names and workers are mutually exclusive"));
        }
        (Some(workers), None) => {
            info!(
                target: "distributed.scheduler",
                "Retire worker addresses (stimulus_id='{stimulus_id}') {}",
                names_text(&workers)
            );
            server.driver.run(move |core| by_address_or_name(core, &workers)).await?
        }
        (None, Some(names)) => {
            info!(target: "distributed.scheduler", "Retire worker names {}", names_text(&names));
            server.driver.run(move |core| by_name(core, &names)).await?
        }
        (None, None) => workers_to_close_now(server, criteria).await?,
    };
    reply(&retire(server, chosen, remove, close_workers).await?)
}

/// A `SpecCluster` that scales down gives its workers' names as their addresses, and closes them whatever the answer is.
/// Upstream's scheduler passes these over, so what only such a worker holds is lost there.
fn by_address_or_name(core: &Core, workers: &[Value]) -> Vec<Address> {
    let given: Vec<String> = workers.iter().map(name_text).collect();
    let meant = core.workers.iter().filter(|(address, peer)| {
        let name = name_text(&peer.info.name);
        given.iter().any(|text| text == address.as_str() || *text == name)
    });
    meant.map(|(address, _)| address.clone()).collect()
}

/// Retires these workers, as a caller of the HTTP server asks; the identities of those that could go.
pub(crate) async fn retire_addresses(server: &Server, workers: Vec<Address>) -> Result<Pairs<Address, Value>, Failure> {
    retire(server, workers, true, false).await
}

/// Names that came through a command line are text; they are compared as such.
fn by_name(core: &Core, names: &[Value]) -> Vec<Address> {
    let names: Vec<String> = names.iter().map(name_text).collect();
    let named = core.workers.iter().filter(|(_, peer)| names.contains(&name_text(&peer.info.name)));
    named.map(|(address, _)| address.clone()).collect()
}

async fn retire(
    server: &Server,
    workers: Vec<Address>,
    remove: bool,
    close: bool,
) -> Result<Pairs<Address, Value>, Failure> {
    if workers.is_empty() {
        return Ok(Pairs::default());
    }
    let asked = server.driver.run(move |core| {
        let identities: Vec<(Address, Value)> =
            workers.iter().filter_map(|w| Some((w.clone(), identity::worker(core, w)?))).collect();
        (identities, core.retire(workers, remove, close))
    });
    let (identities, done) = asked.await?;
    let (retired, kept) =
        done.await.map_err(|_| Failure::runtime("the scheduler closed before the workers retired"))?;
    for worker in &kept {
        warn!(
            target: "distributed.scheduler",
            "Could not retire worker '{worker}': unique data could not be moved to any other worker"
        );
    }
    for worker in &retired {
        info!(target: "distributed.scheduler", "Retired worker '{worker}'");
    }
    Ok(identities.into_iter().filter(|(worker, _)| retired.contains(worker)).collect())
}
