//! Chance: decides from a seed what happens when. Everything it decides is a step.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use indexmap::IndexMap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::case::Case;
use super::client::Future;
use super::graphs::{self, Extras};
use super::step::{Arrival, ClientNo, Link, Outcome, Step, WorkerNo};
use super::world::{Effect, World};

/// A step to come.
struct Item {
    at: f64,
    order: u64,
    step: Planned,
}

/// What to do when the time has come.
enum Planned {
    Step(Step),
    /// A client does something.
    ClientActs(ClientNo),
    /// Something goes wrong, or somebody interferes.
    Fault,
    /// A worker calls, and plans its next call.
    Heartbeat(WorkerNo),
}

impl PartialEq for Item {
    fn eq(&self, other: &Item) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Item {}
impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Item) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Item {
    fn cmp(&self, other: &Item) -> Ordering {
        self.at.total_cmp(&other.at).then(self.order.cmp(&other.order))
    }
}

/// Which kinds of trouble a run has: each run has some, so that rare mixes come up.
struct Mix {
    latency: f64,
    duration: f64,
    fault_interval: f64,
    act_interval: f64,
    stalls: bool,
    failures: bool,
    reschedules: bool,
    secedes: bool,
    busy: bool,
    cuts: bool,
    unusable: bool,
    kills: bool,
    executor_deaths: bool,
    pauses: bool,
    retires: bool,
    removes: bool,
    restarts: bool,
    scatters: bool,
    cancels: bool,
    disconnects: bool,
    extras: Extras,
}

impl Mix {
    /// Slow and full, but nothing goes wrong.
    fn gentle(rng: &mut SmallRng) -> Mix {
        let drawn = Mix::draw(rng);
        Mix {
            latency: drawn.latency.min(0.05),
            duration: [0.2, 0.5][rng.random_range(0..2)],
            secedes: drawn.secedes,
            busy: drawn.busy,
            stalls: false,
            failures: false,
            reschedules: false,
            cuts: false,
            unusable: false,
            ..drawn
        }
    }

    fn draw(rng: &mut SmallRng) -> Mix {
        let latency = [0.001, 0.01, 0.05, 0.3][rng.random_range(0..4)];
        let mut often = |p: f64| rng.random_bool(p);
        let extras = Extras { annotations: often(0.5), hosts: often(0.3), gpus: often(0.3), actors: often(0.15) };
        Mix {
            latency,
            stalls: often(0.4),
            failures: often(0.4),
            reschedules: often(0.3),
            secedes: often(0.3),
            busy: often(0.4),
            cuts: often(0.4),
            unusable: often(0.15),
            kills: often(0.5),
            executor_deaths: often(0.3),
            pauses: often(0.4),
            retires: often(0.3),
            removes: often(0.2),
            restarts: often(0.1),
            scatters: often(0.3),
            cancels: often(0.5),
            disconnects: often(0.3),
            extras,
            duration: [0.01, 0.1, 0.5][rng.random_range(0..3)],
            fault_interval: [0.3, 1.0, 3.0][rng.random_range(0..3)],
            act_interval: [0.1, 0.5, 2.0][rng.random_range(0..3)],
        }
    }
}

/// Draws a run as it goes.
pub struct Plan {
    rng: SmallRng,
    mix: Mix,
    heap: BinaryHeap<Reverse<Item>>,
    order: u64,
    /// When the last message put on a link arrives: streams keep their order.
    arrives: IndexMap<Link, f64>,
    /// Until when a link is stalled.
    stalled: IndexMap<Link, f64>,
    /// Whether clients act and things go wrong.
    pub wild: bool,
    /// Whether workers that end are started again.
    respawns: bool,
    /// When the script ends, if there is one.
    script_end: Option<f64>,
}

/// The chance of each step of a run, and the case it runs on.
pub fn draw(seed: u64) -> (Case, Plan) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let case = Case::draw(seed, &mut rng);
    let plan = Plan::new(&case, rng);
    (case, plan)
}

