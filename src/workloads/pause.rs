//! How long to wait after a failure: longer each time, and not all at the same moment.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);

/// Failures in a row.
#[derive(Default)]
pub(super) struct Pause(u32);

impl Pause {
    /// It went well for a while.
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }

    /// Waits, longer than the time before.
    pub(super) async fn wait(&mut self) {
        let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
        tokio::time::sleep(self.next(random)).await;
    }

    /// From half of the time to all of it, by chance.
    fn next(&mut self, random: u64) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.0.min(10)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        let part = u32::try_from(random % 1000).unwrap_or_default();
        whole / 2 + whole / 2 * part / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_a_bound_and_begins_anew() {
        let mut pause = Pause::default();
        let waits: Vec<Duration> = (0..40).map(|_| pause.next(999)).collect();
        assert!(waits[0] <= FIRST && waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(waits[39] <= LONGEST && waits[39] > LONGEST / 2);
        assert!(pause.next(0) >= LONGEST / 2, "chance takes away half at most");
        pause.reset();
        assert!(pause.next(999) <= FIRST);
    }
}
