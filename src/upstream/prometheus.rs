//! A metrics backend, asked directly and with our own credential.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};

use super::refuse;
use crate::access::{Granted, Reprinted};
use crate::config::Backend;
use crate::dial::{self, Dial};
use crate::extents::grid;
use crate::promql::Confined;
use crate::refusal::Refusal;
use crate::route::push_pair;
use crate::telemetry::metrics::{Metrics, Upstream};

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("perses-sidecar/", env!("CARGO_PKG_VERSION")));

/// One configured backend and the way to it.
pub struct BackendClient {
    settings: Arc<Backend>,
    dial: Dial,
    authorization: Option<HeaderValue>,
    metrics: Arc<Metrics>,
}

/// A request to a backend. It is made from confined text only, or reads no series at all.
#[derive(Clone, Debug)]
pub struct Question {
    method: Method,
    path: Cow<'static, str>,
    form: String,
}

impl Question {
    /// `query`, `query_range` or `query_exemplars`.
    #[must_use]
    pub fn query(path: &'static str, query: &Granted<Confined>) -> Self {
        let mut form = String::with_capacity(query.get().text().len() * 2 + 128);
        push_pair(&mut form, "query", query.get().text());
        Self { method: Method::POST, path: Cow::Borrowed(path), form }
    }

    /// `series`, `labels`, label values or `rules`. Of label values and rules, only the GET endpoint exists in Prometheus.
    #[must_use]
    pub fn matching(method: Method, path: impl Into<Cow<'static, str>>, selectors: &Granted<Vec<Confined>>) -> Self {
        let mut form = String::new();
        for selector in selectors.get() {
            push_pair(&mut form, "match[]", selector.text());
        }
        Self { method, path: path.into(), form }
    }

    /// `metadata` of one metric or of all; the answer must be filtered by what the caller's series are called.
    #[must_use]
    pub fn metadata() -> Self {
        Self { method: Method::GET, path: Cow::Borrowed("/api/v1/metadata"), form: String::new() }
    }

    /// `alerts`, which takes no selector; the answer must be filtered by the alerts' own labels.
    #[must_use]
    pub fn alerts() -> Self {
        Self { method: Method::GET, path: Cow::Borrowed("/api/v1/alerts"), form: String::new() }
    }

    /// `parse_query` or `format_query`: text in, text out, no series.
    #[must_use]
    pub fn text(path: &'static str, text: &Granted<Reprinted>) -> Self {
        let mut form = String::new();
        push_pair(&mut form, "query", text.get().text());
        Self { method: Method::POST, path: Cow::Borrowed(path), form }
    }

    /// What says nothing of anybody: version and health.
    #[must_use]
    pub fn about(what: About) -> Self {
        let path = match what {
            About::Build => "/api/v1/status/buildinfo",
            About::Health => "/-/healthy",
        };
        Self { method: Method::GET, path: Cow::Borrowed(path), form: String::new() }
    }

    /// A question of a test, which has no grant and sends it to nobody.
    #[cfg(test)]
    pub(crate) fn of_test(path: &'static str, query: &str) -> Self {
        let mut form = String::new();
        push_pair(&mut form, "query", query);
        Self { method: Method::POST, path: Cow::Borrowed(path), form }
    }

    /// The form, for a test that answers it.
    #[cfg(test)]
    pub(crate) fn form(&self) -> &str {
        &self.form
    }

    /// Everything that is sent and decides the answer, so that different questions write different bytes.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        for text in [self.method.as_str(), &self.path, &self.form] {
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// How long path and form are together.
    #[must_use]
    pub fn length(&self) -> usize {
        self.path.len() + self.form.len()
    }

    /// Adds start and end, in milliseconds since 1970; not if the backend would read other times.
    #[must_use]
    pub fn push_window(&mut self, start: i64, end: i64) -> bool {
        self.push_time("start", start) && self.push_time("end", end)
    }

    /// Adds a step in milliseconds; not if the backend would read another one.
    #[must_use]
    pub fn push_step(&mut self, ms: i64) -> bool {
        let text = grid::write_ms(ms, grid::step_ms);
        if let Some(text) = &text {
            self.push("step", text);
        }
        text.is_some()
    }

    /// Adds a time in milliseconds since 1970; not if the backend would read another one.
    #[must_use]
    pub fn push_time(&mut self, name: &str, ms: i64) -> bool {
        let text = grid::write_ms(ms, grid::time_ms);
        if let Some(text) = &text {
            self.push(name, text);
        }
        text.is_some()
    }

    /// Adds a checked parameter.
    pub fn push(&mut self, name: &str, value: &str) {
        push_pair(&mut self.form, name, value);
    }
}

/// Questions about the backend itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Its version.
    Build,
    /// Whether it is well.
    Health,
}

impl BackendClient {
    /// Speaks through `dial`, as whoever the settings' token says.
    ///
    /// # Errors
    /// When the token cannot stand in a header.
    pub fn new(settings: Arc<Backend>, dial: Dial, metrics: Arc<Metrics>) -> Result<Self, String> {
        let authorization = settings
            .token
            .as_ref()
            .map(|token| {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                    .map_err(|_| format!("metrics_backends {}: token_file holds no token", settings.name))?;
                value.set_sensitive(true);
                Ok::<_, String>(value)
            })
            .transpose()?;
        Ok(Self { settings, dial, authorization, metrics })
    }

    /// The backend's settings.
    #[must_use]
    pub fn settings(&self) -> &Arc<Backend> {
        &self.settings
    }

    /// Asks. The answer's head is here, its body arrives bit by bit.
    ///
    /// # Errors
    /// 502, 503 and 504 when there is none.
    pub async fn ask(&self, question: Question) -> Result<dial::Answer, Refusal> {
        self.ask_until(question, Instant::now() + self.settings.timeout).await
    }

    /// Asks one of several questions that share a deadline.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_until(&self, mut question: Question, deadline: Instant) -> Result<dial::Answer, Refusal> {
        for (name, value) in &self.settings.parameters {
            question.push(name, value);
        }
        let mut headers = HeaderMap::with_capacity(5);
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(header::ACCEPT, crate::reply::JSON);
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let began = Instant::now();
        let deadline = deadline.into();
        let outcome = if question.method == Method::POST {
            headers.insert(header::CONTENT_TYPE, FORM);
            self.dial.send(question.method, &question.path, headers, Bytes::from(question.form), deadline).await
        } else if question.form.is_empty() {
            self.dial.send(question.method, &question.path, headers, Bytes::new(), deadline).await
        } else {
            let target = format!("{}?{}", question.path, question.form);
            self.dial.send(question.method, &target, headers, Bytes::new(), deadline).await
        };
        let code = outcome.as_ref().map(|answer| answer.status.as_u16()).map_err(|_| ());
        self.metrics.upstream(Upstream::Metrics, code, began.elapsed().as_secs_f64());
        outcome.map_err(|error| refuse(&error, "metrics backend"))
    }
}
