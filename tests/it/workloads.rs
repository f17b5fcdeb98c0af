//! Workloads come, change and go; their dashboards stand beside the stored ones, for those alone who may see them.

mod api;
mod discovery;
mod foreign;
mod rendered;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use perses_sidecar_stack::http::Answer;
use serde_json::{Value, json};

use crate::support::{Gate, Seen, gate};

/// Looks often, so that tests need not wait.
const QUICK: &str = "workloads:\n  discovery: 100ms\n";

/// In the name of the dashboard of a notebook that is called bench.
const BENCH: &str = "notebook-bench";

fn notebook(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "kubeflow.org/v1", "kind": "Notebook",
            "metadata": { "name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "template": { "spec": { "containers": [{ "name": name }] } } },
            "status": { "readyReplicas": 1 } })
}

/// Asks until it is so, for 10 s at most.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: not within 10 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn names(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let list = answer.json().as_array().cloned().unwrap_or_else(|| panic!("no list: {}", answer.text()));
    let part = |object: &Value, key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    list.iter().map(|object| format!("{}/{}", part(object, "project"), part(object, "name"))).collect()
}

impl Gate {
    /// The names of somebody's dashboards, each with its project.
    async fn dashboards(&self, token: &str) -> Vec<String> {
        names(&self.get(token, "/api/v1/dashboards?metadata_only=true").await)
    }

    /// Waits until a list has an entry with this in its name.
    async fn sees(&self, token: &str, part: &str) -> String {
        until(part, async || self.dashboards(token).await.into_iter().find(|name| name.contains(part))).await
    }

    /// Waits until it has none any more.
    async fn sees_no(&self, token: &str, part: &str) {
        until(part, async || (!self.dashboards(token).await.iter().any(|name| name.contains(part))).then_some(()))
            .await;
    }

    async fn send(&self, method: &str, token: &str, path: &str, body: &Value) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let authorization = format!("Bearer {token}");
        let mut headers = vec![("authorization", authorization.as_str())];
        if !body.is_null() {
            headers.push(("content-type", "application/json"));
        }
        self.http.send(method, &format!("{}{path}", self.url), &headers, &text).await.unwrap()
    }

    /// A number of our own metrics.
    async fn metric(&self, line: &str) -> u64 {
        let text = self.http.send("GET", &format!("{}/metrics", self.admin), &[], "").await.unwrap().text();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        found.unwrap_or_else(|| panic!("{line} in {text}"))
    }
}

/// What Perses does with dashboards, by project and name; projects come with what is stored in them.
type Store = Arc<Mutex<BTreeMap<(String, String), Value>>>;

fn perses(gate: &Gate) -> Store {
    let store = Store::default();
    let kept = Arc::clone(&store);
    let projects = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    gate.upstream.answers_by(move |seen: &Seen| {
        let (method, rest) = seen.line.split_once(' ')?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parts: Vec<&str> = path.trim_start_matches("/api/v1/").split('/').collect();
        let body: Value = serde_json::from_str(&seen.body).unwrap_or_default();
        let (mut store, mut projects) = (kept.lock().unwrap(), projects.lock().unwrap());
        let missing = || Some((404, r#"{"message":"document not found"}"#.to_owned()));
        let list = |all: Vec<&Value>| {
            let bare = query.contains("metadata_only=true");
            let one = |object: &&Value| {
                json!({ "kind": "Dashboard", "metadata": object["metadata"],
                "spec": if bare { json!({}) } else { object["spec"].clone() } })
            };
            Some((200, Value::Array(all.iter().map(one).collect()).to_string()))
        };
        match (method, &parts[..]) {
            ("POST", ["projects"]) => {
                projects.insert(body["metadata"]["name"].as_str()?.to_owned());
                Some((200, "{}".to_owned()))
            }
            ("GET", ["projects", project]) => {
                if projects.contains(*project) {
                    Some((200, "{}".to_owned()))
                } else {
                    missing()
                }
            }
            ("GET", ["dashboards"]) => list(store.values().collect()),
            ("GET", ["projects", project, "dashboards"]) => {
                if !projects.contains(*project) {
                    return Some((400, r#"{"message":"bad request"}"#.to_owned()));
                }
                list(store.iter().filter(|((known, _), _)| known == project).map(|(_, object)| object).collect())
            }
            ("POST", ["projects", project, "dashboards"]) => {
                let key = ((*project).to_owned(), body["metadata"]["name"].as_str()?.to_owned());
                if store.contains_key(&key) {
                    return Some((409, r#"{"message":"document already exists"}"#.to_owned()));
                }
                store.insert(key, body.clone());
                Some((200, body.to_string()))
            }
            (method, ["projects", project, "dashboards", name]) => {
                let key = ((*project).to_owned(), (*name).to_owned());
                if !store.contains_key(&key) {
                    return missing();
                }
                match method {
                    "GET" => Some((200, store[&key].to_string())),
                    "PUT" => {
                        store.insert(key, body.clone());
                        Some((200, body.to_string()))
                    }
                    _ => {
                        store.remove(&key);
                        Some((204, String::new()))
                    }
                }
            }
            _ => missing(),
        }
    });
    store
}

/// A gate with a notebook in team-a that is seen, and what Perses has stored: nothing.
async fn with_notebook(more: &str) -> (Gate, Store, String) {
    let gate = gate(&format!("{QUICK}{more}")).await;
    let store = perses(&gate);
    gate.openshift.cluster().put_object(notebook("team-a", "bench"));
    let ada = gate.token("ada");
    let seen = gate.sees(&ada, BENCH).await;
    let name = seen.strip_prefix("team-a/").unwrap().to_owned();
    (gate, store, name)
}
