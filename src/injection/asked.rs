//! What the annotations of a pod say. Every key with our prefix is known, or the pod is refused: a typing error must not
//! mean "no".

use serde_json::{Map, Value};

use super::profile::{Profile, Profiles, repository};
use super::quantity::Quantity;
use super::{Refused, SIDECAR, refused};
use crate::names;

/// What our annotations begin with.
pub const PREFIX: &str = "perses-sidecar.io/";

/// What may follow on a pod.
pub const KEYS: [&str; 14] = [
    "inject",
    "container",
    "mode",
    "https-port",
    "upstream-port",
    "health-port",
    "tls-secret",
    "config",
    "cpu-request",
    "cpu-limit",
    "memory-request",
    "memory-limit",
    "log-level",
    "status",
];

/// What a pod asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Asked<'p> {
    /// No sidecar.
    No,
    /// A sidecar of this profile.
    Yes(&'p Profile),
    /// It does not say.
    AsTheNamespaceSays,
}

fn annotations(pod: &Value) -> Result<Option<&Map<String, Value>>, Refused> {
    match pod.pointer("/metadata/annotations") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => refused("metadata.annotations is no object"),
    }
}

/// Whether every key with our prefix is one of ours.
fn are_known(map: &Map<String, Value>) -> Result<(), Refused> {
    for key in map.keys() {
        let Some(word) = key.strip_prefix(PREFIX) else { continue };
        if !KEYS.contains(&word) {
            let advice = match names::nearest(word, KEYS) {
                Some(near) => format!("did you mean {PREFIX}{near}?"),
                None => format!("known on a pod: {}", KEYS.join(", ")),
            };
            return refused(format!("the annotation {key} is not known; {advice}"));
        }
    }
    Ok(())
}

pub(super) fn read<'p>(pod: &Value, profiles: &'p Profiles) -> Result<Asked<'p>, Refused> {
    let key = format!("{PREFIX}inject");
    let all = annotations(pod)?;
    let value = match all.and_then(|map| map.get(&key)) {
        // It may be the very key that is written wrongly.
        None => return all.map_or(Ok(()), are_known).map(|()| Asked::AsTheNamespaceSays),
        Some(Value::String(value)) => value,
        Some(_) => return refused(format!("the annotation {key} must be a string: \"true\", \"false\" or a profile")),
    };
    if value.eq_ignore_ascii_case("false") {
        return Ok(Asked::No);
    }
    if value.eq_ignore_ascii_case("true") {
        return Ok(Asked::Yes(profiles.default_profile()));
    }
    profiles.get(value).map(Asked::Yes).map_or_else(
        || {
            let known: Vec<String> = profiles.names().map(|name| format!("{name:?}")).collect();
            let known = if known.is_empty() { "no profile is configured".to_owned() } else { known.join(", ") };
            refused(format!("the annotation {key} must be \"true\", \"false\" or a profile ({known}), not {value:?}"))
        },
        Ok,
    )
}

/// A pod that runs or ends is not changed any more.
#[must_use]
pub fn is_past(pod: &Value) -> bool {
    let deleted = pod.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null());
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    deleted || !matches!(phase, "" | "Pending")
}

/// The pod as whoever makes it again gets it: nobody can make a pod that runs or ends already.
#[must_use]
pub fn without_past(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Value::Object(map) = &mut pod {
        map.remove("status");
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            metadata.remove("deletionTimestamp");
        }
    }
    pod
}

/// Whether a container is called `perses`, or has an image that is.
pub(super) fn is_perses(container: &Value) -> bool {
    let text = |key: &str| container.get(key).and_then(Value::as_str).unwrap_or_default();
    let image = repository(text("image"));
    let last = image.rsplit('/').next().unwrap_or_default();
    text("name") == "perses" || text("name") != SIDECAR && (last == "perses" || last.starts_with("perses-rhel"))
}

