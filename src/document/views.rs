//! What readers are sent: without what would act in their browser, without addresses that are not theirs to know, and the
//! documents that stand for what Perses has not stored.

use serde_json::{Map, Value, json};

use super::rules::{has_active_link, is_active_url, is_empty, is_link_key};
use super::strict::fold;
use super::{Malformed, read_strict};
use crate::names::{Namespace, ObjectName};

const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Whether [`strip`] might find something in a document's bytes. `false` is certain.
///
/// Every answer is looked through, so this goes over the bytes three times for one rare letter and reads on from there only.
#[must_use]
pub fn may_need_strip(bytes: &[u8]) -> bool {
    let stands = |at: usize, before: usize, word: &[u8]| {
        let start = at.checked_sub(before);
        start.and_then(|start| bytes.get(start..start + word.len())).is_some_and(|text| text.eq_ignore_ascii_case(word))
    };
    memchr::memchr2_iter(b'c', b'C', bytes)
        .any(|at| stands(at, 1, b"script") || stands(at, 1, b"actions") || stands(at, 4, b"directurl"))
        || memchr::memchr2_iter(b'd', b'D', bytes).any(|at| stands(at, 0, b"data:"))
        || memchr::memchr_iter(b'\\', bytes).any(|at| is_odd_escape(bytes, at))
}

/// Anything may be spelt in escapes, of which Go writes only a few on its own, and a scheme may be split by escaped white
/// space.
fn is_odd_escape(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at + 1) {
        Some(b'u') => {
            let code = bytes.get(at + 2..at + 6).unwrap_or_default().to_ascii_lowercase();
            !matches!(code.as_slice(), b"003c" | b"003e" | b"0026" | b"2028" | b"2029")
        }
        Some(b't' | b'n' | b'r' | b'b' | b'f') => {
            let around = &bytes[at.saturating_sub(16)..(at + 16).min(bytes.len())];
            memchr::memchr(b':', around).is_some()
        }
        _ => false,
    }
}

/// Leaves out of a stored document what nobody may store through us: `directUrl`, `actions`, links that run scripts.
/// Says whether there was anything.
pub fn strip(document: &mut Value) -> bool {
    let mut changed = false;
    match document {
        Value::Object(map) => {
            let before = map.len();
            map.retain(|key, value| !is_hidden(key, value));
            changed |= map.len() != before;
            for value in map.values_mut() {
                changed |= strip(value);
            }
        }
        Value::Array(values) => {
            for value in values {
                changed |= strip(value);
            }
        }
        _ => {}
    }
    changed
}

fn is_hidden(key: &str, value: &Value) -> bool {
    let folded = fold(key);
    if folded == "directurl" || (folded == "actions" && !is_empty(value)) {
        return true;
    }
    let Some(text) = value.as_str() else { return false };
    (is_link_key(key) && is_active_url(text)) || (folded == "text" && has_active_link(text))
}

/// Puts back what [`strip`] left out, where its place still stands: an object by its key, an element of a list by its
/// position, if the list is as long as it was.
pub(super) fn restore(target: &mut Value, stored: &Value) {
    match (target, stored) {
        (Value::Object(target), Value::Object(stored)) => {
            for (key, value) in stored {
                if is_hidden(key, value) {
                    target.entry(key.clone()).or_insert_with(|| value.clone());
                } else if let Some(inner) = target.get_mut(key) {
                    restore(inner, value);
                }
            }
        }
        (Value::Array(target), Value::Array(stored)) if target.len() == stored.len() => {
            for (target, stored) in target.iter_mut().zip(stored) {
                restore(target, stored);
            }
        }
        _ => {}
    }
}

/// Leaves out of a global datasource where it points and with what.
pub fn blank_global_datasource(document: &mut Value) {
    if let Some(spec) = document.pointer_mut("/spec/plugin/spec") {
        blank(spec);
    }
}

