//! The OAuth server of OpenShift: what it is asked becomes what it answers, as its users meet it.
//!
//! Authorization codes with PKCE, service accounts and `OAuthClient`s as clients, a login page, a page that asks for
//! approval, tokens. Like the real one it answers errors as JSON with 400, whatever a standard says, gives no refresh
//! token, and leaves a code usable after a wrong verifier.

mod authorize;
mod clients;
mod pages;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{State, random_text};
use crate::encoding::pairs;

pub use clients::{OAuthClient, Route};

/// How long a code may be redeemed.
const CODE: Duration = Duration::from_secs(300);
/// The one administrator whom the server remembers after a login.
const KUBE_ADMIN: &str = "kube:admin";
/// And how long.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What a client may have of a person who is logged in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grant {
    /// Everything it asks for.
    #[default]
    Auto,
    /// What the person approves, asked once for each set of scopes.
    Prompt,
    /// Nothing.
    Deny,
}

/// What the API server says about its OAuth server.
#[derive(Clone, Debug, Default)]
pub enum Discovery {
    /// Where it is.
    #[default]
    Present,
    /// 404: people log in elsewhere.
    Missing,
    /// An administrator's own document.
    Document(Value),
}

/// How a code must be proved to be the client's own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Challenge {
    hashed: bool,
    text: String,
}

#[derive(Clone, Debug)]
struct Code {
    client: String,
    user: String,
    scopes: Vec<String>,
    redirect_uri: String,
    challenge: Option<Challenge>,
    expires: SystemTime,
}

#[derive(Default)]
pub(super) struct Oauth {
    pub(super) issuer: String,
    /// Of the routers, in PEM.
    pub(super) authority: String,
    pub(super) discovery: Discovery,
    pub(super) passwords: BTreeMap<String, String>,
    pub(super) clients: BTreeMap<String, OAuthClient>,
    /// Annotations of service accounts, by the account's full name.
    pub(super) annotations: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) routes: BTreeMap<(String, String), Route>,
    pub(super) grant: Grant,
    /// In seconds; `Some(0)` and `None` never end, and only the first says so.
    pub(super) lifetime: Option<u64>,
    pub(super) idle: Option<Duration>,
    /// A place elsewhere that may follow a logout.
    pub(super) console: Option<String>,
    codes: BTreeMap<String, Code>,
    /// Who approved which client and scopes.
    approved: BTreeSet<(String, String, String)>,
    /// Who is logged in, and until when, by cookie.
    sessions: BTreeMap<String, (String, SystemTime)>,
    /// Every secret that was made here.
    pub(super) minted: Vec<String>,
}

impl Oauth {
    pub(super) fn mint(&mut self, prefix: &str, length: usize) -> String {
        let text = format!("{prefix}{}", random_text(length));
        self.keep(&text);
        text
    }

    /// Keeps in mind what nobody may write down.
    pub(super) fn keep(&mut self, secret: &str) {
        crate::secrets::note(secret);
        self.minted.push(secret.to_owned());
    }

    /// RFC 8414 as far as the real one follows it; nothing when the document is missing.
    pub(super) fn document(&self) -> Option<Value> {
        let issuer = &self.issuer;
        match &self.discovery {
            Discovery::Missing => None,
            Discovery::Document(document) => Some(document.clone()),
            Discovery::Present => Some(json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/oauth/authorize"),
                "token_endpoint": format!("{issuer}/oauth/token"),
                "scopes_supported": ["user:check-access", "user:full", "user:info", "user:list-projects", "user:list-scoped-projects"],
                "response_types_supported": ["code", "token"],
                "grant_types_supported": ["authorization_code", "implicit"],
                "code_challenge_methods_supported": ["plain", "S256"],
            })),
        }
    }
}

type Answer = Response<Full<Bytes>>;

/// Something asked of the server.
pub(super) struct Question<'q> {
    pub(super) method: &'q Method,
    pub(super) path: &'q str,
    pub(super) query: &'q str,
    pub(super) headers: &'q HeaderMap,
    pub(super) body: &'q [u8],
}

impl Question<'_> {
    /// One cookie.
    fn cookie(&self, name: &str) -> Option<&str> {
        let lines = self.headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split("; ")).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// The pairs of the query and, in a POST, of the body, which come first.
    fn pairs(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        if self.method == Method::POST {
            all = pairs(&String::from_utf8_lossy(self.body));
        }
        all.extend(pairs(self.query));
        all
    }
}

fn value<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
    pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Answers whatever comes to the OAuth server's own port.
pub(super) fn answer(state: &mut State, question: &Question<'_>, now: SystemTime) -> Answer {
    match (question.method.as_str(), question.path) {
        ("GET" | "POST", "/oauth/authorize") => authorize::authorize(state, question, now),
        ("GET" | "POST", "/oauth/token") => token::token(state, question, now),
        ("GET", "/oauth/info") => token::info(state, question, now),
        ("GET", "/login") => pages::login(state, question, ""),
        ("POST", "/login") => pages::log_in(state, question, now),
        ("GET", "/oauth/authorize/approve") => pages::approval(state, question),
        ("POST", "/oauth/authorize/approve") => pages::approve(state, question, now),
        ("POST", "/logout") => pages::log_out(state, question),
        (_, "/logout") => text(405, "Method Not Allowed"),
        ("GET", "/healthz") => text(200, "ok"),
        _ => text(404, "404 page not found"),
    }
}

/// What comes of an authorize request when the pages are left out.
pub(super) fn straight(state: &mut State, user: &str, query: &str, now: SystemTime) -> Option<String> {
    let wish = authorize::read(state, &pairs(query)).ok()?;
    Some(authorize::fulfil(state, user, &wish, now))
}

/// Who is logged in at this browser.
fn person(state: &State, question: &Question<'_>, now: SystemTime) -> Option<String> {
    let (user, until) = state.oauth.sessions.get(question.cookie("ssn")?)?;
    (*until > now).then(|| user.clone())
}

fn json_reply(code: u16, body: &Value) -> Answer {
    let mut answer = reply(code, "application/json", body.to_string());
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, max-age=0, must-revalidate"));
    answer
}

/// An error as this server words it: 400, whatever it is.
fn error(word: &str, description: &str) -> Answer {
    json_reply(400, &json!({ "error": word, "error_description": description }))
}

fn text(code: u16, body: &str) -> Answer {
    reply(code, "text/plain; charset=utf-8", body.to_owned())
}

fn reply(code: u16, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn redirect(to: &str) -> Answer {
    let mut answer = reply(302, "text/html; charset=utf-8", String::new());
    match HeaderValue::from_str(to) {
        Ok(to) => answer.headers_mut().insert(LOCATION, to),
        Err(_) => return error("invalid_request", "the redirect cannot be written into a header"),
    };
    answer
}

/// A cookie of the server's own; an empty value takes it away.
fn set_cookie(answer: &mut Answer, name: &str, value: &str) {
    let age = if value.is_empty() { "; Max-Age=0" } else { "" };
    if let Ok(line) = HeaderValue::from_str(&format!("{name}={value}; Path=/; HttpOnly; Secure{age}")) {
        answer.headers_mut().append(SET_COOKIE, line);
    }
}

#[cfg(test)]
mod tests;
