//! What a stream has sent and the peer has not confirmed, so that it can be sent again on another connection.
//!
//! Messages are numbered from 0 on both sides by counting; no number travels with them. A receiver tells how many it has
//! taken in; the sender forgets those, and after a cut writes on from there. So nothing is lost, doubled or reordered,
//! wherever the cut fell.

use std::collections::VecDeque;

/// How much of what was sent is kept. Beyond that the oldest goes, and a cut before the peer's next confirmation cannot be
/// mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentLimits {
    /// Most messages.
    pub messages: usize,
    /// Most bytes.
    pub bytes: usize,
}

impl SentLimits {
    /// Confirmations come with heartbeats, every 0.5 to some 6 s, while a busy stream carries up to some thousands of
    /// messages per second: 65,536 messages or 64 MiB.
    pub const DEFAULT: SentLimits = SentLimits { messages: 1 << 16, bytes: 64 << 20 };
}

/// The peer lacks messages that are not kept any more, or claims some that were never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer has {received} messages; those from {first} to {next} can be sent again")]
pub struct Gap {
    /// How many messages the peer says it has.
    pub received: u64,
    /// The first that can still be sent.
    pub first: u64,
    /// How many there were.
    pub next: u64,
}

/// The messages of one direction of a stream, from the first unconfirmed one on.
#[derive(Debug)]
pub struct SentLog<M> {
    kept: VecDeque<(M, usize)>,
    /// Number of the first that is kept.
    first: u64,
    /// Number of the next to be written on this connection.
    cursor: u64,
    bytes: usize,
    limits: SentLimits,
}

impl<M: Clone> SentLog<M> {
    /// A stream on which nothing was sent.
    pub fn new(limits: SentLimits) -> SentLog<M> {
        SentLog { kept: VecDeque::new(), first: 0, cursor: 0, bytes: 0, limits }
    }

