//! A worker state under test: feeds events and checks every invariant after each.

use bytes::Bytes;
use dask_protocol::message::{
    AcquireReplicas, ComputeTask, ErrorInfo, FreeKeys, Pairs, Priority, RefreshWhoHas, RemoveReplicas, RemoveWorker,
    RunId, SchedulerToWorker, StartStop, StealRequest, WorkerToScheduler,
};
use dask_protocol::{Address, Key, Payload, Value};

use crate::state::*;

pub const OWN: &str = "tcp://10.0.0.1:1";
pub const PEER: &str = "tcp://10.0.0.2:2";
pub const OTHER: &str = "tcp://10.0.0.3:3";

pub struct Rig {
    pub state: State,
    pub now: f64,
    run_id: RunId,
}

/// A `compute-task` in the making.
pub struct Compute {
    key: Key,
    priority: f64,
    who_has: Vec<(Key, Vec<Address>)>,
    nbytes: i64,
    resources: Vec<(String, f64)>,
    annotations: Value,
}

pub fn compute(key: &str) -> Compute {
    Compute {
        key: key.into(),
        priority: 0.0,
        who_has: Vec::new(),
        nbytes: 1,
        resources: Vec::new(),
        annotations: Value::Nil,
    }
}

impl Compute {
    pub fn needs(mut self, key: &str, workers: &[&str]) -> Compute {
        self.who_has.push((key.into(), workers.iter().map(|w| Address::new(*w)).collect()));
        self
    }
    pub fn nbytes(mut self, nbytes: i64) -> Compute {
        self.nbytes = nbytes;
        self
    }
    pub fn timeout(mut self, seconds: f64) -> Compute {
        self.annotations = Value::map([("timeout", Value::from(seconds))]);
        self
    }
    pub fn priority(mut self, priority: f64) -> Compute {
        self.priority = priority;
        self
    }
    pub fn resource(mut self, name: &str, amount: f64) -> Compute {
        self.resources.push((name.to_owned(), amount));
        self
    }
}

impl Rig {
    pub fn new(nthreads: u32) -> Rig {
        Rig::with(Config::new(Address::new(OWN), nthreads))
    }

    pub fn with(config: Config) -> Rig {
        Rig { state: State::new(config, 0.0), now: 0.0, run_id: 0 }
    }

    pub fn event(&mut self, event: Event) -> Actions {
        let mut actions = Vec::new();
        self.state.handle(self.now, event, &mut actions);
        self.state.check();
        actions
    }

    pub fn scheduler(&mut self, message: impl Into<SchedulerToWorker>) -> Actions {
        self.event(Event::Scheduler(message.into()))
    }

    /// Sends the task with a fresh run id, which is returned.
    pub fn compute(&mut self, task: Compute) -> (RunId, Actions) {
        self.run_id += 1;
        let nbytes = task.who_has.iter().map(|(key, _)| (key.clone(), task.nbytes)).collect();
        let message = ComputeTask {
            key: task.key,
            run_id: self.run_id,
            priority: Priority::new(task.priority, 0.0, 0.0),
            stimulus_id: "compute".into(),
            who_has: Pairs(task.who_has),
            nbytes,
            run_spec: Payload::pickled(Bytes::from_static(b"spec"), Vec::new()),
            resource_restrictions: (!task.resources.is_empty()).then_some(Pairs(task.resources)),
            actor: false,
            annotations: task.annotations,
            span_id: None,
        };
        (self.run_id, self.scheduler(message))
    }

    pub fn free(&mut self, keys: &[&str]) -> Actions {
        self.scheduler(FreeKeys { keys: keys.iter().map(|k| Key::from(*k)).collect(), stimulus_id: "free".into() })
    }

    pub fn remove_replicas(&mut self, keys: &[&str]) -> Actions {
        let keys = keys.iter().map(|k| Key::from(*k)).collect();
        self.scheduler(RemoveReplicas { keys, stimulus_id: "remove".into() })
    }

    pub fn acquire(&mut self, key: &str, workers: &[&str]) -> Actions {
        let (who_has, nbytes) = (holders(key, workers), Pairs(vec![(key.into(), 1)]));
        self.scheduler(AcquireReplicas { who_has, nbytes, stimulus_id: "acquire".into() })
    }

    pub fn refresh(&mut self, key: &str, workers: &[&str]) -> Actions {
        self.scheduler(RefreshWhoHas { who_has: holders(key, workers), stimulus_id: "refresh".into() })
    }

    pub fn remove_worker(&mut self, worker: &str) -> Actions {
        self.scheduler(RemoveWorker { worker: Address::new(worker), stimulus_id: "gone".into() })
    }

    pub fn steal(&mut self, key: &str) -> Actions {
        self.scheduler(StealRequest { key: key.into(), stimulus_id: "steal-1".into() })
    }

    pub fn succeed(&mut self, key: &str, run_id: RunId) -> Actions {
        self.done(key, run_id, success())
    }

