//! What runs in the cluster? Lists and watches the kinds that it serves, and keeps of each workload the few fields of
//! [`Workload`](crate::dashboards::Workload).
//!
//! One supervisor asks now and then which kinds are served and starts or ends one follower for each. A follower lists in
//! pages, watches from where the list ended, and goes on from the last version it heard of whatever breaks; it lists anew
//! only when the API server has forgotten that version. What it hears goes through one [`Index`], and what changes is put
//! where requests find it: one place for each namespace, found by name, so that nothing is looked up for a namespace that
//! nobody has been granted.

mod follow;
mod lines;
mod pause;
mod served;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::task::AbortHandle;

use crate::cluster::Cluster;
use crate::config;
use crate::dashboards::{Change, Index, Place, Source, Watched};
use crate::names::Namespace;
use crate::telemetry::metrics::Metrics;

/// The workloads of the cluster, as of a moment ago. Watching ends when this is dropped.
pub struct Workloads {
    known: Arc<Known>,
    supervisor: Option<AbortHandle>,
}

/// What followers fill and requests read.
struct Known {
    places: RwLock<HashMap<Namespace, Arc<Place>>>,
    index: Mutex<Index>,
    metrics: Arc<Metrics>,
}

impl Workloads {
    /// Begins to watch, unless that is switched off.
    #[must_use]
    pub fn start(cluster: &Arc<Cluster>, settings: &config::Workloads, metrics: &Arc<Metrics>) -> Self {
        let known = Arc::new(Known {
            places: RwLock::default(),
            index: Mutex::new(Index::new(settings.most)),
            metrics: Arc::clone(metrics),
        });
        known.forget();
        let supervisor = settings.enabled.then(|| {
            let task = served::supervise(Arc::clone(&known), Arc::clone(cluster), settings.clone());
            tokio::spawn(task).abort_handle()
        });
        Self { known, supervisor }
    }

    /// The workloads of a namespace, if it has any.
    #[must_use]
    pub fn place(&self, namespace: &Namespace) -> Option<Arc<Place>> {
        self.known.places.read().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned()
    }

    /// Those of several, in their order.
    #[must_use]
    pub fn places(&self, namespaces: &[Namespace]) -> Vec<Arc<Place>> {
        let places = self.known.places.read().unwrap_or_else(PoisonError::into_inner);
        namespaces.iter().filter_map(|namespace| places.get(namespace).cloned()).collect()
    }
}

impl Drop for Workloads {
    fn drop(&mut self) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.abort();
        }
    }
}

impl Known {
    /// Takes in what a source tells.
    fn apply(&self, source: &Source, changes: impl IntoIterator<Item = Change>) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = index.apply(source, changes);
        // Still under the lock of the index: places are put in the order in which they came to be.
        if !changed.is_empty() {
            let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
            for (namespace, place) in changed {
                match place {
                    Some(place) => places.insert(namespace, place),
                    None => places.remove(&namespace),
                };
            }
        }
        if let Watched::Workloads(kind) = source.watched {
            self.metrics.workloads().known(kind, index.count(kind));
        }
        self.metrics.workloads().left_out(index.left_out());
    }

    /// Nothing is known yet.
    fn forget(&self) {
        for kind in crate::dashboards::Kind::ALL {
            self.metrics.workloads().known(*kind, 0);
        }
    }
}
