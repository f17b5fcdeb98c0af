//! What a request makes reachable in Perses, by the rules of its router and its binder. Where versions differ, whatever
//! any of them would do counts.

use std::collections::BTreeSet;

use super::go::{self, Json};

/// A request as Perses receives it.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub content_type: &'a str,
    pub body: &'a [u8],
}

/// Something that a request reaches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Verb, kind, project, name. An empty project of a list means all of them; an empty name is the whole kind.
    Scoped(&'static str, String, String, String),
    /// Verb, kind, name.
    Global(&'static str, String, String),
    /// Verb, project.
    Project(&'static str, String),
    /// A view of a project is counted.
    View(String),
    /// Validation and migration keep nothing.
    Text,
    /// A file below the folder of plugins or of the UI.
    File(String),
    /// Configuration, health, the list of plugins.
    Open,
    /// What nobody may do through us.
    Closed(String),
}

const SCOPED: [&str; 6] = ["dashboards", "datasources", "ephemeraldashboards", "folders", "secrets", "variables"];
const GLOBAL: [&str; 3] = ["globaldatasources", "globalsecrets", "globalvariables"];

/// The path that the router matches: as received if it was escaped in an unusual way, and decoded otherwise. One slash
/// at the end is taken off before. `None` when the server cannot read it.
fn routed(path: &str) -> Option<String> {
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    let mut usual = String::new();
    for byte in &decoded {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(byte) {
            usual.push(char::from(*byte));
        } else {
            usual.push_str(&format!("%{byte:02X}"));
        }
    }
    let matched = if usual == path { String::from_utf8_lossy(&decoded).into_owned() } else { path.to_owned() };
    Some(if matched.len() > 1 { matched.strip_suffix('/').unwrap_or(&matched).to_owned() } else { matched })
}

/// Everything that the request may reach.
pub fn reach(asked: &Asked<'_>) -> BTreeSet<Reach> {
    let (path, query) = asked.target.split_once('?').unwrap_or((asked.target, ""));
    // A target in absolute form is taken for its path.
    let path = path.split_once("://").map_or(path, |(_, rest)| &rest[rest.find('/').unwrap_or(rest.len())..]);
    let Some(path) = routed(path) else { return BTreeSet::new() };
    let closed = || BTreeSet::from([Reach::Closed(format!("{} {path}", asked.method))]);
    // Segments as the router sees them: an empty one is a value like any other, and the last one swallows what follows.
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let rest = |from: usize| parts[from..].join("/");
    let sources = Sources::of(asked, query);
    let verb = |verbs: &[(&str, &'static str)]| verbs.iter().find(|(m, _)| *m == asked.method).map(|(_, verb)| *verb);
    let single = [("GET", "get"), ("PUT", "update"), ("DELETE", "delete")];
    match parts.as_slice() {
        ["api", "config"] | ["api", "v1", "health"] | ["api", "v1", "plugins"] if asked.method == "GET" => {
            BTreeSet::from([Reach::Open])
        }
        ["api", "migrate"] => BTreeSet::from([Reach::Text]),
        ["api", "validate", ..] => {
            let mut found = BTreeSet::from([Reach::Text]);
            found.extend(
                sources
                    .body("project")
                    .into_iter()
                    .filter(|p| !p.is_empty())
                    .map(|p| Reach::Scoped("get", "dashboards".to_owned(), p, String::new())),
            );
            found
        }
        ["api", "v1", "view"] => sources.body_top("project").into_iter().map(Reach::View).collect(),
        ["api", "v1", "projects"] => match asked.method {
            "GET" => BTreeSet::from([Reach::Project("list", String::new())]),
            "POST" => sources.body("name").into_iter().map(|name| Reach::Project("create", name)).collect(),
            _ => closed(),
        },
        ["api", "v1", "projects", name] => match verb(&single) {
            Some(verb) => {
                let mut names = BTreeSet::from([fold(name)]);
                if verb == "update" {
                    names.extend(sources.body("name").into_iter().filter(|name| !name.is_empty()));
                }
                names.into_iter().map(|name| Reach::Project(verb, name)).collect()
            }
            None => closed(),
        },
        ["api", "v1", "projects", project, kind, tail @ ..] if SCOPED.contains(kind) => {
            let mut projects = BTreeSet::from([fold(project)]);
            projects.extend(sources.project());
            let reached = |verb: &'static str, projects: BTreeSet<String>, names: BTreeSet<String>| {
                let pairs = projects.iter().flat_map(|project| names.iter().map(move |name| (project, name)));
                pairs.map(|(p, n)| Reach::Scoped(verb, (*kind).to_owned(), p.clone(), n.clone())).collect()
            };
            if tail.is_empty() {
                return match asked.method {
                    "GET" => reached("list", projects, BTreeSet::from([String::new()])),
                    "POST" => reached("create", projects, sources.body("name")),
                    _ => closed(),
                };
            }
            let Some(verb) = verb(&single) else { return closed() };
            let mut names = BTreeSet::from([fold(&rest(5))]);
            if verb == "update" {
                names.extend(sources.body("name").into_iter().filter(|name| !name.is_empty()));
            }
            reached(verb, projects, names)
        }
        ["api", "v1", kind] if SCOPED.contains(kind) => match asked.method {
            "GET" => {
                let named = sources.project();
                let all = BTreeSet::from([String::new()]);
                let projects = if named.is_empty() { all } else { named };
                projects.into_iter().map(|p| Reach::Scoped("list", (*kind).to_owned(), p, String::new())).collect()
            }
            "POST" => {
                let names = sources.body("name");
                let pairs = sources.body("project").into_iter().flat_map(|p| {
                    let kind = (*kind).to_owned();
                    names
                        .iter()
                        .map(move |n| Reach::Scoped("create", kind.clone(), p.clone(), n.clone()))
                        .collect::<Vec<_>>()
                });
                pairs.collect()
            }
            _ => closed(),
        },
        ["api", "v1", kind, tail @ ..] if GLOBAL.contains(kind) => {
            let name = fold(&tail.join("/"));
            match verb(&[("GET", "get"), ("PUT", "update"), ("DELETE", "delete"), ("POST", "create")]) {
                Some(verb) => BTreeSet::from([Reach::Global(verb, (*kind).to_owned(), name)]),
                None => closed(),
            }
        }
        ["api" | "proxy" | "metrics" | "debug", ..] => closed(),
        ["plugins", ..] if asked.method == "GET" => BTreeSet::from([Reach::File(path.clone())]),
        // Everything else of a GET is a page of the UI.
        _ if asked.method == "GET" => BTreeSet::from([Reach::File(path.clone())]),
        _ => closed(),
    }
}

/// Names are folded before they become a file's name.
fn fold(name: &str) -> String {
    name.to_lowercase()
}

/// Where parameters may come from besides the path: the query, and a body of one of several types.
struct Sources {
    query: Vec<(String, String)>,
    json: Option<Json>,
    pairs: Vec<(String, String)>,
    /// An XML body is read into the same fields; what it says is not looked into.
    xml: bool,
}

impl Sources {
    fn of(asked: &Asked<'_>, query: &str) -> Self {
        let text = |pairs: Vec<(Vec<u8>, Vec<u8>)>| {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            pairs.into_iter().map(|(name, value)| (text(name), text(value))).collect::<Vec<_>>()
        };
        // The query is bound for these methods only; the others are counted in all the same.
        let query = text(go::form(query.as_bytes()).0);
        let kind = asked.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (mut json, mut pairs, mut xml) = (None, Vec::new(), false);
        if !asked.body.is_empty() {
            match kind.as_str() {
                "application/json" => json = go::json(asked.body),
                "application/xml" | "text/xml" => xml = true,
                "application/x-www-form-urlencoded" => pairs = text(go::form(asked.body).0),
                "multipart/form-data" => xml = true,
                _ => {}
            }
        }
        Self { query, json, pairs, xml }
    }

    /// Every project that the query or the body may set, an empty one too.
    fn project(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for pairs in [&self.query, &self.pairs] {
            // Names are compared without case; the first one counts.
            found.extend(pairs.iter().find(|(name, _)| name.eq_ignore_ascii_case("project")).map(|(_, v)| fold(v)));
        }
        found.extend(self.body("project").into_iter().filter(|project| !project.is_empty()));
        found.extend(self.json.as_ref().and_then(|json| Some(fold(json.field("project")?.text()?))));
        if self.xml {
            found.insert("whatever the XML says".to_owned());
        }
        found
    }

    /// A field of the metadata of a document; an empty text when there is none.
    fn body(&self, field: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        if let Some(json) = &self.json {
            let value = json.field("metadata").and_then(|metadata| metadata.field(field));
            found.insert(value.as_ref().and_then(Json::text).map(fold).unwrap_or_default());
        }
        if self.xml || !self.pairs.is_empty() {
            found.insert("whatever the body says".to_owned());
        }
        found
    }

    /// A field of the body itself.
    fn body_top(&self, field: &str) -> BTreeSet<String> {
        let text = |json: &Json| json.field(field).as_ref().and_then(Json::text).map(fold).unwrap_or_default();
        self.json.iter().map(text).collect()
    }
}

/// Whether ada may reach it: she edits team-a and views team-b, where she sees no secrets.
pub fn ada_may(reach: &Reach) -> bool {
    let plain = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
            && !text.bytes().all(|b| b == b'.')
    };
    match reach {
        Reach::Scoped(verb, kind, project, name) => {
            let named =
                if *verb == "list" { name.is_empty() } else { plain(name) || kind == "dashboards" && name.is_empty() };
            match project.as_str() {
                "team-a" => named,
                "team-b" => matches!(*verb, "get" | "list") && kind != "secrets" && named,
                // All projects: the answer is filtered, which is looked at where it arrives.
                "" => *verb == "list",
                _ => false,
            }
        }
        Reach::Global(verb, kind, name) => {
            *verb == "get" && kind != "globalsecrets" && (name.is_empty() || plain(name))
        }
        Reach::Project("list", name) => name.is_empty(),
        Reach::Project(verb, name) => name == "team-a" || name == "team-b" && *verb == "get",
        Reach::View(project) => project == "team-a" || project == "team-b",
        Reach::Text | Reach::Open => true,
        Reach::File(path) => {
            !path.split('/').any(|segment| segment == ".." || segment == ".")
                && path.bytes().all(|b| b.is_ascii_graphic() && !b"\\%;".contains(&b))
        }
        Reach::Closed(_) => false,
    }
}
