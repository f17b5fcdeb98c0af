//! Authorization headers: the token that we review is the one that the API server would read, or there is none.
#![no_main]

use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use perses_sidecar::identity::bearer_token;
use perses_sidecar_fuzz::go;

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    let mut lines = 0;
    for line in bytes.split(|b| *b == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.append(header::AUTHORIZATION, value);
        lines += 1;
    }
    let theirs = go::bearer(bytes.split(|b| *b == b'\n').next().unwrap_or_default());
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
