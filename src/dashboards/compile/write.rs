//! The dashboard is written into a script, and everything in it is looked at on the way.

use super::super::placeholder::{Condition, Place, json};
use super::super::query::{self, Piece};
use super::super::template::{Op, Script};
use super::super::workload::{Kind, Workload};
use super::{Compiler, Node, Source, Value, elements, entries, entry, panel_of, sample_workloads, word};

/// What an object is, as far as it decides where values may stand in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Plain,
    /// `display`: name and description.
    Display,
    /// `links`: name, tooltip and url.
    Link,
    /// An element of `queries`, and its spec.
    Query,
    QuerySpec,
    /// The specs of plugins.
    SeriesQuery,
    PromQlVariable,
    LabelVariable,
    Selectors,
    Markdown,
}

/// What a single value is.
#[derive(Clone, Copy)]
enum Single {
    Fixed,
    Words(Place),
    PromQl { selector: bool },
}

const SPEC: [&str; 7] = ["display", "duration", "refreshInterval", "links", "variables", "panels", "layouts"];
const PROMETHEUS: &str = "PrometheusTimeSeriesQuery";

impl Within {
    /// What stands under a key of an object of some kind.
    fn under(self, key: &str, kind: &str) -> Self {
        match (self, key) {
            (Self::LabelVariable, "matchers") => Self::Selectors,
            (_, "display") => Self::Display,
            (_, "links") => Self::Link,
            (_, "queries") => Self::Query,
            (Self::Query, "spec") => Self::QuerySpec,
            (_, "spec") => match kind {
                PROMETHEUS => Self::SeriesQuery,
                "PrometheusPromQLVariable" => Self::PromQlVariable,
                "PrometheusLabelValuesVariable" | "PrometheusLabelNamesVariable" => Self::LabelVariable,
                "Markdown" => Self::Markdown,
                _ => Self::Plain,
            },
            _ => Self::Plain,
        }
    }

    fn single(self, key: &str) -> Single {
        match (self, key) {
            (Self::Display, "name" | "description") | (Self::Link, "name" | "tooltip") => Single::Words(Place::Text),
            (Self::Link, "url") => Single::Words(Place::Url),
            (Self::Markdown, "text") => Single::Words(Place::Markdown),
            (Self::SeriesQuery, "query") | (Self::PromQlVariable, "expr") => Single::PromQl { selector: false },
            (Self::Selectors, _) => Single::PromQl { selector: true },
            _ => Single::Fixed,
        }
    }
}

