//! Perses, over pooled keep-alive connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::refuse;
use crate::access::{Granted, PersesCall};
use crate::config;
use crate::dial::{self, Dial};
use crate::refusal::{Reason, Refusal};
use crate::route::{Open, PersesRequest};
use crate::telemetry::metrics::{Metrics, Upstream};

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("perses-sidecar/", env!("CARGO_PKG_VERSION")));

/// The Perses behind us.
pub struct Perses {
    dial: Dial,
    /// `perses.api_prefix`
    prefix: String,
    timeout: Duration,
    largest: usize,
    metrics: Arc<Metrics>,
}

/// A whole answer of Perses.
#[derive(Clone, Debug)]
pub struct PersesAnswer {
    /// Status, never 5xx.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

impl Perses {
    /// Speaks through `dial`.
    #[must_use]
    pub fn new(dial: Dial, prefix: &str, timeout: Duration, largest: usize, metrics: Arc<Metrics>) -> Self {
        Self { dial, prefix: prefix.to_owned(), timeout, largest, metrics }
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// 502 and 504 when there is none, 502 for a 5xx of Perses.
    pub async fn ask(&self, call: Granted<PersesCall>) -> Result<PersesAnswer, Refusal> {
        let call = call.into_inner();
        self.whole(call.request, call.body).await
    }

    /// Asks what an open route asks, and reads the whole answer.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_open(&self, route: &Open) -> Result<PersesAnswer, Refusal> {
        let request = PersesRequest::open(route).ok_or_else(|| internal("an open route that asks nothing"))?;
        self.whole(request, Bytes::new()).await
    }

    /// Asks for a file on behalf of a caller; the answer arrives bit by bit.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn file(
        &self,
        call: Granted<PersesCall>,
        accept_encoding: Option<&HeaderValue>,
    ) -> Result<(StatusCode, HeaderMap, dial::Stream), Refusal> {
        self.stream(call.into_inner().request, accept_encoding).await
    }

    /// Asks for a file of the UI, which anybody may have.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn open_file(
        &self,
        route: &Open,
        accept_encoding: Option<&HeaderValue>,
    ) -> Result<(StatusCode, HeaderMap, dial::Stream), Refusal> {
        let request = PersesRequest::open(route).ok_or_else(|| internal("an open route that asks nothing"))?;
        self.stream(request, accept_encoding).await
    }

    /// Whether Perses answers.
    pub async fn is_healthy(&self) -> bool {
        self.ask_open(&Open::Health).await.is_ok_and(|answer| answer.status == StatusCode::OK)
    }

    /// Asks what kubelet asked of Perses itself. As kubelet has it, every status from 200 to 399 is good; where a connection
    /// was enough, any answer is.
    pub async fn probe(&self, probe: &config::Probe) -> bool {
        let path = probe.path.as_deref().unwrap_or("/api/v1/health");
        let deadline = (Instant::now() + self.timeout).into();
        let sent = self.dial.send(Method::GET, path, probe.headers.clone(), Bytes::new(), deadline).await;
        let Ok(answer) = sent else { return false };
        let good = probe.path.is_none() || (200..400).contains(&answer.status.as_u16());
        good && answer.bytes(self.largest).await.is_ok()
    }

    async fn whole(&self, request: PersesRequest, body: Bytes) -> Result<PersesAnswer, Refusal> {
        let began = Instant::now();
        let outcome = async {
            let answer = self.send(request, body, None, began).await?;
            answer.bytes(self.largest).await
        };
        let outcome = outcome.await;
        let code = outcome.as_ref().map(|(status, _, _)| status.as_u16()).map_err(|_| ());
        self.metrics.upstream(Upstream::Perses, code, began.elapsed().as_secs_f64());
        let (status, _, body) = outcome.map_err(|error| refuse(&error, "perses"))?;
        vouch(status, &body)?;
        Ok(PersesAnswer { status, body })
    }

    async fn stream(
        &self,
        request: PersesRequest,
        accept_encoding: Option<&HeaderValue>,
    ) -> Result<(StatusCode, HeaderMap, dial::Stream), Refusal> {
        let began = Instant::now();
        let outcome = self.send(request, Bytes::new(), accept_encoding, began).await;
        let code = outcome.as_ref().map(|answer| answer.status.as_u16()).map_err(|_| ());
        self.metrics.upstream(Upstream::Perses, code, began.elapsed().as_secs_f64());
        let answer = outcome.map_err(|error| refuse(&error, "perses"))?;
        let status = answer.status;
        // A file is there or not; whatever else Perses says of it is not for strangers.
        match status {
            StatusCode::OK | StatusCode::NOT_MODIFIED => {
                let headers = answer.headers.clone();
                Ok((status, headers, answer.stream(self.largest)))
            }
            status if status.is_client_error() && !is_busy(status) => Err(Refusal::new(Reason::NotFound, "not found")),
            status => Err(vouch(status, b"").err().unwrap_or_else(|| internal("a file that is no file"))),
        }
    }

    async fn send(
        &self,
        request: PersesRequest,
        body: Bytes,
        accept_encoding: Option<&HeaderValue>,
        began: Instant,
    ) -> Result<dial::Answer, dial::DialError> {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::USER_AGENT, USER_AGENT);
        if let Some(value) = accept_encoding {
            headers.insert(header::ACCEPT_ENCODING, value.clone());
        } else {
            headers.insert(header::ACCEPT, crate::reply::JSON);
        }
        if request.method == Method::POST || request.method == Method::PUT {
            headers.insert(header::CONTENT_TYPE, crate::reply::JSON);
        }
        let deadline = (began + self.timeout).into();
        if self.prefix.is_empty() || request.path == "/metrics" {
            return self.dial.send(request.method, &request.path, headers, body, deadline).await;
        }
        let path = format!("{}{}", self.prefix, request.path);
        self.dial.send(request.method, &path, headers, body, deadline).await
    }
}

/// Whether a server says that it has too much to do.
fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE
}

/// Redirects and failures of Perses are not answers that we can stand for.
fn vouch(status: StatusCode, body: &[u8]) -> Result<(), Refusal> {
    if is_busy(status) {
        return Err(Refusal::new(Reason::Overload, "Perses is at its limit; try again soon")
            .because(format!("perses: status {status}"))
            .retry_after(Duration::from_secs(1)));
    }
    if status.is_success() || status.is_client_error() {
        return Ok(());
    }
    let text: String = String::from_utf8_lossy(body).chars().take(300).collect();
    Err(Refusal::new(Reason::UpstreamNonsense, "Perses could not answer this")
        .because(format!("perses: status {status}: {text}")))
}

fn internal(cause: &'static str) -> Refusal {
    Refusal::new(Reason::Internal, "internal error").because(cause)
}
