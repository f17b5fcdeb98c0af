//! A gateway in this process, between the stand-in and an upstream that records what it is asked.

pub mod browser;
pub mod issuer;
mod process;
mod tap;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use perses_sidecar::{app, config};
use perses_sidecar_stack::http::{Answer, Http};
use perses_sidecar_stack::openshift::OpenShift;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

pub use process::Process;
pub use tap::{Mode, Tap};

/// What the upstream was asked.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: http::HeaderMap,
    pub body: String,
}

/// What the upstream answers, by method and path; anything else is 404 in Perses' style.
type Answers = Vec<(&'static str, u16, String)>;

/// What it answers otherwise, if it thinks for itself.
type Mind = Box<dyn Fn(&Seen) -> Option<(u16, String)> + Send>;

#[derive(Clone, Default)]
pub struct Upstream {
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<Answers>>,
    mind: Arc<Mutex<Option<Mind>>>,
    held: Arc<Mutex<Option<Held>>>,
}

/// How many requests wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    pub now: usize,
    pub at_most: usize,
    pub ever: usize,
}

/// Requests that wait to be answered.
#[derive(Clone)]
pub struct Held {
    path: &'static str,
    waiting: tokio::sync::watch::Sender<Waiting>,
    let_go: Arc<tokio::sync::Semaphore>,
}

impl Held {
    /// Until this is so.
    pub async fn wait(&self, is_so: impl FnMut(&Waiting) -> bool) -> Waiting {
        let mut waiting = self.waiting.subscribe();
        let reached = waiting.wait_for(is_so);
        *tokio::time::timeout(Duration::from_secs(20), reached).await.unwrap().unwrap()
    }

    /// Lets so many be answered.
    pub fn let_go(&self, count: usize) {
        self.let_go.add_permits(count);
    }

    async fn pass(&self, line: &str) {
        if !line.contains(self.path) {
            return;
        }
        self.waiting.send_modify(|waiting| {
            waiting.now += 1;
            waiting.ever += 1;
            waiting.at_most = waiting.at_most.max(waiting.now);
        });
        self.let_go.acquire().await.unwrap().forget();
        self.waiting.send_modify(|waiting| waiting.now -= 1);
    }
}

impl Upstream {
    /// From now on, requests for a path wait until they are let go.
    pub fn hold(&self, path: &'static str) -> Held {
        let let_go = Arc::new(tokio::sync::Semaphore::new(0));
        let held = Held { path, waiting: tokio::sync::watch::Sender::default(), let_go };
        *self.held.lock().unwrap() = Some(held.clone());
        held
    }

    /// Everything it was asked since the last call.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// The request lines since the last call.
    pub fn lines(&self) -> Vec<String> {
        self.take().into_iter().map(|seen| seen.line).collect()
    }

    pub fn answers(&self, line: &'static str, status: u16, body: &str) {
        let mut answers = self.answers.lock().unwrap();
        answers.retain(|(known, ..)| *known != line);
        answers.push((line, status, body.to_owned()));
    }

    /// Takes an answer back.
    pub fn forget(&self, line: &str) {
        self.answers.lock().unwrap().retain(|(known, ..)| *known != line);
    }

    /// Answers whatever has no answer of its own.
    pub fn answers_by(&self, mind: impl Fn(&Seen) -> Option<(u16, String)> + Send + 'static) {
        *self.mind.lock().unwrap() = Some(Box::new(mind));
    }