impl Plan {
    fn new(case: &Case, mut rng: SmallRng) -> Plan {
        let mix = Mix::draw(&mut rng);
        let mut plan = Plan {
            rng,
            mix,
            heap: BinaryHeap::new(),
            order: 0,
            arrives: IndexMap::new(),
            stalled: IndexMap::new(),
            wild: true,
            respawns: true,
            script_end: None,
        };
        for client in 0..case.clients {
            plan.put(0.0, Planned::Step(Step::Connect(client)));
            let at = plan.spread(plan.mix.act_interval);
            plan.put(at, Planned::ClientActs(client));
        }
        for slot in 0..u32::try_from(case.slots.len()).expect("a handful of slots") {
            let at = plan.spread(0.5);
            plan.put(at, Planned::Step(Step::Start { slot }));
        }
        let at = plan.spread(plan.mix.fault_interval);
        plan.put(at, Planned::Fault);
        plan
    }

    /// A plan that follows a script, without trouble.
    pub fn scripted(mut rng: SmallRng, script: Vec<(f64, Step)>) -> Plan {
        let mut plan = Plan {
            mix: Mix::gentle(&mut rng),
            rng,
            heap: BinaryHeap::new(),
            order: 0,
            arrives: IndexMap::new(),
            stalled: IndexMap::new(),
            wild: true,
            respawns: false,
            script_end: script.iter().map(|(at, _)| *at).max_by(f64::total_cmp),
        };
        for (at, step) in script {
            plan.put(at, Planned::Step(step));
        }
        plan
    }

    /// A plan that only lets things come to their end, for replays.
    pub fn calm(case: &Case) -> Plan {
        let mut plan = Plan::new(case, SmallRng::seed_from_u64(case.seed));
        plan.heap.clear();
        plan.wild = false;
        plan
    }

    fn put(&mut self, at: f64, step: Planned) {
        self.order += 1;
        self.heap.push(Reverse(Item { at, order: self.order, step }));
    }

    fn chance(&mut self, p: f64) -> bool {
        self.rng.random_bool(p)
    }

