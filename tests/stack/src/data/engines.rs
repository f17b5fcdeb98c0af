//! What each engine counts, by the names and labels of its own exporter.

use super::Gathered;

const A: &str = "team-a";
const B: &str = "team-b";
const C: &str = "team-c";

fn of(namespace: &str, pod: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!("namespace=\"{namespace}\",pod=\"{pod}\"{comma}{more}")
}

pub(super) fn serving(all: &mut Gathered) {
    vllm(all);
    llm_d(all);
    openvino(all);
    tgis(all);
    triton(all);
    mlserver(all);
    kserve(all);
}

/// granite in team-a, in full; its siblings in the other teams have what [`super::series`] gives all three.
fn vllm(all: &mut Gathered) {
    let pod = "granite-predictor-0";
    all.more_of_pod(A, pod, "kserve-container");
    let labels = of(A, pod, "model_name=\"granite\"");
    for (reason, rate) in [("stop", 3.5), ("length", 0.6), ("abort", 0.02)] {
        all.growth("vllm:request_success_total", format!("{labels},finished_reason=\"{reason}\""), rate);
    }
    all.wave("vllm:kv_cache_usage_perc", labels.clone(), 0.5, 0.4);
    all.growth("vllm:prefix_cache_queries_total", labels.clone(), 300.0);
    all.growth("vllm:prefix_cache_hits_total", labels.clone(), 110.0);
    all.growth("vllm:prompt_tokens_total", labels.clone(), 300.0);
    all.growth("vllm:num_preemptions_total", labels.clone(), 0.005);
    all.buckets("vllm:time_to_first_token_seconds_bucket", &labels, ["0.1", "1.0"], 4.0);
    all.buckets("vllm:inter_token_latency_seconds_bucket", &labels, ["0.025", "0.1"], 120.0);
}

fn llm_d(all: &mut Gathered) {
    let pod = "qwen-kserve-5d8f7c9b4-x2x7q";
    let own = "label_app_kubernetes_io_name=\"qwen\",label_app_kubernetes_io_part_of=\"llminferenceservice\"";
    all.pod(B, pod, "main", ("ReplicaSet", "qwen-kserve-5d8f7c9b4"), 1.4);
    all.more_of_pod(B, pod, "main");
    all.gpu(B, pod, 0.6);
    all.constant("kube_pod_labels", of(B, pod, &format!("{own},label_llm_d_ai_role=\"decode\"")), 1.0);
    for (role, rate) in [("decode", 260.0), ("prefill", 20.0)] {
        let labels = of(B, pod, &format!("llm_isvc_name=\"qwen\",llm_isvc_role=\"{role}\""));
        all.growth("kserve_vllm:prompt_tokens_total", labels.clone(), 500.0 - rate);
        all.growth("kserve_vllm:generation_tokens_total", labels.clone(), rate);
        all.wave("kserve_vllm:kv_cache_usage_perc", labels, 0.4, 0.3);
    }
    let labels = of(B, pod, "llm_isvc_name=\"qwen\",llm_isvc_role=\"decode\"");
    all.growth("kserve_vllm:request_success_total", format!("{labels},finished_reason=\"stop\""), 2.5);
    all.buckets("kserve_vllm:time_to_first_token_seconds_bucket", &labels, ["0.25", "2.5"], 2.5);
    all.buckets("kserve_vllm:inter_token_latency_seconds_bucket", &labels, ["0.025", "0.1"], 250.0);
    let scheduler = format!("namespace=\"{B}\",llm_isvc_name=\"qwen\"");
    all.growth("inference_objective_request_total", scheduler.clone(), 2.6);
    all.growth("inference_objective_request_error_total", scheduler.clone(), 0.01);
    all.wave("inference_pool_average_queue_size", scheduler.clone(), 2.0, 1.5);
    all.constant("inference_pool_ready_pods", scheduler, 1.0);
}

