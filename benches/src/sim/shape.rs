//! How many workers there are, and what each has.

use std::fmt;
use std::str::FromStr;

/// Most workers of a simulated cluster.
pub const WORKERS_MAX: usize = 10_000;
/// Most threads of one worker.
pub const THREADS_MAX: u32 = 1024;

/// The workers of a cluster, by their threads. Written `4x8` (four workers with eight threads each); parts are joined
/// with `+`, as in `2x16+8x2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    name: String,
    nthreads: Vec<u32>,
}

impl Shape {
    /// `workers` workers with `threads` threads each.
    pub fn even(workers: usize, threads: u32) -> Shape {
        Shape { name: format!("{workers}x{threads}"), nthreads: vec![threads; workers] }
    }

    /// The threads of each worker.
    pub fn nthreads(&self) -> &[u32] {
        &self.nthreads
    }

    /// The threads of all workers.
    pub fn threads(&self) -> u32 {
        self.nthreads.iter().sum()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        let mut nthreads = Vec::new();
        for part in text.split('+') {
            let wrong = || format!("{part:?} is no shape such as 4x8 (workers x threads)");
            let (workers, threads) = part.split_once('x').ok_or_else(wrong)?;
            let workers: usize = workers.trim().parse().map_err(|_| wrong())?;
            let threads: u32 = threads.trim().parse().map_err(|_| wrong())?;
            if workers == 0 || threads == 0 || threads > THREADS_MAX || nthreads.len() + workers > WORKERS_MAX {
                return Err(format!("{part:?}: 1 to {WORKERS_MAX} workers with 1 to {THREADS_MAX} threads each"));
            }
            nthreads.extend(std::iter::repeat_n(threads, workers));
        }
        Ok(Shape { name: text.to_owned(), nthreads })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_written() {
        let shape: Shape = "2x16+3x2".parse().expect("a shape");
        assert_eq!(shape.nthreads(), [16, 16, 2, 2, 2]);
        assert_eq!((shape.threads(), shape.to_string()), (38, "2x16+3x2".to_owned()));
        assert_eq!(Shape::even(4, 8), "4x8".parse().expect("a shape"));
    }

    #[test]
    fn what_is_no_shape_is_refused() {
        for text in ["", "4", "0x2", "2x0", "ax2", "20000x1", "2x2+"] {
            assert!(text.parse::<Shape>().is_err(), "{text:?}");
        }
    }
}
