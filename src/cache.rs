//! One evaluation by a backend for everybody who asks the same.
//!
//! What is kept stands under the bytes of the question as it is sent: confined text, parameters, the backend and its
//! generation, never the person. Who may ask it was decided before; two people share an answer exactly when the same
//! question would be sent for both. The full key is compared, not a digest of it.
//!
//! A range request is answered from what is known of its points ([`crate::extents`]); everything else is kept as a whole.
//! Whoever asks for something that is missing starts a flight, or waits for the one that is under way: a task of its own,
//! which goes on when its first caller leaves. Where replicas share a memory, a flight looks there first (`shared`).

mod care;
mod flight;
mod journal;
mod key;
mod packed;
mod queue;
mod shared;
mod shortcut;
mod store;
mod verify;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config;
use crate::extents::{Extents, Grid, Looks, Moment, Rules, Span};
use crate::refusal::{Reason, Refusal};
use crate::reply::Packed;
use crate::telemetry::metrics::{CacheKind, CacheReason, CacheResult, Metrics};
use crate::upstream::Question;
pub use care::{BackendStats, Entry, Purge, Purged, Stats};
use flight::{Flights, Landed, Pilot, Seat};
use key::Key;
pub use key::Place;
use shared::{Sharing, Tier};
pub use shared::{Shelf, Soon};
pub use shortcut::Shortcut;
use store::{Kept, Store, Stored};
use verify::Verifying;

/// How often a question looks again before it gives up.
const ROUNDS: usize = 12;

/// How long a question whose answers cannot be taken apart is asked as a whole.
const UNFIT: i64 = 60_000;

/// Gaps that lie less than so many points apart are asked for in one.
const NEAR: i64 = 64;

/// What no one has used for so long is given up when something is added.
const IDLE: i64 = 30 * 60_000;

/// A backend as the cache sees it.
pub trait Origin: Send + Sync + 'static {
    /// Asks and reads the whole answer, a good one, with what stores say of themselves taken out.
    fn ask(self: Arc<Self>, question: Question, deadline: Instant) -> Asking;
}

/// See [`Origin::ask`].
pub type Asking = Pin<Box<dyn Future<Output = Result<Given, Refusal>> + Send>>;

/// An answer of a backend.
#[derive(Clone, Debug)]
pub struct Given {
    /// The body.
    pub body: Bytes,
    /// Its `Date`, in milliseconds since 1970.
    pub date: Option<i64>,
}

impl Given {
    /// As of when it is, of a time at which it was asked for. The earlier of both clocks: nothing is final too early.
    fn of(&self, asked: Moment) -> Moment {
        Moment { wall: self.date.map_or(asked.wall, |date| date.min(asked.wall)), ..asked }
    }
}

/// A question to the cache.
pub struct Asked<'a> {
    /// Of what kind.
    pub kind: CacheKind,
    /// The question; without times where there is a grid.
    pub question: Question,
    /// For when.
    pub times: Times,
    /// The backend's place.
    pub place: &'a Arc<Place>,
    /// How long answers may be used.
    pub terms: Terms,
    /// Whether no list of namespaces confines the question.
    pub wide: bool,
    /// Of callers with the same namespaces, the same number: they take turns with others.
    pub room: &'a (dyn Fn() -> u64 + Sync),
    /// How long the caller waits.
    pub deadline: Instant,
    /// How long the backend may take.
    pub timeout: Duration,
}

/// Which times a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Points of a grid, each an answer of its own.
    Points(Grid, Span, Rules, Looks),
    /// The answer cannot be taken apart. It no longer changes when asked for after this time since 1970, if there is one.
    Whole(Option<i64>, Option<CacheReason>),
}

/// How long answers may be used, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// While they may still change.
    pub fresh: i64,
    /// When they no longer do.
    pub ttl: i64,
    /// What else is configured.
    pub errors: config::ErrorTerms,
    /// What the backend may be asked at once.
    pub upstream: config::Upstream,
    /// The largest that is kept.
    pub largest: usize,
    /// Of so many hits one is asked again; none with 0.
    pub verify: u64,
    /// Whether the backend is asked whatever is known, and what is known only compared with what it says.
    pub shadow: bool,
}

