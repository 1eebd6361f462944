//! Graphs as pictures: Graphviz' DOT language, and SVG laid out in layers.

use std::fmt::Write;

/// Width of a box and its margin, and of a layer, in pixels.
const BOX_WIDTH: usize = 150;
const BOX_HEIGHT: usize = 26;
const COLUMN: usize = 170;
const ROW: usize = 64;
const MARGIN: usize = 12;
/// Longest label; a box has room for no more.
const LABEL_CHARS_MAX: usize = 24;

/// A graph to draw: labels, and edges by index from a task to those that read it.
pub(crate) struct Picture {
    pub labels: Vec<String>,
    pub edges: Vec<(usize, usize)>,
}

impl Picture {
    pub(crate) fn to_dot(&self) -> String {
        let mut dot = String::from("digraph {\n  rankdir=BT;\n");
        for (index, label) in self.labels.iter().enumerate() {
            let label = label.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(dot, "  {index} [label=\"{label}\"];");
        }
        for (from, to) in &self.edges {
            let _ = writeln!(dot, "  {from} -> {to};");
        }
        dot.push_str("}\n");
        dot
    }

    /// Each task one layer above the highest that it reads; `order` has those read before their readers.
    pub(crate) fn to_svg(&self, order: &[usize]) -> String {
        let mut layer = vec![0_usize; self.labels.len()];
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.labels.len()];
        self.edges.iter().for_each(|&(from, to)| readers[from].push(to));
        for &task in order {
            for &reader in &readers[task] {
                layer[reader] = layer[reader].max(layer[task] + 1);
            }
        }
        let layers = layer.iter().max().map_or(0, |highest| highest + 1);
        let mut filled = vec![0_usize; layers];
        let mut column = vec![0_usize; self.labels.len()];
        for &task in order {
            column[task] = filled[layer[task]];
            filled[layer[task]] += 1;
        }
        let widest = filled.iter().copied().max().unwrap_or(0);
        // Narrow layers stand in the middle.
        let x = |task: usize| MARGIN + column[task] * COLUMN + (widest - filled[layer[task]]) * COLUMN / 2;
        let y = |task: usize| MARGIN + (layers - 1 - layer[task]) * ROW;
        let (width, height) = (2 * MARGIN + widest * COLUMN, 2 * MARGIN + layers.saturating_sub(1) * ROW + BOX_HEIGHT);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"11\">\n"
        );
        for &(from, to) in &self.edges {
            let (x1, y1, x2, y2) = (x(from) + BOX_WIDTH / 2, y(from), x(to) + BOX_WIDTH / 2, y(to) + BOX_HEIGHT);
            let _ = writeln!(svg, "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#888\"/>");
        }
        for (task, label) in self.labels.iter().enumerate() {
            let (x, y) = (x(task), y(task));
            let (middle, baseline) = (x + BOX_WIDTH / 2, y + BOX_HEIGHT / 2 + 4);
            let short: String = label.chars().take(LABEL_CHARS_MAX).collect();
            let _ = writeln!(
                svg,
                "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"5\" \
                 fill=\"#eef\" stroke=\"#446\"/><text x=\"{middle}\" y=\"{baseline}\" text-anchor=\"middle\">{}</text></g>",
                escape(label),
                escape(&short)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_stand_above_what_they_read() {
        let labels = ["a", "b", "c<d>"].map(str::to_owned).to_vec();
        let picture = Picture { labels, edges: vec![(0, 2), (1, 2), (0, 1)] };
        let svg = picture.to_svg(&[0, 1, 2]);
        let height = |label: &str| {
            let box_of = svg.lines().find(|line| line.contains(&format!(">{label}<"))).expect("drawn");
            let y = box_of.split(" y=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("has a y");
            y.parse::<usize>().expect("a number")
        };
        assert!(height("a") > height("b") && height("b") > height("c&lt;d&gt;"), "{svg}");
        assert_eq!(svg.matches("<line").count(), 3);
        assert!(picture.to_dot().contains("0 -> 2"));
        assert_eq!(Picture { labels: vec![], edges: vec![] }.to_svg(&[]).matches("<rect").count(), 0);
    }
}
