//! What is being asked at the moment, by whom it is waited for, and what becomes of it.
//!
//! A flight is a task of its own: it ends when its answer has come, or some time after everybody who waited has left. What
//! lands is kept and taken off the table under one lock, so that nobody who looks at both misses it or asks again.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::key::{Key, Place};
use super::shared::Sharing;
use super::store::{Kept, Stored};
use super::{Asked, Cache, Origin, Terms, UNFIT, millis};
use crate::extents::{Extents, Fetched, Moment, Part, Rules, Span, Unreadable};
use crate::refusal::{Reason, Refusal};
use crate::telemetry::metrics::CacheReason;
use crate::upstream::Question;

/// What came of a flight.
#[derive(Clone)]
pub(super) enum Landed {
    /// More is known, as of then.
    Known(Arc<Extents>, Moment, Brought),
    /// An answer that is kept as a whole, and why if it should have been taken apart.
    Answer(Arc<Kept>, Option<CacheReason>),
    /// It cannot be taken apart and is not what was wanted as a whole.
    Unfit,
}

/// From where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brought {
    /// Of the backend.
    pub(super) asked: bool,
    /// Of what other replicas know.
    pub(super) shared: bool,
}

type Outcome = Result<Landed, Refusal>;

struct Flight {
    key: Arc<[u8]>,
    span: Span,
    outcome: watch::Sender<Option<Outcome>>,
    waiting: AtomicUsize,
    left: Notify,
}

/// Those of one key ask for different points.
type Table = HashMap<Arc<[u8]>, Vec<Arc<Flight>>>;

/// All that are under way.
#[derive(Default)]
pub(super) struct Flights {
    table: Mutex<Table>,
    /// How often something was forgotten.
    epoch: AtomicU64,
}

/// What there is for somebody who asks.
pub(super) enum Seat<K, N> {
    /// It is known.
    Known(K),
    /// It must be asked for.
    Start(Boarding, Vec<Span>, N),
    /// Somebody else has asked.
    Join(Ticket),
}

/// The right to wait for a flight.
pub(super) struct Ticket {
    flight: Arc<Flight>,
}

/// A flight that must be started.
pub(super) struct Boarding {
    ticket: Ticket,
}

impl Flights {
    /// Looks at what is known and at what is under way in one moment. `look` says what is missing.
    pub(super) fn seat<K, N>(
        &self,
        key: &Key,
        whole: Span,
        look: impl FnOnce() -> Result<K, (Vec<Span>, N)>,
    ) -> Seat<K, N> {
        let mut table = self.lock();
        let (need, rest) = match look() {
            Ok(known) => return Seat::Known(known),
            Err(missing) => missing,
        };
        let span = match need.as_slice() {
            [] => whole,
            [first, .., last] => first.hull(*last),
            [one] => *one,
        };
        let base = key.base();
        let flights = table.get(base.as_slice());
        if let Some(flight) = flights.and_then(|all| all.iter().find(|flight| !flight.span.and(span).is_empty())) {
            return Seat::Join(Ticket::of(flight));
        }
        let key: Arc<[u8]> = base.into();
        let flight = Arc::new(Flight {
            key: Arc::clone(&key),
            span,
            outcome: watch::Sender::new(None),
            waiting: AtomicUsize::new(0),
            left: Notify::new(),
        });
        table.entry(key).or_default().push(Arc::clone(&flight));
        Seat::Start(Boarding { ticket: Ticket::of(&flight) }, need, rest)
    }

    /// How often something was forgotten until now.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Does something unless something was forgotten since `epoch`.
    pub(super) fn unless_forgotten(&self, epoch: u64, keep: impl FnOnce()) -> bool {
        let _table = self.lock();
        let same = self.epoch() == epoch;
        if same {
            keep();
        }
        same
    }

    /// Nothing that is under way will be kept, and nobody who comes from now on waits for it.
    pub(super) fn forget(&self) {
        let mut table = self.lock();
        self.epoch.fetch_add(1, Ordering::AcqRel);
        table.clear();
    }

