//! How much we ask of the API server: so many at once, so many a second, and nothing while it asked us to wait.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::ClusterError;

/// Requests that may begin at once before the rate bound is felt, in seconds of rate.
const BURST: Duration = Duration::from_secs(2);

pub(super) struct Limiter {
    in_flight: Semaphore,
    interval: Duration,
    state: Mutex<State>,
}

struct State {
    /// When the next request would begin if they came evenly; may lie in the future (GCRA's theoretical arrival time).
    next: Instant,
    /// Nothing begins before.
    paused_until: Option<Instant>,
}

impl Limiter {
    pub(super) fn new(in_flight: usize, per_second: u32) -> Self {
        Self {
            in_flight: Semaphore::new(in_flight),
            interval: Duration::from_secs(1) / per_second.max(1),
            state: Mutex::new(State { next: Instant::now(), paused_until: None }),
        }
    }

    /// Waits for its turn, at most `patience`.
    pub(super) async fn enter(&self, patience: Duration) -> Result<SemaphorePermit<'_>, ClusterError> {
        let wait = self.reserve(Instant::now(), patience)?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        match tokio::time::timeout(patience, self.in_flight.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(ClusterError::Failed("shutting down".to_owned())),
            Err(_) => Err(ClusterError::Busy(Duration::from_secs(1))),
        }
    }

    /// Nothing begins before `wait` has passed.
    pub(super) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.paused_until = Some(state.paused_until.map_or(until, |before| before.max(until)));
    }

    fn reserve(&self, now: Instant, patience: Duration) -> Result<Duration, ClusterError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = state.paused_until {
            if until > now {
                return Err(ClusterError::Busy(until - now));
            }
            state.paused_until = None;
        }
        let next = state.next.max(now);
        let wait = (next - now).saturating_sub(BURST);
        if wait > patience {
            return Err(ClusterError::Busy(wait));
        }
        state.next = next + self.interval;
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let limiter = Limiter::new(1, 10);
        let now = Instant::now();
        let patience = Duration::from_secs(1);
        for _ in 0..20 {
            assert_eq!(limiter.reserve(now, patience), Ok(Duration::ZERO));
        }
        let mut waited = Duration::ZERO;
        for _ in 0..10 {
            waited = limiter.reserve(now, patience).expect("within patience");
        }
        assert!(waited > Duration::from_millis(800), "{waited:?}");
        assert!((0..5).any(|_| limiter.reserve(now, patience).is_err()), "beyond patience it is refused");
        assert_eq!(limiter.reserve(now + Duration::from_secs(5), patience), Ok(Duration::ZERO), "it recovers");
    }

    #[test]
    fn a_pause_refuses_until_it_ends() {
        let limiter = Limiter::new(1, 10);
        limiter.pause(Duration::from_secs(2));
        assert!(matches!(limiter.reserve(Instant::now(), Duration::from_secs(9)), Err(ClusterError::Busy(_))));
        let later = Instant::now() + Duration::from_secs(3);
        assert_eq!(limiter.reserve(later, Duration::from_secs(9)), Ok(Duration::ZERO));
    }
}