impl Compiler<'_> {
    fn literal(&mut self, text: &str) {
        self.script.text.push_str(text);
        if self.script.ops.len() > self.fence
            && let Some(Op::Literal(length)) = self.script.ops.last_mut()
        {
            *length += text.len();
            return;
        }
        self.script.ops.push(Op::Literal(text.len()));
    }

    fn string(&mut self, text: &str) {
        let mut written = String::from("\"");
        json(text, &mut written);
        written.push('"');
        self.literal(&written);
    }

    /// What is written only when some conditions hold.
    fn guarded(&mut self, conditions: &[Condition], write: impl FnOnce(&mut Self)) {
        if conditions.is_empty() {
            write(self);
            return;
        }
        let at = self.script.ops.len();
        self.script.ops.push(Op::When(conditions.into(), 0));
        self.fence = self.script.ops.len();
        write(self);
        let skip = self.script.ops.len() - at - 1;
        self.script.ops[at] = Op::When(conditions.into(), skip);
        self.fence = self.script.ops.len();
    }

    /// The name that people see, within its quotes.
    pub(super) fn display(&mut self, source: &Source) -> Script {
        let name = entry(&source.spec, "display").and_then(|display| word(display, "name")).unwrap_or_default();
        // A wrong one is told when the spec is written.
        let pieces = query::cut(name, Place::Text).unwrap_or_default();
        self.restart();
        self.pieces(&pieces);
        std::mem::take(&mut self.script)
    }

    pub(super) fn restart(&mut self) {
        self.script = Script::default();
        self.fence = 0;
    }

    fn pieces(&mut self, pieces: &[Piece]) {
        for piece in pieces {
            match piece {
                Piece::Text(text) => {
                    let mut written = String::new();
                    json(text, &mut written);
                    self.literal(&written);
                }
                Piece::Value(placeholder, place) => self.script.ops.push(Op::Value(*placeholder, *place)),
            }
        }
    }

    /// The dashboard of a template and the parts that it takes in, in the order in which they stand.
    pub(super) fn spec(&mut self, own: &Source, bodies: &[&Source]) {
        self.restart();
        self.literal("{");
        self.file.clone_from(&own.file);
        self.head(&own.spec);
        self.literal("\"variables\":[");
        self.merged(bodies, "variables", |_, _| Vec::new());
        self.literal("],\"panels\":{");
        self.panels(bodies);
        self.literal("},\"layouts\":[");
        self.merged(bodies, "layouts", Self::conditions_of_layout);
        self.literal("]}");
    }

    /// What comes before variables, panels and layouts.
    fn head(&mut self, spec: &Node) {
        for (key, node) in entries(spec) {
            let path = format!("spec.{key}");
            if key == "datasources" {
                let message =
                    "a dashboard that is not stored has no datasources of its own; name a project's or a global one";
                self.problem(node, &path, message);
            } else if !SPEC.contains(&key.as_str()) {
                self.problem(node, &path, query::unknown("key", key, SPEC));
            } else if !["variables", "panels", "layouts"].contains(&key.as_str()) {
                self.string(key);
                self.literal(":");
                self.value(node, &path, Within::Plain.under(key, ""), Single::Fixed);
                self.literal(",");
            }
        }
        let settings = self.settings;
        for (key, value) in [("duration", &settings.duration), ("refreshInterval", &settings.refresh_interval)] {
            if entry(spec, key).is_none() {
                self.literal(&format!("\"{key}\":\"{value}\","));
            }
        }
    }

    /// The elements of a list of all bodies.
    fn merged(&mut self, bodies: &[&Source], key: &str, more: impl Fn(&Self, &Node) -> Vec<Condition>) {
        for body in bodies {
            self.file.clone_from(&body.file);
            let other = |node: &&Node| !matches!(node.value, Value::List(_) | Value::Nothing);
            if let Some(node) = entry(&body.spec, key).filter(other) {
                self.problem(node, &format!("spec.{key}"), "expected a list");
            }
            for (index, element) in elements(entry(&body.spec, key)).iter().enumerate() {
                let path = format!("spec.{key}[{index}]");
                let mut conditions = self.conditions(element, &path).into_vec();
                conditions.extend(&body.header.when_of_part);
                conditions.extend(more(self, element));
                self.guarded(&conditions, |this| {
                    this.script.ops.push(Op::Comma);
                    this.value(element, &path, Within::Plain, Single::Fixed);
                });
            }
        }
    }

    /// A row of which every panel is left out is left out itself.
    fn conditions_of_layout(&self, layout: &Node) -> Vec<Condition> {
        let items = elements(entry(layout, "spec").and_then(|spec| entry(spec, "items")));
        let of = |item: &Node| panel_of(item).and_then(|key| self.panels.get(key)).map(|panel| &panel.conditions);
        let Some(first) = items.first().and_then(of) else { return Vec::new() };
        if items.iter().all(|item| of(item) == Some(first)) { first.to_vec() } else { Vec::new() }
    }

    fn panels(&mut self, bodies: &[&Source]) {
        for body in bodies {
            self.file.clone_from(&body.file);
            for (key, panel) in entry(&body.spec, "panels").map_or(&[][..], entries) {
                let path = format!("spec.panels.{key}");
                let spec = entry(panel, "spec");
                let below = |key: &str| spec.and_then(|spec| entry(spec, key));
                if word(panel, "kind") != Some("Panel") {
                    self.problem(panel, &path, "kind: Panel is required");
                }
                if below("display").and_then(|display| word(display, "name")).is_none() {
                    self.problem(panel, &format!("{path}.spec.display.name"), "is required: a panel has a title");
                }
                if below("plugin").and_then(|plugin| word(plugin, "kind")).is_none() {
                    self.problem(panel, &format!("{path}.spec.plugin.kind"), "is required, such as TimeSeriesChart");
                }
                let conditions = self.panels.get(key).map(|panel| panel.conditions.clone()).unwrap_or_default();
                self.guarded(&conditions, |this| {
                    this.script.ops.push(Op::Comma);
                    this.string(key);
                    this.literal(":");
                    this.value(panel, &path, Within::Plain, Single::Fixed);
                });
            }
        }
    }

    fn value(&mut self, node: &Node, path: &str, within: Within, single: Single) {
        match &node.value {
            Value::Nothing => self.literal("null"),
            Value::Word(text) => self.single(node, text, path, single),
            Value::List(list) => {
                self.literal("[");
                for (index, element) in list.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    let mut conditions = self.conditions(element, &path).into_vec();
                    let panel = panel_of(element).and_then(|key| self.panels.get(key));
                    conditions.extend(panel.iter().flat_map(|panel| &panel.conditions));
                    self.guarded(&conditions, |this| {
                        this.script.ops.push(Op::Comma);
                        this.value(element, &path, within, within.single(""));
                    });
                }
                self.literal("]");
            }
            Value::Map(map) => self.object(map, path, within),
        }
    }

    fn object(&mut self, map: &[(String, Node)], path: &str, within: Within) {
        let kind = map.iter().find(|(key, _)| key == "kind").map(|(_, node)| &node.value);
        let kind = if let Some(Value::Word(kind)) = kind { kind.as_str() } else { "" };
        // `when` stands where elements of lists and panels are looked at; anywhere else it would do nothing.
        let element = path.ends_with(']') || path.strip_prefix("spec.panels.").is_some_and(|key| !key.contains('.'));
        self.literal("{");
        let mut comma = "";
        for (key, node) in map {
            let path = format!("{path}.{key}");
            if key == "when" {
                if !element {
                    self.problem(node, &path, "when stands only on panels and on elements of lists");
                }
                continue;
            }
            if within == Within::QuerySpec && key == "plugin" && word(node, "kind") != Some(PROMETHEUS) {
                self.problem(node, &path, format!("only queries of kind {PROMETHEUS} can be confined"));
            }
            self.literal(comma);
            comma = ",";
            self.string(key);
            self.literal(":");
            self.value(node, &path, within.under(key, kind), within.single(key));
        }
        let has = |key: &str| map.iter().any(|(known, _)| known == key);
        // Who looks at the same must ask the same.
        if within == Within::SeriesQuery && !has("minStep") {
            self.literal(&format!("{comma}\"minStep\":\"{}\"", self.settings.min_step));
            comma = ",";
        }
        let asks = matches!(within, Within::SeriesQuery | Within::PromQlVariable | Within::LabelVariable);
        if let Some(name) = self.settings.datasource.as_ref().filter(|_| asks && !has("datasource")) {
            let datasource = format!("{comma}\"datasource\":{{\"kind\":\"PrometheusDatasource\",\"name\":\"{name}\"}}");
            self.literal(&datasource);
        }
        self.literal("}");
    }

    fn single(&mut self, node: &Node, text: &str, path: &str, single: Single) {
        let pieces = match single {
            Single::Fixed => {
                if text.contains("<<") {
                    let message =
                        "a placeholder cannot stand here; it can in names, descriptions, Markdown, links and queries";
                    self.problem(node, path, message);
                }
                match plain(text).filter(|_| !node.text) {
                    Some(Ok(value)) => self.literal(value),
                    Some(Err(message)) => self.problem(node, path, message),
                    None => self.string(text),
                }
                return;
            }
            Single::Words(place) => query::cut(text, place),
            Single::PromQl { .. } => query::cut_promql(text),
        };
        let outcome = pieces.and_then(|pieces| {
            let (variables, lenient) = (&self.variables, self.lenient);
            for piece in &pieces {
                if let Piece::Text(text) = piece {
                    query::check_variables(text, &|name| lenient || variables.contains(name))?;
                }
            }
            if let Single::PromQl { selector } = single
                && !self.trusted
            {
                for workload in sample_workloads(Kind::Job) {
                    query::check(&written(&pieces, &workload), selector)?;
                }
            }
            Ok(pieces)
        });
        match outcome {
            Ok(pieces) => {
                self.literal("\"");
                self.pieces(&pieces);
                self.literal("\"");
            }
            Err(message) => self.problem(node, path, message),
        }
    }
}

/// What pieces become for a workload, as whoever reads the JSON gets it.
fn written(pieces: &[Piece], workload: &Workload) -> String {
    let mut out = String::from("\"");
    for piece in pieces {
        match piece {
            Piece::Text(text) => json(text, &mut out),
            Piece::Value(placeholder, place) => placeholder.write(workload, *place, &mut out),
        }
    }
    out.push('"');
    serde_json::from_str(&out).unwrap_or_default()
}

/// A value without quotes that is no text: true, false, or a number as JSON writes it.
fn plain(text: &str) -> Option<Result<&str, String>> {
    if matches!(text, "true" | "false") {
        return Some(Ok(text));
    }
    let looks = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'))
        && text.bytes().any(|b| b.is_ascii_digit());
    if !looks {
        return None;
    }
    if serde_json::from_str::<serde_json::Number>(text).is_ok() {
        return Some(Ok(text));
    }
    Some(Err(format!("{text:?} is no number of JSON; put it in quotes if it is text")))
}
