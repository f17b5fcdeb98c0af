//! The second tier: final points that all replicas share, and word of what was forgotten.
//!
//! What is shared is written once under a name that says everything it depends on, a generation too. A purge begins
//! another generation, so that nothing of before is found by anybody who has heard of it, and everybody hears within
//! [`LOOK`]; whoever could not look for [`SURE`] leaves the tier alone. A value is an answer as a backend writes it, behind
//! the time at which it was asked for, and is read as strictly.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::journal::{Journal, News};
use super::key::Key;
use super::{Cache, Purge};
use crate::extents::{Extents, Fetched, Moment, Part, Rules, Span, alive};
use crate::remote::{Remote, Silent};

/// How often the journal is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Whoever has not seen the journal for so long does not know what was forgotten.
const SURE: Duration = Duration::from_secs(5);
/// A journal that nobody has written for so long is forgotten, and with it all that was shared.
const JOURNAL: Duration = Duration::from_secs(30 * 24 * 3600);
/// The largest that is believed.
const LARGEST_JOURNAL: usize = 256 << 10;
/// So many values are asked for at once.
const AT_ONCE: usize = 8;
/// More of one question are not asked for.
const MOST: usize = 256;
/// Clocks of replicas may differ by so many milliseconds.
const SKEW: i64 = 10_000;

/// A memory that replicas share.
pub trait Shelf: Send + Sync + 'static {
    /// What lies under a name, at the deadline at the latest.
    fn get(self: Arc<Self>, key: Vec<u8>, deadline: Instant) -> Soon<Option<Bytes>>;
    /// Lays something under a name that has nothing yet. Gives whether it makes sense to come with the next.
    fn put(&self, key: &[u8], value: Bytes, ttl: Duration) -> bool;
    /// The journal of purges.
    fn journal(self: Arc<Self>) -> Soon<Result<Option<Bytes>, Silent>>;
    /// Writes it anew.
    fn tell_journal(self: Arc<Self>, value: Bytes, ttl: Duration) -> Soon<bool>;
    /// How long a question waits for it, and the largest value.
    fn terms(&self) -> (Duration, usize);
}

/// See [`Shelf`].
pub type Soon<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Shelf for Remote {
    fn get(self: Arc<Self>, key: Vec<u8>, deadline: Instant) -> Soon<Option<Bytes>> {
        Box::pin(async move { Remote::get(&self, &key, deadline).await })
    }

    fn put(&self, key: &[u8], value: Bytes, ttl: Duration) -> bool {
        Remote::put(self, key, value, ttl)
    }

    fn journal(self: Arc<Self>) -> Soon<Result<Option<Bytes>, Silent>> {
        Box::pin(async move { Remote::journal(&self).await })
    }

    fn tell_journal(self: Arc<Self>, value: Bytes, ttl: Duration) -> Soon<bool> {
        Box::pin(async move { Remote::tell_journal(&self, &value, ttl).await })
    }

    fn terms(&self) -> (Duration, usize) {
        (self.settings().timeout, self.settings().largest)
    }
}

/// A shelf and what is known of its journal.
pub(super) struct Tier {
    shelf: Arc<dyn Shelf>,
    state: Mutex<State>,
    /// There is something to tell.
    news: Arc<Notify>,
}

struct State {
    journal: Option<Journal>,
    seen: Option<Instant>,
    /// When this replica began to look, by the wall's clock.
    began: i64,
}

impl Tier {
    /// Looks at the journal from now on, for as long as it is in use. Must be called within a runtime.
    pub(super) fn start(shelf: Arc<dyn Shelf>, cache: &Arc<Cache>) -> Arc<Self> {
        let state = State { journal: None, seen: None, began: cache.clock.now().wall };
        let tier = Arc::new(Self { shelf, state: Mutex::new(state), news: Arc::default() });
        tokio::spawn(follow(Arc::downgrade(&tier), Arc::downgrade(cache), Arc::clone(&tier.news)));
        tier
    }

