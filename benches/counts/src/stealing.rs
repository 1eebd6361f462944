//! A round of stealing: one worker has everything to do, the others have come too late.

use dask_scheduler::state::{Config, Event};

use crate::life::{self, Cluster};

/// Such a cluster.
pub struct Unbalanced(Cluster);

impl Unbalanced {
    /// So many workers, and tasks that the first of them was given.
    ///
    /// # Panics
    /// When it was not given them.
    pub fn new(workers: usize, tasks: usize) -> Unbalanced {
        let config = Config { worker_saturation: f64::INFINITY, ..Config::default() };
        let mut cluster = Cluster::configured(config, 1);
        cluster.submit(life::noop(tasks));
        assert_eq!(cluster.take_replies(), tasks, "the only worker gets all tasks");
        (1..workers).for_each(|number| cluster.add_worker(number));
        Unbalanced(cluster)
    }

    /// A round of stealing.
    ///
    /// # Panics
    /// When nothing is stolen.
    pub fn balance(self) -> Cluster {
        let Unbalanced(mut cluster) = self;
        cluster.now += 2.0;
        cluster.handle(Event::Timeout);
        assert!(cluster.state.stealing_in_flight().count() > 0, "idle workers ask for tasks");
        cluster
    }
}
