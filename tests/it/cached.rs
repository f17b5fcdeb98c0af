//! Answers from the cache, through the door: who shares one, and who never does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use perses_sidecar_stack::http::Answer;

use crate::support::{Gate, gate};

const RANGE: &str = "/proxy/globaldatasources/p/api/v1/query_range";

/// A backend that answers with what it was asked, so that an answer of another question is noticed.
async fn echoing(cache: &str) -> Gate {
    let gate = gate(&format!("cache:\n{cache}")).await;
    gate.upstream.forget("POST /api/v1/query");
    gate.upstream.answers_by(|seen| {
        let path = seen.line.split([' ', '?']).nth(1).unwrap_or_default().to_owned();
        let form = if seen.body.is_empty() { seen.line.clone() } else { seen.body.clone() };
        let echo = form.replace(['"', '\\', ' '], "_");
        let metric = format!(r#"{{"asked":"{}"}}"#, echo.split('&').filter(|pair| !pair.starts_with("end=") && !pair.starts_with("start=")).collect::<Vec<_>>().join("&"));
        match path.as_str() {
            "/api/v1/query_range" => {
                let value = |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap().parse::<f64>().unwrap();
                let (start, end, step) = (value("start="), value("end="), value("step="));
                let mut points = Vec::new();
                let mut at = start;
                while at <= end {
                    points.push(format!(r#"[{at},"{}"]"#, at / 2.0));
                    at += step;
                }
                Some((200, format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{metric},"values":[{}]}}]}}}}"#, points.join(","))))
            }
            "/api/v1/query" => Some((200, format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{metric},"value":[1,"1"]}}]}}}}"#))),
            _ if path.starts_with("/api/v1/label") || path == "/api/v1/series" => {
                Some((200, format!(r#"{{"status":"success","data":["{echo}"]}}"#)))
            }
            _ => None,
        }
    });
    gate
}

async fn range(gate: &Gate, token: &str, query: &str, more: &[(&str, &str)]) -> Answer {
    let mut form = vec![("query", query), ("start", "1700000000"), ("end", "1700003600"), ("step", "60")];
    form.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    form.extend_from_slice(more);
    gate.http.form(&format!("{}{RANGE}", gate.url), token, &form).await.unwrap()
}

fn status(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.headers["cache-status"].to_str().unwrap().to_owned()
}

