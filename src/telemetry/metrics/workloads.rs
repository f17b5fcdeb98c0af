//! What is known of workloads, and what it costs to know it.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::dashboards::{Kind, Watched};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// What is known of workloads, by the kinds that we know.
pub struct WorkloadMetrics {
    known: Vec<(Kind, Gauge<i64, AtomicI64>)>,
    lists: Vec<(Watched, Counter<u64, AtomicU64>)>,
    failures: Vec<(Watched, Counter<u64, AtomicU64>)>,
    left_out: Gauge,
}

impl WorkloadMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let family = Family::<KindLabel, Gauge>::default();
        registry.register("workloads", "Workloads that are known", family.clone());
        let known = Kind::ALL
            .iter()
            .map(|kind| (*kind, family.get_or_create_owned(&KindLabel { kind: kind.word() })))
            .collect();
        let mut counters = |name: &str, help: &str| {
            let family = Family::<KindLabel, Counter>::default();
            registry.register(name, help, family.clone());
            let of = |watched: Watched| (watched, family.get_or_create_owned(&KindLabel { kind: watched.word() }));
            Watched::all().map(of).collect()
        };
        let lists = counters("workload_lists", "Lists of a kind that were read whole");
        let failures = counters("workload_watch_errors", "Lists and watches of a kind that failed");
        let left_out = Gauge::default();
        registry.register(
            "workloads_left_out",
            "How often a workload was left out because workloads.most or most_in_namespace is reached",
            left_out.clone(),
        );
        Self { known, lists, failures, left_out }
    }

    /// So many of a kind are known.
    pub fn known(&self, kind: Kind, count: usize) {
        if let Some((_, gauge)) = self.known.iter().find(|(known, _)| *known == kind) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A list was read to its end.
    pub fn listed(&self, watched: Watched) {
        if let Some((_, counter)) = self.lists.iter().find(|(known, _)| *known == watched) {
            counter.inc();
        }
    }

    /// A list or watch failed.
    pub fn failed(&self, watched: Watched) {
        if let Some((_, counter)) = self.failures.iter().find(|(known, _)| *known == watched) {
            counter.inc();
        }
    }

    /// So often there was no room.
    pub fn left_out(&self, times: u64) {
        self.left_out.set(i64::try_from(times).unwrap_or(i64::MAX));
    }
}
