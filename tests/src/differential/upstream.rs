//! Runs upstream's half: a Python process that follows scenarios and says how far both sides agreed.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::plan::write_scenario;

/// How far upstream followed one scenario.
#[derive(Debug, Clone, Deserialize)]
pub struct Verdict {
    /// Its seed.
    pub scenario: u64,
    /// Events after which both states were compared.
    pub steps: usize,
    /// Choices of a worker that upstream's rule determines, and that were the same.
    pub determined: usize,
    /// Choices between workers that upstream's rule does not tell apart.
    pub tied: usize,
    /// Choices between workers that it tells apart by a rounding error only.
    pub noise: usize,
    /// Choices that were made after others, because several tasks became ready in another order.
    pub order: usize,
    /// Events compared, by kind.
    pub events: BTreeMap<String, u64>,
    /// Named differences met, and how often: `tests/python/differential/differences.py` explains each.
    pub known: BTreeMap<String, u64>,
    /// The one after which there was no going on.
    pub ended_by: Option<String>,
    /// The first difference without a name.
    pub difference: Option<serde_json::Value>,
}

/// Lets upstream follow these scenarios.
///
/// # Errors
/// When Python cannot be run or does not say something of every scenario.
pub fn follow(python: &Path, seeds: Range<u64>) -> io::Result<Vec<Verdict>> {
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/differential/driver.py");
    let mut child = Command::new(python)
        .arg(driver)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONHASHSEED", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let input = child.stdin.take().expect("stdin is piped");
    let output = child.stdout.take().expect("stdout is piped");
    let range = seeds.clone();
    let writer = std::thread::spawn(move || write_scenarios(range, input));
    let mut verdicts = Vec::new();
    for line in BufReader::new(output).lines() {
        verdicts.push(serde_json::from_str(&line?)?);
    }
    let status = child.wait()?;
    let written = writer.join().map_err(|_| io::Error::other("our state panicked"))?;
    if !status.success() {
        return Err(io::Error::other(format!("the driver ended with {status} after {} scenarios", verdicts.len())));
    }
    written?;
    let expected = seeds.end - seeds.start;
    if verdicts.len() as u64 != expected {
        return Err(io::Error::other(format!("{} verdicts on {expected} scenarios", verdicts.len())));
    }
    Ok(verdicts)
}

fn write_scenarios(seeds: Range<u64>, input: impl Write) -> io::Result<()> {
    let mut input = BufWriter::new(input);
    for seed in seeds {
        write_scenario(seed, &mut input)?;
    }
    input.flush()
}

/// What many scenarios came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Scenarios that were followed to their end.
    pub to_the_end: usize,
    /// Events compared.
    pub steps: usize,
    /// See [`Verdict::determined`].
    pub determined: usize,
    /// See [`Verdict::tied`].
    pub tied: usize,
    /// See [`Verdict::noise`].
    pub noise: usize,
    /// See [`Verdict::order`].
    pub order: usize,
    /// See [`Verdict::events`], and in how many scenarios each kind came up.
    pub events: BTreeMap<String, (u64, u64)>,
    /// See [`Verdict::known`].
    pub known: BTreeMap<String, u64>,
    /// Scenarios that a named difference ended.
    pub ended_by: BTreeMap<String, u64>,
    /// Scenarios with a difference that has no name, and what it is.
    pub differences: Vec<String>,
}

impl Summary {
    /// Adds them up.
    pub fn of(verdicts: &[Verdict]) -> Summary {
        let mut summary = Summary::default();
        for verdict in verdicts {
            summary.steps += verdict.steps;
            summary.determined += verdict.determined;
            summary.tied += verdict.tied;
            summary.noise += verdict.noise;
            summary.order += verdict.order;
            for (name, count) in &verdict.events {
                let (events, scenarios) = summary.events.entry(name.clone()).or_default();
                *events += count;
                *scenarios += 1;
            }
            for (name, count) in &verdict.known {
                *summary.known.entry(name.clone()).or_default() += count;
            }
            match (&verdict.difference, &verdict.ended_by) {
                (Some(difference), _) => {
                    let text = serde_json::to_string_pretty(difference).unwrap_or_default();
                    summary.differences.push(format!("scenario {}: {text}", verdict.scenario));
                }
                (None, Some(name)) => *summary.ended_by.entry(name.clone()).or_default() += 1,
                (None, None) => summary.to_the_end += 1,
            }
        }
        summary
    }
}
