//! A metrics backend in this process: exact, slow, unwilling and counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::{
    Asked, Asking, Cache, CacheKind, Clock, Given, Looks, Metrics, Origin, Place, Question, Rules, Shortcut, Terms,
    Times, Told,
};
use crate::config;
use crate::extents::tests::world::World;
use crate::extents::{Grid, Span};
use crate::refusal::{Reason, Refusal};
use crate::route::Form;

/// When the tests begin, on the wall.
pub(super) const BEGIN: i64 = 1_700_500_000_000;

/// How a question is answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Mood {
    /// How long it takes; the data are looked at in the middle.
    pub(super) takes: Duration,
    /// Refused with this.
    pub(super) fails: Option<Reason>,
    /// The answer is changed by this.
    pub(super) spoilt: Option<fn(String) -> String>,
}

/// A call that was made.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) query: String,
    pub(super) span: Option<Span>,
    /// When the data were looked at; none if they were not.
    pub(super) looked: Option<i64>,
    /// When it was over.
    pub(super) ended: Option<i64>,
}

#[derive(Default)]
struct Inner {
    worlds: HashMap<String, World>,
    calls: Vec<Call>,
    open: Vec<(usize, String, Option<Span>)>,
    /// Whether nobody may ask for the same twice at once.
    strict: bool,
    twice: bool,
    mood: Mood,
    moods: Vec<Mood>,
}

/// The backend and the clock on the wall.
pub(super) struct Backend {
    inner: Mutex<Inner>,
    began: Instant,
}

impl Backend {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), began: Instant::now() })
    }

    /// Milliseconds since 1970.
    pub(super) fn now(&self) -> i64 {
        BEGIN + i64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    pub(super) fn set(&self, query: &str, world: World) {
        self.inner.lock().unwrap().worlds.insert(query.to_owned(), world);
    }

    pub(super) fn world(&self, query: &str) -> World {
        self.inner.lock().unwrap().worlds[query].clone()
    }

    /// The mood of all calls that have none of their own.
    pub(super) fn mood(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    /// The moods of the next calls, the last one first.
    pub(super) fn moods(&self, moods: Vec<Mood>) {
        self.inner.lock().unwrap().moods = moods;
    }

    /// How many points it was asked for from the given call on, call by call.
    pub(super) fn points_since(&self, first: usize) -> Vec<i64> {
        self.calls()[first..].iter().filter_map(|call| call.span).map(Span::len).collect()
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.inner.lock().unwrap().calls.clone()
    }

    /// From now on nobody may ask for the same points twice at once.
    pub(super) fn strict(&self) {
        self.inner.lock().unwrap().strict = true;
    }

    /// Whether somebody did.
    pub(super) fn twice(&self) -> bool {
        self.inner.lock().unwrap().twice
    }

    /// What a question would be answered at a time.
    pub(super) fn direct(&self, query: &str, grid: Grid, span: Span, now: i64) -> String {
        self.world(query).answer(grid, span, now)
    }
}

/// Takes a call off the list of what is open.
struct Open<'b>(&'b Backend, usize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let now = self.0.now();
        let mut inner = self.0.inner.lock().unwrap();
        inner.open.retain(|(id, ..)| *id != self.1);
        if let Some(call) = inner.calls.get_mut(self.1) {
            call.ended = Some(now);
        }
    }
}

impl Origin for Backend {
    fn ask(self: Arc<Self>, question: Question, _deadline: Instant) -> Asking {
        Box::pin(async move {
            let mut form = Form::parse(question.form()).unwrap();
            let mut number = |name: &str| {
                let text = form.take(name).unwrap()?;
                #[allow(clippy::cast_possible_truncation, reason = "a time")]
                Some((text.parse::<f64>().unwrap() * 1000.0).round() as i64)
            };
            let range = number("start").zip(number("end")).zip(number("step"));
            let grid = range.map(|((start, end), step)| {
                let grid = Grid::new(start, step).unwrap();
                (grid, grid.span(start, end))
            });
            let query = form.take("query").unwrap().unwrap().into_owned();
            let span = grid.map(|(_, span)| span);
            let (mood, id) = {
                let mut inner = self.inner.lock().unwrap();
                let twice = inner.open.iter().any(|(_, other, theirs)| {
                    *other == query && span.zip(*theirs).is_none_or(|(a, b)| !a.and(b).is_empty())
                });
                inner.twice |= twice && inner.strict;
                let id = inner.calls.len();
                inner.calls.push(Call { query: query.clone(), span, looked: None, ended: None });
                inner.open.push((id, query.clone(), span));
                (inner.moods.pop().unwrap_or(inner.mood.clone()), id)
            };
            let _open = Open(&self, id);
            tokio::time::sleep(mood.takes / 2).await;
            let now = self.now();
            let body = {
                let mut inner = self.inner.lock().unwrap();
                if let Some(call) = inner.calls.get_mut(id) {
                    call.looked = Some(now);
                }
                match (grid, inner.worlds.get(&query)) {
                    (Some((grid, span)), Some(world)) => world.answer(grid, span, now),
                    _ => format!("{{\"status\":\"success\",\"data\":\"{query} at {now}\"}}"),
                }
            };
            tokio::time::sleep(mood.takes / 2).await;
            if let Some(reason) = mood.fails {
                return Err(Refusal::new(reason, "no"));
            }
            let body = mood.spoilt.map_or(body.clone(), |spoil| spoil(body));
            Ok(Given { body: body.into(), date: Some(now - now.rem_euclid(1000)) })
        })
    }
}

