//! Which encoding of an answer a client takes (RFC 9110, 12.5.3).

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};

use crate::reply::{Body, Reply};

/// Answers in gzip where that is at hand, the client prefers it, and nobody can learn from how long it is.
///
/// How well a body compresses tells whoever sees its length on the wire whether two parts of it are alike. That is of use to
/// somebody who can have the browser of another person ask questions of their choice, again and again. A session's cookie
/// goes with links from other sites, so a browser that has a session must say that the question comes from our own pages; a
/// token is never sent by a browser on its own.
pub(super) fn choose(reply: &mut Reply, headers: &HeaderMap, is_session: bool) {
    let Some(packed) = &reply.packed else { return };
    reply.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let own = || headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
    if (is_session && !own()) || !takes_gzip(headers) {
        return;
    }
    if let Some(bytes) = Arc::clone(packed).gzip() {
        reply.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        reply.body = Body::Whole(bytes);
    }
}

/// Whether gzip is taken, and the body as it is not preferred. What is no weight is none: the body as it is suits everybody.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for line in headers.get_all(header::ACCEPT_ENCODING) {
        let Ok(line) = line.to_str() else { return false };
        for part in line.split(',') {
            let (coding, weight) = part.split_once(';').unwrap_or((part, "q=1"));
            let (coding, Some(weight)) = (coding.trim(), thousandths(weight.trim())) else { return false };
            let place = match () {
                () if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") => &mut gzip,
                () if coding.eq_ignore_ascii_case("identity") => &mut identity,
                () if coding == "*" => &mut any,
                () => continue,
            };
            *place = Some(weight);
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// A weight, `q=0.5` (RFC 9110, 12.4.2), in thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (name, number) = text.split_once('=')?;
    if !name.eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
    if rest.len() > 3 || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let rest = format!("{rest:0<3}").parse::<u16>().ok()?;
    match (whole, rest) {
        ("0", rest) => Some(rest),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;
    use crate::reply::Packed;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn weights_are_read_as_the_rfc_says() {
        for (line, takes) in [
            ("gzip", true),
            ("GZIP, deflate, br, zstd", true),
            ("x-gzip", true),
            ("deflate, br", false),
            ("", false),
            ("*", true),
            ("*;q=0", false),
            ("gzip;q=0, *", false),
            ("gzip;q=0.000", false),
            ("gzip;q=0.001", true),
            ("gzip ; q=0.5 , identity; q=0.5", true),
            ("gzip;q=0.5, identity", false),
            ("gzip;q=0.5, identity;q=0", true),
            ("identity", false),
            ("*;q=0.5, identity;q=0.6", false),
            ("gzip;q=2", false),
            ("gzip;q=0.0001", false),
            ("gzip;q=", false),
            ("gzip;level=9", false),
            ("gzipped", false),
        ] {
            assert_eq!(takes_gzip(&headers(&[("accept-encoding", line)])), takes, "{line}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
        assert!(
            takes_gzip(&headers(&[("accept-encoding", "br"), ("accept-encoding", "gzip")])),
            "two lines are one list"
        );
    }

    #[derive(Debug)]
    struct Ready;

    impl Packed for Ready {
        fn gzip(self: Arc<Self>) -> Option<Bytes> {
            Some(Bytes::from_static(b"packed"))
        }
    }

    #[test]
    fn a_session_gets_it_on_our_own_pages_alone() {
        let is_packed = |is_session, lines: &[_]| {
            let mut reply = Reply { packed: Some(Arc::new(Ready)), ..Reply::json(StatusCode::OK, "plain") };
            choose(&mut reply, &headers(lines), is_session);
            assert_eq!(reply.headers["vary"], "accept-encoding");
            let packed = matches!(&reply.body, Body::Whole(bytes) if bytes == "packed");
            assert_eq!(reply.headers.contains_key("content-encoding"), packed);
            packed
        };
        let gzip = ("accept-encoding", "gzip");
        assert!(is_packed(false, &[gzip]));
        assert!(!is_packed(false, &[]));
        assert!(is_packed(true, &[gzip, ("sec-fetch-site", "same-origin")]));
        for site in ["cross-site", "same-site", "none"] {
            assert!(!is_packed(true, &[gzip, ("sec-fetch-site", site)]), "{site}");
        }
        assert!(!is_packed(true, &[gzip]), "a browser that does not say");
    }
}
