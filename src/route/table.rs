//! The table: every path of Perses 0.53 and 0.54, and ours, with their methods.

use http::Method;

use super::form::{Form, FormError, read_bool};
use super::metrics::{self, Proxied};
use super::{
    Callback, Door, GalleryCall, Global, GlobalCall, Guarded, ListQuery, Never, Open, Project, ProjectCall, Route,
    Scoped, ScopedCall, StaticPath, Target, Validate, Wanted, WorkloadsCall, path,
};
use crate::names::{ObjectName, Secret};
use crate::refusal::{Reason, Refusal};

/// The longest path that the table knows has nine segments; the rest of a longer one cannot matter.
const MOST_SEGMENTS: usize = 16;

/// First segments behind which nothing of the stock UI's files lives.
const NOT_UI: [&str; 6] = ["api", "proxy", "plugins", "metrics", "debug", "-"];

pub(super) fn find(method: &Method, received: &str, query: &str, prefix: &str) -> Result<Route, Refusal> {
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(Refusal::method("GET, HEAD, POST, PUT, DELETE"));
    }
    let inner = path::check(received)?;
    let mut segments = segments(inner);
    // Perses serves its own metrics outside its prefix, and so do we.
    if inner != "metrics" {
        for expected in self::segments(prefix) {
            if segments.next() != Some(expected) {
                return Err(Refusal::unknown_route());
            }
        }
    }
    let mut list = [""; MOST_SEGMENTS];
    let mut count = 0;
    for segment in segments {
        let Some(slot) = list.get_mut(count) else { return Err(Refusal::unknown_route()) };
        *slot = segment;
        count += 1;
    }
    let segments = &list[..count];
    // The two places where a client must escape; everything else is refused if it does.
    if !matches!(segments, ["api", "v1", "users", _, "permissions"] | ["proxy", .., "label", _, "values"]) {
        path::no_escapes(inner)?;
    }
    match segments {
        ["api", "v1", rest @ ..] => api_v1(method, rest, query),
        ["api", rest @ ..] => api(method, rest),
        ["proxy", rest @ ..] => Ok(Route::Guarded(match metrics::find(method, rest)? {
            Proxied::Call(source, call) => Guarded::Metrics(source, call),
            Proxied::Never(never) => Guarded::Never(never),
        })),
        ["-", "ready"] => get_only(method, Route::Open(Open::Ready)),
        ["-", "login"] => get_only(method, Route::Door(Door::Login(login_target(query, prefix)))),
        // HEAD would use up a code and show nothing for it.
        ["-", "callback"] if *method == Method::GET => Ok(Route::Door(Door::Callback(callback(query)?))),
        ["-", "callback"] => Err(Refusal::method("GET")),
        ["-", "logout"] => match *method {
            Method::GET | Method::HEAD => Ok(Route::Door(Door::LogoutPage)),
            Method::POST => Ok(Route::Door(Door::Logout)),
            _ => Err(Refusal::method("GET, HEAD, POST")),
        },
        ["-", "whoami"] => get_only(method, Route::Guarded(Guarded::Whoami)),
        ["-", "api", "v1", "workloads"] => get_only(method, Route::Guarded(Guarded::Workloads(workloads(query)?))),
        ["-", "api", "v1", "workloads", namespace, kind, name] => {
            no_query(query)?;
            let call = WorkloadsCall::Read {
                project: project(namespace)?,
                kind: word_of_cluster(kind)?,
                name: word_of_cluster(name)?,
            };
            get_only(method, Route::Guarded(Guarded::Workloads(call)))
        }
        ["-", "gallery"] => match *method {
            Method::GET | Method::HEAD => Ok(Route::Guarded(Guarded::Gallery(GalleryCall::Show(wanted(query)?)))),
            Method::POST => {
                no_query(query)?;
                Ok(Route::Guarded(Guarded::Gallery(GalleryCall::Make)))
            }
            _ => Err(Refusal::method("GET, HEAD, POST")),
        },
        ["-", "gallery", "restore", project_name, name] => {
            no_query(query)?;
            let call = GalleryCall::Restore(project(project_name)?, object_name(name)?);
            post_only(method, Guarded::Gallery(call))
        }
        ["metrics"] => get_only(method, Route::Guarded(Guarded::OwnMetrics)),
        ["plugins", _, ..] => get_only(method, Route::Guarded(Guarded::PluginFile(static_path(segments)?))),
        [first, ..] if NOT_UI.iter().any(|word| word.eq_ignore_ascii_case(first)) => Err(Refusal::unknown_route()),
        _ => get_only(method, Route::Open(Open::Ui(static_path(segments)?))),
    }
}

