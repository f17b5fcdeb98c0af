//! `/oauth/token`: a code becomes a token. And `/oauth/info`.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::super::{State, Token, serve};
use super::authorize::proves;
use super::clients;
use super::{Answer, Code, Question, error, json_reply, text, value};
use crate::encoding::{digest, unescape};

pub(super) fn token(state: &mut State, question: &Question<'_>, now: SystemTime) -> Answer {
    let pairs = question.pairs();
    let get = |name: &str| value(&pairs, name).filter(|value| !value.is_empty());
    // The other side's secret, but one to look for all the same.
    if let Some(verifier) = get("code_verifier") {
        state.oauth.keep(verifier);
    }
    match get("grant_type") {
        Some("authorization_code") => {}
        Some("refresh_token" | "password" | "client_credentials" | "assertion") => {
            return error("access_denied", "The resource owner or authorization server denied the request.");
        }
        _ => return error("unsupported_grant_type", "The authorization grant type is not supported."),
    }
    let refused = || error("unauthorized_client", "The client is not authorized to request a token using this method.");
    let Some((id, secret)) = credential(question, get("client_id"), get("client_secret")) else { return refused() };
    if !is_client(state, &id, &secret) {
        return refused();
    }
    let code = match redeem(state, &id, get("code"), get("redirect_uri"), get("code_verifier"), now) {
        Ok(code) => code,
        Err((word, description)) => return error(word, description),
    };
    let lifetime = clients::find(state, &id).and_then(|client| client.lifetime);
    let token = make(state, &code.user, &id, &code.scopes, lifetime, now);
    let mut body = json!({ "access_token": token, "scope": code.scopes.join(" "), "token_type": "Bearer" });
    if let Some(seconds) = lifetime {
        body["expires_in"] = json!(seconds);
    }
    json_reply(200, &body)
}

/// The client's name and secret, from HTTP Basic, whose parts are forms, or from the form.
fn credential(question: &Question<'_>, id: Option<&str>, secret: Option<&str>) -> Option<(String, String)> {
    let Some(header) = question.headers.get(http::header::AUTHORIZATION) else {
        return Some((id?.to_owned(), secret?.to_owned()));
    };
    let basic = header.to_str().ok()?.strip_prefix("Basic ")?.trim_end_matches('=');
    let basic = crate::encoding::from_base64url(&basic.replace('+', "-").replace('/', "_"))?;
    let basic = String::from_utf8(basic).ok()?;
    let (id, secret) = basic.split_once(':')?;
    Some((unescape(id)?, unescape(secret)?))
}

/// An administrator's client by its secret, a service account by any token of its own that lives, whomever it is for.
fn is_client(state: &mut State, id: &str, secret: &str) -> bool {
    match state.oauth.clients.get(id) {
        Some(client) => !secret.is_empty() && client.secret == secret,
        None => serve::live(state, secret).is_some_and(|token| token.user == id),
    }
}

/// The code, used up; unless the proof is wrong, which leaves it as it is.
fn redeem(
    state: &mut State,
    client: &str,
    code: Option<&str>,
    redirect_uri: Option<&str>,
    verifier: Option<&str>,
    now: SystemTime,
) -> Result<Code, (&'static str, &'static str)> {
    let invalid = ("invalid_grant", "The provided authorization grant is invalid, expired or revoked.");
    let text = code.ok_or(invalid)?;
    let known =
        state.oauth.codes.get(text).filter(|code| code.client == client && code.expires > now).ok_or(invalid)?;
    if redirect_uri != Some(&known.redirect_uri) {
        return Err(("invalid_request", "Redirect uri is different"));
    }
    if let Some(challenge) = &known.challenge {
        let verifier = verifier.filter(|verifier| proves(verifier));
        let verifier = verifier.ok_or(("invalid_request", "code_verifier has an invalid format"))?;
        let shown = if challenge.hashed { digest(verifier) } else { verifier.to_owned() };
        if shown != challenge.text {
            return Err(("invalid_grant", "code_verifier failed comparison with code_challenge"));
        }
    }
    state.oauth.codes.remove(text).ok_or(invalid)
}

/// A new token of a person for a client.
pub(super) fn make(
    state: &mut State,
    user: &str,
    client: &str,
    scopes: &[String],
    lifetime: Option<u64>,
    now: SystemTime,
) -> String {
    let token = state.oauth.mint("sha256~", 43);
    let expires = lifetime.filter(|seconds| *seconds > 0).map(|seconds| now + Duration::from_secs(seconds));
    let record = Token {
        user: user.to_owned(),
        client: client.to_owned(),
        expires,
        scopes: scopes.to_vec(),
        audiences: Vec::new(),
        seen: now,
        idle: state.oauth.idle,
    };
    state.tokens.insert(token.clone(), record);
    token
}

/// What a token is good for, for whoever holds it.
pub(super) fn info(state: &mut State, question: &Question<'_>, now: SystemTime) -> Answer {
    let bearer = question.headers.get(http::header::AUTHORIZATION);
    let bearer = bearer.and_then(|line| line.to_str().ok()?.strip_prefix("Bearer ")).unwrap_or_default();
    let Some(token) = serve::live(state, bearer) else { return text(401, "Unauthorized") };
    let left = token.expires.and_then(|expires| expires.duration_since(now).ok()).map(|left| left.as_secs());
    json_reply(
        200,
        &json!({ "access_token": bearer, "client_id": token.client, "expires_in": left.unwrap_or_default(),
                 "scope": token.scopes.join(" "), "token_type": "Bearer" }),
    )
}
