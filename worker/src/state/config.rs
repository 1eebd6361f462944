//! What a worker's state is configured with.

use dask_protocol::Address;
use dask_protocol::message::Resources;

/// Default of [`Config::interrupt_grace`]: time for `finally` blocks, in seconds.
pub const INTERRUPT_GRACE_DEFAULT: f64 = 5.0;

/// Default of [`Config::story_rows_max`].
pub const STORY_ROWS_MAX_DEFAULT: usize = 1000;

/// Settings of [`super::State`]; the defaults are dask's.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our own contact address; holders at this address are ignored.
    pub address: Address,
    /// How many tasks run at once (`nthreads`).
    pub nthreads: u32,
    /// Resources supplied to tasks, by name.
    pub resources: Resources,
    /// Most transfers at once before the byte threshold counts (`distributed.worker.connections.outgoing`).
    pub transfer_incoming_count_max: usize,
    /// The count limit is ignored while fewer bytes than this are in flight.
    pub transfer_incoming_bytes_throttle_threshold: u64,
    /// Most bytes in flight to us (`memory.transfer` times the memory limit); `None` for no limit.
    pub transfer_incoming_bytes_max: Option<u64>,
    /// Most bytes asked for in one request, except for its first key (`transfer.message-bytes-limit`).
    pub transfer_message_bytes_max: u64,
    /// Rows kept for [`super::State::story`] (`distributed.admin.low-level-log-length`).
    pub story_rows_max: usize,
    /// How long a task that was interrupted at its `timeout` may go on before its executor is replaced, in seconds.
    pub interrupt_grace: f64,
    /// Feeds the random choice between equally good peers.
    pub seed: u64,
    /// Whether to run [`super::State::check`] after each event.
    pub validate: bool,
}

impl Config {
    /// Dask's defaults for a worker of `nthreads` threads at `address`, without a memory limit.
    pub fn new(address: Address, nthreads: u32) -> Config {
        Config {
            address,
            nthreads,
            resources: Resources::default(),
            transfer_incoming_count_max: 50,
            transfer_incoming_bytes_throttle_threshold: 10_000_000,
            transfer_incoming_bytes_max: None,
            transfer_message_bytes_max: 50_000_000,
            story_rows_max: STORY_ROWS_MAX_DEFAULT,
            interrupt_grace: INTERRUPT_GRACE_DEFAULT,
            seed: 0,
            validate: false,
        }
    }
}
