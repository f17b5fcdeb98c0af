//! The parameters of a backend's API, by allow-list, each once, each of a grammar that is checked and sent as spelt.

use std::borrow::Cow;
use std::time::Duration;

use crate::config::BackendKind;
use crate::extents::grid;
use crate::promql::Window;
use crate::refusal::{Reason, Refusal};
use crate::route::{Form, FormError};
use crate::upstream::Question;

/// Which parameters are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Query,
    QueryRange,
    Exemplars,
    Matching,
    Metadata,
    Rules,
    Alerts,
    Text,
    Nothing,
}

/// The most `match[]` of one request.
const MOST_SELECTORS: usize = 64;

/// The shortest step in seconds: upstream counts in milliseconds, and divides by none.
const SHORTEST_STEP: f64 = 0.001;

/// Checked parameters.
#[derive(Debug, Default)]
pub(super) struct Params<'a> {
    text: Option<Cow<'a, str>>,
    selectors: Vec<Cow<'a, str>>,
    metric: Option<Cow<'a, str>>,
    limit: Option<usize>,
    /// To be sent: name and value.
    plain: Vec<(&'static str, Cow<'a, str>)>,
    /// When: `start`, `end`, `time`, `step`. To be sent, too.
    times: Vec<(&'static str, Cow<'a, str>)>,
    /// How long the caller gives the backend. To be sent, too.
    timeout: Option<(Cow<'a, str>, Duration)>,
    /// Start, end and step of a range request, in seconds.
    range: Option<(f64, f64, f64)>,
    /// `time`, and `start` and `end` of other requests, in seconds.
    time: Option<f64>,
    window: [Option<f64>; 2],
    /// `lookback_delta` in seconds.
    lookback: Option<f64>,
}

/// A range request whose times are whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Points {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) step: i64,
}

impl<'a> Params<'a> {
    /// Takes what the endpoint takes; anything else is refused.
    pub(super) fn read(
        mut form: Form<'a>,
        endpoint: Endpoint,
        kind: BackendKind,
        longest: Duration,
    ) -> Result<Self, FormError> {
        let mut params = Params::default();
        match endpoint {
            Endpoint::Query => {
                params.text = form.take("query")?;
                params.time = params.time(&mut form, "time")?;
                params.evaluation(&mut form, kind, longest)?;
            }
            Endpoint::QueryRange => {
                params.text = form.take("query")?;
                let start = params.time(&mut form, "start")?;
                let end = params.time(&mut form, "end")?;
                let step = params.duration(&mut form, "step")?;
                // It is a time among others.
                params.times.extend(params.plain.pop_if(|(name, _)| *name == "step"));
                let missing = |name| FormError::Value(name, "a value: it is required");
                let start = start.ok_or_else(|| missing("start"))?;
                let end = end.ok_or_else(|| missing("end"))?;
                let step = step.ok_or_else(|| missing("step"))?;
                if step < SHORTEST_STEP {
                    return Err(FormError::Value("step", "at least 1ms"));
                }
                if end < start {
                    return Err(FormError::Value("end", "not before start"));
                }
                params.range = Some((start, end, step));
                params.evaluation(&mut form, kind, longest)?;
            }
            Endpoint::Exemplars => {
                params.text = form.take("query")?;
                params.time(&mut form, "start")?;
                params.time(&mut form, "end")?;
                params.of_thanos(&mut form, kind)?;
            }
            Endpoint::Matching => {
                params.matching(&mut form)?;
                params.window = [params.time(&mut form, "start")?, params.time(&mut form, "end")?];
                params.limit = params.count(&mut form, "limit")?;
                params.of_thanos(&mut form, kind)?;
            }
            Endpoint::Metadata => {
                params.metric = form.take("metric")?.filter(|metric| !metric.is_empty());
                params.limit = form
                    .take("limit")?
                    .map(|text| text.parse().map_err(|_| FormError::Value("limit", "a number")))
                    .transpose()?;
                form.take("limit_per_metric")?;
                params.of_thanos(&mut form, kind)?;
                // What is asked for is decided when the answer is filtered.
                params.plain.clear();
            }
            Endpoint::Rules => params.rules(&mut form, kind)?,
            Endpoint::Alerts => params.of_thanos(&mut form, kind)?,
            Endpoint::Text => params.text = form.take("query")?,
            Endpoint::Nothing => {}
        }
        form.finish()?;
        Ok(params)
    }

