//! The environment a worker process is born with.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// `distributed.nanny.pre-spawn-environ`: what must be set before the process starts to have any effect. A variable
/// that the user set wins.
const PRE_SPAWN_ENVIRON: [(&str, &str); 4] = [
    ("MALLOC_TRIM_THRESHOLD_", "65536"),
    ("OMP_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
];

/// Python's hash seed must be the same on all workers, for they partition data by hash; the number is upstream's.
const HASH_SEED: (&str, &str) = ("PYTHONHASHSEED", "6640");

/// The variables to set for a worker: the usual ones and those `configured`, of which a `None` takes one away. What the
/// nanny's own environment has, as `get` looks it up, wins.
pub fn worker_environment(
    configured: &[(String, Option<String>)],
    get: impl Fn(&str) -> Option<OsString>,
) -> Vec<(String, OsString)> {
    let usual = PRE_SPAWN_ENVIRON.iter().map(|&(name, value)| (name.to_owned(), Some(value.to_owned())));
    let mut variables: BTreeMap<String, Option<String>> = usual.collect();
    variables.extend(configured.iter().cloned());
    variables.remove(HASH_SEED.0);
    let set = variables.into_iter().filter_map(|(name, value)| {
        let value = get(&name).or_else(|| value.map(OsString::from))?;
        Some((name, value))
    });
    set.chain([(HASH_SEED.0.to_owned(), HASH_SEED.1.into())]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_the_user_win_but_the_hash_seed_is_the_same_everywhere() {
        let configured = [("MKL_NUM_THREADS", Some("2")), ("MALLOC_TRIM_THRESHOLD_", None), ("MINE", Some("x"))];
        let configured = configured.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        let env = worker_environment(&configured, |name| match name {
            "OMP_NUM_THREADS" => Some("4".into()),
            "PYTHONHASHSEED" => Some("0".into()),
            _ => None,
        });
        let value = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, value)| value.to_str().expect("text"));
        assert_eq!(value("OMP_NUM_THREADS"), Some("4"));
        assert_eq!(value("OPENBLAS_NUM_THREADS"), Some("1"));
        assert_eq!((value("MKL_NUM_THREADS"), value("MINE")), (Some("2"), Some("x")));
        assert_eq!(value("MALLOC_TRIM_THRESHOLD_"), None);
        assert_eq!(value("PYTHONHASHSEED"), Some("6640"));
    }
}