impl Terms {
    /// The terms of a configuration for answers that are used so long.
    #[must_use]
    pub fn new(settings: &config::Cache, fresh: Duration, ttl: Duration) -> Self {
        Self {
            fresh: millis(fresh),
            ttl: millis(ttl),
            errors: settings.errors,
            upstream: settings.upstream,
            largest: settings.largest,
            verify: settings.verify,
            shadow: settings.mode == config::CacheMode::Shadow,
        }
    }
}

/// The rules of a configuration for points that look at these times.
#[must_use]
pub fn rules(settings: config::RangeTerms, looks: Looks) -> Rules {
    let settle = millis(settings.settle);
    Rules {
        settle: settle.saturating_add(looks.forward),
        not_before: looks.fixed.map_or(0, |(_, latest)| latest.saturating_add(settle)),
        fresh: millis(settings.fresh),
        ttl: millis(settings.ttl),
        idle: IDLE,
        near: NEAR,
    }
}

/// Milliseconds, as many as there can be.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Told {
    /// The body.
    pub body: Bytes,
    /// The same for whoever takes it compressed.
    pub packed: Arc<dyn Packed>,
    /// How it came about.
    pub how: How,
}

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// The result.
    pub result: CacheResult,
    /// For how many more milliseconds it may be used.
    pub left: i64,
    /// Why it is not kept by points.
    pub reason: Option<CacheReason>,
    /// Whether other replicas have asked for some of it.
    pub shared: bool,
}

/// The time.
pub struct Clock {
    began: Instant,
    wall: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(|| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(0, millis)
        })
    }
}

impl Clock {
    /// A clock on the wall, in milliseconds since 1970, beside the runtime's.
    pub fn new(wall: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self { began: Instant::now(), wall: Box::new(wall) }
    }

    fn now(&self) -> Moment {
        Moment { steady: millis(self.began.elapsed()), wall: (self.wall)() }
    }
}

/// The cache: one for the process, whatever the configuration.
pub struct Cache {
    store: Store,
    flights: Flights,
    places: key::Places,
    clock: Clock,
    metrics: Arc<Metrics>,
    verifying: Verifying,
    /// What all replicas share, if they do.
    tier: Mutex<Option<Arc<Tier>>>,
    /// Whoever compresses takes one.
    packers: Arc<Semaphore>,
    own: Weak<Self>,
}

