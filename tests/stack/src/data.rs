//! Demo metrics: a week of model servers, training jobs, notebooks, queues and GPUs in three namespaces, from formulas.
//!
//! The past is written once into blocks of the time-series database; the present is scraped from the same formulas. Names
//! and labels are those of the real exporters, so that the dashboards of the workloads in [`crate::workloads`] show numbers.

mod engines;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The namespaces of the demo.
pub const TEAMS: [&str; 3] = ["team-a", "team-b", "team-c"];

/// Length of the past, and its step.
const WEEK: u64 = 7 * 24 * 3600;
const STEP: u64 = 60;
/// How long before the present what is gone ended.
const GONE: u64 = 24 * 3600;

/// How old the past may be that is used, and how old the one that is still left for others, in seconds.
const LATELY: u64 = 30 * 60;
const WHILE: u64 = 3 * 3600;

/// Raised when the formulas change.
const VERSION: u32 = 2;

/// One series.
pub struct Series {
    /// The metric.
    pub name: &'static str,
    /// Its labels, written out.
    pub labels: String,
    /// Whether it ended a day ago.
    pub gone: bool,
    shape: Shape,
}

#[derive(Clone, Copy)]
enum Shape {
    /// Swings around a middle once a day.
    Wave {
        middle: f64,
        swing: f64,
        phase: f64,
    },
    /// Grows by so much a second.
    Growth {
        rate: f64,
    },
    Constant(f64),
}

impl Series {
    /// The value at a time, in seconds since 1970.
    #[must_use]
    pub fn at(&self, time: u64) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
        let seconds = time as f64;
        match self.shape {
            Shape::Wave { middle, swing, phase } => {
                let day = (seconds / 86_400.0 + phase) * std::f64::consts::TAU;
                let fast = (seconds / 600.0 + phase) * std::f64::consts::TAU;
                ((middle + swing * (0.8 * day.sin() + 0.2 * fast.sin())) * 1000.0).round() / 1000.0
            }
            Shape::Growth { rate } => (rate * (seconds % 31_536_000.0) * 1000.0).round() / 1000.0,
            Shape::Constant(value) => value,
        }
    }
}

/// Series as they are gathered.
#[derive(Default)]
struct Gathered {
    all: Vec<Series>,
    /// So that not everything swings together.
    phase: f64,
    gone: bool,
}

impl Gathered {
    fn add(&mut self, name: &'static str, labels: impl Into<String>, shape: Shape) {
        self.all.push(Series { name, labels: labels.into(), gone: self.gone, shape });
    }

    fn wave(&mut self, name: &'static str, labels: impl Into<String>, middle: f64, swing: f64) {
        self.phase += 0.37;
        let phase = self.phase;
        self.add(name, labels, Shape::Wave { middle, swing, phase });
    }

    fn growth(&mut self, name: &'static str, labels: impl Into<String>, rate: f64) {
        self.add(name, labels, Shape::Growth { rate });
    }

    fn constant(&mut self, name: &'static str, labels: impl Into<String>, value: f64) {
        self.add(name, labels, Shape::Constant(value));
    }

    /// Three buckets: below the first bound lies half, below the second nearly all.
    fn buckets(&mut self, name: &'static str, labels: &str, bounds: [&str; 2], rate: f64) {
        for (bound, share) in [(bounds[0], 0.5), (bounds[1], 0.97), ("+Inf", 1.0)] {
            self.growth(name, format!("{labels},le=\"{bound}\""), rate * share);
        }
    }

    /// What the cluster counts of every pod: its processor, memory, and who made it.
    fn pod(&mut self, namespace: &str, pod: &str, container: &str, (kind, owner): (&str, &str), cores: f64) {
        let labels = format!("namespace=\"{namespace}\",pod=\"{pod}\"");
        let inner = format!("{labels},container=\"{container}\"");
        self.growth("container_cpu_usage_seconds_total", inner.clone(), cores);
        self.wave("container_memory_working_set_bytes", inner, 3e9, 1e9);
        let made = format!("{labels},node=\"node-1\",created_by_kind=\"{kind}\",created_by_name=\"{owner}\"");
        self.constant("kube_pod_info", made, 1.0);
    }

    /// And what it counts besides, where a dashboard shows it.
    fn more_of_pod(&mut self, namespace: &str, pod: &str, container: &str) {
        let labels = format!("namespace=\"{namespace}\",pod=\"{pod}\"");
        let inner = format!("{labels},container=\"{container}\"");
        self.growth("container_network_receive_bytes_total", labels.clone(), 40_000.0);
        self.growth("container_network_transmit_bytes_total", labels.clone(), 90_000.0);
        self.growth("container_cpu_cfs_periods_total", inner.clone(), 10.0);
        self.growth("container_cpu_cfs_throttled_periods_total", inner.clone(), 0.4);
        for (resource, unit, limit) in [("cpu", "core", 4.0), ("memory", "byte", 8e9)] {
            let labels = format!("{inner},resource=\"{resource}\",unit=\"{unit}\"");
            self.constant("kube_pod_container_resource_limits", labels, limit);
        }
        self.constant("kube_pod_status_ready", format!("{labels},condition=\"true\""), 1.0);
        self.constant("kube_pod_status_phase", format!("{labels},phase=\"Running\""), 1.0);
        self.growth("kube_pod_container_status_restarts_total", inner.clone(), 1.0 / 40_000.0);
        let last = format!("{inner},reason=\"OOMKilled\"");
        self.constant("kube_pod_container_status_last_terminated_reason", last, 1.0);
    }

