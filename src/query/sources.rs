//! Which backend does a datasource mean?
//!
//! The document is read from Perses, must describe exactly one HTTP proxy, and its URL must be one of the configured
//! backends'. What was found is remembered for a few seconds and forgotten when a datasource changes through us.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use moka::future::Cache;
use serde_json::Value;

use crate::access::Grant;
use crate::config::Origin;
use crate::document::{self, DocumentError};
use crate::memo::{Memo, Ticket};
use crate::names::ObjectName;
use crate::refusal::{Reason, Refusal};
use crate::route::Source;
use crate::upstream::{BackendClient, Perses};

/// How long a change that was not made through us may stay unnoticed.
const FRESH: Duration = Duration::from_secs(10);

/// Sources that are found at once.
const RECENT: usize = 256;

/// Finds backends.
pub struct Sources {
    perses: Arc<Perses>,
    backends: Vec<Arc<BackendClient>>,
    /// With the ticket of whoever looked it up: what was cleared meanwhile may come in late, and is nothing then.
    found: Cache<Source, (Arc<BackendClient>, Instant, Ticket)>,
    /// What of it was used last.
    recent: Memo<Source, Arc<BackendClient>>,
}

impl Sources {
    /// Looks in this Perses for these backends.
    #[must_use]
    pub fn new(perses: Arc<Perses>, backends: Vec<Arc<BackendClient>>) -> Self {
        let found = Cache::builder().max_capacity(10_000).time_to_live(FRESH).build();
        Self { perses, backends, found, recent: Memo::new(RECENT) }
    }

    /// The backends.
    #[must_use]
    pub fn backends(&self) -> &[Arc<BackendClient>] {
        &self.backends
    }

    /// Whether a URL in a datasource is one of the backends'.
    #[must_use]
    pub fn knows(&self, url: &str) -> bool {
        self.by_url(url).is_some()
    }

    /// Something that describes datasources is going to change: what is known is forgotten when this is dropped, whether
    /// the change was answered, failed half-way, or was given up by whoever asked for it.
    #[must_use]
    pub fn changing(&self) -> Changing<'_> {
        Changing(self)
    }

    /// The backend that the datasource of a granted route means.
    ///
    /// # Errors
    /// 404 when there is no such datasource, 403 when it is no configured backend.
    pub async fn find(&self, grant: &Grant, source: &Source) -> Result<Arc<BackendClient>, Refusal> {
        let ticket = self.recent.ticket();
        if let Some(backend) = self.lately(source) {
            return Ok(backend);
        }
        if let Some((backend, until, since)) = self.found.get(source).await
            && since == ticket
        {
            self.recent.put(ticket, source, source.clone(), Arc::clone(&backend), until);
            return Ok(backend);
        }
        let until = Instant::now() + FRESH;
        let backend = self.look_up(grant, source).await?;
        self.found.insert(source.clone(), (Arc::clone(&backend), until, ticket)).await;
        Ok(backend)
    }

    /// The same, if it was found a moment ago.
    #[must_use]
    pub fn lately(&self, source: &Source) -> Option<Arc<BackendClient>> {
        self.recent.get(source, |known| known == source)
    }

    async fn look_up(&self, grant: &Grant, source: &Source) -> Result<Arc<BackendClient>, Refusal> {
        let none = || Refusal::new(Reason::NotFound, "there is no datasource of this name here");
        let call = grant.source().ok_or_else(|| Refusal::internal("a datasource without a grant"))?;
        let answer = self.perses.ask(call).await?;
        if answer.status != StatusCode::OK {
            // A backend may show itself as a global datasource; a stored one of that name wins.
            return match source {
                Source::Global(name) => self.virtual_named(name).ok_or_else(none),
                Source::Project(..) | Source::Dashboard(..) => Err(none()),
            };
        }
        let document: Value = serde_json::from_slice(&answer.body).map_err(|error| {
            Refusal::new(Reason::UpstreamNonsense, "Perses answered something that is no datasource").because(error)
        })?;
        let spec = match source {
            Source::Global(_) | Source::Project(..) => document.pointer("/spec"),
            Source::Dashboard(_, _, key) => {
                document.pointer("/spec/datasources").and_then(Value::as_object).and_then(|map| map.get(key))
            }
        };
        let target = document::datasource_target(spec.ok_or_else(none)?).map_err(|error| unusable(&error))?;
        let url = target.url.unwrap_or_default();
        self.by_url(&url).ok_or_else(|| unusable(&DocumentError::BackendUrl))
    }

    fn by_url(&self, url: &str) -> Option<Arc<BackendClient>> {
        let origin = Origin::parse(url).ok()?;
        self.backends
            .iter()
            .find(|backend| backend.settings().url == origin || backend.settings().also_urls.contains(&origin))
            .cloned()
    }

    fn virtual_named(&self, name: &ObjectName) -> Option<Arc<BackendClient>> {
        self.backends
            .iter()
            .find(|backend| backend.settings().datasource.as_ref().is_some_and(|shown| shown.name == *name))
            .cloned()
    }
}

/// A change under way.
pub struct Changing<'a>(&'a Sources);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.recent.clear();
        self.0.found.invalidate_all();
    }
}

fn unusable(error: &DocumentError) -> Refusal {
    Refusal::new(Reason::Datasource, format!("this datasource cannot be queried here: {error}"))
}
