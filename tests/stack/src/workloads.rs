//! The demo's workloads, as objects of a cluster. Their metrics are in [`crate::data`].

use serde_json::{Value, json};

/// An hour before the first of January 2026, so that nothing of it changes from day to day.
const MADE: &str = "2026-01-01T00:00:00Z";

fn object(api: &str, kind: &str, namespace: &str, name: &str, spec: Value, status: Value) -> Value {
    json!({
        "apiVersion": api,
        "kind": kind,
        "metadata": { "name": name, "namespace": namespace, "uid": format!("{kind}-{namespace}-{name}").to_lowercase(),
                      "creationTimestamp": MADE, "annotations": { "opendatahub.io/username": owner(namespace) } },
        "spec": spec,
        "status": status,
    })
}

fn owner(namespace: &str) -> &'static str {
    match namespace {
        "team-a" => "ada",
        "team-b" => "grace",
        _ => "root",
    }
}

fn holds(kind: &str) -> Value {
    json!({ "conditions": [{ "type": kind, "status": "True", "lastTransitionTime": MADE }] })
}

/// A pod's spec, with so many GPUs.
fn pod(gpus: u32) -> Value {
    let resources = if gpus > 0 { json!({ "limits": { "nvidia.com/gpu": gpus.to_string() } }) } else { json!({}) };
    json!({ "containers": [{ "name": "main", "image": "quay.io/demo/main:1", "resources": resources }] })
}

fn runtime(namespace: &str, name: &str, image: &str) -> Value {
    let spec = json!({ "containers": [{ "name": "kserve-container", "image": image }] });
    object("serving.kserve.io/v1alpha1", "ServingRuntime", namespace, name, spec, json!({}))
}

fn model(namespace: &str, name: &str, runtime: &str, gpus: u32) -> Value {
    let mut status = holds("Ready");
    status["servingRuntimeName"] = json!(runtime);
    let resources = pod(gpus)["containers"][0]["resources"].clone();
    let model = json!({ "modelFormat": { "name": "any" }, "runtime": runtime, "resources": resources });
    let spec = json!({ "predictor": { "minReplicas": 1, "model": model } });
    object("serving.kserve.io/v1beta1", "InferenceService", namespace, name, spec, status)
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Value> {
    let (a, b, c) = ("team-a", "team-b", "team-c");
    let mut all = Vec::new();
    for (namespace, name, image) in [
        (a, "vllm-cuda", "quay.io/demo/vllm:1"),
        (b, "vllm-cuda", "quay.io/demo/vllm:1"),
        (c, "vllm-cuda", "quay.io/demo/vllm:1"),
        (a, "ovms", "quay.io/demo/openvino-model-server:1"),
        (b, "tgis", "quay.io/demo/tgis:1"),
        (c, "triton", "quay.io/demo/tritonserver:1"),
        (c, "mlserver", "quay.io/demo/mlserver:1"),
        (c, "sklearn", "quay.io/demo/sklearnserver:1"),
    ] {
        all.push(runtime(namespace, name, image));
    }
    for (namespace, name, runtime, gpus) in [
        (a, "granite", "vllm-cuda", 1),
        (b, "granite", "vllm-cuda", 1),
        (c, "granite", "vllm-cuda", 1),
        (a, "resnet", "ovms", 0),
        (b, "flan", "tgis", 0),
        (c, "vision", "triton", 1),
        (c, "fraud", "mlserver", 0),
        (c, "custom", "sklearn", 0),
    ] {
        all.push(model(namespace, name, runtime, gpus));
    }
    let spec = json!({ "model": { "name": "qwen" }, "replicas": 1, "template": pod(1) });
    all.push(object("serving.kserve.io/v1alpha2", "LLMInferenceService", b, "qwen", spec, holds("Ready")));
    let replica = |count: u32, gpus: u32| json!({ "replicas": count, "template": { "spec": pod(gpus) } });
    let spec = json!({ "pytorchReplicaSpecs": { "Master": replica(1, 0), "Worker": replica(1, 1) } });
    all.push(object("kubeflow.org/v1", "PyTorchJob", a, "finetune", spec, holds("Running")));
    let trainer = json!({ "numNodes": 1, "resourcesPerNode": { "limits": { "nvidia.com/gpu": 1 } } });
    let spec = json!({ "runtimeRef": { "name": "torch-distributed" }, "trainer": trainer });
    let status = json!({ "conditions": [{ "type": "Suspended", "status": "False", "lastTransitionTime": MADE }],
                         "jobsStatus": [{ "name": "node", "active": 1, "ready": 1 }],
                         "trainerStatus": { "progressPercentage": 42, "estimatedRemainingSeconds": 5400 } });
    all.push(object("trainer.kubeflow.org/v1alpha1", "TrainJob", b, "llama-ft", spec, status));
    let spec = json!({ "parallelism": 1, "template": { "spec": pod(1) } });
    let status = json!({ "active": 1, "ready": 1, "startTime": MADE });
    all.push(object("batch/v1", "Job", c, "evaluate", spec, status));
    let worker = json!({ "groupName": "small", "replicas": 1, "template": { "spec": pod(1) } });
    let spec = json!({ "headGroupSpec": { "template": { "spec": pod(0) } }, "workerGroupSpecs": [worker] });
    let condition = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": MADE });
    let status = json!({ "conditions": [condition("HeadPodReady"), condition("RayClusterProvisioned")] });
    all.push(object("ray.io/v1", "RayCluster", b, "rays", spec, status));
    let spec = json!({ "clusterQueue": "gpus" });
    all.push(object("kueue.x-k8s.io/v1beta1", "LocalQueue", a, "research", spec, holds("Active")));
    let status = json!({ "readyReplicas": 1, "containerState": { "running": { "startedAt": MADE } } });
    all.push(object("kubeflow.org/v1", "Notebook", a, "notebook", json!({ "template": { "spec": pod(1) } }), status));
    all
}
