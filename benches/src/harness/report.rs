//! Results as a table and as JSON.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::case::Case;
use super::cluster::Make;
use super::results::{Figures, Results};

/// A Markdown table of all figures: medians by make, and how much better than upstream.
pub fn markdown(results: &Results) -> String {
    let mut makes: Vec<Make> = results.rounds().map(|(_, make, _)| make).collect();
    makes.sort_unstable();
    makes.dedup();
    let compared: Vec<Make> = if makes.contains(&Make::Upstream) {
        makes.iter().copied().filter(|make| *make != Make::Upstream).collect()
    } else {
        Vec::new()
    };
    let mut out = String::from("| case | figure |");
    let _ = write!(out, "{}", makes.iter().map(|make| format!(" {make} |")).collect::<String>());
    let _ = writeln!(out, "{}", compared.iter().map(|make| format!(" {make} better by |")).collect::<String>());
    let _ = writeln!(out, "|---|---|{}", "--:|".repeat(makes.len() + compared.len()));
    for case in results.cases() {
        for figure in results.names(case) {
            let _ = write!(out, "| {case} | {figure} |");
            for make in &makes {
                let _ = write!(out, " {} |", shown(results.median(case, *make, figure)));
            }
            for make in &compared {
                let _ = write!(out, " {} |", shown(results.better_by(case, *make, figure)));
            }
            out.push('\n');
        }
    }
    out
}

/// Three digits that say something, thousands apart.
pub fn shown(value: Option<f64>) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else { return "-".to_owned() };
    let decimals = match value.abs() {
        x if x >= 100.0 => 0,
        x if x >= 10.0 => 1,
        x if x >= 0.1 || x == 0.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let digits = whole.trim_start_matches('-');
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{grouped}{}", rest.map_or(String::new(), |rest| format!(".{rest}")))
}

/// Everything: each round's figures, medians, ratios, the machine.
pub fn json(results: &Results) -> Value {
    let cases = results.cases().into_iter().map(|case| of_case(results, case)).collect::<Vec<_>>();
    json!({ "machine": machine(), "cases": cases, "failures": results.failures })
}

fn of_case(results: &Results, case: &Case) -> Value {
    let of = |make: Make, rounds: &[Figures]| {
        let names = results.names(case);
        let medians: Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), json!(results.median(case, make, name)))).collect();
        let better: Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), json!(results.better_by(case, make, name)))).collect();
        json!({ "rounds": rounds, "medians": medians, "better_by": better })
    };
    let makes: Map<String, Value> = results
        .rounds()
        .filter(|(of_case, ..)| *of_case == case)
        .map(|(_, make, rounds)| (make.to_string(), of(make, rounds)))
        .collect();
    json!({ "case": case.to_string(), "makes": makes })
}

/// Where it was measured, and how busy that was at the end.
pub fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']));
    let memory = read("/proc/meminfo");
    json!({
        "processor": model.unwrap_or_default(),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": memory.lines().next().and_then(|line| line.strip_prefix("MemTotal:")).unwrap_or_default().trim(),
        "load": read("/proc/loadavg").trim(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_show_three_digits() {
        let text = |value| shown(Some(value));
        assert_eq!(text(1_234_567.8), "1,234,568");
        assert_eq!(text(123.4), "123");
        assert_eq!(text(12.34), "12.3");
        assert_eq!(text(-1.234), "-1.23");
        assert_eq!(text(0.01234), "0.0123");
        assert_eq!(shown(Some(f64::NAN)), "-");
        assert_eq!(shown(None), "-");
    }
}
