//! What the real server does, one test for each behaviour.
#![allow(clippy::unwrap_used, reason = "tests")]

use http_body_util::BodyExt;
use serde_json::Value;

use super::super::Cluster;
use super::*;
use crate::encoding::{digest, escape, form};

const APP: &str = "https://app/oauth/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const ACCOUNT: &str = "system:serviceaccount:perses:perses-sidecar";
const REDIRECT: &str = "serviceaccounts.openshift.io/oauth-redirecturi.app";

/// An answer, read.
struct Read {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Read {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{} {}", self.status, self.body))
    }

    fn error(&self) -> String {
        assert_eq!(self.status, 400, "{}", self.body);
        self.json()["error"].as_str().unwrap().to_owned()
    }

    fn location(&self) -> &str {
        self.headers.get(LOCATION).map(|to| to.to_str().unwrap()).unwrap_or_default()
    }

    /// A parameter of the address that the browser is sent to.
    fn sent(&self, name: &str) -> Option<String> {
        assert_eq!(self.status, 302, "{}", self.body);
        let query = self.location().split_once(['?', '#'])?.1;
        value(&pairs(query), name).map(str::to_owned)
    }

    fn hidden(&self, name: &str) -> String {
        let start = self.body.split_once(&format!("name={name} value=\"")).unwrap().1;
        start.split_once('"').unwrap().0.replace("&amp;", "&")
    }
}

struct Town {
    cluster: Cluster,
    now: SystemTime,
    cookies: BTreeMap<String, String>,
    /// The token of the account that stands for the client.
    secret: String,
}

impl Town {
    fn new() -> Self {
        let cluster = Cluster::default();
        cluster.add_user("ada", &[]);
        cluster.set_password("ada", "lovelace");
        cluster.add_user(KUBE_ADMIN, &["system:cluster-admins"]);
        cluster.set_password(KUBE_ADMIN, "admin");
        let secret = cluster.service_account_token("perses", "perses-sidecar", &[]);
        cluster.annotate_account("perses", "perses-sidecar", REDIRECT, APP);
        cluster.set_token_lifetime(Some(86_400));
        Self { cluster, now: SystemTime::now(), cookies: BTreeMap::new(), secret }
    }

    fn ask(&mut self, method: &Method, target: &str, body: &str) -> Read {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, cookies.join("; ").parse().unwrap());
        self.send(&Question { method, path, query, headers: &headers, body: body.as_bytes() })
    }

    fn send(&mut self, question: &Question<'_>) -> Read {
        let answer = answer(&mut self.cluster.state(), question, self.now);
        for line in answer.headers().get_all(SET_COOKIE) {
            let line = line.to_str().unwrap();
            assert!(line.contains("; HttpOnly; Secure"), "{line}");
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.remove(name);
            if !value.is_empty() {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let (head, body) = answer.into_parts();
        let body = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(body.collect()).unwrap();
        let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        Read { status: head.status.as_u16(), headers: head.headers, body }
    }

    fn get(&mut self, target: &str) -> Read {
        self.ask(&Method::GET, target, "")
    }

    fn authorize(&mut self, pairs: &[(&str, &str)]) -> Read {
        self.get(&format!("/oauth/authorize?{}", form(pairs)))
    }

    /// Through the pages, as far as they lead.
    fn log_in(&mut self, user: &str, password: &str, wish: &[(&str, &str)]) -> Read {
        let first = self.authorize(wish);
        if !first.location().starts_with("/login?") {
            return first;
        }
        let page = self.get(first.location());
        let filled = form(&[
            ("username", user),
            ("password", password),
            ("then", &page.hidden("then")),
            ("csrf", &page.hidden("csrf")),
        ]);
        let answer = self.ask(&Method::POST, "/login", &filled);
        if answer.status == 302 { self.get(answer.location()) } else { answer }
    }

    fn code(&mut self, more: &[(&str, &str)]) -> String {
        let mut wish = wish(APP);
        wish.extend_from_slice(more);
        self.log_in("ada", "lovelace", &wish).sent("code").unwrap()
    }

    fn token(&mut self, code: &str, change: &[(&str, &str)]) -> Read {
        let secret = self.secret.clone();
        let mut pairs = vec![
            ("grant_type", "authorization_code"),
            ("client_id", ACCOUNT),
            ("client_secret", &secret),
            ("code", code),
            ("redirect_uri", APP),
            ("code_verifier", VERIFIER),
        ];
        for (name, value) in change {
            pairs.retain(|(known, _)| known != name);
            if !value.is_empty() {
                pairs.push((name, value));
            }
        }
        self.ask(&Method::POST, "/oauth/token", &form(&pairs))
    }
}

/// What our own product asks for.
fn wish(redirect_uri: &str) -> Vec<(&str, &str)> {
    vec![
        ("response_type", "code"),
        ("client_id", ACCOUNT),
        ("redirect_uri", redirect_uri),
        ("scope", "user:info user:check-access user:list-projects"),
        ("state", "st&te"),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
    ]
}

fn with<'p>(change: &[(&'p str, &'p str)]) -> Vec<(&'p str, &'p str)> {
    let mut pairs = wish(APP);
    for (name, value) in change {
        pairs.retain(|(known, _)| known != name);
        if !value.is_empty() {
            pairs.push((name, value));
        }
    }
    pairs
}