/// The segments of a path, without empty ones. Most are so short that looking at each byte is the fastest way.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        loop {
            let path = rest?;
            let end = path.bytes().position(|byte| byte == b'/');
            rest = end.map(|end| &path[end + 1..]);
            let segment = &path[..end.unwrap_or(path.len())];
            if !segment.is_empty() {
                return Some(segment);
            }
        }
    })
}

fn api(method: &Method, segments: &[&str]) -> Result<Route, Refusal> {
    let route = match segments {
        ["config"] => return get_only(method, Route::Open(Open::Config)),
        ["migrate"] => Guarded::Migrate,
        ["validate", "dashboards"] => Guarded::Validate(Validate::Dashboards),
        ["validate", "datasources"] => Guarded::Validate(Validate::Datasources),
        ["validate", "globaldatasources"] => Guarded::Validate(Validate::GlobalDatasources),
        ["validate", "variables"] => Guarded::Validate(Validate::Variables),
        ["validate", "globalvariables"] => Guarded::Validate(Validate::GlobalVariables),
        ["auth", "refresh" | "logout"] | ["auth", "providers", ..] => {
            return Ok(Route::Guarded(Guarded::Never(Never::Login)));
        }
        _ => return Err(Refusal::unknown_route()),
    };
    post_only(method, route)
}

fn api_v1(method: &Method, segments: &[&str], query: &str) -> Result<Route, Refusal> {
    match segments {
        ["health"] => get_only(method, Route::Open(Open::Health)),
        ["user", "whoami"] => get_only(method, Route::Guarded(Guarded::UserWhoami)),
        ["users", name, "permissions"] => get_only(method, Route::Guarded(Guarded::Permissions(path::decode(name)?))),
        ["users"] | ["users", _] => Ok(Route::Guarded(Guarded::Never(Never::Users))),
        ["view"] => post_only(method, Guarded::View),
        ["plugins"] => get_only(method, Route::Guarded(Guarded::Plugins)),
        ["plugins", "dev"] | ["plugins", "dev", "refresh"] => {
            Ok(Route::Guarded(Guarded::Never(Never::PluginDevelopment)))
        }
        ["roles" | "rolebindings" | "globalroles" | "globalrolebindings"]
        | ["globalroles" | "globalrolebindings", _]
        | ["projects", _, "roles" | "rolebindings"]
        | ["projects", _, "roles" | "rolebindings", _] => Ok(Route::Guarded(Guarded::Never(Never::Roles))),
        ["projects"] => {
            let call = match *method {
                Method::GET => ProjectCall::List(list_query(query, Lists::Projects)?.0),
                Method::POST => ProjectCall::Create,
                _ => return Err(Refusal::method("GET, POST")),
            };
            no_query_but_lists(method, query)?;
            Ok(Route::Guarded(Guarded::Project(call)))
        }
        ["projects", name] => {
            no_query(query)?;
            let project = project(name)?;
            let call = match *method {
                Method::GET => ProjectCall::Read(project),
                Method::PUT => ProjectCall::Update(project),
                Method::DELETE => ProjectCall::Delete(project),
                _ => return Err(Refusal::method("GET, PUT, DELETE")),
            };
            Ok(Route::Guarded(Guarded::Project(call)))
        }
        ["projects", name, kind] => {
            let kind = scoped(kind)?;
            let project = project(name)?;
            let call = match *method {
                Method::GET => {
                    let (list, named) = list_query(query, Lists::of(kind))?;
                    // One project has the say: the same name twice is harmless, another one is not.
                    if named.is_some_and(|named| named != project) {
                        return Err(malformed_query(&FormError::Value("project", "the project of the path, or none")));
                    }
                    ScopedCall::List(project, list)
                }
                Method::POST => ScopedCall::Create(project),
                _ => return Err(Refusal::method("GET, POST")),
            };
            no_query_but_lists(method, query)?;
            Ok(Route::Guarded(Guarded::Scoped(kind, call)))
        }
        ["projects", name, kind, object] => {
            no_query(query)?;
            let (kind, project, object) = (scoped(kind)?, project(name)?, object_name(object)?);
            let call = match *method {
                Method::GET => ScopedCall::Read(project, object),
                Method::PUT => ScopedCall::Update(project, object),
                Method::DELETE => ScopedCall::Delete(project, object),
                _ => return Err(Refusal::method("GET, PUT, DELETE")),
            };
            Ok(Route::Guarded(Guarded::Scoped(kind, call)))
        }
        [kind] if global(kind).is_some() => {
            let kind = global(kind).ok_or_else(Refusal::unknown_route)?;
            let call = match *method {
                Method::GET => {
                    let lists = if kind == Global::Datasources { Lists::Datasources } else { Lists::Documents };
                    GlobalCall::List(list_query(query, lists)?.0)
                }
                Method::POST => GlobalCall::Create,
                _ => return Err(Refusal::method("GET, POST")),
            };
            no_query_but_lists(method, query)?;
            Ok(Route::Guarded(Guarded::Global(kind, call)))
        }
        [kind, name] if global(kind).is_some() => {
            no_query(query)?;
            let kind = global(kind).ok_or_else(Refusal::unknown_route)?;
            let name = object_name(name)?;
            let call = match *method {
                Method::GET => GlobalCall::Read(name),
                Method::PUT => GlobalCall::Update(name),
                Method::DELETE => GlobalCall::Delete(name),
                _ => return Err(Refusal::method("GET, PUT, DELETE")),
            };
            Ok(Route::Guarded(Guarded::Global(kind, call)))
        }
        [kind] => {
            let kind = scoped(kind)?;
            let call = match *method {
                Method::GET => match list_query(query, Lists::of(kind))? {
                    (list, None) => ScopedCall::ListAll(list),
                    (list, Some(project)) => ScopedCall::List(project, list),
                },
                Method::POST => ScopedCall::CreateAnywhere,
                _ => return Err(Refusal::method("GET, POST")),
            };
            no_query_but_lists(method, query)?;
            Ok(Route::Guarded(Guarded::Scoped(kind, call)))
        }
        _ => Err(Refusal::unknown_route()),
    }
}