fn openvino(all: &mut Gathered) {
    let pod = "resnet-predictor-0";
    all.pod(A, pod, "kserve-container", ("ReplicaSet", "resnet-predictor"), 1.1);
    all.more_of_pod(A, pod, "kserve-container");
    let name = of(A, pod, "name=\"resnet\"");
    let call = format!("{name},interface=\"REST\",method=\"ModelInfer\"");
    all.growth("ovms_requests_success", call.clone(), 22.0);
    all.growth("ovms_requests_fail", call.clone(), 0.1);
    all.growth("ovms_requests_accepted", name.clone(), 1.0);
    all.growth("ovms_requests_rejected", name.clone(), 0.02);
    all.wave("ovms_current_requests", name.clone(), 6.0, 4.0);
    all.constant("ovms_current_graphs", name.clone(), 1.0);
    all.constant("ovms_streams", name.clone(), 4.0);
    all.wave("ovms_infer_req_active", name.clone(), 2.0, 1.5);
    all.constant("ovms_infer_req_queue_size", name.clone(), 4.0);
    all.growth("ovms_request_time_us_sum", call.clone(), 22.0 * 30_000.0);
    all.growth("ovms_request_time_us_count", call.clone(), 22.0);
    all.buckets("ovms_request_time_us_bucket", &call, ["20000", "100000"], 22.0);
    all.buckets("ovms_inference_time_us_bucket", &name, ["10000", "50000"], 22.0);
    all.buckets("ovms_wait_for_infer_req_time_us_bucket", &name, ["1000", "10000"], 22.0);
}

fn tgis(all: &mut Gathered) {
    let pod = "flan-predictor-0";
    all.pod(B, pod, "kserve-container", ("ReplicaSet", "flan-predictor"), 0.9);
    all.more_of_pod(B, pod, "kserve-container");
    let labels = of(B, pod, "");
    all.growth("tgi_request_count", format!("{labels},kind=\"single\""), 1.6);
    all.growth("tgi_request_failure", format!("{labels},err=\"timeout\""), 0.01);
    all.wave("tgi_queue_size", labels.clone(), 2.0, 1.8);
    all.wave("tgi_batch_current_size", labels.clone(), 5.0, 3.0);
    all.growth("tgi_request_input_length_sum", labels.clone(), 400.0);
    all.growth("tgi_request_generated_tokens_sum", labels.clone(), 90.0);
    all.growth("predict_rpc_count_total", format!("{labels},code=\"OK\",model_id=\"flan\""), 1.6);
    all.buckets("tgi_request_duration_bucket", &labels, ["1", "10"], 1.6);
    all.buckets("tgi_request_queue_duration_bucket", &labels, ["0.1", "1"], 1.6);
    all.buckets("tgi_request_mean_time_per_token_duration_bucket", &labels, ["0.03", "0.1"], 1.6);
}

fn triton(all: &mut Gathered) {
    let pod = "vision-predictor-0";
    all.pod(C, pod, "kserve-container", ("ReplicaSet", "vision-predictor"), 1.8);
    all.more_of_pod(C, pod, "kserve-container");
    all.gpu(C, pod, 0.7);
    let model = of(C, pod, "model=\"vision\",version=\"1\"");
    all.growth("nv_inference_request_success", model.clone(), 40.0);
    all.growth("nv_inference_request_failure", model.clone(), 0.05);
    all.growth("nv_inference_count", model.clone(), 120.0);
    all.growth("nv_inference_exec_count", model.clone(), 30.0);
    all.wave("nv_inference_pending_request_count", model.clone(), 4.0, 3.5);
    all.growth("nv_inference_request_duration_us", model.clone(), 40.0 * 21_000.0);
    all.growth("nv_inference_queue_duration_us", model.clone(), 40.0 * 6000.0);
    all.growth("nv_inference_compute_input_duration_us", model.clone(), 40.0 * 1000.0);
    all.growth("nv_inference_compute_infer_duration_us", model.clone(), 40.0 * 13_000.0);
    all.growth("nv_inference_compute_output_duration_us", model, 40.0 * 1000.0);
    let gpu = of(C, pod, "gpu_uuid=\"GPU-0a1b\"");
    all.wave("nv_gpu_utilization", gpu.clone(), 0.6, 0.3);
    all.wave("nv_gpu_memory_used_bytes", gpu.clone(), 1.2e10, 2e9);
    all.constant("nv_gpu_memory_total_bytes", gpu, 2.4e10);
}