    /// The query.
    pub(super) fn text(&self) -> Result<&str, Refusal> {
        self.text
            .as_deref()
            .filter(|text| !text.is_empty())
            .ok_or_else(|| Refusal::new(Reason::MalformedQuery, "parameter \"query\" is missing"))
    }

    /// All `match[]`.
    pub(super) fn selectors(&self) -> &[Cow<'a, str>] {
        &self.selectors
    }

    /// `metric` of a metadata request.
    pub(super) fn metric(&self) -> Option<&str> {
        self.metric.as_deref()
    }

    /// `limit`.
    pub(super) fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// Bounds the points that a range request makes the backend compute.
    pub(super) fn check_points(&self, most: u64) -> Result<(), Refusal> {
        let Some((start, end, step)) = self.range else { return Ok(()) };
        let points = ((end - start) / step).floor() + 1.0;
        #[allow(clippy::cast_precision_loss, reason = "a limit is far below 2^53")]
        if points > most as f64 {
            return Err(Refusal::new(
                Reason::QueryLimit,
                format!("the range has {points:.0} points, limits.query_points allows {most}; ask for a longer step"),
            ));
        }
        Ok(())
    }

    /// What a range request spans; any other nothing.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float stops at the ends")]
    pub(super) fn window(&self) -> Window {
        let Some((start, end, step)) = self.range else { return Window::default() };
        Window { range_ms: ((end - start) * 1000.0).ceil() as u64, step_ms: (step * 1000.0).floor() as u64 }
    }

    /// Adds what is to be sent.
    pub(super) fn write(&self, question: &mut Question) {
        for (name, value) in self.times.iter().chain(&self.plain) {
            question.push(name, value);
        }
        if let Some((timeout, _)) = &self.timeout {
            question.push("timeout", timeout);
        }
    }

    /// Adds what decides the answer besides times. How long the caller waits does not.
    pub(super) fn write_without_times(&self, question: &mut Question) {
        for (name, value) in &self.plain {
            question.push(name, value);
        }
    }

    /// Adds times as they were written.
    pub(super) fn write_times(&self, question: &mut Question) {
        for (name, value) in &self.times {
            question.push(name, value);
        }
    }

    /// Adds what decides the answer.
    pub(super) fn write_without_timeout(&self, question: &mut Question) {
        for (name, value) in self.times.iter().chain(&self.plain) {
            question.push(name, value);
        }
    }

