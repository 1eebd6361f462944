//! What the scheduler knows of one worker, and where workers are kept.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use dask_protocol::message::WorkerStatus;
use dask_protocol::{Address, Value};
use smallvec::SmallVec;

use super::config::MemoryMeasure;
use super::deaths::SAMPLES_MAX;
use super::event::{NewWorker, Runtime, Seconds, WorkerHeartbeat};
use super::ids::{FastMap, FastSet, IdMap, IdSet, PrefixId, TaskId, WorkerId};

/// A worker's memory by origin, in bytes (`MemoryState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryState {
    /// Resident memory of the process.
    pub process: u64,
    /// Results in memory.
    pub managed: u64,
    /// Results on disk.
    pub spilled: u64,
    /// What the process uses beside results.
    pub unmanaged: u64,
    /// ... and has used for longer than `recent-to-old-time`.
    pub unmanaged_old: u64,
}

impl MemoryState {
    /// Managed memory plus unmanaged memory that is there to stay.
    pub fn optimistic(&self) -> u64 {
        self.managed + self.unmanaged_old
    }

    /// One of the figures.
    pub fn measure(&self, measure: MemoryMeasure) -> u64 {
        match measure {
            MemoryMeasure::Process => self.process,
            MemoryMeasure::Optimistic => self.optimistic(),
            MemoryMeasure::Managed => self.managed,
        }
    }
}

/// A missing dependency that tasks on a worker will fetch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// How many tasks processing there need it.
    pub(super) count: u32,
    /// What it counts for in the worker's `network_occupancy`.
    pub(super) nbytes: u64,
    /// The worker whose `outgoing` it counts in; it may have left since.
    pub(super) sender: Option<WorkerId>,
}

/// One worker. Fields that dask has are named as there.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) address: Address,
    pub(super) name: Value,
    pub(super) status: WorkerStatus,
    pub(super) nthreads: u32,
    pub(super) memory_limit: u64,
    pub(super) nanny: Option<Address>,
    /// Whether it can run tasks of each [`Runtime`], by its number.
    pub(super) runtimes: [bool; Runtime::COUNT],
    pub(super) resources: FastMap<String, f64>,
    pub(super) used_resources: FastMap<String, f64>,
    pub(super) processing: IdSet<TaskId>,
    pub(super) long_running: FastSet<TaskId>,
    pub(super) has_what: FastSet<TaskId>,
    pub(super) actors: FastSet<TaskId>,
    pub(super) needs_what: IdMap<TaskId, Need>,
    /// Tasks processing per prefix, without long-running ones.
    pub(super) prefix_count: SmallVec<[(PrefixId, u32); 4]>,
    /// Bytes of results held. Wide, so that no peer's figures can overflow it.
    pub(super) nbytes: u128,
    /// Bytes of results that tasks here must fetch first.
    pub(super) network_occupancy: u128,
    /// Bytes of results that tasks elsewhere are expected to fetch from here.
    pub(super) outgoing: u128,
    /// Grows in order of address. It changes when [`Workers::insert`] says so.
    pub(super) rank: u64,
    /// Whether it is among the running workers.
    pub(super) runs: bool,
    /// Whether it is among the idle workers: the list itself is only searched when this changes.
    pub(super) is_idle: bool,
    /// Whether it is among the saturated workers.
    pub(super) is_saturated: bool,
    /// Its ratio in the index of workers with free slots, if it is there.
    pub(super) slot_ratio: Option<u64>,
    /// Scratch of placement: the round in which `held` was last used.
    pub(super) mark: u64,
    /// Scratch of placement: bytes of a task's dependencies that are here already.
    pub(super) held: u128,
    /// The event, and the position among its actions, of the `free-keys` that may take more keys: set while nothing
    /// else was sent to the worker since.
    pub(super) freeing: Option<(u64, usize)>,
    pub(super) last_seen: Seconds,
    pub(super) memory: u64,
    pub(super) spilled_memory: u64,
    pub(super) spilled_disk: u64,
    pub(super) unmanaged_old: u64,
    unmanaged_history: VecDeque<(Seconds, u64)>,
    /// The memory figures of its latest heartbeats.
    pub(super) memory_curve: VecDeque<(Seconds, u64)>,
}

