//! What makes and finds pods goes on as before: Kubernetes' own controllers for workloads and Services, and an operator that
//! looks at what it has made again and again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Stage, case, find};

const APPS: &str = "/apis/apps/v1/namespaces/armed";
const CORE: &str = "/api/v1/namespaces/armed";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/armed/endpointslices";

/// A workload of the operator: which of the two depends on where dashboards are stored.
fn workload(kind: &str) -> Value {
    let pod = case("01", "data-science-perses");
    let labels = &pod["metadata"]["labels"];
    let mut spec = json!({
        "replicas": 1,
        "selector": { "matchLabels": labels },
        "template": { "metadata": { "labels": labels, "annotations": pod["metadata"]["annotations"] }, "spec": pod["spec"] },
    });
    if kind == "StatefulSet" {
        spec["serviceName"] = json!("data-science-perses");
    }
    json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "data-science-perses", "labels": labels }, "spec": spec })
}

fn service(name: &str, more: &Value) -> Value {
    let mut spec = json!({ "selector": { "app.kubernetes.io/name": "data-science-perses" } });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
}

impl Stage {
    async fn get(&self, path: &str) -> Value {
        self.cluster.ask("GET", path, "", String::new()).await.unwrap().json()
    }

    async fn delete(&self, path: &str) {
        let body = json!({ "gracePeriodSeconds": 0, "propagationPolicy": "Background" }).to_string();
        let answer = self.cluster.ask("DELETE", path, "application/json", body).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }

