//! What an operator sees and does: statistics, and forgetting.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Cache;
use super::key::{self, Place};
use super::store::Stored;
use crate::telemetry::metrics::{CacheKind, CacheReason, CacheResult, Verification};

/// What is to be forgotten: everything that fits to all that is given. With nothing given, everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Purge {
    /// Of the backend of this name.
    pub backend: Option<String>,
    /// What may hold data of this namespace.
    pub namespace: Option<String>,
    /// What may hold data of this metric.
    pub metric: Option<String>,
    /// What may depend on data from then on, in milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// What may depend on data until then.
    pub to_ms: Option<i64>,
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// How many entries went, or lost a part.
    pub entries: usize,
}

/// What there is, in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    /// Bytes that are kept, and that may be.
    pub bytes: u64,
    /// See above.
    pub limit: usize,
    /// Entries that are kept.
    pub entries: u64,
    /// What is being asked at the moment.
    pub flights: usize,
    /// How often something was forgotten.
    pub purges: u64,
    /// By name.
    pub backends: BTreeMap<String, BackendStats>,
    /// By kind and result; what is 0 is left out.
    pub requests: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// By reason; what is 0 is left out.
    pub bypasses: BTreeMap<&'static str, u64>,
    /// By outcome; what is 0 is left out.
    pub verifications: BTreeMap<&'static str, u64>,
}

/// One backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BackendStats {
    /// How often everything of it was forgotten.
    pub generation: u64,
    /// Questions that it is asked at the moment.
    pub asked: usize,
    /// Questions that wait for their turn.
    pub waiting: usize,
}

/// Something that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// `points` of a grid, an `answer`, or a `mark` that there is none to keep.
    pub what: &'static str,
    /// The parameters of the question besides its text, as they are sent.
    pub parameters: String,
    /// Bytes.
    pub bytes: usize,
    /// Milliseconds between two points, and from the beginning of 1970 to the first.
    pub grid_ms: Option<(i64, i64)>,
    /// From when to when points are known for good, in milliseconds since 1970.
    pub known_ms: Vec<(i64, i64)>,
    /// From when to when points are known that may still change, and how many milliseconds ago they were asked for.
    pub newest_ms: Option<(i64, i64, i64)>,
}

impl Cache {
    /// What is kept of a query, largest first, at most 100 entries.
    #[must_use]
    pub fn entries(&self, place: &Arc<Place>, text: &str) -> Vec<Entry> {
        let now = self.clock.now().steady;
        let mut entries = Vec::new();
        self.store.each(|key, stored| {
            let Some(parameters) = place.owns(key).then(|| key::parameters(key, text)).flatten() else { return };
            let mut entry = Entry {
                what: "answer",
                parameters,
                bytes: stored.weight(),
                grid_ms: None,
                known_ms: Vec::new(),
                newest_ms: None,
            };
            match stored {
                Stored::Answer(_) => {}
                Stored::Unfit(..) | Stored::Refused(..) => entry.what = "mark",
                Stored::Extents(known) => {
                    entry.what = "points";
                    let grid = known.grid();
                    entry.grid_ms = Some((grid.step(), grid.phase()));
                    for piece in known.pieces() {
                        let (from, to) = (grid.time(piece.span().from), grid.time(piece.span().to - 1));
                        match entry.known_ms.last_mut() {
                            Some((_, last)) if *last + grid.step() == from => *last = to,
                            _ => entry.known_ms.push((from, to)),
                        }
                    }
                    entry.newest_ms =
                        known.tail().map(|(span, at)| (grid.time(span.from), grid.time(span.to - 1), now - at));
                }
            }
            entries.push(entry);
        });
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.bytes));
        entries.truncate(100);
        entries
    }

    /// What there is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.store.settle();
        let mut backends = BTreeMap::new();
        self.places.each(|place| {
            let (asked, waiting) = place.queue.counts();
            backends.insert(place.name().to_owned(), BackendStats { generation: place.generation(), asked, waiting });
        });
        let metrics = self.metrics.cache();
        let mut requests: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for kind in CacheKind::ALL {
            for result in CacheResult::ALL {
                let count = metrics.requests(*kind, *result);
                if count > 0 {
                    requests.entry(kind.word()).or_default().insert(result.word(), count);
                }
            }
        }
        let verified = |outcome: &Verification| (outcome.word(), metrics.verifications(*outcome));
        let counted = |reason: &CacheReason| (reason.word(), metrics.bypasses(*reason));
        Stats {
            bytes: self.store.bytes(),
            limit: self.store.limit(),
            entries: self.store.entries(),
            flights: self.flights.count(),
            purges: self.flights.epoch(),
            backends,
            requests,
            bypasses: CacheReason::ALL.iter().map(counted).filter(|(_, count)| *count > 0).collect(),
            verifications: Verification::ALL.iter().map(verified).filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Forgets, and tells other replicas. What was being asked at the moment is answered to whoever waits for it, and not
    /// kept.
    pub fn purge(&self, purge: &Purge) -> Purged {
        // First: whoever begins to ask from here on finds nothing of before in what is shared.
        if let Some(tier) = self.tier() {
            tier.purge(self.clock.now().wall, purge.clone());
        }
        self.forget(purge)
    }

    /// Forgets what is kept here.
    pub(super) fn forget(&self, purge: &Purge) -> Purged {
        self.flights.forget();
        let mut places: Vec<Arc<Place>> = Vec::new();
        self.places.each(|place| {
            if purge.backend.as_deref().is_none_or(|name| name == place.name()) {
                places.push(Arc::clone(place));
            }
        });
        let times = (purge.from_ms.is_some() || purge.to_ms.is_some())
            .then(|| (purge.from_ms.unwrap_or(0), purge.to_ms.unwrap_or(i64::MAX)));
        if purge.namespace.is_none() && purge.metric.is_none() && times.is_none() {
            places.iter().for_each(|place| place.next());
        }
        let mut hit: Vec<(Box<[u8]>, Option<Stored>)> = Vec::new();
        self.store.each(|key, stored| {
            let of = places.iter().any(|place| place.owns(key));
            let touches = of && key::touches(key, purge.namespace.as_deref(), purge.metric.as_deref());
            if touches {
                let left = match (stored, times) {
                    (Stored::Extents(known), Some(times)) => {
                        known.touched(times).map(|span| Stored::Extents(Arc::new(known.without(span))))
                    }
                    _ => None,
                };
                hit.push((key.into(), left));
            }
        });
        for (key, left) in &hit {
            match left {
                Some(left) => self.store.put(key.as_ref(), left.clone()),
                None => self.store.remove(key),
            }
        }
        self.store.settle();
        self.metrics.cache().memory(self.store.bytes());
        Purged { entries: hit.len() }
    }
}
