//! What is being asked? Method, path and parameters become a [`Route`], or are refused.
//!
//! This is the whole surface of Perses 0.53 and 0.54 as a closed table. What the table does not name does not exist.
//! Once a [`Route`] stands, nobody looks at the received path again: what leaves for Perses is written from the parsed
//! parts by [`PersesRequest`]. Pure: no clock, no socket, no rights; `access` says who may use a route.

mod form;
mod metrics;
mod path;
mod table;
mod target;

pub use form::{Form, FormError, push_pair};
pub use metrics::{MetricsCall, Source};
pub use target::Target;

use http::Method;

use crate::names::{Namespace, ObjectName, Secret};
use crate::refusal::Refusal;

/// A request that the table knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Needs no credential.
    Open(Open),
    /// Needs one.
    Guarded(Guarded),
    /// Makes or ends a session, and so looks at credentials itself.
    Door(Door),
}

/// Our own pages that begin, finish or end a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// `GET /-/login?to=…`
    Login(Target),
    /// `GET /-/callback`: the server at which people log in sends them back.
    Callback(Callback),
    /// `GET /-/logout`: asks whether to.
    LogoutPage,
    /// `POST /-/logout`
    Logout,
}

/// What the server at which people log in says when it sends them back (RFC 6749, 4.1.2; RFC 9207).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callback {
    /// `code`
    pub code: Option<Secret>,
    /// `state`
    pub state: Option<Secret>,
    /// `error`: a word such as `access_denied`.
    pub error: Option<String>,
    /// `iss`
    pub issuer: Option<String>,
}

/// What anybody may ask, GET and HEAD only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Open {
    /// `/-/ready`
    Ready,
    /// `/api/config`, minimised.
    Config,
    /// `/api/v1/health`, answered by us.
    Health,
    /// A file or page of the stock UI; the path is written anew from checked segments.
    Ui(StaticPath),
}

/// What needs a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// `/-/whoami`
    Whoami,
    /// `/-/api/v1/workloads…`
    Workloads(WorkloadsCall),
    /// `/-/gallery`
    Gallery(GalleryCall),
    /// `/api/v1/user/whoami`
    UserWhoami,
    /// `/api/v1/users/:name/permissions`; the name as asked, decoded.
    Permissions(String),
    /// `/api/v1/projects…`
    Project(ProjectCall),
    /// `/api/v1/<kind>…` and `/api/v1/projects/:project/<kind>…`
    Scoped(Scoped, ScopedCall),
    /// `/api/v1/<global kind>…`
    Global(Global, GlobalCall),
    /// `POST /api/v1/view`
    View,
    /// `POST /api/migrate`
    Migrate,
    /// `POST /api/validate/<kind>`
    Validate(Validate),
    /// `GET /api/v1/plugins`
    Plugins,
    /// `GET /plugins/*`
    PluginFile(StaticPath),
    /// `/proxy/…`: a question to a metrics backend.
    Metrics(Source, MetricsCall),
    /// `GET /metrics`: what Perses says of itself.
    OwnMetrics,
    /// Something of Perses that nobody may do through us; the word says what.
    Never(Never),
}

/// What to tell of workloads. Kinds and names are those of the cluster, not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadsCall {
    /// All that the caller may see.
    List {
        /// `namespace`: of one project only.
        project: Option<Project>,
        /// `kind`: of one kind only.
        kind: Option<String>,
    },
    /// One.
    Read {
        /// Its project.
        project: Project,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
}

/// What to do in the gallery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GalleryCall {
    /// Look around.
    Show(Wanted),
    /// A new dashboard; what it shall be stands in the form.
    Make,
    /// `POST /-/gallery/restore/:project/:name`: the dashboard of a workload that is hidden in a project shows again.
    Restore(Project, ObjectName),
}

/// What a page of the gallery begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `project`: this one only.
    pub project: Option<Project>,
    /// `template`: the one to be used.
    pub template: Option<String>,
    /// `workload`: its name, or kind and name.
    pub workload: Option<String>,
}

/// Parts of Perses that are closed for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {
    /// Perses' own user database.
    Users,
    /// Perses' own login.
    Login,
    /// Datasources that are not stored.
    Unsaved,
    /// Loading plugins.
    PluginDevelopment,
    /// Perses' own roles; the API server's decide.
    Roles,
    /// A part of a backend's API that cannot be confined, or not yet.
    Backend,
}

