//! The dashboards of the demo's workloads: real Perses takes them, and every query in them finds data.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use perses_sidecar::dashboards::{self, Engine, Kind, Library, Template, Workload, WorkloadName, engine_of_runtime};
use perses_sidecar::names::Namespace;
use perses_sidecar_stack::data::TEAMS;
use perses_sidecar_stack::workloads;
use serde_json::Value;

use crate::percli::Percli;
use crate::stage::Stage;

/// The demo's workloads as the sidecar reads them, and its projects.
fn demo() -> Vec<Workload> {
    let objects = workloads::all();
    let mut engines: BTreeMap<(String, String), Engine> = BTreeMap::new();
    let mut found = Vec::new();
    for raw in &objects {
        let part = |key: &str| raw["metadata"][key].as_str().unwrap().to_owned();
        if raw["kind"] == "ServingRuntime" {
            engines.insert((part("namespace"), part("name")), engine_of_runtime(raw).unwrap());
            continue;
        }
        let workload = dashboards::read(Kind::parse(raw["kind"].as_str().unwrap()).unwrap(), raw).unwrap();
        let runtime = workload.runtime.as_ref().map(|runtime| runtime.name.as_str().to_owned());
        let engine = runtime.and_then(|name| engines.get(&(workload.namespace.to_string(), name)).copied());
        found.push(workload.with_runtime(engine));
    }
    let gpus = |team: &str| found.iter().filter(|w| w.namespace.as_str() == team).map(|workload| workload.gpus).sum();
    let projects: Vec<Workload> =
        TEAMS.iter().map(|team| Workload::project(&Namespace::parse(team).unwrap(), gpus(team))).collect();
    found.extend(projects);
    found
}

/// One whose every word means harm.
fn hostile(kind: Kind, engine: Engine) -> Workload {
    let text =
        |text: &str| Workload::text(&format!("{text} \"}}) or up{{x=~'$y` <script>é\u{10ffff} [a](javascript:x)"));
    let name = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    Workload {
        title: text("title"),
        owner: text("owner"),
        reason: text("reason"),
        model: text("model"),
        queue: text("queue"),
        ray_cluster: text("ray"),
        gpus: u32::MAX,
        since: Some(i64::MAX),
        created: Some(i64::MIN),
        ..Workload::gone(kind, Namespace::parse("team-a").unwrap(), WorkloadName::parse(&name).unwrap(), engine)
    }
}

/// Real Perses stores each, and its own linter has nothing to say.
pub(crate) async fn taken_by_perses(stage: &Stage, version: &str) {
    let library = Library::built_in();
    let percli = Percli::new(stage, version);
    let (code, told) = percli.run("root", &["login", &stage.world.gateway(), "--token", stage.world.token("root")]);
    assert_eq!(code, 0, "{told}");
    let folder = stage.world.folder.join("rendered");
    fs::create_dir_all(&folder).unwrap();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut take = async |template: &Template, workload: &Workload| {
        let text = template.render(workload);
        let mut value: Value = serde_json::from_str(&text).unwrap();
        let project = value["metadata"]["project"].as_str().unwrap().to_owned();
        // As somebody who saves a copy: Perses counts versions and times itself.
        value["metadata"] = serde_json::json!({ "name": value["metadata"]["name"], "project": project });
        let path = format!("/api/v1/projects/{project}/dashboards");
        let stored = stage.send("root", "POST", &path, Some(&value)).await;
        assert_eq!(stored.status, 200, "Perses {version}: {}: {}", template.name(), stored.text());
        let one = format!("{path}/{}", value["metadata"]["name"].as_str().unwrap());
        let back = stage.send("root", "GET", &one, None).await.json();
        assert_eq!(back["spec"]["display"], value["spec"]["display"]);
        let panels = |value: &Value| value["spec"]["panels"].as_object().unwrap().len();
        assert_eq!(panels(&back), panels(&value), "{}", template.name());
        assert_eq!(stage.send("root", "DELETE", &one, None).await.status, 204);
        let file = folder.join(format!("{}-{}.json", template.name(), workload.state.word()));
        fs::write(&file, text).unwrap();
        let (code, told) = percli.run("root", &["lint", "--online", "-f", &file.display().to_string()]);
        assert_eq!(code, 0, "percli {version}: {}: {told}", template.name());
        seen.insert(template.name().to_owned());
    };
    for workload in demo() {
        for template in library.of(&workload) {
            take(template, &workload).await;
        }
    }
    for template in library.templates() {
        let target = template.targets()[0];
        if target.kind != Kind::Project {
            take(template, &hostile(target.kind, target.engine.unwrap_or(Engine::Other))).await;
        }
    }
    of_the_cache(stage, &percli, version).await;
    let all: BTreeSet<String> = library.templates().iter().map(|template| template.name().to_owned()).collect();
    assert_eq!(seen, all.into_iter().filter(|name| name != "training").chain(["training".to_owned()]).collect());
}

