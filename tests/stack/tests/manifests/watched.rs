//! Alerts speak of metrics that are there, promtool reads them, and they fire when they should and not otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use perses_sidecar::telemetry::metrics::Metrics;
use perses_sidecar_stack::servers;
use serde_json::{Value, json};

use crate::{build, of_kind, word};

fn rules() -> Vec<Value> {
    build("overlays/openshift-ai").into_iter().filter(|object| object["kind"] == "PrometheusRule").collect()
}

fn alerts(rules: &[Value]) -> Vec<&Value> {
    let groups = rules.iter().flat_map(|rule| rule["spec"]["groups"].as_array().unwrap());
    groups.flat_map(|group| group["rules"].as_array().unwrap()).collect()
}

/// The names of our metrics in an expression, each with the matchers that follow it.
fn ours(expression: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in expression.match_indices("perses_sidecar_") {
        let rest = &expression[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let matchers = rest[end..].strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
        found.push((rest[..end].to_owned(), matchers.to_owned()));
    }
    found
}

#[test]
fn every_metric_of_an_alert_is_there() {
    let metrics = Metrics::new().encode();
    let known: BTreeSet<&str> = metrics.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let has = |name: &str, label: &str, value: &str| {
        let pair = format!("{label}=\"{value}\"");
        metrics.lines().any(|line| line.starts_with(&format!("{name}{{")) && line.contains(&pair))
    };
    let rules = rules();
    let mut names = BTreeSet::new();
    for alert in alerts(&rules) {
        for (name, matchers) in ours(word(alert, "/expr")) {
            assert!(known.contains(name.as_str()), "{}: {name} is no metric of ours", alert["alert"]);
            // `job` is the monitor's; of a pattern, each plain word.
            for matcher in matchers.split(", ").filter(|matcher| !matcher.is_empty() && !matcher.starts_with("job=")) {
                let (label, values) = matcher.split_once(['=', '!']).unwrap();
                let values = values.trim_start_matches(['=', '~']).trim_matches('"');
                for value in values.split('|').filter(|value| !value.contains('.')) {
                    assert!(has(&name, label, value), "{}: {name} has no {label}={value}", alert["alert"]);
                }
            }
            names.insert(name);
        }
    }
    assert!(names.len() >= 8, "{names:?}");
    // The check itself finds what is not there.
    assert!(
        !known.contains("perses_sidecar_upstream_exposd") && !has("perses_sidecar_injections_total", "outcome", "no")
    );
    assert!(
        known.contains("perses_sidecar_upstream_exposed") && has("perses_sidecar_injections_total", "outcome", "error")
    );
}

/// OpenShift's own conventions for alerts.
#[test]
fn alerts_say_what_they_must() {
    let rules = rules();
    let mut seen = BTreeSet::new();
    for alert in alerts(&rules) {
        let name = word(alert, "/alert");
        assert!(name.starts_with("PersesSidecar") && name.bytes().all(|b| b.is_ascii_alphanumeric()), "{name}");
        assert!(seen.insert(name.to_owned()), "{name} twice");
        let severity = word(alert, "/labels/severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        assert!(word(alert, "/annotations/summary").ends_with('.'), "{name}");
        assert!(
            word(alert, "/annotations/description").contains("$labels.namespace") || name.ends_with("Down"),
            "{name}"
        );
        assert!(word(alert, "/expr").contains("by (namespace"), "{name}: its namespace is kept");
        let runbook = word(alert, "/annotations/runbook");
        assert_eq!(runbook, format!("docs/alerts.md#{}", name.to_lowercase()), "{name}");
    }
    // The page says something about each, how grave it is among it, and speaks of no other.
    let page = fs::read_to_string(servers::checkout().join("docs/alerts.md")).unwrap();
    let sections: BTreeMap<&str, &str> =
        page.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    assert!(sections.keys().copied().eq(seen.iter().map(String::as_str)), "{:?}\n{seen:?}", sections.keys());
    for alert in alerts(&rules) {
        let section = sections[word(alert, "/alert")];
        let severity = word(alert, "/labels/severity");
        let grave =
            section.trim_start().strip_prefix('*').and_then(|text| text.split_once(".* ")).map(|(word, _)| word);
        assert_eq!(grave.map(str::to_lowercase).as_deref(), Some(severity), "{}", alert["alert"]);
        assert!(section.len() > 200, "{}", alert["alert"]);
    }
}

#[test]
fn promtool_reads_the_alerts_and_they_fire() {
    let promtool = servers::binary("promtool", servers::PROMETHEUS, &|line| eprintln!("{line}")).unwrap();
    let folder = servers::run_folder("alerts").unwrap();
    let rules = rules();
    let groups: Vec<&Value> = rules.iter().flat_map(|rule| rule["spec"]["groups"].as_array().unwrap()).collect();
    fs::write(folder.join("rules.yaml"), json!({ "groups": groups }).to_string()).unwrap();
    fs::copy(servers::checkout().join("tests/stack/tests/manifests/alerts.yaml"), folder.join("alerts.yaml")).unwrap();
    for what in ["check", "test"] {
        let file = if what == "check" { "rules.yaml" } else { "alerts.yaml" };
        let output = Command::new(&promtool).args([what, "rules", file]).current_dir(&folder).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "promtool {what} rules: {said}");
    }
    // Each alert fires in one of the tests, and is silent in another.
    let tests: Value = serde_saphyr::from_str(&fs::read_to_string(folder.join("alerts.yaml")).unwrap()).unwrap();
    let mut told: BTreeSet<(String, bool)> = BTreeSet::new();
    for test in tests["tests"].as_array().unwrap().iter().flat_map(|test| test["alert_rule_test"].as_array().unwrap()) {
        let fires = test["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
        told.insert((word(test, "/alertname").to_owned(), fires));
    }
    for alert in alerts(&rules) {
        for fires in [true, false] {
            assert!(told.contains(&(word(alert, "/alert").to_owned(), fires)), "{} {fires}", alert["alert"]);
        }
    }
    assert_eq!(of_kind(&rules, "PrometheusRule").count(), 2);
    fs::remove_dir_all(folder).unwrap();
}
