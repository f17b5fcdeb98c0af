//! The server at which people log in: found by discovery, asked for tokens.
//!
//! Two kinds by one way. OpenShift's own OAuth server is named by the API server (RFC 8414), which answers 404 where a
//! cluster has an external OpenID provider instead (OpenID Connect Discovery 1.0). A cluster can be switched from one to the
//! other while we run, so this is asked again once a minute while somebody logs in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::config::{self, Origin};
use crate::dial::{self, Dial};
use crate::encoding::base64url;
use crate::identity::session::Via;
use crate::names::Secret;
use crate::route::push_pair;

/// How long what was discovered is used without a look.
const FRESH: Duration = Duration::from_secs(60);
/// How long one discovery may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one exchange of a code may take: a person waits.
const EXCHANGE: Duration = Duration::from_secs(10);
/// The largest answer that is read.
const LARGEST: usize = 256 << 10;
/// The longest token that is taken.
const LONGEST_TOKEN: usize = 16 << 10;

/// Why nobody can log in at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The cluster has no OAuth server, and no OpenID provider is configured.
    Nowhere,
    /// It could not be found out; for the log.
    Unknown(String),
}

/// What a code or a refresh token was given for.
pub(super) struct Tokens {
    /// What the API server is shown: the access token of OpenShift, the ID token of OpenID Connect.
    pub(super) token: Secret,
    /// For the next one.
    pub(super) refresh: Option<Secret>,
    /// Seconds that the token lasts, where the server says so.
    pub(super) lasts: Option<u64>,
}

/// Why there are no tokens; for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExchangeError {
    /// The server refuses: its word.
    Refused(String),
    /// It did not answer, or not in a way that can be understood.
    Failed(String),
}

impl std::fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(word) => write!(f, "the token endpoint refuses: {word}"),
            Self::Failed(cause) => write!(f, "the token endpoint gave no token: {cause}"),
        }
    }
}

/// One server, as discovered.
pub(super) struct Provider {
    /// Its kind.
    pub(super) via: Via,
    /// Its name, to which a login that has begun is bound.
    pub(super) issuer: String,
    /// Its origin, which forms of ours may lead to.
    pub(super) origin: String,
    /// Where a browser ends its session there.
    pub(super) end_session: Option<String>,
    client_id: String,
    secret_file: Option<PathBuf>,
    scope: String,
    authorize: String,
    token: Dial,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    end_session_endpoint: Option<String>,
}

impl Provider {
    fn openshift(settings: &config::OpenShift, cluster_ca: &[u8], document: &[u8]) -> Result<Self, String> {
        let metadata: Metadata = serde_json::from_slice(document).map_err(|_| "the discovery document is nonsense")?;
        let system = dial::system_roots().unwrap_or_default();
        let roots = config::joined(&[&system, cluster_ca, &settings.ca]);
        let issuer = https(&metadata.issuer)?;
        Ok(Self {
            via: Via::OpenShift,
            origin: plain(&issuer),
            // For ordinary people it keeps no session, but for the cluster's first administrator it does.
            end_session: Some(format!("{}/logout", plain(&issuer))),
            issuer: metadata.issuer,
            client_id: settings.client_id.clone(),
            secret_file: Some(settings.client_secret_file.clone()),
            scope: "user:info user:check-access user:list-projects".to_owned(),
            authorize: endpoint(&metadata.authorization_endpoint)?.0,
            token: way(&https(&metadata.token_endpoint)?, Some(roots))?,
        })
    }

    fn oidc(settings: &config::Oidc, document: &[u8]) -> Result<Self, String> {
        let metadata: Metadata = serde_json::from_slice(document).map_err(|_| "the discovery document is nonsense")?;
        if metadata.issuer != settings.issuer {
            return Err("the discovery document names another issuer than login.oidc.issuer".to_owned());
        }
        let issuer = https(&metadata.issuer)?;
        let own = |origin: &Origin, what: &str| {
            let listed = settings
                .hosts
                .iter()
                .any(|host| *host == origin.host || *host == format!("{}:{}", origin.host, origin.port));
            if listed || (origin.host == issuer.host && origin.port == issuer.port) {
                Ok(())
            } else {
                Err(format!(
                    "the {what} lies on {}, which is not the issuer's host and not in login.oidc.hosts",
                    origin.host
                ))
            }
        };
        let (authorize, place) = endpoint(&metadata.authorization_endpoint)?;
        own(&place, "authorization endpoint")?;
        let token = https(&metadata.token_endpoint)?;
        own(&token, "token endpoint")?;
        let end_session = match metadata.end_session_endpoint {
            Some(url) => {
                let (url, place) = endpoint(&url)?;
                own(&place, "end session endpoint")?;
                Some(url)
            }
            None => None,
        };
        Ok(Self {
            via: Via::Oidc,
            origin: plain(&place),
            end_session,
            issuer: metadata.issuer,
            client_id: settings.client_id.clone(),
            secret_file: settings.client_secret_file.clone(),
            scope: settings.scopes.join(" "),
            authorize,
            token: way(&token, settings.ca.clone())?,
        })
    }

