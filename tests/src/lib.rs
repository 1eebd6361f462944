//! What the tests of the whole engine share: real processes, a Python environment, a simulator.

pub mod cluster;
pub mod differential;
pub mod sim;
pub mod venv;
