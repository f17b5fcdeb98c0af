//! The webhook while its file changes: a wrong one is told and changes nothing, and one that was never right starts nothing.

use std::time::Duration;

use perses_sidecar::app::webhook;
use perses_sidecar::config;
use perses_sidecar_stack::http::{Http, Https};
use perses_sidecar_stack::openshift::Certificates;
use serde_json::{Value, json};

use crate::support::{More, stage};

const POD: &str = "tests/golden/injection/01-the-operator-s-statefulset-pod-as-opensh.yaml";

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_of_the_webhook_is_told_and_changes_nothing() {
    let stage = stage(More::default(), [0, 0]).await;
    let folder = stage.config.parent().unwrap().to_owned();
    let pair = Certificates::make(&["localhost", "127.0.0.1"]).unwrap();
    for (name, text) in [("tls.crt", &pair.certificate), ("tls.key", &pair.key)] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let golden = std::fs::read_to_string("tests/golden/injection/webhook.yaml").unwrap();
    let good = format!(
        "listen:\n  webhook: 127.0.0.1:0\n  admin: 127.0.0.1:0\ntls:\n  certificate_file: {0}/tls.crt\n  key_file: {0}/tls.key\ncluster:\n  \
         url: https://127.0.0.1:{1}\n  ca_file: {2}\n  token_file: {3}\n{golden}",
        folder.display(),
        stage.taps.cluster.port,
        stage.openshift.ca_file().display(),
        stage.openshift.token_file().display(),
    );
    let path = folder.join("webhook.yaml");
    // One that was never right starts nothing.
    let wrong = good.replace("image: registry.example/perses/perses-sidecar:0.1.0", "imago: x");
    std::fs::write(&path, &wrong).unwrap();
    let problems = config::load_webhook(&path).unwrap_err();
    assert!(problems.iter().any(|problem| problem.message.contains("did you mean \"image\"?")), "{problems:?}");

    std::fs::write(&path, &good).unwrap();
    let loaded = config::load_webhook(&path).unwrap_or_else(|problems| panic!("{problems:?}"));
    let (ready, ports) = tokio::sync::oneshot::channel();
    let file = path.clone();
    let server = tokio::spawn(async move {
        webhook::run(&file, loaded, None, std::future::pending(), |ports| ready.send(*ports).unwrap()).await.unwrap();
    });
    let ports = ports.await.unwrap();
    let https = Https::new(&format!("https://{}", ports.webhook), &pair.ca).unwrap();
    let pod: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(POD).unwrap()).unwrap();
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE", "namespace": "team-a",
        "object": pod[1] } });
    let injected = async || {
        let answer = https.send("POST", "/mutate", "", "application/json", review.to_string()).await.unwrap();
        assert_eq!(answer.json()["response"]["allowed"], true, "{}", answer.text());
        answer.json()["response"]["patch"].as_str().map(str::to_owned)
    };
    let told = async |path: &str, words: &str| {
        let mut text = String::new();
        for _ in 0..200 {
            let answer = Http::default().send("GET", &format!("http://{}{path}", ports.admin), &[], "").await.unwrap();
            text = answer.text();
            if text.contains(words) {
                assert_eq!(answer.status, 200, "{text}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{words:?} does not come: {text}");
    };
    let before = injected().await;
    assert!(before.is_some());
    for wrong in [&wrong, "injection: [", &good.replace("tls.key", "tls.crt")] {
        std::fs::write(&path, wrong).unwrap();
        told("/readyz", "config ok: the last good one is in use; the file is wrong: ").await;
        told("/metrics", "perses_sidecar_config_last_reload_successful 0\n").await;
        assert_eq!(injected().await, before, "pods are injected as before");
        std::fs::write(&path, &good).unwrap();
        told("/readyz", "config ok: in use\n").await;
        told("/metrics", "perses_sidecar_config_last_reload_successful 1\n").await;
    }
    // And a right one counts without a restart.
    std::fs::write(&path, good.replace("perses-sidecar:0.1.0", "perses-sidecar:0.1.1")).unwrap();
    told("/metrics", "perses_sidecar_config_reloads_total{outcome=\"good\"} 4\n").await;
    assert_ne!(injected().await, before);
    server.abort();
}
