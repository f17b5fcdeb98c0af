//! Every route of Perses and every question to a backend: for each one caller who gets through and the neighbours who
//! do not.

use perses_sidecar_stack::servers;
use perses_sidecar_stack::world::{dashboard, datasource_spec};
use serde_json::{Value, json};

use crate::stage::Stage;

/// Where the versions of Perses differ in what a client sees: what, then in the order of [`servers::PERSES`].
const DIFFERENCES: [(&str, [&str; 2]); 2] = [
    ("folder spec", [r#"{"items":[]}"#, r#"[{"kind":"Dashboard","name":"overview"}]"#]),
    ("plugin file", ["/plugins/Table~0.13.0/mf-manifest.json", "/plugins/Table/mf-manifest.json"]),
];

/// What a version shows.
pub(crate) fn difference(what: &str, version: &str) -> &'static str {
    let column = servers::PERSES.iter().position(|known| *known == version).unwrap();
    DIFFERENCES.iter().find(|(known, _)| *known == what).unwrap().1[column]
}

/// Who, method, path, body, status. Steps build on one another.
type Step = (&'static str, &'static str, String, Option<Value>, u16);

fn step(who: &'static str, method: &'static str, path: &str, body: Option<&Value>, status: u16) -> Step {
    (who, method, path.to_owned(), body.cloned(), status)
}

pub(crate) fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// The life of an object in team-a: ada's, and nobody else's.
fn life(segment: &str, kind: &str, spec: Value) -> Vec<Step> {
    let list = format!("/api/v1/projects/team-a/{segment}");
    let one = format!("{list}/x1");
    let body = object(kind, "x1", spec);
    let body = Some(&body);
    vec![
        step("nobody", "GET", &list, None, 401),
        step("nobody", "POST", &list, body, 401),
        step("eve", "POST", &list, body, 404),
        step("grace", "POST", &list, body, 404),
        step("ada", "POST", &list, body, 200),
        step("ada", "POST", &list, body, 409),
        step("ada", "GET", &list, None, 200),
        step("grace", "GET", &list, None, 404),
        step("ada", "GET", &one, None, 200),
        step("grace", "GET", &one, None, 404),
        step("eve", "GET", &one, None, 404),
        step("ada", "GET", &format!("/api/v1/{segment}"), None, 200),
        step("ada", "PUT", &one, body, 200),
        step("grace", "PUT", &one, body, 404),
        step("grace", "DELETE", &one, None, 404),
        step("eve", "DELETE", &one, None, 404),
        step("ada", "DELETE", &one, None, 204),
        step("ada", "GET", &one, None, 404),
    ]
}

/// The life of a global object: root's; others look or do not.
fn global_life(segment: &str, body: &Value) -> Vec<Step> {
    let list = format!("/api/v1/{segment}");
    let one = format!("{list}/g1");
    let body = Some(body);
    let reads = if segment == "globalsecrets" { 404 } else { 200 };
    vec![
        step("nobody", "GET", &list, None, 401),
        step("ada", "POST", &list, body, 403),
        step("root", "POST", &list, body, 200),
        step("ada", "GET", &list, None, 200),
        step("eve", "GET", &list, None, 200),
        step("ada", "GET", &one, None, reads),
        step("eve", "GET", &one, None, 404),
        step("ada", "PUT", &one, body, 403),
        step("root", "PUT", &one, body, 200),
        step("ada", "DELETE", &one, None, 403),
        step("root", "DELETE", &one, None, 204),
    ]
}

pub(crate) async fn every_route(stage: &Stage, version: &str) {
    let plugin_file = difference("plugin file", version);
    let url = stage.world.prometheus_url.clone();
    let dash = dashboard("x1", "up")["spec"].clone();
    let mut ephemeral = dash.clone();
    ephemeral["ttl"] = json!("1h");
    let text = json!({ "kind": "TextVariable", "spec": { "name": "x1", "value": "1" } });
    let basic = json!({ "basicAuth": { "username": "u", "password": "p" } });
    let mut steps = life("dashboards", "Dashboard", dash.clone());
    steps.extend(life("datasources", "Datasource", datasource_spec(&url, false)));
    let folder = serde_json::from_str(difference("folder spec", version)).unwrap();
    steps.extend(life("folders", "Folder", folder));
    steps.extend(life("variables", "Variable", text.clone()));
    steps.extend(life("secrets", "Secret", basic.clone()));
    steps.extend(life("ephemeraldashboards", "EphemeralDashboard", ephemeral));
    steps.extend(global_life("globalvariables", &object("GlobalVariable", "g1", text)));
    steps.extend(global_life("globaldatasources", &object("GlobalDatasource", "g1", datasource_spec(&url, false))));
    steps.extend(global_life("globalsecrets", &object("GlobalSecret", "g1", basic)));
    let project = |name: &str| object("Project", name, json!({ "display": { "name": "x" } }));
    let view = json!({ "project": "team-a", "dashboard": "Overview", "render_time": 1.5, "render_errors": 0 });
    let valid = json!({ "kind": "Dashboard", "metadata": { "name": "v", "project": "team-a" }, "spec": dash });
    let (team_b, team_c, none) = (project("team-b"), project("team-c"), project("no-such"));
    let elsewhere = object("Datasource", "bad", datasource_spec("http://127.0.0.1:1", false));
    let empty = json!({});
    steps.extend([
        step("nobody", "GET", "/api/v1/projects", None, 401),
        step("ada", "GET", "/api/v1/projects/team-a", None, 200),
        step("grace", "GET", "/api/v1/projects/team-a", None, 404),
        step("root", "GET", "/api/v1/projects/team-c", None, 200),
        step("root", "GET", "/api/v1/projects/no-such", None, 404),
        step("ada", "POST", "/api/v1/projects", Some(&team_c), 404),
        step("root", "POST", "/api/v1/projects", Some(&team_c), 200),
        step("root", "POST", "/api/v1/projects", Some(&none), 403),
        step("root", "PUT", "/api/v1/projects/team-c", Some(&team_c), 200),
        step("ada", "PUT", "/api/v1/projects/team-b", Some(&team_b), 403),
        step("ada", "DELETE", "/api/v1/projects/team-b", None, 403),
        step("eve", "DELETE", "/api/v1/projects/team-b", None, 404),
        step("root", "DELETE", "/api/v1/projects/team-c", None, 204),
        step("ada", "POST", "/api/v1/view", Some(&view), 200),
        step("grace", "POST", "/api/v1/view", Some(&view), 404),
        step("ada", "POST", "/api/validate/dashboards", Some(&valid), 200),
        step("grace", "POST", "/api/validate/dashboards", Some(&valid), 404),
        step("eve", "POST", "/api/migrate", Some(&empty), 403),
        step("nobody", "POST", "/api/migrate", Some(&empty), 401),
        step("ada", "GET", "/api/v1/plugins", None, 200),
        step("nobody", "GET", "/api/v1/plugins", None, 401),
        step("ada", "GET", plugin_file, None, 200),
        step("nobody", "GET", plugin_file, None, 401),
        step("nobody", "GET", "/api/config", None, 200),
        step("nobody", "GET", "/api/v1/health", None, 200),
        step("nobody", "GET", "/-/ready", None, 200),
        step("nobody", "GET", "/metrics", None, 401),
        step("ada", "GET", "/metrics", None, 403),
        step("root", "GET", "/metrics", None, 200),
        step("root", "GET", "/api/v1/users", None, 403),
        step("root", "GET", "/api/v1/projects/team-a/roles", None, 404),
        step("root", "POST", "/api/v1/projects/team-a/datasources", Some(&elsewhere), 403),
    ]);
    for (who, method, path, body, expected) in steps {
        let answer = stage.send(who, method, &path, body.as_ref()).await;
        assert_eq!(answer.status, expected, "{who} {method} {path}: {}", answer.text());
    }
}

pub(crate) async fn every_question_to_a_backend(stage: &Stage) {
    let base = "/proxy/globaldatasources/prometheus";
    let sum = "sum by (namespace) (vllm:num_requests_running)";
    for (path, pairs) in [
        ("query", vec![("query", "vllm:num_requests_running")]),
        ("query_range", vec![("query", sum), ("start", "1700000000"), ("end", "1700003600"), ("step", "60")]),
        ("query_exemplars", vec![("query", "vllm:num_requests_running")]),
        ("series", vec![("match[]", "vllm:num_requests_running")]),
        ("labels", vec![]),
        ("parse_query", vec![("query", "sum(up)")]),
        ("format_query", vec![("query", "sum(up)")]),
    ] {
        let path = format!("{base}/api/v1/{path}");
        let answer = stage.form("grace", &path, &pairs).await;
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("success")), "{path}: {}", answer.text());
        assert!(!answer.text().contains("team-a"), "{path}: {}", answer.text());
        assert_eq!(stage.form("eve", &path, &pairs).await.status, 403, "{path}");
        assert_eq!(stage.send("nobody", "POST", &path, None).await.status, 401);
    }
    let values =
        async |who| stage.send(who, "GET", &format!("{base}/api/v1/label/namespace/values"), None).await.json();
    assert_eq!(values("grace").await["data"], json!(["team-b"]));
    assert_eq!(values("ada").await["data"], json!(["team-a", "team-b"]));
    let get = async |who, path: &str| stage.send(who, "GET", &format!("{base}{path}"), None).await;
    assert_eq!(get("grace", "/api/v1/metadata").await.json()["status"], "success");
    assert_eq!(get("grace", "/api/v1/status/buildinfo").await.status, 200);
    assert_eq!(get("grace", "/api/v1/status/flags").await.text(), r#"{"status":"success","data":{}}"#);
    for (path, empty) in [("rules", json!({ "groups": [] })), ("alerts", json!({ "alerts": [] }))] {
        let answer = get("grace", &format!("/api/v1/{path}")).await;
        assert_eq!((answer.status, &answer.json()["data"]), (200, &empty), "{path}: {}", answer.text());
        assert_eq!(get("eve", &format!("/api/v1/{path}")).await.status, 403, "{path}");
    }
    assert_eq!(get("grace", "/-/healthy").await.status, 200);
    for closed in ["alertmanagers", "targets", "status/config", "status/tsdb", "notifications"] {
        assert_eq!(get("root", &format!("/api/v1/{closed}")).await.status, 403, "{closed}");
    }
    // Datasources of a project, one that points elsewhere, and one inside a dashboard.
    let own = "/proxy/projects/team-a/datasources/own/api/v1/query";
    assert_eq!(stage.form("ada", own, &[("query", "up")]).await.status, 200);
    assert_eq!(stage.form("grace", own, &[("query", "up")]).await.status, 404);
    let foreign = "/proxy/projects/team-a/datasources/foreign/api/v1/query";
    assert_eq!(stage.form("ada", foreign, &[("query", "up")]).await.status, 403);
    let datasources = json!({ "Mine": datasource_spec(&stage.world.prometheus_url, false) });
    let spec = json!({ "duration": "1h", "panels": {}, "layouts": [], "datasources": datasources });
    let local = object("Dashboard", "local", spec);
    let answer = stage.send("ada", "POST", "/api/v1/projects/team-a/dashboards", Some(&local)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let path = "/proxy/projects/team-a/dashboards/local/datasources/Mine/api/v1/query";
    assert_eq!(stage.form("ada", path, &[("query", "up")]).await.status, 200);
    assert_eq!(stage.form("grace", path, &[("query", "up")]).await.status, 404);
}
