//! `workloads`: which workloads of the cluster are found.

use std::time::Duration;

use super::section::{HOUR, Notes, SECOND, Section};
use crate::dashboards::{Kind, Most, Watched};
use crate::names::{Namespace, nearest};

/// The most namespaces that are watched one by one: each takes a connection for each kind.
const MOST_NAMESPACES: usize = 50;

/// `workloads`: which workloads of the cluster are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workloads {
    /// `workloads.enabled`, default true.
    pub enabled: bool,
    /// `workloads.namespaces`: those that are watched, one by one; all of the cluster at once if empty.
    pub namespaces: Vec<Namespace>,
    /// `workloads.exclude`: kinds that are not watched.
    pub exclude: Vec<Kind>,
    /// `workloads.discovery`, default 30 s: how often the cluster is asked which kinds it serves.
    pub discovery: Duration,
    /// `workloads.most`, default 20000, and `workloads.most_in_namespace`, default 2000.
    pub most: Most,
}

impl Workloads {
    /// What is watched.
    pub fn watched(&self) -> impl Iterator<Item = Watched> {
        Watched::all().filter(|watched| match watched {
            Watched::Workloads(kind) => !self.exclude.contains(kind),
            Watched::Runtimes | Watched::ClusterRuntimes => !self.exclude.contains(&Kind::InferenceService),
        })
    }
}

pub(super) fn read(root: &mut Section<'_>, notes: &mut Notes) -> Workloads {
    let mut section = root.section("workloads", notes);
    let enabled = section.flag("enabled", true, notes);
    let namespaces = section.list("namespaces", notes, |text| {
        Namespace::parse(text).ok_or_else(|| format!("expected the name of a namespace, not {text:?}"))
    });
    if namespaces.len() > MOST_NAMESPACES {
        let message =
            format!("at most {MOST_NAMESPACES} are watched one by one; leave it out to watch the whole cluster");
        section.problem(notes, "namespaces", message);
    }
    let exclude = section.list("exclude", notes, |text| {
        Kind::ALL.iter().copied().find(|kind| kind.word() == text).ok_or_else(|| {
            let near = nearest(text, Kind::ALL.iter().map(|kind| kind.word()));
            let near = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            format!("there is no kind {text:?}{near}")
        })
    });
    let discovery = section.duration("discovery", 30 * SECOND, (SECOND / 10, HOUR), notes);
    let most = Most {
        everywhere: section.count("most", 20_000, (1, 1_000_000), notes),
        in_namespace: section.count("most_in_namespace", 2000, (1, 1_000_000), notes),
    };
    section.finish(notes);
    Workloads { enabled, namespaces, exclude, discovery, most }
}