    fn spread(&mut self, mean: f64) -> f64 {
        mean * self.rng.random_range(0.05..2.0)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.rng.random_range(0..from.len())].clone())
    }

    /// The next step and its time.
    pub fn next(&mut self, world: &World) -> (f64, Step) {
        loop {
            let due = world.next_timeout();
            let planned = self.heap.peek().map(|Reverse(item)| item.at);
            if let Some((at, step)) = due
                && planned.is_none_or(|planned| at <= planned)
            {
                return (at, step);
            }
            let Some(Reverse(Item { at, step, .. })) = self.heap.pop() else {
                // Nothing will happen by itself: let time pass.
                return (world.now + 0.1, Step::SchedulerTimeout);
            };
            let step = match step {
                Planned::Step(step) => Some(step),
                Planned::ClientActs(client) => self.client_acts(at, client, world),
                Planned::Fault => self.fault(at, world),
                Planned::Heartbeat(worker) => self.heartbeat(at, worker, world),
            };
            if let Some(step) = step {
                return (at, step);
            }
        }
    }

    fn heartbeat(&mut self, at: f64, worker: WorkerNo, world: &World) -> Option<Step> {
        world.workers.contains_key(&worker).then(|| {
            let next = at + 0.3 + self.spread(0.4);
            self.put(next, Planned::Heartbeat(worker));
            Step::Heartbeat(worker)
        })
    }

    /// Keeps a step for later that was drawn and has not happened, unless it is trouble, or a client that acts.
    pub fn put_back(&mut self, at: f64, step: Step) {
        match step {
            Step::Deliver(_)
            | Step::Finish { .. }
            | Step::Secede { .. }
            | Step::Serve { .. }
            | Step::Arrive { .. }
            | Step::Start { .. }
            | Step::Unpause(_)
            | Step::Heartbeat(_)
            | Step::Connect(_)
            | Step::Scattered { .. } => self.put(at, Planned::Step(step)),
            // Asked for anew.
            Step::SchedulerTimeout | Step::WorkerTimeout(_) => {}
            Step::Kill { .. }
            | Step::Cut { .. }
            | Step::ExecutorDies { .. }
            | Step::Pause(_)
            | Step::Disconnect(_)
            | Step::Submit { .. }
            | Step::Release { .. }
            | Step::Cancel { .. }
            | Step::Retry { .. }
            | Step::Scatter { .. }
            | Step::Retire { .. }
            | Step::Remove(_)
            | Step::Restart => {}
        }
    }

    /// How long there is trouble.
    pub fn trouble_seconds(&mut self) -> f64 {
        self.script_end.unwrap_or_else(|| [2.0, 8.0, 20.0][self.rng.random_range(0..3)])
    }

    /// Plans what follows from what just happened.
    pub fn follow(&mut self, world: &mut World) {
        for effect in std::mem::take(&mut world.effects) {
            self.follow_effect(world, effect);
        }
    }

    fn follow_effect(&mut self, world: &World, effect: Effect) {
        let now = world.now;
        match effect {
            Effect::Sent(link) => {
                let stalled = self.stalled.get(&link).copied().unwrap_or(0.0);
                let before = self.arrives.get(&link).copied().unwrap_or(0.0);
                let at = (now + self.spread(self.mix.latency)).max(stalled).max(before);
                self.arrives.insert(link, at);
                self.put(at, Planned::Step(Step::Deliver(link)));
            }
            Effect::Started { worker, key, run, interrupted } => {
                self.plan_finish(now, worker, key.to_string(), run, interrupted)
            }
            Effect::Asked { to, from } => {
                let busy = self.wild && self.mix.busy && self.chance(0.3);
                let at = now + self.spread(self.mix.latency);
                self.put(at, Planned::Step(Step::Serve { to, from, busy }));
            }
            Effect::Served { to, from } => {
                let arrival = if self.wild && self.mix.cuts && self.chance(0.15) {
                    if self.chance(0.5) { Arrival::Cut } else { Arrival::CutInside }
                } else if self.wild && self.mix.unusable && self.chance(0.1) {
                    Arrival::Unusable
                } else {
                    Arrival::Reply
                };
                let at = now + self.spread(self.mix.latency);
                self.put(at, Planned::Step(Step::Arrive { to, from, arrival }));
            }
            Effect::Stored { worker, data } => {
                let client = self.rng.random_range(0..world.case.clients);
                let at = now + self.spread(self.mix.latency);
                self.put(at, Planned::Step(Step::Scattered { client, worker, data }));
            }
            Effect::Registered { worker } => self.put(now, Planned::Heartbeat(worker)),
            Effect::Died { slot } => {
                if self.respawns && (!self.wild || self.chance(0.7)) {
                    let at = now + self.spread(1.0);
                    self.put(at, Planned::Step(Step::Start { slot }));
                }
            }
        }
    }

    fn plan_finish(&mut self, now: f64, worker: WorkerNo, key: String, run: i64, interrupted: bool) {
        if interrupted {
            if self.chance(0.3) {
                let at = now + self.spread(self.mix.latency);
                self.put(at, Planned::Step(Step::Finish { worker, key, run, outcome: Outcome::Reschedule }));
            }
            return;
        }
        let end = now + self.spread(self.mix.duration);
        if self.mix.secedes && self.chance(0.2) {
            let at = now + self.rng.random_range(0.0..1.0) * (end - now);
            self.put(at, Planned::Step(Step::Secede { worker, key: key.clone() }));
        }
        let outcome = if self.wild && self.mix.failures && self.chance(0.1) {
            Outcome::Failure
        } else if self.wild && self.mix.reschedules && self.chance(0.1) {
            Outcome::Reschedule
        } else {
            Outcome::Success(self.size())
        };
        self.put(end, Planned::Step(Step::Finish { worker, key, run, outcome }));
    }

    fn size(&mut self) -> i64 {
        [0, 10, 500, 2000, 5000][self.rng.random_range(0..5)]
    }

    fn client_acts(&mut self, at: f64, client: ClientNo, world: &World) -> Option<Step> {
        if !self.wild {
            return None;
        }
        let next = at + self.spread(self.mix.act_interval);
        self.put(next, Planned::ClientActs(client));
        let state = &world.clients[client as usize];
        if !state.connected {
            return Some(Step::Connect(client));
        }
        let all: Vec<String> = state.futures.keys().map(ToString::to_string).collect();
        let keys: Vec<String> = all.iter().filter(|_| self.rng.random_bool(0.4)).cloned().collect();
        match self.rng.random_range(0..100) {
            0..50 => {
                let hosts: Vec<String> = world.case.slots.iter().map(|s| s.host.clone()).collect();
                let (tasks, wants) = graphs::draw(&mut self.rng, self.mix.extras, &hosts);
                Some(Step::Submit { client, tasks, wants })
            }
            50..75 if !keys.is_empty() => Some(Step::Release { client, keys }),
            75..85 if self.mix.cancels && !keys.is_empty() => {
                let force = self.chance(0.3);
                Some(Step::Cancel { client, keys, force })
            }
            85..90 => {
                let erred = state.futures.iter().filter(|(_, f)| **f == Future::Erred);
                let keys: Vec<String> = erred.map(|(key, _)| key.to_string()).collect();
                (!keys.is_empty()).then_some(Step::Retry { client, keys })
            }
            90..93 if self.mix.disconnects => Some(Step::Disconnect(client)),
            93..100 if self.mix.scatters => {
                let workers: Vec<WorkerNo> = world.workers.keys().copied().collect();
                let worker = self.pick(&workers)?;
                self.order += 1;
                let name = format!("data-{}", self.order);
                let size = self.size();
                Some(Step::Scatter { worker, data: vec![(name, size)] })
            }
            _ => None,
        }
    }

    fn fault(&mut self, at: f64, world: &World) -> Option<Step> {
        if !self.wild {
            return None;
        }
        let next = at + self.spread(self.mix.fault_interval);
        self.put(next, Planned::Fault);
        let workers: Vec<WorkerNo> = world.workers.keys().copied().collect();
        let worker = self.pick(&workers)?;
        match self.rng.random_range(0..10) {
            0 if self.mix.kills => {
                let kept = self.rng.random_range(0..=world.queued(Link::FromWorker(worker)));
                Some(Step::Kill { worker, kept })
            }
            1 if self.mix.kills => Some(Step::Cut { worker }),
            2 if self.mix.executor_deaths => {
                let held: Vec<String> = world.workers[&worker].store.keys().map(ToString::to_string).collect();
                let lost = held.into_iter().filter(|_| self.rng.random_bool(0.7)).collect();
                Some(Step::ExecutorDies { worker, lost })
            }
            3 if self.mix.pauses => Some(Step::Pause(worker)),
            4 | 5 if self.mix.pauses => Some(Step::Unpause(worker)),
            6 if self.mix.retires => {
                let retired = workers.iter().copied().filter(|_| self.rng.random_bool(0.4)).collect();
                Some(Step::Retire { workers: retired })
            }
            7 if self.mix.removes => Some(Step::Remove(worker)),
            8 if self.mix.restarts && self.chance(0.3) => Some(Step::Restart),
            9 if self.mix.stalls => {
                let links = [Link::ToWorker(worker), Link::FromWorker(worker), Link::FromClient(0), Link::ToClient(0)];
                let link = self.pick(&links)?;
                let until = at + self.spread(2.0);
                self.stalled.insert(link, until);
                None
            }
            _ => None,
        }
    }

    /// Faults and clients stop; what is down comes back.
    pub fn heal(&mut self, world: &World) -> Vec<Step> {
        self.wild = false;
        self.stalled.clear();
        let mut steps: Vec<Step> = world.workers.keys().map(|no| Step::Unpause(*no)).collect();
        let slots = u32::try_from(world.case.slots.len()).expect("a handful of slots");
        let up: Vec<u32> = world.workers.values().map(|w| w.slot).collect();
        steps.extend((0..slots).filter(|slot| !up.contains(slot)).map(|slot| Step::Start { slot }));
        steps
    }

    /// Everybody gives up everything, some by leaving.
    pub fn let_go(&mut self, world: &World) -> Vec<Step> {
        let connected = (0..world.case.clients).filter(|no| world.clients[*no as usize].connected);
        connected
            .map(|client| {
                if self.rng.random_bool(0.5) {
                    return Step::Disconnect(client);
                }
                let state = &world.clients[client as usize];
                // A restart made the client forget what it submitted just before it heard of it.
                let forgotten = world.scheduler.wants_what(&state.id).into_iter();
                let keys = state.futures.keys().cloned().chain(forgotten).map(|key| key.to_string()).collect();
                Step::Release { client, keys }
            })
            .collect()
    }
}
