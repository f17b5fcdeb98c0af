//! Tokens and reviews: asked once, remembered for a while, never guessed.

use std::sync::Arc;
use std::time::Duration;

use perses_sidecar_stack::openshift::{Endpoint, Fault};

use crate::support::gate;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_reviewed_once_for_many() {
    let gate = Arc::new(gate("").await);
    let token = gate.token("ada");
    let cluster = gate.openshift.cluster().clone();
    cluster.set_fault(Endpoint::TokenReviews, Some(Fault::Slow(Duration::from_millis(200))));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (gate, token) = (Arc::clone(&gate), token.clone());
        tasks.spawn(async move { gate.get(&token, "/api/v1/user/whoami").await.status });
    }
    while let Some(status) = tasks.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(cluster.count(Endpoint::TokenReviews), 1);
    assert_eq!(gate.get("sha256~nobody", "/api/v1/user/whoami").await.status, 401);
    assert_eq!(gate.get("sha256~nobody", "/api/v1/user/whoami").await.status, 401);
    assert_eq!(cluster.count(Endpoint::TokenReviews), 2, "a refusal is remembered too");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asked_first_may_leave() {
    let gate = gate("").await;
    let token = gate.token("ada");
    let cluster = gate.openshift.cluster().clone();
    cluster.set_fault(Endpoint::TokenReviews, Some(Fault::Slow(Duration::from_millis(300))));
    let request = format!("GET /api/v1/user/whoami HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    let first = gate.raw(request.as_bytes());
    let gone = tokio::time::timeout(Duration::from_millis(50), first).await;
    assert!(gone.is_err(), "the first has left");
    assert_eq!(gate.get(&token, "/api/v1/user/whoami").await.status, 200);
    assert_eq!(cluster.count(Endpoint::TokenReviews), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_verdict_is_never_a_yes() {
    for fault in [
        Fault::Status(500, "{}".to_owned()),
        Fault::Status(201, "nonsense".to_owned()),
        Fault::Status(201, "{}".to_owned()),
        Fault::Reset,
        Fault::Contradiction,
    ] {
        let gate = gate("").await;
        let cluster = gate.openshift.cluster();
        let ada = gate.token("ada");
        assert_eq!(gate.get(&ada, "/api/v1/user/whoami").await.status, 200);
        cluster.set_fault(Endpoint::AccessReviews, Some(fault.clone()));
        let answer = gate.get(&ada, "/api/v1/projects/team-a/dashboards/d").await;
        assert_eq!(answer.status, 503, "{fault:?}: {}", answer.text());
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(gate.query(&ada, "up").await.status, 503);
        assert!(gate.upstream.take().is_empty(), "{fault:?}: nothing went upstream");
        cluster.set_fault(Endpoint::AccessReviews, None);
        assert_ne!(gate.get(&ada, "/api/v1/projects/team-a/dashboards/d").await.status, 503, "it recovers at once");
    }
    let gate = gate("").await;
    gate.openshift.cluster().set_fault(Endpoint::TokenReviews, Some(Fault::Status(500, String::new())));
    assert_eq!(gate.get("sha256~x", "/api/v1/user/whoami").await.status, 503, "an error is no 401");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_left_alone_when_it_asks() {
    let gate = gate("").await;
    let cluster = gate.openshift.cluster();
    cluster.set_fault(Endpoint::TokenReviews, Some(Fault::TooMany(2)));
    let answer = gate.get("sha256~x", "/api/v1/user/whoami").await;
    assert_eq!((answer.status, answer.headers["retry-after"].to_str().unwrap()), (503, "2"));
    for number in 0..20 {
        assert_eq!(gate.get(&format!("sha256~{number}"), "/api/v1/user/whoami").await.status, 503);
    }
    assert_eq!(cluster.count(Endpoint::TokenReviews), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_carry_the_whole_identity() {
    let gate = gate("").await;
    let cluster = gate.openshift.cluster();
    cluster.add_user("ada", &["devs"]);
    let token = cluster.issue_scoped_token("ada", &["user:info"], None);
    assert_eq!(gate.get(&token, "/api/v1/projects/team-a/dashboards/d").await.status, 404, "scopes cut rights");
    let review: serde_json::Value = serde_json::from_slice(&cluster.last_body(Endpoint::AccessReviews)).unwrap();
    assert_eq!(review["spec"]["user"], "ada");
    assert!(review["spec"]["groups"].as_array().unwrap().contains(&"devs".into()));
    assert_eq!(review["spec"]["extra"]["scopes.authorization.openshift.io"][0], "user:info");
    assert_eq!(review["spec"]["uid"], "uid-ada");
}

#[tokio::test(flavor = "multi_thread")]
async fn audiences_are_asked_for_only_when_configured_and_must_come_back() {
    let private =
        |gate: &crate::support::Gate| gate.openshift.cluster().service_account_token("team-a", "bot", &["perses"]);
    let plain = gate("").await;
    assert_eq!(plain.get(&private(&plain), "/api/v1/user/whoami").await.status, 401, "meant for somebody else");
    let asking = gate("access:\n  audiences: [\"perses\"]\n").await;
    assert_eq!(asking.get(&private(&asking), "/api/v1/user/whoami").await.status, 200);
    assert_eq!(asking.get(&asking.token("ada"), "/api/v1/user/whoami").await.status, 200, "OAuth tokens have none");
    let other = asking.openshift.cluster().service_account_token("team-a", "bot", &["vault"]);
    assert_eq!(asking.get(&other, "/api/v1/user/whoami").await.status, 401);
}

/// Where that is wanted, a forged token of a service account costs the API server nothing: its keys are had from there.
#[tokio::test(flavor = "multi_thread")]
async fn forged_tokens_of_service_accounts_are_refused_by_the_api_servers_keys() {
    let gate = gate("access:\n  jwt_check: true\n").await;
    let cluster = gate.openshift.cluster();
    let ask = async |token: &str| gate.get(token, "/api/v1/user/whoami").await.status;
    let reviews = || cluster.count(Endpoint::TokenReviews);
    let forge = |token: &str| {
        let (text, signature) = token.rsplit_once('.').unwrap();
        format!("{text}.{}{}", &signature[..80], if &signature[80..] == "AAAAAA" { "BBBBBB" } else { "AAAAAA" })
    };
    let good = cluster.service_account_token_ending("team-a", "bot", 600);
    assert_eq!(ask(&good).await, 200);
    assert!(cluster.count(Endpoint::Issuer) >= 2, "document and keys");
    let before = reviews();
    let over = cluster.service_account_token_ending("team-a", "bot", -600);
    let private = cluster.service_account_token("team-a", "bot", &["vault"]);
    for (what, token) in [("another signature", forge(&good)), ("over", over), ("meant for another", private)] {
        assert_eq!(ask(&token).await, 401, "{what}");
    }
    assert_eq!(reviews(), before, "nobody was asked");
    // What lies in a Secret is of an issuer that has no keys: only the API server can say.
    let secret = cluster.service_account_token("team-a", "bot", &[]);
    assert_eq!((ask(&secret).await, ask(&forge(&secret)).await), (200, 401));
    assert_eq!(reviews(), before + 2);
    // Without the setting everybody is asked about.
    let plain = crate::support::gate("").await;
    let cluster = plain.openshift.cluster();
    let before = cluster.count(Endpoint::TokenReviews);
    let forged = forge(&cluster.service_account_token_ending("team-a", "bot", 600));
    assert_eq!(plain.get(&forged, "/api/v1/user/whoami").await.status, 401);
    assert_eq!((cluster.count(Endpoint::TokenReviews), cluster.count(Endpoint::Issuer)), (before + 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_kubernetes_has_no_projects_and_works_all_the_same() {
    let gate = gate("").await;
    gate.openshift.cluster().set_fault(Endpoint::Projects, Some(Fault::Missing));
    assert_eq!(gate.query(&gate.token("ada"), "up").await.status, 200);
    assert!(gate.upstream.take().last().unwrap().body.contains("team-a%7Cteam-b"));
    assert!(gate.openshift.cluster().count(Endpoint::Namespaces) > 0);
    gate.upstream.take();
    assert_eq!(
        gate.query(&gate.token("root"), "up").await.status,
        200,
        "who may list anything is told that it is missing"
    );
    assert!(gate.upstream.take().last().unwrap().body.starts_with("query=up"));
    // The list is ours then: without the right to it there is no verdict.
    let gate = crate::support::gate("").await;
    gate.openshift.cluster().set_fault(Endpoint::Projects, Some(Fault::Missing));
    gate.openshift.cluster().set_fault(Endpoint::Namespaces, Some(Fault::Status(403, String::new())));
    assert_eq!(gate.query(&gate.token("ada"), "up").await.status, 503);
    assert!(gate.upstream.take().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_end_when_they_should() {
    let gate = gate("access:\n  allow_ttl: 1s\n  deny_ttl: 1s\n  token_ttl: 1s\n  namespaces_ttl: 1s\n").await;
    let cluster = gate.openshift.cluster();
    let (ada, eve) = (gate.token("ada"), gate.token("eve"));
    let path = "/api/v1/projects/team-a/dashboards/d";
    gate.upstream.answers("GET /api/v1/projects/team-a/dashboards/d", 200, "{}");
    assert_eq!((gate.get(&ada, path).await.status, gate.get(&eve, path).await.status), (200, 404));
    cluster.unbind_role("team-a", "ada", "edit");
    cluster.bind_role("team-a", "eve", "view");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!((gate.get(&ada, path).await.status, gate.get(&eve, path).await.status), (404, 200));
    cluster.revoke_token(&eve);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(gate.get(&eve, path).await.status, 401);
}
