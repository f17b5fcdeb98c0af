//! A template's text becomes a [`Template`], or every problem with it.
//!
//! The whole of it is looked at once, here: placeholders, conditions, queries, what stands where. Rendering cannot fail.

mod header;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use super::library::Settings;
use super::placeholder::Condition;
use super::template::{Script, Template};
use super::workload::{Engine, Kind, Runtime, State, Workload, WorkloadName};
use crate::document::{self, Object};
use crate::names::Namespace;
use crate::yaml::{self, Node, Problem, Value};

pub(super) use header::Header;

/// How deeply a file may nest.
const DEEPEST: usize = 40;
/// The most panels of a dashboard.
const PANELS: usize = 200;

/// Something that is wrong with a file of templates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TemplateProblem {
    /// The file's name.
    pub file: String,
    /// What, and where in it.
    pub problem: Problem,
}

impl std::fmt::Display for TemplateProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.problem)
    }
}

/// A file that was read, but not yet understood below its header.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) file: String,
    pub(super) header: Header,
    spec: Node,
}

/// Reads a file's header.
pub(super) fn read(file: &str, text: &str) -> Result<Source, Vec<TemplateProblem>> {
    let told = |problems: Vec<Problem>| {
        problems.into_iter().map(|problem| TemplateProblem { file: file.to_owned(), problem }).collect::<Vec<_>>()
    };
    let (root, mut problems) = yaml::parse(text, DEEPEST).map_err(|problem| told(vec![problem]))?;
    let header = header::read(&root, &mut problems);
    let spec = entry(&root, "spec").cloned();
    if spec.is_none() {
        problems.push(Problem::new(1, 1, "spec", "is required: the dashboard, as Perses has it"));
    }
    match (header, spec) {
        (Some(header), Some(spec)) if problems.is_empty() => Ok(Source { file: file.to_owned(), header, spec }),
        _ => Err(told(problems)),
    }
}

fn entry<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    entries(node).iter().find(|(known, _)| known == key).map(|(_, node)| node)
}

fn entries(node: &Node) -> &[(String, Node)] {
    if let Value::Map(map) = &node.value { map } else { &[] }
}

fn elements(node: Option<&Node>) -> &[Node] {
    if let Some(Node { value: Value::List(list), .. }) = node { list } else { &[] }
}

fn word<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    if let Value::Word(text) = &entry(node, key)?.value { Some(text) } else { None }
}

/// Checks a part by itself; whoever takes it in compiles it again with the rest.
pub(super) fn check_part(part: &Source, settings: &Settings, trusted: bool) -> Vec<TemplateProblem> {
    let mut compiler = Compiler::new(settings);
    compiler.trusted = trusted;
    // Its variables may be those of whoever takes it in.
    compiler.lenient = true;
    compiler.gather(&[part]);
    compiler.spec(part, &[part]);
    compiler.problems.into_iter().collect()
}

/// Compiles a template with the parts that it takes in. What is built in is trusted: a test compiles it without trust.
pub(super) fn template(
    source: &Source,
    parts: &[&Source],
    settings: &Settings,
    trusted: bool,
) -> Result<Template, Vec<TemplateProblem>> {
    let mut compiler = Compiler::new(settings);
    compiler.trusted = trusted;
    let mut bodies: Vec<&Source> = parts.iter().copied().filter(|part| part.header.first).collect();
    bodies.push(source);
    bodies.extend(parts.iter().filter(|part| !part.header.first));
    compiler.gather(&bodies);
    compiler.whole(source);
    let display = compiler.display(source);
    compiler.spec(source, &bodies);
    if !compiler.problems.is_empty() {
        return Err(compiler.problems.into_iter().collect());
    }
    let header = source.header.clone();
    let template = Template {
        name: header.name,
        title: header.title,
        description: header.description,
        order: header.order,
        targets: header.targets,
        when: header.when,
        file: source.file.clone(),
        display,
        spec: compiler.script,
    };
    // What nobody may store through us, nobody gets from us.
    for workload in if trusted { Vec::new() } else { samples(&template) } {
        let object = Object::read(template.render(&workload).as_bytes(), document::Kind::Dashboard);
        if let Err(error) = object.and_then(|object| object.check_write(&|_| false)) {
            let problem = Problem::new(1, 1, "", error.to_string());
            return Err(vec![TemplateProblem { file: source.file.clone(), problem }]);
        }
    }
    Ok(template)
}

/// Workloads for which a template is tried: one with everything, one with nothing, one with what nobody means well.
fn samples(template: &Template) -> Vec<Workload> {
    let kind = template.targets.first().map_or(Kind::Job, |target| target.kind);
    sample_workloads(kind)
}

fn sample_workloads(kind: Kind) -> Vec<Workload> {
    let (Some(namespace), Some(name)) = (Namespace::parse("team-a"), WorkloadName::parse("a-name.1")) else {
        return Vec::new();
    };
    let bare = Workload::bare(kind, namespace, name.clone());
    let full = |text: &str| Workload {
        title: Some(text.into()),
        engine: Engine::Vllm,
        runtime: Some(Runtime { name: name.clone(), cluster: false }),
        model: Some(text.into()),
        state: State::Failed,
        reason: Some(text.into()),
        since: Some(0),
        created: Some(0),
        owner: Some(text.into()),
        gpus: 8,
        queue: Some(text.into()),
        ray_cluster: Some(text.into()),
        progress: Some(super::Progress { percent: 50, left: Some(600) }),
        ..bare.clone()
    };
    vec![full("words"), full("\"}) or up{x=~'$y`\\ é\u{10ffff} <a href=\"javascript:x\">"), bare]
}

