//! Runs the Python half.
