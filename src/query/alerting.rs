//! Which rules and alerts of a backend may be shown: those whose own label names a namespace within reach.
//!
//! The backend is asked with a matcher too, but takes a rule whose label is a template for matching, and `alerts` has no
//! matcher at all; so what comes is judged here, whoever filtered it before. What is kept is kept byte for byte, known or
//! not. What belongs to no rule and is not known is left out, as are paths of rule files.

use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::answers::nonsense;
use super::quiet::quiet;
use crate::refusal::Refusal;

/// Who asks, as far as an answer is concerned.
pub(super) struct Sight<'s> {
    /// The label that names the namespace.
    pub(super) label: &'s str,
    /// Whether a namespace is within reach.
    pub(super) reaches: &'s dyn Fn(&str) -> bool,
    /// Everything may be read, also what names no namespace.
    pub(super) everything: bool,
}

/// Filters the answer of `rules`.
///
/// # Errors
/// 502 for anything that is not read in one way.
pub(super) fn rules(body: &[u8], sight: &Sight<'_>) -> Result<Vec<u8>, Refusal> {
    answer(body, sight, "groups", &|group| sight.group(group))
}

/// Filters the answer of `alerts`.
///
/// # Errors
/// As [`rules`].
pub(super) fn alerts(body: &[u8], sight: &Sight<'_>) -> Result<Vec<u8>, Refusal> {
    answer(body, sight, "alerts", &|alert| Ok(sight.owns(&fields(alert)?)?.then(|| alert.get().to_owned())))
}

type Raw<'a> = &'a RawValue;

/// What becomes of an element: the text to write, or nothing.
type Keep<'k> = dyn Fn(Raw<'_>) -> Result<Option<String>, serde_json::Error> + 'k;

fn answer(body: &[u8], sight: &Sight<'_>, list: &str, keep: &Keep<'_>) -> Result<Vec<u8>, Refusal> {
    filter(body, sight, list, keep).map_err(nonsense)
}

fn filter(body: &[u8], sight: &Sight<'_>, list: &str, keep: &Keep<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let top: Fields<'_> = serde_json::from_slice(body)?;
    if top.get("status").map(RawValue::get) != Some("\"success\"") {
        return Err(de::Error::custom("no success"));
    }
    let data = fields(top.get("data").ok_or_else(|| de::Error::missing_field("data"))?)?;
    let mut inner = Out::default();
    for (name, value) in &data.0 {
        if name == list {
            inner.field(name, &elements(value, keep)?);
        } else if sight.everything || name == "groupNextToken" || !value.get().starts_with(['"', '[', '{']) {
            inner.field(name, value.get());
        }
    }
    let mut out = Out::default();
    out.field("status", "\"success\"");
    out.field("data", &inner.end());
    for name in ["warnings", "infos"] {
        if let Some(value) = top.get(name) {
            let mut texts: Vec<String> = serde_json::from_str(value.get())?;
            quiet(&mut texts);
            out.field(name, &serde_json::to_string(&texts)?);
        }
    }
    Ok(out.end().into_bytes())
}

impl Sight<'_> {
    /// A group with its own rules; none without any. Its file is a path on the server.
    fn group(&self, group: Raw<'_>) -> Result<Option<String>, serde_json::Error> {
        if self.everything {
            return Ok(Some(group.get().to_owned()));
        }
        let group = fields(group)?;
        let mut out = Out::default();
        let mut any = false;
        for (name, value) in &group.0 {
            match name.as_str() {
                "rules" => {
                    let kept = elements(value, &|rule| self.rule(rule))?;
                    any = kept != "[]";
                    out.field(name, &kept);
                }
                "file" => out.field(name, "\"\""),
                _ => out.field(name, value.get()),
            }
        }
        Ok(any.then(|| out.end()))
    }

    /// A rule whose own label is within reach, with those of its alerts of which the same is true.
    fn rule(&self, rule: Raw<'_>) -> Result<Option<String>, serde_json::Error> {
        let parts = fields(rule)?;
        if !self.owns(&parts)? {
            return Ok(None);
        }
        let Some(alerts) = parts.get("alerts") else { return Ok(Some(rule.get().to_owned())) };
        let kept = elements(alerts, &|alert| Ok(self.owns(&fields(alert)?)?.then(|| alert.get().to_owned())))?;
        let mut out = Out::default();
        for (name, value) in &parts.0 {
            out.field(name, if name == "alerts" { &kept } else { value.get() });
        }
        Ok(Some(out.end()))
    }

    /// Whether the labels of a rule or an alert name a namespace within reach.
    fn owns(&self, thing: &Fields<'_>) -> Result<bool, serde_json::Error> {
        if self.everything {
            return Ok(true);
        }
        let Some(labels) = thing.get("labels").filter(|labels| labels.get() != "null") else { return Ok(false) };
        let Some(owner) = fields(labels)?.get(self.label) else { return Ok(false) };
        let owner: String = serde_json::from_str(owner.get())?;
        Ok(!owner.is_empty() && (self.reaches)(&owner))
    }
}

/// The kept elements of a list, or of `null`, which is none.
fn elements(list: Raw<'_>, keep: &Keep<'_>) -> Result<String, serde_json::Error> {
    let elements: Option<Vec<Raw<'_>>> = serde_json::from_str(list.get())?;
    let mut out = String::from("[");
    for element in elements.unwrap_or_default() {
        if let Some(kept) = keep(element)? {
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str(&kept);
        }
    }
    out.push(']');
    Ok(out)
}

/// An object, its fields in their order and not looked into. A name that stands twice could be read in two ways.
struct Fields<'a>(Vec<(String, Raw<'a>)>);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<Raw<'a>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

fn fields(object: Raw<'_>) -> Result<Fields<'_>, serde_json::Error> {
    serde_json::from_str(object.get())
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Fields<'de>, A::Error> {
                let mut found: Vec<(String, Raw<'de>)> = Vec::new();
                while let Some(pair) = access.next_entry()? {
                    found.push(pair);
                }
                let mut names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
                names.sort_unstable();
                if names.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Err(de::Error::custom("a name that stands twice"));
                }
                Ok(Fields(found))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// An object that is being written.
#[derive(Default)]
struct Out(String);

impl Out {
    fn field(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&serde_json::Value::from(name).to_string());
        self.0.push(':');
        self.0.push_str(value);
    }

    fn end(self) -> String {
        if self.0.is_empty() { "{}".to_owned() } else { self.0 + "}" }
    }
}

#[cfg(test)]
mod tests;
