//! Clients, real ones and pseudo clients such as `fire-and-forget`.

use super::event::ClientId;
use super::ids::{ClientSlot, FastMap, FastSet, TaskId};

/// The pseudo client whose interest ends as soon as a key is in memory or erred.
pub const FIRE_AND_FORGET: &str = "fire-and-forget";

/// One client.
#[derive(Debug)]
pub(super) struct ClientState {
    pub(super) id: ClientId,
    /// Whether it has a stream; pseudo clients have none.
    pub(super) connected: bool,
    pub(super) wants_what: FastSet<TaskId>,
}

/// All clients, by number and by id.
#[derive(Debug, Default)]
pub(super) struct Clients {
    slots: Vec<Option<Box<ClientState>>>,
    numbers: FastMap<ClientId, ClientSlot>,
}

impl Clients {
    pub(super) fn slot(&self, id: &str) -> Option<ClientSlot> {
        self.numbers.get(id).copied()
    }

    pub(super) fn get(&self, slot: ClientSlot) -> Option<&ClientState> {
        self.slots.get(slot.index())?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: ClientSlot) -> Option<&mut ClientState> {
        self.slots.get_mut(slot.index())?.as_deref_mut()
    }

    pub(super) fn get_or_insert(&mut self, id: &ClientId) -> ClientSlot {
        if let Some(slot) = self.slot(id) {
            return slot;
        }
        let slot = ClientSlot::from_index(self.slots.len());
        let client = ClientState { id: id.clone(), connected: false, wants_what: FastSet::default() };
        self.slots.push(Some(Box::new(client)));
        self.numbers.insert(id.clone(), slot);
        slot
    }

    pub(super) fn remove(&mut self, slot: ClientSlot) {
        if let Some(client) = self.slots.get_mut(slot.index()).and_then(Option::take) {
            self.numbers.shift_remove(&client.id);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClientSlot, &ClientState)> {
        self.numbers.values().filter_map(|&slot| Some((slot, self.get(slot)?)))
    }
}