    /// The only pod of the workload, once a controller has made it.
    async fn made(&self) -> Value {
        let path = format!("{CORE}/pods?labelSelector=app.kubernetes.io/name%3Ddata-science-perses");
        let began = Instant::now();
        loop {
            let list = self.get(&path).await;
            let pods: Vec<&Value> = list["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|pod| pod["metadata"]["ownerReferences"].is_array())
                .collect();
            if let [one] = pods[..] {
                return one.clone();
            }
            assert!(began.elapsed() < Duration::from_secs(30), "no pod: {list}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The scheduler's part and kubelet's: the pod runs on a node, at an address.
    async fn runs(&self, pod: &Value, address: &str) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        self.post("/api/v1/nodes", &json!({ "metadata": { "name": "node" } }), 201).await;
        let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name }, "target": { "kind": "Node", "name": "node" } });
        self.post(&format!("{CORE}/pods/{name}/binding"), &binding, 201).await;
        let statuses = |list: &str| -> Vec<Value> {
            let all = pod["spec"][list].as_array().into_iter().flatten();
            all.map(|container| json!({ "name": container["name"], "image": "i", "imageID": "i", "ready": true, "started": true, "restartCount": 0,
                "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } })).collect()
        };
        let status = json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": "True" }, { "type": "ContainersReady", "status": "True" }],
            "containerStatuses": statuses("containers") } });
        let path = format!("{CORE}/pods/{name}/status");
        let kind = "application/merge-patch+json";
        let answer = self.cluster.ask("PATCH", &path, kind, status.to_string()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Where Kubernetes leads the clients of a Service: addresses and ports.
    async fn leads_to(&self, service: &str) -> BTreeSet<(String, u64)> {
        let path = format!("{SLICES}?labelSelector=kubernetes.io/service-name%3D{service}");
        let began = Instant::now();
        loop {
            let list = self.get(&path).await;
            let mut found = BTreeSet::new();
            for slice in list["items"].as_array().into_iter().flatten() {
                for endpoint in
                    slice["endpoints"].as_array().into_iter().flatten().filter(|one| one["conditions"]["ready"] == true)
                {
                    for port in slice["ports"].as_array().into_iter().flatten() {
                        let address = endpoint["addresses"][0].as_str().unwrap().to_owned();
                        found.insert((address, port["port"].as_u64().unwrap()));
                    }
                }
            }
            if !found.is_empty() {
                return found;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{service} leads nowhere: {list}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn of_sidecar(pod: &Value) -> BTreeSet<u64> {
    let ports = find(pod, "perses-sidecar").unwrap()["ports"].as_array().unwrap();
    ports.iter().map(|port| port["containerPort"].as_u64().unwrap()).collect()
}

fn is_protected(pod: &Value) -> bool {
    let words = find(pod, "perses").unwrap()["args"].as_array().unwrap();
    find(pod, "perses-sidecar").is_some() && words[0].as_str().unwrap().starts_with("--web.listen-address=127.0.0.1:")
}

/// What tells of a change: of the object, and of who has ever written it.
fn trace(object: &Value) -> (Value, BTreeSet<String>) {
    let managers = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let managers = managers.map(|entry| entry["manager"].as_str().unwrap_or_default().to_owned()).collect();
    (object["metadata"]["generation"].clone(), managers)
}

pub(crate) async fn go_on_as_before(stage: &Stage) {
    let _controllers = stage
        .cluster
        .run_controllers(&[
            "statefulset-controller",
            "deployment-controller",
            "replicaset-controller",
            "endpointslice-controller",
        ])
        .unwrap();
    // The operator makes the one and the other, as its resource changes.
    for (turn, kind) in ["StatefulSet", "Deployment", "StatefulSet"].into_iter().enumerate() {
        let plural = format!("{}s", kind.to_lowercase());
        stage.post(&format!("{APPS}/{plural}"), &workload(kind), 201).await;
        let pod = stage.made().await;
        assert!(is_protected(&pod), "{kind}: {pod}");
        if turn == 0 {
            services(stage, &pod).await;
            operator(stage).await;
        }
        let one = format!("{APPS}/{plural}/data-science-perses");
        let (generation, managers) = trace(&stage.get(&one).await);
        assert_eq!(generation, 1, "{kind}: nobody has changed it");
        assert!(!managers.iter().any(|name| name.contains("sidecar")), "{managers:?}");
        stage.delete(&one).await;
        // Nobody collects here what a workload leaves behind.
        if kind == "Deployment" {
            let sets = stage.get(&format!("{APPS}/replicasets")).await;
            stage
                .delete(&format!("{APPS}/replicasets/{}", sets["items"][0]["metadata"]["name"].as_str().unwrap()))
                .await;
        }
        stage.delete(&format!("{CORE}/pods/{}", pod["metadata"]["name"].as_str().unwrap())).await;
    }
    eprintln!("StatefulSet, Deployment and StatefulSet again: each pod has its sidecar, no workload was changed");
}

/// By number, by name, without an address of its own: a Service leads to the sidecar, and never to Perses.
async fn services(stage: &Stage, pod: &Value) {
    let ports = |target: Value| json!({ "ports": [{ "name": "http", "port": 8080, "targetPort": target }] });
    for (name, more) in [("numeric", ports(json!(8080))), ("named", ports(json!("perses")))] {
        stage.post(&format!("{CORE}/services"), &service(name, &more), 201).await;
        let mut headless = more.clone();
        headless["clusterIP"] = json!("None");
        stage.post(&format!("{CORE}/services"), &service(&format!("headless-{name}"), &headless), 201).await;
    }
    // The tenant's own, for people.
    let people = json!({ "ports": [{ "name": "https", "port": 443, "targetPort": "sidecar-https" }] });
    stage.post(&format!("{CORE}/services"), &service("people", &people), 201).await;
    stage.runs(pod, "10.1.2.3").await;
    let at = |port: u64| BTreeSet::from([("10.1.2.3".to_owned(), port)]);
    for name in ["numeric", "named", "headless-numeric", "headless-named"] {
        assert_eq!(stage.leads_to(name).await, at(8080), "{name}");
    }
    assert_eq!(stage.leads_to("people").await, at(8443));
    assert!(of_sidecar(pod).is_superset(&BTreeSet::from([8080, 8443, 9081])), "{pod}");
    assert!(find(pod, "perses").unwrap().get("ports").is_none());
}

/// What the operator does every time: it asks by a dry run what its own idea of an object would become, and writes it if that
/// differs from what is there. A hundred looks are more than an hour of them.
async fn operator(stage: &Stage) {
    let wanted_service = stage.get(&format!("{CORE}/services/numeric")).await;
    let objects = [
        (format!("{APPS}/statefulsets/data-science-perses"), workload("StatefulSet")),
        (format!("{CORE}/services/numeric"), service("numeric", &json!({ "ports": wanted_service["spec"]["ports"] }))),
    ];
    let mut updates = 0;
    let before: Vec<Value> = vec![stage.get(&objects[0].0).await, stage.get(&objects[1].0).await];
    for _ in 0..100 {
        for (path, wanted) in &objects {
            let live = stage.get(path).await;
            let mut desired = wanted.clone();
            desired["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
            for field in ["clusterIP", "clusterIPs"] {
                if let Some(given) = live["spec"].get(field) {
                    desired["spec"][field] = given.clone();
                }
            }
            let body = desired.to_string();
            let asked =
                stage.cluster.ask("PUT", &format!("{path}?dryRun=All"), "application/json", body).await.unwrap();
            assert_eq!(asked.status, 200, "{}", asked.text());
            if asked.json()["spec"] != live["spec"] {
                eprintln!("would become {}\nis {}", asked.json()["spec"], live["spec"]);
                updates += 1;
            }
        }
    }
    assert_eq!(updates, 0, "the operator fights with somebody");
    for ((path, _), before) in objects.iter().zip(before) {
        assert_eq!(trace(&stage.get(path).await), trace(&before), "{path}");
    }
}

/// The platform's operator applies its Perses again and again; the hook fills in the same field each time, so that nothing
/// changes after the first.
pub(crate) async fn the_hook_rests(stage: &Stage) {
    let path = "/apis/perses.dev/v1alpha2/namespaces/armed/perses/data-science-perses?fieldManager=platform&force=true";
    let perses = |memory: &str| {
        json!({ "apiVersion": "perses.dev/v1alpha2", "kind": "Perses", "metadata": { "name": "data-science-perses" },
        "spec": { "metadata": { "annotations": { "perses-sidecar.io/inject": "true" } }, "containerPort": 8080,
            "resources": { "limits": { "memory": memory } } } })
    };
    let apply = async |memory: &str| {
        let kind = "application/apply-patch+yaml";
        let answer = stage.cluster.ask("PATCH", path, kind, perses(memory).to_string()).await.unwrap();
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
        let object = answer.json();
        assert_eq!(object.pointer("/spec/client/kubernetesAuth/enable"), Some(&json!(true)), "{object}");
        (object["metadata"]["generation"].as_u64().unwrap(), object["metadata"]["resourceVersion"].clone())
    };
    let first = apply("512Mi").await;
    for _ in 0..20 {
        assert_eq!(apply("512Mi").await, first, "an apply that says nothing new changes nothing");
    }
    assert_eq!(apply("1Gi").await.0, first.0 + 1, "and one that does changes that");
}
