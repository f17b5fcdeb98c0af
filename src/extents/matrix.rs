//! Read the answer to a range request without reading a number: where each series and each point stands.
//!
//! The reader is strict. It takes the very shape that Prometheus and Thanos write, without white space, and every point must
//! be one of those that were asked for, later than the one before it. Whatever else comes is not taken apart.

use std::ops::Range;

use memchr::{memchr, memchr2};

use super::grid::{BLOCK, Grid, Span};

/// Why an answer cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not written as expected.
    Shape,
    /// A point was not asked for, or stands in a wrong place.
    OffGrid,
    /// A series stands in it twice.
    Duplicate,
    /// It carries warnings.
    Warned,
}

/// What stands around the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    analysis: bool,
    newline: bool,
}

const HEAD: &[u8] = br#"{"status":"success","data":{"resultType":"matrix","result":["#;
const ANALYSIS: &[u8] = br#","analysis":{}"#;

impl Frame {
    /// Begins an answer.
    pub(super) fn open(out: &mut Vec<u8>) {
        out.extend_from_slice(HEAD);
    }

    /// Ends it.
    pub(super) fn close(self, out: &mut Vec<u8>, infos: &[Box<str>]) {
        out.push(b']');
        if self.analysis {
            out.extend_from_slice(ANALYSIS);
        }
        out.push(b'}');
        for (index, info) in infos.iter().enumerate() {
            out.extend_from_slice(if index == 0 { br#","infos":["# } else { b"," });
            out.extend_from_slice(info.as_bytes());
        }
        if !infos.is_empty() {
            out.push(b']');
        }
        out.push(b'}');
        if self.newline {
            out.push(b'\n');
        }
    }

    /// The most bytes besides series and infos.
    pub(super) const ROOM: usize = HEAD.len() + ANALYSIS.len() + 32;
}

/// Neighbouring points of a series that are kept together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) series: u32,
    /// The first number of the block, or [`TAIL`].
    pub(super) block: i64,
    pub(super) histograms: bool,
    pub(super) from: u32,
    pub(super) to: u32,
}

/// The block of what may still change.
pub(super) const TAIL: i64 = i64::MAX;

/// An answer that was read.
#[derive(Debug)]
pub(super) struct Matrix {
    pub(super) frame: Frame,
    /// Where the labels of each series stand.
    pub(super) metrics: Vec<Range<usize>>,
    /// By series, then floats before histograms, then by time.
    pub(super) runs: Vec<Run>,
    /// As they were written, quotes included.
    pub(super) infos: Vec<Box<str>>,
}

/// Reads an answer for the points of `asked`. What lies before the point `settled` is divided by blocks.
pub(super) fn read(body: &[u8], grid: Grid, asked: Span, settled: i64) -> Result<Matrix, Unreadable> {
    if u32::try_from(body.len()).is_err() {
        return Err(Unreadable::Shape);
    }
    let mut reader = Reader { body, at: 0 };
    reader.expect(HEAD)?;
    let (mut metrics, mut runs) = (Vec::new(), Vec::new());
    if !reader.take(b"]") {
        loop {
            let series = u32::try_from(metrics.len()).map_err(|_| Unreadable::Shape)?;
            reader.expect(br#"{"metric":"#)?;
            let from = reader.at;
            reader.labels()?;
            metrics.push(from..reader.at);
            let before = runs.len();
            if reader.take(br#","values":["#) {
                reader.points(&mut runs, (series, false), grid, asked, settled)?;
            }
            if reader.take(br#","histograms":["#) {
                reader.points(&mut runs, (series, true), grid, asked, settled)?;
            }
            reader.expect(b"}")?;
            if runs.len() == before {
                return Err(Unreadable::Shape);
            }
            if reader.take(b"]") {
                break;
            }
            reader.expect(b",")?;
        }
    }
    let analysis = reader.take(ANALYSIS);
    reader.expect(b"}")?;
    if reader.take(br#","warnings":["#) {
        return Err(Unreadable::Warned);
    }
    let mut infos = Vec::new();
    if reader.take(br#","infos":["#) {
        loop {
            let from = reader.at;
            reader.string()?;
            let info = std::str::from_utf8(&body[from..reader.at]).map_err(|_| Unreadable::Shape)?;
            // Which others were left out depends on how many points were asked for.
            if info.contains("annotations omitted") {
                return Err(Unreadable::Warned);
            }
            infos.push(info.into());
            if reader.take(b"]") {
                break;
            }
            reader.expect(b",")?;
        }
    }
    reader.expect(b"}")?;
    let newline = reader.take(b"\n");
    if reader.at != body.len() {
        return Err(Unreadable::Shape);
    }
    Ok(Matrix { frame: Frame { analysis, newline }, metrics, runs, infos })
}

/// The part of a run of points that lies in a span.
pub(super) fn cut(points: &[u8], grid: Grid, span: Span) -> &[u8] {
    let mut reader = Reader { body: points, at: 0 };
    let (mut from, mut to) = (None, 0);
    while reader.at < points.len() {
        let at = reader.at;
        // It was read once before, so that it can be read is known.
        let Ok(time) = reader.point() else { return &[] };
        let point = grid.behind(time) - 1;
        if point >= span.to {
            break;
        }
        if point >= span.from {
            from.get_or_insert(at);
            to = reader.at;
        }
        reader.take(b",");
    }
    &points[from.unwrap_or(to)..to]
}

struct Reader<'b> {
    body: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, text: &[u8]) -> bool {
        let there = self.body[self.at..].starts_with(text);
        if there {
            self.at += text.len();
        }
        there
    }

