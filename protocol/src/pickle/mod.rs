//! Reading and writing pickles without executing them.