    async fn serve(self, listener: TcpListener) {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let upstream = self.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let upstream = upstream.clone();
                    async move { Ok::<_, std::convert::Infallible>(upstream.answer(request).await) }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let line = format!("{} {}", head.method, head.uri);
        let path = format!("{} {}", head.method, head.uri.path());
        let seen = Seen { line, headers: head.headers, body: String::from_utf8_lossy(&body).into_owned() };
        let known = self.answers.lock().unwrap().iter().find(|(known, ..)| *known == path).cloned();
        let thought = || self.mind.lock().unwrap().as_ref().and_then(|mind| mind(&seen));
        let (status, body) = known
            .map(|(_, status, body)| (status, body))
            .or_else(thought)
            .unwrap_or((404, r#"{"message":"document not found"}"#.to_owned()));
        let held = self.held.lock().unwrap().clone();
        if let Some(held) = held {
            held.pass(&seen.line).await;
        }
        self.seen.lock().unwrap().push(seen);
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .unwrap()
    }
}

/// What a gateway needs around it: the stand-in, a recording upstream, and a configuration that names them.
pub struct Stage {
    pub upstream: Upstream,
    pub openshift: OpenShift,
    pub audit: PathBuf,
    pub config: PathBuf,
    /// The port of what stands for Perses; what stands for Prometheus has another.
    pub perses: u16,
    /// The ways from the gateway to the three servers.
    pub taps: Taps,
    folder: PathBuf,
}

pub struct Taps {
    pub cluster: Tap,
    pub perses: Tap,
    pub prometheus: Tap,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub struct Gate {
    pub url: String,
    pub address: String,
    pub https: Option<std::net::SocketAddr>,
    pub admin: String,
    pub control: Option<std::net::SocketAddr>,
    pub http: Http,
    stage: Stage,
    stop: Option<oneshot::Sender<()>>,
}

impl std::ops::Deref for Gate {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        watch::look_at(&self.stage.audit);
    }
}

/// Further configuration: behind `listen`, `perses`, `cluster` and the backend, and behind everything.
#[derive(Clone, Copy, Default)]
pub struct More<'a> {
    pub listen: &'a str,
    pub perses: &'a str,
    pub cluster: &'a str,
    pub backend: &'a str,
    pub rest: &'a str,
}

/// People: ada edits team-a and views team-b, grace edits team-b, root administers, eve has nothing.
pub async fn stage(more: More<'_>, ports: [u16; 2]) -> Stage {
    let name = perses_sidecar_stack::openshift::random_text(8);
    let folder = std::env::temp_dir().join(format!("gate-{}-{name}", std::process::id()));
    let openshift = OpenShift::start(&folder).await.unwrap();
    let cluster = openshift.cluster();
    for team in ["team-a", "team-b", "team-c"] {
        cluster.add_namespace(team);
    }
    cluster.bind_role("team-a", "ada", "edit");
    cluster.bind_role("team-b", "ada", "view");
    cluster.bind_role("team-b", "grace", "edit");
    cluster.bind_cluster_role("root", "cluster-admin");
    let upstream = Upstream::default();
    let perses = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let prometheus = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taps = Taps {
        cluster: Tap::to(openshift.port()).await,
        perses: Tap::to(perses.local_addr().unwrap().port()).await,
        prometheus: Tap::to(prometheus.local_addr().unwrap().port()).await,
    };
    let (perses_port, prometheus_port) = (taps.perses.port, taps.prometheus.port);
    tokio::spawn(upstream.clone().serve(perses));
    tokio::spawn(upstream.clone().serve(prometheus));
    upstream.answers("GET /api/v1/health", 200, r#"{"version":"x","database":true}"#);
    let scheme = if more.backend.contains("ca_file") { "https" } else { "http" };
    let datasource = format!(
        r#"{{"kind":"GlobalDatasource","metadata":{{"name":"p"}},"spec":{{"plugin":{{"kind":"PrometheusDatasource","spec":{{"proxy":{{"kind":"HTTPProxy","spec":{{"url":"{scheme}://127.0.0.1:{prometheus_port}"}}}}}}}}}}}}"#
    );
    upstream.answers("GET /api/v1/globaldatasources/p", 200, &datasource);
    upstream.answers("GET /api/v1/projects/team-a/datasources/p", 200, &datasource);
    upstream.answers("POST /api/v1/query", 200, r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
    let audit = folder.join("audit.log");
    let [gateway, admin] = ports;
    let control = if more.listen.contains("control:") { "" } else { "  control: 127.0.0.1:0\n" };
    // Most tests look at what the backend is asked for each question.
    let bypass = if more.rest.contains("cache:") { "" } else { "cache:\n  mode: bypass\n" };
    // Most tests count what the API server is asked.
    let unwatched = if more.rest.contains("workloads:") { "" } else { "workloads:\n  enabled: false\n" };
    let text = format!(
        "listen:\n  gateway: 127.0.0.1:{gateway}\n  admin: 127.0.0.1:{admin}\n{control}{}perses:\n  url: http://127.0.0.1:{perses_port}\n{}\
         cluster:\n  url: {}\n  ca_file: {}\n  token_file: {}\n{}metrics_backends:\n  - name: p\n    url: {scheme}://127.0.0.1:{prometheus_port}\n{}\
         audit:\n  file: {}\n{bypass}{unwatched}{}",
        more.listen,
        more.perses,
        format_args!("https://127.0.0.1:{}", taps.cluster.port),
        openshift.ca_file().display(),
        openshift.token_file().display(),
        more.cluster,
        more.backend,
        audit.display(),
        more.rest,
    );
    let text = text.replace("FOLDER", &folder.display().to_string());
    let certificates = perses_sidecar_stack::openshift::Certificates::make(&["localhost", "127.0.0.1"]).unwrap();
    std::fs::write(folder.join("tls.crt"), &certificates.certificate).unwrap();
    std::fs::write(folder.join("tls.key"), &certificates.key).unwrap();
    std::fs::write(folder.join("tls-ca.crt"), &certificates.ca).unwrap();
    let config = folder.join("config.yaml");
    std::fs::write(&config, text).unwrap();
    Stage { upstream, openshift, audit, config, perses: perses_port, taps, folder }
}

/// Starts with further configuration below the usual one.
pub async fn gate(more: &str) -> Gate {
    gate_with(More { rest: more, ..More::default() }).await
}

/// Starts with further configuration anywhere.
pub async fn gate_with(more: More<'_>) -> Gate {
    watch::begin();
    let stage = stage(more, [0, 0]).await;
    let path = stage.config.clone();
    let loaded = config::load(&path).unwrap_or_else(|problems| panic!("{problems:?}"));
    let (stop, stopped) = oneshot::channel();
    let (ready, ports) = std::sync::mpsc::channel();
    tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        app::run(&path, loaded, None, stopped, |ports| ready.send(*ports).unwrap()).await.unwrap();
    });
    let ports =
        tokio::task::spawn_blocking(move || ports.recv_timeout(Duration::from_secs(10)).unwrap()).await.unwrap();
    stage.upstream.take();
    Gate {
        url: format!("http://{}", ports.gateway),
        address: ports.gateway.to_string(),
        https: ports.https,
        admin: format!("http://{}", ports.admin),
        control: ports.control,
        http: Http::default(),
        stage,
        stop: Some(stop),
    }
}

/// What came back over a connection.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    pub text: String,
    pub closed: bool,
}

