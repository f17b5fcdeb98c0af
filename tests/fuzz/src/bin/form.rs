//! Forms: what we accept, a Go server reads as the same pairs, both as received and as written anew.
#![no_main]

use libfuzzer_sys::fuzz_target;
use perses_sidecar::route::{Form, push_pair};
use perses_sidecar_fuzz::go;

fuzz_target!(|bytes: &[u8]| {
    let Ok(form) = Form::parse_bytes(bytes) else { return };
    let (pairs, dropped) = go::form(bytes);
    assert!(!dropped, "a pair that we took would be dropped");
    let mut names: Vec<&[u8]> = pairs.iter().map(|(name, _)| name.as_slice()).collect();
    names.sort_unstable();
    names.dedup();
    let mut left = form.clone();
    let mut written = String::new();
    for name in &names {
        let values: Vec<&[u8]> =
            pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_slice()).collect();
        let name = std::str::from_utf8(name).expect("text");
        let ours = left.take_all(name);
        assert!(ours.iter().map(|value| value.as_bytes()).eq(values.iter().copied()), "{name}");
        ours.iter().for_each(|value| push_pair(&mut written, name, value));
        let once = form.clone().take(name);
        assert_eq!(once.is_ok(), values.len() == 1);
    }
    assert!(left.is_empty(), "a pair that only we read");
    let (again, dropped) = go::form(written.as_bytes());
    let mut sorted = pairs;
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!dropped && again == sorted, "{written}");
});