    fn expect(&mut self, text: &[u8]) -> Result<(), Unreadable> {
        if self.take(text) { Ok(()) } else { Err(Unreadable::Shape) }
    }

    fn byte(&self) -> u8 {
        self.body.get(self.at).copied().unwrap_or(0)
    }

    /// A string, quotes included.
    fn string(&mut self) -> Result<(), Unreadable> {
        self.expect(b"\"")?;
        loop {
            let found = memchr2(b'"', b'\\', &self.body[self.at..]).ok_or(Unreadable::Shape)?;
            self.at += found + 1;
            if self.body[self.at - 1] == b'"' {
                return Ok(());
            }
            if self.at >= self.body.len() {
                return Err(Unreadable::Shape);
            }
            self.at += 1;
        }
    }

    fn labels(&mut self) -> Result<(), Unreadable> {
        self.expect(b"{")?;
        if self.take(b"}") {
            return Ok(());
        }
        loop {
            self.string()?;
            self.expect(b":")?;
            self.string()?;
            if self.take(b"}") {
                return Ok(());
            }
            self.expect(b",")?;
        }
    }

    fn points(
        &mut self,
        runs: &mut Vec<Run>,
        (series, histograms): (u32, bool),
        grid: Grid,
        asked: Span,
        settled: i64,
    ) -> Result<(), Unreadable> {
        let (mut last, mut next) = (asked.from - 1, grid.time(asked.from));
        // Where the block of the last point ends.
        let mut end = i64::MIN;
        loop {
            let from = self.at;
            let time = self.point()?;
            if (self.body[self.at - 2] == b'}') != histograms {
                return Err(Unreadable::Shape);
            }
            let point = if time == next { last + 1 } else { grid.point(time).ok_or(Unreadable::OffGrid)? };
            if point <= last || point >= asked.to {
                return Err(Unreadable::OffGrid);
            }
            (last, next) = (point, grid.time(point + 1));
            let to = u32::try_from(self.at).map_err(|_| Unreadable::Shape)?;
            match runs.last_mut().filter(|_| point < end) {
                Some(run) => run.to = to,
                None => {
                    let block = if point >= settled { TAIL } else { point - point.rem_euclid(BLOCK) };
                    end = if block == TAIL { i64::MAX } else { settled.min(block + BLOCK) };
                    let from = u32::try_from(from).map_err(|_| Unreadable::Shape)?;
                    runs.push(Run { series, block, histograms, from, to });
                }
            }
            if self.take(b"]") {
                return Ok(());
            }
            self.expect(b",")?;
        }
    }

    /// A point: its time in milliseconds.
    fn point(&mut self) -> Result<i64, Unreadable> {
        self.expect(b"[")?;
        let time = self.time()?;
        match self.byte() {
            b'"' => {
                let from = self.at + 1;
                let length = memchr(b'"', &self.body[from..]).ok_or(Unreadable::Shape)?;
                let number = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
                if length == 0 || length > 40 || !self.body[from..from + length].iter().all(number) {
                    return Err(Unreadable::Shape);
                }
                self.at = from + length + 1;
            }
            b'{' => self.object()?,
            _ => return Err(Unreadable::Shape),
        }
        self.expect(b"]")?;
        Ok(time)
    }

    /// Seconds with up to three decimals, and the comma behind them.
    fn time(&mut self) -> Result<i64, Unreadable> {
        let (mut ms, mut digits) = (0_i64, 0);
        while self.byte().is_ascii_digit() {
            ms = ms * 10 + i64::from(self.byte() - b'0');
            (self.at, digits) = (self.at + 1, digits + 1);
            if digits > 12 {
                return Err(Unreadable::Shape);
            }
        }
        let mut decimals = 0;
        if digits > 0 && self.byte() == b'.' {
            self.at += 1;
            while self.byte().is_ascii_digit() && decimals < 3 {
                ms = ms * 10 + i64::from(self.byte() - b'0');
                (self.at, decimals) = (self.at + 1, decimals + 1);
            }
            if decimals == 0 {
                return Err(Unreadable::Shape);
            }
        }
        if digits == 0 || self.byte() != b',' {
            return Err(Unreadable::Shape);
        }
        self.at += 1;
        Ok(ms * [1000, 100, 10, 1][decimals])
    }

    /// An object, whatever is in it.
    fn object(&mut self) -> Result<(), Unreadable> {
        let mut depth = 0_u32;
        loop {
            match self.byte() {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.checked_sub(1).ok_or(Unreadable::Shape)?,
                b'"' => {
                    self.string()?;
                    continue;
                }
                0 => return Err(Unreadable::Shape),
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
            if depth > 8 {
                return Err(Unreadable::Shape);
            }
        }
    }
}
