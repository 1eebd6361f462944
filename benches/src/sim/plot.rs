//! Bars of native over upstream, graph by graph.

use std::fmt::Write;

use super::compare::{Measure, Row, geometric_mean};
use super::timeline::escape;

/// An SVG with one bar per graph: the geometric mean of a measure's ratios over the shapes, and the range of them.
pub fn ratios(rows: &[Row], measure: Measure) -> String {
    const LEFT: f64 = 110.0;
    const WIDTH: f64 = 480.0;
    const LINE: f64 = 18.0;
    let mut graphs: Vec<&str> = rows.iter().map(|row| row.graph).collect();
    graphs.dedup();
    let greatest = rows.iter().map(|row| row.ratio(measure)).fold(1.0, f64::max);
    let x = |ratio: f64| LEFT + ratio / greatest * WIDTH;
    let bottom = 34.0 + LINE * graphs.len() as f64;
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"13\">{}, native over upstream</text>\n",
        LEFT + WIDTH + 60.0,
        bottom + 12.0,
        measure.name()
    );
    for (position, graph) in graphs.iter().enumerate() {
        let of_graph: Vec<&Row> = rows.iter().filter(|row| row.graph == *graph).collect();
        let mean = geometric_mean(of_graph.iter().copied(), measure);
        let all = of_graph.iter().map(|row| row.ratio(measure));
        let (low, high) = all.fold((f64::INFINITY, 0.0_f64), |(low, high), x| (low.min(x), high.max(x)));
        let y = 34.0 + LINE * position as f64;
        let fill = if mean <= 1.0 { "#5b8fb9" } else { "#c98a5b" };
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"12\" fill=\"{fill}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#333\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{mean:.2}</text>",
            LEFT - 6.0,
            y + 10.0,
            escape(graph),
            x(mean) - LEFT,
            x(low),
            x(high),
            y + 6.0,
            y + 6.0,
            LEFT + WIDTH + 8.0,
            y + 10.0
        );
    }
    let one = x(1.0);
    let _ = writeln!(
        out,
        "<line x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"28\" y2=\"{bottom:.0}\" stroke=\"#b33\" stroke-dasharray=\"3 2\"/>"
    );
    out + "</svg>\n"
}
