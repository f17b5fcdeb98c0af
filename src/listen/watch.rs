//! A connection under watch: how long it may say nothing, say a head, be kept, or leave an answer unread.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::config::Limits;

/// What the requests of a connection tell its watch.
#[derive(Default)]
pub(super) struct Activity {
    /// Requests whose answers have not gone out whole.
    in_flight: AtomicUsize,
    /// A head has come to its end since the watch looked.
    head_done: AtomicBool,
}

impl Activity {
    pub(super) fn begin(activity: &Arc<Self>) -> Guard {
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        activity.head_done.store(true, Ordering::Relaxed);
        Guard(Arc::clone(activity))
    }
}

/// One request under way.
pub(super) struct Guard(Arc<Activity>);

impl Guard {
    pub(super) fn around<B>(self, body: B) -> Guarded<B> {
        Guarded { body, _guard: self }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body whose request is under way as long as it lives.
pub(super) struct Guarded<B> {
    body: B,
    _guard: Guard,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Guarded<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a connection waits for when it has nothing to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its first byte.
    First,
    /// The rest of an HTTP/1 head.
    Head,
    /// The next request.
    Idle,
    /// Requests are under way; they have bounds of their own.
    Busy,
}

/// A stream that errs with "timed out" when its peer is too slow.
pub(super) struct Watched<I> {
    io: I,
    activity: Arc<Activity>,
    header: Duration,
    idle: Duration,
    phase: Phase,
    /// When the phase has lasted too long; `None` while nothing has been waited for, and while busy.
    until: Option<Instant>,
    h2: bool,
    /// Set to the end of a phase, past or present: it is moved only when it would ring too late or has rung too early.
    timer: Pin<Box<Sleep>>,
    /// Set while a write waits for the peer to read.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<I> Watched<I> {
    pub(super) fn new(io: I, activity: Arc<Activity>, limits: &Limits) -> Self {
        let until = Instant::now() + limits.first_byte;
        Self {
            io,
            activity,
            header: limits.header,
            idle: limits.idle,
            phase: Phase::First,
            until: Some(until),
            h2: false,
            timer: Box::pin(tokio::time::sleep_until(until)),
            stalled: None,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.until = match phase {
            Phase::Idle => Some(Instant::now() + self.idle),
            // Most heads come in one piece: the clock is looked at when there is something to wait for.
            Phase::First | Phase::Head | Phase::Busy => None,
        };
    }

    /// Bytes have come.
    fn heard(&mut self, bytes: &[u8]) {
        if self.phase == Phase::First {
            self.h2 = bytes.starts_with(b"PRI");
            self.enter(if self.h2 { Phase::Idle } else { Phase::Head });
        } else if self.phase == Phase::Idle && !self.h2 {
            self.enter(Phase::Head);
        }
    }

    /// Nothing has come; is it too late?
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let busy = self.activity.in_flight.load(Ordering::Relaxed) > 0;
        let head_done = self.activity.head_done.swap(false, Ordering::Relaxed);
        match (busy, self.phase) {
            (true, Phase::Busy) => {}
            (true, _) => self.enter(Phase::Busy),
            (false, Phase::Busy) => self.enter(Phase::Idle),
            (false, Phase::Head) if head_done => self.enter(Phase::Idle),
            (false, Phase::Head) if self.until.is_none() => self.until = Some(Instant::now() + self.header),
            (false, _) => {}
        }
        if let Some(until) = self.until
            && until < self.timer.deadline()
        {
            self.timer.as_mut().reset(until);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            match self.until {
                Some(until) if until <= self.timer.deadline() => return true,
                Some(until) => self.timer.as_mut().reset(until),
                // Looked at again: the requests may come to an end without a word to this side.
                None => self.timer.as_mut().reset(Instant::now() + self.idle),
            }
        }
        false
    }

    /// Bounds how long the peer may leave an answer unread.
    fn written<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let idle = self.idle;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        if timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        match Pin::new(&mut this.io).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                let busy = this.activity.in_flight.load(Ordering::Relaxed) > 0;
                if this.phase == Phase::Busy && !busy {
                    this.enter(Phase::Idle);
                }
                if this.phase == Phase::Head && this.activity.head_done.swap(false, Ordering::Relaxed) {
                    this.enter(Phase::Idle);
                }
                this.heard(&buffer.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Pending if this.is_late(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            other => other,
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(context, bytes);
        self.written(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(context, buffers);
        self.written(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(context);
        self.written(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
