//! The points of one span, for all series that have some, as they were written.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;

use super::grid::{Grid, Span};
use super::matrix::{self, Matrix, Unreadable};
use super::series::{List, Union};

/// What a backend said about the points of a span. It never changes.
#[derive(Debug)]
pub struct Piece {
    pub(super) span: Span,
    /// When it was asked: milliseconds of the clock that only goes forward; of several, the earliest.
    pub(super) at: i64,
    /// When it was last used.
    pub(super) used: AtomicI64,
    pub(super) list: Arc<List>,
    rows: Box<[Row]>,
    bytes: Bytes,
    pub(super) infos: Arc<[Box<str>]>,
}

/// Where the points of one series stand: floats, then histograms.
#[derive(Clone, Copy, Debug)]
struct Row {
    series: u32,
    from: u32,
    middle: u32,
    to: u32,
}

impl Piece {
    /// The span.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span
    }

    /// How many bytes it takes, without its series.
    pub(super) fn weight(&self) -> usize {
        let infos: usize = self.infos.iter().map(|info| info.len() + 16).sum();
        self.bytes.len() + self.rows.len() * size_of::<Row>() + infos + 160
    }

    pub(super) fn touch(&self, now: i64) {
        self.used.store(now, Ordering::Relaxed);
    }

    /// The part of it in a span.
    pub(super) fn part(&self, grid: Grid, span: Span) -> Self {
        let span = self.span.and(span);
        let mut builder = Builder::new(span, self.at, Arc::clone(&self.list), Arc::clone(&self.infos));
        for row in self.rows() {
            builder.row(row.series, [matrix::cut(row.floats, grid, span), matrix::cut(row.histograms, grid, span)]);
        }
        builder.used(self).finish()
    }

    /// It and the one that follows it at once, as one.
    pub(super) fn join(&self, next: &Self) -> Self {
        let union = Union::of([&self.list, &next.list].into_iter());
        let (here, there) = (union.place(&self.list), union.place(&next.list));
        let list = union.list([&self.list, &next.list]);
        let infos = if self.infos == next.infos {
            Arc::clone(&self.infos)
        } else {
            let mut all: Vec<Box<str>> = self.infos.iter().chain(next.infos.iter()).cloned().collect();
            all.sort_unstable();
            all.dedup();
            all.into()
        };
        let span = self.span.hull(next.span);
        let mut builder = Builder::new(span, self.at.min(next.at), list, infos);
        builder.bytes.reserve_exact(self.bytes.len() + next.bytes.len() + self.rows.len());
        let (mut a, mut b) = (self.rows().peekable(), next.rows().peekable());
        loop {
            let place = |row: &RowRef<'_>, of: &dyn Fn(u32) -> u32| of(row.series);
            let first = match (a.peek(), b.peek()) {
                (Some(left), Some(right)) => place(left, &here).min(place(right, &there)),
                (Some(left), None) => place(left, &here),
                (None, Some(right)) => place(right, &there),
                (None, None) => break,
            };
            let left = a.next_if(|row| here(row.series) == first);
            let right = b.next_if(|row| there(row.series) == first);
            builder.both(first, left, right);
        }
        builder.used(self).used(next).finish()
    }

    pub(super) fn rows(&self) -> Rows<'_> {
        Rows { piece: self, at: 0 }
    }
}

/// The rows of a piece, by the order of its series.
pub(super) struct Rows<'p> {
    piece: &'p Piece,
    at: usize,
}

/// The points of a series as they were written.
#[derive(Clone, Copy)]
pub(super) struct RowRef<'p> {
    pub(super) series: u32,
    pub(super) floats: &'p [u8],
    pub(super) histograms: &'p [u8],
}

impl<'p> Iterator for Rows<'p> {
    type Item = RowRef<'p>;

    fn next(&mut self) -> Option<RowRef<'p>> {
        let row = self.piece.rows.get(self.at)?;
        self.at += 1;
        let bytes = |from: u32, to: u32| &self.piece.bytes[from as usize..to as usize];
        Some(RowRef { series: row.series, floats: bytes(row.from, row.middle), histograms: bytes(row.middle, row.to) })
    }
}

/// A piece that is being written, row by row.
struct Builder {
    piece: Piece,
    rows: Vec<Row>,
    bytes: Vec<u8>,
}

impl Builder {
    fn new(span: Span, at: i64, list: Arc<List>, infos: Arc<[Box<str>]>) -> Self {
        let piece =
            Piece { span, at, used: AtomicI64::new(at), list, rows: Box::default(), bytes: Bytes::new(), infos };
        Self { piece, rows: Vec::new(), bytes: Vec::new() }
    }

