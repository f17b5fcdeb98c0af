//! Who is this? A request head becomes a [`Caller`], or a refusal. There is no third thing: nobody is never a caller.
//!
//! A caller comes from a bearer token, or from the token that a session keeps; both are reviewed alike.

mod attempts;
mod bearer;
mod cookies;
mod denied;
mod jwt;
pub mod login;
mod origin;
mod seal;
mod session;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use attempts::Attempts;
use aws_lc_rs::{digest, hmac, rand};
use http::HeaderMap;
use moka::future::Cache;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::cluster::{Cluster, ClusterError, Identity};
use crate::config;
use crate::memo::Memo;
use crate::names::Secret;
use crate::refusal::{Reason, Refusal};
use crate::telemetry::metrics::{Metrics, ReviewKind};
pub use bearer::read as bearer_token;
pub use cookies::Names as CookieNames;
pub use denied::Denied;
use jwt::Precheck;
pub use seal::{Purpose, Sealer};
pub use session::{Session, Via};

/// Extras that change with every token and decide nothing: sent to reviews, left out of keys.
const NOT_IN_KEYS: [&str; 5] = [
    "authentication.kubernetes.io/credential-id",
    "authentication.kubernetes.io/node-name",
    "authentication.kubernetes.io/node-uid",
    "authentication.kubernetes.io/pod-name",
    "authentication.kubernetes.io/pod-uid",
];

/// The extra in which OpenShift says what a token is good for.
const SCOPES: &str = "scopes.authorization.openshift.io";

/// Reviews of tokens that were never good, at once. All reviews wait in one line; whoever sends made-up tokens must not fill
/// it, or everybody whose verdict runs out would be turned away.
const STRANGERS: usize = 16;
/// How long a stranger waits for a turn: long enough for all who come at once in the morning and a slow API server.
const PATIENCE: Duration = Duration::from_secs(10);
/// Strangers who may wait; more are told to come back at once, so that a flood does not pile up.
const LINE: usize = 2048;
/// How long a token that was good is no stranger.
const ACQUAINTED: Duration = Duration::from_secs(3600);
/// Callers who are found at once.
const RECENT: usize = 1024;

/// How somebody proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A bearer token.
    Bearer,
    /// A session of ours. The scopes of its token are those that we asked for, and it never leaves us: they say nothing
    /// about the person, so reviews of rights are not told.
    Session,
    /// A session whose scopes count.
    ScopedSession,
}

impl How {
    /// Whether it was by a session.
    #[must_use]
    pub const fn is_session(self) -> bool {
        matches!(self, Self::Session | Self::ScopedSession)
    }

    /// The word for audit records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Session | Self::ScopedSession => "session",
        }
    }
}

/// A digest that is equal for people whom every review must treat alike.
pub type Digest = [u8; 32];

/// Somebody whom the cluster knows. Only [`Identities`] makes one.
pub struct Caller {
    identity: Identity,
    digest: Digest,
    how: How,
    token: Secret,
    until: Option<SystemTime>,
}

impl Caller {
    /// Who, in the API server's words.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Key of this person's rights in our caches.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How they proved it.
    #[must_use]
    pub fn how(&self) -> How {
        self.how
    }

    /// Their token, for the one question that must be asked as them.
    #[must_use]
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// When the token says that it ends.
    #[must_use]
    pub fn until(&self) -> Option<SystemTime> {
        self.until
    }
}

#[derive(Clone)]
enum Verdict {
    Known(Arc<Caller>),
    Nobody,
}

/// Remembers verdicts about credentials, for a while.
pub struct Identities {
    cluster: Arc<Cluster>,
    audiences: Vec<String>,
    /// Keyed by a digest under a key of this process: a dump of memory keys reveals no token.
    verdicts: Cache<Digest, (Verdict, Instant)>,
    /// Those whom tokens were good for last, by their tokens, which a caller holds anyway.
    recent: Memo<(Secret, How), Arc<Caller>>,
    lifetimes: Lifetimes,
    /// Tokens that were good a while ago. Each is reviewed again all the same.
    acquainted: Cache<Digest, ()>,
    strangers: Arc<Strangers>,
    attempts: Arc<Attempts>,
    key: hmac::Key,
    /// Looks at JWTs first, where that is wanted.
    precheck: Option<Arc<Precheck>>,
    metrics: Arc<Metrics>,
}

#[derive(Clone, Copy)]
struct Lifetimes {
    known: Duration,
    nobody: Duration,
}

impl Lifetimes {
    /// Until when a verdict of this moment holds.
    fn end_of(&self, verdict: &Verdict) -> Instant {
        Instant::now()
            + match verdict {
                Verdict::Known(caller) => match caller.until {
                    None => self.known,
                    Some(until) => until.duration_since(SystemTime::now()).unwrap_or_default().min(self.known),
                },
                Verdict::Nobody => self.nobody,
            }
    }
}

