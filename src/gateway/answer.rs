//! The one place where a refusal becomes bytes, and where every answer gets the headers that all answers carry.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};

use super::body::Outgoing;
use super::journal::{Journal, Style};
use super::{Live, door, no_body_for};
use crate::page::Page;
use crate::refusal::{Reason, Refusal};
use crate::reply::{Body, Reply};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) fn reply(reply: Reply) -> Response<Body> {
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

/// A refusal as its reader can use it. A person who is nobody yet is sent to log in instead; a script never is: it would
/// follow to a server that does not expect it.
pub(super) fn refusal(refusal: &Refusal, live: &Live, head: &Parts, journal: &mut Journal) -> Response<Body> {
    let form = journal.is_form() && door::wants_page(head);
    let personal = is_person(head) || form || is_sent_by_a_person(head);
    if (is_person(head) || form)
        && refusal.reason() == Reason::NoCredential
        && let Some(login) = &live.login
    {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        if let Ok(sent) = door::sent_to(StatusCode::FOUND, &login.entrance(target)) {
            return reply(sent);
        }
    }
    journal.refused(refusal);
    let style = journal.style();
    let (content_type, text) = if personal {
        ("text/html; charset=utf-8", page(refusal, live, journal).html())
    } else {
        ("application/json", json(refusal, style))
    };
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if refusal.status() == StatusCode::UNAUTHORIZED {
        let challenge = if refusal.reason() == Reason::InvalidCredential {
            "Bearer realm=\"perses\", error=\"invalid_token\""
        } else {
            "Bearer realm=\"perses\""
        };
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(allow) = refusal.allow() {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(wait) = refusal.wait() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    if refusal.reason().closes() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if personal {
        door::sign(&mut headers, &live.config.frame_ancestors, None);
    }
    let mut response = Response::new(Body::Whole(Bytes::from(text)));
    *response.status_mut() = refusal.status();
    *response.headers_mut() = headers;
    response
}

/// Adds what every answer carries and hands the journal to the body.
pub(super) fn finish(
    response: Response<Body>,
    head: &http::request::Parts,
    mut journal: Journal,
) -> Response<Outgoing> {
    let (mut parts, mut body) = response.into_parts();
    journal.status(parts.status);
    parts.headers.insert(REQUEST_ID, journal.header());
    parts.headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // h2 has no connection header; its connection is closed by hyper when the framing was wrong.
    if head.version >= Version::HTTP_2 {
        parts.headers.remove(header::CONNECTION);
    }
    if head.method == Method::HEAD || no_body_for(parts.status) {
        if let Body::Whole(bytes) = &body
            && head.method == Method::HEAD
        {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        body = Body::Whole(Bytes::new());
    }
    Response::from_parts(parts, Outgoing::new(body, journal))
}

/// Whether a person is looking: a navigation, not a script's request.
pub(super) fn is_person(head: &http::request::Parts) -> bool {
    if !(head.method == Method::GET || head.method == Method::HEAD) || head.headers.contains_key("x-requested-with") {
        return false;
    }
    match head.headers.get("sec-fetch-dest") {
        Some(value) => value == "document" || value == "iframe",
        None => {
            !head.headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
                && head
                    .headers
                    .get(header::ACCEPT)
                    .and_then(|value| value.to_str().ok())
                    .is_some_and(|accept| accept.split(',').any(|part| part.trim().starts_with("text/html")))
        }
    }
}

/// Whether a form is sent whose answer somebody reads, whoever made the form: pages of others send forms to us too.
fn is_sent_by_a_person(head: &http::request::Parts) -> bool {
    let is =
        |name: &str, values: &[&str]| head.headers.get(name).is_some_and(|value| values.iter().any(|v| value == v));
    head.method == Method::POST && is("sec-fetch-mode", &["navigate"]) && is("sec-fetch-dest", &["document", "iframe"])
}

fn json(refusal: &Refusal, style: Style) -> String {
    match style {
        Style::Perses => serde_json::json!({ "message": refusal.message() }),
        Style::Prometheus => {
            serde_json::json!({ "status": "error", "errorType": error_type(refusal), "error": refusal.message() })
        }
    }
    .to_string()
}

/// Prometheus' words for kinds of errors.
fn error_type(refusal: &Refusal) -> &'static str {
    match refusal.status() {
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::PAYLOAD_TOO_LARGE => "bad_data",
        StatusCode::UNPROCESSABLE_ENTITY => "execution",
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "timeout",
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => "unavailable",
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "not_found",
        _ => "internal",
    }
}

fn page(refusal: &Refusal, live: &Live, journal: &Journal) -> Page {
    let title = match (refusal.reason(), refusal.status()) {
        (Reason::LoginStale | Reason::LoginRefused | Reason::LoginFailed | Reason::LoginUnavailable, _) => {
            "You are not logged in"
        }
        (_, StatusCode::UNAUTHORIZED) => "You are not logged in",
        (_, StatusCode::FORBIDDEN) => "You may not do this",
        (_, StatusCode::NOT_FOUND) => "Nothing here",
        (_, status) if status.is_server_error() => "This did not work",
        _ => "This request cannot be answered",
    };
    let mut page = Page::new(title).text(refusal.message());
    let session = journal.known().filter(|caller| caller.how().is_session() && live.login.is_some());
    if let Some(caller) = session
        && !refusal.message().contains(&caller.identity().username)
    {
        page = page.text(format!("You are logged in as {}.", caller.identity().username));
    }
    if let Some((to, called)) = refusal.way() {
        page = page.link(to.clone(), called);
    }
    match (&live.login, &live.config.external_url) {
        (Some(login), _) if session.is_some() => {
            page = page
                .link(login.address("/"), "To the dashboards")
                .link(login.address("/-/whoami"), "Who am I, and where may I look");
            page = page.link(login.address("/-/logout"), "Log out");
        }
        (Some(login), _) if refusal.way().is_none() => page = page.link(login.address("/"), "To the dashboards"),
        (None, Some(url)) => page = page.link(url.clone(), "To the dashboards"),
        _ => {}
    }
    Page { request_id: journal.id(), ..page }
}
