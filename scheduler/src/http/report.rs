//! The page that `performance_report` writes: what ran between two moments, on one page without scripts.

mod profile;
mod tasks;

use std::fmt::Write;

use dask_protocol::Value;

use super::html::{bytes, duration, escape};
use crate::state::Usage;

const STYLE: &str = "body{font-family:system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse}\
    th,td{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}\
    nav a{margin-right:1.5em}section{margin:2em 0}pre{background:#f4f4f4;padding:.8em;overflow:auto}\
    svg{width:100%;background:#fafafa}.flame{font-size:.75em}.flame div{box-sizing:border-box;overflow:hidden;\
    white-space:nowrap;float:left}.flame p{margin:0;background:#f5a623;border:1px solid #fff;overflow:hidden}";

/// What the report tells.
pub(crate) struct Report {
    /// Unix times of the first and the last moment.
    pub(crate) start: f64,
    pub(crate) stop: f64,
    /// The code that was measured, as the client sent it.
    pub(crate) code: String,
    pub(crate) address: String,
    pub(crate) workers: Vec<ReportedWorker>,
    /// Records of the task stream.
    pub(crate) tasks: Vec<Value>,
    /// The call tree of the tasks.
    pub(crate) profile: Value,
    /// Level and text, newest first.
    pub(crate) logs: Vec<(String, String)>,
    /// Versions of dask and distributed.
    pub(crate) versions: Vec<(String, String)>,
    /// What the tasks of each client cost since the scheduler started.
    pub(crate) usages: Vec<(String, Usage)>,
}

/// One worker of a report.
pub(crate) struct ReportedWorker {
    pub(crate) address: String,
    pub(crate) name: String,
    pub(crate) nthreads: u32,
    pub(crate) memory_limit: u64,
    pub(crate) memory: u64,
    /// Bytes per second it sees in transfers.
    pub(crate) bandwidth: f64,
}

impl Report {
    /// The page.
    pub(crate) fn html(&self) -> String {
        let stream = tasks::Stream::read(&self.tasks);
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Dask Performance Report</title>\
             <style>{STYLE}</style></head><body><h1>Dask Performance Report</h1><nav><a href=\"#summary\">Summary</a>\
             <a href=\"#tasks\">Task Stream</a><a href=\"#profile\">Worker Profile (compute)</a>\
             <a href=\"#workers\">Workers</a><a href=\"#clients\">Clients</a><a href=\"#logs\">Scheduler Logs</a></nav>"
        );
        page += &self.summary(&stream);
        page += &section("tasks", "Task Stream", &stream.svg(self.start, self.stop));
        page += &section("profile", "Worker Profile (compute)", &profile::flame(&self.profile));
        page += &section("workers", "Workers", &self.workers());
        page += &section("clients", "Clients", &self.clients());
        page += &section("logs", "Scheduler Logs", &self.logs());
        page + "</body></html>\n"
    }

    fn summary(&self, stream: &tasks::Stream) -> String {
        let mut text = format!("<h3>Duration: {}</h3><h3>Tasks Information</h3><ul>", duration(self.stop - self.start));
        // Writing to a String cannot fail, here and below.
        let _ = write!(text, "<li>number of tasks: {}</li>", self.tasks.len());
        for (action, seconds) in stream.seconds_by_action() {
            let _ = write!(text, "<li>{} time: {}</li>", escape(action), duration(*seconds));
        }
        let threads: u64 = self.workers.iter().map(|worker| u64::from(worker.nthreads)).sum();
        let memory = self.workers.iter().map(|worker| worker.memory_limit).sum();
        let _ = write!(
            text,
            "</ul><h3>Scheduler Information</h3><ul><li>Address: {}</li><li>Workers: {}</li><li>Threads: {threads}</li>\
             <li>Memory: {}</li>",
            escape(&self.address),
            self.workers.len(),
            bytes(memory)
        );
        for (package, version) in &self.versions {
            let _ = write!(text, "<li>{} version: {}</li>", escape(package), escape(version));
        }
        let _ = write!(text, "</ul><h3>Calling Code</h3><pre>{}</pre>", escape(&self.code));
        section("summary", "Summary", &text)
    }

    fn workers(&self) -> String {
        let mut table = "<table><tr><th>worker</th><th>name</th><th>threads</th><th>memory</th><th>limit</th>\
            <th>bandwidth</th></tr>"
            .to_owned();
        for worker in &self.workers {
            let _ = write!(
                table,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.1} MB/s</td></tr>",
                escape(&worker.address),
                escape(&worker.name),
                worker.nthreads,
                bytes(worker.memory),
                bytes(worker.memory_limit),
                worker.bandwidth / 1e6
            );
        }
        table + "</table>"
    }

    fn clients(&self) -> String {
        let mut table = "<p>Since the scheduler started.</p><table><tr><th>client</th><th>results</th><th>raised</th>\
            <th>computing</th><th>transfers</th><th>size of results</th></tr>"
            .to_owned();
        for (client, usage) in &self.usages {
            let _ = write!(
                table,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(client),
                usage.finished,
                usage.erred,
                duration(usage.compute),
                duration(usage.transfer),
                bytes(usage.nbytes)
            );
        }
        table + "</table>"
    }

    fn logs(&self) -> String {
        let lines: Vec<String> = self.logs.iter().rev().map(|(_, line)| escape(line)).collect();
        format!("<pre>{}</pre>", lines.join("\n"))
    }
}