fn asked(gate: &Gate) -> usize {
    gate.upstream.lines().iter().filter(|line| line.contains("/api/v1/") && !line.contains("datasources")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_who_asks_is_answered_from_the_cache() {
    let gate = echoing("  mode: enforce\n").await;
    let (ada, other) = (gate.token("ada"), gate.token("ada"));
    let first = range(&gate, &ada, "up", &[]).await;
    assert_eq!(status(&first), "perses-sidecar; fwd=miss");
    let second = range(&gate, &other, " up # the same", &[]).await;
    assert!(status(&second).starts_with("perses-sidecar; hit; ttl="), "{}", status(&second));
    assert_eq!(first.body, second.body);
    assert!(second.headers["server-timing"].to_str().unwrap().starts_with("cache;dur="));
    // A part of the range is known, more of it is not.
    assert!(status(&range(&gate, &ada, "up", &[("start", "1700000600")]).await).contains("hit"));
    assert_eq!(asked(&gate), 1);
    let more = range(&gate, &ada, "up", &[("end", "1700003720")]).await;
    assert_eq!(status(&more), "perses-sidecar; fwd=partial");
    let seen = gate.upstream.take();
    assert!(seen[0].body.contains("start=1700003660&end=1700003720"), "{}", seen[0].body);
    let metrics = gate.get("", "/").await;
    drop(metrics);
    let metrics = gate.http.get(&format!("{}/metrics", gate.admin), "").await.unwrap();
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    for line in [
        r#"cache_requests_total{kind="range",result="hit"} 2"#,
        r#"cache_requests_total{kind="range",result="partial"} 1"#,
        r#"cache_bytes{tier="memory"} "#,
    ] {
        assert!(text.contains(line), "{line}");
    }
}

/// ada sees team-a and team-b, grace team-b alone, root everything.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_shared_by_those_for_whom_the_same_is_asked_and_nobody_else() {
    let gate = echoing("  mode: enforce\n").await;
    let [ada, grace, root, eve] = ["ada", "grace", "root", "eve"].map(|user| gate.token(user));
    let bodies = [
        range(&gate, &ada, "up", &[]).await,
        range(&gate, &grace, "up", &[]).await,
        range(&gate, &root, "up", &[]).await,
    ];
    assert!(bodies.iter().all(|answer| status(answer) == "perses-sidecar; fwd=miss"));
    assert!(bodies[0].body != bodies[1].body && bodies[1].body != bodies[2].body);
    assert_eq!(range(&gate, &eve, "up", &[]).await.status, 403);
    // With a literal both are asked the same: one evaluation.
    let literal = r#"up{namespace="team-b"}"#;
    let first = range(&gate, &ada, literal, &[]).await;
    let second = range(&gate, &grace, literal, &[]).await;
    assert!(status(&second).contains("hit"), "{}", status(&second));
    assert_eq!(first.body, second.body);
    // grace asks for team-a: nothing, and not ada's answer.
    let other = r#"up{namespace="team-a"}"#;
    let first = range(&gate, &ada, other, &[]).await;
    let second = range(&gate, &grace, other, &[]).await;
    assert_eq!(status(&second), "perses-sidecar; fwd=miss");
    assert!(first.body != second.body);
    assert_eq!(range(&gate, &eve, other, &[]).await.status, 403, "rights come before what is kept");
    assert_eq!(status(&range(&gate, &root, literal, &[]).await), "perses-sidecar; fwd=miss", "never one with a list");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_parameter_that_can_change_an_answer_makes_another_one() {
    let gate = echoing("  mode: enforce\n").await;
    let ada = gate.token("ada");
    range(&gate, &ada, "up", &[]).await;
    for more in [("step", "30"), ("start", "1700000001"), ("lookback_delta", "1m"), ("limit", "5"), ("stats", "all")] {
        let answer = range(&gate, &ada, "up", &[more]).await;
        assert!(status(&answer).contains("fwd=miss"), "{more:?}: {}", status(&answer));
        let again = range(&gate, &ada, "up", &[more]).await;
        assert!(status(&again).contains("hit"), "{more:?}: {}", status(&again));
        assert_eq!(answer.body, again.body);
    }
    // How long one waits changes nothing.
    assert!(status(&range(&gate, &ada, "up", &[("timeout", "10s")]).await).contains("hit"));
    for (query, reason) in
        [("up @ end()", "window"), ("rate(up[5m])", ""), ("up", "limit"), ("up", "stats"), ("up", "time")]
    {
        let more: &[(&str, &str)] = match reason {
            "limit" => &[("limit", "3")],
            "stats" => &[("stats", "all"), ("limit", "0")],
            "time" => &[("start", "-5"), ("end", "60")],
            _ => &[],
        };
        let answer = range(&gate, &ada, query, more).await;
        let detail = if reason.is_empty() { "miss".to_owned() } else { format!("detail={reason}") };
        assert!(status(&answer).ends_with(&detail), "{query} {more:?}: {}", status(&answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_values_series_and_instants_are_kept_too() {
    let gate = echoing("  mode: enforce\n").await;
    let ada = gate.token("ada");
    let url = |path: &str| format!("{}/proxy/globaldatasources/p/api/v1/{path}", gate.url);
    for (path, post) in [("labels", true), ("series", true), ("query", true), ("label/job/values", false)] {
        let ask = async |start: &str, end: &str| {
            let window = [("start", start), ("end", end)];
            let form: Vec<(&str, &str)> = match path {
                "query" => vec![("query", "up"), ("time", start)],
                "series" => [("match[]", "up")].into_iter().chain(window).collect(),
                _ => window.to_vec(),
            };
            if post {
                return gate.http.form(&url(path), &ada, &form).await.unwrap();
            }
            gate.get(&ada, &format!("/proxy/globaldatasources/p/api/v1/{path}?start={start}&end={end}")).await
        };
        assert!(status(&ask("1700000010", "1700000020").await).contains("fwd=miss"), "{path}");
        assert!(status(&ask("1700000010", "1700000020").await).contains("hit"), "{path}");
        let seen = gate.upstream.take();
        let seen: Vec<_> = seen.iter().filter(|seen| seen.line.contains(path)).collect();
        assert_eq!(seen.len(), 1, "{path}");
        if path != "query" {
            let sent = format!("{}{}", seen[0].line, seen[0].body);
            assert!(sent.contains("start=16999") || sent.contains("start=1700000000"), "moved outwards: {sent}");
            // Some seconds later it is the same window still.
            assert!(status(&ask("1700000012", "1700000022").await).contains("hit"), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_one_question_and_errors_are_told_to_all() {
    let gate = Arc::new(echoing("  mode: enforce\n").await);
    let ada = gate.token("ada");
    range(&gate, &ada, "warm", &[]).await;
    gate.upstream.take();
    let collapsed = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (gate, ada, collapsed) = (Arc::clone(&gate), ada.clone(), Arc::clone(&collapsed));
        tasks.spawn(async move {
            if !status(&range(&gate, &ada, "up", &[]).await).ends_with("fwd=miss") {
                collapsed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tasks.join_all().await;
    assert_eq!((asked(&gate), collapsed.load(Ordering::Relaxed)), (1, 49));
    gate.upstream.answers(
        "POST /api/v1/query",
        422,
        r#"{"status":"error","errorType":"execution","error":"found duplicate series"}"#,
    );
    for _ in 0..3 {
        let answer = gate.query(&ada, "a / b").await;
        assert_eq!(answer.status, 422);
        assert!(String::from_utf8_lossy(&answer.body).contains("found duplicate series"));
    }
    assert_eq!(asked(&gate), 1, "a refused query is not asked again at once");
}

/// Writes something else into the configuration.
fn change(gate: &Gate, from: &str, to: &str) {
    let text = std::fs::read_to_string(&gate.config).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&gate.config, text.replace(from, to)).unwrap();
}

/// Asks the same until `Cache-Status` has these words.
async fn until(gate: &Gate, token: &str, wanted: &str) {
    for _ in 0..300 {
        if status(&range(gate, token, "up", &[]).await).contains(wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never {wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_acts_at_once_and_keeps_what_is_known() {
    let gate = echoing("  mode: enforce\n").await;
    let ada = gate.token("ada");
    range(&gate, &ada, "up", &[]).await;
    change(&gate, "mode: enforce", "mode: bypass");
    until(&gate, &ada, "fwd=bypass; detail=mode").await;
    change(&gate, "mode: bypass", "mode: enforce\n  range: {ttl: 1h}");
    until(&gate, &ada, "hit; ttl=3").await;
    change(&gate, "ttl: 1h", "ttl: 1s");
    until(&gate, &ada, "fwd=miss").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datasource_that_changes_takes_all_answers_with_it() {
    let gate = echoing("  mode: enforce\n").await;
    let (ada, root) = (gate.token("ada"), gate.token("root"));
    range(&gate, &ada, "up", &[]).await;
    assert!(status(&range(&gate, &ada, "up", &[]).await).contains("hit"));
    gate.upstream.answers("DELETE /api/v1/globaldatasources/other", 404, r#"{"message":"no"}"#);
    let delete = |name: &str| {
        format!(
            "DELETE /api/v1/globaldatasources/{name} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {root}\r\n\
             connection: close\r\n\r\n"
        )
    };
    gate.raw(delete("other").as_bytes()).await;
    assert!(status(&range(&gate, &ada, "up", &[]).await).contains("hit"), "nothing was changed");
    gate.upstream.answers("DELETE /api/v1/globaldatasources/other", 204, "");
    gate.raw(delete("other").as_bytes()).await;
    assert_eq!(status(&range(&gate, &ada, "up", &[]).await), "perses-sidecar; fwd=miss");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_perses_are_as_of_a_moment_ago_and_gone_with_a_change() {
    let gate = Arc::new(gate("cache:\n  mode: enforce\n").await);
    let (ada, grace) = (gate.token("ada"), gate.token("grace"));
    let list = |names: &[&str]| {
        let one = |name: &&str| {
            format!(r#"{{"kind":"Dashboard","metadata":{{"name":"{name}","project":"{name}"}},"spec":{{}}}}"#)
        };
        format!("[{}]", names.iter().map(one).collect::<Vec<_>>().join(","))
    };
    let asked = || gate.upstream.lines().iter().filter(|line| line.contains("GET /api/v1/dashboards")).count();
    let text =
        async |token: &str| String::from_utf8_lossy(&gate.get(token, "/api/v1/dashboards").await.body).into_owned();
    gate.upstream.answers("GET /api/v1/dashboards", 200, &list(&["team-a", "team-b", "team-c"]));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (gate, ada) = (Arc::clone(&gate), ada.clone());
        tasks.spawn(async move { gate.get(&ada, "/api/v1/dashboards").await.status });
    }
    assert!(tasks.join_all().await.into_iter().all(|status| status == 200));
    let (of_ada, of_grace) = (text(&ada).await, text(&grace).await);
    assert_eq!(asked(), 1, "one list for all");
    assert!(of_ada.contains("team-a") && !of_ada.contains("team-c"), "{of_ada}");
    assert!(!of_grace.contains("team-a") && of_grace.contains("team-b"), "and each sees their own: {of_grace}");
    // What changes through us is seen at once.
    gate.upstream.answers("GET /api/v1/dashboards", 200, &list(&["team-b"]));
    gate.upstream.answers("DELETE /api/v1/projects/team-a/dashboards/team-a", 204, "");
    let delete = format!(
        "DELETE /api/v1/projects/team-a/dashboards/team-a HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ada}\r\n\
         connection: close\r\n\r\n"
    );
    assert!(gate.raw(delete.as_bytes()).await.contains(" 204"));
    assert!(!text(&ada).await.contains("team-a"));
    // What changes elsewhere, after two seconds.
    gate.upstream.answers("GET /api/v1/dashboards", 200, &list(&["team-a"]));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert!(text(&ada).await.contains("team-a"));
}

/// ada sees team-a and team-b, grace team-b alone, root everything.
#[tokio::test(flavor = "multi_thread")]
async fn an_override_is_of_a_backend_and_of_data_and_acts_at_once() {
    let none = "  mode: enforce\n";
    let gate = echoing(none).await;
    let [ada, grace, root] = ["ada", "grace", "root"].map(|user| gate.token(user));
    let literal = |name: &str| format!("up{{namespace=\"{name}\"}}");
    let bypassed = |answer: &Answer| status(answer) == "perses-sidecar; fwd=bypass; detail=mode";
    for query in ["up", &literal("team-a"), &literal("team-b")] {
        range(&gate, &ada, query, &[]).await;
    }
    let with = "  mode: enforce\n  overrides:\n    - {backends: [p], namespaces: [team-a], mode: bypass}\n";
    change(&gate, none, with);
    until(&gate, &ada, "fwd=bypass").await;
    // The data decide, not who asks for them.
    assert!(bypassed(&range(&gate, &ada, &literal("team-a"), &[]).await));
    assert!(!bypassed(&range(&gate, &ada, &literal("team-b"), &[]).await), "of another namespace");
    assert!(!bypassed(&range(&gate, &grace, "up", &[]).await), "reads team-b alone");
    assert!(!bypassed(&range(&gate, &ada, "vector(1)", &[]).await), "reads nothing");
    assert!(bypassed(&range(&gate, &root, "up", &[]).await), "may read all of them");
    let series = |query: &'static str| [("match[]", query)];
    let ask = async |token: &str, query: &'static str| {
        gate.http
            .form(&format!("{}/proxy/globaldatasources/p/api/v1/series", gate.url), token, &series(query))
            .await
            .unwrap()
    };
    assert!(bypassed(&ask(&ada, "up").await) && !bypassed(&ask(&grace, "up").await));
    // What was kept before is used again.
    change(&gate, "mode: bypass}", "range: {ttl: 1s}}");
    until(&gate, &ada, "fwd=miss").await;
    assert!(status(&range(&gate, &ada, &literal("team-b"), &[]).await).contains("hit; ttl=4"), "12 h as ever");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(status(&range(&gate, &ada, &literal("team-a"), &[]).await).contains("fwd=miss"));
    // A backend that there is not is refused, and what was in use stays.
    change(&gate, "backends: [p]", "backends: [q]");
    let told = async || {
        let ready = gate.http.get(&format!("{}/readyz", gate.admin), "").await.unwrap();
        String::from_utf8_lossy(&ready.body).into_owned()
    };
    for _ in 0..300 {
        if told().await.contains("there is no backend") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(told().await.contains("there is no backend \"q\""), "{}", told().await);
}

/// Everything that was asked for twice is kept in gzip for whoever takes it, and nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_gzip_gets_the_same_answer_compressed() {
    use std::io::Read as _;
    let gate = echoing("  mode: enforce\n").await;
    let ada = gate.token("ada");
    let bearer = format!("Bearer {ada}");
    let ask = async |query: &str, accept: &str| {
        let form = [("query", query), ("start", "1700000000"), ("end", "1700060000"), ("step", "60")];
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
            ("accept-encoding", accept),
        ];
        let body = perses_sidecar_stack::encoding::form(&form);
        let answer = gate.http.send("POST", &format!("{}{RANGE}", gate.url), &headers, &body).await.unwrap();
        assert_eq!((answer.status, answer.headers["vary"].to_str().unwrap()), (200, "accept-encoding"));
        assert_eq!(answer.headers["content-length"].to_str().unwrap(), answer.body.len().to_string());
        answer
    };
    for query in ["up", "down"] {
        let plain = ask(query, "identity").await;
        assert!(!plain.headers.contains_key("content-encoding") && plain.body.starts_with(b"{"));
        let mut packed = None;
        for _ in 0..200 {
            let answer = ask(query, "gzip, deflate, br").await;
            if answer.headers.contains_key("content-encoding") {
                packed = Some(answer);
                break;
            }
            assert_eq!(answer.body, plain.body, "until it is ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let packed = packed.expect("never compressed");
        assert_eq!(packed.headers["content-encoding"], "gzip");
        assert_eq!(packed.headers["content-type"], "application/json");
        assert!(status(&packed).contains("hit") && packed.body.len() * 4 < plain.body.len());
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(packed.body.as_ref()).read_to_end(&mut body).unwrap();
        assert_eq!(body, plain.body);
        for accept in ["identity", "br", "gzip;q=0", "gzip;q=0.2, identity"] {
            let answer = ask(query, accept).await;
            assert!(!answer.headers.contains_key("content-encoding"), "{accept}");
            assert_eq!(answer.body, plain.body, "{accept}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_is_asked_again_and_what_differs_is_forgotten_counted_and_never_shown_in_shadow() {
    let gate = echoing("  mode: enforce\n  verify: {one_in: 1}\n").await;
    let ada = gate.token("ada");
    let metric = async |outcome: &str| {
        let line = format!("perses_sidecar_cache_verifications_total{{outcome=\"{outcome}\"}} ");
        let answer = gate.http.get(&format!("{}/metrics", gate.admin), "").await.unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok()).unwrap()
    };
    let counted = async |outcome: &str, wanted: u64| {
        for _ in 0..200 {
            if metric(outcome).await >= wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never {wanted} {outcome}");
    };
    let first = range(&gate, &ada, "up", &[]).await;
    assert!(status(&range(&gate, &ada, "up", &[]).await).contains("hit"));
    counted("same", 1).await;
    let sent: Vec<_> = gate.upstream.take().into_iter().filter(|seen| seen.line.contains("query_range")).collect();
    assert_eq!(sent.len(), 2, "asked again");
    assert_eq!(sent[0].body.contains("team-a"), sent[1].body.contains("team-a"));
    let confined = |body: &str| body.split('&').find(|pair| pair.starts_with("query=")).unwrap().to_owned();
    assert_eq!(confined(&sent[0].body), confined(&sent[1].body), "the same confined text");
    // History is written anew.
    let other = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
    gate.upstream.answers_by(move |seen| seen.line.contains("query_range").then(|| (200, other.to_owned())));
    let kept = range(&gate, &ada, "up", &[]).await;
    assert_eq!((kept.body == first.body, status(&kept).contains("hit")), (true, true));
    counted("different", 1).await;
    let next = range(&gate, &ada, "up", &[]).await;
    assert_eq!(status(&next), "perses-sidecar; fwd=miss");
    assert_eq!(next.body, other.as_bytes());
    // In shadow the backend answers.
    change(&gate, "mode: enforce", "mode: shadow");
    until(&gate, &ada, "fwd=bypass; detail=mode").await;
    let again = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1700000000,"1"]]}]}}"#;
    gate.upstream.answers_by(move |seen| seen.line.contains("query_range").then(|| (200, again.to_owned())));
    let told = range(&gate, &ada, "up", &[]).await;
    assert_eq!((status(&told).as_str(), &told.body[..]), ("perses-sidecar; fwd=bypass; detail=mode", again.as_bytes()));
    counted("different", 2).await;
}
