//! `Queue`: values and futures handed from many clients to many.

use std::collections::VecDeque;
use std::time::Instant;

use dask_protocol::message::Request;
use dask_protocol::{Key, Value};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::super::failure::{Failure, Reply, SchedulerClosed, nil, reply};
use super::super::shared::Server;
use super::table::{Step, Table};
use super::{KeyStatus, NAMES_MAX, deadline, desire, key_status, name_key, pseudo_client, unwant, wait_for_key};

/// Most entries of one queue that has no size of its own.
const ENTRIES_MAX: usize = 10_000_000;

/// All queues by name.
#[derive(Default)]
pub(crate) struct Queues(Table<IndexMap<Key, Queue>>);

#[derive(Default)]
struct Queue {
    entries: VecDeque<Record>,
    entries_max: usize,
    /// Client objects that use it; the last one to leave deletes it.
    users: usize,
    /// How often each future is in the queue, or popped and not yet held by the one who popped it.
    futures: IndexMap<Key, usize>,
}

enum Record {
    Future(Key),
    Plain(Value),
}

/// One entry as `queue_get` answers it.
#[derive(Serialize)]
struct Answer {
    #[serde(rename = "type")]
    kind: &'static str,
    value: Value,
    #[serde(flatten)]
    status: Option<KeyStatus>,
}

#[derive(Deserialize)]
struct Named {
    name: Value,
}

fn unknown(name: &Key) -> Failure {
    Failure::key(name.to_string())
}

impl Queues {
    /// `queue_create`: one more user; the queue is made for the first.
    pub(super) fn create(&self, request: &Request) -> Reply {
        #[derive(Deserialize)]
        struct Args {
            name: Value,
            #[serde(default)]
            maxsize: usize,
        }
        let Args { name, maxsize } = request.args()?;
        let name = name_key(&name)?;
        let entries_max = if maxsize == 0 { ENTRIES_MAX } else { maxsize.min(ENTRIES_MAX) };
        self.0.change(|all| {
            if all.len() >= NAMES_MAX && !all.contains_key(&name) {
                return Err(Failure::runtime(format!("{NAMES_MAX} queues exist already")));
            }
            all.entry(name).or_insert_with(|| Queue { entries_max, ..Queue::default() }).users += 1;
            Ok(())
        })?;
        nil()
    }

    /// `queue_release`: one user less; the last one takes the queue and its futures along.
    pub(crate) async fn release(&self, server: &Server, name: &Value) -> Result<(), SchedulerClosed> {
        let Some(name) = name.to_key() else { return Ok(()) };
        let deleted = self.0.change(|all| {
            let queue = all.get_mut(&name)?;
            queue.users = queue.users.saturating_sub(1);
            if queue.users == 0 { all.shift_remove(&name) } else { None }
        });
        let Some(queue) = deleted else { return Ok(()) };
        let keys = queue.futures.into_keys().collect();
        unwant(server, pseudo_client("queue", &name), keys).await
    }

    /// `queue_put`: waits while the queue is full.
    pub(super) async fn put(&self, server: &Server, request: &Request) -> Reply {
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
        let deadline = deadline(&timeout)?;
        let mut record = Some(match &key {
            Some(key) => {
                wait_for_key(server, key, deadline).await?;
                desire(server, pseudo_client("queue", &name), vec![key.clone()]).await?;
                Record::Future(key.clone())
            }
            None => Record::Plain(data),
        });
        let put = self.0.wait(deadline, |all| {
            let Some(queue) = all.get_mut(&name) else { return Some(Err(unknown(&name))) };
            if queue.entries.len() >= queue.entries_max {
                return None;
            }
            if let Some(key) = &key {
                *queue.futures.entry(key.clone()).or_default() += 1;
            }
            queue.entries.extend(record.take());
            Some(Ok(()))
        });
        match put.await {
            Some(Ok(())) => nil(),
            Some(Err(failure)) => Err(failure),
            None => {
                self.drop_if_unused(server, &name, key).await?;
                Err(Failure::timeout(""))
            }
        }
    }

    async fn drop_if_unused(&self, server: &Server, name: &Key, key: Option<Key>) -> Result<(), SchedulerClosed> {
        let Some(key) = key else { return Ok(()) };
        let used = self.0.read(|all| all.get(name).is_some_and(|queue| queue.futures.contains_key(&key)));
        if used { Ok(()) } else { unwant(server, pseudo_client("queue", name), vec![key]).await }
    }

    /// `queue_get`: one entry, or with `batch` all there are, or exactly that many.
    pub(super) async fn get(&self, server: &Server, request: &Request) -> Reply {
        #[derive(Deserialize)]
        struct Args {
            name: Value,
            #[serde(default)]
            timeout: Value,
            #[serde(default)]
            batch: Value,
        }
        let Args { name, timeout, batch } = request.args()?;
        let name = name_key(&name)?;
        let (count, one) = match batch {
            Value::Bool(true) => (None, false),
            Value::Int(n) => (Some(usize::try_from(n).map_err(|_| Failure::value("batch is negative"))?), false),
            _ => (Some(1), true),
        };
        if count.is_some() && !one && !timeout.is_nil() {
            let text = "Dask queues don't support simultaneous use of integer batch sizes and timeouts";
            return Err(Failure::unsupported(text));
        }
        let taken = self.take(&name, count, deadline(&timeout)?).await?;
        let mut answers = Vec::new();
        for record in taken {
            answers.push(match record {
                Record::Plain(value) => Answer { kind: "msgpack", value, status: None },
                Record::Future(key) => {
                    let value = Value::from(&key);
                    Answer { kind: "Future", value, status: Some(key_status(server, key).await?) }
                }
            });
        }
        match answers.as_slice() {
            [only] if one => reply(only),
            all => reply(all),
        }
    }

    /// That many entries, or all there are. They are taken as they come: a batch may be larger than the queue, and whoever
    /// fills it waits for room.
    async fn take(&self, name: &Key, count: Option<usize>, deadline: Option<Instant>) -> Result<Vec<Record>, Failure> {
        let mut taken = Vec::new();
        let enough = self.0.wait_in_steps(deadline, |all| {
            let Some(queue) = all.get_mut(name) else { return Step::Done(Err(unknown(name))) };
            let wanted = count.map_or(queue.entries.len(), |count| count - taken.len());
            let available = wanted.min(queue.entries.len());
            taken.extend(queue.entries.drain(..available));
            match (wanted == available, available) {
                (true, _) => Step::Done(Ok(())),
                (false, 0) => Step::Wait,
                (false, _) => Step::Changed,
            }
        });
        enough.await.unwrap_or_else(|| Err(Failure::timeout("")))?;
        Ok(taken)
    }

    /// `queue-future-release`: who popped the future holds it now.
    pub(crate) async fn future_release(&self, server: &Server, name: &Value, key: Key) -> Result<(), SchedulerClosed> {
        let Some(name) = name.to_key() else { return Ok(()) };
        let last = self.0.change(|all| {
            let futures = &mut all.get_mut(&name)?.futures;
            let count = futures.get_mut(&key)?;
            *count -= 1;
            (*count == 0).then(|| futures.swap_remove(&key))
        });
        if last.is_none() {
            return Ok(());
        }
        unwant(server, pseudo_client("queue", &name), vec![key]).await
    }

    /// `queue_qsize`.
    pub(super) fn size(&self, request: &Request) -> Reply {
        let name = name_key(&request.args::<Named>()?.name)?;
        let size = self.0.read(|all| all.get(&name).map(|queue| queue.entries.len()));
        reply(&size.ok_or_else(|| unknown(&name))?)
    }
}
