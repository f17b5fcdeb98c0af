//! What stands beside `spec`: `template`, or `part`.

use super::super::placeholder::{Condition, Fact};
use super::super::query::unknown;
use super::super::template::Target;
use super::super::workload::{Engine, Kind};
use super::{Node, Problem, Value, entries, entry};

/// The version of the format that is read.
const VERSION: &str = "1";
const ROOT: [&str; 5] = ["template", "part", "kind", "metadata", "spec"];

/// `template` or `part`.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Header {
    pub(in super::super) part: bool,
    pub(in super::super) name: String,
    pub(in super::super) title: String,
    pub(in super::super) description: String,
    pub(in super::super) order: u16,
    pub(in super::super) targets: Vec<Target>,
    /// Of a template: what must hold for a workload to get it.
    pub(in super::super) when: Box<[Condition]>,
    /// Of a part: what must hold for all that it brings.
    pub(in super::super) when_of_part: Vec<Condition>,
    /// Of a part: whether it stands before what the template has itself.
    pub(in super::super) first: bool,
    pub(in super::super) parts: Vec<String>,
    /// Line and column of `name` and of `parts`.
    pub(in super::super) places: [(usize, usize); 2],
}

pub(super) fn read(root: &Node, problems: &mut Vec<Problem>) -> Option<Header> {
    let mut tell = |node: &Node, path: &str, message: String| {
        problems.push(Problem::new(node.line, node.column, path, message));
    };
    for (key, node) in entries(root) {
        // An exported dashboard names itself and its project; ours get their names from the workload.
        if !ROOT.contains(&key.as_str()) {
            tell(node, key, unknown("key", key, ROOT));
        }
    }
    let (what, node) = match (entry(root, "template"), entry(root, "part")) {
        (Some(node), None) => ("template", node),
        (None, Some(node)) => ("part", node),
        _ => {
            let message = "is required: version, name, title and for; or part, with version and name".to_owned();
            tell(root, "template", message);
            return None;
        }
    };
    let other = |kind: &&Node| !matches!(&kind.value, Value::Word(word) if word == "Dashboard");
    if let Some(kind) = entry(root, "kind").filter(other) {
        tell(kind, "kind", "must be Dashboard".to_owned());
    }
    let part = what == "part";
    let known: &[&str] = if part {
        &["version", "name", "when", "place"]
    } else {
        &["version", "name", "title", "description", "order", "for", "when", "parts"]
    };
    let mut header = Header { part, order: 50, ..Header::default() };
    for (key, node) in entries(node) {
        let path = format!("{what}.{key}");
        match key.as_str() {
            "name" => header.places[0] = (node.line, node.column),
            "parts" => header.places[1] = (node.line, node.column),
            _ => {}
        }
        if !known.contains(&key.as_str()) {
            tell(node, &path, unknown("key", key, known.iter().copied()));
        } else if let Err(message) = header.take(key, node) {
            tell(node, &path, message);
        }
    }
    let required: &[&str] = if part { &["version", "name"] } else { &["version", "name", "title", "for"] };
    for key in required.iter().filter(|key| entry(node, key).is_none()) {
        tell(node, &format!("{what}.{key}"), "is required".to_owned());
    }
    if part {
        header.when_of_part = std::mem::take(&mut header.when).into_vec();
    }
    Some(header)
}

impl Header {
    fn take(&mut self, key: &str, node: &Node) -> Result<(), String> {
        match key {
            "version" if word(node)? != VERSION => {
                return Err(format!("this program reads version {VERSION} of the format, not {:?}", word(node)?));
            }
            "version" => {}
            "name" => self.name = name(word(node)?)?,
            "title" => self.title = short(word(node)?, 80)?,
            "description" => self.description = short(word(node)?, 400)?,
            "order" => {
                let text = word(node)?;
                let order = text.parse().ok().filter(|order| *order <= 9999);
                self.order = order.ok_or_else(|| format!("must be a number from 0 to 9999, not {text:?}"))?;
            }
            "place" => {
                self.first = match word(node)? {
                    "first" => true,
                    "last" => false,
                    other => return Err(format!("must be first or last, not {other:?}")),
                }
            }
            "for" => self.targets = targets(node)?,
            "when" => self.when = conditions(node)?,
            _ => self.parts = words(node)?.into_iter().map(name).collect::<Result<_, _>>()?,
        }
        Ok(())
    }
}

fn word(node: &Node) -> Result<&str, String> {
    if let Value::Word(text) = &node.value { Ok(text) } else { Err("expected a single value".to_owned()) }
}

/// One word, or a list of them.
fn words(node: &Node) -> Result<Vec<&str>, String> {
    match &node.value {
        Value::List(list) => list.iter().map(word).collect(),
        _ => word(node).map(|word| vec![word]),
    }
}

fn name(text: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = !text.is_empty() && text.len() <= 24 && text.bytes().all(inner);
    if good && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(text.to_owned());
    }
    Err(format!("must be 1 to 24 lower-case letters, digits and -, not {text:?}"))
}

fn short(text: &str, most: usize) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > most || text.chars().any(char::is_control) {
        return Err(format!("must be one line of 1 to {most} characters"));
    }
    Ok(text.to_owned())
}

/// `gpus`, `"!queue"`, or a list of such.
pub(super) fn conditions(node: &Node) -> Result<Box<[Condition]>, String> {
    let condition = |text: &str| {
        let (not, word) = text.strip_prefix('!').map_or((false, text), |word| (true, word.trim_start()));
        let fact = Fact::parse(word);
        let fact = fact.ok_or_else(|| unknown("condition", word, Fact::ALL.iter().map(|fact| fact.word())))?;
        Ok(Condition { fact, not })
    };
    words(node)?.into_iter().map(condition).collect()
}

fn targets(node: &Node) -> Result<Vec<Target>, String> {
    let Value::List(list) = &node.value else {
        return Err("expected a list such as [{kind: InferenceService, engine: vLLM}]".to_owned());
    };
    let mut targets: Vec<Target> = Vec::with_capacity(list.len());
    for item in list {
        let mut found = (None, None);
        for (key, node) in entries(item) {
            let text = word(node)?;
            match key.as_str() {
                "kind" => {
                    let kinds = Kind::ALL.iter().chain([&Kind::Project]).map(|kind| kind.word());
                    found.0 = Some(Kind::parse(text).ok_or_else(|| unknown("kind", text, kinds))?);
                }
                "engine" => {
                    let engines = Engine::ALL.iter().map(|engine| engine.word());
                    found.1 = Some(Engine::parse(text).ok_or_else(|| unknown("engine", text, engines))?);
                }
                other => return Err(unknown("key", other, ["kind", "engine"])),
            }
        }
        let target = Target { kind: found.0.ok_or("each entry names a kind")?, engine: found.1 };
        if targets.contains(&target) {
            return Err(format!("{} stands twice", target.kind));
        }
        targets.push(target);
    }
    if targets.is_empty() { Err("must name at least one kind".to_owned()) } else { Ok(targets) }
}
