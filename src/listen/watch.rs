//! A connection under watch: how long it may say nothing, say a head, be kept, or leave an answer unread; and whether the
//! lines of a head end as they should.

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
    /// Counts the times that the watch has looked at `unread`.
    looks: AtomicUsize,
    /// Answers that wait for the peer to take what it was given, by the look (even or odd) since which they do. HTTP/2 asks
    /// for no more of an answer while the peer has closed its window, and would hold what lies behind it for ever.
    unread: [AtomicUsize; 2],
}

impl Activity {
    pub(super) fn begin(activity: &Arc<Self>) -> Guard {
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        activity.head_done.store(true, Ordering::Relaxed);
        Guard(Arc::clone(activity))
    }

    /// One more answer waits for the peer.
    fn wait(&self) -> usize {
        let side = self.looks.load(Ordering::Relaxed) % 2;
        self.unread[side].fetch_add(1, Ordering::Relaxed);
        side
    }

    fn wait_no_more(&self, side: Option<usize>) {
        if let Some(side) = side {
            self.unread[side].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether an answer has been waiting for the peer since before the last look.
    fn look(&self) -> bool {
        let before = self.looks.fetch_add(1, Ordering::Relaxed);
        self.unread[(before + 1) % 2].load(Ordering::Relaxed) > 0
    }
}

/// An answer is handed over in pieces of at most so many bytes: its request is under way, and its progress seen, until
/// nearly all of it has been taken.
const PIECE: usize = 128 << 10;

/// One request under way.
pub(super) struct Guard(Arc<Activity>);

impl Guard {
    pub(super) fn around<B>(self, body: B) -> Guarded<B> {
        let unread = Some(self.0.wait());
        Guarded { body, rest: Bytes::new(), guard: self, unread }
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
    /// What is left of a piece of the body that was too large.
    rest: Bytes,
    guard: Guard,
    /// Where this answer is counted among the unread ones; `None` while it waits for what lies behind us.
    unread: Option<usize>,
}

impl<B> Drop for Guarded<B> {
    fn drop(&mut self) {
        self.guard.0.wait_no_more(self.unread.take());
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Guarded<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        this.guard.0.wait_no_more(this.unread.take());
        let mut frame = if this.rest.is_empty() {
            Pin::new(&mut this.body).poll_frame(context)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))))
        };
        if frame.is_ready() {
            this.unread = Some(this.guard.0.wait());
        }
        if let Poll::Ready(Some(Ok(frame))) = &mut frame
            && let Some(data) = frame.data_mut()
            && data.len() > PIECE
        {
            this.rest = data.split_off(PIECE);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// The lines of HTTP/1 heads. A lone LF may end a line (RFC 9112, 2.2), but not every server agrees; so it becomes NUL, which
/// hyper refuses. What is sent ahead behind a head is not looked at: it may be a body.
#[derive(Default)]
struct Lines {
    /// What the next bytes are.
    place: Place,
    /// The last bytes so far, of whatever.
    last: [u8; 3],
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the request line, where there may be empty lines.
    #[default]
    Before,
    /// In the request line or behind it.
    Within,
    /// Behind the blank line.
    Ended,
    /// Behind it, and something has come that was not looked at: a body, or the beginning of the next head.
    Unknown,
}

impl Lines {
    /// Looks at bytes that have just come; `busy` while they can belong to a body.
    fn check(&mut self, bytes: &mut [u8], busy: bool) {
        self.place = match self.place {
            Place::Ended | Place::Unknown if busy => Place::Unknown,
            Place::Ended => Place::Before,
            // If it was the beginning of a head, a blank line ends it.
            Place::Unknown => Place::Within,
            other => other,
        };
        if self.place != Place::Unknown {
            self.look(bytes);
        }
        for byte in bytes.iter().skip(bytes.len().saturating_sub(3)) {
            self.last = [self.last[1], self.last[2], *byte];
        }
    }

    fn look(&mut self, bytes: &mut [u8]) {
        let says = |bytes: &[u8]| bytes.iter().any(|byte| !b"\r\n".contains(byte));
        let mut from = 0;
        while let Some(at) = memchr::memchr(b'\n', &bytes[from..]).map(|at| at + from) {
            let before = |back: usize| {
                if at >= back { bytes[at - back] } else { self.last[3 + at - back] }
            };
            if self.place == Place::Before && says(&bytes[from..at]) {
                self.place = Place::Within;
            }
            if before(1) != b'\r' {
                bytes[at] = 0;
            } else if self.place == Place::Within && [before(3), before(2)] == *b"\r\n" {
                self.place = if at + 1 == bytes.len() { Place::Ended } else { Place::Unknown };
                return;
            }
            from = at + 1;
        }
        if self.place == Place::Before && says(&bytes[from..]) {
            self.place = Place::Within;
        }
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

/// How a connection of h2 begins, and no request of HTTP/1.
const PREFACE: [u8; 3] = *b"PRI";

/// A stream that errs with "timed out" when its peer is too slow.
pub(super) struct Watched<I> {
    io: I,
    activity: Arc<Activity>,
    header: Duration,
    idle: Duration,
    phase: Phase,
    /// When the phase has lasted too long; `None` while nothing has been waited for, and while busy.
    until: Option<Instant>,
    /// How many bytes of h2's preface have come; more than there are when something else came.
    preface: usize,
    lines: Lines,
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
            preface: 0,
            lines: Lines::default(),
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
    fn heard(&mut self, bytes: &mut [u8], busy: bool) {
        for byte in bytes.iter() {
            let Some(expected) = PREFACE.get(self.preface) else { break };
            self.preface = if byte == expected { self.preface + 1 } else { PREFACE.len() + 1 };
        }
        let h2 = self.preface == PREFACE.len();
        if !h2 {
            self.lines.check(bytes, busy);
        }
        match self.phase {
            Phase::First | Phase::Head if h2 => self.enter(Phase::Idle),
            Phase::First => self.enter(Phase::Head),
            Phase::Idle if !h2 => self.enter(Phase::Head),
            Phase::Head | Phase::Idle | Phase::Busy => {}
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
            // A request of h2 may have come and gone between two looks.
            (false, Phase::Head | Phase::Idle) if head_done => self.enter(Phase::Idle),
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
                None if self.activity.look() => return true,
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
                this.heard(&mut buffer.filled_mut()[before..], busy);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes as hyper gets them, however they are cut into pieces.
    fn checked(text: &[u8], piece: usize) -> Vec<u8> {
        let (mut lines, mut out) = (Lines::default(), text.to_vec());
        out.chunks_mut(piece).for_each(|bytes| lines.check(bytes, true));
        out
    }

    #[test]
    fn a_line_that_ends_in_lf_alone_is_spoilt_and_a_body_is_not() {
        for piece in 1..30 {
            let good = b"GET / HTTP/1.1\r\na: b\r\n\r\nbody\nof\nlines\n\n";
            assert_eq!(checked(good, piece), good, "{piece}");
            assert_eq!(
                checked(b"GET / HTTP/1.1\na: b\r\n\r\nx\n", piece),
                b"GET / HTTP/1.1\0a: b\r\n\r\nx\n",
                "{piece}"
            );
            assert_eq!(checked(b"G\r\na: b\nc: d\r\n\r\nx\n", piece), b"G\r\na: b\0c: d\r\n\r\nx\n", "{piece}");
            assert_eq!(checked(b"G\r\na: b\r\n\n", piece), b"G\r\na: b\r\n\0", "{piece}");
            assert_eq!(checked(b"\n\n", piece), b"\0\0", "{piece}");
            // hyper passes over empty lines before a head; they are not its end.
            let empty = b"\r\n\r\n\r\nG\na: b\r\n\r\nx\n";
            assert_eq!(checked(empty, piece), b"\r\n\r\n\r\nG\0a: b\r\n\r\nx\n", "{piece}");
        }
        let mut lines = Lines::default();
        let mut next = b"G\n\r\n".to_vec();
        lines.check(&mut b"G\r\n\r\n".to_vec(), false);
        lines.check(&mut next, true);
        assert_eq!(next, b"G\n\r\n", "part of a body");
        lines.check(&mut next, false);
        assert_eq!(next, b"G\0\r\n", "the next head");
    }

    #[tokio::test]
    async fn idleness_begins_anew_behind_a_request_that_nobody_saw() {
        let activity = Arc::new(Activity::default());
        let mut watched = Watched::new(tokio::io::empty(), Arc::clone(&activity), &Limits::default());
        watched.heard(&mut b"PRI".to_vec(), false);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let before = watched.until;
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(!watched.is_late(&mut context) && watched.until == before, "nothing has been asked");
        drop(Activity::begin(&activity));
        assert!(!watched.is_late(&mut context) && watched.until > before);
    }
}
