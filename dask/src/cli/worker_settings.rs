//! What a worker takes from dask's configuration beside what [`super::worker_plan`] works out.

use std::path::PathBuf;

use dask_worker::TransferOptions;

use super::worker_args::WorkerArgs;
use crate::config::DaskConfig;

/// Settings that are alike for all workers of one command.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerSettings {
    /// Modules that the Python process loads.
    pub preload: Vec<String>,
    /// Libraries of native tasks.
    pub task_libraries: Vec<PathBuf>,
    /// Arguments for them.
    pub preload_argv: Vec<String>,
    /// Where files go.
    pub local_directory: Option<PathBuf>,
    /// Whether a worker is started again when its lifetime is over.
    pub lifetime_restart: bool,
    /// Bounds of what is on its way to the worker.
    pub transfer: TransferOptions,
    /// Rows kept for `story`; the worker's default when absent.
    pub story_rows_max: Option<usize>,
    /// Whether the state checks itself after every event.
    pub validate: bool,
}

/// Whether something to preload is a library of native tasks: upstream preloads modules by name, files that end in `.py`,
/// and URLs.
pub fn is_task_library(preload: &str) -> bool {
    preload.ends_with(std::env::consts::DLL_SUFFIX)
}

impl WorkerSettings {
    /// Reads them; options count more than the configuration.
    ///
    /// # Errors
    /// Naming the place in the configuration that cannot be read.
    pub fn read(args: &WorkerArgs, dask: &DaskConfig) -> Result<WorkerSettings, String> {
        let default = TransferOptions::default();
        let truth = |key| dask.key(key).map_or(Ok(false), |said| said.truth());
        let directory = dask.said("--local-directory", args.local_directory.as_deref(), "temporary-directory");
        let listed = |given: &[String], key| if given.is_empty() { dask.texts(key) } else { Ok(given.to_vec()) };
        let (libraries, mut preload): (Vec<_>, Vec<_>) =
            listed(&args.preload, "distributed.worker.preload")?.into_iter().partition(|it| is_task_library(it));
        if args.python.as_deref() == Some("none") {
            preload.clear();
        }
        Ok(WorkerSettings {
            preload,
            task_libraries: libraries.into_iter().map(PathBuf::from).collect(),
            preload_argv: listed(&args.preload_argv, "distributed.worker.preload-argv")?,
            local_directory: directory.map(|said| PathBuf::from(said.text())),
            lifetime_restart: match (args.lifetime_restart, args.no_lifetime_restart) {
                (true, _) => true,
                (false, true) => false,
                (false, false) => truth("distributed.worker.lifetime.restart")?,
            },
            transfer: TransferOptions {
                count_max: match dask.key("distributed.worker.connections.outgoing") {
                    // Without any connection nothing would ever arrive.
                    Some(said) => said.count()?.max(1),
                    None => default.count_max,
                },
                message_bytes_max: match dask.key("distributed.worker.transfer.message-bytes-limit") {
                    Some(said) => said.bytes()?,
                    None => default.message_bytes_max,
                },
                memory: match dask.key("distributed.worker.memory.transfer") {
                    Some(said) => said.fraction()?,
                    None => default.memory,
                },
                shared_memory: match dask.key("distributed.worker.transfer.shared-memory") {
                    Some(said) => said.truth()?,
                    None => default.shared_memory,
                },
            },
            story_rows_max: dask.key("distributed.admin.low-level-log-length").map(|said| said.count()).transpose()?,
            validate: truth("distributed.worker.validate")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &WorkerArgs, variables: &[(&str, &str)]) -> Result<WorkerSettings, String> {
        let own = |(name, text): &(&str, &str)| (format!("DASK_{name}"), (*text).to_owned());
        let dask = DaskConfig::from_sources(&[], variables.iter().map(own)).expect("a configuration");
        WorkerSettings::read(args, &dask)
    }

    #[test]
    fn libraries_of_tasks_are_no_modules() {
        let args = WorkerArgs {
            preload: vec!["module".to_owned(), "./libtasks.so".to_owned(), "setup.py".to_owned()],
            python: Some("none".to_owned()),
            ..WorkerArgs::default()
        };
        assert!(args.check_unsupported().is_err_and(|error| error.contains("module")));
        let said = settings(&args, &[]).expect("readable");
        assert_eq!((said.preload, said.task_libraries), (vec![], vec![PathBuf::from("./libtasks.so")]));
        let said = settings(&WorkerArgs::default(), &[("DISTRIBUTED__WORKER__PRELOAD", "['a', 'b.so']")]);
        let said = said.expect("readable");
        assert_eq!((said.preload, said.task_libraries), (vec!["a".to_owned()], vec![PathBuf::from("b.so")]));
    }

    #[test]
    fn options_count_more_than_the_configuration() {
        let variables = [
            ("DISTRIBUTED__WORKER__PRELOAD", "['a', 'b']"),
            ("DISTRIBUTED__WORKER__LIFETIME__RESTART", "True"),
            ("DISTRIBUTED__WORKER__CONNECTIONS__OUTGOING", "5"),
            ("DISTRIBUTED__WORKER__MEMORY__TRANSFER", "False"),
            ("TEMPORARY_DIRECTORY", "/scratch"),
        ];
        let said = settings(&WorkerArgs::default(), &variables).expect("readable");
        assert_eq!((said.preload, said.lifetime_restart), (vec!["a".to_owned(), "b".to_owned()], true));
        assert_eq!((said.transfer.count_max, said.transfer.memory), (5, None));
        assert_eq!(said.local_directory, Some(PathBuf::from("/scratch")));
        let args = WorkerArgs {
            preload: vec!["c".to_owned()],
            local_directory: Some("/mine".to_owned()),
            no_lifetime_restart: true,
            ..WorkerArgs::default()
        };
        let said = settings(&args, &variables).expect("readable");
        assert_eq!((said.preload, said.lifetime_restart), (vec!["c".to_owned()], false));
        assert_eq!(said.local_directory, Some(PathBuf::from("/mine")));
        let error = settings(&args, &[("DISTRIBUTED__WORKER__CONNECTIONS__OUTGOING", "many")]).expect_err("no number");
        assert!(error.starts_with("DASK_DISTRIBUTED__WORKER__CONNECTIONS__OUTGOING: "), "{error}");
    }
}
