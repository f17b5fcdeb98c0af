//! Questions beyond queries: exemplars, rules, alerts, and lists for more namespaces than one request can name.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Gate, More, Seen, gate, gate_with};

const BASE: &str = "/proxy/globaldatasources/p/api/v1";
const BOTH: &str = "%7Bnamespace%3D~%22team-a%7Cteam-b%22";

fn rule(name: &str, namespace: Option<&str>) -> Value {
    let labels = namespace.map_or_else(|| json!({}), |namespace| json!({ "namespace": namespace }));
    json!({ "name": name, "query": name, "labels": labels, "type": "recording", "new": 1.5 })
}

fn rules() -> String {
    let rules = [rule("own", Some("team-a")), rule("foreign", Some("team-c")), rule("lost", None)];
    let groups = json!([
        { "name": "g", "file": "/etc/rules.yaml", "rules": rules, "interval": 60 },
        { "name": "h", "file": "/etc/rules.yaml", "rules": [rule("foreign", Some("team-c"))], "interval": 60 },
    ]);
    json!({ "status": "success", "data": { "groups": groups, "groupNextToken": "abc" } }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn exemplars_are_confined_like_queries() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    gate.upstream.answers("POST /api/v1/query_exemplars", 200, r#"{"status":"success","data":[]}"#);
    let pairs = [("query", "quantile(scalar(a), rate(b[5m]))"), ("start", "1"), ("end", "2")];
    let answer = gate.http.form(&format!("{}{BASE}/query_exemplars", gate.url), &ada, &pairs).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"status":"success","data":[]}"#));
    assert_eq!(gate.get(&ada, &format!("{BASE}/query_exemplars?query=a&start=1")).await.status, 200);
    let seen = gate.upstream.take();
    let asked: Vec<&Seen> = seen.iter().filter(|seen| seen.line == "POST /api/v1/query_exemplars").collect();
    assert_eq!(asked[0].body.matches("team-a%7Cteam-b").count(), 2, "{}", asked[0].body);
    assert!(asked[0].body.ends_with("&start=1&end=2"), "{}", asked[0].body);
    assert_eq!(asked[1].body, format!("query=a{BOTH}%7D&start=1"));
    for bad in ["", "?query=", "?query=a&time=1", "?query=a&step=1", "?query=a&query=b", "?query=(", "?query=a&dedup=1"]
    {
        let answer = gate.get(&ada, &format!("{BASE}/query_exemplars{bad}")).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
    assert_eq!(gate.get(&gate.token("eve"), &format!("{BASE}/query_exemplars?query=a")).await.status, 403);
    assert!(gate.upstream.take().iter().all(|seen| !seen.line.contains("exemplars")), "nothing was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_asked_with_a_matcher_and_filtered_all_the_same() {
    let gate = gate("").await;
    let (ada, root) = (gate.token("ada"), gate.token("root"));
    gate.upstream.answers("GET /api/v1/rules", 200, &rules());
    let asked = async |who: &str, query: &str| {
        let answer = gate.get(who, &format!("{BASE}/rules{query}")).await;
        let lines = gate.upstream.lines();
        (answer, lines.into_iter().rfind(|line| line.contains("/api/v1/rules")).unwrap_or_default())
    };
    let (answer, line) = asked(&ada, "").await;
    assert_eq!(line, format!("GET /api/v1/rules?match%5B%5D={BOTH}%7D"));
    let kept = r#"{"status":"success","data":{"groups":[{"file":"","interval":60,"name":"g","rules":[{"labels":{"namespace":"team-a"},"name":"own","new":1.5,"query":"own","type":"recording"}]}],"groupNextToken":"abc"}}"#;
    let mut expected: Value = serde_json::from_str(kept).unwrap();
    assert_eq!(answer.json(), expected);
    assert_eq!(answer.headers["cache-status"], "perses-sidecar; fwd=bypass; detail=mode");
    let (_, line) = asked(&ada, "?match[]=%7Bseverity=%22x%22%7D&type=alert&rule_name[]=A&rule_name[]=B&rule_group[]=g&exclude_alerts=true&group_limit=5&group_next_token=abc").await;
    assert_eq!(
        line,
        format!(
            "GET /api/v1/rules?match%5B%5D={BOTH}%2Cseverity%3D%22x%22%7D&type=alert&rule_name%5B%5D=A&rule_name%5B%5D=B\
             &rule_group%5B%5D=g&exclude_alerts=true&group_limit=5&group_next_token=abc"
        )
    );
    let (answer, line) = asked(&root, "").await;
    assert_eq!(line, "GET /api/v1/rules", "who may read everything needs no matcher");
    assert_eq!(answer.json(), serde_json::from_str::<Value>(&rules()).unwrap());
    gate.openshift.cluster().bind_cluster_role("monitor", "view");
    let (answer, line) = asked(&gate.token("monitor"), "").await;
    assert_eq!(line, "GET /api/v1/rules?match%5B%5D=%7Bnamespace%21%3D%22%22%7D");
    expected["data"]["groups"] = json!([]);
    assert!(answer.text().contains("foreign") && !answer.text().contains("lost"), "{}", answer.text());
    assert!(!answer.text().contains("/etc/"), "{}", answer.text());
    for bad in [
        "?file[]=x",
        "?type=x",
        "?exclude_alerts=x",
        "?group_limit=x",
        "?group_next_token=a/b",
        "?match[]=up+or+x",
        "?x=1",
    ] {
        assert_eq!(gate.get(&ada, &format!("{BASE}/rules{bad}")).await.status, 400, "{bad}");
    }
    assert_eq!(gate.get(&gate.token("eve"), &format!("{BASE}/rules")).await.status, 403);
    assert!(gate.upstream.lines().iter().all(|line| !line.contains("/rules")), "nothing was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_passes_that_could_not_be_filtered() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    for (path, line) in [("rules", "GET /api/v1/rules"), ("alerts", "GET /api/v1/alerts")] {
        for (status, body, expected) in [
            (200, "secret".to_owned(), 502),
            (200, r#"{"status":"success","data":{"groups":[{"rules":[{"labels":{"namespace":"team-a","namespace":"x"}}]}],"alerts":[{"labels":{"namespace":"team-a","namespace":"x"}}]}}"#.to_owned(), 502),
            (200, format!(r#"{{"status":"success","data":{{"{path}":"secret"}}"#), 502),
            (400, r#"{"status":"error","error":"secret"}"#.to_owned(), 400),
            (422, r#"{"status":"error","error":"secret"}"#.to_owned(), 422),
            (500, "secret".to_owned(), 502),
            (206, rules(), 502),
            (302, "secret".to_owned(), 502),
        ] {
            gate.upstream.answers(line, status, &body);
            let answer = gate.get(&ada, &format!("{BASE}/{path}")).await;
            assert_eq!(answer.status, expected, "{path} {status} {body}: {}", answer.text());
            assert!(!answer.text().contains("secret") && !answer.text().contains("foreign"), "{}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_filtered_by_their_own_label() {
    let gate = gate("").await;
    let alert = |name: &str, labels: Value| json!({ "labels": labels, "annotations": { "name": name }, "new": [1.5] });
    let alerts = [
        alert("own", json!({ "namespace": "team-b" })),
        alert("foreign", json!({ "namespace": "team-c" })),
        alert("lost", json!({})),
    ];
    let body = json!({ "status": "success", "data": { "alerts": alerts } });
    gate.upstream.answers("GET /api/v1/alerts", 200, &body.to_string());
    let answer = gate.get(&gate.token("grace"), &format!("{BASE}/alerts")).await;
    assert_eq!(answer.json()["data"]["alerts"], json!([alerts[0]]));
    assert_eq!(gate.upstream.lines().last().unwrap(), "GET /api/v1/alerts");
    assert_eq!(gate.get(&gate.token("root"), &format!("{BASE}/alerts")).await.json(), body);
    assert_eq!(gate.get(&gate.token("eve"), &format!("{BASE}/alerts")).await.status, 403);
    assert_eq!(gate.get(&gate.token("ada"), &format!("{BASE}/alerts?match[]=up")).await.status, 400);
}

/// The names of namespaces that a request names, selector by selector.
fn named(seen: &Seen) -> Vec<Vec<String>> {
    let text = format!("{}&{}", seen.line.split_once('?').map_or("", |(_, query)| query), seen.body);
    let selectors = text.split("match%5B%5D=").skip(1);
    selectors
        .map(|selector| {
            let value = selector.split("%22").nth(1).unwrap_or_default();
            value.split("%7C").filter(|name| !name.is_empty()).map(str::to_owned).collect()
        })
        .collect()
}

const MANY: usize = 2000;

/// Somebody with so many namespaces of long names.
async fn many(gate: &Gate, count: usize) -> (String, BTreeSet<String>) {
    let cluster = gate.openshift.cluster();
    let names: BTreeSet<String> = (0..count).map(|n| format!("{}-{n:04}", "n".repeat(55))).collect();
    for name in &names {
        cluster.add_namespace(name);
        cluster.bind_role(name, "mary", "view");
    }
    (gate.token("mary"), names)
}

/// What a backend would answer: one series for each namespace, `job` is its last digit.
fn list(seen: &Seen) -> Option<(u16, String)> {
    let found: BTreeSet<String> = named(seen).into_iter().flatten().collect();
    let job = |name: &String| name[name.len() - 1..].to_owned();
    let data = if seen.line.contains("/label/job/") {
        json!(found.iter().map(job).collect::<BTreeSet<_>>())
    } else if seen.line.contains("/label/namespace/") || seen.line.contains("/label/__name__/") {
        json!(found)
    } else {
        return None;
    };
    Some((200, json!({ "status": "success", "data": data, "warnings": ["store 10.0.0.1"] }).to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn more_namespaces_than_a_request_can_name_are_asked_in_parts() {
    let gate = gate("").await;
    let (mary, names) = many(&gate, MANY).await;
    gate.upstream.answers_by(list);
    let answer = gate.get(&mary, &format!("{BASE}/label/namespace/values")).await;
    assert_eq!(answer.json()["data"], json!(names), "{}", &answer.text()[..200]);
    assert_eq!(answer.json()["warnings"], json!(["partial response"]));
    let seen: Vec<Seen> = gate.upstream.take().into_iter().filter(|seen| seen.line.contains("/values")).collect();
    assert_eq!(seen.len(), 4, "parts");
    assert!(seen.iter().all(|seen| seen.line.len() < 50_000), "every request can be sent");
    let parts: Vec<Vec<String>> = seen.iter().flat_map(named).collect();
    assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), MANY, "no namespace twice");
    assert_eq!(parts.into_iter().flatten().collect::<BTreeSet<String>>(), names, "and all of them");
    // The same value of several parts stands once; limits count after that.
    let answer = gate.get(&mary, &format!("{BASE}/label/job/values?start=1")).await;
    assert_eq!(answer.json()["data"], json!(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]));
    let answer = gate.get(&mary, &format!("{BASE}/label/job/values?limit=3")).await.json();
    assert_eq!(answer["data"], json!(["0", "1", "2"]));
    assert_eq!(answer["warnings"], json!(["partial response", "results truncated due to limit"]));
    let lines = gate.upstream.lines();
    let asked: Vec<&String> = lines.iter().filter(|line| line.contains("/job/")).collect();
    assert_eq!(asked.len(), 8);
    assert!(asked[..4].iter().all(|line| line.ends_with("&start=1")));
    assert!(asked[4..].iter().all(|line| line.ends_with("&limit=3")));
    // A matcher of the caller's own makes one request of it.
    let one = names.first().unwrap();
    let answer = gate.get(&mary, &format!("{BASE}/label/namespace/values?match[]=%7Bnamespace=%22{one}%22%7D")).await;
    assert_eq!(answer.json()["data"], json!([one]));
    assert_eq!(gate.upstream.lines().iter().filter(|line| line.contains("/values")).count(), 1);
    // Metadata look for names in parts too, and rules are asked for with a matcher that fits.
    let known = names.first().unwrap();
    let body = json!({ "status": "success", "data": { known: [1], "secret": [2] } }).to_string();
    gate.upstream.answers("GET /api/v1/metadata", 200, &body);
    let answer = gate.get(&mary, &format!("{BASE}/metadata")).await;
    assert_eq!(answer.json()["data"], json!({ known: [1] }), "{}", answer.text());
    let ruled = json!({ "status": "success", "data": { "groups": [
        { "name": "g", "file": "f", "rules": [rule("own", Some(one)), rule("foreign", Some("team-c"))] }] } });
    gate.upstream.answers("GET /api/v1/rules", 200, &ruled.to_string());
    gate.upstream.take();
    let answer = gate.get(&mary, &format!("{BASE}/rules")).await;
    assert!(answer.text().contains("own") && !answer.text().contains("foreign"), "{}", answer.text());
    assert_eq!(gate.upstream.lines().last().unwrap(), "GET /api/v1/rules?match%5B%5D=%7Bnamespace%21%3D%22%22%7D");
    // One part that fails makes all fail.
    let refuse = format!("{}-0999", "n".repeat(55));
    gate.upstream.answers_by(
        move |seen| {
            if seen.line.contains(&refuse) { Some((500, "secret".to_owned())) } else { list(seen) }
        },
    );
    let answer = gate.get(&mary, &format!("{BASE}/label/namespace/values")).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn four_parts_are_asked_at_once_and_all_of_them_in_the_end() {
    let gate = std::sync::Arc::new(gate("").await);
    let (mary, names) = many(&gate, 100).await;
    gate.upstream.answers_by(list);
    let held = gate.upstream.hold("/label/namespace/");
    // Selectors by the dozen make the target longer as well.
    let selectors: String = (0..40).map(|n| format!("&match[]=m{n:02}")).collect();
    let asked = tokio::spawn({
        let gate = std::sync::Arc::clone(&gate);
        async move { gate.get(&mary, &format!("{BASE}/label/namespace/values?{}", &selectors[1..])).await }
    });
    // One answered makes room for one more, and never for two.
    for ever in 4..8 {
        held.wait(|waiting| waiting.ever == ever).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let waiting = held.wait(|_| true).await;
        assert_eq!((waiting.now, waiting.at_most, waiting.ever), (4, 4, ever));
        held.let_go(1);
    }
    held.let_go(1000);
    let answer = asked.await.unwrap();
    assert_eq!(answer.json()["data"], json!(names), "{}", answer.text());
    assert_eq!(held.wait(|waiting| waiting.now == 0).await.at_most, 4);
    let seen: Vec<Seen> = gate.upstream.take().into_iter().filter(|seen| seen.line.contains("/values")).collect();
    assert!(seen.len() > 7, "{} parts", seen.len());
    // Each selector was asked for each namespace, once.
    let (mut pairs, mut count) = (BTreeSet::new(), 0);
    for seen in &seen {
        for (selector, names) in seen.line.split("match%5B%5D=").skip(1).zip(named(seen)) {
            count += names.len();
            pairs.extend(names.into_iter().map(|name| (selector[..3].to_owned(), name)));
        }
    }
    assert_eq!((pairs.len(), count), (40 * names.len(), 40 * names.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn thanos_takes_its_parameters_and_no_others() {
    let gate = gate_with(More { backend: "    kind: thanos\n", ..More::default() }).await;
    let ada = gate.token("ada");
    let empty = r#"{"status":"success","data":[]}"#;
    for line in
        ["POST /api/v1/query_exemplars", "POST /api/v1/series", "POST /api/v1/labels", "GET /api/v1/label/job/values"]
    {
        gate.upstream.answers(line, 200, empty);
    }
    let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
    gate.upstream.answers("POST /api/v1/query_range", 200, matrix);
    gate.upstream.answers("GET /api/v1/rules", 200, r#"{"status":"success","data":{"groups":[]}}"#);
    gate.upstream.answers("GET /api/v1/alerts", 200, r#"{"status":"success","data":{"alerts":[]}}"#);
    gate.upstream.answers("GET /api/v1/metadata", 200, r#"{"status":"success","data":{}}"#);
    gate.upstream.answers("GET /api/v1/label/__name__/values", 200, empty);
    for path in [
        "query?query=up",
        "query_range?query=up&start=1&end=9&step=2",
        "query_exemplars?query=up",
        "series?match[]=up",
        "labels?",
        "label/job/values?",
        "rules?",
        "alerts?",
    ] {
        let more = "&dedup=true&partial_response=false&max_source_resolution=5m";
        let answer = gate.get(&ada, &format!("{BASE}/{path}{more}").replace("?&", "?")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let seen = gate.upstream.take();
        let sent = format!("{}{}", seen.last().unwrap().line, seen.last().unwrap().body);
        assert!(sent.contains(&more[1..]), "{path}: {sent}");
        for bad in [
            "replicaLabels[]=namespace",
            "storeMatch[]=x",
            "shard_info={}",
            "engine=thanos",
            "analyze=true",
            "dedup=x",
            "partial_response=maybe",
            "max_source_resolution=x",
            "partial_response=true&partial_response=false",
            "tenant=x",
        ] {
            let answer = gate.get(&ada, &format!("{BASE}/{path}&{bad}").replace("?&", "?")).await;
            assert_eq!(answer.status, 400, "{path} {bad}: {}", answer.text());
        }
    }
    assert_eq!(gate.get(&ada, &format!("{BASE}/metadata?dedup=true")).await.status, 200);
    // What speaks of evaluation goes with queries, and with nothing else.
    let evaluation = "lookback_delta=10m&stats=all&timeout=5s&limit=7";
    for path in ["query?query=up", "query_range?query=up&start=1&end=9&step=2"] {
        gate.upstream.take();
        assert_eq!(gate.get(&ada, &format!("{BASE}/{path}&{evaluation}")).await.status, 200, "{path}");
        let seen = gate.upstream.take();
        let body = &seen.last().unwrap().body;
        for pair in evaluation.split('&') {
            assert_eq!(body.split('&').filter(|sent| *sent == pair).count(), 1, "{pair}: {body}");
        }
        for bad in ["lookback_delta=-5m", "lookback_delta=x", "stats=sum"] {
            assert_eq!(gate.get(&ada, &format!("{BASE}/{path}&{bad}")).await.status, 400, "{path} {bad}");
        }
    }
    for path in ["labels", "label/job/values", "rules", "alerts"] {
        for bad in ["lookback_delta=10m", "stats=all", "timeout=5s"] {
            assert_eq!(gate.get(&ada, &format!("{BASE}/{path}?{bad}")).await.status, 400, "{path} {bad}");
        }
    }
    assert!(gate.upstream.lines().iter().all(|line| !line.contains("/api/v1/label")), "nothing of it was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stores_say_of_themselves_does_not_pass() {
    for kind in ["", "    kind: thanos\n"] {
        let gate = gate_with(More { backend: kind, ..More::default() }).await;
        let ada = gate.token("ada");
        for rows in [1, 5000] {
            let row = json!({ "metric": { "warnings": "10.9.9.9", "x": "y".repeat(50) }, "value": [1, "2"] });
            let result = vec![row; rows];
            let mut body =
                json!({ "status": "success", "data": { "resultType": "vector", "result": result } }).to_string();
            let data = body.clone();
            body.pop();
            body.push_str(r#","warnings":["receive series from Addr: 10.0.0.1:10901","PromQL warning: a"],"infos":["PromQL info: b"]}"#);
            gate.upstream.answers("POST /api/v1/query", 200, &body);
            let answer = gate.query(&ada, "up").await.json();
            assert_eq!(answer["warnings"], json!(["partial response", "PromQL warning: a"]), "{rows} rows");
            assert_eq!(answer["infos"], json!(["PromQL info: b"]));
            assert_eq!(answer["data"], serde_json::from_str::<Value>(&data).unwrap()["data"]);
            gate.upstream.answers("POST /api/v1/query", 200, &data);
            assert_eq!(gate.query(&ada, "up").await.text(), data, "what is quiet passes as it is");
        }
        // A list that does not end is no valid answer.
        let body = format!(r#"{{"status":"success","data":"{}","warnings":["10.0.0.1"#, "x".repeat(100_000));
        gate.upstream.answers("POST /api/v1/query", 200, &body);
        let url = format!("{}{BASE}/query?query=up", gate.url);
        let broken = gate.http.get(&url, &ada).await;
        assert!(broken.is_err(), "{:?}", broken.map(|answer| answer.status));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_do_not_quote_what_was_sent() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    let error = |text: &str| json!({ "status": "error", "errorType": "bad_data", "error": text }).to_string();
    for (text, passes) in [
        ("found duplicate series for the match group {} on the right hand-side of the operation", true),
        ("invalid parameter \"query\": 1:4: parse error: unexpected \"team-a|team-b\"", false),
        ("cannot run up{namespace=~\"team-a|team-b\"}", false),
        ("unsupported: sum(up{job=\"x\",namespace=~\"team-a|team-b\"})", false),
        ("rpc to http://10.0.0.1", false),
    ] {
        for (line, path) in [("POST /api/v1/query", "query?query=up"), ("POST /api/v1/series", "series?match[]=up")] {
            gate.upstream.answers(line, 422, &error(text));
            let answer = gate.get(&ada, &format!("{BASE}/{path}")).await;
            assert_eq!(answer.status, 422);
            assert_eq!(answer.json()["error"] == text, passes, "{text}: {}", answer.text());
            assert!(passes || !answer.text().contains("team-a"), "{}", answer.text());
        }
    }
}

/// Their names are keys of the answer, and so are those of lists that stores speak in.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_metrics_with_any_name_are_whole() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    let entry = json!([{ "type": "gauge", "help": "h", "unit": "" }]);
    let known =
        json!({ "status": "success", "data": { "warnings": entry, "infos": entry, "up": entry, "other": entry } });
    gate.upstream.answers("GET /api/v1/metadata", 200, &known.to_string());
    let names = json!({ "status": "success", "data": ["infos", "up", "warnings"] }).to_string();
    for line in ["POST /api/v1/label/__name__/values", "GET /api/v1/label/__name__/values"] {
        gate.upstream.answers(line, 200, &names);
    }
    let answer = gate.get(&ada, &format!("{BASE}/metadata")).await.json();
    assert_eq!(answer["data"], json!({ "infos": entry, "up": entry, "warnings": entry }));
}
