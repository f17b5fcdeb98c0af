//! A metrics backend that is a function of time: series come and go, some samples are late, numbers are written oddly.

use std::fmt::Write as _;

use crate::extents::{Grid, Span};

/// Numbers that look random and are the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Less than `most`.
    pub(crate) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).unwrap_or(0)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The backend.
#[derive(Clone, Debug)]
pub(crate) struct World {
    seed: u64,
    series: u64,
    /// How far ahead of its own time a point looks.
    pub(crate) forward: i64,
    /// How many milliseconds a sample may be late.
    pub(crate) late: i64,
}

const NAMES: [&str; 6] = [
    r#"{"__name__":"up","namespace":"team-a"}"#,
    r#"{"__name__":"up","namespace":"team-a","pod":"a\"]}"}"#,
    r#"{"__name__":"up","namespace":"team-a","pod":"é\\"}"#,
    r#"{"__name__":"up","namespace":"team-b"}"#,
    r#"{"namespace":"team-b","x":"[[1,\"2\"]]"}"#,
    "{}",
];

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, series: mix(seed) % 7, forward: 0, late: 59_000 }
    }

    /// All series, and no sample is late.
    pub(crate) fn prompt(seed: u64) -> Self {
        Self { series: 6, late: 0, ..Self::new(seed) }
    }

    /// Some time in 2023.
    pub(crate) fn epoch(&self) -> i64 {
        1_700_000_000_000
    }

    /// What a series is at a time, as somebody who asks at `now` sees it.
    fn value(&self, series: u64, time: i64, now: i64) -> Option<String> {
        let time = time + self.forward;
        if time > now {
            return None;
        }
        // A series lives for an hour, then perhaps not.
        let hour = (time / 3_600_000).unsigned_abs();
        if mix(self.seed ^ mix(hour) ^ series).is_multiple_of(3) {
            return None;
        }
        let chance = mix(self.seed ^ time.unsigned_abs().rotate_left(8) ^ series);
        let late = (chance >> 20).is_multiple_of(4)
            && now - time < i64::try_from((chance >> 32) % 1000).unwrap_or(0) * self.late / 1000;
        let chance = if late { mix(chance) } else { chance };
        match chance % 16 {
            0 => None,
            1 => Some(r#""NaN""#.to_owned()),
            2 => Some(r#""+Inf""#.to_owned()),
            3 => Some(r#""-0""#.to_owned()),
            4 => Some(r#""1e-07""#.to_owned()),
            5 => Some(r#""1e+21""#.to_owned()),
            6 | 7 if series.is_multiple_of(3) => {
                Some(format!(r#"{{"count":"{0}","sum":"{0}.5","buckets":[[0,"-0.5","0.5","{0}"]]}}"#, chance % 1000))
            }
            _ => Some(format!(r#""{}.{}""#, chance % 100_000, chance >> 40)),
        }
    }

    /// The answer to a range request at `now`, as Prometheus writes it.
    pub(crate) fn answer(&self, grid: Grid, span: Span, now: i64) -> String {
        let mut out = r#"{"status":"success","data":{"resultType":"matrix","result":["#.to_owned();
        let mut begun = false;
        for series in 0..self.series {
            let (mut floats, mut histograms) = (String::new(), String::new());
            for point in span.from..span.to {
                let time = grid.time(point);
                let Some(value) = self.value(series, time, now) else { continue };
                let text = if value.starts_with('{') { &mut histograms } else { &mut floats };
                if !text.is_empty() {
                    text.push(',');
                }
                write_time(text, time);
                let _ = write!(text, "{value}]");
            }
            if floats.is_empty() && histograms.is_empty() {
                continue;
            }
            if std::mem::replace(&mut begun, true) {
                out.push(',');
            }
            let _ = write!(out, r#"{{"metric":{}"#, sorted(series, self.series));
            if !floats.is_empty() {
                let _ = write!(out, r#","values":[{floats}]"#);
            }
            if !histograms.is_empty() {
                let _ = write!(out, r#","histograms":[{histograms}]"#);
            }
            out.push('}');
        }
        out.push_str("]}");
        if self.seed.is_multiple_of(5) {
            out.push_str(r#","infos":["PromQL info: metric might not be a counter, name does not end in _total"]"#);
        }
        out.push('}');
        out
    }
}

/// The labels of a series; in the order in which Prometheus answers.
fn sorted(series: u64, of: u64) -> &'static str {
    let mut names: Vec<&str> = NAMES[..usize::try_from(of).unwrap_or(0).min(NAMES.len())].to_vec();
    // No labels come first, then by the first label's name: __name__ is before namespace.
    names.sort_by_key(|name| (*name != "{}", !name.contains("__name__")));
    names[usize::try_from(series).unwrap_or(0)]
}

fn write_time(out: &mut String, time: i64) {
    let _ = match time % 1000 {
        0 => write!(out, "[{},", time / 1000),
        rest => write!(out, "[{}.{rest:03},", time / 1000),
    };
}
