//! A raw object of the cluster becomes a [`Workload`]. Whoever may write the object may write anything into it, so every
//! field can be missing, of another type, or too long; then it counts as not given.

mod engine;
mod serving;
mod training;

use std::fmt;

use serde_json::Value;

use super::time;
use super::workload::{Kind, State, Workload, WorkloadName, kept};
use crate::names::Namespace;

pub use engine::engine_of_runtime;

/// Why an object is no workload of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It has no name that a cluster gives.
    Nameless,
    /// It has no namespace.
    NoNamespace,
    /// A workload that we know controls it, and stands for it.
    PartOfAnother,
    /// A plain Job that asks for no GPU.
    NoGpus,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nameless => "it has no valid name",
            Self::NoNamespace => "it has no valid namespace",
            Self::PartOfAnother => "it is part of another workload",
            Self::NoGpus => "it asks for no GPU",
        })
    }
}

/// Reads an object of a kind, as the API server writes it (any of [`Kind::versions`]).
///
/// # Errors
/// See [`Unread`].
pub fn read(kind: Kind, raw: &Value) -> Result<Workload, Unread> {
    let metadata = &raw["metadata"];
    let name = metadata["name"].as_str().and_then(WorkloadName::parse).ok_or(Unread::Nameless)?;
    let namespace = metadata["namespace"].as_str().and_then(Namespace::parse).ok_or(Unread::NoNamespace)?;
    if is_part(kind, metadata) {
        return Err(Unread::PartOfAnother);
    }
    let mut workload = Workload::bare(kind, namespace, name);
    let annotation = |key: &str| metadata["annotations"][key].as_str().and_then(kept);
    workload.title = annotation("openshift.io/display-name");
    workload.owner = annotation("opendatahub.io/username").or_else(|| annotation("openshift.io/requester"));
    workload.created = moment(&metadata["creationTimestamp"]);
    workload.queue = metadata["labels"]["kueue.x-k8s.io/queue-name"].as_str().and_then(kept);
    match kind {
        Kind::InferenceService => serving::inference_service(raw, &mut workload),
        Kind::LlmInferenceService => serving::llm_inference_service(raw, &mut workload),
        Kind::PyTorchJob | Kind::TfJob | Kind::MpiJob | Kind::XgBoostJob | Kind::PaddleJob | Kind::JaxJob => {
            training::replicated_job(raw, &mut workload);
        }
        Kind::TrainJob => training::train_job(raw, &mut workload),
        Kind::RayCluster => training::ray_cluster(raw, &mut workload),
        Kind::RayJob => training::ray_job(raw, &mut workload),
        Kind::RayService => training::ray_service(raw, &mut workload),
        Kind::LocalQueue => local_queue(raw, &mut workload),
        Kind::Notebook => serving::notebook(raw, &mut workload),
        Kind::Job => training::job(raw, &mut workload),
        Kind::Project => return Err(Unread::NoNamespace),
    }
    if kind == Kind::Job && workload.gpus == 0 {
        return Err(Unread::NoGpus);
    }
    if metadata["deletionTimestamp"].is_string() {
        workload.settle(State::Stopped, Some("it is being deleted"), moment(&metadata["deletionTimestamp"]));
    }
    Ok(workload)
}

/// Whether something that stands for it controls it. Who owns a RayCluster is also written in a label.
fn is_part(kind: Kind, metadata: &Value) -> bool {
    let of_ours = |owner: &Value| {
        let (api, word) =
            (owner["apiVersion"].as_str().unwrap_or_default(), owner["kind"].as_str().unwrap_or_default());
        let group = api.split_once('/').map_or("", |(group, _)| group);
        let shown = Kind::ALL.iter().any(|kind| kind.word() == word && kind.group() == group);
        owner["controller"] == true && (shown || (group, word) == ("jobset.x-k8s.io", "JobSet"))
    };
    let owned = metadata["ownerReferences"].as_array().is_some_and(|owners| owners.iter().any(of_ours));
    let from = metadata["labels"]["ray.io/originated-from-crd"].as_str();
    owned || kind == Kind::RayCluster && from.is_some_and(|from| from != "RayCluster")
}

