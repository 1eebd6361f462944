//! The links between workers: each has one in and one out, which move one stream of bytes after another.

/// How fast workers talk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Network {
    /// Bytes per second into a worker, and as many out of it.
    pub bandwidth: f64,
    /// Seconds that any message takes.
    pub latency: f64,
}

impl Default for Network {
    fn default() -> Network {
        Network { bandwidth: 250e6, latency: 1e-3 }
    }
}

/// When each worker's links are free again.
#[derive(Debug)]
pub struct Links {
    network: Network,
    outgoing: Vec<f64>,
    incoming: Vec<f64>,
}

impl Links {
    /// Free links for so many workers.
    pub fn new(network: Network, workers: usize) -> Links {
        Links { network, outgoing: vec![0.0; workers], incoming: vec![0.0; workers] }
    }

    /// Books a transfer that can begin at `now`, and returns when its last byte is there. Bytes pass through: the
    /// receiver takes in while the sender sends, each as soon as its own link is free.
    #[expect(clippy::cast_precision_loss, reason = "sizes stay below 2^53")]
    pub fn transfer(&mut self, now: f64, from: usize, to: usize, nbytes: u64) -> f64 {
        let seconds = nbytes as f64 / self.network.bandwidth;
        let sent = self.outgoing[from].max(now);
        self.outgoing[from] = sent + seconds;
        let received = self.incoming[to].max(sent);
        self.incoming[to] = received + seconds;
        received + seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_shared_by_what_passes_it() {
        let mut links = Links::new(Network { bandwidth: 100.0, latency: 0.0 }, 3);
        assert_eq!(links.transfer(0.0, 0, 1, 100), 1.0);
        assert_eq!(links.transfer(0.0, 2, 1, 100), 2.0);
        assert_eq!(links.transfer(0.0, 2, 0, 100), 2.0);
        assert_eq!(links.transfer(5.0, 0, 2, 50), 5.5);
    }
}
