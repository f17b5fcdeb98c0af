//! Everything but the sidecar: a cluster, real Perses, real Prometheus, people, and a configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::data::{self, TEAMS};
use crate::ground::{Ground, Kind};
use crate::http::Http;
use crate::openshift::{Certificates, OpenShift, SIDECAR, Subject};
use crate::overlay::lay_over;
use crate::secrets;
use crate::servers::{self, Server};

/// What may be chosen.
#[derive(Clone, Default)]
pub struct Options {
    /// The cluster.
    pub cluster: Kind,
    /// One of [`servers::PERSES`]; the newest if there is none.
    pub perses_version: Option<&'static str>,
    /// A Perses that is there.
    pub perses: Option<PathBuf>,
    /// A Prometheus that is there; promtool is looked for beside it.
    pub prometheus: Option<PathBuf>,
    /// Another folder of Perses plugins.
    pub plugins: Option<PathBuf>,
    /// A folder that Perses serves as its web UI.
    pub ui: Option<PathBuf>,
    /// With the demo's workloads in the cluster.
    pub workloads: bool,
    /// Keys that are laid over the demo's configuration.
    pub config: Option<PathBuf>,
    /// Shorter staleness bounds, so that a tour need not wait for a minute.
    pub quick: bool,
}

/// Somebody.
#[derive(Clone, Debug)]
pub struct Person {
    /// For the login page.
    pub password: String,
    /// A token.
    pub token: String,
}

/// What runs.
pub struct World {
    /// The cluster.
    pub ground: Ground,
    /// Perses.
    pub perses: Server,
    /// Prometheus.
    pub prometheus: Server,
    /// `http://127.0.0.1:PORT` of each.
    pub perses_url: String,
    /// As above.
    pub prometheus_url: String,
    /// People by name.
    pub people: BTreeMap<&'static str, Person>,
    /// The sidecar's configuration.
    pub config_file: PathBuf,
    /// The authority of the sidecar's own certificate.
    pub ca_file: PathBuf,
    /// Ports for the sidecar: gateway, https, admin, control.
    pub ports: [u16; 4],
    /// The folder of this run.
    pub folder: PathBuf,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// The link through which Perses reaches its database.
    database: PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        let _ = fs::remove_file(&self.database);
    }
}

impl World {
    /// Starts everything; `say` gets a line for each step.
    ///
    /// # Errors
    /// When something cannot be built or started; the text says what.
    pub async fn start(options: &Options, say: &dyn Fn(&str)) -> io::Result<Self> {
        let version = options.perses_version.unwrap_or(servers::PERSES[0]);
        let perses = options.perses.clone().map_or_else(|| servers::binary("perses", version, say), Ok)?;
        let build = |name: &str| servers::binary(name, servers::PROMETHEUS, say);
        let prometheus = options.prometheus.clone().map_or_else(|| build("prometheus"), Ok)?;
        let promtool = match &options.prometheus {
            Some(path) => path.with_file_name("promtool"),
            None => build("promtool")?,
        };
        let blocks = data::blocks(&promtool, &servers::home(), say)?;
        let folder = servers::run_folder("world")?;

        let ground = Ground::start(options.cluster, &folder.join("cluster"), say).await?;
        let people = populate(&ground).await?;
        for object in options.workloads.then(crate::workloads::all).unwrap_or_default() {
            ground.put_object(&object).await?;
        }
        say("the cluster is ready");
        let (exporter, exporter_port) = export("text/plain; version=0.0.4", data::exposition).await?;
        let (prometheus, prometheus_url) = start_prometheus(&prometheus, &blocks, &folder, exporter_port).await?;
        say("Prometheus is ready");
        let (perses, perses_url, database) = start_perses(&perses, &folder, options.plugins.as_deref()).await?;
        say("Perses is ready");
        seed(&perses_url, &prometheus_url).await?;
        let mut tasks = vec![exporter];
        let mut perses_url = perses_url;
        if let Some(folder) = &options.ui {
            let (url, task) = crate::ui::serve(&perses_url, folder).await?;
            perses_url = url;
            tasks.push(task);
        }

        let certificates = Certificates::make(&["localhost", "127.0.0.1"])?;
        let ca_file = folder.join("gateway-ca.crt");
        fs::write(&ca_file, &certificates.ca)?;
        fs::write(folder.join("gateway.crt"), &certificates.certificate)?;
        fs::write(folder.join("gateway.key"), &certificates.key)?;
        let port = servers::free_port;
        let ports = [port()?, port()?, port()?, port()?];
        let world = Self {
            config_file: folder.join("sidecar.yaml"),
            ground,
            perses,
            prometheus,
            perses_url,
            prometheus_url,
            people,
            ca_file,
            ports,
            folder,
            tasks,
            database,
        };
        if let Some(stand_in) = world.oauth() {
            let here = format!("https://localhost:{}/-/callback", world.ports[1]);
            let key = "serviceaccounts.openshift.io/oauth-redirecturi.sidecar";
            stand_in.cluster().annotate_account("perses", "perses-sidecar", key, &here);
        }
        let mut text = world.sidecar_config(options.quick);
        if let Some(path) = &options.config {
            text = lay_over(&text, &fs::read_to_string(path)?)?;
        }
        fs::write(&world.config_file, text)?;
        Ok(world)
    }

