//! Which kinds does the cluster serve? Asked now and then, so that a CRD which comes or goes is seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::{Known, follow};
use crate::cluster::{Cluster, ClusterError};
use crate::config;
use crate::dashboards::{Change, Source, Watched};

/// The versions in which each resource is served, or `None` where that could not be found out.
type Served = BTreeMap<Watched, Option<&'static str>>;

/// Starts a follower for each kind that is served, and ends it when the kind is gone.
pub(super) async fn supervise(known: Arc<Known>, cluster: Arc<Cluster>, settings: config::Workloads) {
    let mut running: HashMap<Source, (&str, Follower)> = HashMap::new();
    let mut told = false;
    loop {
        match look(&cluster, &settings).await {
            Ok(served) => {
                told = false;
                for (watched, version) in served {
                    for source in sources(watched, &settings) {
                        let before = running.get(&source).map(|(version, _)| *version);
                        if before == version {
                            continue;
                        }
                        if let Some((_, follower)) = running.remove(&source) {
                            follower.end().await;
                        }
                        match version {
                            None => {
                                tracing::info!(kind = watched.word(), "The cluster does not serve this kind any more");
                                known.apply(&source, [Change::Unserved]);
                            }
                            Some(version) => {
                                let follower =
                                    follow::follow(Arc::clone(&known), Arc::clone(&cluster), source.clone(), version);
                                running.insert(source, (version, Follower(tokio::spawn(follower))));
                            }
                        }
                    }
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(cause = %error, "Which kinds the cluster serves cannot be found out; what is known stays");
                }
            }
        }
        tokio::time::sleep(settings.discovery).await;
    }
}

/// A follower at work; it ends when this is dropped.
struct Follower(JoinHandle<()>);

impl Follower {
    /// Ends it, and waits until it tells nothing more.
    async fn end(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn sources(watched: Watched, settings: &config::Workloads) -> Vec<Source> {
    if settings.namespaces.is_empty() || !watched.is_namespaced() {
        return vec![Source { watched, namespace: None }];
    }
    let of = |namespace: &crate::names::Namespace| Source { watched, namespace: Some(namespace.clone()) };
    settings.namespaces.iter().map(of).collect()
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
}

/// What is served of what we would watch. A kind of whose version nothing can be said is left out.
async fn look(cluster: &Cluster, settings: &config::Workloads) -> Result<Served, ClusterError> {
    let nonsense = |path: &str, error: serde_json::Error| ClusterError::Failed(format!("{path}: {error}"));
    let (status, body) = cluster.read("/apis").await?;
    if status != StatusCode::OK {
        return Err(ClusterError::Failed(format!("/apis: status {status}")));
    }
    let groups: Groups = serde_json::from_slice(&body).map_err(|error| nonsense("/apis", error))?;
    let offered = |group: &str, version: &str| {
        let found = groups.groups.iter().find(|known| known.name == group);
        found.is_some_and(|found| found.versions.iter().any(|known| known.version == version))
    };
    let wanted: Vec<Watched> = settings.watched().collect();
    let mut resources: BTreeMap<(&str, &str), Option<BTreeSet<String>>> = BTreeMap::new();
    for watched in &wanted {
        for version in watched.versions() {
            let key = (watched.group(), *version);
            if !offered(key.0, key.1) || resources.contains_key(&key) {
                continue;
            }
            let path = format!("/apis/{}/{}", key.0, key.1);
            let names = match cluster.read(&path).await {
                Ok((StatusCode::OK, body)) => serde_json::from_slice::<Resources>(&body)
                    .ok()
                    .map(|list| list.resources.into_iter().map(|resource| resource.name).collect()),
                Ok((StatusCode::NOT_FOUND, _)) => Some(BTreeSet::new()),
                Ok(_) | Err(_) => None,
            };
            resources.insert(key, names);
        }
    }
    Ok(wanted.into_iter().filter_map(|watched| Some((watched, choose(watched, &resources)?))).collect())
}

/// The first of our versions that has the resource; nothing at all if one before it did not say.
fn choose(
    watched: Watched,
    resources: &BTreeMap<(&str, &str), Option<BTreeSet<String>>>,
) -> Option<Option<&'static str>> {
    for version in watched.versions() {
        match resources.get(&(watched.group(), *version)) {
            Some(Some(names)) if names.contains(watched.plural()) => return Some(Some(version)),
            Some(None) => return None,
            Some(Some(_)) | None => {}
        }
    }
    Some(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboards::Kind;

    #[test]
    fn the_first_version_that_has_it_and_nothing_when_one_does_not_say() {
        let llm = Watched::Workloads(Kind::LlmInferenceService);
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
        let group = "serving.kserve.io";
        let (new, old) = ((group, "v1alpha2"), (group, "v1alpha1"));
        let all = names(&["llminferenceservices", "servingruntimes"]);
        for (resources, expected) in [
            (vec![], Some(None)),
            (vec![(new, all.clone()), (old, all.clone())], Some(Some("v1alpha2"))),
            (vec![(new, names(&["other"])), (old, all.clone())], Some(Some("v1alpha1"))),
            (vec![(old, all.clone())], Some(Some("v1alpha1"))),
            (vec![(new, None), (old, all.clone())], None),
            (vec![(new, all.clone()), (old, None)], Some(Some("v1alpha2"))),
            (vec![(new, names(&["llminferenceservices/status"]))], Some(None)),
        ] {
            assert_eq!(choose(llm, &resources.clone().into_iter().collect()), expected, "{resources:?}");
        }
    }
}
