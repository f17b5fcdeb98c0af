//! What is malformed, ambiguous, oversized, unknown or foreign is refused before anything reaches an upstream.

use serde_json::json;

use crate::support::{Gate, gate};

/// Sends raw bytes as ada; gives the status line's code.
async fn status(gate: &Gate, token: &str, request: &str) -> String {
    let request = request.replace("TOKEN", token).replace('\n', "\r\n");
    let answer = gate.raw(request.as_bytes()).await;
    answer.split(' ').nth(1).unwrap_or("closed").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_requests_that_could_mean_two_things() {
    let gate = gate("limits:\n  body: 2KiB\n  query_body: 2KiB\n").await;
    let ada = gate.token("ada");
    let head = "host: x\nauthorization: Bearer TOKEN";
    let json_head = format!("{head}\ncontent-type: application/json");
    let form_head = format!("{head}\ncontent-type: application/x-www-form-urlencoded");
    let query = "/proxy/globaldatasources/p/api/v1/query";
    for (request, expected) in [
        (format!("DELETE /api/v1/projects/team-a/dashboards/../../team-b/dashboards/x HTTP/1.1\n{head}\n\n"), "400"),
        (format!("DELETE /api/v1/projects/.. HTTP/1.1\n{head}\n\n"), "400"),
        (format!("DELETE /api/v1/projects/%2e%2e HTTP/1.1\n{head}\n\n"), "400"),
        (format!("GET /api/v1/projects//dashboards HTTP/1.1\n{head}\n\n"), "400"),
        (format!("GET http://x/api/v1/projects HTTP/1.1\n{head}\n\n"), "400"),
        (format!("GET /api/v1/projects/team-a/dashboards?project=team-b HTTP/1.1\n{head}\n\n"), "400"),
        (format!("GET /api/v1/projects/team-a/dashboards?project= HTTP/1.1\n{head}\n\n"), "400"),
        (format!("GET /api/v1/projects/team-a/dashboards?%70roject=team-b HTTP/1.1\n{head}\n\n"), "400"),
        (format!("GET /api/v1/projects HTTP/1.1\n{head}\nauthorization: Bearer TOKEN\n\n"), "400"),
        ("GET /api/v1/projects HTTP/1.1\nhost: x\nauthorization: Bearer  TOKEN\n\n".to_owned(), "400"),
        ("GET /api/v1/projects HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN x\n\n".to_owned(), "401"),
        ("GET /api/v1/projects HTTP/1.1\nhost: x\nauthorization: Basic TOKEN\n\n".to_owned(), "401"),
        ("GET /api/v1/projects HTTP/1.1\nhost: x\n\n".to_owned(), "401"),
        (format!("GET /api/v1/projects HTTP/1.1\nhost: y\n{head}\n\n"), "400"),
        (format!("GET {query}?query=up HTTP/1.1\n{head}\nconnection: upgrade\nupgrade: websocket\n\n"), "400"),
        (format!("GET /api/v1/dashboards HTTP/1.1\n{json_head}\ncontent-length: 2\n\n{{}}"), "400"),
        (
            format!(
                "POST /api/v1/projects/team-a/dashboards HTTP/1.1\n{head}\ncontent-type: application/xml; a=application/json\ncontent-length: 2\n\n{{}}"
            ),
            "415",
        ),
        (
            format!(
                "POST /api/v1/projects/team-a/dashboards HTTP/1.1\n{json_head}\ncontent-encoding: gzip\ncontent-length: 2\n\n{{}}"
            ),
            "415",
        ),
        (format!("POST /api/v1/projects/team-a/dashboards HTTP/1.1\n{json_head}\ncontent-length: 5000\n\n"), "413"),
        (
            format!(
                "POST /api/v1/projects/team-a/dashboards HTTP/1.1\n{json_head}\ntransfer-encoding: chunked\n\n1000\n{}\n0\n\n",
                "x".repeat(4096)
            ),
            "413",
        ),
        (
            format!(
                "POST /api/v1/projects/team-a/dashboards HTTP/1.1\n{json_head}\ncontent-length: 2\ncontent-length: 3\n\n{{}}"
            ),
            "400",
        ),
        (
            format!(
                "POST /api/v1/projects/team-a/dashboards HTTP/1.1\n{json_head}\ncontent-length: 2\ntransfer-encoding: chunked\n\n0\n\n"
            ),
            "400",
        ),
        (format!("POST {query} HTTP/1.1\n{form_head}\ncontent-length: 19\n\nquery=up&query=down"), "400"),
        (format!("POST {query}?query=down HTTP/1.1\n{form_head}\ncontent-length: 8\n\nquery=up"), "400"),
        (
            format!(
                "POST {query} HTTP/1.1\n{head}\ncontent-type: multipart/form-data; boundary=x\ncontent-length: 8\n\nquery=up"
            ),
            "415",
        ),
        (format!("GET {query} HTTP/1.1\n{form_head}\ncontent-length: 8\n\nquery=up"), "400"),
        (
            format!("POST {query} HTTP/1.1\n{form_head}\ncontent-length: 35\n\nquery=up&replicaLabels[]=namespace&a"),
            "400",
        ),
        (format!("POST {query} HTTP/1.1\n{form_head}\ncontent-length: 8\n\nquery=%zz"), "400"),
        (format!("POST {query} HTTP/1.1\n{form_head}\ncontent-length: 9\n\nquery=up("), "400"),
        (format!("PROPFIND {query} HTTP/1.1\n{head}\n\n"), "405"),
        (
            format!(
                "POST /proxy/unsaved/globaldatasources/api/v1/query HTTP/1.1\n{json_head}\ncontent-length: 2\n\n{{}}"
            ),
            "403",
        ),
        (format!("POST /api/v1/users HTTP/1.1\n{json_head}\ncontent-length: 2\n\n{{}}"), "403"),
        (format!("POST /api/v1/plugins/dev HTTP/1.1\n{json_head}\ncontent-length: 2\n\n{{}}"), "403"),
        (format!("GET /metrics HTTP/1.1\n{head}\n\n"), "403"),
        (format!("GET /debug/pprof/heap HTTP/1.1\n{head}\n\n"), "404"),
        (format!("GET /plugins/X/../../../etc/passwd HTTP/1.1\n{head}\n\n"), "400"),
        (format!("GET /api/v1/search/dashboards HTTP/1.1\n{head}\n\n"), "404"),
        (format!("CONNECT x:80 HTTP/1.1\n{head}\n\n"), "4"),
        (format!("GET / HTTP/1.1\n{head}\na: {}\n\n", "b".repeat(100_000)), "431"),
        (format!("GET / HTTP/1.1\n{head}\n{}\n", "a: b\n".repeat(200)), "431"),
        ("\u{0}\u{1}\u{2}nonsense\n\n".to_owned(), "400"),
    ] {
        let got = status(&gate, &ada, &request).await;
        assert!(
            got.starts_with(expected),
            "expected {expected}, got {got}: {}",
            request.chars().take(300).collect::<String>()
        );
        let seen: Vec<String> = gate.upstream.lines();
        let harmless = |line: &String| line.starts_with("GET /api/v1/globaldatasources/p");
        assert!(seen.iter().all(harmless), "{request:.200} reached an upstream: {seen:?}");
    }
    assert_eq!(gate.query(&ada, "up").await.status, 200, "and an ordinary request is answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_could_mean_two_things() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    let url = format!("{}/api/v1/dashboards", gate.url);
    let authorization = format!("Bearer {ada}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    for body in [
        r#"{"metadata":{"name":"d","project":"team-a","Project":"team-c"},"spec":{}}"#,
        r#"{"metadata":{"name":"d","project":"team-a","project":"team-c"},"spec":{}}"#,
        "{\"metadata\":{\"name\":\"d\",\"project\":\"team-a\"},\"\u{17f}pec\":{}}",
        r#"{"metadata":{"name":"d","project":"team-a"},"spec":{}}{"metadata":{"project":"team-c"}}"#,
        "\u{feff}{\"metadata\":{\"name\":\"d\",\"project\":\"team-a\"},\"spec\":{}}",
        r#"{"metadata":{"name":"../../team-c/x","project":"team-a"},"spec":{}}"#,
        r#"{"metadata":{"name":"d","project":"../team-c"},"spec":{}}"#,
        r#"{"metadata":{"name":"d"},"spec":{}}"#,
        r#"{"kind":"Secret","metadata":{"name":"d","project":"team-a"},"spec":{}}"#,
        "[]",
        "",
    ] {
        let answer = gate.http.send("POST", &url, &headers, body).await.unwrap();
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert!(gate.upstream.take().is_empty(), "{body}");
    }
    // Foreign and virtual places.
    let body = json!({ "metadata": { "name": "d", "project": "team-c" }, "spec": {} });
    assert_eq!(gate.http.json("POST", &url, &ada, &body).await.unwrap().status, 404);
    let body = json!({ "metadata": { "name": "d", "project": "team-b" }, "spec": {} });
    assert_eq!(gate.http.json("POST", &url, &ada, &body).await.unwrap().status, 403, "some right, not this one");
    let url = format!("{}/api/v1/projects/team-a/datasources", gate.url);
    let spec = |url: &str| json!({ "plugin": { "kind": "PrometheusDatasource", "spec": { "proxy": { "kind": "HTTPProxy", "spec": { "url": url } } } } });
    for target in ["http://169.254.169.254", "http://127.0.0.1:1", "http://u:p@prometheus"] {
        let body = json!({ "metadata": { "name": "d" }, "spec": spec(target) });
        assert_eq!(gate.http.json("POST", &url, &ada, &body).await.unwrap().status, 403, "{target}");
    }
    assert!(gate.upstream.take().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_queries_are_counted_by_reason_and_never_sent() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    let deep = "(".repeat(200);
    for (query, status, words) in [
        ("up)", 400, "invalid PromQL at character 3: unexpected"),
        ("sum by (a, )) (up)", 400, "invalid PromQL at character"),
        ("rate(up)", 400, "expected type range vector in call to function \"rate\""),
        ("info(up)", 400, "info() reads series that no matcher of the query can confine"),
        ("limitk(1, up)", 400, "metrics_backends[].experimental"),
        (&deep, 422, "limits.query_depth, which is 100"),
        ("up{pod=~\"^{1000}^{1000}^{1000}^{1000}^{1000}^{1000}\"}", 422, "limits.query_repetitions, which is 5000"),
    ] {
        let answer = gate.query(&ada, query).await;
        assert_eq!(answer.status, status, "{query:.40}: {}", answer.text());
        assert!(answer.json()["error"].as_str().is_some_and(|error| error.contains(words)), "{}", answer.text());
    }
    let harmless = |line: &String| line.starts_with("GET /api/v1/globaldatasources/p");
    let seen = gate.upstream.lines();
    assert!(seen.iter().all(harmless), "{seen:?}");
    let metrics = gate.http.send("GET", &format!("{}/metrics", gate.admin), &[], "").await.unwrap().text();
    for line in [
        "perses_sidecar_confine_total{outcome=\"syntax\"} 2",
        "perses_sidecar_confine_total{outcome=\"type\"} 1",
        "perses_sidecar_confine_total{outcome=\"forbidden\"} 2",
        "perses_sidecar_confine_total{outcome=\"limit\"} 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_datasources_are_not_asked() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    let describe = |kind: &str, proxy: &str| format!(r#"{{"spec":{{"plugin":{{"kind":"{kind}","spec":{proxy}}}}}}}"#);
    for (kind, proxy) in [
        ("PrometheusDatasource", r#"{"proxy":{"kind":"HTTPProxy","spec":{"url":"http://127.0.0.1:1"}}}"#),
        ("LokiDatasource", r#"{"proxy":{"kind":"HTTPProxy","spec":{"url":"http://127.0.0.1:1"}}}"#),
        ("PrometheusDatasource", r#"{"directUrl":"http://x"}"#),
        (
            "PrometheusDatasource",
            r#"{"a":{"kind":"httpproxy","spec":{}},"proxy":{"kind":"HTTPProxy","spec":{"url":"x"}}}"#,
        ),
    ] {
        gate.upstream.answers("GET /api/v1/globaldatasources/f", 200, &describe(kind, proxy));
        let url = format!("{}/proxy/globaldatasources/f/api/v1/query", gate.url);
        let answer = gate.http.form(&url, &ada, &[("query", "up")]).await.unwrap();
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(!answer.text().contains("127.0.0.1"), "no address is told");
        assert_eq!(gate.upstream.lines(), ["GET /api/v1/globaldatasources/f"]);
    }
    let url = format!("{}/proxy/globaldatasources/none/api/v1/query", gate.url);
    assert_eq!(gate.http.form(&url, &ada, &[("query", "up")]).await.unwrap().status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_upstreams_are_told_without_their_addresses() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    for (status, body, expected) in [
        (500, r#"{"status":"error","errorType":"internal","error":"dial tcp 10.1.2.3:9090"}"#, 502),
        (503, "{}", 503),
        (302, "{}", 502),
        (400, r#"{"status":"error","errorType":"bad_data","error":"see http://10.1.2.3"}"#, 400),
        (422, r#"{"status":"error","errorType":"execution","error":"many-to-many matching"}"#, 422),
    ] {
        gate.upstream.answers("POST /api/v1/query", status, body);
        let answer = gate.query(&ada, "up").await;
        assert_eq!(answer.status, expected, "{}", answer.text());
        assert!(!answer.text().contains("10.1.2.3"), "{}", answer.text());
        assert_eq!(answer.json()["status"], "error", "in Prometheus' style");
    }
    gate.upstream.answers("GET /api/v1/projects/team-a/dashboards/d", 500, "dial tcp 10.1.2.3");
    let answer = gate.get(&ada, "/api/v1/projects/team-a/dashboards/d").await;
    assert_eq!(answer.status, 502);
    assert!(!answer.text().contains("10.1.2.3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_in_pages() {
    let gate = gate("login:\n  external_url: https://perses.example\n").await;
    let answer =
        gate.http.send("GET", &format!("{}/-/whoami", gate.url), &[("accept", "text/html")], "").await.unwrap();
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("<h1>") && answer.text().contains("https://perses.example"), "{}", answer.text());
    assert!(answer.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
}
