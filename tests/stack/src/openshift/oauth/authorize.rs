//! `/oauth/authorize`: from a client's wish to a code in the address that the browser is sent to.

use std::time::SystemTime;

use super::super::State;
use super::clients::{self, Client};
use super::{Answer, CODE, Challenge, Code, Grant, KUBE_ADMIN, Question, error, person, redirect, set_cookie, value};
use crate::encoding::{escape, form, unescape};

/// A wish that may be fulfilled, if the person agrees.
pub(super) struct Wish {
    pub(super) client_id: String,
    pub(super) client: Client,
    pub(super) redirect_uri: String,
    pub(super) scopes: Vec<String>,
    state: Option<String>,
    challenge: Option<Challenge>,
    implicit: bool,
}

impl Wish {
    /// Where the browser goes with an answer.
    pub(super) fn target(&self, pairs: &[(&str, &str)]) -> String {
        target(&self.redirect_uri, self.state.as_deref(), self.implicit, pairs)
    }
}

fn target(redirect_uri: &str, state: Option<&str>, implicit: bool, pairs: &[(&str, &str)]) -> String {
    let mut pairs = pairs.to_vec();
    pairs.extend(state.map(|state| ("state", state)));
    let mark = match (implicit, redirect_uri.contains('?')) {
        (true, _) => '#',
        (false, true) => '&',
        (false, false) => '?',
    };
    format!("{redirect_uri}{mark}{}", form(&pairs))
}

pub(super) fn authorize(state: &mut State, question: &Question<'_>, now: SystemTime) -> Answer {
    let pairs = question.pairs();
    let wish = match read(state, &pairs) {
        Ok(wish) => wish,
        Err(answer) => return *answer,
    };
    let again = format!("/oauth/authorize?{}", sent(&pairs));
    let Some(user) = person(state, question, now) else {
        return redirect(&format!("/login?then={}", escape(&again)));
    };
    match wish.client.grant {
        Grant::Deny => return redirect(&wish.target(&[("error", "access_denied"), ("error_description", "denied")])),
        Grant::Prompt if !state.oauth.approved.contains(&approval(&user, &wish)) => {
            return redirect(&format!("/oauth/authorize/approve?then={}", escape(&again)));
        }
        Grant::Prompt | Grant::Auto => {}
    }
    let mut answer = redirect(&fulfil(state, &user, &wish, now));
    if user != KUBE_ADMIN {
        state.oauth.sessions.remove(question.cookie("ssn").unwrap_or_default());
        set_cookie(&mut answer, "ssn", "");
    }
    answer
}

/// What a person's approval is remembered by.
pub(super) fn approval(user: &str, wish: &Wish) -> (String, String, String) {
    (user.to_owned(), wish.client_id.clone(), wish.scopes.join(" "))
}

fn sent(pairs: &[(String, String)]) -> String {
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    form(&pairs)
}

/// The address with the code, or with the token itself.
pub(super) fn fulfil(state: &mut State, user: &str, wish: &Wish, now: SystemTime) -> String {
    if wish.implicit {
        let token = super::token::make(state, user, &wish.client_id, &wish.scopes, wish.client.lifetime, now);
        let seconds = wish.client.lifetime.unwrap_or_default().to_string();
        let scope = wish.scopes.join(" ");
        return wish.target(&[
            ("access_token", &token),
            ("expires_in", &seconds),
            ("scope", &scope),
            ("token_type", "Bearer"),
        ]);
    }
    let code = state.oauth.mint("sha256~", 43);
    state.oauth.codes.insert(
        code.clone(),
        Code {
            client: wish.client_id.clone(),
            user: user.to_owned(),
            scopes: wish.scopes.clone(),
            redirect_uri: wish.redirect_uri.clone(),
            challenge: wish.challenge.clone(),
            expires: now + CODE,
        },
    );
    wish.target(&[("code", &code)])
}

/// Until client and address are known to belong together, an error stays here; from then on it goes there.
pub(super) fn read(state: &State, pairs: &[(String, String)]) -> Result<Wish, Box<Answer>> {
    let here = |word: &str, description: &str| Box::new(error(word, description));
    let get = |name: &str| value(pairs, name).filter(|value| !value.is_empty());
    let unknown = || here("unauthorized_client", "The client is not authorized to request a token using this method.");
    let client_id = get("client_id").ok_or_else(unknown)?.to_owned();
    let client = clients::find(state, &client_id).ok_or_else(unknown)?;
    let redirect_uri = match (get("redirect_uri"), &client.redirect_uris[..]) {
        // It has been decoded with the form, and is decoded once more.
        (Some(asked), _) => unescape(asked).unwrap_or_default(),
        (None, [only]) => only.clone(),
        (None, _) => String::new(),
    };
    if !client.redirect_uris.iter().any(|registered| clients::may_be_sent_to(registered, &redirect_uri)) {
        return Err(here("invalid_request", "The redirect_uri is not registered for this client."));
    }
    let echoed = get("state").map(str::to_owned);
    let kind = get("response_type").unwrap_or_default();
    let there = |word: &str, description: &str| {
        let pairs = [("error", word), ("error_description", description)];
        Box::new(redirect(&target(&redirect_uri, echoed.as_deref(), kind == "token", &pairs)))
    };
    if !matches!(kind, "code" | "token") {
        return Err(there("unsupported_response_type", "The response type is not supported."));
    }
    let challenge = match (get("code_challenge"), get("code_challenge_method").unwrap_or("plain")) {
        (None, _) => None,
        (Some(text), method @ ("plain" | "S256")) if proves(text) => {
            Some(Challenge { hashed: method == "S256", text: text.to_owned() })
        }
        (Some(_), "plain" | "S256") => return Err(there("invalid_request", "code_challenge invalid (rfc7636)")),
        (Some(_), _) => {
            return Err(there("invalid_request", "code_challenge_method transform algorithm not supported"));
        }
    };
    let scopes: Vec<String> = get("scope").unwrap_or("user:full").split(' ').map(str::to_owned).collect();
    if let Some(foreign) = scopes.iter().find(|scope| !clients::is_scope(scope)) {
        return Err(there("invalid_scope", &format!("no scope evaluator for {foreign}")));
    }
    if let Some(denied) = scopes.iter().find(|scope| !client.may_ask_for(scope)) {
        return Err(there("access_denied", &format!("scope denied: {denied}")));
    }
    let implicit = kind == "token";
    Ok(Wish {
        client_id,
        client,
        scopes,
        state: echoed.clone(),
        challenge,
        implicit,
        redirect_uri: redirect_uri.clone(),
    })
}

/// RFC 7636, for verifiers and challenges alike.
pub(super) fn proves(text: &str) -> bool {
    (43..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}
