//! The pages: logging in, approving, logging out.

use std::time::{Duration, SystemTime};

use http::header::{HeaderValue, SET_COOKIE};

use super::super::{State, random_text};
use super::authorize::{self, Wish};
use super::{Answer, KUBE_ADMIN, Question, REMEMBERED, error, person, redirect, reply, set_cookie, text, value};
use crate::encoding::{escape, html, pairs};

/// How long somebody who is not remembered has for the way through.
const PASSING: Duration = Duration::from_secs(300);

/// Only a place on this server.
fn then(pairs: &[(String, String)]) -> Option<&str> {
    value(pairs, "then").filter(|then| then.starts_with('/') && !then.starts_with("//") && !then.starts_with("/\\"))
}

fn page(title: &str, body: &str, csrf: Option<&str>) -> Answer {
    let mut answer = reply(
        200,
        "text/html; charset=utf-8",
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>\
             <meta name=viewport content=\"width=device-width\"><style>body{{font:16px sans-serif;max-width:24em;\
             margin:4em auto}}label,button{{display:block;margin:1em 0}}input{{width:100%}}</style>\
             <h1>{title}</h1><p>A stand-in for OpenShift, for tests and demos.</p>{body}"
        ),
    );
    if let Some(csrf) = csrf {
        set_cookie(&mut answer, "csrf", csrf);
    }
    answer
}

/// The value of the cookie that a form must repeat, and whether it is new.
fn csrf(question: &Question<'_>) -> (String, bool) {
    question.cookie("csrf").map_or_else(|| (random_text(32), true), |known| (known.to_owned(), false))
}

fn is_own(question: &Question<'_>, form: &[(String, String)]) -> bool {
    question.cookie("csrf").is_some_and(|cookie| !cookie.is_empty() && value(form, "csrf") == Some(cookie))
}

/// One form: `username`, `password`, and what is hidden.
pub(super) fn login(_: &mut State, question: &Question<'_>, complaint: &str) -> Answer {
    let form = question.pairs();
    let Some(then) = then(&form) else { return error("invalid_request", "then must be a place on this server") };
    let (csrf, new) = csrf(question);
    let body = format!(
        "<p role=alert>{}</p><form method=post action=/login>\
         <label>Username <input name=username autocomplete=username autofocus></label>\
         <label>Password <input name=password type=password autocomplete=current-password></label>\
         <input type=hidden name=then value=\"{}\"><input type=hidden name=csrf value=\"{}\">\
         <button>Log in</button></form>",
        html(complaint),
        html(then),
        html(&csrf)
    );
    page("Log in to your account", &body, new.then_some(&csrf))
}

pub(super) fn log_in(state: &mut State, question: &Question<'_>, now: SystemTime) -> Answer {
    let form = pairs(&String::from_utf8_lossy(question.body));
    let Some(then) = then(&form) else { return error("invalid_request", "then must be a place on this server") };
    if !is_own(question, &form) {
        return login(state, question, "Could not check CSRF token. Please try again.");
    }
    let (user, password) = (value(&form, "username").unwrap_or_default(), value(&form, "password").unwrap_or_default());
    if password.is_empty() || state.oauth.passwords.get(user).is_none_or(|known| known != password) {
        return login(state, question, "Invalid login or password. Please try again.");
    }
    let session = state.oauth.mint("", 43);
    let until = now + if user == KUBE_ADMIN { REMEMBERED } else { PASSING };
    state.oauth.sessions.insert(session.clone(), (user.to_owned(), until));
    let mut answer = redirect(then);
    set_cookie(&mut answer, "ssn", &session);
    answer
}

/// The wish behind `then`.
fn wish(state: &State, then: &str) -> Result<Wish, Box<Answer>> {
    authorize::read(state, &pairs(then.split_once('?').map_or("", |(_, query)| query)))
}

pub(super) fn approval(state: &mut State, question: &Question<'_>) -> Answer {
    let form = question.pairs();
    let Some(then) = then(&form) else { return error("invalid_request", "then must be a place on this server") };
    let wish = match wish(state, then) {
        Ok(wish) => wish,
        Err(answer) => return *answer,
    };
    let (csrf, new) = csrf(question);
    let scopes: String = wish.scopes.iter().map(|scope| format!("<li>{}", html(scope))).collect();
    let body = format!(
        "<p>{} asks for access to your account:<ul>{scopes}</ul><form method=post action=/oauth/authorize/approve>\
         <input type=hidden name=then value=\"{}\"><input type=hidden name=csrf value=\"{}\">\
         <button name=approve value=yes>Allow selected permissions</button><button name=deny value=yes>Deny</button></form>",
        html(&wish.client_id),
        html(then),
        html(&csrf)
    );
    page("Authorize Access", &body, new.then_some(&csrf))
}

pub(super) fn approve(state: &mut State, question: &Question<'_>, now: SystemTime) -> Answer {
    let form = pairs(&String::from_utf8_lossy(question.body));
    let Some(then) = then(&form) else { return error("invalid_request", "then must be a place on this server") };
    let Some(user) = person(state, question, now) else { return redirect(&format!("/login?then={}", escape(then))) };
    if !is_own(question, &form) {
        return approval(state, question);
    }
    let wish = match wish(state, then) {
        Ok(wish) => wish,
        Err(answer) => return *answer,
    };
    if value(&form, "approve").is_none() {
        let pairs = [("error", "access_denied"), ("error_description", "The user denied the request.")];
        return redirect(&wish.target(&pairs));
    }
    state.oauth.approved.insert(authorize::approval(&user, &wish));
    redirect(then)
}

/// The end of the server's own session; then on to a place on this server, or nowhere.
pub(super) fn log_out(state: &mut State, question: &Question<'_>) -> Answer {
    state.oauth.sessions.remove(question.cookie("ssn").unwrap_or_default());
    let form = question.pairs();
    let console = value(&form, "then").filter(|then| state.oauth.console.as_deref() == Some(*then));
    let mut answer = match console.or_else(|| then(&form)) {
        Some(then) => redirect(then),
        None => text(200, ""),
    };
    let gone = HeaderValue::from_static("ssn=; Path=/; HttpOnly; Secure; Max-Age=0");
    answer.headers_mut().append(SET_COOKIE, gone);
    answer
}