fn get_only(method: &Method, route: Route) -> Result<Route, Refusal> {
    if *method == Method::GET || *method == Method::HEAD { Ok(route) } else { Err(Refusal::method("GET, HEAD")) }
}

fn post_only(method: &Method, route: Guarded) -> Result<Route, Refusal> {
    if *method == Method::POST { Ok(Route::Guarded(route)) } else { Err(Refusal::method("POST")) }
}

/// Where to go after a login. What cannot be kept is home: nobody is helped by an error here.
fn login_target(query: &str, prefix: &str) -> Target {
    let asked = Form::parse(query).and_then(|mut form| form.take("to")).ok().flatten();
    asked.and_then(|to| Target::parse(&to, prefix)).unwrap_or_else(|| Target::home(prefix))
}

/// Parameters that we do not know are left alone, as RFC 6749 asks.
fn callback(query: &str) -> Result<Callback, Refusal> {
    const LONGEST: usize = 4096;
    let read = || -> Result<Callback, FormError> {
        let mut form = Form::parse(query)?;
        let mut take = |name: &'static str| -> Result<Option<String>, FormError> {
            let value = form.take(name)?.filter(|value| !value.is_empty());
            match value {
                Some(value) if value.len() > LONGEST || !value.bytes().all(|b| b.is_ascii_graphic()) => {
                    Err(FormError::Value(name, "a short text of visible ASCII"))
                }
                value => Ok(value.map(std::borrow::Cow::into_owned)),
            }
        };
        let secret = |text: Option<String>| text.as_deref().map(Secret::new);
        Ok(Callback {
            code: secret(take("code")?),
            state: secret(take("state")?),
            error: take("error")?,
            issuer: take("iss")?,
        })
    };
    read().map_err(|error| malformed_query(&error))
}

/// The longest name of an object of a cluster.
const LONGEST_OF_CLUSTER: usize = 253;

/// A kind or name of the cluster, by its letters.
fn is_of_cluster(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    !text.is_empty() && text.len() <= LONGEST_OF_CLUSTER && text.bytes().all(letter)
}

fn word_of_cluster(segment: &str) -> Result<String, Refusal> {
    let good = is_of_cluster(segment).then(|| segment.to_owned());
    good.ok_or_else(|| Refusal::new(Reason::MalformedPath, "not a kind or name of the cluster"))
}

fn workloads(query: &str) -> Result<WorkloadsCall, Refusal> {
    let read = || -> Result<WorkloadsCall, FormError> {
        let mut form = Form::parse(query)?;
        let project = match form.take("namespace")?.filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(Project::parse(&text).ok_or(FormError::Value("namespace", "a name of a namespace"))?),
        };
        let kind = form.take("kind")?.filter(|text| !text.is_empty());
        if kind.as_deref().is_some_and(|kind| !is_of_cluster(kind)) {
            return Err(FormError::Value("kind", "a kind of the cluster"));
        }
        let kind = kind.map(std::borrow::Cow::into_owned);
        form.finish()?;
        Ok(WorkloadsCall::List { project, kind })
    };
    read().map_err(|error| malformed_query(&error))
}

