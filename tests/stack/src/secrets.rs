//! Every secret that was made in this process, to be looked for in all that anybody writes down.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

/// What of a secret is looked for: its end, as what stands before may be a prefix that says of what kind it is. Whoever writes
/// down so much of one has written it down.
const END: usize = 20;

static ENDS: LazyLock<Mutex<HashSet<[u8; END]>>> = LazyLock::new(Mutex::default);

/// Remembers a secret. Short ones, such as the demo's passwords, are words that may stand anywhere and are not looked for.
pub fn note(secret: &str) {
    if let Some(end) = secret.trim().as_bytes().last_chunk() {
        ENDS.lock().unwrap_or_else(PoisonError::into_inner).insert(*end);
    }
}

/// How many are remembered.
#[must_use]
pub fn count() -> usize {
    ENDS.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// The first line of a text with a secret in it.
#[must_use]
pub fn found_in(text: &str) -> Option<&str> {
    let ends = ENDS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.lines().find(|line| {
        let words = line.as_bytes().split(|byte| !is_part(*byte));
        words.filter_map(<[u8]>::last_chunk::<END>).any(|end| ends.contains(end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_in_any_dress_and_nothing_else_is() {
        note("sha256~QmFzZTY0VGV4dE9mNDNDaGFyYWN0ZXJzXzEyMzQ1");
        note("short");
        for text in [
            "a\n{\"token\":\"sha256~QmFzZTY0VGV4dE9mNDNDaGFyYWN0ZXJzXzEyMzQ1\"}",
            "Bearer sha256%7EQmFzZTY0VGV4dE9mNDNDaGFyYWN0ZXJzXzEyMzQ1, and more",
            "…XQmFzZTY0VGV4dE9mNDNDaGFyYWN0ZXJzXzEyMzQ1",
            "the end: 0ZXJzXzEyMzQ1 NDNDaGFyYWN0ZXJzXzEyMzQ1",
        ] {
            assert_eq!(found_in(text), text.lines().last());
        }
        for text in ["", "short", "QmFzZTY0VGV4dE9mNDNDaGFyYWN0ZXJzXzEyMzQ", "sha256~ QmFzZTY0"] {
            assert_eq!(found_in(text), None, "{text}");
        }
    }
}
