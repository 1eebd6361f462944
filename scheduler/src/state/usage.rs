//! What each client's tasks cost: their seconds on workers, and the bytes that they made.
//!
//! A task is charged to the client whose graph brought it in, however many want it later; what a running task submits is
//! charged to whoever is charged for that task.

use dask_protocol::message::StartStop;

use super::client::Clients;
use super::event::{ClientId, Seconds};
use super::group::clamp;
use super::ids::{ClientSlot, FastMap};

/// Clients told apart, at most 300 KB of them. Of more, those that left are added up as one.
const CLIENTS_MAX: usize = 1_000;
/// Bytes of a client's name that are kept.
const NAME_BYTES_MAX: usize = 200;

/// What the tasks of one client cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Runs of tasks that made a result.
    pub finished: u64,
    /// Runs that raised.
    pub erred: u64,
    /// Seconds that threads of workers computed.
    pub compute: Seconds,
    /// Seconds of transfers between workers.
    pub transfer: Seconds,
    /// Seconds of anything else, such as reading what had been written to disk.
    pub other: Seconds,
    /// Bytes of results.
    pub nbytes: u64,
}

impl Usage {
    /// Takes in one run of a task: the parts of its life, and the bytes of its result; `None` if it raised.
    fn add_run(&mut self, parts: &[StartStop], nbytes: Option<u64>) {
        for part in parts {
            let seconds = clamp(part.stop - part.start);
            match part.action.as_str() {
                "compute" => self.compute += seconds,
                "transfer" => self.transfer += seconds,
                _ => self.other += seconds,
            }
        }
        match nbytes {
            Some(nbytes) => {
                self.finished += 1;
                self.nbytes = self.nbytes.saturating_add(nbytes);
            }
            None => self.erred += 1,
        }
    }

    fn add(&mut self, more: &Usage) {
        self.finished += more.finished;
        self.erred += more.erred;
        self.compute += more.compute;
        self.transfer += more.transfer;
        self.other += more.other;
        self.nbytes = self.nbytes.saturating_add(more.nbytes);
    }
}

/// The usage of all clients.
#[derive(Debug, Default)]
pub(super) struct Usages {
    clients: FastMap<ClientSlot, (ClientId, Usage)>,
    /// Clients that are no longer told apart.
    others: Usage,
}

impl Usages {
    /// Charges a client with one run of a task; see [`Usage::add_run`].
    pub(super) fn charge(&mut self, slot: ClientSlot, clients: &Clients, parts: &[StartStop], nbytes: Option<u64>) {
        match self.clients.get_mut(&slot) {
            Some((_, usage)) => usage.add_run(parts, nbytes),
            None => self.charge_new(slot, clients, parts, nbytes),
        }
    }

    fn charge_new(&mut self, slot: ClientSlot, clients: &Clients, parts: &[StartStop], nbytes: Option<u64>) {
        let Some(client) = clients.get(slot) else { return self.others.add_run(parts, nbytes) };
        if self.clients.len() >= CLIENTS_MAX {
            let left = self.clients.keys().position(|slot| clients.get(*slot).is_none());
            if let Some((_, (_, usage))) = self.clients.shift_remove_index(left.unwrap_or_default()) {
                self.others.add(&usage);
            }
        }
        let mut usage = Usage::default();
        usage.add_run(parts, nbytes);
        let name = client.id.char_indices().take_while(|(at, c)| at + c.len_utf8() <= NAME_BYTES_MAX).map(|(_, c)| c);
        let name: String = name.collect();
        self.clients.insert(slot, (name.into(), usage));
    }

    /// Clients in the order in which their first task ended.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ClientId, &Usage)> {
        self.clients.values().map(|(client, usage)| (client, usage))
    }

    /// All clients that are not told apart.
    pub(super) fn others(&self) -> &Usage {
        &self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_beyond_the_most_are_added_up() {
        let (mut clients, mut usages) = (Clients::default(), Usages::default());
        let mut slots = Vec::new();
        for n in 0..CLIENTS_MAX + 2 {
            slots.push(clients.get_or_insert(&format!("Client-{n}").into()));
            if n == CLIENTS_MAX - 1 {
                clients.remove(slots[7]);
            }
            usages.charge(slots[n], &clients, &[], Some(1));
        }
        assert_eq!(usages.iter().count(), CLIENTS_MAX);
        let told_apart = |name: &str| usages.iter().any(|(client, _)| &**client == name);
        assert!(!told_apart("Client-7"), "who left goes first");
        assert!(!told_apart("Client-0") && told_apart("Client-1"), "then the oldest");
        assert_eq!((usages.others().finished, usages.others().nbytes), (2, 2));
        usages.charge(slots[7], &clients, &[], None);
        assert_eq!(usages.others().erred, 1, "of who left and is not told apart any more");
    }

    #[test]
    fn odd_times_are_charged_as_nothing() {
        let mut usage = Usage::default();
        let part = |start, stop| StartStop { action: "compute".into(), start, stop, source: None };
        usage.add_run(&[part(2.0, 1.0), part(0.0, f64::NAN), part(1.0, 1.5)], Some(u64::MAX));
        usage.add_run(&[], Some(1));
        assert_eq!((usage.compute, usage.nbytes), (0.5, u64::MAX));
    }
}
