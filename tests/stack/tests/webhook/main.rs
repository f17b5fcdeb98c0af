//! The webhook's own binary behind a real API server, registered by the manifests that are shipped: every golden pod, pods
//! of five shapes, Pod Security, the guard, a webhook that is down, and a certificate that changes under load.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

mod controllers;
mod toured;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use perses_sidecar_stack::encoding::base64;
use perses_sidecar_stack::http::Answer;
use perses_sidecar_stack::kubernetes::Kubernetes;
use perses_sidecar_stack::openshift::Certificates;
use perses_sidecar_stack::servers::{self, Server};
use serde_json::{Value, json};

struct Stage {
    cluster: Kubernetes,
    webhook: Option<Server>,
    folder: PathBuf,
    /// Two pairs of two authorities, both of which the API server believes.
    pairs: [Certificates; 2],
    ports: [u16; 2],
}

const REGISTRATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

impl Stage {
    async fn start() -> Self {
        let folder = servers::run_folder("webhook").unwrap();
        let cluster = Kubernetes::start(&folder.join("cluster"), false, &|line| eprintln!("{line}")).await.unwrap();
        let pairs = [Certificates::make(&["localhost"]).unwrap(), Certificates::make(&["localhost"]).unwrap()];
        let ports = [servers::free_port().unwrap(), servers::free_port().unwrap()];
        let golden = fs::read_to_string(golden().join("webhook.yaml")).unwrap();
        let (own, at) = (folder.display(), cluster.folder().display());
        fs::write(
            folder.join("webhook.yaml"),
            format!(
                "listen:\n  webhook: 127.0.0.1:{}\n  admin: 127.0.0.1:{}\ntls:\n  certificate_file: {own}/tls.crt\n  \
                 key_file: {own}/tls.key\ncluster:\n  url: {}\n  ca_file: {at}/ca.crt\n  token_file: {at}/token\n{golden}",
                ports[0],
                ports[1],
                cluster.url()
            ),
        )
        .unwrap();
        let mut stage = Self { cluster, webhook: None, folder, pairs, ports };
        // The rights that are shipped, for the account whose token the webhook has here.
        let rights = fs::read_to_string(servers::checkout().join("manifests/base/rights.yaml")).unwrap();
        let rights = rights.replace(
            "    name: perses-sidecar-webhook\n    namespace: perses-sidecar-system",
            "    name: perses-sidecar\n    namespace: perses",
        );
        for (document, plural) in rights.split("\n---\n").skip(1).zip(["clusterroles", "clusterrolebindings"]) {
            let path = format!("/apis/rbac.authorization.k8s.io/v1/{plural}");
            let answer = stage.cluster.ask("POST", &path, "application/yaml", document.to_owned()).await.unwrap();
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        stage.serve_with(0);
        stage.start_webhook().await;
        for (name, labels, annotations) in [
            ("plain", json!({}), json!({})),
            (
                "armed",
                json!({ "perses-sidecar.io/injection": "enabled", "pod-security.kubernetes.io/enforce": "restricted" }),
                json!({}),
            ),
            (
                "all",
                json!({ "perses-sidecar.io/injection": "enabled", "pod-security.kubernetes.io/enforce": "restricted" }),
                json!({ "perses-sidecar.io/inject-default": "true" }),
            ),
        ] {
            let metadata = json!({ "name": name, "labels": labels, "annotations": annotations });
            stage.post("/api/v1/namespaces", &json!({ "metadata": metadata }), 201).await;
        }
        stage
    }

    fn serve_with(&self, pair: usize) {
        // By rename, as kubelet has it: nobody reads half a file.
        for (name, text) in [("tls.key", &self.pairs[pair].key), ("tls.crt", &self.pairs[pair].certificate)] {
            fs::write(self.folder.join("new"), text).unwrap();
            fs::rename(self.folder.join("new"), self.folder.join(name)).unwrap();
        }
    }

    async fn start_webhook(&mut self) {
        let arguments = ["webhook", "--config"].map(str::to_owned).into_iter().chain([self
            .folder
            .join("webhook.yaml")
            .display()
            .to_string()]);
        let server =
            Server::start(&servers::sidecar(), &arguments.collect::<Vec<_>>(), &self.folder.join("webhook.log"), &[])
                .unwrap();
        server.ready(&format!("http://127.0.0.1:{}/readyz", self.ports[1]), Duration::from_secs(20)).await.unwrap();
        self.webhook = Some(server);
    }

    async fn post(&self, path: &str, body: &Value, status: u16) -> Answer {
        let answer = self.cluster.ask("POST", path, "application/json", body.to_string()).await.unwrap();
        assert_eq!(answer.status, status, "{path}: {}\n{body}", answer.text());
        answer
    }

    /// Creates a pod, or asks what would become of it.
    async fn create(&self, namespace: &str, pod: &Value, dry_run: bool) -> (u16, Value) {
        let query = if dry_run { "?dryRun=All" } else { "" };
        let path = format!("/api/v1/namespaces/{namespace}/pods{query}");
        let answer = self.cluster.ask("POST", &path, "application/json", pod.to_string()).await.unwrap();
        (answer.status, answer.json())
    }

    /// Applies a manifest as it is shipped, with this process for the Service that it names.
    async fn register(&self, file: &str) {
        let text = fs::read_to_string(servers::checkout().join("manifests").join(file)).unwrap();
        let bundle = base64(format!("{}{}", self.pairs[0].ca, self.pairs[1].ca).as_bytes());
        for document in text.split("\n---\n") {
            let mut lines = Vec::new();
            for line in document.lines() {
                match line.trim() {
                    "service:" | "name: perses-sidecar-webhook" | "namespace: perses-sidecar-system" | "port: 443" => {}
                    word => match word.strip_prefix("path: ") {
                        Some(path) => {
                            lines.push(format!("      url: https://localhost:{}{path}", self.ports[0]));
                            lines.push(format!("      caBundle: {bundle}"));
                        }
                        None => lines.push(line.to_owned()),
                    },
                }
            }
            let kind = document.lines().find_map(|line| line.strip_prefix("kind: ")).unwrap();
            let plural = if kind.ends_with('y') {
                format!("{}ies", kind.trim_end_matches('y').to_lowercase())
            } else {
                format!("{}s", kind.to_lowercase())
            };
            let answer = self
                .cluster
                .ask("POST", &format!("{REGISTRATIONS}/{plural}"), "application/yaml", lines.join("\n"))
                .await
                .unwrap();
            assert_eq!(answer.status, 201, "{file}: {}", answer.text());
        }
    }

    async fn forget(&self, plural: &str, name: &str) {
        let path = format!("{REGISTRATIONS}/{plural}/{name}");
        assert_eq!(self.cluster.ask("DELETE", &path, "", String::new()).await.unwrap().status, 200, "{path}");
    }

    /// The API server learns of a registration a moment later.
    async fn until(&self, what: &str, namespace: &str, pod: &Value, holds: impl Fn(u16, &Value) -> bool) {
        let began = Instant::now();
        loop {
            let (status, answer) = self.create(namespace, pod, true).await;
            if holds(status, &answer) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{what}: {status} {answer}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn golden() -> PathBuf {
    servers::checkout().join("tests/golden/injection")
}

/// The documents of a golden file.
fn documents(path: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap()
}

/// What Pod Security's `restricted` asks of containers that are not ours.
fn restrict(pod: &mut Value) {
    for list in ["containers", "initContainers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let context = container.as_object_mut().unwrap().entry("securityContext").or_insert_with(|| json!({}));
            for (key, value) in [
                ("allowPrivilegeEscalation", json!(false)),
                ("runAsNonRoot", json!(true)),
                ("capabilities", json!({ "drop": ["ALL"] })),
                ("seccompProfile", json!({ "type": "RuntimeDefault" })),
            ] {
                context.as_object_mut().unwrap().entry(key).or_insert(value);
            }
        }
    }
}

fn find<'p>(pod: &'p Value, name: &str) -> Option<&'p Value> {
    ["containers", "initContainers"]
        .iter()
        .filter_map(|list| pod["spec"][*list].as_array())
        .flatten()
        .find(|container| container["name"] == name)
}

/// A pod of a golden file, by the beginning of its name.
fn case(number: &str, name: &str) -> Value {
    let entry = fs::read_dir(golden()).unwrap().flatten().map(|entry| entry.path());
    let path = entry.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with(number)).unwrap();
    let mut pod = documents(&path).swap_remove(1);
    pod["metadata"]["name"] = json!(name);
    pod["metadata"].as_object_mut().unwrap().remove("namespace");
    restrict(&mut pod);
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_on_a_real_api_server() {
    let mut stage = Stage::start().await;
    stage.register("base/mutating.yaml").await;
    stage.register("base/validating.yaml").await;
    let usual = case("01", "usual");
    stage
        .until("the webhooks are called", "armed", &usual, |status, pod| {
            status == 201 && find(pod, "perses-sidecar").is_some()
        })
        .await;
    every_golden_pod(&stage).await;
    five_shapes(&stage).await;
    certificates_change_under_load(&stage).await;
    the_resource_of_perses(&stage).await;
    controllers::the_hook_rests(&stage).await;
    controllers::go_on_as_before(&stage).await;

    // Without the first webhook the second says no, and without both the guard does.
    stage.forget("mutatingwebhookconfigurations", "perses-sidecar").await;
    let message = |answer: &Value| answer["message"].as_str().unwrap_or_default().to_owned();
    stage
        .until("the second look", "armed", &usual, |status, answer| {
            status == 403 && message(answer).contains("is not as perses-sidecar needs it")
        })
        .await;
    stage.register("base/guard.yaml").await;
    stage.forget("validatingwebhookconfigurations", "perses-sidecar").await;
    stage
        .until("the guard", "armed", &usual, |status, answer| {
            status == 422 && message(answer).contains("none was injected")
        })
        .await;
    guard(&stage).await;

    // The webhook is down.
    stage.forget("validatingadmissionpolicybindings", "perses-sidecar-guard").await;
    stage.register("base/mutating.yaml").await;
    stage.until("the webhook is called again", "armed", &usual, |status, _| status == 201).await;
    stage.webhook = None;
    let (status, answer) = stage.create("armed", &usual, true).await;
    assert!(status == 500 && message(&answer).contains("failed calling webhook"), "{status} {answer}");
    let mut other = case("01", "other");
    other["metadata"]["annotations"] = json!({ "perses-sidecar.io/inject": "false" });
    assert_eq!(stage.create("armed", &other, true).await.0, 201, "said false");
    other["metadata"]["annotations"] = json!({});
    other["spec"]["containers"][0]["name"] = json!("web");
    other["spec"]["containers"][0]["image"] = json!("registry.example/web:1");
    for namespace in ["armed", "all", "plain"] {
        assert_eq!(stage.create(namespace, &other, true).await.0, 201, "of no concern in {namespace}");
    }
    assert_eq!(stage.create("plain", &usual, true).await.0, 201, "the namespace has no label");
    // And it is up again.
    stage.start_webhook().await;
    stage.until("the webhook is back", "armed", &usual, |status, _| status == 201).await;
}

/// What the pure rules say of each golden pod becomes true on the API server, under Pod Security `restricted`.
async fn every_golden_pod(stage: &Stage) {
    // Pod Security or the API server itself has something else to say of these, or another version is asked for; and no
    // controller here gives a pod the service account that it does not name.
    let elsewhere = ["36", "44b", "48", "50-", "55", "59a", "59b"];
    let (mut injected, mut refused, mut untouched) = (0, 0, 0);
    let mut files: Vec<PathBuf> = fs::read_dir(golden()).unwrap().flatten().map(|entry| entry.path()).collect();
    files.sort();
    for path in files {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name == "webhook" || elsewhere.iter().any(|number| name.starts_with(number)) {
            continue;
        }
        let all = documents(&path);
        let (head, verdict) = (&all[0], &all[2]);
        let namespace = if head["inject_default"] == true { "all" } else { "armed" };
        let mut pod = all[1].clone();
        restrict(&mut pod);
        let (status, answer) = stage.create(namespace, &pod, true).await;
        if let Some(why) = verdict.get("refused") {
            let message = answer["message"].as_str().unwrap_or_default();
            assert!(status == 403 && message.contains(why.as_str().unwrap()), "{name}: {status} {answer}");
            refused += 1;
            continue;
        }
        assert_eq!(status, 201, "{name}: {answer}");
        if verdict.get("untouched").is_some() {
            assert!(find(&answer, "perses-sidecar").is_none(), "{name}");
            untouched += 1;
            continue;
        }
        for container in all[3]["spec"]["containers"].as_array().unwrap() {
            let made = find(&answer, container["name"].as_str().unwrap()).unwrap();
            for key in ["args", "command"] {
                assert_eq!(made.get(key), container.get(key), "{name}: {key} of {}", container["name"]);
            }
        }
        // What was made, defaults and all, goes in again and stays as it is.
        let mut again = answer.clone();
        for key in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"] {
            again["metadata"].as_object_mut().unwrap().remove(key);
        }
        let (status, second) = stage.create(namespace, &again, true).await;
        assert_eq!(status, 201, "{name}: {second}");
        assert_eq!(second["spec"], answer["spec"], "{name}");
        assert_eq!(second["metadata"]["annotations"], answer["metadata"]["annotations"], "{name}");
        injected += 1;
    }
    eprintln!("golden pods on the API server: {injected} injected, {refused} refused, {untouched} untouched");
    assert!(injected >= 40 && refused >= 20 && untouched >= 4, "{injected} {refused} {untouched}");
}

