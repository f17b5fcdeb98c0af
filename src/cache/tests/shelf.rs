//! A memory that replicas share, in this process: slow, silent and counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::backend::Stage;
use crate::cache::{Cache, Shelf, Soon};
use crate::remote::Silent;

#[derive(Default)]
struct Inner {
    values: HashMap<Vec<u8>, (Bytes, Instant)>,
    journal: Option<Bytes>,
    takes: Duration,
    silent: bool,
    gets: usize,
}

#[derive(Default)]
pub(super) struct InProcess(Mutex<Inner>);

pub(super) const PATIENCE: Duration = Duration::from_millis(50);

impl InProcess {
    pub(super) fn mood(&self, takes: Duration, silent: bool) {
        let mut inner = self.0.lock().unwrap();
        (inner.takes, inner.silent) = (takes, silent);
    }

    pub(super) fn values(&self) -> usize {
        self.0.lock().unwrap().values.len()
    }

    pub(super) fn gets(&self) -> usize {
        self.0.lock().unwrap().gets
    }

    pub(super) fn forget_journal(&self) {
        self.0.lock().unwrap().journal = None;
    }

    /// Waits as long as it takes, at most to the deadline. Gives whether it answers.
    async fn answers(&self, deadline: Instant) -> bool {
        let (takes, silent) = {
            let inner = self.0.lock().unwrap();
            (inner.takes, inner.silent)
        };
        tokio::time::timeout_at(deadline, tokio::time::sleep(takes)).await.is_ok() && !silent
    }
}

impl Shelf for InProcess {
    fn get(self: Arc<Self>, key: Vec<u8>, deadline: Instant) -> Soon<Option<Bytes>> {
        Box::pin(async move {
            self.0.lock().unwrap().gets += 1;
            if !self.answers(deadline).await {
                return None;
            }
            let inner = self.0.lock().unwrap();
            inner.values.get(&key).filter(|(_, until)| Instant::now() < *until).map(|(value, _)| value.clone())
        })
    }

    fn put(&self, key: &[u8], value: Bytes, ttl: Duration) -> bool {
        let mut inner = self.0.lock().unwrap();
        if !inner.silent {
            let until = Instant::now() + ttl;
            inner.values.entry(key.to_vec()).or_insert((value, until));
        }
        !inner.silent
    }

    fn journal(self: Arc<Self>) -> Soon<Result<Option<Bytes>, Silent>> {
        Box::pin(async move {
            if self.answers(Instant::now() + PATIENCE).await {
                Ok(self.0.lock().unwrap().journal.clone())
            } else {
                Err(Silent)
            }
        })
    }

    fn tell_journal(self: Arc<Self>, value: Bytes, _: Duration) -> Soon<bool> {
        Box::pin(async move {
            let answers = self.answers(Instant::now() + PATIENCE).await;
            if answers {
                self.0.lock().unwrap().journal = Some(value);
            }
            answers
        })
    }

    fn terms(&self) -> (Duration, usize) {
        (PATIENCE, 1 << 20)
    }
}

/// Another replica before the same backend.
pub(super) fn replica(of: &Stage, memory: usize) -> Stage {
    let backend = Arc::clone(&of.backend);
    let wall = {
        let backend = Arc::clone(&backend);
        move || backend.now()
    };
    let cache = Cache::new(memory, crate::cache::Clock::new(wall), Arc::new(crate::cache::Metrics::new()));
    let place = cache.place("b", b"b");
    Stage { cache, backend, place, settings: of.settings.clone(), lately: Mutex::default() }
}

pub(super) fn share(shelf: &Arc<InProcess>, stages: &[&Stage]) {
    for stage in stages {
        stage.cache.share(Some(Arc::clone(shelf) as _));
    }
}
