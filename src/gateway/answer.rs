//! The one place where a refusal becomes bytes, and where every answer gets the headers that all answers carry.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};

use super::body::Outgoing;
use super::journal::{Journal, Style};
use super::no_body_for;
use crate::refusal::{Reason, Refusal};
use crate::reply::{Body, Reply};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) fn reply(reply: Reply) -> Response<Body> {
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

pub(super) fn refusal(
    refusal: &Refusal,
    style: Style,
    personal: bool,
    external_url: Option<&str>,
    journal: &mut Journal,
) -> Response<Body> {
    journal.refused(refusal);
    let (content_type, text) = if personal {
        ("text/html; charset=utf-8", page(refusal, external_url, &journal.id()))
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
        // The page loads nothing and runs nothing.
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
        );
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

fn page(refusal: &Refusal, external_url: Option<&str>, id: &str) -> String {
    let title = match refusal.status() {
        StatusCode::UNAUTHORIZED => "You are not logged in",
        StatusCode::FORBIDDEN => "You may not see this",
        StatusCode::NOT_FOUND => "Nothing here",
        status if status.is_server_error() => "This did not work",
        _ => "This request cannot be answered",
    };
    let next = external_url.map_or_else(String::new, |url| format!("<p><a href=\"{0}\">{0}</a></p>", escape(url)));
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui,sans-serif;\
         max-width:40rem;margin:4rem auto;padding:0 1rem}}code{{font-size:.9em}}</style>\
         <h1>{title}</h1><p>{message}</p>{next}<p>Request <code>{id}</code></p></html>\n",
        message = escape(refusal.message()),
    )
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
