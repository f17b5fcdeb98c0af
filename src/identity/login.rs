//! Logging in and out: the authorization code flow with PKCE, and sessions made of what it brings.
//!
//! A login that has begun lives in a sealed cookie of its own, so that tabs do not disturb each other and any replica may
//! finish it. Its state is checked before a code is redeemed; what fails there costs the token endpoint nothing.

mod idtoken;
mod provider;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, rand};
use http::{HeaderMap, HeaderValue};
use moka::future::Cache;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::cookies::{self, Names};
use super::denied::{Denied, Once};
use super::seal::{self, Purpose, Sealer, is_same};
use super::session::{Session, SessionId, Via, seconds};
use super::{Caller, How, Identities, bearer, origin};
use crate::cluster::Cluster;
use crate::config;
use crate::encoding::{base64url, hex};
use crate::names::Secret;
use crate::refusal::{Reason, Refusal};
use crate::remote::Remote;
use crate::route::{Callback, Target, push_pair};
use crate::telemetry::metrics::{LoginOutcome, LogoutOutcome, Metrics};
pub use provider::Unavailable;
use provider::{ExchangeError, Provider, Providers};

/// How long a login may take.
const LOGIN: u64 = 600;
/// Logins that one browser may have begun; the oldest goes when there are more.
const BEGUN: usize = 8;
/// How long a login waits for its turn to be finished.
const TURN: Duration = Duration::from_secs(20);
/// Sessions that count as being used.
const USED: u64 = 300;
/// Sessions that are counted at most.
const COUNTED: usize = 100_000;
/// Refreshed sessions that are remembered, and for how long: requests with the cookie of before are on their way.
const REFRESHED: (u64, Duration) = (10_000, Duration::from_secs(300));

/// How long a session stands before other replicas are asked again whether they ended it.
const STANDING: Duration = Duration::from_secs(5);

/// What outlives a change of the configuration.
pub struct Memory {
    made: [u8; 32],
    denied: Denied,
    states: Once,
    refreshed: Cache<[u8; 32], Arc<Session>>,
    used: Mutex<HashMap<SessionId, u64>>,
    sessions: AtomicI64,
    /// The memory that replicas share, if there is one.
    shared: Mutex<Option<Arc<Remote>>>,
    /// Sessions that were not ended elsewhere a moment ago.
    standing: Cache<SessionId, ()>,
}

impl Memory {
    /// Empty, with a key for a process that is given none.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new() -> Result<Self, String> {
        Ok(Self {
            made: seal::made_at_start()?,
            denied: Denied::default(),
            states: Once::default(),
            refreshed: Cache::builder().max_capacity(REFRESHED.0).time_to_live(REFRESHED.1).build(),
            used: Mutex::default(),
            sessions: AtomicI64::new(0),
            shared: Mutex::default(),
            standing: Cache::builder().max_capacity(COUNTED as u64).time_to_live(STANDING).build(),
        })
    }

    /// The memory that these settings mean: the one that there is, or another.
    ///
    /// # Errors
    /// When keys or authorities cannot be used.
    pub fn shared_for(
        &self,
        settings: Option<&config::Shared>,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Arc<Remote>>, String> {
        let before = self.shared();
        match (settings, before) {
            (None, _) => Ok(None),
            (Some(settings), Some(before)) if before.settings() == settings => Ok(Some(before)),
            (Some(settings), _) => Ok(Some(Arc::new(Remote::new(settings, Arc::clone(metrics))?))),
        }
    }

    /// From now on sessions are ended in this memory too.
    pub fn share(&self, remote: Option<Arc<Remote>>) {
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = remote;
    }

    fn shared(&self) -> Option<Arc<Remote>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends a session here, and at all replicas if they can be told.
    async fn deny(&self, id: SessionId, ends: u64, now: SystemTime) {
        self.denied.deny(id, ends, now);
        self.standing.invalidate(&id).await;
        if let Some(shared) = self.shared() {
            let until = std::time::UNIX_EPOCH + Duration::from_secs(ends);
            if !shared.deny(&id, until).await {
                tracing::warn!("The end of a session could not be told to the other replicas");
            }
        }
    }

    /// Whether a session that stands here was ended at another replica. When nobody can say, it stands.
    async fn was_ended_elsewhere(&self, id: SessionId, ends: u64, now: SystemTime) -> bool {
        let Some(shared) = self.shared() else { return false };
        if self.standing.contains_key(&id) {
            return false;
        }
        match shared.is_denied(&id).await {
            Some(true) => {
                self.denied.deny(id, ends, now);
                true
            }
            Some(false) => {
                self.standing.insert(id, ()).await;
                false
            }
            None => false,
        }
    }

    /// How many sessions were used within the last five minutes.
    #[must_use]
    pub fn sessions(&self, now: SystemTime) -> i64 {
        let now = seconds(now);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|_, last| now.saturating_sub(*last) < USED);
        let count = i64::try_from(used.len()).unwrap_or(i64::MAX);
        self.sessions.store(count, Ordering::Relaxed);
        count
    }

    fn uses(&self, id: SessionId, now: SystemTime) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() < COUNTED || used.contains_key(&id) {
            used.insert(id, seconds(now));
        }
    }
}

