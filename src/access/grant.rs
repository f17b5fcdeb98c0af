//! The proof that somebody may do something, and what it turns into.

mod selectors;

use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;

use super::confined::{Confinements, Recalled};
use super::{Access, NamespaceSet, Resource, Verb};
use crate::config::Backend;
use crate::identity::Caller;
use crate::promql::{self, Confined, Reach};
use crate::refusal::Refusal;
use crate::route::{
    GalleryCall, Guarded, ListQuery, PersesRequest, Project, ProjectCall, Scoped, ScopedCall, Source, Validate,
    WorkloadsCall,
};

/// What a grant reaches.
#[derive(Clone, Debug)]
pub enum Scope {
    /// The caller's own affairs.
    Own,
    /// One project, named by the route.
    Project,
    /// The namespaces of a list.
    Listed(Arc<NamespaceSet>),
    /// The whole cluster.
    Cluster,
    /// Global objects without what only administrators may see.
    Blanked,
    /// An empty list.
    Nothing,
    /// The project stands in the body, which has not been read.
    Unsettled,
    /// Series.
    Metrics(MetricsScope),
}

/// Which series a grant reaches. Only `access` makes one.
#[derive(Clone, Debug)]
pub struct MetricsScope {
    reach: Reach,
    confinements: Arc<Confinements>,
}

impl MetricsScope {
    pub(super) fn new(reach: Reach, confinements: Arc<Confinements>) -> Self {
        Self { reach, confinements }
    }
}

/// A caller, a route, and how far it reaches. Only [`Access::admit`] makes one.
pub struct Grant {
    caller: Arc<Caller>,
    route: Guarded,
    scope: Scope,
}

/// Something that a grant has covered.
#[derive(Clone, Debug)]
pub struct Granted<T>(T);

impl<T> Granted<T> {
    /// The thing itself, to be used at once.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// The thing itself.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// A request to Perses with its body.
#[derive(Clone, Debug)]
pub struct PersesCall {
    /// Method and path.
    pub request: PersesRequest,
    /// Written by us; empty for none.
    pub body: Bytes,
}

impl Grant {
    pub(super) fn new(caller: Arc<Caller>, route: Guarded, scope: Scope) -> Self {
        Self { caller, route, scope }
    }

    /// Who.
    #[must_use]
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// What was asked.
    #[must_use]
    pub fn route(&self) -> &Guarded {
        &self.route
    }

    /// How far it reaches.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Names the project that the body holds and has the right reviewed there.
    ///
    /// # Errors
    /// As [`Access::admit`].
    pub async fn settle(self, access: &Arc<Access>, project: Project) -> Result<Self, Refusal> {
        let (verb, resource, route) = match &self.route {
            Guarded::Scoped(kind, ScopedCall::CreateAnywhere) => {
                (Verb::Create, Resource::of(*kind), Guarded::Scoped(*kind, ScopedCall::Create(project.clone())))
            }
            Guarded::Gallery(GalleryCall::Make) => (
                Verb::Create,
                Resource::Dashboards,
                Guarded::Scoped(Scoped::Dashboards, ScopedCall::Create(project.clone())),
            ),
            Guarded::Project(ProjectCall::Create) => (Verb::Create, Resource::Dashboards, self.route.clone()),
            Guarded::View | Guarded::Validate(Validate::Dashboards) => {
                (Verb::Get, Resource::Dashboards, self.route.clone())
            }
            Guarded::Validate(_) => (Verb::Get, Resource::Datasources, self.route.clone()),
            _ => return Err(Refusal::internal("a route without a project in its body was settled")),
        };
        let scope = access.admit_body(&self, &project, verb, resource).await?;
        Ok(Self { route, scope, ..self })
    }