impl Worker {
    pub(super) fn new(new: NewWorker, now: Seconds) -> Worker {
        let mut runtimes = [false; Runtime::COUNT];
        for runtime in &new.runtimes {
            runtimes[runtime.number()] = true;
        }
        Worker {
            address: new.address,
            name: new.name,
            status: new.status,
            nthreads: new.nthreads.max(1),
            memory_limit: new.memory_limit,
            nanny: new.nanny,
            runtimes,
            resources: new.resources.into_iter().collect(),
            used_resources: FastMap::default(),
            processing: IdSet::default(),
            long_running: FastSet::default(),
            has_what: FastSet::default(),
            actors: FastSet::default(),
            needs_what: IdMap::default(),
            prefix_count: SmallVec::new(),
            nbytes: 0,
            network_occupancy: 0,
            outgoing: 0,
            rank: 0,
            runs: false,
            is_idle: false,
            is_saturated: false,
            slot_ratio: None,
            mark: 0,
            held: 0,
            freeing: None,
            last_seen: now,
            memory: 0,
            spilled_memory: 0,
            spilled_disk: 0,
            unmanaged_old: 0,
            unmanaged_history: VecDeque::new(),
            memory_curve: VecDeque::new(),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.status == WorkerStatus::Running
    }

    /// Tasks that may still be sent before it counts as full, root-ish ones that is.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float to int casts saturate")]
    pub(super) fn task_slots(&self, saturation: f64) -> usize {
        let limit = (saturation * f64::from(self.nthreads)).ceil().max(1.0) as usize;
        limit.saturating_sub(self.processing.len() - self.long_running.len())
    }

    /// Takes the memory figures of a heartbeat; `recent` is `recent-to-old-time`.
    pub(super) fn observe_memory(&mut self, heartbeat: &WorkerHeartbeat, now: Seconds, recent: Seconds) {
        self.last_seen = now;
        self.memory = heartbeat.memory;
        if self.memory_curve.len() >= SAMPLES_MAX {
            self.memory_curve.pop_front();
        }
        self.memory_curve.push_back((now, heartbeat.memory));
        self.spilled_memory = heartbeat.spilled_memory;
        self.spilled_disk = heartbeat.spilled_disk;
        let held = u64::try_from(self.nbytes).unwrap_or(u64::MAX);
        let unmanaged = heartbeat.memory.saturating_add(heartbeat.spilled_memory).saturating_sub(held);
        while self.unmanaged_history.front().is_some_and(|(time, _)| *time < now - recent) {
            self.unmanaged_history.pop_front();
        }
        // A minimum over the window: what is not smaller than a newer figure can never be the minimum again.
        while self.unmanaged_history.back().is_some_and(|(_, bytes)| *bytes >= unmanaged) {
            self.unmanaged_history.pop_back();
        }
        self.unmanaged_history.push_back((now, unmanaged));
        self.unmanaged_old = self.unmanaged_history.front().map_or(0, |(_, bytes)| *bytes);
    }

    pub(super) fn memory_state(&self) -> MemoryState {
        let held = u64::try_from(self.nbytes).unwrap_or(u64::MAX);
        let process = self.memory;
        let managed = held.saturating_sub(self.spilled_memory).min(process);
        let unmanaged = process - managed;
        let unmanaged_old = self.unmanaged_old.min(unmanaged);
        MemoryState { process, managed, spilled: self.spilled_disk, unmanaged, unmanaged_old }
    }
}

/// All workers, by number and by address.
#[derive(Debug, Default)]
pub(super) struct Workers {
    slots: Vec<Option<Box<Worker>>>,
    numbers: FastMap<Address, WorkerId>,
    /// By name as text; upstream tells the name `3` from `"3"`, but restrictions come as text.
    names: FastMap<String, WorkerId>,
    /// In order of address.
    ranked: Vec<WorkerId>,
}

/// How far apart ranks are given out at first, so that there is room between them.
const RANK_STEP: u64 = 1 << 32;

/// A worker's name as text.
pub(super) fn name_text(name: &Value) -> String {
    match name {
        Value::Str(text) => text.clone(),
        other => other.to_key().map_or_else(String::new, |key| key.to_string()),
    }
}

impl Workers {
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The number of a registered worker.
    pub(super) fn id(&self, address: &Address) -> Option<WorkerId> {
        self.numbers.get(address).copied()
    }

    /// The number of the registered worker with this name.
    pub(super) fn by_name(&self, name: &str) -> Option<WorkerId> {
        self.names.get(name).copied()
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.slots.get(id.index())?.as_deref()
    }

    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.slots.get_mut(id.index())?.as_deref_mut()
    }

    /// Registered workers in order of registration.
    pub(super) fn ids(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.numbers.values().copied()
    }

