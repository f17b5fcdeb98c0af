//! Under which bytes something is kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::queue::Queue;
use crate::extents::{Grid, Rules, Span};
use crate::route::{Form, push_pair};
use crate::upstream::Question;

/// Changes when what is kept is written in another way.
const VERSION: u8 = 1;

const KIND: usize = 1;
const POINTS: u8 = b'p';
const SPAN: u8 = b's';
const UNFIT: u8 = b'u';
const WHOLE: u8 = b'w';
const SHARED: u8 = b'x';

const WIDE: usize = 2;
const GENERATION: std::ops::Range<usize> = 3..11;
/// Where the question begins.
const QUESTION: usize = 43;

/// Where everything of one backend is kept.
pub struct Place {
    name: String,
    /// A digest of what the backend is.
    identity: [u8; 32],
    /// What was kept under another generation is not found any more.
    generation: AtomicU64,
    pub(super) queue: Arc<Queue>,
}

impl Place {
    /// Forgets everything of the backend.
    pub(super) fn next(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The backend's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a key is one of this backend's.
    pub(super) fn owns(&self, key: &[u8]) -> bool {
        key.get(11..QUESTION).is_some_and(|identity| *identity == self.identity)
    }
}

/// All places.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<[u8; 32], Arc<Place>>>);

impl Places {
    pub(super) fn of(&self, name: &str, described: &[u8]) -> Arc<Place> {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, described);
        let mut identity = [0; 32];
        identity.copy_from_slice(digest.as_ref());
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(identity).or_insert_with(|| {
            Arc::new(Place { name: name.to_owned(), identity, generation: AtomicU64::new(0), queue: Arc::default() })
        }))
    }

    pub(super) fn each(&self, mut f: impl FnMut(&Arc<Place>)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(&mut f);
    }
}

/// The bytes. All fields have a length that is fixed or written before them, so that no two questions share a key.
pub(super) struct Key {
    bytes: Vec<u8>,
    length: usize,
}

impl Key {
    /// Of what is known of a question on a grid.
    pub(super) fn points(place: &Place, wide: bool, question: &Question, grid: Grid) -> Self {
        let mut key = Self::new(POINTS, place, wide, question);
        key.bytes.extend_from_slice(&grid.step().to_le_bytes());
        key.bytes.extend_from_slice(&grid.phase().to_le_bytes());
        key.length = key.bytes.len();
        key
    }

    /// Of a whole answer.
    pub(super) fn whole(place: &Place, wide: bool, question: &Question) -> Self {
        Self::new(WHOLE, place, wide, question)
    }

    fn new(kind: u8, place: &Place, wide: bool, question: &Question) -> Self {
        let mut bytes = Vec::with_capacity(128 + question.length());
        // Who reads everything is never one with those who read a list, however it is spelt.
        bytes.extend_from_slice(&[VERSION, kind, u8::from(wide)]);
        bytes.extend_from_slice(&place.generation().to_le_bytes());
        bytes.extend_from_slice(&place.identity);
        question.write_key(&mut bytes);
        let length = bytes.len();
        Self { bytes, length }
    }

    /// What is known.
    pub(super) fn base(&self) -> Vec<u8> {
        self.bytes[..self.length].to_vec()
    }

    /// The answer for a span.
    pub(super) fn span(&self, span: Span) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length + 16);
        bytes.extend_from_slice(&self.bytes);
        bytes[KIND] = SPAN;
        bytes.extend_from_slice(&span.from.to_le_bytes());
        bytes.extend_from_slice(&span.to.to_le_bytes());
        bytes
    }

    /// Of some points for all replicas that call them final alike, in a generation of all replicas. `base` is what is known.
    pub(super) fn shared(base: &[u8], generation: u64, rules: &Rules, span: Span) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(base.len() + 32);
        bytes.extend_from_slice(base);
        bytes[KIND] = SHARED;
        bytes[GENERATION].copy_from_slice(&generation.to_le_bytes());
        for number in [rules.settle, rules.not_before, span.from, span.to] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// That answers cannot be taken apart.
    pub(super) fn unfit(&self) -> Vec<u8> {
        let mut bytes = self.base();
        bytes[KIND] = UNFIT;
        bytes
    }
}

/// Whether what stands under a key may hold data of a namespace and of a metric. Rather yes than no.
pub(super) fn touches(key: &[u8], namespace: Option<&str>, metric: Option<&str>) -> bool {
    let texts = texts(key).unwrap_or_default();
    // A confined text names each of its namespaces.
    let of_namespace = |name: &str| texts.iter().any(|text| text.contains(name));
    let wide = key.get(WIDE).is_none_or(|wide| *wide != 0) || texts.is_empty();
    let of_metric = |name: &str| texts.is_empty() || texts.iter().any(|text| text.contains(name) || is_nameless(text));
    namespace.is_none_or(|name| wide || of_namespace(name)) && metric.is_none_or(of_metric)
}

/// The other parameters of the question under a key, if it is about this text.
pub(super) fn parameters(key: &[u8], text: &str) -> Option<String> {
    let mut query = String::new();
    push_pair(&mut query, "query", text);
    let rest = form(key)?.strip_prefix(query.as_str())?;
    rest.is_empty().then(String::new).or_else(|| rest.strip_prefix('&').map(str::to_owned))
}

/// The queries and selectors of the question under a key.
fn texts(key: &[u8]) -> Option<Vec<String>> {
    let mut form = Form::parse(form(key)?).ok()?;
    let texts = form.take_all("query").into_iter().chain(form.take_all("match[]"));
    Some(texts.map(std::borrow::Cow::into_owned).collect())
}

/// The form of the question under a key.
fn form(key: &[u8]) -> Option<&str> {
    let mut rest = key.get(QUESTION..)?;
    let mut field = || {
        let (length, behind) = rest.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let field = behind.get(..length)?;
        rest = &behind[length..];
        Some(field)
    };
    let (_method, _path, form) = (field()?, field()?, field()?);
    std::str::from_utf8(form).ok()
}

/// Whether a text may have a selector that does not begin with a metric's name.
fn is_nameless(text: &str) -> bool {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    let bytes = text.as_bytes();
    let braces = memchr::memchr_iter(b'{', bytes);
    text.contains("__name__") || braces.into_iter().any(|at| at == 0 || !name(bytes[at - 1]))
}

#[cfg(test)]
mod tests {
    use super::is_nameless;

    #[test]
    fn selectors_without_a_name_are_noticed() {
        for text in [r#"{namespace="a"}"#, r#"sum({namespace="a"})"#, r#"up{a="b"} + {a="b"}"#, r#"{__name__=~"x.*"}"#]
        {
            assert!(is_nameless(text), "{text}");
        }
        assert!(!is_nameless(r#"sum by (a) (rate(up{namespace="a"}[5m])) / job:x{namespace="a"}"#));
    }
}
