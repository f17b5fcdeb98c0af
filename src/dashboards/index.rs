//! Which workloads are there? What list and watch tell, one change after the other, becomes one [`Place`] a namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::read::{engine_of_runtime, read};
use super::workload::{Engine, Kind, Runtime, Workload, WorkloadName};
use crate::names::Namespace;

/// A resource of the cluster that tells of workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watched {
    /// Workloads themselves.
    Workloads(Kind),
    /// ServingRuntime: says which engine serves a model.
    Runtimes,
    /// ClusterServingRuntime: the same for every namespace.
    ClusterRuntimes,
}

impl Watched {
    /// All of them; what workloads are made of first.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::ClusterRuntimes, Self::Runtimes].into_iter().chain(Kind::ALL.iter().copied().map(Self::Workloads))
    }

    /// The kind as objects of the cluster spell it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Workloads(kind) => kind.word(),
            Self::Runtimes => "ServingRuntime",
            Self::ClusterRuntimes => "ClusterServingRuntime",
        }
    }

    /// Its API group.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::Workloads(kind) => kind.group(),
            Self::Runtimes | Self::ClusterRuntimes => "serving.kserve.io",
        }
    }

    /// Its resource, as paths spell it.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Workloads(kind) => kind.plural(),
            Self::Runtimes => "servingruntimes",
            Self::ClusterRuntimes => "clusterservingruntimes",
        }
    }

    /// The versions that we read, the one to prefer first.
    #[must_use]
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Workloads(kind) => kind.versions(),
            Self::Runtimes | Self::ClusterRuntimes => &["v1alpha1"],
        }
    }

    /// Whether its objects lie in namespaces.
    #[must_use]
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::ClusterRuntimes)
    }
}

/// What one list or watch covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Which resource.
    pub watched: Watched,
    /// In which namespace; everywhere if there is none.
    pub namespace: Option<Namespace>,
}

/// What a list or watch tells.
#[derive(Clone, Debug)]
pub enum Change {
    /// A list begins. What is known stays until the list is whole.
    Begin,
    /// An object as it is now.
    Put(Value),
    /// An object that is there no more.
    Gone(Value),
    /// The list is whole: what it did not hold is gone.
    Whole,
    /// The cluster does not serve this, or we may not look: all of it is gone.
    Unserved,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Workloads in all.
    pub everywhere: usize,
    /// Workloads in one namespace, so that no namespace takes the room of others.
    pub in_namespace: usize,
}

/// The workloads of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// By kind and name.
    workloads: Box<[Arc<Workload>]>,
    /// The namespace as a whole.
    project: Arc<Workload>,
}

impl Place {
    /// A namespace with these workloads, which lie in it.
    #[must_use]
    pub fn new(namespace: &Namespace, mut workloads: Vec<Arc<Workload>>) -> Self {
        workloads.sort_unstable_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        let gpus = workloads.iter().fold(0_u32, |sum, workload| sum.saturating_add(workload.gpus));
        Self { workloads: workloads.into(), project: Arc::new(Workload::project(namespace, gpus)) }
    }

    /// Its workloads, by kind and name.
    #[must_use]
    pub fn workloads(&self) -> &[Arc<Workload>] {
        &self.workloads
    }

    /// The namespace as a whole.
    #[must_use]
    pub fn project(&self) -> &Arc<Workload> {
        &self.project
    }

    /// A workload.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &WorkloadName) -> Option<&Arc<Workload>> {
        if kind == Kind::Project {
            return (*name == self.project.name).then_some(&self.project);
        }
        let at = self.workloads.binary_search_by(|workload| (workload.kind, &workload.name).cmp(&(kind, name)));
        at.ok().map(|at| &self.workloads[at])
    }
}

/// One workload that is known.
struct Held {
    /// With the engine of its runtime.
    workload: Arc<Workload>,
    /// What its own fields let us guess.
    guess: Engine,
    /// The list of its source that told of it last.
    list: u64,
}

/// Everything that is known, and what of it changes.
pub struct Index {
    most: Most,
    namespaces: BTreeMap<Namespace, BTreeMap<(Kind, WorkloadName), Held>>,
    /// Engines by namespace and runtime; those of the whole cluster have no namespace.
    runtimes: BTreeMap<(Option<Namespace>, WorkloadName), (Option<Engine>, u64)>,
    lists: HashMap<Source, u64>,
    counts: BTreeMap<Kind, usize>,
    left_out: u64,
}