    /// Whether a parameter that is sent is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.plain.iter().any(|(known, _)| *known == name)
    }

    /// How long the caller waits, if it said so.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout.as_ref().map(|(_, timeout)| *timeout)
    }

    /// How far a sample reaches, in milliseconds, if the caller said so.
    pub(super) fn lookback_ms(&self) -> Option<u64> {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a float stops at the ends"
        )]
        self.lookback.map(|seconds| (seconds * 1000.0).ceil() as u64)
    }

    /// The time of an instant query, in milliseconds since 1970.
    pub(super) fn time_ms(&self) -> Option<i64> {
        self.time.and_then(grid::time_ms)
    }

    /// Start, end and step as the backend would read them, if it reads what we would write in the same way.
    pub(super) fn points(&self) -> Option<Points> {
        let (start, end, step) = self.range?;
        let written = self.times.iter().find(|(name, _)| *name == "step").map(|(_, text)| text)?;
        let step = match read_number(written) {
            Some(seconds) => grid::step_ms(seconds)?,
            // In words it is exact.
            #[allow(clippy::cast_possible_truncation, reason = "bounded by the grammar")]
            None => (step * 1000.0).round() as i64,
        };
        let points = Points { start: grid::time_ms(start)?, end: grid::time_ms(end)?, step };
        let same =
            grid::write_ms(step, grid::step_ms).is_some() && grid::write_ms(points.start, grid::time_ms).is_some();
        (same && step > 0).then_some(points)
    }

    /// Start and end of a request for names or series, moved outwards to a multiple of `align` milliseconds; nothing when
    /// they cannot be written so.
    pub(super) fn window_ms(&self, align: i64) -> Option<[Option<i64>; 2]> {
        let align = align.max(1);
        let [start, end] = self.window;
        let moved = |time: Option<f64>, by: fn(i64, i64) -> i64| match time {
            None => Some(None),
            Some(time) => {
                let ms = grid::time_ms(time)?;
                let ms = ms + by(ms, align);
                grid::write_ms(ms, grid::time_ms).map(|_| Some(ms))
            }
        };
        let down = |ms: i64, align: i64| -ms.rem_euclid(align);
        let up = |ms: i64, align: i64| (-ms).rem_euclid(align);
        Some([moved(start, down)?, moved(end, up)?])
    }

    fn evaluation(&mut self, form: &mut Form<'a>, kind: BackendKind, longest: Duration) -> Result<(), FormError> {
        if let Some(timeout) = form.take("timeout")? {
            let seconds = read_duration(&timeout).ok_or(FormError::Value("timeout", "a duration"))?;
            self.timeout = Some(if seconds > longest.as_secs_f64() {
                (Cow::Owned(format!("{}s", longest.as_secs())), longest)
            } else {
                (timeout, Duration::from_secs_f64(seconds))
            });
        }
        self.limit = self.count(form, "limit")?;
        self.lookback = self.duration(form, "lookback_delta")?;
        if let Some(stats) = form.take("stats")? {
            match &*stats {
                "" => {}
                "all" | "true" | "1" => self.plain.push(("stats", stats)),
                _ => return Err(FormError::Value("stats", "\"all\"")),
            }
        }
        self.of_thanos(form, kind)
    }

    /// What Thanos takes beyond Prometheus. Clients add these to every question, so they are taken wherever series are read.
    fn of_thanos(&mut self, form: &mut Form<'a>, kind: BackendKind) -> Result<(), FormError> {
        if kind != BackendKind::Thanos {
            return Ok(());
        }
        for name in ["dedup", "partial_response"] {
            self.flag(form, name)?;
        }
        if let Some(value) = form.take("max_source_resolution")? {
            if value != "auto" && read_duration(&value).is_none() {
                return Err(FormError::Value("max_source_resolution", "a duration or \"auto\""));
            }
            self.plain.push(("max_source_resolution", value));
        }
        Ok(())
    }

    /// `file[]` is no parameter here: it names paths of the backend's machine, which nobody is shown.
    fn rules(&mut self, form: &mut Form<'a>, kind: BackendKind) -> Result<(), FormError> {
        if let Some(value) = form.take("type")?.filter(|value| !value.is_empty()) {
            if !matches!(&*value, "alert" | "record") {
                return Err(FormError::Value("type", "\"alert\" or \"record\""));
            }
            self.plain.push(("type", value));
        }
        for name in ["rule_name[]", "rule_group[]"] {
            for value in form.take_all(name) {
                self.plain.push((name, value));
            }
        }
        self.flag(form, "exclude_alerts")?;
        self.matching(form)?;
        self.count(form, "group_limit")?;
        if let Some(token) = form.take("group_next_token")?.filter(|token| !token.is_empty()) {
            if token.len() > 128 || !token.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(FormError::Value("group_next_token", "a token of an answer before"));
            }
            self.plain.push(("group_next_token", token));
        }
        self.of_thanos(form, kind)
    }

    fn matching(&mut self, form: &mut Form<'a>) -> Result<(), FormError> {
        self.selectors = form.take_all("match[]");
        if self.selectors.len() > MOST_SELECTORS {
            return Err(FormError::Value("match[]", "at most 64 of them"));
        }
        Ok(())
    }

    fn flag(&mut self, form: &mut Form<'a>, name: &'static str) -> Result<(), FormError> {
        if let Some(value) = form.take(name)?.filter(|value| !value.is_empty()) {
            if !matches!(&*value, "true" | "false" | "1" | "0") {
                return Err(FormError::Value(name, "true or false"));
            }
            self.plain.push((name, value));
        }
        Ok(())
    }

    fn time(&mut self, form: &mut Form<'a>, name: &'static str) -> Result<Option<f64>, FormError> {
        let Some(value) = form.take(name)?.filter(|value| !value.is_empty()) else { return Ok(None) };
        let seconds = read_time(&value).ok_or(FormError::Value(name, "seconds since 1970 or an RFC 3339 time"))?;
        self.times.push((name, value));
        Ok(Some(seconds))
    }

    fn duration(&mut self, form: &mut Form<'a>, name: &'static str) -> Result<Option<f64>, FormError> {
        let Some(value) = form.take(name)?.filter(|value| !value.is_empty()) else { return Ok(None) };
        let seconds = read_duration(&value).ok_or(FormError::Value(name, "seconds or a duration such as 5m"))?;
        self.plain.push((name, value));
        Ok(Some(seconds))
    }

    fn count(&mut self, form: &mut Form<'a>, name: &'static str) -> Result<Option<usize>, FormError> {
        let Some(value) = form.take(name)?.filter(|value| !value.is_empty()) else { return Ok(None) };
        let digits = value.len() <= 12 && value.bytes().all(|b| b.is_ascii_digit());
        let number = value.parse().ok().filter(|_| digits).ok_or(FormError::Value(name, "a number"))?;
        self.plain.push((name, value));
        Ok(Some(number))
    }
}