impl Cache {
    /// Keeps at most so many bytes.
    #[must_use]
    pub fn new(memory: usize, clock: Clock, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            store: Store::new(memory),
            flights: Flights::default(),
            places: key::Places::default(),
            clock,
            metrics,
            verifying: Verifying::default(),
            tier: Mutex::default(),
            packers: Arc::new(Semaphore::new(packed::AT_ONCE)),
            own: own.clone(),
        })
    }

    /// Shares with other replicas from now on, or no longer. Must be called within a runtime.
    pub fn share(self: &Arc<Self>, shelf: Option<Arc<dyn Shelf>>) {
        let mut tier = self.tier.lock().unwrap_or_else(PoisonError::into_inner);
        let same = match (&*tier, &shelf) {
            (Some(tier), Some(shelf)) => tier.is_of(shelf),
            (None, None) => true,
            _ => false,
        };
        if !same {
            *tier = shelf.map(|shelf| Tier::start(shelf, self));
        }
    }

    fn tier(&self) -> Option<Arc<Tier>> {
        self.tier.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is shared of a backend at the moment.
    fn sharing(&self, place: &Place) -> Option<Sharing> {
        self.tier()?.of(place.name())
    }

    /// The place of a backend of this name that is described by these bytes: everything of its settings that can change an answer.
    #[must_use]
    pub fn place(&self, name: &str, described: &[u8]) -> Arc<Place> {
        self.places.of(name, described)
    }

    /// How many bytes may be kept.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.store.limit()
    }

    /// Answers, from what is kept or by asking. `origin` is called when a flight is started.
    ///
    /// # Errors
    /// As the backend, 504 when the caller's time is over, 503 when too many wait.
    pub async fn answer(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        origin: &(dyn Fn() -> Arc<dyn Origin> + Sync),
    ) -> Result<Told, Refusal> {
        let outcome = match asked.times {
            _ if asked.terms.shadow => self.shadow(asked, origin).await,
            Times::Points(grid, span, rules, looks) => self.points(asked, origin, (grid, span, rules, looks)).await,
            Times::Whole(settles, reason) => self.whole(asked, origin, (settles, reason)).await,
        };
        let result = outcome.as_ref().map_or(CacheResult::Error, |told| told.how.result);
        if result == CacheResult::Hit {
            self.verify_some(asked, origin);
        }
        self.metrics.cache().request(asked.kind, result);
        if let Some(reason) = outcome.as_ref().ok().and_then(|told| told.how.reason) {
            self.metrics.cache().bypass(reason);
        }
        outcome
    }

    async fn points(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        origin: &(dyn Fn() -> Arc<dyn Origin> + Sync),
        (grid, span, rules, looks): (Grid, Span, Rules, Looks),
    ) -> Result<Told, Refusal> {
        let key = asked.key();
        let mut result = CacheResult::Hit;
        let mut shared = false;
        let told = |kept: &Arc<Kept>, result, left, reason, shared| {
            let told = told(kept, result, left, reason);
            Told { how: How { shared, ..told.how }, ..told }
        };
        for _ in 0..ROUNDS {
            let (epoch, now) = (self.flights.epoch(), self.clock.now());
            match self.store.answer(key.span(span)) {
                Some(Stored::Answer(kept)) => {
                    if let Some(left) = kept.left(now, rules.fresh, rules.ttl) {
                        return Ok(told(&kept, result, left, None, shared));
                    }
                }
                Some(Stored::Refused(refusal, until)) if now.steady < until => return Err(refusal),
                _ => {}
            }
            if let Some(Stored::Unfit(reason, until)) = self.store.answer(key.unfit())
                && now.steady < until
            {
                let whole = asked.as_whole(grid, span)?;
                return self.whole(&whole, origin, (None, Some(reason))).await;
            }
            // What is under way is looked for under the same lock under which it lands.
            let seat = self.flights.seat(&key, span, || {
                let known = match self.store.answer(key.base()) {
                    Some(Stored::Extents(known)) => known,
                    _ => Arc::new(Extents::new(grid, looks)),
                };
                let need = known.need(span, now, &rules);
                if need.is_empty() { Ok(known) } else { Err((need, known)) }
            });
            let (known, at) = match seat {
                Seat::Known(known) => (known, now),
                Seat::Start(boarding, need, known) => {
                    let all = need.iter().map(|gap| gap.len()).sum::<i64>() == span.len();
                    let before = result;
                    if before == CacheResult::Hit {
                        result = if all { CacheResult::Miss } else { CacheResult::Partial };
                    }
                    let pilot = Pilot::new(self, epoch, asked, origin());
                    let keys = [key.base(), key.span(span), key.unfit()];
                    let work = |pilot: Pilot| pilot.points(keys, need, known, (span, rules));
                    match boarding.fly(pilot, work, asked.deadline).await? {
                        Landed::Known(known, at, brought) => {
                            shared |= brought.shared;
                            result = match (brought.asked, result) {
                                (false, _) => before,
                                (true, CacheResult::Miss) if brought.shared => CacheResult::Partial,
                                (true, result) => result,
                            };
                            (known, at)
                        }
                        Landed::Answer(kept, reason) => return Ok(told(&kept, result, 0, reason, shared)),
                        Landed::Unfit => continue,
                    }
                }
                Seat::Join(ticket) => {
                    result = CacheResult::Collapsed;
                    match ticket.wait(asked.deadline).await? {
                        Landed::Known(known, at, _) => (known, at),
                        Landed::Answer(..) | Landed::Unfit => continue,
                    }
                }
            };
            // Somebody else's flight may have brought something else. What has just come is fresh, however short that is.
            if !known.need(span, at, &Rules { fresh: rules.fresh.max(1), ..rules }).is_empty() {
                continue;
            }
            // Somebody else may have written it already.
            if let Some(Stored::Answer(kept)) = self.store.answer(key.span(span))
                && let Some(left) = kept.left(now, rules.fresh, rules.ttl)
            {
                return Ok(told(&kept, result, left, None, shared));
            }
            let Some(written) = known.write(span, now) else { continue };
            let kept = Arc::new(Kept::points(written));
            if kept.bytes().len() <= asked.terms.largest {
                self.keep(epoch, &key.span(span), Stored::Answer(Arc::clone(&kept)));
            }
            let left = kept.left(self.clock.now(), rules.fresh, rules.ttl).unwrap_or(0);
            return Ok(told(&kept, result, left, None, shared));
        }
        Err(Refusal::new(Reason::Overload, "what is known changes faster than it can be read; try again soon")
            .retry_after(Duration::from_secs(1)))
    }

    async fn whole(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        origin: &(dyn Fn() -> Arc<dyn Origin> + Sync),
        (settles, reason): (Option<i64>, Option<CacheReason>),
    ) -> Result<Told, Refusal> {
        let key = asked.key();
        let terms = &asked.terms;
        for _ in 0..ROUNDS {
            let epoch = self.flights.epoch();
            let seat = self.flights.seat(&key, Span { from: 0, to: 1 }, || {
                let now = self.clock.now();
                match self.store.answer(key.base()) {
                    Some(Stored::Answer(kept)) => match kept.left(now, terms.fresh, terms.ttl) {
                        Some(left) => Ok(Ok((kept, left))),
                        None => Err((Vec::new(), ())),
                    },
                    Some(Stored::Refused(refusal, until)) if now.steady < until => Ok(Err(refusal)),
                    _ => Err((Vec::new(), ())),
                }
            });
            let (landed, result) = match seat {
                Seat::Known(Ok((kept, left))) => return Ok(told(&kept, CacheResult::Hit, left, reason)),
                Seat::Known(Err(refusal)) => return Err(refusal),
                Seat::Start(boarding, ..) => {
                    let pilot = Pilot::new(self, epoch, asked, origin());
                    let work = |pilot: Pilot| pilot.whole(key.base(), settles);
                    (boarding.fly(pilot, work, asked.deadline).await?, CacheResult::Miss)
                }
                Seat::Join(ticket) => (ticket.wait(asked.deadline).await?, CacheResult::Collapsed),
            };
            if let Landed::Answer(kept, large) = landed {
                let left = kept.left(self.clock.now(), terms.fresh, terms.ttl).unwrap_or(0);
                return Ok(told(&kept, result, left, large.or(reason)));
            }
        }
        Err(Refusal::internal("a flight for a whole answer came without one"))
    }

    /// Keeps something that was made of what was known at `epoch`, unless something was forgotten since.
    fn keep(&self, epoch: u64, key: &[u8], stored: Stored) {
        if self.flights.unless_forgotten(epoch, || self.put(epoch, key, stored)) {
            self.store.settle();
            self.metrics.cache().memory(self.store.bytes());
        }
    }
}

impl Asked<'_> {
    /// Under which everything of the question stands.
    fn key(&self) -> Key {
        match self.times {
            Times::Points(grid, ..) => Key::points(self.place, self.wide, &self.question, grid),
            Times::Whole(..) => Key::whole(self.place, self.wide, &self.question),
        }
    }

    /// The same question with its times, to be asked as a whole.
    fn as_whole(&self, grid: Grid, span: Span) -> Result<Self, Refusal> {
        let mut question = self.question.clone();
        let (start, end) = (grid.time(span.from), grid.time(span.to - 1));
        if !question.push_window(start, end) {
            return Err(Refusal::internal("a time that cannot be written"));
        }
        Ok(Self { question, times: Times::Whole(None, None), ..*self })
    }
}

fn told(kept: &Arc<Kept>, result: CacheResult, left: i64, reason: Option<CacheReason>) -> Told {
    let packed: Arc<dyn Packed> = Arc::<Kept>::clone(kept);
    Told { body: kept.bytes().clone(), packed, how: How { result, left, reason, shared: false } }
}

#[cfg(test)]
mod tests;
