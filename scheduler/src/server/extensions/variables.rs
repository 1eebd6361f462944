//! `Variable`: one value or future under a name.

use dask_protocol::message::Request;
use dask_protocol::{Key, Value};
use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

use super::super::failure::{Failure, Reply, SchedulerClosed, nil, reply};
use super::super::shared::Server;
use super::table::Table;
use super::{KeyStatus, NAMES_MAX, deadline, desire, key_status, name_key, pseudo_client, unwant, wait_for_key};
use crate::state::Event;

/// How long readers that were told of a future may take to say that they hold it, before it is dropped regardless.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(60);

/// All variables, and who has been told of a future and does not hold it yet.
#[derive(Default)]
pub(crate) struct Variables {
    values: Table<IndexMap<Key, Record>>,
    readers: Table<IndexMap<(Key, Key), IndexSet<String>>>,
}

#[derive(Debug, Clone)]
enum Record {
    Future(Key),
    Plain(Value),
}

/// What `variable_get` answers.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    value: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(flatten)]
    status: Option<KeyStatus>,
}

impl Variables {
    /// `variable_set`.
    pub(super) async fn set(&self, server: &std::sync::Arc<Server>, request: &Request) -> Reply {
        #[derive(Deserialize)]
        struct Args {
            name: Value,
            #[serde(default)]
            key: Option<Key>,
            #[serde(default)]
            data: Value,
            #[serde(default)]
            timeout: Value,
        }
        let Args { name, key, data, timeout } = request.args()?;
        let name = name_key(&name)?;
        if self.values.read(IndexMap::len) >= NAMES_MAX {
            return Err(Failure::runtime(format!("{NAMES_MAX} variables are set already")));
        }
        let record = match key {
            Some(key) => {
                wait_for_key(server, &key, deadline(&timeout)?).await?;
                desire(server, pseudo_client("variable", &name), vec![key.clone()]).await?;
                Record::Future(key)
            }
            None => Record::Plain(data),
        };
        let now = match &record {
            Record::Future(key) => Some(key.clone()),
            Record::Plain(_) => None,
        };
        match self.values.change(|values| values.insert(name.clone(), record)) {
            Some(Record::Future(old)) if Some(&old) != now.as_ref() => self.drop_later(server, name, old),
            Some(Record::Future(_) | Record::Plain(_)) | None => {}
        }
        nil()
    }

    /// Lets a future go once all who were told of it hold it themselves.
    fn drop_later(&self, server: &std::sync::Arc<Server>, name: Key, key: Key) {
        let server = std::sync::Arc::clone(server);
        tokio::spawn(async move {
            let closing = server.closing.clone();
            tokio::select! {
                () = closing.cancelled() => {}
                _ = server.extensions.variables.release(&server, &name, key) => {}
            }
        });
    }

    async fn release(&self, server: &Server, name: &Key, key: Key) -> Result<(), SchedulerClosed> {
        let place = (key, name.clone());
        let deadline = std::time::Instant::now() + CONFIRM_TIMEOUT;
        // A reader that died with its token would keep the future for ever; after the timeout it is dropped regardless.
        let _ = self.readers.wait(Some(deadline), |readers| (!readers.contains_key(&place)).then_some(())).await;
        self.readers.change(|readers| readers.swap_remove(&place));
        let again = self.values.read(|values| matches!(values.get(name), Some(Record::Future(now)) if *now == place.0));
        if again { Ok(()) } else { unwant(server, pseudo_client("variable", name), vec![place.0]).await }
    }

    /// `variable_get`: waits until the variable is set.
    pub(super) async fn get(&self, server: &Server, request: &Request) -> Reply {
        #[derive(Deserialize)]
        struct Args {
            name: Value,
            #[serde(default)]
            timeout: Value,
        }
        let Args { name, timeout } = request.args()?;
        let name = name_key(&name)?;
        let token = Uuid::new_v4().simple().to_string();
        let found = self.values.wait(deadline(&timeout)?, |values| {
            let record = values.get(&name)?.clone();
            if let Record::Future(key) = &record {
                let place = (key.clone(), name.clone());
                self.readers.change(|readers| readers.entry(place).or_default().insert(token.clone()));
            }
            Some(record)
        });
        match found.await {
            None => Err(Failure::timeout("")),
            Some(Record::Plain(value)) => reply(&Answer { kind: "msgpack", value: &value, token: None, status: None }),
            Some(Record::Future(key)) => {
                let value = Value::from(&key);
                let status = Some(key_status(server, key).await?);
                reply(&Answer { kind: "Future", value: &value, token: Some(&token), status })
            }
        }
    }

    /// `variable-future-received-confirm`: the reader holds the future now.
    pub(crate) fn future_received(&self, name: &Value, key: &Key, token: &Value) {
        let (Some(name), Some(token)) = (name.to_key(), token.as_str()) else { return };
        let place = (key.clone(), name);
        self.readers.change(|readers| {
            let Some(tokens) = readers.get_mut(&place) else { return };
            tokens.swap_remove(token);
            if tokens.is_empty() {
                readers.swap_remove(&place);
            }
        });
    }

    /// `variable_delete`.
    pub(crate) async fn delete(&self, server: &std::sync::Arc<Server>, name: &Value) -> Result<(), SchedulerClosed> {
        let Some(name) = name.to_key() else { return Ok(()) };
        match self.values.change(|values| values.shift_remove(&name)) {
            Some(Record::Future(key)) => {
                self.drop_later(server, name.clone(), key);
                Ok(())
            }
            Some(Record::Plain(_)) => {
                server.driver.event(Event::RemoveClient { client: pseudo_client("variable", &name) }).await
            }
            None => Ok(()),
        }
    }
}
