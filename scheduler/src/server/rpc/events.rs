//! `log_event`, `events`, `get_logs`.

use dask_protocol::message::{Pairs, Request};
use dask_protocol::{Key, Value};
use serde::Deserialize;

use super::super::events::topics;
use super::super::failure::{Failure, Reply, nil, reply};
use super::super::shared::Server;

/// Most log lines in one answer (`distributed.admin.log-length`).
const LOG_LINES_MAX: usize = 10_000;

/// `log_event`.
pub(crate) async fn log_event(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        topic: Value,
        #[serde(default)]
        msg: Value,
    }
    let Args { topic, msg } = request.args()?;
    server.driver.run(move |core| topics(&topic).iter().for_each(|topic| core.log_event(topic, msg.clone()))).await?;
    nil()
}

/// `events`.
pub(crate) async fn events(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        topic: Value,
    }
    let Args { topic } = request.args()?;
    if topic.is_nil() {
        return reply(&server.driver.run(|core| Pairs(core.events.all())).await?);
    }
    let topic: Key = topic.to_key().ok_or_else(|| Failure::builtin("TypeError", "a topic must be a text"))?;
    reply(&server.driver.run(move |core| core.events.events(&topic)).await?)
}

/// `get_logs`: newest first, `[level, line]` or `[time, level, line]`.
pub(crate) fn logs(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        #[serde(default)]
        start: f64,
        #[serde(default)]
        n: Option<usize>,
        #[serde(default)]
        timestamps: bool,
    }
    let Args { start, n, timestamps } = request.args()?;
    let wanted = n.unwrap_or(LOG_LINES_MAX).min(LOG_LINES_MAX);
    let lines = server.options.logs.as_ref().map_or_else(Vec::new, |logs| logs(wanted));
    let lines = lines.into_iter().filter(|(time, _, _)| *time >= start);
    if timestamps {
        reply(&lines.collect::<Vec<_>>())
    } else {
        reply(&lines.map(|(_, level, line)| (level, line)).collect::<Vec<_>>())
    }
}
