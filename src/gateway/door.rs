//! Who comes in, and by which door: a bearer token, a session, or the pages that make and end one.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

use super::journal::Journal;
use super::{Live, answer};
use crate::access::Listing;
use crate::catalog::{Places, whom};
use crate::config;
use crate::identity::Caller;
use crate::identity::login::{Ended, Login};
use crate::page::{Page, Part};
use crate::refusal::{Reason, Refusal};
use crate::reply::{Body, Reply};
use crate::route::{Door, Open};
use crate::telemetry::audit::rfc3339;

/// Somebody who came in.
pub(super) struct Arrived {
    pub(super) caller: Arc<Caller>,
    /// Until when they are known without logging in again, as far as that can be told.
    pub(super) until: Option<SystemTime>,
}

/// Somebody, by a bearer token or else by a session. `cookies` gets what the browser shall keep.
pub(super) async fn arrive(
    live: &Live,
    journal: &Journal,
    head: &Parts,
    cookies: &mut Vec<HeaderValue>,
    now: SystemTime,
) -> Result<Arrived, Refusal> {
    if let Some(caller) = live.identities.bearer(&head.headers, journal.client()).await? {
        return Ok(Arrived { until: caller.until(), caller });
    }
    match &live.login {
        Some(login) => {
            let arrived = Box::pin(login.arrive(&head.method, &head.headers, &live.identities, cookies, now)).await?;
            Ok(Arrived { caller: arrived.caller, until: Some(arrived.ends) })
        }
        None => Err(Refusal::new(
            Reason::NoCredential,
            "authentication is required: send an OpenShift token as \"Authorization: Bearer …\" (\"oc whoami --show-token\" prints yours)",
        )),
    }
}

/// What anybody may ask. Whoever is known gets it for themselves, and a person who is not is sent to log in first.
pub(super) async fn open(
    live: &Live,
    fixed: &config::Fixed,
    journal: &mut Journal,
    head: &Parts,
    open: &Open,
    cookies: &mut Vec<HeaderValue>,
    now: SystemTime,
) -> Result<Reply, Refusal> {
    let accept_encoding = head.headers.get(header::ACCEPT_ENCODING);
    let comes = head.headers.contains_key(header::AUTHORIZATION) || live.login.is_some();
    let caller = match open {
        Open::Config if comes => arrive(live, journal, head, cookies, now).await.ok().map(|arrived| arrived.caller),
        Open::Ui(_) if comes && answer::is_person(head) => match arrive(live, journal, head, cookies, now).await {
            Ok(arrived) => Some(arrived.caller),
            Err(refusal) if live.login.is_some() && refusal.reason() == Reason::NoCredential => return Err(refusal),
            // The files are for everybody, also while the cluster cannot be asked.
            Err(_) => None,
        },
        Open::Config | Open::Ui(_) | Open::Ready | Open::Health => None,
    };
    match (open, &caller) {
        (Open::Config, caller) => live.catalog.config(caller.as_ref(), &places(live, fixed, caller.as_ref())).await,
        (Open::Ui(_), Some(caller)) if has_nothing(live, caller).await => {
            journal.caller(caller);
            Err(nothing(live, caller))
        }
        _ => {
            let mut reply = live.catalog.open(open, accept_encoding).await?;
            if matches!(open, Open::Ui(_)) {
                frame(&mut reply.headers, &live.config.frame_ancestors);
            }
            Ok(reply)
        }
    }
}

/// Where the UI tells people to go.
fn places(live: &Live, fixed: &config::Fixed, caller: Option<&Arc<Caller>>) -> Places {
    let session = live.login.is_some() && caller.is_some_and(|caller| caller.how().is_session());
    let shown = live.config.workloads.enabled && live.config.dashboards.enabled;
    Places {
        gallery: shown.then(|| format!("{}/-/gallery", fixed.api_prefix)),
        profile: format!("{}/-/whoami", fixed.api_prefix),
        logout: session.then(|| format!("{}/-/logout", fixed.api_prefix)),
        contact: live.config.contact.clone(),
    }
}

