//! `explain`, an operation of ours: why a key is where it is.

use dask_protocol::message::Request;
use dask_protocol::{Key, Value};
use serde::Deserialize;

use super::super::core::Core;
use super::super::failure::{Failure, Reply, reply};
use super::super::shared::Server;
use crate::state::Explanation;

/// Longest text taken for a key, in bytes.
const KEY_TEXT_MAX: usize = 10_000;

/// `explain`: `key` is a key, or its text as people type it.
pub(crate) async fn explain(server: &Server, request: &Request) -> Reply {
    #[derive(Deserialize)]
    struct Args {
        key: Value,
    }
    let Args { key } = request.args()?;
    let answer = match &key {
        Value::Str(text) if text.len() > KEY_TEXT_MAX => return Err(Failure::value("the key is too long")),
        Value::Str(text) => {
            let text = text.clone();
            server.driver.run(move |core| explain_text(core, &text)).await?
        }
        other => {
            let key: Key = other.to_key().ok_or_else(|| Failure::builtin("TypeError", "this cannot be a key"))?;
            server.driver.run(move |core| core.state.explain(&key)).await?
        }
    };
    reply(&answer.to_value())
}

/// The text itself is the key if there is such a task; else what it spells in Python, if there is such a task.
pub(crate) fn explain_text(core: &Core, text: &str) -> Explanation {
    let named = Key::from(text);
    let meant = match core.state.task_state(&named) {
        Some(_) => None,
        None => Key::from_literal(text).filter(|key| core.state.task_state(key).is_some()),
    };
    core.state.explain(&meant.unwrap_or(named))
}
