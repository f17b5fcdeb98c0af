//! Answer a question to a metrics backend: find the datasource, confine what is asked, ask the backend ourselves.
//!
//! Perses' own datasource proxy is never used. The datasource only says which of the configured backends is meant; its
//! headers, secrets and parameters are ignored.

mod alerting;
mod answers;
mod asking;
mod explain;
mod kept;
mod lately;
mod merge;
mod params;
mod plan;
mod quiet;
mod sources;
mod terms;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::task::JoinSet;

use crate::access::{Grant, QueryError};
use crate::cache::{Cache, How, Place, Purge};
use crate::config;
use crate::promql::{self, Reach};
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::route::{Form, FormError, Guarded, MetricsCall, Source};
use crate::telemetry::metrics::{CacheKind, CacheReason, CacheResult, Metrics};
use crate::upstream::{About, BackendClient, Perses, Question};
pub use explain::{Explain, Explained};
use kept::Keeping;
use lately::{Lately, Words};
use params::{Endpoint, Params};
use plan::Plans;
pub use sources::Sources;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The most bytes of `match[]` in a request target. The `http` crate takes 64 KiB of target, and servers begin to refuse there
/// too; the rest is for path and other parameters.
const LONGEST_TARGET: usize = 48 << 10;

/// The most bytes of `match[]` in a form: Go's servers read forms of up to 10 MiB.
const LARGEST_FORM: usize = 8 << 20;

/// Room for a header of an answer, so that it is written in one piece.
const HEADER: usize = 64;

/// Parts of one question that are asked at once.
const AT_ONCE: usize = 4;

/// Answers questions to metrics backends.
pub struct Queries {
    sources: Sources,
    limits: config::Limits,
    cache: Arc<Cache>,
    backends: Vec<Behind>,
    keeping: config::Cache,
    plans: Plans,
    lately: Lately,
    metrics: Arc<Metrics>,
}

/// A backend, where everything of it is kept, and under which terms.
struct Behind {
    client: Arc<BackendClient>,
    place: Arc<Place>,
    terms: terms::Table,
}

impl Queries {
    /// Asks these backends, finding datasources in this Perses.
    #[must_use]
    pub fn new(
        perses: Arc<Perses>,
        backends: Vec<Arc<BackendClient>>,
        live: &config::Live,
        cache: Arc<Cache>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (limits, keeping) = (live.limits.clone(), live.cache.clone());
        let behind = |client: &Arc<BackendClient>| {
            let settings = client.settings();
            let place = cache.place(&settings.name, &kept::describe(settings));
            Behind { client: Arc::clone(client), place, terms: terms::Table::new(&keeping, &settings.name) }
        };
        let behind = backends.iter().map(behind).collect();
        let sources = Sources::new(perses, backends);
        let (plans, lately) = (Plans::new(), Lately::new());
        Self { sources, limits, cache, backends: behind, keeping, plans, lately, metrics }
    }

