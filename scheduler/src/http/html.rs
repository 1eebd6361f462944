//! The frame of every page, and how figures are written in it.

use std::fmt::Write;

use axum::response::Html;

/// The pages in the navigation: path and title.
pub(super) const NAVIGATION: [(&str, &str); 11] = [
    ("status", "Status"),
    ("workers", "Workers"),
    ("tasks", "Tasks"),
    ("memory", "Memory"),
    ("graph", "Graph"),
    ("groups", "Groups"),
    ("map", "Cluster map"),
    ("system", "System"),
    ("profile", "Profile"),
    ("events", "Events"),
    ("info", "Info"),
];

/// One page, before it is written.
pub(super) struct Page<'a> {
    pub(super) title: &'a str,
    /// The entry of the navigation that it belongs to; none for a page without navigation, as in a frame of Jupyter.
    pub(super) section: Option<&'a str>,
    /// How many folders deep its address is: links are relative, so that they work behind any proxy.
    pub(super) depth: usize,
    /// What the page's script draws: names of panels, with a space between.
    pub(super) panels: &'a str,
    /// The text of the page.
    pub(super) body: &'a str,
}

impl Page<'_> {
    pub(super) fn html(&self) -> Html<String> {
        let root = root(self.depth);
        let title = escape(self.title);
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>Dask: {title}</title>\
             <link rel=\"icon\" href=\"{root}statics/icon.svg\"><link rel=\"stylesheet\" \
             href=\"{root}statics/dashboard.css\"><script type=\"module\" src=\"{root}statics/dashboard.js\"></script>\
             </head><body data-root=\"{root}\" data-panels=\"{}\">",
            escape(self.panels)
        );
        if let Some(section) = self.section {
            navigation(&mut page, &root, section);
        }
        // Writing to a String cannot fail.
        let _ = writeln!(page, "<main>{}</main></body></html>", self.body);
        Html(page)
    }
}

fn navigation(page: &mut String, root: &str, section: &str) {
    page.push_str("<header><nav>");
    for (path, name) in NAVIGATION {
        let current = if path == section { " aria-current=\"page\"" } else { "" };
        let _ = write!(page, "<a href=\"{root}{path}\"{current}>{name}</a>");
    }
    page.push_str(
        "</nav><span id=\"pulse\" role=\"status\"></span><button id=\"theme\" type=\"button\" \
         title=\"light or dark\">\u{25D0}</button></header>",
    );
}

/// What leads from a page to the top of the site.
pub(super) fn root(depth: usize) -> String {
    if depth == 0 { "./".to_owned() } else { "../".repeat(depth) }
}

/// Text as it may stand in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Text as one part of an address.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// As `dask.utils.format_bytes`.
#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 5] = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("kiB", 10)];
    for (unit, shift) in UNITS {
        let whole = 1_u64 << shift;
        if count as f64 >= whole as f64 * 0.9 {
            return format!("{:.2} {unit}", count as f64 / whole as f64);
        }
    }
    format!("{count} B")
}

/// Seconds for people.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        days if days >= 172_800.0 => format!("{:.1} days", days / 86_400.0),
        hours if hours >= 7_200.0 => format!("{:.1} h", hours / 3_600.0),
        long if long >= 600.0 => format!("{:.1} min", long / 60.0),
        some if some >= 1.0 => format!("{some:.2} s"),
        short if short >= 1e-3 => format!("{:.2} ms", short * 1e3),
        tiny => format!("{:.2} us", tiny * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_peers_cannot_become_markup() {
        assert_eq!(escape("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
        assert_eq!(encoded("('x', 0)/\"ü"), "%28%27x%27%2C%200%29%2F%22%C3%BC");
    }

    #[test]
    fn bytes_read_as_dask_prints_them() {
        assert_eq!([bytes(1), bytes(1024), bytes(25_280_000_000)], ["1 B", "1.00 kiB", "23.54 GiB"]);
    }

    #[test]
    fn every_link_of_a_page_is_relative() {
        let page = Page { title: "T", section: Some("info"), depth: 2, panels: "", body: "" }.html().0;
        assert!(page.contains("href=\"../../status\"") && page.contains("src=\"../../statics/dashboard.js\""));
        assert!(!page.contains("=\"/"), "{page}");
    }
}