    /// How many messages there were so far.
    pub fn next_number(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// Messages not written on this connection yet.
    pub fn unwritten(&self) -> usize {
        usize::try_from(self.next_number().saturating_sub(self.cursor)).unwrap_or(usize::MAX)
    }

    /// Appends a message of so many bytes; [`SentLog::next`] gives it when its turn comes. The oldest that were written
    /// go when the limits are passed.
    pub fn push(&mut self, message: M, bytes: usize) {
        self.kept.push_back((message, bytes));
        self.bytes = self.bytes.saturating_add(bytes);
        while self.first < self.cursor && (self.kept.len() > self.limits.messages || self.bytes > self.limits.bytes) {
            self.forget_first();
        }
    }

    /// The next message to write on this connection.
    #[expect(clippy::should_implement_trait, reason = "the log goes on when there is none at the moment")]
    pub fn next(&mut self) -> Option<M> {
        let position = usize::try_from(self.cursor.checked_sub(self.first)?).ok()?;
        let (message, _) = self.kept.get(position)?;
        self.cursor += 1;
        Some(message.clone())
    }

    /// The peer has taken in `received` messages. What is old news, or more than was sent, changes nothing.
    pub fn confirm(&mut self, received: u64) {
        if received <= self.cursor {
            while self.first < received {
                self.forget_first();
            }
        }
    }

    /// Whether the stream can go on with a peer that has `received` messages.
    ///
    /// # Errors
    /// [`Gap`] when it cannot.
    pub fn check(&self, received: u64) -> Result<(), Gap> {
        let (first, next) = (self.first, self.next_number());
        if (first..=next).contains(&received) { Ok(()) } else { Err(Gap { received, first, next }) }
    }

    /// Begins a new connection to a peer that has `received` messages; how many will be written again.
    ///
    /// # Errors
    /// [`Gap`] when the stream cannot go on; nothing has changed then.
    pub fn rewind(&mut self, received: u64) -> Result<u64, Gap> {
        self.check(received)?;
        let again = self.cursor.saturating_sub(received);
        self.cursor = received;
        self.confirm(received);
        Ok(again)
    }

    fn forget_first(&mut self) {
        if let Some((_, bytes)) = self.kept.pop_front() {
            self.first += 1;
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: SentLimits = SentLimits { messages: 4, bytes: 100 };

    fn log_of(messages: u32, limits: SentLimits) -> SentLog<u32> {
        let mut log = SentLog::new(limits);
        for message in 0..messages {
            log.push(message, 10);
            assert_eq!(log.next(), Some(message));
        }
        log
    }

    #[test]
    fn the_oldest_go_when_nothing_is_confirmed() {
        let mut log = log_of(9, SMALL);
        assert_eq!(log.rewind(4), Err(Gap { received: 4, first: 5, next: 9 }));
        assert_eq!(log.rewind(5), Ok(4));
        assert_eq!(log.next(), Some(5));
    }

    #[test]
    fn a_gap_heals_with_the_next_confirmation() {
        let mut log = log_of(9, SMALL);
        log.confirm(9);
        log.push(9, 10);
        assert_eq!(log.rewind(9), Ok(0));
        assert_eq!(log.next(), Some(9));
    }

    #[test]
    fn what_was_never_written_is_kept_whatever_its_size() {
        let mut log = SentLog::new(SMALL);
        for message in 0..9 {
            log.push(message, 1000);
        }
        assert_eq!((log.rewind(0), log.unwritten()), (Ok(0), 9));
        assert_eq!(std::iter::from_fn(|| log.next()).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
    }

    #[test]
    fn claims_of_more_than_was_sent_are_refused() {
        let mut log = log_of(3, SMALL);
        assert_eq!(log.rewind(4), Err(Gap { received: 4, first: 0, next: 3 }));
        assert_eq!(log.rewind(u64::MAX), Err(Gap { received: u64::MAX, first: 0, next: 3 }));
        log.confirm(u64::MAX);
        assert_eq!(log.rewind(0), Ok(3));
    }

    /// One thing that happens to a stream.
    #[derive(Debug, Clone)]
    enum Step {
        Send(u8),
        Write(u8),
        Deliver(u8),
        /// What is on its way is lost, and the stream goes on over another connection, after so many attempts of which
        /// the peer never heard.
        Cut {
            attempts: u8,
        },
        Confirm,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..6u8).prop_map(Step::Send),
            (1..6u8).prop_map(Step::Write),
            (1..6u8).prop_map(Step::Deliver),
            (0..3u8).prop_map(|attempts| Step::Cut { attempts }),
            Just(Step::Confirm),
        ]
    }

    proptest! {
        #[test]
        fn cuts_never_lose_double_or_reorder(steps in proptest::collection::vec(step(), 0..200)) {
            let mut log = SentLog::new(SentLimits { messages: 1000, bytes: usize::MAX });
            let (mut sent, mut wire, mut received) = (0_u32, VecDeque::new(), Vec::new());
            let mut stale = 0;
            for step in steps {
                match step {
                    Step::Send(count) => for _ in 0..count {
                        log.push(sent, 1);
                        sent += 1;
                    },
                    Step::Write(count) => wire.extend((0..count).map_while(|_| log.next())),
                    Step::Deliver(count) => {
                        let count = usize::from(count).min(wire.len());
                        received.extend(wire.drain(..count));
                    }
                    Step::Cut { attempts } => {
                        wire.clear();
                        for _ in 0..=attempts {
                            prop_assert!(log.rewind(received.len() as u64).is_ok());
                        }
                    }
                    Step::Confirm => {
                        // An older confirmation may come last.
                        log.confirm(received.len() as u64);
                        log.confirm(stale);
                        stale = received.len() as u64;
                    }
                }
                prop_assert!(received.iter().copied().eq(0..received.len() as u32));
            }
            wire.extend(std::iter::from_fn(|| log.next()));
            received.extend(wire);
            prop_assert!(received.into_iter().eq(0..sent));
        }

        #[test]
        fn small_limits_refuse_rather_than_lose(steps in proptest::collection::vec(step(), 0..200)) {
            let mut log = SentLog::new(SMALL);
            let (mut sent, mut wire, mut received) = (0_u32, VecDeque::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Send(count) => for _ in 0..count {
                        log.push(sent, 1);
                        sent += 1;
                    },
                    Step::Write(count) => wire.extend((0..count).map_while(|_| log.next())),
                    Step::Deliver(count) => {
                        let count = usize::from(count).min(wire.len());
                        received.extend(wire.drain(..count));
                    }
                    Step::Cut { .. } => {
                        wire.clear();
                        if log.rewind(received.len() as u64).is_err() {
                            return Ok(());
                        }
                    }
                    Step::Confirm => log.confirm(received.len() as u64),
                }
                prop_assert!(received.iter().copied().eq(0..received.len() as u32));
            }
        }
    }
}
