//! Speak HTTP/1.1 outwards: pooled keep-alive connections, TLS, deadlines, size caps.
//!
//! One [`Dial`] knows one origin and reaches no other: no redirects, no proxies from the environment. Every exchange has a
//! deadline that covers the body too, and whoever reads a body says how much of it may come.

mod connect;
mod pool;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::Origin;
use connect::Connector;
pub(crate) use connect::client_config;
pub use connect::system_roots;
use pool::{Failed, Link, Pool};

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
    connector: Connector,
    pool: Arc<Pool>,
    host: HeaderValue,
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
        let host = if origin.port == (if origin.tls { 443 } else { 80 }) {
            origin.host.clone()
        } else {
            format!("{}:{}", origin.host, origin.port)
        };
        Ok(Self {
            connector: Connector::new(settings)?,
            pool: Arc::new(Pool::new(settings.idle_connections, IDLE)),
            host: HeaderValue::try_from(host).map_err(|error| format!("{origin}: {error}"))?,
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
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(target);
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::HOST, self.host.clone());
        let slot = match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => match tokio::time::timeout_at(deadline, Arc::clone(&self.slots).acquire_owned()).await {
                Ok(Ok(slot)) => slot,
                Ok(Err(_)) | Err(_) => return Err(DialError::Busy),
            },
        };
        // A kept connection may have been closed meanwhile. Then nothing was sent, and the next one is taken.
        while let Some(mut link) = self.pool.take() {
            match link.exchange(request, deadline).await {
                Ok(answer) => return Ok(self.answer(answer, link, slot, deadline)),
                Err(Failed::Unsent(unsent)) => request = *unsent,
                Err(Failed::Other(error)) => return Err(error),
            }
        }
        let connect = async { Link::new(self.connector.connect().await?, deadline).await };
        let mut link = Box::new(tokio::time::timeout_at(deadline, connect).await.map_err(|_| DialError::Slow)??);
        match link.exchange(request, deadline).await {
            Ok(answer) => Ok(self.answer(answer, link, slot, deadline)),
            Err(Failed::Unsent(_)) => Err(DialError::Broken("closed before anything was sent".to_owned())),
            Err(Failed::Other(error)) => Err(error),
        }
    }

    fn answer(
        &self,
        answer: http::Response<Incoming>,
        link: Box<Link>,
        slot: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Answer {
        let (parts, body) = answer.into_parts();
        let mut source = Source { body, link: Some(link), pool: Arc::clone(&self.pool), slot: Some(slot), deadline };
        if source.body.is_end_stream() {
            source.release();
        }
        Answer { status: parts.status, headers: parts.headers, source }
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
    source: Source,
}

impl Answer {
    /// The whole body, of at most `most` bytes, before the deadline.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn bytes(self, most: usize) -> Result<(StatusCode, HeaderMap, Bytes), DialError> {
        let (status, headers) = (self.status, self.headers);
        let mut stream =
            Stream { too_large: self.source.body.size_hint().lower() > most as u64, source: self.source, left: most };
        // A small answer is one piece, which is passed on as it is.
        let mut whole = Bytes::new();
        let mut pieces = BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut stream).poll_frame(context)).await {
            let Ok(data) = frame?.into_data() else { continue };
            if whole.is_empty() && pieces.is_empty() {
                whole = data;
            } else {
                pieces.extend_from_slice(&std::mem::take(&mut whole));
                pieces.extend_from_slice(&data);
            }
            if stream.is_end_stream() {
                break;
            }
        }
        Ok((status, headers, if pieces.is_empty() { whole } else { pieces.freeze() }))
    }

    /// The body as it arrives. Beyond `most` bytes or the deadline it ends in an error, never in a valid end.
    #[must_use]
    pub fn stream(self, most: usize) -> Stream {
        Stream { too_large: self.source.body.size_hint().lower() > most as u64, source: self.source, left: most }
    }
}

/// Where a body comes from. The connection goes back to the pool with the last byte; dropped before, it is closed.
struct Source {
    body: Incoming,
    link: Option<Box<Link>>,
    pool: Arc<Pool>,
    slot: Option<OwnedSemaphorePermit>,
    deadline: Instant,
}

impl Source {
    fn poll_data(&mut self, context: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DialError>>> {
        let mut frame = self.poll_body(false);
        if frame.is_pending()
            && let Some(link) = &mut self.link
        {
            link.drive(context);
            frame = self.poll_body(true);
        }
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                if self.body.is_end_stream() {
                    self.release();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(DialError::Broken(causes(&error))))),
            Poll::Ready(None) => {
                self.release();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let late = self.link.as_mut().is_none_or(|link| link.is_late(self.deadline));
                if late { Poll::Ready(Some(Err(DialError::Slow))) } else { Poll::Pending }
            }
        }
    }

    /// Data come out of the driver, so they need not wake anybody. `driven` says that nobody drives before the task waits.
    fn poll_body(&mut self, driven: bool) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(link) = &self.link {
            link.mute();
        }
        let frame = Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(Waker::noop()));
        if let Some(link) = &self.link {
            link.unmute(driven && frame.is_pending());
        }
        frame
    }

    fn release(&mut self) {
        self.slot = None;
        if let Some(link) = self.link.take() {
            self.pool.put(link);
        }
    }
}

/// The body of an answer as it arrives, bounded.
pub struct Stream {
    source: Source,
    left: usize,
    too_large: bool,
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
        let frame = std::task::ready!(this.source.poll_data(context));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
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
                Some(Ok(Frame::data(data)))
            }
            other => other,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.source.body.is_end_stream() && !self.too_large
    }

    fn size_hint(&self) -> SizeHint {
        self.source.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
