//! What goes back to a client when nothing went wrong: status, a few headers of our own choosing, and a body.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::dial;

/// An answer before the gateway adds what every answer carries.
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Headers; never an upstream's as they came, always from an allow-list.
    pub headers: HeaderMap,
    /// Body.
    pub body: Body,
    /// The body in another encoding, if one may be had.
    pub packed: Option<Arc<dyn Packed>>,
}

/// A body that may be had compressed.
pub trait Packed: std::fmt::Debug + Send + Sync {
    /// The whole body in gzip (RFC 1952), if that is ready. Asking for it is what gets it ready.
    fn gzip(self: Arc<Self>) -> Option<Bytes>;
}

/// The body of a [`Reply`].
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// Passed on as it arrives, capped.
    Stream(dial::Stream),
    /// The same, but looked through on the way.
    Edited(Edited),
}

/// A body that is changed while it passes.
pub type Edited = Pin<Box<dyn http_body::Body<Data = Bytes, Error = dial::DialError> + Send>>;

/// The media type of Perses' and Prometheus' APIs.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Headers of a static file that a browser needs from upstream.
const STATIC: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CACHE_CONTROL,
    header::ETAG,
    header::LAST_MODIFIED,
    header::VARY,
];

impl Reply {
    /// JSON that is whole.
    #[must_use]
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Self { status, headers, body: Body::Whole(body.into()), packed: None }
    }

    /// No body at all.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::with_capacity(4), body: Body::Whole(Bytes::new()), packed: None }
    }

    /// JSON that is passed on as it arrives.
    #[must_use]
    pub fn json_stream(status: StatusCode, stream: dial::Stream) -> Self {
        Self { body: Body::Stream(stream), ..Self::json(status, Bytes::new()) }
    }

    /// JSON that is changed while it passes.
    #[must_use]
    pub fn json_edited(status: StatusCode, body: Edited) -> Self {
        Self { body: Body::Edited(body), ..Self::json(status, Bytes::new()) }
    }

    /// A file of the stock UI, passed on as it arrives.
    #[must_use]
    pub fn file(status: StatusCode, upstream: &HeaderMap, stream: dial::Stream) -> Self {
        let mut headers = HeaderMap::with_capacity(12);
        for name in STATIC {
            if let Some(value) = upstream.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        Self { status, headers, body: Body::Stream(stream), packed: None }
    }
}
