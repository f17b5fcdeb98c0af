//! Real Prometheus judges what the confinement makes of a query: by the tree that its own parser reads, and by the data.
//!
//! `ORACLE_TREES` and `ORACLE_DATA` say how many generated queries; the seeds are fixed, so a run can be repeated.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, unreachable_pub, reason = "tests")]

mod defaults;
mod generate;
mod prometheus;
#[path = "../../../golden/promql/recorded.rs"]
mod recorded;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use generate::Generator;
use perses_sidecar::promql::{self, Features, Labels, Limits, Reach};
use prometheus::Prometheus;
use serde_json::{Value, json};

const ALL: Features = Features { experimental: true };

/// How many are asked at once.
const AT_ONCE: usize = 6;

fn limits() -> Limits {
    Limits {
        text: 1 << 20,
        depth: 150,
        binary_operators: 5000,
        selectors: 5000,
        tokens: 100_000,
        subquery_steps: u64::MAX,
        lookback_ms: u64::MAX,
        confined: 4 << 20,
        ..Limits::default()
    }
}

fn teams(names: &[&str]) -> Reach {
    Reach::Namespaces(names.iter().map(|name| Arc::from(*name)).collect())
}

fn count(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs a check over many cases, a few at once, and gives what was wrong.
async fn each<T, F>(cases: Vec<T>, check: impl Fn(T) -> F + Send + Sync + 'static) -> Vec<String>
where
    T: Send + 'static,
    F: Future<Output = Option<String>> + Send + 'static,
{
    let mut running = tokio::task::JoinSet::new();
    let mut wrong = Vec::new();
    for case in cases {
        if running.len() == AT_ONCE {
            wrong.extend(running.join_next().await.unwrap().unwrap());
        }
        running.spawn(check(case));
    }
    while let Some(outcome) = running.join_next().await {
        wrong.extend(outcome.unwrap());
    }
    wrong
}

/// The tree without what may differ: where a name stands, and the order of matchers. `guard` is put into every selector.
fn expected(tree: &Value, guard: Option<&Value>) -> Value {
    match tree {
        Value::Object(map) => {
            let selector = matches!(map.get("type").and_then(Value::as_str), Some("vectorSelector" | "matrixSelector"));
            let mut out = serde_json::Map::new();
            for (key, value) in map {
                if selector && key == "name" {
                    continue;
                }
                if selector && key == "matchers" {
                    let mut matchers: Vec<Value> = value.as_array().unwrap().clone();
                    matchers.extend(guard.cloned());
                    matchers.sort_by_key(Value::to_string);
                    out.insert(key.clone(), Value::Array(matchers));
                } else {
                    out.insert(key.clone(), expected(value, guard));
                }
            }
            Value::Object(out)
        }
        Value::Array(list) => Value::Array(list.iter().map(|value| expected(value, guard)).collect()),
        other => other.clone(),
    }
}

fn selectors(tree: &Value) -> usize {
    match tree {
        Value::Object(map) => {
            let own = matches!(map.get("type").and_then(Value::as_str), Some("vectorSelector" | "matrixSelector"));
            usize::from(own) + map.values().map(selectors).sum::<usize>()
        }
        Value::Array(list) => list.iter().map(selectors).sum(),
        _ => 0,
    }
}

#[derive(Default)]
struct Tally {
    confined: AtomicUsize,
    refused: AtomicUsize,
    untold: AtomicUsize,
    selectors: AtomicUsize,
}

/// Whether upstream prints what it has printed as it is.
async fn is_stable(server: &Prometheus, query: &str) -> Result<(), String> {
    let Value::String(once) = server.text("format_query", query).await? else { return Err("no text".to_owned()) };
    let twice = server.text("format_query", &once).await?;
    if twice == json!(once) { Ok(()) } else { Err(format!("{once:?} is printed as {twice} again")) }
}

/// What upstream reads in a confined query is what it reads in the query itself, and one matcher more in each selector.
async fn check_tree(server: &Prometheus, query: &str, tally: &Tally, must: bool) -> Option<String> {
    // A label that no query names, so that nothing of a query is about it.
    let labels = Labels::new("confining_label", Vec::new()).unwrap();
    let own = promql::confine(query, &teams(&["team-a", "team-b"]), &labels, &limits(), ALL);
    let theirs = server.text("parse_query", query).await;
    let confined = match (own, &theirs) {
        (Ok(confined), Ok(_)) => confined,
        // Its own tree of a NaN is no JSON; what it prints must do then.
        (Ok(confined), Err(error)) if error == prometheus::NO_JSON => {
            let printed = server.text("format_query", confined.text()).await;
            let guards = printed
                .as_ref()
                .ok()
                .and_then(Value::as_str)
                .map_or(0, |text| text.matches("confining_label=~").count());
            tally.untold.fetch_add(1, Ordering::Relaxed);
            return (guards != confined.selectors()).then(|| format!("{query:?} is printed as {printed:?}"));
        }
        (Ok(confined), Err(error)) => {
            return Some(format!("accepted, upstream refuses: {query:?} as {:?}: {error}", confined.text()));
        }
        // Upstream says so too, but only when it evaluates the expression.
        (Err(error), Ok(_)) if must && !error.to_string().ends_with("duration out of range") => {
            return Some(format!("refused, upstream accepts: {query:?}: {error}"));
        }
        (Err(_), _) => {
            tally.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
    };
    let theirs = theirs.unwrap();
    let guard = json!({ "name": "confining_label", "type": "=~", "value": "team-a|team-b" });
    let read = match server.text("parse_query", confined.text()).await {
        Ok(read) => read,
        Err(error) => return Some(format!("{query:?} became {:?}, which is refused: {error}", confined.text())),
    };
    if expected(&read, None) != expected(&theirs, Some(&guard)) {
        return Some(format!("{query:?} became {:?}, which is another tree", confined.text()));
    }
    if selectors(&read) != confined.selectors() {
        return Some(format!("{query:?}: {} selectors, upstream reads {}", confined.selectors(), selectors(&read)));
    }
    // Upstream prints some numbers so that it reads them otherwise; then it does so with the query itself as well.
    if let Err(ours) = is_stable(server, confined.text()).await
        && is_stable(server, query).await.is_ok()
    {
        return Some(format!("{query:?} became {:?}: {ours}", confined.text()));
    }
    tally.confined.fetch_add(1, Ordering::Relaxed);
    tally.selectors.fetch_add(confined.selectors(), Ordering::Relaxed);
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_reads_the_same_tree_with_one_matcher_more() {
    let server = Arc::new(Prometheus::empty().await);
    let began = Instant::now();
    let golden: Vec<String> = recorded::upstream().iter().map(|case| case["q"].as_str().unwrap().to_owned()).collect();
    let mut generator = Generator::new(0x5eed);
    let generated: Vec<String> = (0..count("ORACLE_TREES", 20_000)).map(|_| generator.anything()).collect();
    for (what, cases, must) in [("golden", golden, false), ("generated", generated, true)] {
        let (total, tally) = (cases.len(), Arc::new(Tally::default()));
        let (server, kept) = (Arc::clone(&server), Arc::clone(&tally));
        let wrong = each(cases, move |query| {
            let (server, tally) = (Arc::clone(&server), Arc::clone(&tally));
            async move { check_tree(&server, &query, &tally, must).await }
        })
        .await;
        let (confined, refused) = (kept.confined.load(Ordering::Relaxed), kept.refused.load(Ordering::Relaxed));
        eprintln!(
            "{what}: {total} queries, {confined} confined with {} selectors, {refused} refused, {} without a tree in JSON, {} differ; \
             {:.1} s",
            kept.selectors.load(Ordering::Relaxed),
            kept.untold.load(Ordering::Relaxed),
            wrong.len(),
            began.elapsed().as_secs_f64()
        );
        assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
        assert!(confined * 100 >= total * 90, "{confined} of {total}");
    }
}

/// The parts of an answer that must be equal, in an order of their own; numbers to nine digits, since sums may be made in
/// another order. `count_values` makes labels of such numbers: what one server counts under two neighbours may be one number
/// on the other, so what is counted under labels that round alike is added up.
fn comparable(answer: &Value) -> Value {
    fn round(text: &str) -> Option<String> {
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite())?;
        Some(format!("{:.8e}", if number == 0.0 { 0.0 } else { number }))
    }
    fn rounded(value: &Value) -> Value {
        match value {
            Value::String(text) => round(text).map_or_else(|| value.clone(), Value::String),
            Value::Array(list) => Value::Array(list.iter().map(rounded).collect()),
            other => other.clone(),
        }
    }
    // A sample is a time and a number in text; a series holds one, or several of them.
    fn add(sum: &mut BTreeMap<String, f64>, sample: &Value) -> Option<()> {
        let number = sample[1].as_str()?.parse::<f64>().ok()?;
        *sum.entry(sample[0].to_string()).or_default() += number;
        Some(())
    }
    let data = &answer["data"];
    let Some(series) = data["result"].as_array().filter(|list| list.iter().all(Value::is_object)) else {
        return json!({ "status": answer["status"], "kind": data["resultType"], "result": rounded(&data["result"]) });
    };
    let (mut result, mut counted) = (BTreeMap::new(), BTreeMap::<String, BTreeMap<String, f64>>::new());
    for one in series {
        let (mut one, mut is_counted) = (one.clone(), false);
        for value in one["metric"].as_object_mut().into_iter().flat_map(|labels| labels.values_mut()) {
            if let Some(number) = value.as_str().filter(|text| text.len() > 9).and_then(round) {
                (*value, is_counted) = (Value::String(number), true);
            }
        }
        let metric = one["metric"].to_string();
        if is_counted {
            let samples = one["values"].as_array().cloned().unwrap_or_else(|| vec![one["value"].clone()]);
            let sum = counted.entry(metric).or_default();
            samples.iter().for_each(|sample| add(sum, sample).unwrap_or_else(|| panic!("no number: {sample}")));
            continue;
        }
        for key in ["value", "values"] {
            if let Some(value) = one.get_mut(key) {
                *value = rounded(value);
            }
        }
        assert!(result.insert(metric, one).is_none(), "one series twice: {answer}");
    }
    for sum in counted.values_mut().flat_map(BTreeMap::values_mut) {
        *sum = format!("{sum:.8e}").parse().expect("a number");
    }
    json!({ "status": answer["status"], "kind": data["resultType"], "result": result, "counted": counted })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confined_answer_is_that_of_a_server_with_own_series_only() {
    let all = Arc::new(Prometheus::with(&["team-a", "team-b", "team-c"]).await);
    let own = Arc::new(Prometheus::with(&["team-a", "team-b"]).await);
    let began = Instant::now();
    let mut generator = Generator::new(0xda7a);
    let cases: Vec<String> = (0..count("ORACLE_DATA", 2000)).map(|_| generator.of_the_data()).collect();
    let total = cases.len();
    let (full, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&full), Arc::clone(&failed));
    let wrong = each(cases, move |query| {
        let (all, own, full, failed) = (Arc::clone(&all), Arc::clone(&own), Arc::clone(&full), Arc::clone(&failed));
        async move {
            let labels = Labels::new("namespace", Vec::new()).unwrap();
            let confined = match promql::confine(&query, &teams(&["team-a", "team-b"]), &labels, &limits(), ALL) {
                Ok(confined) => confined,
                Err(error) => return Some(format!("{query:?} is refused: {error}")),
            };
            // One of four over a range, the others at one time.
            let (ours, theirs) = if query.len() % 4 == 0 {
                (all.evaluate_range(confined.text()).await, own.evaluate_range(&query).await)
            } else {
                (all.evaluate(confined.text()).await, own.evaluate(&query).await)
            };
            if ours["status"] != "success" {
                failed.fetch_add(1, Ordering::Relaxed);
            } else if ours["data"]["result"].as_array().is_some_and(|result| !result.is_empty()) {
                full.fetch_add(1, Ordering::Relaxed);
            }
            let (ours, theirs) = (comparable(&ours), comparable(&theirs));
            (ours != theirs).then(|| format!("{query:?} as {:?}:\n  {ours}\n  {theirs}", confined.text()))
        }
    })
    .await;
    let (full, failed) = (counts.0.load(Ordering::Relaxed), counts.1.load(Ordering::Relaxed));
    eprintln!(
        "by data: {total} queries, {full} with an answer, {failed} failed on both, {} differ; {:.1} s",
        wrong.len(),
        began.elapsed().as_secs_f64()
    );
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    assert!(full * 2 > total && failed * 5 < total, "{full} full and {failed} failed of {total} say little");
}

/// The labels of `absent` come from matchers, so these are told one by one.
#[tokio::test(flavor = "multi_thread")]
async fn absence_tells_nothing_of_others() {
    let all = Prometheus::with(&["team-a", "team-b", "team-c"]).await;
    let labels = Labels::new("namespace", Vec::new()).unwrap();
    for (query, reach, metric) in [
        ("absent(m_gauge)", &["team-a", "team-b"][..], None),
        ("absent(m_gauge{namespace='team-a'})", &["team-a", "team-b"], None),
        ("absent(m_none)", &["team-a", "team-b"], Some(json!({}))),
        ("absent(m_none{job='x'})", &["team-a", "team-b"], Some(json!({ "job": "x" }))),
        ("absent(m_none)", &["team-a"], Some(json!({ "namespace": "team-a" }))),
        ("absent(m_none{namespace='team-b'})", &["team-a", "team-b"], Some(json!({ "namespace": "team-b" }))),
        // Others' series are as absent as none at all.
        ("absent(m_gauge{namespace='team-c'})", &["team-a", "team-b"], Some(json!({}))),
        ("absent(m_none{namespace='team-c'})", &["team-a", "team-b"], Some(json!({}))),
        ("absent_over_time(m_gauge{namespace='team-c'}[5m])", &["team-a", "team-b"], Some(json!({}))),
        ("absent_over_time(m_none{namespace='team-c'}[5m])", &["team-a", "team-b"], Some(json!({}))),
        ("absent_over_time(m_gauge[5m])", &["team-a"], None),
    ] {
        let confined = promql::confine(query, &teams(reach), &labels, &limits(), ALL).unwrap();
        let answer = all.evaluate(confined.text()).await;
        let result = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer}"));
        let found = result.first().map(|series| series["metric"].clone());
        assert_eq!(found, metric, "{query} as {}", confined.text());
    }
}

/// What the parts of a large set find together is what one question finds.
#[tokio::test(flavor = "multi_thread")]
async fn parts_are_the_whole() {
    let all = Prometheus::with(&["team-a", "team-b", "team-c"]).await;
    let labels = Labels::new("namespace", Vec::new()).unwrap();
    let confined = |text: &str, reach: &[&str]| {
        promql::confine_selector(text, &teams(reach), &labels, &limits(), ALL).unwrap().into_text()
    };
    let list = async |path: &str, text: &str| {
        let answer = all.list(path, text).await;
        answer["data"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().map(Value::to_string).collect::<Vec<_>>()
    };
    for text in ["{__name__=~'.+'}", "m_gauge", "m_hist_bucket{le!='1'}", "{namespace=~'team-.*',pod='p1'}"] {
        for path in ["label/namespace/values", "label/pod/values", "label/__name__/values", "labels", "series"] {
            let whole = list(path, &confined(text, &["team-a", "team-b"])).await;
            let (a, b) =
                (list(path, &confined(text, &["team-a"])).await, list(path, &confined(text, &["team-b"])).await);
            assert!(!whole.is_empty(), "{path} {text}");
            if path == "series" {
                assert_eq!(a.len() + b.len(), whole.len(), "no series in both: {text}");
            }
            let parts: BTreeSet<String> = a.into_iter().chain(b).collect();
            assert_eq!(parts, whole.iter().cloned().collect(), "{path} {text}");
            assert!(!whole.iter().any(|one| one.contains("team-c")), "{path} {text}");
        }
    }
}
