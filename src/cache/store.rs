//! What is kept in memory: by bytes, and what was used longest ago goes first.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use moka::Equivalent;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::packed::Packing;
use crate::extents::{Extents, Moment, Written, alive, is_fresh};
use crate::refusal::Refusal;
use crate::telemetry::metrics::CacheReason;

/// What an entry takes besides its key and its content.
const ENTRY: usize = 400;

/// An answer as it goes out.
#[derive(Debug)]
pub(super) struct Kept {
    bytes: Bytes,
    /// When the oldest part was asked for, by the steady clock.
    oldest: i64,
    /// When what may still change was asked for, and when it is over whatever is configured.
    tail: Option<(i64, i64)>,
    packing: Packing,
    /// Of points, those before this one are final.
    settled: i64,
}

impl Kept {
    pub(super) fn new(bytes: Bytes, oldest: i64, tail: Option<(i64, i64)>) -> Self {
        Self { bytes, oldest, tail, settled: i64::MIN, packing: Packing::default() }
    }

    pub(super) fn packing(&self) -> &Packing {
        &self.packing
    }

    /// Of points.
    pub(super) fn points(written: Written) -> Self {
        let Written { body, oldest, tail, settled } = written;
        Self { settled, ..Self::new(body.into(), oldest, tail) }
    }

    /// An answer that was asked for at a time and no longer changes when that was after `settles`.
    pub(super) fn whole(bytes: Bytes, at: Moment, settles: Option<i64>) -> Self {
        // A store that is missing now may be back soon.
        let warned = memchr::memmem::find(&bytes, b"\"warnings\"").is_some();
        let settled = !warned && settles.is_some_and(|settles| settles <= at.wall);
        Self::new(bytes, at.steady, (!settled).then_some((at.steady, i64::MAX)))
    }

    /// Whether all of it no longer changes.
    pub(super) fn is_settled(&self) -> bool {
        self.tail.is_none()
    }

    /// The first of its points that may still change.
    pub(super) fn settled(&self) -> i64 {
        self.settled
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// For how many more milliseconds it may be used; none when it may not.
    pub(super) fn left(&self, now: Moment, fresh: i64, ttl: i64) -> Option<i64> {
        if !alive(self.oldest, now, ttl) || self.tail.is_some_and(|tail| !is_fresh(tail, now, fresh)) {
            return None;
        }
        let old = self.oldest.saturating_add(ttl) - now.steady;
        Some(self.tail.map_or(old, |(at, next)| old.min(next - now.steady).min(at.saturating_add(fresh) - now.steady)))
    }
}

/// Something that is kept.
#[derive(Clone)]
pub(super) enum Stored {
    /// An answer.
    Answer(Arc<Kept>),
    /// What is known of a grid.
    Extents(Arc<Extents>),
    /// Answers cannot be taken apart, until then by the steady clock.
    Unfit(CacheReason, i64),
    /// The question is refused, until then.
    Refused(Refusal, i64),
}

impl Stored {
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Answer(kept) => kept.bytes.len() + kept.packing.weight(),
            Self::Extents(known) => known.weight(),
            Self::Unfit(..) => 0,
            Self::Refused(refusal, _) => refusal.message().len() + 200,
        }
    }
}

/// The bytes under which something stands, and their hash: whoever looks again need not read them all for it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Name {
    hash: u64,
    bytes: Arc<[u8]>,
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Name {
    /// How many bytes.
    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }
}

/// The same, for a look.
struct Sought<'n> {
    hash: u64,
    bytes: &'n [u8],
}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<Name> for Sought<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        *self.bytes == *name.bytes
    }
}

pub(super) struct Store {
    cache: Cache<Name, Stored>,
    /// Nobody can know which questions have the same hash.
    hasher: RandomState,
    limit: usize,
}

impl Store {
    pub(super) fn new(limit: usize) -> Self {
        let cache = Cache::builder()
            .max_capacity(limit as u64)
            // Large bodies would never be let in among small entries that are asked for often.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|key: &Name, stored: &Stored| {
                u32::try_from(key.length() + stored.weight() + ENTRY).unwrap_or(u32::MAX)
            })
            .build();
        Self { cache, hasher: RandomState::new(), limit }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// What the bytes are called here.
    pub(super) fn name(&self, bytes: impl Into<Arc<[u8]>>) -> Name {
        let bytes = bytes.into();
        Name { hash: self.hasher.hash_one(&bytes), bytes }
    }

    pub(super) fn answer(&self, key: impl AsRef<[u8]>) -> Option<Stored> {
        self.cache.get(&self.sought(key.as_ref()))
    }

    /// What stands under a name that [`Self::name`] gave.
    pub(super) fn named(&self, name: &Name) -> Option<Stored> {
        self.cache.get(name)
    }

    pub(super) fn put(&self, key: impl Into<Arc<[u8]>>, stored: Stored) {
        self.cache.insert(self.name(key), stored);
    }

    fn sought<'n>(&self, bytes: &'n [u8]) -> Sought<'n> {
        Sought { hash: self.hasher.hash_one(bytes), bytes }
    }

    /// Lets go what is above the limit, now and not some time.
    pub(super) fn settle(&self) {
        self.cache.run_pending_tasks();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.cache.weighted_size()
    }

    pub(super) fn entries(&self) -> u64 {
        self.cache.entry_count()
    }

    pub(super) fn each(&self, mut f: impl FnMut(&[u8], &Stored)) {
        for (key, stored) in &self.cache {
            f(&key.bytes, &stored);
        }
    }

    pub(super) fn remove(&self, key: &[u8]) {
        self.cache.invalidate(&self.sought(key));
    }
}
