//! What is known of one query on one grid, and the answers that can be written from it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::grid::{self, BLOCK, Grid, Span};
use super::matrix::{self, Frame, Unreadable};
use super::piece::{self, Piece};
use super::series::{List, Union};

/// When a point is final, and how long what is known may be used. All in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A point is final when it is older than this, counted from when it was asked for.
    pub settle: i64,
    /// No point is final before this time since 1970: something at a time of its own is looked at.
    pub not_before: i64,
    /// What is not final may be used for so long, and not after the next point of the grid has come.
    pub fresh: i64,
    /// What is final may be used for so long.
    pub ttl: i64,
    /// What was not used for so long is given up.
    pub idle: i64,
    /// Gaps that lie less than so many points apart are asked for in one.
    pub near: i64,
}

/// Which times a point looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// How many milliseconds before its own.
    pub back: i64,
    /// How many milliseconds behind it.
    pub forward: i64,
    /// The earliest and latest time since 1970 that all points look at.
    pub fixed: Option<(i64, i64)>,
}

/// A moment, by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds by a clock that only goes forward.
    pub steady: i64,
    /// Milliseconds since 1970.
    pub wall: i64,
}

impl Rules {
    /// The first point that is not final when it is asked for at `wall`.
    #[must_use]
    pub fn settled(&self, grid: Grid, wall: i64) -> i64 {
        if wall < self.not_before { 0 } else { grid.behind(wall.saturating_sub(self.settle)).max(0) }
    }
}

/// What may still change: the newest points, all asked for at one time.
#[derive(Clone, Debug)]
struct Tail {
    piece: Arc<Piece>,
    /// When the next point of the grid comes, by the steady clock.
    next: i64,
}

/// What is known.
#[derive(Clone, Debug)]
pub struct Extents {
    grid: Grid,
    looks: Looks,
    frame: Option<Frame>,
    /// Final, in order, none over another; none goes over the border of a block.
    pieces: Vec<Arc<Piece>>,
    tail: Option<Tail>,
}

/// An answer to a part.
#[derive(Debug)]
pub struct Fetched<'b> {
    /// For which points.
    pub span: Span,
    /// When it was asked for.
    pub at: Moment,
    /// The body.
    pub body: &'b [u8],
}

/// An answer to a part that was taken apart.
#[derive(Debug)]
pub struct Part {
    frame: Frame,
    pieces: Vec<Arc<Piece>>,
    tail: Option<Tail>,
    at: Moment,
}

/// An answer that was written.
#[derive(Debug)]
pub struct Written {
    /// The body.
    pub body: Vec<u8>,
    /// When the oldest part was asked for, by the steady clock.
    pub oldest: i64,
    /// When what may still change was asked for and when the next point comes, if there is some of that.
    pub tail: Option<(i64, i64)>,
    /// All points before this one are final.
    pub settled: i64,
}

impl Extents {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(grid: Grid, looks: Looks) -> Self {
        Self { grid, looks, frame: None, pieces: Vec::new(), tail: None }
    }

    /// The grid.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The spans of what is final.
    pub fn pieces(&self) -> impl Iterator<Item = &Arc<Piece>> {
        self.pieces.iter()
    }

    /// The span of what may still change, and when it was asked for.
    #[must_use]
    pub fn tail(&self) -> Option<(Span, i64)> {
        self.tail.as_ref().map(|tail| (tail.piece.span, tail.piece.at))
    }

