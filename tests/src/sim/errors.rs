//! Watches for log lines at ERROR level: they mean that something of ours is broken.

use std::cell::RefCell;
use std::fmt::Write;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static LOGGED: RefCell<Option<String>> = const { RefCell::new(None) };
}

struct Watch;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Watch {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        if !TOLD_TO_USERS.iter().any(|told| text.0.contains(told)) {
            LOGGED.with_borrow_mut(|slot| {
                slot.get_or_insert(text.0);
            });
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What upstream tells its users at this level too: nothing of ours is broken then.
const TOLD_TO_USERS: [&str; 2] = ["marked as failed because", "caused the cluster to lose scattered data"];

/// Watches from now on, in every thread.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Another subscriber, if a test binary has one, may stay: then only panics and rules are watched.
        let _ = tracing::subscriber::set_global_default(Watch);
    });
}

/// Forgets what this thread logged.
pub fn clear() {
    LOGGED.with_borrow_mut(|slot| *slot = None);
}

/// The first error this thread logged.
pub fn take() -> Option<String> {
    LOGGED.with_borrow_mut(Option::take)
}