#[test]
fn the_whole_way() {
    let mut town = Town::new();
    let answer = town.log_in("ada", "lovelace", &wish(APP));
    assert!(answer.location().starts_with("https://app/oauth/callback?code=sha256~"), "{}", answer.location());
    assert_eq!(answer.sent("state").unwrap(), "st&te");
    assert!(answer.sent("iss").is_none(), "RFC 9207 is not spoken");
    let token = town.token(&answer.sent("code").unwrap(), &[]);
    assert_eq!(token.status, 200);
    assert!(token.headers[CACHE_CONTROL].to_str().unwrap().contains("no-store"));
    let token = token.json();
    let text = token["access_token"].as_str().unwrap();
    assert!(text.starts_with("sha256~") && text.len() == 50);
    assert_eq!((token["token_type"].as_str(), token["expires_in"].as_u64()), (Some("Bearer"), Some(86_400)));
    assert_eq!(token["scope"], "user:info user:check-access user:list-projects");
    assert!(token.get("refresh_token").is_none() && token.get("id_token").is_none());
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {text}").parse().unwrap());
    let question = Question { method: &Method::GET, path: "/oauth/info", query: "", headers: &headers, body: b"" };
    assert_eq!(town.send(&question).json()["client_id"], ACCOUNT);
    assert!(town.cluster.minted().contains(&text.to_owned()));
}

#[test]
fn where_a_code_may_be_sent() {
    let mut town = Town::new();
    for good in [APP, "https://app/oauth/callback/below", "https://app/oauth/callback?x=1"] {
        assert_eq!(town.log_in("ada", "lovelace", &wish(good)).status, 302, "{good}");
    }
    for bad in [
        "https://app/oauth",
        "https://app/oauth/callback2",
        "https://app/oauth/callback/../x",
        "https://app/",
        "https://evil/oauth/callback",
        "https://app:8443/oauth/callback",
        "http://app/oauth/callback",
        "https://app/oauth/callback#x",
        "https://ada@app/oauth/callback",
        "https://app@evil/oauth/callback",
        "//app/oauth/callback",
        "/oauth/callback",
        "%68ttps://app/oauth/%zz",
    ] {
        let answer = town.authorize(&wish(bad));
        assert_eq!(answer.error(), "invalid_request", "{bad}");
        assert!(answer.location().is_empty());
    }
    // What is escaped twice is read twice.
    assert_eq!(town.log_in("ada", "lovelace", &wish("https://app/oauth/%63allback")).status, 302);
    let unknown = town.authorize(&with(&[("client_id", "system:serviceaccount:perses:nobody")]));
    assert_eq!(unknown.error(), "unauthorized_client");
    let bare = town.cluster.service_account_token("perses", "bare", &[]);
    assert!(!bare.is_empty());
    let bare = town.authorize(&with(&[("client_id", "system:serviceaccount:perses:bare")]));
    assert_eq!(bare.error(), "unauthorized_client", "an account that names no address is no client");
}

