//! Whether what is kept is what the backend says: hits that are asked again behind the caller's back, and the mode that
//! only compares.
//!
//! Compared is what has settled: points that are kept for good, and instant answers of a time that has. What may still
//! change is none of it, and whatever was forgotten meanwhile is not judged. Where something differs, data were written
//! later than anybody said: everything of the backend is forgotten, at all replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::store::{Kept, Stored};
use super::{Asked, Cache, Origin, Purge, Times, Told, told};
use crate::extents::{self, Extents, Fetched, Grid, Looks, Moment, Rules, Span};
use crate::refusal::Refusal;
use crate::telemetry::metrics::{CacheKind, CacheReason, CacheResult, Verification};
use crate::upstream::Question;

/// So many answers are compared at once; what comes meanwhile is not compared.
const AT_ONCE: usize = 2;

/// Whose turn it is.
pub(super) struct Verifying {
    /// So many hits more until one is asked again; none was drawn yet when it is not above 0.
    left: AtomicI64,
    slots: Arc<Semaphore>,
}

impl Default for Verifying {
    fn default() -> Self {
        Self { left: AtomicI64::new(0), slots: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Verifying {
    /// Counts a hit. Of `one_in`, on average, one is due, none with 0. The distance, half of it to one and a half, is drawn:
    /// where all ask by the clock it is not the same question each time.
    fn is_due(&self, one_in: u64, random: impl FnOnce() -> u64) -> bool {
        let Some(one_in) = distance(one_in) else { return false };
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        if is_far(left, one_in) {
            return false;
        }
        let next = one_in / 2 + i64::try_from(random() % (one_in.unsigned_abs() + 1)).unwrap_or(0);
        let due = left == 1 || one_in == 1;
        self.left.store(next.max(1), Ordering::Relaxed);
        due
    }

    /// Counts a hit that is found by its shortcut, unless its turn has come: then the whole way counts it.
    pub(super) fn goes_whole_way(&self, one_in: u64) -> bool {
        let Some(one_in) = distance(one_in) else { return false };
        let far = is_far(self.left.load(Ordering::Relaxed), one_in);
        if far {
            self.left.fetch_sub(1, Ordering::Relaxed);
        }
        !far
    }

    fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }
}

/// One of how many hits is asked again; none with 0.
fn distance(one_in: u64) -> Option<i64> {
    i64::try_from(one_in).ok().filter(|one_in| *one_in > 0)
}

/// Whether the turn of none comes with this hit. What was drawn for a larger distance does not count when it becomes shorter.
fn is_far(left: i64, one_in: i64) -> bool {
    (2..one_in.saturating_mul(2)).contains(&left)
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// An answer that was kept, and on what it is compared.
struct Suspect {
    kept: Arc<Kept>,
    question: Question,
    /// Of points: the grid, those of the answer, and those that are asked again. Other answers are compared as a whole.
    points: Option<(Grid, Span, Span)>,
}

impl Cache {
    /// After a hit: asks the backend again if it is due.
    pub(super) fn verify_some(self: &Arc<Self>, asked: &Asked<'_>, origin: &(dyn Fn() -> Arc<dyn Origin> + Sync)) {
        if matches!(asked.kind, CacheKind::Range | CacheKind::Instant)
            && self.verifying.is_due(asked.terms.verify, random)
            && !self.verify(asked, origin)
        {
            self.metrics.cache().verified(Verification::Skipped);
        }
    }

    /// Asks the backend what was just answered from what is kept, in a task of its own. Not when it has much to do, nor where
    /// nothing has settled.
    fn verify(self: &Arc<Self>, asked: &Asked<'_>, origin: &(dyn Fn() -> Arc<dyn Origin> + Sync)) -> bool {
        let epoch = self.flights.epoch();
        let Some(suspect) = self.suspect(asked) else { return false };
        let Some(slot) = self.verifying.slot() else { return false };
        let Some(permit) = asked.place.queue.spare(asked.terms.upstream) else { return false };
        let (cache, origin, place) = (Arc::clone(self), origin(), Arc::clone(asked.place));
        let (kind, deadline) = (asked.kind, Instant::now() + asked.timeout);
        tokio::spawn(async move {
            let given = tokio::time::timeout_at(deadline, origin.ask(suspect.question.clone(), deadline)).await;
            drop(permit);
            let outcome = match given {
                Ok(Ok(given)) => suspect.held_against(&given.body),
                Ok(Err(_)) | Err(_) => Verification::Failed,
            };
            let outcome = if cache.flights.epoch() == epoch { outcome } else { Verification::Skipped };
            cache.metrics.cache().verified(outcome);
            if outcome == Verification::Different {
                differs(place.name(), kind);
                cache.purge(&Purge { backend: Some(place.name().to_owned()), ..Purge::default() });
            }
            drop(slot);
        });
        true
    }

    fn suspect(&self, asked: &Asked<'_>) -> Option<Suspect> {
        match asked.times {
            Times::Points(grid, span, ..) => {
                let Some(Stored::Answer(kept)) = self.store.answer(asked.key().span(span)) else { return None };
                let on = Span { to: kept.settled().min(span.to), ..span };
                if on.is_empty() {
                    return None;
                }
                let question = asked.as_whole(grid, on).ok()?.question;
                Some(Suspect { kept, question, points: Some((grid, span, on)) })
            }
            Times::Whole(..) => {
                let Some(Stored::Answer(kept)) = self.store.answer(asked.key().base()) else { return None };
                kept.is_settled().then(|| Suspect { kept, question: asked.question.clone(), points: None })
            }
        }
    }

    /// Asks the backend and gives its answer, whatever is known. What the cache would have said is held against it afterwards,
    /// in a task of its own, and the answer is kept.
    ///
    /// # Errors
    /// As the backend.
    pub(super) async fn shadow(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        origin: &(dyn Fn() -> Arc<dyn Origin> + Sync),
    ) -> Result<Told, Refusal> {
        let (epoch, now) = (self.flights.epoch(), self.clock.now());
        let question = match asked.times {
            Times::Points(grid, span, ..) => asked.as_whole(grid, span)?.question,
            Times::Whole(..) => asked.question.clone(),
        };
        let given = origin().ask(question, asked.deadline).await?;
        let (at, body) = (given.of(now), given.body);
        match self.verifying.slot() {
            None => self.metrics.cache().verified(Verification::Skipped),
            Some(slot) => {
                let key = asked.key();
                let (cache, place, body) = (Arc::clone(self), Arc::clone(asked.place), body.clone());
                let (kind, times, terms) = (asked.kind, asked.times, asked.terms);
                tokio::spawn(async move {
                    let large = body.len() > terms.largest;
                    let outcome = match times {
                        Times::Points(grid, span, rules, looks) => {
                            cache.shadow_points(epoch, &key.base(), (grid, span, rules, looks), (at, &body, large))
                        }
                        Times::Whole(settles, _) => {
                            cache.shadow_whole(epoch, &key.base(), (settles, terms.ttl), (at, &body, large))
                        }
                    };
                    let outcome = if cache.flights.epoch() == epoch { outcome } else { Verification::Skipped };
                    cache.metrics.cache().verified(outcome);
                    if outcome == Verification::Different {
                        differs(place.name(), kind);
                        // Nobody was told of it. It goes where it would be found, at once.
                        place.next();
                    }
                    drop(slot);
                });
            }
        }
        let kept = Arc::new(Kept::new(body, at.steady, Some((at.steady, i64::MAX))));
        Ok(told(&kept, CacheResult::Bypass, 0, Some(CacheReason::Mode)))
    }

    fn shadow_points(
        &self,
        epoch: u64,
        key: &[u8],
        (grid, span, rules, looks): (Grid, Span, Rules, Looks),
        (at, body, large): (Moment, &Bytes, bool),
    ) -> Verification {
        let known = match self.store.answer(key) {
            Some(Stored::Extents(known)) => known,
            _ => Arc::new(Extents::new(grid, looks)),
        };
        let now = self.clock.now();
        let mut outcome = Verification::Skipped;
        for on in known.finals(span, now, &rules) {
            let Some(written) = known.write(on, now) else { continue };
            match extents::same(grid, on, [(&written.body, on), (body, span)]) {
                Ok(true) => outcome = Verification::Same,
                Ok(false) => return Verification::Different,
                Err(_) => return Verification::Skipped,
            }
        }
        if !large && let Ok(part) = known.read(&Fetched { span, at, body }, &rules) {
            self.keep(epoch, key, Stored::Extents(Arc::new(known.with(&part, &rules))));
        }
        outcome
    }

    fn shadow_whole(
        &self,
        epoch: u64,
        key: &[u8],
        (settles, ttl): (Option<i64>, i64),
        (at, body, large): (Moment, &Bytes, bool),
    ) -> Verification {
        let outcome = match self.store.answer(key) {
            Some(Stored::Answer(kept)) if kept.is_settled() && kept.left(at, 0, ttl).is_some() => {
                same_result(kept.bytes(), body)
            }
            _ => Verification::Skipped,
        };
        if !large && outcome != Verification::Different {
            self.keep(epoch, key, Stored::Answer(Arc::new(Kept::whole(body.clone(), at, settles))));
        }
        outcome
    }
}

impl Suspect {
    fn held_against(&self, body: &Bytes) -> Verification {
        match self.points {
            None => same_result(self.kept.bytes(), body),
            Some((grid, span, on)) => match extents::same(grid, on, [(self.kept.bytes(), span), (body, on)]) {
                Ok(true) => Verification::Same,
                Ok(false) => Verification::Different,
                // It warns, or is of another kind: nobody can say.
                Err(_) => Verification::Skipped,
            },
        }
    }
}

/// Whether two answers to an instant query have the same elements, in whatever order. One that warns says nothing.
fn same_result(ours: &[u8], theirs: &[u8]) -> Verification {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        data: Data<'a>,
        #[serde(default)]
        warnings: Vec<serde::de::IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(rename = "resultType")]
        kind: &'a str,
        #[serde(borrow)]
        result: Vec<&'a RawValue>,
    }
    let read = |body| {
        let Answer { data, warnings } = serde_json::from_slice::<Answer<'_>>(body).ok()?;
        let mut elements: Vec<&str> = data.result.iter().map(|element| element.get()).collect();
        elements.sort_unstable();
        warnings.is_empty().then_some((data.kind, elements))
    };
    match (read(ours), read(theirs)) {
        (Some(ours), Some(theirs)) if ours == theirs => Verification::Same,
        (Some(_), Some(_)) => Verification::Different,
        _ => Verification::Skipped,
    }
}

fn differs(backend: &str, kind: CacheKind) {
    tracing::warn!(
        backend,
        kind = kind.word(),
        "The backend no longer says what it said of a time that had settled; what is kept of it is forgotten"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_so_many_hits_one_is_due() {
        let verifying = Verifying::default();
        let mut dice = 1_u64;
        let mut random = || {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            dice >> 20
        };
        assert!((0..1000).all(|_| !verifying.is_due(0, || 1)));
        let due = (0..100_000).filter(|_| verifying.is_due(100, &mut random)).count();
        assert!((900..1100).contains(&due), "{due}");
        // A shorter distance counts at once, and so does every hit.
        assert!(!verifying.is_due(1 << 40, || 1 << 39));
        assert!((0..10).any(|_| verifying.is_due(2, || 0)));
        assert!((0..10).all(|_| verifying.is_due(1, || 7)));
    }

    #[test]
    fn elements_are_compared_in_whatever_order() {
        let answer = |result: &str, rest: &str| {
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}{rest}}}"#)
        };
        let one = answer(r#"{"metric":{"a":"1"},"value":[1,"2"]},{"metric":{},"value":[1,"3"]}"#, "");
        let other =
            answer(r#"{"metric":{},"value":[1,"3"]},{"metric":{"a":"1"},"value":[1,"2"]}"#, r#","infos":["x"]"#);
        let less = answer(r#"{"metric":{},"value":[1,"3"]}"#, "");
        let warned = answer("", r#","warnings":["partial"]"#);
        let told = |theirs: &str| same_result(one.as_bytes(), theirs.as_bytes());
        assert_eq!(told(&other), Verification::Same);
        assert_eq!(told(&less), Verification::Different);
        assert_eq!(told(&warned), Verification::Skipped);
        assert_eq!(told("{}"), Verification::Skipped);
    }
}
