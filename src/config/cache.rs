//! `cache`: which answers are kept, and for how long.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::backends::Backend;
use super::decode::Surroundings;
use super::overrides::{self, Override};
use super::section::{Notes, Section};
use super::shared::Shared;
use super::units;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// What the times of `cache` may be: while an answer may change, until it no longer does, and from then on.
pub(super) const SHORT: (Duration, Duration) = (Duration::ZERO, HOUR);
pub(super) const SETTLE: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(7 * 24 * 3600));
pub(super) const LONG: (Duration, Duration) = (SECOND, Duration::from_secs(30 * 24 * 3600));

/// What memory is kept beside the cache, for everything else.
const REST: usize = 40 << 20;

/// `cache`. [`Cache::default`] is what a file without it means where no limit of memory is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// `cache.mode`, default `enforce`.
    pub mode: CacheMode,
    /// `cache.memory`, default 40 % of the container's limit, or 256 MiB.
    pub memory: usize,
    /// `cache.largest_answer`, default 32 MiB: a larger one is passed on and not kept.
    pub largest: usize,
    /// `cache.range`: range queries.
    pub range: RangeTerms,
    /// `cache.instant`: instant queries.
    pub instant: InstantTerms,
    /// `cache.labels`: label names and values.
    pub labels: WindowTerms,
    /// `cache.series`: series.
    pub series: WindowTerms,
    /// `cache.metadata.fresh`, default 10 min.
    pub metadata: Duration,
    /// `cache.rules.fresh`, default 5 s: rules and alerts.
    pub rules: Duration,
    /// `cache.errors`.
    pub errors: ErrorTerms,
    /// `cache.upstream`.
    pub upstream: Upstream,
    /// `cache.shared`: the memory that replicas share; there is none by default.
    pub shared: Option<Shared>,
    /// `cache.verify.one_in`, default 100000: of so many hits, one is asked again; none with 0.
    pub verify: u64,
    /// `cache.overrides`: what differs for some backends and namespaces.
    pub overrides: Vec<Override>,
}

/// `cache.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheMode {
    /// Answers are kept and used.
    Enforce,
    /// Every question goes to the backend; what is kept is compared with what it says.
    Shadow,
    /// Every question goes to the backend.
    Bypass,
}

impl CacheMode {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "enforce" => Ok(Self::Enforce),
            "shadow" => Ok(Self::Shadow),
            "bypass" => Ok(Self::Bypass),
            other => Err(format!("expected enforce, shadow or bypass, not {other:?}")),
        }
    }

    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Bypass => "bypass",
        }
    }
}

/// `cache.range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeTerms {
    /// `fresh`, default 15 s: points that may still change are used for so long.
    pub fresh: Duration,
    /// `settle`, default 1 min: points that are older no longer change.
    pub settle: Duration,
    /// `ttl`, default 12 h: what no longer changes is kept for so long.
    pub ttl: Duration,
}

/// `cache.instant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstantTerms {
    /// `fresh`, default 10 s: an answer that may still change is used for so long.
    pub fresh: Duration,
    /// `ttl`, default 1 h: one that no longer changes is kept for so long.
    pub ttl: Duration,
}

/// `cache.labels` and `cache.series`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowTerms {
    /// `fresh`: an answer is used for so long.
    pub fresh: Duration,
    /// `align`: start and end of what is asked for are moved outwards to a multiple of it; nothing moves with 0.
    pub align: Duration,
}

/// `cache.errors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorTerms {
    /// `client`, default 10 s: how long a refused query is refused without asking again.
    pub client: Duration,
    /// `server`, default 1 s: how long a backend that failed is not asked the same again.
    pub server: Duration,
}

/// `cache.upstream`: what a backend is asked at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// `at_once`, default 32: of all.
    pub at_once: usize,
    /// `of_one_set`, default 8: of callers with the same namespaces.
    pub of_one_set: usize,
    /// `waiting`, default 1024: more are refused.
    pub waiting: usize,
    /// `abandoned`, default 2 s: what nobody waits for any more goes on for so long.
    pub abandoned: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            mode: CacheMode::Enforce,
            memory: 256 << 20,
            largest: 32 << 20,
            range: RangeTerms { fresh: 15 * SECOND, settle: 60 * SECOND, ttl: 12 * HOUR },
            instant: InstantTerms { fresh: 10 * SECOND, ttl: HOUR },
            labels: WindowTerms { fresh: 60 * SECOND, align: 300 * SECOND },
            series: WindowTerms { fresh: 30 * SECOND, align: 60 * SECOND },
            metadata: 600 * SECOND,
            rules: 5 * SECOND,
            errors: ErrorTerms { client: 10 * SECOND, server: SECOND },
            upstream: Upstream { at_once: 32, of_one_set: 8, waiting: 1024, abandoned: 2 * SECOND },
            shared: None,
            verify: 100_000,
            overrides: Vec::new(),
        }
    }
}

