//! Verdicts are read strictly: whatever is not a clear yes is not a yes.

use super::*;

fn token(status: &str, asked: &[&str]) -> Result<Option<String>, ClusterError> {
    let asked: Vec<String> = asked.iter().map(|audience| (*audience).to_owned()).collect();
    let body = format!(
        r#"{{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","spec":{{"token":"x"}},"status":{status}}}"#
    );
    read_token_review(body.as_bytes(), &asked).map(|identity| identity.map(|identity| identity.username))
}

#[test]
fn only_a_clear_yes_authenticates() {
    let ada = r#""user":{"username":"ada","groups":["g"]}"#;
    assert_eq!(token(&format!(r#"{{"authenticated":true,{ada}}}"#), &[]), Ok(Some("ada".to_owned())));
    assert_eq!(token(&format!(r#"{{"authenticated":false,{ada}}}"#), &[]), Ok(None));
    assert_eq!(token(&format!("{{{ada}}}"), &[]), Ok(None));
    assert_eq!(token(r#"{"error":"cannot decide"}"#, &[]), Ok(None));
    assert!(token(r#"{"authenticated":true}"#, &[]).is_err(), "authenticated as nobody");
    assert!(token(r#"{"authenticated":true,"user":{"username":""}}"#, &[]).is_err());
    assert_eq!(token(r#"{"authenticated":true,"user":{"username":"system:anonymous"}}"#, &[]), Ok(None));
    assert!(read_token_review(b"{}", &[]).is_err());
    assert!(read_token_review(b"<html>", &[]).is_err());
}

#[test]
fn an_audience_that_was_asked_for_must_come_back() {
    let with = |audiences: &str| format!(r#"{{"authenticated":true,"user":{{"username":"ada"}}{audiences}}}"#);
    assert_eq!(token(&with(r#","audiences":["perses"]"#), &["perses"]), Ok(Some("ada".to_owned())));
    assert_eq!(token(&with(r#","audiences":["other"]"#), &["perses"]), Ok(None));
    assert_eq!(token(&with(""), &["perses"]), Ok(None));
    assert_eq!(token(&with(r#","audiences":[]"#), &["perses"]), Ok(None));
}

#[test]
fn allowed_and_denied_at_once_is_no_verdict() {
    let read = |status: &str| {
        read_access_review(format!(r#"{{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{{}},"status":{status}}}"#).as_bytes())
    };
    assert_eq!(read(r#"{"allowed":true}"#), Ok(true));
    assert_eq!(read(r#"{"allowed":true,"evaluationError":"role missing"}"#), Ok(true));
    assert_eq!(read(r#"{"allowed":false}"#), Ok(false));
    assert!(read(r#"{"allowed":true,"denied":true}"#).is_err());
    assert!(read_access_review(b"{}").is_err());
    assert!(read_access_review(b"").is_err());
}

#[test]
fn lists_of_namespaces_are_sorted_and_clean() {
    let body = br#"{"items":[{"metadata":{"name":"b"}},{"metadata":{"name":"A.b"}},{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}"#;
    let names: Vec<String> = read_names(body).expect("a list").iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(read_names(b"[]").is_err());
}

/// The name of a token's object is made of what follows its prefix; it is no credential.
#[test]
fn a_token_is_deleted_by_its_name() {
    let name = token_name(&Secret::new("sha256~dGhlLXNlY3JldC1vZi10aGUtdG9rZW4")).expect("a name");
    assert_eq!(name, "sha256~tx-qe6PFa-Vc5JQp0hGfEKZ1EnhHnMqV-ch-RmFiOgw");
    assert_eq!(token_name(&Secret::new("a.b.c")), None, "no token of OpenShift");
}
