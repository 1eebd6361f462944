//! Behaviour of the worker state.
