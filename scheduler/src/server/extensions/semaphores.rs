//! `Semaphore` and `Lock` (a semaphore of one): leases that their holders refresh.

use std::time::{Duration, Instant};

use dask_protocol::message::Request;
use dask_protocol::{Key, Value};
use indexmap::IndexMap;
use serde::Deserialize;
use tracing::{error, warn};

use super::super::failure::{Failure, Reply, nil, reply};
use super::super::rpc::scatter::timeout_argument;
use super::table::Table;
use super::{NAMES_MAX, deadline, name_key};

/// `distributed.scheduler.locks.lease-validation-interval`.
pub(crate) const LEASE_VALIDATION_INTERVAL: Duration = Duration::from_secs(10);
/// `distributed.scheduler.locks.lease-timeout`, where a client does not say.
const LEASE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most leases of one semaphore.
const LEASES_MAX: usize = 1_000_000;

/// All semaphores by name.
#[derive(Default)]
pub(crate) struct Semaphores(Table<IndexMap<Key, Semaphore>>);

struct Semaphore {
    leases_max: usize,
    lease_timeout: Duration,
    /// Who holds a lease, and when it was refreshed.
    leases: IndexMap<Key, Instant>,
    /// Leases granted so far, and given back.
    acquired: u64,
    released: u64,
}

/// A semaphore, for `/metrics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SemaphoreFigures {
    /// Its name.
    pub(crate) name: String,
    /// Leases there are, and leases held.
    pub(crate) leases_max: usize,
    pub(crate) leases: usize,
    /// Leases granted so far, and given back.
    pub(crate) acquired: u64,
    pub(crate) released: u64,
}

#[derive(Deserialize)]
struct Args {
    name: Value,
    #[serde(default)]
    lease_id: Value,
    #[serde(default)]
    timeout: Value,
}

impl Semaphores {
    /// `semaphore_register`.
    pub(super) fn register(&self, request: &Request) -> Reply {
        #[derive(Deserialize)]
        struct Args {
            name: Value,
            max_leases: usize,
            #[serde(default)]
            lease_timeout: Value,
        }
        let Args { name, max_leases, lease_timeout } = request.args()?;
        let name = name_key(&name)?;
        let lease_timeout = timeout_argument(&lease_timeout, LEASE_TIMEOUT)?;
        self.0.change(|all| match all.get(&name) {
            Some(known) if known.leases_max != max_leases => {
                Err(Failure::value(format!("Inconsistent max leases: {max_leases}, expected: {}", known.leases_max)))
            }
            Some(_) => Ok(()),
            None if all.len() >= NAMES_MAX => Err(Failure::runtime(format!("{NAMES_MAX} semaphores exist already"))),
            None => {
                let leases_max = max_leases.min(LEASES_MAX);
                all.insert(
                    name,
                    Semaphore { leases_max, lease_timeout, leases: IndexMap::new(), acquired: 0, released: 0 },
                );
                Ok(())
            }
        })?;
        nil()
    }

    /// `semaphore_acquire`: whether the lease was granted in time. Asking again for a lease that is held grants it.
    pub(super) async fn acquire(&self, request: &Request) -> Reply {
        let Args { name, lease_id, timeout } = request.args()?;
        let (key, lease) = (name_key(&name)?, name_key(&lease_id)?);
        let granted = self.0.wait(deadline(&timeout)?, |all| {
            let Some(semaphore) = all.get_mut(&key) else {
                return Some(Err(Failure::runtime(format!("Semaphore or Lock `{key}` not known."))));
            };
            let free = semaphore.leases.len() < semaphore.leases_max;
            (free || semaphore.leases.contains_key(&lease)).then(|| {
                if semaphore.leases.insert(lease.clone(), Instant::now()).is_none() {
                    semaphore.acquired += 1;
                }
                Ok(())
            })
        });
        match granted.await {
            Some(Ok(())) => reply(&true),
            Some(Err(failure)) => Err(failure),
            None => reply(&false),
        }
    }

