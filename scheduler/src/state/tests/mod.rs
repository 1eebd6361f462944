//! Behaviour of the state, by theme. Every event of every test is followed by `State::check`.

mod clients;
mod deaths;
mod explain;
mod failures;
mod lifecycle;
mod membership;
mod native;
mod placement;
mod randomised;
mod replicas;
mod simulated;
mod spans;
mod stealing;