/// How people log in, by one configuration.
pub struct Login {
    settings: Arc<config::Login>,
    sealer: Sealer,
    names: Names,
    cluster: Arc<Cluster>,
    providers: Providers,
    finishing: Semaphore,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
}

/// A login that has begun, as its cookie holds it.
#[derive(Serialize, Deserialize)]
struct Begun {
    state: String,
    verifier: String,
    nonce: String,
    to: String,
    issuer: String,
    at: u64,
}

/// A login that succeeded.
pub struct Finished {
    /// Who.
    pub caller: Arc<Caller>,
    /// Where they wanted to go.
    pub to: Target,
    /// Cookies to be set.
    pub cookies: Vec<HeaderValue>,
}

/// Somebody who came with a session.
pub struct Arrived {
    /// Who.
    pub caller: Arc<Caller>,
    /// When the session ends at the latest.
    pub ends: SystemTime,
}

/// A session that was ended.
pub struct Ended {
    /// Whether the token is worth nothing any more anywhere; else the session is closed here only.
    pub revoked: bool,
    /// Whether there was one.
    pub was: bool,
    /// Where the browser goes to end its session at the OpenID provider.
    pub elsewhere: Option<String>,
    /// Where a form leads that ends the session at OpenShift's own server.
    pub form: Option<String>,
    /// Cookies to be taken away.
    pub cookies: Vec<HeaderValue>,
}

impl Login {
    /// Prepares; asks nobody yet.
    ///
    /// # Errors
    /// When a key cannot be used.
    pub fn new(
        settings: &Arc<config::Login>,
        live: &config::Live,
        cluster: Arc<Cluster>,
        memory: Arc<Memory>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        if settings.keys.is_empty() {
            tracing::warn!(
                "login.session.key_files is empty: sessions end with this process, and replicas do not share them"
            );
        }
        Ok(Self {
            sealer: Sealer::new(&settings.keys, &memory.made, &settings.origin)?,
            names: Names::new(&settings.prefix),
            providers: Providers::new(Arc::clone(settings), Arc::clone(&cluster), live.cluster.ca.clone()),
            settings: Arc::clone(settings),
            cluster,
            finishing: Semaphore::new(live.limits.logins),
            memory,
            metrics,
        })
    }

    /// What these settings are; a login is kept while they stay.
    #[must_use]
    pub fn settings(&self) -> &Arc<config::Login> {
        &self.settings
    }

    /// The whole address of a path of ours, for browsers.
    #[must_use]
    pub fn address(&self, path: &str) -> String {
        format!("{}{}{path}", self.settings.origin, self.settings.prefix)
    }

