//! May they? A [`Caller`] and a [`Guarded`] route become a [`Grant`], or a refusal.
//!
//! A [`Grant`] is the proof: only [`Access::admit`] makes one, and only a grant turns a request or a query into a
//! [`Granted`] one, which is what the servers behind us take. The requirement of every route stands in one `match`
//! without a wildcard; a new route does not compile until somebody says who may use it.

mod confined;
mod grant;
mod rights;

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::future::Cache;

pub use grant::{Grant, Granted, MetricsScope, PersesCall, QueryError, Reprinted, Scope};
pub use rights::{Listing, Resource, Right, Verb};

use crate::cluster::{Attributes, Cluster, ClusterError};
use crate::config;
pub use crate::identity::Caller;
use crate::identity::{Digest, unavailable};
use crate::memo::Memo;
use crate::names::Namespace;
use crate::promql::Reach;
use crate::refusal::{Reason, Refusal};
use crate::route::{GalleryCall, GlobalCall, Guarded, Never, Project, ProjectCall, ScopedCall, Source, WorkloadsCall};
use crate::telemetry::metrics::{Metrics, ReviewKind};
use confined::Confinements;
pub use confined::Recalled;

/// Verdicts, and namespace sets, that are found at once.
const RECENT: usize = 1024;

/// The namespaces in which somebody holds a right.
#[derive(Clone, Debug)]
pub struct NamespaceSet {
    /// The right is held in the whole cluster.
    everywhere: bool,
    /// Sorted. With `everywhere`, all that there are.
    names: Arc<[Namespace]>,
    /// The same in the words of `promql`.
    reach: Reach,
}

impl NamespaceSet {
    fn new(everywhere: bool, all_metrics: bool, names: Vec<Namespace>) -> Self {
        let reach = if all_metrics {
            Reach::Everything
        } else if everywhere {
            Reach::AnyNamespace
        } else {
            Reach::Namespaces(names.iter().map(Namespace::shared).collect())
        };
        Self { everywhere, names: names.into(), reach }
    }

    /// Whether the right is held in the whole cluster.
    #[must_use]
    pub fn everywhere(&self) -> bool {
        self.everywhere
    }

    /// The namespaces, sorted; with [`Self::everywhere`] all that there are.
    #[must_use]
    pub fn names(&self) -> &[Namespace] {
        &self.names
    }

    /// Whether the right is held in a namespace, which must exist.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        self.names.binary_search_by(|name| name.as_str().cmp(namespace)).is_ok()
    }

    /// Whether it is held nowhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everywhere && self.names.is_empty()
    }

    /// What it lets a query read.
    #[must_use]
    pub fn reach(&self) -> &Reach {
        &self.reach
    }
}

/// Reviews rights and remembers the verdicts, each for as long as configured.
pub struct Access {
    cluster: Arc<Cluster>,
    settings: config::Access,
    most_namespaces: usize,
    verdicts: Cache<(Digest, Right), (bool, Instant)>,
    sets: Cache<(Digest, Listing), (Arc<NamespaceSet>, Instant)>,
    /// What of both was used last.
    recent_verdicts: Memo<(Digest, Right), bool>,
    recent_sets: Memo<(Digest, Listing), Arc<NamespaceSet>>,
    confinements: Arc<Confinements>,
    metrics: Arc<Metrics>,
}

/// Each verdict says itself until when it holds.
struct OwnEnd;

impl<K, V> moka::Expiry<K, (V, Instant)> for OwnEnd {
    fn expire_after_create(&self, _: &K, (_, until): &(V, Instant), now: Instant) -> Option<Duration> {
        Some(until.saturating_duration_since(now))
    }

    fn expire_after_update(
        &self,
        key: &K,
        value: &(V, Instant),
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, value, now)
    }
}

