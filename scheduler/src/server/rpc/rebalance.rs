//! `rebalance`: move results from workers that hold much to workers that hold little.

use std::collections::VecDeque;

use dask_protocol::message::{Keys, Request};
use dask_protocol::{Address, Key, Value};
use indexmap::{IndexMap, IndexSet};
use serde::Deserialize;

use super::super::core::Core;
use super::super::failure::{Failure, Reply, reply};
use super::super::shared::Server;
use super::queries::named_workers;
use super::replicate::{FetchPlan, PartialFail, gather_on_workers};
use crate::state::Event;

/// Half of `worker.memory.rebalance.sender-recipient-gap`: how far from the mean a worker may be, as a share of its limit.
const HALF_GAP: f64 = 0.05;
/// `worker.memory.rebalance.sender-min`.
const SENDER_MIN: f64 = 0.30;
/// `worker.memory.rebalance.recipient-max`.
const RECIPIENT_MAX: f64 = 0.60;

/// `rebalance`.
pub(crate) async fn rebalance(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        keys: Option<Keys>,
        #[serde(default)]
        workers: Value,
    }
    let Args { keys, workers } = request.args()?;
    let keys: Option<IndexSet<Key>> = keys.map(|keys| keys.into_iter().collect());
    let wanted = keys.clone();
    let _alone = server.replicas.lock().await;
    let planned = server.driver.run(move |core| plan(core, wanted.as_ref(), &workers)).await?;
    let moves = match planned {
        Ok(moves) => moves,
        Err(missing) => return reply(&PartialFail::new(missing)),
    };
    let failed = carry_out(server, moves).await?;
    // Failures only matter for keys that the caller named.
    if keys.is_some() && !failed.is_empty() { reply(&PartialFail::new(failed)) } else { done() }
}

fn done() -> Reply {
    reply(&Value::map([("status", "OK".into())]))
}

/// One result that goes from one worker to another.
#[derive(Debug, Clone, PartialEq)]
struct Move {
    key: Key,
    from: Address,
    to: Address,
}

/// A worker that has too much.
struct Sender {
    address: Address,
    /// Bytes until it reaches the mean, and until it may stop.
    surplus: f64,
    stop_below: f64,
    keys: VecDeque<(Key, f64)>,
}

/// A worker that has room.
struct Recipient {
    address: Address,
    room: f64,
    stop_below: f64,
    held: IndexSet<Key>,
}

/// Looks at the workers' memory and decides; an error names keys without data.
fn plan(core: &mut Core, keys: Option<&IndexSet<Key>>, workers: &Value) -> Result<Vec<Move>, Vec<Key>> {
    let missing = |key: &&Key| core.state.who_has(key).is_empty();
    let missing: Vec<Key> = keys.into_iter().flatten().filter(missing).cloned().collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let workers = named_workers(core, workers).unwrap_or_else(|| core.workers.keys().cloned().collect());
    let (senders, recipients) = sort_out(core, &workers, keys);
    let counts = [("senders", senders.len()), ("recipients", recipients.len())];
    let moves = pair(senders, recipients);
    let counts = counts.into_iter().chain([("moved_keys", moves.len())]).map(|(name, count)| (name, count.into()));
    core.log_event(&"all".into(), Value::map([("action", "rebalance".into())].into_iter().chain(counts)));
    Ok(moves)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^52")]
fn sort_out(core: &Core, workers: &[Address], keys: Option<&IndexSet<Key>>) -> (Vec<Sender>, Vec<Recipient>) {
    let views: Vec<_> = workers.iter().filter_map(|address| core.state.worker(address)).collect();
    let mean = views.iter().map(|view| view.memory.optimistic() as f64).sum::<f64>() / views.len().max(1) as f64;
    let (mut senders, mut recipients) = (Vec::new(), Vec::new());
    for view in views {
        let limit = if view.memory_limit == 0 { f64::INFINITY } else { view.memory_limit as f64 };
        let (gap, sender_min) = if limit.is_finite() { (HALF_GAP * limit, SENDER_MIN * limit) } else { (0.0, 0.0) };
        let used = view.memory.optimistic() as f64;
        let held = core.state.has_what(view.address);
        if !held.is_empty() && used >= mean + gap && used >= sender_min {
            let sized = |key: Key| {
                let bytes = core.state.nbytes_of(&key)? as f64;
                Some((key, bytes))
            };
            // Actors stay: what holds their state is not a value.
            let is_actor = |key: &Key| core.state.task(key).is_some_and(|task| task.actor);
            let named = held.into_iter().filter(|key| keys.is_none_or(|keys| keys.contains(key)));
            let movable = named.filter(|key| !is_actor(key));
            let keys = movable.filter_map(sized).collect();
            senders.push(Sender { address: view.address.clone(), surplus: used - mean, stop_below: gap, keys });
        } else if used < mean - gap && used < RECIPIENT_MAX * limit {
            let held = held.into_iter().collect();
            recipients.push(Recipient { address: view.address.clone(), room: mean - used, stop_below: gap, held });
        }
    }
    (senders, recipients)
}

/// Takes from the worker furthest above the mean what fits the one furthest below, until one side is settled.
fn pair(mut senders: Vec<Sender>, mut recipients: Vec<Recipient>) -> Vec<Move> {
    let mut moves = Vec::new();
    while let Some(at) = furthest(senders.iter().map(|sender| sender.surplus)) {
        let sender = &mut senders[at];
        let Some((key, bytes)) = sender.keys.pop_front() else {
            senders.swap_remove(at);
            continue;
        };
        if bytes > sender.surplus {
            continue;
        }
        let fits = |recipient: &Recipient| recipient.room >= bytes && !recipient.held.contains(&key);
        let rooms = recipients.iter().map(|recipient| if fits(recipient) { recipient.room } else { -1.0 });
        let Some(to) = furthest(rooms).filter(|&to| fits(&recipients[to])) else { continue };
        let recipient = &mut recipients[to];
        sender.surplus -= bytes;
        recipient.room -= bytes;
        recipient.held.insert(key.clone());
        moves.push(Move { key, from: sender.address.clone(), to: recipient.address.clone() });
        if sender.surplus <= sender.stop_below {
            senders.swap_remove(at);
        }
        if recipients[to].room <= recipients[to].stop_below {
            recipients.swap_remove(to);
        }
        if recipients.is_empty() {
            break;
        }
    }
    moves
}

fn furthest(distances: impl Iterator<Item = f64>) -> Option<usize> {
    distances.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(at, _)| at)
}

