//! P2P shuffles as the scheduler sees them: which worker gets which output partition, and what ends a run.
//!
//! The data plane is in the workers' plugins. A run begins when the first transfer task asks for it, and ends when its
//! barrier is released, erred or forgotten, or when a worker that takes part leaves; then the participants are told, and
//! in the latter case the whole shuffle starts over.

use bytes::Bytes;
use dask_protocol::message::{ShuffleFail, StimulusId};
use dask_protocol::pickle::{Opaque, PickleValue, write_instance};
use dask_protocol::{Address, Key};
use indexmap::{IndexMap, IndexSet};
use tracing::{debug, warn};

use super::core::Core;
use crate::graph::helper::BarrierFacts;
use crate::state::{Event, TaskState};

/// How barriers are named (`distributed.shuffle._core.barrier_key`).
const BARRIER_PREFIX: &str = "shuffle-barrier-";

/// All shuffles of graphs that are known, and the runs of those that go on.
#[derive(Default)]
pub(crate) struct Shuffles {
    expected: IndexMap<String, BarrierFacts>,
    active: IndexMap<String, Run>,
    last_run_id: i64,
    /// Turns the list of workers, so that small shuffles spread.
    shift: usize,
    /// Runs that ended, and workers that left, while the present event was handled.
    ended: Vec<String>,
    left: Vec<Address>,
    restricted_before: Vec<(Key, Vec<Address>)>,
}

/// One run of a shuffle.
pub(crate) struct Run {
    pub(crate) run_id: i64,
    pub(crate) participants: IndexSet<Address>,
    worker_for: IndexMap<Key, Address>,
    /// Output tasks that were tied to a worker, and where they could run before.
    restricted: IndexMap<Key, Vec<Address>>,
    /// The pickled `ShuffleRunSpec`.
    pub(crate) spec: Bytes,
}

/// Why a shuffle cannot go on (`P2PConsistencyError`).
pub(crate) type Inconsistent = String;

/// The key of a shuffle's barrier.
pub(crate) fn barrier_key(shuffle_id: &str) -> Key {
    Key::from(format!("{BARRIER_PREFIX}{shuffle_id}"))
}

fn shuffle_of(barrier: &Key) -> Option<&str> {
    barrier.as_str()?.strip_prefix(BARRIER_PREFIX)
}

impl Shuffles {
    /// The shuffles of a graph that is about to be handled.
    pub(crate) fn expect(&mut self, facts: Vec<BarrierFacts>) {
        self.expected.extend(facts.into_iter().map(|facts| (facts.shuffle_id.clone(), facts)));
    }

    /// A run that goes on.
    pub(crate) fn run(&mut self, shuffle_id: &str) -> Option<&mut Run> {
        self.active.get_mut(shuffle_id)
    }

    /// Workers that take part in any run; they must not be closed for lack of load.
    pub(crate) fn participants(&self) -> impl Iterator<Item = &Address> {
        self.active.values().flat_map(|run| &run.participants)
    }

    /// A worker left; runs it took part in start over once its removal is handled.
    pub(crate) fn worker_left(&mut self, worker: &Address) {
        if !self.expected.is_empty() {
            self.left.push(worker.clone());
        }
    }
}

impl Core {
    /// The run of a shuffle, started by `key` on `worker` if it is the first to ask (`shuffle_get_or_create`).
    pub(crate) fn shuffle_get_or_create(
        &mut self,
        shuffle_id: &str,
        key: &Key,
        worker: &Address,
    ) -> Result<Bytes, Inconsistent> {
        match self.shuffle_get(shuffle_id, worker)? {
            Some(spec) => Ok(spec),
            None => self.create_shuffle_run(shuffle_id, key, worker),
        }
    }

    /// The run of a shuffle, which `worker` takes part in from now on; none when there is no run.
    pub(crate) fn shuffle_get(&mut self, shuffle_id: &str, worker: &Address) -> Result<Option<Bytes>, Inconsistent> {
        if !self.workers.contains_key(worker) {
            return Err(format!("Scheduler is unaware of this worker '{worker}'"));
        }
        let Some(run) = self.shuffles.run(shuffle_id) else { return Ok(None) };
        run.participants.insert(worker.clone());
        Ok(Some(run.spec.clone()))
    }

