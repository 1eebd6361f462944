//! The options of `dask-worker` about memory: upstream's settings `distributed.worker.memory.*`, by option or configuration.

use clap::Args;
use dask_protocol::compression::Compression;
use dask_worker::MemoryOptions;

use crate::config::DaskConfig;

const SPILL_COMPRESSION: &str = "distributed.worker.memory.spill-compression";

/// Where each step begins, as a share of the memory limit.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct MemoryArgs {
    /// Share of the memory limit that values may take before the longest unused go to disk; 'false' for never [default: 0.6]
    #[arg(long, value_name = "FRACTION")]
    pub memory_target: Option<String>,
    /// Share of the memory limit from which on a process sends values to disk; 'false' for never [default: 0.7]
    #[arg(long, value_name = "FRACTION")]
    pub memory_spill: Option<String>,
    /// Share of the memory limit from which on a worker starts nothing new; 'false' for never [default: 0.8]
    #[arg(long, value_name = "FRACTION")]
    pub memory_pause: Option<String>,
    /// Share of the memory limit from which on the nanny ends a worker; 'false' for never [default: 0.95]
    #[arg(long, value_name = "FRACTION")]
    pub memory_terminate: Option<String>,
    /// Most bytes of a worker's values on disk, such as 10GB; 'false' for no bound (the default)
    #[arg(long, value_name = "BYTES")]
    pub max_spill: Option<String>,
    /// How values on disk are compressed: lz4, zstd, 'auto' (lz4), or 'false' for not at all
    #[arg(long, value_name = "NAME")]
    pub spill_compression: Option<String>,
}

impl MemoryArgs {
    /// What the worker does, and the share at which its nanny ends it.
    ///
    /// # Errors
    /// The option, or the place in the configuration, and what is wrong there.
    pub fn options(&self, dask: &DaskConfig, terminate: f64) -> Result<(MemoryOptions, Option<f64>), String> {
        let default = MemoryOptions::default();
        let share = |name, option: &Option<String>, key, default| match dask.said(name, option.as_deref(), key) {
            Some(said) => said.fraction(),
            None => Ok(default),
        };
        let (max_spill, compression) = (self.max_spill.as_deref(), self.spill_compression.as_deref());
        let options = MemoryOptions {
            target: share("--memory-target", &self.memory_target, "distributed.worker.memory.target", default.target)?,
            spill: share("--memory-spill", &self.memory_spill, "distributed.worker.memory.spill", default.spill)?,
            pause: share("--memory-pause", &self.memory_pause, "distributed.worker.memory.pause", default.pause)?,
            max_spill: match dask.said("--max-spill", max_spill, "distributed.worker.memory.max-spill") {
                Some(said) => said.bytes_or_off()?,
                None => default.max_spill,
            },
            compression: match dask.said("--spill-compression", compression, SPILL_COMPRESSION) {
                Some(said) => match said.one_of(&["auto", "false", "lz4", "zstd"])? {
                    "auto" => default.compression,
                    name => Compression::from_name(name),
                },
                None => default.compression,
            },
        };
        let key = "distributed.worker.memory.terminate";
        Ok((options, share("--memory-terminate", &self.memory_terminate, key, Some(terminate))?))
    }

    /// The same options for a process that a nanny starts.
    pub fn to_args(&self) -> Vec<String> {
        let options = [
            ("--memory-target", &self.memory_target),
            ("--memory-spill", &self.memory_spill),
            ("--memory-pause", &self.memory_pause),
            ("--memory-terminate", &self.memory_terminate),
            ("--max-spill", &self.max_spill),
            ("--spill-compression", &self.spill_compression),
        ];
        options.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={value}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn nothing_said_is_as_upstream() {
        assert_eq!(
            MemoryArgs::default().options(&DaskConfig::default(), 0.95),
            Ok((MemoryOptions::default(), Some(0.95)))
        );
    }

    #[test]
    fn the_configuration_says_what_no_option_says() {
        let variables = [("SPILL", "False"), ("TARGET", "0.3"), ("MAX_SPILL", "5GB"), ("SPILL_COMPRESSION", "False")];
        let variables =
            variables.map(|(name, text)| (format!("DASK_DISTRIBUTED__WORKER__MEMORY__{name}"), text.to_owned()));
        let dask = DaskConfig::from_sources(&[], variables).expect("a configuration");
        let args = MemoryArgs { memory_target: some("0.4"), ..MemoryArgs::default() };
        let (options, _) = args.options(&dask, 0.95).expect("readable");
        assert_eq!((options.target, options.spill, options.pause), (Some(0.4), None, Some(0.8)));
        assert_eq!((options.max_spill, options.compression), (Some(5_000_000_000), None));
    }

    #[test]
    fn each_step_is_set_or_turned_off() {
        let args = MemoryArgs {
            memory_target: some("False"),
            memory_spill: some("0.5"),
            memory_pause: some("0"),
            memory_terminate: some("false"),
            max_spill: some("2GB"),
            spill_compression: some("zstd"),
        };
        let (options, terminate) = args.options(&DaskConfig::default(), 0.95).expect("readable");
        assert_eq!((options.target, options.spill, options.pause, terminate), (None, Some(0.5), None, None));
        assert_eq!((options.max_spill, options.compression), (Some(2_000_000_000), Some(Compression::Zstd)));
        assert_eq!(args.to_args().len(), 6);
    }

    #[test]
    fn what_cannot_be_read_names_the_option() {
        for (args, option) in [
            (MemoryArgs { memory_pause: some("80%"), ..MemoryArgs::default() }, "--memory-pause"),
            (MemoryArgs { memory_target: some("1.5"), ..MemoryArgs::default() }, "--memory-target"),
            (MemoryArgs { max_spill: some("much"), ..MemoryArgs::default() }, "--max-spill"),
            (MemoryArgs { spill_compression: some("snappy"), ..MemoryArgs::default() }, "--spill-compression"),
        ] {
            assert!(args.options(&DaskConfig::default(), 0.95).expect_err("not readable").starts_with(option));
        }
    }
}
