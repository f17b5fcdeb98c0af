//! docs/install.md, followed word by word: its `sh` blocks run as they stand, with real kubectl before a real API server; the
//! operator, service-ca and kubelet are played by this test.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use perses_sidecar_stack::kubernetes::Kubernetes;
use perses_sidecar_stack::openshift::Certificates;
use perses_sidecar_stack::servers::{self, Server};
use serde_json::{Value, json};

use crate::applied::foreign_kinds;

/// The `sh` blocks of each section, in order.
fn sections() -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(servers::checkout().join("docs/install.md")).unwrap();
    let mut sections: Vec<(String, Vec<String>)> = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        match (&mut block, line) {
            (Some(lines), "```") => {
                sections.last_mut().unwrap().1.push(std::mem::take(lines));
                block = None;
            }
            (Some(lines), line) => lines.push_str(&format!("{line}\n")),
            (None, "```sh") => block = Some(String::new()),
            (None, line) => {
                if let Some(title) = line.strip_prefix("## ") {
                    sections.push((title.to_owned(), Vec::new()));
                }
            }
        }
    }
    sections
}

/// A new admin: a checkout, the tools that are named, a cluster.
struct Admin {
    cluster: Kubernetes,
    folder: PathBuf,
    /// Of the webhook that the test runs in the cluster's stead.
    pair: Certificates,
    port: u16,
}

impl Admin {
    async fn new() -> Self {
        let folder = servers::run_folder("documented").unwrap();
        let cluster = Kubernetes::start(&folder.join("cluster"), false, &|line| eprintln!("{line}")).await.unwrap();
        foreign_kinds(&cluster).await;
        let (checkout, bin) = (folder.join("checkout"), folder.join("bin"));
        fs::create_dir_all(&bin).unwrap();
        servers::copy_folder(&servers::checkout().join("manifests"), &checkout.join("manifests")).unwrap();
        let kubectl = servers::binary("kubectl", servers::KUBERNETES, &|line| eprintln!("{line}")).unwrap();
        symlink(kubectl, bin.join("kubectl")).unwrap();
        symlink(servers::sidecar(), bin.join("perses-sidecar")).unwrap();
        let pair = Certificates::make(&["localhost"]).unwrap();
        Self { cluster, folder, pair, port: servers::free_port().unwrap() }
    }

    fn checkout(&self) -> PathBuf {
        self.folder.join("checkout")
    }

