//! What other pages, copied cookies and made-up ones can do: nothing.

use std::sync::Arc;

use perses_sidecar_stack::openshift::Endpoint;

use crate::support::browser::{ASKS, Browser, GOES, HERE, OPENSHIFT, gate_with_login, location, register};
use crate::support::{More, Process, gate_with};

const SESSION: &str = "__Host-perses-session";

/// A form whose answer somebody reads is answered by a page, whoever made the form; a script reads JSON.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_refused_is_answered_by_a_page() {
    let gate = gate_with_login("").await;
    let mut browser = Browser::of(&gate);
    browser.logs_in(&gate, "ada", "/").await;
    let jar = browser.jar.clone();
    let (goes, document) = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"));
    let (elsewhere, evil) = (("sec-fetch-site", "cross-site"), ("origin", "https://evil.example"));
    let form = ("content-type", "application/x-www-form-urlencoded");
    for (path, headers, status, page) in [
        ("/-/logout", vec![goes, document, elsewhere, evil], 403, true),
        ("/-/logout", vec![goes, ("sec-fetch-dest", "iframe"), ("sec-fetch-site", "same-site"), evil], 403, true),
        ("/-/logout", vec![("accept", "text/html"), evil], 403, true),
        ("/-/logout", vec![("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), elsewhere, evil], 403, false),
        ("/-/logout", vec![("accept", "application/json"), evil], 403, false),
        ("/-/gallery", vec![goes, document, elsewhere, evil, form], 403, true),
        ("/-/gallery/restore/team-a/x", vec![goes, document, elsewhere, evil, form], 403, true),
        ("/api/v1/projects", vec![goes, document, elsewhere, evil, form], 403, true),
        ("/api/v1/projects", vec![("accept", "text/html"), evil, form], 403, false),
        ("/-/callback", vec![goes, document, elsewhere, evil, form], 405, true),
    ] {
        let answer = browser.send("POST", path, &headers, "").await;
        let text = answer.text();
        assert_eq!(answer.status, status, "{path} {headers:?}: {text}");
        assert_eq!(text.starts_with("<!doctype html>"), page, "{path} {headers:?}: {text}");
        let kind = answer.headers["content-type"].to_str().unwrap();
        assert_eq!(kind, if page { "text/html; charset=utf-8" } else { "application/json" }, "{path}");
        if page && status == 403 {
            assert!(text.contains("You may not do this") && text.contains("href=\""), "a way on: {text}");
            assert!(answer.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        }
        assert_eq!(browser.jar, jar, "nothing has happened to the session");
    }
    assert_eq!(browser.who().await, "ada");
}

/// Other origins, our sister applications among them, get nothing by a cookie; tokens are not theirs to send.
#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_counts_for_our_own_pages_only() {
    let gate = gate_with_login("").await;
    let mut browser = Browser::of(&gate);
    browser.logs_in(&gate, "ada", "/").await;
    gate.upstream.answers("DELETE /api/v1/projects/team-a/dashboards/d", 204, "");
    gate.upstream.answers("GET /api/v1/projects/team-a/dashboards/d", 200, "{}");
    let path = "/api/v1/projects/team-a/dashboards/d";
    assert_eq!(browser.changes("DELETE", path, "").await.status, 204);
    gate.upstream.take();
    let (site, origin) = ("sec-fetch-site", "origin");
    for bad in [
        [(site, "cross-site"), (origin, "https://evil.example")].as_slice(),
        &[(site, "same-site"), (origin, "https://other.example")],
        &[(site, "same-site"), (origin, HERE)],
        &[(origin, "https://evil.example")],
        &[(origin, "null")],
        &[(site, "none")],
        &[],
    ] {
        let answer = browser.send("DELETE", path, bad, "").await;
        assert_eq!(answer.status, 403, "{bad:?}");
        assert!(answer.json()["message"].as_str().unwrap().contains("our own pages"), "{}", answer.text());
    }
    let reads = [
        [(site, "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")],
        [(site, "same-site"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
    ];
    for bad in reads {
        assert_eq!(browser.send("GET", path, &bad, "").await.status, 403, "{bad:?}");
    }
    assert!(gate.upstream.take().is_empty(), "nothing of it reached Perses");
    // A link from another page is somebody who goes somewhere.
    let linked =
        [("accept", "text/html"), (site, "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(browser.send("GET", path, &linked, "").await.status, 200);
    // A token is nothing that a browser sends by itself.
    let authorization = format!("Bearer {}", gate.token("ada"));
    let headers =
        [("authorization", authorization.as_str()), (origin, "https://console.example"), (site, "cross-site")];
    assert_eq!(gate.http.send("DELETE", &format!("{}{path}", gate.url), &headers, "").await.unwrap().status, 204);
}

/// Both on one port; whoever sends a token is judged by it, whatever the cookie says.
#[tokio::test(flavor = "multi_thread")]
async fn two_doors_stand_open_at_once() {
    let gate = gate_with_login("").await;
    let mut browser = Browser::of(&gate);
    browser.logs_in(&gate, "ada", "/").await;
    let grace = format!("Bearer {}", gate.token("grace"));
    let headers = [ASKS.as_slice(), &[("authorization", &grace)]].concat();
    let who = browser.send("GET", "/-/whoami", &headers, "").await.json();
    assert_eq!((&who["user"], &who["authenticated_by"]), (&"grace".into(), &"bearer".into()));
    let headers = [GOES.as_slice(), &[("authorization", "Bearer sha256~nobody")]].concat();
    let answer = browser.send("GET", "/-/whoami", &headers, "").await;
    assert_eq!((answer.status, location(&answer).as_str()), (401, ""), "a bad token is told, not replaced by a login");
    assert_eq!(browser.who().await, "ada", "and the session stands");
    // What a proxy before us claims about somebody is nothing.
    let claims = [
        ASKS.as_slice(),
        &[("x-forwarded-user", "root"), ("x-auth-request-user", "root"), ("x-forwarded-access-token", &grace[7..])],
    ]
    .concat();
    assert_eq!(browser.send("GET", "/-/whoami", &claims, "").await.json()["user"], "ada");
    let nobody = gate.http.send("GET", &format!("{}/-/whoami", gate.url), &claims, "").await.unwrap();
    assert_eq!(nobody.status, 401);
}

/// No header of a request moves the login, the cookie or where the code is sent.
#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_the_login_is_the_configured_one() {
    let gate = gate_with_login("").await;
    let forged = [
        ("host", "evil.example"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-uri", "/-/ready"),
        ("x-original-url", "/-/ready"),
        ("x-auth-request-redirect", "https://evil.example/"),
        ("forwarded", "host=evil.example;proto=http"),
    ];
    let headers = [GOES.as_slice(), &forged].concat();
    let mut browser = Browser::of(&gate);
    let answer = browser.send("GET", "/projects/team-a", &headers, "").await;
    assert_eq!(location(&answer), format!("{HERE}/-/login?to=%2Fprojects%2Fteam-a"));
    let answer = browser.send("GET", "/-/login?to=/projects/team-a", &headers, "").await;
    let place = location(&answer);
    assert!(place.contains("redirect_uri=https%3A%2F%2Fperses.example%2F-%2Fcallback&"), "{place}");
    assert!(
        !place.contains("evil") && browser.seen.iter().all(|line| !line.contains("evil") && !line.contains("Domain"))
    );
}

/// Where somebody lands after a login: a place of ours, whatever was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_never_leads_elsewhere() {
    let gate = gate_with_login("").await;
    let elsewhere = [
        "",
        "//redirect",
        "//evil.example",
        "///evil.example",
        "////evil.example/%2e%2e",
        "http://foo.bar/redirect",
        "https://evil.example/redirect",
        "http://evil.corp/redirect?rd=foo.bar",
        "https://evil.corp:3838/redirect",
        "foo.bar/redirect",
        "/\\evil.example",
        "/ /evil.example",
        "/ \\evil.example",
        "/\t/evil.example",
        "/\t\\evil.example",
        "/\u{b}/evil.example",
        "/\u{b}\\evil.example",
        "/\n/evil.example",
        "/\n\\evil.example",
        "/\r/evil.example",
        "/\r\\evil.example",
        "/\t/\t\\evil.example",
        "/./\\evil.example",
        "/./../../\\evil.example",
        "/%09/example.com",
        "/%5cgoogle.com",
        "//%2fxgoogle.com",
        "//google%E3%80%82com",
        "javascript:alert(1)",
        "javascript://%250Aalert(1)",
        "/https://example.com",
        "http:00330.00072.0000326.00000316",
        "ｰlocaldomain.pw",
        "/a/../..//evil.example",
        "/..//evil.example",
        "/.//evil.example",
        "/@evil.example/..//",
        "\\/evil.example",
        "\\\\evil.example",
        "/a\u{0}b",
        "/-/login",
        "/-/logout?x",
        "/-/callback?code=x",
        "data:text/html,x",
        "/\u{202e}evil",
        "/%2f%2fevil.example",
        "/;@evil.example",
        " /x",
        "/x y",
        "https:evil.example",
        "https:/evil.example",
        "/x\r\nset-cookie: a=b",
        "?to=x",
        "#x",
        ".",
        "..",
        "/..",
        "/.",
    ];
    for to in elsewhere {
        let escaped: String = to.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut browser = Browser::of(&gate);
        let answer = browser.goes(&format!("/-/login?to={escaped}")).await;
        let query = location(&answer).split_once('?').unwrap().1.to_owned();
        let back = gate.openshift.cluster().log_in("ada", &query).unwrap();
        let answer = browser.comes_back(&back).await;
        assert_eq!((answer.status, location(&answer).as_str()), (302, "/"), "{to:?}");
    }
    for here in
        ["/", "/redirect", "/projects/team-a?x=%2F%2Fevil.example", "/explore?data=%7B%22a%22%3A%22%5C%5C%22%7D"]
    {
        let mut browser = Browser::of(&gate);
        let escaped: String = here.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let query =
            location(&browser.goes(&format!("/-/login?to={escaped}")).await).split_once('?').unwrap().1.to_owned();
        let back = gate.openshift.cluster().log_in("ada", &query).unwrap();
        assert_eq!(location(&browser.comes_back(&back).await), here);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_without_logging_anybody_out() {
    let key = |letter: char| format!("{letter}0123456789abcdefghijklmnopqrstuvwxyz");
    let folder = std::env::temp_dir().join(format!("keys-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for letter in ['a', 'b'] {
        std::fs::write(folder.join(letter.to_string()), key(letter)).unwrap();
    }
    let session = |keys: &str| {
        let paths: Vec<String> =
            keys.chars().map(|letter| folder.join(letter.to_string()).display().to_string()).collect();
        format!("  session:\n    key_files: [{}]\n", paths.join(", "))
    };
    let gate = gate_with_login(&session("a")).await;
    let text = std::fs::read_to_string(&gate.config).unwrap();
    let mut old = Browser::of(&gate);
    old.logs_in(&gate, "ada", "/").await;
    let turn = async |from: &str, to: &str| {
        let text = std::fs::read_to_string(&gate.config).unwrap();
        std::fs::write(&gate.config, text.replace(&session(from), &session(to))).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    };
    turn("a", "ba").await;
    assert_eq!(old.who().await, "ada", "sealed with the key of before");
    let mut new = Browser::of(&gate);
    new.logs_in(&gate, "grace", "/").await;
    turn("ba", "b").await;
    assert_eq!((old.who().await.as_str(), new.who().await.as_str()), ("", "grace"), "a key that is gone opens nothing");
    // Another replica with the same key serves the same session.
    let other = gate_with_login(&session("b")).await;
    let token = gate.openshift.cluster().tokens_of("grace").remove(0);
    let mut moved = Browser::of(&other);
    moved.jar = new.jar.clone();
    assert_eq!(moved.who().await, "", "its cluster does not know the token");
    assert!(
        !token.is_empty() && other.openshift.cluster().count(Endpoint::TokenReviews) > 0,
        "but the cookie was opened and asked about"
    );
    assert!(text.contains("key_files"));
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Nobody is asked about a cookie that we did not make, and nothing is kept of it. `LOGIN_COOKIES` says how many.
#[tokio::test(flavor = "multi_thread")]
async fn made_up_cookies_cost_the_cluster_nothing() {
    let count: usize = std::env::var("LOGIN_COOKIES").ok().and_then(|text| text.parse().ok()).unwrap_or(5000);
    let process = Arc::new(Process::start("warn", More { rest: OPENSHIFT, ..More::default() }, &[]).await);
    let cluster = process.stage.openshift.cluster();
    let url = format!("http://{}", process.address);
    let (reviews, projects) = (cluster.count(Endpoint::TokenReviews), cluster.count(Endpoint::Projects));
    let mut crowd = tokio::task::JoinSet::new();
    let before = process.memory();
    for _ in 0..8 {
        let (process, url) = (Arc::clone(&process), url.clone());
        crowd.spawn(async move {
            for number in 0..count / 8 {
                let length = if number % 100 == 0 { 3000 } else { 40 + number % 300 };
                let sealed = perses_sidecar_stack::openshift::random_text(length);
                let cookie = match number % 3 {
                    0 => format!("{SESSION}=1.{sealed}"),
                    1 => format!("{SESSION}=2.{sealed}; {SESSION}-1={sealed}"),
                    _ => format!("__Host-perses-login-0123abcd={sealed}; {SESSION}={sealed}"),
                };
                let answer = process
                    .http
                    .send("GET", &format!("{url}/api/v1/projects"), &[("cookie", &cookie)], "")
                    .await
                    .unwrap();
                assert_eq!(answer.status, 401);
                if number % 500 == 0 {
                    assert_eq!(process.ask(&process.ada).await, 200, "others are served meanwhile");
                }
            }
        });
    }
    crowd.join_all().await;
    let grown = process.memory().saturating_sub(before);
    assert!(grown < 32, "{grown} MiB more");
    assert!(cluster.count(Endpoint::TokenReviews) <= reviews + 2, "nobody was asked about them");
    assert!(cluster.count(Endpoint::Projects) <= projects + 2);
    assert_eq!(process.ask(&process.ada).await, 200);
}

/// Everything that was minted during logins, logouts and refusals is looked for in the most talkative log there is.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_login_is_logged() {
    let process = Process::start("trace", More { rest: OPENSHIFT, ..More::default() }, &[]).await;
    let cluster = process.stage.openshift.cluster();
    cluster.annotate_account(
        "perses",
        "perses-sidecar",
        "serviceaccounts.openshift.io/oauth-redirecturi.first",
        &format!("{HERE}/-/callback"),
    );
    let mut browser = Browser::at(&format!("http://{}", process.address));
    let mut secrets = Vec::new();
    for user in ["ada", "eve"] {
        let place = browser.begins("/projects/team-a").await;
        secrets.extend(
            ["&state=", "&code_challenge="]
                .map(|name| place.split(name).nth(1).unwrap().split('&').next().unwrap().to_owned()),
        );
        let back = cluster.log_in(user, place.split_once('?').unwrap().1).unwrap();
        secrets.push(back.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned());
        browser.comes_back(&back).await;
        browser.comes_back(&back).await;
        browser.asks("/-/whoami").await;
        browser.goes("/").await;
    }
    browser.changes("POST", "/-/logout", "").await;
    secrets.extend(
        browser
            .seen
            .iter()
            .filter_map(|line| line.split(';').next()?.split_once('='))
            .map(|(_, value)| value.to_owned()),
    );
    secrets.extend(cluster.minted());
    secrets.retain(|secret| secret.len() > 20);
    assert!(secrets.len() > 15, "{}", secrets.len());
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let (log, audit) = (process.log(), std::fs::read_to_string(&process.stage.audit).unwrap());
    assert!(log.len() > 10_000 && log.contains("People log in there"), "it is talkative");
    for secret in &secrets {
        let core = secret.trim_start_matches("1.").trim_start_matches("sha256~");
        assert!(!log.contains(core) && !audit.contains(core), "{secret} is in the log");
    }
    let lines: Vec<&str> = audit.lines().filter(|line| line.contains("\"resource\":\"login\"")).collect();
    assert!(
        lines.iter().any(|line| line.contains("\"verb\":\"create\"")
            && line.contains("\"name\":\"ada\"")
            && line.contains("\"verdict\":\"allowed\"")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.contains("login_stale") && line.contains("\"verdict\":\"refused\"")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.contains("\"verb\":\"delete\"") && line.contains("\"name\":\"eve\"")),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_for_the_console_if_somebody_says_so() {
    for (setting, pages, files) in [
        ("", "frame-ancestors 'none';", "frame-ancestors 'self'"),
        (
            "  frame_ancestors: [\"https://console.example\"]\n",
            "frame-ancestors 'self' https://console.example;",
            "frame-ancestors 'self' https://console.example",
        ),
    ] {
        let gate = gate_with_login(setting).await;
        gate.upstream.answers("GET /", 200, "<html>");
        let mut browser = Browser::of(&gate);
        browser.logs_in(&gate, "ada", "/").await;
        for path in ["/-/whoami", "/-/logout", "/-/callback"] {
            let headers = browser.goes(path).await.headers;
            let policy = headers["content-security-policy"].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'none'; style-src 'unsafe-inline'; ") && policy.contains(pages),
                "{path}: {policy}"
            );
            assert_eq!(headers.contains_key("x-frame-options"), setting.is_empty(), "{path}");
            let plain = ["cache-control", "x-content-type-options", "referrer-policy"]
                .map(|name| headers[name].to_str().unwrap());
            assert_eq!(plain, ["no-store", "nosniff", "strict-origin"], "{path}");
        }
        assert_eq!(browser.goes("/").await.headers["content-security-policy"], files);
    }
    let gate = gate_with(More::default()).await;
    register(&gate, HERE);
    gate.upstream.answers("GET /", 200, "<html>");
    let answer = gate.http.send("GET", &format!("{}/", gate.url), &GOES, "").await.unwrap();
    assert_eq!(
        (answer.status, &answer.headers["x-frame-options"]),
        (200, &http::HeaderValue::from_static("SAMEORIGIN"))
    );
}
