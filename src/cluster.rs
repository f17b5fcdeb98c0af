//! What does the Kubernetes API say? Token reviews, access reviews, and the namespaces of a person.
//!
//! One value speaks for one configuration. It asks and does not remember; `identity` and `access` do. Every answer is
//! bounded in time and size, and so is what we ask of the API server: so many at once, so many a second, and nothing while
//! it has asked us to wait.

mod limiter;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::client::Body;
use serde::Deserialize;

use crate::config;
use crate::encoding::base64url;
use crate::names::{Namespace, Secret};
use crate::telemetry::metrics::{Metrics, ReviewKind, ReviewOutcome, Upstream};
use limiter::Limiter;

/// The largest answer we read: a list of a few ten thousand namespaces.
const LARGEST_ANSWER: usize = 32 << 20;

/// Who somebody is, in the API server's own words.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's name; any text.
    pub username: String,
    /// The user's unique id, may be empty.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// Further facts, scopes among them.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What an access review asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes {
    /// A resource.
    Resource(config::Permission),
    /// A path that is no resource.
    NonResource {
        /// The path.
        path: &'static str,
        /// The verb.
        verb: &'static str,
    },
}

/// Why the API server gave no verdict. Nobody may take this for a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterError {
    /// We or the API server are at a limit; come back then.
    Busy(Duration),
    /// No answer in time.
    Slow,
    /// No answer, an error, or nonsense; for the log.
    Failed(String),
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(wait) => write!(f, "the API server is busy, next try in {} s", wait.as_secs().max(1)),
            Self::Slow => f.write_str("the API server did not answer in time"),
            Self::Failed(cause) => write!(f, "the API server gave no verdict: {cause}"),
        }
    }
}

impl std::error::Error for ClusterError {}

/// The API server, asked as ourselves.
pub struct Cluster {
    clients: RwLock<Clients>,
    timeout: Duration,
    limiter: Limiter,
    /// For what nobody waits for, so that it takes nothing from reviews and does not hold them up.
    background: Limiter,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
struct Clients {
    /// Sends our own credential.
    ours: kube::Client,
    /// Sends none: the caller's is set on the request.
    bare: kube::Client,
    /// Sends ours, and lets an answer take its time once it has begun.
    patient: kube::Client,
}

impl Clients {
    fn new(settings: &config::Cluster) -> Result<Self, String> {
        let roots: Vec<Vec<u8>> = rustls_pki_types::pem::PemObject::pem_slice_iter(&settings.ca)
            .map(|item: Result<rustls_pki_types::CertificateDer<'_>, _>| item.map(|der| der.to_vec()))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("cluster.ca_file: {error}"))?;
        let url = settings.url.to_string().parse().map_err(|error| format!("cluster.url: {error}"))?;
        let mut bare = kube::Config::new(url);
        bare.root_cert = Some(roots);
        bare.connect_timeout = Some(settings.timeout);
        bare.read_timeout = Some(settings.timeout);
        bare.write_timeout = Some(settings.timeout);
        bare.proxy_url = None;
        bare.disable_compression = true;
        // Its retries wait for minutes; a person is waiting here.
        bare.default_retry = false;
        let mut ours = bare.clone();
        ours.auth_info.token_file = Some(settings.token_file.to_string_lossy().into_owned());
        let mut patient = ours.clone();
        patient.read_timeout = None;
        let client = |config| kube::Client::try_from(config).map_err(|error| format!("cluster: {error}"));
        Ok(Self { ours: client(ours)?, bare: client(bare)?, patient: client(patient)? })
    }
}

impl Cluster {
    /// Builds the clients. Connects to nobody yet.
    ///
    /// # Errors
    /// When the CA bundle or the token file cannot be used.
    pub fn new(settings: &config::Cluster, metrics: Arc<Metrics>) -> Result<Self, String> {
        Ok(Self {
            clients: RwLock::new(Clients::new(settings)?),
            timeout: settings.timeout,
            limiter: Limiter::new(settings.in_flight, settings.per_second),
            background: Limiter::new(8, 50),
            metrics,
        })
    }

