//! Both policies on many graphs and shapes, side by side.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dask_scheduler::state::Policy;

use super::cluster::{Settings, run};
use super::graphs::Graph;
use super::outcome::Outcome;
use super::shape::Shape;

/// What is compared, the smaller the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Seconds until everything is done.
    Makespan,
    /// Bytes moved between workers.
    Moved,
    /// Most bytes held at any time.
    Memory,
}

impl Measure {
    /// Every measure.
    pub const ALL: [Measure; 3] = [Measure::Makespan, Measure::Moved, Measure::Memory];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Makespan => "makespan",
            Measure::Moved => "bytes moved",
            Measure::Memory => "peak memory",
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "for ratios")]
    fn of(self, outcome: &Outcome) -> f64 {
        match self {
            Measure::Makespan => outcome.makespan,
            Measure::Moved => outcome.bytes_moved as f64,
            Measure::Memory => outcome.peak_memory as f64,
        }
    }

    /// Figures below this count as this: where next to nothing is moved or held, a ratio says nothing.
    fn floor(self) -> f64 {
        match self {
            Measure::Makespan => 1e-3,
            Measure::Moved | Measure::Memory => 100e6,
        }
    }
}

/// The means of a graph's runs on a shape under one policy.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    values: [f64; Measure::ALL.len()],
}

impl Figures {
    /// One of them.
    pub fn get(&self, measure: Measure) -> f64 {
        self.values[measure as usize]
    }

    fn add(&mut self, outcome: &Outcome, share: f64) {
        for measure in Measure::ALL {
            self.values[measure as usize] += measure.of(outcome) * share;
        }
    }
}

/// A graph on a shape, under each policy.
#[derive(Debug, Clone)]
pub struct Row {
    /// The graph.
    pub graph: &'static str,
    /// The workers.
    pub shape: Shape,
    /// Seconds below which no schedule ends; the mean over the seeds.
    pub bound: f64,
    /// Under [`Policy::Upstream`].
    pub upstream: Figures,
    /// Under [`Policy::Native`].
    pub native: Figures,
}

impl Row {
    /// Native over upstream: below 1, native is better.
    pub fn ratio(&self, measure: Measure) -> f64 {
        self.native.get(measure).max(measure.floor()) / self.upstream.get(measure).max(measure.floor())
    }

    fn add(&mut self, other: &Row) {
        self.bound += other.bound;
        for measure in Measure::ALL {
            self.upstream.values[measure as usize] += other.upstream.values[measure as usize];
            self.native.values[measure as usize] += other.native.values[measure as usize];
        }
    }
}

/// What is to be compared.
#[derive(Debug)]
pub struct Plan {
    /// The graphs.
    pub graphs: Vec<&'static Graph>,
    /// The shapes.
    pub shapes: Vec<Shape>,
    /// The figures are means over this many seeds.
    pub seeds: u64,
    /// The first of these seeds.
    pub first_seed: u64,
    /// Runs at a time.
    pub jobs: usize,
    /// All other settings; their shape and policy are not used.
    pub settings: Settings,
}

/// The number of a piece of work, and what came of it.
type Done = (usize, Result<Vec<Row>, String>);

impl Plan {
    /// Runs everything; `progress` is told of each graph that is done with one seed.
    ///
    /// # Errors
    /// When a run comes to no end.
    pub fn run(&self, progress: impl Fn() + Sync) -> Result<Vec<Row>, String> {
        let seeds = usize::try_from(self.seeds.max(1)).unwrap_or(usize::MAX);
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<Done>> = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(graph) = self.graphs.get(number / seeds) else { return };
                        let rows = self.rows(graph, self.first_seed.wrapping_add((number % seeds) as u64));
                        done.lock().expect("no thread panics with the lock").push((number, rows));
                        progress();
                    }
                });
            }
        });
        let mut done = done.into_inner().expect("no thread panics with the lock");
        done.sort_by_key(|(number, _)| *number);
        let mut all: Vec<Row> = Vec::new();
        for (number, rows) in done {
            let rows = rows?;
            if number % seeds == 0 {
                all.extend(rows);
            } else {
                let first = all.len() - rows.len();
                all[first..].iter_mut().zip(&rows).for_each(|(sum, row)| sum.add(row));
            }
        }
        Ok(all)
    }

    /// One graph with one seed on every shape; every figure is divided by the number of seeds.
    #[expect(clippy::cast_precision_loss, reason = "a handful of seeds")]
    fn rows(&self, graph: &'static Graph, seed: u64) -> Result<Vec<Row>, String> {
        let workload = graph.build(seed);
        let share = 1.0 / self.seeds.max(1) as f64;
        let mut rows = Vec::new();
        for shape in &self.shapes {
            let bound = workload.lower_bound(shape.threads()) * share;
            let mut figures = [Figures::default(); Policy::ALL.len()];
            for (policy, figures) in Policy::ALL.into_iter().zip(&mut figures) {
                let mut settings = Settings { shape: shape.clone(), seed, ..self.settings.clone() };
                settings.scheduler.policy = policy;
                let outcome = run(&workload, &settings, |_| {});
                let outcome = outcome.map_err(|error| format!("{} on {shape}: {error}", graph.name))?;
                figures.add(&outcome, share);
            }
            let [upstream, native] = figures;
            rows.push(Row { graph: graph.name, shape: shape.clone(), bound, upstream, native });
        }
        Ok(rows)
    }
}

/// The geometric mean of a measure's ratios.
pub fn geometric_mean<'a>(rows: impl IntoIterator<Item = &'a Row>, measure: Measure) -> f64 {
    let (sum, count) =
        rows.into_iter().fold((0.0, 0_u32), |(sum, count), row| (sum + row.ratio(measure).ln(), count + 1));
    (sum / f64::from(count.max(1))).exp()
}

/// The row with the greatest ratio.
pub fn worst(rows: &[Row], measure: Measure) -> Option<&Row> {
    rows.iter().max_by(|a, b| a.ratio(measure).total_cmp(&b.ratio(measure)))
}
