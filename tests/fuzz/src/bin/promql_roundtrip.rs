//! PromQL: what we print, we read back and print the same, whatever the text was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use perses_sidecar::promql::{ErrorKind, Features, Labels, Limits, Reach, confine};

fuzz_target!(|text: &str| {
    let labels = Labels::new("namespace", Vec::new()).expect("a label");
    let limits = Limits { subquery_steps: u64::MAX, ..Limits::default() };
    for experimental in [false, true] {
        let features = Features { experimental };
        match confine(text, &Reach::Everything, &labels, &limits, features) {
            Ok(once) => {
                let again = confine(once.text(), &Reach::Everything, &labels, &limits, features);
                assert_eq!(again.as_ref(), Ok(&once), "{text:?}");
            }
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::ReadBack, "{text:?}: {error}");
                assert!(error.position() <= text.len());
            }
        }
    }
});
