//! `performance_report`: the facts of a stretch of time, as a page of HTML.

use std::sync::Arc;

use dask_protocol::Value;
use dask_protocol::message::Request;
use serde::Deserialize;

use super::super::core::Core;
use super::super::failure::{Reply, SchedulerClosed, reply};
use super::super::peers::name_text;
use super::super::shared::Server;
use super::super::task_stream::Wanted;
use super::profile;
use crate::http::report::{Report, ReportedWorker};
use crate::state::Usage;

/// Most log lines in a report.
const LOG_LINES_MAX: usize = 1_000;
/// Most text of the code that was measured, in bytes.
const CODE_BYTES_MAX: usize = 1 << 20;

/// `performance_report`. `mode` and `last_count` are about upstream's way to draw, and not looked at.
pub(crate) async fn performance_report(server: &Arc<Server>, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        start: f64,
        #[serde(default)]
        code: Option<String>,
    }
    let Args { start, code } = request.args()?;
    let mut code = code.unwrap_or_default();
    if code.len() > CODE_BYTES_MAX {
        code.truncate((0..=CODE_BYTES_MAX).rev().find(|&end| code.is_char_boundary(end)).unwrap_or_default());
    }
    let profile = profile::of_tasks(server, start).await?;
    let versions = versions(&server.graphs.versions(&[]).await);
    let wanted = Wanted { start: Some(start), ..Wanted::default() };
    let asked = move |core: &mut Core| (core.task_stream.collect(&wanted), workers(core), usages(core));
    let (tasks, workers, usages) = server.driver.run(asked).await?;
    let logs = server.options.logs.as_ref().map_or_else(Vec::new, |logs| logs(LOG_LINES_MAX));
    let logs = logs.into_iter().filter(|(time, _, _)| *time >= start).map(|(_, level, line)| (level, line)).collect();
    let address = server.address.as_str().to_owned();
    let stop = server.clock.now();
    let report = Report { start, stop, code, address, workers, tasks, profile, logs, versions, usages };
    // A hundred thousand records take a while to draw.
    let html = tokio::task::spawn_blocking(move || report.html()).await;
    reply(&html.map_err(|_| SchedulerClosed)?)
}

fn workers(core: &mut Core) -> Vec<ReportedWorker> {
    let row = |view: crate::state::WorkerView<'_>| {
        let metrics = core.workers.get(view.address).map(|peer| &peer.metrics);
        let bandwidth = metrics.and_then(|metrics| metrics.get("bandwidth")?.get("total")?.as_f64());
        ReportedWorker {
            address: view.address.as_str().to_owned(),
            name: name_text(view.name),
            nthreads: view.nthreads,
            memory_limit: view.memory_limit,
            memory: view.memory.process,
            bandwidth: bandwidth.unwrap_or_default(),
        }
    };
    core.state.workers().map(row).collect()
}

fn usages(core: &Core) -> Vec<(String, Usage)> {
    core.state.usages().map(|(client, usage)| (client.to_owned(), *usage)).collect()
}

fn versions(known: &Value) -> Vec<(String, String)> {
    let version = |package: &str| known.get("packages")?.get(package)?.as_str().map(str::to_owned);
    let packages = [("Dask", "dask"), ("Dask.Distributed", "distributed")];
    packages.iter().filter_map(|(name, package)| Some(((*name).to_owned(), version(package)?))).collect()
}
