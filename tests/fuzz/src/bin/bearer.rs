//! Authorization headers: the token that we review is the one that the API server would read, or there is none.
#![no_main]

use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use perses_sidecar::identity::bearer_token;

/// The token that the API server finds in an `Authorization` line: trimmed, split at single spaces, the second part.
fn theirs(line: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(line);
    let mut parts = text.trim().splitn(3, ' ');
    let scheme = parts.next()?;
    let token = parts.next()?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.as_bytes().to_vec())
}

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    let mut lines = 0;
    for line in bytes.split(|b| *b == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append(header::AUTHORIZATION, value);
        lines += 1;
    }
    let theirs = theirs(bytes.split(|b| *b == b'\n').next().unwrap_or_default());
    match bearer_token(&headers) {
        Ok(Some(token)) => {
            assert_eq!(lines, 1);
            assert_eq!(Some(token.as_bytes()), theirs.as_deref());
            assert!(token.bytes().all(|b| b.is_ascii_graphic() && b != b','));
        }
        Ok(None) => assert_eq!(theirs, None, "a credential that we do not see"),
        Err(_) => {}
    }
});