/// Whether somebody surely has no right anywhere. What cannot be found out is no reason to say so.
async fn has_nothing(live: &Live, caller: &Arc<Caller>) -> bool {
    for listing in [Listing::Projects, Listing::Metrics] {
        if !live.access.namespaces(caller, listing).await.is_ok_and(|set| set.is_empty()) {
            return false;
        }
    }
    true
}

fn nothing(live: &Live, caller: &Caller) -> Refusal {
    let asked = whom(&live.config.contact);
    Refusal::new(
        Reason::Forbidden,
        format!(
            "you are logged in as {}, and there is no namespace yet in which you may see dashboards or metrics; ask {asked} for the role \"view\" or \"edit\" in a namespace, and load this page again",
            caller.identity().username
        ),
    )
}

/// Who may show a page in a frame: our own origin, and those that are configured.
fn frame(headers: &mut HeaderMap, ancestors: &[String]) {
    let policy =
        format!("frame-ancestors 'self'{}", ancestors.iter().map(|origin| format!(" {origin}")).collect::<String>());
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if ancestors.is_empty() {
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    }
}

/// A page of ours.
pub(super) fn paper(status: StatusCode, page: &Page, ancestors: &[String], forms: Option<&str>) -> Reply {
    let mut reply = Reply::empty(status);
    reply.body = Body::Whole(Bytes::from(page.html()));
    sign(&mut reply.headers, ancestors, forms);
    reply
}

/// The headers of a page of ours: it loads nothing, runs nothing, is kept by nobody, and sends forms to us alone and `forms`.
pub(super) fn sign(headers: &mut HeaderMap, ancestors: &[String], forms: Option<&str>) {
    let framed = if ancestors.is_empty() { "'none'".to_owned() } else { format!("'self' {}", ancestors.join(" ")) };
    let forms = forms.map_or_else(String::new, |origin| format!(" {origin}"));
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors {framed}; base-uri 'none'; form-action 'self'{forms}"
    );
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A form of a page that hides all of its address is sent with `Origin: null`, which nobody can tell from a stranger's.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if ancestors.is_empty() {
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    }
}

/// A way to somewhere else, which nobody keeps.
pub(super) fn sent_to(status: StatusCode, place: &str) -> Result<Reply, Refusal> {
    let mut reply = Reply::empty(status);
    let place = HeaderValue::try_from(place).map_err(Refusal::internal)?;
    reply.headers.insert(header::LOCATION, place);
    reply.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply.headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(reply)
}

/// Begins, finishes or ends a session.
pub(super) async fn door(
    live: &Live,
    journal: &mut Journal,
    head: &Parts,
    door: Door,
    cookies: &mut Vec<HeaderValue>,
    now: SystemTime,
) -> Result<Reply, Refusal> {
    let Some(login) = &live.login else {
        return Err(Refusal::new(
            Reason::NoLogin,
            "nobody logs in here: send an OpenShift token as \"Authorization: Bearer …\"",
        ));
    };
    match door {
        // A script in a browser is not led away, and pages of others make nobody's browser begin logins.
        Door::Login(_) if head.headers.contains_key("sec-fetch-dest") && !answer::is_person(head) => {
            Err(Refusal::new(Reason::NoCredential, "people log in by going to this address; a script is not sent on"))
        }
        Door::Login(to) => {
            let (place, more) = login.begin(&head.headers, &to, now).await?;
            cookies.extend(more);
            sent_to(StatusCode::FOUND, &place)
        }
        Door::Callback(callback) => {
            let finished = login.finish(&head.headers, &callback, &live.identities, journal.client(), now).await?;
            journal.caller(&finished.caller);
            cookies.extend(finished.cookies);
            sent_to(StatusCode::FOUND, finished.to.as_str())
        }
        Door::LogoutPage => {
            let mut none = Vec::new();
            let caller = arrive(live, journal, head, &mut none, now).await.ok().map(|arrived| arrived.caller);
            let page = match caller.filter(|caller| caller.how().is_session()) {
                Some(caller) => Page::new("Log out?")
                    .text(format!("You are logged in as {}.", caller.identity().username))
                    .button(login.address("/-/logout"), "Log out")
                    .link(login.address("/"), "Stay, and back to the dashboards"),
                None => Page::new("You are logged out").link(login.address("/-/login"), "Log in"),
            };
            let page = Page { request_id: journal.id(), ..page };
            Ok(paper(StatusCode::OK, &page, &live.config.frame_ancestors, login.forms().await.as_deref()))
        }
        Door::Logout => logout(live, login, journal, head, cookies, now).await,
    }
}