    /// Believes another bundle from now on: new connections, and nothing forgotten of what was asked before.
    ///
    /// # Errors
    /// As [`Self::new`]; the clients before stay.
    pub fn renew(&self, settings: &config::Cluster) -> Result<(), String> {
        let clients = Clients::new(settings)?;
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = clients;
        Ok(())
    }

    fn clients(&self) -> Clients {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whose token is this? `None` when the API server says it is nobody's.
    ///
    /// # Errors
    /// When there is no verdict.
    pub async fn review_token(&self, token: &Secret, audiences: &[String]) -> Result<Option<Identity>, ClusterError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.expose().to_owned()),
                audiences: (!audiences.is_empty()).then(|| audiences.to_vec()),
            },
            ..TokenReview::default()
        };
        let answer = self.review("/apis/authentication.k8s.io/v1/tokenreviews", &review, ReviewKind::Token).await?;
        let verdict = read_token_review(&answer, audiences);
        self.metrics.review(
            ReviewKind::Token,
            match &verdict {
                Ok(Some(_)) => ReviewOutcome::Authenticated,
                Ok(None) => ReviewOutcome::Rejected,
                Err(_) => ReviewOutcome::Error,
            },
        );
        verdict
    }

    /// May they?
    ///
    /// # Errors
    /// When there is no verdict.
    pub async fn review_access(&self, who: &Identity, what: &Attributes) -> Result<bool, ClusterError> {
        let (resource_attributes, non_resource_attributes) = match what {
            Attributes::Resource(permission) => (Some(resource(permission)), None),
            Attributes::NonResource { path, verb } => {
                (None, Some(NonResourceAttributes { path: Some((*path).to_owned()), verb: Some((*verb).to_owned()) }))
            }
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(who.username.clone()),
                uid: (!who.uid.is_empty()).then(|| who.uid.clone()),
                groups: Some(who.groups.clone()),
                extra: Some(who.extra.clone()),
                resource_attributes,
                non_resource_attributes,
            },
            ..SubjectAccessReview::default()
        };
        let answer =
            self.review("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review, ReviewKind::Access).await?;
        let verdict = read_access_review(&answer);
        self.metrics.review(
            ReviewKind::Access,
            match &verdict {
                Ok(true) => ReviewOutcome::Allowed,
                Ok(false) => ReviewOutcome::Denied,
                Err(_) => ReviewOutcome::Error,
            },
        );
        verdict
    }

    /// The namespaces that may concern somebody: OpenShift's own list of a person's projects, asked with their token;
    /// where that API does not exist or does not know the token, every namespace, asked as ourselves. Rights are
    /// reviewed for each either way.
    ///
    /// # Errors
    /// When there is no list.
    pub async fn candidates(&self, token: &Secret) -> Result<Vec<Namespace>, ClusterError> {
        let mut request = get("/apis/project.openshift.io/v1/projects");
        request.headers_mut().insert(header::AUTHORIZATION, bearer(token)?);
        let outcome = match self.send(&self.clients().bare, request).await? {
            (StatusCode::OK, body) => read_names(&body),
            // The token is meant for our audience alone, or has ended, which its next review tells.
            (StatusCode::UNAUTHORIZED, _) => self.all_namespaces().await,
            // Where there is no such API, rights are looked at before that is told: 403 for most, 404 for
            // administrators.
            (StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, _) => {
                // With the API the token may not list projects: its scopes are too narrow.
                if self.has_projects().await? { Ok(Vec::new()) } else { self.all_namespaces().await }
            }
            (other, _) => Err(ClusterError::Failed(format!("list of projects: status {other}"))),
        };
        let word = if outcome.is_ok() { ReviewOutcome::Allowed } else { ReviewOutcome::Error };
        self.metrics.review(ReviewKind::Projects, word);
        outcome
    }

    /// Whether the API of projects exists. Every authenticated client may ask which APIs do.
    async fn has_projects(&self) -> Result<bool, ClusterError> {
        match self.send(&self.clients().ours, get("/apis/project.openshift.io/v1")).await? {
            (StatusCode::OK, _) => Ok(true),
            (StatusCode::NOT_FOUND, _) => Ok(false),
            (other, _) => Err(ClusterError::Failed(format!("discovery of project.openshift.io: status {other}"))),
        }
    }

    /// Every namespace, asked as ourselves.
    async fn all_namespaces(&self) -> Result<Vec<Namespace>, ClusterError> {
        match self.send(&self.clients().ours, get("/api/v1/namespaces")).await? {
            (StatusCode::OK, body) => read_names(&body),
            (other, _) => Err(ClusterError::Failed(format!("list of namespaces: status {other}"))),
        }
    }

    /// What the API server says of the cluster's own OAuth server (RFC 8414); `None` where there is none. Asked as nobody.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn oauth_metadata(&self) -> Result<Option<Vec<u8>>, ClusterError> {
        match self.send(&self.clients().bare, get("/.well-known/oauth-authorization-server")).await? {
            (StatusCode::OK, document) => Ok(Some(document)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (other, _) => Err(ClusterError::Failed(format!("discovery of the OAuth server: status {other}"))),
        }
    }

    /// What the API server says of itself as an issuer of tokens, and its keys (OpenID Connect Discovery 1.0, 3).
    ///
    /// # Errors
    /// When it does not say.
    pub async fn issuer(&self) -> Result<(Vec<u8>, Vec<u8>), ClusterError> {
        let ask = async |path, kind| {
            let mut request = get(path);
            request.headers_mut().insert(header::ACCEPT, http::HeaderValue::from_static(kind));
            match self.send(&self.clients().ours, request).await? {
                (StatusCode::OK, body) => Ok(body),
                (other, _) => Err(ClusterError::Failed(format!("{path}: status {other}"))),
            }
        };
        // To whoever takes nothing but JSON the API server does not give its keys.
        let document = ask("/.well-known/openid-configuration", "application/json").await?;
        Ok((document, ask("/openid/v1/jwks", "application/jwk-set+json, application/json").await?))
    }

    /// Deletes an OAuth token, as its owner or, where we were given that right, as ourselves; whether it is gone.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn revoke(&self, token: &Secret) -> Result<bool, ClusterError> {
        let Some(name) = token_name(token) else { return Ok(false) };
        let request = |kind: &str| {
            Request::builder()
                .method(Method::DELETE)
                .uri(format!("/apis/oauth.openshift.io/v1/{kind}/{name}"))
                .header(header::ACCEPT, "application/json")
                .body(Body::from(Vec::new()))
                .map_err(|error| ClusterError::Failed(error.to_string()))
        };
        let mut theirs = request("useroauthaccesstokens")?;
        theirs.headers_mut().insert(header::AUTHORIZATION, bearer(token)?);
        let gone = |status: StatusCode| status.is_success();
        if gone(self.send(&self.clients().bare, theirs).await?.0) {
            return Ok(true);
        }
        Ok(gone(self.send(&self.clients().ours, request("oauthaccesstokens")?).await?.0))
    }

    /// An annotation of a namespace, asked as ourselves; `None` if it has none of that name.
    ///
    /// # Errors
    /// When the namespace cannot be looked at.
    pub async fn namespace_annotation(&self, name: &Namespace, key: &str) -> Result<Option<String>, ClusterError> {
        let failed = |what: &str| ClusterError::Failed(format!("namespace {name}: {what}"));
        let mut request = get("/");
        *request.uri_mut() =
            format!("/api/v1/namespaces/{name}").parse().map_err(|_| failed("no path can be made of it"))?;
        match self.send(&self.clients().ours, request).await? {
            (StatusCode::OK, body) => {
                let object: serde_json::Value = serde_json::from_slice(&body).map_err(|_| failed("nonsense"))?;
                let annotations = object.pointer("/metadata/annotations");
                Ok(annotations.and_then(|map| map.get(key)?.as_str()).map(str::to_owned))
            }
            (other, _) => Err(failed(&format!("status {other}"))),
        }
    }

    /// What the API server answers to a GET, asked as ourselves.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn read(&self, path: &str) -> Result<(StatusCode, Vec<u8>), ClusterError> {
        self.exchange(&self.background, &self.clients().ours, get_path(path)?).await
    }

    /// The same for an answer that goes on for minutes: its status and what comes of it. Only its beginning is bounded in
    /// time; how long to wait for the rest is the reader's to say.
    ///
    /// # Errors
    /// When it does not begin to answer.
    pub async fn watch(&self, path: &str) -> Result<(StatusCode, Body), ClusterError> {
        let request = get_path(path)?;
        let _permit = self.background.enter(self.timeout).await?;
        let began = Instant::now();
        let client = self.clients().patient;
        let answer = tokio::time::timeout(self.timeout, client.send(request)).await;
        let outcome = match answer {
            Ok(Ok(answer)) => heed(&self.background, answer),
            Ok(Err(error)) => Err(ClusterError::Failed(error.to_string())),
            Err(_) => Err(ClusterError::Slow),
        };
        let code = outcome.as_ref().map(|answer| answer.status().as_u16()).map_err(|_| ());
        self.metrics.upstream(Upstream::Cluster, code, began.elapsed().as_secs_f64());
        outcome.map(|answer| (answer.status(), answer.into_body()))
    }

    /// The API server's minor version.
    ///
    /// # Errors
    /// When it cannot be asked, or says something else.
    pub async fn minor_version(&self) -> Result<u32, ClusterError> {
        let (_, body) = self.send(&self.clients().ours, get("/version")).await?;
        let version: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let digits: String =
            version["minor"].as_str().unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().map_err(|_| ClusterError::Failed("version: nonsense".to_owned()))
    }

    async fn review(
        &self,
        path: &'static str,
        review: &impl serde::Serialize,
        kind: ReviewKind,
    ) -> Result<Vec<u8>, ClusterError> {
        let ask = async {
            let body = serde_json::to_vec(review).map_err(|error| ClusterError::Failed(error.to_string()))?;
            let request = Request::builder()
                .method(Method::POST)
                .uri(path)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, "application/json")
                .body(Body::from(body))
                .map_err(|error| ClusterError::Failed(error.to_string()))?;
            match self.send(&self.clients().ours, request).await? {
                (StatusCode::OK | StatusCode::CREATED, body) => Ok(body),
                (status, _) => Err(ClusterError::Failed(format!("review: status {status}"))),
            }
        };
        let answer = ask.await;
        if let Err(error) = &answer {
            self.metrics.review(
                kind,
                if matches!(error, ClusterError::Busy(_)) { ReviewOutcome::Throttled } else { ReviewOutcome::Error },
            );
        }
        answer
    }

    /// One exchange within our bounds.
    async fn send(&self, client: &kube::Client, request: Request<Body>) -> Result<(StatusCode, Vec<u8>), ClusterError> {
        self.exchange(&self.limiter, client, request).await
    }

    async fn exchange(
        &self,
        limiter: &Limiter,
        client: &kube::Client,
        request: Request<Body>,
    ) -> Result<(StatusCode, Vec<u8>), ClusterError> {
        let _permit = limiter.enter(self.timeout).await?;
        let began = Instant::now();
        let exchange = async {
            let answer = client.send(request).await.map_err(|error| ClusterError::Failed(error.to_string()))?;
            let answer = heed(limiter, answer)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST_ANSWER)
                .collect()
                .await
                .map_err(|error| ClusterError::Failed(error.to_string()))?;
            Ok((status, body.to_bytes().to_vec()))
        };
        let outcome = tokio::time::timeout(self.timeout, exchange).await.unwrap_or(Err(ClusterError::Slow));
        let code = outcome.as_ref().map(|(status, _)| status.as_u16()).map_err(|_| ());
        self.metrics.upstream(Upstream::Cluster, code, began.elapsed().as_secs_f64());
        outcome
    }
}

