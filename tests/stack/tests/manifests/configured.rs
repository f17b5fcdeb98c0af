//! Every configuration that the manifests carry is read by the product, mounted where the manifests mount it, by the user
//! that OpenShift would choose.

use std::process::Command;

use perses_sidecar_stack::openshift::{Certificates, random_text};
use perses_sidecar_stack::pod::{self, Pod, Root};
use perses_sidecar_stack::servers;
use serde_json::{Value, json};

use crate::{OVERLAYS, build, name, of_kind, word};

/// A token whose claims name an account; nobody has signed it.
fn token() -> String {
    let claims = json!({ "sub": "system:serviceaccount:redhat-ods-monitoring:perses-sidecar" }).to_string();
    format!("e30.{}.c2ln", perses_sidecar_stack::encoding::base64url(claims.as_bytes()))
}

fn object(kind: &str, name: &str, data: Value) -> Value {
    json!({ "kind": kind, "metadata": { "name": name }, "data": data })
}

/// What a cluster and docs/install.md add to an overlay.
pub(crate) fn surroundings(objects: &[Value]) -> Vec<Value> {
    let pair = Certificates::make(&["localhost"]).unwrap();
    let tls = json!({ "tls.crt": pair.certificate, "tls.key": pair.key });
    let mut all: Vec<Value> = objects.to_vec();
    // The network operator fills it.
    for object in all.iter_mut().filter(|object| name(object) == "perses-sidecar-trusted-ca") {
        object["data"] = json!({ "ca-bundle.crt": pair.ca });
    }
    all.extend([
        object("Secret", "perses-sidecar-webhook-tls", tls.clone()),
        object("Secret", "perses-sidecar-tls", tls),
        object("Secret", "perses-sidecar-keys", json!({ "current": random_text(48) })),
        object("Secret", "perses-encryption-key", json!({ "encryption-key": random_text(32) })),
        object("Secret", "perses-database", json!({ "user": "perses", "password": random_text(24) })),
        object("Secret", "perses-valkey", json!({ "password": random_text(24) })),
        object("ConfigMap", "kube-root-ca.crt", json!({ "ca.crt": pair.ca })),
        object("ConfigMap", "openshift-service-ca.crt", json!({ "service-ca.crt": pair.ca })),
        object("ConfigMap", "data-science-perses-config", json!({ "config.yaml": "" })),
    ]);
    all
}

const API: [(&str, &str); 2] = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];

/// `perses-sidecar check` in a container instead of what the container runs.
fn check(pod: &Pod, container: &str) -> (bool, String) {
    let mut arguments = pod.arguments(container);
    assert!(matches!(arguments[0].as_str(), "run" | "webhook"), "{arguments:?}");
    arguments[0] = "check".to_owned();
    let program = servers::sidecar();
    let fields = [("status.podIPs", "10.1.2.3")];
    let words = pod.words(container, &Root::Program(&program), "/perses-sidecar", &arguments, &fields, &API).unwrap();
    let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

#[test]
fn every_configuration_is_good_where_it_is_mounted() {
    assert!(pod::can_run(), "bwrap cannot make a container here: install bubblewrap, and allow user namespaces");
    let folder = servers::run_folder("configured").unwrap();
    let (mut checked, mut injected) = (0, 0);
    for overlay in OVERLAYS {
        let objects = surroundings(&build(overlay));
        for deployment in of_kind(&objects, "Deployment").filter(|deployment| name(deployment) != "perses-valkey") {
            let home = folder.join(format!("{overlay}/{}", name(deployment)));
            let spec = &deployment["spec"]["template"]["spec"];
            let pod = Pod::lay_out(spec, &objects, &token(), &home).unwrap();
            for container in ["webhook", "perses-sidecar"].into_iter().filter(|name| pod.container(name).is_object()) {
                let (good, said) = check(&pod, container);
                assert!(good && said.contains(": good"), "{overlay}: {said}");
                checked += 1;
            }
        }
        let Some(webhook) = of_kind(&objects, "ConfigMap").find_map(|map| map["data"]["webhook.yaml"].as_str()) else {
            continue;
        };
        let home = folder.join(format!("{overlay}/injected"));
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("webhook.yaml"), webhook).unwrap();
        let golden =
            servers::checkout().join("tests/golden/injection/01-the-operator-s-statefulset-pod-as-opensh.yaml");
        let cases: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(golden).unwrap()).unwrap();
        let pod = inject(&home.join("webhook.yaml"), &cases[1]);
        // What a tenant's folder holds besides, and the cluster.
        let mut around = surroundings(&build("overlays/openshift-ai"));
        let laid = Pod::lay_out(&pod["spec"], &around, &token(), &home).unwrap();
        let (good, said) = check(&laid, "perses-sidecar");
        assert!(good && said.contains(": good"), "{overlay}: {said}");
        injected += 1;

        // What a namespace may not set is found there too, and what must be there is waited for.
        around.push(object(
            "ConfigMap",
            "perses-sidecar",
            json!({ "config.yaml": "perses:\n  url: http://127.0.0.1:1\n" }),
        ));
        let wrong = Pod::lay_out(&pod["spec"], &around, &token(), &home.join("wrong")).unwrap();
        let (good, said) = check(&wrong, "perses-sidecar");
        assert!(!good && said.contains("perses"), "{overlay}: {said}");
        around.retain(|object| name(object) != "perses-sidecar-tls");
        let Err(error) = Pod::lay_out(&pod["spec"], &around, &token(), &home.join("waits")) else {
            panic!("{overlay}: no pair")
        };
        assert!(error.to_string().contains("perses-sidecar-tls"), "{error}");
    }
    assert_eq!((checked, injected), (5, 3));
    std::fs::remove_dir_all(folder).unwrap();
}

fn inject(config: &std::path::Path, pod: &Value) -> Value {
    use std::io::Write;
    let mut child = Command::new(servers::sidecar())
        .args(["inject", "--config"])
        .arg(config)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(pod.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The webhook injects the image that it runs itself, and stand-alone has the same; its tag is this version.
#[test]
fn one_image_everywhere() {
    let ours = format!("quay.io/perses-sidecar/perses-sidecar:{}", env!("CARGO_PKG_VERSION"));
    let mut seen = 0;
    for overlay in OVERLAYS {
        let objects = build(overlay);
        for deployment in of_kind(&objects, "Deployment") {
            for container in deployment.pointer("/spec/template/spec/containers").and_then(Value::as_array).unwrap() {
                if matches!(word(container, "/name"), "webhook" | "perses-sidecar") {
                    assert_eq!(word(container, "/image"), ours, "{overlay}");
                    seen += 1;
                }
            }
        }
        for map in of_kind(&objects, "ConfigMap").filter_map(|map| map["data"]["webhook.yaml"].as_str()) {
            let config: Value = serde_saphyr::from_str(map).unwrap();
            assert_eq!(word(&config, "/injection/image"), ours, "{overlay}");
            seen += 1;
        }
    }
    assert_eq!(seen, 8);
}
