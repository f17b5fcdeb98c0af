//! Connections to the server, each with one command under way. A command that does not come to its end takes its connection
//! with it, since nobody knows which reply would be next. Connections are made beside the questions: one that takes longer
//! than a question waits is there for the next.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::resp::{self, Bad, Reply};
use super::sealed;
use crate::config::Shared;
use crate::dial;

/// Until a connection stands and has said who it is.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection that has not been used for so long is not used again; servers close idle ones.
const IDLE: Duration = Duration::from_secs(30);

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum Failure {
    /// Not in time.
    Slow,
    /// All connections are in use, and too many wait.
    Busy,
    /// The server has no room for more.
    Full,
    /// A value above our bound.
    TooLarge,
    /// No connection, or one that broke.
    Broken(String),
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

struct Connection {
    wire: Box<dyn Wire>,
    buffer: BytesMut,
    used: Instant,
}

pub(super) struct Pool {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    hello: Vec<Vec<u8>>,
    largest: usize,
    slots: Semaphore,
    most: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    connecting: usize,
    waiting: usize,
    /// The last attempt that failed, and how many have.
    failed: (u64, String),
}

impl Pool {
    pub(super) fn new(settings: &Shared) -> Result<Arc<Self>, String> {
        let host = settings.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if settings.tls {
            let name = ServerName::try_from(host.clone()).map_err(|error| format!("{host}: {error}"))?;
            Some((TlsConnector::from(Arc::new(dial::client_config(settings.ca.as_deref())?)), name))
        } else {
            None
        };
        let mut hello = Vec::new();
        if let Some(password) = &settings.password {
            let password = password.expose().as_bytes();
            hello.push(match &settings.username {
                Some(user) => resp::command(&[b"AUTH", user.as_bytes(), password]),
                None => resp::command(&[b"AUTH", password]),
            });
        }
        if settings.database != 0 {
            hello.push(resp::command(&[b"SELECT", settings.database.to_string().as_bytes()]));
        }
        Ok(Arc::new(Self {
            host,
            port: settings.port,
            tls,
            hello,
            largest: settings.largest + sealed::GROWTH,
            slots: Semaphore::new(settings.in_flight),
            most: settings.in_flight,
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One command and its reply. Whoever asks sets the deadline by leaving.
    pub(super) async fn ask(self: &Arc<Self>, command: &[u8]) -> Result<Reply, Failure> {
        let _slot = match self.slots.try_acquire() {
            Ok(slot) => slot,
            Err(_) => {
                let _waiting = Waiting::one(self)?;
                self.slots.acquire().await.map_err(|_| Failure::Busy)?
            }
        };
        let mut connection = self.connection().await?;
        match exchange(&mut connection, command, self.largest).await {
            Ok(reply) => {
                self.keep(connection);
                Ok(reply)
            }
            // The reply was whole and the next one is the next command's.
            Err(Problem::Said(words)) => {
                let full = words.starts_with("OOM");
                if full {
                    self.keep(connection);
                }
                Err(if full { Failure::Full } else { Failure::Broken(words) })
            }
            Err(Problem::TooLarge) => Err(Failure::TooLarge),
            Err(Problem::Broke(error)) => {
                // A server that was restarted has closed the others too.
                self.state().idle.clear();
                Err(Failure::Broken(error.to_string()))
            }
        }
    }

    fn keep(&self, mut connection: Connection) {
        connection.used = Instant::now();
        {
            let mut state = self.state();
            if state.idle.len() < self.most {
                state.idle.push(connection);
            }
        }
        self.changed.notify_one();
    }

    async fn connection(self: &Arc<Self>) -> Result<Connection, Failure> {
        let mut seen = None;
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                let now = Instant::now();
                while let Some(connection) = state.idle.pop() {
                    if now.duration_since(connection.used) < IDLE {
                        return Ok(connection);
                    }
                }
                match seen {
                    Some(before) if before != state.failed.0 => {
                        return Err(Failure::Broken(state.failed.1.clone()));
                    }
                    _ => seen = Some(state.failed.0),
                }
                if state.connecting < self.most {
                    state.connecting += 1;
                    tokio::spawn(Arc::clone(self).connect());
                }
            }
            changed.await;
        }
    }

    async fn connect(self: Arc<Self>) {
        let outcome = tokio::time::timeout(CONNECT, self.open())
            .await
            .unwrap_or_else(|_| Err("no connection in time".to_owned()));
        {
            let mut state = self.state();
            state.connecting -= 1;
            match outcome {
                Ok(connection) if state.idle.len() < self.most => state.idle.push(connection),
                Ok(_) => {}
                Err(cause) => {
                    let count = state.failed.0.wrapping_add(1);
                    state.failed = (count, cause);
                }
            }
        }
        // A failure is news for everybody, a connection for one; whoever finds nothing waits on.
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    async fn open(&self) -> Result<Connection, String> {
        let say = |error: io::Error| error.to_string();
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(say)?;
        tcp.set_nodelay(true).map_err(say)?;
        let wire: Box<dyn Wire> = match &self.tls {
            None => Box::new(tcp),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), tcp).await.map_err(say)?),
        };
        let mut connection = Connection { wire, buffer: BytesMut::with_capacity(8 << 10), used: Instant::now() };
        for command in &self.hello {
            match exchange(&mut connection, command, 1024).await {
                Ok(Reply::Simple) => {}
                Ok(_) | Err(Problem::TooLarge) => return Err("an unexpected reply to AUTH or SELECT".to_owned()),
                Err(Problem::Said(words)) => return Err(words),
                Err(Problem::Broke(error)) => return Err(error.to_string()),
            }
        }
        Ok(connection)
    }
}

/// One of those who wait for a connection.
struct Waiting<'p>(&'p Pool);

impl<'p> Waiting<'p> {
    fn one(pool: &'p Pool) -> Result<Self, Failure> {
        let mut state = pool.state();
        if state.waiting >= pool.most * 16 {
            return Err(Failure::Busy);
        }
        state.waiting += 1;
        Ok(Self(pool))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

enum Problem {
    Said(String),
    TooLarge,
    Broke(io::Error),
}

async fn exchange(connection: &mut Connection, command: &[u8], largest: usize) -> Result<Reply, Problem> {
    let Connection { wire, buffer, .. } = connection;
    // Nothing may come unasked.
    if !buffer.is_empty() {
        return Err(Problem::Broke(io::ErrorKind::InvalidData.into()));
    }
    wire.write_all(command).await.map_err(Problem::Broke)?;
    wire.flush().await.map_err(Problem::Broke)?;
    loop {
        match resp::take(buffer, largest) {
            Ok(Some(reply)) => return Ok(reply),
            Ok(None) => {}
            Err(Bad::Error(words)) => {
                buffer.clear();
                return Err(Problem::Said(words));
            }
            Err(Bad::TooLarge) => return Err(Problem::TooLarge),
            Err(Bad::Nonsense) => return Err(Problem::Broke(io::Error::other("not the protocol of Redis"))),
        }
        if wire.read_buf(buffer).await.map_err(Problem::Broke)? == 0 {
            return Err(Problem::Broke(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}
