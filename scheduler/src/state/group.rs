//! Groups and prefixes of tasks: what tasks of one layer, and of one name, have in common.

use dask_protocol::Key;
use slab::Slab;

use super::config::Config;
use super::event::Seconds;
use super::ids::{FastMap, FastSet, GroupId, IdSet, PrefixId, WorkerId};
use super::spans::Spans;
use super::task::TaskState;

/// Longest duration taken from a peer, in seconds: longer ones are clock errors (30 years).
const DURATION_MAX: Seconds = 1e9;
/// Most different actions (`compute`, `transfer`, ...) whose time a prefix adds up; dask has six.
const ACTIONS_MAX: usize = 16;
/// Prefixes that are remembered without tasks, about 300 bytes each: programs have tens, but keys of a user's own may each be
/// one. Dask remembers all.
const PREFIXES_IDLE_MAX: usize = 100_000;
/// Prefixes whose default duration is at most this many seconds are never stolen.
const FAST_TASK: Seconds = 0.001;

/// Tasks per state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateCounts(pub(super) [u32; 8]);

impl StateCounts {
    /// How many are in this state.
    pub fn get(&self, state: TaskState) -> usize {
        self.0[state as usize] as usize
    }

    pub(super) fn add(&mut self, state: TaskState) {
        self.0[state as usize] += 1;
    }

    pub(super) fn sub(&mut self, state: TaskState) {
        self.0[state as usize] -= 1;
    }

    /// Whether nothing is left to compute (`TaskGroup.done`).
    pub fn is_done(&self) -> bool {
        const OPEN: [TaskState; 4] =
            [TaskState::Waiting, TaskState::NoWorker, TaskState::Queued, TaskState::Processing];
        OPEN.iter().all(|state| self.get(*state) == 0)
    }

    /// How many are known in any state but forgotten.
    pub fn alive(&self) -> usize {
        let all: u32 = self.0.iter().sum();
        (all - self.0[TaskState::Forgotten as usize]) as usize
    }
}

/// A group (`TaskGroup`): tasks whose keys differ only in their index.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Key,
    pub(super) prefix: PrefixId,
    pub(super) states: StateCounts,
    /// Tasks ever added while the group exists, forgotten ones too, as dask's `len(group)`.
    pub(super) size: usize,
    pub(super) dependencies: IdSet<GroupId>,
    /// Dependencies that are forgotten by now, and the tasks that were in them: they go on counting.
    pub(super) past_dependencies: (usize, usize),
    pub(super) dependents: IdSet<GroupId>,
    pub(super) last_worker: Option<WorkerId>,
    pub(super) last_worker_tasks_left: u64,
    pub(super) span_id: Option<String>,
    /// Whether clients were warned that its tasks cannot run anywhere.
    pub(super) warned: bool,
    /// Whether clients were warned that a worker does not know their timeout.
    pub(super) timeout_warned: bool,
}

/// A prefix (`TaskPrefix`): tasks of one kind, expected to take equally long.
#[derive(Debug)]
pub(super) struct Prefix {
    pub(super) name: String,
    pub(super) states: StateCounts,
    /// How often its tasks reached each state, in the order of [`TaskState::ALL`] (`state_counts`).
    pub(super) reached: [u64; TaskState::ALL.len()],
    /// Bytes of its results that are on some worker, each counted once (`nbytes_total`).
    pub(super) nbytes: u128,
    /// Average seconds of computing; negative while unknown.
    pub(super) duration_average: Seconds,
    pub(super) max_exec_time: Seconds,
    /// The longest of the last tasks, which weighs less with each one that follows.
    pub(super) longest_lately: Seconds,
    /// Unexpected losses of workers while tasks of this prefix ran.
    pub(super) suspicious: u64,
    /// Tasks processing anywhere, without long-running ones.
    pub(super) processing: u64,
    /// What `processing` is multiplied with in the total occupancy.
    pub(super) estimate_ns: u64,
    pub(super) stealable: bool,
    /// Seconds spent per action.
    pub(super) all_durations: Vec<(Box<str>, Seconds)>,
}

/// What is left of the longest of the last tasks' durations after one more task: half of it after 700.
const LONGEST_KEPT: f64 = 0.999;

