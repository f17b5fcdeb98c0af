//! A TCP connection, with TLS where the origin asks for it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::Settings;

/// Where distributions keep the certificates of public authorities.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"];

/// Connects to one host and port, whatever it is asked for.
#[derive(Clone)]
pub(super) struct Connector {
    target: Arc<(String, u16)>,
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
        Ok(Self { target: Arc::new((host, origin.port)), tls, patience: settings.connect })
    }
}

fn client_config(roots: Option<&[u8]>) -> Result<ClientConfig, String> {
    let pem = match roots {
        Some(pem) => pem.to_vec(),
        None => SYSTEM_ROOTS
            .iter()
            .find_map(|path| std::fs::read(path).ok())
            .ok_or("the system has no bundle of certificate authorities; name one in ca_file")?,
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("certificate authorities: {error}"))?;
        // A bundle may hold one that this library does not take; the others still count.
        let _ = store.add(certificate);
    }
    if store.is_empty() {
        return Err("certificate authorities: none could be read".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store)
        .with_no_client_auth())
}

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Wire>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (target, tls, patience) = (Arc::clone(&self.target), self.tls.clone(), self.patience);
        Box::pin(async move {
            let connect = async {
                let tcp = TcpStream::connect((target.0.as_str(), target.1)).await?;
                tcp.set_nodelay(true)?;
                Ok(match tls {
                    None => Wire::Plain(TokioIo::new(tcp)),
                    Some((connector, name)) => Wire::Tls(TokioIo::new(Box::new(connector.connect(name, tcp).await?))),
                })
            };
            tokio::time::timeout(patience, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}

/// A connection that stands.
pub(super) enum Wire {
    Plain(TokioIo<TcpStream>),
    Tls(TokioIo<Box<TlsStream<TcpStream>>>),
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
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
