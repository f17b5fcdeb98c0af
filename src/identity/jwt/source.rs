//! Where the keys of an issuer are had: from the API server for service accounts, from the configured provider for people.
//! Never from an address that a token names.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::config::{self, Origin};
use crate::dial::{self, Dial};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const LARGEST: usize = 256 << 10;

/// One issuer.
pub(in crate::identity) enum Source {
    /// The API server itself, which issues tokens of service accounts.
    Cluster { cluster: Arc<Cluster>, audiences: Vec<String> },
    /// An OpenID provider.
    Provider { settings: config::Oidc, audiences: Vec<String> },
    /// Fixed, for tests.
    #[cfg(test)]
    Fixed { answers: std::sync::Mutex<Vec<Result<Fetched, String>>>, audiences: Vec<String> },
}

/// What an issuer says.
#[derive(Clone)]
pub(in crate::identity) struct Fetched {
    pub(super) issuer: String,
    /// A JWK set (RFC 7517, 5).
    pub(super) keys: Value,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: Option<String>,
}

/// The issuers of a configuration.
pub(in crate::identity) fn sources(
    cluster: &Arc<Cluster>,
    access: &config::Access,
    login: Option<&config::Login>,
) -> Vec<Source> {
    let mut audiences = access.audiences.clone();
    audiences.extend(access.jwt_audiences.iter().cloned());
    let mut sources = vec![Source::Cluster { cluster: Arc::clone(cluster), audiences: audiences.clone() }];
    if let Some(oidc) = login.and_then(|login| login.oidc.as_ref()) {
        audiences.push(oidc.client_id.clone());
        sources.push(Source::Provider { settings: oidc.clone(), audiences });
    }
    sources
}

impl Source {
    /// For whom a token may be meant.
    pub(super) fn audiences(&self, issuer: &str) -> Vec<String> {
        match self {
            // The API server calls itself like its issuer, unless somebody says otherwise.
            Self::Cluster { audiences, .. } => audiences.iter().cloned().chain([issuer.to_owned()]).collect(),
            Self::Provider { audiences, .. } => audiences.clone(),
            #[cfg(test)]
            Self::Fixed { audiences, .. } => audiences.clone(),
        }
    }

    pub(super) async fn fetch(&self) -> Result<Fetched, String> {
        match self {
            Self::Cluster { cluster, .. } => {
                let (document, keys) = cluster.issuer().await.map_err(|error| error.to_string())?;
                let document: Document = serde_json::from_slice(&document).map_err(|_| "nonsense for a document")?;
                let keys = serde_json::from_slice(&keys).map_err(|_| "nonsense for keys")?;
                Ok(Fetched { issuer: document.issuer, keys })
            }
            Self::Provider { settings, .. } => {
                let url = format!("{}/.well-known/openid-configuration", settings.issuer.trim_end_matches('/'));
                let document: Document =
                    serde_json::from_slice(&ask(settings, &url).await?).map_err(|_| "nonsense for a document")?;
                if document.issuer != settings.issuer {
                    return Err("the document names another issuer".to_owned());
                }
                let place = document.jwks_uri.ok_or("no jwks_uri")?;
                let keys = serde_json::from_slice(&ask(settings, &place).await?).map_err(|_| "nonsense for keys")?;
                Ok(Fetched { issuer: document.issuer, keys })
            }
            #[cfg(test)]
            Self::Fixed { answers, .. } => {
                let mut answers = answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if answers.is_empty() { Err("nothing more".to_owned()) } else { answers.remove(0) }
            }
        }
    }
}

/// One question to the provider's own host, or one of those that were named beside it, over TLS; no redirect is followed.
async fn ask(settings: &config::Oidc, url: &str) -> Result<Bytes, String> {
    let origin = Origin::parse(url)?;
    let own = Origin::parse(&settings.issuer)?;
    let named =
        settings.hosts.iter().any(|host| *host == origin.host || *host == format!("{}:{}", origin.host, origin.port));
    if !origin.tls || !(named || (origin.host == own.host && origin.port == own.port)) {
        return Err(format!("{} is neither the issuer's host nor in login.oidc.hosts", origin.host));
    }
    let dial = Dial::new(&dial::Settings {
        origin,
        roots: settings.ca.clone(),
        idle_connections: 1,
        in_flight: 2,
        connect: Duration::from_secs(3),
    })?;
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let answer = dial.send(Method::GET, "", headers, Bytes::new(), Instant::now() + PATIENCE).await;
    match answer.map_err(|error| error.to_string())?.bytes(LARGEST).await.map_err(|error| error.to_string())? {
        (StatusCode::OK, _, body) => Ok(body),
        (status, ..) => Err(format!("status {}", status.as_u16())),
    }
}