#[test]
fn addresses_of_routes() {
    let mut town = Town::new();
    let reference =
        r#"{"kind":"OAuthRedirectReference","apiVersion":"v1","reference":{"kind":"Route","name":"perses"}}"#;
    let _ = town.cluster.service_account_token("perses", "routed", &[]);
    let key = "serviceaccounts.openshift.io/oauth-redirectreference.r";
    town.cluster.annotate_account("perses", "routed", key, reference);
    let ask = |town: &mut Town, uri: &str| {
        town.authorize(&[
            ("response_type", "code"),
            ("client_id", "system:serviceaccount:perses:routed"),
            ("redirect_uri", uri),
            ("scope", "user:info"),
        ])
        .status
    };
    assert_eq!(ask(&mut town, "https://r/callback"), 400, "no such route");
    let route = |admitted| Route { host: "r".to_owned(), path: String::new(), tls: true, admitted };
    town.cluster.add_route("perses", "perses", route(false));
    assert_eq!(ask(&mut town, "https://r/callback"), 400, "no router serves it");
    town.cluster.add_route("perses", "perses", route(true));
    assert_eq!(ask(&mut town, "https://r/callback"), 302);
    assert_eq!(ask(&mut town, "http://r/callback"), 400);
    town.cluster.annotate_account(
        "perses",
        "routed",
        "serviceaccounts.openshift.io/oauth-redirecturi.r",
        "/-/callback",
    );
    assert_eq!(ask(&mut town, "https://r/-/callback"), 302);
    assert_eq!(ask(&mut town, "https://r/callback"), 400, "the path is named now");
}

#[test]
fn a_code_is_good_once_for_one_client_with_one_proof() {
    let mut town = Town::new();
    let code = town.code(&[]);
    let wrong = "a".repeat(43);
    for (change, word) in [
        (("code_verifier", wrong.as_str()), "invalid_grant"),
        (("code_verifier", ""), "invalid_request"),
        (("code_verifier", "short"), "invalid_request"),
        (("redirect_uri", "https://app/oauth/callback/other"), "invalid_request"),
        (("redirect_uri", ""), "invalid_request"),
        (("code", "sha256~made-up"), "invalid_grant"),
        (("code", ""), "invalid_grant"),
    ] {
        assert_eq!(town.token(&code, &[change]).error(), word, "{change:?}");
    }
    let other = OAuthClient { secret: "s".to_owned(), redirect_uris: vec![APP.to_owned()], ..OAuthClient::default() };
    town.cluster.add_client("other", other);
    let foreign = town.token(&code, &[("client_id", "other"), ("client_secret", "s")]);
    assert_eq!(foreign.error(), "invalid_grant", "another client's code");
    assert_eq!(town.token(&code, &[]).status, 200, "none of these used it up");
    assert_eq!(town.token(&code, &[]).error(), "invalid_grant", "and now it is");
    let late = town.code(&[]);
    town.now += CODE;
    assert_eq!(town.token(&late, &[]).error(), "invalid_grant");
}