    /// How many bytes it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let mut lists: Vec<*const List> = Vec::new();
        let mut weight = 256;
        for piece in self.pieces.iter().chain(self.tail.iter().map(|tail| &tail.piece)) {
            weight += piece.weight();
            let list = Arc::as_ptr(&piece.list);
            if !lists.contains(&list) {
                lists.push(list);
                weight += piece.list.weight();
            }
        }
        weight
    }

    /// What must be asked for before `wanted` can be answered; nothing when all is known.
    #[must_use]
    pub fn need(&self, wanted: Span, now: Moment, rules: &Rules) -> Vec<Span> {
        let final_spans = || self.pieces.iter().filter(|piece| alive(piece.at, now, rules.ttl)).map(|piece| piece.span);
        let gaps = grid::gaps(wanted, final_spans());
        if gaps.is_empty() {
            return gaps;
        }
        let settled = rules.settled(self.grid, now.wall);
        if let Some(tail) = self.tail.as_ref().filter(|tail| is_fresh((tail.piece.at, tail.next), now, rules.fresh)) {
            let with = grid::gaps(wanted, in_order(final_spans(), tail.piece.span).into_iter());
            // All that may still change in one answer is of one time.
            if with.iter().all(|gap| gap.to <= settled && gap.to <= tail.piece.span.from) {
                return grid::merge(with, rules.near);
            }
        }
        // All that may still change is asked for at once.
        let apart = gaps.iter().rev().skip(1).all(|gap| gap.to <= settled);
        grid::merge(gaps, if apart { rules.near } else { i64::MAX })
    }

    /// The final points of `wanted` that may be used.
    #[must_use]
    pub fn finals(&self, wanted: Span, now: Moment, rules: &Rules) -> Vec<Span> {
        let alive = self.pieces.iter().filter(|piece| alive(piece.at, now, rules.ttl));
        grid::merge(alive.map(|piece| piece.span.and(wanted)).filter(|span| !span.is_empty()).collect(), 1)
    }

    /// Takes an answer apart.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn read(&self, fetched: &Fetched<'_>, rules: &Rules) -> Result<Part, Unreadable> {
        let Fetched { span, at, body } = *fetched;
        let settled = rules.settled(self.grid, at.wall);
        let read = matrix::read(body, self.grid, span, settled)?;
        let frame = read.frame;
        let known = self.tail.as_ref().map(|tail| &tail.piece).or(self.pieces.last()).map(|piece| &piece.list);
        let (pieces, tail) = piece::divide(body, read, (span, settled, at.steady), known)?;
        // When the next point of the grid comes, what is known of those before it is looked at anew.
        let next = at.steady.saturating_add(self.grid.time(self.grid.behind(at.wall)) - at.wall);
        let tail = tail.map(|piece| Tail { next, piece: Arc::new(piece) });
        Ok(Part { frame, pieces: pieces.into_iter().map(Arc::new).collect(), tail, at })
    }

    /// The parts of some points that may be known elsewhere: only what is final now, each as [`Self::new_chunks`] has it.
    #[must_use]
    pub fn chunks(&self, need: &[Span], now: Moment, rules: &Rules) -> Vec<Span> {
        let to = rules.settled(self.grid, now.wall);
        need.iter().flat_map(|span| grid::chunks(Span { to: span.to.min(to), ..*span })).collect()
    }

    /// The final parts that can be written and could not when less was known, with the bytes that each takes at most.
    #[must_use]
    pub fn new_chunks(&self, before: &Self) -> Vec<(Span, usize)> {
        let mut known: Vec<Span> = before.pieces.iter().flat_map(|piece| grid::chunks(piece.span)).collect();
        known.sort_unstable_by_key(|span| (span.from, span.to));
        let is_new =
            |span: &Span| known.binary_search_by_key(&(span.from, span.to), |span| (span.from, span.to)).is_err();
        let of = |piece: &Arc<Piece>| {
            let bytes = piece.weight() + piece.list.weight();
            grid::chunks(piece.span).into_iter().map(move |span| (span, bytes))
        };
        self.pieces.iter().flat_map(of).filter(|(span, _)| is_new(span)).collect()
    }

    /// Takes apart what was written of final points elsewhere, asked for at `at`, and used from `now` on.
    ///
    /// # Errors
    /// When it cannot be, or was written by another kind of server.
    pub fn recall(&self, fetched: &Fetched<'_>, now: Moment) -> Result<Part, Unreadable> {
        let Fetched { span, at, body } = *fetched;
        let read = matrix::read(body, self.grid, span, span.to)?;
        let frame = read.frame;
        if self.frame.is_some_and(|known| known != frame) {
            return Err(Unreadable::Shape);
        }
        let known = self.tail.as_ref().map(|tail| &tail.piece).or(self.pieces.last()).map(|piece| &piece.list);
        let (pieces, _) = piece::divide(body, read, (span, span.to, at.steady), known)?;
        pieces.iter().for_each(|piece| piece.touch(now.steady));
        Ok(Part { frame, pieces: pieces.into_iter().map(Arc::new).collect(), tail: None, at: now })
    }

    /// What is known when this has come, too. What was written by another kind of server is given up.
    #[must_use]
    pub fn with(&self, part: &Part, rules: &Rules) -> Self {
        let Part { frame, pieces: new, tail, at } = part;
        if self.frame.is_some_and(|known| known != *frame) {
            return Self::new(self.grid, self.looks).with(part, rules);
        }
        let mut pieces: Vec<Arc<Piece>> = Vec::with_capacity(self.pieces.len() + new.len());
        let mut old = self
            .pieces
            .iter()
            .filter(|piece| alive(piece.at, *at, rules.ttl))
            .filter(|piece| at.steady.saturating_sub(piece.used.load(Ordering::Relaxed)) < rules.idle);
        let mut next_old = old.next().cloned();
        for piece in new {
            // What is before it, and what of that lies in it.
            while let Some(before) = next_old.take() {
                if before.span.from >= piece.span.from {
                    next_old = Some(before);
                    break;
                }
                let left = Span { to: piece.span.from, ..before.span };
                let right = Span { from: piece.span.to, ..before.span };
                if before.span.to <= piece.span.from {
                    push(&mut pieces, before);
                    next_old = old.next().cloned();
                } else {
                    push(&mut pieces, Arc::new(before.part(self.grid, left)));
                    next_old = if right.is_empty() {
                        old.next().cloned()
                    } else {
                        Some(Arc::new(before.part(self.grid, right)))
                    };
                }
            }
            let span = piece.span;
            push(&mut pieces, Arc::clone(piece));
            while let Some(within) = next_old.take() {
                if within.span.from >= span.to {
                    next_old = Some(within);
                    break;
                }
                let right = Span { from: span.to, ..within.span };
                next_old =
                    if right.is_empty() { old.next().cloned() } else { Some(Arc::new(within.part(self.grid, right))) };
            }
        }
        for piece in next_old.into_iter().chain(old.cloned()) {
            push(&mut pieces, piece);
        }
        let newer = |theirs: &&Tail| self.tail.as_ref().is_none_or(|ours| ours.piece.at <= theirs.piece.at);
        let tail = tail.as_ref().filter(newer).or(self.tail.as_ref()).cloned();
        Self { grid: self.grid, looks: self.looks, frame: Some(*frame), pieces, tail }
    }

    /// Writes the answer for `wanted`, if all of it is known. Whether it is fresh is not asked here.
    #[must_use]
    pub fn write(&self, wanted: Span, now: Moment) -> Option<Written> {
        let frame = self.frame?;
        let mut parts: Vec<(&Arc<Piece>, Span, bool)> = Vec::new();
        let mut at = wanted.from;
        let tail = self.tail.as_ref();
        for piece in &self.pieces {
            let span = piece.span.and(wanted);
            if span.is_empty() {
                continue;
            }
            if span.from > at {
                let tail = tail.filter(|tail| tail.piece.span.covers(Span { from: at, to: span.from }))?;
                parts.push((&tail.piece, Span { from: at, to: span.from }, true));
            }
            parts.push((piece, span, false));
            at = span.to;
        }
        if at < wanted.to {
            let rest = Span { from: at, to: wanted.to };
            let tail = tail.filter(|tail| tail.piece.span.covers(rest))?;
            parts.push((&tail.piece, rest, true));
        }
        let union = Union::of(parts.iter().map(|(piece, ..)| &piece.list));
        let bytes: usize = parts.iter().map(|(piece, ..)| piece.weight()).sum();
        let labels: usize = union.series.iter().map(|series| series.metric.len() + 64).sum();
        let mut out = Vec::with_capacity(Frame::ROOM + bytes + labels);
        Frame::open(&mut out);
        let empty = out.len();
        let mut rows: Vec<_> = parts
            .iter()
            .map(|(piece, span, _)| {
                let part = (*span != piece.span).then_some(*span);
                (piece.rows().peekable(), union.place(&piece.list), part)
            })
            .collect();
        let (mut floats, mut histograms): (Vec<&[u8]>, Vec<&[u8]>) = Default::default();
        for (place, series) in union.series.iter().enumerate() {
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            for (rows, of, part) in &mut rows {
                let Some(row) = rows.next_if(|row| of(row.series) == place) else { continue };
                let cut = |points| part.map_or(points, |span| matrix::cut(points, self.grid, span));
                floats.extend(Some(cut(row.floats)).filter(|points| !points.is_empty()));
                histograms.extend(Some(cut(row.histograms)).filter(|points| !points.is_empty()));
            }
            if floats.is_empty() && histograms.is_empty() {
                continue;
            }
            out.extend_from_slice(if out.len() > empty { br#",{"metric":"# } else { br#"{"metric":"# });
            out.extend_from_slice(&series.metric);
            for (key, points) in [(&br#","values":["#[..], &mut floats), (br#","histograms":["#, &mut histograms)] {
                for (index, points) in points.iter().enumerate() {
                    out.extend_from_slice(if index == 0 { key } else { b"," });
                    out.extend_from_slice(points);
                }
                if !points.is_empty() {
                    out.push(b']');
                }
                points.clear();
            }
            out.push(b'}');
        }
        let mut infos: Vec<Box<str>> = Vec::new();
        for (piece, ..) in &parts {
            piece.touch(now.steady);
            infos.extend(piece.infos.iter().filter(|info| !infos.contains(info)).cloned().collect::<Vec<_>>());
        }
        infos.sort_unstable();
        frame.close(&mut out, &infos);
        let oldest = parts.iter().map(|(piece, ..)| piece.at).min().unwrap_or(now.steady);
        let tail = parts.iter().any(|(.., tail)| *tail).then(|| tail.map(|tail| (tail.piece.at, tail.next))).flatten();
        let settled = parts.iter().filter(|(.., tail)| *tail).map(|(_, span, _)| span.from).min().unwrap_or(wanted.to);
        Some(Written { body: out, oldest, tail, settled })
    }

    /// The points that depend on data between two times, in milliseconds since 1970; none when all do.
    #[must_use]
    pub fn touched(&self, (from, to): (i64, i64)) -> Option<Span> {
        let Looks { back, forward, fixed } = self.looks;
        if fixed.is_some_and(|(earliest, latest)| earliest.saturating_sub(back) <= to && from <= latest) {
            return None;
        }
        let (from, to) = (from.saturating_sub(forward), to.saturating_add(back));
        Some(Span { from: self.grid.behind(from.saturating_sub(1)), to: self.grid.behind(to) })
    }

    /// What is left when a span is forgotten, and everything that may still change.
    #[must_use]
    pub fn without(&self, span: Span) -> Self {
        let mut pieces = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            if piece.span.and(span).is_empty() {
                pieces.push(Arc::clone(piece));
                continue;
            }
            for left in [
                Span { to: span.from.min(piece.span.to), ..piece.span },
                Span { from: span.to.max(piece.span.from), ..piece.span },
            ] {
                if !left.is_empty() {
                    pieces.push(Arc::new(piece.part(self.grid, left)));
                }
            }
        }
        Self { grid: self.grid, looks: self.looks, frame: self.frame, pieces, tail: None }
    }
}

/// Whether something that was asked for at a time and whose next point comes at another may be used.
#[must_use]
pub fn is_fresh((at, next): (i64, i64), now: Moment, fresh: i64) -> bool {
    now.steady < next && (0..fresh).contains(&(now.steady - at))
}

/// Whether something final that was asked for at a time may be used.
#[must_use]
pub fn alive(at: i64, now: Moment, ttl: i64) -> bool {
    now.steady.saturating_sub(at) < ttl
}

/// Adds a piece behind the others, as one with the last where they are of one block and nothing lies between.
fn push(pieces: &mut Vec<Arc<Piece>>, piece: Arc<Piece>) {
    if let Some(last) = pieces.last()
        && last.span.to == piece.span.from
        && piece.span.from.rem_euclid(BLOCK) != 0
    {
        let joined = last.join(&piece);
        pieces.pop();
        pieces.push(Arc::new(joined));
    } else {
        pieces.push(piece);
    }
}

fn in_order(spans: impl Iterator<Item = Span>, tail: Span) -> Vec<Span> {
    let mut spans: Vec<Span> = spans.chain([tail]).collect();
    spans.sort_unstable_by_key(|span| span.from);
    spans
}
