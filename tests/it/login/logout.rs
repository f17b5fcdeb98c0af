//! The way out: the session is worth nothing afterwards, and the page says what became of the token.

use perses_sidecar_stack::openshift::{Endpoint, Rule, SIDECAR, Subject};

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
