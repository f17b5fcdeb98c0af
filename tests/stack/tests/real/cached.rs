//! Answers that are put together from what is known, beside what real Prometheus and real Thanos say at the moment: the same
//! bytes, however the questions overlap. `CACHED_REQUESTS` says how many, `CACHED_SEED` which.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use perses_sidecar::promql::{self, Features, LabelRule, Labels, Limits, MetricPattern, Reach};
use perses_sidecar_stack::http::Http;

use crate::stage::Stage;
use crate::thanos;

const QUERIES: [&str; 14] = [
    "vllm:num_requests_running",
    "rate(vllm:generation_tokens_total[10m])",
    "sum by (namespace) (rate(vllm:prompt_tokens_total[15m]))",
    "sum(training_loss)",
    "histogram_quantile(0.9, sum by (le, namespace) (rate(vllm:time_to_first_token_seconds_bucket[30m])))",
    "topk(2, container_memory_working_set_bytes)",
    "container_memory_working_set_bytes offset 1h",
    "max_over_time(training_loss[1h:5m])",
    "avg_over_time(DCGM_FI_DEV_GPU_UTIL[10m])",
    "training_loss > 1",
    "absent(training_loss{namespace=\"team-c\"})",
    "quantile_over_time(0.5, vllm:gpu_cache_usage_perc[20m]) * 1e9",
    "count by (pod) (kube_pod_info) / 0",
    "vllm:num_requests_running and on (namespace) training_loss",
];

/// A small generator of numbers that look random (xorshift), so that a seed is a history.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

fn confined(query: &str) -> String {
    let rule = LabelRule {
        metrics: vec![MetricPattern::parse("DCGM_*").unwrap()],
        label: "exported_namespace".to_owned(),
        matchers: vec![("namespace".to_owned(), "nvidia-gpu-operator".to_owned())],
    };
    let labels = Labels::new("namespace", vec![rule]).unwrap();
    let reach = Reach::Namespaces(vec![Arc::from("team-a"), Arc::from("team-b")].into());
    let confined = promql::confine(query, &reach, &labels, &Limits::default(), Features::default()).unwrap();
    confined.text().to_owned()
}

/// A question and the two places where it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    backend: &'static str,
    query: usize,
    start: String,
    end: String,
    step: &'static str,
}

async fn ask(stage: &Stage, backend: &str, question: &Question, direct: Option<&str>) -> (u16, Bytes, String) {
    let own;
    let (url, token, query) = match direct {
        Some(url) => {
            own = confined(QUERIES[question.query]);
            (format!("{url}/api/v1/query_range"), "", own.as_str())
        }
        None => {
            let url = format!("{}/proxy/globaldatasources/{backend}/api/v1/query_range", stage.world.gateway());
            (url, stage.world.token("ada"), QUERIES[question.query])
        }
    };
    let pairs = [("query", query), ("start", &question.start), ("end", &question.end), ("step", question.step)];
    let answer = stage.http.form(&url, token, &pairs).await.unwrap();
    let status = answer.headers.get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or_default();
    (answer.status, answer.body, status.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_answers_are_those_of_the_backend_to_the_byte() {
    let number = |name: &str, default: u64| std::env::var(name).ok().map_or(default, |text| text.parse().unwrap());
    let (count, seed) = (number("CACHED_REQUESTS", 10_000), number("CACHED_SEED", 7));
    let (mut stage, thanos) = thanos::stage().await;
    stage.http = Http::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // What is older than this has settled, here and there.
    let last = (now - 300) * 1000;
    let mut dice = Dice(seed.max(1));
    let mut direct: HashMap<Question, Bytes> = HashMap::new();
    let mut results: HashMap<String, u64> = HashMap::new();
    let (mut bytes, began) = (0, Instant::now());
    for round in 0..count {
        let (backend, url) =
            if dice.below(2) == 0 { ("prometheus", &stage.world.prometheus_url) } else { ("thanos", &thanos.url) };
        let (step, millis) =
            [("60", 60_000), ("300", 300_000), ("15", 15_000), ("61.5", 61_500)][dice.below(4) as usize];
        let phase = [0, 7_250][dice.below(2) as usize];
        let end = last / millis * millis - phase - millis * (1 + dice.below(40));
        let longest = [3, 30, 120][dice.below(3) as usize];
        let start = end - millis * dice.below(longest);
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of this century")]
        let seconds = |millis: u64| format!("{:.3}", millis as f64 / 1000.0);
        let query = dice.below(QUERIES.len() as u64) as usize;
        let question = Question { backend, query, start: seconds(start), end: seconds(end), step };
        let (status, ours, how) = ask(&stage, backend, &question, None).await;
        assert_eq!(status, 200, "{round}: {question:?}: {}", String::from_utf8_lossy(&ours));
        let theirs = match direct.get(&question) {
            Some(theirs) => theirs.clone(),
            None => {
                let (status, theirs, _) = ask(&stage, backend, &question, Some(url)).await;
                assert_eq!(status, 200, "{round}: {question:?}");
                direct.insert(question.clone(), theirs.clone());
                theirs
            }
        };
        assert!(
            ours == theirs,
            "CACHED_SEED={seed}, request {round}, {how}: {question:?} {}\nours   {}\ntheirs {}",
            QUERIES[query],
            String::from_utf8_lossy(&ours),
            String::from_utf8_lossy(&theirs)
        );
        bytes += ours.len();
        let how = how.split("; ttl").next().unwrap_or_default().to_owned();
        *results.entry(how).or_default() += 1;
    }
    let asked = direct.len();
    eprintln!(
        "{count} requests, {asked} of them different, {bytes} bytes compared, {:.1} s: {results:?}",
        began.elapsed().as_secs_f64()
    );
    let hits: u64 = results.iter().filter(|(how, _)| how.ends_with("; hit")).map(|(_, count)| count).sum();
    assert!(hits * 4 > count, "a quarter at least is answered without the backend: {results:?}");
}
