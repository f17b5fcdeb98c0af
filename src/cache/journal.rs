//! What replicas tell each other of what was forgotten: a list that grows the same whoever hears of it in which order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Purge;

/// So many are told one by one.
const MOST: usize = 32;

/// What was forgotten, by numbers that are times: a later purge has a larger one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    /// Everything that was kept before it is forgotten, whatever it was.
    floor: u64,
    purges: BTreeMap<u64, Purge>,
}

/// What somebody has to forget who hears of a journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Everything,
    These(Vec<Purge>),
}

/// The number of a time, in milliseconds since 1970.
pub(super) fn number(wall: i64) -> u64 {
    u64::try_from(wall).unwrap_or(0) << 16
}

impl Journal {
    /// Whatever was kept before is unknown.
    pub(super) fn new(wall: i64, random: u16) -> Self {
        Self { floor: number(wall) + u64::from(random), purges: BTreeMap::new() }
    }

    /// One more.
    pub(super) fn add(&mut self, wall: i64, random: u16, purge: Purge) {
        let next = self.purges.last_key_value().map_or(self.floor, |(last, _)| *last) + 1;
        self.purges.insert(next.max(number(wall) + u64::from(random)), purge);
        self.bound();
    }

    /// All that both know.
    pub(super) fn merge(&mut self, other: &Self) {
        self.floor = self.floor.max(other.floor);
        for (number, purge) in &other.purges {
            self.purges.entry(*number).or_insert_with(|| purge.clone());
        }
        let floor = self.floor;
        self.purges.retain(|number, _| *number > floor);
        self.bound();
    }

    fn bound(&mut self) {
        while self.purges.len() > MOST {
            if let Some((number, _)) = self.purges.pop_first() {
                self.floor = number;
            }
        }
    }

    /// What has the same generation was kept since the last purge that is about the backend.
    pub(super) fn generation(&self, backend: &str) -> u64 {
        let is_of = |purge: &Purge| purge.backend.as_deref().is_none_or(|name| name == backend);
        self.purges.iter().rev().find(|(_, purge)| is_of(purge)).map_or(self.floor, |(number, _)| *number)
    }

    /// What is in it, and was not in what was known before.
    pub(super) fn news(&self, before: &Self) -> News {
        if self.floor > before.floor && !before.purges.contains_key(&self.floor) {
            return News::Everything;
        }
        let is_new = |(number, _): &(&u64, &Purge)| !before.purges.contains_key(number);
        News::These(self.purges.iter().filter(is_new).map(|(_, purge)| purge.clone()).collect())
    }

    /// What is in it since a time.
    pub(super) fn since(&self, wall: i64) -> News {
        if self.floor > number(wall) {
            return News::Everything;
        }
        News::These(self.purges.range(number(wall)..).map(|(_, purge)| purge.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn of(backend: Option<&str>) -> Purge {
        Purge { backend: backend.map(str::to_owned), ..Purge::default() }
    }

    fn merged(a: &Journal, b: &Journal) -> Journal {
        let mut both = a.clone();
        both.merge(b);
        both
    }

    #[test]
    fn whoever_hears_of_what_in_which_order_knows_the_same() {
        let start = Journal::new(1000, 7);
        let (mut a, mut b) = (start.clone(), start.clone());
        a.add(1001, 1, of(Some("x")));
        a.add(1001, 1, of(Some("y")));
        b.add(1001, 9, of(None));
        let both = merged(&a, &b);
        assert_eq!(both, merged(&b, &a));
        assert_eq!(both, merged(&both, &a), "again");
        assert_eq!(both.purges.len(), 3, "two of one moment are two");
        assert_eq!(both.news(&b), News::These(vec![of(Some("x")), of(Some("y"))]));
        assert_eq!(both.news(&both), News::These(Vec::new()));
        let again: Journal = serde_json::from_slice(&serde_json::to_vec(&both).unwrap()).unwrap();
        assert_eq!(again, both);
    }

    #[test]
    fn a_purge_begins_a_generation_of_its_backends_only() {
        let mut journal = Journal::new(1000, 0);
        let before = [journal.generation("x"), journal.generation("y")];
        journal.add(2000, 0, of(Some("x")));
        let after = [journal.generation("x"), journal.generation("y")];
        assert!(after[0] > before[0] && after[1] == before[1]);
        journal.add(3000, 0, of(None));
        let all = [journal.generation("x"), journal.generation("y")];
        assert!(all[0] > after[0] && all[1] > after[1]);
        // A clock that goes back makes none smaller.
        journal.add(10, 0, of(Some("y")));
        assert!(journal.generation("y") > all[1]);
    }

    #[test]
    fn it_stays_short_and_whoever_missed_some_forgets_everything() {
        let mut journal = Journal::new(1000, 0);
        let early = journal.clone();
        for wall in 2000..2100 {
            journal.add(wall, 0, of(Some("x")));
        }
        assert_eq!(journal.purges.len(), MOST);
        assert_eq!(journal.news(&early), News::Everything);
        let mut late = journal.clone();
        late.add(3000, 0, of(Some("y")));
        assert_eq!(late.news(&journal), News::These(vec![of(Some("y"))]), "whoever knew the rest hears of one");
        assert_eq!(journal.since(2098), News::These(vec![of(Some("x")); 2]));
        assert_eq!((journal.since(500), journal.since(5000)), (News::Everything, News::These(Vec::new())));
        assert_eq!(Journal::new(9000, 0).news(&journal), News::Everything, "another beginning");
        assert!(merged(&Journal::new(9000, 0), &journal).purges.is_empty());
    }
}
