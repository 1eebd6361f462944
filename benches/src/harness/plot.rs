//! How much better than upstream, as bars.

use std::fmt::Write;

use super::case::Case;
use super::cluster::Make;
use super::report::shown;
use super::results::Results;

/// What is drawn of each case, and in which colour.
const DRAWN: [(&str, &str); 3] =
    [("seconds", "#5b8fb9"), ("scheduler CPU, us/task", "#c98a5b"), ("all CPU, us/task", "#7ba05b")];

/// An SVG with a bar for each of some figures of each case that upstream ran too, on a logarithmic scale: to the right of
/// the line ours is better.
pub fn svg(results: &Results) -> String {
    const LEFT: f64 = 220.0;
    const WIDTH: f64 = 480.0;
    const BAR: f64 = 9.0;
    let all: Vec<(&Case, Vec<(f64, &str)>)> =
        results.cases().into_iter().map(|case| (case, bars(results, case))).collect();
    let all: Vec<_> = all.into_iter().filter(|(_, bars)| !bars.is_empty()).collect();
    let logs = || all.iter().flat_map(|(_, bars)| bars).map(|(ratio, _)| ratio.log10());
    let (low, high) = (logs().fold(-0.1, f64::min), logs().fold(1.0, f64::max));
    let x = |ratio: f64| LEFT + (ratio.log10() - low) / (high - low) * WIDTH;
    let (mut y, mut body) = (40.0, String::new());
    for (case, bars) in &all {
        let _ = writeln!(body, "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{case}</text>", LEFT - 6.0, y + BAR);
        for (ratio, colour) in bars {
            let (from, to) = (x(1.0).min(x(*ratio)), x(1.0).max(x(*ratio)));
            let _ = writeln!(
                body,
                "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"9\">{}</text>",
                to - from,
                BAR - 1.0,
                to + 4.0,
                y + BAR - 1.5,
                shown(Some(*ratio))
            );
            y += BAR;
        }
        y += 5.0;
    }
    let mut legend = String::new();
    for (place, (figure, colour)) in DRAWN.iter().enumerate() {
        let at = LEFT + 170.0 * place as f64;
        let _ = writeln!(
            legend,
            "<rect x=\"{at:.0}\" y=\"22\" width=\"10\" height=\"8\" fill=\"{colour}\"/><text x=\"{:.0}\" y=\"30\">{figure}</text>",
            at + 14.0
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"14\" font-size=\"13\">times better than upstream (medians)</text>\n{legend}{body}\
         <line x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"36\" y2=\"{y:.0}\" stroke=\"#b33\"/>\n</svg>\n",
        LEFT + WIDTH + 60.0,
        y + 10.0,
        one = x(1.0),
    )
}

fn bars<'a>(results: &Results, case: &Case) -> Vec<(f64, &'a str)> {
    let drawn =
        DRAWN.iter().filter_map(|(figure, colour)| Some((results.better_by(case, Make::Ours, figure)?, *colour)));
    drawn.filter(|(ratio, _)| ratio.is_finite() && *ratio > 0.0).collect()
}
