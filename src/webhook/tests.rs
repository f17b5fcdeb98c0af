//! Reviews as the API server sends them, and what only somebody else would send.

use http_body_util::BodyExt;

use super::*;
use crate::config::{self, Elsewhere};

fn webhook() -> Webhook {
    let text = std::fs::read_to_string("tests/golden/injection/webhook.yaml").expect("a file of the repository");
    let profiles = config::read_webhook(&text, &Elsewhere).expect("a good file").config.profiles;
    let metrics = Arc::new(Metrics::new());
    // Nobody answers there.
    let settings = config::Cluster {
        url: config::Origin::parse("https://127.0.0.1:1").expect("a URL"),
        ca: std::fs::read("tests/golden/config/ca.crt").expect("a file of the repository"),
        token_file: "tests/golden/config/ca.crt".into(),
        timeout: Duration::from_millis(500),
        in_flight: 1,
        per_second: 10,
    };
    let cluster = Arc::new(Cluster::new(&settings, Arc::clone(&metrics)).expect("a cluster"));
    let (_, live) = watch::channel(Arc::new(Live { profiles, cluster, largest: 64 << 10 }));
    Webhook { live, metrics, minor: Arc::new(OnceCell::new()) }
}

async fn send(webhook: &Webhook, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
    let request = Request::builder().method("POST").uri(path).header("content-type", "application/json; charset=utf-8");
    let response = webhook.answer(request.body(Full::new(body.into())).expect("a request")).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into()))
}

fn pod(annotation: &str) -> Value {
    json!({ "metadata": { "annotations": { "perses-sidecar.io/inject": annotation } },
        "spec": { "serviceAccountName": "x", "containers": [{ "name": "perses", "image": "i", "args": ["--config=c"] }] } })
}

fn asking(object: &Value) -> Value {
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE", "namespace": "team-a",
        "object": object, "dryRun": false } })
}

