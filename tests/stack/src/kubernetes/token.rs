//! Tokens of service accounts that no API server would give out: with another end, signed by its own key all the same.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::SigningKey;
use serde_json::{Value, json};

use crate::encoding::{base64url, from_base64url};

/// The same token as if it had been made an hour ago and ended `seconds` from now, which may be negative.
///
/// # Errors
/// When it is no token of a service account.
pub(super) fn ending_in(token: &str, seconds: i64, key: &rcgen::KeyPair) -> io::Result<String> {
    let bad = || io::Error::other("no service account's token");
    let mut parts = token.split('.');
    let (head, claims) = (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
    let mut claims: Value = serde_json::from_slice(&from_base64url(claims).ok_or_else(bad)?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs().cast_signed();
    for (name, at) in [("iat", now - 3600), ("nbf", now - 3600), ("exp", now + seconds)] {
        claims[name] = json!(at);
    }
    let text = format!("{head}.{}", base64url(claims.to_string().as_bytes()));
    let signature = key.sign(text.as_bytes()).map_err(io::Error::other)?;
    Ok(format!("{text}.{}", base64url(&plain(&signature).ok_or_else(bad)?)))
}

/// A signature of the curve P-256 in DER becomes its two numbers of 32 bytes, as JWTs carry them.
pub(crate) fn plain(der: &[u8]) -> Option<Vec<u8>> {
    let mut rest = der.get(2..)?;
    let mut out = Vec::new();
    for _ in 0..2 {
        let [2, length, tail @ ..] = rest else { return None };
        let (number, next) = tail.split_at_checked(usize::from(*length))?;
        let significant = number.iter().position(|byte| *byte != 0).map_or(&[][..], |start| &number[start..]);
        out.resize(out.len() + 32_usize.checked_sub(significant.len())?, 0);
        out.extend_from_slice(significant);
        rest = next;
    }
    Some(out)
}
