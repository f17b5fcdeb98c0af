//! Tokens of service accounts that no API server would give out: with another end, signed by its own key all the same.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::SigningKey;
use serde_json::{Value, json};

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The same token as if it had been made an hour ago and ended `seconds` from now, which may be negative.
///
/// # Errors
/// When it is no token of a service account.
pub(super) fn ending_in(token: &str, seconds: i64, key: &rcgen::KeyPair) -> io::Result<String> {
    let bad = || io::Error::other("no service account's token");
    let mut parts = token.split('.');
    let (head, claims) = (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
    let mut claims: Value = serde_json::from_slice(&decode(claims).ok_or_else(bad)?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs().cast_signed();
    for (name, at) in [("iat", now - 3600), ("nbf", now - 3600), ("exp", now + seconds)] {
        claims[name] = json!(at);
    }
    let text = format!("{head}.{}", encode(claims.to_string().as_bytes()));
    let signature = key.sign(text.as_bytes()).map_err(io::Error::other)?;
    Ok(format!("{text}.{}", encode(&plain(&signature).ok_or_else(bad)?)))
}

/// A signature of the curve P-256 in DER becomes its two numbers of 32 bytes, as JWTs carry them.
fn plain(der: &[u8]) -> Option<Vec<u8>> {
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

/// Base64 for URLs, without padding.
fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, place| bits << 8 | u32::from(chunk.get(place).copied().unwrap_or_default()));
        for place in 0..=chunk.len() {
            let letter = (bits >> (18 - 6 * place)) & 63;
            out.push(char::from(LETTERS[letter as usize]));
        }
    }
    out
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0;
        for place in 0..4 {
            let value = match chunk.get(place) {
                Some(letter) => LETTERS.iter().position(|known| known == letter)?,
                None => 0,
            };
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        out.extend_from_slice(bits.to_be_bytes().get(1..chunk.len())?);
    }
    Some(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn base64_there_and_back() {
        for (bytes, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg"), ("\u{fb}\u{ff}", "w7vDvw")]
        {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(decode("a+b/"), None, "the letters of plain base64");
    }
}