    pub(super) fn count(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_off(table: &mut Table, flight: &Arc<Flight>) {
    if let Some(all) = table.get_mut(&flight.key) {
        all.retain(|other| !Arc::ptr_eq(other, flight));
        if all.is_empty() {
            table.remove(&flight.key);
        }
    }
}

impl Ticket {
    fn of(flight: &Arc<Flight>) -> Self {
        flight.waiting.fetch_add(1, Ordering::AcqRel);
        Self { flight: Arc::clone(flight) }
    }

    /// Waits for the flight as long as the caller has time.
    pub(super) async fn wait(self, deadline: Instant) -> Outcome {
        let mut outcome = self.flight.outcome.subscribe();
        match tokio::time::timeout_at(deadline, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(lost())),
            Ok(Err(_)) => Err(lost()),
            Err(_) => Err(Refusal::new(Reason::UpstreamSlow, "the metrics backend did not answer in time")),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.flight.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.flight.left.notify_one();
        }
    }
}

fn lost() -> Refusal {
    Refusal::internal("a flight ended without an outcome")
}

impl Boarding {
    /// Starts the flight and waits for it.
    pub(super) async fn fly<W: Future<Output = Work> + Send + 'static>(
        self,
        pilot: Pilot,
        work: impl FnOnce(Pilot) -> W,
        deadline: Instant,
    ) -> Outcome {
        let flight = Arc::clone(&self.ticket.flight);
        let lander = Lander { cache: Arc::clone(&pilot.cache), flight, epoch: pilot.epoch };
        let patience = pilot.patience;
        let work = work(pilot);
        tokio::spawn(async move {
            tokio::select! {
                work = work => lander.land(work),
                () = lander.abandoned(patience) => {}
            }
        });
        self.ticket.wait(deadline).await
    }
}

/// What a flight brings: an outcome for those who wait, and what is to be kept.
pub(super) struct Work {
    outcome: Outcome,
    keep: Vec<(Vec<u8>, Stored)>,
    learned: Option<Learned>,
}

/// What a flight learned of a grid.
struct Learned {
    key: Vec<u8>,
    /// What was known when it began, and with what it learned.
    before: Arc<Extents>,
    now: Arc<Extents>,
    parts: Vec<Part>,
    rules: Rules,
    /// With whom it is shared, and what of it they know.
    sharing: Option<(Sharing, Arc<Extents>)>,
}

impl Work {
    fn of(outcome: Outcome) -> Self {
        Self { outcome, keep: Vec::new(), learned: None }
    }

    fn learn(self, learned: Learned) -> Self {
        Self { learned: Some(learned), ..self }
    }

    fn keep(mut self, key: Vec<u8>, stored: Stored) -> Self {
        self.keep.push((key, stored));
        self
    }
}

/// Takes a flight off the table, however it ends.
struct Lander {
    cache: Arc<Cache>,
    flight: Arc<Flight>,
    epoch: u64,
}

impl Lander {
    fn land(self, work: Work) {
        let cache = &self.cache;
        let mut share = None;
        {
            let mut table = cache.flights.lock();
            if cache.flights.epoch() == self.epoch {
                for (key, stored) in work.keep {
                    cache.put(self.epoch, &key, stored);
                }
                if let Some(Learned { key, before, now, parts, rules, sharing }) = work.learned {
                    // Another flight may have learned something of other points meanwhile.
                    let known = match cache.store.answer(&key) {
                        Some(Stored::Extents(known)) if !Arc::ptr_eq(&known, &before) => {
                            Arc::new(parts.iter().fold((*known).clone(), |known, part| known.with(part, &rules)))
                        }
                        _ => now,
                    };
                    cache.store.put(key.as_slice(), Stored::Extents(Arc::clone(&known)));
                    share = sharing.map(|(sharing, theirs)| (sharing, key, known, theirs, rules));
                }
            }
            take_off(&mut table, &self.flight);
        }
        self.flight.outcome.send_replace(Some(work.outcome));
        cache.store.settle();
        cache.metrics.cache().memory(cache.store.bytes());
        if let Some((sharing, key, known, theirs, rules)) = share {
            sharing.share(&key, &known, &theirs, (cache.clock.now(), &rules));
        }
    }