    /// `semaphore_release`.
    pub(super) fn release(&self, request: &Request) -> Reply {
        let Args { name, lease_id, .. } = request.args()?;
        let (name, lease) = (name_key(&name)?, name_key(&lease_id)?);
        let known = self.0.change(|all| {
            let semaphore = all.get_mut(&name)?;
            let held = semaphore.leases.shift_remove(&lease);
            semaphore.released += u64::from(held.is_some());
            Some(held)
        });
        match known {
            None => {
                warn!(target: "distributed.semaphore", "Tried to release Lock or Semaphore `{name}` but it is not known.");
            }
            Some(None) => warn!(
                target: "distributed.semaphore",
                "Tried to release Lock or Semaphore but it was already released: name='{name}', lease_id='{lease}'. \
                 This can happen if the Lock or Semaphore timed out before."
            ),
            Some(Some(_)) => {}
        }
        nil()
    }

    /// `semaphore_refresh_leases`.
    pub(super) fn refresh(&self, request: &Request) -> Reply {
        #[derive(Deserialize)]
        struct Args {
            name: Value,
            #[serde(default)]
            lease_ids: Value,
        }
        let Args { name, lease_ids } = request.args()?;
        let name = name_key(&name)?;
        let ids: Vec<Key> = lease_ids.as_items().unwrap_or_default().iter().filter_map(Value::to_key).collect();
        let now = Instant::now();
        self.0.change(|all| {
            let Some(semaphore) = all.get_mut(&name) else { return };
            for id in ids {
                if semaphore.leases.len() < LEASES_MAX && semaphore.leases.insert(id.clone(), now).is_none() {
                    error!(
                        target: "distributed.semaphore",
                        "Refreshing an unknown lease ID {id} for {name}. It may have timed out, and the semaphore may \
                         be overbooked now."
                    );
                }
            }
        });
        nil()
    }

    /// `semaphore_value`: leases held.
    pub(super) fn value(&self, request: &Request) -> Reply {
        let name = name_key(&request.args::<Args>()?.name)?;
        reply(&self.0.read(|all| all.get(&name).map_or(0, |semaphore| semaphore.leases.len())))
    }

    /// All of them as they are now, at most `limit`.
    pub(crate) fn figures(&self, limit: usize) -> Vec<SemaphoreFigures> {
        let figures = |(name, semaphore): (&Key, &Semaphore)| SemaphoreFigures {
            name: name.to_string(),
            leases_max: semaphore.leases_max,
            leases: semaphore.leases.len(),
            acquired: semaphore.acquired,
            released: semaphore.released,
        };
        self.0.read(|all| all.iter().take(limit).map(figures).collect())
    }

    /// `semaphore_close`: forgets it, whoever holds a lease.
    pub(super) fn close(&self, request: &Request) -> Reply {
        let name = name_key(&request.args::<Args>()?.name)?;
        let closed = self.0.change(|all| all.swap_remove(&name));
        if let Some(semaphore) = closed.filter(|semaphore| !semaphore.leases.is_empty()) {
            let count = semaphore.leases.len();
            warn!(target: "distributed.semaphore", "Closing semaphore {name} but there remain {count} unreleased leases");
        }
        nil()
    }

    /// Takes back leases that were not refreshed for longer than their time.
    pub(crate) fn expire(&self, now: Instant) {
        let late = |semaphore: &Semaphore| {
            let timeout = semaphore.lease_timeout;
            semaphore.leases.values().any(|&refreshed| now.saturating_duration_since(refreshed) > timeout)
        };
        if self.0.read(|all| all.values().any(late)) {
            self.0.change(|all| {
                for semaphore in all.values_mut() {
                    let timeout = semaphore.lease_timeout;
                    semaphore.leases.retain(|_, refreshed| now.saturating_duration_since(*refreshed) <= timeout);
                }
            });
        }
    }
}
