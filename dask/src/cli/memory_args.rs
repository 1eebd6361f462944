//! The options of `dask-worker` about memory: upstream's settings `distributed.worker.memory.*`, by option or environment.

use clap::Args;
use dask_protocol::compression::Compression;
use dask_worker::MemoryOptions;

use super::parse::{parse_bytes, python_float};

/// Where each step begins, as a share of the memory limit.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct MemoryArgs {
    /// Share of the memory limit that values may take before the longest unused go to disk; 'false' for never [default: 0.6]
    #[arg(long, value_name = "FRACTION", env = "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET", hide_env_values = true)]
    pub memory_target: Option<String>,
    /// Share of the memory limit from which on a process sends values to disk; 'false' for never [default: 0.7]
    #[arg(long, value_name = "FRACTION", env = "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL", hide_env_values = true)]
    pub memory_spill: Option<String>,
    /// Share of the memory limit from which on a worker starts nothing new; 'false' for never [default: 0.8]
    #[arg(long, value_name = "FRACTION", env = "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE", hide_env_values = true)]
    pub memory_pause: Option<String>,
    /// Share of the memory limit from which on the nanny ends a worker; 'false' for never [default: 0.95]
    #[arg(long, value_name = "FRACTION", env = "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE", hide_env_values = true)]
    pub memory_terminate: Option<String>,
    /// Most bytes of a worker's values on disk, such as 10GB; 'false' for no bound (the default)
    #[arg(long, value_name = "BYTES", env = "DASK_DISTRIBUTED__WORKER__MEMORY__MAX_SPILL", hide_env_values = true)]
    pub max_spill: Option<String>,
    /// How values on disk are compressed: lz4, zstd, 'auto' (lz4), or 'false' for not at all
    #[arg(
        long,
        value_name = "NAME",
        env = "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL_COMPRESSION",
        hide_env_values = true
    )]
    pub spill_compression: Option<String>,
}

impl MemoryArgs {
    /// What the worker does, and the share at which its nanny ends it.
    ///
    /// # Errors
    /// The option and what is wrong with it.
    pub fn options(&self, terminate: f64) -> Result<(MemoryOptions, Option<f64>), String> {
        let default = MemoryOptions::default();
        let options =
            MemoryOptions {
                target: fraction("--memory-target", &self.memory_target, default.target)?,
                spill: fraction("--memory-spill", &self.memory_spill, default.spill)?,
                pause: fraction("--memory-pause", &self.memory_pause, default.pause)?,
                max_spill: match self.max_spill.as_deref().filter(|text| !is_off(text)) {
                    Some(text) => Some(bytes(text)?),
                    None => None,
                },
                compression: match self.spill_compression.as_deref() {
                    None | Some("auto") => default.compression,
                    Some(text) if is_off(text) => None,
                    Some(text) => {
                        let known = Compression::from_name(text);
                        Some(known.ok_or_else(|| {
                            format!("--spill-compression: {text:?} is none of lz4, zstd, auto, false")
                        })?)
                    }
                },
            };
        Ok((options, fraction("--memory-terminate", &self.memory_terminate, Some(terminate))?))
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

/// As YAML and Python spell it.
fn is_off(text: &str) -> bool {
    matches!(text.trim().to_ascii_lowercase().as_str(), "false" | "none" | "null" | "off" | "")
}

fn fraction(option: &str, text: &Option<String>, default: Option<f64>) -> Result<Option<f64>, String> {
    let Some(text) = text else { return Ok(default) };
    if is_off(text) {
        return Ok(None);
    }
    match python_float(text.trim()) {
        Some(0.0) => Ok(None),
        Some(share) if (0.0..=1.0).contains(&share) => Ok(Some(share)),
        Some(_) | None => Err(format!("{option}: {text:?} is no fraction between 0 and 1, nor 'false'")),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text.trim()).map_err(|error| format!("--max-spill: {error}"))?;
    u64::try_from(bytes).map_err(|_| format!("--max-spill: {text:?} is negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn nothing_said_is_as_upstream() {
        assert_eq!(MemoryArgs::default().options(0.95), Ok((MemoryOptions::default(), Some(0.95))));
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
        let (options, terminate) = args.options(0.95).expect("readable");
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
            assert!(args.options(0.95).expect_err("not readable").starts_with(option));
        }
    }
}
