//! What clients do: they submit graphs, and change their minds.

use dask_protocol::{Address, Key};
use dask_scheduler::state::{ClientId, Event, TaskState, UpdateGraph};
use indexmap::IndexSet;
use rand::Rng;

use super::super::graphs;
use super::Plan;

impl Plan<'_> {
    pub(super) fn add_client(&mut self) -> Option<Event> {
        let client: ClientId =
            (1..=3).map(|n| ClientId::from(format!("Client-{n}"))).find(|c| !self.clients.contains(c))?;
        self.clients.push(client.clone());
        Some(Event::AddClient { client })
    }

    pub(super) fn remove_client(&mut self) -> Option<Event> {
        let client = self.any_client()?;
        self.clients.retain(|other| *other != client);
        Some(Event::RemoveClient { client })
    }

    pub(super) fn submit(&mut self) -> Option<Event> {
        let client = self.any_client()?;
        self.graphs += 1;
        let threads = self.state().total_nthreads();
        let (mut tasks, keys) = graphs::draw(&mut self.rng, self.profile.extras, &self.places, threads);
        let known: Vec<Key> = self.state().tasks().map(|task| task.key.clone()).collect();
        if self.rng.random_bool(0.15) {
            // Reads a future.
            let first = &mut tasks[0];
            if first.key.as_str().is_some_and(|key| key.starts_with("any")) {
                let mine = |key: &&Key| !key.as_str().is_some_and(|key| key.starts_with("any"));
                let others: Vec<Key> = known.iter().filter(mine).cloned().collect();
                let read = if others.is_empty() { None } else { Some(self.rng.random_range(0..others.len())) };
                first.dependencies.extend(read.map(|n| others[n].clone()));
            }
        }
        if self.rng.random_bool(0.02) {
            tasks[0].dependencies.push("nobody-knows-it".into());
        }
        let running: Vec<Key> = self.runs.iter().map(|run| run.key.clone()).collect();
        let submitting_task = if self.rng.random_bool(0.05) { self.any(&running) } else { None };
        let fifo_timeout = [0.0, 0.0, 0.1, 60.0][self.rng.random_range(0..4)];
        let stimulus_id = format!("update-graph-{}", self.graphs).into();
        Some(Event::UpdateGraph(Box::new(UpdateGraph {
            client,
            tasks,
            keys,
            submitting_task,
            fifo_timeout,
            stimulus_id,
        })))
    }

    pub(super) fn release(&mut self) -> Option<Event> {
        let client = self.any_client()?;
        let wanted = self.state().wants_what(&client);
        let keys = self.any_keys(&wanted);
        (!keys.is_empty()).then_some(Event::ClientReleasesKeys { client, keys })
    }

    pub(super) fn desire(&mut self) -> Option<Event> {
        let client = self.any_client()?;
        let known: Vec<Key> = self.state().tasks().map(|task| task.key.clone()).collect();
        let keys = self.any_keys(&known);
        (!keys.is_empty()).then_some(Event::ClientDesiresKeys { client, keys })
    }

    pub(super) fn report(&mut self) -> Option<Event> {
        let client = self.any_client()?;
        let known: Vec<Key> = self.state().tasks().map(|task| task.key.clone()).collect();
        let key = self.any(&known)?;
        Some(Event::ReportKey { client, key })
    }

    pub(super) fn cancel(&mut self) -> Option<Event> {
        let client = self.any_client()?;
        let wanted = self.state().wants_what(&client);
        let keys = self.any_keys(&wanted);
        let force = self.rng.random_bool(0.3);
        (!keys.is_empty()).then_some(Event::CancelKeys { client, keys, force, reason: None, msg: None })
    }

    pub(super) fn retry(&mut self) -> Option<Event> {
        let erred = |task: &dask_scheduler::state::TaskView<'_>| task.state == TaskState::Erred;
        let erred: Vec<Key> = self.state().tasks().filter(erred).map(|task| task.key.clone()).collect();
        let keys = self.any_keys(&erred);
        (!keys.is_empty()).then(|| Event::Retry { keys, stimulus_id: "stimulus-retry".into() })
    }

    pub(super) fn scatter(&mut self) -> Option<Event> {
        let client = self.any_client();
        let mut data = Vec::new();
        for _ in 0..self.rng.random_range(1..=3) {
            let key = Key::from(format!("data-{}", self.rng.random_range(0..30)));
            let computed = self.state().run_spec(&key).is_some();
            let twice = data.iter().any(|(other, _, _): &(Key, Vec<Address>, i64)| *other == key);
            let on: IndexSet<Address> = (0..2).filter_map(|_| self.any_worker()).collect();
            if !computed && !twice && !on.is_empty() {
                for address in &on {
                    self.workers[address].held.insert(key.clone());
                }
                data.push((key, on.into_iter().collect(), self.nbytes()));
            }
        }
        let stimulus_id = "scatter".into();
        (!data.is_empty()).then_some(Event::UpdateData { data, client, stimulus_id })
    }
}
