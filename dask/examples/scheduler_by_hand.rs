//! The scheduler as a library: its state driven by hand, without sockets, threads or a clock.
//!
//! Two pretend workers, a graph of three tasks, one death. Every decision is printed.
//!
//! ```console
//! cargo run -p dask --example scheduler_by_hand
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use dask::Address;
use dask_protocol::message::{SchedulerToClient, SchedulerToWorker, StartStop, TaskFinished, WorkerStatus};
use dask_protocol::{Key, Payload, Value};
use dask_scheduler::state::{
    Action, Config, Event, NewTask, NewWorker, Runtime, State, TaskSpec, TaskState, UpdateGraph,
};

const CLIENT: &str = "by-hand";

/// A task; what it would run is opaque to the scheduler.
fn task(key: &str, dependencies: &[&str], order: f64) -> NewTask {
    NewTask {
        key: key.into(),
        dependencies: dependencies.iter().map(|key| Key::from(*key)).collect(),
        spec: TaskSpec::Payload(Payload::serialized("example", None, Vec::new())),
        runtime: Runtime::Native,
        data_producer: false,
        is_task: true,
        is_barrier: false,
        order,
        actor: false,
        annotations: Arc::default(),
    }
}

fn worker(n: u16) -> NewWorker {
    NewWorker {
        address: Address::from_parts("tcp", "10.0.0.1", n),
        name: Value::from(i64::from(n)),
        server_id: format!("worker-{n}"),
        status: WorkerStatus::Running,
        nthreads: 1,
        memory_limit: 0,
        resources: Default::default(),
        nanny: None,
        runtimes: vec![Runtime::Native],
        stimulus_id: "register".into(),
    }
}

fn main() {
    let mut now = 0.0;
    let mut state = State::new(Config { validate: true, ..Config::default() }, now);
    let mut events: VecDeque<Event> = VecDeque::from([
        Event::AddClient { client: CLIENT.into() },
        Event::AddWorker(Box::new(worker(1))),
        Event::AddWorker(Box::new(worker(2))),
        Event::UpdateGraph(Box::new(UpdateGraph {
            client: CLIENT.into(),
            tasks: vec![task("a", &[], 0.0), task("b", &[], 1.0), task("c", &["a", "b"], 2.0)],
            keys: vec!["c".into()],
            submitting_task: None,
            fifo_timeout: 0.0,
            stimulus_id: "submit".into(),
        })),
    ]);
    let mut died = false;
    while let Some(event) = events.pop_front() {
        now += 0.001;
        let mut actions = Vec::new();
        state.handle(now, event, &mut actions);
        for action in actions {
            match action {
                Action::ToWorker { worker, message: SchedulerToWorker::ComputeTask(compute) } => {
                    println!("{now:.3}  {worker} computes {}", compute.key);
                    if compute.key == Key::from("b") && !died {
                        died = true;
                        println!("       ... and dies");
                        let stimulus_id = "lost".into();
                        events.push_back(Event::RemoveWorker { worker, expected: false, close: true, stimulus_id });
                        continue;
                    }
                    let finished = TaskFinished {
                        key: compute.key,
                        run_id: compute.run_id,
                        nbytes: 8,
                        type_pickle: None,
                        typename: "f64".into(),
                        metadata: Value::Map(Vec::new()),
                        thread: Value::Nil,
                        startstops: vec![StartStop { action: "compute".into(), start: now, stop: now, source: None }],
                        value: None,
                        status: "OK".into(),
                        stimulus_id: "finished".into(),
                    };
                    events.push_back(Event::WorkerMessage { worker, message: finished.into() });
                }
                Action::ToClient { message: SchedulerToClient::KeyInMemory(done), .. } => {
                    println!("{now:.3}  the client is told that {} is in memory", done.key);
                }
                // Housekeeping: keys to free, notes for dashboards, the death that we made ourselves.
                _ => {}
            }
        }
    }
    assert_eq!(state.task_state(&"c".into()), Some(TaskState::Memory), "all is computed, despite the death");
    println!("the story of b:");
    for row in state.story(&[Value::from("b")]) {
        println!("  {row:?}");
    }
}
