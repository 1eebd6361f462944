//! Tasks that say of themselves that they are over at once.

use std::sync::atomic::{AtomicU32, Ordering};

/// A brief task ends within this time, in seconds. One that is interrupted by something else may take longer.
const BRIEF_SECONDS_MAX: f64 = 1e-3;
/// Executions in a row that may take longer.
const OVERRUNS_MAX: u32 = 3;
/// A task that takes so long is not interrupted, it waits for something. In seconds.
const WAITING_SECONDS_MIN: f64 = 0.1;

/// Whether the executions of a function that is marked as brief are so, in this process.
#[derive(Debug, Default)]
pub struct Brief {
    /// Executions in a row that took too long; [`u32::MAX`] once it is not believed any more.
    overruns: AtomicU32,
}

impl Brief {
    /// A function that is believed.
    pub const fn new() -> Brief {
        Brief { overruns: AtomicU32::new(0) }
    }

    /// Whether it is believed.
    pub(super) fn keeps_its_word(&self) -> bool {
        self.overruns.load(Ordering::Relaxed) != u32::MAX
    }

    /// Notes what an execution took, in seconds; true if it is not believed from now on.
    pub(crate) fn took(&self, seconds: f64) -> bool {
        if seconds <= BRIEF_SECONDS_MAX {
            // Only the first one after an overrun has to write.
            if self.overruns.load(Ordering::Relaxed) != 0 && self.keeps_its_word() {
                self.overruns.store(0, Ordering::Relaxed);
            }
            return false;
        }
        let overruns = self.overruns.load(Ordering::Relaxed).saturating_add(1);
        let over = overruns >= OVERRUNS_MAX || seconds >= WAITING_SECONDS_MIN;
        let before = self.overruns.swap(if over { u32::MAX } else { overruns }, Ordering::Relaxed);
        over && before != u32::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_interruption_is_no_breach() {
        let brief = Brief::new();
        for _ in 0..10 {
            assert!(!brief.took(0.01));
            assert!(!brief.took(0.02));
            assert!(!brief.took(1e-6));
        }
        assert!(brief.keeps_its_word());
    }

    #[test]
    fn who_is_late_again_and_again_or_waits_is_not_believed() {
        for spans in [&[0.01, 0.01, 0.01][..], &[0.2]] {
            let brief = Brief::new();
            let (last, first) = spans.split_last().expect("some");
            assert!(first.iter().all(|&seconds| !brief.took(seconds)));
            assert!(brief.took(*last), "said once");
            assert!(!brief.took(*last) && !brief.took(1e-6));
            assert!(!brief.keeps_its_word());
        }
    }
}
