//! `dask-counts PATH` prepares a path and runs it once; without a path it lists them. For callgrind: what is to be counted
//! happens in [`measured`].

use std::process::ExitCode;

use dask_counts::{Prepared, paths};

fn main() -> ExitCode {
    let Some(wanted) = std::env::args().nth(1) else {
        paths().iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let Some((_, prepare)) = paths().into_iter().find(|(name, _)| *name == wanted) else {
        eprintln!("no path {wanted:?}");
        return ExitCode::FAILURE;
    };
    measured(prepare());
    ExitCode::SUCCESS
}

/// Found by its name, so it must not be copied into its caller.
#[inline(never)]
fn measured(path: Prepared) {
    path();
    std::hint::black_box(());
}