/// An answer, unless it asks us to wait.
fn heed(limiter: &Limiter, answer: http::Response<Body>) -> Result<http::Response<Body>, ClusterError> {
    if !matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return Ok(answer);
    }
    let wait = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let wait = Duration::from_secs(wait.unwrap_or(1).clamp(1, 30));
    limiter.pause(wait);
    Err(ClusterError::Busy(wait))
}

fn get_path(path: &str) -> Result<Request<Body>, ClusterError> {
    let mut request = get("/");
    *request.uri_mut() = path.parse().map_err(|_| ClusterError::Failed("no path can be made of it".to_owned()))?;
    Ok(request)
}

fn get(path: &'static str) -> Request<Body> {
    let mut request = Request::new(Body::from(Vec::new()));
    *request.uri_mut() = http::Uri::from_static(path);
    request.headers_mut().insert(header::ACCEPT, http::HeaderValue::from_static("application/json"));
    request
}

fn bearer(token: &Secret) -> Result<http::HeaderValue, ClusterError> {
    let mut value = http::HeaderValue::try_from(format!("Bearer {}", token.expose()))
        .map_err(|error| ClusterError::Failed(error.to_string()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The name of the object that stands for an OAuth token of OpenShift: the digest of what follows its prefix.
fn token_name(token: &Secret) -> Option<String> {
    let secret = token.expose().strip_prefix("sha256~")?;
    let tag = digest::digest(&digest::SHA256, secret.as_bytes());
    Some(format!("sha256~{}", base64url(tag.as_ref())))
}

fn resource(permission: &config::Permission) -> ResourceAttributes {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ResourceAttributes {
        group: some(&permission.group),
        resource: some(&permission.resource),
        subresource: some(&permission.subresource),
        name: some(&permission.name),
        namespace: some(&permission.namespace),
        verb: some(&permission.verb),
        ..ResourceAttributes::default()
    }
}

fn nonsense(what: &str) -> ClusterError {
    ClusterError::Failed(format!("{what} in the review"))
}

/// Reads the verdict of a TokenReview that asked for `asked` audiences.
fn read_token_review(body: &[u8], asked: &[String]) -> Result<Option<Identity>, ClusterError> {
    let review: TokenReview = serde_json::from_slice(body).map_err(|_| nonsense("nonsense"))?;
    let status = review.status.ok_or_else(|| nonsense("no status"))?;
    if status.authenticated != Some(true) {
        return Ok(None);
    }
    // An API server that knows audiences echoes those that fit; one that does not must not be believed here.
    if !asked.is_empty() {
        let echoed = status.audiences.unwrap_or_default();
        if !echoed.iter().any(|audience| asked.contains(audience)) {
            return Ok(None);
        }
    }
    let user = status.user.ok_or_else(|| nonsense("no user"))?;
    let username = user.username.filter(|name| !name.is_empty()).ok_or_else(|| nonsense("no user name"))?;
    if username == "system:anonymous" {
        return Ok(None);
    }
    Ok(Some(Identity {
        username,
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    }))
}

fn read_access_review(body: &[u8]) -> Result<bool, ClusterError> {
    let review: SubjectAccessReview = serde_json::from_slice(body).map_err(|_| nonsense("nonsense"))?;
    let status = review.status.ok_or_else(|| nonsense("no status"))?;
    if status.allowed && status.denied == Some(true) {
        return Err(nonsense("allowed and denied"));
    }
    Ok(status.allowed)
}

/// Reads the names of a list, leaving out what is no namespace name or is going away.
fn read_names(body: &[u8]) -> Result<Vec<Namespace>, ClusterError> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
    }
    let list: List =
        serde_json::from_slice(body).map_err(|_| ClusterError::Failed("list of projects: nonsense".to_owned()))?;
    let mut names: Vec<Namespace> =
        list.items.iter().filter_map(|item| Namespace::parse(&item.metadata.name)).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests;