/// Perses among the init containers that go on running: started before all others, and out of our reach there.
pub(super) fn early(pod: &Value) -> impl Iterator<Item = &Value> {
    let list = pod.pointer("/spec/initContainers").and_then(Value::as_array).into_iter().flatten();
    list.filter(|container| container.get("restartPolicy").is_some_and(|policy| policy == "Always"))
        .filter(|container| is_perses(container))
}

/// Whether a pod has a container that is recognised as Perses.
#[must_use]
pub fn has_perses(pod: &Value) -> bool {
    let list = pod.pointer("/spec/containers").and_then(Value::as_array);
    list.is_some_and(|all| all.iter().any(is_perses)) || early(pod).next().is_some()
}

/// Whether a pod asks for a native sidecar, which not every Kubernetes has.
#[must_use]
pub fn is_native(pod: &Value) -> bool {
    let annotations = pod.pointer("/metadata/annotations");
    annotations.and_then(|map| map.get(format!("{PREFIX}mode"))).is_some_and(|mode| mode == "native")
}

/// How the sidecar starts and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Container,
    Native,
}

/// The annotations of one pod, each checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wishes {
    pub(super) container: Option<String>,
    pub(super) mode: Mode,
    pub(super) https_port: Option<u16>,
    pub(super) upstream_port: Option<u16>,
    pub(super) health_port: Option<u16>,
    pub(super) tls_secret: Option<String>,
    pub(super) config: Option<String>,
    pub(super) resources: [Option<Quantity>; 4],
    pub(super) log_level: Option<String>,
    pub(super) status: Option<String>,
}

/// A name of a Secret, ConfigMap or ServiceAccount (RFC 1123 subdomain).
pub(super) fn is_object_name(text: &str) -> bool {
    let part = |part: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        edge(part.as_bytes().first())
            && edge(part.as_bytes().last())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

impl Wishes {
    pub(super) fn read(pod: &Value) -> Result<Self, Refused> {
        let empty = Map::new();
        let map = annotations(pod)?.unwrap_or(&empty);
        are_known(map)?;
        let text = |word: &str| match map.get(&format!("{PREFIX}{word}")) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => refused(format!("the annotation {PREFIX}{word} must be a string")),
        };
        let port = |word: &str| match text(word)? {
            None => Ok(None),
            Some(value) => match value.parse::<u16>() {
                Ok(port) if port >= 1024 && value.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(port)),
                _ => refused(format!("the annotation {PREFIX}{word} must be a port from 1024 to 65535, not {value:?}")),
            },
        };
        let name = |word: &str| match text(word)? {
            Some(value) if !is_object_name(value) => {
                refused(format!("the annotation {PREFIX}{word} must be the name of an object, not {value:?}"))
            }
            other => Ok(other.map(str::to_owned)),
        };
        let quantity = |word: &str| {
            text(word)?
                .map(|value| {
                    Quantity::parse(value).map_err(|error| Refused(format!("the annotation {PREFIX}{word}: {error}")))
                })
                .transpose()
        };
        let mode = match text("mode")? {
            None | Some("container") => Mode::Container,
            Some("native") => Mode::Native,
            Some(other) => {
                return refused(format!("the annotation {PREFIX}mode must be container or native, not {other:?}"));
            }
        };
        let log_level = match text("log-level")? {
            None => None,
            Some(level) if ["error", "warn", "info", "debug", "trace"].contains(&level) => Some(level.to_owned()),
            Some(other) => {
                return refused(format!(
                    "the annotation {PREFIX}log-level must be error, warn, info, debug or trace, not {other:?}"
                ));
            }
        };
        Ok(Self {
            container: text("container")?.map(str::to_owned),
            mode,
            https_port: port("https-port")?,
            upstream_port: port("upstream-port")?,
            health_port: port("health-port")?,
            tls_secret: name("tls-secret")?,
            config: name("config")?,
            resources: [
                quantity("cpu-request")?,
                quantity("cpu-limit")?,
                quantity("memory-request")?,
                quantity("memory-limit")?,
            ],
            log_level,
            status: text("status")?.map(str::to_owned),
        })
    }
}
