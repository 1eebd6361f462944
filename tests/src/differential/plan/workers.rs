//! What workers do: they finish, fail, come, go, and tell what they hold.

use std::io;

use dask_protocol::message::WorkerStatus;
use dask_protocol::{Address, Key, Value};
use dask_scheduler::state::{Event, NewWorker, Runtime};
use indexmap::IndexMap;
use rand::Rng;

use super::super::messages;
use super::{Model, Plan, Run, WORKERS_MAX};

impl Plan<'_> {
    /// Takes a run that goes on from the list.
    pub(super) fn take_run(&mut self, freed: bool) -> Option<Run> {
        let fit: Vec<usize> = (0..self.runs.len()).filter(|n| self.runs[*n].freed == freed).collect();
        let chosen = self.any(&fit)?;
        Some(self.runs.remove(chosen))
    }

    pub(super) fn nbytes(&mut self) -> i64 {
        match self.rng.random_range(0..10u32) {
            0 => 0,
            1..=4 => self.rng.random_range(8..2000),
            5..=7 => self.rng.random_range(10_000..50_000_000),
            8 => 28,
            _ => self.rng.random_range(100_000_000..2_000_000_000),
        }
    }

    pub(super) fn seconds(&mut self) -> f64 {
        match self.rng.random_range(0..6u32) {
            0 => 0.0,
            1 => 0.5,
            2 => self.rng.random_range(1.0..20.0),
            _ => self.rng.random_range(0.000_1..1.0),
        }
    }

    /// A run ends well. The worker may have fetched what it reads before.
    pub(super) fn finish(&mut self) -> io::Result<Option<Event>> {
        let Some(run) = self.take_run(false) else { return Ok(None) };
        if let Some(fetched) = self.fetched_inputs(&run) {
            self.tell(messages::add_keys(&run.worker, fetched))?;
            if self.runs_contain_freed(&run) {
                return Ok(None);
            }
        }
        Ok(Some(self.finished(&run)))
    }

    pub(super) fn runs_contain_freed(&self, run: &Run) -> bool {
        self.state().task(&run.key).is_none_or(|task| task.processing_on != Some(&run.worker))
    }

    pub(super) fn finished(&mut self, run: &Run) -> Event {
        let (nbytes, seconds) = (self.nbytes(), self.seconds());
        if let Some(model) = self.workers.get_mut(&run.worker) {
            model.held.insert(run.key.clone());
        }
        messages::finished(&run.worker, &run.key, run.run_id, nbytes, self.recorder.now, seconds)
    }

    pub(super) fn fetched_inputs(&mut self, run: &Run) -> Option<Vec<Key>> {
        let inputs = self.state().task(&run.key)?.dependencies.into_iter().cloned().collect::<Vec<Key>>();
        let model = self.workers.get_mut(&run.worker)?;
        let missing: Vec<Key> = inputs.into_iter().filter(|key| !model.held.contains(key)).collect();
        if missing.is_empty() || self.rng.random_bool(0.3) {
            return None;
        }
        model.held.extend(missing.iter().cloned());
        Some(missing)
    }

    pub(super) fn err(&mut self) -> Option<Event> {
        let run = self.take_run(false)?;
        let exception = format!("{} of {} failed", run.run_id, run.key);
        Some(messages::erred(&run.worker, &run.key, run.run_id, exception))
    }

    pub(super) fn reschedule(&mut self) -> Option<Event> {
        let run = self.take_run(false)?;
        Some(messages::reschedule(&run.worker, &run.key))
    }

    pub(super) fn secede(&mut self) -> Option<Event> {
        let run = self.take_run(false)?;
        let compute_duration = self.rng.random_bool(0.7).then(|| self.seconds());
        let event = messages::long_running(&run.worker, &run.key, run.run_id, compute_duration);
        let again = run.seceded;
        self.runs.push(Run { seceded: true, ..run });
        (!again).then_some(event)
    }

    /// The end of a run that the scheduler has called off meanwhile.
    pub(super) fn late_news(&mut self) -> Option<Event> {
        let run = self.take_run(true)?;
        if self.rng.random_bool(0.7) {
            return Some(self.finished(&run));
        }
        let exception = format!("{} of {} failed late", run.run_id, run.key);
        Some(messages::erred(&run.worker, &run.key, run.run_id, exception))
    }

    pub(super) fn join(&mut self) -> Option<Event> {
        if self.workers.len() >= WORKERS_MAX {
            return None;
        }
        let taken = |name: &str| self.workers.values().any(|model| model.name == name);
        let name = (1..=WORKERS_MAX).map(|n| format!("w{n}")).find(|name| !taken(name))?;
        if self.incarnations == 0 || self.rng.random_bool(0.7) {
            self.incarnations += 1;
        }
        let host = self.rng.random_range(1..=4);
        let address = Address::new(format!("tcp://10.0.0.{host}:{}", 4000 + self.incarnations));
        if self.workers.contains_key(&address) {
            return None;
        }
        self.places.extend([name.clone(), address.as_str().to_owned(), address.host().to_owned()]);
        let mut resources = Vec::new();
        if self.profile.extras.resources && self.rng.random_bool(0.6) {
            resources.push(("GPU".to_owned(), f64::from(self.rng.random_range(1..=2))));
            resources.push(("FPGA".to_owned(), 1.0));
        }
        let limits = [0, 0, 0, 1_000_000_000, 20_000_000];
        let worker = NewWorker {
            address: address.clone(),
            name: Value::from(name.clone()),
            server_id: format!("Worker-{name}-{}", self.recorder.now),
            status: if self.rng.random_bool(0.9) { WorkerStatus::Running } else { WorkerStatus::Paused },
            nthreads: self.rng.random_range(1..=4),
            memory_limit: limits[self.rng.random_range(0..limits.len())],
            resources: resources.into_iter().collect(),
            nanny: None,
            runtimes: vec![Runtime::Python],
            stimulus_id: "worker-connect".into(),
        };
        self.workers.insert(address, Model { name, ..Model::default() });
        Some(Event::AddWorker(Box::new(worker)))
    }

    pub(super) fn leave(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        self.workers.shift_remove(&worker);
        self.runs.retain(|run| run.worker != worker);
        let (expected, close) = (self.rng.random_bool(0.3), self.rng.random_bool(0.5));
        Some(Event::RemoveWorker { worker, expected, close, stimulus_id: "handle-worker-cleanup".into() })
    }

    pub(super) fn status(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        let running = self.state().worker(&worker).is_some_and(|view| view.status == WorkerStatus::Running);
        let status = match (running, self.rng.random_bool(0.8)) {
            (true, true) => WorkerStatus::Paused,
            (true, false) => WorkerStatus::ClosingGracefully,
            (false, _) => WorkerStatus::Running,
        };
        Some(messages::status(&worker, status))
    }

    pub(super) fn heartbeat(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        let running: Vec<Key> =
            self.runs.iter().filter(|run| run.worker == worker).map(|run| run.key.clone()).collect();
        // A worker says each key once.
        let executing: IndexMap<Key, f64> = running.into_iter().map(|key| (key, self.seconds())).collect();
        let executing = executing.into_iter().collect();
        let bandwidth = if self.rng.random_bool(0.5) { 1e8 } else { self.rng.random_range(1e6..1e9) };
        let memory = self.memory();
        Some(messages::heartbeat(&worker, executing, Some(bandwidth), memory))
    }

    pub(super) fn set_resources(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        let resources = [("GPU".to_owned(), f64::from(self.rng.random_range(0..=3)))].into_iter().collect();
        Some(Event::SetResources { worker, resources })
    }

    /// A worker says that it dropped what it was told to drop.
    pub(super) fn drop_value(&mut self) -> Option<Event> {
        let with: Vec<Address> =
            self.workers.iter().filter(|(_, model)| !model.dropping.is_empty()).map(|(a, _)| a.clone()).collect();
        let worker = self.any(&with)?;
        let key = self.workers[&worker].dropping.remove(0);
        Some(messages::release_worker_data(&worker, &key))
    }

    /// A worker drops a value on its own.
    pub(super) fn lose_value(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        let held: Vec<Key> = self.workers[&worker].held.iter().cloned().collect();
        let key = self.any(&held)?;
        self.workers[&worker].held.shift_remove(&key);
        Some(messages::release_worker_data(&worker, &key))
    }

    /// A worker says that it has got copies; some of them nobody needs any more.
    pub(super) fn copy(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        let known: Vec<Key> = self.state().tasks().filter(|t| !t.actor).map(|task| task.key.clone()).collect();
        let keys = self.any_keys(&known);
        if keys.is_empty() {
            return None;
        }
        self.workers[&worker].held.extend(keys.iter().cloned());
        Some(messages::add_keys(&worker, keys))
    }

    pub(super) fn refresh(&mut self) -> Option<Event> {
        let worker = self.any_worker()?;
        let mut known: Vec<Key> = self.state().tasks().map(|task| task.key.clone()).collect();
        known.push("long-gone".into());
        let keys = self.any_keys(&known);
        Some(messages::refresh(&worker, keys))
    }
}
