//! What works at something that ends, and the clusters that it works on.

use serde_json::Value;

use super::super::workload::{Progress, State, Workload, kept};
use super::{Condition, count, gpus_of_pod, gpus_of_resources, moment};

/// PyTorchJob and its siblings: `xReplicaSpecs`, and conditions of which the one that ends it counts first.
pub(super) fn replicated_job(raw: &Value, workload: &mut Workload) {
    let (spec, status) = (&raw["spec"], &raw["status"]);
    let groups = spec.as_object().into_iter().flatten().filter(|(key, _)| key.ends_with("ReplicaSpecs"));
    for (_, group) in groups {
        for replica in group.as_object().into_iter().flatten().map(|(_, replica)| replica) {
            let each = gpus_of_pod(&replica["template"]["spec"]);
            workload.gpus = workload.gpus.saturating_add(each.saturating_mul(count(&replica["replicas"], 1)));
        }
    }
    let holding = |kind: &str| Condition::holding(raw, kind);
    if let Some(failed) = holding("Failed") {
        workload.decide(State::Failed, Some(failed));
    } else if let Some(succeeded) = holding("Succeeded") {
        workload.decide(State::Succeeded, Some(succeeded));
        workload.since = workload.since.or_else(|| moment(&status["completionTime"]));
    } else if spec["runPolicy"]["suspend"] == true || holding("Suspended").is_some() {
        workload.decide(workload.held(), holding("Suspended"));
    } else if let Some(restarting) = holding("Restarting") {
        workload.decide(State::Starting, Some(restarting));
    } else if let Some(running) = holding("Running") {
        workload.decide(State::Running, Some(running));
        workload.since = workload.since.or_else(|| moment(&status["startTime"]));
    } else if let Some(created) = holding("Created") {
        workload.decide(State::Starting, Some(created));
    }
}

pub(super) fn train_job(raw: &Value, workload: &mut Workload) {
    let (spec, status) = (&raw["spec"], &raw["status"]);
    let trainer = &spec["trainer"];
    let each = gpus_of_resources(&trainer["resourcesPerNode"]);
    workload.gpus = each.saturating_mul(count(&trainer["numNodes"], 1));
    let holding = |kind: &str| Condition::holding(raw, kind);
    let jobs = status["jobsStatus"].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(failed) = holding("Failed") {
        workload.decide(State::Failed, Some(failed));
    } else if let Some(complete) = holding("Complete") {
        workload.decide(State::Succeeded, Some(complete));
    } else if spec["suspend"] == true || holding("Suspended").is_some() {
        workload.decide(workload.held(), holding("Suspended"));
    } else if jobs.iter().any(|job| count(&job["active"], 0) > 0) {
        workload.decide(State::Running, Condition::of(raw, "Suspended"));
    } else if status.is_object() {
        workload.settle(State::Starting, None, None);
    }
    let told = raw["metadata"]["annotations"]["trainer.opendatahub.io/trainerStatus"].as_str();
    let told = told.filter(|text| text.len() < 64 << 10).and_then(|text| serde_json::from_str::<Value>(text).ok());
    workload.progress = progress(&status["trainerStatus"]).or_else(|| progress(&told?));
}

fn progress(status: &Value) -> Option<Progress> {
    let percent = status["progressPercentage"].as_f64().filter(|percent| (0.0..=100.0).contains(percent))?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 100")]
    Some(Progress { percent: percent as u8, left: status["estimatedRemainingSeconds"].as_u64() })
}

/// The GPUs of a RayClusterSpec.
fn gpus_of_ray(spec: &Value) -> u32 {
    let groups = spec["workerGroupSpecs"].as_array().into_iter().flatten();
    groups.fold(gpus_of_pod(&spec["headGroupSpec"]["template"]["spec"]), |sum, group| {
        let replicas = count(&group["replicas"], count(&group["minReplicas"], 0));
        let pods = replicas.saturating_mul(count(&group["numOfHosts"], 1));
        sum.saturating_add(gpus_of_pod(&group["template"]["spec"]).saturating_mul(pods))
    })
}