impl Heard {
    /// The codes of all answers but interim ones.
    pub fn codes(&self) -> Vec<u16> {
        let lines = self.text.split("HTTP/1.").skip(1);
        lines.filter_map(|line| line.split(' ').nth(1)?.parse().ok()).filter(|code| *code >= 200).collect()
    }
}

/// Text as it goes over the wire: every line break becomes CR LF. `␊` is a lone LF, `␍` a lone CR, `␀` NUL, `ÿ` the byte 255.
pub fn wire(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.extend_from_slice(b"\r\n"),
            '␊' => out.push(b'\n'),
            '␍' => out.push(b'\r'),
            '␀' => out.push(0),
            'ÿ' => out.push(255),
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

impl Stage {
    pub fn token(&self, user: &str) -> String {
        self.openshift.cluster().issue_token(user)
    }
}

/// Sends bytes and listens until the peer closes, or has answered and says nothing more, or says nothing at all for 5 s.
pub async fn speak(address: &str, bytes: &[u8]) -> Heard {
    speak_for(address, bytes, Duration::from_millis(50)).await
}

/// The same, with another patience once there is an answer.
pub async fn speak_for(address: &str, bytes: &[u8], more: Duration) -> Heard {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // Whoever is refused early may find the connection closed before all is written.
    let _ = socket.write_all(bytes).await;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let answered = answer.windows(4).any(|window| window == b"\r\n\r\n");
        let patience = if answered { more } else { Duration::from_secs(5) };
        match tokio::time::timeout(patience, socket.read(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => answer.extend_from_slice(&buffer[..read]),
            outcome => {
                let closed = outcome.is_ok();
                return Heard { text: String::from_utf8_lossy(&answer).into_owned(), closed };
            }
        }
    }
}

impl Gate {
    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.http.get(&format!("{}{path}", self.url), token).await.unwrap()
    }

    pub async fn query(&self, token: &str, query: &str) -> Answer {
        let url = format!("{}/proxy/globaldatasources/p/api/v1/query", self.url);
        self.http.form(&url, token, &[("query", query)]).await.unwrap()
    }

    /// Bytes in, bytes out, as no HTTP client would send them.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        speak(&self.address, bytes).await.text
    }
}