fn local_queue(raw: &Value, workload: &mut Workload) {
    workload.queue = raw["spec"]["clusterQueue"].as_str().and_then(kept);
    let active = Condition::of(raw, "Active");
    match active.as_ref().map(|active| active.holds) {
        Some(true) => workload.decide(State::Ready, active),
        Some(false) => workload.decide(State::Stopped, active),
        None => {}
    }
}

/// One of `status.conditions`.
#[derive(Clone, Copy)]
struct Condition<'v> {
    holds: bool,
    reason: Option<&'v str>,
    message: Option<&'v str>,
    since: Option<i64>,
}

impl<'v> Condition<'v> {
    /// The condition of a type; of several the last, as it was appended last.
    fn of(raw: &'v Value, kind: &str) -> Option<Self> {
        let all = raw["status"]["conditions"].as_array()?;
        let found = all.iter().rev().find(|condition| condition["type"] == kind)?;
        let word = |key: &str| found[key].as_str().filter(|text| !text.is_empty());
        Some(Self {
            holds: found["status"] == "True",
            reason: word("reason"),
            message: word("message"),
            since: moment(&found["lastTransitionTime"]),
        })
    }

    /// The condition of a type, if it holds.
    fn holding(raw: &'v Value, kind: &str) -> Option<Self> {
        Self::of(raw, kind).filter(|condition| condition.holds)
    }
}

impl Workload {
    fn settle(&mut self, state: State, reason: Option<&str>, since: Option<i64>) {
        (self.state, self.reason, self.since) = (state, reason.and_then(kept), since);
    }

    /// A state with the reason and time of the condition that says so.
    fn decide(&mut self, state: State, by: Option<Condition<'_>>) {
        // What is well needs no reason.
        let reason = by.and_then(|by| by.message.or(by.reason));
        let reason = reason.filter(|_| !matches!(state, State::Ready | State::Running | State::Succeeded));
        self.settle(state, reason, by.and_then(|by| by.since));
    }

    /// What a job is that must not run now: it waits in its queue, or somebody stopped it.
    const fn held(&self) -> State {
        if self.queue.is_some() { State::Queued } else { State::Stopped }
    }
}

fn moment(value: &Value) -> Option<i64> {
    time::seconds(value.as_str()?)
}

/// A count of replicas or nodes; nobody means more than a million.
fn count(value: &Value, default: u32) -> u32 {
    value.as_u64().map_or(default, |count| u32::try_from(count.min(1 << 20)).unwrap_or(1 << 20))
}

/// Whether a resource is a GPU, by its name in the cluster.
fn is_gpu(resource: &str) -> bool {
    matches!(resource, "nvidia.com/gpu" | "amd.com/gpu" | "habana.ai/gaudi" | "gpu.intel.com/i915" | "gpu.intel.com/xe")
        || resource.starts_with("nvidia.com/mig-")
}

/// The GPUs of `{limits, requests}`: what is requested is what is the limit, so one of both counts.
fn gpus_of_resources(resources: &Value) -> u32 {
    let of = |list: &Value| {
        let entries = list.as_object().into_iter().flatten().filter(|(name, _)| is_gpu(name));
        entries.fold(0_u32, |sum, (_, value)| {
            let number = value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0);
            sum.saturating_add(u32::try_from(number.min(1 << 16)).unwrap_or(0))
        })
    };
    of(&resources["limits"]).max(of(&resources["requests"]))
}

/// The GPUs of a pod, from its spec.
fn gpus_of_pod(spec: &Value) -> u32 {
    let containers = spec["containers"].as_array().into_iter().flatten();
    containers.fold(0, |sum, container| sum.saturating_add(gpus_of_resources(&container["resources"])))
}
