//! What is to be simulated: tasks with their durations and sizes, and when which of them are asked for.

use std::sync::Arc;

use bytes::Bytes;
use dask_protocol::{Key, Payload};
use dask_scheduler::graph::order::order;
use dask_scheduler::graph::topology::Topology;
use dask_scheduler::state::{Annotations, NewTask, Runtime, TaskSpec};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// The number of a task in its workload.
pub type TaskNo = u32;

/// One task.
#[derive(Debug, Clone)]
pub struct SimTask {
    /// Its name.
    pub key: Key,
    /// What it reads.
    pub dependencies: Vec<TaskNo>,
    /// Seconds it computes.
    pub seconds: f64,
    /// Bytes of its result.
    pub nbytes: u64,
    /// Whether it is marked as a source of data, as the I/O layers of dask's collections are.
    pub source: bool,
    /// Its place in the static order of its graph.
    pub order: f64,
}

/// A graph that a client submits.
#[derive(Debug, Clone)]
pub struct Submission {
    /// When, in seconds after the start.
    pub at: f64,
    /// Its tasks: the numbers from here ...
    pub first: TaskNo,
    /// ... to below here.
    pub end: TaskNo,
    /// What the client asks for, and keeps until everything is done.
    pub wanted: Vec<TaskNo>,
}

/// Tasks, and the graphs they come in.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// What it is called in reports.
    pub name: String,
    /// Every task.
    pub tasks: Vec<SimTask>,
    /// The graphs, in order of time.
    pub submissions: Vec<Submission>,
}

impl Workload {
    /// Seconds of computing in all tasks together.
    pub fn work(&self) -> f64 {
        self.tasks.iter().map(|task| task.seconds).sum()
    }

    /// Seconds that the longest chain of tasks computes, waiting for its submission included.
    pub fn critical_path(&self) -> f64 {
        let mut start = vec![0.0_f64; self.tasks.len()];
        for submission in &self.submissions {
            for no in submission.first..submission.end {
                start[no as usize] = submission.at;
            }
        }
        let mut end: Vec<Option<f64>> = vec![None; self.tasks.len()];
        let mut stack: Vec<TaskNo> = Vec::new();
        for no in 0..self.tasks.len() {
            stack.push(number(no));
            while let Some(&top) = stack.last() {
                let task = &self.tasks[top as usize];
                let open = task.dependencies.iter().find(|dep| end[**dep as usize].is_none());
                if let Some(open) = open.filter(|_| end[top as usize].is_none()) {
                    stack.push(*open);
                    continue;
                }
                let inputs = task.dependencies.iter().filter_map(|dep| end[*dep as usize]);
                let ready = inputs.fold(start[top as usize], f64::max);
                end[top as usize] = Some(ready + task.seconds);
                stack.pop();
            }
        }
        end.into_iter().flatten().fold(0.0, f64::max)
    }

    /// No schedule can be done earlier: the critical path, or all work spread over all threads.
    pub fn lower_bound(&self, threads: u32) -> f64 {
        self.critical_path().max(self.work() / f64::from(threads.max(1)))
    }

    /// A submission as the scheduler's state takes it, and the keys wanted.
    pub fn graph(&self, submission: &Submission) -> (Vec<NewTask>, Vec<Key>) {
        let spec = TaskSpec::Payload(Payload::pickled(Bytes::from_static(b"simulated"), Vec::new()));
        let annotations: Arc<Annotations> = Arc::default();
        let task = |task: &SimTask| NewTask {
            key: task.key.clone(),
            dependencies: task.dependencies.iter().map(|dep| self.tasks[*dep as usize].key.clone()).collect(),
            spec: spec.clone(),
            runtime: Runtime::Python,
            data_producer: task.source,
            is_task: true,
            is_barrier: false,
            order: task.order,
            actor: false,
            annotations: annotations.clone(),
        };
        let tasks = self.tasks[submission.first as usize..submission.end as usize].iter().map(task).collect();
        (tasks, submission.wanted.iter().map(|no| self.tasks[*no as usize].key.clone()).collect())
    }
}

/// Tasks of one kind: what its `add`ed tasks have in common.
#[derive(Debug, Clone)]
pub struct Layer {
    name: Key,
    seconds: f64,
    nbytes: u64,
    source: bool,
}

/// Makes a workload task by task.
#[derive(Debug)]
pub struct Builder {
    tasks: Vec<SimTask>,
    submissions: Vec<Submission>,
    rng: SmallRng,
    layers: u64,
    /// Standard deviation of the logarithm of durations within a layer.
    spread: f64,
}

impl Builder {
    /// An empty workload whose durations vary by `seed`.
    pub fn new(seed: u64) -> Builder {
        /// Tasks of a layer take within about a quarter of their mean, as measured on shared machines.
        const SPREAD: f64 = 0.25;
        Builder {
            tasks: Vec::new(),
            submissions: Vec::new(),
            rng: SmallRng::seed_from_u64(seed),
            layers: 0,
            spread: SPREAD,
        }
    }

    /// Tasks that take about this long and leave this many bytes.
    pub fn layer(&mut self, name: &str, seconds: f64, nbytes: u64) -> Layer {
        // The name ends in a token, as dask's do: tasks of one call are one group.
        self.layers += 1;
        let token = self.layers.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Layer { name: Key::from(format!("{name}-{token:016x}{token:016x}")), seconds, nbytes, source: false }
    }