fn mlserver(all: &mut Gathered) {
    let pod = "fraud-predictor-0";
    all.pod(C, pod, "kserve-container", ("ReplicaSet", "fraud-predictor"), 0.6);
    all.more_of_pod(C, pod, "kserve-container");
    let model = of(C, pod, "model=\"fraud\",version=\"v1\"");
    all.growth("model_infer_request_success_total", model.clone(), 55.0);
    all.growth("model_infer_request_failure_total", model.clone(), 0.2);
    all.growth("model_infer_request_duration_sum", model.clone(), 55.0 * 0.012);
    all.growth("model_infer_request_duration_count", model, 55.0);
    let labels = of(C, pod, "");
    all.growth("rest_server_requests_total", format!("{labels},status_code=\"200\""), 50.0);
    all.growth("grpc_server_handled_total", format!("{labels},grpc_code=\"OK\""), 5.0);
    all.buckets("rest_server_requests_duration_seconds_bucket", &labels, ["0.025", "0.1"], 50.0);
    all.buckets("batch_request_queue_bucket", &labels, ["1", "5"], 10.0);
    all.buckets("parallel_request_queue_bucket", &labels, ["1", "5"], 10.0);
}

fn kserve(all: &mut Gathered) {
    let pod = "custom-predictor-0";
    all.pod(C, pod, "kserve-container", ("ReplicaSet", "custom-predictor"), 0.3);
    all.more_of_pod(C, pod, "kserve-container");
    let model = of(C, pod, "model_name=\"custom\"");
    for (sum, count, seconds) in [
        ("request_preprocess_seconds_sum", "request_preprocess_seconds_count", 0.01),
        ("request_predict_seconds_sum", "request_predict_seconds_count", 0.08),
        ("request_postprocess_seconds_sum", "request_postprocess_seconds_count", 0.004),
    ] {
        all.growth(sum, model.clone(), 6.0 * seconds);
        all.growth(count, model.clone(), 6.0);
    }
    all.buckets("request_predict_seconds_bucket", &model, ["0.1", "0.5"], 6.0);
}

/// Jobs, one of which ended a day ago, and a Ray cluster.
pub(super) fn training(all: &mut Gathered) {
    let job = |all: &mut Gathered, namespace, pod: &str, kind, owner| {
        all.pod(namespace, pod, "main", (kind, owner), 3.0);
        all.more_of_pod(namespace, pod, "main");
        all.gpu(namespace, pod, 0.85);
    };
    job(all, A, "finetune-worker-0", "PyTorchJob", "finetune");
    job(all, B, "llama-ft-node-0-0-k8x2p", "Job", "llama-ft-node-0");
    job(all, C, "evaluate-7h4zt", "Job", "evaluate");
    all.pod(A, "finetune-master-0", "main", ("PyTorchJob", "finetune"), 3.2);

    all.gone = true;
    let pod = "pretrain-worker-0";
    all.pod(A, pod, "main", ("PyTorchJob", "pretrain"), 3.6);
    let labels = of(A, pod, "");
    all.growth("container_network_receive_bytes_total", labels.clone(), 2e6);
    all.growth("container_network_transmit_bytes_total", labels.clone(), 2e6);
    all.growth("kube_pod_container_status_restarts_total", format!("{labels},container=\"main\""), 1.0 / 90_000.0);
    all.gone = false;

    let pod = "rays-worker-small-worker-9k2vd";
    all.pod(B, pod, "ray-worker", ("RayCluster", "rays"), 2.2);
    all.more_of_pod(B, pod, "ray-worker");
    all.gpu(B, pod, 0.4);
    all.constant(
        "kuberay_cluster_condition_provisioned",
        format!("namespace=\"{B}\",name=\"rays\",condition=\"true\""),
        1.0,
    );
    let labels = format!("namespace=\"{B}\",ray_io_cluster=\"rays\"");
    let node = format!("{labels},instance=\"10.0.0.7:8080\"");
    all.wave("ray_node_cpu_utilization", node.clone(), 55.0, 35.0);
    all.wave("ray_node_mem_used", node.clone(), 9e9, 4e9);
    all.constant("ray_node_mem_total", node.clone(), 1.6e10);
    all.wave("ray_node_gpus_utilization", format!("{node},GpuIndex=\"0\""), 45.0, 40.0);
    all.wave("ray_node_gram_used", format!("{node},GpuIndex=\"0\""), 9000.0, 4000.0);
    for (state, tasks) in [("RUNNING", 12.0), ("PENDING_NODE_ASSIGNMENT", 4.0)] {
        all.wave("ray_tasks", format!("{labels},State=\"{state}\""), tasks, tasks * 0.6);
    }
    all.constant("ray_actors", format!("{labels},State=\"ALIVE\""), 3.0);
    all.wave("ray_object_store_memory", format!("{labels},Location=\"MMAP_SHM\""), 2e9, 1e9);
}