struct Panel {
    conditions: Box<[Condition]>,
    shown: bool,
}

struct Compiler<'s> {
    settings: &'s Settings,
    /// Whether variables may be defined elsewhere.
    lenient: bool,
    /// Whether our own tests have tried all queries.
    trusted: bool,
    /// The file that is looked at.
    file: String,
    problems: BTreeSet<TemplateProblem>,
    panels: BTreeMap<String, Panel>,
    variables: BTreeSet<String>,
    script: Script,
    /// Before this step no literal grows any more.
    fence: usize,
}

impl<'s> Compiler<'s> {
    fn new(settings: &'s Settings) -> Self {
        Self {
            settings,
            lenient: false,
            trusted: false,
            file: String::new(),
            problems: BTreeSet::new(),
            panels: BTreeMap::new(),
            variables: BTreeSet::new(),
            script: Script::default(),
            fence: 0,
        }
    }

    fn problem(&mut self, node: &Node, path: &str, message: impl Into<String>) {
        let problem = Problem::new(node.line, node.column, path, message);
        self.problems.insert(TemplateProblem { file: self.file.clone(), problem });
    }

    /// Notes which panels and variables there are, before anything is written that names them.
    fn gather(&mut self, bodies: &[&Source]) {
        for body in bodies {
            self.file.clone_from(&body.file);
            for (key, panel) in entry(&body.spec, "panels").map_or(&[][..], entries) {
                let path = format!("spec.panels.{key}");
                let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
                if key.is_empty() || key.len() > 80 || !key.bytes().all(plain) {
                    self.problem(panel, &path, "a panel's key is of letters, digits, _ and -");
                }
                let mut conditions = self.conditions(panel, &path).into_vec();
                conditions.extend(&body.header.when_of_part);
                let known = Panel { conditions: conditions.into(), shown: false };
                if self.panels.insert(key.clone(), known).is_some() {
                    self.problem(panel, &path, "two panels have this key; parts bring their own panels");
                }
                if self.panels.len() == PANELS + 1 {
                    self.problem(panel, &path, format!("a dashboard has at most {PANELS} panels"));
                }
            }
            for (index, variable) in elements(entry(&body.spec, "variables")).iter().enumerate() {
                let path = format!("spec.variables[{index}].spec.name");
                let name = entry(variable, "spec").and_then(|spec| word(spec, "name")).unwrap_or_default();
                let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                if !plain || name.starts_with("__") || name.bytes().all(|b| b.is_ascii_digit()) {
                    self.problem(variable, &path, "a variable's name is of letters, digits and _, not all digits");
                } else if !self.variables.insert(name.to_owned()) {
                    self.problem(variable, &path, format!("two variables are called {name:?}"));
                }
            }
        }
        for body in bodies {
            self.file.clone_from(&body.file);
            for (at, layout) in elements(entry(&body.spec, "layouts")).iter().enumerate() {
                let items = elements(entry(layout, "spec").and_then(|spec| entry(spec, "items")));
                for (index, item) in items.iter().enumerate() {
                    let path = format!("spec.layouts[{at}].spec.items[{index}]");
                    self.place(item, &path);
                }
            }
        }
        for body in bodies {
            self.file.clone_from(&body.file);
            for (key, panel) in entry(&body.spec, "panels").map_or(&[][..], entries) {
                if self.panels.get(key).is_some_and(|panel| !panel.shown) {
                    self.problem(panel, &format!("spec.panels.{key}"), "no layout shows this panel");
                }
            }
        }
    }

    /// Checks where an item of a grid stands, and which panel it shows.
    fn place(&mut self, item: &Node, path: &str) {
        let number = |key: &str| word(item, key).and_then(|text| text.parse::<u32>().ok());
        match (number("x"), number("y"), number("width"), number("height")) {
            (Some(x), Some(y), Some(width @ 1..=24), Some(1..=200)) if x + width <= 24 && y < 10_000 => {}
            _ => self.problem(item, path, "x, y, width and height place it in a grid of 24 columns"),
        }
        match panel_of(item).map(str::to_owned) {
            None => self.problem(item, path, "content: {$ref: \"#/spec/panels/KEY\"} is required"),
            Some(key) => match self.panels.get_mut(&key) {
                Some(panel) => panel.shown = true,
                None => {
                    let near = crate::names::nearest(&key, self.panels.keys().map(String::as_str));
                    let near = near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
                    self.problem(item, path, format!("there is no panel {key:?}{near}"));
                }
            },
        }
    }

    /// What a template has and a part need not.
    fn whole(&mut self, source: &Source) {
        self.file.clone_from(&source.file);
        if self.panels.is_empty() {
            self.problem(&source.spec, "spec.panels", "is required: a dashboard without panels shows nothing");
        }
        if entry(&source.spec, "display").and_then(|display| word(display, "name")).is_none() {
            self.problem(&source.spec, "spec.display.name", "is required: people look for it in lists");
        }
    }

    /// The questions of a node's `when`: one, or a list of which all must hold.
    fn conditions(&mut self, node: &Node, path: &str) -> Box<[Condition]> {
        let Some(when) = entry(node, "when") else { return Box::default() };
        match header::conditions(when) {
            Ok(conditions) => conditions,
            Err(message) => {
                self.problem(when, &format!("{path}.when"), message);
                Box::default()
            }
        }
    }
}

/// The panel that an item of a grid shows.
fn panel_of(item: &Node) -> Option<&str> {
    word(entry(item, "content")?, "$ref")?.strip_prefix("#/spec/panels/")
}