    /// As `succeed`, after so many seconds.
    pub fn succeed_in(&mut self, key: &str, run_id: RunId, seconds: f64) -> Actions {
        let compute = StartStop { action: "compute".into(), start: 1.0, stop: 1.0 + seconds, source: None };
        let ExecuteOutcome::Success { nbytes, typename, type_pickle, metadata, thread, .. } = success() else {
            unreachable!("it is one")
        };
        let startstops = vec![compute];
        self.done(
            key,
            run_id,
            ExecuteOutcome::Success { nbytes, typename, type_pickle, metadata, thread, startstops, value: None },
        )
    }

    pub fn fail(&mut self, key: &str, run_id: RunId) -> Actions {
        let outcome = ExecuteOutcome::Failure { error: boom(), thread: Value::Nil, startstops: Vec::new() };
        self.done(key, run_id, outcome)
    }

    pub fn done(&mut self, key: &str, run_id: RunId, outcome: ExecuteOutcome) -> Actions {
        self.event(Event::ExecuteDone { key: key.into(), run_id, outcome, stimulus_id: "done".into() })
    }

    pub fn secede(&mut self, key: &str) -> Actions {
        self.event(Event::Seceded { key: key.into(), compute_duration: 2.0, stimulus_id: "secede".into() })
    }

    pub fn gathered(&mut self, worker: &str, keys: &[&str]) -> Actions {
        self.gathered_some(worker, keys, GatherOutcome::Answered)
    }

    pub fn gather_done(&mut self, worker: &str, outcome: GatherOutcome) -> Actions {
        self.gathered_some(worker, &[], outcome)
    }

    pub fn gathered_some(&mut self, worker: &str, keys: &[&str], outcome: GatherOutcome) -> Actions {
        let received = keys.iter().map(|k| (Key::from(*k), 8)).collect();
        let (worker, keys, stimulus_id) = (Address::new(worker), Vec::new(), "gather".into());
        self.event(Event::GatherDone { worker, keys, received, outcome, start: 0.0, stop: 1.0, stimulus_id })
    }

    pub fn scatter(&mut self, keys: &[&str]) -> Actions {
        let data = keys.iter().map(|k| (Key::from(*k), 4)).collect();
        self.event(Event::DataStored { data, report: false, stimulus_id: "scatter".into() })
    }

    pub fn at(&mut self, now: f64) -> Actions {
        self.now = now;
        self.event(Event::Timeout)
    }

    /// The task's state by dask's name.
    pub fn name(&self, key: &str) -> Option<&'static str> {
        self.state.task_state(&key.into()).map(TaskState::name)
    }

    pub fn state_of(&self, key: &str) -> Option<TaskState> {
        self.state.task_state(&key.into())
    }
}

fn holders(key: &str, workers: &[&str]) -> Pairs<Key, Vec<Address>> {
    Pairs(vec![(key.into(), workers.iter().map(|w| Address::new(*w)).collect())])
}

pub fn success() -> ExecuteOutcome {
    ExecuteOutcome::Success {
        nbytes: 8,
        typename: "int".into(),
        type_pickle: None,
        value: None,
        metadata: Value::Nil,
        thread: Value::Nil,
        startstops: Vec::new(),
    }
}

pub fn boom() -> ErrorInfo {
    ErrorInfo { exception_text: "boom".into(), ..ErrorInfo::default() }
}

/// A short notation of actions: `op key...` or `verb key...`.
pub fn brief(actions: &[Action]) -> Vec<String> {
    actions.iter().map(brief_action).collect()
}

fn brief_action(action: &Action) -> String {
    let list = |keys: &[Key]| keys.iter().map(Key::to_string).collect::<Vec<_>>().join(" ");
    match action {
        Action::Send(message) => match message {
            WorkerToScheduler::TaskFinished(m) => format!("task-finished {} {}", m.key, m.run_id),
            WorkerToScheduler::TaskErred(m) => format!("task-erred {} {}", m.key, m.run_id),
            WorkerToScheduler::ReleaseWorkerData(m) => format!("release-worker-data {}", m.key),
            WorkerToScheduler::AddKeys(m) => format!("add-keys {}", list(&m.keys)),
            WorkerToScheduler::LongRunning(m) => format!("long-running {} {:?}", m.key, m.compute_duration),
            WorkerToScheduler::Reschedule(m) => format!("reschedule {}", m.key),
            WorkerToScheduler::RequestRefreshWhoHas(m) => format!("request-refresh-who-has {}", list(&m.keys)),
            WorkerToScheduler::StealResponse(m) => format!("steal-response {} {:?}", m.key, m.state),
            WorkerToScheduler::WorkerStatusChange(m) => format!("status {}", m.status.name()),
            other => format!("{other:?}"),
        },
        Action::Gather { worker, keys, .. } => format!("gather {} {}", worker.host(), list(keys)),
        Action::Execute { key, run_id, .. } => format!("execute {key} {run_id}"),
        Action::CancelExecution { key, run_id } => format!("interrupt {key} {run_id}"),
        Action::InterruptExecution { key, run_id, limit } => format!("interrupt-overdue {key} {run_id} {limit}"),
        Action::ReplaceExecutor { key, run_id, limit } => format!("replace-executor {key} {run_id} {limit}"),
        Action::DropData { key } => format!("drop {key}"),
        Action::Illegal { .. } => "illegal".to_owned(),
        Action::Close { reason } => format!("close {reason}"),
    }
}
