//! Texts that were confined lately. A dashboard asks the same again with every refresh.

use std::fmt;
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

impl fmt::Debug for Confinements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confinements")
    }
}
