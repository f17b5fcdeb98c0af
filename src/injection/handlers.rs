//! Probes and hooks of the Perses container. Kubelet asks the pod's address, where Perses is no longer; what it asked there
//! it asks the sidecar, which asks Perses on the loopback.

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::{Refused, refused};

/// Where kubelet asks, and the word under which the sidecar knows it.
const PLACES: [(&str, &str); 5] = [
    ("/livenessProbe", "live"),
    ("/readinessProbe", "ready"),
    ("/startupProbe", "startup"),
    ("/lifecycle/postStart", "started"),
    ("/lifecycle/preStop", "stopping"),
];

/// What has been moved.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moved {
    /// `perses.probes` of the sidecar, by word.
    pub(super) probes: Map<String, Value>,
    /// The handlers that were there, by word.
    pub(super) before: Map<String, Value>,
    /// Whether kubelet asks before it starts the next container.
    pub(super) at_start: bool,
}

/// The path on which the sidecar answers for a word.
fn path_of(word: &str) -> String {
    format!("/-/upstream/{word}")
}

/// A port of a handler: a number, or a name that the container declares.
fn port_of(port: Option<&Value>, container: &Value) -> Option<u16> {
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    match port? {
        Value::String(text) => text.parse().ok().or_else(|| {
            let ports = container.get("ports")?.as_array()?;
            let entry = ports.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some(text))?;
            number(entry.get("containerPort")?)
        }),
        other => number(other),
    }
}

/// Whether a probe's header can be sent on, connection by connection.
#[must_use]
pub fn is_sent(name: &str, value: &str) -> bool {
    let hop = ["connection", "content-length", "transfer-encoding", "upgrade"];
    HeaderName::try_from(name).is_ok_and(|name| !hop.contains(&name.as_str())) && HeaderValue::try_from(value).is_ok()
}

/// Moves every handler that asks Perses' public port to the sidecar's health port.
pub(super) fn move_all(
    container: &mut Value,
    public: u16,
    health: u16,
    warnings: &mut Vec<String>,
) -> Result<Moved, Refused> {
    let mut moved = Moved::default();
    for (place, word) in PLACES {
        let Some(handler) = container.pointer(place).filter(|handler| handler.is_object()) else { continue };
        let said = place.trim_start_matches('/').replace('/', ".");
        if handler.get("grpc").is_some_and(|grpc| !grpc.is_null()) {
            return refused(format!("{said} of Perses asks by gRPC, which Perses does not speak; use httpGet"));
        }
        if let Some(command) = handler.pointer("/exec/command") {
            let text = command.to_string();
            if text.contains("localhost") || text.contains("127.0.0.1") || text.contains("[::1]") {
                warnings.push(format!("{said} of Perses runs a command that meets the sidecar on port {public} now"));
            }
            continue;
        }
        let (kind, action) = match (handler.get("httpGet"), handler.get("tcpSocket")) {
            (Some(action), _) if action.is_object() => ("httpGet", action),
            (_, Some(action)) if action.is_object() => ("tcpSocket", action),
            _ => continue,
        };
        let Some(port) = port_of(action.get("port"), container) else {
            return refused(format!(
                "{said} of Perses asks the port {}, which the container does not declare",
                action.get("port").unwrap_or(&Value::Null)
            ));
        };
        if port != public {
            warnings.push(format!(
                "{said} of Perses asks port {port}, but Perses listens on {public}; it is left as it is"
            ));
            continue;
        }
        if action.get("host").is_some_and(|host| host.as_str() != Some("")) {
            return refused(format!("{said} of Perses names a host; leave it out, so that the probe can be moved"));
        }
        let mut probe = Map::new();
        if kind == "tcpSocket" {
            probe.insert("tcp".to_owned(), json!("true"));
        } else {
            // Kubelet adds the slash as well.
            let path = action.get("path").and_then(Value::as_str).unwrap_or_default();
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            if path.parse::<PathAndQuery>().is_err() {
                return refused(format!("{said} of Perses asks the path {path:?}, which must be escaped to be sent"));
            }
            probe.insert("path".to_owned(), json!(path));
            let headers = action.get("httpHeaders").and_then(Value::as_array).into_iter().flatten();
            let mut lines = Map::new();
            for header in headers {
                let text = |key: &str| header.get(key).and_then(Value::as_str).unwrap_or_default();
                if !is_sent(text("name"), text("value")) {
                    return refused(format!(
                        "{said} of Perses sends the header {:?}, which the sidecar does not send; take it away",
                        text("name")
                    ));
                }
                if lines.insert(text("name").to_owned(), json!(text("value"))).is_some() {
                    return refused(format!("{said} of Perses sends the header {:?} twice", text("name")));
                }
            }
            if !lines.is_empty() {
                probe.insert("headers".to_owned(), Value::Object(lines));
            }
        }
        moved.before.insert(word.to_owned(), json!({ kind: action }));
        moved.probes.insert(word.to_owned(), Value::Object(probe));
        moved.at_start |= word == "started";
        let asked = json!({ "path": path_of(word), "port": health, "scheme": "HTTP" });
        if let Some(Value::Object(handler)) = container.pointer_mut(place) {
            handler.remove("tcpSocket");
            handler.insert("httpGet".to_owned(), asked);
        }
    }
    Ok(moved)
}

/// Puts back what [`move_all`] moved.
pub(super) fn put_back(container: &mut Value, before: &Map<String, Value>) -> Result<(), Refused> {
    for (place, word) in PLACES {
        let Some(Value::Object(handler)) = container.pointer_mut(place) else { continue };
        let ours = path_of(word);
        if handler.get("httpGet").and_then(|action| action.get("path")).and_then(Value::as_str) != Some(ours.as_str()) {
            continue;
        }
        let Some(Value::Object(original)) = before.get(word) else {
            return refused(format!(
                "a probe of Perses asks {ours}, but the status annotation does not say what it asked before; \
                 take the sidecar's parts out of the template"
            ));
        };
        handler.remove("httpGet");
        for (kind, action) in original {
            if ["httpGet", "tcpSocket"].contains(&kind.as_str()) {
                handler.insert(kind.clone(), action.clone());
            }
        }
    }
    Ok(())
}
