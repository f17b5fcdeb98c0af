//! Answer reads and writes of the Perses API: keep what the [`Grant`] covers, show namespaces as projects and workloads as
//! dashboards, answer questions about oneself, and pass on only bodies that were checked and written anew.

mod global;
mod lists;
mod own;
mod projects;
mod rendered;
mod scoped;
mod workloads;

use std::sync::Arc;

pub use own::{Places, whom};
pub use rendered::Hidden;
pub use workloads::Shelf;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::access::{Access, Grant};
use crate::config;
use crate::document::{self, DocumentError, Kind, Object};
use crate::names::ObjectName;
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::route::{Guarded, Open, Project, Validate};
use crate::upstream::{Perses, PersesAnswer};
use crate::workloads::Workloads;
pub use lists::Changing;
use lists::Lists;
use rendered::Rendered;

/// Answers what is not a question to a metrics backend.
pub struct Catalog {
    perses: Arc<Perses>,
    lists: Lists,
    rendered: Rendered,
    /// `perses.api_prefix`, for links.
    prefix: String,
    access: Arc<Access>,
    /// Backends that show themselves as global datasources.
    shown: Vec<config::VirtualDatasource>,
    /// Perses works hard for these; so many at once.
    migrations: Semaphore,
}

/// What a request brought besides its route.
pub struct Brought<'a> {
    /// The body, empty for none.
    pub body: Bytes,
    /// The client's `Accept-Encoding`, for files.
    pub accept_encoding: Option<&'a HeaderValue>,
    /// Whether a URL is one of the configured backends'.
    pub knows: &'a (dyn Fn(&str) -> bool + Send + Sync),
    /// What the body turned out to be about, for the audit record: project and name.
    pub named: &'a std::sync::Mutex<Named>,
}

/// Project and name of an object that only its body names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The project.
    pub project: Option<String>,
    /// The name.
    pub name: Option<String>,
    /// What the request came to, where that is not what it says.
    pub effect: Option<Effect>,
}

/// What a change of a workload's dashboard came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It was never stored, and is now.
    Copied,
    /// Lists leave it out from now on.
    Hidden,
    /// What was stored in its place is gone: the workload's own is shown again.
    Restored,
}

impl Effect {
    /// The word for audit records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Hidden => "hidden",
            Self::Restored => "restored",
        }
    }
}

impl Brought<'_> {
    fn names(&self, project: Option<&Project>, name: Option<&ObjectName>) {
        let mut named = self.named.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        named.project = project.map(|project| project.as_str().to_owned());
        named.name = name.map(|name| name.as_str().to_owned());
    }

    fn effect(&self, effect: Effect) {
        self.named.lock().unwrap_or_else(std::sync::PoisonError::into_inner).effect = Some(effect);
    }
}

impl Catalog {
    /// Answers for this Perses.
    #[must_use]
    pub fn new(
        perses: Arc<Perses>,
        access: Arc<Access>,
        workloads: Arc<Workloads>,
        prefix: &str,
        live: &config::Live,
    ) -> Self {
        let library = live.dashboards.enabled.then(|| Arc::clone(&live.dashboards.library));
        let lists = Lists::new(Arc::clone(&perses), live.cache.mode == config::CacheMode::Enforce);
        Self {
            perses,
            lists,
            rendered: Rendered { workloads, library },
            prefix: prefix.to_owned(),
            access,
            shown: live.backends.iter().filter_map(|backend| backend.datasource.clone()).collect(),
            migrations: Semaphore::new(live.limits.migrations),
        }
    }

    /// Something is going to change in Perses: lists are forgotten when this is dropped.
    #[must_use]
    pub fn changing(&self) -> Changing {
        self.lists.changing()
    }

