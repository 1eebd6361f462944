//! `dask-bench`: named cases on a cluster of ours and on one of upstream's, in turn.
//!
//! Start with [`measure::measure`], which runs a list of [`case::Case`]s, and [`results::Results`], which is what comes of it.
//!
//! ```text
//! case --> cluster.rs: scheduler, workers (or fakes.rs) --> driver.rs: drivers/drive.py, an unmodified client
//!                 |                                              | begin, end, figures
//!                 `---- processes.rs: CPU, memory --------------> results.rs --> report.rs, plot.rs, rows/
//! ```

pub mod case;
pub mod cli;
pub mod cluster;
pub mod driver;
pub mod fakes;
pub mod measure;
pub mod native;
pub mod plot;
pub mod processes;
pub mod report;
pub mod results;
pub mod rows;

/// What ends a measurement; the text says what happened and to whom.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
