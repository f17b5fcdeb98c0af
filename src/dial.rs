//! Speak HTTP/1.1 outwards: pooled keep-alive connections, TLS, deadlines, size caps.
//!
//! One [`Dial`] knows one origin and reaches no other: no redirects, no proxies from the environment. Every exchange has a
//! deadline that covers the body too, and whoever reads a body says how much of it may come.

mod connect;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::config::Origin;
use connect::Connector;

/// How long a kept connection may wait for its next request.
const IDLE: Duration = Duration::from_secs(60);

/// How an origin is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where.
    pub origin: Origin,
    /// The PEM text of whom to believe over TLS; the system's bundle when there is none.
    pub roots: Option<Vec<u8>>,
    /// Connections kept open without a request.
    pub idle_connections: usize,
    /// Requests open at once; more wait for their turn until their deadline.
    pub in_flight: usize,
    /// Until a connection stands.
    pub connect: Duration,
}

/// Why there is no answer. For logs; what a client may know is decided elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialError {
    /// Too many requests are open.
    Busy,
    /// No connection.
    Connect(String),
    /// Not in time.
    Slow,
    /// A connection that broke or spoke nonsense.
    Broken(String),
    /// More than was allowed.
    TooLarge,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("too many requests are open"),
            Self::Connect(cause) => write!(f, "no connection: {cause}"),
            Self::Slow => f.write_str("no answer in time"),
            Self::Broken(cause) => write!(f, "the exchange broke: {cause}"),
            Self::TooLarge => f.write_str("the answer is larger than allowed"),
        }
    }
}

impl std::error::Error for DialError {}

/// The way to one origin.
pub struct Dial {
    client: Client<Connector, Full<Bytes>>,
    scheme: Scheme,
    authority: Authority,
    base: String,
    slots: Arc<Semaphore>,
}

impl Dial {
    /// Prepares the way; connects to nobody yet.
    ///
    /// # Errors
    /// When the origin or the roots cannot be used; the text says why.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let origin = &settings.origin;
        let connector = Connector::new(settings)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(settings.idle_connections)
            .set_host(true)
            .build(connector);
        Ok(Self {
            client,
            scheme: if origin.tls { Scheme::HTTPS } else { Scheme::HTTP },
            authority: format!("{}:{}", origin.host, origin.port)
                .parse()
                .map_err(|error| format!("{origin}: {error}"))?,
            base: origin.base.clone(),
            slots: Arc::new(Semaphore::new(settings.in_flight)),
        })
    }

    /// One exchange, up to the head of the answer. `target` is path and query below the origin's base.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn send(
        &self,
        method: Method,
        target: &str,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Answer, DialError> {
        let target: PathAndQuery =
            if self.base.is_empty() { target.parse() } else { format!("{}{target}", self.base).parse() }
                .map_err(|error| DialError::Broken(format!("request target: {error}")))?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(target);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| DialError::Broken(error.to_string()))?;
        *request.headers_mut() = headers;
        let slot = match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => match tokio::time::timeout_at(deadline, Arc::clone(&self.slots).acquire_owned()).await {
                Ok(Ok(slot)) => slot,
                Ok(Err(_)) | Err(_) => return Err(DialError::Busy),
            },
        };
        let response = tokio::time::timeout_at(deadline, self.client.request(request))
            .await
            .map_err(|_| DialError::Slow)?
            .map_err(|error| {
                let cause = causes(&error);
                if error.is_connect() { DialError::Connect(cause) } else { DialError::Broken(cause) }
            })?;
        let (parts, body) = response.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body, deadline, slot })
    }
}

/// An error with what lies behind it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The head of an answer, and the way to its body.
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers as received.
    pub headers: HeaderMap,
    body: Incoming,
    deadline: Instant,
    slot: OwnedSemaphorePermit,
}

impl Answer {
    /// The whole body, of at most `most` bytes, before the deadline.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn bytes(self, most: usize) -> Result<(StatusCode, HeaderMap, Bytes), DialError> {
        if self.body.size_hint().lower() > most as u64 {
            return Err(DialError::TooLarge);
        }
        let read = Limited::new(self.body, most).collect();
        match tokio::time::timeout_at(self.deadline, read).await {
            Err(_) => Err(DialError::Slow),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(DialError::TooLarge),
            Ok(Err(error)) => Err(DialError::Broken(causes(&*error))),
            Ok(Ok(body)) => Ok((self.status, self.headers, body.to_bytes())),
        }
    }

    /// The body as it arrives. Beyond `most` bytes or the deadline it ends in an error, never in a valid end.
    #[must_use]
    pub fn stream(self, most: usize) -> Stream {
        Stream {
            too_large: self.body.size_hint().lower() > most as u64,
            body: self.body,
            left: most,
            deadline: Box::pin(tokio::time::sleep_until(self.deadline)),
            _slot: self.slot,
        }
    }
}

/// The body of an answer as it arrives, bounded.
pub struct Stream {
    body: Incoming,
    left: usize,
    too_large: bool,
    deadline: Pin<Box<Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = DialError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DialError>>> {
        let this = &mut *self;
        if this.too_large {
            return Poll::Ready(Some(Err(DialError::TooLarge)));
        }
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else {
                    // Trailers are nobody's business here.
                    return Poll::Ready(None);
                };
                match this.left.checked_sub(data.len()) {
                    Some(left) => this.left = left,
                    None => {
                        this.too_large = true;
                        return Poll::Ready(Some(Err(DialError::TooLarge)));
                    }
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(DialError::Broken(causes(&error))))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match this.deadline.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err(DialError::Slow))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.too_large
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
