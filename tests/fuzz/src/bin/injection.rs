//! Injection: pods as JSON, from goldens on. Whatever comes in, nothing crashes; what is let through is whole, has Perses
//! behind the sidecar, and stays as it is when it comes in again.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use perses_sidecar::config::{self, Elsewhere};
use perses_sidecar::injection::{Facts, Outcome, Profiles, SIDECAR, apply, hook, inject, verify};
use serde_json::Value;

#[path = "../../../../src/injection/tests/model.rs"]
mod model;

static PROFILES: LazyLock<Profiles> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/injection/webhook.yaml");
    let text = std::fs::read_to_string(file).expect("the profiles of the golden cases");
    config::read_webhook(&text, &Elsewhere).expect("good profiles").config.profiles
});

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers"].into_iter().flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
}

/// Whatever stood in a pod and is none of what injection changes is there afterwards, in the same form.
fn kept(before: &Value, after: &Value, name: &str) {
    // What injection may change of a pod, of Perses, and of another container that asks Perses' port.
    let same = |before: &Value, after: &Value, but: &[&str]| {
        for (key, value) in before.as_object().into_iter().flatten().filter(|(key, _)| !but.contains(&key.as_str())) {
            assert_eq!(after.get(key), Some(value), "{key}");
        }
    };
    same(before, after, &["spec", "metadata"]);
    same(&before["metadata"], &after["metadata"], &["annotations"]);
    let status = "perses-sidecar.io/status";
    same(&before["metadata"]["annotations"], &after["metadata"]["annotations"], &[status]);
    same(&before["spec"], &after["spec"], &["containers", "initContainers", "volumes", "imagePullSecrets"]);
    let moved = ["args", "command", "ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"];
    for container in containers(before) {
        let found = containers(after).find(|other| other["name"] == container["name"]).expect("every container");
        same(container, found, if container["name"] == name { &moved } else { &[] });
    }
    // Lists only grow, and keep their order.
    let names = |pod: &Value, list: &str| -> Vec<Value> {
        let all = pod["spec"][list].as_array().into_iter().flatten();
        all.map(|entry| entry["name"].clone()).filter(|name| name != SIDECAR).collect()
    };
    for list in ["containers", "initContainers"] {
        assert_eq!(names(after, list), names(before, list), "{list}");
    }
    assert!(names(after, "imagePullSecrets").starts_with(&names(before, "imagePullSecrets")), "imagePullSecrets");
    for volume in before["spec"]["volumes"].as_array().into_iter().flatten() {
        assert!(after["spec"]["volumes"].as_array().is_some_and(|all| all.contains(volume)), "{volume}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(pod) = serde_json::from_slice::<Value>(bytes) else { return };
    for inject_default in [false, true] {
        let facts = Facts { namespace: "team-a", inject_default, minor: None };
        let _ = hook(&pod, &PROFILES);
        let _ = verify(&pod, &facts, &PROFILES);
        let Ok(Outcome::Injected(first)) = inject(&pod, &facts, &PROFILES) else { continue };
        let mut patched = pod.clone();
        apply(&mut patched, &first.patch).expect("a patch that applies");
        assert_eq!(patched, first.pod);
        // Names of containers are texts, and unique: the API server sees to it.
        let mut names: Vec<Option<&str>> = containers(&pod).map(|container| container["name"].as_str()).collect();
        names.sort_unstable();
        if names.contains(&None) || names.windows(2).any(|pair| pair[0] == pair[1]) {
            continue;
        }
        let Ok(Outcome::Injected(again)) = inject(&first.pod, &facts, &PROFILES) else { panic!("{}", first.pod) };
        assert!(again.patch.is_empty(), "{:?}", again.patch);
        assert_eq!(verify(&first.pod, &facts, &PROFILES), Ok(true));
        let before = (!names.contains(&Some(SIDECAR))).then_some(&pod);
        model::perses_is_behind_the_sidecar(before, &first.pod, &first.container).expect("Perses out of reach");
        if let Some(before) = before {
            kept(before, &first.pod, &first.container);
        }
    }
});
