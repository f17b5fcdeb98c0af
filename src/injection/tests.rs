//! Every case of a folder of golden files: a pod goes in, a pod or a refusal comes out, and a second pass changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::config::{self, Elsewhere};

mod generated;
mod model;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/injection")
}

fn profiles() -> Profiles {
    let text = fs::read_to_string(folder().join("webhook.yaml")).unwrap_or_else(|error| panic!("{error}"));
    match config::read_webhook(&text, &Elsewhere) {
        Ok(loaded) => loaded.config.profiles,
        Err(problems) => panic!("{problems:?}"),
    }
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}"))
}

fn write(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|error| panic!("{error}"))
}

/// What is said of an outcome in a golden file, and the pod if there is one.
fn told(pod: &Value, facts: &Facts<'_>, profiles: &Profiles) -> (Value, Option<Value>) {
    match inject(pod, facts, profiles) {
        Err(refused) => (json!({ "refused": refused.0 }), None),
        Ok(Outcome::Untouched) => (json!({ "untouched": true }), None),
        Ok(Outcome::Injected(injected)) => (json!({ "warnings": injected.warnings }), Some(injected.pod)),
    }
}

#[test]
fn golden_files() {
    let profiles = profiles();
    let mut count = 0;
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.file_name().is_some_and(|name| name != "webhook.yaml")) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{error}"));
        let said = file.display();
        let all = documents(&text);
        let (case, pod) = (&all[0], &all[1]);
        let facts = Facts {
            namespace: case["namespace"].as_str().unwrap_or("team-a"),
            inject_default: case["inject_default"] == true,
            minor: case["minor"].as_u64().and_then(|minor| u32::try_from(minor).ok()),
        };
        let (verdict, out) = told(pod, &facts, &profiles);
        if std::env::var_os("WRITE_GOLDEN").is_some() {
            let head = text.split("\n---\n").take(2).collect::<Vec<_>>().join("\n---\n");
            let mut text = format!("{}\n---\n{}", head.trim_end(), write(&verdict));
            if let Some(out) = &out {
                text.push_str(&format!("---\n{}", write(out)));
            }
            fs::write(file, text).unwrap_or_else(|error| panic!("{error}"));
        } else {
            assert_eq!(&verdict, &all[2], "{said}");
            assert_eq!(out.as_ref(), all.get(3), "{said}");
        }
        if let Some(out) = &out {
            check(pod, out, &facts, &profiles, &said.to_string());
        }
        count += 1;
    }
    assert!(count >= 60, "{count} cases");
}

/// As a template that was copied from a pod of an older version, or a pod that another webhook had its hands on.
#[test]
fn an_older_sidecar_is_built_anew() {
    let profiles = profiles();
    let mut count = 0;
    for file in fs::read_dir(folder()).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let all = documents(&fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}")));
        let (case, Some(new)) = (&all[0], all.get(3)) else { continue };
        let facts = Facts {
            namespace: case["namespace"].as_str().unwrap_or("team-a"),
            inject_default: case["inject_default"] == true,
            minor: None,
        };
        let mut old = new.clone();
        let lists = ["containers", "initContainers"];
        let place = lists.iter().find_map(|list| {
            let at = new["spec"][*list].as_array()?.iter().position(|container| container["name"] == SIDECAR)?;
            Some((*list, at))
        });
        let Some((list, at)) = place else { panic!("{}", file.display()) };
        let sidecar = &mut old["spec"][list][at];
        sidecar["image"] = json!("registry.example/perses/perses-sidecar:0.0.1");
        sidecar["args"] = json!(["run", "--config=/other.yaml"]);
        sidecar["env"] = json!([{ "name": PROFILE_VARIABLE, "value": "{}" }]);
        sidecar["readinessProbe"]["httpGet"]["path"] = json!("/metrics");
        sidecar["volumeMounts"].as_array_mut().map(Vec::pop);
        sidecar["securityContext"]["readOnlyRootFilesystem"] = json!(false);
        assert!(verify(&old, &facts, &profiles).is_err(), "{}", file.display());
        match inject(&old, &facts, &profiles) {
            Ok(Outcome::Injected(injected)) => assert_eq!(&injected.pod, new, "{}", file.display()),
            other => panic!("{}: {other:?}", file.display()),
        }
        count += 1;
    }
    assert!(count >= 40, "{count} pods");
}

/// What holds for every pod that is let through with a sidecar.
fn check(pod: &Value, out: &Value, facts: &Facts<'_>, profiles: &Profiles, said: &str) {
    let Ok(Outcome::Injected(first)) = inject(pod, facts, profiles) else { panic!("{said}") };
    let mut patched = pod.clone();
    apply(&mut patched, &first.patch).unwrap_or_else(|error| panic!("{said}: {error}"));
    assert_eq!(&patched, out, "{said}: the patch makes the pod");
    match inject(out, facts, profiles) {
        Ok(Outcome::Injected(again)) => {
            assert_eq!(again.patch, Vec::<Value>::new(), "{said}: a second pass changes nothing");
        }
        other => panic!("{said}: {other:?}"),
    }
    assert_eq!(verify(out, facts, profiles), Ok(true), "{said}");
    model::perses_is_behind_the_sidecar(Some(pod), out, &first.container)
        .unwrap_or_else(|error| panic!("{said}: {error}\n{}", write(out)));
    assert_eq!(is_read(out), Ok(()), "{said}");
}

/// Whether the sidecar takes the configuration that it is given.
fn is_read(out: &Value) -> Result<(), String> {
    let lists = ["containers", "initContainers"].iter().filter_map(|list| out["spec"][*list].as_array());
    let sidecar = lists.flatten().find(|container| container["name"] == SIDECAR).ok_or("no sidecar")?;
    let env = sidecar["env"].as_array().into_iter().flatten().find(|entry| entry["name"] == PROFILE_VARIABLE);
    let text = env.and_then(|entry| entry["value"].as_str()).ok_or("no profile")?.replace("$$", "$");
    let mut problems = config::read_injected(&text, "", &Elsewhere).err().unwrap_or_default();
    // The pair itself is not here.
    problems.retain(|problem| problem.path != "tls");
    if problems.is_empty() { Ok(()) } else { Err(format!("{problems:?}\n{text}")) }
}

#[test]
fn warnings_name_what_is_shipped() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let read = |file: &str| documents(&fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{error}")));
    let names = |all: &[Value]| -> Vec<String> {
        all.iter().filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned)).collect()
    };
    let (roles, accounts) = (names(&read("roles/roles.yaml")), names(&read("components/tenant/account.yaml")));
    let pod = json!({ "metadata": { "annotations": { "perses-sidecar.io/inject": "true" } },
        "spec": { "containers": [{ "name": "perses", "image": "i", "args": ["--config=c"] }] } });
    let Ok(Outcome::Injected(injected)) = inject(&pod, &Facts::default(), &profiles()) else { panic!("{pod}") };
    let [warning] = injected.warnings.as_slice() else { panic!("{:?}", injected.warnings) };
    let after = |words: &str| -> String {
        let rest = warning.split_once(words).unwrap_or_else(|| panic!("{warning}")).1;
        rest.split([' ', ',', ';']).next().unwrap_or_default().to_owned()
    };
    assert!(roles.contains(&after("the ClusterRole ")), "{warning}");
    assert!(accounts.contains(&after("make it ")), "{warning}");
    assert!(root.with_file_name(after("the account of ")).is_dir(), "{warning}");
}