/// Copies, then drops what was copied at its origin; returns keys that did not arrive. Whether the copy is still there is
/// looked at together with the drop, so that a worker that leaves in between takes nothing along.
async fn carry_out(server: &Server, moves: Vec<Move>) -> Result<Vec<Key>, Failure> {
    let mut fetches = FetchPlan::new();
    for Move { key, from, to } in &moves {
        fetches.entry(to.clone()).or_default().push((key.clone(), vec![from.clone()]));
    }
    gather_on_workers(server, fetches).await?;
    let failed = server.driver.run(move |core| {
        let arrived = |one: &Move| core.state.who_has(&one.key).contains(&one.to);
        let (arrived, failed) = moves.into_iter().partition::<Vec<_>, _>(arrived);
        let mut surplus: IndexMap<Address, Vec<Key>> = IndexMap::new();
        for Move { key, from, .. } in arrived {
            surplus.entry(from).or_default().push(key);
        }
        let stimulus_id = core.stimulus("rebalance");
        for (worker, keys) in surplus {
            core.handle(Event::DropReplicas { worker, keys, stimulus_id: stimulus_id.clone() });
        }
        failed
    });
    Ok(failed.await?.into_iter().map(|one| one.key).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(surplus: f64, keys: &[(&str, f64)]) -> Sender {
        let keys = keys.iter().map(|&(key, bytes)| (Key::from(key), bytes)).collect();
        Sender { address: "tcp://a:1".into(), surplus, stop_below: 0.0, keys }
    }

    fn recipient(address: &str, room: f64) -> Recipient {
        Recipient { address: address.into(), room, stop_below: 0.0, held: IndexSet::new() }
    }

    #[test]
    fn moves_go_to_whoever_has_most_room_and_never_past_the_mean() {
        let senders = vec![sender(10.0, &[("big", 20.0), ("x", 6.0), ("y", 4.0), ("z", 4.0)])];
        let moves = pair(senders, vec![recipient("tcp://b:1", 5.0), recipient("tcp://c:1", 8.0)]);
        let to: Vec<_> = moves.iter().map(|one| (one.key.as_str().expect("text"), one.to.as_str())).collect();
        assert_eq!(to, [("x", "tcp://c:1"), ("y", "tcp://b:1")]);
    }

    #[test]
    fn a_holder_gets_no_second_copy() {
        let mut there = recipient("tcp://b:1", 100.0);
        there.held.insert(Key::from("x"));
        assert!(pair(vec![sender(10.0, &[("x", 1.0)])], vec![there]).is_empty());
    }
}
