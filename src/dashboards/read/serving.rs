//! What serves: models and notebooks.

use serde_json::Value;

use super::super::workload::{Runtime, State, Workload, WorkloadName, kept};
use super::engine::{engine_of_containers, engine_of_word};
use super::{Condition, count, gpus_of_pod, gpus_of_resources, moment};

pub(super) fn inference_service(raw: &Value, workload: &mut Workload) {
    let (predictor, status) = (&raw["spec"]["predictor"], &raw["status"]);
    let model = &predictor["model"];
    let name = |value: &Value| value.as_str().and_then(WorkloadName::parse);
    let cluster = name(&status["clusterServingRuntimeName"]).map(|name| Runtime { name, cluster: true });
    let own = || name(&status["servingRuntimeName"]).map(|name| Runtime { name, cluster: false });
    workload.runtime =
        cluster.or_else(own).or_else(|| name(&model["runtime"]).map(|name| Runtime { name, cluster: false }));
    let guess = engine_of_containers(predictor)
        .or_else(|| engine_of_word(workload.runtime.as_ref()?.name.as_str()))
        .or_else(|| engine_of_word(model["modelFormat"]["name"].as_str()?));
    workload.engine = guess.unwrap_or(workload.engine);
    let containers = predictor["containers"].as_array().map_or(&[][..], Vec::as_slice);
    workload.model = containers.iter().chain([model]).find_map(|container| served_name(&container["args"]));

    let worker = &predictor["workerSpec"];
    let workers = count(&worker["pipelineParallelSize"], 1).saturating_sub(1);
    let each = gpus_of_resources(&model["resources"])
        .saturating_add(gpus_of_pod(predictor))
        .saturating_add(gpus_of_pod(worker).saturating_mul(workers));
    workload.gpus = each.saturating_mul(count(&predictor["minReplicas"], 1).max(1));

    let ready = Condition::of(raw, "Ready");
    let states = &status["modelStatus"];
    let stopped = raw["metadata"]["annotations"]["serving.kserve.io/stop"] == "true";
    if stopped || Condition::holding(raw, "Stopped").is_some() {
        let since = Condition::holding(raw, "Stopped").or(ready).and_then(|condition| condition.since);
        workload.settle(State::Stopped, None, since);
    } else if ready.is_some_and(|ready| ready.holds) {
        workload.decide(State::Ready, ready);
    } else if matches!(states["transitionStatus"].as_str(), Some("BlockedByFailedLoad" | "InvalidSpec"))
        || states["states"]["targetModelState"] == "FailedToLoad"
    {
        let failure = &states["lastFailureInfo"];
        let reason = failure["message"].as_str().or_else(|| failure["reason"].as_str());
        let since = moment(&failure["time"]).or_else(|| ready.and_then(|ready| ready.since));
        workload.settle(State::Failed, reason.or_else(|| ready.and_then(|ready| ready.reason)), since);
    } else if ready.is_some() {
        workload.decide(State::Starting, ready);
    }
}

pub(super) fn llm_inference_service(raw: &Value, workload: &mut Workload) {
    let spec = &raw["spec"];
    workload.model = spec["model"]["name"].as_str().and_then(kept);
    // Leader and workers are one replica over several nodes.
    let of = |part: &Value| {
        let parallel = &part["parallelism"];
        let local = count(&parallel["dataLocal"], 1).max(1);
        let nodes = count(&parallel["pipeline"], 1).max(count(&parallel["data"], 1) / local).max(1);
        let workers = gpus_of_pod(&part["worker"]).saturating_mul(nodes.saturating_sub(1));
        let replica = gpus_of_pod(&part["template"]).saturating_add(workers);
        replica.saturating_mul(count(&part["replicas"], 1))
    };
    workload.gpus = of(spec).saturating_add(of(&spec["prefill"]));
    let ready = Condition::of(raw, "Ready");
    if raw["metadata"]["annotations"]["serving.kserve.io/stop"] == "true" {
        workload.settle(State::Stopped, None, ready.and_then(|ready| ready.since));
    } else if let Some(ready) = ready {
        workload.decide(if ready.holds { State::Ready } else { State::Starting }, Some(ready));
    }
}

/// `--served-model-name`; what a controller will put in later is no name.
fn served_name(arguments: &Value) -> Option<Box<str>> {
    let list = arguments.as_array()?;
    let flag = "--served-model-name";
    let at = list.iter().position(|word| word.as_str().is_some_and(|word| word.starts_with(flag)))?;
    let name = match list[at].as_str()?.strip_prefix(flag)? {
        "" => list.get(at + 1)?.as_str()?,
        with => with.strip_prefix('=')?,
    };
    if name.contains("{{") || name.contains("$(") || name.starts_with("--") { None } else { kept(name) }
}

pub(super) fn notebook(raw: &Value, workload: &mut Workload) {
    let status = &raw["status"];
    workload.gpus = gpus_of_pod(&raw["spec"]["template"]["spec"]);
    let stopped = &raw["metadata"]["annotations"]["kubeflow-resource-stopped"];
    let state = &status["containerState"];
    if stopped.is_string() {
        workload.settle(State::Stopped, None, moment(stopped));
    } else if count(&status["readyReplicas"], 0) > 0 {
        workload.settle(State::Ready, None, moment(&state["running"]["startedAt"]));
    } else if state["terminated"].is_object() {
        let ended = &state["terminated"];
        workload.settle(State::Failed, ended["reason"].as_str(), moment(&ended["finishedAt"]));
    } else if let Some(reason) = state["waiting"]["reason"].as_str() {
        // Kubelet goes on trying, but a person must do something.
        let hopeless = reason.ends_with("BackOff") || reason.starts_with("Err") || reason.ends_with("Error");
        workload.settle(if hopeless { State::Failed } else { State::Starting }, Some(reason), None);
    } else if status["conditions"].is_array() || state.is_object() {
        workload.settle(State::Starting, None, None);
    }
}
