//! The way out: the session is worth nothing afterwards, and the page says what became of the token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use perses_sidecar_stack::openshift::{Endpoint, Rule, SIDECAR, Subject};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};

use crate::support::browser::{Browser, GOES, HERE, gate_with_login, location};

const SESSION: &str = "__Host-perses-session";

/// A form of our own page, sent by somebody.
const FORM: [(&str, &str); 5] = [
    ("accept", "text/html"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("origin", HERE),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_ended_is_worth_nothing_to_whoever_copied_it() {
    let gate = gate_with_login("").await;
    let mut browser = Browser::of(&gate);
    browser.logs_in(&gate, "ada", "/").await;
    let copy = browser.clone();
    let page = browser.goes("/-/logout").await;
    assert!(
        page.status == 200
            && page.text().contains("You are logged in as ada")
            && page.text().contains("method=\"post\"")
    );
    assert_eq!(browser.who().await, "ada", "to look at the page ends nothing");
    let answer = browser.send("POST", "/-/logout", &FORM, "").await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("could not be revoked"), "small scopes may not revoke: {}", answer.text());
    let form = format!("action=\"{}/logout\"", gate.openshift.oauth_url());
    assert!(answer.text().contains(&form), "the server's own session has a way to end: {}", answer.text());
    assert!(
        answer.headers["content-security-policy"]
            .to_str()
            .unwrap()
            .contains(&format!("form-action 'self' {}", gate.openshift.oauth_url()))
    );
    assert!(browser.jar.is_empty(), "cookies are gone");
    let cleared = browser.seen.last().unwrap();
    assert_eq!(cleared, &format!("{SESSION}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"));
    assert_eq!(copy.clone().who().await, "", "the copy is none");
    assert_eq!(location(&copy.clone().goes("/").await), format!("{HERE}/-/login"));
    assert!(browser.goes("/-/logout").await.text().contains("You are logged out"));
    let again = browser.send("POST", "/-/logout", &FORM, "").await;
    assert!(again.text().contains("There was no session to end"));
    // Somebody else on the same browser begins anew.
    browser.logs_in(&gate, "grace", "/").await;
    assert_eq!(browser.who().await, "grace");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_revoked_where_we_may() {
    let gate = gate_with_login("").await;
    let cluster = gate.openshift.cluster();
    let rule = Rule {
        groups: vec!["oauth.openshift.io"],
        resources: vec!["oauthaccesstokens"],
        verbs: vec!["delete"],
        ..Rule::default()
    };
    cluster.add_role("token-deleter", vec![rule]);
    cluster.bind(None, Subject::User(SIDECAR.to_owned()), "token-deleter");
    let mut browser = Browser::of(&gate);
    browser.logs_in(&gate, "ada", "/").await;
    assert_eq!(cluster.tokens_of("ada").len(), 1);
    let answer = browser.send("POST", "/-/logout", &FORM, "").await;
    assert!(answer.text().contains("its token was revoked at OpenShift"), "{}", answer.text());
    assert!(cluster.tokens_of("ada").is_empty());
    // A script gets the same in JSON.
    browser.logs_in(&gate, "ada", "/").await;
    let answer = browser.changes("POST", "/-/logout", "").await;
    assert_eq!((answer.status, answer.json()["revoked"].as_bool()), (200, Some(true)));
    // An API server that does not answer keeps nobody in.
    browser.logs_in(&gate, "ada", "/").await;
    let copy = browser.clone();
    cluster.set_fault(Endpoint::AccessTokens, Some(perses_sidecar_stack::openshift::Fault::Reset));
    let answer = browser.send("POST", "/-/logout", &FORM, "").await;
    assert!(answer.status == 200 && answer.text().contains("could not be revoked"), "{}", answer.text());
    assert_eq!(copy.clone().who().await, "");
    let metrics = gate.http.send("GET", &format!("{}/metrics", gate.admin), &[], "").await.unwrap().text();
    for line in [
        "logouts_total{outcome=\"revoked\"} 2",
        "logouts_total{outcome=\"closed\"} 1",
        "logins_total{outcome=\"ok\"} 3",
        "sessions 0",
    ] {
        assert!(metrics.contains(&format!("perses_sidecar_{line}")), "{line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_logged_out_by_another_page() {
    let gate = gate_with_login("").await;
    let mut browser = Browser::of(&gate);
    browser.logs_in(&gate, "ada", "/").await;
    for bad in [
        [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")].as_slice(),
        &[("sec-fetch-site", "same-site"), ("origin", "https://other.example")],
        &[("origin", "null")],
        &[],
    ] {
        let before = browser.clone();
        assert_eq!(browser.send("POST", "/-/logout", bad, "").await.status, 403, "{bad:?}");
        assert_eq!(browser.jar, before.jar, "{bad:?}");
    }
    assert_eq!(browser.send("GET", "/-/logout", &GOES, "").await.status, 200);
    assert_eq!(browser.send("DELETE", "/-/logout", &FORM, "").await.status, 405);
    assert_eq!(browser.who().await, "ada");
}

/// As much of Redis as it takes to hear of an end: GET and SET. The real one is asked in the suites with real servers.
async fn shared_memory() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let known = Arc::new(Mutex::new(HashMap::<Vec<u8>, Vec<u8>>::new()));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let known = Arc::clone(&known);
            tokio::spawn(async move {
                let mut socket = BufStream::new(socket);
                loop {
                    let mut words: Vec<Vec<u8>> = Vec::new();
                    let mut line = String::new();
                    socket.read_line(&mut line).await?;
                    for _ in 0..line.trim_end().trim_start_matches('*').parse().unwrap_or(0) {
                        line.clear();
                        socket.read_line(&mut line).await?;
                        let mut word = vec![0; line.trim_end()[1..].parse::<usize>().unwrap() + 2];
                        socket.read_exact(&mut word).await?;
                        word.truncate(word.len() - 2);
                        words.push(word);
                    }
                    let answer = match words.first().map(Vec::as_slice) {
                        None => return std::io::Result::Ok(()),
                        Some(b"GET") => match known.lock().unwrap().get(&words[1]) {
                            Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
                            None => b"$-1\r\n".to_vec(),
                        },
                        Some(_) => {
                            known.lock().unwrap().insert(words[1].clone(), words[2].clone());
                            b"+OK\r\n".to_vec()
                        }
                    };
                    socket.write_all(&answer).await?;
                    socket.flush().await?;
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_ended_at_one_replica_has_ended_at_all() {
    let shared = format!(
        "  session:\n    key_files: [FOLDER/tls.key]\ncache:\n  mode: bypass\n  shared:\n    url: \
         redis://127.0.0.1:{}\n    key_files: [FOLDER/tls.key]\n    timeout: 1s\n",
        shared_memory().await
    );
    let gate = gate_with_login(&shared).await;
    // Another process of the same configuration.
    let (ready, ports) = tokio::sync::oneshot::channel();
    let path = gate.config.clone();
    let loaded = perses_sidecar::config::load(&path).unwrap();
    let other = tokio::spawn(async move {
        let ready = |ports: &perses_sidecar::app::Ports| ready.send(*ports).unwrap();
        perses_sidecar::app::run(&path, loaded, None, std::future::pending(), ready).await.unwrap();
    });
    let there = format!("http://{}", ports.await.unwrap().gateway);
    let mut browser = Browser::of(&gate);
    let (mut ada, mut kept) = (Browser::at(&there), Browser::at(&there));
    browser.logs_in(&gate, "grace", "/").await;
    kept.jar = browser.jar.clone();
    let mut browser = Browser::of(&gate);
    browser.logs_in(&gate, "ada", "/").await;
    ada.jar = browser.jar.clone();
    assert_eq!(
        (ada.clone().who().await.as_str(), kept.who().await.as_str()),
        ("ada", "grace"),
        "both replicas know them"
    );
    let copy = browser.clone();
    assert_eq!(browser.send("POST", "/-/logout", &FORM, "").await.status, 200);
    assert_eq!(copy.clone().who().await, "", "here it has ended at once");
    let began = Instant::now();
    let mut who = "ada".to_owned();
    while who == "ada" && began.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        who = ada.clone().who().await;
    }
    assert!(who.is_empty() && began.elapsed() < Duration::from_secs(7), "there within five seconds and a bit");
    assert_eq!(kept.who().await, "grace", "and nobody else's");
    other.abort();
}