    /// Whoever changes or deletes a dashboard that was never stored makes it stored: that takes the right to create besides.
    /// This is the grant to do so, in the project of the route.
    ///
    /// # Errors
    /// As [`Access::admit`].
    pub async fn storing(&self, access: &Arc<Access>) -> Result<Self, Refusal> {
        let Guarded::Scoped(kind @ Scoped::Dashboards, ScopedCall::Update(project, _) | ScopedCall::Delete(project, _)) =
            &self.route
        else {
            return Err(Refusal::internal("nothing of this route is stored"));
        };
        let scope = access.admit_body(self, project, Verb::Create, Resource::of(*kind)).await?;
        let route = Guarded::Scoped(*kind, ScopedCall::Create(project.clone()));
        Ok(Self { caller: Arc::clone(&self.caller), route, scope })
    }

    /// Settles a body that names no project: the caller must have a namespace at all.
    ///
    /// # Errors
    /// 403 for somebody without one.
    pub async fn settle_anywhere(self, access: &Arc<Access>) -> Result<Self, Refusal> {
        let scope = access.somewhere(&self.caller, super::Listing::Projects).await?;
        Ok(Self { scope, ..self })
    }

    /// The request to Perses that the route stands for.
    ///
    /// # Errors
    /// 500 when the route asks nothing of Perses or is not settled.
    pub fn request(&self, body: Bytes) -> Result<Granted<PersesCall>, Refusal> {
        if matches!(self.scope, Scope::Unsettled | Scope::Nothing) {
            return Err(Refusal::internal("an unsettled request was sent"));
        }
        let request =
            PersesRequest::guarded(&self.route).ok_or_else(|| Refusal::internal("the route asks nothing of Perses"))?;
        Ok(Granted(PersesCall { request, body }))
    }

    /// The project of the route, read or created on the caller's behalf: part of every grant in that project.
    #[must_use]
    pub fn own_project(&self, method: http::Method, body: Bytes) -> Option<Granted<PersesCall>> {
        let project = self.project()?;
        let request = if method == http::Method::POST {
            PersesRequest::projects(method)
        } else {
            PersesRequest::project(method, project)
        };
        Some(Granted(PersesCall { request, body }))
    }

    /// The names of all stored dashboards, for a gallery. What of them may be told, the namespaces of the grant say.
    #[must_use]
    pub fn stored_names(&self) -> Option<Granted<PersesCall>> {
        let (Guarded::Gallery(GalleryCall::Show(_)), Scope::Listed(_)) = (&self.route, &self.scope) else {
            return None;
        };
        let query = ListQuery { metadata_only: Some(true), ..ListQuery::default() };
        let list = Guarded::Scoped(Scoped::Dashboards, ScopedCall::ListAll(query));
        let request = PersesRequest::guarded(&list)?;
        Some(Granted(PersesCall { request, body: Bytes::new() }))
    }

    /// What is stored under the name that the route writes to.
    #[must_use]
    pub fn stored(&self) -> Option<Granted<PersesCall>> {
        let request = match &self.route {
            Guarded::Scoped(kind, ScopedCall::Update(project, name)) => {
                PersesRequest::object(http::Method::GET, *kind, project, name)
            }
            _ => {
                let mut request = PersesRequest::guarded(&self.route)?;
                request.method = http::Method::GET;
                request
            }
        };
        matches!(self.scope, Scope::Project | Scope::Cluster)
            .then(|| Granted(PersesCall { request, body: Bytes::new() }))
    }

    /// The document that describes the datasource of a metrics route.
    #[must_use]
    pub fn source(&self) -> Option<Granted<PersesCall>> {
        let (Guarded::Metrics(source, _), Scope::Metrics(_)) = (&self.route, &self.scope) else { return None };
        let request = match source {
            Source::Global(name) => {
                PersesRequest { method: http::Method::GET, path: format!("/api/v1/globaldatasources/{name}") }
            }
            Source::Project(project, name) => {
                PersesRequest::object(http::Method::GET, Scoped::Datasources, project, name)
            }
            Source::Dashboard(project, dashboard, _) => {
                PersesRequest::object(http::Method::GET, Scoped::Dashboards, project, dashboard)
            }
        };
        Some(Granted(PersesCall { request, body: Bytes::new() }))
    }