    /// The stand-in, where people log in at it.
    fn oauth(&self) -> Option<&OpenShift> {
        self.ground.stand_in().filter(|stand_in| stand_in.lets_in())
    }

    /// The sidecar's configuration for this world.
    #[must_use]
    pub fn sidecar_config(&self, quick: bool) -> String {
        let [gateway, https, admin, control] = self.ports;
        let folder = self.folder.display();
        let login = self.oauth().map_or_else(String::new, |stand_in| {
            let ca = stand_in.oauth_ca_file();
            format!("  openshift:\n    client_id: {SIDECAR}\n    ca_file: {}\n", ca.display())
        });
        // Before the real API server, the stand-in forwards whole answers, and a watch never is one.
        let forwarded = matches!(&self.ground, Ground::Real(real) if real.front().is_some());
        let workloads = if forwarded { "enabled: false" } else { "discovery: 1s" };
        let bounds = if quick {
            "  token_ttl: 2s\n  token_failure_ttl: 1s\n  allow_ttl: 2s\n  deny_ttl: 1s\n  namespaces_ttl: 2s\n"
        } else {
            "  narrow_to_project: false\n"
        };
        format!(
            "listen:\n  gateway: 127.0.0.1:{gateway}\n  https: 127.0.0.1:{https}\n  admin: 127.0.0.1:{admin}\n  control: 127.0.0.1:{control}\n\
             tls:\n  certificate_file: {folder}/gateway.crt\n  key_file: {folder}/gateway.key\n\
             perses:\n  url: {}\n\
             cluster:\n  url: {}\n  ca_file: {}\n  token_file: {}\n\
             login:\n  external_url: https://localhost:{https}\n{login}\
             access:\n{bounds}\
             metrics_backends:\n  - name: prometheus\n    url: {}\n    labels:\n      - metrics: [\"DCGM_*\"]\n        \
             label: exported_namespace\n        where:\n          namespace: nvidia-gpu-operator\n\
             workloads:\n  {workloads}\n\
             audit:\n  file: {folder}/audit.log\n",
            self.perses_url,
            self.ground.url(),
            self.ground.ca_file().display(),
            self.ground.token_file().display(),
            self.prometheus_url,
        )
    }

