//! What was found out lately: one look at one place, without waiting.
//!
//! It stands before the memories that hold more and know who else is asking, and takes the way of most requests past them.
//! A key has one place; whoever comes later takes it. What is here is never older than it would be there.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// So many places, each with a key, what was found, and until when it holds.
pub struct Memo<K, V> {
    places: Box<[Place<K, V>]>,
    cleared: AtomicU64,
}

type Place<K, V> = Mutex<Option<Entry<K, V>>>;

struct Entry<K, V> {
    key: K,
    value: V,
    until: Instant,
}

/// When somebody began to find something out; what was cleared since must not come back.
#[derive(Clone, Copy, Debug)]
pub struct Ticket(u64);

impl<K, V: Clone> Memo<K, V> {
    /// Empty places, at least one.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { places: (0..places.max(1)).map(|_| Mutex::new(None)).collect(), cleared: AtomicU64::new(0) }
    }

    /// To be taken before anything is asked that will be [`Self::put`].
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket(self.cleared.load(Ordering::Acquire))
    }

    /// What stands at the place of `hint`, if it is what is looked for and holds still.
    pub fn get(&self, hint: &impl Hash, is_it: impl FnOnce(&K) -> bool) -> Option<V> {
        let mut place = self.place(hint);
        let entry = place.as_ref().filter(|entry| is_it(&entry.key))?;
        if entry.until <= Instant::now() {
            *place = None;
            return None;
        }
        Some(entry.value.clone())
    }

    /// Puts something at the place of `hint`, the same as will be given to [`Self::get`].
    pub fn put(&self, ticket: Ticket, hint: &impl Hash, key: K, value: V, until: Instant) {
        let mut place = self.place(hint);
        if self.cleared.load(Ordering::Acquire) == ticket.0 {
            *place = Some(Entry { key, value, until });
        }
    }

    /// Forgets everything, and what is being found out at the moment.
    pub fn clear(&self) {
        self.cleared.fetch_add(1, Ordering::AcqRel);
        for place in &self.places {
            *lock(place) = None;
        }
    }

    fn place(&self, hint: &impl Hash) -> MutexGuard<'_, Option<Entry<K, V>>> {
        let mut mix = Mix(0);
        hint.hash(&mut mix);
        // The upper bits are mixed best.
        let at = usize::try_from(mix.0 >> 32).unwrap_or_default() % self.places.len();
        lock(&self.places[at])
    }
}

fn lock<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spreads keys over places. Two that meet take turns, which costs time and nothing else, so nobody gains by making them.
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.unsigned_abs() as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_put_is_found_until_it_ends_and_only_under_its_key() {
        let memo = Memo::new(1);
        let (now, minute) = (Instant::now(), Duration::from_secs(60));
        assert_eq!(memo.get(&"a", |key| *key == "a"), None);
        memo.put(memo.ticket(), &"a", "a", 1, now + minute);
        assert_eq!(memo.get(&"a", |key| *key == "a"), Some(1));
        assert_eq!(memo.get(&"b", |key| *key == "b"), None, "the one place holds another key");
        memo.put(memo.ticket(), &"b", "b", 2, now + minute);
        assert_eq!((memo.get(&"a", |key| *key == "a"), memo.get(&"b", |key| *key == "b")), (None, Some(2)));
        memo.put(memo.ticket(), &"b", "b", 3, now);
        assert_eq!(memo.get(&"b", |key| *key == "b"), None, "over");
    }

    #[test]
    fn what_was_cleared_does_not_come_back() {
        let memo = Memo::new(8);
        let until = Instant::now() + Duration::from_secs(60);
        let before = memo.ticket();
        memo.put(before, &1, 1, "old", until);
        memo.clear();
        assert_eq!(memo.get(&1, |key| *key == 1), None);
        memo.put(before, &1, 1, "old", until);
        assert_eq!(memo.get(&1, |key| *key == 1), None, "asked before the clearing");
        memo.put(memo.ticket(), &1, 1, "new", until);
        assert_eq!(memo.get(&1, |key| *key == 1), Some("new"));
    }

    #[test]
    fn keys_spread() {
        let memo = Memo::new(256);
        let until = Instant::now() + Duration::from_secs(60);
        for key in 0..128_u32 {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.to_le_bytes());
            memo.put(memo.ticket(), &digest.as_ref(), key, key, until);
        }
        let left = memo.places.iter().filter(|place| lock(place).is_some()).count();
        assert!(left > 80, "{left} of 128");
    }
}
