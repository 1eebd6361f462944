//! What a simulated cluster is made of: all that a replay needs besides its steps.

use rand::Rng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};

use super::scenario::Scenario;

/// A place where worker processes run, one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Threads of each process.
    pub nthreads: u32,
    /// GPUs of each process.
    pub gpus: u32,
    /// The host.
    pub host: String,
    /// Most bytes in flight to it, if limited.
    pub transfer_bytes_max: Option<u64>,
}

/// The fixed part of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The seed it was drawn from; feeds the states too.
    pub seed: u64,
    /// The script, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Scenario>,
    /// Where workers run.
    pub slots: Vec<Slot>,
    /// How many clients there are.
    pub clients: u32,
    /// `worker-saturation`; `None` for infinite.
    pub saturation: Option<f64>,
    /// Whether work is stolen.
    pub stealing: bool,
    /// Whether surplus replicas are dropped.
    pub amm: bool,
    /// `allowed-failures`.
    pub allowed_failures: u32,
    /// Whether the policy is `native` rather than `upstream`.
    #[serde(default)]
    pub native: bool,
}

impl Case {
    /// Draws a case.
    pub fn draw(seed: u64, rng: &mut SmallRng) -> Case {
        let slots = (0..rng.random_range(1..=5)).map(|n| Slot::draw(n, rng)).collect::<Vec<_>>();
        Case {
            seed,
            scenario: None,
            clients: rng.random_range(1..=3),
            saturation: [Some(1.1), Some(1.1), Some(2.0), None][rng.random_range(0..4)],
            stealing: rng.random_bool(0.7),
            amm: rng.random_bool(0.7),
            allowed_failures: rng.random_range(0..=5),
            native: !seed.is_multiple_of(2),
            slots,
        }
    }
}

impl Slot {
    fn draw(n: u32, rng: &mut SmallRng) -> Slot {
        Slot {
            nthreads: rng.random_range(1..=3),
            gpus: if n == 0 { 2 } else { rng.random_range(0..=2) },
            host: format!("10.0.0.{}", n / 2 + 1),
            transfer_bytes_max: rng.random_bool(0.3).then_some(3000),
        }
    }
}
