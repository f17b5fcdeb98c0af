//! Cookies and what they hold: whatever a client sends is put together as it was split, opened by nobody without the key,
//! and read back as it was written, or it is nothing.
#![no_main]

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use perses_sidecar::identity::{CookieNames, Purpose, Sealer, Session};

static SEALER: LazyLock<Sealer> = LazyLock::new(|| Sealer::new(&[], &[7; 32], "https://a.example").expect("a sealer"));

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|b| *b == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        headers.append(header::COOKIE, value);
    }
    for prefix in ["", "/perses"] {
        let names = CookieNames::new(prefix);
        if let Some(sealed) = names.session(&headers) {
            assert!(names.has_session(&headers));
            assert!(SEALER.open(Purpose::Session, &names.session, &sealed).is_none(), "nobody else seals");
        }
        assert!(names.clear_session(&headers).len() <= 5);
    }
    if let Some(session) = Session::decode(bytes) {
        assert_eq!(session.encode(), bytes, "one spelling");
    }
    // What we make is taken back, with anything beside it.
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let names = CookieNames::new("");
    let sealed = SEALER.seal(Purpose::Session, &names.session, bytes).expect("sealed");
    let Some(lines) = names.set_session(&sealed, &headers) else { return };
    let mut browser = HeaderMap::new();
    for line in &lines {
        let pair = line.to_str().expect("text").split(';').next().expect("a pair");
        browser.append(header::COOKIE, HeaderValue::from_str(pair).expect("a pair"));
    }
    let again = names.session(&browser).expect("all parts");
    assert_eq!(SEALER.open(Purpose::Session, &names.session, &again).as_deref(), Some(bytes), "{text:?}");
    assert!(SEALER.open(Purpose::Login, &names.session, &again).is_none());
});
