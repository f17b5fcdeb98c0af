//! Lists of Perses as of a moment ago: everybody who opens the start page at nine asks for the same ones.
//!
//! Perses answers a list for everybody alike; what a caller may see of it is decided each time. A list is at most
//! [`FRESH`] old here, and gone with every change that passes through us. A change through another replica is seen after
//! that time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::future::Cache;

use crate::access::{Granted, PersesCall};
use crate::refusal::Refusal;
use crate::upstream::{Perses, PersesAnswer};

/// How old a list may be.
const FRESH: Duration = Duration::from_secs(2);

/// Bytes of lists that are kept.
const MOST: u64 = 64 << 20;

/// The lists.
pub(super) struct Lists {
    perses: Arc<Perses>,
    kept: Cache<(u64, String), Arc<List>>,
    /// How often something was changed.
    changes: Arc<AtomicU64>,
    enabled: bool,
}

struct List {
    answer: PersesAnswer,
    asked: Instant,
}

/// A change under way; what is known is forgotten when it ends, however it does.
pub struct Changing(Arc<AtomicU64>);

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Lists {
    pub(super) fn new(perses: Arc<Perses>, enabled: bool) -> Self {
        let kept = Cache::builder()
            .max_capacity(MOST)
            .weigher(|_: &(u64, String), list: &Arc<List>| {
                u32::try_from(list.answer.body.len() + 500).unwrap_or(u32::MAX)
            })
            .time_to_live(FRESH)
            .build();
        Self { perses, kept, changes: Arc::default(), enabled }
    }

    pub(super) fn changing(&self) -> Changing {
        Changing(Arc::clone(&self.changes))
    }

    /// The list that a call asks for.
    pub(super) async fn ask(&self, call: Granted<PersesCall>) -> Result<PersesAnswer, Refusal> {
        if !self.enabled {
            return self.perses.ask(call).await;
        }
        // What is being asked for while something changes is kept under the number from before.
        let key = (self.changes.load(Ordering::Acquire), call.get().request.path.clone());
        for _ in 0..2 {
            let (perses, call) = (Arc::clone(&self.perses), call.clone());
            let ask = async move {
                // A task of its own: it goes on when the caller leaves.
                let asked = Instant::now();
                let task = tokio::spawn(async move { perses.ask(call).await });
                match task.await {
                    Ok(Ok(answer)) => Ok(Arc::new(List { answer, asked })),
                    Ok(Err(refusal)) => Err(refusal),
                    Err(error) => Err(Refusal::internal(error)),
                }
            };
            let list = self.kept.try_get_with_by_ref(&key, ask).await;
            let list = list.map_err(|refusal: Arc<Refusal>| (*refusal).clone())?;
            // It may have taken its time.
            if list.answer.status.is_success() && list.asked.elapsed() < FRESH {
                return Ok(list.answer.clone());
            }
            self.kept.invalidate(&key).await;
            if !list.answer.status.is_success() {
                return Ok(list.answer.clone());
            }
        }
        self.perses.ask(call).await
    }
}