/// The cache's own dashboard, as docs/tuning.md says to put it there.
async fn of_the_cache(stage: &Stage, percli: &Percli, version: &str) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/dashboards/cache.yaml");
    for words in [&["lint", "--online", "-f", file][..], &["apply", "-f", file, "--project", "team-a"]] {
        let (code, told) = percli.run("root", words);
        assert_eq!(code, 0, "percli {version}: {words:?}: {told}");
    }
    let path = "/api/v1/projects/team-a/dashboards/perses-sidecar-cache";
    let stored = stage.send("ada", "GET", path, None).await;
    assert_eq!(stored.status, 200, "Perses {version}: {}", stored.text());
    let stored = stored.json();
    assert_eq!(stored["spec"]["panels"].as_object().map(serde_json::Map::len), Some(14));
    for (key, panel) in stored["spec"]["panels"].as_object().unwrap() {
        for query in panel["spec"]["queries"].as_array().unwrap() {
            let text = query["spec"]["plugin"]["spec"]["query"].as_str().unwrap();
            let text = settled(&text.replace("$namespace", ".*"));
            let url = "/proxy/globaldatasources/prometheus/api/v1/query";
            let answer = stage.form("ada", url, &[("query", text.as_str())]).await;
            assert_eq!(answer.status, 200, "{key}: {text}: {}", answer.text());
        }
    }
    assert_eq!(stage.send("root", "DELETE", path, None).await.status, 204);
}

/// What the UI makes of a query before it sends it.
fn settled(query: &str) -> String {
    let mut text = query.replace("$__rate_interval", "2m").replace("$__range", "1h");
    for variable in ["$model", "$pod", "$cluster_queue", "$run", "$kind"] {
        text = text.replace(variable, ".*");
    }
    assert!(!text.contains('$'), "{text}");
    text
}

/// Every query in every dashboard of the demo is confined on its way and finds something.
pub(crate) async fn every_query_finds_data(stage: &Stage) {
    let library = Library::built_in();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut empty = Vec::new();
    let (mut asked, mut templates) = (0, BTreeSet::new());
    let first = |workload: &&Workload| workload.kind != Kind::Project || workload.namespace.as_str() == "team-a";
    // The granites of other teams count only a few things; one of each kind counts everything.
    let full = |workload: &&Workload| workload.name.as_str() != "granite" || workload.namespace.as_str() == "team-a";
    for workload in demo().iter().filter(first).filter(full) {
        let who = if workload.namespace.as_str() == "team-c" { "root" } else { "ada" };
        for template in library.of(workload) {
            templates.insert(template.name().to_owned());
            let value: Value = serde_json::from_str(&template.render(workload)).unwrap();
            let past = template.name() == "past-runs";
            let (start, end) = if past { (now - 50 * 3600, now - 26 * 3600) } else { (now - 3600, now) };
            let (start, end) = (start.to_string(), end.to_string());
            for (key, panel) in value["spec"]["panels"].as_object().unwrap() {
                for query in panel["spec"]["queries"].as_array().into_iter().flatten() {
                    let text = settled(query["spec"]["plugin"]["spec"]["query"].as_str().unwrap());
                    let pairs = [("query", text.as_str()), ("start", &start), ("end", &end), ("step", "60")];
                    let url = "/proxy/globaldatasources/prometheus/api/v1/query_range";
                    let answer = stage.form(who, url, &pairs).await;
                    assert_eq!(answer.status, 200, "{}: {key}: {text}: {}", template.name(), answer.text());
                    asked += 1;
                    let json = answer.json();
                    let numbers = json["data"]["result"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|series| series["values"].as_array().unwrap().iter().any(|point| point[1] != "NaN"));
                    if !numbers {
                        empty.push(format!("{}: {key}: {text}", template.name()));
                    }
                }
            }
            for variable in value["spec"]["variables"].as_array().unwrap() {
                let plugin = &variable["spec"]["plugin"];
                for matcher in plugin["spec"]["matchers"].as_array().into_iter().flatten() {
                    let label = plugin["spec"]["labelName"].as_str().unwrap();
                    let pairs = [
                        ("match[]", settled(matcher.as_str().unwrap())),
                        ("start", start.clone()),
                        ("end", end.clone()),
                    ];
                    let query: Vec<String> =
                        pairs.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
                    let path =
                        format!("/proxy/globaldatasources/prometheus/api/v1/label/{label}/values?{}", query.join("&"));
                    let answer = stage.send(who, "GET", &path, None).await;
                    let values = answer.json()["data"].as_array().map_or(0, Vec::len);
                    if values == 0 {
                        empty.push(format!("{}: variable {label}: {matcher}: {}", template.name(), answer.text()));
                    }
                    if past && label == "created_by_name" {
                        assert!(
                            answer.text().contains("pretrain"),
                            "a run that is gone can be chosen: {}",
                            answer.text()
                        );
                    }
                }
            }
        }
    }
    assert!(empty.is_empty(), "{} of {asked} find nothing:\n{}", empty.len(), empty.join("\n"));
    assert_eq!(templates.len(), library.templates().len(), "{templates:?}");
    eprintln!("{asked} queries of {} templates find data", templates.len());
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
