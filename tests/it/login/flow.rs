//! The way in: to the page that was asked for, in any number of tabs, and what is said when it does not work.

use std::time::{Duration, Instant};

use perses_sidecar_stack::openshift::{Discovery, Endpoint, Fault};

use crate::support::browser::{Browser, HERE, OPENSHIFT, gate_with_login, location, register};
use crate::support::{Gate, More, gate_with};

const SESSION: &str = "__Host-perses-session";

#[tokio::test(flavor = "multi_thread")]
async fn somebody_logs_in_and_lands_on_the_page_they_asked_for() {
    let gate = gate_with_login("").await;
    let cluster = gate.openshift.cluster();
    let mut browser = Browser::of(&gate);
    // The page that was asked for leads to the login, and that to the OAuth server.
    let answer = browser.goes("/projects/team-a/dashboards/overview?start=1h&var-x=a%20b").await;
    assert_eq!(answer.status, 302);
    let entrance = location(&answer);
    assert_eq!(
        entrance,
        format!("{HERE}/-/login?to=%2Fprojects%2Fteam-a%2Fdashboards%2Foverview%3Fstart%3D1h%26var-x%3Da%2520b")
    );
    let answer = browser.goes(entrance.strip_prefix(HERE).unwrap()).await;
    let place = location(&answer);
    assert!(
        place.starts_with(&format!("{}/oauth/authorize?response_type=code&", gate.openshift.oauth_url())),
        "{place}"
    );
    assert!(
        place.contains("scope=user%3Ainfo%20user%3Acheck-access%20user%3Alist-projects")
            && place.contains("code_challenge_method=S256")
    );
    assert!(place.contains("redirect_uri=https%3A%2F%2Fperses.example%2F-%2Fcallback&"));
    let begun: Vec<&String> = browser.jar.keys().collect();
    assert!(
        begun.len() == 1
            && begun[0].starts_with("__Host-perses-login-")
            && begun[0].len() == "__Host-perses-login-".len() + 8
    );
    let (reviews, tokens) = (cluster.count(Endpoint::TokenReviews), cluster.count(Endpoint::Token));
    let back = cluster.log_in("ada", place.split_once('?').unwrap().1).unwrap();
    let answer = browser.comes_back(&back).await;
    assert_eq!(
        (answer.status, location(&answer).as_str()),
        (302, "/projects/team-a/dashboards/overview?start=1h&var-x=a%20b")
    );
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(cluster.count(Endpoint::Token), tokens + 1, "one exchange");
    // The server itself reviews the service account's token, which is the client's secret.
    assert!(cluster.count(Endpoint::TokenReviews) - reviews <= 2, "and one review");
    assert_eq!(browser.jar.keys().collect::<Vec<_>>(), [SESSION], "what has begun is over");
    let session = browser.seen.iter().find(|line| line.starts_with(SESSION)).unwrap();
    assert!(session.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"), "{session}");

    let who = browser.asks("/-/whoami").await.json();
    assert_eq!((&who["user"], &who["authenticated_by"]), (&"ada".into(), &"session".into()));
    assert_eq!(who["projects"]["namespaces"], serde_json::json!(["team-a", "team-b"]));
    let lasts = who["until"].as_u64().unwrap()
        - std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((86_000..=86_400).contains(&lasts), "{lasts}");
    let query = browser
        .send(
            "POST",
            "/proxy/globaldatasources/p/api/v1/query",
            &[("sec-fetch-site", "same-origin"), ("content-type", "application/x-www-form-urlencoded")],
            "query=up",
        )
        .await;
    assert_eq!(query.status, 200);
    let seen = gate.upstream.take();
    assert!(seen.last().unwrap().body.contains("team-a%7Cteam-b"));
    assert!(seen.iter().all(|seen| !seen.headers.contains_key("cookie")), "our cookies reach nobody");
}

/// What the cluster is asked while somebody logs in and looks, once where to log in is known; and why.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_asks_the_cluster_nothing_that_it_need_not() {
    let gate = gate_with_login("").await;
    gate.upstream.answers("GET /projects/team-a", 200, "<!doctype html>");
    let cluster = gate.openshift.cluster();
    // Whoever comes first finds out where people log in, and whose authority is believed.
    assert_eq!(Browser::of(&gate).logs_in(&gate, "ada", "/").await.status, 302);
    let mut before = cluster.counts();
    let mut asked = || {
        let now = cluster.counts();
        let more = |(endpoint, count): (&Option<Endpoint>, &u64)| {
            let more = count - before.get(endpoint).copied().unwrap_or_default();
            (more > 0).then_some((*endpoint, more))
        };
        let asked: Vec<(Option<Endpoint>, u64)> = now.iter().filter_map(more).collect();
        before = now;
        asked
    };
    for (user, projects) in [("grace", 1), ("ada", 2)] {
        let mut browser = Browser::of(&gate);
        let place = browser.begins("/projects/team-a").await;
        assert_eq!(asked(), [], "{user}: the address of the OAuth server is written from what is known");
        let back = cluster.log_in(user, place.split_once('?').unwrap().1).unwrap();
        assert_eq!(location(&browser.comes_back(&back).await), "/projects/team-a", "{user}");
        assert_eq!(
            asked(),
            [
                // Whose token it is, which no claim of its own says.
                (Some(Endpoint::TokenReviews), 1),
                // The exchange of the code; RFC 6749, 4.1.3.
                (Some(Endpoint::Token), 1),
            ],
            "{user}"
        );
        // The first page: whether there is anything to show, found in one list of projects, one review of each kind of
        // object for the whole cluster, and one for each project that was listed.
        let of_objects = [(Some(Endpoint::AccessReviews), 3 + projects), (Some(Endpoint::Projects), 1)];
        // And whose metrics may be read, once that is asked: for all, for the whole cluster, and for each project.
        let of_metrics = [(Some(Endpoint::AccessReviews), 2 + projects), (Some(Endpoint::Projects), 1)];
        for (path, expected) in [("/projects/team-a", &of_objects), ("/-/whoami", &of_metrics)] {
            assert_eq!(browser.goes(path).await.status, 200, "{user} {path}");
            assert_eq!(asked(), *expected, "{user} {path}");
            assert_eq!(browser.goes(path).await.status, 200, "{user} {path}");
            assert_eq!(asked(), [], "{user} {path}: who it is and what they may is known by now");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_that_we_chose_are_left_out_unless_they_shall_be_honoured() {
    for (setting, status) in [("", 200), ("    scopes: honour\n", 404)] {
        let gate = gate_with_login(setting).await;
        gate.upstream.answers("GET /api/v1/projects/team-a/dashboards/d", 200, "{}");
        let mut browser = Browser::of(&gate);
        browser.logs_in(&gate, "ada", "/").await;
        assert_eq!(browser.asks("/api/v1/projects/team-a/dashboards/d").await.status, status, "{setting:?}");
        let review = gate.openshift.cluster().last_body(Endpoint::AccessReviews);
        let told = String::from_utf8(review).unwrap().contains("scopes.authorization.openshift.io");
        assert_eq!(told, status == 404);
        // The same token sent by itself is a token like any other.
        let token = gate.openshift.cluster().tokens_of("ada").remove(0);
        assert_eq!(gate.get(&token, "/api/v1/projects/team-a/dashboards/d").await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_people_who_go_somewhere_are_sent_to_log_in() {
    let gate = gate_with_login("").await;
    let html = ("accept", "text/html");
    let goes = [("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")];
    for (what, method, headers, sent) in [
        ("a page", "GET", [html, ("sec-fetch-dest", "document"), goes[0], goes[1]].as_slice(), true),
        (
            "a page in a frame",
            "GET",
            &[html, ("sec-fetch-dest", "iframe"), ("sec-fetch-site", "same-site"), goes[1]],
            true,
        ),
        ("an old browser", "GET", &[html], true),
        ("a look", "HEAD", &[html], true),
        (
            "a script of ours",
            "GET",
            &[("accept", "application/json"), ("sec-fetch-dest", "empty"), ("sec-fetch-mode", "cors")],
            false,
        ),
        ("a script that takes anything", "GET", &[("accept", "*/*"), ("sec-fetch-dest", "empty")], false),
        ("a script that says so", "GET", &[html, ("x-requested-with", "XMLHttpRequest")], false),
        ("an image", "GET", &[("accept", "image/*"), ("sec-fetch-dest", "image")], false),
        ("a tool", "GET", &[("accept", "*/*")], false),
    ] {
        let answer = gate.http.send(method, &format!("{}/-/whoami", gate.url), headers, "").await.unwrap();
        if sent {
            assert_eq!((answer.status, location(&answer)), (302, format!("{HERE}/-/login?to=%2F-%2Fwhoami")), "{what}");
        } else {
            assert_eq!((answer.status, location(&answer)), (401, String::new()), "{what}");
            assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"), "{what}");
            assert!(answer.json()["message"].as_str().unwrap().contains(&format!("{HERE}/-/login")), "{what}");
        }
        assert!(!answer.headers.contains_key("set-cookie"), "{what}: nothing has begun");
    }
    // Neither is a script that asks for the login itself, nor an image of another page: nothing begins.
    for headers in [
        [("accept", "*/*"), ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
        [html, ("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
    ] {
        let answer = gate.http.send("GET", &format!("{}/-/login?to=/", gate.url), &headers, "").await.unwrap();
        assert_eq!((answer.status, answer.headers.contains_key("set-cookie")), (401, false), "{headers:?}");
    }
    // The UI's page needs somebody, its files do not, and neither does a probe.
    gate.upstream.answers("GET /app.js", 200, "x");
    let file =
        gate.http.send("GET", &format!("{}/app.js", gate.url), &[("sec-fetch-dest", "script")], "").await.unwrap();
    assert_eq!(file.status, 200);
    assert_eq!(gate.http.send("GET", &format!("{}/-/ready", gate.url), &[], "").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_do_not_disturb_each_other_and_a_browser_keeps_few_logins() {
    let gate = gate_with_login("").await;
    let cluster = gate.openshift.cluster();
    let mut browser = Browser::of(&gate);
    let places = [browser.begins("/projects/team-a").await, browser.begins("/projects/team-b").await];
    let back = |place: &str| cluster.log_in("ada", place.split_once('?').unwrap().1).unwrap();
    let answer = browser.comes_back(&back(&places[1])).await;
    assert_eq!(location(&answer), "/projects/team-b");
    let first = browser.jar[SESSION].clone();
    let answer = browser.comes_back(&back(&places[0])).await;
    assert_eq!(location(&answer), "/projects/team-a");
    assert_ne!(browser.jar[SESSION], first, "each login makes a session of its own");
    let mut browser = Browser::of(&gate);
    for number in 0..30 {
        browser.begins(&format!("/projects/p{number}")).await;
        assert!(browser.jar.len() <= 8, "{}", browser.jar.len());
    }
    assert_eq!(browser.jar.len(), 8);
    // Cookies that are nobody's are taken away first.
    browser.jar.insert("__Host-perses-login-00000000".to_owned(), "x".to_owned());
    browser.begins("/").await;
    assert!(browser.jar.len() <= 8 && !browser.jar.contains_key("__Host-perses-login-00000000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_back_button_and_a_second_person_do_no_harm() {
    let gate = gate_with_login("").await;
    let cluster = gate.openshift.cluster();
    let mut browser = Browser::of(&gate);
    let place = browser.begins("/projects/team-a").await;
    let back = cluster.log_in("ada", place.split_once('?').unwrap().1).unwrap();
    let mut copy = browser.clone();
    browser.comes_back(&back).await;
    let tokens = cluster.count(Endpoint::Token);
    assert_eq!(copy.comes_back(&back).await.status, 400, "used up, also for whoever kept the cookie");
    assert!(!copy.jar.contains_key(SESSION));
    let answer = browser.comes_back(&back).await;
    assert_eq!((answer.status, cluster.count(Endpoint::Token)), (400, tokens), "used up, and nobody was asked");
    assert!(answer.text().contains("Log in again") && answer.text().contains("Request <code>"), "{}", answer.text());
    assert_eq!(browser.who().await, "ada", "the session stands");
    browser.logs_in(&gate, "grace", "/").await;
    assert_eq!(browser.who().await, "grace", "a second person on the same browser is the second person");
}

/// Login CSRF and its relatives: nothing is redeemed for a state that this browser did not begin.
#[tokio::test(flavor = "multi_thread")]
async fn no_code_is_redeemed_for_a_state_that_is_not_this_browsers() {
    let gate = gate_with_login("").await;
    let cluster = gate.openshift.cluster();
    let (mut ours, mut other) = (Browser::of(&gate), Browser::of(&gate));
    let place = ours.begins("/").await;
    other.begins("/").await;
    let back = cluster.log_in("ada", place.split_once('?').unwrap().1).unwrap();
    let state = back.split("state=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let tokens = cluster.count(Endpoint::Token);
    let code = back.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let mut none = Browser::of(&gate);
    assert_eq!(none.comes_back(&back).await.status, 400, "no cookie");
    assert_eq!(other.comes_back(&back).await.status, 400, "another browser's cookie");
    let own = format!("{:?}", ours.jar);
    let flipped = format!("{}{}", &state[..42], if state.ends_with('A') { "B" } else { "A" });
    for (what, query) in [
        ("another state", format!("code={code}&state={flipped}")),
        ("no state", format!("code={code}")),
        ("an empty state", format!("code={code}&state=")),
        ("two states", format!("code={code}&state={state}&state={flipped}")),
        ("nothing", String::new()),
        ("only an error", "error=access_denied".to_owned()),
    ] {
        let answer = ours.comes_back(&format!("{HERE}/-/callback?{query}")).await;
        assert_eq!(answer.status, 400, "{what}");
        assert!(!answer.text().contains(&code) && !ours.jar.contains_key(SESSION), "{what}");
    }
    // The cookie under another name, and as a session.
    let (name, value) = ours.jar.iter().next().map(|(name, value)| (name.clone(), value.clone())).unwrap();
    let mut moved = Browser::of(&gate);
    moved.jar.insert("__Host-perses-login-00000000".to_owned(), value.clone());
    moved.jar.insert(SESSION.to_owned(), format!("1.{value}"));
    assert_eq!((moved.comes_back(&back).await.status, moved.who().await.as_str()), (400, ""));
    assert_eq!(cluster.count(Endpoint::Token), tokens, "the token endpoint was asked nothing");
    assert_eq!(format!("{:?}", ours.jar), own, "and what has begun may still be finished");
    // Beside one that is nobody's, the good one is found.
    let answer =
        ours.send("GET", back.strip_prefix(HERE).unwrap(), &[("cookie", &format!("{name}=nonsense"))], "").await;
    assert_eq!(answer.status, 302, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_no_to_is_told_with_a_way_to_try_again() {
    let gate = gate_with_login("").await;
    let cluster = gate.openshift.cluster();
    let mut browser = Browser::of(&gate);
    let denied = |place: &str| {
        let state = place.split("&state=").nth(1).unwrap().split('&').next().unwrap();
        format!("{HERE}/-/callback?error=access_denied&error_description=no&state={state}")
    };
    let place = browser.begins("/projects/team-a").await;
    let answer = browser.comes_back(&denied(&place)).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(
        answer.text().contains("You are not logged in") && answer.text().contains("/-/login?to=%2Fprojects%2Fteam-a"),
        "{}",
        answer.text()
    );
    assert!(!browser.jar.contains_key(SESSION));
    for (error, status) in
        [("invalid_scope", 502), ("server_error", 503), ("temporarily_unavailable", 503), ("<script>", 502)]
    {
        let place = browser.begins("/").await;
        let state = place.split("&state=").nth(1).unwrap().split('&').next().unwrap();
        let answer = browser
            .comes_back(&format!(
                "{HERE}/-/callback?error={}&error_description=%3Cb%3E&state={state}",
                error.replace('<', "%3C").replace('>', "%3E")
            ))
            .await;
        assert_eq!(answer.status, status, "{error}");
        assert!(!answer.text().contains("<script>") && !answer.text().contains("<b>"), "{}", answer.text());
    }
    // Both, and neither: an error wins, and nothing is not a code.
    let tokens = cluster.count(Endpoint::Token);
    for query in ["code=x&error=access_denied", ""] {
        let place = browser.begins("/").await;
        let state = place.split("&state=").nth(1).unwrap().split('&').next().unwrap();
        let status =
            browser.comes_back(&format!("{HERE}/-/callback?{query}&state={state}").replace("?&", "?")).await.status;
        assert_eq!(status, if query.is_empty() { 502 } else { 403 });
    }
    // A code of another issuer.
    let place = browser.begins("/").await;
    let back = cluster.log_in("ada", place.split_once('?').unwrap().1).unwrap();
    assert_eq!(browser.comes_back(&format!("{back}&iss=https%3A%2F%2Fevil.example")).await.status, 502);
    assert_eq!(cluster.count(Endpoint::Token), tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_fails_lets_nobody_in() {
    let gate = gate_with_login("").await;
    let cluster = gate.openshift.cluster();
    let raw = |status, kind: &str, body: &str| Fault::Raw { status, kind: kind.to_owned(), body: body.to_owned() };
    for fault in [
        raw(500, "text/plain", "Error: something"),
        raw(200, "text/html", "<html>sha256~leak</html>"),
        raw(
            200,
            "application/json",
            r#"{"access_token":"sha256~made-up-by-somebody-else-entirely-000000000000","token_type":"mac"}"#,
        ),
        raw(400, "application/json", r#"{"error":"unauthorized_client"}"#),
        Fault::Redirect("https://evil.example/token".to_owned()),
        Fault::Truncated,
        Fault::Reset,
        // Longer than a person is kept waiting.
        Fault::Slow(Duration::from_secs(60)),
    ] {
        let mut browser = Browser::of(&gate);
        cluster.set_fault(Endpoint::Token, Some(fault.clone()));
        let begun = Instant::now();
        let answer = browser.logs_in(&gate, "ada", "/").await;
        assert_eq!(answer.status, 502, "{fault:?}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{fault:?}: {:?}", begun.elapsed());
        assert!(
            answer.text().contains("Log in again") && !answer.text().contains("sha256~"),
            "{fault:?}: {}",
            answer.text()
        );
        assert!(!browser.jar.contains_key(SESSION), "{fault:?}");
        cluster.set_fault(Endpoint::Token, None);
        assert_eq!(browser.logs_in(&gate, "ada", "/").await.status, 302, "it recovers at once");
    }
    // A token that the cluster does not know is no session either.
    let mut browser = Browser::of(&gate);
    let made_up = r#"{"access_token":"sha256~made-up","token_type":"Bearer","expires_in":86400}"#;
    cluster.set_fault(Endpoint::Token, Some(raw(200, "application/json", made_up)));
    let answer = browser.logs_in(&gate, "ada", "/").await;
    assert_eq!((answer.status, browser.jar.contains_key(SESSION)), (403, false), "{}", answer.text());
}

async fn ready(gate: &Gate) -> (u16, String) {
    let answer = gate.http.send("GET", &format!("{}/readyz", gate.admin), &[], "").await.unwrap();
    (answer.status, answer.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_is_tried_again_and_404_means_that_there_is_none() {
    let gate = gate_with_login("").await;
    let cluster = gate.openshift.cluster();
    cluster.set_fault(Endpoint::Discovery, Some(Fault::Status(500, String::new())));
    let mut browser = Browser::of(&gate);
    let answer = browser.goes("/-/login").await;
    assert_eq!((answer.status, answer.headers.contains_key("retry-after")), (503, true));
    let (status, text) = ready(&gate).await;
    assert!(status == 503 && text.contains("login failed: discovery failed"), "{status} {text}");
    assert_eq!(gate.get(&gate.token("ada"), "/api/v1/user/whoami").await.status, 200, "tokens are taken meanwhile");
    let asked = cluster.count(Endpoint::Discovery);
    for _ in 0..20 {
        assert_eq!(browser.goes("/-/login").await.status, 503);
    }
    assert!(cluster.count(Endpoint::Discovery) <= asked + 1, "it is not asked for each of them");
    cluster.set_fault(Endpoint::Discovery, None);
    let mut status = 503;
    for _ in 0..100 {
        status = browser.goes("/-/login").await.status;
        if status == 302 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((status, ready(&gate).await.0), (302, 200), "and again, soon");
    // No OAuth server at all: people are told, tokens are taken, and that is no fault.
    let gate = gate_with_login("").await;
    gate.openshift.cluster().set_discovery(Discovery::Missing);
    let answer = Browser::of(&gate).goes("/-/login").await;
    assert!(answer.status == 404 && answer.text().contains("send a token"), "{}", answer.text());
    let (status, text) = ready(&gate).await;
    assert!(status == 200 && text.contains("login ok: nowhere"), "{text}");
    assert_eq!(gate.get(&gate.token("ada"), "/api/v1/user/whoami").await.status, 200);
    // Where nobody is to log in at all.
    let gate = gate_with(More { rest: "login:\n  none: true\n", ..More::default() }).await;
    for path in ["/-/login", "/-/callback?code=x&state=y", "/-/logout"] {
        assert_eq!(Browser::of(&gate).goes(path).await.status, 404, "{path}");
    }
    assert_eq!(Browser::of(&gate).goes("/api/v1/projects").await.status, 401, "a page, no redirect");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_read_for_each_login_and_authorities_change_without_a_restart() {
    let gate = gate_with_login("").await;
    let cluster = gate.openshift.cluster();
    let mut browser = Browser::of(&gate);
    assert_eq!(browser.logs_in(&gate, "ada", "/").await.status, 302);
    // As kubelet does once an hour: another token.
    let after = cluster.service_account_token("perses", "perses-sidecar", &[]);
    std::fs::write(gate.openshift.token_file(), &after).unwrap();
    assert_eq!(browser.logs_in(&gate, "ada", "/").await.status, 302);
    let sent = String::from_utf8(cluster.last_body(Endpoint::Token)).unwrap();
    assert!(sent.ends_with(&format!("&client_secret={after}")), "the new one is sent");
    gate.openshift.rotate_oauth_authority().unwrap();
    let mut status = 0;
    for _ in 0..60 {
        status = Browser::of(&gate).logs_in(&gate, "ada", "/").await.status;
        if status == 302 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(status, 302, "the new authority is believed");
    assert_eq!(browser.who().await, "ada", "sessions live through a reload");
}

/// Any application below the same domain may set a cookie that browsers send to all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_of_another_application_shuts_nobody_out() {
    let gate = gate_with_login("").await;
    let mut browser = Browser::of(&gate);
    // Before ours in the line, and behind them.
    browser.jar.insert("0".to_owned(), "gr\u{fc}n".to_owned());
    browser.jar.insert("x".to_owned(), "\u{2028}".to_owned());
    let answer = browser.logs_in(&gate, "ada", "/projects/team-a").await;
    assert_eq!((answer.status, location(&answer).as_str()), (302, "/projects/team-a"), "{}", answer.text());
    assert_eq!(browser.who().await, "ada");
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_prefix_everything_lives_below_it() {
    let rest = OPENSHIFT.to_owned();
    let gate = gate_with(More { perses: "  api_prefix: /perses\n", rest: &rest, ..More::default() }).await;
    register(&gate, &format!("{HERE}/perses"));
    let mut browser = Browser::of(&gate);
    browser.prefix = "/perses".to_owned();
    let answer = browser.goes("/perses/projects/team-a").await;
    assert_eq!(location(&answer), format!("{HERE}/perses/-/login?to=%2Fperses%2Fprojects%2Fteam-a"));
    let answer = browser.logs_in(&gate, "ada", "/perses/projects/team-a").await;
    assert_eq!((answer.status, location(&answer).as_str()), (302, "/perses/projects/team-a"));
    assert_eq!(browser.jar.keys().collect::<Vec<_>>(), ["__Secure-perses-session"]);
    assert!(
        browser.seen.iter().all(|line| line.contains("; Path=/perses; Secure; HttpOnly; SameSite=Lax")),
        "{:?}",
        browser.seen
    );
    assert_eq!(browser.who().await, "ada");
    let answer = browser.logs_in(&gate, "ada", "/elsewhere").await;
    assert_eq!(location(&answer), "/perses/", "what is not below it is home");
    assert_eq!(browser.goes("/-/whoami").await.status, 404);
    let page = browser.goes("/perses/-/whoami").await.text();
    assert!(page.contains("href=\"/perses/-/logout\"") && page.contains("href=\"/perses/\""), "{page}");
}