    /// Until nobody has waited for some time.
    async fn abandoned(&self, patience: Duration) {
        loop {
            self.flight.left.notified().await;
            tokio::time::sleep(patience).await;
            let mut table = self.cache.flights.lock();
            if self.flight.waiting.load(Ordering::Acquire) == 0 {
                take_off(&mut table, &self.flight);
                return;
            }
        }
    }
}

impl Drop for Lander {
    fn drop(&mut self) {
        take_off(&mut self.cache.flights.lock(), &self.flight);
        self.flight.outcome.send_if_modified(|outcome| {
            let none = outcome.is_none();
            if none {
                *outcome = Some(Err(lost()));
            }
            none
        });
    }
}

/// Everything that a flight needs, its first caller gone or not.
#[derive(Clone)]
pub(super) struct Pilot {
    cache: Arc<Cache>,
    epoch: u64,
    patience: Duration,
    place: Arc<Place>,
    question: Question,
    origin: Arc<dyn Origin>,
    terms: Terms,
    wide: bool,
    room: u64,
    timeout: Duration,
    sharing: Option<Sharing>,
}

impl Pilot {
    /// `epoch` is of the time before anything was looked at.
    pub(super) fn new(cache: &Arc<Cache>, epoch: u64, asked: &Asked<'_>, origin: Arc<dyn Origin>) -> Self {
        Self {
            cache: Arc::clone(cache),
            epoch,
            patience: asked.terms.upstream.abandoned,
            place: Arc::clone(asked.place),
            question: asked.question.clone(),
            origin,
            terms: asked.terms,
            wide: asked.wide,
            room: (asked.room)(),
            timeout: asked.timeout,
            sharing: cache.sharing(asked.place),
        }
    }

    /// Asks for the points that are needed.
    pub(super) async fn points(
        self,
        keys: [Vec<u8>; 3],
        need: Vec<Span>,
        known: Arc<Extents>,
        (wanted, rules): (Span, Rules),
    ) -> Work {
        let [base, span_key, unfit] = keys;
        let deadline = Instant::now() + self.timeout;
        let before = Arc::clone(&known);
        let (mut now, mut parts) = (known, Vec::with_capacity(need.len()));
        let mut last = self.cache.clock.now();
        let mut need = need;
        if let Some(sharing) = &self.sharing {
            for part in sharing.recall(&base, &need, &now, (last, &rules)).await {
                now = Arc::new(now.with(&part, &rules));
                parts.push(part);
            }
            if !parts.is_empty() {
                need = now.need(wanted, last, &rules);
            }
        }
        let brought = Brought { asked: !need.is_empty(), shared: !parts.is_empty() };
        let sharing = self.sharing.clone().map(|sharing| (sharing, Arc::clone(&now)));
        if need.is_empty() {
            let learned = Learned { key: base, before, now: Arc::clone(&now), parts, rules, sharing: None };
            return Work::of(Ok(Landed::Known(now, last, brought))).learn(learned);
        }
        let permit = match self.place.queue.enter(self.room, self.terms.upstream, deadline).await {
            Ok(permit) => permit,
            Err(refusal) => return Work::of(Err(refusal)),
        };
        for gap in need {
            let mut question = self.question.clone();
            if !question.push_window(now.grid().time(gap.from), now.grid().time(gap.to - 1)) {
                return Work::of(Ok(Landed::Unfit)).keep(unfit, Stored::Unfit(CacheReason::Time, self.until(UNFIT)));
            }
            let asked = self.cache.clock.now();
            let given = match Arc::clone(&self.origin).ask(question.clone(), deadline).await {
                Ok(given) => given,
                Err(refusal) => {
                    let work = self.refused(span_key, refusal);
                    // What came before it is good.
                    return work.learn(Learned { key: base, before, now, parts, rules, sharing });
                }
            };
            let at = given.of(asked);
            let large = given.body.len() > self.terms.largest;
            let fetched = Fetched { span: gap, at, body: &given.body };
            let why = match if large { Err(None) } else { now.read(&fetched, &rules).map_err(Some) } {
                Ok(part) => {
                    (now, last) = (Arc::new(now.with(&part, &rules)), at);
                    parts.push(part);
                    continue;
                }
                Err(why) => why,
            };
            let (reason, time) = match why {
                None => (CacheReason::TooLarge, UNFIT),
                Some(Unreadable::Shape) => (CacheReason::Shape, UNFIT),
                Some(Unreadable::OffGrid) => (CacheReason::OffGrid, UNFIT),
                Some(Unreadable::Duplicate) => (CacheReason::Duplicate, UNFIT),
                Some(Unreadable::Warned) => (CacheReason::Warnings, self.terms.fresh),
            };
            let marked = |landed| Work::of(Ok(landed)).keep(unfit, Stored::Unfit(reason, self.until(time)));
            if gap != wanted {
                return marked(Landed::Unfit);
            }
            let kept = Arc::new(Kept::new(given.body, at.steady, Some((at.steady, i64::MAX))));
            let work = marked(Landed::Answer(Arc::clone(&kept), Some(reason)));
            let key = Key::whole(&self.place, self.wide, &question).base();
            return if large { work } else { work.keep(key, Stored::Answer(kept)) };
        }
        drop(permit);
        let learned = Learned { key: base, before, now: Arc::clone(&now), parts, rules, sharing };
        Work::of(Ok(Landed::Known(now, last, brought))).learn(learned)
    }

