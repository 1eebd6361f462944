//! `Event`: a flag that many wait for.

use dask_protocol::message::Request;
use dask_protocol::{Key, Value};
use indexmap::IndexSet;
use serde::Deserialize;

use super::super::failure::{Failure, Reply, nil, reply};
use super::table::Table;
use super::{NAMES_MAX, deadline, name_key};

/// The events that are set; all others are not.
#[derive(Default)]
pub(super) struct Events(Table<IndexSet<Key>>);

#[derive(Deserialize)]
struct Args {
    #[serde(default)]
    name: Value,
    #[serde(default)]
    timeout: Value,
}

impl Events {
    /// `event_wait`: whether it was set in time.
    pub(super) async fn wait(&self, request: &Request) -> Reply {
        let Args { name, timeout } = request.args()?;
        let name = name_key(&name)?;
        let seen = self.0.wait(deadline(&timeout)?, |set| set.contains(&name).then_some(()));
        reply(&seen.await.is_some())
    }

    /// `event_set`.
    pub(super) fn set(&self, request: &Request) -> Reply {
        let name = name_key(&request.args::<Args>()?.name)?;
        if self.0.read(|set| set.len()) >= NAMES_MAX {
            return Err(Failure::runtime(format!("{NAMES_MAX} events are set already")));
        }
        self.0.change(|set| set.insert(name));
        nil()
    }

    /// `event_clear`.
    pub(super) fn clear(&self, request: &Request) -> Reply {
        let name = name_key(&request.args::<Args>()?.name)?;
        self.0.change(|set| set.swap_remove(&name));
        nil()
    }

    /// `event_is_set`.
    pub(super) fn is_set(&self, request: &Request) -> Reply {
        let name = name_key(&request.args::<Args>()?.name)?;
        reply(&self.0.read(|set| set.contains(&name)))
    }
}
