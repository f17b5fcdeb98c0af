//! The door of the API server: an AdmissionReview comes in, a review goes out. It decides nothing itself ([`injection`]
//! does) and writes nothing anywhere, dry run or not: what is to be said goes into the answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, watch};

use crate::cluster::Cluster;
use crate::encoding;
use crate::injection::{self, Asked, Facts, Outcome, Profiles, Refused};
use crate::listen::{Handler, Peer};
use crate::names::Namespace;
use crate::telemetry::metrics::{InjectionOutcome, Metrics};

/// The API server waits five seconds for us, and must have the answer by then.
const PATIENCE: Duration = Duration::from_secs(4);
/// What is shown of a warning at most (the API server cuts at 256).
const LONGEST: usize = 240;

/// What one review sees of the configuration.
pub struct Live {
    /// `injection`.
    pub profiles: Profiles,
    /// The API server, to look at namespaces.
    pub cluster: Arc<Cluster>,
    /// `limits.body`.
    pub largest: usize,
}

/// The webhook.
#[derive(Clone)]
pub struct Webhook {
    /// The configuration in use.
    pub live: watch::Receiver<Arc<Live>>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The API server's minor version, once it is known.
    pub minor: Arc<OnceCell<u32>>,
}

/// `AdmissionReview` of admission.k8s.io/v1, as far as it decides something.
#[derive(Deserialize)]
struct Review {
    #[serde(rename = "apiVersion")]
    version: String,
    kind: String,
    request: Option<Asking>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asking {
    uid: String,
    kind: Kind,
    #[serde(default)]
    sub_resource: String,
    operation: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    group: String,
    kind: String,
}

/// What is answered.
#[derive(Debug, Default)]
struct Verdict {
    /// Why not.
    refused: Option<(u16, String)>,
    patch: Vec<Value>,
    warnings: Vec<String>,
}

impl Verdict {
    fn no(status: u16, message: impl Into<String>) -> Self {
        Self { refused: Some((status, message.into())), ..Self::default() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Mutate,
    Validate,
}

impl Handler for Webhook {
    type Body = Full<Bytes>;

    async fn call(&self, request: Request<Incoming>, _: Peer) -> Response<Full<Bytes>> {
        let late = || text(StatusCode::GATEWAY_TIMEOUT, "the review took too long".to_owned());
        tokio::time::timeout(PATIENCE, self.answer(request)).await.unwrap_or_else(|_| {
            self.metrics.injection(InjectionOutcome::Error);
            late()
        })
    }
}

impl Webhook {
    /// Answers one request of the API server, or of whoever pretends to be it: what we answer helps nobody else.
    async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = match request.uri().path() {
            "/mutate" => Path::Mutate,
            "/validate" => Path::Validate,
            _ => return text(StatusCode::NOT_FOUND, "there are /mutate and /validate".to_owned()),
        };
        if *request.method() != Method::POST {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use POST".to_owned());
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
            return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json".to_owned());
        }
        let live = Arc::clone(&self.live.borrow());
        let body = match Limited::new(request.into_body(), live.largest).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return text(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("send at most {} bytes (limits.body)", live.largest),
                );
            }
            Err(_) => return text(StatusCode::BAD_REQUEST, "the body broke off".to_owned()),
        };
        self.metrics.review_seen(SystemTime::now());
        let asking = match read(&body) {
            Ok(asking) => asking,
            Err(message) => {
                self.metrics.injection(InjectionOutcome::Error);
                return text(StatusCode::BAD_REQUEST, message);
            }
        };
        let verdict = self.decide(path, &asking, &live).await;
        review(&asking.uid, &verdict)
    }

    async fn decide(&self, path: Path, asking: &Asking, live: &Live) -> Verdict {
        let (verdict, outcome) =
            match (asking.kind.group.as_str(), asking.kind.kind.as_str(), asking.operation.as_str()) {
                ("", "Pod", "CREATE") if asking.sub_resource.is_empty() => self.pod(path, asking, live).await,
                ("perses.dev", "Perses", "CREATE" | "UPDATE")
                    if asking.sub_resource.is_empty() && path == Path::Mutate =>
                {
                    let outcome = injection::hook(&asking.object, &live.profiles);
                    let word =
                        if outcome.patch.is_empty() { InjectionOutcome::Untouched } else { InjectionOutcome::Perses };
                    (Verdict { patch: outcome.patch, warnings: outcome.warnings, refused: None }, word)
                }
                _ => (Verdict::default(), InjectionOutcome::Untouched),
            };
        self.metrics.injection(outcome);
        let metadata = &asking.object["metadata"];
        let name = metadata["name"].as_str().or_else(|| metadata["generateName"].as_str()).unwrap_or_default();
        match (&verdict.refused, outcome) {
            (Some((_, why)), _) => {
                tracing::warn!(namespace = asking.namespace, name, why, dry_run = asking.dry_run, "A pod was refused");
            }
            (None, InjectionOutcome::Untouched) => {}
            (None, _) => {
                let (outcome, dry_run) = (outcome.word(), asking.dry_run);
                tracing::info!(namespace = asking.namespace, name, outcome, dry_run, "A review was answered");
            }
        }
        verdict
    }

