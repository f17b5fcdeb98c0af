//! Where a pod stands in an object of the API.

use serde_json::Value;

/// The JSON pointer of the pod in an object: the object itself, or the template of a workload. `None` for anything else.
#[must_use]
pub fn template_path(object: &Value) -> Option<&'static str> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    match (version, kind) {
        ("v1", "Pod") => Some(""),
        ("v1", "PodTemplate") => Some("/template"),
        ("apps/v1", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("apps.openshift.io/v1", "DeploymentConfig")
        | ("v1", "ReplicationController")
        | ("batch/v1", "Job") => Some("/spec/template"),
        ("batch/v1", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// Whether an object of a kind that is not known has a pod template that asks for the sidecar.
#[must_use]
pub fn asks_elsewhere(object: &Value) -> bool {
    let annotations = object.pointer("/spec/template/metadata/annotations").and_then(Value::as_object);
    let wish = annotations.and_then(|map| map.get(&format!("{}inject", super::PREFIX)));
    template_path(object).is_none()
        && wish.is_some_and(|wish| !wish.as_str().is_some_and(|wish| wish.eq_ignore_ascii_case("false")))
}
