//! What the stock UI is told: a name, what may be changed, where to go, and whom to ask.

use crate::support::browser::{Browser, gate_with_login};

const CONFIG: &str = r#"{"security":{"readonly":false},"frontend":{"explorer":{"enable":true},"information":"Welcome.","banner":{"severity":"info","message":"hi"}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_tells_each_their_own_truth() {
    let gate = gate_with_login("  contact: \"#platform-help\"\n").await;
    let cluster = gate.openshift.cluster();
    cluster.bind_role("team-b", "vera", "view");
    gate.upstream.answers("GET /api/config", 200, CONFIG);
    let nobody = Browser::of(&gate).asks("/api/config").await.json();
    assert_eq!(
        (nobody["security"]["readonly"].as_bool(), nobody["frontend"]["information"].as_str()),
        (Some(false), Some("Welcome."))
    );
    for (user, readonly, banner) in
        [("ada", false, "hi"), ("vera", true, "hi"), ("root", false, "hi"), ("eve", true, "#platform-help")]
    {
        let mut browser = Browser::of(&gate);
        browser.logs_in(&gate, user, "/").await;
        let config = browser.asks("/api/config").await.json();
        assert_eq!(config["security"]["readonly"].as_bool(), Some(readonly), "{user}");
        assert_eq!(config["security"]["enable_auth"].as_bool(), Some(true));
        assert_eq!(
            config["frontend"]["information"].as_str().unwrap(),
            format!("Logged in as **{user}** · [profile](/-/whoami) · [log out](/-/logout)\n\nWelcome.")
        );
        assert!(config["frontend"]["banner"]["message"].as_str().unwrap().contains(banner), "{user}: {config}");
        let me = browser.asks("/api/v1/user/whoami").await.json();
        assert_eq!(me["metadata"]["name"], user);
        let rights = browser.asks(&format!("/api/v1/users/{user}/permissions")).await.json();
        let administers = rights["*"].to_string().contains("GlobalDatasource");
        assert_eq!(administers, user == "root", "{user} sees the pages of administrators: {rights}");
        assert!(!rights.to_string().contains("Role"), "roles come from the cluster");
        assert_eq!(browser.asks("/api/v1/users/somebody/permissions").await.status, 403);
    }
    // With a token, as behind a gateway that has its own logout.
    let config = gate.get(&gate.token("ada"), "/api/config").await.json();
    assert_eq!(
        config["frontend"]["information"].as_str().unwrap(),
        "Logged in as **ada** · [profile](/-/whoami)\n\nWelcome."
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_nothing_is_told_what_to_ask_for_and_whom() {
    let gate = gate_with_login("  contact: \"#platform-help\"\n").await;
    gate.upstream.answers("GET /", 200, "<html>the UI</html>");
    let mut eve = Browser::of(&gate);
    eve.logs_in(&gate, "eve", "/").await;
    let page = eve.goes("/").await;
    assert_eq!(page.status, 403);
    for words in ["logged in as eve", "ask #platform-help for the role", "view", "Log out", "Request <code>"] {
        assert!(page.text().contains(words), "{words}: {}", page.text());
    }
    let mut ada = Browser::of(&gate);
    ada.logs_in(&gate, "ada", "/").await;
    assert_eq!(ada.goes("/").await.text(), "<html>the UI</html>");
    // A cluster that does not answer is no reason to say so.
    let profile = eve.goes("/-/whoami").await.text();
    assert!(
        profile.contains("You are eve") && profile.contains("nowhere") && profile.contains("#platform-help"),
        "{profile}"
    );
    let profile = ada.goes("/-/whoami").await.text();
    assert!(profile.contains("team-a, team-b") && profile.contains("href=\"/-/logout\""), "{profile}");
    assert!(
        profile.contains("lang=\"en\"") && profile.contains("prefers-color-scheme") && !profile.contains("<script")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_who_somebody_is_and_what_is_missing() {
    let gate = gate_with_login("").await;
    let mut ada = Browser::of(&gate);
    ada.logs_in(&gate, "ada", "/").await;
    let answer = ada.changes("DELETE", "/api/v1/projects/team-b/dashboards/d", "").await;
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.json()["message"],
        "you may not delete persesdashboards.perses.dev in namespace team-b; ask an administrator of it for a role that includes this"
    );
    let page = ada.goes("/metrics").await;
    assert_eq!(page.status, 403);
    for words in ["You may not do this", "you may not get", "You are logged in as ada.", "Log out", "Request <code>"] {
        assert!(page.text().contains(words), "{words}: {}", page.text());
    }
    let hidden = ada.goes("/api/v1/projects/team-c").await;
    assert!(
        hidden.status == 404 && hidden.text().contains("Nothing here") && !hidden.text().contains("team-c"),
        "{}",
        hidden.text()
    );
}