    pub(super) fn is_of(&self, shelf: &Arc<dyn Shelf>) -> bool {
        Arc::ptr_eq(&self.shelf, shelf)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is shared of a backend now; none when nobody can say what was forgotten.
    pub(super) fn of(self: &Arc<Self>, backend: &str) -> Option<Sharing> {
        let state = self.state();
        state.seen.filter(|seen| seen.elapsed() < SURE)?;
        Some(Sharing { tier: Arc::clone(self), generation: state.journal.as_ref()?.generation(backend) })
    }

    /// Something is forgotten, here and at once; the others are told.
    pub(super) fn purge(&self, wall: i64, purge: Purge) {
        if let Some(journal) = &mut self.state().journal {
            journal.add(wall, random(), purge);
        } else {
            // What the others know is not known here. What they have kept is not used again.
            self.state().journal.get_or_insert_with(|| Journal::new(wall, random()));
        }
        self.news.notify_one();
    }

    /// Hears what the others have forgotten, and tells them what was forgotten here.
    async fn sync(&self, cache: &Cache) {
        let began = Instant::now();
        let Ok(theirs) = Arc::clone(&self.shelf).journal().await else { return };
        let theirs = theirs.filter(|bytes| bytes.len() <= LARGEST_JOURNAL);
        let theirs = theirs.and_then(|bytes| serde_json::from_slice::<Journal>(&bytes).ok());
        let (news, journal) = {
            let mut state = self.state();
            let before = state.journal.clone();
            let mut journal = before.clone().or_else(|| theirs.clone());
            if let (Some(journal), Some(theirs)) = (&mut journal, &theirs) {
                journal.merge(theirs);
            }
            let journal = journal.unwrap_or_else(|| Journal::new(cache.clock.now().wall, random()));
            let news = match &before {
                Some(before) => journal.news(before),
                // Nobody forgot anything before there was a journal.
                None if theirs.is_none() => News::These(Vec::new()),
                None => journal.since(state.began.saturating_sub(SKEW)),
            };
            // First nothing of before is found any more, then what was made of it goes.
            state.journal = Some(journal.clone());
            (news, journal)
        };
        match news {
            News::Everything => _ = cache.forget(&Purge::default()),
            News::These(purges) => purges.iter().for_each(|purge| _ = cache.forget(purge)),
        }
        let told = theirs.as_ref() == Some(&journal) || {
            let Ok(bytes) = serde_json::to_vec(&journal) else { return };
            Arc::clone(&self.shelf).tell_journal(bytes.into(), JOURNAL).await
        };
        // A journal that nobody else has seen is no beginning.
        if told {
            self.state().seen = Some(began);
        }
    }
}

async fn follow(tier: Weak<Tier>, cache: Weak<Cache>, news: Arc<Notify>) {
    loop {
        match (tier.upgrade(), cache.upgrade()) {
            (Some(tier), Some(cache)) => tier.sync(&cache).await,
            _ => return,
        }
        let _ = tokio::time::timeout(LOOK, news.notified()).await;
    }
}

/// Two replicas that do the same in one millisecond do not take one number for it.
fn random() -> u16 {
    let mut bytes = [0; 2];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u16::from_le_bytes(bytes)
}

/// What is shared of one backend in one generation.
#[derive(Clone)]
pub(super) struct Sharing {
    tier: Arc<Tier>,
    generation: u64,
}

impl Sharing {
    /// Final points among those that are needed, as far as others have known them in time.
    pub(super) async fn recall(
        &self,
        base: &[u8],
        need: &[Span],
        known: &Extents,
        (now, rules): (Moment, &Rules),
    ) -> Vec<Part> {
        let mut chunks = known.chunks(need, now, rules).into_iter().take(MOST);
        let deadline = Instant::now() + self.tier.shelf.terms().0;
        let (mut asked, mut parts) = (JoinSet::new(), Vec::new());
        loop {
            while asked.len() < AT_ONCE
                && Instant::now() < deadline
                && let Some(span) = chunks.next()
            {
                let (shelf, key) = (Arc::clone(&self.tier.shelf), Key::shared(base, self.generation, rules, span));
                asked.spawn(async move { (span, shelf.get(key, deadline).await) });
            }
            let Some(outcome) = asked.join_next().await else { return parts };
            let Ok((span, Some(value))) = outcome else { continue };
            let Some((asked_for, body)) = value.split_first_chunk() else { continue };
            let wall = i64::from_le_bytes(*asked_for);
            let age = now.wall.saturating_sub(wall).max(0);
            let at = Moment { steady: now.steady.saturating_sub(age), wall };
            if alive(at.steady, now, rules.ttl)
                && let Ok(part) = known.recall(&Fetched { span, at, body }, now)
            {
                parts.push(part);
            }
        }
    }

    /// Shares the final points that are known now and were not `before`.
    pub(super) fn share(&self, base: &[u8], known: &Extents, before: &Extents, (now, rules): (Moment, &Rules)) {
        let largest = self.tier.shelf.terms().1;
        for (span, bytes) in known.new_chunks(before) {
            if bytes > largest {
                continue;
            }
            let Some(written) = known.write(span, now) else { continue };
            let age = now.steady.saturating_sub(written.oldest);
            let Ok(left) = u64::try_from(rules.ttl.saturating_sub(age)) else { continue };
            let mut value = BytesMut::with_capacity(8 + written.body.len());
            value.put_i64_le(now.wall.saturating_sub(age));
            value.extend_from_slice(&written.body);
            let key = Key::shared(base, self.generation, rules, span);
            if !self.tier.shelf.put(&key, value.freeze(), Duration::from_millis(left)) {
                return;
            }
        }
    }
}
