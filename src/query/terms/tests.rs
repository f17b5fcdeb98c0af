#![allow(clippy::unwrap_used, reason = "tests")]
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn reach(names: &[&str]) -> Reach {
    let mut names: Vec<Arc<str>> = names.iter().map(|name| Arc::from(*name)).collect();
    names.sort_unstable();
    Reach::Namespaces(names.into())
}

fn one(backends: &[&str], namespaces: &[&str], settle: Option<u32>, fresh: Option<u32>) -> Override {
    Override {
        backends: backends.iter().map(ToString::to_string).collect(),
        namespaces: namespaces.iter().map(|name| Arc::from(*name)).collect(),
        range_settle: settle.map(|settle| settle * SECOND),
        range_fresh: fresh.map(|fresh| fresh * SECOND),
        ..Override::default()
    }
}

fn cache(overrides: Vec<Override>) -> config::Cache {
    config::Cache { overrides, ..config::Cache::default() }
}

#[test]
fn of_each_setting_the_first_that_fits_and_gives_it_counts() {
    let cache = cache(vec![
        one(&["edge"], &["a"], Some(600), None),
        one(&["edge"], &[], Some(300), Some(5)),
        one(&[], &["a", "b"], None, Some(30)),
    ]);
    let of = |backend: &str, names: &[&str]| {
        let range = Table::new(&cache, backend).of(&reach(names)).range;
        (range.settle.as_secs(), range.fresh.as_secs(), range.ttl.as_secs())
    };
    assert_eq!(of("edge", &["a"]), (600, 5, 43_200), "its settle from the first, its fresh from the second");
    assert_eq!(of("edge", &["b"]), (300, 5, 43_200), "the third says nothing that was not said");
    assert_eq!(of("edge", &["c"]), (300, 5, 43_200));
    assert_eq!(of("core", &["a"]), (60, 30, 43_200), "another backend");
    assert_eq!(of("core", &["c"]), (60, 15, 43_200), "as the cache itself");
    assert_eq!(of("core", &[]), (60, 15, 43_200), "data of nobody");
    assert_eq!(overrides(&cache, "edge", &reach(&["a"])).len(), 3);
    assert_eq!(overrides(&cache, "edge", &reach(&["c"])), ["cache.overrides[1]"]);
    assert_eq!(overrides(&cache, "core", &Reach::AnyNamespace), ["cache.overrides[2]"]);
    assert!(overrides(&cache, "core", &reach(&["c"])).is_empty());
}

#[test]
fn several_namespaces_are_under_the_strictest_of_their_terms() {
    let mut loose = one(&[], &["a"], Some(10), Some(60));
    loose.range_ttl = Some(24 * 3600 * SECOND);
    let mut strict = one(&[], &["b"], Some(300), Some(2));
    (strict.mode, strict.instant_ttl) = (Some(CacheMode::Bypass), Some(SECOND));
    let table = Table::new(&cache(vec![loose, strict]), "any");
    let of = |reach: &Reach| {
        let found = table.of(reach);
        (found.range.settle.as_secs(), found.range.fresh.as_secs(), found.range.ttl.as_secs() / 3600, found.mode)
    };
    use CacheMode::{Bypass, Enforce};
    assert_eq!(of(&reach(&["a"])), (10, 60, 24, Enforce), "looser, where all data are");
    assert_eq!(of(&reach(&["a", "c"])), (60, 15, 12, Enforce), "but not for others' data");
    assert_eq!(of(&reach(&["a", "b"])), (300, 2, 12, Bypass));
    assert_eq!(of(&reach(&["b"])), (300, 2, 12, Bypass));
    assert_eq!(of(&reach(&["c"])), (60, 15, 12, Enforce));
    for wide in [Reach::Everything, Reach::AnyNamespace] {
        assert_eq!(of(&wide), (300, 2, 12, Bypass), "it may read all of them");
    }
    assert_eq!(table.of_no_namespace(), table.of(&reach(&[])));
}

#[test]
fn what_a_backend_is_asked_at_once_is_of_the_backend() {
    let few = Upstream { at_once: 2, ..config::Cache::default().upstream };
    let cache = cache(vec![Override { backends: vec!["edge".to_owned()], upstream: Some(few), ..Override::default() }]);
    assert_eq!(Table::new(&cache, "edge").upstream.at_once, 2);
    assert_eq!(Table::new(&cache, "core").upstream.at_once, 32);
}

fn some_override() -> impl Strategy<Value = Override> {
    let names = || prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 0..3);
    let time = || prop::option::of(0..4_u32);
    (names(), names(), time(), time(), any::<Option<bool>>()).prop_map(|(backends, names, settle, fresh, mode)| {
        let mode = mode.map(|bypass| if bypass { CacheMode::Bypass } else { CacheMode::Enforce });
        Override { mode, ..one(&backends, &names, settle, fresh) }
    })
}

proptest! {
    /// Whoever reads more is never under looser terms, and the terms are those of one of the namespaces at least as strict.
    #[test]
    fn who_reads_more_is_never_under_looser_terms(
        overrides in prop::collection::vec(some_override(), 0..5),
        mut names in prop::collection::btree_set(prop::sample::select(vec!["a", "b", "c", "d"]), 1..4),
        more in prop::sample::select(vec!["a", "b", "c", "d"]),
    ) {
        let table = Table::new(&cache(overrides), "a");
        let of = |names: &std::collections::BTreeSet<&str>| table.of(&reach(&names.iter().copied().collect::<Vec<_>>()));
        let before = of(&names);
        let single: Vec<InForce> = names.iter().map(|name| table.of(&reach(&[name]))).collect();
        prop_assert_eq!(before.range.settle, single.iter().map(|one| one.range.settle).max().unwrap());
        prop_assert_eq!(before.range.fresh, single.iter().map(|one| one.range.fresh).min().unwrap());
        prop_assert_eq!(before.is_bypassed(), single.iter().any(InForce::is_bypassed));
        names.insert(more);
        for wider in [of(&names), table.of(&Reach::AnyNamespace)] {
            prop_assert_eq!(wider.stricter(before), wider);
        }
    }
}
