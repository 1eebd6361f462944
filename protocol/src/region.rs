//! Memory for large frames: whole pages, which serve the next frame of about the same size.
//!
//! The kernel clears each page when it is touched for the first time, and on a virtual machine the host has to find one as
//! well: that takes longer than all the copying of a frame. Frames that only pass through (from a socket to another process)
//! are let go of at once, so a few regions serve all of them. Large ones ask for huge pages, of which there are fewer.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memmap2::MmapMut;

/// Frames of this size get a region.
pub(crate) const REGION_BYTES_MIN: usize = 256 << 10;
/// Larger frames do not: the memory of an announced frame must not all be set aside at once.
pub(crate) const REGION_BYTES_MAX: usize = 256 << 20;
/// Regions of this size are made of huge pages where there are any.
const HUGE_BYTES_MIN: usize = 4 << 20;
/// Regions begin and end with a page.
const PAGE_BYTES: usize = 4 << 10;
/// A region serves frames that leave at most this part of it unused.
const UNUSED_FRACTION: usize = 8;
/// Most memory kept of regions that nobody uses: two large frames come in, while two others go out.
const KEPT_BYTES_MAX: usize = 512 << 20;
/// How long a region is kept that nobody uses.
const KEPT_TIME: Duration = Duration::from_secs(2);

/// A part of memory that belongs to one frame, and goes back to the others when it is dropped.
#[derive(Debug)]
pub(crate) struct Region {
    /// None once it is dropped.
    map: Option<MmapMut>,
    bytes: usize,
}

impl Region {
    /// Memory of so many bytes, with anything in it.
    ///
    /// # Errors
    /// When the kernel has no addresses left.
    pub(crate) fn new(bytes: usize) -> io::Result<Region> {
        let kept = kept().take(bytes);
        let map = kept.map_or_else(|| map(bytes), Ok)?;
        Ok(Region { map: Some(map), bytes })
    }

    /// All of it.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        let map = self.map.as_mut().expect("a region has its memory until it is dropped");
        &mut map[..self.bytes]
    }
}

impl AsRef<[u8]> for Region {
    fn as_ref(&self) -> &[u8] {
        let map = self.map.as_ref().expect("a region has its memory until it is dropped");
        &map[..self.bytes]
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let released = self.map.take().map(|map| kept().keep(map, Instant::now()));
        // Unmapping takes its time: not while others wait for the lock.
        drop(released);
    }
}

/// Keeps at most so much memory for frames to come, in bytes, and never more than half a GiB; for a process that has a limit.
pub fn keep_unused_at_most(bytes: usize) {
    let unused = kept().limit_to(bytes.min(KEPT_BYTES_MAX));
    drop(unused);
}

/// Gives memory back to the system that no frame has used for two seconds. To be called now and then; frames that come and
/// go do so too.
pub fn give_back_unused() {
    let unused = kept().expire(Instant::now());
    drop(unused);
}

fn map(bytes: usize) -> io::Result<MmapMut> {
    let map = MmapMut::map_anon(bytes.next_multiple_of(PAGE_BYTES))?;
    if bytes >= HUGE_BYTES_MIN {
        // Without huge pages it works as well.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    Ok(map)
}

/// Regions that nobody uses, the longest unused first.
#[derive(Debug)]
struct Kept {
    regions: VecDeque<(Instant, MmapMut)>,
    bytes: usize,
    bytes_max: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept::new(KEPT_BYTES_MAX));

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    const fn new(bytes_max: usize) -> Kept {
        Kept { regions: VecDeque::new(), bytes: 0, bytes_max }
    }

    fn limit_to(&mut self, bytes_max: usize) -> Vec<MmapMut> {
        self.bytes_max = bytes_max;
        self.shrink(|bytes, _| bytes > bytes_max)
    }

    /// One that fits, the one used last: what it holds may still be in a cache.
    fn take(&mut self, bytes: usize) -> Option<MmapMut> {
        let fits =
            |map: &MmapMut| map.len() >= bytes && map.len() - bytes.min(map.len()) <= map.len() / UNUSED_FRACTION;
        let at = self.regions.iter().rposition(|(_, map)| fits(map));
        let (_, map) = self.regions.remove(at?)?;
        self.bytes -= map.len();
        Some(map)
    }

    /// Keeps one for the next frame; what has to go for it.
    fn keep(&mut self, map: MmapMut, now: Instant) -> Vec<MmapMut> {
        let bytes_max = self.bytes_max;
        if map.len() > bytes_max {
            return vec![map];
        }
        self.bytes += map.len();
        self.regions.push_back((now, map));
        self.shrink(|bytes, _| bytes > bytes_max)
    }

    fn expire(&mut self, now: Instant) -> Vec<MmapMut> {
        self.shrink(|_, since| now.saturating_duration_since(since) > KEPT_TIME)
    }

    /// Takes the longest unused ones away for as long as there is a reason, by the bytes kept and the first one's time.
    fn shrink(&mut self, reason: impl Fn(usize, Instant) -> bool) -> Vec<MmapMut> {
        let mut gone = Vec::new();
        while let Some(&(since, _)) = self.regions.front()
            && reason(self.bytes, since)
            && let Some((_, map)) = self.regions.pop_front()
        {
            self.bytes -= map.len();
            gone.push(map);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    fn kept(sizes: &[usize]) -> (Kept, Instant) {
        let (mut kept, now) = (Kept::new(64 * MB), Instant::now());
        for &bytes in sizes {
            assert!(kept.keep(map(bytes).expect("memory"), now).is_empty());
        }
        (kept, now)
    }

    #[test]
    fn a_region_serves_frames_of_about_its_size() {
        let (mut kept, _) = kept(&[8 * MB, 4 * MB]);
        assert!(kept.take(5 * MB).is_none(), "half of it would be unused, or it is too small");
        assert_eq!(kept.take(4 * MB - 1000).map(|map| map.len()), Some(4 * MB));
        assert!(kept.take(4 * MB).is_none(), "it is in use");
        assert_eq!(kept.take(7 * MB).map(|map| map.len()), Some(8 * MB));
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        let (mut kept, now) = kept(&[30 * MB, 30 * MB]);
        let gone = kept.keep(map(10 * MB).expect("memory"), now);
        assert_eq!(gone.iter().map(|map| map.len()).collect::<Vec<_>>(), [30 * MB]);
        assert_eq!(kept.bytes, 40 * MB);
        let gone = kept.keep(map(65 * MB).expect("memory"), now);
        assert_eq!((gone.len(), kept.bytes), (1, 40 * MB), "one larger than all that may be kept is not kept");
        assert_eq!(kept.limit_to(15 * MB).len(), 1);
        assert_eq!(kept.bytes, 10 * MB);
    }

    #[test]
    fn what_is_not_used_goes_after_a_while() {
        let (mut kept, now) = kept(&[MB]);
        kept.keep(map(2 * MB).expect("memory"), now + KEPT_TIME);
        assert!(kept.expire(now + KEPT_TIME).is_empty());
        assert_eq!(kept.expire(now + KEPT_TIME + Duration::from_millis(1)).len(), 1);
        assert_eq!(kept.bytes, 2 * MB);
    }
}