/// Kinds that live in a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the words are Perses' own")]
pub enum Scoped {
    Dashboards,
    Datasources,
    EphemeralDashboards,
    Folders,
    Secrets,
    Variables,
}

impl Scoped {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Dashboards, Self::Datasources, Self::EphemeralDashboards, Self::Folders, Self::Secrets, Self::Variables];

    /// The path segment.
    #[must_use]
    pub const fn segment(self) -> &'static str {
        match self {
            Self::Dashboards => "dashboards",
            Self::Datasources => "datasources",
            Self::EphemeralDashboards => "ephemeraldashboards",
            Self::Folders => "folders",
            Self::Secrets => "secrets",
            Self::Variables => "variables",
        }
    }
}

/// Kinds that live in no project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the words are Perses' own")]
pub enum Global {
    Datasources,
    Secrets,
    Variables,
}

impl Global {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Datasources, Self::Secrets, Self::Variables];

    /// The path segment.
    #[must_use]
    pub const fn segment(self) -> &'static str {
        match self {
            Self::Datasources => "globaldatasources",
            Self::Secrets => "globalsecrets",
            Self::Variables => "globalvariables",
        }
    }
}

/// Kinds that Perses can validate without storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are Perses' own")]
pub enum Validate {
    Dashboards,
    Datasources,
    GlobalDatasources,
    Variables,
    GlobalVariables,
}

/// What to do with projects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProjectCall {
    /// All that the caller may see.
    List(ListQuery),
    /// One more; its name stands in the body.
    Create,
    /// One.
    Read(Project),
    /// Change one.
    Update(Project),
    /// Remove one and everything in it.
    Delete(Project),
}

/// What to do with a kind in projects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopedCall {
    /// Of all projects that the caller may see.
    ListAll(ListQuery),
    /// Of one project.
    List(Project, ListQuery),
    /// One more; the project stands in the body.
    CreateAnywhere,
    /// One more in a project.
    Create(Project),
    /// One.
    Read(Project, ObjectName),
    /// Change one.
    Update(Project, ObjectName),
    /// Remove one.
    Delete(Project, ObjectName),
}

/// What to do with a global kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GlobalCall {
    /// All.
    List(ListQuery),
    /// One more; its name stands in the body.
    Create,
    /// One.
    Read(ObjectName),
    /// Change one.
    Update(ObjectName),
    /// Remove one.
    Delete(ObjectName),
}

/// A project as named in a path: a namespace name, or the stored name of a project that is none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Project(ObjectName);

impl Project {
    /// Reads a project, folding case as Perses does.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        ObjectName::parse(text).map(Self)
    }

    /// The namespace of the same name, if the name can be one.
    #[must_use]
    pub fn namespace(&self) -> Option<Namespace> {
        Namespace::parse(self.0.as_str())
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &ObjectName {
        &self.0
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl From<&Namespace> for Project {
    fn from(namespace: &Namespace) -> Self {
        // A DNS-1123 label is always an object name.
        Self(ObjectName::from_namespace(namespace))
    }
}

/// The parameters of a list, from Perses' own allow-list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// `name`: a prefix, in the grammar of names.
    pub name: Option<ObjectName>,
    /// `metadata_only`
    pub metadata_only: Option<bool>,
    /// `kind`: a plugin kind; datasources only.
    pub kind: Option<String>,
    /// `default`; datasources only.
    pub default: Option<bool>,
}

/// A checked path below a static folder: segments of letters, digits and `._~@-`, none of them all dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPath(String);

impl StaticPath {
    /// The path, beginning with `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads a request head into a route.
///
/// `target` is the path and query as received (`/a/b?c=d`), `prefix` is `perses.api_prefix`.
///
/// # Errors
/// 400 for what no client of ours sends, 404 for what the table does not name, 405 with `Allow` for another method.
pub fn read(method: &Method, target: &str, prefix: &str) -> Result<Route, Refusal> {
    let (path, query) = target.split_once('?').map_or((target, ""), |(path, query)| (path, query));
    table::find(method, path, query, prefix)
}

/// The words of all routes, for metrics; [`Route::word`] gives one of them.
pub const WORDS: &[&str] = &[
    "ready",
    "config",
    "health",
    "ui",
    "login",
    "callback",
    "logout",
    "whoami",
    "workloads",
    "gallery",
    "user_whoami",
    "permissions",
    "project",
    "dashboards",
    "datasources",
    "ephemeraldashboards",
    "folders",
    "secrets",
    "variables",
    "globaldatasources",
    "globalsecrets",
    "globalvariables",
    "view",
    "migrate",
    "validate",
    "plugins",
    "plugin_file",
    "query",
    "query_range",
    "query_exemplars",
    "labels",
    "label_values",
    "series",
    "metadata",
    "rules",
    "alerts",
    "parse_query",
    "format_query",
    "buildinfo",
    "flags",
    "healthy",
    "own_metrics",
    "never",
    "unknown",
];

impl Route {
    /// The route's word for metrics, audit and logs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Open(Open::Ready) => "ready",
            Self::Open(Open::Config) => "config",
            Self::Open(Open::Health) => "health",
            Self::Open(Open::Ui(_)) => "ui",
            Self::Guarded(guarded) => guarded.word(),
            Self::Door(Door::Login(_)) => "login",
            Self::Door(Door::Callback(_)) => "callback",
            Self::Door(Door::LogoutPage | Door::Logout) => "logout",
        }
    }
}

