//! A whole cluster in one thread, in virtual time: the real states of scheduler and workers, a pretended network.
//!
//! [`run::run_seed`] draws a run from a seed: a cluster, clients that submit, release and cancel, messages that are late
//! (in order on each stream, in any order between streams), workers that die, pause, retire and are stolen from. After
//! each step both states check every invariant they have; when trouble stops, everything wanted must come to its end;
//! when nobody wants anything, nothing may be left. A run is recorded as its [`step::Step`]s and replays from them.

pub mod case;
pub mod client;
pub mod errors;
pub mod graphs;
pub mod ledger;
pub mod plan;
pub mod rules;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod step;
pub mod worker;
pub mod world;
