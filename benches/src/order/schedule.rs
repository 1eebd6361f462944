//! Threads that follow an order: each takes the first task that is ready.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Recorded;

/// Durations are drawn so many times.
const DRAWS: u64 = 5;
/// The mean duration of a task, in ticks; single ones differ by up to a quarter.
const TICKS: u64 = 1_000_000;

/// What an order comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// When everything is done, in mean durations of a task.
    pub makespan: f64,
    /// The most results held at once that something has yet to read.
    pub peak: f64,
}

impl Figures {
    /// The mean of both figures.
    #[expect(clippy::cast_precision_loss, reason = "few")]
    pub fn mean(figures: &[Figures]) -> Figures {
        let count = figures.len().max(1) as f64;
        Figures {
            makespan: figures.iter().map(|figures| figures.makespan).sum::<f64>() / count,
            peak: figures.iter().map(|figures| figures.peak).sum::<f64>() / count,
        }
    }

    /// The larger of each figure.
    pub fn worst(figures: &[Figures]) -> Figures {
        let worst =
            |a: Figures, b: &Figures| Figures { makespan: a.makespan.max(b.makespan), peak: a.peak.max(b.peak) };
        figures.iter().fold(Figures { makespan: 0.0, peak: 0.0 }, worst)
    }
}

/// Lets so many threads follow an order; the mean over several draws of durations.
pub fn measure(graph: &Recorded, order: &[u32], threads: usize) -> Figures {
    let runs: Vec<Figures> = (0..DRAWS).map(|seed| Run::new(graph, order, seed).run(threads)).collect();
    Figures::mean(&runs)
}

struct Run<'a> {
    graph: &'a Recorded,
    order: &'a [u32],
    /// Ticks; none for literals, which are there from the start.
    durations: Vec<u64>,
    is_literal: Vec<bool>,
    users: Vec<Vec<u32>>,
    /// Dependencies that are not done.
    missing: Vec<usize>,
    /// Users that are not done.
    unread: Vec<usize>,
    /// Ready tasks by their place in the order.
    ready: BinaryHeap<Reverse<(u32, u32)>>,
    held: usize,
    peak: usize,
}

impl<'a> Run<'a> {
    fn new(graph: &'a Recorded, order: &'a [u32], seed: u64) -> Run<'a> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let tasks = graph.needs.len();
        let mut users = vec![Vec::new(); tasks];
        for (task, needs) in (0_u32..).zip(&graph.needs) {
            needs.iter().for_each(|&need| users[need as usize].push(task));
        }
        let mut run = Run {
            graph,
            order,
            durations: (0..tasks).map(|_| rng.random_range(TICKS * 3 / 4..=TICKS * 5 / 4)).collect(),
            is_literal: graph.is_literal(),
            missing: graph.needs.iter().map(Vec::len).collect(),
            unread: users.iter().map(Vec::len).collect(),
            users,
            ready: BinaryHeap::new(),
            held: 0,
            peak: 0,
        };
        let roots: Vec<u32> =
            (0_u32..).zip(&graph.needs).filter(|(_, needs)| needs.is_empty()).map(|(n, _)| n).collect();
        roots.into_iter().for_each(|root| run.is_ready(root));
        run
    }

    #[expect(clippy::cast_precision_loss, reason = "for display")]
    fn run(mut self, threads: usize) -> Figures {
        let mut running: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::new();
        let mut now = 0;
        loop {
            while running.len() < threads
                && let Some(Reverse((_, task))) = self.ready.pop()
            {
                running.push(Reverse((now + self.durations[task as usize], task)));
            }
            let Some(Reverse((end, task))) = running.pop() else { break };
            now = end;
            self.finish(task);
        }
        Figures { makespan: now as f64 / TICKS as f64, peak: self.peak as f64 }
    }

    fn is_ready(&mut self, task: u32) {
        if self.is_literal[task as usize] {
            self.finish(task);
        } else {
            self.ready.push(Reverse((self.order[task as usize], task)));
        }
    }

    fn finish(&mut self, task: u32) {
        // A result is there before what it was made of is gone.
        if self.is_intermediate(task) {
            self.held += 1;
            self.peak = self.peak.max(self.held);
        }
        let graph = self.graph;
        for &need in &graph.needs[task as usize] {
            self.unread[need as usize] -= 1;
            self.held -= usize::from(self.unread[need as usize] == 0 && self.is_intermediate(need));
        }
        for position in 0..self.users[task as usize].len() {
            let user = self.users[task as usize][position];
            self.missing[user as usize] -= 1;
            if self.missing[user as usize] == 0 {
                self.is_ready(user);
            }
        }
    }

    /// Literals are part of the graph, and what nothing reads is the client's.
    fn is_intermediate(&self, task: u32) -> bool {
        !self.is_literal[task as usize] && !self.users[task as usize].is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(needs: &[&[u32]]) -> Recorded {
        Recorded {
            name: "test".to_owned(),
            needs: needs.iter().map(|needs| needs.to_vec()).collect(),
            literals: Vec::new(),
            orders: Vec::new(),
        }
    }

    /// Two pairs of loads that are added, and the sum of both.
    const PAIRS: [&[u32]; 7] = [&[], &[], &[], &[], &[0, 1], &[2, 3], &[4, 5]];

    #[test]
    fn what_is_read_early_is_not_held() {
        let graph = graph(&PAIRS);
        assert_eq!(measure(&graph, &[0, 1, 3, 4, 2, 5, 6], 1).peak, 4.0);
        assert_eq!(measure(&graph, &[0, 1, 2, 3, 4, 5, 6], 1).peak, 5.0);
    }

    #[test]
    fn threads_share_the_work() {
        let graph = graph(&PAIRS);
        let [alone, together] = [1, 4].map(|threads| measure(&graph, &[0, 1, 2, 3, 4, 5, 6], threads).makespan);
        assert!((6.0..8.0).contains(&alone), "{alone}");
        assert!((2.25..3.75).contains(&together), "{together}");
    }

    #[test]
    fn literals_take_no_time_and_no_place() {
        let mut graph = graph(&[&[], &[0], &[1]]);
        graph.literals = vec![0];
        let figures = measure(&graph, &[0, 1, 2], 1);
        assert_eq!(figures.peak, 1.0);
        assert!(figures.makespan <= 2.5);
    }
}