    fn create_shuffle_run(&mut self, shuffle_id: &str, key: &Key, worker: &Address) -> Result<Bytes, Inconsistent> {
        let barrier = barrier_key(shuffle_id);
        if self.state.task_state(&barrier).is_none() {
            return Err(format!(
                "Barrier task with key {barrier:?} does not exist; graph optimization may have renamed it."
            ));
        }
        let state = self.state.task_state(key);
        if state != Some(TaskState::Processing) {
            let state = state.map_or("unknown", TaskState::name);
            return Err(format!("Expected {key:?} to be processing, is {state}."));
        }
        let Some(facts) = self.shuffles.expected.get(shuffle_id) else {
            return Err(format!("The scheduler does not know the specification of shuffle {shuffle_id}."));
        };
        let spec = facts.spec.clone();
        let worker_for = self.place_outputs(facts, &barrier)?;
        self.shuffles.shift = self.shuffles.shift.wrapping_add(1);
        self.shuffles.last_run_id += 1;
        let run_id = self.shuffles.last_run_id;
        let mut participants: IndexSet<Address> = worker_for.values().cloned().collect();
        participants.insert(worker.clone());
        let spec = run_spec(run_id, spec, &worker_for);
        let run = Run { run_id, participants, worker_for, restricted: IndexMap::new(), spec: spec.clone() };
        self.shuffles.active.insert(shuffle_id.to_owned(), run);
        warn!(
            target: "distributed.shuffle._scheduler_plugin",
            "Shuffle {shuffle_id} initialized by task {key:?} executed on worker {worker}"
        );
        self.handle(Event::ShuffleStarted { barrier });
        Ok(spec)
    }

    /// Which worker gets which output. Shuffles that feed the same task must agree, whoever came and went in between.
    fn place_outputs(&self, facts: &BarrierFacts, barrier: &Key) -> Result<IndexMap<Key, Address>, Inconsistent> {
        let mut workers: Vec<&Address> = self.workers.keys().filter(|w| self.state.can_run_on(barrier, w)).collect();
        if workers.is_empty() {
            return Err(format!("No worker may run {barrier:?}"));
        }
        let shift = self.shuffles.shift % workers.len();
        workers.rotate_left(shift);
        let siblings = self.sibling_placements(barrier);
        let count = u128::from(facts.count.max(1));
        let mut worker_for = IndexMap::with_capacity(facts.partitions.len());
        for (partition, index) in &facts.partitions {
            let Some(partition) = partition.to_key() else {
                return Err(format!("An output partition of {barrier:?} is no key"));
            };
            let at = workers.len() as u128 * u128::from(*index) / count;
            let at = usize::try_from(at).unwrap_or(usize::MAX).min(workers.len() - 1);
            let worker = siblings.get(&partition).copied().unwrap_or(workers[at]).clone();
            worker_for.insert(partition, worker);
        }
        Ok(worker_for)
    }

    fn sibling_placements(&self, barrier: &Key) -> IndexMap<Key, &Address> {
        let mut placed = IndexMap::new();
        let mut seen = IndexSet::from([barrier]);
        let outputs = self.state.task(barrier).map(|task| task.dependents).unwrap_or_default();
        for output in outputs {
            let inputs = self.state.task(output).map(|task| task.dependencies).unwrap_or_default();
            for input in inputs.into_iter().filter(|input| shuffle_of(input).is_some()) {
                let run = shuffle_of(input).and_then(|id| self.shuffles.active.get(id));
                if let (true, Some(run)) = (seen.insert(input), run) {
                    placed.extend(run.worker_for.iter().map(|(partition, worker)| (partition.clone(), worker)));
                }
            }
        }
        placed
    }

    /// Ties an output task to the worker that has its partition (`shuffle_restrict_task`).
    pub(crate) fn shuffle_restrict_task(
        &mut self,
        shuffle_id: &str,
        run_id: i64,
        key: Key,
        worker: Address,
    ) -> Result<(), Inconsistent> {
        let everywhere = self.workers.keys().all(|w| self.state.can_run_on(&key, w));
        let before = self.workers.keys().filter(|w| !everywhere && self.state.can_run_on(&key, w)).cloned().collect();
        let Some(run) = self.shuffles.active.get_mut(shuffle_id) else {
            return Err(format!("No active shuffle with id='{shuffle_id}' found"));
        };
        if run.run_id != run_id {
            let what = if run.run_id > run_id { "stale" } else { "invalid" };
            return Err(format!("Request {what}, expected run_id={} for {shuffle_id}", run.run_id));
        }
        if !run.restricted.contains_key(&key) {
            run.restricted.insert(key.clone(), before);
            self.handle(Event::SetRestrictions { restrictions: vec![(key, vec![worker])] });
        }
        Ok(())
    }