    /// Where somebody is sent who has to log in before they see `target`.
    #[must_use]
    pub fn entrance(&self, target: &str) -> String {
        let mut address = self.address("/-/login");
        if let Some(to) =
            Target::parse(target, &self.settings.prefix).filter(|to| *to != Target::home(&self.settings.prefix))
        {
            let mut query = String::new();
            push_pair(&mut query, "to", to.as_str());
            address.push('?');
            address.push_str(&query);
        }
        address
    }

    /// Where forms of our pages may lead besides our own origin.
    pub async fn forms(&self) -> Option<String> {
        self.providers.current().await.ok().map(|provider| provider.origin.clone())
    }

    /// Whether people can log in, and what an operator should know.
    pub async fn readiness(&self) -> (bool, String) {
        match (self.providers.current().await, self.providers.problem().await) {
            (Ok(provider), None) => (true, format!("by {}", provider.issuer)),
            (Ok(provider), Some(problem)) => (true, format!("by {}, as before; {}", provider.issuer, words(&problem))),
            (Err(Unavailable::Nowhere), _) => (true, words(&Unavailable::Nowhere)),
            (Err(problem), _) => (false, words(&problem)),
        }
    }

    /// Begins a login: where the browser goes, and the cookies that it keeps meanwhile.
    ///
    /// # Errors
    /// 404 when there is nowhere to log in, 503 when that cannot be found out.
    pub async fn begin(
        &self,
        headers: &HeaderMap,
        to: &Target,
        now: SystemTime,
    ) -> Result<(String, Vec<HeaderValue>), Refusal> {
        let provider = self.provider().await.map_err(|refusal| {
            self.metrics.login(LoginOutcome::Unavailable);
            // Whoever reads this shall still come to where they were going.
            let soon = refusal.reason() == Reason::LoginUnavailable;
            if soon { refusal.next(self.entrance(to.as_str()), "Try again") } else { refusal }
        })?;
        let (state, verifier, nonce) = (random()?, random()?, random()?);
        let begun = Begun {
            to: to.as_str().to_owned(),
            issuer: provider.issuer.clone(),
            at: seconds(now),
            state,
            verifier,
            nonce,
        };
        let name = self.name_of(&begun.state);
        let plain = serde_json::to_vec(&begun).map_err(Refusal::internal)?;
        let sealed = self.sealer.seal(Purpose::Login, &name, &plain).ok_or_else(|| Refusal::internal("sealing"))?;
        let mut cookies = self.make_room(headers, now);
        cookies.extend(self.names.set(&name, &sealed, Some(LOGIN)));
        let place = provider.authorize_url(&self.address("/-/callback"), &begun.state, &begun.verifier, &begun.nonce);
        Ok((place, cookies))
    }

    /// Takes away what cannot be finished any more, and the oldest where there is no room for one more.
    fn make_room(&self, headers: &HeaderMap, now: SystemTime) -> Vec<HeaderValue> {
        let mut begun: Vec<(u64, &str)> = cookies::all(headers)
            .filter(|(name, _)| name.starts_with(&self.names.login))
            .map(|(name, value)| (self.opened(name, value).map_or(0, |begun| begun.at), name))
            .collect();
        begun.sort_unstable();
        let spare = (begun.len() + 1).saturating_sub(BEGUN);
        let over = |at: u64| seconds(now).saturating_sub(at) >= LOGIN;
        let gone = begun.iter().enumerate().filter(|(index, (at, _))| *index < spare || over(*at));
        // No more than a head may have.
        gone.take(4 * BEGUN).filter_map(|(_, (_, name))| self.names.clear(name)).collect()
    }

    fn name_of(&self, state: &str) -> String {
        let tag = digest::digest(&digest::SHA256, state.as_bytes());
        format!("{}{}", self.names.login, hex(&tag.as_ref()[..4]))
    }

    fn opened(&self, name: &str, value: &str) -> Option<Begun> {
        serde_json::from_slice(&self.sealer.open(Purpose::Login, name, value)?).ok()
    }