    async fn pod(&self, path: Path, asking: &Asking, live: &Live) -> (Verdict, InjectionOutcome) {
        let facts = match self.facts(asking, live).await {
            Ok(facts) => facts,
            Err((status, message)) => {
                let word = if status >= 500 { InjectionOutcome::Error } else { InjectionOutcome::Refused };
                return (Verdict::no(status, message), word);
            }
        };
        if path == Path::Validate {
            return match injection::verify(&asking.object, &facts, &live.profiles) {
                Ok(false) => (Verdict::default(), InjectionOutcome::Untouched),
                Ok(true) => (Verdict::default(), InjectionOutcome::Verified),
                Err(Refused(message)) => (Verdict::no(403, message), InjectionOutcome::Refused),
            };
        }
        match injection::inject(&asking.object, &facts, &live.profiles) {
            Ok(Outcome::Untouched) => (Verdict::default(), InjectionOutcome::Untouched),
            Ok(Outcome::Injected(injected)) => {
                let word =
                    if injected.patch.is_empty() { InjectionOutcome::Unchanged } else { InjectionOutcome::Injected };
                (Verdict { refused: None, patch: injected.patch, warnings: injected.warnings }, word)
            }
            Err(Refused(message)) => (Verdict::no(403, message), InjectionOutcome::Refused),
        }
    }

    /// What is known beyond the pod. Only who must know is made to ask.
    async fn facts<'a>(&self, asking: &'a Asking, live: &Live) -> Result<Facts<'a>, (u16, String)> {
        let mut facts = Facts { namespace: &asking.namespace, ..Facts::default() };
        let no = |Refused(message)| (403, message);
        match injection::asked(&asking.object, &live.profiles).map_err(no)? {
            Asked::No => {}
            Asked::Yes(_) => {
                if injection::is_native(&asking.object) {
                    facts.minor = self.minor.get_or_try_init(|| live.cluster.minor_version()).await.ok().copied();
                }
            }
            Asked::AsTheNamespaceSays => {
                if !injection::has_perses(&asking.object) {
                    return Ok(facts);
                }
                let Some(namespace) = Namespace::parse(&asking.namespace) else {
                    return Err((400, "the request names no namespace".to_owned()));
                };
                // A pod that should have the sidecar never runs without it: who cannot ask says no.
                let key = format!("{}inject-default", injection::PREFIX);
                let says = live.cluster.namespace_annotation(&namespace, &key).await;
                let says = says.map_err(|error| {
                    tracing::error!(cause = %error, namespace = %namespace, "A namespace could not be looked at");
                    (503, format!("the namespace {namespace} could not be looked at; try again"))
                })?;
                facts.inject_default = says.is_some_and(|value| value.eq_ignore_ascii_case("true"));
            }
        }
        Ok(facts)
    }
}

fn read(body: &[u8]) -> Result<Asking, String> {
    let review: Review =
        serde_json::from_slice(body).map_err(|error| format!("expected an AdmissionReview: {error}"))?;
    if review.version != "admission.k8s.io/v1" || review.kind != "AdmissionReview" {
        return Err(format!(
            "expected AdmissionReview of admission.k8s.io/v1, not {:?} of {:?}",
            review.kind, review.version
        ));
    }
    match review.request {
        Some(asking) if !asking.uid.is_empty() => Ok(asking),
        Some(_) => Err("request.uid is empty".to_owned()),
        None => Err("request is missing".to_owned()),
    }
}

fn review(uid: &str, verdict: &Verdict) -> Response<Full<Bytes>> {
    let mut response = json!({ "uid": uid, "allowed": verdict.refused.is_none() });
    if let Some((status, message)) = &verdict.refused {
        response["status"] = json!({ "code": status, "message": format!("perses-sidecar: {message}") });
    }
    if !verdict.patch.is_empty() {
        response["patchType"] = json!("JSONPatch");
        let Ok(patch) = serde_json::to_vec(&verdict.patch) else { return unwritten() };
        response["patch"] = Value::String(encoding::base64(&patch));
    }
    if !verdict.warnings.is_empty() {
        let short = |text: &String| -> String { format!("perses-sidecar: {text}").chars().take(LONGEST).collect() };
        response["warnings"] = verdict.warnings.iter().map(short).collect();
    }
    // Moved: `json!` would copy what it is given, and the patch is long.
    let mut body = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview" });
    body["response"] = response;
    let Ok(body) = serde_json::to_vec(&body) else { return unwritten() };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(header::CONTENT_TYPE, crate::reply::JSON);
    response
}

/// What cannot happen must not let a pod through.
fn unwritten() -> Response<Full<Bytes>> {
    text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written".to_owned())
}

fn text(status: StatusCode, message: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(message + "\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests;