async fn five_shapes(stage: &Stage) {
    for (number, name, public) in [
        ("01", "operator", 8080),
        ("04", "tls", 8080),
        ("06", "chart", 8080),
        ("12b", "by-hand", 8082),
        ("33", "two", 8080),
    ] {
        let (status, made) = stage.create("armed", &case(number, name), false).await;
        assert_eq!(status, 201, "{made}");
        let path = format!("/api/v1/namespaces/armed/pods/{name}");
        let stored = stage.cluster.ask("GET", &path, "", String::new()).await.unwrap().json();
        let sidecar = find(&stored, "perses-sidecar").unwrap();
        let ports: Vec<u64> =
            sidecar["ports"].as_array().unwrap().iter().filter_map(|entry| entry["containerPort"].as_u64()).collect();
        assert!(ports.contains(&public), "{name}: {ports:?}");
        let perses = find(&stored, "perses").unwrap();
        assert!(perses.get("ports").is_none(), "{name}");
        let line = format!("{}{}", perses["command"], perses["args"]);
        assert!(line.contains("--web.listen-address=127.0.0.1:"), "{name}: {line}");
        assert_eq!(find(&stored, "perses-sidecar").unwrap()["securityContext"]["readOnlyRootFilesystem"], true);
    }
}

async fn certificates_change_under_load(stage: &Stage) {
    let pod = case("01", "load");
    let done = AtomicBool::new(false);
    let load = async || {
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            let (status, answer) = stage.create("armed", &pod, true).await;
            assert_eq!(status, 201, "{answer}");
            count += 1;
        }
        count
    };
    let http = perses_sidecar_stack::http::Http::default();
    let url = format!("http://127.0.0.1:{}/metrics", stage.ports[1]);
    let taken = async || {
        let metrics = http.send("GET", &url, &[], "").await.unwrap().text();
        let line =
            metrics.lines().find(|line| line.starts_with("perses_sidecar_config_reloads_total{outcome=\"good\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).unwrap()
    };
    let rotate = async {
        for turn in 1..=4 {
            stage.serve_with(turn % 2);
            let began = Instant::now();
            while taken().await < u32::try_from(turn).unwrap() {
                assert!(began.elapsed() < Duration::from_secs(30), "certificate {turn} was not taken");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        done.store(true, Ordering::Relaxed);
    };
    let (a, b, c, ()) = tokio::join!(load(), load(), load(), rotate);
    eprintln!("{} pods while the certificate changed four times, none failed", a + b + c);
}

async fn guard(stage: &Stage) {
    let message = |answer: &Value| answer["message"].as_str().unwrap_or_default().to_owned();
    let mut decoy = case("01", "decoy");
    let mut other = decoy["spec"]["containers"][0].clone();
    other["name"] = json!("perses-sidecar");
    decoy["spec"]["containers"].as_array_mut().unwrap().push(other);
    let (status, answer) = stage.create("armed", &decoy, true).await;
    assert!(status == 422 && message(&answer).contains("must listen on the loopback"), "{status} {answer}");
    let listen = |words: Value| {
        let mut pod = decoy.clone();
        pod["spec"]["containers"][0]["args"] = words;
        pod
    };
    let loopback = "--web.listen-address=127.0.0.1:9080";
    for (words, expected) in [
        (json!([loopback, "--config=x"]), 201),
        (json!([loopback, "--web.listen-address=:8080"]), 422),
        (json!([loopback, "-web.listen-address", ":8080"]), 422),
        (json!(["--config=x"]), 422),
    ] {
        assert_eq!(stage.create("armed", &listen(words.clone()), true).await.0, expected, "{words}");
    }
    let mut silent = case("01", "silent");
    silent["metadata"]["annotations"] = json!({});
    assert_eq!(stage.create("armed", &silent, true).await.0, 201, "nobody asked");
    assert_eq!(stage.create("all", &silent, true).await.0, 422, "the namespace asks");
    silent["metadata"]["annotations"] = json!({ "perses-sidecar.io/inject": "False" });
    assert_eq!(stage.create("all", &silent, true).await.0, 201, "the pod says no");
    assert_eq!(stage.create("plain", &case("01", "plain"), true).await.0, 201, "no label");
}

async fn the_resource_of_perses(stage: &Stage) {
    let version = |name: &str, storage: bool| {
        json!({ "name": name, "served": true, "storage": storage, "schema": { "openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true } } })
    };
    let definition = json!({
        "metadata": { "name": "perses.perses.dev" },
        "spec": { "group": "perses.dev", "scope": "Namespaced", "names": { "plural": "perses", "singular": "perses", "kind": "Perses" },
            "versions": [version("v1alpha2", true), version("v1alpha1", false)] },
    });
    stage.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition, 201).await;
    stage.register("components/perses-resource/webhook.yaml").await;
    let perses = json!({ "apiVersion": "perses.dev/v1alpha2", "kind": "Perses", "metadata": { "name": "p" },
        "spec": { "metadata": { "annotations": { "perses-sidecar.io/inject": "true" } } } });
    let began = Instant::now();
    loop {
        let path = "/apis/perses.dev/v1alpha2/namespaces/armed/perses?dryRun=All";
        let answer = stage.cluster.ask("POST", path, "application/json", perses.to_string()).await.unwrap();
        if answer.json().pointer("/spec/client/kubernetesAuth/enable") == Some(&json!(true)) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
