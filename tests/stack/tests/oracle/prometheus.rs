//! A Prometheus with every experiment that the setting gates or with none, empty or with the series of some namespaces.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use perses_sidecar_stack::http::Http;
use perses_sidecar_stack::servers::{self, Server};
use serde_json::Value;

/// When the data end; a multiple of everything that divides a day.
const END: u64 = 1_700_006_400;
const BEGIN: u64 = END - 2 * 3600;
const STEP: usize = 15;

/// The two parts that still have a switch; what had one is told in `defaults`.
const FEATURES: &str = "promql-experimental-functions,promql-binop-fill-modifiers";

/// What is said of an answer that is no JSON.
pub const NO_JSON: &str = "no JSON";

pub struct Prometheus {
    url: String,
    http: Http,
    _server: Server,
    folder: std::path::PathBuf,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Prometheus {
    pub async fn empty() -> Self {
        Self::with(&[]).await
    }

    /// Empty, with nothing switched on.
    pub async fn of_defaults() -> Self {
        Self::start(&[], &[]).await
    }

    /// With the same series in each namespace, of other values.
    pub async fn with(namespaces: &[&str]) -> Self {
        Self::start(namespaces, &[format!("--enable-feature={FEATURES}")]).await
    }

    async fn start(namespaces: &[&str], more: &[String]) -> Self {
        let say = |line: &str| eprintln!("{line}");
        let binary = servers::binary("prometheus", servers::PROMETHEUS, &say).unwrap();
        let folder = servers::run_folder("oracle").unwrap();
        let data = folder.join("data");
        fs::create_dir_all(&data).unwrap();
        if !namespaces.is_empty() {
            blocks(&servers::binary("promtool", servers::PROMETHEUS, &say).unwrap(), namespaces, &folder, &data);
        }
        fs::write(folder.join("prometheus.yml"), "{}").unwrap();
        let port = servers::free_port().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let arguments = [
            format!("--config.file={}", folder.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", data.display()),
            "--storage.tsdb.retention.time=100y".to_owned(),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let arguments = [&arguments[..], more].concat();
        let server = Server::start(&binary, &arguments, &folder.join("prometheus.log"), &[]).unwrap();
        server.ready(&format!("{url}/-/ready"), Duration::from_secs(60)).await.unwrap();
        Self { url, http: Http::default(), _server: server, folder }
    }

    async fn ask(&self, path: &str, pairs: &[(&str, &str)]) -> Value {
        self.http.form(&format!("{}/api/v1/{path}", self.url), "", pairs).await.unwrap().json()
    }

    /// `parse_query` or `format_query`.
    pub async fn text(&self, path: &str, query: &str) -> Result<Value, String> {
        let answer = self.ask(path, &[("query", query)]).await;
        match &answer["status"] {
            Value::Null => Err(NO_JSON.to_owned()),
            status if status == "success" => Ok(answer["data"].clone()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// Evaluates at one time.
    pub async fn evaluate(&self, query: &str) -> Value {
        self.ask("query", &[("query", query), ("time", &(END - 600).to_string())]).await
    }

    /// Evaluates over a range.
    pub async fn evaluate_range(&self, query: &str) -> Value {
        let (start, end) = ((END - 1800).to_string(), (END - 600).to_string());
        self.ask("query_range", &[("query", query), ("start", &start), ("end", &end), ("step", "120")]).await
    }

    /// A list of names, values or series.
    pub async fn list(&self, path: &str, selector: &str) -> Value {
        if !path.starts_with("label/") {
            return self.ask(path, &[("match[]", selector)]).await;
        }
        let escaped = selector.bytes().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "%{byte:02X}");
            out
        });
        let url = format!("{}/api/v1/{path}?match[]={escaped}", self.url);
        self.http.send("GET", &url, &[], "").await.unwrap().json()
    }
}

/// Writes two hours of all series, oldest first within each series.
fn blocks(promtool: &Path, namespaces: &[&str], folder: &Path, data: &Path) {
    let mut text = String::new();
    for (name, kind) in [("m_counter", "unknown"), ("m_gauge", "unknown"), ("m_hist_bucket", "unknown")] {
        writeln!(text, "# TYPE {name} {kind}").unwrap();
        for namespace in namespaces {
            // The last letter tells namespaces apart, whoever else is there.
            let weight = f64::from(namespace.bytes().last().unwrap() - b'a' + 1);
            for pod in 1..=3_u32 {
                for (index, bound) in ["0.1", "1", "+Inf"].iter().enumerate() {
                    let (labels, share) = if name == "m_hist_bucket" {
                        (format!(",le=\"{bound}\""), f64::from(u32::try_from(index).unwrap() + 1))
                    } else if index == 0 {
                        (String::new(), 1.0)
                    } else {
                        continue;
                    };
                    for time in (BEGIN..=END).step_by(STEP) {
                        #[allow(clippy::cast_precision_loss, reason = "two hours")]
                        let elapsed = (time - BEGIN) as f64;
                        let value = if name == "m_gauge" {
                            (elapsed / 300.0 + f64::from(pod)).sin() * 10.0 + weight * 1.37
                        } else {
                            // With a reset in the middle.
                            ((elapsed % 4000.0) * share * f64::from(pod) * (weight + 0.13)).round()
                        };
                        let job = if pod == 3 { "y" } else { "x" };
                        writeln!(
                            text,
                            "{name}{{namespace=\"{namespace}\",pod=\"p{pod}\",job=\"{job}\"{labels}}} {value} {time}"
                        )
                        .unwrap();
                    }
                }
            }
        }
    }
    text.push_str("# EOF\n");
    let file = folder.join("data.om");
    fs::write(&file, text).unwrap();
    let output = Command::new(promtool)
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .arg(&file)
        .arg(data)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
