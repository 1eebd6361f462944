//! Which workers could go (`workers_to_close`); `advice.rs` tells how many.

use dask_protocol::Address;

use super::State;
use super::worker::Worker;

/// Times the data held that must remain as memory, where nothing else is asked for.
const MEMORY_RATIO: f64 = 2.0;

/// What to choose workers by; fields as the arguments of dask's `workers_to_close`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkersToClose {
    /// Memory to keep, as a multiple of the data held.
    pub memory_ratio: Option<f64>,
    /// How many to close.
    pub n: Option<usize>,
    /// How many to keep at least.
    pub minimum: Option<usize>,
    /// How many to keep.
    pub target: Option<usize>,
}

/// Workers that are closed together.
struct Group<'a> {
    workers: Vec<&'a Worker>,
    idle: bool,
    memory_limit: u128,
    nbytes: u128,
}

impl State {
    /// Workers that can be closed at little cost: idle ones with little data. `group` tells which ones are closed only
    /// together (dask's `key`, such as the host).
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn workers_to_close(&self, args: &WorkersToClose, group: impl Fn(&Address) -> String) -> Vec<Address> {
        let count = self.workers.len();
        let n = args.n.or(args.target.map(|target| count.saturating_sub(target)));
        let target = n.map_or(0, |n| count.saturating_sub(n));
        let ratio = args.memory_ratio.or(n.is_none().then_some(MEMORY_RATIO));
        let all_busy = self.workers.iter().all(|(_, worker)| !worker.processing.is_empty());
        if n.unwrap_or(0) == 0 && all_busy {
            return Vec::new();
        }
        let mut groups = self.closable_groups(group);
        let mut limit: u128 = groups.iter().map(|group| group.memory_limit).sum();
        let total: u128 = groups.iter().map(|group| group.nbytes).sum();
        // Taken from the end: idle ones with least data.
        groups.sort_by_key(|group| (group.idle, std::cmp::Reverse(group.nbytes)));
        let mut remaining = count;
        let mut chosen = Vec::new();
        while let Some(group) = groups.pop() {
            let after = remaining.saturating_sub(group.workers.len());
            if (n.is_none() && !group.idle) || args.minimum.is_some_and(|minimum| minimum > 0 && after < minimum) {
                break;
            }
            limit -= group.memory_limit;
            let by_count = n.is_some() && remaining - group.workers.len() >= target;
            let by_memory = ratio.is_some_and(|ratio| limit as f64 >= ratio * total as f64);
            if !by_count && !by_memory {
                break;
            }
            remaining = after;
            chosen.extend(group.workers.iter().map(|worker| worker.address.clone()));
        }
        chosen
    }

    /// Workers without long-running tasks, which usually wait for other tasks, in groups.
    fn closable_groups(&self, group: impl Fn(&Address) -> String) -> Vec<Group<'_>> {
        let mut groups = super::ids::FastMap::<String, Vec<&Worker>>::default();
        for (_, worker) in self.workers.iter().filter(|(_, worker)| worker.long_running.is_empty()) {
            groups.entry(group(&worker.address)).or_default().push(worker);
        }
        let measure = |workers: Vec<&'_ Worker>| {
            (
                workers.iter().all(|worker| worker.processing.is_empty()),
                workers.iter().map(|worker| u128::from(worker.memory_limit)).sum(),
                workers.iter().map(|worker| worker.nbytes).sum(),
            )
        };
        let build = |workers: Vec<_>| {
            let (idle, memory_limit, nbytes) = measure(workers.clone());
            Group { workers, idle, memory_limit, nbytes }
        };
        groups.into_values().map(build).collect()
    }
}
