//! A memory that replicas share, in Redis or Valkey, beside the one of this process.
//!
//! It makes nothing wrong and nothing slow: every question has a deadline of its own, a server that fails is left alone for
//! a while, and whoever asks hears "not known" of all of it, never an error. What is stored is encrypted and bound to its
//! name (`sealed`), so that somebody who can write to the server can make us forget, and nothing else. What is stored
//! once is not written again, but for the journal of what was forgotten.
//!
//! Four commands are spoken (AUTH, SELECT, GET, SET) and five kinds of replies are understood (`resp`); a client library
//! would bring forty times as much and take an answer of any size.

mod breaker;
mod pool;
mod resp;
mod sealed;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::config::Shared;
use crate::telemetry::metrics::{Metrics, SharedOperation, SharedOutcome};
use breaker::Breaker;
use pool::{Failure, Pool};
use resp::Reply;
use sealed::Keys;

/// What is written waits in a queue of so many entries, and takes so much longer than what is read.
const QUEUE: usize = 4096;
const WRITES_TAKE: u32 = 10;
/// A server that is full is not written to for so long.
const FULL: Duration = Duration::from_secs(1);

/// What an entry is; it stands in its name and in what it is sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Block,
    Lock,
    Denied,
    Journal,
}

/// The server was not asked, or did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent;

impl Kind {
    const fn letter(self) -> char {
        match self {
            Self::Block => 'b',
            Self::Lock => 'l',
            Self::Denied => 'd',
            Self::Journal => 'j',
        }
    }
}

/// The shared memory.
pub struct Remote {
    inner: Arc<Inner>,
    queue: mpsc::Sender<Write>,
    /// Room in the queue, in KiB.
    room: Arc<Semaphore>,
    writer: tokio::task::AbortHandle,
}

struct Inner {
    settings: Shared,
    keys: Keys,
    pool: Arc<Pool>,
    breaker: Mutex<Breaker>,
    full_until: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

struct Write {
    name: String,
    value: Bytes,
    ttl: Duration,
    _room: OwnedSemaphorePermit,
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

impl Remote {
    /// Prepares the way; connects to nobody yet. Must be called within a runtime.
    ///
    /// # Errors
    /// When keys or authorities cannot be used; the text says why.
    pub fn new(settings: &Shared, metrics: Arc<Metrics>) -> Result<Self, String> {
        let inner = Arc::new(Inner {
            keys: Keys::new(&settings.keys)?,
            pool: Pool::new(settings)?,
            breaker: Mutex::new(Breaker::new(settings.breaker_errors, settings.breaker_open)),
            full_until: Mutex::default(),
            settings: settings.clone(),
            metrics,
        });
        let (queue, waiting) = mpsc::channel(QUEUE);
        let room = Arc::new(Semaphore::new((settings.queue >> 10).max(1)));
        let writer = tokio::spawn(write_all(Arc::clone(&inner), waiting)).abort_handle();
        Ok(Self { inner, queue, room, writer })
    }

    /// A block, if it is known. Ends within `cache.shared.timeout`, and at the deadline. The key may be of any length; what
    /// it says cannot be read or guessed from the server.
    pub async fn get(&self, key: &[u8], deadline: Instant) -> Option<Bytes> {
        let name = self.inner.name(Kind::Block, &self.inner.keys.digest(key));
        let (outcome, found) = match self.inner.read(SharedOperation::Get, &name, deadline).await {
            Ok(None) => (SharedOutcome::Miss, None),
            Ok(Some(bytes)) => match self.inner.keys.open(&name, bytes) {
                Some(open) => (SharedOutcome::Hit, Some(open)),
                None => (SharedOutcome::Tampered, None),
            },
            Err(outcome) => (outcome, None),
        };
        self.inner.metrics.shared(SharedOperation::Get, outcome);
        found
    }