    /// Forgets every answer: a datasource has changed, and whoever changed it wants to see that.
    pub fn forget(&self) {
        self.cache.purge(&Purge::default());
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// The datasources, for what must be told when one changes.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Answers. `query` is the URL's, `body` the form that came with a POST.
    ///
    /// # Errors
    /// 400 and 422 for what cannot be asked, 403 for a datasource that is no backend, 502 to 504 when the backend fails.
    pub async fn answer(&self, grant: &Grant, query: &str, body: &Bytes) -> Result<Reply, Refusal> {
        let Guarded::Metrics(source, call) = grant.route() else {
            return Err(Refusal::internal("not a metrics route"));
        };
        let words = Words { call, query, body };
        match self.lately(grant, source, words) {
            Some(reply) => Ok(reply),
            // What seldom runs is not carried about by what often does.
            None => Box::pin(self.taken_apart(grant, source, words)).await,
        }
    }

    async fn taken_apart(&self, grant: &Grant, source: &Source, words: Words<'_>) -> Result<Reply, Refusal> {
        let Words { call, query, body } = words;
        // Parameters first: what is malformed is refused before anything is asked of anybody.
        let mut form = Form::parse_bytes(body).map_err(|error| malformed(&error))?;
        form.extend(Form::parse(query).map_err(|error| malformed(&error))?);
        let backend = self.sources.find(grant, source).await?;
        let settings = backend.settings();
        let endpoint = match call {
            MetricsCall::Query => Endpoint::Query,
            MetricsCall::QueryRange => Endpoint::QueryRange,
            MetricsCall::Exemplars => Endpoint::Exemplars,
            MetricsCall::Series | MetricsCall::Labels | MetricsCall::LabelValues(_) => Endpoint::Matching,
            MetricsCall::Metadata => Endpoint::Metadata,
            MetricsCall::Rules => Endpoint::Rules,
            MetricsCall::Alerts => Endpoint::Alerts,
            MetricsCall::ParseQuery | MetricsCall::FormatQuery => Endpoint::Text,
            MetricsCall::BuildInfo | MetricsCall::Flags | MetricsCall::Healthy => Endpoint::Nothing,
        };
        let params =
            Params::read(form, endpoint, settings.kind, settings.timeout).map_err(|error| malformed(&error))?;
        let limits = promql::Limits {
            lookback_ms: millis(settings.retention),
            subquery_default_step_ms: millis(settings.evaluation_interval),
            window: params.window(),
            ..self.limits.promql
        };
        let began = Instant::now();
        match call {
            MetricsCall::Query | MetricsCall::QueryRange | MetricsCall::Exemplars => {
                params.check_points(self.limits.query_points)?;
                let confined = self.counted(grant.query(params.text()?, settings, &limits))?;
                let mut keeping = self.keeping(grant, &backend, &params, began)?;
                keeping.words = Some(words);
                match call {
                    MetricsCall::Query => keeping.instant(&confined, &limits).await,
                    MetricsCall::QueryRange => keeping.range(&confined, &limits).await,
                    _ => {
                        let mut question = Question::query("/api/v1/query_exemplars", &confined);
                        params.write(&mut question);
                        self.pass(
                            &backend,
                            question,
                            &[confined.get().text()],
                            began,
                            CacheKind::Other,
                            CacheReason::Endpoint,
                        )
                        .await
                    }
                }
            }
            MetricsCall::Series | MetricsCall::Labels | MetricsCall::LabelValues(_) => {
                self.matching(grant, &backend, call, &params, &limits).await
            }
            MetricsCall::Metadata => self.metadata(grant, &backend, &params, &limits).await,
            MetricsCall::Rules | MetricsCall::Alerts => {
                let rules = *call == MetricsCall::Rules;
                let keeping = self.keeping(grant, &backend, &params, began)?;
                let mut in_force = keeping.behind.terms.of(&Reach::Everything);
                let mut question = if rules {
                    let asked = grant.rule_selectors(params.selectors(), settings, &limits, LONGEST_TARGET);
                    let selectors = self.counted(asked)?;
                    in_force = keeping.behind.terms.of_all(selectors.get());
                    Question::matching(Method::GET, "/api/v1/rules", &selectors)
                } else {
                    // One question for everybody.
                    Question::alerts()
                };
                params.write_without_timeout(&mut question);
                let kind = if rules { CacheKind::Rules } else { CacheKind::Alerts };
                let (body, how) = keeping.whole(kind, question, self.keeping.rules, in_force).await?;
                let sight = alerting::Sight {
                    label: settings.labels.default_label(),
                    reaches: &|namespace| grant.reaches(namespace),
                    everything: grant.reaches_everything(),
                };
                let body = if rules { alerting::rules(&body, &sight)? } else { alerting::alerts(&body, &sight)? };
                Ok(told(Reply::json(StatusCode::OK, body), began, how))
            }
            MetricsCall::ParseQuery | MetricsCall::FormatQuery => {
                let text = self.counted(grant.reprint(params.text()?, settings, &limits))?;
                let path =
                    if *call == MetricsCall::ParseQuery { "/api/v1/parse_query" } else { "/api/v1/format_query" };
                self.pass(&backend, Question::text(path, &text), &[], began, CacheKind::Other, CacheReason::Endpoint)
                    .await
            }
            MetricsCall::BuildInfo => {
                self.pass(&backend, Question::about(About::Build), &[], began, CacheKind::Other, CacheReason::Endpoint)
                    .await
            }
            MetricsCall::Flags => Ok(Reply::json(StatusCode::OK, &br#"{"status":"success","data":{}}"#[..])),
            MetricsCall::Healthy => {
                let answer = backend.ask(Question::about(About::Health)).await?;
                if answer.status == StatusCode::OK {
                    Ok(Reply::json(StatusCode::OK, &br#"{"status":"success"}"#[..]))
                } else {
                    Err(Refusal::new(Reason::UpstreamDown, "the metrics backend is not well"))
                }
            }
        }
    }

    /// Passes a question on and its answer back.
    async fn pass(
        &self,
        backend: &BackendClient,
        question: Question,
        sent: &[&str],
        began: Instant,
        kind: CacheKind,
        reason: CacheReason,
    ) -> Result<Reply, Refusal> {
        let how = self.passed(kind, reason);
        let answer = backend.ask(question).await?;
        Ok(told(answers::pass(answer, sent, self.limits.answer).await?, began, how))
    }

    /// Counts a question that goes past the cache.
    fn passed(&self, kind: CacheKind, reason: CacheReason) -> How {
        self.metrics.cache().request(kind, CacheResult::Bypass);
        self.metrics.cache().bypass(reason);
        How { result: CacheResult::Bypass, left: 0, reason: Some(reason), shared: false }
    }

    fn keeping<'k>(
        &'k self,
        grant: &'k Grant,
        backend: &'k Arc<BackendClient>,
        params: &'k Params<'k>,
        began: Instant,
    ) -> Result<Keeping<'k>, Refusal> {
        Ok(Keeping { queries: self, grant, behind: self.behind(backend)?, params, words: None, began })
    }

    fn behind(&self, backend: &Arc<BackendClient>) -> Result<&Behind, Refusal> {
        let found = self.backends.iter().find(|known| Arc::ptr_eq(&known.client, backend));
        found.ok_or_else(|| Refusal::internal("a backend without a place"))
    }

    /// Series, label names and label values: one question, or one for each part of a large set of namespaces.
    async fn matching(
        &self,
        grant: &Grant,
        backend: &Arc<BackendClient>,
        call: &MetricsCall,
        params: &Params<'_>,
        limits: &promql::Limits,
    ) -> Result<Reply, Refusal> {
        let began = Instant::now();
        if *call == MetricsCall::Series && params.selectors().is_empty() {
            return Err(Refusal::new(Reason::MalformedQuery, "no match[] parameter provided"));
        }
        let (method, path, most) = match call {
            MetricsCall::Series => (Method::POST, "/api/v1/series".into(), LARGEST_FORM),
            MetricsCall::LabelValues(name) => {
                (Method::GET, format!("/api/v1/label/{}/values", name.as_str()).into(), LONGEST_TARGET)
            }
            _ => (Method::POST, Cow::Borrowed("/api/v1/labels"), LARGEST_FORM),
        };
        let parts = match call {
            MetricsCall::LabelValues(name) if name.as_str() == "__name__" && params.selectors().is_empty() => {
                grant.selectors_of_names(backend.settings(), limits, most)
            }
            _ => grant.selectors(params.selectors(), backend.settings(), limits, most),
        };
        let parts = self.counted(parts)?;
        let question = |part| {
            let mut question = Question::matching(method.clone(), path.clone(), part);
            params.write(&mut question);
            question
        };
        if let [whole] = parts.as_slice() {
            let keeping = self.keeping(grant, backend, params, began)?;
            return keeping.matching(call, whole, Question::matching(method.clone(), path.clone(), whole)).await;
        }
        let how = self.passed(CacheKind::Other, CacheReason::Parts);
        let bodies = self.ask_all(backend, parts.iter().map(question)).await?;
        let limit = params.limit().unwrap_or(0);
        let body = match call {
            MetricsCall::Series => merge::series(&bodies, limit)?,
            _ => merge::texts(&bodies, limit)?,
        };
        Ok(told(Reply::json(StatusCode::OK, body), began, how))
    }

    /// Asks several questions, a few at once, all before one deadline; their answers together are bounded like one. One that
    /// fails makes all fail: a part would be a wrong answer.
    async fn ask_all(
        &self,
        backend: &Arc<BackendClient>,
        questions: impl Iterator<Item = Question>,
    ) -> Result<Vec<Bytes>, Refusal> {
        let deadline = Instant::now() + backend.settings().timeout;
        let largest = self.limits.answer;
        let (mut asked, mut bodies, mut left) = (JoinSet::new(), Vec::new(), largest);
        let mut questions = questions.fuse();
        loop {
            while asked.len() < AT_ONCE
                && let Some(question) = questions.next()
            {
                let backend = Arc::clone(backend);
                asked.spawn(async move {
                    answers::whole(backend.ask_until(question, deadline).await?, None, largest).await
                });
            }
            let Some(outcome) = asked.join_next().await else { return Ok(bodies) };
            let body = outcome.map_err(Refusal::internal)??;
            left = left.checked_sub(body.len()).ok_or_else(answers::too_large)?;
            bodies.push(body);
        }
    }

    /// Metadata have no namespaces: first the names of the caller's own series, then what is known about these.
    async fn metadata(
        &self,
        grant: &Grant,
        backend: &Arc<BackendClient>,
        params: &Params<'_>,
        limits: &promql::Limits,
    ) -> Result<Reply, Refusal> {
        let began = Instant::now();
        let parts = self.counted(grant.selectors_of_names(backend.settings(), limits, LONGEST_TARGET))?;
        let names = |part| Question::matching(Method::GET, "/api/v1/label/__name__/values", part);
        let keeping = self.keeping(grant, backend, params, began)?;
        let terms = &keeping.behind.terms;
        let names = match parts.as_slice() {
            [whole] => {
                let (fresh, in_force) = (self.keeping.labels.fresh, terms.of_all(whole.get()));
                vec![keeping.whole(CacheKind::Values, names(whole), fresh, in_force).await?.0]
            }
            several => self.ask_all(backend, several.iter().map(names)).await?,
        };
        let names = merge::texts(&names, 0)?;
        // What the backend knows is the same for everybody until it is filtered.
        let (fresh, in_force) = (self.keeping.metadata, terms.of_no_namespace());
        let known = keeping.whole(CacheKind::Metadata, Question::metadata(), fresh, in_force).await?;
        let body = answers::filter_metadata(&known.0, &names, params.metric(), params.limit())?;
        Ok(told(Reply::json(StatusCode::OK, body), began, known.1))
    }

    /// Counts the outcome of a confinement and turns a refused one into an answer.
    fn counted<T>(&self, outcome: Result<T, QueryError>) -> Result<T, Refusal> {
        match outcome {
            Ok(value) => {
                self.metrics.confine("ok");
                Ok(value)
            }
            Err(QueryError::Other(refusal)) => Err(refusal),
            Err(QueryError::Promql(error)) => {
                self.metrics.confine(error.code());
                let reason = match error.code() {
                    "limit" => Reason::QueryLimit,
                    "read_back" => Reason::ReadBack,
                    _ => Reason::Query,
                };
                Err(if reason == Reason::ReadBack {
                    Refusal::new(reason, "the query could not be confined").because(error)
                } else {
                    Refusal::new(reason, error.to_string())
                })
            }
        }
    }
}

/// Adds what an answer says about its making.
fn told(mut reply: Reply, began: Instant, how: How) -> Reply {
    if let Ok(status) = HeaderValue::try_from(status(how)) {
        reply.headers.insert(CACHE_STATUS, status);
    }
    let tenths = u64::try_from(began.elapsed().as_micros() / 100).unwrap_or(u64::MAX);
    let mut timing = String::with_capacity(HEADER);
    timing.push_str(if how.result == CacheResult::Hit { "cache;dur=" } else { "upstream;dur=" });
    push_number(&mut timing, tenths / 10);
    timing.push('.');
    push_number(&mut timing, tenths % 10);
    if let Ok(timing) = HeaderValue::try_from(timing) {
        reply.headers.insert(SERVER_TIMING, timing);
    }
    reply
}

/// The value of `Cache-Status` (RFC 9211).
fn status(how: How) -> String {
    let mut text = String::with_capacity(HEADER);
    text.push_str("perses-sidecar; ");
    match how.result {
        CacheResult::Hit => {
            text.push_str("hit; ttl=");
            push_number(&mut text, u64::try_from(how.left / 1000).unwrap_or(0));
        }
        CacheResult::Partial => text.push_str("fwd=partial"),
        CacheResult::Miss => text.push_str("fwd=miss"),
        CacheResult::Collapsed => text.push_str("fwd=miss; collapsed"),
        CacheResult::Bypass | CacheResult::Error => text.push_str("fwd=bypass"),
    }
    if let Some(detail) = how.reason.map(CacheReason::word).or(how.shared.then_some("shared")) {
        text.push_str("; detail=");
        text.push_str(detail);
    }
    text
}

/// Writes a number; every answer has two.
fn push_number(out: &mut String, number: u64) {
    if number > 9 {
        push_number(out, number / 10);
    }
    out.push(char::from(b'0' + u8::try_from(number % 10).unwrap_or(0)));
}

fn malformed(error: &FormError) -> Refusal {
    Refusal::new(Reason::MalformedQuery, error.to_string())
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
