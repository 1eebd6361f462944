//! Behaviour of the worker's state, after upstream's `test_worker_state_machine.py` where a case has a twin there.

mod executing;
mod gather;
mod illegal;
mod rig;
mod shared;
mod timeout;
