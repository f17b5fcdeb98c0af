//! Sessions that were ended before their time: a cookie that somebody kept a copy of is worth nothing after a logout.
//!
//! Bounded. When it is full, what would have ended first goes first: that is the smallest harm. Another memory, shared
//! between replicas, may stand beside it and be asked where this one does not know.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::session::{SessionId, seconds};

/// Sessions that are remembered at most, about 10 MB.
const MOST: usize = 100_000;

/// The list.
pub struct Denied {
    most: usize,
    /// How many there are; most processes have none, and then nobody waits for the lock.
    count: AtomicUsize,
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    by_id: HashMap<SessionId, u64>,
    by_end: BTreeSet<(u64, SessionId)>,
}

impl Default for Denied {
    fn default() -> Self {
        Self::new(MOST)
    }
}

impl Denied {
    /// With room for so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), count: AtomicUsize::new(0), lists: Mutex::default() }
    }

    /// Ends a session; `until` is when it would have ended, in seconds since 1970.
    pub fn deny(&self, id: SessionId, until: u64, now: SystemTime) {
        let now = seconds(now);
        let mut lists = self.lists();
        if let Some(before) = lists.by_id.insert(id, until) {
            lists.by_end.remove(&(before, id));
        }
        lists.by_end.insert((until, id));
        while let Some((end, first)) = lists.by_end.first().copied() {
            if end > now && lists.by_id.len() <= self.most {
                break;
            }
            lists.by_end.pop_first();
            lists.by_id.remove(&first);
        }
        self.count.store(lists.by_id.len(), Ordering::Release);
    }

    /// Whether a session was ended.
    #[must_use]
    pub fn is_denied(&self, id: &SessionId) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.lists().by_id.contains_key(id)
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names that were used once and must not be used again, each for a while: the states of logins.
pub(super) struct Once(Denied);

impl Default for Once {
    fn default() -> Self {
        Self(Denied::new(MOST))
    }
}

impl Once {
    /// Whether this is the first time; `until` is until when it must be remembered.
    #[must_use]
    pub(super) fn first(&self, id: SessionId, until: u64, now: SystemTime) -> bool {
        // Both under one lock would be one step; two who come at the same moment with the same state share a browser.
        let mut lists = self.0.lists();
        if lists.by_id.contains_key(&id) {
            return false;
        }
        lists.by_id.insert(id, until);
        lists.by_end.insert((until, id));
        drop(lists);
        self.0.deny(id, until, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn id(number: u64) -> SessionId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn an_ended_session_stays_ended_until_it_would_have_ended() {
        let denied = Denied::new(10);
        assert!(!denied.is_denied(&id(1)));
        denied.deny(id(1), 100, at(10));
        denied.deny(id(2), 50, at(10));
        assert!(denied.is_denied(&id(1)) && denied.is_denied(&id(2)) && !denied.is_denied(&id(3)));
        denied.deny(id(3), 200, at(60));
        assert!(denied.is_denied(&id(1)) && !denied.is_denied(&id(2)), "what is over by itself is forgotten");
        denied.deny(id(1), 300, at(60));
        denied.deny(id(4), 300, at(150));
        assert!(denied.is_denied(&id(1)), "the later end counts");
    }

    #[test]
    fn the_list_is_bounded_and_loses_what_would_end_first() {
        let denied = Denied::new(1000);
        for number in 0..100_000 {
            denied.deny(id(number), 1000 + number, at(1));
        }
        let lists = denied.lists();
        assert_eq!((lists.by_id.len(), lists.by_end.len()), (1000, 1000));
        drop(lists);
        assert!(denied.is_denied(&id(99_999)) && denied.is_denied(&id(99_000)) && !denied.is_denied(&id(98_999)));
    }

    #[test]
    fn once_is_once() {
        let once = Once::default();
        assert!(once.first(id(1), 100, at(1)) && !once.first(id(1), 100, at(2)) && once.first(id(2), 100, at(2)));
        let _ = once.first(id(3), 300, at(150));
        assert!(once.first(id(1), 300, at(150)), "forgotten in its time");
    }
}
