//! Grids, spans of their points, and how Prometheus reads times.

/// So many neighbouring points are kept together.
pub const BLOCK: i64 = 128;

/// The times that a range request asks for: every `step` milliseconds, of which one is `phase` after the beginning of 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    step: i64,
    phase: i64,
}

impl Grid {
    /// The grid of a request that starts at `start` and goes by `step`, both in milliseconds; none for times before 1970 and
    /// steps of nothing.
    #[must_use]
    pub fn new(start: i64, step: i64) -> Option<Self> {
        (start >= 0 && step > 0).then(|| Self { step, phase: start % step })
    }

    /// Milliseconds between two points.
    #[must_use]
    pub fn step(self) -> i64 {
        self.step
    }

    /// Milliseconds from the beginning of 1970 to the first point.
    #[must_use]
    pub fn phase(self) -> i64 {
        self.phase
    }

    /// When a point is, in milliseconds since 1970.
    #[must_use]
    pub fn time(self, point: i64) -> i64 {
        point.saturating_mul(self.step).saturating_add(self.phase)
    }

    /// The point at a time, if there is one.
    #[must_use]
    pub fn point(self, time: i64) -> Option<i64> {
        let since = time - self.phase;
        (since >= 0 && since % self.step == 0).then(|| since / self.step)
    }

    /// How many points there are up to and at a time: the number of the first one behind it.
    #[must_use]
    pub fn behind(self, time: i64) -> i64 {
        time.saturating_sub(self.phase).div_euclid(self.step) + 1
    }

    /// The points from `start`, which is one, up to `end`.
    #[must_use]
    pub fn span(self, start: i64, end: i64) -> Span {
        let from = self.behind(start) - 1;
        Span { from, to: self.behind(end).max(from) }
    }
}

/// Points from one to before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "see above")]
pub struct Span {
    pub from: i64,
    pub to: i64,
}

impl Span {
    /// Whether there is no point in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.to <= self.from
    }

    /// How many points.
    #[must_use]
    pub fn len(self) -> i64 {
        (self.to - self.from).max(0)
    }

    /// What lies in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    /// Whether all of another lies in this one.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.is_empty() || self.from <= other.from && other.to <= self.to
    }

    /// From the first point of both to the last.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }
}

/// The smallest part of a span that is shared as one.
const CHUNK: i64 = 16;

/// The parts of a span by which it is shared: blocks, and of a block that is not in it as a whole the largest halves of
/// halves. Who knows and who wants the same points cut them alike.
pub(super) fn chunks(span: Span) -> Vec<Span> {
    let mut chunks = Vec::new();
    let mut at = (span.from.saturating_add(CHUNK - 1)).div_euclid(CHUNK) * CHUNK;
    while at.saturating_add(CHUNK) <= span.to {
        let mut size = BLOCK;
        while at.rem_euclid(size) != 0 || at.saturating_add(size) > span.to {
            size /= 2;
        }
        chunks.push(Span { from: at, to: at + size });
        at += size;
    }
    chunks
}

/// What of `wanted` is in none of the spans, which come in order.
pub(super) fn gaps(wanted: Span, covered: impl Iterator<Item = Span>) -> Vec<Span> {
    let (mut gaps, mut at) = (Vec::new(), wanted.from);
    for span in covered {
        let span = span.and(wanted);
        if span.is_empty() {
            continue;
        }
        if span.from > at {
            gaps.push(Span { from: at, to: span.from });
        }
        at = at.max(span.to);
    }
    if at < wanted.to {
        gaps.push(Span { from: at, to: wanted.to });
    }
    gaps
}

/// Makes one of spans that lie less than `near` points apart.
pub(super) fn merge(spans: Vec<Span>, near: i64) -> Vec<Span> {
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.from.saturating_sub(last.to) < near => last.to = last.to.max(span.to),
            _ => merged.push(span),
        }
    }
    merged
}

/// The milliseconds that Prometheus and Thanos make of a time in seconds: its whole part, and its fraction rounded to
/// thousandths in floating point.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "bounded above")]
pub fn time_ms(seconds: f64) -> Option<i64> {
    if !(0.0..1e11).contains(&seconds) {
        return None;
    }
    let whole = seconds.trunc();
    let fraction = ((seconds - whole) * 1000.0).round() / 1000.0;
    Some(whole as i64 * 1000 + (fraction * 1e9) as i64 / 1_000_000)
}

/// The milliseconds that Prometheus and Thanos make of a step in seconds: nanoseconds in floating point, cut off.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "bounded above")]
pub fn step_ms(seconds: f64) -> Option<i64> {
    (seconds > 0.0 && seconds < 9e9).then_some((seconds * 1e9) as i64 / 1_000_000).filter(|step| *step > 0)
}

/// Milliseconds written as seconds, as we send them; nothing when the backend would read other milliseconds.
#[must_use]
pub fn write_ms(ms: i64, read: fn(f64) -> Option<i64>) -> Option<String> {
    let text = match ms % 1000 {
        0 => (ms / 1000).to_string(),
        rest => format!("{}.{rest:03}", ms / 1000),
    };
    (read(text.parse().ok()?) == Some(ms)).then_some(text)
}
