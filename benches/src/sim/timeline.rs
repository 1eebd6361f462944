//! A run as a picture: one lane per thread, one bar per task, and the memory of the cluster below.

use std::fmt::Write;

use super::outcome::Outcome;
use super::shape::Shape;
use super::workload::Workload;

/// Most lanes drawn; the threads of further workers are left out.
pub const LANES_MAX: usize = 400;
/// Most bars drawn; the later ones are left out.
pub const BARS_MAX: usize = 50_000;
const WIDTH: f64 = 1200.0;
const LEFT: f64 = 60.0;
const MEMORY_HEIGHT: f64 = 80.0;

/// An SVG of the run.
pub fn svg(workload: &Workload, shape: &Shape, title: &str, outcome: &Outcome) -> String {
    let first_lanes = first_lanes(shape);
    let lanes = (shape.threads() as usize).min(LANES_MAX);
    let lane_height = (600.0 / lanes as f64).clamp(1.5, 14.0);
    let chart = lane_height * lanes as f64;
    let height = chart + MEMORY_HEIGHT + 70.0;
    let scale = WIDTH / outcome.makespan.max(1e-9);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"16\" font-size=\"13\">{}</text>\n",
        WIDTH + LEFT + 20.0,
        escape(title)
    );
    let drawn = outcome.spans.iter().filter_map(|span| {
        let lane = first_lanes[span.worker as usize] + span.thread as usize;
        (lane < lanes).then_some((span, lane))
    });
    for (span, lane) in drawn.take(BARS_MAX) {
        let task = &workload.tasks[span.task as usize];
        let (x, y) = (LEFT + span.start * scale, 26.0 + lane as f64 * lane_height);
        let width = ((span.stop - span.start) * scale).max(0.2);
        let _ = writeln!(
            out,
            "<rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{:.1}\" fill=\"{}\"><title>{}: {:.3} to {:.3} s</title></rect>",
            (lane_height * 0.9).max(1.0),
            colour(&task.key.prefix()),
            escape(&task.key.to_string()),
            span.start,
            span.stop
        );
    }
    memory(&mut out, outcome, 26.0 + chart + 10.0, scale);
    let base = 26.0 + chart + 10.0 + MEMORY_HEIGHT;
    for tick in 0..=10 {
        let share = f64::from(tick) / 10.0;
        let (x, seconds) = (LEFT + share * WIDTH, share * outcome.makespan);
        let _ =
            writeln!(out, "<text x=\"{x:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{seconds:.1} s</text>", base + 16.0);
    }
    out + "</svg>\n"
}

/// The same as a page.
pub fn html(svg: &str, title: &str) -> String {
    format!("<!doctype html>\n<meta charset=\"utf-8\">\n<title>{}</title>\n{svg}", escape(title))
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
fn memory(out: &mut String, outcome: &Outcome, top: f64, scale: f64) {
    let peak = outcome.peak_memory.max(1) as f64;
    let _ = write!(
        out,
        "<path fill=\"#c9d6e6\" stroke=\"#56779c\" stroke-width=\"0.6\" d=\"M{LEFT} {:.1}",
        top + MEMORY_HEIGHT
    );
    let mut last_x = -1.0_f64;
    for (time, bytes) in &outcome.memory {
        let x = time * scale;
        // Half a point is less than anyone sees.
        if x - last_x >= 0.5 {
            last_x = x;
            let y = top + MEMORY_HEIGHT * (1.0 - *bytes as f64 / peak);
            let _ = write!(out, " L{:.1} {y:.1}", LEFT + x);
        }
    }
    let _ = writeln!(out, " L{:.1} {:.1} Z\"/>", LEFT + WIDTH, top + MEMORY_HEIGHT);
    let _ = writeln!(out, "<text x=\"2\" y=\"{:.0}\">{:.1} GB</text>", top + 10.0, peak / 1e9);
}

/// The first lane of each worker.
fn first_lanes(shape: &Shape) -> Vec<usize> {
    let mut next = 0;
    let lane = |threads: &u32| {
        let first = next;
        next += *threads as usize;
        first
    };
    shape.nthreads().iter().map(lane).collect()
}

/// A colour by name: the same name has the same one everywhere.
fn colour(name: &str) -> String {
    let hash = name.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    format!("hsl({},{}%,{}%)", hash % 360, 45 + hash / 360 % 30, 45 + hash / 10_800 % 20)
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::cluster::{Settings, run};
    use super::super::graphs::Graph;
    use super::*;

    #[test]
    fn every_task_has_a_bar() {
        let workload = Graph::find("join").expect("a graph").build(0);
        let settings = Settings { spans: true, ..Settings::new(Shape::even(2, 2)) };
        let outcome = run(&workload, &settings, |_| {}).expect("it ends");
        let picture = svg(&workload, &settings.shape, "a < b", &outcome);
        assert_eq!(picture.matches("<title>").count(), workload.tasks.len());
        assert!(picture.contains("a &lt; b"));
    }
}