    /// Registered workers in order of registration.
    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.ids().map(|id| (id, &self[id]))
    }

    /// The number of a new worker, and whether others have a new rank because of it.
    pub(super) fn insert(&mut self, worker: Worker) -> (WorkerId, bool) {
        let id = WorkerId::from_index(self.slots.len());
        self.numbers.insert(worker.address.clone(), id);
        self.names.entry(name_text(&worker.name)).or_insert(id);
        self.slots.push(Some(Box::new(worker)));
        let place = self.ranked.partition_point(|other| self[*other].address < self[id].address);
        self.ranked.insert(place, id);
        let before = place.checked_sub(1).map(|before| self[self.ranked[before]].rank);
        let after = self.ranked.get(place + 1).map(|after| self[*after].rank);
        let between = match (before, after) {
            (None, None) => Some(u64::MAX / 2),
            (None, Some(after)) => after.checked_sub(RANK_STEP),
            (Some(before), None) => before.checked_add(RANK_STEP),
            (Some(before), Some(after)) => Some(before.midpoint(after)).filter(|between| *between > before),
        };
        if let Some(rank) = between {
            self[id].rank = rank;
            return (id, false);
        }
        // Anew, with as much room at both ends.
        let mut rank = u64::MAX / 2 - self.ranked.len() as u64 / 2 * RANK_STEP;
        for place in 0..self.ranked.len() {
            let ranked = self.ranked[place];
            self[ranked].rank = rank;
            rank += RANK_STEP;
        }
        (id, true)
    }

    /// Takes a worker off the list; what it held and processed stays readable until [`Workers::drop_unregistered`].
    pub(super) fn unregister(&mut self, id: WorkerId) {
        let address = self[id].address.clone();
        self.numbers.shift_remove(&address);
        let name = name_text(&self[id].name);
        if self.names.get(&name) == Some(&id) {
            self.names.swap_remove(&name);
        }
        self.ranked.retain(|other| *other != id);
    }

    /// Whether it is on the list.
    pub(super) fn is_registered(&self, id: WorkerId) -> bool {
        self.get(id).is_some_and(|worker| worker.status != WorkerStatus::Closed)
    }

    /// Ends a worker that has left.
    pub(super) fn drop_unregistered(&mut self, id: WorkerId) {
        self.slots[id.index()] = None;
    }
}

impl Index<WorkerId> for Workers {
    type Output = Worker;
    fn index(&self, id: WorkerId) -> &Worker {
        self.slots[id.index()].as_deref().expect("a worker is kept while tasks refer to it")
    }
}

impl IndexMut<WorkerId> for Workers {
    fn index_mut(&mut self, id: WorkerId) -> &mut Worker {
        self.slots[id.index()].as_deref_mut().expect("a worker is kept while tasks refer to it")
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::worker;
    use super::*;

    /// Registers workers of these numbers and checks their ranks after each; how often all had to be ranked anew.
    fn ranked_anew(numbers: impl Iterator<Item = usize>) -> usize {
        let mut workers = Workers::default();
        let mut anew = 0;
        for number in numbers {
            anew += usize::from(workers.insert(Worker::new(worker(number, 1), 0.0)).1);
            let mut by_rank: Vec<WorkerId> = workers.ids().collect();
            by_rank.sort_by_key(|id| workers[*id].rank);
            let addresses: Vec<&Address> = by_rank.iter().map(|id| &workers[*id].address).collect();
            assert!(addresses.is_sorted_by(|a, b| a < b), "{addresses:?}");
            let ranks: Vec<u64> = by_rank.iter().map(|id| workers[*id].rank).collect();
            assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
        }
        anew
    }

    #[test]
    fn ranks_follow_the_order_of_addresses_whoever_comes_next() {
        assert_eq!(ranked_anew(10_000..10_200), 0);
        assert_eq!(ranked_anew((10_000..10_200).rev()), 0);
        assert_eq!(ranked_anew((0..200).map(|i| 10_000 + i * 7919 % 20_011)), 0);
        // Always between the last two: the room there halves each time.
        let narrowing = (0..200).map(|i| if i % 2 == 0 { 10_000 + i } else { 20_000 - i });
        assert!((1..=20).contains(&ranked_anew(narrowing)));
    }

    #[test]
    fn who_left_is_in_no_order() {
        let mut workers = Workers::default();
        let [first, second] = [1, 2].map(|n| workers.insert(Worker::new(worker(n, 1), 0.0)).0);
        workers.unregister(first);
        assert_eq!(workers.ranked, [second]);
    }
}
