//! The path as received becomes segments, or is refused.
//!
//! Nothing here decodes: a path that needs decoding is one that two servers may decode differently. The two places where
//! a client must escape (a user's name, a label's name) are read by [`decode`] after the table has found them.

use crate::refusal::{Reason, Refusal};

/// The longest path that any route of ours has, with room.
const LONGEST: usize = 1024;

/// Whether a byte may stand in a path: what is visible, but for what servers or browsers read as something else.
const TAKEN: [bool; 256] = {
    let mut taken = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        taken[byte as usize] = byte.is_ascii_graphic()
            && !matches!(byte, b'\\' | b';' | b'#' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}');
        byte += 1;
    }
    taken
};

fn malformed(message: &'static str) -> Refusal {
    Refusal::new(Reason::MalformedPath, message)
}

/// Checks a path and removes at most one trailing `/`. Segments may still hold `%` escapes; see [`no_escapes`].
///
/// # Errors
/// For everything but an absolute path of visible ASCII without `\`, `;`, `//`, dot segments.
pub(super) fn check(path: &str) -> Result<&str, Refusal> {
    if path.len() > LONGEST {
        return Err(malformed("the path is too long"));
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Err(malformed("the request target must be an absolute path"));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let bytes = rest.as_bytes();
    let (mut from, mut odd) = (0, false);
    for (at, byte) in bytes.iter().enumerate() {
        if !TAKEN[usize::from(*byte)] {
            return Err(malformed("the path has a character that must not stand in it"));
        }
        if *byte == b'/' {
            odd |= is_odd(&bytes[from..at]);
            from = at + 1;
        }
    }
    if !rest.is_empty() && (odd || is_odd(&bytes[from..])) {
        return Err(malformed("the path has an empty or a dot segment"));
    }
    Ok(rest)
}

/// Whether servers may take a segment for something else than a name.
fn is_odd(segment: &[u8]) -> bool {
    matches!(segment, b"" | b"." | b"..")
}

/// Whether a checked path is free of escapes.
pub(super) fn no_escapes(path: &str) -> Result<(), Refusal> {
    if path.contains('%') { Err(malformed("the path must not be percent-encoded here")) } else { Ok(()) }
}

/// Decodes one segment's `%XX` escapes into UTF-8.
///
/// # Errors
/// For a broken escape, text that is not UTF-8, and control characters.
pub(super) fn decode(segment: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let digits = tail.first_chunk::<2>().and_then(|pair| {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        });
        let Some(byte) = digits else { return Err(malformed("the path has a broken percent escape")) };
        bytes.push(byte);
        rest = &tail[2..];
    }
    let text = String::from_utf8(bytes).map_err(|_| malformed("the path is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(malformed("the path has a control character"));
    }
    Ok(text)
}

/// Whether a segment of a static file's path is of the narrow grammar of build outputs.
pub(super) fn is_static_segment(segment: &str) -> bool {
    segment.len() <= 128
        && !segment.bytes().all(|b| b == b'.')
        && segment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'@' | b'-' | b'+' | b','))
}