fn wanted(query: &str) -> Result<Wanted, Refusal> {
    let read = || -> Result<Wanted, FormError> {
        let mut form = Form::parse(query)?;
        let project = match form.take("project")?.filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(Project::parse(&text).ok_or(FormError::Value("project", "a name of a project"))?),
        };
        let mut text = |name: &'static str| -> Result<Option<String>, FormError> {
            let value = form.take(name)?.filter(|text| !text.is_empty());
            match value {
                Some(text) if text.len() > 300 => Err(FormError::Value(name, "at most 300 characters")),
                value => Ok(value.map(std::borrow::Cow::into_owned)),
            }
        };
        let (template, workload) = (text("template")?, text("workload")?);
        form.finish()?;
        Ok(Wanted { project, template, workload })
    };
    read().map_err(|error| malformed_query(&error))
}

fn scoped(segment: &str) -> Result<Scoped, Refusal> {
    Scoped::ALL.into_iter().find(|kind| kind.segment() == segment).ok_or_else(Refusal::unknown_route)
}

fn global(segment: &str) -> Option<Global> {
    Global::ALL.into_iter().find(|kind| kind.segment() == segment)
}

fn project(segment: &str) -> Result<Project, Refusal> {
    Project::parse(segment).ok_or_else(|| Refusal::new(Reason::MalformedPath, "not a name of a project"))
}

fn object_name(segment: &str) -> Result<ObjectName, Refusal> {
    ObjectName::parse(segment).ok_or_else(|| Refusal::new(Reason::MalformedPath, "not a name of a Perses object"))
}

fn static_path(segments: &[&str]) -> Result<StaticPath, Refusal> {
    if !segments.iter().all(|segment| path::is_static_segment(segment)) {
        return Err(Refusal::new(Reason::MalformedPath, "not the name of a file"));
    }
    Ok(StaticPath(format!("/{}", segments.join("/"))))
}

fn malformed_query(error: &FormError) -> Refusal {
    Refusal::new(Reason::MalformedQuery, error.to_string())
}

fn no_query(query: &str) -> Result<(), Refusal> {
    Form::parse(query).and_then(Form::finish).map_err(|error| malformed_query(&error))
}

fn no_query_but_lists(method: &Method, query: &str) -> Result<(), Refusal> {
    if *method == Method::GET { Ok(()) } else { no_query(query) }
}

/// Which parameters a list takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lists {
    Projects,
    Documents,
    Datasources,
}

impl Lists {
    const fn of(kind: Scoped) -> Self {
        match kind {
            Scoped::Datasources => Self::Datasources,
            Scoped::Dashboards
            | Scoped::EphemeralDashboards
            | Scoped::Folders
            | Scoped::Secrets
            | Scoped::Variables => Self::Documents,
        }
    }
}

/// Reads a list's parameters and the project among them. Names are taken exactly as spelt: Perses would fold their case,
/// so another case is an unknown parameter here.
fn list_query(query: &str, lists: Lists) -> Result<(ListQuery, Option<Project>), Refusal> {
    let read = || -> Result<(ListQuery, Option<Project>), FormError> {
        let mut form = Form::parse(query)?;
        let mut list = ListQuery::default();
        if let Some(name) = form.take("name")?.filter(|name| !name.is_empty()) {
            list.name = Some(ObjectName::parse(&name).ok_or(FormError::Value("name", "the beginning of a name"))?);
        }
        let mut project = None;
        if lists != Lists::Projects
            && let Some(name) = form.take("project")?
        {
            project = Some(Project::parse(&name).ok_or(FormError::Value("project", "a name of a project"))?);
        }
        if lists == Lists::Datasources {
            if let Some(kind) = form.take("kind")?.filter(|kind| !kind.is_empty()) {
                if kind.len() > 75 || !kind.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    return Err(FormError::Value("kind", "a plugin kind"));
                }
                list.kind = Some(kind.into_owned());
            }
            if let Some(default) = form.take("default")?.filter(|default| !default.is_empty()) {
                list.default = Some(read_bool("default", &default)?);
            }
        } else if let Some(only) = form.take("metadata_only")?.filter(|only| !only.is_empty()) {
            list.metadata_only = Some(read_bool("metadata_only", &only)?);
        }
        form.finish()?;
        Ok((list, project))
    };
    read().map_err(|error| malformed_query(&error))
}
