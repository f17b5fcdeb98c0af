//! Demo metrics: a week of model servers, training jobs, notebooks and GPUs in three namespaces, from formulas.
//!
//! The past is written once into blocks of the time-series database; the present is scraped from the same formulas.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The namespaces of the demo.
pub const TEAMS: [&str; 3] = ["team-a", "team-b", "team-c"];

/// Length of the past, and its step.
const WEEK: u64 = 7 * 24 * 3600;
const STEP: u64 = 60;

/// Raised when the formulas change.
const VERSION: u32 = 1;

/// One series.
pub struct Series {
    /// The metric.
    pub name: &'static str,
    /// Its labels, written out.
    pub labels: String,
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
            Shape::Growth { rate } => (rate * (seconds % 31_536_000.0)).round(),
            Shape::Constant(value) => value,
        }
    }
}

/// All series, those of one metric together.
#[must_use]
pub fn series() -> Vec<Series> {
    let mut all = Vec::new();
    for (team, namespace) in (1_u8..).zip(TEAMS) {
        let weight = f64::from(team);
        let mut add = |name, labels: String, shape| all.push(Series { name, labels, shape });
        let wave = |middle: f64, swing: f64| Shape::Wave { middle: middle * weight, swing, phase: weight / 7.0 };
        let growth = |rate: f64| Shape::Growth { rate: rate * weight };
        for model in ["granite", "llama"] {
            let labels = format!("namespace=\"{namespace}\",pod=\"{model}-predictor-0\",model_name=\"{model}\"");
            add("vllm:num_requests_running", labels.clone(), wave(8.0, 6.0));
            add("vllm:num_requests_waiting", labels.clone(), wave(3.0, 2.5));
            add(
                "vllm:gpu_cache_usage_perc",
                labels.clone(),
                Shape::Wave { middle: 0.5, swing: 0.4, phase: weight / 5.0 },
            );
            add("vllm:generation_tokens_total", labels.clone(), growth(120.0));
            add("vllm:prompt_tokens_total", labels.clone(), growth(300.0));
            for (bound, share) in [("0.1", 0.3), ("0.5", 0.8), ("1.0", 0.95), ("+Inf", 1.0)] {
                add("vllm:time_to_first_token_seconds_bucket", format!("{labels},le=\"{bound}\""), growth(4.0 * share));
            }
        }
        for job in ["finetune", "pretrain"] {
            let labels = format!("namespace=\"{namespace}\",pod=\"{job}-worker-0\",job_name=\"{job}\"");
            add("kubeflow_trainjob_step_total", labels.clone(), growth(0.5));
            add("training_loss", labels, wave(1.0, 0.3));
        }
        for pod in ["granite-predictor-0", "finetune-worker-0", "notebook-0"] {
            let labels = format!("namespace=\"{namespace}\",pod=\"{pod}\",container=\"main\"");
            add("container_cpu_usage_seconds_total", labels.clone(), growth(0.7));
            add("container_memory_working_set_bytes", labels, wave(2e9, 5e8));
            add(
                "kube_pod_info",
                format!("namespace=\"{namespace}\",pod=\"{pod}\",node=\"node-{team}\""),
                Shape::Constant(1.0),
            );
        }
        add("notebook_running", format!("namespace=\"{namespace}\",notebook_name=\"notebook\""), Shape::Constant(1.0));
        for gpu in 0..2 {
            let labels = format!(
                "namespace=\"nvidia-gpu-operator\",exported_namespace=\"{namespace}\",exported_pod=\"granite-predictor-0\",gpu=\"{gpu}\""
            );
            add("DCGM_FI_DEV_GPU_UTIL", labels.clone(), Shape::Wave { middle: 50.0, swing: 45.0, phase: weight / 3.0 });
            add("DCGM_FI_DEV_FB_USED", labels, wave(9000.0, 3000.0));
        }
    }
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
    for series in series() {
        let _ = writeln!(out, "{}{{{}}} {}", series.name, series.labels, series.at(time));
    }
    out
}

/// The folder of blocks with the past, made with promtool if there is none of the last day.
///
/// # Errors
/// When it cannot be written or promtool fails.
pub fn blocks(promtool: &Path, home: &Path, say: &dyn Fn(&str)) -> io::Result<PathBuf> {
    fs::create_dir_all(home)?;
    let folder = home.join(format!("data-{VERSION}"));
    let lock = fs::File::create(home.join("data.lock"))?;
    lock.lock()?;
    let fresh = |folder: &Path| {
        let age = fs::metadata(folder.join("made"))
            .and_then(|made| made.modified())
            .ok()
            .and_then(|made| made.elapsed().ok());
        age.is_some_and(|age| age < Duration::from_secs(24 * 3600))
    };
    if fresh(&folder) {
        return Ok(folder.join("blocks"));
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let all = series();
    say(&format!("writing a week of {} series (once a day)", all.len()));
    let text = folder.join("data.om");
    let mut out = BufWriter::new(fs::File::create(&text)?);
    let end = now() / STEP * STEP;
    let mut last = "";
    for series in &all {
        if series.name != last {
            writeln!(out, "# TYPE {} unknown", series.name)?;
            last = series.name;
        }
        for time in (end - WEEK..=end).step_by(usize::try_from(STEP).unwrap_or(60)) {
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
