//! Texts that were confined lately. A dashboard asks the same again with every refresh.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Backend;
use crate::memo::Memo;
use crate::promql::{self, Confined, Limits, Reach};

/// So many texts, and how long each may be, before and after.
const PLACES: usize = 512;
const LONGEST: usize = 2 << 10;
const LONGEST_CONFINED: usize = 8 << 10;
/// What follows from a text never changes; it goes when nobody asks any more.
const KEPT: Duration = Duration::from_secs(3600);

/// Everything that a confined text follows from.
struct Asked {
    text: String,
    reach: Reach,
    backend: Arc<Backend>,
    limits: Limits,
}

/// Confines, and remembers.
pub(super) struct Confinements(Memo<Asked, Confined>);

impl Confinements {
    pub(super) fn new() -> Self {
        Self(Memo::new(PLACES))
    }

    /// As [`promql::confine`].
    pub(super) fn confine(
        &self,
        text: &str,
        reach: &Reach,
        backend: &Arc<Backend>,
        limits: &Limits,
    ) -> Result<Confined, promql::Error> {
        let known = self.0.get(&text, |asked| {
            asked.text == text
                && asked.reach == *reach
                && Arc::ptr_eq(&asked.backend, backend)
                && asked.limits == *limits
        });
        if let Some(confined) = known {
            return Ok(confined);
        }
        let confined = promql::confine(text, reach, &backend.labels, limits, backend.features)?;
        if text.len() <= LONGEST && confined.text().len() <= LONGEST_CONFINED {
            let asked =
                Asked { text: text.to_owned(), reach: reach.clone(), backend: Arc::clone(backend), limits: *limits };
            self.0.put(self.0.ticket(), &text, asked, confined.clone(), Instant::now() + KEPT);
        }
        Ok(confined)
    }
}

/// What followed from somebody's words and from what they reach. Whoever reaches something else does not find it: only
/// [`super::Grant`] looks.
pub struct Recalled<K, V>(Memo<(Reach, K), V>);

impl<K, V: Clone> Recalled<K, V> {
    /// So many places.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self(Memo::new(places))
    }

    pub(super) fn get(&self, reach: &Reach, hint: &impl Hash, is_it: impl FnOnce(&K) -> bool) -> Option<V> {
        self.0.get(&(Near(reach), hint), |(known, key)| known == reach && is_it(key))
    }

    pub(super) fn put(&self, reach: &Reach, hint: &impl Hash, key: K, value: V) {
        self.0.put(self.0.ticket(), &(Near(reach), hint), (reach.clone(), key), value, Instant::now() + KEPT);
    }
}

/// Keeps most of those apart who reach different things, without a look at all of it.
struct Near<'r>(&'r Reach);

impl Hash for Near<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if let Reach::Namespaces(names) = self.0 {
            names.len().hash(state);
            names.first().hash(state);
            names.last().hash(state);
        }
    }
}

impl fmt::Debug for Confinements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confinements")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_a_reach_is_found_by_nobody_who_reaches_something_else() {
        let of = |names: &[&str]| Reach::Namespaces(names.iter().map(|name| Arc::from(*name)).collect());
        let all = [
            Reach::Everything,
            Reach::AnyNamespace,
            of(&[]),
            of(&["a"]),
            of(&["b"]),
            of(&["a", "b", "d"]),
            of(&["a", "c", "d"]),
        ];
        for mine in &all {
            // One place, which all of them look at.
            let recalled = Recalled::new(1);
            recalled.put(mine, &"words", "words", 1);
            for theirs in &all {
                let found = recalled.get(theirs, &"words", |known| *known == "words");
                assert_eq!(found, (mine == theirs).then_some(1), "{mine:?} {theirs:?}");
            }
            assert_eq!(recalled.get(mine, &"words", |known| *known == "others"), None);
        }
    }
}
