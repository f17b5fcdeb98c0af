//! Answer a question to a metrics backend: find the datasource, confine what is asked, ask the backend ourselves.
//!
//! Perses' own datasource proxy is never used. The datasource only says which of the configured backends is meant; its
//! headers, secrets and parameters are ignored.

mod answers;
mod params;
mod sources;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::access::{Grant, QueryError};
use crate::config;
use crate::promql;
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::route::{Form, FormError, Guarded, MetricsCall};
use crate::telemetry::metrics::Metrics;
use crate::upstream::{About, BackendClient, Perses, Question};
use params::{Endpoint, Params};
pub use sources::Sources;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Answers questions to metrics backends.
pub struct Queries {
    sources: Sources,
    limits: config::Limits,
    metrics: Arc<Metrics>,
}

impl Queries {
    /// Asks these backends, finding datasources in this Perses.
    #[must_use]
    pub fn new(
        perses: Arc<Perses>,
        backends: Vec<Arc<BackendClient>>,
        limits: &config::Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { sources: Sources::new(perses, backends), limits: limits.clone(), metrics }
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
            return Err(Refusal::new(Reason::Internal, "internal error").because("not a metrics route"));
        };
        // Parameters first: what is malformed is refused before anything is asked of anybody.
        let mut form = Form::parse_bytes(body).map_err(|error| malformed(&error))?;
        form.extend(Form::parse(query).map_err(|error| malformed(&error))?);
        let backend = self.sources.find(grant, source).await?;
        let settings = backend.settings();
        let endpoint = match call {
            MetricsCall::Query => Endpoint::Query,
            MetricsCall::QueryRange => Endpoint::QueryRange,
            MetricsCall::Series | MetricsCall::Labels | MetricsCall::LabelValues(_) => Endpoint::Matching,
            MetricsCall::Metadata => Endpoint::Metadata,
            MetricsCall::ParseQuery | MetricsCall::FormatQuery => Endpoint::Text,
            MetricsCall::BuildInfo | MetricsCall::Flags | MetricsCall::Healthy => Endpoint::Nothing,
        };
        let params =
            Params::read(form, endpoint, settings.kind, settings.timeout).map_err(|error| malformed(&error))?;
        let limits = promql::Limits {
            lookback_ms: millis(settings.retention),
            subquery_default_step_ms: millis(settings.evaluation_interval),
            ..self.limits.promql
        };
        let began = Instant::now();
        match call {
            MetricsCall::Query | MetricsCall::QueryRange => {
                params.check_points(self.limits.query_points)?;
                let confined = self.counted(grant.query(params.text()?, settings, &limits))?;
                let path = if *call == MetricsCall::Query { "/api/v1/query" } else { "/api/v1/query_range" };
                let mut question = Question::query(path, &confined);
                params.write(&mut question);
                self.pass(&backend, question, confined.get().text(), began).await
            }
            MetricsCall::Series | MetricsCall::Labels | MetricsCall::LabelValues(_) => {
                if *call == MetricsCall::Series && params.selectors().is_empty() {
                    return Err(Refusal::new(Reason::MalformedQuery, "no match[] parameter provided"));
                }
                let selectors = self.counted(grant.selectors(params.selectors(), settings, &limits))?;
                let mut question = match call {
                    MetricsCall::Series => Question::matching(Method::POST, "/api/v1/series", &selectors),
                    MetricsCall::LabelValues(name) => {
                        let path = format!("/api/v1/label/{}/values", name.as_str());
                        Question::matching(Method::GET, path, &selectors)
                    }
                    _ => Question::matching(Method::POST, "/api/v1/labels", &selectors),
                };
                params.write(&mut question);
                self.pass(&backend, question, "", began).await
            }
            MetricsCall::Metadata => self.metadata(grant, &backend, &params, &limits).await,
            MetricsCall::ParseQuery | MetricsCall::FormatQuery => {
                let text = self.counted(grant.reprint(params.text()?, settings, &limits))?;
                let path =
                    if *call == MetricsCall::ParseQuery { "/api/v1/parse_query" } else { "/api/v1/format_query" };
                self.pass(&backend, Question::text(path, &text), "", began).await
            }
            MetricsCall::BuildInfo => self.pass(&backend, Question::about(About::Build), "", began).await,
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
        confined: &str,
        began: Instant,
    ) -> Result<Reply, Refusal> {
        let answer = backend.ask(question).await?;
        let mut reply = answers::pass(answer, backend.settings().kind, confined, self.limits.answer).await?;
        reply.headers.insert(CACHE_STATUS, HeaderValue::from_static("perses-sidecar; fwd=bypass"));
        let tenths = began.elapsed().as_micros() / 100;
        if let Ok(timing) = HeaderValue::try_from(format!("upstream;dur={}.{}", tenths / 10, tenths % 10)) {
            reply.headers.insert(SERVER_TIMING, timing);
        }
        Ok(reply)
    }

    /// Metadata have no namespaces: first the names of the caller's own series, then what is known about these.
    async fn metadata(
        &self,
        grant: &Grant,
        backend: &BackendClient,
        params: &Params<'_>,
        limits: &promql::Limits,
    ) -> Result<Reply, Refusal> {
        let none: [&str; 0] = [];
        let selectors = self.counted(grant.selectors(&none, backend.settings(), limits))?;
        let names = Question::matching(Method::GET, "/api/v1/label/__name__/values", &selectors);
        let names = answers::whole(backend.ask(names).await?, self.limits.answer).await?;
        let known = answers::whole(backend.ask(Question::metadata()).await?, self.limits.answer).await?;
        let body = answers::filter_metadata(&known, &names, params.metric(), params.limit())?;
        Ok(Reply::json(StatusCode::OK, body))
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

fn malformed(error: &FormError) -> Refusal {
    Refusal::new(Reason::MalformedQuery, error.to_string())
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
