//! The way to an answer that was asked for before in the very same words: one look, and no question to write.

use std::sync::Arc;

use super::key::Place;
use super::store::{Name, Stored};
use super::{Asked, Cache, Times, Told, told};
use crate::telemetry::metrics::{CacheKind, CacheResult};

/// Where the answer of a question stands, if it is kept.
pub struct Shortcut {
    kind: CacheKind,
    place: Arc<Place>,
    generation: u64,
    key: Name,
    fresh: i64,
    ttl: i64,
    verify: u64,
}

impl Shortcut {
    /// How many bytes it takes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.key.length()
    }
}

impl Cache {
    /// The way to the answer of a question. There is none where something else than a hit must be told of it.
    #[must_use]
    pub fn shortcut(&self, asked: &Asked<'_>) -> Option<Shortcut> {
        if asked.terms.shadow {
            return None;
        }
        let generation = asked.place.generation();
        let (key, fresh, ttl) = match asked.times {
            Times::Points(_, span, rules, _) => (asked.key().span(span), rules.fresh, rules.ttl),
            Times::Whole(_, None) => (asked.key().base(), asked.terms.fresh, asked.terms.ttl),
            Times::Whole(_, Some(_)) => return None,
        };
        let key = self.store.name(key);
        Some(Shortcut {
            kind: asked.kind,
            place: Arc::clone(asked.place),
            generation,
            key,
            fresh,
            ttl,
            verify: asked.terms.verify,
        })
    }

    /// The answer, if it is kept and may be used: what [`Cache::answer`] would answer without asking anybody.
    #[must_use]
    pub fn kept(&self, way: &Shortcut) -> Option<Told> {
        if way.place.generation() != way.generation {
            return None;
        }
        let Some(Stored::Answer(kept)) = self.store.named(&way.key) else { return None };
        let left = kept.left(self.clock.now(), way.fresh, way.ttl)?;
        if self.verifying.goes_whole_way(way.verify) {
            return None;
        }
        self.metrics.cache().request(way.kind, CacheResult::Hit);
        Some(told(&kept, CacheResult::Hit, left, None))
    }
}
