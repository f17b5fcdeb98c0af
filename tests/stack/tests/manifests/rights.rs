//! Each right that is shipped is needed, by the feature that its comment names and by no other: it is taken away on a real
//! API server, and everything is tried.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use perses_sidecar_stack::ground::{Ground, Kind};
use perses_sidecar_stack::http::{Http, Https};
use perses_sidecar_stack::kubernetes::Kubernetes;
use perses_sidecar_stack::openshift::Certificates;
use perses_sidecar_stack::servers::{self, Server};
use perses_sidecar_stack::world::{Options, World};
use serde_json::{Value, json};

use crate::applied::define;
use crate::{build, kind, name};

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

fn role(overlay: &str, wanted: &str) -> Value {
    let found = build(overlay).into_iter().find(|object| kind(object) == "ClusterRole" && name(object) == wanted);
    found.unwrap_or_else(|| panic!("{overlay} has no ClusterRole {wanted}"))
}

/// Replaces a role, which must be there.
async fn put(cluster: &Kubernetes, role: &Value) {
    let path = format!("{ROLES}/{}", name(role));
    let answer = cluster.ask("PUT", &path, "application/json", role.to_string()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// What a rule lets its holder do first, as a review of access asks it.
fn asked(rule: &Value) -> Value {
    let first = |key: &str| rule[key][0].as_str().unwrap_or_default().to_owned();
    let (resource, part) = first("resources")
        .split_once('/')
        .map_or_else(|| (first("resources"), String::new()), |(resource, part)| (resource.to_owned(), part.to_owned()));
    json!({ "group": first("apiGroups"), "resource": resource, "subresource": part, "verb": first("verbs"), "name": first("resourceNames") })
}

/// Waits until the API server holds an account to a rule, or no longer does.
async fn held(cluster: &Kubernetes, account: &str, rule: &Value, wanted: bool) {
    let review = json!({ "spec": { "user": account, "groups": ["system:serviceaccounts", "system:authenticated"],
        "resourceAttributes": asked(rule) } });
    let began = Instant::now();
    loop {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = cluster.ask("POST", path, "application/json", review.to_string()).await.unwrap().json();
        if (answer["status"]["allowed"] == true) == wanted {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{rule} {wanted}: {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

const ACCOUNT: &str = "system:serviceaccount:perses:perses-sidecar";

/// A workload for each rule about workloads: API version, kind, plural.
const WORKLOADS: [(&str, &str, &str); 6] = [
    ("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices"),
    ("kubeflow.org/v1", "PyTorchJob", "pytorchjobs"),
    ("trainer.kubeflow.org/v1alpha1", "TrainJob", "trainjobs"),
    ("ray.io/v1", "RayCluster", "rayclusters"),
    ("kueue.x-k8s.io/v1beta2", "LocalQueue", "localqueues"),
    ("batch/v1", "Job", "jobs"),
];

/// Defines the kinds that are not the API server's own, and makes one object of each.
async fn make_workloads(cluster: &Kubernetes) {
    for (version, kind, plural) in WORKLOADS {
        let (group, bare) = version.split_once('/').unwrap();
        if group != "batch" {
            define(cluster, (group, bare, kind, plural)).await;
        }
        let spec = json!({ "clusterQueue": "all", "template": { "spec": { "restartPolicy": "Never",
            "containers": [{ "name": "c", "image": "registry.example/c:1", "resources": { "limits": { "nvidia.com/gpu": "1" } } }] } } });
        let object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "one" }, "spec": spec });
        let path = format!("/apis/{version}/namespaces/team-a/{plural}");
        let began = Instant::now();
        loop {
            let answer = cluster.ask("POST", &path, "application/json", object.to_string()).await.unwrap();
            if answer.status == 201 {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{path}: {}", answer.text());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The kinds of which a workload is found, as soon as there are so many.
async fn found(world: &World, wanted: usize) -> BTreeSet<&'static str> {
    let http = Http::default();
    let began = Instant::now();
    loop {
        let metrics = http.get(&format!("{}/metrics", world.admin()), "").await.unwrap().text();
        let has = |kind: &str| metrics.contains(&format!("perses_sidecar_workloads{{kind=\"{kind}\"}} 1\n"));
        let kinds: BTreeSet<&str> = WORKLOADS.iter().map(|(_, kind, _)| *kind).filter(|kind| has(kind)).collect();
        if kinds.len() >= wanted {
            return kinds;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{kinds:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What works, by feature: the status of one request for each, and the kinds of workloads that are found.
async fn features(world: &World, wanted: usize) -> (BTreeMap<&'static str, u16>, BTreeSet<&'static str>) {
    // A new process remembers no verdict.
    let arguments = world.sidecar_arguments();
    let sidecar = Server::start(&servers::sidecar(), &arguments, &world.folder.join("sidecar.log"), &[]).unwrap();
    sidecar.ready(&format!("{}/healthz", world.admin()), Duration::from_secs(20)).await.unwrap();
    let http = Http::default();
    let mut statuses = BTreeMap::new();
    for (feature, path) in [
        ("who", "/api/v1/user/whoami"),
        ("may", "/api/v1/projects/team-a/dashboards"),
        ("namespaces", "/api/v1/projects"),
    ] {
        let answer = http.get(&format!("{}{path}", world.gateway()), world.token("ada")).await.unwrap();
        statuses.insert(feature, answer.status);
    }
    (statuses, found(world, wanted).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_of_the_sidecar_is_needed() {
    let options = Options { cluster: Kind::Real, ..Options::default() };
    let world = World::start(&options, &|line| eprintln!("{line}")).await.unwrap();
    let Ground::Real(cluster) = &world.ground else { panic!("not the real one") };
    make_workloads(cluster).await;
    let statuses = BTreeMap::from([("who", 200), ("may", 200), ("namespaces", 200)]);
    let kinds: BTreeSet<&str> = WORKLOADS.iter().map(|(_, kind, _)| *kind).collect();
    let good = (statuses, kinds);
    assert_eq!(features(&world, WORKLOADS.len()).await, good);
    let mut count = 0;
    for whole in ["perses-sidecar", "perses-sidecar-workloads"].map(|wanted| role("roles", wanted)) {
        for (index, rule) in whole["rules"].as_array().unwrap().iter().enumerate() {
            let mut less = whole.clone();
            less["rules"].as_array_mut().unwrap().remove(index);
            put(cluster, &less).await;
            held(cluster, ACCOUNT, rule, false).await;
            let mut expected = good.clone();
            let first = rule["resources"][0].as_str().unwrap();
            // Everything rests on who somebody is, and most on what they may.
            let failing: &[&str] = match first {
                "tokenreviews" => &["who", "may", "namespaces"],
                "subjectaccessreviews" => &["may", "namespaces"],
                "namespaces" => &["namespaces"],
                _ => &[],
            };
            expected.0.extend(failing.iter().map(|feature| (*feature, 503)));
            expected.1.retain(|kind| WORKLOADS.iter().any(|(_, known, plural)| known == kind && *plural != first));
            assert_eq!(failing.is_empty(), expected.1.len() < WORKLOADS.len(), "no feature needs {rule}");
            assert_eq!(features(&world, expected.1.len()).await, expected, "without {rule}");
            put(cluster, &whole).await;
            held(cluster, ACCOUNT, rule, true).await;
            count += 1;
        }
    }
    assert_eq!(features(&world, WORKLOADS.len()).await, good);
    assert_eq!(count, 9);
}

/// What OpenShift is asked: there is no such server here, so the API server says whether it would be allowed.
#[tokio::test(flavor = "multi_thread")]
async fn rights_of_openshift_and_of_the_webhook() {
    let folder = servers::run_folder("rights").unwrap();
    let cluster = Kubernetes::start(&folder.join("cluster"), false, &|line| eprintln!("{line}")).await.unwrap();
    let objects: Vec<Value> =
        build("overlays/openshift-ai").into_iter().filter(|object| kind(object).starts_with("ClusterRole")).collect();
    for object in objects.iter().filter(|object| {
        name(object).starts_with("perses-sidecar-openshift") || name(object).starts_with("perses-sidecar-webhook")
    }) {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{}s", kind(object).to_lowercase());
        let answer = cluster.ask("POST", &path, "application/json", object.to_string()).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let whole = role("overlays/openshift-ai", "perses-sidecar-openshift");
    let account = "system:serviceaccount:redhat-ods-monitoring:perses-sidecar";
    for (index, rule) in whole["rules"].as_array().unwrap().iter().enumerate() {
        held(&cluster, account, rule, true).await;
        held(&cluster, ACCOUNT, rule, false).await;
        let mut less = whole.clone();
        less["rules"].as_array_mut().unwrap().remove(index);
        put(&cluster, &less).await;
        held(&cluster, account, rule, false).await;
        put(&cluster, &whole).await;
    }
    webhook(&cluster, &folder).await;
}

/// The webhook's one right: to know what a namespace wants. Without it pods that leave it to the namespace are refused, and
/// those that ask themselves are injected as before.
async fn webhook(cluster: &Kubernetes, folder: &std::path::Path) {
    let token = cluster.account_token("perses", "webhook", &[]).await.unwrap();
    let account = "system:serviceaccount:perses:webhook";
    let binding = json!({ "metadata": { "name": "webhook-here" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "perses-sidecar-webhook" },
        "subjects": [{ "kind": "ServiceAccount", "name": "webhook", "namespace": "perses" }] });
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(cluster.ask("POST", path, "application/json", binding.to_string()).await.unwrap().status, 201);
    let all = json!({ "metadata": { "name": "all", "annotations": { "perses-sidecar.io/inject-default": "true" } } });
    assert_eq!(
        cluster.ask("POST", "/api/v1/namespaces", "application/json", all.to_string()).await.unwrap().status,
        201
    );

    let pair = Certificates::make(&["localhost"]).unwrap();
    let (own, port, admin) = (folder.display(), servers::free_port().unwrap(), servers::free_port().unwrap());
    for (file, text) in [("tls.crt", &pair.certificate), ("tls.key", &pair.key), ("webhook.token", &token)] {
        fs::write(folder.join(file), text).unwrap();
    }
    let golden = servers::checkout().join("tests/golden/injection");
    let profiles = fs::read_to_string(golden.join("webhook.yaml")).unwrap();
    fs::write(
        folder.join("webhook.yaml"),
        format!(
            "listen:\n  webhook: 127.0.0.1:{port}\n  admin: 127.0.0.1:{admin}\ntls:\n  certificate_file: {own}/tls.crt\n  key_file: {own}/tls.key\n\
             cluster:\n  url: {}\n  ca_file: {}/ca.crt\n  token_file: {own}/webhook.token\n{profiles}",
            cluster.url(),
            cluster.folder().display()
        ),
    )
    .unwrap();
    let arguments = ["webhook".to_owned(), "--config".to_owned(), folder.join("webhook.yaml").display().to_string()];
    let server = Server::start(&servers::sidecar(), &arguments, &folder.join("webhook.log"), &[]).unwrap();
    server.ready(&format!("http://127.0.0.1:{admin}/readyz"), Duration::from_secs(20)).await.unwrap();
    let https = Https::new(&format!("https://127.0.0.1:{port}"), &pair.ca).unwrap();
    let case = fs::read_to_string(golden.join("01-the-operator-s-statefulset-pod-as-opensh.yaml")).unwrap();
    let cases: Vec<Value> = serde_saphyr::from_multiple(&case).unwrap();
    let ask = async |annotations: Value| {
        let mut pod = cases[1].clone();
        pod["metadata"]["annotations"] = annotations;
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "resource": { "group": "", "version": "v1", "resource": "pods" },
            "operation": "CREATE", "namespace": "all", "object": pod } });
        let answer = https.send("POST", "/mutate", "", "application/json", review.to_string()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let response = answer.json()["response"].clone();
        (response["allowed"] == true, response.get("patch").is_some())
    };
    let asks = || json!({ "perses-sidecar.io/inject": "true" });
    let whole = role("base", "perses-sidecar-webhook");
    let rules = whole["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 1);
    held(cluster, account, &rules[0], true).await;
    assert_eq!((ask(json!({})).await, ask(asks()).await), ((true, true), (true, true)));
    let mut less = whole.clone();
    less["rules"] = json!([]);
    put(cluster, &less).await;
    held(cluster, account, &rules[0], false).await;
    assert_eq!((ask(json!({})).await, ask(asks()).await), ((false, false), (true, true)));
}
