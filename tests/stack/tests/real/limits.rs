//! Queries that make a backend take memory before any limit of its own counts: what is just allowed costs little, and what is
//! not never gets there.

use perses_sidecar_stack::world::Options;

use crate::stage::{Stage, stage};

const RANGE: &str = "/proxy/globaldatasources/prometheus/api/v1/query_range";
const INSTANT: &str = "/proxy/globaldatasources/prometheus/api/v1/query";

/// What one query may cost Prometheus beyond what it holds anyway, in KiB.
const MOST: u64 = 160 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn no_query_is_the_end_of_a_backend() {
    let stage = stage(Options { quick: true, ..Options::default() }).await;
    let doubled = |times: usize| {
        let start = "label_replace(vector(1), \"a\", \"x\", \"\", \"\")".to_owned();
        (0..times).fold(start, |inner, _| format!("label_join({inner}, \"a\", \"\", \"a\", \"a\")"))
    };
    let repeated = |times: usize| format!("count(up{{pod=~\"{}\"}})", ".{1000}".repeat(times));
    let pattern = |text: &str| format!("count(up{{pod=~`{text}`}})");
    let around = |text: &str, behind: &str| pattern(&format!("(?:{text}){behind}"));
    let year = [("start", "1700000000"), ("end", "1731536000"), ("step", "3600")];
    let at = [("time", "1731536000")];
    for (path, query, times, good) in [
        (RANGE, "max_over_time(up[1h:1m])".to_owned(), &year[..], true),
        (INSTANT, "max_over_time((up > 1e9)[900s:1ms])".to_owned(), &at, true),
        (INSTANT, "avg_over_time((up > bool 0)[30d:])".to_owned(), &at, true),
        (INSTANT, doubled(8), &at, true),
        (INSTANT, repeated(4), &at, true),
        (INSTANT, pattern(&format!("(?i){}", "[^b]".repeat(99))), &at, true),
        (INSTANT, pattern(&r"\pL".repeat(99)), &at, true),
        (RANGE, "max_over_time(up[1s:1ms])".to_owned(), &year, false),
        (INSTANT, "max_over_time(max_over_time((up > 1e9)[10ms:1ms])[30d:1d])".to_owned(), &at, false),
        (INSTANT, doubled(33), &at, false),
        (INSTANT, repeated(60), &at, false),
        (INSTANT, pattern(&"^{1000}".repeat(3000)), &at, false),
        (INSTANT, around(&"a".repeat(3000), "(?i){1000}"), &at, false),
        (INSTANT, around(&"a".repeat(3000), r"\Q\E{1000}"), &at, false),
        (INSTANT, around(&format!(r"\Q)\E{}", "a".repeat(3000)), "{1000}"), &at, false),
        (INSTANT, pattern(&format!("(?i){}", "[^b]".repeat(10_000))), &at, false),
        (INSTANT, pattern(&format!("(?i){}", r"\W".repeat(10_000))), &at, false),
        (INSTANT, pattern(&r"\pL".repeat(10_000)), &at, false),
    ] {
        let before = stage.world.prometheus.resident().unwrap();
        let mut form = times.to_vec();
        form.push(("query", &query));
        let answer = stage.form("ada", path, &form).await;
        let text = answer.text();
        assert_eq!(answer.status, if good { 200 } else { 422 }, "{query:.80}: {text}");
        assert!(good || text.contains("limits."), "{query:.80}: {text}");
        let more = stage.world.prometheus.resident().expect("it lives").saturating_sub(before);
        assert!(more < MOST, "{query:.80} costs {more} KiB");
    }
    steps_of_nothing(&stage).await;
    words_about_regular_expressions(&stage).await;
}

/// A step that upstream would round to nothing.
async fn steps_of_nothing(stage: &Stage) {
    let span = [("query", "up"), ("start", "1700000000"), ("end", "1700000000.001")];
    for (step, status) in [("0.001", 200), ("0.0005", 400), ("1e-7", 400)] {
        let form = [&span[..], &[("step", step)]].concat();
        assert_eq!(stage.form("ada", RANGE, &form).await.status, status, "{step}");
    }
    for (query, status) in [("max_over_time(up[1s:1ms])", 200), ("max_over_time(up[1s:0.0001])", 400)] {
        assert_eq!(stage.form("ada", INSTANT, &[("query", query)]).await.status, status, "{query}");
    }
    let log = stage.world.prometheus.output();
    assert!(!log.contains("divide by zero"), "{log}");
}

/// A mistake that everybody makes once is told in the backend's words.
async fn words_about_regular_expressions(stage: &Stage) {
    let answer = stage.form("ada", INSTANT, &[("query", "up{pod=~\"*\"}")]).await;
    assert_eq!(answer.status, 400);
    let words = answer.json()["error"].as_str().unwrap().to_owned();
    assert_eq!(words, "error parsing regexp: missing argument to repetition operator: `*`");
}