    /// Where a browser is sent to log in (RFC 6749, 4.1.1; RFC 7636; OpenID Connect Core 1.0, 3.1.2.1).
    #[must_use]
    pub(super) fn authorize_url(&self, redirect_uri: &str, state: &str, verifier: &str, nonce: &str) -> String {
        let mut query = String::new();
        push_pair(&mut query, "response_type", "code");
        push_pair(&mut query, "client_id", &self.client_id);
        push_pair(&mut query, "redirect_uri", redirect_uri);
        push_pair(&mut query, "scope", &self.scope);
        push_pair(&mut query, "state", state);
        push_pair(&mut query, "code_challenge", &challenge(verifier));
        push_pair(&mut query, "code_challenge_method", "S256");
        if self.via == Via::Oidc {
            push_pair(&mut query, "nonce", nonce);
        }
        joined(&self.authorize, &query)
    }

    /// Where a browser ends its session at an OpenID provider (RP-Initiated Logout 1.0, 2).
    #[must_use]
    pub(super) fn end_session_url(&self, id_token: &Secret, back: &str) -> Option<String> {
        let mut query = String::new();
        push_pair(&mut query, "id_token_hint", id_token.expose());
        push_pair(&mut query, "client_id", &self.client_id);
        push_pair(&mut query, "post_logout_redirect_uri", back);
        (self.via == Via::Oidc).then_some(())?;
        Some(joined(self.end_session.as_deref()?, &query))
    }

    /// The name under which we are known there.
    #[must_use]
    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Tokens for a code.
    ///
    /// # Errors
    /// See [`ExchangeError`].
    pub(super) async fn redeem(
        &self,
        code: &Secret,
        verifier: &str,
        redirect_uri: &str,
    ) -> Result<Tokens, ExchangeError> {
        let mut form = String::new();
        push_pair(&mut form, "grant_type", "authorization_code");
        push_pair(&mut form, "code", code.expose());
        push_pair(&mut form, "redirect_uri", redirect_uri);
        push_pair(&mut form, "code_verifier", verifier);
        self.exchange(form).await?.ok_or_else(|| ExchangeError::Failed("no ID token in it".to_owned()))
    }

    /// The next tokens; `None` when the provider gives no new ID token.
    ///
    /// # Errors
    /// See [`ExchangeError`].
    pub(super) async fn refresh(&self, refresh: &Secret) -> Result<Option<Tokens>, ExchangeError> {
        let mut form = String::new();
        push_pair(&mut form, "grant_type", "refresh_token");
        push_pair(&mut form, "refresh_token", refresh.expose());
        self.exchange(form).await
    }