impl Guarded {
    /// The route's word for metrics, audit and logs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Whoami => "whoami",
            Self::Workloads(_) => "workloads",
            Self::Gallery(_) => "gallery",
            Self::UserWhoami => "user_whoami",
            Self::Permissions(_) => "permissions",
            Self::Project(_) => "project",
            Self::Scoped(kind, _) => kind.segment(),
            Self::Global(kind, _) => kind.segment(),
            Self::View => "view",
            Self::Migrate => "migrate",
            Self::Validate(_) => "validate",
            Self::Plugins => "plugins",
            Self::PluginFile(_) => "plugin_file",
            Self::Metrics(_, call) => call.word(),
            Self::OwnMetrics => "own_metrics",
            Self::Never(_) => "never",
        }
    }

    /// Whether a body belongs to the request.
    #[must_use]
    pub fn takes_body(&self) -> bool {
        match self {
            Self::Project(call) => matches!(call, ProjectCall::Create | ProjectCall::Update(_)),
            Self::Scoped(_, call) => {
                matches!(call, ScopedCall::CreateAnywhere | ScopedCall::Create(_) | ScopedCall::Update(..))
            }
            Self::Global(_, call) => matches!(call, GlobalCall::Create | GlobalCall::Update(_)),
            Self::View | Self::Migrate | Self::Validate(_) => true,
            Self::Gallery(call) => matches!(call, GalleryCall::Make),
            Self::Whoami
            | Self::Workloads(_)
            | Self::UserWhoami
            | Self::Permissions(_)
            | Self::Plugins
            | Self::PluginFile(_)
            | Self::Metrics(..)
            | Self::OwnMetrics
            | Self::Never(_) => false,
        }
    }
}

/// A request to Perses, written from parsed parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersesRequest {
    /// The method.
    pub method: Method,
    /// Path and query below `perses.api_prefix`.
    pub path: String,
}

impl PersesRequest {
    fn new(method: Method, path: String) -> Self {
        Self { method, path }
    }

    /// A list of a scoped kind in one project.
    #[must_use]
    pub fn list(kind: Scoped, project: &Project, query: &ListQuery) -> Self {
        Self::new(Method::GET, format!("/api/v1/projects/{}/{}{}", project.as_str(), kind.segment(), query.write()))
    }

    /// One object of a scoped kind.
    #[must_use]
    pub fn object(method: Method, kind: Scoped, project: &Project, name: &ObjectName) -> Self {
        Self::new(method, ["/api/v1/projects/", project.as_str(), "/", kind.segment(), "/", name.as_str()].concat())
    }

    /// One project.
    #[must_use]
    pub fn project(method: Method, project: &Project) -> Self {
        Self::new(method, format!("/api/v1/projects/{}", project.as_str()))
    }

    /// The projects themselves.
    #[must_use]
    pub fn projects(method: Method) -> Self {
        Self::new(method, "/api/v1/projects".to_owned())
    }

    /// What an open route asks of Perses, if anything.
    #[must_use]
    pub fn open(route: &Open) -> Option<Self> {
        match route {
            Open::Ready => None,
            Open::Config => Some(Self::new(Method::GET, "/api/config".to_owned())),
            Open::Health => Some(Self::new(Method::GET, "/api/v1/health".to_owned())),
            Open::Ui(path) => Some(Self::new(Method::GET, path.as_str().to_owned())),
        }
    }

