//! How much memory a process and its descendants use, read from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

/// Most processes counted of one worker, so that a fork bomb in user code cannot occupy the nanny.
const TREE_PROCESSES_MAX: usize = 4096;

/// How old a list of descendants may be: finding them takes ten times as long as adding up what they use.
const TREE_AGE_MAX: Duration = Duration::from_secs(1);

/// A process and its descendants.
#[derive(Debug)]
pub(crate) struct Tree {
    pid: u32,
    descendants: Vec<u32>,
    looked: Instant,
}

impl Tree {
    pub(crate) fn of(pid: u32) -> Tree {
        Tree { pid, descendants: descendants(pid), looked: Instant::now() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Resident bytes of all of them; `None` when the process is gone or the system has no `/proc`. Pages that several of
    /// them share count several times.
    pub(crate) fn resident_bytes(&mut self) -> Option<u64> {
        if self.looked.elapsed() >= TREE_AGE_MAX {
            *self = Tree::of(self.pid);
        }
        let theirs = self.descendants.iter().filter_map(|pid| resident_bytes(*pid));
        Some(theirs.fold(resident_bytes(self.pid)?, u64::saturating_add))
    }
}

fn descendants(pid: u32) -> Vec<u32> {
    let mut found = children(pid);
    let mut next = 0;
    while let Some(&child) = found.get(next).filter(|_| next < TREE_PROCESSES_MAX) {
        next += 1;
        found.extend(children(child));
    }
    found.truncate(TREE_PROCESSES_MAX);
    found
}

/// The second field of `statm` counts resident pages.
fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// Every thread lists the processes it started.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn children_count_and_the_dead_do_not() {
        let me = std::process::id();
        let mut child = Command::new("/bin/sh")
            .args(["-c", "echo up; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh exists");
        child.stdout.as_mut().expect("piped").read_exact(&mut [0; 3]).expect("it says up");
        assert!(children(me).contains(&child.id()));
        let theirs = resident_bytes(child.id()).expect("alive");
        assert!(theirs > 0);
        assert!(Tree::of(me).resident_bytes().expect("alive") >= theirs + resident_bytes(me).expect("alive") / 2);
        let pid = child.id();
        drop(child.stdin.take());
        child.wait().expect("it ends with its input");
        assert_eq!(Tree::of(pid).resident_bytes(), None);
    }
}
