//! What goes upstream, and what comes back: written anew from what was granted.

use serde_json::json;

use crate::support::gate;

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_perses_are_written_anew() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    let headers = [
        ("authorization", format!("Bearer {ada}")),
        ("cookie", "session=1".to_owned()),
        ("x-forwarded-user", "root".to_owned()),
        ("impersonate-user", "root".to_owned()),
        ("x-scope-orgid", "all".to_owned()),
        ("x-remote-user", "root".to_owned()),
        ("forwarded", "for=1.2.3.4".to_owned()),
        ("accept-language", "de".to_owned()),
        ("x-http-method-override", "DELETE".to_owned()),
    ];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    gate.upstream.answers(
        "GET /api/v1/projects/team-a/dashboards/d",
        200,
        r#"{"kind":"Dashboard","metadata":{"name":"d","project":"team-a"},"spec":{}}"#,
    );
    let answer = gate
        .http
        .send("GET", &format!("{}/api/v1/projects/Team-A/dashboards/D", gate.url), &headers, "")
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.headers.contains_key("x-request-id"));
    let seen = gate.upstream.take();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line, "GET /api/v1/projects/team-a/dashboards/d");
    let mut names: Vec<&str> = seen[0].headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "host", "user-agent"]);

    gate.upstream.answers("GET /api/v1/projects/team-a", 200, "{}");
    gate.upstream.answers("POST /api/v1/projects/team-a/dashboards", 200, "{}");
    let body = json!({ "metadata": { "name": "N", "project": "Team-A" }, "spec": { "panels": {} } });
    let answer = gate.http.json("POST", &format!("{}/api/v1/dashboards", gate.url), &ada, &body).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = gate.upstream.take();
    assert_eq!(seen.last().unwrap().line, "POST /api/v1/projects/team-a/dashboards");
    let sent: serde_json::Value = serde_json::from_str(&seen.last().unwrap().body).unwrap();
    assert_eq!(
        sent,
        json!({ "kind": "Dashboard", "metadata": { "name": "n", "project": "team-a" }, "spec": { "panels": {} } })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_go_to_the_backend_confined_and_with_our_own_headers() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    assert_eq!(gate.query(&ada, "up{job='x'}").await.status, 200);
    let seen = gate.upstream.take();
    let asked = seen.last().unwrap();
    assert_eq!(asked.line, "POST /api/v1/query");
    assert_eq!(asked.body, "query=up%7Bnamespace%3D~%22team-a%7Cteam-b%22%2Cjob%3D%22x%22%7D");
    assert!(!asked.headers.contains_key("authorization") && !asked.headers.contains_key("cookie"));
    // The project in the path decides about the datasource, not about the series.
    let url = format!("{}/proxy/projects/team-a/datasources/p/api/v1/query", gate.url);
    let answer = gate.http.form(&url, &ada, &[("query", "up")]).await.unwrap();
    assert_eq!(answer.headers["cache-status"], "perses-sidecar; fwd=bypass; detail=mode");
    assert!(answer.headers.contains_key("server-timing"));
    assert!(gate.upstream.take().last().unwrap().body.contains("team-a%7Cteam-b"));
    let root = gate.token("root");
    gate.query(&root, "up").await;
    assert_eq!(gate.upstream.take().last().unwrap().body, "query=up", "who may read everything gets no matcher");
    let monitor = gate.token("monitor");
    gate.openshift.cluster().bind_cluster_role("monitor", "view");
    gate.query(&monitor, "up").await;
    assert_eq!(gate.upstream.take().last().unwrap().body, "query=up%7Bnamespace%21%3D%22%22%7D");
    for (path, upstream) in [
        ("labels", "POST /api/v1/labels"),
        ("series?match[]=up", "POST /api/v1/series"),
        ("label/job/values", "GET /api/v1/label/job/values?match%5B%5D=%7Bnamespace%3D~%22team-a%7Cteam-b%22%7D"),
    ] {
        gate.get(&ada, &format!("/proxy/globaldatasources/p/api/v1/{path}")).await;
        let seen = gate.upstream.take();
        let asked = seen.last().unwrap();
        assert_eq!(asked.line, upstream);
        assert!(asked.line.contains("team-a") || asked.body.contains("team-a%7Cteam-b"), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_can_be_narrowed_to_its_project() {
    let gate = gate("access:\n  narrow_to_project: true\n").await;
    let url = format!("{}/proxy/projects/team-a/datasources/p/api/v1/query", gate.url);
    gate.http.form(&url, &gate.token("ada"), &[("query", "up")]).await.unwrap();
    assert_eq!(gate.upstream.take().last().unwrap().body, "query=up%7Bnamespace%3D%22team-a%22%7D");
    let answer = gate.http.form(&url, &gate.token("grace"), &[("query", "up")]).await.unwrap();
    assert_eq!(answer.status, 404, "grace has no right in team-a");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_hold_only_what_the_caller_may_see() {
    let gate = gate("").await;
    let list = r#"[{"metadata":{"name":"a","project":"team-a"},"spec":{"x":1.50}},{"metadata":{"name":"c","project":"team-c"}},
        {"metadata":{"name":"lost"}},{"metadata":{"name":"b","project":"team-b"},"spec":{"actions":[{"url":"x"}]}}]"#;
    gate.upstream.answers("GET /api/v1/dashboards", 200, list);
    let answer = gate.get(&gate.token("ada"), "/api/v1/dashboards").await;
    let text = answer.text();
    assert!(
        text.contains(r#""x":1.50"#) && text.contains("team-b") && !text.contains("team-c") && !text.contains("lost"),
        "{text}"
    );
    assert!(!text.contains("actions"), "{text}");
    assert_eq!(gate.get(&gate.token("eve"), "/api/v1/dashboards").await.text(), "[]");
    // An upstream that answers for another project is not believed.
    gate.upstream.answers("GET /api/v1/projects/team-b/dashboards", 200, list);
    let text = gate.get(&gate.token("grace"), "/api/v1/projects/team-b/dashboards").await.text();
    assert!(text.contains("team-b") && !text.contains("team-a"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_a_project_before_perses_knows_it() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    gate.upstream.answers(
        "GET /api/v1/projects",
        200,
        r#"[{"kind":"Project","metadata":{"name":"team-a"},"spec":{}}]"#,
    );
    let text = gate.get(&ada, "/api/v1/projects").await.text();
    assert!(text.contains("team-a") && text.contains("team-b") && !text.contains("team-c"), "{text}");
    assert_eq!(gate.get(&ada, "/api/v1/projects/team-b").await.json()["metadata"]["name"], "team-b");
    gate.upstream.answers("GET /api/v1/projects/team-b/dashboards", 400, r#"{"message":"no such project"}"#);
    assert_eq!(gate.get(&ada, "/api/v1/projects/team-b/dashboards").await.text(), "[]");
    gate.upstream.take();
    gate.upstream.answers("POST /api/v1/projects", 200, "{}");
    gate.upstream.answers("POST /api/v1/projects/team-b/dashboards", 200, "{}");
    let body = json!({ "metadata": { "name": "n" }, "spec": {} });
    let url = format!("{}/api/v1/projects/team-b/dashboards", gate.url);
    assert_eq!(gate.http.json("POST", &url, &gate.token("grace"), &body).await.unwrap().status, 200);
    let lines = gate.upstream.lines();
    assert_eq!(
        lines,
        ["GET /api/v1/projects/team-b", "POST /api/v1/projects", "POST /api/v1/projects/team-b/dashboards"]
    );
    // Not even an administrator makes a project for a namespace that does not exist.
    let url = format!("{}/api/v1/projects/no-such/dashboards", gate.url);
    assert_eq!(gate.http.json("POST", &url, &gate.token("root"), &body).await.unwrap().status, 404);
    assert_eq!(gate.upstream.lines(), ["GET /api/v1/projects/no-such"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn global_datasources_show_no_address() {
    let gate = gate("").await;
    let list = r#"[{"kind":"GlobalDatasource","metadata":{"name":"p"},"spec":{"plugin":{"kind":"PrometheusDatasource","spec":{"proxy":{"kind":"HTTPProxy","spec":{"url":"http://inside:9090","secret":"s"}}}}}}]"#;
    gate.upstream.answers("GET /api/v1/globaldatasources", 200, list);
    let text = gate.get(&gate.token("ada"), "/api/v1/globaldatasources").await.text();
    assert!(text.contains("\"p\"") && !text.contains("inside") && !text.contains("secret"), "{text}");
    assert!(!gate.get(&gate.token("ada"), "/api/v1/globaldatasources/p").await.text().contains("127.0.0.1"));
    assert_eq!(gate.get(&gate.token("eve"), "/api/v1/globaldatasources").await.text(), "[]");
    assert!(gate.get(&gate.token("root"), "/api/v1/globaldatasources").await.text().contains("inside"));
    let body = json!({ "metadata": { "name": "q" }, "spec": {} });
    let url = format!("{}/api/v1/globalvariables", gate.url);
    assert_eq!(gate.http.json("POST", &url, &gate.token("ada"), &body).await.unwrap().status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_about_oneself_are_answered_here() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    let who = gate.get(&ada, "/-/whoami").await.json();
    assert_eq!(who["user"], "ada");
    assert_eq!(who["metrics"]["namespaces"], json!(["team-a", "team-b"]));
    assert_eq!(gate.get(&ada, "/api/v1/user/whoami").await.json()["metadata"]["name"], "ada");
    let permissions = gate.get(&ada, "/api/v1/users/ada/permissions").await.json();
    let actions = |project: &str, scope: &str| {
        let entry = permissions[project]
            .as_array()
            .and_then(|list| list.iter().find(|entry| entry["scopes"] == json!([scope])));
        entry.map_or(json!(null), |entry| entry["actions"].clone())
    };
    assert_eq!(actions("team-a", "Dashboard"), json!(["read", "create", "update", "delete"]));
    assert_eq!(actions("team-b", "Dashboard"), json!(["read"]));
    assert_eq!(permissions["*"], json!(null));
    assert_eq!(gate.get(&ada, "/api/v1/users/root/permissions").await.status, 403);
    gate.upstream.take();
    gate.upstream.answers(
        "GET /api/config",
        200,
        r#"{"security":{"encryption_key":"k"},"frontend":{"explorer":{"enable":true}}}"#,
    );
    let config = gate.http.send("GET", &format!("{}/api/config", gate.url), &[], "").await.unwrap();
    assert!(config.text().contains("kubernetes") && !config.text().contains("encryption_key"), "{}", config.text());
    let health = gate.http.send("GET", &format!("{}/api/v1/health", gate.url), &[], "").await.unwrap();
    assert_eq!(health.json()["database"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_accounted_for() {
    let gate = gate("").await;
    let (ada, eve) = (gate.token("ada"), gate.token("eve"));
    gate.get(&ada, "/api/v1/projects/team-a/dashboards/d").await;
    let refused = gate.get(&eve, "/api/v1/projects/team-a/dashboards/d").await;
    let metrics = gate.http.send("GET", &format!("{}/metrics", gate.admin), &[], "").await.unwrap().text();
    assert!(metrics.contains(r#"perses_sidecar_refusals_total{reason="hidden"} 1"#), "{metrics}");
    assert!(
        metrics.contains(r#"perses_sidecar_requests_total{route="dashboards",method="GET",code="404"} 2"#),
        "{metrics}"
    );
    let id = refused.headers["x-request-id"].to_str().unwrap().to_owned();
    let mut lines = String::new();
    for _ in 0..50 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        lines = std::fs::read_to_string(&gate.audit).unwrap_or_default();
        if lines.contains(&id) {
            break;
        }
    }
    let record: serde_json::Value =
        serde_json::from_str(lines.lines().find(|line| line.contains(&id)).unwrap()).unwrap();
    assert_eq!(
        (&record["who"]["name"], &record["verdict"], &record["reason"]),
        (&json!("eve"), &json!("refused"), &json!("hidden"))
    );
    assert_eq!(
        (&record["namespace"], &record["name"], &record["verb"]),
        (&json!("team-a"), &json!("d"), &json!("get"))
    );
    assert!(!lines.contains(&eve) && !lines.contains(&ada), "no token is written");
    // What only a body names is written as well, also when it is refused.
    let body = json!({ "metadata": { "name": "theirs", "project": "team-c" }, "spec": {} });
    gate.http.json("POST", &format!("{}/api/v1/dashboards", gate.url), &ada, &body).await.unwrap();
    for _ in 0..50 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        lines = std::fs::read_to_string(&gate.audit).unwrap_or_default();
        if lines.contains("team-c") {
            break;
        }
    }
    assert!(
        lines.contains(
            r#""verb":"create","resource":"dashboards","namespace":"team-c","name":"theirs","verdict":"refused""#
        ),
        "{lines}"
    );
}