    /// What a guarded route asks of Perses, if it can be said from the route alone.
    #[must_use]
    pub fn guarded(route: &Guarded) -> Option<Self> {
        Some(match route {
            Guarded::Whoami | Guarded::UserWhoami | Guarded::Permissions(_) => return None,
            Guarded::Workloads(_) | Guarded::Gallery(GalleryCall::Show(_) | GalleryCall::Make) => return None,
            // What hides it goes.
            Guarded::Gallery(GalleryCall::Restore(project, name)) => {
                Self::object(Method::DELETE, Scoped::Dashboards, project, name)
            }
            Guarded::Metrics(..) | Guarded::Never(_) => return None,
            Guarded::Project(call) => match call {
                ProjectCall::List(query) => Self::new(Method::GET, format!("/api/v1/projects{}", query.write())),
                ProjectCall::Create => Self::projects(Method::POST),
                ProjectCall::Read(project) => Self::project(Method::GET, project),
                ProjectCall::Update(project) => Self::project(Method::PUT, project),
                ProjectCall::Delete(project) => Self::project(Method::DELETE, project),
            },
            Guarded::Scoped(kind, call) => match call {
                ScopedCall::ListAll(query) => {
                    Self::new(Method::GET, format!("/api/v1/{}{}", kind.segment(), query.write()))
                }
                ScopedCall::List(project, query) => Self::list(*kind, project, query),
                ScopedCall::CreateAnywhere => return None,
                ScopedCall::Create(project) => {
                    Self::new(Method::POST, format!("/api/v1/projects/{}/{}", project.as_str(), kind.segment()))
                }
                ScopedCall::Read(project, name) => Self::object(Method::GET, *kind, project, name),
                ScopedCall::Update(project, name) => Self::object(Method::PUT, *kind, project, name),
                ScopedCall::Delete(project, name) => Self::object(Method::DELETE, *kind, project, name),
            },
            Guarded::Global(kind, call) => {
                let kind = kind.segment();
                match call {
                    GlobalCall::List(query) => Self::new(Method::GET, format!("/api/v1/{kind}{}", query.write())),
                    GlobalCall::Create => Self::new(Method::POST, format!("/api/v1/{kind}")),
                    GlobalCall::Read(name) => Self::new(Method::GET, format!("/api/v1/{kind}/{name}")),
                    GlobalCall::Update(name) => Self::new(Method::PUT, format!("/api/v1/{kind}/{name}")),
                    GlobalCall::Delete(name) => Self::new(Method::DELETE, format!("/api/v1/{kind}/{name}")),
                }
            }
            Guarded::View => Self::new(Method::POST, "/api/v1/view".to_owned()),
            Guarded::Migrate => Self::new(Method::POST, "/api/migrate".to_owned()),
            Guarded::Validate(kind) => {
                let kind = match kind {
                    Validate::Dashboards => "dashboards",
                    Validate::Datasources => "datasources",
                    Validate::GlobalDatasources => "globaldatasources",
                    Validate::Variables => "variables",
                    Validate::GlobalVariables => "globalvariables",
                };
                Self::new(Method::POST, format!("/api/validate/{kind}"))
            }
            Guarded::Plugins => Self::new(Method::GET, "/api/v1/plugins".to_owned()),
            Guarded::PluginFile(path) => Self::new(Method::GET, path.as_str().to_owned()),
            Guarded::OwnMetrics => Self::new(Method::GET, "/metrics".to_owned()),
        })
    }
}

impl ListQuery {
    /// The query string, with its `?`, or nothing. Every value is of a grammar that needs no escaping.
    fn write(&self) -> String {
        let mut out = String::new();
        let mut add = |key: &str, value: &str| {
            out.push(if out.is_empty() { '?' } else { '&' });
            out.push_str(key);
            out.push('=');
            out.push_str(value);
        };
        if let Some(name) = &self.name {
            add("name", name.as_str());
        }
        if let Some(only) = self.metadata_only {
            add("metadata_only", if only { "true" } else { "false" });
        }
        if let Some(kind) = &self.kind {
            add("kind", kind);
        }
        if let Some(default) = self.default {
            add("default", if default { "true" } else { "false" });
        }
        out
    }
}

#[cfg(test)]
mod tests;
