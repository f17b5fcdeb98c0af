//! A TCP connection, with TLS where the origin asks for it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{DialError, Settings, causes};
use crate::config;

/// Where distributions keep the certificates of public authorities.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"];

/// The PEM text of the public authorities, where the system keeps them.
#[must_use]
pub fn system_roots() -> Option<Vec<u8>> {
    SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok())
}

/// Connects to one host and port.
pub(super) struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    patience: Duration,
}

impl Connector {
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let origin = &settings.origin;
        let host = origin.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if origin.tls {
            let name = ServerName::try_from(host.clone()).map_err(|error| format!("{origin}: {error}"))?;
            Some((TlsConnector::from(Arc::new(client_config(settings.roots.as_deref())?)), name))
        } else {
            None
        };
        Ok(Self { host, port: origin.port, tls, patience: settings.connect })
    }
}

/// The client's side of TLS: believes these authorities, or the system's.
pub(crate) fn client_config(roots: Option<&[u8]>) -> Result<ClientConfig, String> {
    let pem = match roots {
        Some(pem) => pem.to_vec(),
        None => system_roots().ok_or("the system has no bundle of certificate authorities; name one in ca_file")?,
    };
    let store =
        config::authorities(&pem).map_err(|problem| format!("the bundle of certificate authorities {problem}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store)
        .with_no_client_auth())
}

impl Connector {
    pub(super) async fn connect(&self) -> Result<Wire, DialError> {
        let connect = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            Ok(match &self.tls {
                None => Wire::Plain(TokioIo::new(tcp)),
                Some((connector, name)) => {
                    Wire::Tls(TokioIo::new(Box::new(connector.connect(name.clone(), tcp).await?)))
                }
            })
        };
        let outcome: io::Result<Wire> =
            tokio::time::timeout(self.patience, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        outcome.map_err(|error| DialError::Connect(causes(&error)))
    }
}

/// A connection that stands.
pub(super) enum Wire {
    Plain(TokioIo<TcpStream>),
    Tls(TokioIo<Box<TlsStream<TcpStream>>>),
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_read(context, buffer),
            Self::Tls(io) => Pin::new(io).poll_read(context, buffer),
        }
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_write(context, bytes),
            Self::Tls(io) => Pin::new(io).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_flush(context),
            Self::Tls(io) => Pin::new(io).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_shutdown(context),
            Self::Tls(io) => Pin::new(io).poll_shutdown(context),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(context, buffers),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(context, buffers),
        }
    }
}
