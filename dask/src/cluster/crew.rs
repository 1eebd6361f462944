//! The scheduler and the workers of one cluster, and changes to their number.

use std::collections::BTreeMap;
use std::time::Duration;

use dask_client::{Client, ClientOptions};
use dask_protocol::comm::ConnectionPool;
use dask_protocol::{Address, Value};
use dask_scheduler::Scheduler;
use futures::future::{join_all, try_join_all};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::member::Member;
use super::{ClusterError, LocalClusterBuilder};

/// How long to wait for new workers to register.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Most workers that start at the same time.
const STARTS_MAX: usize = 16;

pub(super) struct Crew {
    pub scheduler: Scheduler,
    settings: LocalClusterBuilder,
    members: Mutex<Members>,
    pool: ConnectionPool,
    pub closing: CancellationToken,
    pub runtime: Handle,
}

/// The workers by name. Names are not used twice.
#[derive(Default)]
struct Members {
    all: BTreeMap<i64, Member>,
    next: i64,
}

impl Crew {
    pub(super) fn new(scheduler: Scheduler, settings: LocalClusterBuilder) -> Crew {
        Crew {
            scheduler,
            settings,
            members: Mutex::default(),
            pool: ConnectionPool::new(Default::default()),
            closing: CancellationToken::new(),
            runtime: Handle::current(),
        }
    }

    pub(super) async fn len(&self) -> usize {
        self.members.lock().await.all.len()
    }

    pub(super) async fn addresses(&self) -> Vec<Address> {
        self.members.lock().await.all.values().filter_map(Member::address).collect()
    }

    pub(super) async fn ask<A: Serialize, R: DeserializeOwned>(&self, op: &str, args: &A) -> Result<R, ClusterError> {
        Ok(self.pool.call(self.scheduler.address(), op, args).await?)
    }

    /// Adds or removes workers until there are `n`.
    pub(super) async fn scale(&self, n: usize) -> Result<(), ClusterError> {
        let mut members = self.members.lock().await;
        if self.closing.is_cancelled() {
            return Ok(());
        }
        let present = members.all.len();
        if n > present {
            return self.add(&mut members, n - present).await;
        }
        if n < present {
            return self.remove(&mut members, present - n).await;
        }
        Ok(())
    }

    async fn add(&self, members: &mut Members, n: usize) -> Result<(), ClusterError> {
        let mut missing = n;
        while missing > 0 {
            let count = missing.min(STARTS_MAX);
            let first = members.next;
            let names = first..first + i64::try_from(count).expect("at most 16");
            members.next = names.end;
            let scheduler = self.scheduler.address();
            let starting = names.clone().map(|name| Member::start(&self.settings, scheduler, name));
            members.all.extend(names.zip(try_join_all(starting).await?));
            missing -= count;
        }
        let client = Client::connect_with(self.scheduler.address().as_str(), ClientOptions::default()).await?;
        let ready = client.wait_for_workers(members.all.len(), START_DEADLINE).await;
        client.close().await;
        Ok(ready?)
    }

    async fn remove(&self, members: &mut Members, n: usize) -> Result<(), ClusterError> {
        #[derive(Serialize)]
        struct Retire {
            n: usize,
            close_workers: bool,
            remove: bool,
        }
        let retired: Value = self.ask("retire_workers", &Retire { n, close_workers: true, remove: true }).await?;
        let Value::Map(retired) = retired else { return Ok(()) };
        let gone = |member: &Member| {
            let address = member.address();
            // A process that has lost its worker has no address any more.
            address.is_none_or(|address| retired.iter().any(|(it, _)| it.as_str() == Some(address.as_str())))
        };
        let names: Vec<i64> = members.all.iter().filter(|(_, member)| gone(member)).map(|(name, _)| *name).collect();
        let leaving: Vec<Member> = names.iter().filter_map(|name| members.all.remove(name)).collect();
        join_all(leaving.iter().map(Member::close)).await;
        Ok(())
    }

    /// Ends the workers, then the scheduler.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        let members = std::mem::take(&mut self.members.lock().await.all);
        join_all(members.values().map(Member::close)).await;
        self.pool.close();
        self.scheduler.close("local-cluster-close").await;
    }
}
