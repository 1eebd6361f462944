//! The worker's shell: connections, processes and clocks around [`state`](crate::state).

pub mod nanny_link;