    /// A query, confined to what the grant reaches.
    ///
    /// # Errors
    /// 400 for text that is no PromQL or may not be asked, 422 beyond a limit.
    pub fn query(
        &self,
        text: &str,
        backend: &Arc<Backend>,
        limits: &promql::Limits,
    ) -> Result<Granted<Confined>, QueryError> {
        let MetricsScope { reach, confinements } = self.metrics()?;
        confinements.confine(text, reach, backend, limits).map(Granted).map_err(QueryError::Promql)
    }

    /// A query printed anew and not confined, for questions about its text alone.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub fn reprint(
        &self,
        text: &str,
        backend: &Backend,
        limits: &promql::Limits,
    ) -> Result<Granted<Reprinted>, QueryError> {
        self.reach()?;
        promql::confine(text, &Reach::Everything, &backend.labels, limits, backend.features)
            .map(|text| Granted(Reprinted(text)))
            .map_err(QueryError::Promql)
    }

    /// What somebody who reaches the same has remembered of the same words; `hint` leads to it, as for [`Self::remember`].
    pub fn recall<K, V: Clone>(
        &self,
        all: &Recalled<K, V>,
        hint: &impl Hash,
        is_it: impl FnOnce(&K) -> bool,
    ) -> Option<V> {
        all.get(self.reach().ok()?, hint, is_it)
    }

    /// Remembers what followed from words and from what this grant reaches.
    pub fn remember<K, V: Clone>(&self, all: &Recalled<K, V>, hint: &impl Hash, words: K, followed: V) {
        if let Ok(reach) = self.reach() {
            all.put(reach, hint, words, followed);
        }
    }

    fn reach(&self) -> Result<&Reach, QueryError> {
        self.metrics().map(|metrics| &metrics.reach)
    }

    fn metrics(&self) -> Result<&MetricsScope, QueryError> {
        match &self.scope {
            Scope::Metrics(metrics) => Ok(metrics),
            _ => Err(QueryError::Other(Refusal::internal("a query without a grant for metrics"))),
        }
    }

    /// Whether no list of namespaces confines what is asked.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        !matches!(self.reach(), Ok(Reach::Namespaces(_)))
    }

    /// A number that callers who reach the same share: they take turns with others at a backend.
    #[must_use]
    pub fn room(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        match self.reach() {
            Ok(Reach::Namespaces(names)) => names.hash(&mut hasher),
            Ok(Reach::Everything | Reach::AnyNamespace) | Err(_) => {}
        }
        hasher.finish()
    }

    /// The project of the route, if it names one.
    #[must_use]
    pub fn project(&self) -> Option<&Project> {
        match &self.route {
            Guarded::Project(
                ProjectCall::Read(project) | ProjectCall::Update(project) | ProjectCall::Delete(project),
            ) => Some(project),
            Guarded::Scoped(_, call) => match call {
                ScopedCall::List(project, _)
                | ScopedCall::Create(project)
                | ScopedCall::Read(project, _)
                | ScopedCall::Update(project, _)
                | ScopedCall::Delete(project, _) => Some(project),
                ScopedCall::ListAll(_) | ScopedCall::CreateAnywhere => None,
            },
            Guarded::Metrics(Source::Project(project, _) | Source::Dashboard(project, ..), _) => Some(project),
            Guarded::Workloads(
                WorkloadsCall::List { project: Some(project), .. } | WorkloadsCall::Read { project, .. },
            )
            | Guarded::Gallery(GalleryCall::Restore(project, _)) => Some(project),
            _ => None,
        }
    }
}

/// A query's text, not confined: no endpoint that reads series takes it.
#[derive(Debug)]
pub struct Reprinted(Confined);

impl Reprinted {
    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.text()
    }
}

/// Why a query has no [`Granted`] form.
#[derive(Debug)]
pub enum QueryError {
    /// The text.
    Promql(promql::Error),
    /// Something else.
    Other(Refusal),
}
