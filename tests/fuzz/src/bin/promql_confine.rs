//! PromQL: every selector of a confined query begins with its matcher, confining twice is confining once, and one set after
//! another leaves what both have.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use perses_sidecar::promql::{ErrorKind, Features, Labels, Limits, Reach, check, confine};

fuzz_target!(|text: &str| {
    let labels = Labels::new("namespace", Vec::new()).expect("a label");
    let (limits, features) = (Limits::default(), Features { experimental: true });
    let reach = |names: &[&str]| Reach::Namespaces(names.iter().map(|name| Arc::from(*name)).collect());
    let to = |text: &str, names: &[&str]| confine(text, &reach(names), &labels, &limits, features);
    match to(text, &["a", "b"]) {
        Ok(once) => {
            assert_eq!(check(text, &limits, features), Ok(once.selectors()), "{text:?}");
            assert_eq!(to(once.text(), &["a", "b"]).as_ref(), Ok(&once), "twice: {text:?}");
            // Each selector has one of the four guards, and no user can write what counts as one outside of a selector
            // but in a string.
            let guards = ["{namespace=~\"a|b\"", "{namespace=\"a\"", "{namespace=\"b\"", "{namespace=\"\",namespace!=\"\""];
            let count: usize = guards.iter().map(|guard| once.text().matches(guard).count()).sum();
            assert!(count >= once.selectors(), "{text:?} became {:?}", once.text());
            let both = to(once.text(), &["b", "c"]).map(|confined| confined.into_text());
            let direct = to(text, &["b"]).map(|confined| confined.into_text());
            assert_eq!(both, direct, "{text:?}");
        }
        Err(error) => assert_ne!(error.kind(), ErrorKind::ReadBack, "{text:?}: {error}"),
    }
});
