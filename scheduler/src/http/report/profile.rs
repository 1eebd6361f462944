//! The call tree of a report: every frame above those it called, as wide as its share of the samples.

use std::fmt::Write;

use dask_protocol::Value;

use super::super::html::escape;

/// Deepest frame drawn; workers cut their trees at 100.
const DEPTH_MAX: usize = 110;
/// Most frames drawn.
const FRAMES_MAX: usize = 5_000;
/// Frames seen in a smaller part of their caller's samples are left out, in percent.
const SHARE_MIN: f64 = 0.5;

/// The tree as nested boxes.
pub(super) fn flame(tree: &Value) -> String {
    let count = tree.get("count").and_then(Value::as_i64).unwrap_or_default();
    if count <= 0 {
        return "<p>No samples: no task ran long enough.</p>".to_owned();
    }
    let mut html = format!("<p>{count} samples</p><div class=\"flame\">");
    let mut left = FRAMES_MAX;
    children(tree, 0, &mut left, &mut html);
    html + "</div>"
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples, shown in percent")]
fn children(node: &Value, depth: usize, left: &mut usize, html: &mut String) {
    let count = |node: &Value| node.get("count").and_then(Value::as_i64).unwrap_or_default();
    let Some(Value::Map(all)) = node.get("children") else { return };
    let whole = count(node).max(1) as f64;
    for (_, child) in all {
        let share = (100.0 * count(child) as f64 / whole).clamp(0.0, 100.0);
        if share < SHARE_MIN || depth >= DEPTH_MAX || *left == 0 {
            continue;
        }
        *left -= 1;
        let described =
            |name: &str| child.get("description").and_then(|d| d.get(name)).and_then(Value::as_str).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(
            html,
            "<div style=\"width:{share:.2}%\"><p title=\"{} {}\">{}</p>",
            escape(described("filename")),
            escape(described("line")),
            escape(described("name"))
        );
        children(child, depth + 1, left, html);
        html.push_str("</div>");
    }
}
