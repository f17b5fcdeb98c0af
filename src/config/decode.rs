//! A file's text becomes a [`Config`], or every problem with it.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use super::section::{Notes, Section};
use super::{
    Config, Live, access, backends, cache, cluster, dashboards, injection, limits, listen, login, telemetry, tls,
    watch, workloads,
};
use crate::dashboards::TemplateProblem;
use crate::names;
use crate::yaml::{self, Problem};

/// How deeply a file may nest.
const DEEPEST: usize = 16;

/// What a configuration refers to: files and the environment. An argument, so that reading is a function.
pub trait Surroundings {
    /// A file's bytes.
    ///
    /// # Errors
    /// As the system says.
    fn file(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The names of a folder's files, in no order; what begins with a dot is none, as kubelet's own links do.
    ///
    /// # Errors
    /// As the system says.
    fn folder(&self, path: &Path) -> io::Result<Vec<String>>;
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// Whether the settings are for another machine, whose files and variables are not here.
    fn is_elsewhere(&self) -> bool {
        false
    }
}

impl<T: Surroundings + ?Sized> Surroundings for &T {
    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        (**self).file(path)
    }

    fn folder(&self, path: &Path) -> io::Result<Vec<String>> {
        (**self).folder(path)
    }

    fn variable(&self, name: &str) -> Option<String> {
        (**self).variable(name)
    }

    fn is_elsewhere(&self) -> bool {
        (**self).is_elsewhere()
    }
}

/// Those of another machine: no file is looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elsewhere;

impl Surroundings for Elsewhere {
    fn file(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn folder(&self, _: &Path) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn is_elsewhere(&self) -> bool {
        true
    }
}

/// The real ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Surroundings for System {
    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn folder(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let name = entry?.file_name().into_string();
            names.extend(name.ok().filter(|name| !name.starts_with('.')));
        }
        Ok(names)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// A configuration that was read.
#[derive(Clone, Debug)]
pub struct Loaded<C = Config> {
    /// The settings.
    pub config: C,
    /// The settings in effect, defaults included, as YAML; no secrets.
    pub effective: String,
    /// What is wrong with files of templates; those are left out, and all else is in effect.
    pub templates: Vec<TemplateProblem>,
    /// The files and folders that the settings were read from, besides the file itself.
    pub files: Vec<PathBuf>,
    /// What reads the file from the disk again.
    pub again: Loader<C>,
}

/// Reads a file of settings from the disk.
pub type Loader<C> = fn(&Path) -> Result<Loaded<C>, Vec<Problem>>;

/// Remembers which files were asked for.
struct Recorded<'s> {
    inner: &'s dyn Surroundings,
    files: RefCell<Vec<PathBuf>>,
}

impl Surroundings for Recorded<'_> {
    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.borrow_mut().push(path.to_owned());
        self.inner.file(path)
    }

    fn folder(&self, path: &Path) -> io::Result<Vec<String>> {
        self.files.borrow_mut().push(path.to_owned());
        self.inner.folder(path)
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.inner.variable(name)
    }

    fn is_elsewhere(&self) -> bool {
        self.inner.is_elsewhere()
    }
}

/// Reads and checks a file's text. Touches nothing.
///
/// # Errors
/// Every problem, in the order of the file.
pub fn read(text: &str, surroundings: &dyn Surroundings) -> Result<Loaded, Vec<Problem>> {
    let (root, twice) = yaml::parse(text, DEEPEST).map_err(|problem| vec![problem])?;
    read_as(&root, twice, surroundings, settings, watch::load)
}

/// The same for the file of the webhook.
///
/// # Errors
/// As [`read`].
pub fn read_webhook(text: &str, surroundings: &dyn Surroundings) -> Result<Loaded<super::Webhook>, Vec<Problem>> {
    let (root, twice) = yaml::parse(text, DEEPEST).map_err(|problem| vec![problem])?;
    read_as(&root, twice, surroundings, injection::webhook, watch::load_webhook)
}

/// The sections that the ConfigMap beside an injected profile may set.
const FREE: [&str; 5] = ["cache", "limits", "telemetry", "workloads", "dashboards"];
/// Those that the profile alone sets.
const BOUND: [&str; 8] = ["listen", "tls", "perses", "cluster", "login", "access", "metrics_backends", "audit"];

