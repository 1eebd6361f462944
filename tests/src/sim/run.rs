//! One run, from its seed or from its steps, and what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use super::case::Case;
use super::errors;
use super::plan::{self, Plan};
use super::scenario::{self, Scenario};
use super::step::{Step, Timed};
use super::world::World;

/// Virtual seconds a healed cluster has to settle.
const SETTLE_SECONDS: f64 = 300.0;
/// Virtual seconds without trouble after which a settled cluster counts as settled for good.
const CALM_SECONDS: f64 = 6.0;
/// Steps of one run; one that needs more goes in circles.
const STEPS_MAX: usize = 60_000;

/// A run that can be repeated.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recording {
    /// What it ran on.
    pub case: Case,
    /// What happened.
    pub steps: Vec<Timed>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The run itself.
    pub recording: Recording,
    /// The rule that was broken, if any.
    pub failure: Option<String>,
    /// Everything the states decided, when asked for.
    pub trace: Option<String>,
    /// A hash of everything the states decided, when asked for the trace.
    pub digest: u64,
    /// Virtual seconds from the last worker's arrival until all had worked, in a scenario in which workers join.
    pub seconds_to_full_use: Option<f64>,
}

struct Run {
    world: World,
    plan: Plan,
    steps: Vec<Timed>,
    full_use: Option<f64>,
}

/// Why a run ended early.
struct Broken(String);

impl Run {
    fn step(&mut self, at: f64, step: Step) -> Result<(), Broken> {
        self.steps.push(Timed { at, step });
        let Timed { at, step } = self.steps.last().expect("just pushed").clone();
        if self.steps.len() > STEPS_MAX {
            return Err(Broken(format!("no end after {STEPS_MAX} steps")));
        }
        errors::clear();
        let world = &mut self.world;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.apply(at, &step))) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            return Err(Broken(text.unwrap_or_else(|| "a panic without text".to_owned())));
        }
        if let Some(text) = errors::take() {
            return Err(Broken(format!("an error was logged: {text}")));
        }
        if let Some(text) = self.world.violation.take() {
            return Err(Broken(text));
        }
        self.plan.follow(&mut self.world);
        Ok(())
    }

    fn until(&mut self, end: f64) -> Result<(), Broken> {
        loop {
            let (at, step) = self.plan.next(&self.world);
            if at > end {
                self.plan.put_back(at, step);
                self.world.now = self.world.now.max(end);
                return Ok(());
            }
            self.step(at, step)?;
        }
    }

    /// Lets everything come to its end, then looks whether it has.
    fn settle(&mut self) -> Result<(), Broken> {
        let deadline = self.world.now + SETTLE_SECONDS;
        let mut calm_since = None;
        while self.world.now < deadline {
            let (at, step) = self.plan.next(&self.world);
            self.step(at, step)?;
            if !self.world.is_settled() {
                calm_since = None;
            } else if self.world.now - *calm_since.get_or_insert(self.world.now) > CALM_SECONDS {
                break;
            }
        }
        self.world.check_settled().map_err(Broken)
    }

    fn heal(&mut self) -> Result<(), Broken> {
        for step in self.plan.heal(&self.world) {
            let now = self.world.now;
            self.step(now, step)?;
        }
        self.settle()
    }

    fn let_go(&mut self) -> Result<(), Broken> {
        self.world.check_scenario().map_err(Broken)?;
        let joins = self.world.case.scenario == Some(Scenario::ScaleOut);
        self.full_use = self.world.ledger.seconds_to_full_use().filter(|_| joins);
        self.world.ledger.let_go();
        for step in self.plan.let_go(&self.world) {
            let now = self.world.now;
            self.step(now, step)?;
        }
        self.settle()?;
        self.world.check_empty().map_err(Broken)
    }

    fn report(mut self, outcome: Result<(), Broken>) -> Report {
        if let Err(Broken(text)) = &outcome {
            self.world.tell_stories(text);
        }
        Report {
            recording: Recording { case: self.world.case, steps: self.steps },
            failure: outcome.err().map(|broken| broken.0),
            trace: self.world.trace,
            digest: self.world.digest,
            seconds_to_full_use: self.full_use,
        }
    }
}

fn new_run(case: Case, plan: Plan, trace: bool) -> Run {
    errors::install();
    let mut world = World::new(case);
    world.trace = trace.then(String::new);
    Run { world, plan, steps: Vec::new(), full_use: None }
}

/// Runs a seed: trouble, healing, and the end of all interest.
pub fn run_seed(seed: u64, trace: bool) -> Report {
    let (case, plan) = match scenario::of_seed(seed) {
        Some(scenario) => scenario::draw(scenario, seed, true),
        None => plan::draw(seed),
    };
    whole_run(case, plan, trace)
}

/// Runs a seed of a scenario in its full size.
pub fn run_scenario(scenario: Scenario, seed: u64, trace: bool) -> Report {
    let (case, plan) = scenario::draw(scenario, seed, false);
    whole_run(case, plan, trace)
}

fn whole_run(case: Case, plan: Plan, trace: bool) -> Report {
    let mut run = new_run(case, plan, trace);
    let end = run.plan.trouble_seconds();
    let outcome = run.until(end).and_then(|()| run.heal()).and_then(|()| run.let_go());
    run.report(outcome)
}

/// Repeats recorded steps, then lets everything come to its end.
pub fn replay(recording: &Recording, trace: bool) -> Report {
    let plan = Plan::calm(&recording.case);
    let mut run = new_run(recording.case.clone(), plan, trace);
    let mut outcome = Ok(());
    for Timed { at, step } in &recording.steps {
        outcome = run.step(*at, step.clone());
        if outcome.is_err() {
            break;
        }
    }
    let outcome = outcome.and_then(|()| run.heal()).and_then(|()| run.let_go());
    run.report(outcome)
}
