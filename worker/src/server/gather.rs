//! Fetching values from peers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dask_protocol::message::StimulusId;
use dask_protocol::{Address, CommError, Key};
use tokio::sync::broadcast::{self, error::RecvError};
use tracing::{debug, error};

use super::metrics::{InProgress, Metrics};
use super::shared::{Input, Shared, arrived};
use super::transfer::{Ended, Transfer};
use crate::executor;
use crate::executor::python::lending::Borrowed;
use crate::state::{Event, GatherOutcome};
use crate::store::Stored;

/// Completes when the scheduler says that this worker left: nobody need try to reach it any longer.
async fn removed(mut removals: broadcast::Receiver<Address>, worker: &Address) {
    loop {
        match removals.recv().await {
            Ok(gone) if gone == *worker => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Carries out one `Gather` of the state.
pub(crate) async fn run(
    shared: Arc<Shared>,
    worker: Address,
    keys: Vec<Key>,
    total_nbytes: i64,
    stimulus_id: StimulusId,
) {
    let metrics = &shared.metrics;
    metrics.incoming_count_total.fetch_add(1, Ordering::Relaxed);
    let progress = InProgress::begin(&metrics.incoming_count, &metrics.incoming_bytes, total_nbytes);
    let start = shared.clock.now();
    let removals = shared.removals.subscribe();
    let mut transfer = Transfer::new(worker.clone(), keys.clone());
    let ended = tokio::select! {
        ended = transfer.run(&shared) => ended,
        () = removed(removals, &worker) => Err(CommError::Closed { peer: worker.as_str().to_owned() }),
    };
    let stop = shared.clock.now();
    drop(progress);
    let (borrowed, outcome) = match ended {
        Ok(Ended::Answered(borrowed)) => (borrowed, GatherOutcome::Answered),
        Ok(Ended::Busy) => (None, GatherOutcome::Busy),
        // The peer is there and answers nonsense: asking again would not help.
        Err(broken @ (CommError::Decode(_) | CommError::Remote { .. } | CommError::Encode(_))) => {
            error!(target: "distributed.worker", "Could not gather {} keys from {worker}: {broken}", keys.len());
            (None, GatherOutcome::Failed { error: executor::describe("RuntimeError", &broken.to_string()) })
        }
        Err(
            broken @ (CommError::Closed { .. }
            | CommError::Connect { .. }
            | CommError::Address { .. }
            | CommError::Io(_)
            | CommError::Handshake { .. }
            | CommError::Tls(_)
            | CommError::Timeout { .. }),
        ) => {
            error!(target: "distributed.worker", "Worker stream died during communication: {worker} ({broken})");
            (None, GatherOutcome::Unreachable)
        }
    };
    let values: Vec<_> = transfer.into_values().into_iter().map(arrived).collect();
    let mut received: Vec<(Key, i64)> = values.iter().map(|(key, value)| (key.clone(), value.nbytes)).collect();
    count(metrics, &worker, &received, borrowed.as_ref(), stop - start);
    debug!(%worker, keys = keys.len(), total_nbytes, "transfer ended");
    let Some(borrowed) = borrowed else {
        let event = Event::GatherDone { worker, keys, received, outcome, start, stop, stimulus_id };
        return shared.notify_with(values, event);
    };
    let stage = Arc::clone(&shared);
    let step = move || {
        stage.keep(values);
        let outcome = match borrowed.keep(stage.python().as_ref()) {
            Some(copies) => {
                received.extend(copies.iter().cloned());
                stage.keep(copies.into_iter().map(|(key, nbytes)| (key, Stored::python(nbytes, None))).collect());
                outcome
            }
            // They went with the Python process: once more.
            None => GatherOutcome::Busy,
        };
        vec![Event::GatherDone { worker, keys, received, outcome, start, stop, stimulus_id }]
    };
    shared.inbox.send(Input::Step(Box::new(step)));
}

/// Notes what came, sent and copied.
fn count(metrics: &Metrics, worker: &Address, sent: &[(Key, i64)], borrowed: Option<&Borrowed>, seconds: f64) {
    let copied: &[(Key, i64)] = borrowed.map_or(&[], |borrowed| &borrowed.sizes);
    let nbytes = |sizes: &[(Key, i64)]| sizes.iter().map(|(_, nbytes)| nbytes).sum::<i64>();
    if sent.is_empty() && copied.is_empty() {
        return;
    }
    metrics.borrowed_bytes_total.fetch_add(nbytes(copied), Ordering::Relaxed);
    metrics.received(worker, nbytes(sent) + nbytes(copied), seconds);
    metrics.gathered(seconds);
}
