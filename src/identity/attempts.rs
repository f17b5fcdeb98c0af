//! How often one address has come with what was not good, lately.
//!
//! Only for addresses that a trusted proxy names: without one, everybody comes from the same address, and one who fails
//! would shut all others out. Failures alone count, so that an office that logs in in the morning is not turned away.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::future::Cache;

/// Addresses that are remembered, about 10 MB.
const ADDRESSES: u64 = 100_000;
const MINUTE: Duration = Duration::from_secs(60);

/// Failures by address. Each takes its share of a minute to be forgotten; who owes a whole minute waits.
pub(super) struct Attempts {
    share: Duration,
    began: Instant,
    /// Until when each address owes, in microseconds since we began.
    owed: Cache<IpAddr, Arc<AtomicU64>>,
}

impl Attempts {
    /// With so many failures a minute and address.
    pub(super) fn new(most: u32, began: Instant) -> Self {
        let owed = Cache::builder().max_capacity(ADDRESSES).time_to_idle(2 * MINUTE).build();
        Self { share: MINUTE / most.max(1), began, owed }
    }

    /// How long an address must wait before it may try again; `None` for at once.
    pub(super) async fn wait(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let owed = Duration::from_micros(self.owed.get(&network(from)).await?.load(Ordering::Relaxed));
        let over = (owed + self.share).saturating_sub(self.passed(now) + MINUTE);
        (!over.is_zero()).then_some(over)
    }

    /// What somebody came with was not good.
    pub(super) async fn failed(&self, from: IpAddr, now: Instant) {
        let owed = self.owed.get_with(network(from), async { Arc::default() }).await;
        let passed = self.passed(now);
        let _ = owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            // Those who came at once may fail at once: nobody owes more than a minute for it.
            let next = (Duration::from_micros(before).max(passed) + self.share).min(passed + MINUTE);
            u64::try_from(next.as_micros()).ok()
        });
    }

    fn passed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

/// Whoever has one address of IPv6 has the 64 bits behind its network too.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(long) => {
            let [a, b, c, d, ..] = long.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[tokio::test]
    async fn who_fails_often_waits_and_nobody_else_does() {
        let now = Instant::now();
        let attempts = Attempts::new(10, now);
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for round in 0..10 {
            assert_eq!(attempts.wait(one, now).await, None, "{round}");
            attempts.failed(one, now).await;
        }
        assert_eq!(attempts.wait(one, now).await, Some(Duration::from_secs(6)));
        assert_eq!(attempts.wait(other, now).await, None);
        // One is forgotten each six seconds.
        let later = now + Duration::from_secs(6);
        assert_eq!(attempts.wait(one, later).await, None);
        attempts.failed(one, later).await;
        assert_eq!(attempts.wait(one, later).await, Some(Duration::from_secs(6)));
        assert_eq!(attempts.wait(one, now + Duration::from_secs(66)).await, None);
    }

    #[tokio::test]
    async fn a_crowd_that_fails_at_once_waits_for_a_minute_at_most() {
        let now = Instant::now();
        let attempts = Attempts::new(10, now);
        for _ in 0..1000 {
            attempts.failed(ip("192.0.2.1"), now).await;
        }
        assert_eq!(attempts.wait(ip("192.0.2.1"), now).await, Some(Duration::from_secs(6)));
        for _ in 0..10 {
            attempts.failed(ip("2001:db8:1:2::1"), now).await;
        }
        assert!(attempts.wait(ip("2001:db8:1:2:ffff::9"), now).await.is_some(), "the same network");
        assert!(attempts.wait(ip("2001:db8:1:3::1"), now).await.is_none());
    }

    #[tokio::test]
    async fn addresses_without_end_take_no_memory_without_end() {
        let now = Instant::now();
        let attempts = Attempts::new(10, now);
        for number in 0..150_000_u32 {
            attempts.failed(IpAddr::from(number.to_be_bytes()), now).await;
        }
        attempts.owed.run_pending_tasks().await;
        assert!(attempts.owed.entry_count() <= ADDRESSES, "{}", attempts.owed.entry_count());
    }
}