/// A workbench, a queue, and quotas.
pub(super) fn project(all: &mut Gathered) {
    let pod = "notebook-0";
    all.pod(A, pod, "notebook", ("StatefulSet", "notebook"), 0.4);
    all.more_of_pod(A, pod, "notebook");
    // It holds a GPU and does nothing with it.
    all.gpu(A, pod, 0.01);
    for (resource, unit, value) in [("cpu", "core", 1.0), ("memory", "byte", 4e9)] {
        let labels = of(A, pod, &format!("container=\"notebook\",resource=\"{resource}\",unit=\"{unit}\""));
        all.constant("kube_pod_container_resource_requests", labels, value);
    }
    let claim = "persistentvolumeclaim=\"notebook-storage\"";
    all.wave("kubelet_volume_stats_used_bytes", format!("namespace=\"{A}\",{claim}"), 1.5e10, 1e9);
    all.constant("kubelet_volume_stats_capacity_bytes", format!("namespace=\"{A}\",{claim}"), 2e10);
    all.constant("kube_pod_spec_volumes_persistentvolumeclaims_info", of(A, pod, claim), 1.0);

    let queue = format!("namespace=\"{A}\",name=\"research\"");
    all.wave("kueue_local_queue_pending_workloads", format!("{queue},status=\"active\""), 2.0, 1.9);
    all.constant("kueue_local_queue_admitted_active_workloads", queue.clone(), 2.0);
    all.buckets("kueue_local_queue_admission_wait_time_seconds_bucket", &queue, ["60", "600"], 0.01);
    // Of the controller: scraped where it runs, which here is a namespace of the demo so that somebody may look.
    let cluster = format!("namespace=\"{A}\",cluster_queue=\"gpus\"");
    all.wave("kueue_pending_workloads", format!("{cluster},status=\"active\""), 4.0, 3.0);
    all.buckets("kueue_admission_wait_time_seconds_bucket", &cluster, ["60", "600"], 0.02);
    all.growth("kueue_evicted_workloads_total", format!("{cluster},reason=\"Preempted\""), 0.001);
    all.growth("kueue_admission_attempts_total", format!("namespace=\"{A}\",result=\"success\""), 0.02);
    let flavour = format!("{cluster},flavor=\"a100\",resource=\"nvidia.com/gpu\"");
    all.wave("kueue_cluster_queue_resource_usage", flavour.clone(), 5.0, 2.0);
    all.wave("kueue_cluster_queue_resource_reservation", flavour.clone(), 6.0, 1.0);
    all.constant("kueue_cluster_queue_nominal_quota", flavour, 8.0);

    for (kind, gpus, cores) in [("used", 3.0, 11.0), ("hard", 4.0, 16.0)] {
        let quota = format!("namespace=\"{A}\",resourcequota=\"compute\",type=\"{kind}\"");
        all.constant("kube_resourcequota", format!("{quota},resource=\"requests.nvidia.com/gpu\""), gpus);
        all.constant("kube_resourcequota", format!("{quota},resource=\"limits.cpu\""), cores);
    }
    let gpu = format!(
        "namespace=\"nvidia-gpu-operator\",exported_namespace=\"{A}\",exported_pod=\"granite-predictor-0\",gpu=\"0\""
    );
    all.wave("DCGM_FI_DEV_POWER_USAGE", gpu.clone(), 220.0, 120.0);
    all.constant("DCGM_FI_DEV_XID_ERRORS", gpu, 0.0);
}
