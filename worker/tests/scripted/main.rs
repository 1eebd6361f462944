//! A whole worker, without Python, against a scheduler that follows a script.

mod common;
mod transfers;
mod whole_worker;