/// A cache, a backend, and somebody who asks.
pub(super) struct Stage {
    pub(super) cache: Arc<Cache>,
    pub(super) backend: Arc<Backend>,
    pub(super) place: Arc<Place>,
    pub(super) settings: config::Cache,
    /// Where the answers of earlier questions stand. Every other question looks there first.
    pub(super) lately: Mutex<(usize, HashMap<String, Arc<Shortcut>>)>,
}

impl Stage {
    pub(super) fn new(memory: usize) -> Self {
        let backend = Backend::new();
        let wall = {
            let backend = Arc::clone(&backend);
            move || backend.now()
        };
        let cache = Cache::new(memory, Clock::new(wall), Arc::new(Metrics::new()));
        let place = cache.place("b", b"b");
        let settings = config::Cache { verify: 0, ..config::Cache::default() };
        Self { cache, backend, place, settings, lately: Mutex::default() }
    }

    /// A range query of points that look ahead as its world does.
    pub(super) async fn range(&self, query: &str, grid: Grid, span: Span) -> Result<Told, Refusal> {
        self.range_within(query, grid, span, Duration::from_secs(60)).await
    }

    pub(super) async fn range_within(
        &self,
        query: &str,
        grid: Grid,
        span: Span,
        patience: Duration,
    ) -> Result<Told, Refusal> {
        self.range_of(1, query, grid, span, patience).await
    }

    /// The same, by somebody who takes turns with others of this room.
    pub(super) async fn range_of(
        &self,
        room: u64,
        query: &str,
        grid: Grid,
        span: Span,
        patience: Duration,
    ) -> Result<Told, Refusal> {
        let mut question = Question::of_test("/api/v1/query_range", query);
        assert!(question.push_step(grid.step()));
        let looks = Looks { back: 0, forward: self.backend.world(query).forward, fixed: None };
        let times = Times::Points(grid, span, self.rules(looks), looks);
        let terms = Terms::new(&self.settings, self.settings.range.fresh, self.settings.range.ttl);
        self.ask_from(room, (CacheKind::Range, question, times), terms, patience).await
    }

    pub(super) fn rules(&self, looks: Looks) -> Rules {
        crate::cache::rules(self.settings.range, looks)
    }

    /// Something that is kept as a whole.
    pub(super) async fn whole(&self, query: &str, settles: Option<i64>) -> Result<Told, Refusal> {
        let question = Question::of_test("/api/v1/query", query);
        let terms = Terms::new(&self.settings, self.settings.instant.fresh, self.settings.instant.ttl);
        self.ask(CacheKind::Instant, question, Times::Whole(settles, None), terms, Duration::from_secs(60)).await
    }

    pub(super) async fn ask(
        &self,
        kind: CacheKind,
        question: Question,
        times: Times,
        terms: Terms,
        patience: Duration,
    ) -> Result<Told, Refusal> {
        self.ask_from(1, (kind, question, times), terms, patience).await
    }

    async fn ask_from(
        &self,
        room: u64,
        (kind, question, times): (CacheKind, Question, Times),
        terms: Terms,
        patience: Duration,
    ) -> Result<Told, Refusal> {
        let asked = Asked {
            kind,
            question,
            times,
            place: &self.place,
            terms,
            wide: false,
            room: &|| room,
            deadline: Instant::now() + patience,
            timeout: Duration::from_secs(60),
        };
        if let Some(told) = self.lately(&asked) {
            return Ok(told);
        }
        let origin = || -> Arc<dyn Origin> { Arc::clone(&self.backend) as _ };
        self.cache.answer(&asked, &origin).await
    }

    /// What was asked before, in the same words and under the same terms.
    fn lately(&self, asked: &Asked<'_>) -> Option<Told> {
        let words = format!("{} {:?}", asked.question.form(), asked.times);
        let mut lately = self.lately.lock().unwrap();
        let (count, ways) = &mut *lately;
        *count += 1;
        let told = ways.get(&words).filter(|_| *count % 2 == 0).and_then(|way| self.cache.kept(way));
        if told.is_none()
            && let Some(way) = self.cache.shortcut(asked)
        {
            ways.insert(words, Arc::new(way));
        }
        told
    }
}
