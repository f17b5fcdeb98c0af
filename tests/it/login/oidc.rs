//! The same way in by an OpenID provider: ID tokens to the API server, refreshed once for all who need it.

use std::time::Duration;

use perses_sidecar_stack::openshift::{Discovery, Endpoint};
use serde_json::json;

use crate::support::browser::{Browser, HERE, OPENSHIFT, location};
use crate::support::issuer::Issuer;
use crate::support::{Gate, More, gate_with};

const SESSION: &str = "__Host-perses-session";

struct Scene {
    issuer: Issuer,
    gate: Gate,
}

/// A gateway with a provider; `before` are keys of `login` before `oidc`, `rest` whole sections.
async fn scene(before: &str, rest: &str) -> Scene {
    let issuer = Issuer::start().await;
    let folder =
        std::env::temp_dir().join(format!("idp-{}-{}", std::process::id(), issuer.url.rsplit(':').next().unwrap()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("ca"), &issuer.ca).unwrap();
    std::fs::write(folder.join("secret"), "the client's secret\n").unwrap();
    let (before, folder) =
        (if before.is_empty() { "login:\n  external_url: https://perses.example\n" } else { before }, folder.display());
    let text = format!(
        "{before}  oidc:\n    issuer: {}\n    client_id: perses\n    client_secret_file: {folder}/secret\n    ca_file: {folder}/ca\n    scopes: [groups]\n{rest}",
        issuer.url
    );
    let gate = gate_with(More { rest: &text, ..More::default() }).await;
    issuer.believed_by(gate.openshift.cluster());
    Scene { issuer, gate }
}

impl Scene {
    async fn logs_in(&self, browser: &mut Browser, user: &str, to: &str) -> perses_sidecar_stack::http::Answer {
        let place = browser.begins(to).await;
        assert!(place.starts_with(&format!("{}/auth?response_type=code&", self.issuer.url)), "{place}");
        let back = self.issuer.log_in(user, place.split_once('?').unwrap().1);
        browser.comes_back(&back).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_logs_in_by_an_openid_provider() {
    let scene = scene("", "").await;
    let mut browser = Browser::of(&scene.gate);
    let place = browser.begins("/projects/team-a").await;
    assert!(
        place.contains("scope=openid%20groups")
            && place.contains("&nonce=")
            && place.contains("code_challenge_method=S256")
    );
    let back = scene.issuer.log_in("ada", place.split_once('?').unwrap().1);
    let answer = browser.comes_back(&back).await;
    assert_eq!((answer.status, location(&answer).as_str()), (302, "/projects/team-a"), "{}", answer.text());
    assert!(
        scene.issuer.last_form().ends_with(" Basic cGVyc2VzOnRoZSUyMGNsaWVudCUyN3MlMjBzZWNyZXQ="),
        "{}",
        scene.issuer.last_form()
    );
    assert_eq!(browser.who().await, "ada");
    let review: serde_json::Value =
        serde_json::from_slice(&scene.gate.openshift.cluster().last_body(Endpoint::TokenReviews)).unwrap();
    assert!(
        scene.issuer.minted().iter().any(|token| review["spec"]["token"] == *token),
        "the ID token is what is shown"
    );
    // Out: the provider's own session is ended by the browser.
    let id_token = review["spec"]["token"].as_str().unwrap();
    let copy = browser.clone();
    let answer = browser.changes("POST", "/-/logout", "").await;
    let out = location(&answer);
    assert_eq!(answer.status, 303);
    assert!(out.starts_with(&format!("{}/end?id_token_hint={id_token}&client_id=perses&", scene.issuer.url)), "{out}");
    assert!(out.ends_with("post_logout_redirect_uri=https%3A%2F%2Fperses.example%2F-%2Flogout"), "{out}");
    assert_eq!((browser.jar.len(), copy.clone().who().await.as_str()), (0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_another_login_client_or_person_is_none() {
    let scene = scene("", "").await;
    for claims in [
        json!({ "nonce": "another" }),
        json!({ "nonce": null }),
        json!({ "aud": "grafana" }),
        json!({ "aud": ["perses", "grafana"] }),
        json!({ "iss": "https://evil.example" }),
        json!({ "exp": 1 }),
        json!({ "sub": "" }),
    ] {
        scene.issuer.manner(|manner| manner.claims = claims.clone());
        let mut browser = Browser::of(&scene.gate);
        let answer = scene.logs_in(&mut browser, "ada", "/").await;
        assert_eq!((answer.status, browser.jar.contains_key(SESSION)), (502, false), "{claims}");
    }
}

/// The whole of a page asks at once when its token is nearly over: one refresh, and everybody is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refreshed_once_for_all_who_need_it() {
    let scene = scene("", "access:\n  token_ttl: 1s\n").await;
    scene.issuer.manner(|manner| (manner.lasts, manner.takes) = (4, Duration::from_millis(100)));
    let mut browser = Browser::of(&scene.gate);
    scene.logs_in(&mut browser, "ada", "/").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let before = browser.jar[SESSION].clone();
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut tab = browser.clone();
        crowd.spawn(async move { (tab.who().await, tab.jar[SESSION].clone()) });
    }
    for (name, session) in crowd.join_all().await {
        assert_eq!(name, "ada");
        assert_ne!(session, before, "each answer brings the new one");
    }
    assert_eq!(scene.issuer.asked("refresh_token"), 1);
    // A request that was on its way with the cookie of before.
    assert_eq!(browser.clone().who().await, "ada");
    assert_eq!(scene.issuer.asked("refresh_token"), 1, "the used one is not sent again");
    let mut last = browser.clone();
    last.who().await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(last.who().await, "ada", "and so on, while somebody asks");
    assert_eq!(scene.issuer.asked("refresh_token"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_refuses_ends_and_what_it_cannot_answer_does_not() {
    let scene = scene("", "access:\n  token_ttl: 1s\n").await;
    scene.issuer.manner(|manner| manner.lasts = 8);
    let mut browser = Browser::of(&scene.gate);
    scene.logs_in(&mut browser, "ada", "/").await;
    tokio::time::sleep(Duration::from_millis(4500)).await;
    scene.issuer.manner(|manner| manner.instead = Some((500, "down".to_owned())));
    assert_eq!(browser.who().await, "ada", "its token is good still");
    scene.issuer.manner(|manner| (manner.instead, manner.claims) = (None, json!({ "sub": "sub-grace" })));
    assert_eq!(browser.who().await, "ada", "the next one is somebody else's and is not taken");
    let mut other = Browser::of(&scene.gate);
    scene.issuer.manner(|manner| manner.claims = json!({}));
    scene.logs_in(&mut other, "grace", "/").await;
    tokio::time::sleep(Duration::from_millis(4500)).await;
    scene.issuer.manner(|manner| manner.instead = Some((400, r#"{"error":"invalid_grant"}"#.to_owned())));
    let mut tab = other.clone();
    tab.who().await;
    let asked = scene.issuer.asked("refresh_token");
    assert_eq!(other.clone().who().await, "grace", "another replica may have been quicker: the token is good still");
    assert_eq!(scene.issuer.asked("refresh_token"), asked, "and what is used up is not sent again");
    tokio::time::sleep(Duration::from_millis(4500)).await;
    assert_eq!(
        (other.clone().who().await.as_str(), scene.issuer.asked("refresh_token")),
        ("", asked),
        "ended with its token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_tokens_are_split_and_too_large_ones_are_told() {
    let scene = scene("", "").await;
    scene.issuer.manner(|manner| manner.padding = 5000);
    let mut browser = Browser::of(&scene.gate);
    scene.logs_in(&mut browser, "ada", "/").await;
    assert!(browser.jar.len() >= 3, "{:?}", browser.jar.keys());
    assert!(browser.seen.iter().all(|line| line.len() <= 4096));
    assert_eq!(browser.who().await, "ada");
    let mut torn = browser.clone();
    torn.jar.remove(&format!("{SESSION}-1"));
    assert_eq!(torn.who().await, "");
    scene.issuer.manner(|manner| manner.padding = 0);
    scene.logs_in(&mut browser, "ada", "/").await;
    assert_eq!((browser.jar.len(), browser.who().await.as_str()), (1, "ada"), "the parts of before are taken away");
    scene.issuer.manner(|manner| manner.padding = 11_500);
    let mut large = Browser::of(&scene.gate);
    let answer = scene.logs_in(&mut large, "ada", "/").await;
    assert_eq!((answer.status, large.jar.contains_key(SESSION)), (502, false), "{}", answer.text());
    assert!(answer.text().contains("too large"), "a page, and no circle: {}", answer.text());
}

/// With both configured the cluster says which, at any time.
#[tokio::test(flavor = "multi_thread")]
async fn the_mode_is_the_clusters_and_may_change_in_both_directions() {
    let scene = scene(OPENSHIFT, "").await;
    let (gate, cluster) = (&scene.gate, scene.gate.openshift.cluster());
    crate::support::browser::register(gate, HERE);
    cluster.set_discovery(Discovery::Missing);
    let mut browser = Browser::of(gate);
    scene.logs_in(&mut browser, "ada", "/").await;
    assert_eq!(browser.who().await, "ada");
    // What was discovered holds for a minute; a new configuration looks at once.
    let looks_again = async || {
        let text = std::fs::read_to_string(&gate.config).unwrap();
        let (from, to) =
            if text.contains("contact: a") { ("contact: a", "contact: b") } else { ("contact: b", "contact: a") };
        let text = if text.contains("contact:") {
            text.replace(from, to)
        } else {
            text.replace("login:\n", "login:\n  contact: a\n")
        };
        std::fs::write(&gate.config, text).unwrap();
        tokio::time::sleep(Duration::from_millis(2500)).await;
    };
    cluster.set_discovery(Discovery::Present);
    looks_again().await;
    let mut other = Browser::of(gate);
    assert_eq!(other.logs_in(gate, "grace", "/").await.status, 302);
    assert_eq!(
        (other.who().await.as_str(), browser.who().await.as_str()),
        ("grace", "ada"),
        "sessions of both stand while their tokens do"
    );
    cluster.set_discovery(Discovery::Missing);
    looks_again().await;
    let mut third = Browser::of(gate);
    scene.logs_in(&mut third, "ada", "/").await;
    assert_eq!(third.who().await, "ada");
}
