//! A compiled template, and the dashboards that it becomes.

use std::fmt::Write as _;

use super::placeholder::{Condition, Place, Placeholder, json};
use super::workload::{Engine, Kind, Workload, WorkloadName};
use crate::names::{Namespace, ObjectName};

/// The longest name of a dashboard in Perses.
const LONGEST_NAME: usize = 75;
/// What a name ends with.
const HASH: usize = 8;
/// What they are.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// What a template is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// This kind,
    pub kind: Kind,
    /// with this engine; else with any that no other template names.
    pub engine: Option<Engine>,
}

/// One step of writing a dashboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// So many bytes of the template's own text.
    Literal(usize),
    /// A comma, unless a list or an object has just been opened.
    Comma,
    Value(Placeholder, Place),
    /// Unless all of these hold, so many steps are left out.
    When(Box<[Condition]>, usize),
}

/// Steps and the text that they take their literals from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) text: String,
    pub(super) ops: Vec<Op>,
}

impl Script {
    pub(super) fn run(&self, workload: &Workload, out: &mut String) {
        let mut text = self.text.as_str();
        let mut at = 0;
        while let Some(op) = self.ops.get(at) {
            at += 1;
            match op {
                Op::Literal(length) => {
                    let (now, rest) = text.split_at(*length);
                    out.push_str(now);
                    text = rest;
                }
                Op::Comma => {
                    // A string that ends in a bracket ends in a quote.
                    if !out.ends_with(['[', '{']) {
                        out.push(',');
                    }
                }
                Op::Value(placeholder, place) => placeholder.write(workload, *place, out),
                Op::When(conditions, skip) => {
                    if !conditions.iter().all(|condition| condition.holds(workload)) {
                        let left_out = &self.ops[at..at + skip];
                        let lengths = left_out.iter().map(|op| if let Op::Literal(length) = op { *length } else { 0 });
                        text = &text[lengths.sum::<usize>()..];
                        at += skip;
                    }
                }
            }
        }
    }
}

/// One template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) description: String,
    pub(super) order: u16,
    pub(super) targets: Vec<Target>,
    pub(super) when: Box<[Condition]>,
    pub(super) file: String,
    /// `spec.display.name`, within its quotes.
    pub(super) display: Script,
    /// `spec`, whole.
    pub(super) spec: Script,
}

impl Template {
    /// Its name, unique among all: lower-case letters, digits and `-`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it shows, in a few words.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// What it shows, in a sentence.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Where its dashboards stand among others; small ones first.
    #[must_use]
    pub fn order(&self) -> u16 {
        self.order
    }

    /// What it is for.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The file that it was read from.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether it names this workload's kind, with or without its engine, and its own condition holds. Which of several
    /// templates a workload gets says [`super::Library::of`].
    pub(super) fn fits(&self, workload: &Workload, engine: Option<Engine>) -> bool {
        self.targets.contains(&Target { kind: workload.kind, engine })
            && self.when.iter().all(|condition| condition.holds(workload))
    }

    /// The name of a workload's dashboard: `dashboard-ORDER-TEMPLATE-WORKLOAD-HASH`, which OpenShift AI shows among its own,
    /// and which nobody else chooses by accident. It depends on nothing but template, kind and name of the workload; a long
    /// name of the workload is cut.
    #[must_use]
    pub fn dashboard_name(&self, workload: &Workload) -> String {
        let mut name = String::with_capacity(LONGEST_NAME);
        self.write_name(workload, &mut name);
        name
    }

    /// The same, behind whatever stands in `out`.
    fn write_name(&self, workload: &Workload, out: &mut String) {
        let start = out.len();
        let _ = write!(out, "dashboard-{}-{}-", self.order, self.name);
        if workload.kind != Kind::Project {
            let room = LONGEST_NAME - (out.len() - start) - 1 - HASH;
            // All of it is ASCII.
            let name = workload.name.as_str();
            out.push_str(name[..name.len().min(room)].trim_end_matches(['-', '.']));
            out.push('-');
        }
        out.extend(self.hash(workload.kind, workload.name.as_str()));
    }