impl Prefix {
    /// Seconds one more task is expected to take.
    pub(super) fn estimate(&self, unknown: Seconds) -> Seconds {
        if self.duration_average >= 0.0 {
            self.duration_average
        } else if self.max_exec_time > 0.0 {
            2.0 * self.max_exec_time
        } else {
            unknown
        }
    }

    /// A task has been running for this long: averages that it doubles were wrong.
    pub(super) fn add_exec_time(&mut self, duration: Seconds) {
        let duration = clamp(duration);
        self.max_exec_time = self.max_exec_time.max(duration);
        self.longest_lately = self.longest_lately.max(duration);
        if duration > 2.0 * self.duration_average {
            self.duration_average = -1.0;
        }
    }

    /// A part of a task's life took this long.
    pub(super) fn add_duration(&mut self, action: &str, duration: Seconds) {
        let duration = (clamp(duration) * 1e6).round_ties_even() / 1e6;
        if action == "compute" {
            self.add_compute_time(duration);
        }
        let room = self.all_durations.len() < ACTIONS_MAX;
        match self.all_durations.iter_mut().find(|(name, _)| **name == *action) {
            Some((_, total)) => *total += duration,
            None if room => self.all_durations.push((action.into(), duration)),
            None => {}
        }
    }

    /// Half the weight to the newest.
    pub(super) fn add_compute_time(&mut self, duration: Seconds) {
        let duration = clamp(duration);
        let old = self.duration_average;
        self.duration_average = if old < 0.0 { duration } else { 0.5 * duration + 0.5 * old };
        self.longest_lately = duration.max(LONGEST_KEPT * self.longest_lately);
    }
}

/// Durations come from peers: no NaN, nothing negative, nothing absurd.
pub(super) fn clamp(duration: Seconds) -> Seconds {
    if duration > 0.0 { duration.min(DURATION_MAX) } else { 0.0 }
}

/// Seconds as whole nanoseconds, so that sums are exact and need no repair.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to be in range")]
pub(super) fn nanoseconds(duration: Seconds) -> u64 {
    (clamp(duration) * 1e9) as u64
}

/// All groups and prefixes.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) groups: Slab<Group>,
    group_ids: FastMap<Key, GroupId>,
    pub(super) prefixes: Slab<Prefix>,
    prefix_ids: FastMap<String, PrefixId>,
    /// Prefixes with tasks when those without were last forgotten.
    prefixes_in_use: usize,
    pub(super) spans: Spans,
    /// The group key last looked up: the tasks of one layer come one after another.
    last: Option<(Key, GroupId)>,
}

impl Groups {
    pub(super) fn group(&self, id: GroupId) -> &Group {
        &self.groups[id.index()]
    }

    pub(super) fn group_mut(&mut self, id: GroupId) -> &mut Group {
        &mut self.groups[id.index()]
    }

    pub(super) fn prefix(&self, id: PrefixId) -> &Prefix {
        &self.prefixes[id.index()]
    }

    pub(super) fn prefix_mut(&mut self, id: PrefixId) -> &mut Prefix {
        &mut self.prefixes[id.index()]
    }

    /// The group and prefix of a key, made on first sight.
    pub(super) fn of_key(&mut self, key: &Key, config: &Config) -> (GroupId, PrefixId) {
        if let Some((last, id)) = &self.last
            && key.is_of_group(last)
        {
            return (*id, self.group(*id).prefix);
        }
        let name = key.group();
        let id = match self.group_ids.get(&name) {
            Some(id) => *id,
            None => {
                let prefix = self.prefix_named(key.prefix().into_owned(), config);
                let group = Group {
                    name: name.clone(),
                    prefix,
                    states: StateCounts::default(),
                    size: 0,
                    dependencies: IdSet::default(),
                    past_dependencies: (0, 0),
                    dependents: IdSet::default(),
                    last_worker: None,
                    last_worker_tasks_left: 0,
                    span_id: None,
                    warned: false,
                    timeout_warned: false,
                };
                let id = GroupId::from_index(self.groups.insert(group));
                self.group_ids.insert(name.clone(), id);
                id
            }
        };
        self.last = Some((name, id));
        (id, self.group(id).prefix)
    }