/// Namespaces that changed, and what they are now; `None` for one without any workload.
pub type Changed = Vec<(Namespace, Option<Arc<Place>>)>;

impl Index {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(most: Most) -> Self {
        Self {
            most,
            namespaces: BTreeMap::new(),
            runtimes: BTreeMap::new(),
            lists: HashMap::new(),
            counts: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// How many workloads of a kind are known.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// How often a workload was left out because there is no room for it.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Takes in what a source tells. An object that lies elsewhere than its source covers is none of it.
    pub fn apply(&mut self, source: &Source, changes: impl IntoIterator<Item = Change>) -> Changed {
        let mut touched = BTreeSet::new();
        for change in changes {
            match change {
                Change::Begin => *self.lists.entry(source.clone()).or_default() += 1,
                Change::Whole => {
                    let list = self.list(source);
                    self.sweep(source, &mut touched, |seen| seen == list);
                }
                Change::Unserved => self.sweep(source, &mut touched, |_| false),
                Change::Put(raw) => self.put(source, &raw, &mut touched),
                Change::Gone(raw) => self.gone(source, &raw, &mut touched),
            }
        }
        touched.into_iter().map(|namespace| self.place(namespace)).collect()
    }

    fn list(&self, source: &Source) -> u64 {
        self.lists.get(source).copied().unwrap_or_default()
    }

    fn place(&mut self, namespace: Namespace) -> (Namespace, Option<Arc<Place>>) {
        let Some(held) = self.namespaces.get(&namespace) else { return (namespace, None) };
        if held.is_empty() {
            self.namespaces.remove(&namespace);
            return (namespace, None);
        }
        let workloads = held.values().map(|held| Arc::clone(&held.workload)).collect();
        let place = Place::new(&namespace, workloads);
        (namespace, Some(Arc::new(place)))
    }

    fn put(&mut self, source: &Source, raw: &Value, touched: &mut BTreeSet<Namespace>) {
        let list = self.list(source);
        let Watched::Workloads(kind) = source.watched else {
            if let Some(key) = key_of_runtime(source, raw) {
                let engine = engine_of_runtime(raw);
                let before = self.runtimes.get(&key).map(|(engine, _)| *engine);
                if before.is_some() || self.runtimes.len() < self.most.everywhere {
                    self.runtimes.insert(key.clone(), (engine, list));
                    if before != Some(engine) {
                        self.resolve(&key, touched);
                    }
                }
            }
            return;
        };
        let Ok(workload) = read(kind, raw) else { return self.gone(source, raw, touched) };
        if source.namespace.as_ref().is_some_and(|covered| *covered != workload.namespace) {
            return;
        }
        let (namespace, key, guess) = (workload.namespace.clone(), (kind, workload.name.clone()), workload.engine);
        let engine = workload.runtime.as_ref().and_then(|runtime| self.engine(&namespace, runtime));
        let workload = workload.with_runtime(engine);
        let total: usize = self.counts.values().sum();
        let here = self.namespaces.get(&namespace).map_or(0, BTreeMap::len);
        let known = self.namespaces.get_mut(&namespace).and_then(|held| held.get_mut(&key));
        if let Some(known) = known {
            (known.list, known.guess) = (list, guess);
            if *known.workload != workload {
                known.workload = Arc::new(workload);
                touched.insert(namespace);
            }
            return;
        }
        if total >= self.most.everywhere || here >= self.most.in_namespace {
            self.left_out += 1;
            return;
        }
        let held = Held { workload: Arc::new(workload), guess, list };
        self.namespaces.entry(namespace.clone()).or_default().insert(key, held);
        *self.counts.entry(kind).or_default() += 1;
        touched.insert(namespace);
    }

    fn gone(&mut self, source: &Source, raw: &Value, touched: &mut BTreeSet<Namespace>) {
        let Watched::Workloads(kind) = source.watched else {
            if let Some(key) = key_of_runtime(source, raw)
                && self.runtimes.remove(&key).is_some()
            {
                self.resolve(&key, touched);
            }
            return;
        };
        let text = |key: &str| raw["metadata"][key].as_str().unwrap_or_default();
        let (Some(namespace), Some(name)) = (Namespace::parse(text("namespace")), WorkloadName::parse(text("name")))
        else {
            return;
        };
        if source.namespace.as_ref().is_some_and(|covered| *covered != namespace) {
            return;
        }
        if self.namespaces.get_mut(&namespace).and_then(|held| held.remove(&(kind, name))).is_some() {
            if let Some(count) = self.counts.get_mut(&kind) {
                *count -= 1;
            }
            touched.insert(namespace);
        }
    }

    /// Forgets what a source covers and does not keep.
    fn sweep(&mut self, source: &Source, touched: &mut BTreeSet<Namespace>, keep: impl Fn(u64) -> bool) {
        let covers = |namespace: &Namespace| source.namespace.as_ref().is_none_or(|covered| covered == namespace);
        let Watched::Workloads(kind) = source.watched else {
            let cluster = source.watched == Watched::ClusterRuntimes;
            let of_source = |key: &(Option<Namespace>, WorkloadName)| match &key.0 {
                None => cluster,
                Some(namespace) => !cluster && covers(namespace),
            };
            let gone: Vec<_> = self
                .runtimes
                .iter()
                .filter(|(key, (_, list))| of_source(key) && !keep(*list))
                .map(|(key, _)| key.clone())
                .collect();
            for key in gone {
                self.runtimes.remove(&key);
                self.resolve(&key, touched);
            }
            return;
        };
        for (namespace, held) in self.namespaces.iter_mut().filter(|(namespace, _)| covers(namespace)) {
            let before = held.len();
            held.retain(|(of, _), held| *of != kind || keep(held.list));
            if held.len() != before {
                touched.insert(namespace.clone());
                if let Some(count) = self.counts.get_mut(&kind) {
                    *count -= before - held.len();
                }
            }
        }
    }

    /// The engine of a runtime. What a spec names may be a runtime of the cluster too; only a status says which.
    fn engine(&self, namespace: &Namespace, runtime: &Runtime) -> Option<Engine> {
        let of = |namespace: Option<&Namespace>| {
            self.runtimes.get(&(namespace.cloned(), runtime.name.clone())).map(|(engine, _)| *engine)
        };
        if runtime.cluster { of(None) } else { of(Some(namespace)).or_else(|| of(None)) }.flatten()
    }

    /// Looks again at the workloads of a runtime that changed.
    fn resolve(&mut self, (namespace, name): &(Option<Namespace>, WorkloadName), touched: &mut BTreeSet<Namespace>) {
        let of_it = |workload: &Workload| workload.runtime.as_ref().is_some_and(|runtime| runtime.name == *name);
        let mut stale = Vec::new();
        for (here, held) in &self.namespaces {
            if namespace.as_ref().is_none_or(|namespace| namespace == here) {
                let keys = held.iter().filter(|(_, held)| of_it(&held.workload)).map(|(key, _)| key.clone());
                stale.extend(keys.map(|key| (here.clone(), key)));
            }
        }
        for (here, key) in stale {
            let Some(held) = self.namespaces.get(&here).and_then(|held| held.get(&key)) else { continue };
            let runtime = held.workload.runtime.as_ref();
            let engine = runtime.and_then(|runtime| self.engine(&here, runtime)).unwrap_or(held.guess);
            if engine == held.workload.engine {
                continue;
            }
            let workload = Arc::new(Workload { engine, ..(*held.workload).clone() });
            if let Some(held) = self.namespaces.get_mut(&here).and_then(|held| held.get_mut(&key)) {
                held.workload = workload;
            }
            touched.insert(here);
        }
    }
}

fn key_of_runtime(source: &Source, raw: &Value) -> Option<(Option<Namespace>, WorkloadName)> {
    let name = WorkloadName::parse(raw["metadata"]["name"].as_str()?)?;
    if source.watched == Watched::ClusterRuntimes {
        return Some((None, name));
    }
    let namespace = Namespace::parse(raw["metadata"]["namespace"].as_str()?)?;
    source.namespace.as_ref().is_none_or(|covered| *covered == namespace).then_some((Some(namespace), name))
}

#[cfg(test)]
mod tests;
