//! The sidecar's own binary in front of real Perses and real Prometheus: for every route one caller who gets through and
//! the neighbours who do not, what it costs at rest, and every command of the README.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use perses_sidecar_stack::http::{Answer, Http};
use perses_sidecar_stack::servers::{self, Server};
use perses_sidecar_stack::tour;
use perses_sidecar_stack::world::{Options, World, dashboard, datasource_spec};
use serde_json::{Value, json};

/// `SIDECAR` names the binary; `tests/run` builds it in release mode.
fn binary() -> PathBuf {
    let built = || servers::checkout().join("target/release/perses-sidecar");
    let path = std::env::var_os("SIDECAR").map_or_else(built, PathBuf::from);
    assert!(path.exists(), "{} is missing: cargo build --release --bin perses-sidecar", path.display());
    path
}

struct Stage {
    world: World,
    sidecar: Server,
    http: Http,
}

async fn stage(quick: bool) -> Stage {
    let options = Options { quick, ..Options::default() };
    let world = World::start(&options, &|line| eprintln!("{line}")).await.unwrap();
    let sidecar = world.start_sidecar(&binary()).await.unwrap();
    Stage { world, sidecar, http: Http::default() }
}

impl Stage {
    async fn send(&self, who: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let url = format!("{}{path}", self.world.gateway());
        let authorization = format!("Bearer {}", self.world.token(who));
        let mut headers = vec![("authorization", authorization.as_str())];
        if who == "nobody" {
            headers.clear();
        }
        let text = body.map(ToString::to_string).unwrap_or_default();
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        self.http.send(method, &url, &headers, &text).await.unwrap()
    }

    async fn form(&self, who: &str, path: &str, pairs: &[(&str, &str)]) -> Answer {
        self.http.form(&format!("{}{path}", self.world.gateway()), self.world.token(who), pairs).await.unwrap()
    }
}

/// Who, method, path, body, status. Steps build on one another.
type Step = (&'static str, &'static str, String, Option<Value>, u16);

