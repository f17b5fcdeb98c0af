//! A real API server takes everything, in a dry run that knows no unknown field.

use std::collections::BTreeMap;

use perses_sidecar_stack::kubernetes::Kubernetes;
use perses_sidecar_stack::servers;
use serde_json::{Value, json};

use crate::{OVERLAYS, build, kind, name, of_kind, said, word};

/// Kinds of others, as small as can be.
const FOREIGN: [(&str, &str, &str, &str); 6] = [
    ("route.openshift.io", "v1", "Route", "routes"),
    ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
    ("cert-manager.io", "v1", "Certificate", "certificates"),
    ("cert-manager.io", "v1", "Issuer", "issuers"),
    ("perses.dev", "v1alpha2", "Perses", "perses"),
];

/// Defines a kind: group, version, kind, plural.
pub(crate) async fn define(cluster: &Kubernetes, (group, version, kind, plural): (&str, &str, &str, &str)) {
    let spec = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let schema = json!({ "type": "object", "required": ["spec"], "properties": { "spec": spec } });
    let version = json!({ "name": version, "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } });
    let names = json!({ "plural": plural, "singular": kind.to_lowercase(), "kind": kind });
    let body = json!({ "metadata": { "name": format!("{plural}.{group}") },
        "spec": { "group": group, "scope": "Namespaced", "names": names, "versions": [version] } });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let answer = cluster.ask("POST", path, "application/json", body.to_string()).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// Defines those of others that the manifests use.
pub(crate) async fn foreign_kinds(cluster: &Kubernetes) {
    for foreign in FOREIGN {
        define(cluster, foreign).await;
    }
}

struct Applying {
    cluster: Kubernetes,
    /// Plurals by API version and kind.
    plurals: BTreeMap<(String, String), (String, bool)>,
}

impl Applying {
    async fn start() -> Self {
        let folder = servers::run_folder("manifests").unwrap();
        let cluster = Kubernetes::start(&folder.join("cluster"), false, &|line| eprintln!("{line}")).await.unwrap();
        foreign_kinds(&cluster).await;
        // As the operators of others made it.
        cluster.add_namespace("redhat-ods-monitoring").await.unwrap();
        Self { cluster, plurals: BTreeMap::new() }
    }

    /// What discovery says of an object's kind: a definition is served a moment after it was made.
    async fn path(&mut self, object: &Value) -> String {
        let (version, kind) = (word(object, "/apiVersion"), kind(object));
        let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
        let key = (version.to_owned(), kind.to_owned());
        for _ in 0..100 {
            if self.plurals.contains_key(&key) {
                break;
            }
            let answer = self.cluster.ask("GET", &root, "", String::new()).await.unwrap().json();
            for resource in answer["resources"].as_array().into_iter().flatten() {
                let (name, of) = (word(resource, "/name"), word(resource, "/kind"));
                if !name.contains('/') {
                    let namespaced = resource["namespaced"] == true;
                    self.plurals.insert((version.to_owned(), of.to_owned()), (name.to_owned(), namespaced));
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let (plural, namespaced) = self.plurals.get(&key).unwrap_or_else(|| panic!("{key:?} is not served"));
        let namespace = word(object, "/metadata/namespace");
        assert_eq!(*namespaced, !namespace.is_empty(), "{}", said(object));
        let within = if *namespaced { format!("/namespaces/{namespace}") } else { String::new() };
        format!("{root}{within}/{plural}/{}", name(object))
    }

    /// Server-side apply.
    async fn apply(&mut self, object: &Value, dry: bool) -> (u16, String) {
        let dry = if dry { "&dryRun=All" } else { "" };
        let path = format!("{}?fieldManager=installer&force=true&fieldValidation=Strict{dry}", self.path(object).await);
        let answer =
            self.cluster.ask("PATCH", &path, "application/apply-patch+yaml", object.to_string()).await.unwrap();
        (answer.status, answer.text())
    }

    /// Would a pod of this template be let in?
    async fn pod(&self, namespace: &str, template: &Value) -> (u16, String) {
        let mut pod = json!({ "metadata": template["metadata"], "spec": template["spec"] });
        pod["metadata"]["generateName"] = json!("pod-");
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        let answer = self.cluster.ask("POST", &path, "application/json", pod.to_string()).await.unwrap();
        (answer.status, answer.text())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_takes_every_overlay() {
    let mut applying = Applying::start().await;
    let (mut objects, mut pods) = (0, 0);
    for overlay in OVERLAYS {
        let all = build(overlay);
        for object in of_kind(&all, "Namespace") {
            let (status, answer) = applying.apply(object, false).await;
            assert!(matches!(status, 200 | 201), "{overlay}: {answer}");
        }
        for object in &all {
            let (status, answer) = applying.apply(object, true).await;
            assert!(matches!(status, 200 | 201), "{overlay}: {}: {answer}", said(object));
            objects += 1;
            if kind(object) == "Deployment" {
                // Of the namespaces of ours all enforce Pod Security `restricted`.
                let template = &object["spec"]["template"];
                let namespace = word(object, "/metadata/namespace");
                let (status, answer) = applying.pod(namespace, template).await;
                assert_eq!(status, 201, "{overlay}: {}: {answer}", said(object));
                let mut other = template.clone();
                other["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
                let (status, answer) = applying.pod(namespace, &other).await;
                assert!(status == 403 && answer.contains("restricted"), "{overlay}: {status} {answer}");
                pods += 1;
            }
        }
    }
    eprintln!("{objects} objects and {pods} pods taken in a dry run");
    assert!(objects > 90 && pods >= 6, "{objects} {pods}");

    // What is misspelt is not taken, so what was taken is not misspelt.
    let all = build("overlays/openshift");
    let deployment = of_kind(&all, "Deployment").next().unwrap();
    for (pointer, key, value) in
        [("/spec/template/spec/containers/0", "readOnlyRootFileSystem", json!(true)), ("/spec", "replica", json!(2))]
    {
        let mut other = deployment.clone();
        other.pointer_mut(pointer).unwrap()[key] = value;
        let (status, answer) = applying.apply(&other, true).await;
        assert!(matches!(status, 400 | 500) && answer.contains(key), "{key}: {status} {answer}");
    }
    let mut policy = of_kind(&all, "ValidatingAdmissionPolicy").next().unwrap().clone();
    policy["spec"]["validations"][0]["expression"] = json!("object.spec.containers.exists(c, c.name ==)");
    assert_eq!(applying.apply(&policy, true).await.0, 422);
}
