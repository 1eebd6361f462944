//! CPU time of this thread: what other processes do on the machine does not count.

use rustix::time::{ClockId, clock_gettime};

/// Seconds of CPU this thread has used so far.
#[expect(clippy::cast_precision_loss, reason = "seconds since the thread began are few")]
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Seconds that one pair of readings adds to what lies between them.
pub fn cpu_reading_cost() -> f64 {
    const READINGS: u32 = 2000;
    let begin = cpu_seconds();
    for _ in 0..READINGS {
        std::hint::black_box(cpu_seconds());
    }
    (cpu_seconds() - begin) / f64::from(READINGS)
}
