//! Real Thanos: two Prometheus replicas that scrape the same, a sidecar at each, a store gateway with the past in object
//! storage, and the querier over all three.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::data::{self, TEAMS};
use crate::http::Http;
use crate::servers::{self, Server};
use crate::world::export;

/// What runs.
pub struct Thanos {
    /// `http://127.0.0.1:PORT` of the querier.
    pub url: String,
    /// `http://127.0.0.1:PORT` of a query frontend with an in-memory cache before it.
    pub frontend_url: String,
    /// The querier.
    pub query: Server,
    /// The frontend.
    pub frontend: Server,
    /// The sidecars of the replicas 0 and 1.
    pub sidecars: [Server; 2],
    /// The gateway to what is in object storage.
    pub store: Server,
    _replicas: [Server; 2],
    exporter: tokio::task::JoinHandle<()>,
}

impl Drop for Thanos {
    fn drop(&mut self) {
        self.exporter.abort();
    }
}

/// The demo's series, and one counter of each team with an exemplar.
fn exposition() -> String {
    let mut out = String::new();
    let mut last = "";
    let all = data::exposition();
    for line in all.lines() {
        let name = line.split('{').next().unwrap_or_default();
        if name != last {
            let _ = writeln!(out, "# TYPE {name} unknown");
            last = name;
        }
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(out, "# TYPE requests counter");
    for team in TEAMS {
        let _ = writeln!(out, "requests_total{{namespace=\"{team}\"}} 5 # {{trace_id=\"trace-of-{team}\"}} 1.0");
    }
    out.push_str("# EOF\n");
    out
}

/// A rule of each team, as a tenant would write it: its labels say whose it is.
fn rules() -> String {
    let mut out = String::from("groups:\n");
    for team in TEAMS {
        let _ = write!(
            out,
            "  - name: {team}\n    interval: 1s\n    rules:\n      - alert: Running\n        \
             expr: vllm:num_requests_running{{namespace=\"{team}\"}} > 0\n        labels:\n          namespace: {team}\n          severity: info\n      \
             - record: team:running:sum\n        expr: sum(vllm:num_requests_running{{namespace=\"{team}\"}})\n        labels:\n          namespace: {team}\n"
        );
    }
    out
}

impl Thanos {
    /// Starts everything in `folder`; `say` gets a line for each step.
    ///
    /// # Errors
    /// When something cannot be built or started; the text says what.
    pub async fn start(folder: &Path, say: &dyn Fn(&str)) -> io::Result<Self> {
        let thanos = servers::binary("thanos", servers::THANOS, say)?;
        let prometheus = servers::binary("prometheus", servers::PROMETHEUS, say)?;
        let promtool = servers::binary("promtool", servers::PROMETHEUS, say)?;
        let blocks = data::blocks(&promtool, &servers::home(), say)?;
        fs::create_dir_all(folder)?;
        let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let (exporter, target) = export(openmetrics, exposition).await?;

        let first = replica(0, &prometheus, &thanos, folder, target).await?;
        let second = replica(1, &prometheus, &thanos, folder, target).await?;
        let bucket = folder.join("bucket");
        fs::create_dir_all(&bucket)?;
        let storage = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", bucket.display());
        upload(&thanos, &blocks, &storage, folder)?;
        let (http, grpc) = (servers::free_port()?, servers::free_port()?);
        let store = Server::start(
            &thanos,
            &words(&[
                "store",
                &format!("--data-dir={}", folder.join("store").display()),
                &format!("--objstore.config={storage}"),
                &format!("--http-address=127.0.0.1:{http}"),
                &format!("--grpc-address=127.0.0.1:{grpc}"),
            ]),
            &folder.join("store.log"),
            &[],
        )?;
        store.ready(&format!("http://127.0.0.1:{http}/-/ready"), Duration::from_secs(60)).await?;

        let (http, own) = (servers::free_port()?, servers::free_port()?);
        let url = format!("http://127.0.0.1:{http}");
        let mut arguments = words(&[
            "query",
            "--query.replica-label=replica",
            &format!("--http-address=127.0.0.1:{http}"),
            &format!("--grpc-address=127.0.0.1:{own}"),
        ]);
        arguments.extend([first.2, second.2, grpc].map(|port| format!("--endpoint=127.0.0.1:{port}")));
        let query = Server::start(&thanos, &arguments, &folder.join("query.log"), &[])?;
        query.ready(&format!("{url}/-/ready"), Duration::from_secs(60)).await?;
        let http = servers::free_port()?;
        let frontend_url = format!("http://127.0.0.1:{http}");
        let frontend = Server::start(
            &thanos,
            &words(&[
                "query-frontend",
                &format!("--http-address=127.0.0.1:{http}"),
                &format!("--query-frontend.downstream-url={url}"),
                "--query-range.response-cache-config=type: IN-MEMORY\nconfig:\n  max_size: 256MB\n",
                "--query-range.split-interval=24h",
            ]),
            &folder.join("frontend.log"),
            &[],
        )?;
        frontend.ready(&format!("{frontend_url}/-/ready"), Duration::from_secs(60)).await?;
        let all = Self {
            url,
            frontend_url,
            query,
            frontend,
            sidecars: [first.1, second.1],
            store,
            _replicas: [first.0, second.0],
            exporter,
        };
        all.settled().await?;
        say("Thanos is ready");
        Ok(all)
    }

    /// Waits until all three stores answer with what they hold.
    async fn settled(&self) -> io::Result<()> {
        let http = Http::default();
        let began = Instant::now();
        let pods = data::series().iter().filter(|series| series.name == "kube_pod_info").count();
        loop {
            let count = async |text: &str| {
                let url = format!("{}/api/v1/query?dedup=false&query={text}", self.url);
                let json = http.send("GET", &url, &[], "").await?.json();
                Ok::<_, io::Error>(json["data"]["result"].as_array().map_or(0, Vec::len))
            };
            let (here, past) = (count("requests_total").await?, count("kube_pod_info%20offset%202d").await?);
            let alerts = http.send("GET", &format!("{}/api/v1/alerts", self.url), &[], "").await?.json();
            let alerts = alerts["data"]["alerts"].as_array().map_or(0, Vec::len);
            let url = format!("{}/api/v1/query_exemplars?query=requests_total&start=0&end=4102444800", self.url);
            let exemplars = http.send("GET", &url, &[], "").await?.json()["data"].as_array().map_or(0, Vec::len);
            if (here, past) == (2 * TEAMS.len(), pods) && alerts > 0 && exemplars >= TEAMS.len() {
                return Ok(());
            }
            if began.elapsed() > Duration::from_secs(60) {
                let problem = format!(
                    "Thanos does not see all of its stores: {here} series, {past} of the past, {alerts} alerts, \
                     {exemplars} exemplars"
                );
                return Err(io::Error::other(problem));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Prometheus, its sidecar, and the port at which the sidecar answers the querier.
async fn replica(
    number: u8,
    prometheus: &Path,
    thanos: &Path,
    folder: &Path,
    target: u16,
) -> io::Result<(Server, Server, u16)> {
    let home = folder.join(format!("replica-{number}"));
    fs::create_dir_all(&home)?;
    fs::write(home.join("rules.yml"), rules())?;
    let config = format!(
        "global:\n  scrape_interval: 1s\n  external_labels:\n    cluster: demo\n    replica: \"{number}\"\n\
         rule_files: [{}]\nscrape_configs:\n  - job_name: demo\n    honor_labels: true\n    static_configs:\n      - targets: [\"127.0.0.1:{target}\"]\n",
        home.join("rules.yml").display()
    );
    fs::write(home.join("prometheus.yml"), config)?;
    let port = servers::free_port()?;
    let url = format!("http://127.0.0.1:{port}");
    let server = Server::start(
        prometheus,
        &words(&[
            &format!("--config.file={}", home.join("prometheus.yml").display()),
            &format!("--storage.tsdb.path={}", home.join("data").display()),
            "--enable-feature=exemplar-storage",
            &format!("--web.listen-address=127.0.0.1:{port}"),
        ]),
        &folder.join(format!("replica-{number}.log")),
        &[],
    )?;
    server.ready(&format!("{url}/-/ready"), Duration::from_secs(60)).await?;
    let (http, grpc) = (servers::free_port()?, servers::free_port()?);
    let sidecar = Server::start(
        thanos,
        &words(&[
            "sidecar",
            &format!("--prometheus.url={url}"),
            &format!("--tsdb.path={}", home.join("data").display()),
            &format!("--http-address=127.0.0.1:{http}"),
            &format!("--grpc-address=127.0.0.1:{grpc}"),
        ]),
        &folder.join(format!("sidecar-{number}.log")),
        &[],
    )?;
    sidecar.ready(&format!("http://127.0.0.1:{http}/-/ready"), Duration::from_secs(60)).await?;
    Ok((server, sidecar, grpc))
}

/// Puts the demo's week into the bucket, as a third replica's.
fn upload(thanos: &Path, blocks: &Path, storage: &str, folder: &Path) -> io::Result<()> {
    // What is uploaded is written to first, so it is a copy.
    let copy = folder.join("upload");
    servers::copy_folder(blocks, &copy)?;
    for block in fs::read_dir(&copy)? {
        let meta = block?.path().join("meta.json");
        let text = fs::read(&meta)?;
        fs::remove_file(&meta)?;
        fs::write(&meta, text)?;
    }
    let output = Command::new(thanos)
        .args(["tools", "bucket", "upload-blocks", "--shipper.upload-compacted"])
        .args(["--label=cluster=\"demo\"", "--label=replica=\"archive\""])
        .arg(format!("--path={}", copy.display()))
        .arg(format!("--objstore.config={storage}"))
        .output()?;
    if output.status.success() {
        return fs::remove_dir_all(&copy);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("the past could not be uploaded: {}", text.lines().last().unwrap_or_default())))
}
