//! Method, target and prefix: reading never panics, and what is written for Perses is plain and means the same again.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use perses_sidecar::route::{self, Guarded, MetricsCall, PersesRequest, Route};

const METHODS: [&[u8]; 9] = [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"PATCH", b"OPTIONS", b"TRACE", b"PROPFIND"];
const PREFIXES: [&str; 3] = ["", "/p", "/perses/x"];

fuzz_target!(|input: (u8, u8, &str)| {
    let (method, prefix, target) = input;
    let method = Method::from_bytes(METHODS[usize::from(method) % METHODS.len()]).expect("a method");
    let Ok(route) = route::read(&method, target, PREFIXES[usize::from(prefix) % PREFIXES.len()]) else { return };
    assert!(route::WORDS.contains(&route.word()));
    let request = match &route {
        // Our own pages: no server behind us hears of them.
        Route::Door(_) => return,
        Route::Open(open) => PersesRequest::open(open),
        Route::Guarded(guarded) => {
            if let Guarded::Metrics(_, MetricsCall::LabelValues(name)) = guarded {
                let legacy =
                    |(at, b): (usize, u8)| b == b'_' || b.is_ascii_alphabetic() || at > 0 && b.is_ascii_digit();
                assert!(!name.as_str().is_empty() && name.as_str().bytes().enumerate().all(legacy), "{name:?}");
            }
            PersesRequest::guarded(guarded)
        }
    };
    let Some(request) = request else { return };
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let segments = path.strip_prefix('/').expect("an absolute path");
    for segment in segments.split('/').filter(|_| path != "/") {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._~@-+,".contains(&b);
        assert!(segment.bytes().all(plain) && segment.bytes().any(|b| b != b'.'), "{}", request.path);
    }
    for pair in query.split('&').filter(|_| !query.is_empty()) {
        let (name, value) = pair.split_once('=').expect("a pair");
        assert!(["name", "metadata_only", "kind", "default"].contains(&name), "{}", request.path);
        assert!(value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{}", request.path);
    }
    assert_eq!(route::read(&request.method, &request.path, "").as_ref(), Ok(&route), "{}", request.path);
});