    /// A GPU of a pod; the exporter's own namespace stands in `namespace`.
    fn gpu(&mut self, namespace: &str, pod: &str, activity: f64) {
        let labels = format!(
            "namespace=\"nvidia-gpu-operator\",exported_namespace=\"{namespace}\",exported_pod=\"{pod}\",gpu=\"0\",modelName=\"NVIDIA A100\""
        );
        self.wave("DCGM_FI_PROF_GR_ENGINE_ACTIVE", labels.clone(), activity, activity * 0.8);
        self.wave("DCGM_FI_DEV_FB_USED", labels.clone(), 30_000.0, 4000.0);
        self.constant("DCGM_FI_DEV_FB_FREE", labels.clone(), 10_000.0);
        self.wave("DCGM_FI_DEV_GPU_TEMP", labels, 60.0, 12.0);
        let asks = format!("namespace=\"{namespace}\",pod=\"{pod}\",resource=\"nvidia_com_gpu\",unit=\"integer\"");
        self.constant("kube_pod_container_resource_requests", asks, 1.0);
    }
}

/// All series, those of one metric together.
#[must_use]
pub fn series() -> Vec<Series> {
    let mut all = Gathered::default();
    for (team, namespace) in (1_u8..).zip(TEAMS) {
        let weight = f64::from(team);
        let labels = format!("namespace=\"{namespace}\",pod=\"granite-predictor-0\",model_name=\"granite\"");
        all.wave("vllm:num_requests_running", labels.clone(), 8.0 * weight, 6.0);
        all.wave("vllm:num_requests_waiting", labels.clone(), 3.0 * weight, 2.5);
        all.growth("vllm:generation_tokens_total", labels, 120.0 * weight);
        let job = format!("namespace=\"{namespace}\",pod=\"finetune-worker-0\",job_name=\"finetune\"");
        all.wave("training_loss", job, weight, 0.3);
        all.pod(
            namespace,
            "granite-predictor-0",
            "kserve-container",
            ("ReplicaSet", "granite-predictor"),
            0.7 * weight,
        );
        all.gpu(namespace, "granite-predictor-0", 0.5);
        let gpu = format!(
            "namespace=\"nvidia-gpu-operator\",exported_namespace=\"{namespace}\",exported_pod=\"granite-predictor-0\",gpu=\"0\""
        );
        all.wave("DCGM_FI_DEV_GPU_UTIL", gpu, 50.0, 45.0);
    }
    engines::serving(&mut all);
    engines::training(&mut all);
    engines::project(&mut all);
    let mut all = all.all;
    all.sort_by_key(|series| series.name);
    all
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What a scrape sees.
#[must_use]
pub fn exposition() -> String {
    let mut out = String::new();
    let time = now();
    for series in series().iter().filter(|series| !series.gone) {
        let _ = writeln!(out, "{}{{{}}} {}", series.name, series.labels, series.at(time));
    }
    out
}

/// The folder of blocks with the past, made with promtool if there is none that ended lately: dashboards ask for the last
/// hour, and most of it must be there.
///
/// # Errors
/// When it cannot be written or promtool fails.
pub fn blocks(promtool: &Path, home: &Path, say: &dyn Fn(&str)) -> io::Result<PathBuf> {
    fs::create_dir_all(home)?;
    let lock = fs::File::create(home.join("data.lock"))?;
    lock.lock()?;
    let prefix = format!("data-{VERSION}-");
    for entry in fs::read_dir(home)? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let Some(ended) = name.strip_prefix(&prefix).and_then(|time| time.parse::<u64>().ok()) else { continue };
        let age = now().saturating_sub(ended);
        if age < LATELY && folder.join("made").exists() {
            return Ok(folder.join("blocks"));
        }
        // Others may read of one that ended a while ago.
        if age > WHILE {
            fs::remove_dir_all(&folder)?;
        }
    }
    let end = now() / STEP * STEP;
    let folder = home.join(format!("{prefix}{end}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let all = series();
    say(&format!("writing a week of {} series", all.len()));
    let text = folder.join("data.om");
    let mut out = BufWriter::new(fs::File::create(&text)?);
    let mut last = "";
    for series in &all {
        if series.name != last {
            writeln!(out, "# TYPE {} unknown", series.name)?;
            last = series.name;
        }
        let until = if series.gone { end - GONE } else { end };
        for time in (end - WEEK..=until).step_by(usize::try_from(STEP).unwrap_or(60)) {
            writeln!(out, "{}{{{}}} {} {time}", series.name, series.labels, series.at(time))?;
        }
    }
    writeln!(out, "# EOF")?;
    out.flush()?;
    drop(out);
    let output = Command::new(promtool)
        .args(["tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=168h"])
        .arg(&text)
        .arg(folder.join("blocks"))
        .output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("promtool failed: {}", text.lines().last().unwrap_or_default())));
    }
    fs::remove_file(&text)?;
    fs::write(folder.join("made"), "")?;
    Ok(folder.join("blocks"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_keeps_its_promises() {
        let all = series();
        assert!(all.len() <= 400, "{} series", all.len());
        assert!(all.iter().all(|series| series.labels.contains("namespace=\"")));
        assert!(all.is_sorted_by_key(|series| series.name));
        let keys: std::collections::BTreeSet<String> =
            all.iter().map(|series| format!("{}{}", series.name, series.labels)).collect();
        assert_eq!(keys.len(), all.len(), "no series twice");
    }
}
