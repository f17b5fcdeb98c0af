//! A small HTTP client for checks against loopback: one request, the whole answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

use crate::encoding;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: http::HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Asks plain-HTTP servers.
#[derive(Clone)]
pub struct Http(Client<HttpConnector, Full<Bytes>>);

impl Default for Http {
    fn default() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl Http {
    /// One request with any headers.
    ///
    /// # Errors
    /// When there is no whole answer within 30 s.
    pub async fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> io::Result<Answer> {
        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).map_err(io::Error::other)?;
        let exchange = async {
            let answer = self.0.request(request).await.map_err(io::Error::other)?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        tokio::time::timeout(Duration::from_secs(30), exchange)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// GET, as somebody.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn get(&self, url: &str, token: &str) -> io::Result<Answer> {
        self.send("GET", url, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    /// JSON with any method, as somebody.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn json(&self, method: &str, url: &str, token: &str, body: &Value) -> io::Result<Answer> {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        self.send(method, url, &headers, &body.to_string()).await
    }

    /// A form by POST, as somebody.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn form(&self, url: &str, token: &str, pairs: &[(&str, &str)]) -> io::Result<Answer> {
        let authorization = format!("Bearer {token}");
        let headers =
            [("authorization", authorization.as_str()), ("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", url, &headers, &encoding::form(pairs)).await
    }
}

/// Asks one TLS server on the loopback; a connection for each question.
pub struct Https {
    authority: String,
    tls: tokio_rustls::TlsConnector,
}

impl Https {
    /// For `https://HOST:PORT`, whose certificate is of the authority `ca`, in PEM.
    ///
    /// # Errors
    /// When the authority cannot be read.
    pub fn new(url: &str, ca: &str) -> io::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        let ca = rustls_pki_types::CertificateDer::from_pem_slice(ca.as_bytes()).map_err(io::Error::other)?;
        roots.add(ca).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let authority = url.strip_prefix("https://").unwrap_or(url).to_owned();
        Ok(Self { authority, tls: tokio_rustls::TlsConnector::from(Arc::new(config)) })
    }

    /// A connection with nothing sent yet.
    ///
    /// # Errors
    /// When there is no server, or it has no certificate of the authority for `localhost`.
    pub async fn connect(&self) -> io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
        let socket = tokio::net::TcpStream::connect(&self.authority).await?;
        let name = rustls_pki_types::ServerName::try_from("localhost").map_err(io::Error::other)?;
        self.tls.connect(name, socket).await
    }

    /// One request with a token, unless that is empty, and a body of a kind, unless that is.
    ///
    /// # Errors
    /// When there is no whole answer within 30 s.
    pub async fn send(&self, method: &str, path: &str, token: &str, kind: &str, body: String) -> io::Result<Answer> {
        let exchange = async {
            let stream = self.connect().await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            let connection = tokio::spawn(connection);
            let keys = if path == "/openid/v1/jwks" { "application/jwk-set+json" } else { "application/json" };
            let mut request = http::Request::builder()
                .method(method)
                .uri(path)
                .header("host", &self.authority)
                .header("accept", keys);
            if !token.is_empty() {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if !kind.is_empty() {
                request = request.header("content-type", kind);
            }
            let request = request.body(Full::new(Bytes::from(body))).map_err(io::Error::other)?;
            let answer = sender.send_request(request).await.map_err(io::Error::other)?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            connection.abort();
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        let patience = Duration::from_secs(30);
        tokio::time::timeout(patience, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
