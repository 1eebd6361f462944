//! The task stream of a report: a lane per thread, a box per part of a task's life.

use std::fmt::Write;

use dask_protocol::Value;
use indexmap::IndexMap;

use super::super::html::{duration, escape};

/// Most boxes drawn; the longest ones are.
const BOXES_MAX: usize = 20_000;
/// Height of a lane and width of the drawing, in units of the picture.
const LANE_HEIGHT: usize = 14;
const WIDTH: f64 = 1000.0;
/// Colours of tasks, by prefix.
const COLOURS: [&str; 8] = ["#4c78a8", "#f58518", "#54a24b", "#b279a2", "#72b7b2", "#eeca3b", "#9d755d", "#ff9da6"];

/// What the records tell, taken apart.
pub(super) struct Stream {
    boxes: Vec<Part>,
    lanes: usize,
    seconds: IndexMap<String, f64>,
}

struct Part {
    lane: usize,
    start: f64,
    stop: f64,
    colour: &'static str,
    label: String,
}

impl Stream {
    pub(super) fn read(records: &[Value]) -> Stream {
        let mut lanes: IndexMap<String, ()> = IndexMap::new();
        let mut prefixes: IndexMap<String, ()> = IndexMap::new();
        let mut stream = Stream { boxes: Vec::new(), lanes: 0, seconds: IndexMap::new() };
        for record in records {
            let Some(key) = record.get("key").and_then(Value::to_key) else { continue };
            let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
            let thread = record.get("thread").and_then(Value::as_i64).unwrap_or_default();
            let lane = lanes.insert_full(format!("{}-{thread}", text("worker")), ()).0;
            let prefix = prefixes.insert_full(key.prefix().into_owned(), ()).0;
            let failed = text("status") != "OK";
            for part in record.get("startstops").and_then(Value::as_items).unwrap_or_default() {
                let moment = |name: &str| part.get(name).and_then(Value::as_f64).filter(|time| time.is_finite());
                let (Some(start), Some(stop)) = (moment("start"), moment("stop")) else { continue };
                let action = part.get("action").and_then(Value::as_str).unwrap_or_default();
                *stream.seconds.entry(action.to_owned()).or_default() += stop - start;
                let colour = match (action, failed) {
                    ("compute", false) => COLOURS[prefix % COLOURS.len()],
                    ("compute", true) => "#000",
                    ("transfer", _) => "#d62728",
                    ("disk-read" | "disk-write", _) => "#ff7f0e",
                    _ => "#999",
                };
                let label = format!("{action} {key}: {}", duration(stop - start));
                stream.boxes.push(Part { lane, start, stop, colour, label });
            }
        }
        stream.lanes = lanes.len();
        stream.seconds.sort_keys();
        stream.boxes.sort_by(|a, b| (b.stop - b.start).total_cmp(&(a.stop - a.start)));
        stream.boxes.truncate(BOXES_MAX);
        stream
    }

    /// Seconds per action, by name.
    pub(super) fn seconds_by_action(&self) -> &IndexMap<String, f64> {
        &self.seconds
    }

    /// The drawing of what lies between two moments.
    pub(super) fn svg(&self, start: f64, stop: f64) -> String {
        let height = self.lanes.max(1) * LANE_HEIGHT;
        let scale = WIDTH / (stop - start).max(1e-6);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\">");
        for part in &self.boxes {
            let (from, to) = (part.start.max(start), part.stop.min(stop));
            if from > to {
                continue;
            }
            // Writing to a String cannot fail.
            let _ = write!(
                svg,
                "<rect x=\"{:.3}\" y=\"{}\" width=\"{:.3}\" height=\"{}\" fill=\"{}\"><title>{}</title></rect>",
                (from - start) * scale,
                part.lane * LANE_HEIGHT + 1,
                ((to - from) * scale).max(0.05),
                LANE_HEIGHT - 2,
                part.colour,
                escape(&part.label)
            );
        }
        svg + "</svg>"
    }
}