    async fn exchange(&self, mut form: String) -> Result<Option<Tokens>, ExchangeError> {
        let failed = |cause: &dyn std::fmt::Display| ExchangeError::Failed(cause.to_string());
        let secret = match &self.secret_file {
            Some(path) => Some(read_secret(path).await.map_err(|cause| failed(&cause))?),
            None => None,
        };
        let mut headers = HeaderMap::new();
        match (self.via, &secret) {
            // OpenShift takes the token of a service account, which the rules of Basic would have escaped twice.
            (Via::OpenShift, Some(secret)) => {
                push_pair(&mut form, "client_id", &self.client_id);
                push_pair(&mut form, "client_secret", secret.expose());
            }
            (Via::Oidc, Some(secret)) => {
                headers.insert(header::AUTHORIZATION, basic(&self.client_id, secret).map_err(|cause| failed(&cause))?);
            }
            (_, None) => push_pair(&mut form, "client_id", &self.client_id),
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let deadline = Instant::now() + EXCHANGE;
        let answer = self.token.send(Method::POST, "", headers, Bytes::from(form), deadline).await;
        let answer = answer.map_err(|error| failed(&error))?.bytes(LARGEST).await;
        let (status, _, body) = answer.map_err(|error| failed(&error))?;
        self.read(status, &body)
    }

    fn read(&self, status: StatusCode, body: &[u8]) -> Result<Option<Tokens>, ExchangeError> {
        #[derive(Deserialize)]
        struct Good {
            access_token: Option<String>,
            token_type: Option<String>,
            expires_in: Option<u64>,
            refresh_token: Option<String>,
            id_token: Option<String>,
        }
        #[derive(Deserialize)]
        struct Bad {
            error: String,
        }
        let failed = |cause: &str| Err(ExchangeError::Failed(cause.to_owned()));
        if status != StatusCode::OK {
            // Only a word goes to the log; descriptions may repeat what was sent.
            let word = serde_json::from_slice::<Bad>(body).ok().map(|bad| bad.error);
            let word =
                word.filter(|word| word.len() <= 64 && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            return Err(match word {
                Some(word) if status.is_client_error() => ExchangeError::Refused(word),
                _ => ExchangeError::Failed(format!("status {}", status.as_u16())),
            });
        }
        let Ok(good) = serde_json::from_slice::<Good>(body) else {
            return failed("the answer is no JSON object of tokens");
        };
        if !good.token_type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
            return failed("the tokens are no bearer tokens");
        }
        let token = match self.via {
            Via::OpenShift => good.access_token,
            Via::Oidc => good.id_token,
        };
        let plain = |token: &String| {
            !token.is_empty() && token.len() <= LONGEST_TOKEN && token.bytes().all(|b| b.is_ascii_graphic())
        };
        let Some(token) = token else {
            return if self.via == Via::Oidc { Ok(None) } else { failed("no access token in it") };
        };
        if !plain(&token) || !good.refresh_token.iter().all(plain) {
            return failed("a token is too long or has characters that no token has");
        }
        Ok(Some(Tokens {
            token: Secret::new(&token),
            refresh: good.refresh_token.filter(|_| self.via == Via::Oidc).as_deref().map(Secret::new),
            // 0 is what OpenShift says of tokens that do not end.
            lasts: good.expires_in.filter(|lasts| *lasts > 0 && self.via == Via::OpenShift),
        }))
    }
}

/// A server over TLS; its path is its base.
fn https(url: &str) -> Result<Origin, String> {
    let origin = Origin::parse(url)?;
    if origin.tls { Ok(origin) } else { Err(format!("{} is not asked over https", origin.host)) }
}

/// A place for browsers, which may have a query.
fn endpoint(url: &str) -> Result<(String, Origin), String> {
    let (place, query) = url.split_once('?').map_or((url, ""), |(place, query)| (place, query));
    let origin = https(place)?;
    if !query.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'"' | b'<' | b'>' | b'\\')) {
        return Err("an endpoint's query has characters that must be escaped".to_owned());
    }
    Ok((url.to_owned(), origin))
}

fn plain(origin: &Origin) -> String {
    if origin.port == 443 {
        format!("https://{}", origin.host)
    } else {
        format!("https://{}:{}", origin.host, origin.port)
    }
}

fn way(origin: &Origin, roots: Option<Vec<u8>>) -> Result<Dial, String> {
    Dial::new(&dial::Settings {
        origin: origin.clone(),
        roots,
        idle_connections: 4,
        in_flight: 64,
        connect: Duration::from_secs(3),
    })
}

fn joined(url: &str, query: &str) -> String {
    format!("{url}{}{query}", if url.contains('?') { '&' } else { '?' })
}

/// RFC 7636, 4.2.
fn challenge(verifier: &str) -> String {
    base64url(digest::digest(&digest::SHA256, verifier.as_bytes()).as_ref())
}

