//! Each server behind us down, slow, resetting, half open, speaking nonsense: the answer is the contract's, nothing leaks, and
//! when the fault is over the very next request is served, without a storm.

use std::sync::Arc;
use std::time::{Duration, Instant};

use perses_sidecar_stack::http::Answer;
use perses_sidecar_stack::openshift::{Certificates, Endpoint};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Gate, Mode, More, Process, Tap, gate_with};

/// How long the gateway waits for each server.
const PATIENCE: &str = "400ms";

const READ: &str = "/api/v1/projects/team-a/dashboards/d";

async fn start(rest: &str, backend: &str) -> Gate {
    let limits = format!("limits:\n  perses_timeout: {PATIENCE}\n{rest}");
    let (cluster, backend) = (format!("  timeout: {PATIENCE}\n"), format!("    timeout: {PATIENCE}\n{backend}"));
    let gate = gate_with(More { cluster: &cluster, backend: &backend, rest: &limits, ..More::default() }).await;
    gate.upstream.answers(
        "GET /api/v1/projects/team-a/dashboards/d",
        200,
        r#"{"kind":"Dashboard","metadata":{"name":"d","project":"team-a"},"spec":{}}"#,
    );
    gate
}

fn response(head: &str, body: &str) -> Mode {
    Mode::Say(format!(
        "HTTP/1.1 {head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// What a server does, and the code of the answer when Perses or a backend does it.
fn faults() -> Vec<(&'static str, Mode, u16)> {
    let plain = |text: &str| Mode::Say(text.to_owned());
    vec![
        ("down", Mode::Refuse, 502),
        ("slow", Mode::Silent, 504),
        ("resetting", Mode::Reset, 502),
        ("half open", Mode::Stall(20), 504),
        ("cut in its head", Mode::Cut(20), 502),
        ("closing at once", plain(""), 502),
        ("speaking something else", plain("SSH-2.0-OpenSSH_9.2\r\n"), 502),
        ("speaking HTTP/9", plain("HTTP/9.9 200 OK\r\n\r\n"), 502),
        ("with two lengths", plain("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"), 502),
        ("with an endless head", plain(&format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(50_000))), 502),
        (
            "with less than it says",
            plain("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{}"),
            502,
        ),
        ("failing", response("500 Internal Server Error", r#"{"error":"dial tcp 10.1.2.3:9090"}"#), 502),
        ("redirecting", plain("HTTP/1.1 302 Found\r\nlocation: http://10.1.2.3/\r\ncontent-length: 0\r\n\r\n"), 502),
        (
            "asking for patience",
            plain("HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"),
            503,
        ),
        ("overloaded", plain("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"), 503),
    ]
}

/// Nothing of the inside is in an answer.
fn is_tight(gate: &Gate, name: &str, answer: &Answer) {
    let text = format!("{} {:?}", answer.text(), answer.headers);
    for inside in ["10.1.2.3", "127.0.0.1", "hyper", "os error", "sha256~"] {
        assert!(!text.contains(inside), "{name}: {inside} is told: {text}");
    }
    for tap in [&gate.taps.cluster, &gate.taps.perses, &gate.taps.prometheus] {
        assert!(!text.contains(&tap.port.to_string()), "{name}: a port is told: {text}");
    }
}

/// With the fault many ask at once; each is told in time. Without it the first is served, and what was asked behind us is what
/// was asked of us.
async fn shows(gate: &Gate, tap: &Tap, token: &str, what: (&str, Mode, u16), ask: impl AsyncFn(&str) -> Answer) {
    let (name, mode, code) = what;
    let waits = code == 503;
    tap.set(mode).await;
    let began = Instant::now();
    for _ in 0..3 {
        let answer = ask(token).await;
        assert_eq!(answer.status, code, "{name}: {}", answer.text());
        assert!(!waits || answer.headers.contains_key("retry-after"), "{name}: when to come back is not told");
        is_tight(gate, name, &answer);
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{name}: it took {:?}", began.elapsed());
    tap.set(Mode::Pass).await;
    gate.upstream.take();
    for number in 0..10 {
        let answer = ask(token).await;
        assert_eq!(answer.status, 200, "{name}, over, request {number}: {}", answer.text());
    }
    let lines = gate.upstream.lines();
    assert!(lines.len() <= 11, "{name}: a storm follows: {lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn perses_fails_in_every_way() {
    let gate = start("", "").await;
    let ada = gate.token("ada");
    for fault in faults() {
        shows(&gate, &gate.taps.perses, &ada, fault, async |token| gate.get(token, READ).await).await;
    }
    // What does not need Perses does not fail with it.
    gate.taps.perses.set(Mode::Refuse).await;
    assert_eq!(gate.get(&ada, "/api/v1/user/whoami").await.status, 200);
    assert_eq!(gate.get(&ada, "/-/whoami").await.status, 200);
    let ready = gate.http.send("GET", &format!("{}/readyz", gate.admin), &[], "").await.unwrap();
    assert_eq!((ready.status, ready.text().contains("perses failed")), (503, true), "{}", ready.text());
    let alive = gate.http.send("GET", &format!("{}/healthz", gate.admin), &[], "").await.unwrap();
    assert_eq!(alive.status, 200, "a restart would not help");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_fails_in_every_way() {
    let gate = start("", "").await;
    let ada = gate.token("ada");
    for fault in faults() {
        // An answer that has begun cannot be taken back; it ends as what it is, below.
        if fault.0 != "with less than it says" {
            shows(&gate, &gate.taps.prometheus, &ada, fault, async |token| gate.query(token, "up").await).await;
        }
    }
    gate.taps.prometheus.set(Mode::Refuse).await;
    assert_eq!(gate.get(&ada, READ).await.status, 200, "Perses is another server");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_no_whole_answer() {
    let gate = start("", "").await;
    let ada = gate.token("ada");
    let body = format!(r#"{{"status":"success","data":"{}"}}"#, "x".repeat(100_000));
    gate.upstream.answers("POST /api/v1/query", 200, Box::leak(body.into_boxed_str()));
    for mode in [Mode::Cut(50_000), Mode::Stall(50_000)] {
        gate.taps.prometheus.set(mode.clone()).await;
        let form = "query=up";
        let request = format!(
            "POST /proxy/globaldatasources/p/api/v1/query HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ada}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            form.len()
        );
        let heard = crate::support::speak_for(&gate.address, request.as_bytes(), Duration::from_secs(3)).await;
        assert!(heard.closed, "{mode:?}: the connection stays");
        // It may break off before the head of the answer has left us.
        let Some((head, body)) = heard.text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|text| text.parse().unwrap());
        match length {
            Some(length) => assert!(body.len() < length, "{mode:?}: {} of {length} bytes", body.len()),
            None => assert!(!body.ends_with("0\r\n\r\n"), "{mode:?}: chunks that look whole"),
        }
    }
    gate.taps.prometheus.set(Mode::Pass).await;
    assert_eq!(gate.query(&ada, "up").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_fails_in_every_way_and_nobody_is_let_in() {
    let gate = start("", "").await;
    let nonsense = ["nonsense", "{}", r#"{"status":{"authenticated":true}}"#, "[]", r#"{"status":{"allowed":"yes"}}"#];
    let said = nonsense.map(|body| ("answering nonsense", response("201 Created", body), 503));
    for (name, mode, _) in faults().into_iter().chain(said) {
        let (ada, cluster) = (gate.token("ada"), gate.openshift.cluster());
        gate.taps.cluster.set(mode).await;
        gate.upstream.take();
        let began = Instant::now();
        for _ in 0..3 {
            // A token that nobody has reviewed, and whoever has no verdict yet.
            let answer = gate.get(&ada, READ).await;
            assert_eq!(answer.status, 503, "{name}: {}", answer.text());
            assert!(answer.headers.contains_key("retry-after"), "{name}");
            is_tight(&gate, name, &answer);
        }
        assert!(began.elapsed() < Duration::from_secs(4), "{name}: it took {:?}", began.elapsed());
        assert!(gate.upstream.take().is_empty(), "{name}: something went upstream");
        gate.taps.cluster.set(Mode::Pass).await;
        // After a 429 or 503 the API server is left alone for as long as it asked, or a second.
        let mut answer = gate.get(&ada, READ).await;
        while answer.status == 503 && began.elapsed() < Duration::from_secs(12) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer = gate.get(&ada, READ).await;
        }
        assert_eq!(answer.status, 200, "{name}, over: {}", answer.text());
        assert!(name == "asking for patience" || began.elapsed() < Duration::from_secs(6), "{name}");
        let asked = cluster.count(Endpoint::TokenReviews);
        for _ in 0..10 {
            assert_eq!(gate.get(&ada, READ).await.status, 200);
        }
        assert_eq!(cluster.count(Endpoint::TokenReviews), asked, "{name}: what was found out is kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_goes_on_while_the_api_server_is_away_and_no_longer() {
    let gate = start("access:\n  token_ttl: 1s\n  allow_ttl: 1s\n", "").await;
    let ada = gate.token("ada");
    assert_eq!(gate.get(&ada, READ).await.status, 200);
    gate.taps.cluster.set(Mode::Refuse).await;
    assert_eq!(gate.get(&ada, READ).await.status, 200, "a verdict holds for as long as configured");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(gate.get(&ada, READ).await.status, 503, "and not a moment longer");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_waited_ask_once_when_it_is_back() {
    let gate = Arc::new(start("", "").await);
    let ada = gate.token("ada");
    gate.taps.cluster.set(Mode::Silent).await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let (gate, ada) = (Arc::clone(&gate), ada.clone());
        waiting.spawn(async move {
            loop {
                let answer = gate.get(&ada, READ).await;
                if answer.status == 200 {
                    return;
                }
                // 504 where Perses has to serve three hundred at once.
                assert!([503, 504].contains(&answer.status), "{}", answer.status);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    gate.taps.cluster.set(Mode::Pass).await;
    let all = async { while waiting.join_next().await.transpose().unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), all).await.unwrap();
    let cluster = gate.openshift.cluster();
    let (tokens, rights) = (cluster.count(Endpoint::TokenReviews), cluster.count(Endpoint::AccessReviews));
    assert!(tokens <= 2 && rights <= 2, "{tokens} token reviews and {rights} access reviews for one person");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_given_back_by_those_who_failed() {
    // More than are open at once to any server.
    let gate = Arc::new(start("", "").await);
    let ada = gate.token("ada");
    assert_eq!(gate.query(&ada, "up").await.status, 200);
    for mode in [Mode::Silent, Mode::Reset, Mode::Cut(40)] {
        gate.taps.prometheus.set(mode.clone()).await;
        for _ in 0..6 {
            let mut asking = tokio::task::JoinSet::new();
            for _ in 0..120 {
                let (gate, ada) = (Arc::clone(&gate), ada.clone());
                asking.spawn(async move { gate.query(&ada, "up").await.status });
            }
            while let Some(status) = asking.join_next().await {
                assert!([502, 503, 504].contains(&status.unwrap()), "{mode:?}");
            }
        }
        gate.taps.prometheus.set(Mode::Pass).await;
        assert_eq!(gate.query(&ada, "up").await.status, 200, "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_gets_another_certificate() {
    let gate = start("", "").await;
    assert_eq!(gate.get(&gate.token("ada"), READ).await.status, 200);
    let (port, authority) = gate.openshift.start_again().await.unwrap();
    gate.taps.cluster.turn_to(port).await;
    let ada = gate.token("ada");
    let answer = gate.get(&ada, READ).await;
    assert_eq!(answer.status, 503, "a certificate of a stranger: {}", answer.text());
    is_tight(&gate, "a stranger's certificate", &answer);
    let known = gate.openshift.cluster().count(Endpoint::TokenReviews);
    std::fs::write(gate.openshift.ca_file(), authority).unwrap();
    served(&gate, &ada).await;
    assert!(gate.openshift.cluster().count(Endpoint::TokenReviews) <= known + 1);
    // A bundle that is none changes nothing.
    std::fs::write(gate.openshift.ca_file(), "nonsense").unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(gate.get(&gate.token("ada"), READ).await.status, 200);
    let ready = gate.http.send("GET", &format!("{}/readyz", gate.admin), &[], "").await.unwrap();
    assert!(ready.status == 200 && ready.text().contains("cluster.ca_file"), "{}", ready.text());
}

/// Waits until somebody is served.
async fn served(gate: &Gate, token: &str) {
    for _ in 0..100 {
        if gate.get(token, READ).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it does not recover");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_has_the_wrong_certificate_and_then_the_right_one() {
    let backend = "    ca_file: FOLDER/tls-ca.crt\n";
    let gate = start("", backend).await;
    let ada = gate.token("ada");
    let folder = gate.config.parent().unwrap().to_owned();
    let stranger = Certificates::make(&["127.0.0.1"]).unwrap();
    gate.taps.prometheus.speak_tls(stranger.server_config().unwrap()).await;
    let answer = gate.query(&ada, "up").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    is_tight(&gate, "a stranger's certificate", &answer);
    let elsewhere = Certificates::make(&["elsewhere.example"]).unwrap();
    std::fs::write(folder.join("tls-ca.crt"), &elsewhere.ca).unwrap();
    gate.taps.prometheus.speak_tls(elsewhere.server_config().unwrap()).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(gate.query(&ada, "up").await.status, 502, "the right authority and another name");
    std::fs::write(folder.join("tls-ca.crt"), &stranger.ca).unwrap();
    gate.taps.prometheus.speak_tls(stranger.server_config().unwrap()).await;
    for _ in 0..100 {
        if gate.query(&ada, "up").await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the right certificate is not believed");
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_that_run_out_come_back() {
    let process = Process::start("info", More::default(), &["prlimit", "--nofile=224:224"]).await;
    assert!(process.log().contains("limits.connections is lowered"), "{}", process.log());
    let request = format!("GET /-/whoami HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", process.ada);
    let mut held = Vec::new();
    for _ in 0..400 {
        let mut socket = tokio::net::TcpStream::connect(&process.address).await.unwrap();
        let _ = socket.write_all(request.as_bytes()).await;
        held.push(socket);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Those who came first are served, whatever it takes behind us; those who came too late are told by a closed connection.
    let mut served = 0;
    for socket in &mut held {
        let mut buffer = [0; 15];
        let heard = tokio::time::timeout(Duration::from_secs(2), socket.read_exact(&mut buffer)).await.unwrap();
        served += usize::from(heard.is_ok() && buffer.starts_with(b"HTTP/1.1 200"));
    }
    assert!((32..=64).contains(&served), "{served}");
    drop(held);
    for _ in 0..20 {
        if process.ask(&process.ada).await == 200 {
            assert!(process.log().lines().count() < 100, "a log line for each of them");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it does not recover");
}
