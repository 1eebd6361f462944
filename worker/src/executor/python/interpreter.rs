//! Finding a Python and starting our program in it.

use std::io;
use std::path::{Path, PathBuf};

use dask_protocol::comm::{Comm, child};
use tokio::process::{Child, Command};

use crate::options::PythonChoice;

/// Our Python package, written into the worker's directory at start.
const SOURCES: [(&str, &str); 17] = [
    ("__init__.py", include_str!("../../../python/dask_rs_executor/__init__.py")),
    ("__main__.py", include_str!("../../../python/dask_rs_executor/__main__.py")),
    ("alone.py", include_str!("../../../python/dask_rs_executor/alone.py")),
    ("apart.py", include_str!("../../../python/dask_rs_executor/apart.py")),
    ("away.py", include_str!("../../../python/dask_rs_executor/away.py")),
    ("calls.py", include_str!("../../../python/dask_rs_executor/calls.py")),
    ("facade.py", include_str!("../../../python/dask_rs_executor/facade.py")),
    ("hello.py", include_str!("../../../python/dask_rs_executor/hello.py")),
    ("interrupt.py", include_str!("../../../python/dask_rs_executor/interrupt.py")),
    ("lending.py", include_str!("../../../python/dask_rs_executor/lending.py")),
    ("noted.py", include_str!("../../../python/dask_rs_executor/noted.py")),
    ("pages.py", include_str!("../../../python/dask_rs_executor/pages.py")),
    ("profiling.py", include_str!("../../../python/dask_rs_executor/profiling.py")),
    ("regions.py", include_str!("../../../python/dask_rs_executor/regions.py")),
    ("store.py", include_str!("../../../python/dask_rs_executor/store.py")),
    ("tasks.py", include_str!("../../../python/dask_rs_executor/tasks.py")),
    ("wire.py", include_str!("../../../python/dask_rs_executor/wire.py")),
];
const PACKAGE: &str = "dask_rs_executor";

/// Runs the package and then gives the directory it came from no say in what user code imports.
const BOOTSTRAP: &str = "import os, runpy, sys
sys.path.insert(0, sys.argv.pop(1))
import dask_rs_executor.__main__ as program
sys.path[0] = os.getcwd()
program.main()";

/// Hash seed of every worker's Python, upstream's too, so that all hash text alike (P2P partitions by it).
const HASH_SEED: &str = "6640";

/// Variables that make numeric libraries use one thread, as upstream's nanny sets them.
const ONE_THREAD_VARIABLES: [&str; 3] = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"];

/// The interpreters to try, best first.
pub(crate) fn candidates(choice: &PythonChoice) -> Vec<PathBuf> {
    match choice {
        PythonChoice::Off => Vec::new(),
        PythonChoice::Path(path) => vec![path.clone()],
        PythonChoice::Auto => {
            let named = std::env::var_os("DASK_PYTHON").map(PathBuf::from);
            let venv = ["VIRTUAL_ENV", "CONDA_PREFIX"]
                .into_iter()
                .filter_map(std::env::var_os)
                .map(|prefix| Path::new(&prefix).join("bin/python"));
            let mut all: Vec<PathBuf> = named.into_iter().chain(venv).collect();
            all.extend(["python3", "python"].map(PathBuf::from));
            all
        }
    }
}

/// Writes our package below `directory` and starts it.
///
/// # Errors
/// [`io::Error`] when the files cannot be written or the interpreter cannot be started.
pub(crate) fn spawn(python: &Path, directory: &Path) -> io::Result<(Child, Comm)> {
    let package = directory.join("python").join(PACKAGE);
    std::fs::create_dir_all(&package)?;
    for (name, text) in SOURCES {
        std::fs::write(package.join(name), text)?;
    }
    let mut command = Command::new(python);
    command.arg("-u").arg("-c").arg(BOOTSTRAP).arg(directory.join("python"));
    command.env("DASK_RS_WORKER_PID", std::process::id().to_string());
    let chosen_seed = std::env::var("PYTHONHASHSEED").ok().filter(|seed| seed != "0");
    if chosen_seed.is_none() {
        command.env("PYTHONHASHSEED", HASH_SEED);
    }
    for variable in ONE_THREAD_VARIABLES {
        if std::env::var_os(variable).is_none() {
            command.env(variable, "1");
        }
    }
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    child::spawn_with_socketpair(command)
}