/// RFC 6749, 2.3.1: both parts are escaped like a form before they are joined.
fn basic(id: &str, secret: &Secret) -> Result<HeaderValue, String> {
    let escaped = |text: &str| {
        let mut out = String::new();
        push_pair(&mut out, "", text);
        out.trim_start_matches('=').to_owned()
    };
    // The padding and letters of RFC 4648, 4, which Basic wants.
    let plain = format!("{}:{}", escaped(id), escaped(secret.expose()));
    let mut text = base64url(plain.as_bytes()).replace('-', "+").replace('_', "/");
    text.push_str(&"=".repeat((4 - text.len() % 4) % 4));
    let mut value = HeaderValue::try_from(format!("Basic {text}")).map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Read for each exchange: kubelet writes another token once an hour.
async fn read_secret(path: &Path) -> Result<Secret, String> {
    let bytes = tokio::fs::read(path).await.map_err(|error| format!("the client's secret cannot be read: {error}"))?;
    let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
    if text.is_empty() || text.len() > LONGEST_TOKEN {
        Err("the client's secret is none".to_owned())
    } else {
        Ok(Secret::new(text))
    }
}

/// Finds the server, and remembers it for a while.
pub(super) struct Providers {
    settings: Arc<config::Login>,
    cluster: Arc<Cluster>,
    cluster_ca: Vec<u8>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    provider: Option<Arc<Provider>>,
    /// What was wrong at the last look.
    problem: Option<Unavailable>,
    /// When to look again.
    next: Option<Instant>,
    failures: u32,
    /// What the document was, so that connections are kept while nothing changes.
    document: Vec<u8>,
}

impl Providers {
    /// Looks at nothing yet.
    #[must_use]
    pub(super) fn new(settings: Arc<config::Login>, cluster: Arc<Cluster>, cluster_ca: Vec<u8>) -> Self {
        Self { settings, cluster, cluster_ca, found: Mutex::default() }
    }

    /// The server of the moment. Everybody waits for one look, and after a failed one nobody looks for a while.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub(super) async fn current(&self) -> Result<Arc<Provider>, Unavailable> {
        let mut found = self.found.lock().await;
        if found.next.is_none_or(|next| next <= Instant::now()) {
            self.look(&mut found).await;
        }
        match (&found.provider, &found.problem) {
            // What was good a while ago is used while the look fails, but not when there is clearly nothing any more.
            (Some(provider), None | Some(Unavailable::Unknown(_))) => Ok(Arc::clone(provider)),
            (_, problem) => Err(problem.clone().unwrap_or(Unavailable::Nowhere)),
        }
    }

    /// What was wrong at the last look, if anything.
    pub(super) async fn problem(&self) -> Option<Unavailable> {
        let _ = self.current().await;
        self.found.lock().await.problem.clone()
    }

    async fn look(&self, found: &mut Found) {
        match self.discover(&found.document).await {
            Ok(None) => found.problem = None,
            Ok(Some((provider, document))) => {
                tracing::info!(issuer = provider.issuer, via = ?provider.via, "People log in there");
                found.provider = Some(Arc::new(provider));
                found.document = document;
                found.problem = None;
            }
            Err(problem) => {
                if found.problem.as_ref() != Some(&problem) {
                    tracing::warn!(?problem, "Nobody can log in, or only as before; it is tried again");
                }
                if problem == Unavailable::Nowhere {
                    (found.provider, found.document) = (None, Vec::new());
                }
                found.problem = Some(problem);
            }
        }
        let wait = match &found.problem {
            None | Some(Unavailable::Nowhere) => {
                found.failures = 0;
                FRESH
            }
            Some(Unavailable::Unknown(_)) => {
                found.failures = (found.failures + 1).min(5);
                Duration::from_secs(1 << found.failures) / 2
            }
        };
        found.next = Some(Instant::now() + wait);
    }

    /// `None` when the document is the one that is known.
    async fn discover(&self, known: &[u8]) -> Result<Option<(Provider, Vec<u8>)>, Unavailable> {
        let unknown = |cause: &dyn std::fmt::Display| Unavailable::Unknown(cause.to_string());
        if let Some(openshift) = &self.settings.openshift
            && let Some(document) = self.cluster.oauth_metadata().await.map_err(|error| unknown(&error))?
        {
            let marked = [b"openshift ".as_slice(), &document].concat();
            if marked == known {
                return Ok(None);
            }
            let provider =
                Provider::openshift(openshift, &self.cluster_ca, &document).map_err(|cause| unknown(&cause))?;
            return Ok(Some((provider, marked)));
        }
        let Some(oidc) = &self.settings.oidc else { return Err(Unavailable::Nowhere) };
        let origin = https(oidc.issuer.trim_end_matches('/')).map_err(|cause| unknown(&cause))?;
        let dial = way(&origin, oidc.ca.clone()).map_err(|cause| unknown(&cause))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let target = "/.well-known/openid-configuration";
        let deadline = Instant::now() + PATIENCE;
        let answer =
            dial.send(Method::GET, target, headers, Bytes::new(), deadline).await.map_err(|error| unknown(&error))?;
        match answer.bytes(LARGEST).await.map_err(|error| unknown(&error))? {
            // Anything else, a redirect too, is no document of the issuer.
            (StatusCode::OK, _, document) => {
                let marked = [b"oidc ".as_slice(), &document].concat();
                if marked == known {
                    return Ok(None);
                }
                let provider = Provider::oidc(oidc, &document).map_err(|cause| unknown(&cause))?;
                Ok(Some((provider, marked)))
            }
            (status, ..) => Err(unknown(&format_args!("the issuer's discovery: status {}", status.as_u16()))),
        }
    }
}

#[cfg(test)]
mod tests;
