//! What nobody may store through us, with the path of each find.

use serde_json::Value;

use super::DocumentError;
use super::strict::fold;

/// The one plugin kind whose queries can be confined.
const PROMETHEUS: &str = "PrometheusDatasource";

/// Where a datasource points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The URL of its one HTTP proxy.
    pub url: Option<String>,
}

fn unsupported(path: impl Into<String>, message: &'static str) -> DocumentError {
    DocumentError::Unsupported { path: path.into(), message }
}

/// Reads where a datasource's spec points. Perses looks for a proxy anywhere below the plugin's spec, so there must be
/// exactly one, in its place.
///
/// # Errors
/// When the kind is another, or the proxy is missing, doubled or misplaced.
pub fn datasource_target(spec: &Value) -> Result<Target, DocumentError> {
    let plugin = spec.get("plugin").unwrap_or(&Value::Null);
    let kind = plugin.get("kind").and_then(Value::as_str).unwrap_or_default();
    if kind != PROMETHEUS {
        return Err(DocumentError::DatasourceKind { kind: kind.chars().take(80).collect() });
    }
    let inner = plugin.get("spec").unwrap_or(&Value::Null);
    let proxy = inner.get("proxy").filter(|proxy| proxy.get("kind").and_then(Value::as_str) == Some("HTTPProxy"));
    if count_proxies(inner) != 1 {
        return Err(unsupported("plugin.spec", "must have exactly one proxy, of kind HTTPProxy"));
    }
    let proxy = proxy.ok_or_else(|| unsupported("plugin.spec.proxy", "must be of kind HTTPProxy"))?;
    Ok(Target { url: proxy.pointer("/spec/url").and_then(Value::as_str).map(str::to_owned) })
}

fn count_proxies(value: &Value) -> usize {
    match value {
        Value::Object(map) => {
            let here = map.iter().any(|(key, value)| {
                fold(key) == "kind"
                    && value.as_str().is_some_and(|kind| matches!(fold(kind).as_str(), "httpproxy" | "sqlproxy"))
            });
            usize::from(here) + map.values().map(count_proxies).sum::<usize>()
        }
        Value::Array(values) => values.iter().map(count_proxies).sum(),
        _ => 0,
    }
}

/// A datasource that is to be stored.
pub(super) fn datasource(spec: &Value, path: &str, knows: &dyn Fn(&str) -> bool) -> Result<(), DocumentError> {
    find(spec, path, &mut |path, key, _| {
        (key == "directUrl").then(|| {
            unsupported(path, "browsers ask no server directly here; use a proxy with a configured backend's URL")
        })
    })?;
    let target = datasource_target(spec)?;
    let headers = spec.pointer("/plugin/spec/proxy/spec/headers").and_then(Value::as_object);
    for key in headers.into_iter().flat_map(|headers| headers.keys()) {
        let folded = fold(key).replace('_', "-");
        let sensitive = ["authorization", "cookie", "host", "x-scope-orgid", "thanos-tenant"]
            .contains(&folded.as_str())
            || ["impersonate-", "x-forwarded", "x-remote-", "proxy-"].iter().any(|prefix| folded.starts_with(prefix));
        if sensitive {
            return Err(unsupported(
                format!("{path}.plugin.spec.proxy.spec.headers.{key}"),
                "a datasource must not set this header",
            ));
        }
    }
    if target.url.is_some_and(|url| knows(&url)) { Ok(()) } else { Err(DocumentError::BackendUrl) }
}

/// Secrets are read by Perses itself: nothing in one may name a file, or a server to which credentials go.
pub(super) fn secret(spec: &Value, path: &str) -> Result<(), DocumentError> {
    find(spec, path, &mut |path, key, _| {
        let folded = fold(key);
        if folded.ends_with("file") {
            return Some(unsupported(path, "a secret must hold its value; files of the server cannot be named"));
        }
        (folded == "tokenurl").then(|| unsupported(path, "a secret must not send credentials to a server"))
    })
}

/// Nothing that makes the browser of somebody else act.
pub(super) fn no_active_content(spec: &Value, path: &str) -> Result<(), DocumentError> {
    find(spec, path, &mut |path, key, value| {
        if key == "actions" && !is_empty(value) {
            return Some(unsupported(
                path,
                "actions would send requests from the browser of whoever looks; remove them",
            ));
        }
        if key == "directUrl" {
            return Some(unsupported(
                path,
                "browsers ask no server directly here; use a proxy with a configured backend's URL",
            ));
        }
        let text = value.as_str()?;
        let active = if is_link_key(key) { is_active_url(text) } else { key == "text" && has_active_link(text) };
        active.then(|| unsupported(path, "a link must not hold a script"))
    })
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

pub(super) fn is_link_key(key: &str) -> bool {
    matches!(fold(key).as_str(), "url" | "href" | "link")
}

/// Whether a browser would run the URL. Browsers skip control characters and white space in a scheme.
pub(super) fn is_active_url(text: &str) -> bool {
    let plain: String = text
        .chars()
        .filter(|c| !c.is_control() && !c.is_whitespace())
        .take(16)
        .collect::<String>()
        .to_ascii_lowercase();
    ["javascript:", "vbscript:", "data:"].iter().any(|scheme| plain.starts_with(scheme))
}

/// Whether Markdown or HTML holds such a URL anywhere, entities and all.
pub(super) fn has_active_link(text: &str) -> bool {
    let plain: String =
        text.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
    plain.contains("javascript:")
        || plain.contains("vbscript:")
        || plain.contains("javascript&")
        || plain.contains("data:text/html")
}

/// Walks a document and stops at the first find.
fn find(
    value: &Value,
    path: &str,
    judge: &mut dyn FnMut(&str, &str, &Value) -> Option<DocumentError>,
) -> Result<(), DocumentError> {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let path = format!("{path}.{key}");
                if let Some(error) = judge(&path, key, inner) {
                    return Err(error);
                }
                find(inner, &path, judge)?;
            }
            Ok(())
        }
        Value::Array(values) => {
            values.iter().enumerate().try_for_each(|(index, inner)| find(inner, &format!("{path}[{index}]"), judge))
        }
        _ => Ok(()),
    }
}
