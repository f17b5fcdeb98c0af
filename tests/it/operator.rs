//! What somebody sees who runs it: messages of a start that fails, what readiness says of a changed file, and signals.

use std::process::Command;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Gate, Mode, More, Process, gate, stage};

/// Waits until readiness says so.
async fn ready_says(gate: &Gate, words: &str) {
    let mut text = String::new();
    for _ in 0..200 {
        let ready = gate.http.send("GET", &format!("{}/readyz", gate.admin), &[], "").await.unwrap();
        text = ready.text();
        if text.contains(words) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{words:?} does not come: {text}");
}

/// A line of the metrics.
async fn metric(gate: &Gate, name: &str) -> String {
    let metrics = gate.http.send("GET", &format!("{}/metrics", gate.admin), &[], "").await.unwrap();
    let line = metrics.text().lines().find(|line| line.starts_with(name)).map(str::to_owned);
    line.unwrap_or_else(|| panic!("no {name}")).trim_start_matches(name).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_names_the_setting_and_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (ports, rest, words) in [
        ([port, 0], "", "listen.gateway: 127.0.0.1:"),
        ([0, port], "", "listen.admin: 127.0.0.1:"),
        ([0, 0], "/nowhere/audit.log", "audit.file: /nowhere/audit.log cannot be opened"),
    ] {
        let stage = stage(More::default(), ports).await;
        if !rest.is_empty() {
            let text = std::fs::read_to_string(&stage.config).unwrap();
            std::fs::write(&stage.config, text.replace(&stage.audit.display().to_string(), rest)).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_perses-sidecar"));
        command.args(["run", "--config"]).arg(&stage.config);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains(words), "{text}");
        assert!(!rest.is_empty() || text.contains("choose another port"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_a_wrong_file_from_one_that_needs_a_restart() {
    let gate = gate("").await;
    ready_says(&gate, "config ok: in use\n").await;
    let good = std::fs::read_to_string(&gate.config).unwrap();
    std::fs::write(&gate.config, good.replace("admin: 127.0.0.1:0", "admin: 127.0.0.1:1")).unwrap();
    ready_says(&gate, "config ok: in use, but listen and perses as they were at the start: restart\n").await;
    assert_eq!(metric(&gate, "perses_sidecar_config_last_reload_successful").await, "1");
    std::fs::remove_file(&gate.config).unwrap();
    ready_says(&gate, "config ok: the last good one is in use; the file is wrong: 1:1: cannot be read").await;
    assert_eq!(metric(&gate, "perses_sidecar_config_last_reload_successful").await, "0");
    std::fs::write(&gate.config, &good).unwrap();
    ready_says(&gate, "config ok: in use\n").await;
    assert_eq!(metric(&gate, "perses_sidecar_config_last_reload_successful").await, "1");
    // What can be read and not be put in place is told once, and tried until it can.
    let folder = gate.audit.with_file_name("later");
    let moved = good.replace(&gate.audit.display().to_string(), &folder.join("audit.log").display().to_string());
    std::fs::write(&gate.config, moved).unwrap();
    ready_says(&gate, "the file is wrong: audit.file: ").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(metric(&gate, "perses_sidecar_config_reloads_total{outcome=\"bad\"}").await, "2");
    std::fs::create_dir(&folder).unwrap();
    ready_says(&gate, "config ok: in use\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_perses_change_without_a_restart() {
    let gate = gate("limits:\n  perses_timeout: 20s\n").await;
    let ada = gate.token("ada");
    assert_eq!(gate.get(&ada, "/api/v1/projects/team-a").await.status, 200);
    let good = std::fs::read_to_string(&gate.config).unwrap();
    std::fs::write(&gate.config, good.replace("perses_timeout: 20s", "perses_timeout: 1s")).unwrap();
    for _ in 0..200 {
        if metric(&gate, "perses_sidecar_config_reloads_total{outcome=\"good\"}").await == "1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gate.taps.perses.set(Mode::Silent).await;
    let answer = tokio::time::timeout(Duration::from_secs(8), gate.get(&ada, "/api/v1/projects/team-a")).await;
    assert_eq!(answer.expect("the new limit").status, 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_ends_nothing_and_a_second_signal_ends_at_once() {
    let mut process = Process::start("info", More::default(), &[]).await;
    let send = |process: &Process, signal: &str| {
        let id = process.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    };
    send(&process, "-HUP");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(process.ask(&process.ada).await, 200, "{}", process.log());
    // Something has begun that takes its time.
    process.stage.taps.prometheus.set(Mode::Silent).await;
    let mut socket = TcpStream::connect(&process.address).await.unwrap();
    let head = format!(
        "GET /proxy/globaldatasources/p/api/v1/query?query=up HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        process.ada
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    send(&process, "-TERM");
    assert_eq!(process.ended(Duration::from_secs(1)).await, None, "it waits for what has begun");
    send(&process, "-TERM");
    assert_eq!(process.ended(Duration::from_secs(10)).await, Some(1), "{}", process.log());
    assert!(process.log().contains("asked twice to stop"), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_no_http_are_counted_too() {
    let gate = gate("").await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "a".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(101));
    for (bytes, code) in [("nonsense\r\n\r\n", "400"), (&long, "431"), (&many, "431")] {
        let answer = gate.raw(bytes.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
    }
    assert_eq!(metric(&gate, "perses_sidecar_refusals_total{reason=\"malformed_head\"}").await, "1");
    assert_eq!(metric(&gate, "perses_sidecar_refusals_total{reason=\"head_too_large\"}").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_namespaces_do_not_lock_out_whoever_may_see_them_all() {
    let gate = gate("limits:\n  namespaces: 1\n").await;
    for number in 0..1000 {
        gate.openshift.cluster().add_namespace(&format!("many-{number}"));
    }
    let (root, ada) = (gate.token("root"), gate.token("ada"));
    assert_eq!(gate.query(&root, "up").await.status, 200);
    gate.upstream.answers("GET /api/v1/projects", 200, "[]");
    let projects = gate.get(&root, "/api/v1/projects").await;
    assert_eq!((projects.status, projects.text().matches("\"many-").count()), (200, 1000));
    assert_eq!(gate.query(&ada, "up").await.status, 503, "two namespaces, each to be reviewed");
}

/// Perses at another address of this machine: kubelet's word for it is the pod's.
#[tokio::test(flavor = "multi_thread")]
async fn a_perses_that_others_reach_makes_the_sidecar_unready() {
    let process = Process::start("info", More::default(), &["env", "PERSES_SIDECAR_POD_IPS=127.0.0.1,127.0.0.2"]).await;
    let text = std::fs::read_to_string(&process.stage.config).unwrap();
    let admin = text.lines().find_map(|line| line.trim().strip_prefix("admin: ")).unwrap();
    let ask = async |path: &str| {
        let answer = process.http.send("GET", &format!("http://{admin}{path}"), &[], "").await.unwrap();
        (answer.status, answer.text())
    };
    let exposed = async || ask("/metrics").await.1.contains("perses_sidecar_upstream_exposed 1\n");
    let (status, said) = ask("/readyz").await;
    assert!(status == 200 && said.contains("exposure ok: on the loopback alone"), "{said}");
    assert!(!exposed().await);
    let listener = tokio::net::TcpListener::bind(("127.0.0.2", process.stage.perses)).await.unwrap();
    let (status, said) = ask("/readyz").await;
    assert!(status == 503 && said.contains("exposure failed: Perses answers on the pod's own address"), "{said}");
    assert!(said.contains("must listen on 127.0.0.1") && exposed().await, "{said}");
    assert_eq!(ask("/healthz").await.0, 200, "a restart would change nothing");
    assert!(process.log().contains("anybody reaches it past the sidecar"), "{}", process.log());
    drop(listener);
    assert_eq!(ask("/readyz").await.0, 200);
    assert!(!exposed().await);
}

/// The Perses operator as it comes: its client is Go's, and has no name of its own.
const GO: (&str, &str) = ("user-agent", "Go-http-client/1.1");

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_without_a_credential_is_counted_and_nobody_else() {
    let gate = gate("").await;
    let counted = async || metric(&gate, "perses_sidecar_operator_locked_out_total").await;
    let (ada, wrong) = (format!("Bearer {}", gate.token("ada")), "Bearer sha256~nobody");
    gate.upstream.answers("GET /api/v1/projects", 200, "[]");
    let asks = async |path: &str, headers: &[(&str, &str)], status: u16| {
        let answer = gate.http.send("GET", &format!("{}{path}", gate.url), headers, "").await.unwrap();
        assert_eq!(answer.status, status, "{path} {headers:?}: {}", answer.text());
    };
    // Somebody with another client, with a token, right or wrong, or who wants nothing of Perses' objects.
    asks("/api/v1/projects", &[("user-agent", "curl/8")], 401).await;
    asks("/api/v1/projects", &[], 401).await;
    asks("/api/v1/projects", &[GO, ("authorization", &ada)], 200).await;
    asks("/api/v1/projects", &[GO, ("authorization", wrong)], 401).await;
    asks("/-/whoami", &[GO], 401).await;
    asks("/api/v1/health", &[GO], 200).await;
    assert_eq!(counted().await, "0");
    asks("/api/v1/projects", &[GO], 401).await;
    assert_eq!(counted().await, "1");
    asks("/api/v1/projects/team-a/dashboards/d", &[GO], 401).await;
    assert_eq!(counted().await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_without_a_credential_is_spoken_of_ever_more_rarely() {
    let process = Process::start("info", More::default(), &[]).await;
    let url = format!("http://{}/api/v1/projects", process.address);
    for _ in 0..9 {
        assert_eq!(process.http.send("GET", &url, &[GO], "").await.unwrap().status, 401);
    }
    let log = process.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("Perses operator sends no credential")).collect();
    assert_eq!(lines.len(), 4, "at 1, 2, 4 and 8: {log}");
    let said: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert!(lines[0].contains("spec.client.kubernetesAuth.enable: true") && lines[0].contains("127.0.0.1"), "{said}");
}