impl Access {
    /// Begins with an empty memory.
    #[must_use]
    pub fn new(
        cluster: Arc<Cluster>,
        settings: &config::Access,
        limits: &config::Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            cluster,
            settings: settings.clone(),
            most_namespaces: limits.namespaces,
            verdicts: Cache::builder().max_capacity(limits.cached_reviews).expire_after(OwnEnd).build(),
            sets: Cache::builder().max_capacity(limits.cached_reviews).expire_after(OwnEnd).build(),
            recent_verdicts: Memo::new(RECENT),
            recent_sets: Memo::new(RECENT),
            confinements: Arc::new(Confinements::new()),
            metrics,
        }
    }

    /// Decides about a route whose project, if it has one, stands in the path.
    ///
    /// # Errors
    /// 404 where the caller has no right at all, 403 where this one is missing, 503 when the cluster gives no verdict.
    pub async fn admit(self: &Arc<Self>, caller: &Arc<Caller>, route: Guarded) -> Result<Grant, Refusal> {
        let scope = self.scope_of(caller, &route).await?;
        Ok(Grant::new(Arc::clone(caller), route, scope))
    }

    /// The one match: what each route requires.
    async fn scope_of(self: &Arc<Self>, caller: &Arc<Caller>, route: &Guarded) -> Result<Scope, Refusal> {
        match route {
            Guarded::Whoami | Guarded::UserWhoami => Ok(Scope::Own),
            Guarded::Permissions(asked) => {
                if same_user(asked, &caller.identity().username) {
                    Ok(Scope::Own)
                } else {
                    Err(Refusal::new(Reason::Forbidden, "you may read your own permissions only"))
                }
            }
            // Who may read the dashboards of a namespace reads of its workloads there anyway.
            Guarded::Workloads(call) => match call {
                WorkloadsCall::List { project: None, .. } => {
                    Ok(Scope::Listed(self.namespaces(caller, Listing::Of(Resource::Dashboards)).await?))
                }
                WorkloadsCall::List { project: Some(project), .. } | WorkloadsCall::Read { project, .. } => {
                    self.in_project(caller, project, &[(Verb::Get, Resource::Dashboards)]).await
                }
            },
            Guarded::Gallery(call) => match call {
                GalleryCall::Show(_) => {
                    Ok(Scope::Listed(self.namespaces(caller, Listing::Of(Resource::Dashboards)).await?))
                }
                // The project stands in the form.
                GalleryCall::Make => Ok(Scope::Unsettled),
                GalleryCall::Restore(project, _) => {
                    self.in_project(caller, project, &[(Verb::Delete, Resource::Dashboards)]).await
                }
            },
            Guarded::Project(call) => match call {
                ProjectCall::List(_) => Ok(Scope::Listed(self.namespaces(caller, Listing::Projects).await?)),
                // The name stands in the body; `Grant::settle` asks again with it.
                ProjectCall::Create => Ok(Scope::Unsettled),
                ProjectCall::Read(project) => self.read_project(caller, project).await,
                ProjectCall::Update(project) => {
                    self.in_project(caller, project, &[(Verb::Patch, Resource::Dashboards)]).await
                }
                // Everything in it goes with it.
                ProjectCall::Delete(project) => {
                    let all = [Resource::Dashboards, Resource::Datasources, Resource::Secrets];
                    self.in_project(caller, project, &all.map(|resource| (Verb::Delete, resource))).await
                }
            },
            Guarded::Scoped(kind, call) => {
                let resource = Resource::of(*kind);
                match call {
                    ScopedCall::ListAll(_) => Ok(Scope::Listed(self.namespaces(caller, Listing::Of(resource)).await?)),
                    ScopedCall::List(project, _) | ScopedCall::Read(project, _) => {
                        self.in_project(caller, project, &[(Verb::Get, resource)]).await
                    }
                    ScopedCall::CreateAnywhere => Ok(Scope::Unsettled),
                    ScopedCall::Create(project) => self.in_project(caller, project, &[(Verb::Create, resource)]).await,
                    ScopedCall::Update(project, _) => {
                        self.in_project(caller, project, &[(Verb::Patch, resource)]).await
                    }
                    ScopedCall::Delete(project, _) => {
                        self.in_project(caller, project, &[(Verb::Delete, resource)]).await
                    }
                }
            }
            Guarded::Global(kind, call) => {
                let resource = Resource::of_global(*kind);
                match call {
                    GlobalCall::List(_) | GlobalCall::Read(_) => self.read_global(caller, resource).await,
                    GlobalCall::Create => self.in_cluster(caller, Verb::Create, resource).await,
                    GlobalCall::Update(_) => self.in_cluster(caller, Verb::Patch, resource).await,
                    GlobalCall::Delete(_) => self.in_cluster(caller, Verb::Delete, resource).await,
                }
            }
            // The project stands in the body.
            Guarded::View | Guarded::Validate(_) => Ok(Scope::Unsettled),
            Guarded::Migrate => self.somewhere(caller, Listing::Projects).await,
            Guarded::Plugins | Guarded::PluginFile(_) => Ok(Scope::Own),
            Guarded::Metrics(source, _) => self.metrics_of(caller, source).await,
            Guarded::OwnMetrics => {
                if self.holds(caller, Right::OwnMetrics).await? {
                    Ok(Scope::Cluster)
                } else {
                    Err(forbidden("get", "the nonResourceURL /metrics", None))
                }
            }
            Guarded::Never(never) => Err(refused(*never)),
        }
    }

    /// Decides about a project that was read from a body.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub async fn admit_body(
        self: &Arc<Self>,
        grant: &Grant,
        project: &Project,
        verb: Verb,
        resource: Resource,
    ) -> Result<Scope, Refusal> {
        self.in_project(grant.caller(), project, &[(verb, resource)]).await
    }

    /// Whether somebody holds a right, remembered.
    ///
    /// # Errors
    /// 503 when the cluster gives no verdict.
    pub async fn holds(self: &Arc<Self>, caller: &Arc<Caller>, right: Right) -> Result<bool, Refusal> {
        let key = (*caller.digest(), right);
        let ticket = self.recent_verdicts.ticket();
        if let Some(allowed) = self.recent_verdicts.get(&key, |known| *known == key) {
            self.metrics.review_cached(ReviewKind::Access);
            return Ok(allowed);
        }
        if let Some((allowed, until)) = self.verdicts.get(&key).await {
            self.metrics.review_cached(ReviewKind::Access);
            self.recent_verdicts.put(ticket, &key, key.clone(), allowed, until);
            return Ok(allowed);
        }
        let (verdicts, access, caller) = (self.verdicts.clone(), Arc::clone(self), Arc::clone(caller));
        let attributes = self.attributes(&key.1);
        let lookup = tokio::spawn(async move {
            let review = async move {
                let allowed = access.cluster.review_access(caller.identity(), &attributes).await?;
                Ok((allowed, access.end_of(allowed)))
            };
            verdicts.try_get_with(key, review).await
        });
        match lookup.await {
            Ok(Ok((allowed, _))) => Ok(allowed),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(error) => Err(unavailable(&ClusterError::Failed(error.to_string()))),
        }
    }

    /// The namespaces in which somebody holds a right: the one way to a namespace set in the whole product.
    ///
    /// # Errors
    /// 503 when the cluster gives no verdict, or more namespaces would have to be reviewed than `limits.namespaces`.
    pub async fn namespaces(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        listing: Listing,
    ) -> Result<Arc<NamespaceSet>, Refusal> {
        let key = (*caller.digest(), listing);
        let ticket = self.recent_sets.ticket();
        if let Some(set) = self.recent_sets.get(&key, |known| *known == key) {
            return Ok(set);
        }
        if let Some((set, until)) = self.sets.get(&key).await {
            self.recent_sets.put(ticket, &key, key, Arc::clone(&set), until);
            return Ok(set);
        }
        let (access, caller) = (Arc::clone(self), Arc::clone(caller));
        let lookup = tokio::spawn(async move {
            let sets = access.sets.clone();
            let collect = async move {
                let set = access.collect(&caller, listing).await?;
                Ok((Arc::new(set), Instant::now() + access.settings.namespaces_ttl))
            };
            sets.try_get_with(key, collect).await
        });
        match lookup.await {
            Ok(Ok((set, _))) => Ok(set),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(error) => Err(unavailable(&ClusterError::Failed(error.to_string()))),
        }
    }

    /// Asks for everything anew: a set that lives for a minute must not be made of verdicts that are a minute old.
    async fn collect(self: &Arc<Self>, caller: &Arc<Caller>, listing: Listing) -> Result<NamespaceSet, ClusterError> {
        let candidates = self.cluster.candidates(caller.token()).await?;
        if listing == Listing::Metrics && self.ask(caller, Right::AllMetrics).await? {
            return Ok(NamespaceSet::new(true, true, candidates));
        }
        for resource in listing.resources() {
            if self.ask(caller, Right::cluster(Verb::Get, *resource)).await? {
                return Ok(NamespaceSet::new(true, false, candidates));
            }
        }
        // Whoever may everywhere needs no review of each.
        if candidates.len() > self.most_namespaces {
            return Err(ClusterError::Failed(format!(
                "{} namespaces to be reviewed for one caller are more than limits.namespaces ({}); raise it",
                candidates.len(),
                self.most_namespaces
            )));
        }
        let mut reviews = tokio::task::JoinSet::new();
        for namespace in candidates {
            let (access, caller) = (Arc::clone(self), Arc::clone(caller));
            reviews.spawn(async move {
                for resource in listing.resources() {
                    if access.ask(&caller, Right::namespaced(Verb::Get, *resource, &namespace)).await? {
                        return Ok(Some(namespace));
                    }
                }
                Ok(None)
            });
        }
        let mut names = Vec::new();
        while let Some(review) = reviews.join_next().await {
            match review {
                Ok(Ok(Some(namespace))) => names.push(namespace),
                Ok(Ok(None)) => {}
                // One verdict that is missing makes the whole set unknown: too small a set would be a wrong answer.
                Ok(Err(error)) => return Err(error),
                Err(error) => return Err(ClusterError::Failed(error.to_string())),
            }
        }
        names.sort_unstable();
        Ok(NamespaceSet::new(false, false, names))
    }

    /// Asks the cluster, whatever is remembered, and remembers the verdict.
    async fn ask(&self, caller: &Arc<Caller>, right: Right) -> Result<bool, ClusterError> {
        let allowed = self.cluster.review_access(caller.identity(), &self.attributes(&right)).await?;
        self.verdicts.insert((*caller.digest(), right), (allowed, self.end_of(allowed))).await;
        Ok(allowed)
    }

    /// Until when a verdict of this moment holds.
    fn end_of(&self, allowed: bool) -> Instant {
        Instant::now() + if allowed { self.settings.allow_ttl } else { self.settings.deny_ttl }
    }

    fn attributes(&self, right: &Right) -> Attributes {
        match right {
            Right::OwnMetrics => Attributes::NonResource { path: "/metrics", verb: "get" },
            Right::AllMetrics => Attributes::Resource(self.settings.all_metrics.clone()),
            Right::Held { verb, resource, namespace } => {
                Attributes::Resource(resource.permission(*verb, namespace.as_ref()))
            }
        }
    }

    /// The namespace whose rights decide about a project: its own name, or as `access.projects` maps it.
    /// `None` for stored names that are neither; those need the cluster-wide right.
    #[must_use]
    pub fn namespace_of(&self, project: &Project) -> Option<Namespace> {
        self.settings.projects.get(project.name()).cloned().or_else(|| project.namespace())
    }

    async fn in_project(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        project: &Project,
        required: &[(Verb, Resource)],
    ) -> Result<Scope, Refusal> {
        let namespace = self.namespace_of(project);
        for (verb, resource) in required {
            let right = Right::Held { verb: *verb, resource: *resource, namespace: namespace.clone() };
            if self.holds(caller, right).await? {
                continue;
            }
            // Whether there is any right at all decides what the caller may learn.
            for any in [Resource::Dashboards, Resource::Datasources, Resource::Secrets, Resource::PodMetrics] {
                let right = Right::Held { verb: Verb::Get, resource: any, namespace: namespace.clone() };
                if self.holds(caller, right).await? {
                    return Err(forbidden(verb.word(), resource.words(), Some(project.as_str())));
                }
            }
            return Err(Refusal::hidden());
        }
        Ok(Scope::Project)
    }

    async fn read_project(self: &Arc<Self>, caller: &Arc<Caller>, project: &Project) -> Result<Scope, Refusal> {
        let namespace = self.namespace_of(project);
        for resource in Listing::Projects.resources() {
            let right = Right::Held { verb: Verb::Get, resource: *resource, namespace: namespace.clone() };
            if self.holds(caller, right).await? {
                return Ok(Scope::Project);
            }
        }
        let right = Right::Held { verb: Verb::Get, resource: Resource::PodMetrics, namespace };
        if self.holds(caller, right).await? {
            return Err(forbidden("get", Resource::Dashboards.words(), Some(project.as_str())));
        }
        Err(Refusal::hidden())
    }

    async fn in_cluster(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        verb: Verb,
        resource: Resource,
    ) -> Result<Scope, Refusal> {
        if self.holds(caller, Right::cluster(verb, resource)).await? {
            Ok(Scope::Cluster)
        } else {
            Err(forbidden(verb.word(), resource.words(), None))
        }
    }

    /// Global datasources and variables are for everybody with a namespace; what only administrators may see is blanked.
    async fn read_global(self: &Arc<Self>, caller: &Arc<Caller>, resource: Resource) -> Result<Scope, Refusal> {
        if self.holds(caller, Right::cluster(Verb::Get, resource)).await? {
            return Ok(Scope::Cluster);
        }
        if resource == Resource::Secrets || self.namespaces(caller, Listing::Projects).await?.is_empty() {
            return Ok(Scope::Nothing);
        }
        Ok(Scope::Blanked)
    }

    async fn somewhere(self: &Arc<Self>, caller: &Arc<Caller>, listing: Listing) -> Result<Scope, Refusal> {
        if self.namespaces(caller, listing).await?.is_empty() {
            return Err(Refusal::new(
                Reason::Forbidden,
                "you have no rights in any namespace; ask an administrator of your project for the role \"view\"",
            ));
        }
        Ok(Scope::Own)
    }

    async fn metrics_of(self: &Arc<Self>, caller: &Arc<Caller>, source: &Source) -> Result<Scope, Refusal> {
        let project = match source {
            Source::Global(_) => None,
            Source::Project(project, _) | Source::Dashboard(project, ..) => {
                self.in_project(caller, project, &[(Verb::Get, Resource::Datasources)]).await?;
                Some(project)
            }
        };
        let set = self.namespaces(caller, Listing::Metrics).await?;
        let none = || {
            Refusal::new(
                Reason::Forbidden,
                "you may not read the metrics of any namespace; ask an administrator of your project for the role \"view\"",
            )
        };
        if set.is_empty() {
            return Err(none());
        }
        let mut reach = set.reach().clone();
        if self.settings.narrow_to_project
            && let Some(project) = project
        {
            let namespace = self.namespace_of(project).filter(|name| set.contains(name.as_str())).ok_or_else(none)?;
            reach = Reach::Namespaces(Arc::from([namespace.shared()]));
        }
        Ok(Scope::Metrics(MetricsScope::new(reach, Arc::clone(&self.confinements))))
    }
}

/// Perses compares the name of the path folded to lower case.
fn same_user(asked: &str, user: &str) -> bool {
    asked == user || asked == user.to_lowercase()
}

fn forbidden(verb: &str, what: &str, project: Option<&str>) -> Refusal {
    let place = project.map_or_else(|| " in the cluster".to_owned(), |project| format!(" in namespace {project}"));
    Refusal::new(
        Reason::Forbidden,
        format!("you may not {verb} {what}{place}; ask an administrator of it for a role that includes this"),
    )
}

fn refused(never: Never) -> Refusal {
    let message = match never {
        Never::Users => "people come from OpenShift; Perses' own users cannot be managed here",
        Never::Login => "people log in through OpenShift; Perses' own login is not available",
        Never::Unsaved => "save the datasource first: queries through unsaved datasources are not available",
        Never::PluginDevelopment => "plugins cannot be loaded through this gateway",
        Never::Roles => {
            return Refusal::new(
                Reason::UnknownRoute,
                "rights come from OpenShift RBAC; Perses has no roles of its own here",
            );
        }
        Never::Backend => "this part of the metrics backend is not available through this gateway",
    };
    Refusal::new(Reason::NeverAllowed, message)
}