    /// The login that a state belongs to, in this browser, not yet finished and not too old.
    fn begun(&self, headers: &HeaderMap, state: &str, now: SystemTime) -> Option<Begun> {
        let name = self.name_of(state);
        let mut candidates = cookies::all(headers).filter(|(known, _)| *known == name).take(BEGUN);
        let begun =
            candidates.find_map(|(_, value)| self.opened(&name, value).filter(|begun| is_same(&begun.state, state)))?;
        let age = seconds(now).checked_sub(begun.at);
        age.is_none_or(|age| age < LOGIN).then_some(begun)
    }

    /// Finishes a login. The state is checked first, then used up, then the code is redeemed, then the cluster is asked who
    /// this is. Whatever session the browser had before plays no part.
    ///
    /// # Errors
    /// With a way to try again; 429 after many failures from the client's address, if that is known.
    pub async fn finish(
        &self,
        headers: &HeaderMap,
        callback: &Callback,
        identities: &Identities,
        from: Option<IpAddr>,
        now: SystemTime,
    ) -> Result<Finished, Refusal> {
        let again = |refusal: Refusal, to: &str| refusal.next(self.entrance(to), "Log in again");
        let stale = || {
            self.metrics.login(LoginOutcome::Stale);
            again(
                Refusal::new(
                    Reason::LoginStale,
                    "this login has been finished before, took longer than ten minutes, or was begun in another browser",
                ),
                "",
            )
        };
        let state = callback.state.as_ref().ok_or_else(stale)?;
        let begun = self.begun(headers, state.expose(), now).ok_or_else(stale)?;
        identities.may_try(from).await.map_err(|refusal| again(refusal, &begun.to))?;
        let tag = digest::digest(&digest::SHA256, begun.state.as_bytes());
        let mut id = SessionId::default();
        id.copy_from_slice(&tag.as_ref()[..16]);
        if !self.memory.states.first(id, begun.at + LOGIN, now) {
            return Err(stale());
        }
        let (session, caller) = match self.redeem(callback, &begun, identities, now).await {
            Ok(found) => found,
            Err((outcome, refusal)) => {
                if matches!(outcome, LoginOutcome::Failed | LoginOutcome::Rejected) {
                    identities.failed(from).await;
                }
                self.metrics.login(outcome);
                return Err(again(refusal, &begun.to));
            }
        };
        let to = Target::parse(&begun.to, &self.settings.prefix).unwrap_or_else(|| Target::home(&self.settings.prefix));
        let Some(mut cookies) = self.sealed(&session, headers) else {
            self.metrics.login(LoginOutcome::Failed);
            return Err(Refusal::new(
                Reason::LoginFailed,
                "your session is too large for a browser to keep: the provider puts too much into its tokens; tell whoever runs it",
            ));
        };
        cookies.extend(self.names.clear(&self.name_of(&begun.state)));
        self.memory.uses(session.id, now);
        self.metrics.login(LoginOutcome::Ok);
        Ok(Finished { caller, to, cookies })
    }

