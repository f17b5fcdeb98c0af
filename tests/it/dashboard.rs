//! The dashboard of the cache asks for what the sidecar exports, in words that our own parser takes.

use std::collections::BTreeSet;

use perses_sidecar::promql::{self, Features, Limits};
use serde_json::Value;

use crate::support::gate;

/// Labels that a scrape adds.
const OF_A_SCRAPE: [&str; 2] = ["namespace", "pod"];

fn dashboard() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/dashboards/cache.yaml");
    let all: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
    let [dashboard] = all.try_into().unwrap();
    dashboard
}

/// The selectors of a query, as name and matchers. No value in the dashboard has a brace.
fn selectors(query: &str) -> Vec<(&str, &str)> {
    query
        .match_indices("perses_sidecar_")
        .map(|(at, _)| {
            let (name, rest) = query[at..].split_once('{').unwrap();
            (name, rest.split_once('}').unwrap().0)
        })
        .collect()
}

/// Whether an exported line is of a metric and has each label with one of its values.
fn is_exported(exported: &str, name: &str, matchers: &str) -> bool {
    let wanted: Vec<(&str, Vec<&str>)> = matchers
        .split(", ")
        .filter(|matcher| !matcher.is_empty())
        .map(|matcher| {
            let (label, value) = matcher.split_once('=').unwrap();
            (label, value.trim_start_matches('~').trim_matches('"').split('|').collect())
        })
        .filter(|(label, _)| !OF_A_SCRAPE.contains(label))
        .collect();
    let has = |line: &str, label: &str, value: &str| line.contains(&format!("{label}=\"{value}\""));
    let is_of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let lines: Vec<&str> = exported.lines().filter(is_of).collect();
    // Each of the values must be there: one that is misspelt would find nothing.
    !lines.is_empty()
        && wanted.iter().all(|(label, values)| values.iter().all(|value| lines.iter().any(|l| has(l, label, value))))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_of_the_cache_asks_for_what_is_exported() {
    let gate = gate("cache:\n  mode: enforce\n").await;
    let ada = gate.token("ada");
    assert_eq!(gate.query(&ada, "up").await.status, 200);
    let exported = gate.http.get(&format!("{}/metrics", gate.admin), "").await.unwrap().text();
    let spec = &dashboard()["spec"];
    let mut queries = Vec::new();
    for (key, panel) in spec["panels"].as_object().unwrap() {
        assert!(!panel["spec"]["display"]["description"].as_str().unwrap().is_empty(), "{key} explains nothing");
        for query in panel["spec"]["queries"].as_array().unwrap() {
            queries.push((key.clone(), query["spec"]["plugin"]["spec"]["query"].as_str().unwrap().to_owned()));
        }
    }
    for variable in spec["variables"].as_array().unwrap() {
        for matcher in variable["spec"]["plugin"]["spec"]["matchers"].as_array().unwrap() {
            queries.push(("a variable".to_owned(), matcher.as_str().unwrap().to_owned()));
        }
    }
    assert!(queries.len() > 14, "{}", queries.len());
    let mut named = BTreeSet::new();
    for (key, query) in &queries {
        let text = query.replace("$__rate_interval", "5m");
        promql::check(&text, &Limits::default(), Features::default()).unwrap_or_else(|e| panic!("{key}: {text}: {e}"));
        assert!(!text.replace("$namespace", "").replace("$pod", "").contains('$'), "{key}: {text}");
        for (name, matchers) in selectors(&text) {
            assert!(is_exported(&exported, name, matchers), "{key}: {name}{{{matchers}}} is not exported");
            for by in text.split("by (").skip(1).map(|rest| rest.split_once(')').unwrap().0) {
                for label in by.split(", ").filter(|label| !OF_A_SCRAPE.contains(label)) {
                    let label = format!("{label}=\"");
                    let is_of = |line: &str| line.starts_with(name) && line.contains(&label);
                    assert!(exported.lines().any(is_of), "{key}: {name} has no label {label}");
                }
            }
            named.insert(name.to_owned());
        }
    }
    assert!(named.len() > 7, "{named:?}");
    // A misspelt name, label or value would be noticed.
    for (name, matchers) in [
        ("perses_sidecar_cache_request_total", ""),
        ("perses_sidecar_cache_requests_total", "result=\"hits\""),
        ("perses_sidecar_cache_requests_total", "result=~\"hit|colapsed\""),
        ("perses_sidecar_cache_requests_total", "outcome=\"hit\""),
    ] {
        assert!(!is_exported(&exported, name, matchers), "{name}{{{matchers}}}");
    }
}

#[test]
fn every_panel_has_its_place_and_none_lies_over_another() {
    let spec = &dashboard()["spec"];
    let mut shown = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for item in spec["layouts"][0]["spec"]["items"].as_array().unwrap() {
        let place = item["content"]["$ref"].as_str().unwrap().strip_prefix("#/spec/panels/").unwrap();
        assert!(spec["panels"].get(place).is_some() && shown.insert(place.to_owned()), "{place}");
        let number = |key: &str| item[key].as_u64().unwrap();
        assert!(number("x") + number("width") <= 24, "{place}");
        for x in number("x")..number("x") + number("width") {
            for y in number("y")..number("y") + number("height") {
                assert!(taken.insert((x, y)), "{place} lies over another");
            }
        }
    }
    assert_eq!(shown.len(), spec["panels"].as_object().unwrap().len());
}
