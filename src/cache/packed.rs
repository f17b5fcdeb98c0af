//! Compressed variants of answers, kept beside them.
//!
//! A variant belongs to one answer, not to a key: it cannot be another answer's, and goes when the answer goes. It is made
//! once, by a thread that no question waits for, when somebody reads the answer a second time: what nobody asks for again is
//! not worth the work. Its bytes count as the answer's own do.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::Cache;
use super::store::{Kept, Stored};
use crate::reply::Packed;

/// Less is not worth a header and a look into it.
const SMALLEST: usize = 1 << 10;

/// Bodies that are compressed at once: the rest of the machine is for those who wait.
pub(super) const AT_ONCE: usize = 2;

/// What zlib calls its effort, from 1 to 9.
const EFFORT: u32 = 4;

/// The compressed variant of an answer, if there is one yet.
#[derive(Debug, Default)]
pub(super) struct Packing {
    /// How often somebody who takes it has read the answer.
    readers: AtomicU32,
    /// Empty when it is not worth it.
    gzip: OnceLock<Bytes>,
    home: OnceLock<Home>,
}

/// Where an answer is kept.
struct Home {
    key: Arc<[u8]>,
    /// How often something was forgotten before it was put there.
    epoch: u64,
    cache: Weak<Cache>,
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Home").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Packing {
    /// How many bytes it takes.
    pub(super) fn weight(&self) -> usize {
        self.gzip.get().map_or(0, Bytes::len)
    }
}

impl Packed for Kept {
    fn gzip(self: Arc<Self>) -> Option<Bytes> {
        if let Some(packed) = self.packing().gzip.get() {
            return (!packed.is_empty()).then(|| packed.clone());
        }
        if self.bytes().len() < SMALLEST {
            return None;
        }
        let cache = self.packing().home.get()?.cache.upgrade()?;
        // Exactly one is the second.
        if self.packing().readers.fetch_add(1, Ordering::AcqRel) != 1 {
            return None;
        }
        let Ok(permit) = Arc::clone(&cache.packers).try_acquire_owned() else {
            // The next reader tries again.
            self.packing().readers.store(1, Ordering::Release);
            return None;
        };
        tokio::task::spawn_blocking(move || {
            cache.pack(&self);
            drop(permit);
        });
        None
    }
}

impl Cache {
    /// Keeps something under a key. Must be called under the lock under which things are forgotten, at this epoch.
    pub(super) fn put(&self, epoch: u64, key: &[u8], stored: Stored) {
        let key: Arc<[u8]> = key.into();
        if let Stored::Answer(kept) = &stored {
            let cache = self.own.clone();
            // It is kept in one place. Who put it there first has said so.
            let _ = kept.packing().home.set(Home { key: Arc::clone(&key), epoch, cache });
        }
        self.store.put(key, stored);
    }

    /// Compresses an answer, and counts what that takes.
    pub(super) fn pack(&self, kept: &Arc<Kept>) {
        let Some(home) = kept.packing().home.get() else { return };
        let packed = gzip(kept.bytes()).filter(|packed| packed.len() < kept.bytes().len() / 10 * 9).unwrap_or_default();
        let counted = self.flights.unless_forgotten(home.epoch, || {
            let is_kept = |stored| matches!(stored, Stored::Answer(there) if Arc::ptr_eq(&there, kept));
            // What is not kept any more is read by those who hold it, and its variant is nobody's.
            if self.store.answer(&home.key).is_some_and(is_kept) {
                let _ = kept.packing().gzip.set(packed);
                // What weighs more is counted when it is put there again.
                self.store.put(Arc::clone(&home.key), Stored::Answer(Arc::clone(kept)));
            }
        });
        if counted {
            self.store.settle();
            self.metrics.cache().memory(self.store.bytes());
        }
    }
}

fn gzip(body: &[u8]) -> Option<Bytes> {
    // Answers shrink to a tenth and less; a vector that grows leaves what it was to the allocator.
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::new(EFFORT));
    encoder.write_all(body).ok()?;
    let mut packed = encoder.finish().ok()?;
    packed.shrink_to_fit();
    Some(packed.into())
}
