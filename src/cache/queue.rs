//! How much one backend is asked at once, and whose turn is next: callers with the same namespaces share a room, and the
//! rooms take turns.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::Upstream;
use crate::refusal::{Reason, Refusal};

/// The room of what is asked for nobody.
const SPARE: u64 = u64::MAX;

/// Who is in and who waits.
#[derive(Default)]
pub(super) struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    inside: usize,
    waiting: usize,
    rooms: HashMap<u64, Room>,
    /// Rooms in which somebody waits, by whose turn it is.
    turns: VecDeque<u64>,
    /// As configured last.
    at_once: usize,
    of_one_set: usize,
}

#[derive(Default)]
struct Room {
    inside: usize,
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// The right to ask; given back when it is dropped.
pub(super) struct Permit {
    queue: Arc<Queue>,
    room: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let unwanted = {
            let mut state = self.queue.lock();
            state.inside -= 1;
            if let Some(room) = state.rooms.get_mut(&self.room) {
                room.inside -= 1;
                if room.inside == 0 && room.waiting.is_empty() {
                    state.rooms.remove(&self.room);
                }
            }
            state.admit(&self.queue)
        };
        // Whoever left without waiting gives the right back in turn, without the lock.
        drop(unwanted);
    }
}

impl Queue {
    /// Waits for its turn.
    pub(super) async fn enter(
        self: &Arc<Self>,
        room: u64,
        limits: Upstream,
        deadline: Instant,
    ) -> Result<Permit, Refusal> {
        let (turn, unwanted) = {
            let mut state = self.lock();
            (state.at_once, state.of_one_set) = (limits.at_once, limits.of_one_set);
            let mine = state.rooms.entry(room).or_default();
            let at_once = mine.waiting.is_empty() && mine.inside < limits.of_one_set;
            if at_once && state.inside < limits.at_once {
                return Ok(state.let_in(self, room));
            }
            if state.waiting >= limits.waiting {
                state.sweep();
            }
            if state.waiting >= limits.waiting {
                return Err(Refusal::new(Reason::Overload, "too many questions wait for the metrics backend")
                    .retry_after(Duration::from_secs(1)));
            }
            let (sender, turn) = oneshot::channel();
            state.waiting += 1;
            let mine = state.rooms.entry(room).or_default();
            mine.waiting.push_back(sender);
            if mine.waiting.len() == 1 {
                state.turns.push_back(room);
            }
            // Limits may have grown.
            (turn, state.admit(self))
        };
        drop(unwanted);
        match tokio::time::timeout_at(deadline, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Refusal::new(Reason::UpstreamSlow, "the metrics backend has too much to do")),
        }
    }

    /// A place that nobody misses: while at most half of all are taken and nobody waits.
    pub(super) fn spare(self: &Arc<Self>, limits: Upstream) -> Option<Permit> {
        let mut state = self.lock();
        (state.waiting == 0 && state.inside * 2 < limits.at_once).then(|| state.let_in(self, SPARE))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.inside, state.waiting)
    }
}

impl State {
    fn let_in(&mut self, queue: &Arc<Queue>, room: u64) -> Permit {
        self.inside += 1;
        self.rooms.entry(room).or_default().inside += 1;
        Permit { queue: Arc::clone(queue), room }
    }

    /// Whoever has left is not waited for.
    fn sweep(&mut self) {
        for room in self.rooms.values_mut() {
            room.waiting.retain(|next| !next.is_closed());
        }
        self.rooms.retain(|_, room| room.inside > 0 || !room.waiting.is_empty());
        self.waiting = self.rooms.values().map(|room| room.waiting.len()).sum();
        let rooms = &self.rooms;
        self.turns.retain(|room| rooms.get(room).is_some_and(|room| !room.waiting.is_empty()));
    }

    /// Lets in whoever may come in. Gives back what nobody waited for.
    fn admit(&mut self, queue: &Arc<Queue>) -> Vec<Permit> {
        let mut unwanted = Vec::new();
        let mut full = 0;
        while self.inside < self.at_once && full < self.turns.len() {
            let Some(room) = self.turns.pop_front() else { break };
            let of_one_set = self.of_one_set;
            let Some(mine) = self.rooms.get_mut(&room) else { continue };
            if mine.inside >= of_one_set {
                self.turns.push_back(room);
                full += 1;
                continue;
            }
            let Some(next) = mine.waiting.pop_front() else { continue };
            let more = !mine.waiting.is_empty();
            self.waiting -= 1;
            if more {
                self.turns.push_back(room);
            }
            full = 0;
            if next.is_closed() {
                if !more && self.rooms.get(&room).is_some_and(|mine| mine.inside == 0) {
                    self.rooms.remove(&room);
                }
                continue;
            }
            let permit = self.let_in(queue, room);
            if let Err(permit) = next.send(permit) {
                unwanted.push(permit);
            }
        }
        unwanted
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn limits(at_once: usize, of_one_set: usize, waiting: usize) -> Upstream {
        Upstream { at_once, of_one_set, waiting, abandoned: Duration::ZERO }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test(start_paused = true)]
    async fn rooms_take_turns_whoever_comes_most() {
        let queue = Arc::new(Queue::default());
        let first = queue.enter(1, limits(1, 1, 100), soon()).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for room in [1, 1, 1, 1, 2, 2, 3] {
            let (queue, order) = (Arc::clone(&queue), Arc::clone(&order));
            tasks.spawn(async move {
                let permit = queue.enter(room, limits(1, 1, 100), soon()).await.unwrap();
                order.lock().unwrap().push(room);
                drop(permit);
            });
            tokio::task::yield_now().await;
        }
        drop(first);
        tasks.join_all().await;
        assert_eq!(*order.lock().unwrap(), [1, 2, 3, 1, 2, 1, 1]);
        assert_eq!(queue.counts(), (0, 0));
        assert!(queue.lock().rooms.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_set_leaves_room_for_others_and_too_many_are_refused() {
        let queue = Arc::new(Queue::default());
        let limits = limits(3, 2, 1);
        let inside = [queue.enter(1, limits, soon()).await.unwrap(), queue.enter(1, limits, soon()).await.unwrap()];
        let third = queue.enter(1, limits, Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(third.err().unwrap().reason(), Reason::UpstreamSlow, "its room is full");
        let other = queue.enter(2, limits, soon()).await.unwrap();
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.enter(3, limits, soon()).await.map(drop) }
        });
        tokio::task::yield_now().await;
        let refused = queue.enter(4, limits, soon()).await.err().unwrap();
        // One that has given up does not count.
        assert_eq!((refused.reason(), refused.wait()), (Reason::Overload, Some(Duration::from_secs(1))));
        drop(other);
        drop(inside);
        assert!(waiting.await.unwrap().is_ok());
        assert_eq!(queue.counts(), (0, 0));
    }
}
