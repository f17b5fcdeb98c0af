//! PromQL: any query that parses can be analysed, its canonical text is a fixed point, and the analysis of both agrees.
#![no_main]

use libfuzzer_sys::fuzz_target;
use perses_sidecar::promql::analysis::analyse;
use perses_sidecar::promql::{Features, Labels, Limits, check};

fuzz_target!(|text: &str| {
    let labels = Labels::new("namespace", Vec::new()).expect("a label");
    let (limits, features) = (Limits::default(), Features { experimental: true });
    let found = analyse(text, &labels, 300_000, &limits, features);
    assert_eq!(found.is_ok(), check(text, &limits, features).is_ok(), "{text:?}");
    if let Ok(found) = found {
        let again = analyse(&found.canonical, &labels, 300_000, &limits, features);
        assert_eq!(again.as_ref(), Ok(&found), "{text:?}");
        assert!(found.horizon.is_some() || found.depends_on_window, "{text:?}");
    }
});