    /// Asks for an answer that is kept as a whole; it no longer changes when asked for after `settles`.
    pub(super) async fn whole(self, key: Vec<u8>, settles: Option<i64>) -> Work {
        let deadline = Instant::now() + self.timeout;
        let permit = match self.place.queue.enter(self.room, self.terms.upstream, deadline).await {
            Ok(permit) => permit,
            Err(refusal) => return Work::of(Err(refusal)),
        };
        let asked = self.cache.clock.now();
        let given = match Arc::clone(&self.origin).ask(self.question.clone(), deadline).await {
            Ok(given) => given,
            Err(refusal) => return self.refused(key, refusal),
        };
        drop(permit);
        let at = given.of(asked);
        let large = given.body.len() > self.terms.largest;
        let kept = Arc::new(Kept::whole(given.body, at, settles));
        let work = Work::of(Ok(Landed::Answer(Arc::clone(&kept), large.then_some(CacheReason::TooLarge))));
        if large { work } else { work.keep(key, Stored::Answer(kept)) }
    }

    /// What is refused is not asked again at once.
    fn refused(&self, key: Vec<u8>, refusal: Refusal) -> Work {
        let errors = self.terms.errors;
        let time = match refusal.reason() {
            Reason::UpstreamRefused | Reason::UpstreamTooLarge => millis(errors.client),
            Reason::UpstreamDown | Reason::UpstreamSlow | Reason::UpstreamNonsense | Reason::Overload => {
                // Between half and one and a half of it, so that not all come back at once.
                let time = millis(errors.server);
                let spread =
                    key.iter().fold(self.cache.clock.now().steady, |sum, byte| sum.wrapping_mul(31) + i64::from(*byte));
                time / 2 + if time > 0 { spread.rem_euclid(time) } else { 0 }
            }
            _ => 0,
        };
        let until = self.until(time);
        let work = Work::of(Err(refusal.clone()));
        if time > 0 { work.keep(key, Stored::Refused(refusal, until)) } else { work }
    }

    fn until(&self, time: i64) -> i64 {
        self.cache.clock.now().steady.saturating_add(time)
    }
}
