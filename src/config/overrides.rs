//! `cache.overrides`: what differs for some backends and namespaces.

use std::sync::Arc;
use std::time::Duration;

use super::backends::Backend;
use super::cache::{self, CacheMode, Upstream};
use super::section::{Notes, Section};
use crate::names::{self, Namespace};

/// One of `cache.overrides`. What it does not set is as the next that fits says, and in the end as `cache` itself does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Override {
    /// `backends`, by name: of these; of all, if there are none.
    pub backends: Vec<String>,
    /// `namespaces`: for data of these; for all, if there are none.
    pub namespaces: Vec<Arc<str>>,
    /// `mode`.
    pub mode: Option<CacheMode>,
    /// `range.fresh`.
    pub range_fresh: Option<Duration>,
    /// `range.settle`.
    pub range_settle: Option<Duration>,
    /// `range.ttl`.
    pub range_ttl: Option<Duration>,
    /// `instant.fresh`.
    pub instant_fresh: Option<Duration>,
    /// `instant.ttl`.
    pub instant_ttl: Option<Duration>,
    /// `upstream`, of whole backends alone: what one is asked at once is one number for everybody.
    pub upstream: Option<Upstream>,
}

/// Reads `overrides` of the cache, which itself has this `upstream`.
pub(super) fn read(
    cache: &mut Section<'_>,
    upstream: Upstream,
    backends: &[Arc<Backend>],
    notes: &mut Notes,
) -> Vec<Override> {
    // A backend that is wrong itself is not unknown besides.
    let all_known = !notes.problems.iter().any(|problem| problem.path.starts_with("metrics_backends"));
    let backend = |text: &str| {
        let mut known = backends.iter().map(|backend| backend.name.as_str());
        if !all_known || known.any(|name| name == text) {
            return Ok(text.to_owned());
        }
        let known: Vec<&str> = backends.iter().map(|backend| backend.name.as_str()).collect();
        Err(match names::nearest(text, known.iter().copied()) {
            Some(near) => format!("there is no backend {text:?}, did you mean {near:?}?"),
            None => format!("there is no backend {text:?}; there are: {}", known.join(", ")),
        })
    };
    let namespace = |text: &str| {
        let namespace = Namespace::parse(text).ok_or_else(|| format!("{text:?} is no namespace"))?;
        Ok(Arc::from(namespace.as_str()))
    };
    let mut found = Vec::new();
    for mut section in cache.sections("overrides", notes) {
        let before = notes.problems.len();
        let backends = section.list("backends", notes, backend);
        let namespaces = section.list("namespaces", notes, namespace);
        let set = settings(&mut section, upstream, notes);
        if notes.problems.len() == before && !section.has_unknown() {
            if backends.is_empty() && namespaces.is_empty() {
                let message = "names neither backends nor namespaces: what counts for all stands in cache itself";
                section.problem_here(notes, message);
            } else if set == Override::default() {
                section.problem_here(notes, "sets nothing: give it a mode, range, instant or upstream");
            } else if set.upstream.is_some() && !namespaces.is_empty() {
                let message = "counts for a whole backend: give it in an override without namespaces";
                section.problem(notes, "upstream", message);
            }
        }
        section.finish(notes);
        found.push(Override { backends, namespaces, ..set });
    }
    found
}

/// What an override sets, whatever for.
fn settings(section: &mut Section<'_>, upstream: Upstream, notes: &mut Notes) -> Override {
    let mode = section.optional("mode", notes, CacheMode::parse, |mode| mode.word().to_owned());
    let mut below = section.section("range", notes);
    let range_fresh = below.optional_duration("fresh", cache::SHORT, notes);
    let range_settle = below.optional_duration("settle", cache::SETTLE, notes);
    let range_ttl = below.optional_duration("ttl", cache::LONG, notes);
    below.finish(notes);
    let mut below = section.section("instant", notes);
    let instant_fresh = below.optional_duration("fresh", cache::SHORT, notes);
    let instant_ttl = below.optional_duration("ttl", cache::LONG, notes);
    below.finish(notes);
    let upstream = if section.has("upstream") {
        Some(cache::upstream(section, upstream, notes))
    } else {
        section.section("upstream", notes);
        None
    };
    Override { mode, range_fresh, range_settle, range_ttl, instant_fresh, instant_ttl, upstream, ..Override::default() }
}
