//! An explanation as a message: what the RPC `explain` answers and the HTTP server shows as JSON.

use dask_protocol::{Address, Value};

use super::{Blocker, Explanation, Placement, Reason, ScoreRow};

impl Explanation {
    /// As a map; `text` is the whole in words.
    pub fn to_value(&self) -> Value {
        let deaths = self.deaths.iter().map(|(worker, death)| {
            Value::map([("worker", Value::from(worker.as_str())), ("text", death.to_string().into())])
        });
        let incidents = self.incidents.iter().map(|(at, incident)| {
            Value::map([("at", (*at).into()), ("kind", incident.name().into()), ("text", incident.to_string().into())])
        });
        Value::map([
            ("key", Value::from(&self.key)),
            ("now", self.now.into()),
            ("state", self.state.map(|state| state.name()).into()),
            ("since", self.since.into()),
            ("reason", self.reason.to_value()),
            ("stealing", self.stealing.as_deref().into()),
            ("placement", self.placement.as_ref().map(Placement::to_value).into()),
            ("earlier", Value::Array(self.earlier.iter().map(Placement::to_value).collect())),
            ("deaths", Value::Array(deaths.collect())),
            ("incidents", Value::Array(incidents.collect())),
            ("text", self.to_string().into()),
        ])
    }
}

impl Placement {
    fn to_value(&self) -> Value {
        Value::map([
            ("run_id", self.run_id.into()),
            ("at", self.at.into()),
            ("worker", self.worker.as_str().into()),
            ("rule", self.rule.name().into()),
            ("candidates", self.candidates.into()),
            ("scores", Value::Array(self.scores.iter().map(ScoreRow::to_value).collect())),
        ])
    }
}

impl ScoreRow {
    fn to_value(&self) -> Value {
        Value::map([
            ("worker", self.worker.as_str().into()),
            ("nthreads", i64::from(self.nthreads).into()),
            ("processing", i64::from(self.processing).into()),
            ("occupancy", self.occupancy.into()),
            ("missing", self.missing.into()),
            ("start", self.start.into()),
            ("stored", self.stored.into()),
        ])
    }
}

impl Blocker {
    fn to_value(&self) -> Value {
        Value::map([
            ("key", Value::from(&self.key)),
            ("state", self.state.name().into()),
            ("reason", self.reason.to_value()),
        ])
    }
}

impl Reason {
    /// Its name in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Reason::Unknown => "unknown",
            Reason::NotNeeded => "not-needed",
            Reason::AboutToWait => "about-to-wait",
            Reason::WaitsFor { .. } => "waits-for",
            Reason::Queued { .. } => "queued",
            Reason::NoWorkers => "no-workers",
            Reason::NoSuitableWorker { .. } => "no-suitable-worker",
            Reason::Processing { .. } => "processing",
            Reason::InMemory { .. } => "in-memory",
            Reason::Erred { .. } => "erred",
        }
    }

    fn to_value(&self) -> Value {
        let about = [("kind", Value::from(self.name())), ("text", self.to_string().into())];
        Value::map(about.into_iter().chain(self.fields()))
    }

    fn fields(&self) -> Vec<(&'static str, Value)> {
        let blockers = |list: &[Blocker]| Value::Array(list.iter().map(Blocker::to_value).collect());
        let addresses = |list: &[Address]| Value::Array(list.iter().map(|one| one.as_str().into()).collect());
        match self {
            Reason::Unknown | Reason::NotNeeded | Reason::AboutToWait | Reason::NoWorkers => Vec::new(),
            Reason::WaitsFor { inputs, missing, of, behind } => vec![
                ("inputs", blockers(inputs)),
                ("missing", (*missing).into()),
                ("of", (*of).into()),
                ("behind", blockers(behind)),
            ],
            Reason::Queued { ahead, workers, saturation } => {
                vec![("ahead", (*ahead).into()), ("workers", (*workers).into()), ("saturation", (*saturation).into())]
            }
            Reason::NoSuitableWorker { refusals, workers, hopeless } => {
                let refusals = refusals.iter().map(|refusal| {
                    Value::map([
                        ("why", refusal.why.as_str().into()),
                        ("workers", refusal.workers.into()),
                        ("example", refusal.example.as_str().into()),
                    ])
                });
                vec![
                    ("refusals", Value::Array(refusals.collect())),
                    ("workers", (*workers).into()),
                    ("hopeless", (*hopeless).into()),
                ]
            }
            Reason::Processing {
                worker,
                since,
                given,
                nthreads,
                expected,
                to_fetch,
                bytes_to_fetch,
                long_running,
                silent,
            } => vec![
                ("worker", worker.as_str().into()),
                ("since", (*since).into()),
                ("given", (*given).into()),
                ("nthreads", i64::from(*nthreads).into()),
                ("expected", (*expected).into()),
                ("to_fetch", Value::Array(to_fetch.iter().map(Value::from).collect())),
                ("bytes_to_fetch", (*bytes_to_fetch).into()),
                ("long_running", (*long_running).into()),
                ("silent", (*silent).into()),
            ],
            Reason::InMemory { holders, copies, nbytes } => {
                vec![("holders", addresses(holders)), ("copies", (*copies).into()), ("nbytes", (*nbytes).into())]
            }
            Reason::Erred { cause, exception, on } => {
                vec![("cause", cause.into()), ("exception", (&**exception).into()), ("on", addresses(on))]
            }
        }
    }
}
