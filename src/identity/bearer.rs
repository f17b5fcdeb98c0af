//! The `Authorization` header (RFC 6750, 2.1), read more strictly than servers usually do.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use serde::Deserialize;

use crate::encoding::jwt_part;
use crate::refusal::{Reason, Refusal};

/// Longer than any token of a cluster, shorter than any head.
const LONGEST: usize = 16 << 10;

/// Whether a byte may stand in a token.
const TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        token[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b':');
        byte += 1;
    }
    token
};

/// The token of a request; `None` when the request has no bearer credential at all.
///
/// # Errors
/// 400 for two credentials or text that cannot be one, 401 for words behind the token.
pub fn read(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let malformed = |message: &'static str| Refusal::new(Reason::MalformedCredential, message);
    if lines.next().is_some() {
        return Err(malformed("more than one Authorization header"));
    }
    let text = line.to_str().map_err(|_| malformed("the Authorization header is not ASCII text"))?.trim();
    let Some((scheme, rest)) = text.split_once(' ') else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    if rest.starts_with(' ') {
        return Err(malformed("the Authorization header has more than one space before the token"));
    }
    if rest.contains(' ') {
        return Err(Refusal::new(Reason::InvalidCredential, "the Authorization header has words behind the token"));
    }
    if rest.len() > LONGEST || !rest.bytes().all(|byte| TOKEN[usize::from(byte)]) {
        return Err(malformed("the token is too long or has characters that no token has"));
    }
    Ok((!rest.is_empty()).then_some(rest))
}

/// When a token says that it ends, if it is a JWT. Read only after the API server has accepted the token, and only to
/// remember the verdict for a shorter time.
pub(super) fn expiry(token: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: Option<u64>,
    }
    let claims: Claims = serde_json::from_slice(&jwt_part(token, 1)?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: &str) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().expect("a header value"));
        read(&headers).map(|token| token.map(str::to_owned)).map_err(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn credentials_are_read_as_the_api_server_reads_them_or_refused() {
        for good in ["Bearer token", "bearer token", "BEARER token", "  Bearer token  "] {
            assert_eq!(one(good), Ok(Some("token".to_owned())), "{good}");
        }
        for none in ["Bearer", "Bearer:", "Bearer: token", "bear token", "Basic dG9rZW46", ""] {
            assert_eq!(one(none), Ok(None), "{none}");
        }
        assert_eq!(one("Bearer  token"), Err(400));
        assert_eq!(one("Bearer a b"), Err(401));
        assert_eq!(one("Bearer a,b"), Err(400));
        assert_eq!(one(&format!("Bearer {}", "a".repeat(64 << 10))), Err(400));
    }

    #[test]
    fn two_credentials_are_one_too_many() {
        let mut headers = HeaderMap::new();
        headers.append(header::AUTHORIZATION, "Bearer a".parse().expect("a value"));
        headers.append(header::AUTHORIZATION, "Bearer a".parse().expect("a value"));
        assert_eq!(read(&headers).map_err(|refusal| refusal.status().as_u16()), Err(400));
        headers.clear();
        headers.insert(header::AUTHORIZATION, http::HeaderValue::from_bytes(b"Bearer \xff").expect("a value"));
        assert_eq!(read(&headers).map_err(|refusal| refusal.status().as_u16()), Err(400));
    }

    #[test]
    fn a_jwt_says_when_it_ends() {
        // {"exp":1700000000}
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(expiry("e30.eyJleHAiOjE3MDAwMDAwMDB9.c2ln"), Some(end));
        for none in ["sha256~abc", "a.b", "e30.e30.x", "e30.!.x", "..", "e30.eyJleHAiOiJ4In0.x"] {
            assert_eq!(expiry(none), None, "{none}");
        }
    }
}