/// Each verdict says itself until when it holds.
struct OwnEnd;

impl<K, V> moka::Expiry<K, (V, Instant)> for OwnEnd {
    fn expire_after_create(&self, _: &K, (_, until): &(V, Instant), now: Instant) -> Option<Duration> {
        Some(until.saturating_duration_since(now))
    }
}

impl Identities {
    /// Begins with an empty memory.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(
        cluster: Arc<Cluster>,
        settings: &config::Access,
        login: Option<&config::Login>,
        limits: &config::Limits,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let entries = limits.cached_reviews;
        let precheck = settings.jwt_check.then(|| Arc::new(Precheck::new(jwt::sources(&cluster, settings, login))));
        let mut key = [0; 32];
        rand::fill(&mut key).map_err(|_| "no randomness".to_owned())?;
        Ok(Self {
            cluster,
            audiences: settings.audiences.clone(),
            verdicts: Cache::builder().max_capacity(entries).expire_after(OwnEnd).build(),
            recent: Memo::new(RECENT),
            lifetimes: Lifetimes { known: settings.token_ttl, nobody: settings.token_failure_ttl },
            acquainted: Cache::builder().max_capacity(entries).time_to_live(ACQUAINTED).build(),
            strangers: Arc::new(Strangers::new()),
            attempts: Arc::new(Attempts::new(limits.failed_attempts, Instant::now())),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            precheck,
            metrics,
        })
    }

    /// Reads the bearer token of a request and has it reviewed; `None` when there is none. `from` is the client's address,
    /// if it is known.
    ///
    /// # Errors
    /// 401 for a token that is not good, 400 for one that is none, 429 for one more that nobody knows from an address that
    /// sent many that were not good, 503 when the cluster gives no verdict.
    pub async fn bearer(&self, headers: &HeaderMap, from: Option<IpAddr>) -> Result<Option<Arc<Caller>>, Refusal> {
        let Some(token) = bearer::read(headers)? else { return Ok(None) };
        match self.verdict(token, How::Bearer, from).await? {
            Verdict::Known(caller) => Ok(Some(caller)),
            Verdict::Nobody => Err(Refusal::new(
                Reason::InvalidCredential,
                "the token is not valid: it may have expired or been revoked; log in again",
            )),
        }
    }

    /// Whether an address may try again.
    ///
    /// # Errors
    /// 429 after many failures from there.
    pub(in crate::identity) async fn may_try(&self, from: Option<IpAddr>) -> Result<(), Refusal> {
        let Some(from) = from else { return Ok(()) };
        match self.attempts.wait(from, Instant::now()).await {
            None => Ok(()),
            Some(wait) => Err(Refusal::new(
                Reason::Attempts,
                "too many tokens and logins from your address were not good; wait a moment and try again",
            )
            .retry_after(wait)),
        }
    }

    /// A login from an address was not good.
    pub(in crate::identity) async fn failed(&self, from: Option<IpAddr>) {
        if let Some(from) = from {
            self.attempts.failed(from, Instant::now()).await;
        }
    }

    /// Has the token of a session reviewed; `None` when it is nobody's.
    ///
    /// # Errors
    /// 503 when the cluster gives no verdict.
    pub async fn establish(&self, token: &Secret, how: How) -> Result<Option<Arc<Caller>>, Refusal> {
        // A session is sealed by us: nobody tries out tokens by sessions.
        match self.verdict(token.expose(), how, None).await? {
            Verdict::Known(caller) => Ok(Some(caller)),
            Verdict::Nobody => Ok(None),
        }
    }

    async fn verdict(&self, token: &str, how: How, from: Option<IpAddr>) -> Result<Verdict, Refusal> {
        let ticket = self.recent.ticket();
        // The token's own end is looked at on every use, whatever the memory's clock says.
        let ended = |caller: &Caller| caller.until.is_some_and(|until| until <= SystemTime::now());
        if let Some(caller) =
            self.recent.get(&token, |known| is_known(known, token, how)).filter(|caller| !ended(caller))
        {
            self.metrics.review_cached(ReviewKind::Token);
            return Ok(Verdict::Known(caller));
        }
        let key = self.key_of(token, how);
        match self.verdicts.get(&key).await {
            Some((Verdict::Known(caller), _)) if ended(&caller) => self.verdicts.invalidate(&key).await,
            Some((verdict, until)) => {
                self.metrics.review_cached(ReviewKind::Token);
                if let Verdict::Known(caller) = &verdict {
                    self.recent.put(ticket, &token, (caller.token.clone(), how), Arc::clone(caller), until);
                }
                return Ok(verdict);
            }
            None => {}
        }
        // Who was good lately is not shut out by others who come from the same address.
        if !self.acquainted.contains_key(&key) {
            self.may_try(from).await?;
        }
        let attempts = Arc::clone(&self.attempts);
        let (cluster, audiences, token) = (Arc::clone(&self.cluster), self.audiences.clone(), Secret::new(token));
        let (verdicts, lifetimes, acquainted) = (self.verdicts.clone(), self.lifetimes, self.acquainted.clone());
        let (strangers, precheck) = (Arc::clone(&self.strangers), self.precheck.clone());
        // In a task of its own: whoever asked first may go away without taking the answer from the others.
        let lookup = tokio::spawn(async move {
            let failed = async move {
                if let Some(from) = from {
                    attempts.failed(from, Instant::now()).await;
                }
            };
            let ask = async move {
                if let Some(precheck) = &precheck
                    && let Some(why) = precheck.rejects(token.expose(), SystemTime::now(), Instant::now()).await
                {
                    tracing::debug!(why, "A token is not good; nobody was asked");
                    failed.await;
                    return Ok((Verdict::Nobody, lifetimes.end_of(&Verdict::Nobody)));
                }
                let _turn = if acquainted.contains_key(&key) { None } else { Some(strangers.turn().await?) };
                let verdict = review(&cluster, &token, how, &audiences).await?;
                match verdict {
                    Verdict::Known(_) => acquainted.insert(key, ()).await,
                    Verdict::Nobody => failed.await,
                }
                let until = lifetimes.end_of(&verdict);
                Ok((verdict, until))
            };
            verdicts.try_get_with(key, ask).await
        });
        let verdict = lookup.await.unwrap_or_else(|error| Err(Arc::new(ClusterError::Failed(error.to_string()))));
        verdict.map(|(verdict, _)| verdict).map_err(|error| unavailable(&error))
    }

    fn key_of(&self, token: &str, how: How) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[how as u8]);
        context.update(token.as_bytes());
        let tag = context.sign();
        let mut key = [0; 32];
        key.copy_from_slice(tag.as_ref());
        key
    }
}