async fn logout(
    live: &Live,
    login: &Login,
    journal: &mut Journal,
    head: &Parts,
    cookies: &mut Vec<HeaderValue>,
    now: SystemTime,
) -> Result<Reply, Refusal> {
    // Only so that the record says who; nobody is kept from leaving.
    if let Some(session) = login.session(&head.headers, now)
        && let Ok(Some(caller)) = login.owner(&session, &live.identities).await
    {
        journal.caller(&caller);
    }
    let ended = login.end(&head.method, &head.headers, now).await?;
    cookies.extend(ended.cookies.iter().cloned());
    if let Some(place) = &ended.elsewhere {
        return sent_to(StatusCode::SEE_OTHER, place);
    }
    if !wants_page(head) {
        let body = serde_json::json!({ "message": told(&ended), "revoked": ended.revoked });
        return Ok(Reply::json(StatusCode::OK, body.to_string()));
    }
    let mut page = Page::new("You are logged out").text(told(&ended));
    if let Some(form) = &ended.form {
        page = page
            .text("On a computer that others use, log out of OpenShift as well:")
            .button(form, "Log out of OpenShift");
    }
    let page = Page { request_id: journal.id(), ..page.link(login.address("/-/login"), "Log in again") };
    Ok(paper(StatusCode::OK, &page, &live.config.frame_ancestors, login.forms().await.as_deref()))
}

/// Which of the two happened.
fn told(ended: &Ended) -> &'static str {
    match ended {
        Ended { was: false, .. } => "There was no session to end.",
        Ended { revoked: true, .. } => "Your session is ended, and its token was revoked at OpenShift.",
        Ended { .. } => {
            "Your session is ended: it is not accepted here any more. Its token could not be revoked at the server that made \
             it and ends there by itself."
        }
    }
}

/// Whether somebody reads the answer to a form.
pub(super) fn wants_page(head: &Parts) -> bool {
    let accept = head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    head.headers.get("sec-fetch-mode").map_or_else(|| accept.contains("text/html"), |mode| mode == "navigate")
}

/// `/-/whoami` for a person who looks.
pub(super) fn profile(live: &Live, fixed: &config::Fixed, arrived: &Arrived, facts: &Value, id: String) -> Reply {
    let caller = &arrived.caller;
    let list = |pointer: &str| {
        let names: Vec<&str> =
            facts[pointer]["namespaces"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        match (facts[pointer]["everywhere"].as_bool(), names.is_empty()) {
            (Some(true), _) => "the whole cluster".to_owned(),
            (_, true) => "nowhere".to_owned(),
            _ => names.join(", "),
        }
    };
    let how = if caller.how().is_session() { "by logging in here" } else { "by a token" };
    let until = arrived.until.map_or_else(|| "as long as the cluster accepts it".to_owned(), rfc3339);
    let mut page = Page::new(format!("You are {}", caller.identity().username)).with(Part::Facts(vec![
        ("Known", how.to_owned()),
        ("Until", until),
        ("Groups", caller.identity().groups.join(", ")),
        ("Dashboards of", list("projects")),
        ("Metrics of", list("metrics")),
    ]));
    if facts["projects"]["namespaces"].as_array().is_none_or(Vec::is_empty) {
        let asked = whom(&live.config.contact);
        page = page.text(format!("For more, ask {asked} for the role \"view\" or \"edit\" in a namespace."));
    }
    page = page.link(format!("{}/", fixed.api_prefix), "To the dashboards");
    if live.login.is_some() && caller.how().is_session() {
        page = page.link(format!("{}/-/logout", fixed.api_prefix), "Log out");
    }
    paper(StatusCode::OK, &Page { request_id: id, ..page }, &live.config.frame_ancestors, None)
}