    /// Eight letters, to tell what was cut or stands in another kind. FNV-1a, 64 bits: no secret and no proof, a checksum.
    fn hash(&self, kind: Kind, name: &str) -> [char; HASH] {
        let name = if kind == Kind::Project { "" } else { name };
        let parts = [self.name.as_str(), "\0", kind.word(), "\0", name];
        let hash = parts
            .iter()
            .flat_map(|part| part.bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        // The low bits of the last bytes are mixed least, so the high half is folded in.
        let hash = hash ^ (hash >> 29);
        std::array::from_fn(|at| char::from(LETTERS[(hash >> (5 * at)) as usize & 31]))
    }

    /// What stands behind the template in the name of one of its dashboards.
    pub(super) fn rest_of<'n>(&self, dashboard: &'n ObjectName) -> Option<&'n str> {
        let (_, rest) = dashboard.as_str().strip_prefix("dashboard-")?.split_once('-')?;
        rest.strip_prefix(self.name.as_str())?.strip_prefix('-')
    }

    /// The workload whose dashboard has this name, if it is one of this template and its name was not cut; for a link to
    /// something that is gone. `None` for any other name.
    #[must_use]
    pub fn workload_of(&self, namespace: &Namespace, dashboard: &ObjectName) -> Option<Workload> {
        let rest = self.rest_of(dashboard)?;
        let (name, hash) = rest.rsplit_once('-').map_or((None, rest), |(name, hash)| (Some(name), hash));
        self.targets.iter().find_map(|target| {
            let workload = match name {
                None if target.kind == Kind::Project => Workload::project(namespace, 1),
                None => return None,
                Some(name) => {
                    let engine = target.engine.unwrap_or(Engine::Other);
                    Workload::gone(target.kind, namespace.clone(), WorkloadName::parse(name)?, engine)
                }
            };
            let right = hash.chars().eq(self.hash(workload.kind, workload.name.as_str()));
            (right && (name.is_none() || workload.kind != Kind::Project)).then_some(workload)
        })
    }

    /// Whether a name may be that of a dashboard of this template, of a workload whose name was cut.
    #[must_use]
    pub fn may_have_cut(&self, dashboard: &ObjectName) -> bool {
        let sum = self.rest_of(dashboard).and_then(|rest| rest.rsplit_once('-')).map(|(_, sum)| sum.as_bytes());
        // Marks at the end of what was cut are left out.
        dashboard.as_str().len() > LONGEST_NAME - HASH
            && sum.is_some_and(|sum| sum.len() == HASH && sum.iter().all(|letter| LETTERS.contains(letter)))
    }

    /// The name that people see.
    #[must_use]
    pub fn display_name(&self, workload: &Workload) -> String {
        let mut out = String::from("\"");
        self.display.run(workload, &mut out);
        out.push('"');
        serde_json::from_str(&out).unwrap_or_default()
    }

    /// The dashboard, one Perses object as JSON.
    #[must_use]
    pub fn render(&self, workload: &Workload) -> String {
        let mut out = String::with_capacity(self.spec.text.len() + (self.spec.text.len() >> 2) + 512);
        self.metadata(workload, &mut out);
        self.spec.run(workload, &mut out);
        out.push('}');
        out
    }

    /// The dashboard as lists of metadata hold it: with the name that people see, and nothing else of its spec.
    #[must_use]
    pub fn render_entry(&self, workload: &Workload) -> String {
        let mut out = String::with_capacity(512);
        self.write_entry(workload, &mut out);
        out
    }

    /// The same, behind whatever stands in `out`.
    pub fn write_entry(&self, workload: &Workload, out: &mut String) {
        self.metadata(workload, out);
        out.push_str("{\"display\":{\"name\":\"");
        self.display.run(workload, out);
        out.push_str("\"}}}");
    }

    fn metadata(&self, workload: &Workload, out: &mut String) {
        out.push_str("{\"kind\":\"Dashboard\",\"metadata\":{\"name\":\"");
        self.write_name(workload, out);
        // The same for all replicas and as long as the workload lives.
        let made = super::time::rfc3339(workload.created.unwrap_or(0));
        let _ = write!(out, "\",\"createdAt\":\"{made}\",\"updatedAt\":\"{made}\",\"version\":0,\"project\":\"");
        json(workload.namespace.as_str(), out);
        out.push_str("\"},\"spec\":");
    }
}
