//! What a backend without `metrics_backends[].experimental` is asked, against a Prometheus that has nothing switched on.
//!
//! Prometheus took two parts of the language out of their switches: [`SWITCHED_HERE_ONLY`]. Here they still need the setting,
//! for Thanos and servers a few versions older answer them with an error that says nothing, and who has a backend that
//! knows them sets one word. Everything else agrees, both ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use perses_sidecar::promql::{self, Error, ErrorKind, Features};
use serde_json::Value;

use crate::generate::Generator;
use crate::prometheus::Prometheus;
use crate::recorded;
use crate::{ALL, count, each, limits};

const OFF: Features = Features { experimental: false };

/// Parts that need the setting here and nothing at the server, as our refusal calls them, each with a query of it.
const SWITCHED_HERE_ONLY: [(&str, &str); 5] = [
    ("a duration expression", "rate(m[5m + 1m])"),
    ("a duration expression", "m offset step()"),
    ("a duration expression", "m[max_of(5m, 6m)]"),
    ("anchored", "increase(m[5m] anchored)"),
    ("smoothed", "m smoothed"),
];

/// Parts that need a switch at the server as well.
const SWITCHED_BOTH: [&str; 7] = [
    "m + fill (0) n",
    "m + fill_left (0) n",
    "limitk(1, m)",
    "limit_ratio(0.5, m)",
    "mad_over_time(m[5m])",
    "sort_by_label(m, \"a\")",
    "m + step()",
];

/// Selectors at the edge of what selects something: several names, empty ones, expressions that match the empty text or do not.
const EDGES: [&str; 40] = [
    r#"{"a","b"}"#,
    r#"{"a","a"}"#,
    r#"{__name__="a","a"}"#,
    r#"{"a",b="c","d"}"#,
    r#"{"",x="y"}"#,
    r#"{""}"#,
    r#"a{"b"}"#,
    r#"a{__name__!="b"}"#,
    r#"{""="a"}"#,
    r#"{a=~".+?"}"#,
    r#"{a=~"x{1,}?"}"#,
    r#"{a=~"x{0}?"}"#,
    r#"{a=~"x*?"}"#,
    r#"{a=~"x??"}"#,
    r#"{a=~"\\pN*"}"#,
    r#"{a=~"\\pN"}"#,
    r#"{a=~"\\p{Greek}?"}"#,
    r#"{a=~"\\p{^Greek}"}"#,
    r#"{a=~"\\PL+?"}"#,
    r#"{a=~"\\x41*"}"#,
    r#"{a=~"\\x41"}"#,
    r#"{a=~"\\x{0}"}"#,
    r#"{a=~"\\x{41}*"}"#,
    r#"{a=~"\\101*"}"#,
    r#"{a=~"\\101?1"}"#,
    r#"{a=~"\\Qab\\E?"}"#,
    r#"{a=~"\\Qa\\E?"}"#,
    r#"{a=~"\\Qé\\E*"}"#,
    r#"{a=~"\\Q\\E"}"#,
    r#"{a=~"\\Qa*"}"#,
    r#"{a=~"\\Q(\\E"}"#,
    r#"{a=~"[[:alpha:]]*"}"#,
    r#"{a=~"[\\]]*"}"#,
    r#"{a=~"[]a]*"}"#,
    r#"{a=~"(?i)"}"#,
    r#"{a=~"(?P<x>a?)"}"#,
    r#"{a=~"(?U)x+"}"#,
    r#"{a=~"\\b"}"#,
    r#"{a=~"\\B"}"#,
    r#"{a=~"a{,3}"}"#,
];

/// What needs the setting, if that is why a query was refused.
fn part(error: &Error) -> Option<String> {
    let text = error.to_string();
    let (_, part) = text.split_once(": ")?;
    let (part, _) =
        part.split_once(" is experimental and not enabled for this backend (metrics_backends[].experimental)")?;
    (error.kind() == ErrorKind::Forbidden).then(|| part.to_owned())
}

fn known(part: &str) -> bool {
    SWITCHED_HERE_ONLY.iter().any(|(known, _)| *known == part)
}

/// What is wrong with our verdict on a query, in sight of the server's.
fn judge(query: &str, theirs: &Result<Value, String>) -> Option<String> {
    let ours = promql::check(query, &limits(), OFF);
    match (&ours, theirs) {
        (Ok(_), Err(error)) if error != crate::prometheus::NO_JSON => {
            Some(format!("accepted, refused there: {query:?}: {error}"))
        }
        (Err(error), Ok(_)) => match part(error) {
            Some(part) if known(&part) && promql::check(query, &limits(), ALL).is_ok() => None,
            // Said there when the query runs.
            None if error.to_string().ends_with("duration out of range") => None,
            _ => Some(format!("refused, accepted there: {query:?}: {error}")),
        },
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_two_parts_more_are_refused_and_none_less() {
    let server = Arc::new(Prometheus::of_defaults().await);
    for (name, query) in SWITCHED_HERE_ONLY {
        let error = promql::check(query, &limits(), OFF).unwrap_err();
        assert_eq!(part(&error).as_deref(), Some(name), "{error}");
        assert!(promql::check(query, &limits(), ALL).is_ok(), "{query}");
        server
            .text("parse_query", query)
            .await
            .unwrap_or_else(|error| panic!("{query} is switched off there: {error}"));
        let answer = server.evaluate(query).await;
        assert_eq!(answer["errorType"], Value::Null, "what is read is evaluated: {query}: {answer}");
    }
    for query in SWITCHED_BOTH {
        let ours = promql::check(query, &limits(), OFF).unwrap_err();
        assert!(part(&ours).is_some_and(|part| !known(&part)), "{ours}");
        let theirs = server.text("parse_query", query).await;
        assert!(theirs.as_ref().is_err_and(|error| error.contains("enabled")), "{query} is on there: {theirs:?}");
    }
    let mut generator = Generator::new(0xdefa);
    let generated = (0..count("ORACLE_DEFAULTS", 3000)).map(|_| generator.anything());
    let cases: Vec<String> =
        recorded::upstream().iter().filter_map(|case| case["q"].as_str().map(str::to_owned)).chain(generated).collect();
    let cases: Vec<String> = EDGES.map(str::to_owned).into_iter().chain(cases).collect();
    let (total, accepted) = (cases.len(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&accepted);
    let wrong = each(cases, move |query| {
        let (server, accepted) = (Arc::clone(&server), Arc::clone(&accepted));
        async move {
            let theirs = server.text("parse_query", &query).await;
            accepted.fetch_add(usize::from(theirs.is_ok()), Ordering::Relaxed);
            judge(&query, &theirs)
        }
    })
    .await;
    let accepted = counted.load(Ordering::Relaxed);
    eprintln!("defaults: {total} queries, {accepted} accepted there, {} differ", wrong.len());
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    assert!(accepted * 2 > total, "{accepted} of {total} say little");
}