    fn prefix_named(&mut self, name: String, config: &Config) -> PrefixId {
        if let Some(id) = self.prefix_ids.get(&name) {
            return *id;
        }
        let default = config.default_task_durations.iter().find(|(prefix, _)| *prefix == name);
        let duration_average = default.map_or(-1.0, |(_, duration)| *duration);
        let mut prefix = Prefix {
            name: name.clone(),
            states: StateCounts::default(),
            reached: [0; TaskState::ALL.len()],
            nbytes: 0,
            duration_average,
            max_exec_time: -1.0,
            longest_lately: 0.0,
            suspicious: 0,
            processing: 0,
            estimate_ns: 0,
            stealable: default.is_none_or(|(_, duration)| *duration > FAST_TASK),
            all_durations: Vec::new(),
        };
        prefix.estimate_ns = nanoseconds(prefix.estimate(config.unknown_task_duration));
        if self.prefixes.len() >= self.prefixes_in_use + PREFIXES_IDLE_MAX {
            self.forget_idle_prefixes();
        }
        let id = PrefixId::from_index(self.prefixes.insert(prefix));
        self.prefix_ids.insert(name, id);
        id
    }

    /// Forgets the prefixes, and their durations, of which there is no group.
    fn forget_idle_prefixes(&mut self) {
        let used: FastSet<PrefixId> = self.groups.iter().map(|(_, group)| group.prefix).collect();
        self.prefixes.retain(|index, _| used.contains(&PrefixId::from_index(index)));
        self.prefix_ids.retain(|_, id| used.contains(id));
        self.prefixes_in_use = used.len();
    }

    /// Members of `group` read results of `dependency`.
    pub(super) fn add_dependency(&mut self, group: GroupId, dependency: GroupId) {
        if self.group_mut(group).dependencies.insert(dependency) {
            self.group_mut(dependency).dependents.insert(group);
        }
    }

    /// Removes a group once all its tasks are forgotten; its share of the prefix goes with it.
    pub(super) fn remove_if_forgotten(&mut self, id: GroupId) {
        if self.group(id).states.alive() > 0 {
            return;
        }
        let group = self.groups.remove(id.index());
        self.group_ids.swap_remove(&group.name);
        self.last = None;
        self.spans.group_removed(id);
        for other in group.dependencies.iter().filter(|other| *other != id) {
            self.group_mut(other).dependents.remove(id);
        }
        for other in group.dependents.iter().filter(|other| *other != id) {
            let dependent = self.group_mut(other);
            dependent.dependencies.remove(id);
            let (groups, tasks) = &mut dependent.past_dependencies;
            (*groups, *tasks) = (*groups + 1, *tasks + group.size);
        }
        let prefix = self.prefix_mut(group.prefix);
        for state in TaskState::ALL {
            prefix.states.0[state as usize] -= group.states.0[state as usize];
        }
    }

    /// Forgets the prefixes, when no task is left that belongs to one.
    pub(super) fn forget_durations(&mut self) {
        if self.groups.is_empty() {
            self.prefixes.clear();
            self.prefix_ids.clear();
            self.prefixes_in_use = 0;
            self.last = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_prefixes_without_tasks_the_last_are_remembered() {
        let (mut groups, config) = (Groups::default(), Config::default());
        let (busy, _) = groups.of_key(&Key::from("busy"), &config);
        groups.group_mut(busy).states.add(TaskState::Waiting);
        for i in 0..PREFIXES_IDLE_MAX + 10 {
            let (group, prefix) = groups.of_key(&Key::from(format!("key_{i}_")), &config);
            groups.prefix_mut(prefix).add_compute_time(1.0);
            groups.remove_if_forgotten(group);
        }
        assert!(groups.prefixes.len() < 100, "{}", groups.prefixes.len());
        assert_eq!(groups.prefixes.len(), groups.prefix_ids.len());
        let (again, prefix) = groups.of_key(&Key::from("busy"), &config);
        assert_eq!((again, groups.group(busy).prefix), (busy, prefix));
        let (_, fresh) = groups.of_key(&Key::from("key_0_"), &config);
        assert!(groups.prefix(fresh).duration_average < 0.0, "it was forgotten");
    }
}