#[test]
fn challenges() {
    let mut town = Town::new();
    let longest = "a".repeat(128);
    for good in ["a".repeat(43), longest.clone(), "~._-".repeat(11)] {
        let changed = with(&[("code_challenge", &good), ("code_challenge_method", "plain")]);
        let code = town.log_in("ada", "lovelace", &changed).sent("code").unwrap();
        assert_eq!(town.token(&code, &[("code_verifier", &good)]).status, 200, "{good}");
    }
    let code = town.log_in("ada", "lovelace", &with(&[("code_challenge_method", "")])).sent("code").unwrap();
    assert_eq!(town.token(&code, &[]).error(), "invalid_grant", "plain, if nothing is said");
    for bad in ["a".repeat(42), format!("{longest}a"), format!("{}+", "a".repeat(43)), format!("{} ", "a".repeat(43))] {
        let answer = town.authorize(&with(&[("code_challenge", &bad)]));
        assert_eq!(answer.sent("error").unwrap(), "invalid_request", "{bad}");
        assert_eq!(answer.sent("state").unwrap(), "st&te");
    }
    let answer = town.authorize(&with(&[("code_challenge_method", "S512")]));
    assert_eq!(answer.sent("error").unwrap(), "invalid_request");
    // Without a challenge nothing has to be proved.
    let code = town.log_in("ada", "lovelace", &with(&[("code_challenge", ""), ("code_challenge_method", "")]));
    let code = code.sent("code").unwrap();
    assert_eq!(town.token(&code, &[("code_verifier", "")]).status, 200);
    assert_eq!(digest(VERIFIER), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
}

#[test]
fn who_may_redeem() {
    let mut town = Town::new();
    let code = town.code(&[]);
    let other = town.cluster.service_account_token("perses", "other", &[]);
    let ended = town.cluster.service_account_token_ending("perses", "perses-sidecar", -1);
    let person = town.cluster.issue_token("ada");
    for secret in ["wrong", "", &other, &ended, &person] {
        let answer = town.token(&code, &[("client_secret", secret)]);
        assert_eq!(answer.error(), "unauthorized_client", "400 and no 401, {secret}");
        assert!(!answer.headers.contains_key("www-authenticate"));
    }
    let private = town.cluster.service_account_token("perses", "perses-sidecar", &["perses-login"]);
    assert_eq!(town.token(&code, &[("client_secret", &private)]).status, 200, "a token that is no good elsewhere");
    // By HTTP Basic, whose halves are forms; and by GET.
    for (method, by_header) in [(Method::POST, true), (Method::GET, false)] {
        let code = town.code(&[]);
        let mut pairs = vec![
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", APP),
            ("code_verifier", VERIFIER),
        ];
        let mut headers = HeaderMap::new();
        if by_header {
            let basic = format!("{}:{}", escape(ACCOUNT), escape(&private));
            let basic = crate::encoding::base64url(basic.as_bytes()).replace('-', "+").replace('_', "/");
            headers.insert("authorization", format!("Basic {basic}").parse().unwrap());
        } else {
            pairs.extend([("client_id", ACCOUNT), ("client_secret", private.as_str())]);
        }
        let text = form(&pairs);
        let (query, body) = if by_header { ("", text.as_str()) } else { (text.as_str(), "") };
        let question =
            Question { method: &method, path: "/oauth/token", query, headers: &headers, body: body.as_bytes() };
        assert_eq!(town.send(&question).status, 200, "{method}");
    }
    for grant in ["refresh_token", "password", "client_credentials"] {
        assert_eq!(town.token("x", &[("grant_type", grant)]).error(), "access_denied", "{grant}");
    }
    assert_eq!(town.token("x", &[("grant_type", "magic")]).error(), "unsupported_grant_type");
}

#[test]
fn scopes_for_accounts_and_for_others() {
    let mut town = Town::new();
    for (scope, error) in [
        ("user:full", "access_denied"),
        ("user:info user:full", "access_denied"),
        ("", "access_denied"),
        ("role:view:elsewhere", "access_denied"),
        ("user:everything", "invalid_scope"),
        ("openid", "invalid_scope"),
        ("role:view", "invalid_scope"),
    ] {
        let answer = town.authorize(&with(&[("scope", scope)]));
        assert_eq!(answer.sent("error").unwrap(), error, "{scope:?}");
        assert_eq!(answer.sent("state").unwrap(), "st&te");
        assert!(answer.location().starts_with(APP));
    }
    for scope in ["user:info", "user:list-scoped-projects role:view:perses", "role:edit:perses:!"] {
        assert!(town.authorize(&with(&[("scope", scope)])).location().starts_with("/login?"), "{scope}");
    }
    let client = OAuthClient {
        secret: "s".to_owned(),
        redirect_uris: vec![APP.to_owned()],
        lifetime: Some(60),
        ..OAuthClient::default()
    };
    town.cluster.add_client("console", client);
    let answer = town.log_in("ada", "lovelace", &with(&[("client_id", "console"), ("scope", "")]));
    let code = answer.sent("code").unwrap();
    let token = town.token(&code, &[("client_id", "console"), ("client_secret", "s")]).json();
    assert_eq!((token["scope"].as_str(), token["expires_in"].as_u64()), (Some("user:full"), Some(60)));
    let kind = town.authorize(&with(&[("response_type", "id_token")]));
    assert_eq!(kind.sent("error").unwrap(), "unsupported_response_type");
    let implicit = town.log_in("ada", "lovelace", &with(&[("response_type", "token")]));
    assert!(implicit.location().contains("#access_token=sha256~"), "{}", implicit.location());
}

#[test]
fn approval_once_for_each_set_of_scopes() {
    let mut town = Town::new();
    town.cluster.set_grant(Grant::Prompt);
    let press = |town: &mut Town, page: &Read, button: &str| {
        let (then, csrf) = (page.hidden("then"), page.hidden("csrf"));
        let pressed = form(&[("then", &then), ("csrf", &csrf), (button, "yes")]);
        town.ask(&Method::POST, "/oauth/authorize/approve", &pressed)
    };
    let answer = town.log_in("ada", "lovelace", &wish(APP));
    assert!(answer.location().starts_with("/oauth/authorize/approve?"), "{}", answer.location());
    let page = town.get(answer.location());
    assert!(page.body.contains("user:list-projects") && page.body.contains(ACCOUNT));
    let denied = press(&mut town, &page, "deny");
    assert_eq!(denied.sent("error").unwrap(), "access_denied");
    assert_eq!(denied.sent("state").unwrap(), "st&te");
    let forged = town.ask(
        &Method::POST,
        "/oauth/authorize/approve",
        &form(&[("then", &page.hidden("then")), ("approve", "yes")]),
    );
    assert_eq!(forged.status, 200, "the page again, as the form is not ours");
    let approved = press(&mut town, &page, "approve");
    let answer = town.get(approved.location());
    assert!(answer.sent("code").is_some());
    let again = town.log_in("ada", "lovelace", &wish(APP));
    assert!(again.sent("code").is_some(), "remembered");
    let other = town.log_in("ada", "lovelace", &with(&[("scope", "user:info")]));
    assert!(other.location().starts_with("/oauth/authorize/approve?"), "another set");
    town.cluster.set_grant(Grant::Deny);
    assert_eq!(town.log_in("ada", "lovelace", &wish(APP)).sent("error").unwrap(), "access_denied");
}

#[test]
fn the_login_page() {
    let mut town = Town::new();
    let refused = town.log_in("ada", "wrong", &wish(APP));
    assert!(refused.status == 200 && refused.body.contains("Invalid login or password"));
    assert_eq!(refused.body.matches("<form").count(), 1);
    let page = town.get("/login?then=%2Foauth%2Fauthorize");
    let forged = form(&[("username", "ada"), ("password", "lovelace"), ("then", &page.hidden("then")), ("csrf", "x")]);
    assert_eq!(town.ask(&Method::POST, "/login", &forged).status, 200);
    for bad in ["https://evil/", "//evil/", "/\\evil/", ""] {
        assert_eq!(town.get(&format!("/login?then={}", escape(bad))).status, 400, "{bad}");
    }
    let page = town.get(&format!("/login?then={}", escape("/x\"><script>")));
    assert!(!page.body.contains("<script>"));
}

#[test]
fn only_the_first_administrator_is_remembered() {
    let mut town = Town::new();
    assert!(town.log_in("ada", "lovelace", &wish(APP)).sent("code").is_some());
    assert!(town.authorize(&wish(APP)).location().starts_with("/login?"), "ada has to log in again");
    assert!(town.log_in(KUBE_ADMIN, "admin", &wish(APP)).sent("code").is_some());
    assert!(town.authorize(&wish(APP)).sent("code").is_some(), "without a question");
    assert_eq!(town.get("/logout").status, 405);
    let away = town.ask(&Method::POST, "/logout", "then=%2F");
    assert_eq!((away.status, away.location()), (302, "/"));
    assert!(town.authorize(&wish(APP)).location().starts_with("/login?"));
    assert!(town.log_in(KUBE_ADMIN, "admin", &wish(APP)).sent("code").is_some());
    town.now += REMEMBERED;
    assert!(town.authorize(&wish(APP)).location().starts_with("/login?"), "for an hour");
    town.cluster.set_console("https://console/done");
    let then = |town: &mut Town, then: &str| {
        town.ask(&Method::POST, "/logout", &form(&[("then", then)])).location().to_owned()
    };
    assert_eq!(then(&mut town, "https://console/done"), "https://console/done");
    assert_eq!(then(&mut town, "https://evil/"), "");
}

#[test]
fn ends_of_tokens() {
    let mut town = Town::new();
    let made = |town: &mut Town| {
        let code = town.code(&[]);
        town.token(&code, &[]).json()
    };
    let lives = |town: &Town, token: &Value| {
        super::super::serve::live(&mut town.cluster.state(), token["access_token"].as_str().unwrap()).is_some()
    };
    for (lifetime, said) in [(None, Value::Null), (Some(0), Value::from(0))] {
        town.cluster.set_token_lifetime(lifetime);
        let token = made(&mut town);
        assert_eq!(token["expires_in"], said);
        town.cluster.advance(Duration::from_secs(10_000_000));
        assert!(lives(&town, &token), "{lifetime:?} is for ever");
        town.now += Duration::from_secs(10_000_000);
    }
    town.cluster.set_token_lifetime(Some(600));
    let token = made(&mut town);
    town.cluster.advance(Duration::from_secs(590));
    assert!(lives(&town, &token));
    town.cluster.advance(Duration::from_secs(20));
    assert!(!lives(&town, &token));
    town.now += Duration::from_secs(610);
    town.cluster.set_token_lifetime(Some(86_400));
    town.cluster.set_inactivity(Some(Duration::from_secs(1)));
    let token = made(&mut town);
    for _ in 0..3 {
        town.cluster.advance(Duration::from_secs(290));
        assert!(lives(&town, &token), "300 s at least, and who comes back stays");
    }
    town.cluster.advance(Duration::from_secs(310));
    assert!(!lives(&town, &token), "who stays away is out");
    assert!(!lives(&town, &token), "and out is out");
}

#[test]
fn discovery() {
    let town = Town::new();
    let document = || town.cluster.state().oauth.document();
    town.cluster.state().oauth.issuer = "https://oauth".to_owned();
    let known = document().unwrap();
    assert_eq!(known["token_endpoint"], "https://oauth/oauth/token");
    assert!(known.get("jwks_uri").is_none() && known.get("end_session_endpoint").is_none());
    town.cluster.set_discovery(Discovery::Document(json!({ "issuer": "x" })));
    assert_eq!(document().unwrap(), json!({ "issuer": "x" }));
    town.cluster.set_discovery(Discovery::Missing);
    assert!(document().is_none());
}

/// The digest of what stands behind the prefix.
#[test]
fn names_of_tokens() {
    assert_eq!(
        Cluster::token_name("sha256~dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        "sha256~E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    );
}