    /// Adds a backend, shown as a global datasource of its name, to the configuration.
    ///
    /// # Errors
    /// When the file cannot be read, written, or laid over.
    pub fn add_backend(&mut self, name: &str, kind: &str, url: &str) -> io::Result<()> {
        let backend = |name: &str, kind: &str, url: &str| {
            format!(
                "  - name: {name}\n    kind: {kind}\n    url: {url}\n    datasource:\n      name: {name}\n    labels:\n      - \
                 metrics: [\"DCGM_*\"]\n        label: exported_namespace\n        where:\n          namespace: nvidia-gpu-operator\n"
            )
        };
        // A list replaces a list; the world's own backend has its datasource in Perses.
        let own = backend("prometheus", "prometheus", &self.prometheus_url);
        let over = format!("metrics_backends:\n{own}{}", backend(name, kind, url));
        let text = lay_over(&fs::read_to_string(&self.config_file)?, &over)?;
        fs::write(&self.config_file, text)
    }

    /// `http://127.0.0.1:PORT` of the gateway.
    #[must_use]
    pub fn gateway(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// `http://127.0.0.1:PORT` of the admin port.
    #[must_use]
    pub fn admin(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[2])
    }

    /// Somebody's token.
    #[must_use]
    pub fn token(&self, name: &str) -> &str {
        self.people.get(name).map_or("", |person| &person.token)
    }

    /// Starts the sidecar and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_sidecar(&self, binary: &Path) -> io::Result<Server> {
        let arguments = self.sidecar_arguments();
        let server = Server::start(binary, &arguments, &self.folder.join("sidecar.log"), &[])?;
        server.ready(&format!("{}/readyz", self.admin()), Duration::from_secs(20)).await?;
        Ok(server)
    }

    /// Looks for every secret of this process in what the sidecar, Perses and Prometheus wrote; gives how many bytes were
    /// looked through.
    ///
    /// # Errors
    /// The line that has one, and who wrote it.
    pub fn without_secrets(&self, sidecar: &Server) -> Result<usize, String> {
        let audit = std::fs::read_to_string(self.folder.join("audit.log")).unwrap_or_default();
        let texts = [
            ("the log", sidecar.output()),
            ("the audit", audit),
            ("Perses", self.perses.output()),
            ("Prometheus", self.prometheus.output()),
        ];
        for (name, text) in &texts {
            if let Some(line) = secrets::found_in(text) {
                return Err(format!("a secret stands in what {name} says: {line}"));
            }
        }
        Ok(texts.iter().map(|(_, text)| text.len()).sum())
    }

    /// The sidecar's command line behind its own name, with another level of the log.
    #[must_use]
    pub fn arguments_at(&self, level: &str) -> Vec<String> {
        ["run", "--config", &self.config_file.to_string_lossy(), "--log-level", level].map(str::to_owned).to_vec()
    }

    /// The sidecar's command line behind its own name.
    #[must_use]
    pub fn sidecar_arguments(&self) -> Vec<String> {
        self.arguments_at("debug")
    }

    /// What an outside client needs.
    #[must_use]
    pub fn environment(&self, sidecar: Option<&Server>) -> Value {
        let users: BTreeMap<&str, Value> = self
            .people
            .iter()
            .map(|(name, person)| (*name, json!({ "password": person.password, "token": person.token })))
            .collect();
        json!({
            "gateway": self.gateway(),
            "https": format!("https://localhost:{}", self.ports[1]),
            "admin": self.admin(),
            "control": format!("http://127.0.0.1:{}", self.ports[3]),
            "ca_file": self.ca_file,
            "perses": self.perses_url,
            "prometheus": self.prometheus_url,
            "cluster": self.ground.url(),
            "oauth": self.oauth().map(OpenShift::oauth_url),
            "stand_in": self.ground.stand_in().map(OpenShift::remote),
            "folder": self.folder,
            "config_file": self.config_file,
            "users": users,
            "pids": { "sidecar": sidecar.map(Server::pid), "perses": self.perses.pid(), "prometheus": self.prometheus.pid() },
        })
    }
}

