//! Where somebody goes after a login: read by the rules of browsers, it is a place of ours, and the same place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use perses_sidecar::route::Target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for prefix in ["", "/perses"] {
        let Some(target) = Target::parse(text, prefix) else { continue };
        let base = url::Url::parse("https://perses.example/perses/-/callback?code=x").expect("a base");
        let there = base.join(target.as_str()).expect("a place");
        assert_eq!(there.origin(), base.origin(), "{text:?}");
        assert_eq!(Some(there.path()), text.split('?').next(), "{text:?}");
        assert!(there.path().starts_with(prefix) && there.fragment().is_none());
        assert!(http::HeaderValue::from_str(target.as_str()).is_ok());
        assert_eq!(Target::parse(target.as_str(), prefix), Some(target));
    }
});
