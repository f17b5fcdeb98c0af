//! One section of the file while it is being read: every key is taken once, what is left over is unknown, every problem is
//! kept, and every setting leaves a line of what is in effect.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::decode::Surroundings;
use super::{tls, units};
use crate::dashboards::TemplateProblem;
use crate::names;
use crate::yaml::{Node, Problem, Value};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// What reading leaves behind.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) problems: Vec<Problem>,
    /// Path and value of each setting in effect, in order.
    pub(super) effective: Vec<(String, String)>,
    /// What is wrong with files of templates, which keeps nothing else out of use.
    pub(super) templates: Vec<TemplateProblem>,
}

pub(super) struct Section<'n> {
    path: String,
    line: usize,
    column: usize,
    entries: Vec<(&'n str, &'n Node, bool)>,
    known: Vec<&'static str>,
}

impl<'n> Section<'n> {
    /// The whole file.
    pub(super) fn root(node: &'n Node, notes: &mut Notes) -> Self {
        Self::of(node, String::new(), notes)
    }

    pub(super) fn of(node: &'n Node, path: String, notes: &mut Notes) -> Self {
        let entries = match &node.value {
            Value::Map(map) => map.iter().map(|(key, node)| (key.as_str(), node, false)).collect(),
            Value::Nothing => Vec::new(),
            other => {
                notes.problems.push(Problem::new(
                    node.line,
                    node.column,
                    &path,
                    format!("expected a section with keys, not {}", other.words()),
                ));
                Vec::new()
            }
        };
        Self { path, line: node.line, column: node.column, entries, known: Vec::new() }
    }

    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(known, ..)| *known == key)
    }

    fn take(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        let entry = self.entries.iter_mut().find(|(known, ..)| *known == key)?;
        entry.2 = true;
        (!matches!(entry.1.value, Value::Nothing)).then_some(entry.1)
    }

    /// A problem with a key of this section, or with the section where the key is missing.
    pub(super) fn problem(&self, notes: &mut Notes, key: &str, message: impl Into<String>) {
        let place = self.entries.iter().find(|(known, ..)| *known == key);
        let (line, column) = place.map_or((self.line, self.column), |(_, node, _)| (node.line, node.column));
        notes.problems.push(Problem::new(line, column, &self.path(key), message));
    }

    /// A problem with the section itself.
    pub(super) fn problem_here(&self, notes: &mut Notes, message: impl Into<String>) {
        notes.problems.push(Problem::new(self.line, self.column, &self.path, message));
    }

    /// Whether there is a key that nobody took.
    pub(super) fn has_unknown(&self) -> bool {
        self.entries.iter().any(|(.., taken)| !taken)
    }

    /// A section below this one; empty if it is not there.
    pub(super) fn section(&mut self, key: &'static str, notes: &mut Notes) -> Section<'n> {
        let path = self.path(key);
        match self.take(key) {
            Some(node) => Section::of(node, path, notes),
            None => Section { path, line: self.line, column: self.column, entries: Vec::new(), known: Vec::new() },
        }
    }

    /// Sections below this one under names that are chosen freely.
    pub(super) fn named(&mut self, key: &'static str, notes: &mut Notes) -> Vec<(&'n str, Section<'n>)> {
        let mut outer = self.section(key, notes);
        let mut found = Vec::new();
        for (name, node, taken) in &mut outer.entries {
            *taken = true;
            found.push((*name, Section::of(node, format!("{}.{name}", outer.path), notes)));
        }
        found
    }

    /// The tree of a key, as it stands.
    pub(super) fn node(&mut self, key: &'static str) -> Option<&'n Node> {
        self.take(key)
    }

    /// The sections of a list below this one.
    pub(super) fn sections(&mut self, key: &'static str, notes: &mut Notes) -> Vec<Section<'n>> {
        let path = self.path(key);
        let Some(node) = self.take(key) else { return Vec::new() };
        let Value::List(list) = &node.value else {
            self.problem(notes, key, format!("expected a list, not {}", node.value.words()));
            return Vec::new();
        };
        list.iter().enumerate().map(|(index, node)| Section::of(node, format!("{path}[{index}]"), notes)).collect()
    }

    /// A word, as it stands.
    fn word(&mut self, key: &'static str, notes: &mut Notes) -> Option<&'n str> {
        let node = self.take(key)?;
        match &node.value {
            Value::Word(text) => Some(text),
            other => {
                self.problem(notes, key, format!("expected a single value, not {}", other.words()));
                None
            }
        }
    }

    /// A value read by `read`, or the default; `write` says how it is printed.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        default: T,
        notes: &mut Notes,
        read: impl FnOnce(&str) -> Result<T, String>,
        write: impl FnOnce(&T) -> String,
    ) -> T {
        let value = match self.word(key, notes) {
            None => default,
            Some(text) => match read(text) {
                Ok(value) => value,
                Err(message) => {
                    self.problem(notes, key, message);
                    default
                }
            },
        };
        notes.effective.push((self.path(key), write(&value)));
        value
    }

    /// A value that may be left out.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        notes: &mut Notes,
        read: impl FnOnce(&str) -> Result<T, String>,
        write: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        self.value(
            key,
            None,
            notes,
            |text| read(text).map(Some),
            |value| value.as_ref().map_or_else(String::new, write),
        )
    }

    /// A value that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        notes: &mut Notes,
        read: impl FnOnce(&str) -> Result<T, String>,
        write: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let there = self.has(key);
        let value = self.optional(key, notes, read, write);
        if !there {
            self.problem(notes, key, "is required");
        }
        value
    }

    pub(super) fn flag(&mut self, key: &'static str, default: bool, notes: &mut Notes) -> bool {
        let read = |text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(format!("expected true or false, not {other:?}")),
        };
        self.value(key, default, notes, read, ToString::to_string)
    }

    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: (Duration, Duration),
        notes: &mut Notes,
    ) -> Duration {
        self.value(key, default, notes, within(range), |value| units::write_duration(*value))
    }

    pub(super) fn optional_duration(
        &mut self,
        key: &'static str,
        range: (Duration, Duration),
        notes: &mut Notes,
    ) -> Option<Duration> {
        self.optional(key, notes, within(range), |value| units::write_duration(*value))
    }

    pub(super) fn size(
        &mut self,
        key: &'static str,
        default: usize,
        range: (usize, usize),
        notes: &mut Notes,
    ) -> usize {
        let read = |text: &str| {
            let value = units::size(text)?;
            if value < range.0 || value > range.1 {
                return Err(format!("must be from {} to {}", units::write_size(range.0), units::write_size(range.1)));
            }
            Ok(value)
        };
        self.value(key, default, notes, read, |value| units::write_size(*value))
    }

    pub(super) fn count<T>(&mut self, key: &'static str, default: T, range: (T, T), notes: &mut Notes) -> T
    where
        T: Copy + PartialOrd + std::fmt::Display + std::str::FromStr,
    {
        let read = |text: &str| {
            let value: T = text.parse().map_err(|_| format!("expected a whole number, not {text:?}"))?;
            if value < range.0 || value > range.1 {
                return Err(format!("must be from {} to {}", range.0, range.1));
            }
            Ok(value)
        };
        self.value(key, default, notes, read, ToString::to_string)
    }

    pub(super) fn file(&mut self, key: &'static str, notes: &mut Notes) -> Option<PathBuf> {
        let read = |text: &str| {
            if text.is_empty() { Err("expected a file's path".to_owned()) } else { Ok(PathBuf::from(text)) }
        };
        self.optional(key, notes, read, |path| path.display().to_string())
    }

    /// The bytes of a file that must be there; an unreadable one is a problem with its key.
    pub(super) fn contents(
        &self,
        key: &str,
        path: &Path,
        around: &dyn Surroundings,
        notes: &mut Notes,
    ) -> Option<Vec<u8>> {
        if around.is_elsewhere() {
            return None;
        }
        match around.file(path) {
            Ok(bytes) if bytes.len() <= 4 << 20 => Some(bytes),
            Ok(_) => {
                self.problem(notes, key, format!("{} is larger than 4 MiB", path.display()));
                None
            }
            Err(error) => {
                self.problem(notes, key, format!("{} cannot be read: {error}", path.display()));
                None
            }
        }
    }

    /// The bytes of a file that must hold certificate authorities.
    pub(super) fn authorities(
        &self,
        key: &str,
        path: &Path,
        around: &dyn Surroundings,
        notes: &mut Notes,
    ) -> Option<Vec<u8>> {
        let pem = self.contents(key, path, around, notes)?;
        match tls::authorities(&pem) {
            Ok(_) => Some(pem),
            Err(problem) => {
                self.problem(notes, key, format!("{} {problem}", path.display()));
                None
            }
        }
    }

    /// A list of words.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        notes: &mut Notes,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(node) = self.take(key) else {
            notes.effective.push((self.path(key), "[]".to_owned()));
            return Vec::new();
        };
        let Value::List(list) = &node.value else {
            self.problem(notes, key, format!("expected a list, not {}", node.value.words()));
            return Vec::new();
        };
        let (mut values, mut words) = (Vec::new(), Vec::new());
        for (index, item) in list.iter().enumerate() {
            let outcome = match &item.value {
                Value::Word(text) => read(text).inspect(|_| words.push(quote(text))),
                other => Err(format!("expected a single value, not {}", other.words())),
            };
            match outcome {
                Ok(value) => values.push(value),
                Err(message) => {
                    let path = format!("{}[{index}]", self.path(key));
                    notes.problems.push(Problem::new(item.line, item.column, &path, message));
                }
            }
        }
        notes.effective.push((self.path(key), format!("[{}]", words.join(", "))));
        values
    }

    /// Free keys with single values.
    pub(super) fn pairs(&mut self, key: &'static str, notes: &mut Notes) -> Vec<(String, String)> {
        let mut inner = self.section(key, notes);
        let mut pairs = Vec::new();
        for (name, node, taken) in &mut inner.entries {
            *taken = true;
            match &node.value {
                Value::Word(text) => pairs.push(((*name).to_owned(), text.clone())),
                other => notes.problems.push(Problem::new(
                    node.line,
                    node.column,
                    &format!("{}.{name}", inner.path),
                    format!("expected a single value, not {}", other.words()),
                )),
            }
        }
        let words: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{}: {}", quote(name), quote(value))).collect();
        notes.effective.push((self.path(key), format!("{{{}}}", words.join(", "))));
        pairs
    }

    /// A key that belongs in another file.
    pub(super) fn foreign(&mut self, key: &'static str, notes: &mut Notes, message: &str) {
        if self.take(key).is_some() || self.has(key) {
            self.problem(notes, key, message);
        }
    }

    /// Keys that will exist, and the one spelling of a secret that must not.
    pub(super) fn reserved(&mut self, keys: &[&'static str], notes: &mut Notes) {
        for key in keys {
            if let Some((_, node, taken)) = self.entries.iter_mut().find(|(known, ..)| known == key) {
                *taken = true;
                let path = if self.path.is_empty() { (*key).to_owned() } else { format!("{}.{key}", self.path) };
                notes.problems.push(Problem::new(
                    node.line,
                    node.column,
                    &path,
                    "reserved: this version does not have it yet",
                ));
            }
        }
    }

    /// Ends the section: whatever nobody took is unknown.
    pub(super) fn finish(self, notes: &mut Notes) {
        for (key, node, taken) in &self.entries {
            if *taken {
                continue;
            }
            let secret = format!("{key}_file");
            let message = if self.known.iter().any(|known| **known == secret) {
                format!("unknown key {key:?}; a secret is given as the path of a file, by {secret:?}")
            } else {
                match names::nearest(key, self.known.iter().copied()) {
                    Some(near) => format!("unknown key {key:?}, did you mean {near:?}?"),
                    None => format!("unknown key {key:?}; known here: {}", self.known.join(", ")),
                }
            };
            notes.problems.push(Problem::new(node.line, node.column, &self.path(key), message));
        }
    }
}

/// Reads a length of time that must be in a range.
fn within((least, most): (Duration, Duration)) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let value = units::duration(text)?;
        if value < least || value > most {
            return Err(format!("must be from {} to {}", units::write_duration(least), units::write_duration(most)));
        }
        Ok(value)
    }
}

/// Reads any word, as it stands.
pub(super) fn word(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// A word in YAML that reads back as itself.
pub(super) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
