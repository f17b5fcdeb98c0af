//! How many instructions do the pure steps of a journey cost: reading a route, confining a query, rendering a
//! dashboard?
//!
//! Run under callgrind by `benches/count`, which subtracts an empty run and compares with `benches/expected.txt`. What a whole
//! journey costs the gateway is counted by `benches/side_by_side`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a program for a terminal")]

use std::sync::Arc;

use perses_sidecar::dashboards::{Engine, Kind, Library, Workload, WorkloadName};
use perses_sidecar::names::Namespace;
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
        "render" => render(times),
        // `cargo test --benches` and a curious person.
        _ => {
            confine(1);
            route(1);
            render(1);
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

/// The largest of them, for a model server with GPUs.
fn render(times: usize) {
    let library = Library::built_in();
    let (namespace, name) = (Namespace::parse("team-a").unwrap(), WorkloadName::parse("granite").unwrap());
    let workload =
        Workload { engine: Engine::Vllm, gpus: 1, ..Workload::bare(Kind::InferenceService, namespace, name) };
    let template = library.of(&workload).next().unwrap();
    for _ in 0..times {
        std::hint::black_box(template.render(std::hint::black_box(&workload)));
    }
}
