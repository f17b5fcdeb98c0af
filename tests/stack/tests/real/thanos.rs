//! A backend of `kind: thanos`: real Thanos over two replicas and an object store.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use perses_sidecar_stack::http::{Answer, Http};
use perses_sidecar_stack::servers;
use perses_sidecar_stack::thanos::Thanos;
use perses_sidecar_stack::tour::label_values;
use perses_sidecar_stack::world::{Options, World};
use serde_json::{Value, json};

use crate::stage::Stage;

/// Where the stage shows Thanos.
const BASE: &str = "/proxy/globaldatasources/thanos/api/v1";

/// A stage whose second backend is Thanos.
pub(crate) async fn stage() -> (Stage, Thanos) {
    let say = |line: &str| eprintln!("{line}");
    let mut world = World::start(&Options { quick: true, ..Options::default() }, &say).await.unwrap();
    let thanos = Thanos::start(&world.folder.join("thanos"), &say).await.unwrap();
    world.add_backend("thanos", "thanos", &thanos.url).unwrap();
    let sidecar = world.start_sidecar(&servers::sidecar()).await.unwrap();
    (Stage { world, sidecar, http: Http::default() }, thanos)
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn count(answer: &Answer) -> usize {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"]["result"].as_array().map_or(0, Vec::len)
}

/// What would tell somebody how the backend is built.
fn tells_of_stores(text: &str) -> bool {
    ["127.0.0.1", "grpc", "replica=", "replica\\\"", "Addr:", "sidecar"].iter().any(|word| text.contains(word))
}

#[tokio::test(flavor = "multi_thread")]
async fn thanos_is_confined_and_its_parameters_are_bounded() {
    let (stage, thanos) = stage().await;
    confinement(&stage).await;
    parameters(&stage).await;
    other_questions(&stage).await;
    same_bytes(&stage, &thanos).await;
    partial(&stage, &thanos).await;
}

async fn confinement(stage: &Stage) {
    let query = async |who: &str, query: &str| stage.form(who, &format!("{BASE}/query"), &[("query", query)]).await;
    for (who, teams) in
        [("ada", &["team-a", "team-b"][..]), ("grace", &["team-b"]), ("root", &["team-a", "team-b", "team-c"])]
    {
        for metric in ["vllm:num_requests_running", "requests_total", "kube_pod_info offset 2d"] {
            let answer = query(who, metric).await;
            assert_eq!(label_values(&answer, "namespace"), set(teams), "{who} {metric}: {}", answer.text());
        }
    }
    assert_eq!(query("eve", "up").await.status, 403);
    assert_eq!(stage.send("nobody", "POST", &format!("{BASE}/query"), None).await.status, 401);
    for text in [
        "vllm:num_requests_running{namespace=\"team-a\"}",
        "{namespace=~\".*team-a.*\"}",
        "{replica=~\".+\",namespace!=\"team-b\"}",
        "quantile(scalar(sum(requests_total{namespace=\"team-a\"})), requests_total{namespace=\"team-c\"})",
        "requests_total{cluster=\"demo\",namespace=\"team-a\"} or requests_total{namespace=\"team-c\"}",
    ] {
        let answer = query("grace", text).await;
        assert_eq!(count(&answer), 0, "{text}: {}", answer.text());
    }
    // The past comes from the object store.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (start, end) = ((now - 6 * 24 * 3600).to_string(), now.to_string());
    let pairs =
        [("query", "sum by (namespace) (vllm:num_requests_running)"), ("start", &start), ("end", &end), ("step", "1h")];
    let answer = stage.form("grace", &format!("{BASE}/query_range"), &pairs).await;
    let result = answer.json()["data"]["result"].clone();
    let points = result[0]["values"].as_array().cloned().unwrap_or_default();
    // The past may have been made a day ago, and the present begins with this test.
    assert!(points.len() >= 5 * 24, "{points:?}");
    assert_eq!(label_values(&answer, "namespace"), set(&["team-b"]));
}

async fn parameters(stage: &Stage) {
    let ask = async |who: &str, pairs: &[(&str, &str)]| {
        let pairs = [&[("query", "requests_total")], pairs].concat();
        stage.form(who, &format!("{BASE}/query"), &pairs).await
    };
    for good in [
        ("dedup", "true"),
        ("dedup", "1"),
        ("partial_response", "true"),
        ("partial_response", "0"),
        ("max_source_resolution", "5m"),
        ("max_source_resolution", "auto"),
        ("lookback_delta", "2m"),
    ] {
        assert_eq!(count(&ask("grace", &[good]).await), 1, "{good:?}");
    }
    // Both replicas, and only of one's own namespace.
    let answer = ask("grace", &[("dedup", "false")]).await;
    assert_eq!((count(&answer), label_values(&answer, "replica")), (2, set(&["0", "1"])));
    assert_eq!(label_values(&answer, "namespace"), set(&["team-b"]));
    for bad in [
        ("dedup", "maybe"),
        ("partial_response", "yes"),
        ("max_source_resolution", "raw"),
        ("replicaLabels[]", "namespace"),
        ("storeMatch[]", "{__address__=~\".+\"}"),
        ("engine", "thanos"),
        ("analyze", "true"),
        ("shard_info", "{}"),
        ("namespace", "team-a"),
    ] {
        let answer = ask("root", &[bad]).await;
        assert_eq!((answer.status, &answer.json()["status"]), (400, &json!("error")), "{bad:?}: {}", answer.text());
        assert!(answer.text().contains(bad.0), "{bad:?}: {}", answer.text());
    }
    let both = ask("grace", &[("dedup", "true"), ("dedup", "false")]).await;
    assert_eq!(both.status, 400, "{}", both.text());
    // Prometheus knows none of these.
    let url = "/proxy/globaldatasources/prometheus/api/v1/query";
    assert_eq!(stage.form("grace", url, &[("query", "up"), ("dedup", "true")]).await.status, 400);
    // A tenant is nothing that a client names.
    let url = format!("{}{BASE}/query?query=requests_total", stage.world.gateway());
    let authorization = format!("Bearer {}", stage.world.token("grace"));
    for name in ["THANOS-TENANT", "X-Scope-OrgID"] {
        let answer = stage.http.send("GET", &url, &[("authorization", &authorization), (name, "team-a")], "").await;
        assert_eq!(label_values(&answer.unwrap(), "namespace"), set(&["team-b"]), "{name}");
    }
}

async fn other_questions(stage: &Stage) {
    let get = async |who: &str, path: &str| stage.send(who, "GET", &format!("{BASE}/{path}"), None).await;
    let values = async |who: &str, label: &str| get(who, &format!("label/{label}/values")).await.json()["data"].clone();
    assert_eq!(values("grace", "namespace").await, json!(["team-b"]));
    let gpus = get("ada", "label/exported_namespace/values?match%5B%5D=DCGM_FI_DEV_GPU_UTIL").await;
    assert_eq!(gpus.json()["data"], json!(["team-a", "team-b"]), "{}", gpus.text());
    let labels = stage.form("grace", &format!("{BASE}/labels"), &[("match[]", "requests_total")]).await;
    let names = labels.json()["data"].as_array().cloned().unwrap_or_default();
    assert!(names.contains(&json!("namespace")) && names.contains(&json!("cluster")), "{}", labels.text());
    let series = stage.form("grace", &format!("{BASE}/series"), &[("match[]", "requests_total")]).await;
    let series = series.json()["data"].as_array().cloned().unwrap_or_default();
    assert!(series.len() == 1 && series[0]["namespace"] == "team-b", "{series:?}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // The first scrape may be of this very second.
    let (start, end) = ((now - 600).to_string(), (now + 60).to_string());
    let pairs = [("query", "requests_total"), ("start", start.as_str()), ("end", end.as_str())];
    let exemplars = stage.form("grace", &format!("{BASE}/query_exemplars"), &pairs).await;
    let text = exemplars.text();
    assert!(text.contains("trace-of-team-b") && !text.contains("trace-of-team-a"), "{text}");
    // Rules of one's own namespaces.
    let groups = |answer: &Answer| -> Vec<String> {
        let groups = answer.json()["data"]["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().map(|group| group["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    for (who, teams) in
        [("grace", &["team-b"][..]), ("ada", &["team-a", "team-b"]), ("root", &["team-a", "team-b", "team-c"])]
    {
        let answer = get(who, "rules").await;
        assert_eq!(groups(&answer).into_iter().collect::<BTreeSet<_>>(), set(teams), "{who}: {}", answer.text());
        let other = if who == "root" { "team-d" } else { "team-c" };
        assert!(!answer.text().contains(other), "{who}: {}", answer.text());
        let alerts = get(who, "alerts").await;
        let of: BTreeSet<String> = alerts.json()["data"]["alerts"]
            .as_array()
            .cloned()
            .unwrap_or_default()
            .iter()
            .map(|alert| alert["labels"]["namespace"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert!(!of.is_empty() && of.is_subset(&set(teams)), "{who}: {}", alerts.text());
    }
    assert_eq!(get("grace", "metadata").await.json()["status"], "success");
    for closed in
        ["stores", "targets", "status/tsdb", "query_explain", "query_range_explain", "blocks", "status/config"]
    {
        let answer = get("root", closed).await;
        assert!([403, 405].contains(&answer.status), "{closed}: {} {}", answer.status, answer.text());
    }
    for open in ["query", "labels", "series", "rules", "alerts", "metadata"] {
        assert_eq!(get("eve", open).await.status, 403, "{open}");
    }
}

/// What somebody is told is what the backend says to the confined question, to the byte.
async fn same_bytes(stage: &Stage, thanos: &Thanos) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 3600;
    let (start, end) = ((now - 24 * 3600).to_string(), now.to_string());
    for (query, confined) in [
        (
            "rate(vllm:generation_tokens_total[10m])",
            "rate(vllm:generation_tokens_total{namespace=~\"team-a|team-b\"}[10m])",
        ),
        (
            "sum by (namespace, pod) (training_loss)",
            "sum by (namespace, pod) (training_loss{namespace=~\"team-a|team-b\"})",
        ),
    ] {
        let pairs = |query| [("query", query), ("start", &*start), ("end", &*end), ("step", "300")];
        let ours = stage.form("ada", &format!("{BASE}/query_range"), &pairs(query)).await;
        let theirs =
            stage.http.form(&format!("{}/api/v1/query_range", thanos.url), "", &pairs(confined)).await.unwrap();
        assert!(theirs.body.len() > 10_000, "{}", theirs.text());
        assert_eq!(ours.body, theirs.body, "{query}");
    }
}

/// A store is gone: what is left is an answer with a warning, or an error, and neither says which.
async fn partial(stage: &Stage, thanos: &Thanos) {
    thanos.sidecars[1].signal("STOP");
    thanos.store.signal("KILL");
    // Each time another question, which no kept answer fits to.
    let asked = std::cell::Cell::new(0);
    let ask = async |pairs: &[(&str, &str)]| {
        asked.set(asked.get() + 1);
        let query = format!("requests_total offset {}ms", asked.get());
        let pairs = [&[("query", query.as_str()), ("dedup", "false")], pairs].concat();
        stage.form("grace", &format!("{BASE}/query"), &pairs).await
    };
    // The querier tells of a store that broke until it has left it out; so the question is asked at once.
    let (mut warned, mut refused) = (Value::Null, None);
    thanos.sidecars[1].signal("KILL");
    for _ in 0..20 {
        let answer = ask(&[("partial_response", "true")]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(!tells_of_stores(&answer.json()["warnings"].to_string()), "{}", answer.text());
        assert_eq!(label_values(&answer, "namespace"), set(&["team-b"]));
        let strict = ask(&[("partial_response", "false")]).await;
        assert!(!tells_of_stores(&strict.text()), "{}", strict.text());
        if !answer.json()["warnings"].is_null() {
            warned = answer.json()["warnings"].clone();
        }
        if strict.status != 200 {
            refused = Some((strict.status, strict.json()["status"].clone()));
        }
        if !warned.is_null() && refused.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(warned, json!(["partial response"]));
    let (status, word) = refused.expect("partial_response=false ends in an error");
    assert!(matches!(status, 422 | 502 | 503) && word == "error", "{status} {word}");
    let log = fs::read_to_string(stage.world.folder.join("sidecar.log")).unwrap();
    assert!(!log.contains(stage.world.token("grace")));
}
