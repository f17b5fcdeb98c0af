//! When a server that fails is asked again: a pure rule over the times it is given.

use std::time::Duration;

use tokio::time::Instant;

/// Closed until so many failures follow each other; then open for a while; then one question decides.
#[derive(Debug)]
pub(super) struct Breaker {
    most: u32,
    open_for: Duration,
    failures: u32,
    open_until: Option<Instant>,
    /// One question is under way that decides.
    probing: bool,
}

impl Breaker {
    pub(super) const fn new(most: u32, open_for: Duration) -> Self {
        Self { most, open_for, failures: 0, open_until: None, probing: false }
    }

    /// Whether nobody should ask now. Unlike [`Self::may`] it takes nothing.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.open_until.is_some_and(|until| now < until)
    }

    /// Whether this question may be asked. Its outcome must be told, or that there is none.
    pub(super) fn may(&mut self, now: Instant) -> bool {
        match self.open_until {
            None => true,
            Some(until) if now < until || self.probing => false,
            Some(_) => {
                self.probing = true;
                true
            }
        }
    }

    /// How a question ended. Gives whether it is open from now on, if that changed.
    pub(super) fn heard(&mut self, good: bool, now: Instant) -> Option<bool> {
        if good {
            self.failures = 0;
            self.probing = false;
            return self.open_until.take().map(|_| false);
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < self.most {
            return None;
        }
        // What was asked before it opened ends late, and does not make it longer.
        let before = self.open_until;
        if before.is_none() || self.probing {
            self.open_until = Some(now + self.open_for);
        }
        self.probing = false;
        before.is_none().then_some(true)
    }

    /// A question ended without an outcome.
    pub(super) const fn left(&mut self) {
        self.probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_question_closes_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::new(3, Duration::from_secs(10));
        for _ in 0..2 {
            assert!(breaker.may(start));
            assert_eq!(breaker.heard(false, start), None);
        }
        assert_eq!(breaker.heard(true, start), None, "one good answer forgets the failures");
        assert_eq!((breaker.heard(false, start), breaker.heard(false, start)), (None, None));
        assert_eq!(breaker.heard(false, start), Some(true));
        assert!(!breaker.may(at(9)) && breaker.is_open(at(9)));
        assert_eq!(breaker.heard(false, at(9)), None, "what was asked before");
        assert!(breaker.may(at(10)) && !breaker.may(at(10)), "one asks, the others wait");
        assert_eq!(breaker.heard(false, at(11)), None);
        assert!(!breaker.may(at(20)) && breaker.may(at(21)));
        breaker.left();
        assert!(breaker.may(at(21)), "who left decides nothing");
        assert_eq!(breaker.heard(true, at(22)), Some(false));
        assert!(breaker.may(at(22)) && breaker.may(at(22)));
    }
}
