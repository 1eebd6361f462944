//! Which Python runs the graph helpers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A Python to try, and where the name comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The program.
    pub(crate) program: PathBuf,
    /// For messages: the argument, or the variable.
    pub(crate) origin: &'static str,
}

/// The Pythons to try, best first. One that was named explicitly is the only one: falling back from it would hide the
/// mistake.
pub(crate) fn candidates(argument: Option<&Path>, env: impl Fn(&str) -> Option<OsString>) -> Vec<Candidate> {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(program) = argument {
        return vec![Candidate { program: program.to_owned(), origin: "--python" }];
    }
    if let Some(program) = set("DASK_PYTHON") {
        return vec![Candidate { program, origin: "DASK_PYTHON" }];
    }
    let venv = set("VIRTUAL_ENV").map(|venv| Candidate { program: venv.join("bin/python"), origin: "VIRTUAL_ENV" });
    let path = Candidate { program: "python3".into(), origin: "PATH" };
    venv.into_iter().chain([path]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(argument: Option<&str>, variables: &[(&str, &str)]) -> Vec<String> {
        let env = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
        let found = candidates(argument.map(Path::new), env);
        found.into_iter().map(|c| c.program.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn an_explicit_python_is_the_only_one() {
        let env = [("DASK_PYTHON", "/b/python"), ("VIRTUAL_ENV", "/v")];
        assert_eq!(programs(Some("/a/python"), &env), ["/a/python"]);
        assert_eq!(programs(None, &env), ["/b/python"]);
    }

    #[test]
    fn the_active_environment_goes_before_the_path() {
        assert_eq!(programs(None, &[("VIRTUAL_ENV", "/v"), ("DASK_PYTHON", "")]), ["/v/bin/python", "python3"]);
        assert_eq!(programs(None, &[]), ["python3"]);
    }
}