/// The line of those whose tokens were never good.
struct Strangers {
    places: Semaphore,
    turns: Semaphore,
}

impl Strangers {
    fn new() -> Self {
        Self { places: Semaphore::new(STRANGERS + LINE), turns: Semaphore::new(STRANGERS) }
    }

    /// A stranger's turn to be reviewed, and their place in the line until it is over.
    async fn turn(&self) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), ClusterError> {
        let busy = || ClusterError::Busy(Duration::from_secs(1));
        let place = self.places.try_acquire().map_err(|_| busy())?;
        match tokio::time::timeout(PATIENCE, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok((turn, place)),
            Ok(Err(_)) => Err(ClusterError::Failed("shutting down".to_owned())),
            Err(_) => Err(busy()),
        }
    }
}

/// The token in a time that tells nothing of where two begin to differ.
fn is_known((known, known_how): &(Secret, How), token: &str, how: How) -> bool {
    *known_how == how && seal::is_same(known.expose(), token)
}

/// OAuth tokens of OpenShift have no audience, and others may be meant for the API server itself: the API server's own
/// audience is asked first, then the configured ones.
async fn review(cluster: &Cluster, token: &Secret, how: How, audiences: &[String]) -> Result<Verdict, ClusterError> {
    let mut identity = cluster.review_token(token, &[]).await?;
    if identity.is_none() && !audiences.is_empty() && !token.expose().starts_with("sha256~") {
        identity = cluster.review_token(token, audiences).await?;
    }
    Ok(identity.map_or(Verdict::Nobody, |mut identity| {
        if how == How::Session {
            identity.extra.remove(SCOPES);
        }
        Verdict::Known(Arc::new(Caller {
            digest: digest_of(&identity),
            identity,
            how,
            until: bearer::expiry(token.expose()),
            token: token.clone(),
        }))
    }))
}

/// Length-prefixed, sorted, and without what changes with every token.
fn digest_of(identity: &Identity) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |text: &str| {
        context.update(&text.len().to_le_bytes());
        context.update(text.as_bytes());
    };
    add(&identity.username);
    add(&identity.uid);
    let mut groups: Vec<&str> = identity.groups.iter().map(String::as_str).collect();
    groups.sort_unstable();
    groups.dedup();
    add(&groups.len().to_string());
    groups.into_iter().for_each(&mut add);
    for (key, values) in identity.extra.iter().filter(|(key, _)| !NOT_IN_KEYS.contains(&key.as_str())) {
        add(key);
        add(&values.len().to_string());
        values.iter().for_each(|value| add(value));
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// The answer when the cluster gives no verdict: never "allowed", never "denied".
#[must_use]
pub fn unavailable(error: &ClusterError) -> Refusal {
    let wait = match error {
        ClusterError::Busy(wait) => *wait,
        ClusterError::Slow | ClusterError::Failed(_) => Duration::from_secs(5),
    };
    Refusal::new(
        Reason::ReviewUnavailable,
        "the cluster cannot be asked about your rights at the moment; try again soon",
    )
    .because(error)
    .retry_after(wait)
}

#[cfg(test)]
mod tests;