/// The most memory that this container may use, if there is a limit (cgroup v2, then v1).
pub(super) fn memory_limit(around: &dyn Surroundings) -> Option<usize> {
    let paths = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let text = paths.iter().find_map(|path| around.file(Path::new(path)).ok())?;
    // Version 1 writes a huge number for none.
    std::str::from_utf8(&text).ok()?.trim().parse().ok().filter(|limit| *limit < 1 << 50)
}

pub(super) fn read(
    root: &mut Section<'_>,
    limit: Option<usize>,
    backends: &[Arc<Backend>],
    around: &dyn Surroundings,
    notes: &mut Notes,
) -> Cache {
    let mut section = root.section("cache", notes);
    let d = Cache::default();
    let mode = section.value("mode", d.mode, notes, CacheMode::parse, |mode| mode.word().to_owned());
    let memory = limit.map_or(d.memory, |limit| (limit / 5 * 2).max(1 << 20));
    let memory = section.size("memory", memory, (1 << 20, 1 << 40), notes);
    if let Some(limit) = limit.filter(|limit| section.has("memory") && memory + memory / 4 + REST > *limit) {
        let message = format!(
            "with a quarter more for its care and {} for everything else it is above the container's limit of {}",
            units::write_size(REST),
            units::write_size(limit)
        );
        section.problem(notes, "memory", message);
    }
    let largest = section.size("largest_answer", d.largest.min(memory / 2), (1 << 10, 1 << 30), notes);
    let mut below = section.section("range", notes);
    let range = RangeTerms {
        fresh: below.duration("fresh", d.range.fresh, SHORT, notes),
        settle: below.duration("settle", d.range.settle, SETTLE, notes),
        ttl: below.duration("ttl", d.range.ttl, LONG, notes),
    };
    below.finish(notes);
    let mut below = section.section("instant", notes);
    let instant = InstantTerms {
        fresh: below.duration("fresh", d.instant.fresh, SHORT, notes),
        ttl: below.duration("ttl", d.instant.ttl, LONG, notes),
    };
    below.finish(notes);
    let mut window = |key, d: WindowTerms, notes: &mut Notes| {
        let mut below = section.section(key, notes);
        let terms = WindowTerms {
            fresh: below.duration("fresh", d.fresh, SHORT, notes),
            align: below.duration("align", d.align, (Duration::ZERO, 24 * HOUR), notes),
        };
        below.finish(notes);
        terms
    };
    let labels = window("labels", d.labels, notes);
    let series = window("series", d.series, notes);
    let mut fresh = |key, default, notes: &mut Notes| {
        let mut below = section.section(key, notes);
        let fresh = below.duration("fresh", default, SHORT, notes);
        below.finish(notes);
        fresh
    };
    let metadata = fresh("metadata", d.metadata, notes);
    let rules = fresh("rules", d.rules, notes);
    let mut below = section.section("errors", notes);
    let errors = ErrorTerms {
        client: below.duration("client", d.errors.client, SHORT, notes),
        server: below.duration("server", d.errors.server, (Duration::ZERO, 60 * SECOND), notes),
    };
    below.finish(notes);
    let upstream = upstream(&mut section, d.upstream, notes);
    let mut below = section.section("verify", notes);
    let verify = below.count("one_in", d.verify, (0, 1 << 40), notes);
    below.finish(notes);
    let shared = super::shared::shared(&mut section, around, notes);
    let overrides = overrides::read(&mut section, upstream, backends, notes);
    section.finish(notes);
    Cache {
        mode,
        memory,
        largest,
        range,
        instant,
        labels,
        series,
        metadata,
        rules,
        errors,
        upstream,
        shared,
        verify,
        overrides,
    }
}

/// `upstream` of the cache, or of an override over that.
pub(super) fn upstream(section: &mut Section<'_>, d: Upstream, notes: &mut Notes) -> Upstream {
    let mut below = section.section("upstream", notes);
    let upstream = Upstream {
        at_once: below.count("at_once", d.at_once, (1, 10_000), notes),
        of_one_set: below.count("of_one_set", d.of_one_set, (1, 10_000), notes),
        waiting: below.count("waiting", d.waiting, (0, 1_000_000), notes),
        abandoned: below.duration("abandoned", d.abandoned, (Duration::ZERO, 300 * SECOND), notes),
    };
    below.finish(notes);
    upstream
}
