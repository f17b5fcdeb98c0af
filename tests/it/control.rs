//! The control listener of a running gateway, and the command that asks it.

use std::process::Command;
use std::time::Duration;

use crate::support::{Gate, More, gate, gate_with, speak};

/// Exit code, standard output and error of `ctl`.
async fn ctl(place: &str, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perses-sidecar"));
    command.env_remove("PERSES_SIDECAR_CONTROL").args(["ctl", "--control", place]).args(words);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn place(gate: &Gate) -> String {
    gate.control.unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_told_and_no_secret() {
    let gate = gate("limits:\n  connections: 321\n").await;
    let (code, yaml, _) = ctl(&place(&gate), &["config"]).await;
    assert!(code == 0 && yaml.starts_with("# perses-sidecar 0.") && yaml.contains("  connections: 321\n"), "{yaml}");
    let token = std::fs::read_to_string(gate.openshift.token_file()).unwrap();
    assert!(!yaml.contains(token.trim()), "our own credential");
    let (code, json, _) = ctl(&place(&gate), &["config", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["settings"]["limits"]["connections"], &json["problem"]), (0, &321.into(), &"".into()));
    // What the command prints can be given back to `check`, and a reload shows at once.
    let good = std::fs::read_to_string(&gate.config).unwrap();
    std::fs::write(&gate.config, &yaml).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_perses-sidecar"));
    check.args(["check", "--config"]).arg(&gate.config);
    assert!(check.output().unwrap().status.success(), "{yaml}");
    for (text, words) in [
        (good.replace("connections: 321", "connections: 322"), "  connections: 322\n"),
        (good.replace("connections: 321", "conections: 9"), "did you mean \"connections\"?\n"),
    ] {
        std::fs::write(&gate.config, text).unwrap();
        let mut shown = String::new();
        for _ in 0..100 {
            shown = ctl(&place(&gate), &["config"]).await.1;
            if shown.contains(words) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(shown.contains(words) && shown.contains("connections: 322"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_learns_nothing() {
    let gate = gate("").await;
    for (head, code) in [
        ("GET /config HTTP/1.1\nHost: localhost\n\n", 200),
        ("GET /config HTTP/1.1\nHost: rebound.example\n\n", 403),
        ("GET /config HTTP/1.1\nHost: localhost\nOrigin: http://localhost:9901\n\n", 403),
        ("GET /config HTTP/1.1\nHost: localhost\nSec-Fetch-Site: cross-site\n\n", 403),
        ("GET http://rebound.example/config HTTP/1.1\nHost: localhost\n\n", 403),
        ("GET /config HTTP/1.0\n\n", 403),
        ("GET /metrics HTTP/1.1\nHost: localhost\n\n", 404),
        ("POST /config HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n", 405),
    ] {
        let heard = speak(&place(&gate), &crate::support::wire(head)).await;
        assert_eq!(heard.codes(), [code], "{head}");
        assert_eq!(heard.text.contains("settings"), code == 200, "{head}");
    }
    // And the other doors do not know it.
    for url in [&gate.url, &gate.admin] {
        let answer = gate.http.get(&format!("{url}/config"), &gate.token("root")).await.unwrap();
        assert!(!answer.text().contains("metrics_backends"), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_in_the_file_system_serves_as_well() {
    let gate = gate_with(More { listen: "  control: unix:FOLDER/control\n", ..More::default() }).await;
    let path = gate.config.with_file_name("control");
    let (code, yaml, error) = ctl(&format!("unix:{}", path.display()), &["config"]).await;
    assert!(code == 0 && yaml.contains("control: unix:/"), "{yaml} {error}");
    assert!(gate.control.is_none());
    drop(gate);
    for (place, code, words) in [
        ("unix:/nowhere/control", 1, "unix:/nowhere/control: cannot be reached"),
        ("127.0.0.1:1", 1, "name the sidecar's listen.control by --control or PERSES_SIDECAR_CONTROL"),
        ("10.0.0.1:9901", 2, "can be reached from elsewhere"),
        ("control", 2, "expected 127.0.0.1:9901"),
    ] {
        let (exit, _, error) = ctl(place, &["config"]).await;
        assert!(exit == code && error.contains(words) && error.lines().count() == 1, "{place}: {exit} {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_what_is_kept_and_makes_it_go() {
    let gate = gate("cache:\n  mode: enforce\n").await;
    let ada = gate.token("ada");
    for _ in 0..3 {
        assert_eq!(gate.query(&ada, "vector(1)").await.status, 200);
    }
    let (code, json, _) = ctl(&place(&gate), &["stats", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["entries"], &json["requests"]["instant"]["hit"]), (0, &1.into(), &2.into()), "{json}");
    let (_, text, _) = ctl(&place(&gate), &["stats"]).await;
    assert!(text.contains("entries   1\n") && text.contains("instant     3    2"), "{text}");
    let asked = || gate.upstream.lines().iter().filter(|line| line.contains("/api/v1/query")).count();
    asked();
    // Only what fits goes.
    for (words, entries) in [
        (&["--backend", "other"][..], 0),
        (&["--metric", "up", "--namespace", "team-c"], 0),
        (&["--backend", "p"], 1),
        (&["--all"], 1),
    ] {
        let (code, text, error) = ctl(&place(&gate), &[&["purge"], words].concat()).await;
        assert_eq!((code, text), (0, format!("{entries} entries went, or lost a part\n")), "{words:?} {error}");
        assert_eq!(gate.query(&ada, "vector(1)").await.status, 200);
        assert_eq!(asked(), entries, "{words:?}");
    }
    for (words, message) in [
        (&["purge"][..], "purge: say what"),
        (&["purge", "--from", "yesterday"], "--from: expected seconds since 1970"),
        (&["purge", "--from", "1h", "--to", "2h"], "--from is after --to"),
        (&["purge", "--all", "--backend", "p"], "cannot be used with"),
    ] {
        let (code, _, error) = ctl(&place(&gate), words).await;
        assert!(code == 2 && error.contains(message), "{words:?}: {error}");
    }
    for (body, code) in [("", 400), ("{\"bakend\":\"p\"}", 400), ("[]", 400), ("{}", 200)] {
        let head = format!(
            "POST /cache/purge HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: {}\n\n{body}",
            body.len()
        );
        assert_eq!(speak(&place(&gate), &crate::support::wire(&head)).await.codes(), [code], "{body}");
    }
    let form = "POST /cache/purge HTTP/1.1\nHost: localhost\nContent-Type: text/plain\nContent-Length: 2\n\n{}";
    assert_eq!(speak(&place(&gate), &crate::support::wire(form)).await.codes(), [415], "as a page can send it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_told_how_a_query_is_kept_and_under_which_override() {
    let overrides = "cache:\n  mode: enforce\n  overrides:\n    - {namespaces: [team-a], range: {settle: 5m}}\n    \
         - {backends: [p], instant: {fresh: 3s}}\n";
    let gate = gate(overrides).await;
    let ada = gate.token("ada");
    assert_eq!(gate.query(&ada, "vector(1)").await.status, 200);
    let place = place(&gate);
    let explain = async |words: &[&str]| ctl(&place, &[&["explain"], words].concat()).await;
    let (code, text, error) = explain(&["up", "--namespace", "team-b", "--namespace", "team-a"]).await;
    assert_eq!(code, 0, "{error}");
    for line in [
        "backend   p\n",
        "sent      up{namespace=~\"team-a|team-b\"}\n",
        "kept      by its points",
        "instant   3s while it may change, 1h when",
        "settles   a point no longer changes after 5m\n",
        "overrides cache.overrides[0], cache.overrides[1]\n",
        "Nothing is kept of it at the moment.\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // The query's own literal leaves team-b: the first has no say.
    let (_, text, _) = explain(&["up{namespace=\"team-b\"}", "--namespace", "team-a", "--namespace", "team-b"]).await;
    assert!(text.contains("after 1m\n") && text.contains("overrides cache.overrides[1]\n"), "{text}");
    let (_, json, _) = explain(&["vector(1)", "--namespace", "team-a", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["entries"][0]["what"], "answer", "what was asked before: {json}");
    assert_eq!(json["settles_after_ms"], 60_000, "it reads nothing");
    let (_, config, _) = ctl(&place, &["config"]).await;
    assert!(config.contains("namespaces: [\"team-a\"]") && config.contains("settle: 5m"), "{config}");
    for (words, message) in [
        (&["up", "--backend", "q"][..], "name one backend of: p"),
        (&["up{", "--backend", "p"], "invalid PromQL"),
        (&["up", "--namespace", "A"], "is no namespace"),
    ] {
        let (code, _, error) = explain(words).await;
        assert!(code == 1 && error.contains(message), "{words:?}: {error}");
    }
}
