//! A comparison as tables in Markdown.

use super::compare::{Measure, Row, geometric_mean, worst};

/// Every graph on every shape: the lower bound, and each measure under both policies.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| graph | workers | lower bound, s | makespan, s: upstream | native | ratio | moved, GB: upstream | native | ratio \
         | peak, GB: upstream | native | ratio |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        text += &format!("| {} | {} | {:.1}", row.graph, row.shape, row.bound);
        for measure in Measure::ALL {
            let unit = if measure == Measure::Makespan { 1.0 } else { 1e9 };
            let (upstream, native) = (row.upstream.get(measure) / unit, row.native.get(measure) / unit);
            text += &format!(" | {upstream:.2} | {native:.2} | {:.2}", row.ratio(measure));
        }
        text += " |\n";
    }
    text
}

/// What the rows come to: geometric means, the worst, and how many are worse by more than 5 %.
pub fn summary(rows: &[Row]) -> String {
    let mut text = String::from(
        "| native over upstream | geometric mean | best | worst | on | worse by more than 5 % |\n|---|--:|--:|--:|---|--:|\n",
    );
    for measure in Measure::ALL {
        let Some(worst) = worst(rows, measure) else { continue };
        let best = rows.iter().map(|row| row.ratio(measure)).fold(f64::INFINITY, f64::min);
        let worse = rows.iter().filter(|row| row.ratio(measure) > 1.05).count();
        text += &format!(
            "| {} | {:.3} | {best:.3} | {:.3} | {} on {} | {worse} of {} |\n",
            measure.name(),
            geometric_mean(rows, measure),
            worst.ratio(measure),
            worst.graph,
            worst.shape,
            rows.len()
        );
    }
    text
}
