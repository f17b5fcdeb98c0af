//! Accept: TLS, deadlines, limits, drain. Takes a handler and knows no door.
//!
//! Every connection is bounded while it says nothing, while it says a head slowly, while it is kept idle, and while it does
//! not read what it asked for (`watch`). HTTP itself is hyper's; what hyper does not bound is bounded here.

mod watch;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch as channel;
use tokio_rustls::TlsAcceptor;

use crate::config;
use crate::refusal::Reason;
use watch::{Activity, Watched};

/// Answers requests. There is always an answer.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The body of an answer.
    type Body: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    /// Answers one request.
    fn call(&self, request: Request<Incoming>, peer: Peer) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Is told of a head that hyper refused by itself, with a bare 400 or 431.
    fn refused(&self, _: Reason) {}
}

/// What is listened on.
#[derive(Debug)]
pub enum Listener {
    /// An address.
    Tcp(TcpListener),
    /// A socket in the file system; its peers have the address 127.0.0.1:0.
    Unix(UnixListener),
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl Listener {
    async fn accept(&self) -> std::io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Accepted::Tcp(stream, address)
            }
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0),
        })
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Their address.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// What bounds connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `limits`, as of the moment a connection is accepted.
    pub limits: Arc<config::Limits>,
}

/// What all listeners of the process share.
#[derive(Clone)]
pub struct Shared {
    /// How many of those that are open count against the bound.
    taken: Arc<AtomicUsize>,
    /// The bound, whatever `limits.connections` says.
    range: (usize, usize),
    /// Open connections, for metrics.
    open: Arc<AtomicI64>,
}

impl Shared {
    /// Room for as many connections as `limits.connections` says at the time, within these two numbers.
    #[must_use]
    pub fn new(range: (usize, usize), open: Arc<AtomicI64>) -> Self {
        Self { taken: Arc::default(), range, open }
    }

    /// Room for one more, until it is dropped.
    fn take(&self, limit: usize) -> Option<Place> {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&self.taken));
        (before < limit.clamp(self.range.0, self.range.1)).then_some(place)
    }
}

/// One connection's room.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves until `stop` becomes true, then lets what has begun come to an end, for at most `limits.drain`.
pub async fn serve<H: Handler>(
    listener: impl Into<Listener>,
    tls: Option<channel::Receiver<Arc<rustls::ServerConfig>>>,
    settings: channel::Receiver<Settings>,
    shared: Shared,
    handler: H,
    mut stop: channel::Receiver<bool>,
) {
    let listener = listener.into();
    let graceful = GracefulShutdown::new();
    // Dropped at the end, which cuts whatever is left.
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = tasks.join_next() => continue,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(cause = %error, "A connection could not be accepted");
                // Out of file descriptors: wait for some connection to end instead of spinning.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Nobody can be answered before TLS stands, so beyond the limit a connection is closed unheard.
        let limits = Arc::clone(&settings.borrow().limits);
        let Some(place) = shared.take(limits.connections) else {
            tracing::debug!("A connection was closed: limits.connections is reached");
            continue;
        };
        let tls = tls.as_ref().map(|config| Arc::clone(&config.borrow()));
        let (handler, open, watcher) = (handler.clone(), Arc::clone(&shared.open), graceful.watcher());
        tasks.spawn(async move {
            open.fetch_add(1, Ordering::Relaxed);
            match accepted {
                Accepted::Tcp(tcp, address) => {
                    let peer = Peer { address, tls: tls.is_some() };
                    connection(tcp, tls, &limits, handler, peer, watcher).await;
                }
                Accepted::Unix(stream) => {
                    let peer = Peer { address: SocketAddr::from(([127, 0, 0, 1], 0)), tls: false };
                    http(stream, &limits, handler, peer, watcher).await;
                }
            }
            open.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
    drop(listener);
    let drain = settings.borrow().limits.drain;
    let ended = tokio::time::timeout(drain, graceful.shutdown());
    if ended.await.is_err() {
        tracing::warn!("Connections were cut: limits.drain is over");
    }
}

async fn connection<H: Handler>(
    tcp: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: &config::Limits,
    handler: H,
    peer: Peer,
    watcher: Watcher,
) {
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    match tls {
        None => http(tcp, limits, handler, peer, watcher).await,
        Some(config) => match tokio::time::timeout(limits.handshake, TlsAcceptor::from(config).accept(tcp)).await {
            Ok(Ok(stream)) => http(stream, limits, handler, peer, watcher).await,
            Ok(Err(error)) => tracing::debug!(cause = %error, "A TLS handshake failed"),
            Err(_) => tracing::debug!("A TLS handshake was not completed in time"),
        },
    }
}

async fn http<H: Handler, I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: I,
    limits: &config::Limits,
    handler: H,
    peer: Peer,
    watcher: Watcher,
) {
    let activity = Arc::new(Activity::default());
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity), limits));
    let told = handler.clone();
    let service = service_fn(move |request| {
        let (handler, guard) = (handler.clone(), Activity::begin(&activity));
        async move {
            let response = handler.call(request, peer).await;
            Ok::<_, std::convert::Infallible>(response.map(|body| guard.around(body)))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(false)
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    let served = watcher.watch(builder.serve_connection(io, service).into_owned()).await;
    if let Err(error) = served {
        match error.downcast_ref::<hyper::Error>() {
            Some(error) if error.is_parse_too_large() => told.refused(Reason::HeadTooLarge),
            Some(error) if error.is_parse() => told.refused(Reason::MalformedHead),
            _ => {}
        }
        tracing::debug!(cause = %error, "A connection ended badly");
    }
}

#[cfg(test)]
mod tests;