    /// Runs a block; what it prints.
    fn run(&self, block: &str) -> String {
        let path = format!("{}:{}", self.folder.join("bin").display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", block])
            .current_dir(self.checkout())
            .env("PATH", path)
            .env("KUBECONFIG", self.cluster.folder().join("kubeconfig"))
            .env("DOMAIN", "apps.cluster.test")
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{block}\n{said}");
        said
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.cluster.ask("GET", path, "", String::new()).await.unwrap();
        (answer.status, answer.json())
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.cluster.ask("POST", path, "application/json", body.to_string()).await.unwrap();
        (answer.status, answer.json())
    }

    /// What service-ca and a cluster's network do: the registrations that were applied lead to the webhook of this test.
    async fn lead_here(&self) {
        use perses_sidecar_stack::encoding::base64;
        for plural in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
            let list = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
            for mut object in self.get(&list).await.1["items"].as_array().unwrap().clone() {
                assert_eq!(object["metadata"]["annotations"]["service.beta.openshift.io/inject-cabundle"], "true");
                for hook in object["webhooks"].as_array_mut().unwrap() {
                    let path = hook["clientConfig"]["service"]["path"].as_str().unwrap().to_owned();
                    hook["clientConfig"] = json!({ "url": format!("https://localhost:{}{path}", self.port),
                        "caBundle": base64(self.pair.ca.as_bytes()) });
                }
                let path = format!("{list}/{}", object["metadata"]["name"].as_str().unwrap());
                let answer = self.cluster.ask("PUT", &path, "application/json", object.to_string()).await.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
    }

    /// The webhook with the configuration that was applied, but for ports and files.
    async fn webhook(&self) -> Server {
        let (_, map) = self.get("/api/v1/namespaces/perses-sidecar-system/configmaps/perses-sidecar-webhook").await;
        let applied = map["data"]["webhook.yaml"].as_str().unwrap();
        assert!(applied.contains("https://perses-{namespace}.apps.cluster.test"), "{applied}");
        let (own, admin) = (self.folder.display(), servers::free_port().unwrap());
        let token = self.cluster.account_token("perses-sidecar-system", "perses-sidecar-webhook", &[]).await.unwrap();
        for (file, text) in
            [("tls.crt", &self.pair.certificate), ("tls.key", &self.pair.key), ("webhook.token", &token)]
        {
            fs::write(self.folder.join(file), text).unwrap();
        }
        let text = applied.replace("/etc/perses-sidecar/tls/", &format!("{own}/"));
        let text = format!(
            "{text}listen:\n  webhook: 127.0.0.1:{}\n  admin: 127.0.0.1:{admin}\ncluster:\n  url: {}\n  ca_file: {}/ca.crt\n  token_file: {own}/webhook.token\n",
            self.port,
            self.cluster.url(),
            self.cluster.folder().display()
        );
        fs::write(self.folder.join("webhook.yaml"), text).unwrap();
        let arguments =
            ["webhook".to_owned(), "--config".to_owned(), self.folder.join("webhook.yaml").display().to_string()];
        let server = Server::start(&servers::sidecar(), &arguments, &self.folder.join("webhook.log"), &[]).unwrap();
        server.ready(&format!("http://127.0.0.1:{admin}/readyz"), Duration::from_secs(20)).await.unwrap();
        server
    }
}

/// The operator: the StatefulSet's pod, with the annotations that the Perses resource gives it.
fn operators_pod(perses: &Value, namespace: &str) -> Value {
    let golden = servers::checkout().join("tests/golden/injection/01-the-operator-s-statefulset-pod-as-opensh.yaml");
    let mut pod: Value =
        serde_saphyr::from_multiple::<Value>(&fs::read_to_string(golden).unwrap()).unwrap().swap_remove(1);
    pod["metadata"]["namespace"] = json!(namespace);
    pod["metadata"]["annotations"] =
        perses["spec"]["metadata"].get("annotations").cloned().unwrap_or_else(|| json!({}));
    if let Some(account) = perses["spec"].get("serviceAccountName") {
        pod["spec"]["serviceAccountName"] = account.clone();
    }
    pod
}

fn has_sidecar(pod: &Value) -> bool {
    pod["spec"]["containers"]
        .as_array()
        .is_some_and(|list| list.iter().any(|container| container["name"] == "perses-sidecar"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_who_follows_the_page_gets_there() {
    let admin = Admin::new().await;
    let sections = sections();
    let names: Vec<&str> =
        sections.iter().map(|(name, blocks)| if blocks.is_empty() { "" } else { name.as_str() }).collect();
    assert_eq!(names, ["OpenShift AI", "OpenShift", "Kubernetes", "Stand-alone", "", "", ""]);
    openshift_ai(&admin, &sections[0].1).await;
    openshift(&admin, &sections[1].1).await;
    for block in sections[2].1.iter().chain(&sections[3].1) {
        admin.run(block);
    }
    let (_, deployment) = admin.get("/apis/apps/v1/namespaces/perses/deployments/perses").await;
    assert_eq!(deployment["spec"]["replicas"], 2);
    let volumes = deployment["spec"]["template"]["spec"]["volumes"].to_string();
    for volume in deployment["spec"]["template"]["spec"]["volumes"].as_array().unwrap() {
        if let Some(name) =
            volume.pointer("/secret/secretName").and_then(Value::as_str).filter(|name| *name != "perses-sidecar-tls")
        {
            assert_eq!(
                admin.get(&format!("/api/v1/namespaces/perses/secrets/{name}")).await.0,
                200,
                "{name} in {volumes}"
            );
        }
    }
}

const NAMESPACE: &str = "redhat-ods-monitoring";

async fn openshift_ai(admin: &Admin, blocks: &[String]) {
    let [folder, check, install, roll_out, see, roll_back, remove] = blocks else { panic!("{} blocks", blocks.len()) };
    // What is there before: the namespace, the resource, what the operator made of it.
    admin.cluster.add_namespace(NAMESPACE).await.unwrap();
    let resource = "/apis/perses.dev/v1alpha2/namespaces/redhat-ods-monitoring/perses";
    let perses = json!({ "apiVersion": "perses.dev/v1alpha2", "kind": "Perses", "metadata": { "name": "data-science-perses" },
        "spec": { "metadata": { "labels": {} }, "containerPort": 8080 } });
    assert_eq!(admin.post(resource, &perses).await.0, 201);
    let pod = operators_pod(&perses, NAMESPACE);
    let set = json!({ "metadata": { "name": "data-science-perses" }, "spec": { "serviceName": "x",
        "selector": { "matchLabels": pod["metadata"]["labels"] },
        "template": { "metadata": { "labels": pod["metadata"]["labels"] }, "spec": pod["spec"] } } });
    let sets = format!("/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets");
    assert_eq!(admin.post(&sets, &set).await.0, 201);

    admin.run(folder);
    let said = admin.run(check);
    assert!(said.contains("--web.listen-address=127.0.0.1:9080") && said.contains("must send a token"), "{said}");
    admin.run(install);
    let webhook = admin.webhook().await;
    admin.lead_here().await;
    // Nothing is armed yet.
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let (status, made) = admin.post(&format!("{pods}?dryRun=All"), &pod).await;
    assert!(status == 201 && !has_sidecar(&made), "{status} {made}");

    admin.run(roll_out);
    let began = Instant::now();
    let (perses, made) = loop {
        let (_, perses) = admin.get(&format!("{resource}/data-science-perses")).await;
        let (status, made) = admin.post(&format!("{pods}?dryRun=All"), &operators_pod(&perses, NAMESPACE)).await;
        if status == 201
            && has_sidecar(&made)
            && perses.pointer("/spec/client/kubernetesAuth/enable") == Some(&json!(true))
        {
            break (perses, made);
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{status} {made}\n{perses}\n{}", webhook.output());
        // A registration is heard of a moment later; the administrator would do it again too.
        tokio::time::sleep(Duration::from_millis(300)).await;
        admin.run(&format!(
            "kubectl -n {NAMESPACE} annotate --overwrite perses data-science-perses again={}",
            began.elapsed().as_millis()
        ));
    };
    assert_eq!(made["spec"]["serviceAccountName"], "perses-sidecar");
    assert_eq!(admin.post(&pods, &operators_pod(&perses, NAMESPACE)).await.0, 201);
    let said = admin.run(see);
    assert!(said.contains("\"public\":8080"), "{said}");
    let profile = made["spec"]["containers"].to_string();
    assert!(profile.contains("https://perses-redhat-ods-monitoring.apps.cluster.test"), "{profile}");

    // The operator restarts the pod.
    let path = format!("{pods}/data-science-perses-0?gracePeriodSeconds=0");
    assert_eq!(admin.cluster.ask("DELETE", &path, "", String::new()).await.unwrap().status, 200);
    admin.run(roll_back);
    let (_, perses) = admin.get(&format!("{resource}/data-science-perses")).await;
    let (status, made) = admin.post(&format!("{pods}?dryRun=All"), &operators_pod(&perses, NAMESPACE)).await;
    assert!(status == 201 && !has_sidecar(&made), "{status} {made}");
    admin.run(remove);
    let (_, perses) = admin.get(&format!("{resource}/data-science-perses")).await;
    assert!(perses["spec"].get("client").is_none() && perses["spec"].get("serviceAccountName").is_none(), "{perses}");
    // Others' things are still there, and ours are gone.
    assert_eq!(admin.get(&format!("/api/v1/namespaces/{NAMESPACE}")).await.1["status"]["phase"], "Active");
    for gone in [
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/perses-sidecar",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/perses-sidecar-guard",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/perses-sidecar:redhat-ods-monitoring",
        "/api/v1/namespaces/redhat-ods-monitoring/services/perses-sidecar",
    ] {
        assert_eq!(admin.get(gone).await.0, 404, "{gone}");
    }
}

async fn openshift(admin: &Admin, blocks: &[String]) {
    let [tenant, annotate, inject] = blocks else { panic!("{} blocks", blocks.len()) };
    admin.cluster.add_namespace("team-perses").await.unwrap();
    admin.run(tenant);
    let (status, binding) =
        admin.get("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/perses-sidecar:team-perses").await;
    assert!(status == 200 && binding["subjects"][0]["namespace"] == "team-perses", "{binding}");
    admin.run(annotate);
    let (_, namespace) = admin.get("/api/v1/namespaces/team-perses").await;
    assert_eq!(namespace["metadata"]["labels"]["perses-sidecar.io/injection"], "enabled");
    assert_eq!(namespace["metadata"]["annotations"]["perses-sidecar.io/inject-default"], "true");
    deployment(&admin.checkout());
    admin.run(inject);
    let injected: Value =
        serde_saphyr::from_str(&fs::read_to_string(admin.checkout().join("injected.yaml")).unwrap()).unwrap();
    assert!(has_sidecar(&injected["spec"]["template"]), "{injected}");
    let (status, answer) =
        admin.post("/apis/apps/v1/namespaces/team-perses/deployments?fieldValidation=Strict", &injected).await;
    assert_eq!(status, 201, "{answer}");
}

/// Somebody's own Deployment.
fn deployment(folder: &Path) {
    let object = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "perses", "namespace": "team-perses" },
        "spec": { "selector": { "matchLabels": { "app": "perses" } }, "template": {
            "metadata": { "labels": { "app": "perses" }, "annotations": { "perses-sidecar.io/inject": "true" } },
            "spec": { "serviceAccountName": "perses-sidecar", "containers": [{ "name": "perses", "image": "docker.io/persesdev/perses:v0.54.0",
                "args": ["--config=/etc/perses/config.yaml"], "ports": [{ "containerPort": 8080 }] }] } } } });
    fs::write(folder.join("perses-deployment.yaml"), serde_saphyr::to_string(&object).unwrap()).unwrap();
}