    fn used(self, from: &Piece) -> Self {
        self.piece.used.fetch_max(from.used.load(Ordering::Relaxed), Ordering::Relaxed);
        self
    }

    fn at(&self) -> u32 {
        // Answers that are longer are not taken apart.
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    fn add(&mut self, points: &[u8], begun: u32) {
        if !points.is_empty() {
            if self.at() > begun {
                self.bytes.push(b',');
            }
            self.bytes.extend_from_slice(points);
        }
    }

    fn row(&mut self, series: u32, [floats, histograms]: [&[u8]; 2]) {
        let from = self.at();
        self.add(floats, from);
        let middle = self.at();
        self.add(histograms, middle);
        self.push(series, from, middle);
    }

    fn both(&mut self, series: u32, left: Option<RowRef<'_>>, right: Option<RowRef<'_>>) {
        let from = self.at();
        for row in [left, right].into_iter().flatten() {
            self.add(row.floats, from);
        }
        let middle = self.at();
        for row in [left, right].into_iter().flatten() {
            self.add(row.histograms, middle);
        }
        self.push(series, from, middle);
    }

    fn push(&mut self, series: u32, from: u32, middle: u32) {
        let to = self.at();
        if to > from {
            self.rows.push(Row { series, from, middle, to });
        }
    }

    fn finish(self) -> Piece {
        Piece { rows: self.rows.into(), bytes: self.bytes.into(), ..self.piece }
    }
}

/// Divides an answer into the pieces of its settled part, by blocks, and the rest.
pub(super) fn divide(
    body: &[u8],
    read: Matrix,
    (asked, settled, at): (Span, i64, i64),
    known: Option<&Arc<List>>,
) -> Result<(Vec<Piece>, Option<Piece>), Unreadable> {
    let metrics = read.metrics.iter().map(|metric| &body[metric.clone()]);
    let (list, places) = List::of(metrics, known)?;
    let infos: Arc<[Box<str>]> = {
        let mut infos = read.infos;
        infos.sort_unstable();
        infos.dedup();
        infos.into()
    };
    let builder = |span| Builder::new(span, at, Arc::clone(&list), Arc::clone(&infos));
    let settled = settled.clamp(asked.from, asked.to);
    let mut builders = Vec::new();
    let mut from = asked.from;
    let first = from.div_euclid(super::BLOCK);
    while from < settled {
        let to = (from.div_euclid(super::BLOCK) + 1) * super::BLOCK;
        builders.push(builder(Span { from, to: to.min(settled) }));
        from = to;
    }
    let blocks = builders.len();
    builders.push(builder(Span { from: settled, to: asked.to }));
    let which = |block: i64| {
        let place = if block == matrix::TAIL { blocks as i64 } else { block.div_euclid(super::BLOCK) - first };
        usize::try_from(place).unwrap_or(blocks)
    };
    // Runs of one series follow each other: its floats by time, then its histograms.
    let of_series: Vec<&[matrix::Run]> = read.runs.chunk_by(|a, b| a.series == b.series).collect();
    let order: Vec<usize> = match &places {
        None => (0..of_series.len()).collect(),
        Some(places) => {
            let mut order: Vec<usize> = (0..of_series.len()).collect();
            order.sort_unstable_by_key(|index| places[*index]);
            order
        }
    };
    for (series, index) in order.into_iter().enumerate() {
        let series = u32::try_from(series).unwrap_or(u32::MAX);
        let runs = of_series[index];
        let histograms = runs.iter().position(|run| run.histograms).unwrap_or(runs.len());
        let (floats, histograms) = runs.split_at(histograms);
        let text = |run: &matrix::Run| &body[run.from as usize..run.to as usize];
        let mut histograms = histograms.iter().peekable();
        for run in floats {
            // Histograms of blocks before this one stand alone.
            while let Some(alone) = histograms.next_if(|other| other.block < run.block) {
                builders[which(alone.block)].row(series, [b"", text(alone)]);
            }
            let beside = histograms.next_if(|other| other.block == run.block);
            builders[which(run.block)].row(series, [text(run), beside.map_or(b"", text)]);
        }
        for alone in histograms {
            builders[which(alone.block)].row(series, [b"", text(alone)]);
        }
    }
    let tail = builders.pop().filter(|builder| !builder.piece.span.is_empty()).map(Builder::finish);
    Ok((builders.into_iter().map(Builder::finish).collect(), tail))
}
