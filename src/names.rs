//! Which strings are a namespace, an object of Perses, a label, a token? Newtypes, one way in.
//!
//! Everything that arrives as text and is later compared, cached or written into a path to an upstream becomes one of
//! these types at the border. Nobody behind the border asks again whether the text is well-formed.

use std::fmt;
use std::sync::Arc;

/// A Kubernetes namespace, and so a Perses project: a DNS-1123 label
/// (lower-case letters, digits and `-`, 1 to 63 bytes, no `-` at either end).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Reads a namespace exactly as it is spelt; no case is folded.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (first, last) = (bytes.first()?, bytes.last()?);
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let edge = |b: &u8| inner(b) && *b != b'-';
        (bytes.len() <= 63 && edge(first) && edge(last) && bytes.iter().all(inner)).then(|| Self(Arc::from(text)))
    }

    /// Reads a project as Perses spells it: upper-case letters mean their lower-case ones.
    #[must_use]
    pub fn parse_folded(text: &str) -> Option<Self> {
        if text.len() > 63 {
            return None;
        }
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Self::parse(&text.to_ascii_lowercase());
        }
        Self::parse(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::borrow::Borrow<str> for Namespace {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The name of an object in Perses, folded to lower case as Perses itself does by default:
/// letters, digits, `_`, `-` and `.`, 1 to 75 bytes, and no `.` at the start or the end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// Reads a name and folds its case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (first, last) = (bytes.first()?, bytes.last()?);
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if bytes.len() > 75 || *first == b'.' || *last == b'.' || !bytes.iter().all(allowed) {
            return None;
        }
        Some(Self(if bytes.iter().any(u8::is_ascii_uppercase) {
            Arc::from(text.to_ascii_lowercase())
        } else {
            Arc::from(text)
        }))
    }

    /// The namespace's name; every DNS-1123 label is an object name.
    #[must_use]
    pub fn from_namespace(namespace: &Namespace) -> Self {
        Self(namespace.shared())
    }

    /// The text, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A secret in text form: never printed, wiped from no log because it never gets into one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The secret itself, for the one line that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// The nearest of some words, if it is near enough to have been meant.
pub(crate) fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    words
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.iter().enumerate() {
            let cost = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_dns_labels() {
        for good in ["a", "team-a", "0", "a--b", &"x".repeat(63)] {
            assert!(Namespace::parse(good).is_some(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "..", "a/b", "ä", "a b", &"x".repeat(64)] {
            assert!(Namespace::parse(bad).is_none(), "{bad}");
        }
        assert_eq!(Namespace::parse_folded("Team-A"), Namespace::parse("team-a"));
        assert!(Namespace::parse_folded("\u{212a}").is_none(), "only ASCII is folded");
    }

    #[test]
    fn object_names_are_folded_and_never_leave_their_folder() {
        assert_eq!(ObjectName::parse("GPU_Usage.v1").map(|n| n.to_string()), Some("gpu_usage.v1".into()));
        for bad in ["", ".", "..", ".a", "a.", "a/b", "a\\b", "a%2fb", "a b", "é", &"x".repeat(76)] {
            assert!(ObjectName::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("lisen", ["listen", "limits"]), Some("listen"));
        assert_eq!(nearest("metrics_backend", ["metrics_backends", "cache"]), Some("metrics_backends"));
        assert_eq!(nearest("zzz", ["listen", "limits"]), None);
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "<secret>");
    }
}