pub(super) fn ray_cluster(raw: &Value, workload: &mut Workload) {
    let (spec, status) = (&raw["spec"], &raw["status"]);
    workload.gpus = gpus_of_ray(spec);
    workload.ray_cluster = Some(workload.name.as_str().into());
    let holding = |kind: &str| Condition::holding(raw, kind);
    let word = status["state"].as_str();
    if spec["suspend"] == true || holding("RayClusterSuspended").is_some() || word == Some("suspended") {
        workload.decide(workload.held(), holding("RayClusterSuspended"));
    } else if let Some(failure) = holding("ReplicaFailure") {
        workload.decide(State::Failed, Some(failure));
    } else if let Some(ready) = holding("RayClusterProvisioned").and(holding("HeadPodReady")) {
        workload.decide(State::Ready, Some(ready));
    } else if status["conditions"].is_array() {
        workload.decide(State::Starting, Condition::of(raw, "HeadPodReady"));
    } else {
        // Before there were conditions.
        let state = match word {
            Some("ready") => State::Ready,
            Some("failed") => State::Failed,
            Some(_) => State::Starting,
            None => State::Unknown,
        };
        workload.settle(state, status["reason"].as_str(), None);
    }
}

pub(super) fn ray_job(raw: &Value, workload: &mut Workload) {
    let (spec, status) = (&raw["spec"], &raw["status"]);
    workload.gpus = gpus_of_ray(&spec["rayClusterSpec"]);
    workload.ray_cluster = status["rayClusterName"].as_str().and_then(kept);
    let reason = status["message"].as_str().filter(|text| !text.is_empty()).or_else(|| status["reason"].as_str());
    let (began, ended) = (moment(&status["startTime"]), moment(&status["endTime"]));
    match status["jobDeploymentStatus"].as_str().unwrap_or_default() {
        "Complete" if status["jobStatus"] != "FAILED" && status["jobStatus"] != "STOPPED" => {
            workload.settle(State::Succeeded, None, ended);
        }
        "Complete" | "Failed" | "ValidationFailed" => workload.settle(State::Failed, reason, ended),
        "Suspended" | "Suspending" => workload.settle(workload.held(), None, None),
        "Running" => workload.settle(State::Running, None, began),
        _ if spec["suspend"] == true => workload.settle(workload.held(), None, None),
        "" => {}
        _ => workload.settle(State::Starting, reason, began),
    }
}

pub(super) fn ray_service(raw: &Value, workload: &mut Workload) {
    let (spec, status) = (&raw["spec"], &raw["status"]);
    workload.gpus = gpus_of_ray(&spec["rayClusterConfig"]);
    let active = &status["activeServiceStatus"];
    workload.ray_cluster = active["rayClusterName"].as_str().filter(|name| !name.is_empty()).and_then(kept);
    let ready = Condition::of(raw, "Ready");
    if let Some(suspended) = Condition::holding(raw, "Suspended") {
        workload.decide(workload.held(), Some(suspended));
    } else if let Some(ready) = ready {
        workload.decide(if ready.holds { State::Ready } else { State::Starting }, Some(ready));
    } else if status["serviceStatus"].is_string() {
        workload.settle(if status["serviceStatus"] == "Running" { State::Ready } else { State::Starting }, None, None);
    }
}

pub(super) fn job(raw: &Value, workload: &mut Workload) {
    let (spec, status) = (&raw["spec"], &raw["status"]);
    let each = gpus_of_pod(&spec["template"]["spec"]);
    workload.gpus = each.saturating_mul(count(&spec["parallelism"], 1).max(1));
    let holding = |kind: &str| Condition::holding(raw, kind);
    if let Some(failed) = holding("Failed").or_else(|| holding("FailureTarget")) {
        workload.decide(State::Failed, Some(failed));
    } else if let Some(complete) = holding("Complete").or_else(|| holding("SuccessCriteriaMet")) {
        workload.decide(State::Succeeded, Some(complete));
    } else if spec["suspend"] == true || holding("Suspended").is_some() {
        workload.decide(workload.held(), holding("Suspended"));
    } else if count(&status["active"], 0) > 0 {
        let working = count(&status["ready"], 1) > 0;
        let state = if working { State::Running } else { State::Starting };
        workload.settle(state, None, moment(&status["startTime"]));
    } else if status.is_object() {
        workload.settle(State::Starting, None, None);
    }
}