    /// Answers what anybody may ask.
    ///
    /// # Errors
    /// 404 for a file that is not there, 502 and 504 when Perses does not answer.
    pub async fn open(&self, route: &Open, accept_encoding: Option<&HeaderValue>) -> Result<Reply, Refusal> {
        match route {
            // Depends on who asks.
            Open::Config => Err(Refusal::internal("see Catalog::config")),
            Open::Ready => Ok(Reply::json(StatusCode::OK, &br#"{"status":"ready"}"#[..])),
            Open::Health => {
                let answer = self.perses.ask_open(route).await?;
                own::health(&answer)
            }
            Open::Ui(_) => {
                let (status, headers, stream) = self.perses.open_file(route, accept_encoding).await?;
                Ok(Reply::file(status, &headers, stream))
            }
        }
    }

    /// Answers what was granted.
    ///
    /// # Errors
    /// As the contract says for each case.
    pub async fn answer(&self, grant: Grant, brought: Brought<'_>) -> Result<Reply, Refusal> {
        match grant.route().clone() {
            Guarded::UserWhoami => own::user_whoami(&grant),
            Guarded::Permissions(_) => self.permissions(&grant).await,
            Guarded::Workloads(call) => self.workloads(&grant, &call),
            Guarded::Project(call) => self.project(grant, &call, &brought).await,
            Guarded::Scoped(kind, call) => self.scoped(grant, kind, &call, &brought).await,
            Guarded::Global(kind, call) => self.global(&grant, kind, &call, &brought).await,
            Guarded::View => self.view(grant, &brought).await,
            Guarded::Migrate => self.migrate(&grant, &brought).await,
            Guarded::Validate(kind) => self.validate(grant, kind, &brought).await,
            Guarded::Plugins => {
                let answer = self.perses.ask(grant.request(Bytes::new())?).await?;
                pass(answer)
            }
            Guarded::PluginFile(_) | Guarded::OwnMetrics => {
                let (status, headers, stream) =
                    self.perses.file(grant.request(Bytes::new())?, brought.accept_encoding).await?;
                Ok(Reply::file(status, &headers, stream))
            }
            Guarded::Whoami | Guarded::Gallery(_) | Guarded::Metrics(..) | Guarded::Never(_) => {
                Err(Refusal::internal("not a route of the catalog"))
            }
        }
    }

    /// Counts a look at a dashboard. Names are written as Perses looks them up, so that nobody can make new labels.
    async fn view(&self, grant: Grant, brought: &Brought<'_>) -> Result<Reply, Refusal> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct View {
            project: String,
            dashboard: String,
            #[serde(default)]
            render_time: f64,
            #[serde(default)]
            render_errors: u32,
        }
        let value = read_body(&brought.body)?;
        let view: View = serde_json::from_value(value).map_err(|error| bad_body(&error))?;
        let (Some(project), Some(dashboard)) = (Project::parse(&view.project), ObjectName::parse(&view.dashboard))
        else {
            return Err(bad_body(&"project and dashboard must be names"));
        };
        if !(view.render_time.is_finite() && (0.0..1e6).contains(&view.render_time)) || view.render_errors > 10_000 {
            return Err(bad_body(&"render_time and render_errors must be small and not negative"));
        }
        let body = serde_json::json!({
            "project": project.as_str(),
            "dashboard": dashboard.as_str(),
            "render_time": view.render_time,
            "render_errors": view.render_errors,
        });
        let grant = grant.settle(&self.access, project.clone()).await?;
        let outcome = self.perses.ask(grant.request(to_bytes(&body)?)?).await;
        // Perses counts looks at what it has stored.
        let passes = outcome.as_ref().is_ok_and(|answer| answer.status.is_success());
        if !passes && self.rendered_in(&project, &dashboard).is_some() {
            return Ok(Reply::empty(StatusCode::OK));
        }
        pass(outcome?)
    }

    async fn migrate(&self, grant: &Grant, brought: &Brought<'_>) -> Result<Reply, Refusal> {
        let _permit = self.heavy()?;
        let body = to_bytes(&read_body(&brought.body)?)?;
        pass(self.perses.ask(grant.request(body)?).await?)
    }

    async fn validate(&self, grant: Grant, kind: Validate, brought: &Brought<'_>) -> Result<Reply, Refusal> {
        let _permit = self.heavy()?;
        let kind = match kind {
            Validate::Dashboards => Kind::Dashboard,
            Validate::Datasources => Kind::Datasource,
            Validate::GlobalDatasources => Kind::GlobalDatasource,
            Validate::Variables => Kind::Variable,
            Validate::GlobalVariables => Kind::GlobalVariable,
        };
        let object = Object::read(&brought.body, kind).map_err(|error| refuse_document(&error))?;
        object.check_write(&|url| (brought.knows)(url)).map_err(|error| refuse_document(&error))?;
        let grant = match object.project() {
            Some(project) if !project.is_empty() => {
                let project = Project::parse(project).ok_or_else(|| bad_body(&"metadata.project is no name"))?;
                grant.settle(&self.access, project).await?
            }
            _ => grant.settle_anywhere(&self.access).await?,
        };
        pass(self.perses.ask(grant.request(object.into_bytes().into())?).await?)
    }

    fn heavy(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Refusal> {
        self.migrations.try_acquire().map_err(|_| {
            Refusal::new(Reason::Overload, "too many of these at once (limits.migrations); try again soon")
                .retry_after(std::time::Duration::from_secs(1))
        })
    }
}

/// A whole answer of Perses, passed on: a success with its body, a refusal with its message.
fn pass(answer: PersesAnswer) -> Result<Reply, Refusal> {
    if answer.status == StatusCode::NO_CONTENT || (answer.status.is_success() && answer.body.is_empty()) {
        return Ok(Reply::empty(answer.status));
    }
    if answer.status.is_success() {
        return Ok(Reply::json(answer.status, answer.body));
    }
    Err(words_of(&answer))
}

/// As [`pass`], for one stored object: without what no reader may be sent.
fn pass_document(answer: PersesAnswer) -> Result<Reply, Refusal> {
    if answer.status.is_success() && document::may_need_strip(&answer.body) {
        let mut value: Value = serde_json::from_slice(&answer.body).map_err(nonsense)?;
        if document::strip(&mut value) {
            return Ok(Reply::json(answer.status, to_bytes(&value)?));
        }
    }
    pass(answer)
}

/// Perses' own words for a client's mistake.
fn words_of(answer: &PersesAnswer) -> Refusal {
    #[derive(Deserialize)]
    struct Body {
        message: String,
    }
    let message = serde_json::from_slice::<Body>(&answer.body).map(|body| body.message).unwrap_or_default();
    let message: String = message.chars().filter(|c| !c.is_control()).take(2000).collect();
    let reason = match answer.status {
        StatusCode::NOT_FOUND => Reason::NotFound,
        StatusCode::CONFLICT => Reason::Conflict,
        _ => Reason::UpstreamRefused,
    };
    // Perses runs without authentication: a 401 or 403 of it would speak of nobody.
    let status = match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StatusCode::BAD_GATEWAY,
        status => status,
    };
    let message = if message.is_empty() { "Perses refused this".to_owned() } else { message };
    Refusal::new(reason, message).with_status(status)
}

fn refuse_document(error: &DocumentError) -> Refusal {
    let reason = match error {
        DocumentError::Malformed(_) | DocumentError::Mismatch { .. } => Reason::MalformedBody,
        DocumentError::Unsupported { .. } => Reason::NeverAllowed,
        DocumentError::DatasourceKind { .. } | DocumentError::BackendUrl => Reason::Datasource,
    };
    Refusal::new(reason, error.to_string())
}

fn read_body(body: &[u8]) -> Result<Value, Refusal> {
    document::read_strict(body).map_err(|error| bad_body(&error))
}

fn bad_body(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(Reason::MalformedBody, format!("bad request: {error}"))
}

fn nonsense(cause: impl ToString) -> Refusal {
    Refusal::new(Reason::UpstreamNonsense, "Perses answered something that cannot be passed on").because(cause)
}

fn to_bytes(value: &Value) -> Result<Bytes, Refusal> {
    serde_json::to_vec(value).map(Bytes::from).map_err(Refusal::internal)
}

/// Writes a JSON array of pieces that are JSON already.
fn write_array<'a>(pieces: impl Iterator<Item = &'a str>) -> Bytes {
    let mut out = String::from("[");
    for piece in pieces {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(piece);
    }
    out.push(']');
    Bytes::from(out)
}
