//! How long things last: a session with its token, a verdict for its time, and what is deleted is gone.

use std::time::Duration;

use perses_sidecar_stack::openshift::Endpoint;

use crate::support::browser::{Browser, HERE, gate_with_login, location};

const SESSION: &str = "__Host-perses-session";
const QUICK: &str = "access:\n  token_ttl: 1s\n  allow_ttl: 1s\n  deny_ttl: 1s\n  namespaces_ttl: 1s\n";

/// A session never outlives its token, however long sessions may last.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token_or_before() {
    for (lasts, lifetime, expected) in
        [(Some(3600), "1d", 3600), (Some(86_400), "1h", 3600), (Some(0), "2h", 7200), (None, "2h", 7200)]
    {
        let gate = gate_with_login(&format!("  session:\n    lifetime: {lifetime}\n")).await;
        gate.openshift.cluster().set_token_lifetime(lasts);
        let mut browser = Browser::of(&gate);
        browser.logs_in(&gate, "ada", "/").await;
        let until = browser.asks("/-/whoami").await.json()["until"].as_u64().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!((expected - 60..=expected).contains(&(until - now)), "{lasts:?} {lifetime}: {}", until - now);
    }
}

/// What was deleted stops working with the next review, and somebody who goes on is sent to log in again.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_token_ends_its_session() {
    let gate = gate_with_login(QUICK).await;
    let cluster = gate.openshift.cluster();
    let mut browser = Browser::of(&gate);
    browser.logs_in(&gate, "ada", "/").await;
    assert_eq!(browser.who().await, "ada");
    cluster.revoke_token(&cluster.tokens_of("ada").remove(0));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut script = browser.clone();
    let answer = script.asks("/api/v1/projects").await;
    assert_eq!((answer.status, script.jar.contains_key(SESSION)), (401, false), "cleared");
    assert!(answer.json()["message"].as_str().unwrap().starts_with("your session has ended"), "{}", answer.text());
    let answer = browser.goes("/projects/team-a").await;
    assert_eq!((answer.status, location(&answer)), (302, format!("{HERE}/-/login?to=%2Fprojects%2Fteam-a")));
    assert!(!browser.jar.contains_key(SESSION));
}

/// Rights are asked for on every request, not at the login.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_right_is_lost_to_a_session_too() {
    let gate = gate_with_login(QUICK).await;
    let cluster = gate.openshift.cluster();
    gate.upstream.answers("GET /api/v1/projects/team-a/dashboards/d", 200, "{}");
    let mut browser = Browser::of(&gate);
    browser.logs_in(&gate, "ada", "/").await;
    assert_eq!(browser.asks("/api/v1/projects/team-a/dashboards/d").await.status, 200);
    cluster.unbind_role("team-a", "ada", "edit");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(browser.asks("/api/v1/projects/team-a/dashboards/d").await.status, 404);
}

/// One review for many requests, and none while nobody asks: inactivity timeouts of the cluster go on working.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_reviewed_for_people_and_only_for_them() {
    let gate = gate_with_login("").await;
    let cluster = gate.openshift.cluster();
    let mut browser = Browser::of(&gate);
    browser.logs_in(&gate, "ada", "/").await;
    let reviews = cluster.count(Endpoint::TokenReviews);
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let mut tab = browser.clone();
        crowd.spawn(async move { tab.who().await });
    }
    assert!(crowd.join_all().await.iter().all(|name| name == "ada"));
    assert_eq!(cluster.count(Endpoint::TokenReviews), reviews, "remembered from the login");
    let gate = gate_with_login(QUICK).await;
    let cluster = gate.openshift.cluster();
    let mut browser = Browser::of(&gate);
    browser.logs_in(&gate, "ada", "/").await;
    let reviews = cluster.count(Endpoint::TokenReviews);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(cluster.count(Endpoint::TokenReviews), reviews, "nobody asked, so nobody is asked about");
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let mut tab = browser.clone();
        crowd.spawn(async move { tab.who().await });
    }
    assert!(crowd.join_all().await.iter().all(|name| name == "ada"));
    assert_eq!(cluster.count(Endpoint::TokenReviews), reviews + 1, "once for all of them");
}

/// While the cluster cannot be asked nobody is let in, and nobody loses their session by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_answer_ends_no_session() {
    let gate = gate_with_login(QUICK).await;
    let cluster = gate.openshift.cluster();
    let mut browser = Browser::of(&gate);
    browser.logs_in(&gate, "ada", "/").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    cluster.set_fault(Endpoint::TokenReviews, Some(perses_sidecar_stack::openshift::Fault::Status(500, String::new())));
    assert_eq!(browser.asks("/api/v1/projects").await.status, 503);
    assert!(browser.jar.contains_key(SESSION));
    cluster.set_fault(Endpoint::TokenReviews, None);
    assert_eq!(browser.who().await, "ada");
}
