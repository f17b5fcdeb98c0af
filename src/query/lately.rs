//! Questions that came before in the very same bytes: most of a dashboard's, with every refresh of every viewer.
//!
//! What such a request means, for somebody who reaches the same, is known: where its answer stands if it is kept. So it is
//! neither taken apart nor confined again. Whatever is no plain hit goes the whole way.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;

use super::{Queries, told};
use crate::access::{Grant, Recalled};
use crate::cache::{Asked, Shortcut};
use crate::reply::Reply;
use crate::route::{MetricsCall, Source};
use crate::upstream::BackendClient;

/// So many questions, and how long each may be, with the place of its answer.
const PLACES: usize = 1024;
const LONGEST: usize = 8 << 10;

/// Where answers stand.
pub(super) struct Lately(Recalled<Came, Arc<Shortcut>>);

impl Lately {
    pub(super) fn new() -> Self {
        Self(Recalled::new(PLACES))
    }
}

/// A request for an evaluation as it came, and everything else that its meaning follows from.
struct Came {
    call: MetricsCall,
    backend: Arc<BackendClient>,
    query: String,
    body: Bytes,
}

/// The same while it is here.
#[derive(Clone, Copy)]
pub(super) struct Words<'w> {
    pub(super) call: &'w MetricsCall,
    pub(super) query: &'w str,
    pub(super) body: &'w Bytes,
}

impl Words<'_> {
    fn hint(&self) -> (bool, &str, &[u8]) {
        (*self.call == MetricsCall::Query, self.query, self.body)
    }
}

impl Queries {
    /// The kept answer to a question that came before.
    pub(super) fn lately(&self, grant: &Grant, source: &Source, words: Words<'_>) -> Option<Reply> {
        if !matches!(words.call, MetricsCall::Query | MetricsCall::QueryRange) {
            return None;
        }
        let began = Instant::now();
        let backend = self.sources.lately(source)?;
        let way = grant.recall(&self.lately.0, &words.hint(), |came| {
            came.body == *words.body
                && came.query == words.query
                && came.call == *words.call
                && Arc::ptr_eq(&came.backend, &backend)
        })?;
        let answer = self.cache.kept(&way)?;
        self.metrics.confine("ok");
        let reply = Reply { packed: Some(answer.packed), ..Reply::json(StatusCode::OK, answer.body) };
        Some(told(reply, began, answer.how))
    }

    /// Remembers where the answer to a question stands, or will.
    pub(super) fn remember(&self, grant: &Grant, backend: &Arc<BackendClient>, words: Words<'_>, asked: &Asked<'_>) {
        let Some(way) = self.cache.shortcut(asked) else { return };
        if way.length() + words.query.len() + words.body.len() > LONGEST {
            return;
        }
        let came = Came {
            call: words.call.clone(),
            backend: Arc::clone(backend),
            query: words.query.to_owned(),
            body: words.body.clone(),
        };
        grant.remember(&self.lately.0, &words.hint(), came, Arc::new(way));
    }
}