    /// Keeps a block under a name that has none yet. Returns at once; what does not fit is let go. Gives whether it makes
    /// sense to come with the next one.
    pub fn put(&self, key: &[u8], value: Bytes, ttl: Duration) -> bool {
        let told = |outcome| {
            self.inner.metrics.shared(SharedOperation::Put, outcome);
            outcome == SharedOutcome::TooLarge
        };
        if value.len() > self.inner.settings.largest {
            return told(SharedOutcome::TooLarge);
        }
        if self.inner.is_resting() {
            return told(SharedOutcome::Open);
        }
        let kib = u32::try_from(value.len().div_ceil(1024).max(1)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(kib) else { return told(SharedOutcome::Busy) };
        let name = self.inner.name(Kind::Block, &self.inner.keys.digest(key));
        let write = Write { name, value, ttl, _room: room };
        self.queue.try_send(write).is_ok() || told(SharedOutcome::Busy)
    }

    /// What replicas tell each other of what was forgotten; `Ok(None)` when there is nothing that is ours.
    ///
    /// # Errors
    /// When nobody can say.
    pub async fn journal(&self) -> Result<Option<Bytes>, Silent> {
        let name = self.inner.name(Kind::Journal, &[0; 32]);
        let deadline = Instant::now() + self.inner.settings.timeout;
        let (outcome, read) = match self.inner.read(SharedOperation::Journal, &name, deadline).await {
            Ok(None) => (SharedOutcome::Miss, Ok(None)),
            Ok(Some(bytes)) => match self.inner.keys.open(&name, bytes) {
                Some(open) => (SharedOutcome::Hit, Ok(Some(open))),
                None => (SharedOutcome::Tampered, Ok(None)),
            },
            Err(outcome) => (outcome, Err(Silent)),
        };
        self.inner.metrics.shared(SharedOperation::Journal, outcome);
        read
    }

    /// Tells it. Gives whether the server knows it now.
    pub async fn tell_journal(&self, value: &[u8], ttl: Duration) -> bool {
        let name = self.inner.name(Kind::Journal, &[0; 32]);
        let Some(value) = self.inner.keys.seal(&name, value) else { return false };
        let deadline = Instant::now() + self.inner.settings.timeout * WRITES_TAKE;
        let command = resp::set(&name, &value, ttl, false);
        let outcome = match self.inner.ask(SharedOperation::Journal, &command, deadline).await {
            Ok(Reply::Simple) => SharedOutcome::Stored,
            Ok(_) => SharedOutcome::Error,
            Err(outcome) => outcome,
        };
        self.inner.metrics.shared(SharedOperation::Journal, outcome);
        outcome == SharedOutcome::Stored
    }

    /// Whether the caller is the one among all replicas who fetches what this key stands for, until `ttl` is over. Also yes
    /// when nobody can say: then each replica fetches for itself.
    pub async fn lock(&self, key: &[u8; 32], ttl: Duration) -> bool {
        let name = self.inner.name(Kind::Lock, key);
        let command = resp::set(&name, b"1", ttl, true);
        let deadline = Instant::now() + self.inner.settings.timeout;
        let (outcome, won) = match self.inner.ask(SharedOperation::Lock, &command, deadline).await {
            Ok(Reply::Simple) => (SharedOutcome::Stored, true),
            Ok(Reply::Nothing) => (SharedOutcome::Exists, false),
            Ok(_) => (SharedOutcome::Error, true),
            Err(outcome) => (outcome, true),
        };
        self.inner.metrics.shared(SharedOperation::Lock, outcome);
        won
    }

    /// Ends a session for all replicas. Gives whether the server knows it now.
    pub async fn deny(&self, session: &[u8; 16], until: SystemTime) -> bool {
        let ttl = until.duration_since(SystemTime::now()).unwrap_or_default();
        if ttl.is_zero() {
            return true;
        }
        let name = self.inner.name(Kind::Denied, &sealed::digest(session));
        let seconds = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let Some(value) = self.inner.keys.seal(&name, &seconds.to_be_bytes()) else { return false };
        let command = resp::set(&name, &value, ttl, false);
        let deadline = Instant::now() + self.inner.settings.timeout * WRITES_TAKE;
        let outcome = match self.inner.ask(SharedOperation::Deny, &command, deadline).await {
            Ok(Reply::Simple) => SharedOutcome::Stored,
            Ok(_) => SharedOutcome::Error,
            Err(outcome) => outcome,
        };
        self.inner.metrics.shared(SharedOperation::Deny, outcome);
        outcome == SharedOutcome::Stored
    }

    /// Whether a session was ended at any replica; `None` when nobody can say. An entry that is not ours denies too.
    pub async fn is_denied(&self, session: &[u8; 16]) -> Option<bool> {
        let name = self.inner.name(Kind::Denied, &sealed::digest(session));
        let deadline = Instant::now() + self.inner.settings.timeout;
        let (outcome, denied) = match self.inner.read(SharedOperation::Denied, &name, deadline).await {
            Ok(None) => (SharedOutcome::Miss, Some(false)),
            Ok(Some(bytes)) => match self.inner.keys.open(&name, bytes) {
                Some(_) => (SharedOutcome::Hit, Some(true)),
                None => (SharedOutcome::Tampered, Some(true)),
            },
            Err(outcome) => (outcome, None),
        };
        self.inner.metrics.shared(SharedOperation::Denied, outcome);
        denied
    }

    /// The settings that it was made with.
    #[must_use]
    pub fn settings(&self) -> &Shared {
        &self.inner.settings
    }
}

impl Inner {
    fn name(&self, kind: Kind, key: &[u8; 32]) -> String {
        let mut name = String::with_capacity(self.settings.prefix.len() + 67);
        name.push_str(&self.settings.prefix);
        name.push(':');
        name.push(kind.letter());
        name.push(':');
        for byte in key {
            name.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            name.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        name
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing should be written now.
    fn is_resting(&self) -> bool {
        let now = Instant::now();
        let full = self.full_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until);
        full || self.breaker().is_open(now)
    }

    async fn read(
        &self,
        operation: SharedOperation,
        name: &str,
        deadline: Instant,
    ) -> Result<Option<bytes::BytesMut>, SharedOutcome> {
        let deadline = deadline.min(Instant::now() + self.settings.timeout);
        match self.ask(operation, &resp::get(name), deadline).await? {
            Reply::Bulk(bytes) => Ok(Some(bytes)),
            Reply::Nothing => Ok(None),
            Reply::Simple | Reply::Number => Err(SharedOutcome::Error),
        }
    }

    /// One command, if the server is asked at all at the moment.
    async fn ask(&self, operation: SharedOperation, command: &[u8], deadline: Instant) -> Result<Reply, SharedOutcome> {
        if !self.breaker().may(Instant::now()) {
            return Err(SharedOutcome::Open);
        }
        let began = Instant::now();
        // Whoever leaves before the end has learned nothing about the server, but must not leave a probe open for ever.
        let mut probe = Probe { inner: self, known: false };
        let outcome = tokio::time::timeout_at(deadline, self.pool.ask(command)).await.unwrap_or(Err(Failure::Slow));
        probe.known = true;
        let (good, outcome) = match outcome {
            Ok(reply) => (true, Ok(reply)),
            Err(Failure::Full) => {
                let until = Some(Instant::now() + FULL);
                *self.full_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
                (true, Err(SharedOutcome::Full))
            }
            Err(Failure::TooLarge) => (true, Err(SharedOutcome::TooLarge)),
            // We ask too much at once; that is nothing that the server did.
            Err(Failure::Busy) => (true, Err(SharedOutcome::Busy)),
            // Who came with little time left has learned nothing.
            Err(Failure::Slow) if deadline < began + self.settings.timeout / 2 => {
                probe.known = false;
                return Err(SharedOutcome::Slow);
            }
            Err(Failure::Slow) => (false, Err(SharedOutcome::Slow)),
            Err(Failure::Broken(cause)) => {
                tracing::debug!(cause, "The shared memory failed");
                (false, Err(SharedOutcome::Error))
            }
        };
        if let Some(open) = self.breaker().heard(good, Instant::now()) {
            self.metrics.shared_open(open);
            if open {
                tracing::warn!(server = %self.settings.place(), "The shared memory is left alone for a while: it fails or is slow");
            } else {
                tracing::info!(server = %self.settings.place(), "The shared memory answers again");
            }
        }
        self.metrics.shared_seconds(operation, began.elapsed().as_secs_f64());
        outcome
    }
}

struct Probe<'i> {
    inner: &'i Inner,
    known: bool,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if !self.known {
            self.inner.breaker().left();
        }
    }
}

async fn write_all(inner: Arc<Inner>, mut waiting: mpsc::Receiver<Write>) {
    while let Some(write) = waiting.recv().await {
        if inner.is_resting() {
            inner.metrics.shared(SharedOperation::Put, SharedOutcome::Open);
            continue;
        }
        let Some(value) = inner.keys.seal(&write.name, &write.value) else {
            inner.metrics.shared(SharedOperation::Put, SharedOutcome::Error);
            continue;
        };
        let command = resp::set(&write.name, &value, write.ttl, true);
        drop(value);
        let deadline = Instant::now() + inner.settings.timeout * WRITES_TAKE;
        let outcome = match inner.ask(SharedOperation::Put, &command, deadline).await {
            Ok(Reply::Simple) => SharedOutcome::Stored,
            Ok(Reply::Nothing) => SharedOutcome::Exists,
            Ok(_) => SharedOutcome::Error,
            Err(outcome) => outcome,
        };
        inner.metrics.shared(SharedOperation::Put, outcome);
    }
}
