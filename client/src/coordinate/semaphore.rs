//! `Semaphore` and `Lock`: leases, which the scheduler takes back from clients that are gone.

use std::sync::Arc;
use std::time::Duration;

use dask_protocol::{Key, Value};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::{CoordinateError, Named, seconds};

/// How often a held lease is refreshed; upstream's clients do it five times in their lease time of 30 s.
const REFRESH_INTERVAL: Duration = Duration::from_secs(6);

/// A number of leases that all clients of a cluster share.
///
/// ```no_run
/// # async fn example(client: dask_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let database = client.semaphore("database", 4).await?;
/// if let Some(lease) = database.acquire(None).await? {
///     // at most four of all the cluster's programs are here at a time
///     lease.release().await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Semaphore(Arc<Named>);

/// One lease, given back when it is dropped.
#[derive(Debug)]
pub struct Lease {
    semaphore: Arc<Named>,
    id: Key,
    refreshing: JoinHandle<()>,
    released: bool,
}

#[derive(Serialize)]
struct Args<'a> {
    name: &'a Key,
    lease_id: &'a Key,
    timeout: Option<f64>,
}

impl Semaphore {
    pub(super) async fn register(named: Named, leases_max: usize) -> Result<Semaphore, CoordinateError> {
        #[derive(Serialize)]
        struct Register<'a> {
            name: &'a Key,
            max_leases: usize,
        }
        let register = Register { name: &named.name, max_leases: leases_max };
        let _nil: Value = named.call("semaphore_register", &register).await?;
        Ok(Semaphore(Arc::new(named)))
    }

    /// Its name.
    pub fn name(&self) -> &Key {
        &self.0.name
    }

    /// Waits for a lease; `None` when the time is over first.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn acquire(&self, timeout: Option<Duration>) -> Result<Option<Lease>, CoordinateError> {
        let named = &self.0;
        let id = Key::from(named.client.session().unique());
        let granted: bool = named
            .call("semaphore_acquire", &Args { name: &named.name, lease_id: &id, timeout: seconds(timeout) })
            .await?;
        if !granted {
            return Ok(None);
        }
        let refreshing = tokio::spawn(refresh(Arc::clone(named), id.clone()));
        Ok(Some(Lease { semaphore: Arc::clone(named), id, refreshing, released: false }))
    }

    /// How many leases are held, by whomever.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be asked.
    pub async fn held(&self) -> Result<usize, CoordinateError> {
        #[derive(Serialize)]
        struct Value<'a> {
            name: &'a Key,
        }
        self.0.call("semaphore_value", &Value { name: &self.0.name }).await
    }
}

impl Lease {
    /// Gives it back, and waits until the scheduler knows.
    ///
    /// # Errors
    /// [`CoordinateError::Comm`] when the scheduler cannot be told; it takes the lease back after 30 s then.
    pub async fn release(mut self) -> Result<(), CoordinateError> {
        self.released = true;
        release(Arc::clone(&self.semaphore), self.id.clone()).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.refreshing.abort();
        if !self.released {
            let released = release(Arc::clone(&self.semaphore), self.id.clone());
            self.semaphore.client.session().runtime().spawn(async move {
                if let Err(error) = released.await {
                    tracing::debug!(target: "distributed.semaphore", %error, "a lease runs out by itself");
                }
            });
        }
    }
}

async fn release(semaphore: Arc<Named>, id: Key) -> Result<(), CoordinateError> {
    let args = Args { name: &semaphore.name, lease_id: &id, timeout: None };
    semaphore.call::<_, Value>("semaphore_release", &args).await.map(drop)
}

async fn refresh(semaphore: Arc<Named>, id: Key) {
    #[derive(Serialize)]
    struct Refresh<'a> {
        name: &'a Key,
        lease_ids: [&'a Key; 1],
    }
    loop {
        tokio::time::sleep(REFRESH_INTERVAL).await;
        let refresh = Refresh { name: &semaphore.name, lease_ids: [&id] };
        if let Err(error) = semaphore.call::<_, Value>("semaphore_refresh_leases", &refresh).await {
            tracing::debug!(target: "distributed.semaphore", %error, "a lease could not be refreshed");
        }
    }
}