    async fn redeem(
        &self,
        callback: &Callback,
        begun: &Begun,
        identities: &Identities,
        now: SystemTime,
    ) -> Result<(Session, Arc<Caller>), (LoginOutcome, Refusal)> {
        let failed = |message: &'static str, cause: &dyn std::fmt::Display| {
            (LoginOutcome::Failed, Refusal::new(Reason::LoginFailed, message).because(cause))
        };
        let provider = self.provider().await.map_err(|refusal| (LoginOutcome::Unavailable, refusal))?;
        if begun.issuer != provider.issuer || callback.issuer.as_ref().is_some_and(|issuer| *issuer != begun.issuer) {
            return Err(failed("the answer came from another server than the one that you were sent to", &"issuer"));
        }
        if let Some(error) = &callback.error {
            return Err((LoginOutcome::Refused, refused(error)));
        }
        let Some(code) = &callback.code else {
            return Err(failed("the server at which you logged in sent you back with nothing", &"no code"));
        };
        let turn = tokio::time::timeout(TURN, self.finishing.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            let busy = Refusal::new(Reason::Overload, "very many people are logging in at the moment; try again soon");
            return Err((LoginOutcome::Unavailable, busy.retry_after(Duration::from_secs(2))));
        };
        let tokens = provider.redeem(code, &begun.verifier, &self.address("/-/callback")).await.map_err(|error| {
            failed("the server at which you logged in did not give us a token; try again, and tell whoever runs it if it stays so", &error)
        })?;
        let subject = match provider.via {
            Via::OpenShift => String::new(),
            Via::Oidc => {
                idtoken::check(tokens.token.expose(), &provider.issuer, provider.client_id(), Some(&begun.nonce), now)
                    .map_err(|cause| failed("the token of the server at which you logged in is not for us", &cause))?
            }
        };
        let session = self
            .begin_session(provider.via, tokens, subject, now)
            .map_err(|refusal| (LoginOutcome::Failed, refusal))?;
        match identities.establish(&session.token, self.how(session.via)).await {
            Ok(Some(caller)) => Ok((session, caller)),
            Ok(None) => Err((
                LoginOutcome::Rejected,
                Refusal::new(
                    Reason::LoginRefused,
                    "you logged in, but the cluster does not accept the token that this brought; tell whoever runs it",
                ),
            )),
            Err(refusal) => Err((LoginOutcome::Unavailable, refusal)),
        }
    }

    fn begin_session(
        &self,
        via: Via,
        tokens: provider::Tokens,
        subject: String,
        now: SystemTime,
    ) -> Result<Session, Refusal> {
        let began = seconds(now);
        let mut id = SessionId::default();
        rand::fill(&mut id).map_err(|_| Refusal::internal("no randomness"))?;
        let mut ends = began.saturating_add(self.settings.lifetime.as_secs());
        if tokens.refresh.is_none() {
            let said = bearer::expiry(tokens.token.expose()).map(seconds);
            let lasts = tokens.lasts.map(|lasts| began.saturating_add(lasts));
            ends = [said, lasts].into_iter().flatten().fold(ends, u64::min);
        }
        if ends <= began {
            return Err(Refusal::new(Reason::LoginFailed, "the token that this login brought is over already")
                .because("a token that ended before it came: do the clocks agree?"));
        }
        Ok(Session { id, via, began, written: began, ends, token: tokens.token, refresh: tokens.refresh, subject })
    }

    fn how(&self, via: Via) -> How {
        let honour = self.settings.openshift.as_ref().is_some_and(|openshift| openshift.honour_scopes);
        if via == Via::OpenShift && !honour { How::Session } else { How::ScopedSession }
    }

    fn sealed(&self, session: &Session, headers: &HeaderMap) -> Option<Vec<HeaderValue>> {
        let sealed = self.sealer.seal(Purpose::Session, &self.names.session, &session.encode())?;
        self.names.set_session(&sealed, headers)
    }

    /// The session of a head, if it stands.
    #[must_use]
    pub fn session(&self, headers: &HeaderMap, now: SystemTime) -> Option<Session> {
        let sealed = self.names.session(headers)?;
        let session = Session::decode(&self.sealer.open(Purpose::Session, &self.names.session, &sealed)?)?;
        let stands = !session.is_over(now, self.settings.idle_timeout) && !self.memory.denied.is_denied(&session.id);
        stands.then_some(session)
    }

    /// Who comes with a session. `cookies` gets what the browser shall keep from now on.
    ///
    /// # Errors
    /// 401 without one, 403 for a request that our own pages do not make, 503 when the cluster gives no verdict.
    pub async fn arrive(
        &self,
        method: &http::Method,
        headers: &HeaderMap,
        identities: &Identities,
        cookies: &mut Vec<HeaderValue>,
        now: SystemTime,
    ) -> Result<Arrived, Refusal> {
        let mut stands = self.session(headers, now);
        if let Some(session) = &stands
            && self.memory.was_ended_elsewhere(session.id, session.ends, now).await
        {
            stands = None;
        }
        let Some(mut session) = stands else {
            cookies.extend(self.names.clear_session(headers));
            return Err(self.nobody(self.names.has_session(headers)));
        };
        origin::check(method, headers, &self.settings.origin)?;
        let mut changed = false;
        if session.via == Via::Oidc && idtoken::is_due(session.token.expose(), session.began, now) {
            changed = self.renew(&mut session, now).await;
        }
        let how = self.how(session.via);
        let mut caller = identities.establish(&session.token, how).await?;
        // A token may end before its time; where another can be had, that is tried once.
        if caller.is_none() && !changed && self.renew(&mut session, now).await {
            changed = true;
            caller = identities.establish(&session.token, how).await?;
        }
        let Some(caller) = caller else {
            cookies.extend(self.names.clear_session(headers));
            return Err(self.nobody(true));
        };
        if changed || session.is_due(now) {
            session.written = seconds(now);
            self.memory.uses(session.id, now);
            cookies.extend(self.sealed(&session, headers).into_iter().flatten());
        }
        Ok(Arrived { caller, ends: UNIX_EPOCH + Duration::from_secs(session.ends) })
    }

    /// Whose session this is; `None` when its token is nobody's.
    ///
    /// # Errors
    /// 503 when the cluster gives no verdict.
    pub async fn owner(&self, session: &Session, identities: &Identities) -> Result<Option<Arc<Caller>>, Refusal> {
        identities.establish(&session.token, self.how(session.via)).await
    }

    fn nobody(&self, ended: bool) -> Refusal {
        let why = if ended { "your session has ended" } else { "authentication is required" };
        let message = format!(
            "{why}: log in at {}, or send an OpenShift token as \"Authorization: Bearer …\" (\"oc whoami --show-token\" prints yours)",
            self.address("/-/login"),
        );
        Refusal::new(Reason::NoCredential, message)
    }

    /// Has the next token of an OpenID provider, once for all requests that need it; whether there is one. What a provider
    /// refuses is not asked for again; the session then ends with its token.
    async fn renew(&self, session: &mut Session, now: SystemTime) -> bool {
        let Some(refresh) = session.refresh.clone() else { return false };
        let Ok(provider) = self.providers.current().await else { return false };
        if provider.via != session.via {
            return false;
        }
        let mut key = [0; 32];
        let tag = digest::digest(&digest::SHA256, &[session.id.as_slice(), refresh.expose().as_bytes()].concat());
        key.copy_from_slice(tag.as_ref());
        let mut spent = SessionId::default();
        spent.copy_from_slice(&key[..16]);
        if self.memory.denied.is_denied(&spent) {
            return false;
        }
        let (memory, before) = (Arc::clone(&self.memory), session.clone());
        // In a task of its own: a refresh token is used up even when whoever asked goes away.
        let lookup = tokio::spawn(async move {
            let ask = async { next(&provider, before, refresh, now).await.map(Arc::new) };
            memory.refreshed.try_get_with(key, ask).await
        });
        match lookup.await {
            Ok(Ok(renewed)) => {
                let ends = session.ends;
                *session = Session { ends, ..(*renewed).clone() };
                self.metrics.login(LoginOutcome::Refreshed);
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(cause = %error, "A session could not be refreshed");
                // Not the session: another replica may have used the refresh token a moment ago, and the browser may have
                // the next one already. What is left is the token until its end.
                if matches!(&*error, ExchangeError::Refused(word) if word == "invalid_grant") {
                    self.memory.denied.deny(spent, session.ends, now);
                    session.refresh = None;
                }
                false
            }
            Err(_) => false,
        }
    }

    /// Ends the session of a browser, here and, as far as we may, at the server that made its token.
    ///
    /// # Errors
    /// 403 when it is not our own page that asks.
    pub async fn end(&self, method: &http::Method, headers: &HeaderMap, now: SystemTime) -> Result<Ended, Refusal> {
        origin::check(method, headers, &self.settings.origin)?;
        let mut cookies = self.names.clear_session(headers);
        let begun = cookies::all(headers).filter(|(name, _)| name.starts_with(&self.names.login)).take(4 * BEGUN);
        cookies.extend(begun.filter_map(|(name, _)| self.names.clear(name)));
        let provider = self.providers.current().await.ok();
        let mut ended = Ended { revoked: false, was: false, elsewhere: None, form: None, cookies };
        let Some(session) = self.session(headers, now) else { return Ok(ended) };
        ended.was = true;
        self.memory.deny(session.id, session.ends, now).await;
        self.memory.used.lock().unwrap_or_else(PoisonError::into_inner).remove(&session.id);
        match session.via {
            Via::OpenShift => {
                ended.revoked = self.cluster.revoke(&session.token).await.unwrap_or_else(|error| {
                    tracing::warn!(cause = %error, "A token could not be revoked");
                    false
                });
                ended.form = provider
                    .filter(|provider| provider.via == Via::OpenShift)
                    .and_then(|provider| provider.end_session.clone());
            }
            Via::Oidc => {
                let back = self.address("/-/logout");
                ended.elsewhere = provider.and_then(|provider| provider.end_session_url(&session.token, &back));
            }
        }
        self.metrics.logout(if ended.revoked { LogoutOutcome::Revoked } else { LogoutOutcome::Closed });
        Ok(ended)
    }

    async fn provider(&self) -> Result<Arc<Provider>, Refusal> {
        self.providers.current().await.map_err(|problem| match problem {
            Unavailable::Nowhere => Refusal::new(
                Reason::NoLogin,
                "this cluster has no OAuth server of its own and no other way to log in is configured; send a token instead",
            ),
            Unavailable::Unknown(_) => Refusal::new(
                Reason::LoginUnavailable,
                "the cluster cannot be asked where people log in; try again soon",
            )
            .because(words(&problem))
            .retry_after(Duration::from_secs(5)),
        })
    }
}