/// The demo's namespaces and rights. Gives the people of the demo.
async fn populate(ground: &Ground) -> io::Result<BTreeMap<&'static str, Person>> {
    for team in TEAMS {
        ground.add_namespace(team).await?;
    }
    let user = |name: &str| Subject::User(name.to_owned());
    ground.bind(Some("team-a"), user("ada"), "edit").await?;
    ground.bind(Some("team-b"), user("ada"), "view").await?;
    ground.bind(Some("team-b"), user("grace"), "edit").await?;
    ground.bind(None, user("root"), "cluster-admin").await?;
    Ok(["ada", "grace", "root", "eve"]
        .into_iter()
        .map(|name| {
            let password = format!("{name}-{}", crate::openshift::random_text(8));
            if let Some(stand_in) = ground.stand_in() {
                stand_in.cluster().set_password(name, &password);
            }
            secrets::note(ground.token(name));
            (name, Person { password, token: ground.token(name).to_owned() })
        })
        .collect())
}

/// Serves the present to Prometheus, in the format of a media type.
pub(crate) async fn export(kind: &'static str, text: fn() -> String) -> io::Result<(tokio::task::JoinHandle<()>, u16)> {
    use http_body_util::Full;
    use hyper::service::service_fn;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let Ok((socket, _)) = listener.accept().await else { continue };
            connections.spawn(async move {
                let service = service_fn(|_| async {
                    let mut response = ::http::Response::new(Full::new(bytes::Bytes::from(text())));
                    response.headers_mut().insert("content-type", ::http::HeaderValue::from_static(kind));
                    Ok::<_, std::convert::Infallible>(response)
                });
                let io = hyper_util::rt::TokioIo::new(socket);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    });
    Ok((task, port))
}