fn blank(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !matches!(fold(key).as_str(), "headers" | "queryparams" | "secret" | "directurl"));
            for (key, value) in map.iter_mut() {
                if fold(key) == "url" {
                    *value = Value::String(String::new());
                } else {
                    blank(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(blank),
        _ => {}
    }
}

/// The project that a namespace is, as Perses would store it.
#[must_use]
pub fn virtual_project(namespace: &Namespace) -> Value {
    json!({
        "kind": "Project",
        "metadata": { "name": namespace.as_str(), "createdAt": ZERO_TIME, "updatedAt": ZERO_TIME, "version": 0 },
        "spec": {},
    })
}

/// A backend that shows itself as a global datasource; where it points is nobody's business.
#[must_use]
pub fn virtual_global_datasource(name: &ObjectName, default: bool) -> Value {
    json!({
        "kind": "GlobalDatasource",
        "metadata": { "name": name.as_str(), "createdAt": ZERO_TIME, "updatedAt": ZERO_TIME, "version": 0 },
        "spec": {
            "default": default,
            "plugin": {
                "kind": "PrometheusDatasource",
                "spec": { "proxy": { "kind": "HTTPProxy", "spec": { "url": "" } } },
            },
        },
    })
}

/// What somebody should be told by the UI's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// They may change nothing.
    pub readonly: bool,
    /// A line of Markdown on the home page, before what is configured in Perses.
    pub information: Option<String>,
    /// A warning on every page, instead of what is configured in Perses.
    pub banner: Option<String>,
}

/// What the stock UI reads of `/api/config`, and nothing else; the login it describes is ours.
///
/// # Errors
/// When upstream's answer is no JSON object.
pub fn minimal_config(upstream: &[u8], told: &Told) -> Result<Vec<u8>, Malformed> {
    let upstream = read_strict(upstream)?;
    if !upstream.is_object() {
        return Err(Malformed { message: "the configuration is no object".to_owned() });
    }
    let flag = |pointer: &str| upstream.pointer(pointer).and_then(Value::as_bool).unwrap_or(false);
    let mut frontend = Map::new();
    frontend.insert("disable".to_owned(), Value::Bool(flag("/frontend/disable")));
    frontend.insert("explorer".to_owned(), json!({ "enable": flag("/frontend/explorer/enable") }));
    frontend.insert(
        "enable_keyboard_shortcuts".to_owned(),
        Value::Bool(upstream.pointer("/frontend/enable_keyboard_shortcuts").and_then(Value::as_bool).unwrap_or(true)),
    );
    let stored = upstream.pointer("/frontend/information").and_then(Value::as_str);
    // A blank line ends a paragraph of Markdown.
    let information: Vec<&str> = told.information.as_deref().into_iter().chain(stored).collect();
    if !information.is_empty() {
        frontend.insert("information".to_owned(), Value::String(information.join("\n\n")));
    }
    if let Some(dashboards) = upstream.pointer("/frontend/important_dashboards").and_then(Value::as_array) {
        let pick = |entry: &Value| {
            Some(json!({ "project": entry.get("project")?.as_str()?, "dashboard": entry.get("dashboard")?.as_str()? }))
        };
        frontend.insert("important_dashboards".to_owned(), dashboards.iter().filter_map(pick).collect());
    }
    if let Some(banner) = upstream.pointer("/frontend/banner").and_then(Value::as_object) {
        let banner: Map<String, Value> = banner
            .iter()
            .filter(|(key, value)| ["severity", "message"].contains(&key.as_str()) && value.is_string())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        frontend.insert("banner".to_owned(), Value::Object(banner));
    }
    if let Some(text) = &told.banner {
        frontend.insert("banner".to_owned(), json!({ "severity": "warning", "message": text }));
    }
    if let Some(range) = upstream.pointer("/frontend/time_range").and_then(Value::as_object) {
        let range: Map<String, Value> = range
            .iter()
            .filter(|(key, value)| {
                ["disable_custom", "disable_zoom", "options"].contains(&key.as_str())
                    && (value.is_boolean() || value.as_array().is_some_and(|list| list.iter().all(Value::is_string)))
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        frontend.insert("time_range".to_owned(), Value::Object(range));
    }
    let config = json!({
        "security": {
            "enable_auth": true,
            "readonly": told.readonly || flag("/security/readonly"),
            "authentication": {
                "disable_sign_up": true,
                "providers": { "enable_native": false, "oauth": [], "oidc": [], "kubernetes": { "enable": true } },
            },
        },
        "database": { "file": { "case_sensitive": false } },
        "datasource": {
            "global": { "disable": flag("/datasource/global/disable") },
            "project": { "disable": flag("/datasource/project/disable") },
            "disable_local": flag("/datasource/disable_local"),
        },
        "variable": {
            "global": { "disable": flag("/variable/global/disable") },
            "project": { "disable": flag("/variable/project/disable") },
        },
        "ephemeral_dashboard": { "enable": flag("/ephemeral_dashboard/enable") },
        "frontend": frontend,
        "plugin": {},
    });
    Ok(config.to_string().into_bytes())
}
