//! Connections that are kept, and one exchange on one of them.
//!
//! Whoever waits for an answer drives its connection: there is no task for each connection and nothing goes from task to
//! task, which would cost more than HTTP itself. A connection that waits here is looked at when it is taken, and now and then.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use tokio::time::{Instant, Sleep};

use super::connect::Wire;
use super::{DialError, causes};

/// The connections of one origin that wait for a request.
pub(super) struct Pool {
    most: usize,
    /// How long a connection may wait.
    patience: Duration,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// The one that was used last stands last and is taken first.
    links: Vec<(Box<Link>, Instant)>,
    /// Somebody looks at them.
    watched: bool,
}

impl Pool {
    pub(super) fn new(most: usize, patience: Duration) -> Self {
        Self { most, patience, waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting().links.len()
    }

    pub(super) fn take(&self) -> Option<Box<Link>> {
        let (link, since) = self.waiting().links.pop()?;
        // The others have waited longer still; the watch ends them.
        (since.elapsed() < self.patience).then_some(link)
    }

    /// Keeps a connection whose exchange has come to its end, if it can carry another one.
    pub(super) fn put(self: &Arc<Self>, mut link: Box<Link>) {
        if !link.rest() {
            return;
        }
        let mut waiting = self.waiting();
        if waiting.links.len() >= self.most {
            return;
        }
        waiting.links.push((link, Instant::now()));
        if !std::mem::replace(&mut waiting.watched, true) {
            tokio::spawn(watch(Arc::downgrade(self), self.patience / 6));
        }
    }
}

/// Closes what has waited too long and what the other side has closed, until nothing waits any more.
async fn watch(pool: Weak<Pool>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut waiting = pool.waiting();
        waiting.links.retain_mut(|(link, since)| since.elapsed() < pool.patience && link.rest());
        if waiting.links.is_empty() {
            waiting.watched = false;
            return;
        }
    }
}

/// A connection that stands.
pub(super) struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` once it has ended.
    driver: Option<http1::Connection<Wire, Full<Bytes>>>,
    relay: Arc<Relay>,
    waker: Waker,
    /// Set to the end of an exchange, past or present: it is moved only when it would ring too late or has rung too early.
    timer: Pin<Box<Sleep>>,
}

/// Why a request has no answer on this connection.
pub(super) enum Failed {
    /// Nothing of it was sent: the connection had been closed before.
    Unsent(Box<Request<Full<Bytes>>>),
    /// Whether it was sent is not known.
    Other(DialError),
}

impl Link {
    pub(super) async fn new(wire: Wire, deadline: Instant) -> Result<Self, DialError> {
        let (sender, driver) = http1::handshake(wire).await.map_err(|error| DialError::Broken(causes(&error)))?;
        let relay = Arc::new(Relay::default());
        let waker = Waker::from(Arc::clone(&relay));
        let timer = Box::pin(tokio::time::sleep_until(deadline));
        Ok(Self { sender, driver: Some(driver), relay, waker, timer })
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Failed> {
        let mut answer = pin!(self.sender.try_send_request(request));
        std::future::poll_fn(|context| {
            self.drive(context);
            // It comes out of the driver or not at all, so it need not wake anybody.
            match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(answer)) => Poll::Ready(Ok(answer)),
                Poll::Ready(Err(mut error)) => Poll::Ready(Err(match error.take_message() {
                    Some(request) => Failed::Unsent(Box::new(request)),
                    None => Failed::Other(DialError::Broken(causes(&error.into_error()))),
                })),
                Poll::Pending if self.is_late(deadline) => Poll::Ready(Err(Failed::Other(DialError::Slow))),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Reads and writes what can be read and written; wakes the task of `context` when there is more.
    pub(super) fn drive(&mut self, context: &Context<'_>) {
        self.relay.aim(context.waker());
        self.poll();
    }

    fn poll(&mut self) {
        if let Some(driver) = &mut self.driver {
            let driver = Pin::new(driver);
            if driver.poll(&mut Context::from_waker(&self.waker)).is_ready() {
                // Whatever was not sent comes back to whoever sent it.
                self.driver = None;
            }
        }
    }

    /// Whether the deadline has passed; otherwise the task that drives is woken then.
    pub(super) fn is_late(&mut self, deadline: Instant) -> bool {
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        let mut context = Context::from_waker(&self.waker);
        while self.timer.as_mut().poll(&mut context).is_ready() {
            if self.timer.deadline() >= deadline {
                return true;
            }
            self.timer.as_mut().reset(deadline);
        }
        false
    }

    /// From here to [`Self::unmute`] the task is not woken: taking data makes the driver ring for the task that takes them.
    pub(super) fn mute(&self) {
        self.relay.task().muted = true;
    }

    /// Wakes the task after all if somebody has rung and it is going to `wait`. If it drives again before, or has something
    /// to go on with, it finds out by itself.
    pub(super) fn unmute(&self, wait: bool) {
        let mut task = self.relay.task();
        task.muted = false;
        if std::mem::take(&mut task.rang)
            && wait
            && let Some(waker) = &task.waker
        {
            waker.wake_by_ref();
        }
    }

    /// Lets go of the task that drove. Whether another exchange is possible.
    fn rest(&mut self) -> bool {
        self.relay.rest();
        if self.driver.is_some() && !self.sender.is_ready() {
            self.poll();
        }
        self.driver.is_some() && self.sender.is_ready()
    }
}

/// Wakes whoever drives at the moment. hyper and the timer hold the same waker all the time, so that a connection that
/// changes hands leaves no waker of the one before behind.
#[derive(Default)]
struct Relay(Mutex<Task>);

#[derive(Default)]
struct Task {
    waker: Option<Waker>,
    muted: bool,
    /// Somebody has rung while it was muted.
    rang: bool,
}

impl Relay {
    fn task(&self) -> MutexGuard<'_, Task> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn aim(&self, waker: &Waker) {
        let mut task = self.task();
        if !task.waker.as_ref().is_some_and(|task| task.will_wake(waker)) {
            task.waker = Some(waker.clone());
        }
    }

    fn rest(&self) {
        self.task().waker = None;
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut task = self.task();
        if task.muted {
            task.rang = true;
        } else if let Some(waker) = &task.waker {
            waker.wake_by_ref();
        }
    }
}
