//! `MemorySampler`: the cluster's memory over time.

use std::sync::Arc;
use std::time::Duration;

use dask_protocol::message::Request;
use indexmap::IndexMap;
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::super::core::Core;
use super::super::failure::{Failure, Reply, reply};
use super::super::shared::Server;
use super::table::Table;

/// Most samplings at a time.
const SAMPLINGS_MAX: usize = 1000;
/// Most samples of one: a day at two a second, then it stops.
const SAMPLES_MAX: usize = 172_800;
/// Shortest time between two samples.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// The samplings that go on, by key.
#[derive(Default)]
pub(super) struct MemorySamplers(Table<IndexMap<String, Vec<(f64, u64)>>>);

/// Which memory is sampled (`distributed.scheduler.MemoryState`).
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Measure {
    Process,
    Managed,
    ManagedInMemory,
    Spilled,
    ManagedSpilled,
    Unmanaged,
    UnmanagedOld,
    UnmanagedRecent,
    Optimistic,
}

impl MemorySamplers {
    /// `memory_sampler_start`: the key of the sampling, which has its first sample already.
    pub(super) async fn start(&self, server: &Arc<Server>, request: &Request) -> Reply {
        #[derive(Deserialize)]
        struct Args {
            client: String,
            measure: Measure,
            interval: f64,
        }
        let Args { client, measure, interval } = request.args()?;
        let period = Duration::try_from_secs_f64(interval).map_err(|_| Failure::value("interval must be positive"))?;
        let first = server.driver.run(move |core| sample(core, measure)).await?;
        let key = Uuid::new_v4().to_string();
        self.0.change(|all| {
            if all.len() >= SAMPLINGS_MAX {
                return Err(Failure::runtime(format!("{SAMPLINGS_MAX} memory samplings go on already")));
            }
            all.insert(key.clone(), vec![first]);
            Ok(())
        })?;
        tokio::spawn(follow(Arc::clone(server), key.clone(), client, measure, period.max(INTERVAL_MIN)));
        reply(&key)
    }

    /// `memory_sampler_stop`: its samples, each a unix time and bytes.
    pub(super) fn stop(&self, request: &Request) -> Reply {
        #[derive(Deserialize)]
        struct Args {
            key: String,
        }
        let Args { key } = request.args()?;
        match self.0.change(|all| all.shift_remove(&key)) {
            Some(samples) => reply(&samples),
            None => Err(Failure::key(key)),
        }
    }

    fn add(&self, key: &str, sample: (f64, u64)) -> bool {
        self.0.change(|all| match all.get_mut(key) {
            Some(samples) if samples.len() < SAMPLES_MAX => {
                samples.push(sample);
                true
            }
            Some(_) | None => false,
        })
    }
}

/// Samples until the sampling is stopped or its client leaves.
async fn follow(server: Arc<Server>, key: String, client: String, measure: Measure, period: Duration) {
    let samplers = &server.extensions.memory_samplers;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            () = server.closing.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let id = client.clone();
        let sampled =
            server.driver.run(move |core| core.clients.contains_key(id.as_str()).then(|| sample(core, measure)));
        match sampled.await {
            Ok(Some(sample)) if samplers.add(&key, sample) => {}
            Ok(Some(_)) => return,
            Ok(None) | Err(_) => {
                samplers.0.change(|all| all.shift_remove(&key));
                return;
            }
        }
    }
}

fn sample(core: &mut Core, measure: Measure) -> (f64, u64) {
    let of_worker = |memory: crate::state::MemoryState| match measure {
        Measure::Process => memory.process,
        Measure::Managed | Measure::ManagedInMemory => memory.managed,
        Measure::Spilled | Measure::ManagedSpilled => memory.spilled,
        Measure::Unmanaged => memory.unmanaged,
        Measure::UnmanagedOld => memory.unmanaged_old,
        Measure::UnmanagedRecent => memory.unmanaged.saturating_sub(memory.unmanaged_old),
        Measure::Optimistic => memory.optimistic(),
    };
    (core.clock.now(), core.state.workers().map(|worker| of_worker(worker.memory)).sum())
}
