//! The HTTP face of the stand-in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::oauth::{self, Question};
use super::rbac::{Asked, Who};
use super::reviews::{self, Review};
use super::{API, Cluster, Endpoint, Fault, State, Token, accounts, objects, own};
use crate::http::Https;

/// Where the cluster publishes the authority of its routers.
const SERVING: &str = "/api/v1/namespaces/openshift-config-managed/configmaps/oauth-serving-cert";

/// Which of the two servers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Face {
    Api,
    Oauth,
}

/// The certificate of a server; another one may be put there while it runs.
pub(super) type Shown = Arc<Mutex<Arc<rustls::ServerConfig>>>;

pub(super) async fn serve(listener: TcpListener, shown: Shown, cluster: Cluster, face: Face) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((tcp, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let config = Arc::clone(&shown.lock().unwrap_or_else(PoisonError::into_inner));
        let (acceptor, cluster) = (TlsAcceptor::from(config), cluster.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            let service = service_fn(move |request| {
                let cluster = cluster.clone();
                async move { answer(&cluster, face, request).await }
            });
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Whether OpenShift adds it to what a real API server has.
fn is_added(endpoint: Endpoint) -> bool {
    use Endpoint::{AccessTokens, Discovery, OlderReviews, Users, Webhook};
    matches!(endpoint, Discovery | Users | AccessTokens | Webhook | OlderReviews)
}

async fn forward(
    behind: &Https,
    head: &http::request::Parts,
    body: &Bytes,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let text =
        |name: &http::HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = text(&header::AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let body = String::from_utf8_lossy(body).into_owned();
    let answer = behind.send(head.method.as_str(), path, token, text(&header::CONTENT_TYPE), body).await?;
    let mut response = reply(answer.status, String::from_utf8_lossy(&answer.body).into_owned());
    response
        .headers_mut()
        .extend(answer.headers.get(header::CONTENT_TYPE).map(|kind| (header::CONTENT_TYPE, kind.clone())));
    Ok(response)
}

fn endpoint(face: Face, method: &Method, path: &str) -> Option<Endpoint> {
    match (face, method.as_str(), path) {
        (Face::Oauth, _, "/oauth/authorize") => Some(Endpoint::Authorize),
        (Face::Oauth, _, "/oauth/token") => Some(Endpoint::Token),
        (Face::Oauth, ..) => None,
        (Face::Api, "GET", "/.well-known/oauth-authorization-server") => Some(Endpoint::Discovery),
        (Face::Api, "POST", "/apis/authentication.k8s.io/v1/tokenreviews") => Some(Endpoint::TokenReviews),
        (Face::Api, "POST", "/apis/oauth.openshift.io/v1/tokenreviews") => Some(Endpoint::Webhook),
        (Face::Api, "GET", "/.well-known/openid-configuration" | "/openid/v1/jwks") => Some(Endpoint::Issuer),
        (Face::Api, "POST", path) if accounts::asked(path).is_some() => Some(Endpoint::TokenRequests),
        (Face::Api, "POST", path) if Review::read(path).is_some() => match Review::read(path) {
            Some(Review::Subject) => Some(Endpoint::AccessReviews),
            Some(Review::Older(_)) => Some(Endpoint::OlderReviews),
            _ => Some(Endpoint::OtherReviews),
        },
        (Face::Api, "GET", "/apis/project.openshift.io/v1/projects") => Some(Endpoint::Projects),
        (Face::Api, "GET", "/api/v1/namespaces") => Some(Endpoint::Namespaces),
        (Face::Api, "GET", "/apis") => Some(Endpoint::Apis),
        (Face::Api, ..) => own::endpoint(method, path),
    }
}

type AnyBody = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// An error makes hyper close the connection without an answer.
async fn answer(
    cluster: &Cluster,
    face: Face,
    request: Request<Incoming>,
) -> Result<Response<AnyBody>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let query = head.uri.query().unwrap_or_default();
    let path = if face == Face::Api && head.method == Method::GET && cluster.behind().is_none() {
        objects::Path::read(head.uri.path(), query)
    } else {
        None
    };
    let Some(path) = path else {
        return Ok(whole(cluster, face, &head, &body, None).await?.map(BodyExt::boxed_unsync));
    };
    // Counted, and failing as it was told to, like everything else.
    let fault = whole(cluster, face, &head, &body, Some(path.endpoint())).await?;
    if fault.status() != StatusCode::CONTINUE {
        return Ok(fault.map(BodyExt::boxed_unsync));
    }
    let bearer = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let mut state = cluster.state();
    let Some(caller) = bearer.and_then(|token| person(&mut state, token)) else {
        return Ok(status(401, "Unauthorized").map(BodyExt::boxed_unsync));
    };
    let State { objects, rbac, .. } = &mut *state;
    Ok(match objects::answer(objects, rbac, &caller, &path, query) {
        objects::Answer::Whole(answer) => answer.map(BodyExt::boxed_unsync),
        objects::Answer::Watch(events) => {
            let mut response = Response::new(events.boxed_unsync());
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
    })
}

/// An answer that is written at once. For an endpoint that is answered elsewhere, 100 when nothing is wrong with it.
async fn whole(
    cluster: &Cluster,
    face: Face,
    head: &http::request::Parts,
    body: &Bytes,
    elsewhere: Option<Endpoint>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let path = head.uri.path().to_owned();
    let endpoint = elsewhere.or_else(|| endpoint(face, &head.method, &path));
    let mut fault = None;
    *cluster.state().counts.entry(endpoint).or_default() += 1;
    if let Some(endpoint) = endpoint {
        let mut state = cluster.state();
        state.last_bodies.insert(endpoint, body.to_vec());
        fault = state.faults.get(&endpoint).cloned();
    }
    match &fault {
        Some(Fault::Reset) => return Err(std::io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Slow(time)) => tokio::time::sleep(*time).await,
        Some(Fault::Status(code, text)) => return Ok(reply(*code, text.clone())),
        Some(Fault::TooMany(seconds)) => {
            let mut response = status(429, "too many requests");
            response.headers_mut().insert(header::RETRY_AFTER, (*seconds).into());
            return Ok(response);
        }
        Some(Fault::Raw { status, kind, body }) => return Ok(raw(*status, kind, body)),
        Some(Fault::Redirect(to)) => {
            let mut response = raw(302, "text/html", "");
            response.headers_mut().extend(HeaderValue::from_str(to).ok().map(|to| (header::LOCATION, to)));
            return Ok(response);
        }
        Some(Fault::Truncated) => return Ok(raw(200, "application/json", "{\"access_token\": \"sha256~")),
        Some(Fault::Missing | Fault::Contradiction) | None => {}
    }
    if elsewhere.is_some() {
        return Ok(raw(100, "", ""));
    }
    if face == Face::Api
        && !endpoint.is_some_and(is_added)
        && path != SERVING
        && let Some(behind) = cluster.behind()
    {
        return forward(&behind, head, body).await;
    }
    let mut state = cluster.state();
    let now = SystemTime::now() + state.advance;
    if face == Face::Oauth {
        let query = head.uri.query().unwrap_or_default();
        let question = Question { method: &head.method, path: &path, query, headers: &head.headers, body };
        return Ok(oauth::answer(&mut state, &question, now));
    }
    if endpoint == Some(Endpoint::Discovery) {
        return Ok(match state.oauth.document() {
            Some(document) => reply(200, document.to_string()),
            None => status(404, "the server could not find the requested resource"),
        });
    }
    let bearer = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(caller) = bearer.and_then(|token| person(&mut state, token)) else {
        return Ok(status(401, "Unauthorized"));
    };
    let may = |verb: &str, group: &str, resource: &str| {
        let asked = Asked { verb: verb.into(), group: group.into(), resource: resource.into(), ..Asked::default() };
        state.rbac.allows(&caller, &asked)
    };
    let missing = || status(404, "the server could not find the requested resource");
    Ok(match endpoint {
        // Everybody may ask which APIs there are.
        None if path == "/apis/project.openshift.io/v1" => match state.faults.get(&Endpoint::Projects) {
            Some(Fault::Missing) => missing(),
            _ => {
                reply(200, json!({ "kind": "APIResourceList", "groupVersion": "project.openshift.io/v1" }).to_string())
            }
        },
        // Rights are looked at before the question whether there is such a thing.
        None if path == SERVING => {
            // Everybody who is somebody may read it.
            let data = json!({ "ca-bundle.crt": state.oauth.authority });
            reply(200, json!({ "kind": "ConfigMap", "apiVersion": "v1", "data": data }).to_string())
        }
        None => status(403, "forbidden"),
        Some(own @ (Endpoint::Users | Endpoint::SelfReviews | Endpoint::AccessTokens)) => {
            own::answer(&mut state, own, &caller, &head.method, &path, body)
        }
        // These have been answered.
        Some(Endpoint::Discovery | Endpoint::Authorize | Endpoint::Token) => missing(),
        Some(Endpoint::WorkloadLists | Endpoint::WorkloadWatches) => missing(),
        Some(Endpoint::Apis) => objects::groups(&state.objects),
        Some(Endpoint::Projects) if matches!(fault, Some(Fault::Missing)) => {
            if may("list", "project.openshift.io", "projects") { missing() } else { status(403, "forbidden") }
        }
        Some(Endpoint::TokenReviews | Endpoint::Webhook) if !may("create", "authentication.k8s.io", "tokenreviews") => {
            status(403, "forbidden")
        }
        Some(Endpoint::Namespaces) if !may("list", "", "namespaces") => status(403, "forbidden"),
        Some(Endpoint::TokenReviews | Endpoint::Webhook) => token_review(&mut state, body),
        Some(Endpoint::AccessReviews | Endpoint::OtherReviews | Endpoint::OlderReviews) => match Review::read(&path) {
            Some(review) => {
                reviews::answer(&state, &review, &caller, body, matches!(fault, Some(Fault::Contradiction)))
            }
            None => missing(),
        },
        Some(Endpoint::TokenRequests) => accounts::request(&mut state, &caller, &path, body),
        // Who is allowed to know: every service account, and whoever may do everything.
        Some(Endpoint::Issuer) => {
            let account = caller.groups.iter().any(|group| group == "system:serviceaccounts");
            let asked = Asked { verb: "get".into(), path: Some(path.clone()), ..Asked::default() };
            let accept = head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
            match (account || state.rbac.allows(&caller, &asked), path.as_str()) {
                (false, _) => status(403, "forbidden"),
                // Keys are of a kind of their own, which must be taken.
                (true, "/openid/v1/jwks") if !["jwk-set+json", "*/*"].iter().any(|kind| accept.contains(kind)) => {
                    status(406, "only application/jwk-set+json is served here")
                }
                (true, "/openid/v1/jwks") => accounts::keys(&mut state),
                (true, _) => accounts::document(),
            }
        }
        Some(Endpoint::Namespaces) => list(state.namespaces.iter().map(String::as_str), "NamespaceList"),
        Some(Endpoint::Projects) => {
            if caller
                .scopes
                .as_ref()
                .is_some_and(|scopes| !scopes.iter().any(|scope| scope == "user:full" || scope == "user:list-projects"))
            {
                return Ok(status(403, "scopes prevent this action"));
            }
            // The list of projects looks at rights alone; scopes have decided whether it may be asked for.
            let full = Who { scopes: None, ..caller.clone() };
            let visible = state.namespaces.iter().filter(|namespace| {
                let asked = Asked {
                    namespace: (*namespace).clone(),
                    verb: "get".into(),
                    resource: "namespaces".into(),
                    ..Asked::default()
                };
                state.rbac.allows(&full, &asked)
            });
            list(visible.map(String::as_str), "ProjectList")
        }
    })
}

/// A token that is good now. Who presents it keeps it from falling asleep.
pub(super) fn live(state: &mut State, token: &str) -> Option<Token> {
    let now = SystemTime::now() + state.advance;
    let known = state.tokens.get_mut(token)?;
    let awake = known.idle.is_none_or(|idle| known.seen + idle > now);
    let alive = awake && known.expires.is_none_or(|expires| expires > now);
    if alive {
        known.seen = now;
    }
    alive.then(|| known.clone())
}

/// The cluster's first administrator has none.
pub(super) fn uid(user: &str) -> Option<String> {
    (user != "kube:admin").then(|| format!("uid-{user}"))
}

pub(super) fn groups(state: &State, token: &Token) -> Vec<String> {
    let mut groups = state.groups.get(&token.user).cloned().unwrap_or_default();
    if !token.scopes.is_empty() {
        groups.push("system:authenticated:oauth".to_owned());
    }
    groups.push("system:authenticated".to_owned());
    groups
}

fn person(state: &mut State, token: &str) -> Option<Who> {
    let token = live(state, token).filter(|token| token.audiences.is_empty())?;
    let scopes = (!token.scopes.is_empty()).then(|| token.scopes.clone());
    Some(Who { user: token.user.clone(), groups: groups(state, &token), scopes })
}

pub(super) fn object(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().filter(Value::is_object)
}

fn token_review(state: &mut State, body: &[u8]) -> Response<Full<Bytes>> {
    let Some(mut review) = object(body) else { return status(400, "no JSON object") };
    let asked: Vec<String> = serde_json::from_value(review["spec"]["audiences"].clone()).ok().unwrap_or_default();
    let text = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
    // A token without audiences is meant for the API server; one with them, for these alone.
    let meant = |token: &Token, audience: &str| {
        if token.audiences.is_empty() { audience == API } else { token.audiences.iter().any(|own| own == audience) }
    };
    let asked = if asked.is_empty() { vec![API.to_owned()] } else { asked };
    let known = live(state, &text).filter(|token| asked.iter().any(|audience| meant(token, audience)));
    review["status"] = match known {
        None => json!({ "user": {}, "error": "[invalid bearer token]" }),
        Some(token) => {
            let mut user = json!({ "username": token.user, "groups": groups(state, &token) });
            if let Some(uid) = uid(&token.user) {
                user["uid"] = json!(uid);
            }
            if let Some(id) = accounts::credential(&text) {
                user["extra"] = json!({ "authentication.kubernetes.io/credential-id": [id] });
            }
            if !token.scopes.is_empty() {
                user["extra"] = json!({ "scopes.authorization.openshift.io": token.scopes });
            }
            let audiences: Vec<&String> = asked.iter().filter(|audience| meant(&token, audience)).collect();
            json!({ "authenticated": true, "user": user, "audiences": audiences })
        }
    };
    reply(201, review.to_string())
}

fn list<'n>(names: impl Iterator<Item = &'n str>, kind: &str) -> Response<Full<Bytes>> {
    let items: Vec<Value> =
        names.map(|name| json!({ "metadata": { "name": name, "uid": format!("uid-{name}") } })).collect();
    reply(200, json!({ "kind": kind, "apiVersion": "v1", "metadata": {}, "items": items }).to_string())
}

pub(super) fn status(code: u16, message: &str) -> Response<Full<Bytes>> {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code });
    reply(code, body.to_string())
}

pub(super) fn reply(code: u16, body: String) -> Response<Full<Bytes>> {
    raw(code, "application/json", &body)
}

fn raw(code: u16, kind: &str, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_owned())));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().extend(HeaderValue::from_str(kind).ok().map(|kind| (header::CONTENT_TYPE, kind)));
    response
}
