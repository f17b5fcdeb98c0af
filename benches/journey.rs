//! How many instructions does the journey of one API read and one confined query cost, and one confinement alone?
//!
//! Run under callgrind by `benches/count`, which subtracts an empty run and compares with `benches/expected.txt`. The gateway
//! runs in this process on one thread, with the stand-in and a small upstream beside it in the same count: the figures are
//! for comparison with themselves.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a program for a terminal")]

use std::sync::Arc;

use perses_sidecar::promql::{self, Features, Labels, Limits, Reach};

const QUERIES: [&str; 4] = [
    "up",
    "sum(rate(http_requests_total[5m])) by (a)",
    "sum by (namespace, pod) (rate(container_cpu_usage_seconds_total{container!=\"\", pod=~\"x-.*\"}[5m])) / on (namespace, pod) group_left (node) sum by (namespace, pod, node) (kube_pod_container_resource_limits{resource=\"cpu\"})",
    "(sum(rate(http_requests_total{job=\"api\",code=~\"5..\"}[5m])) / sum(rate(http_requests_total{job=\"api\"}[5m])) > (14.4 * 0.001)) and (sum(rate(http_requests_total{job=\"api\",code=~\"5..\"}[1h])) / sum(rate(http_requests_total{job=\"api\"}[1h])) > (14.4 * 0.001)) or (sum(rate(http_requests_total{job=\"api\",code=~\"5..\"}[30m])) / sum(rate(http_requests_total{job=\"api\"}[30m])) > (6 * 0.001)) and (sum(rate(http_requests_total{job=\"api\",code=~\"5..\"}[6h])) / sum(rate(http_requests_total{job=\"api\"}[6h])) > (6 * 0.001)) or histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{job=\"api\"}[5m]))) > 1.5",
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let times: usize = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    match what.as_str() {
        "confine" => confine(times),
        "route" => route(times),
        "read" | "query" => journey(&what, times),
        // `cargo test --benches` and a curious person.
        _ => {
            confine(1);
            route(1);
            journey("read", 1);
            journey("query", 1);
            println!("each once: good");
        }
    }
}

fn confine(times: usize) {
    let reach = Reach::Namespaces(["team-a", "team-b"].map(Arc::from).into());
    let labels = Labels::new("namespace", Vec::new()).unwrap();
    for _ in 0..times {
        for query in QUERIES {
            let confined = promql::confine(query, &reach, &labels, &Limits::default(), Features::default()).unwrap();
            std::hint::black_box(confined);
        }
    }
}

fn route(times: usize) {
    for _ in 0..times {
        let target = "/api/v1/projects/team-a/dashboards/overview";
        std::hint::black_box(perses_sidecar::route::read(&http::Method::GET, target, "").unwrap());
    }
}

/// A warm gateway on one thread: rights are remembered, connections stand.
fn journey(what: &str, times: usize) {
    use perses_sidecar_stack::http::Http;
    use perses_sidecar_stack::openshift::OpenShift;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = std::env::temp_dir().join(format!("journey-{}-{what}-{times}", std::process::id()));
        let openshift = OpenShift::start(&folder).await.unwrap();
        openshift.cluster().add_namespace("team-a");
        openshift.cluster().bind_role("team-a", "ada", "edit");
        let token = openshift.cluster().issue_token("ada");
        let port = upstream().await;
        let path = folder.join("config.yaml");
        let text = format!(
            "listen:\n  gateway: 127.0.0.1:0\n  admin: 127.0.0.1:0\nperses:\n  url: http://127.0.0.1:{}\ncluster:\n  url: {}\n  ca_file: {}\n  token_file: {}\n\
             access:\n  token_ttl: 10m\n  allow_ttl: 10m\n  namespaces_ttl: 10m\nmetrics_backends:\n  - name: p\n    url: http://127.0.0.2:{port}\n    datasource: {{name: p}}\naudit:\n  stream: \"off\"\n",
            port, openshift.url(), openshift.ca_file().display(), openshift.token_file().display(),
        );
        std::fs::write(&path, text).unwrap();
        let loaded = perses_sidecar::config::load(&path).unwrap_or_else(|problems| panic!("{problems:?}"));
        let (sender, ports) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let ready = |ports: &perses_sidecar::app::Ports| sender.send(*ports).unwrap();
            perses_sidecar::app::run(&path, loaded, None, std::future::pending(), ready).await.unwrap();
        });
        let gateway = format!("http://{}", ports.await.unwrap().gateway);
        let http = Http::default();
        for _ in 0..times {
            let answer = if what == "read" {
                http.get(&format!("{gateway}/api/v1/projects/team-a/dashboards/overview"), &token).await.unwrap()
            } else {
                let url = format!("{gateway}/proxy/globaldatasources/p/api/v1/query");
                http.form(&url, &token, &[("query", QUERIES[1])]).await.unwrap()
            };
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        std::fs::remove_dir_all(&folder).unwrap();
    });
}

/// Plays Perses and Prometheus: one answer for everything but the datasource, which it does not have.
async fn upstream() -> u16 {
    use hyper::service::service_fn;
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    let (status, body) = if request.uri().path().contains("globaldatasources") {
                        (404, "{}")
                    } else {
                        (200, r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#)
                    };
                    let body = http_body_util::Full::new(bytes::Bytes::from_static(body.as_bytes()));
                    http::Response::builder().status(status).header("content-type", "application/json").body(body)
                });
                let io = hyper_util::rt::TokioIo::new(socket);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    });
    port
}