/// The session with the next token of its provider.
async fn next(
    provider: &Provider,
    before: Session,
    refresh: Secret,
    now: SystemTime,
) -> Result<Session, ExchangeError> {
    let Some(tokens) = provider.refresh(&refresh).await? else {
        return Err(ExchangeError::Failed("no ID token in it".to_owned()));
    };
    let subject = idtoken::check(tokens.token.expose(), &provider.issuer, provider.client_id(), None, now)
        .map_err(|cause| ExchangeError::Failed(cause.to_owned()))?;
    if subject != before.subject {
        return Err(ExchangeError::Failed("the next ID token is somebody else's".to_owned()));
    }
    Ok(Session {
        token: tokens.token,
        refresh: Some(tokens.refresh.unwrap_or(refresh)),
        written: seconds(now),
        ..before
    })
}

/// What the server's word means for a person.
fn refused(error: &str) -> Refusal {
    let (reason, message) = match error {
        "access_denied" => {
            (Reason::LoginRefused, "you did not allow Perses to know who you are, or may not log in to it")
        }
        "temporarily_unavailable" | "server_error" => {
            (Reason::LoginUnavailable, "the server at which people log in has a problem; try again soon")
        }
        _ => (
            Reason::LoginFailed,
            "the server at which people log in did not accept how we sent you there; tell whoever runs this",
        ),
    };
    // The word may be anything.
    let word: String = error.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
    Refusal::new(reason, message).because(format!("the authorization endpoint says {word}"))
}

fn words(problem: &Unavailable) -> String {
    match problem {
        Unavailable::Nowhere => "nowhere: the cluster has no OAuth server and login.oidc is not configured".to_owned(),
        Unavailable::Unknown(cause) => format!("discovery failed: {cause}"),
    }
}

/// 32 bytes that nobody guesses, as text of 43 characters.
fn random() -> Result<String, Refusal> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| Refusal::internal("no randomness"))?;
    Ok(base64url(&bytes))
}
