//! The manifests as they are shipped: built by kustomize, taken by a real API server, their configurations read by the
//! product where they are mounted, each right needed by what it says, each metric there.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

mod applied;
mod built;
mod configured;
mod documented;
mod durable;
mod reached;
mod rights;
mod watched;

use std::process::Command;

use perses_sidecar_stack::servers;
use serde_json::Value;

/// Every folder that somebody applies.
const OVERLAYS: [&str; 6] = [
    "overlays/kubernetes",
    "overlays/kubernetes/tenant",
    "overlays/openshift",
    "overlays/openshift-ai",
    "overlays/stand-alone",
    "overlays/stand-alone-mariadb",
];

/// What `kustomize build` makes of a folder of `manifests`.
fn build(overlay: &str) -> Vec<Value> {
    let kustomize = servers::binary("kustomize", servers::KUSTOMIZE, &|line| eprintln!("{line}")).unwrap();
    let output =
        Command::new(kustomize).arg("build").arg(servers::checkout().join("manifests").join(overlay)).output().unwrap();
    assert!(output.status.success(), "{overlay}: {}", String::from_utf8_lossy(&output.stderr));
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(warnings.is_empty(), "{overlay}: {warnings}");
    serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

fn word<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn kind(object: &Value) -> &str {
    word(object, "/kind")
}

fn name(object: &Value) -> &str {
    word(object, "/metadata/name")
}

/// How an object is told from others.
fn said(object: &Value) -> String {
    format!("{} {}/{}", kind(object), word(object, "/metadata/namespace"), name(object))
}

fn of_kind<'o>(objects: &'o [Value], wanted: &'o str) -> impl Iterator<Item = &'o Value> {
    objects.iter().filter(move |object| kind(object) == wanted)
}