fn section(id: &str, title: &str, body: &str) -> String {
    format!("<section id=\"{id}\"><h2>{title}</h2>{body}</section>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, start: f64) -> Value {
        let part = Value::map([("action", "compute".into()), ("start", start.into()), ("stop", (start + 0.5).into())]);
        Value::map([
            ("key", key.into()),
            ("status", "OK".into()),
            ("worker", "tcp://h:1".into()),
            ("thread", Value::Int(7)),
            ("startstops", Value::Array(vec![part])),
        ])
    }

    fn report(code: &str) -> Report {
        let leaf = |name: &str, count: i64| {
            Value::map([
                ("count", count.into()),
                ("children", Value::Map(Vec::new())),
                ("description", Value::map([("name", name.into()), ("filename", "f.py".into())])),
            ])
        };
        let children = Value::map([("a", leaf("slow_<part>", 9)), ("b", leaf("quick_part", 1))]);
        Report {
            start: 0.0,
            stop: 2.0,
            code: code.to_owned(),
            address: "tcp://s:1".to_owned(),
            workers: Vec::new(),
            tasks: vec![record("inc-1", 0.5), record("inc-2", 1.0)],
            profile: Value::map([("count", 10_i64.into()), ("children", children)]),
            logs: vec![("INFO".to_owned(), "newest".to_owned()), ("INFO".to_owned(), "oldest".to_owned())],
            versions: vec![("Dask".to_owned(), "1.2".to_owned())],
            usages: vec![("Client-<ada>".to_owned(), Usage { finished: 41, compute: 7.0, ..Usage::default() })],
        }
    }

    #[test]
    fn the_page_tells_what_ran() {
        let html = report("x.compute()").html();
        for told in [
            "number of tasks: 2",
            "compute time: 1.00 s",
            "Duration: 2.00 s",
            "inc-1",
            "quick_part",
            "Dask version",
            "<td>41</td>",
        ] {
            assert!(html.contains(told), "{told}");
        }
        assert!(html.find("oldest") < html.find("newest"));
    }

    #[test]
    fn code_and_names_cannot_become_markup() {
        let html = report("<script>alert(1)</script>").html();
        assert!(!html.contains("<script>") && !html.contains("slow_<part>") && !html.contains("<ada>"));
        assert!(html.contains("slow_&lt;part&gt;"));
    }

    #[test]
    fn odd_records_are_harmless() {
        let mut odd = report("");
        odd.tasks =
            vec![Value::Nil, record("x", f64::NAN), record("y", f64::INFINITY), Value::map([("key", Value::Nil)])];
        odd.profile = Value::Int(3);
        assert!(odd.html().contains("number of tasks: 4"));
    }
}
