//! `perses-sidecar inject`: what the webhook does, with files in and files out.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::{fail, tell};
use crate::config::{self, Webhook};
use crate::injection::{self, Facts, Outcome};

/// The largest input.
const LARGEST: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct Inject {
    /// The webhook's configuration, whose profiles are used.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print the JSON patch of each object that is injected, one a line.
    #[arg(long)]
    patch: bool,
    /// The namespace, for objects that name none.
    #[arg(long, value_name = "NS", default_value = "default")]
    namespace: String,
    /// As if the namespace had the annotation perses-sidecar.io/inject-default: "true".
    #[arg(long)]
    inject_default: bool,
}

/// Reads standard input, writes standard output; nothing is written when an object is refused.
pub(super) fn run(flags: &Inject) -> ExitCode {
    let settings = match config::load_profiles(&flags.config) {
        Ok(loaded) => loaded.config,
        Err(problems) => return tell(&flags.config, &problems),
    };
    let mut text = String::new();
    if let Err(error) = std::io::stdin().lock().take(LARGEST + 1).read_to_string(&mut text) {
        return fail(2, &format!("standard input: {error}"));
    }
    if text.len() as u64 > LARGEST {
        return fail(2, &format!("standard input is larger than {LARGEST} bytes; split it"));
    }
    let objects = match documents(&text) {
        Ok(objects) => objects,
        Err(error) => return fail(2, &format!("standard input: {error}")),
    };
    match injected(flags, &settings, objects).and_then(|objects| written(flags, &text, &objects)) {
        Ok(out) => match std::io::stdout().lock().write_all(out.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &format!("standard output: {error}")),
        },
        Err(error) => fail(1, &error),
    }
}

/// Every document, as kubectl reads it.
fn documents(text: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let all: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error.to_string())?;
    let all: Vec<Value> = all.into_iter().filter(|document| !document.is_null()).collect();
    if all.is_empty() {
        return Err("no object; give a Pod, or a workload with a pod template".to_owned());
    }
    Ok(all)
}

/// An object afterwards, and its patch.
type Done = (Value, Vec<Value>);

fn injected(flags: &Inject, settings: &Webhook, objects: Vec<Value>) -> Result<Vec<Done>, String> {
    let mut done = Vec::with_capacity(objects.len());
    for mut object in objects {
        let mut patch = Vec::new();
        each(flags, settings, &mut object, "", &mut patch)?;
        done.push((object, patch));
    }
    Ok(done)
}

/// An object, or those of a list. What has `items` is a list for kubectl, whatever it is called, and lists may hold lists.
fn each(
    flags: &Inject,
    settings: &Webhook,
    object: &mut Value,
    at: &str,
    patch: &mut Vec<Value>,
) -> Result<(), String> {
    let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) else {
        patch.extend(one(flags, settings, object, at)?);
        return Ok(());
    };
    for (index, item) in items.iter_mut().enumerate() {
        each(flags, settings, item, &format!("{at}/items/{index}"), patch)?;
    }
    Ok(())
}

fn one(flags: &Inject, settings: &Webhook, object: &mut Value, at: &str) -> Result<Vec<Value>, String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let namespace = text("/metadata/namespace").unwrap_or_else(|| flags.namespace.clone());
    let said = format!(
        "{} {}",
        text("/kind").unwrap_or_default(),
        text("/metadata/name").or_else(|| text("/metadata/generateName")).unwrap_or_default()
    );
    let Some(path) = injection::template_path(object) else {
        if injection::asks_elsewhere(object) {
            let version = text("/apiVersion").unwrap_or_default();
            return Err(format!(
                "{said}: asks for the sidecar, but where pods stand in this kind of {version} is not known; let the webhook add \
                 it to its pods, and leave the object out here"
            ));
        }
        return Ok(Vec::new());
    };
    let Some(pod) = object.pointer_mut(path) else { return Err(format!("{said}: has no pod template")) };
    let facts = Facts { namespace: &namespace, inject_default: flags.inject_default, minor: None };
    // The API server forgets what is said of the past, and makes the pod.
    if injection::is_past(pod) {
        let again = injection::inject(&injection::without_past(pod), &facts, &settings.profiles);
        return match again {
            Ok(Outcome::Injected(injected)) if !injected.patch.is_empty() => Err(format!(
                "{said}: runs or ends already, and such a pod is not changed any more; give what makes it, or take \
                 status and metadata.deletionTimestamp away"
            )),
            Ok(_) => Ok(Vec::new()),
            Err(refused) => Err(format!("{said}: {refused}")),
        };
    }
    let outcome = injection::inject(pod, &facts, &settings.profiles).map_err(|refused| format!("{said}: {refused}"))?;
    let Outcome::Injected(injected) = outcome else { return Ok(Vec::new()) };
    let mut stderr = std::io::stderr().lock();
    for warning in &injected.warnings {
        let _ = writeln!(stderr, "perses-sidecar: {said}: {warning}");
    }
    *pod = injected.pod;
    let below = |mut operation: Value| {
        operation["path"] = format!("{at}{path}{}", operation["path"].as_str().unwrap_or_default()).into();
        operation
    };
    Ok(injected.patch.into_iter().map(below).collect())
}

fn written(flags: &Inject, input: &str, done: &[Done]) -> Result<String, String> {
    let mut out = String::new();
    // What came as JSON goes as JSON.
    let json = input.trim_start().starts_with('{');
    for (index, (object, patch)) in done.iter().enumerate() {
        if flags.patch {
            out.push_str(&Value::Array(patch.clone()).to_string());
            out.push('\n');
        } else if json {
            out.push_str(&serde_json::to_string_pretty(object).map_err(|error| error.to_string())?);
            out.push('\n');
        } else {
            if index > 0 {
                out.push_str("---\n");
            }
            out.push_str(&serde_saphyr::to_string(object).map_err(|error| error.to_string())?);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::documents;

    #[test]
    fn what_is_written_reads_back() {
        let object = json!({
            "kind": "Pod", "yes": "yes", "on": "on", "null": "null", "port": 8080, "text": "8080", "octal": "0644",
            "float": 1.5, "text2": "1.5", "empty": "", "tilde": "~", "list": [], "map": {}, "lines": "a\nb\n", "tab": "a\tb",
            "colon": "a: b", "hash": "a #b", "quote": "\"'", "unicode": "ä\u{2028}", "spaces": " a ", "true": true, "no": null,
            "args": ["--web.listen-address=127.0.0.1:9080", "-", "--", "&a", "*b", "!c", "%d", "@e", "`f", "{g", "[h"],
            "json": "{\"a\":\"b\"}", "exp": "1e3", "date": "2026-01-01", "inf": ".inf", "long": "x".repeat(300) + " y",
        });
        let text = serde_saphyr::to_string(&object).expect("YAML");
        assert_eq!(documents(&text).expect("YAML"), [object], "{text}");
    }

    #[test]
    fn documents_are_read_as_kubectl_reads_them() {
        let text = "# nothing\n---\na: 0644\nb: yes\nc: \"yes\"\nd: 1.0\ne: null\n---\n---\n{\"a\": 1}\n";
        let read = documents(text).expect("YAML");
        assert_eq!(read, [json!({ "a": 420, "b": true, "c": "yes", "d": 1.0, "e": null }), json!({ "a": 1 })]);
        assert!(documents("").is_err() && documents("a: [").is_err() && documents("a: 1\na: 2").is_err());
    }
}