    /// The data of a run is not what the barrier expected: the shuffle starts over.
    pub(crate) fn shuffle_restart(&mut self, shuffle_id: &str) {
        warn!(
            target: "distributed.shuffle._scheduler_plugin",
            "Shuffle {shuffle_id} restarted due to data inconsistency during barrier"
        );
        let stimulus_id = self.stimulus("p2p-barrier-inconsistent");
        self.handle(Event::RestartShuffle { barrier: barrier_key(shuffle_id), stimulus_id });
    }

    /// The state let go of a barrier.
    pub(super) fn shuffle_ended(&mut self, barrier: &Key, state: TaskState) {
        let Some(shuffle_id) = shuffle_of(barrier).map(str::to_owned) else { return };
        if self.shuffles.active.contains_key(&shuffle_id) {
            debug!(target: "distributed.shuffle._scheduler_plugin", "Shuffle {shuffle_id} ended: its barrier is {}", state.name());
            self.shuffles.ended.push(shuffle_id.clone());
            self.end_run(&shuffle_id, "its barrier was let go of");
        }
        if state == TaskState::Forgotten {
            self.shuffles.expected.shift_remove(&shuffle_id);
        }
    }

    /// Tells the participants that a run is over and lifts the restrictions it made.
    fn end_run(&mut self, shuffle_id: &str, why: &str) {
        let Some(run) = self.shuffles.active.shift_remove(shuffle_id) else { return };
        let message = format!("SchedulerShuffleState<{shuffle_id}[{}]> forgotten: {why}", run.run_id);
        for worker in &run.participants {
            let fail = ShuffleFail { shuffle_id: shuffle_id.to_owned(), run_id: run.run_id, message: message.clone() };
            self.send_worker(worker, fail.into());
        }
        self.shuffles.restricted_before.extend(run.restricted);
    }

    /// After an event is handled: what shuffles make of it.
    pub(super) fn follow_up_shuffles(&mut self) {
        let lifted = std::mem::take(&mut self.shuffles.restricted_before);
        let left = std::mem::take(&mut self.shuffles.left);
        let ended = std::mem::take(&mut self.shuffles.ended);
        if !lifted.is_empty() {
            self.handle(Event::SetRestrictions { restrictions: lifted });
        }
        for worker in left {
            self.restart_shuffles_of(&worker, &ended);
        }
    }

    /// A participant left: its runs end and start over, also those that ended because it left.
    fn restart_shuffles_of(&mut self, worker: &Address, ended: &[String]) {
        let taking_part = self.shuffles.active.iter().filter(|(_, run)| run.participants.contains(worker));
        let broken: Vec<String> = taking_part.map(|(id, _)| id.clone()).collect();
        for shuffle_id in &broken {
            self.end_run(shuffle_id, &format!("worker {worker} left"));
        }
        for shuffle_id in broken.iter().chain(ended) {
            warn!(
                target: "distributed.shuffle._scheduler_plugin",
                "Shuffle {shuffle_id} restarted because worker {worker} left"
            );
            let stimulus_id: StimulusId = self.stimulus("p2p-worker-left");
            self.handle(Event::RestartShuffle { barrier: barrier_key(shuffle_id), stimulus_id });
        }
    }
}

/// The `ShuffleRunSpec` that workers unpickle.
fn run_spec(run_id: i64, spec: Bytes, worker_for: &IndexMap<Key, Address>) -> Bytes {
    let placed = worker_for.iter().map(|(partition, worker)| (PickleValue::from(partition), worker.as_str().into()));
    let spec = Opaque { pickle: spec, ..Opaque::default() };
    let attributes = [
        ("run_id", PickleValue::from(run_id)),
        ("spec", PickleValue::Opaque(Box::new(spec))),
        ("worker_for", PickleValue::Dict(placed.collect())),
        ("span_id", PickleValue::None),
    ];
    write_instance("distributed.shuffle._core", "ShuffleRunSpec", &attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn barriers_are_told_by_their_name() {
        assert_eq!(shuffle_of(&barrier_key("abc")), Some("abc"));
        assert_eq!(shuffle_of(&Key::from("sum-1")), None);
        assert_eq!(shuffle_of(&Key::from(1_i64)), None);
    }
}
