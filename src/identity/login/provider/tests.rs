//! What a server may say of itself, and what is made of its answers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use serde_json::{Value, json};

use super::*;

type Change = fn(&mut Value);

fn oidc_settings() -> config::Oidc {
    config::Oidc {
        issuer: "https://idp.example/realms/main".to_owned(),
        client_id: "perses".to_owned(),
        client_secret_file: None,
        ca: None,
        scopes: vec!["openid".to_owned(), "groups".to_owned()],
        hosts: vec!["tokens.example".to_owned()],
    }
}

fn oidc_document(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut document = json!({
        "issuer": "https://idp.example/realms/main",
        "authorization_endpoint": "https://idp.example/realms/main/auth?kc=1",
        "token_endpoint": "https://tokens.example/token",
        "end_session_endpoint": "https://idp.example/realms/main/logout",
    });
    change(&mut document);
    document.to_string().into_bytes()
}

fn oidc() -> Provider {
    Provider::oidc(&oidc_settings(), &oidc_document(|_| {})).unwrap()
}

fn openshift(document: &Value) -> Result<Provider, String> {
    let settings = config::OpenShift {
        client_id: "system:serviceaccount:perses:perses-sidecar".to_owned(),
        client_secret_file: PathBuf::from("/none"),
        ca: Vec::new(),
        honour_scopes: false,
    };
    let ca = include_bytes!("../../../../tests/golden/config/ca.crt");
    Provider::openshift(&settings, ca, document.to_string().as_bytes())
}

#[test]
fn a_server_that_is_not_the_one_that_was_named_is_refused() {
    let bad: [(&str, Change); 9] = [
        ("another issuer", |d| d["issuer"] = json!("https://idp.example.evil/realms/main")),
        ("an issuer with a slash more", |d| d["issuer"] = json!("https://idp.example/realms/main/")),
        ("codes in the clear", |d| d["authorization_endpoint"] = json!("http://idp.example/auth")),
        ("tokens in the clear", |d| d["token_endpoint"] = json!("http://idp.example/token")),
        ("a foreign token endpoint", |d| d["token_endpoint"] = json!("https://evil.example/token")),
        ("a foreign port", |d| d["token_endpoint"] = json!("https://idp.example:8443/token")),
        ("a foreign authorization endpoint", |d| d["authorization_endpoint"] = json!("https://evil.example/auth")),
        ("a foreign logout", |d| d["end_session_endpoint"] = json!("https://evil.example/logout")),
        ("no token endpoint", |d| drop(d["token_endpoint"].take())),
    ];
    for (what, change) in bad {
        assert!(Provider::oidc(&oidc_settings(), &oidc_document(change)).is_err(), "{what}");
    }
    assert!(Provider::oidc(&oidc_settings(), &oidc_document(|d| drop(d["end_session_endpoint"].take()))).is_ok());
    assert!(Provider::oidc(&oidc_settings(), b"<html>").is_err());
    let good = json!({
        "issuer": "https://oauth.apps.example",
        "authorization_endpoint": "https://oauth.apps.example/oauth/authorize",
        "token_endpoint": "https://oauth.apps.example/oauth/token",
    });
    assert!(openshift(&good).is_ok());
    for key in ["issuer", "authorization_endpoint", "token_endpoint"] {
        let mut bad = good.clone();
        bad[key] = json!(good[key].as_str().unwrap().replace("https", "http"));
        assert!(openshift(&bad).is_err(), "{key} in the clear");
    }
}

#[test]
fn browsers_are_sent_with_a_challenge_and_never_a_verifier() {
    // RFC 7636, appendix B.
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    let url = oidc().authorize_url("https://perses.example/-/callback", "the-state", verifier, "the-nonce");
    assert_eq!(
        url,
        "https://idp.example/realms/main/auth?kc=1&response_type=code&client_id=perses\
         &redirect_uri=https%3A%2F%2Fperses.example%2F-%2Fcallback&scope=openid%20groups&state=the-state\
         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256&nonce=the-nonce"
    );
    let out = oidc().end_session_url(&Secret::new("a.b.c"), "https://perses.example/-/logout").unwrap();
    assert!(
        out.starts_with("https://idp.example/realms/main/logout?id_token_hint=a.b.c&client_id=perses&post_logout"),
        "{out}"
    );
}

#[test]
fn basic_is_escaped_before_it_is_joined() {
    // "a%3Ab:c%2Fd%20e" in base64.
    let value = basic("a:b", &Secret::new("c/d e")).unwrap();
    assert_eq!(value.to_str().unwrap(), "Basic YSUzQWI6YyUyRmQlMjBl");
    assert!(value.is_sensitive());
    assert_eq!(basic("ab", &Secret::new("c")).unwrap().to_str().unwrap(), "Basic YWI6Yw==");
}

#[test]
fn answers_of_token_endpoints_are_read_strictly() {
    let ours = openshift(&json!({
        "issuer": "https://o.example", "authorization_endpoint": "https://o.example/a", "token_endpoint": "https://o.example/t",
    }))
    .unwrap();
    let read = |status: u16, body: &str| ours.read(StatusCode::from_u16(status).unwrap(), body.as_bytes());
    let good =
        |body: &str| read(200, body).ok().flatten().map(|tokens| (tokens.token.expose().to_owned(), tokens.lasts));
    let token = Some("sha256~x".to_owned());
    assert_eq!(
        good(r#"{"access_token":"sha256~x","token_type":"Bearer","expires_in":86400,"scope":"user:info"}"#),
        token.clone().map(|token| (token, Some(86_400)))
    );
    for endless in [
        r#"{"access_token":"sha256~x","token_type":"bearer","expires_in":0}"#,
        r#"{"access_token":"sha256~x","token_type":"Bearer"}"#,
    ] {
        assert_eq!(good(endless), token.clone().map(|token| (token, None)));
    }
    for (status, body) in [
        (200, ""),
        (200, "<html>"),
        (200, "{\"access_token\":\"sha256~x\",\"token_t"),
        (200, r#"{"access_token":"sha256~x"}"#),
        (200, r#"{"access_token":"sha256~x","token_type":"mac"}"#),
        (200, r#"{"access_token":"","token_type":"Bearer"}"#),
        (200, r#"{"access_token":"a b","token_type":"Bearer"}"#),
        (200, r#"{"access_token":"a\r\nb","token_type":"Bearer"}"#),
        (200, r#"{"token_type":"Bearer"}"#),
        (302, ""),
        (500, "Error: sha256~x"),
        (503, r#"{"error":"invalid_grant"}"#),
    ] {
        assert!(matches!(read(status, body), Err(ExchangeError::Failed(_))), "{status} {body}");
    }
    let refused = |body: &str| read(400, body).err();
    assert_eq!(
        refused(r#"{"error":"unauthorized_client"}"#),
        Some(ExchangeError::Refused("unauthorized_client".to_owned()))
    );
    for odd in [r#"{"error":"sha256~secret"}"#, "{}", r#"{"error":7}"#] {
        assert_eq!(refused(odd), Some(ExchangeError::Failed("status 400".to_owned())), "{odd}");
    }
    let theirs = oidc();
    let read = |body: &str| theirs.read(StatusCode::OK, body.as_bytes());
    let tokens =
        read(r#"{"access_token":"x","token_type":"Bearer","id_token":"a.b.c","refresh_token":"r"}"#).unwrap().unwrap();
    assert_eq!((tokens.token.expose(), tokens.refresh.unwrap().expose()), ("a.b.c", "r"), "the ID token is the token");
    assert!(read(r#"{"access_token":"x","token_type":"Bearer"}"#).unwrap().is_none());
}