async fn start_prometheus(binary: &Path, blocks: &Path, folder: &Path, exporter: u16) -> io::Result<(Server, String)> {
    let home = folder.join("prometheus");
    fs::create_dir_all(&home)?;
    servers::copy_folder(blocks, &home.join("data"))?;
    fs::write(
        home.join("prometheus.yml"),
        format!(
            "global:\n  scrape_interval: 5s\nscrape_configs:\n  - job_name: demo\n    honor_labels: true\n    static_configs:\n      - targets: [\"127.0.0.1:{exporter}\"]\n"
        ),
    )?;
    let port = servers::free_port()?;
    let url = format!("http://127.0.0.1:{port}");
    let arguments = [
        format!("--config.file={}", home.join("prometheus.yml").display()),
        format!("--storage.tsdb.path={}", home.join("data").display()),
        "--storage.tsdb.retention.time=30d".to_owned(),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    let server = Server::start(binary, &arguments, &folder.join("prometheus.log"), &[])?;
    server.ready(&format!("{url}/-/ready"), Duration::from_secs(60)).await?;
    // The past may end a moment ago; only a scrape brings the present, and Prometheus' own series about it.
    let http = Http::default();
    for _ in 0..200 {
        let answer = http.send("GET", &format!("{url}/api/v1/query?query=up%3D%3D1"), &[], "").await?;
        if answer.json()["data"]["result"].as_array().is_some_and(|result| !result.is_empty()) {
            return Ok((server, url));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(io::Error::other("Prometheus did not scrape the demo's metrics within 20 s"))
}

async fn start_perses(binary: &Path, folder: &Path, plugins: Option<&Path>) -> io::Result<(Server, String, PathBuf)> {
    let home = folder.join("perses");
    // Perses folds the case of its database's folder, so that must be lower-case; a link makes it so.
    let database = std::env::temp_dir().join(format!(
        "perses-sidecar-stack-{}-{}",
        std::process::id(),
        crate::openshift::random_text(8).to_lowercase()
    ));
    fs::create_dir_all(home.join("archives"))?;
    fs::create_dir_all(home.join("data"))?;
    std::os::unix::fs::symlink(home.join("data"), &database)?;
    let pack = servers::checkout().join("tests/stack/schemas");
    servers::copy_folder(plugins.unwrap_or(&pack), &home.join("plugins"))?;
    fs::write(
        home.join("config.yaml"),
        format!(
            "security:\n  enable_auth: false\n  encryption_key: \"{}\"\ndatabase:\n  file:\n    folder: {}\n    extension: json\n    case_sensitive: false\n\
             plugin:\n  path: {}\n  archive_paths:\n    - {}\nfrontend:\n  disable: false\n  explorer:\n    enable: true\nephemeral_dashboard:\n  enable: true\n",
            crate::openshift::random_text(32),
            database.display(),
            home.join("plugins").display(),
            home.join("archives").display(),
        ),
    )?;
    let port = servers::free_port()?;
    let url = format!("http://127.0.0.1:{port}");
    let arguments = [
        "-config".to_owned(),
        home.join("config.yaml").display().to_string(),
        "-web.listen-address".to_owned(),
        format!("127.0.0.1:{port}"),
        "-web.hide-port".to_owned(),
    ];
    let server = Server::start(binary, &arguments, &folder.join("perses.log"), &[])?;
    server.ready(&format!("{url}/api/v1/health"), Duration::from_secs(60)).await?;
    Ok((server, url, database))
}

/// A dashboard with one panel.
#[must_use]
pub fn dashboard(name: &str, query: &str) -> Value {
    json!({
        "kind": "Dashboard",
        "metadata": { "name": name },
        "spec": {
            "display": { "name": name },
            "duration": "1h",
            "panels": { "main": { "kind": "Panel", "spec": {
                "display": { "name": "Main" },
                "plugin": { "kind": "TimeSeriesChart", "spec": {} },
                "queries": [{ "kind": "TimeSeriesQuery", "spec": {
                    "plugin": { "kind": "PrometheusTimeSeriesQuery", "spec": { "query": query } } } }],
            } } },
            "layouts": [{ "kind": "Grid", "spec": { "items": [
                { "x": 0, "y": 0, "width": 24, "height": 8, "content": { "$ref": "#/spec/panels/main" } }] } }],
        },
    })
}

/// A datasource's spec that points at a URL.
#[must_use]
pub fn datasource_spec(url: &str, default: bool) -> Value {
    json!({ "default": default, "plugin": { "kind": "PrometheusDatasource", "spec": { "proxy": { "kind": "HTTPProxy", "spec": { "url": url } } } } })
}

/// What Perses has stored before anybody comes.
async fn seed(perses: &str, prometheus: &str) -> io::Result<()> {
    let http = Arc::new(Http::default());
    let post = async |path: &str, body: Value| {
        let answer = http.json("POST", &format!("{perses}{path}"), "none", &body).await?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(io::Error::other(format!("{path}: {} {}", answer.status, answer.text())))
        }
    };
    let global = json!({ "kind": "GlobalDatasource", "metadata": { "name": "prometheus" }, "spec": datasource_spec(prometheus, true) });
    post("/api/v1/globaldatasources", global).await?;
    // team-c is left to be a virtual project; "shared" is no namespace.
    for project in ["team-a", "team-b", "shared"] {
        post("/api/v1/projects", json!({ "kind": "Project", "metadata": { "name": project }, "spec": {} })).await?;
        post(
            &format!("/api/v1/projects/{project}/dashboards"),
            dashboard("overview", "sum(vllm:num_requests_running)"),
        )
        .await?;
    }
    let local =
        json!({ "kind": "Datasource", "metadata": { "name": "own" }, "spec": datasource_spec(prometheus, false) });
    post("/api/v1/projects/team-a/datasources", local).await?;
    let foreign = json!({ "kind": "Datasource", "metadata": { "name": "foreign" }, "spec": datasource_spec("http://127.0.0.1:1/", false) });
    post("/api/v1/projects/team-a/datasources", foreign).await
}