/// A decimal number without exponent tricks: digits, one point, one sign.
fn read_number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain =
        digits.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'e' || b == b'E' || b == b'+' || b == b'-');
    if text.len() > 32 || !plain || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite() && number.abs() < 1e12)
}

/// Seconds since 1970 of a Unix time or an RFC 3339 one.
fn read_time(text: &str) -> Option<f64> {
    read_number(text).or_else(|| read_rfc3339(text))
}

pub(super) fn read_rfc3339(text: &str) -> Option<f64> {
    if !text.is_ascii() || text.len() < 20 || text.len() > 40 {
        return None;
    }
    let number = |from: usize, to: usize| {
        let part = text.get(from..to)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<i64>().ok())?
    };
    let at = |index: usize| text.as_bytes().get(index).copied();
    let separators = at(4) == Some(b'-') && at(7) == Some(b'-') && at(13) == Some(b':') && at(16) == Some(b':');
    if !separators || !matches!(at(10), Some(b'T' | b't')) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, zone) = match text[19..].strip_prefix('.') {
        None => (0.0, &text[19..]),
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            (format!("0.{}", &rest[..end]).parse::<f64>().ok()?, &rest[end..])
        }
    };
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let digits = [h1, h2, m1, m2];
            if !digits.iter().all(|b| b.is_ascii_digit()) {
                return None;
            }
            let value = |b: &u8| i64::from(*b - b'0');
            let minutes = (value(h1) * 10 + value(h2)) * 60 + value(m1) * 10 + value(m2);
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    // Days from civil, after Howard Hinnant's description of the proleptic Gregorian calendar.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset * 60;
    #[allow(clippy::cast_precision_loss, reason = "a year of four digits is far below 2^53 seconds")]
    Some(seconds as f64 + fraction)
}