fn step(who: &'static str, method: &'static str, path: &str, body: Option<&Value>, status: u16) -> Step {
    (who, method, path.to_owned(), body.cloned(), status)
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
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

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_perses() {
    let stage = stage(false).await;
    let url = stage.world.prometheus_url.clone();
    let dash = dashboard("x1", "up")["spec"].clone();
    let mut ephemeral = dash.clone();
    ephemeral["ttl"] = json!("1h");
    let text = json!({ "kind": "TextVariable", "spec": { "name": "x1", "value": "1" } });
    let basic = json!({ "basicAuth": { "username": "u", "password": "p" } });
    let mut steps = life("dashboards", "Dashboard", dash.clone());
    steps.extend(life("datasources", "Datasource", datasource_spec(&url, false)));
    steps.extend(life("folders", "Folder", json!({ "items": [] })));
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
        step("ada", "GET", "/plugins/Table~0.13.0/mf-manifest.json", None, 200),
        step("nobody", "GET", "/plugins/Table~0.13.0/mf-manifest.json", None, 401),
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

#[tokio::test(flavor = "multi_thread")]
async fn every_question_to_a_backend() {
    let stage = stage(false).await;
    let base = "/proxy/globaldatasources/prometheus";
    let sum = "sum by (namespace) (vllm:num_requests_running)";
    for (path, pairs) in [
        ("query", vec![("query", "vllm:num_requests_running")]),
        ("query_range", vec![("query", sum), ("start", "1700000000"), ("end", "1700003600"), ("step", "60")]),
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
    assert_eq!(get("grace", "/-/healthy").await.status, 200);
    for closed in ["rules", "alerts", "targets", "status/config", "status/tsdb", "query_exemplars?query=up"] {
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

#[tokio::test(flavor = "multi_thread")]
async fn what_it_costs_at_rest_and_what_is_in_it() {
    let bytes = fs::read(binary()).unwrap();
    eprintln!("binary: {} KiB", bytes.len() >> 10);
    assert!(bytes.len() <= 20_000_000, "{} bytes", bytes.len());
    for word in ["/-/stand-in", "cluster-monitoring-view", "namespace-reader", "vllm:num_requests", "granite-predictor"]
    {
        assert!(
            !bytes.windows(word.len()).any(|window| window == word.as_bytes()),
            "the test stack's {word:?} is in it"
        );
    }
    let stage = stage(false).await;
    let log = stage.sidecar.output();
    eprintln!("{}", log.lines().find(|line| line.contains("Ready")).unwrap());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let resident = stage.sidecar.resident().unwrap();
    eprintln!("resident: {resident} KiB");
    assert!(resident <= 25 * 1024, "{resident} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_as_it_should() {
    let stage = stage(false).await;
    stage.sidecar.signal("TERM");
    for _ in 0..100 {
        if !stage.sidecar.is_running() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!stage.sidecar.is_running());
    assert!(stage.sidecar.output().contains("Stopped"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_and_no_token_in_its_log() {
    let stage = stage(true).await;
    let (passed, failed) = tour::walk(&stage.world, &|line| eprintln!("{line}")).await;
    assert!(failed == 0 && passed >= 25, "{passed} passed, {failed} failed");
    let log = stage.sidecar.output();
    let audit = fs::read_to_string(stage.world.folder.join("audit.log")).unwrap();
    assert!(audit.lines().count() > 5);
    for person in stage.world.people.values() {
        assert!(!log.contains(&person.token) && !audit.contains(&person.token), "a token was written down");
    }
}

/// TLS 1.2 and 1.3, HTTP/1.1 and h2, by curl.
#[tokio::test(flavor = "multi_thread")]
async fn tls_speaks_both_versions_of_both() {
    let stage = stage(false).await;
    let url = format!("https://localhost:{}/api/v1/projects", stage.world.ports[1]);
    for (flags, expected) in [
        (["--http1.1", "--tlsv1.2", "--tls-max", "1.2"], "200 1.1"),
        (["--http1.1", "--tlsv1.3", "--tls-max", "1.3"], "200 1.1"),
        (["--http2", "--tlsv1.2", "--tls-max", "1.2"], "200 2"),
        (["--http2", "--tlsv1.3", "--tls-max", "1.3"], "200 2"),
        (["--http1.1", "--tlsv1.0", "--tls-max", "1.1"], "000 0"),
    ] {
        let output = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--cacert"])
            .arg(&stage.world.ca_file)
            .args(flags)
            .args(["-H", &format!("Authorization: Bearer {}", stage.world.token("ada")), &url])
            .output()
            .unwrap();
        let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(text, expected, "{flags:?}: {error}");
    }
}

/// Every line of shell in the README that asks something is run as it stands.
#[tokio::test(flavor = "multi_thread")]
async fn commands_of_the_readme() {
    let stage = stage(false).await;
    let readme = fs::read_to_string(servers::checkout().join("README.md")).unwrap();
    let mut count = 0;
    for block in readme.split("```").skip(1).step_by(2) {
        let Some(code) = block.strip_prefix("sh\n") else { continue };
        for line in code.lines() {
            let mut shell = Command::new("bash");
            shell.args(["-o", "pipefail", "-ec", line]).current_dir(servers::checkout()).stdin(Stdio::null());
            shell.env("GATEWAY", stage.world.gateway()).env("ADMIN", stage.world.admin());
            for (name, person) in &stage.world.people {
                shell.env(name.to_uppercase(), &person.token);
            }
            let folder = binary().parent().unwrap().to_owned();
            let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
            let output = shell.env("PATH", path).output().unwrap();
            let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && !text.is_empty(), "{line}: {text} {error}");
            assert!(!text.contains("\"status\":\"error\"") && !text.starts_with("{\"message\""), "{line}: {text}");
            count += 1;
        }
    }
    assert!(count >= 12, "{count} commands");
}

/// `percli`, unmodified, for somebody with rights and somebody without.
#[tokio::test(flavor = "multi_thread")]
async fn percli_works_without_knowing_about_us() {
    let stage = stage(false).await;
    let percli = servers::binary("percli", &|line| eprintln!("{line}")).unwrap();
    let run = |who: &str, arguments: &[&str]| {
        let output = Command::new(&percli)
            .args(["--percliconfig", &stage.world.folder.join(format!("percli-{who}.json")).to_string_lossy()])
            .args(arguments)
            .env("HOME", &stage.world.folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    };
    for who in ["ada", "eve"] {
        let (good, text) = run(who, &["login", &stage.world.gateway(), "--token", stage.world.token(who)]);
        assert!(good, "{text}");
    }
    let (good, text) = run("ada", &["get", "dashboard", "--project", "team-a"]);
    assert!(good && text.contains("overview"), "{text}");
    let file = stage.world.folder.join("d.json");
    let mut body = dashboard("bycli", "up");
    body["metadata"]["project"] = json!("team-a");
    fs::write(&file, body.to_string()).unwrap();
    let (good, text) = run("ada", &["apply", "-f", &file.to_string_lossy()]);
    assert!(good, "{text}");
    let (good, text) = run("ada", &["describe", "dashboard", "bycli", "--project", "team-a"]);
    assert!(good && text.contains("bycli"), "{text}");
    let (good, text) = run("eve", &["apply", "-f", &file.to_string_lossy()]);
    assert!(!good, "{text}");
    let (good, text) = run("eve", &["get", "dashboard", "--project", "team-a"]);
    assert!(!good || !text.contains("overview"), "{text}");
    let (good, text) = run("ada", &["delete", "dashboard", "bycli", "--project", "team-a"]);
    assert!(good, "{text}");
}
