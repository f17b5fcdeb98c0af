//! Under which terms a question is kept: the one place where `cache` and `cache.overrides` become what is in force.
//!
//! The terms follow from the backend and from whose data the question reads, never from who asks: whoever is answered from
//! the same bytes is answered under the same terms, and replicas of one configuration call the same points final.

use std::sync::Arc;

use crate::config::{self, CacheMode, InstantTerms, Override, RangeTerms, Upstream};
use crate::promql::{Confined, Reach};

/// What is in force for a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InForce {
    pub(super) mode: CacheMode,
    pub(super) range: RangeTerms,
    pub(super) instant: InstantTerms,
}

impl InForce {
    pub(super) fn is_bypassed(&self) -> bool {
        self.mode == CacheMode::Bypass
    }

    pub(super) fn is_enforced(&self) -> bool {
        self.mode == CacheMode::Enforce
    }

    /// What is good for data of both: what may change is used for the shorter time, counts as final later, and is kept for
    /// the shorter time.
    fn stricter(self, other: Self) -> Self {
        let mode = if caution(other.mode) > caution(self.mode) { other.mode } else { self.mode };
        Self {
            mode,
            range: RangeTerms {
                fresh: self.range.fresh.min(other.range.fresh),
                settle: self.range.settle.max(other.range.settle),
                ttl: self.range.ttl.min(other.range.ttl),
            },
            instant: InstantTerms {
                fresh: self.instant.fresh.min(other.instant.fresh),
                ttl: self.instant.ttl.min(other.instant.ttl),
            },
        }
    }
}

/// How little a mode trusts what is kept.
fn caution(mode: CacheMode) -> u8 {
    match mode {
        CacheMode::Enforce => 0,
        CacheMode::Shadow => 1,
        CacheMode::Bypass => 2,
    }
}

/// What is in force for the questions to one backend.
#[derive(Debug)]
pub(super) struct Table {
    /// What it is asked at once.
    pub(super) upstream: Upstream,
    /// For data of namespaces that no override names, and of none.
    general: InForce,
    /// For data of those that one names, in their order.
    named: Vec<(Arc<str>, InForce)>,
}

impl Table {
    /// Those of a configuration. Of each setting, the first override counts that fits and gives it.
    pub(super) fn new(cache: &config::Cache, backend: &str) -> Self {
        let of: Vec<&Override> = cache.overrides.iter().filter(|one| is_of(one, backend)).collect();
        let upstream = of.iter().find_map(|one| one.upstream).unwrap_or(cache.upstream);
        let mut names: Vec<&Arc<str>> = of.iter().flat_map(|one| &one.namespaces).collect();
        names.sort_unstable();
        names.dedup();
        let named = names.into_iter().map(|name| (Arc::clone(name), pick(cache, &of, Some(name)))).collect();
        Self { upstream, general: pick(cache, &of, None), named }
    }

    /// For a question that reads so far: the strictest of what is in force for each namespace that it reads. Whoever may
    /// read all of them asks under the strictest of all.
    pub(super) fn of(&self, reach: &Reach) -> InForce {
        if self.named.is_empty() {
            return self.general;
        }
        let Reach::Namespaces(names) = reach else {
            return self.named.iter().fold(self.general, |all, (_, one)| all.stricter(*one));
        };
        let mut found = None;
        let mut unnamed = names.len();
        for (name, one) in &self.named {
            if names.binary_search(name).is_ok() {
                unnamed -= 1;
                found = Some(found.map_or(*one, |all: InForce| all.stricter(*one)));
            }
        }
        match found {
            Some(found) if unnamed == 0 => found,
            Some(found) => found.stricter(self.general),
            None => self.general,
        }
    }

    /// For several selectors, which are one question.
    pub(super) fn of_all(&self, selectors: &[Confined]) -> InForce {
        let mut all = selectors.iter().map(|selector| self.of(&selector.reach()));
        // What selects without a selector, selects everything.
        let first = all.next().unwrap_or_else(|| self.of(&Reach::Everything));
        all.fold(first, InForce::stricter)
    }

    /// For what is asked once for everybody and holds data of no namespace.
    pub(super) fn of_no_namespace(&self) -> InForce {
        self.general
    }
}

/// Where the overrides stand that have a say in a question, as paths of the file.
pub(super) fn overrides(cache: &config::Cache, backend: &str, reach: &Reach) -> Vec<String> {
    let reads = |name: &Arc<str>| match reach {
        Reach::Everything | Reach::AnyNamespace => true,
        Reach::Namespaces(names) => names.binary_search(name).is_ok(),
    };
    let has_a_say =
        |one: &Override| is_of(one, backend) && (one.namespaces.is_empty() || one.namespaces.iter().any(reads));
    let all = cache.overrides.iter().enumerate().filter(|(_, one)| has_a_say(one));
    all.map(|(index, _)| format!("cache.overrides[{index}]")).collect()
}

fn is_of(one: &Override, backend: &str) -> bool {
    one.backends.is_empty() || one.backends.iter().any(|name| name == backend)
}

/// What is in force for data of one namespace, or of those that nobody names.
fn pick(cache: &config::Cache, of: &[&Override], namespace: Option<&Arc<str>>) -> InForce {
    let fitting = || {
        let fits = |one: &&&Override| {
            one.namespaces.is_empty() || namespace.is_some_and(|namespace| one.namespaces.contains(namespace))
        };
        of.iter().filter(fits)
    };
    let (range, instant) = (cache.range, cache.instant);
    InForce {
        mode: fitting().find_map(|one| one.mode).unwrap_or(cache.mode),
        range: RangeTerms {
            fresh: fitting().find_map(|one| one.range_fresh).unwrap_or(range.fresh),
            settle: fitting().find_map(|one| one.range_settle).unwrap_or(range.settle),
            ttl: fitting().find_map(|one| one.range_ttl).unwrap_or(range.ttl),
        },
        instant: InstantTerms {
            fresh: fitting().find_map(|one| one.instant_fresh).unwrap_or(instant.fresh),
            ttl: fitting().find_map(|one| one.instant_ttl).unwrap_or(instant.ttl),
        },
    }
}

#[cfg(test)]
mod tests;