/// The same for an injected sidecar: the profile decides, and what the namespace adds lies over it where it may.
///
/// # Errors
/// As [`read`]; lines are those of `text`.
pub fn read_injected(profile: &str, text: &str, surroundings: &dyn Surroundings) -> Result<Loaded, Vec<Problem>> {
    let (root, mut problems) = yaml::parse(text, DEEPEST).map_err(|problem| vec![problem])?;
    let (profile, _) = yaml::parse(profile, DEEPEST).map_err(|problem| vec![problem])?;
    if let yaml::Value::Map(map) = &root.value {
        for (key, node) in map.iter().filter(|(key, _)| !FREE.contains(&key.as_str())) {
            let message = match names::nearest(key, FREE.into_iter().chain(BOUND)) {
                Some(near) if FREE.contains(&near) => format!("unknown key {key:?}, did you mean {near:?}?"),
                _ => format!("stands in the webhook's profile; here are {} alone", FREE.join(", ")),
            };
            problems.push(Problem::new(node.line, node.column, key, message));
        }
    } else if !matches!(root.value, yaml::Value::Nothing) {
        problems.push(Problem::new(root.line, root.column, "", format!("expected sections: {}", FREE.join(", "))));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let whole = if matches!(root.value, yaml::Value::Nothing) { profile } else { injection::lay_over(&profile, &root) };
    read_as(&whole, problems, surroundings, settings, watch::load_injected)
}

type Reading<C> = fn(Section<'_>, &dyn Surroundings, Notes) -> (Option<C>, Notes);

fn read_as<C>(
    root: &yaml::Node,
    problems: Vec<Problem>,
    surroundings: &dyn Surroundings,
    settings: Reading<C>,
    again: Loader<C>,
) -> Result<Loaded<C>, Vec<Problem>> {
    let around = Recorded { inner: surroundings, files: RefCell::default() };
    let mut notes = Notes { problems, ..Notes::default() };
    let root = Section::root(root, &mut notes);
    match settings(root, &around, notes) {
        (Some(config), notes) if notes.problems.is_empty() => Ok(Loaded {
            config,
            effective: render(&notes.effective),
            templates: notes.templates,
            // How much memory there is, is no part of the configuration that could change.
            files: around.files.into_inner().into_iter().filter(|path| !path.starts_with("/sys")).collect(),
            again,
        }),
        (_, mut notes) => {
            notes.problems.sort_by_key(|problem| (problem.line, problem.column));
            Err(notes.problems)
        }
    }
}

/// The sidecar's settings, whole if there is no problem in the notes.
pub(super) fn settings(mut root: Section<'_>, around: &dyn Surroundings, mut notes: Notes) -> (Option<Config>, Notes) {
    root.reserved(&["live", "sharing"], &mut notes);
    root.foreign("injection", &mut notes, "stands in the file of perses-sidecar webhook");
    let fixed = listen::read(&mut root, &around, &mut notes);
    let tls = tls::read(&mut root, &around, &mut notes);
    // Where its files are at fault, that is told already.
    let told = notes.problems.iter().any(|problem| problem.path.starts_with("tls."));
    if tls.is_none() && !told && (fixed.listen.gateway_tls || fixed.listen.https.is_some()) {
        root.problem(
            &mut notes,
            "tls",
            "is required for listen.https and listen.gateway_tls: name certificate_file and key_file",
        );
    }
    let cluster = cluster::read(&mut root, &around, &mut notes);
    let login = login::read(&mut root, &fixed, cluster.as_ref(), &around, &mut notes);
    let access = access::read(&mut root, &mut notes);
    let backends = backends::read(&mut root, &fixed, &around, &mut notes);
    let cache = cache::read(&mut root, cache::memory_limit(around), &backends, &around, &mut notes);
    let workloads = workloads::read(&mut root, &mut notes);
    let (dashboards, templates) = dashboards::read(&mut root, &around, &mut notes);
    let limits = limits::read(&mut root, &mut notes);
    let telemetry = telemetry::telemetry(&mut root, &mut notes);
    let audit = telemetry::audit(&mut root, &mut notes);
    root.finish(&mut notes);
    notes.templates = templates;
    let config = cluster.map(|cluster| Config {
        fixed,
        live: Live {
            tls,
            cluster,
            external_url: login.external_url,
            login: login.login,
            frame_ancestors: login.frame_ancestors,
            contact: login.contact,
            access,
            backends,
            cache,
            workloads,
            dashboards,
            limits,
            telemetry,
            audit,
        },
    });
    (config, notes)
}

/// YAML as `effective` has it, as JSON: whole numbers and `true` and `false` as such, every other value as text.
#[must_use]
pub fn as_json(text: &str) -> serde_json::Value {
    fn of(node: &yaml::Node) -> serde_json::Value {
        match &node.value {
            yaml::Value::Nothing => serde_json::Value::Null,
            yaml::Value::Word(text) => match (text.as_str(), text.parse::<u64>()) {
                ("true", _) => true.into(),
                ("false", _) => false.into(),
                (_, Ok(number)) => number.into(),
                (text, Err(_)) => text.into(),
            },
            yaml::Value::List(list) => list.iter().map(of).collect(),
            yaml::Value::Map(map) => map.iter().map(|(key, node)| (key.clone(), of(node))).collect(),
        }
    }
    yaml::parse(text, DEEPEST).map_or(serde_json::Value::Null, |(root, _)| of(&root))
}

/// Settings in effect, as YAML that reads back as the same settings.
fn render(effective: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut open: Vec<String> = Vec::new();
    for (path, value) in effective {
        let mut parts: Vec<String> = Vec::new();
        for part in path.split('.') {
            match part.split_once('[') {
                None => parts.push(part.to_owned()),
                Some((name, index)) => {
                    parts.push(name.to_owned());
                    parts.push(format!("[{index}"));
                }
            }
        }
        let shared = open.iter().zip(&parts).take_while(|(a, b)| a == b).count();
        open.truncate(shared);
        let last = parts.len() - 1;
        for (depth, part) in parts.iter().enumerate().skip(shared) {
            // An element of a list opens with a dash on the line of its first key.
            if part.starts_with('[') {
                out.push_str(&"  ".repeat(depth));
                out.push_str("- ");
                continue;
            }
            let first = depth > 0 && parts[depth - 1].starts_with('[') && out.ends_with("- ");
            if !first {
                out.push_str(&"  ".repeat(depth));
            }
            out.push_str(part);
            out.push(':');
            if depth == last {
                if !value.is_empty() {
                    out.push(' ');
                    out.push_str(value);
                }
                out.push('\n');
            } else {
                out.push('\n');
            }
        }
        open = parts[..last].to_vec();
    }
    out
}
