//! Published datasets: futures and a description under a name that outlive their client.

use dask_protocol::message::{Keys, Request};
use dask_protocol::{Key, Value};
use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

use super::super::failure::{Failure, Reply, nil, reply};
use super::super::shared::Server;
use super::table::Table;
use super::{NAMES_MAX, desire, pseudo_client, unwant};

/// How long to wait for a client's stream to catch up before looking whether the client still lives.
const FLUSH_PATIENCE: Duration = Duration::from_secs(30);
/// Most flushes that nobody has asked about yet.
const FLUSHES_MAX: usize = 100_000;

/// All datasets, and the flush marks that arrived on client streams.
#[derive(Default)]
pub(crate) struct Published {
    datasets: Table<IndexMap<Key, Dataset>>,
    flushes: Table<IndexSet<Key>>,
}

#[derive(Debug, Clone, Serialize)]
struct Dataset {
    data: Value,
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Delete {
    names: Vec<Value>,
    #[serde(default)]
    client: String,
    uid: Value,
}

impl Published {
    /// Everything a client had sent on its stream before this publish has been handled.
    pub(crate) fn flushed(&self, uid: &Value) {
        let Some(uid) = uid.to_key() else { return };
        self.flushes.change(|seen| {
            if seen.len() >= FLUSHES_MAX {
                seen.shift_remove_index(0);
            }
            seen.insert(uid);
        });
    }

    /// `Client.restart` forgets the futures inside; the datasets stay, as upstream's do.
    pub(super) fn clear(&self) {
        self.flushes.change(IndexSet::clear);
    }

    async fn wait_for_flush(&self, server: &Server, client: &str, uid: &Value) -> Result<(), Failure> {
        let uid = super::name_key(uid)?;
        loop {
            let deadline = Instant::now() + FLUSH_PATIENCE;
            if self.flushes.wait(Some(deadline), |seen| seen.swap_remove(&uid).then_some(())).await.is_some() {
                return Ok(());
            }
            let id = client.to_owned();
            if !server.driver.run(move |core| core.clients.contains_key(id.as_str())).await? {
                return Err(Failure::timeout(format!("client {client} left before its publish was complete")));
            }
        }
    }

    /// `publish_put`.
    pub(super) async fn put(&self, server: &Server, request: &Request) -> Reply {
        #[derive(Deserialize)]
        struct Args {
            names: Vec<Value>,
            keys: Vec<Keys>,
            data: Vec<Value>,
            #[serde(default, rename = "override")]
            replace: bool,
            #[serde(default)]
            client: String,
            uid: Value,
        }
        let Args { names, keys, data, replace, client, uid } = request.args()?;
        if names.len() != keys.len() || names.len() != data.len() {
            return Err(Failure::value("names, keys and data differ in number"));
        }
        self.wait_for_flush(server, &client, &uid).await?;
        for ((name, keys), data) in names.iter().zip(keys).zip(data) {
            let name = super::name_key(name)?;
            let owner = pseudo_client("published", &name);
            let known = self.datasets.read(|all| all.get(&name).map(|old| old.keys.clone()));
            match known {
                Some(_) if !replace => return Err(Failure::key(format!("Dataset {name} already exists"))),
                Some(old) => unwant(server, owner.clone(), old).await?,
                None if self.datasets.read(IndexMap::len) >= NAMES_MAX => {
                    return Err(Failure::runtime(format!("{NAMES_MAX} datasets are published already")));
                }
                None => {}
            }
            desire(server, owner, keys.0.clone()).await?;
            self.datasets.change(|all| all.insert(name, Dataset { data, keys: keys.0 }));
        }
        nil()
    }

    /// `publish_get`.
    pub(super) fn get(&self, request: &Request) -> Reply {
        #[derive(Deserialize)]
        struct Args {
            names: Vec<Value>,
        }
        let names = request.args::<Args>()?.names;
        let find = |name: &Value| name.to_key().and_then(|key| self.datasets.read(|all| all.get(&key).cloned()));
        reply(&names.iter().map(find).collect::<Vec<_>>())
    }

    /// `publish_list`.
    pub(super) fn list(&self) -> Reply {
        let mut names: Vec<Key> = self.datasets.read(|all| all.keys().cloned().collect());
        names.sort_by_key(ToString::to_string);
        reply(&names)
    }

    /// `publish_delete`.
    pub(super) async fn delete(&self, server: &Server, request: &Request) -> Reply {
        let Delete { names, client, uid } = request.args()?;
        self.wait_for_flush(server, &client, &uid).await?;
        for name in &names {
            let name = super::name_key(name)?;
            if let Some(dataset) = self.datasets.change(|all| all.shift_remove(&name)) {
                unwant(server, pseudo_client("published", &name), dataset.keys).await?;
            }
        }
        nil()
    }
}