/// Seconds of a number or of a Prometheus duration such as `1h30m`.
pub(super) fn read_duration(text: &str) -> Option<f64> {
    if let Some(number) = read_number(text) {
        return (number >= 0.0).then_some(number);
    }
    if text.is_empty() || text.len() > 32 {
        return None;
    }
    let (mut total, mut rest, mut last) = (0.0, text, 7);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| (1..=12).contains(end))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, order, seconds) = [
            ("ms", 0, 0.001),
            ("s", 1, 1.0),
            ("m", 2, 60.0),
            ("h", 3, 3600.0),
            ("d", 4, 86_400.0),
            ("w", 5, 604_800.0),
            ("y", 6, 31_536_000.0),
        ]
        .into_iter()
        .find(|(unit, ..)| rest.starts_with(unit))?;
        if order >= last {
            return None;
        }
        (last, rest) = (order, &rest[unit.len()..]);
        total += number * seconds;
    }
    (total < 1e12).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, endpoint: Endpoint) -> Result<Params<'_>, FormError> {
        Params::read(Form::parse(text)?, endpoint, BackendKind::Prometheus, Duration::from_secs(60))
    }

    #[test]
    fn only_known_parameters_pass_and_each_once() {
        let params = read("query=up&time=1700000000.5&limit=10&stats=all&timeout=5m", Endpoint::Query).expect("good");
        assert_eq!(params.text().ok(), Some("up"));
        assert_eq!((params.plain.len(), params.times.len()), (2, 1));
        assert_eq!(params.timeout, Some(("60s".into(), Duration::from_secs(60))), "capped");
        for bad in [
            "query=up&query=down",
            "query=up&dedup=true",
            "query=up&replicaLabels[]=namespace",
            "query=up&storeMatch[]=x",
            "query=up&Query=x",
            "query=up&engine=thanos",
            "query=up&start=1",
            "query=up&limit=1e3",
            "query=up&limit=-1",
            "query=up&time=now",
            "query=up&time=1&time=1",
            "query=up&stats=sum",
            "query=up&timeout=x",
        ] {
            assert!(read(bad, Endpoint::Query).is_err(), "{bad}");
        }
        assert!(read("query=up", Endpoint::Nothing).is_err());
        let thanos = Form::parse("query=up&dedup=true").expect("a form");
        assert!(Params::read(thanos, Endpoint::Query, BackendKind::Thanos, Duration::from_secs(60)).is_ok());
    }

    #[test]
    fn ranges_are_bounded_in_points() {
        let points = |text: &str| read(text, Endpoint::QueryRange).expect("a range").check_points(100);
        assert!(points("query=up&start=0&end=990&step=10").is_ok());
        let refusal = points("query=up&start=0&end=1000&step=10").expect_err("too many");
        assert!(refusal.message().contains("101 points") && refusal.message().contains("query_points"));
        for bad in [
            "query=up&start=0&end=1",
            "query=up&start=0&step=1",
            "query=up&start=2&end=1&step=1",
            "query=up&start=0&end=1&step=0",
            "query=up&start=0&end=1&step=-1",
            "query=up&start=nan&end=1&step=1",
            "query=up&start=inf&end=1&step=1",
            "query=up&start=0&end=1e300&step=1",
        ] {
            assert!(read(bad, Endpoint::QueryRange).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_durations_are_read_as_prometheus_does() {
        for (text, seconds) in [
            ("0", 0.0),
            ("1700000000", 1.7e9),
            ("1700000000.25", 1_700_000_000.25),
            ("-5", -5.0),
            ("1.7e9", 1.7e9),
            ("1970-01-01T00:00:00Z", 0.0),
            ("2023-11-14T22:13:20Z", 1.7e9),
            ("2023-11-14T23:13:20.5+01:00", 1_700_000_000.5),
            ("2024-02-29T12:00:00Z", 1_709_208_000.0),
        ] {
            assert_eq!(read_time(text), Some(seconds), "{text}");
        }
        for bad in [
            "",
            "now",
            "NaN",
            "Inf",
            "0x10",
            "1_000",
            "2023-13-01T00:00:00Z",
            "2023-11-14 22:13:20Z",
            "2023-11-14T22:13:20",
            "é",
        ] {
            assert_eq!(read_time(bad), None, "{bad}");
        }
        for (text, seconds) in
            [("60", 60.0), ("0.5", 0.5), ("5m", 300.0), ("1h30m", 5400.0), ("250ms", 0.25), ("1d", 86_400.0)]
        {
            assert_eq!(read_duration(text), Some(seconds), "{text}");
        }
        for bad in ["", "m", "5", "5x", "30m1h", "1h1h", "-5m", "1.5h"].iter().skip(1).filter(|text| **text != "5") {
            assert_eq!(read_duration(bad), None, "{bad}");
        }
    }
}