    /// The same for sources of data.
    pub fn source(&mut self, name: &str, seconds: f64, nbytes: u64) -> Layer {
        Layer { source: true, ..self.layer(name, seconds, nbytes) }
    }

    /// One more task of a layer.
    pub fn add(&mut self, layer: &Layer, index: &[usize], dependencies: &[TaskNo]) -> TaskNo {
        let number_key = |index: &usize| Key::from(i64::try_from(*index).unwrap_or(i64::MAX));
        let key = Key::tuple(std::iter::once(layer.name.clone()).chain(index.iter().map(number_key)));
        let seconds = layer.seconds * self.variation();
        let no = number(self.tasks.len());
        let dependencies = dependencies.to_vec();
        let task = SimTask { key, dependencies, seconds, nbytes: layer.nbytes, source: layer.source, order: 0.0 };
        self.tasks.push(task);
        no
    }

    /// A factor with mean 1, log-normally distributed.
    fn variation(&mut self) -> f64 {
        let (a, b): (f64, f64) = (self.rng.random_range(f64::MIN_POSITIVE..1.0), self.rng.random());
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        (self.spread * normal - self.spread * self.spread / 2.0).exp()
    }

    /// Reduces tasks `fan_in` at a time until one is left, each level with a layer of its own, as dask's reductions.
    pub fn tree(&mut self, name: &str, inputs: &[TaskNo], fan_in: usize, seconds: f64, nbytes: u64) -> TaskNo {
        let mut level = inputs.to_vec();
        while level.len() > 1 {
            let last = level.len() <= fan_in;
            let layer = self.layer(&format!("{name}-{}", if last { "aggregate" } else { "combine" }), seconds, nbytes);
            level = level.chunks(fan_in).enumerate().map(|(i, inputs)| self.add(&layer, &[i], inputs)).collect();
        }
        level[0]
    }

    /// Everything added since the last submission is submitted at this time, for the sake of `wanted`.
    pub fn submit(&mut self, at: f64, wanted: Vec<TaskNo>) {
        let first = self.submissions.last().map_or(0, |last| last.end);
        self.submissions.push(Submission { at, first, end: number(self.tasks.len()), wanted });
    }

    /// The workload, ordered as the scheduler orders graphs.
    pub fn build(mut self, name: &str) -> Workload {
        for submission in &self.submissions {
            order_tasks(&mut self.tasks, submission);
        }
        Workload { name: name.to_owned(), tasks: self.tasks, submissions: self.submissions }
    }
}

fn order_tasks(tasks: &mut [SimTask], submission: &Submission) {
    let (first, end) = (submission.first as usize, submission.end as usize);
    // What an earlier graph holds comes after the tasks of this one, as in the scheduler's intake.
    let mut external: Vec<TaskNo> = Vec::new();
    let lists: Vec<Vec<u32>> = tasks[first..end]
        .iter()
        .map(|task| {
            let local = |dep: &TaskNo| {
                dep.checked_sub(submission.first).unwrap_or_else(|| {
                    external.push(*dep);
                    number(end - first + external.len() - 1)
                })
            };
            task.dependencies.iter().map(local).collect()
        })
        .collect();
    let topology = Topology::new(lists.iter().map(Vec::as_slice));
    let own = tasks[first..end].iter().map(|task| &task.key);
    let keys: Vec<&Key> = own.chain(external.iter().map(|no| &tasks[*no as usize].key)).collect();
    let numbers = order(&topology, |_| true, &keys).expect("generated graphs have no cycles");
    for (task, number) in tasks[first..end].iter_mut().zip(numbers) {
        task.order = f64::from(number);
    }
}

/// A position as a task's number.
pub fn number(position: usize) -> TaskNo {
    TaskNo::try_from(position).expect("a workload has fewer than 2^32 tasks")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_longest_chain_or_all_work() {
        let mut builder = Builder::new(0);
        builder.spread = 0.0;
        let (long, short) = (builder.layer("long", 3.0, 1), builder.layer("short", 1.0, 1));
        let first = builder.add(&long, &[0], &[]);
        let mut wanted = vec![builder.add(&long, &[1], &[first])];
        wanted.extend((0..6).map(|i| builder.add(&short, &[i], &[])));
        builder.submit(2.0, wanted);
        let workload = builder.build("bound");
        assert_eq!(workload.critical_path(), 8.0, "two seconds pass before anything is known");
        assert_eq!((workload.lower_bound(1), workload.lower_bound(100)), (12.0, 8.0));
    }

    #[test]
    fn graphs_are_ordered_and_later_ones_may_read_earlier_ones() {
        let mut builder = Builder::new(0);
        let layer = builder.layer("x", 1.0, 1);
        let first = builder.add(&layer, &[0], &[]);
        builder.submit(0.0, vec![first]);
        let middle = builder.add(&layer, &[1], &[first]);
        let last = builder.add(&layer, &[2], &[middle]);
        builder.submit(1.0, vec![last]);
        let workload = builder.build("two");
        assert!(workload.tasks[last as usize].order > workload.tasks[middle as usize].order);
        let (tasks, keys) = workload.graph(&workload.submissions[1]);
        assert_eq!((tasks.len(), keys), (2, vec![workload.tasks[last as usize].key.clone()]));
    }
}