#[tokio::test]
async fn a_pod_gets_its_sidecar_and_a_dry_run_the_same() {
    let webhook = webhook();
    let review = asking(&pod("true"));
    let (status, first) = send(&webhook, "/mutate", review.to_string()).await;
    let response = &first["response"];
    assert_eq!(
        (status, &first["kind"], &first["apiVersion"]),
        (200, &json!("AdmissionReview"), &json!("admission.k8s.io/v1"))
    );
    assert_eq!(
        (&response["uid"], &response["allowed"], &response["patchType"]),
        (&json!("u-1"), &json!(true), &json!("JSONPatch"))
    );
    assert!(response["patch"].as_str().is_some_and(|patch| patch.len() > 1000));
    let mut dry = review.clone();
    dry["request"]["dryRun"] = json!(true);
    assert_eq!(send(&webhook, "/mutate", dry.to_string()).await.1, first);
    // A pod without the sidecar does not pass the last look.
    let (_, last) = send(&webhook, "/validate", review.to_string()).await;
    assert_eq!((&last["response"]["allowed"], &last["response"]["status"]["code"]), (&json!(false), &json!(403)));
    assert!(webhook.metrics.encode().contains(r#"injections_total{outcome="injected"} 2"#));
}

#[tokio::test]
async fn what_is_no_new_pod_is_let_through() {
    let webhook = webhook();
    for (key, value) in [
        ("operation", json!("UPDATE")),
        ("subResource", json!("ephemeralcontainers")),
        ("kind", json!({ "group": "apps", "version": "v1", "kind": "Deployment" })),
        ("object", pod("false")),
    ] {
        for path in ["/mutate", "/validate"] {
            let mut review = asking(&pod("true"));
            review["request"][key] = value.clone();
            let (status, answer) = send(&webhook, path, review.to_string()).await;
            assert_eq!((status, &answer["response"]), (200, &json!({ "uid": "u-1", "allowed": true })), "{key}");
        }
    }
}

#[tokio::test]
async fn refusals_say_why_and_a_silent_api_server_is_a_no() {
    let webhook = webhook();
    let (_, answer) = send(&webhook, "/mutate", asking(&pod("yes please")).to_string()).await;
    let message = answer["response"]["status"]["message"].as_str().unwrap_or_default();
    assert!(answer["response"]["allowed"] == false && message.contains("\"yes please\""), "{answer}");
    let mut silent = pod("true");
    silent["metadata"] = json!({});
    let (_, answer) = send(&webhook, "/mutate", asking(&silent).to_string()).await;
    assert_eq!((&answer["response"]["allowed"], &answer["response"]["status"]["code"]), (&json!(false), &json!(503)));
    // Whoever is no Perses need not wait for an answer.
    silent["spec"]["containers"][0]["name"] = json!("web");
    let (_, answer) = send(&webhook, "/mutate", asking(&silent).to_string()).await;
    assert_eq!(answer["response"]["allowed"], true);
}

#[tokio::test]
async fn what_no_api_server_sends_is_refused() {
    let webhook = webhook();
    let old = asking(&pod("true")).to_string().replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let nameless = asking(&pod("true")).to_string().replace("u-1", "");
    let large = format!("{}{}", " ".repeat(70 << 10), asking(&pod("true")));
    let deep = "[".repeat(100_000);
    for (body, status) in [
        (String::new(), 400),
        ("{".to_owned(), 400),
        ("[]".to_owned(), 400),
        ("null".to_owned(), 400),
        (old, 400),
        (nameless, 400),
        (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#.to_owned(), 400),
        (large, 413),
        (deep, 413),
        ("[".repeat(10_000), 400),
    ] {
        let short: String = body.chars().take(40).collect();
        assert_eq!(send(&webhook, "/mutate", body).await.0, status, "{short}");
    }
    assert_eq!(send(&webhook, "/", "{}").await.0, 404);
    let request = |method: &str, kind: &str| {
        let request = Request::builder().method(method).uri("/mutate").header("content-type", kind);
        request.body(Full::new(Bytes::new())).expect("a request")
    };
    assert_eq!(webhook.answer(request("GET", "application/json")).await.status(), 405);
    assert_eq!(webhook.answer(request("POST", "text/plain")).await.status(), 415);
}

#[tokio::test]
async fn the_perses_resource_lets_its_operator_send_a_token() {
    let webhook = webhook();
    let mut review =
        asking(&json!({ "spec": { "metadata": { "annotations": { "perses-sidecar.io/inject": "true" } } } }));
    review["request"]["kind"] = json!({ "group": "perses.dev", "version": "v1alpha2", "kind": "Perses" });
    let (_, answer) = send(&webhook, "/mutate", review.to_string()).await;
    let patch = json!([{ "op": "add", "path": "/spec/client", "value": { "kubernetesAuth": { "enable": true } } }]);
    assert_eq!(answer["response"]["patch"], json!(encoding::base64(patch.to_string().as_bytes())));
    for client in [json!({ "basicAuth": {} }), json!({ "kubernetesAuth": { "enable": false } })] {
        review["request"]["object"]["spec"]["client"] = client;
        let (_, answer) = send(&webhook, "/mutate", review.to_string()).await;
        assert!(answer["response"].get("patch").is_none() && answer["response"]["warnings"][0].is_string(), "{answer}");
    }
    // At the resource itself it does nothing, which is said.
    let at = |value: &str| json!({ "metadata": { "annotations": { "perses-sidecar.io/inject": value } }, "spec": {} });
    for (value, told) in [("true", true), ("false", false)] {
        review["request"]["object"] = at(value);
        let (_, answer) = send(&webhook, "/mutate", review.to_string()).await;
        assert!(answer["response"].get("patch").is_none(), "{answer}");
        let said = answer["response"]["warnings"][0].as_str().unwrap_or_default();
        assert_eq!(said.contains("write it into spec.metadata.annotations"), told, "{answer}");
    }
    review["request"]["object"] = json!({ "spec": {} });
    assert!(send(&webhook, "/mutate", review.to_string()).await.1["response"].get("patch").is_none());
}
