//! Bodies in and out: capped, timed, and of the one media type that a route takes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Method, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::is_media_type;
use super::journal::Journal;
use crate::config::Limits;
use crate::dial;
use crate::refusal::{Reason, Refusal};
use crate::reply::Body;

/// The body of an answer. It holds the journal, so that a request is accounted for when its last byte has gone or the
/// client has left.
pub struct Outgoing {
    body: Body,
    journal: Option<Box<Journal>>,
}

impl Outgoing {
    pub(super) fn new(body: Body, journal: Journal) -> Self {
        Self { body, journal: Some(Box::new(journal)) }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = dial::DialError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let frame = match &mut this.body {
            Body::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::Stream(stream) => Pin::new(stream).poll_frame(context),
            Body::Edited(body) => body.as_mut().poll_frame(context),
        };
        match &frame {
            Poll::Ready(Some(Err(error))) => {
                if let Some(journal) = &mut this.journal {
                    journal.broken(error);
                }
            }
            Poll::Ready(None) => {
                if let Some(mut journal) = this.journal.take() {
                    journal.complete();
                }
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Body::Whole(bytes) => bytes.is_empty(),
            Body::Stream(stream) => stream.is_end_stream(),
            Body::Edited(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Stream(stream) => stream.size_hint(),
            Body::Edited(body) => body.size_hint(),
        }
    }
}

/// A JSON body.
pub(super) async fn json(head: &http::request::Parts, body: Incoming, limits: &Limits) -> Result<Bytes, Refusal> {
    let given = head.headers.get(header::CONTENT_TYPE);
    if !given.is_some_and(|value| is_media_type(value, "application/json")) {
        return Err(Refusal::new(Reason::MediaType, "the body must be application/json"));
    }
    let bytes = read(body, limits.body, limits, "limits.body").await?;
    if bytes.is_empty() {
        return Err(Refusal::new(Reason::MalformedBody, "bad request: the body is empty"));
    }
    Ok(bytes)
}

/// A form, which only a POST may bring; the media type of a request without a body means nothing.
pub(super) async fn form(head: &http::request::Parts, body: Incoming, limits: &Limits) -> Result<Bytes, Refusal> {
    if head.method != Method::POST {
        none(&body)?;
        return Ok(Bytes::new());
    }
    let bytes = read(body, limits.query_body, limits, "limits.query_body").await?;
    if bytes.is_empty() {
        return Ok(bytes);
    }
    let given = head.headers.get(header::CONTENT_TYPE);
    if !given.is_some_and(|value| is_media_type(value, "application/x-www-form-urlencoded")) {
        return Err(Refusal::new(Reason::MediaType, "the body must be application/x-www-form-urlencoded"));
    }
    Ok(bytes)
}

/// No body. Servers behind us would read one on a GET as parameters.
pub(super) fn none(body: &Incoming) -> Result<(), Refusal> {
    if body.is_end_stream() { Ok(()) } else { Err(Refusal::new(Reason::MalformedBody, "no body is taken here")) }
}

async fn read(body: Incoming, most: usize, limits: &Limits, name: &'static str) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::new(Reason::BodyTooLarge, format!("the body is larger than {name} ({most} bytes)"));
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    // Into one piece of memory: thousands of small ones would stay with the allocator when they are freed.
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(most);
    let whole = async {
        let (mut body, mut whole) = (body, BytesMut::with_capacity(expected));
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| Refusal::new(Reason::MalformedBody, "the body broke off").because(error))?;
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > most - whole.len() {
                return Err(too_large());
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    };
    let outcome = tokio::time::timeout(limits.total, whole).await;
    outcome.unwrap_or_else(|_| Err(Refusal::new(Reason::SlowClient, "the body did not arrive in time")))
}
