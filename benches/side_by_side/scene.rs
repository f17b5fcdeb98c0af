//! Everything around the gateway: the stand-in for the cluster, an upstream, a configuration, the requests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use perses_sidecar::config::CookieKey;
use perses_sidecar::identity::{CookieNames, Purpose, Sealer, Session, Via};
use perses_sidecar::names::Secret;
use perses_sidecar_stack::openshift::OpenShift;
use perses_sidecar_stack::servers::{self, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::matrix;

/// What is asked.
pub(crate) struct Request {
    pub(crate) name: &'static str,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) body: &'static str,
}

/// What is counted besides, with nobody else to compare to.
const OTHERS: [Request; 3] = [
    // What a plain proxy does: a file of the UI, for which nobody is asked who they are.
    Request { name: "open", method: "GET", path: "/app.js", content_type: "", body: "" },
    // The same as `read`, by a session instead of a token.
    Request {
        name: "session",
        method: "GET",
        path: "/api/v1/projects/team-a/dashboards/overview",
        content_type: "",
        body: "",
    },
    // All that somebody with twenty namespaces sees: 500 that are stored, and 1,000 of what runs there.
    Request { name: LIST, method: "GET", path: "/api/v1/dashboards?metadata_only=true", content_type: "", body: "" },
];

/// What the cache answers, all of it long past.
pub(crate) const HITS: [Request; 3] = [hit("hit", matrix::SMALL), hit("hit-large", matrix::LARGE), {
    Request { name: "hit-instant", path: "/proxy/globaldatasources/p/api/v1/query", ..hit("", REQUESTS[1].body) }
}];

const fn hit(name: &'static str, body: &'static str) -> Request {
    let (method, path) = ("POST", "/proxy/globaldatasources/p/api/v1/query_range");
    Request { name, method, path, content_type: "application/x-www-form-urlencoded", body }
}

const LIST: &str = "list";
const NAMESPACES: usize = 20;
const STORED: usize = 500;
const RUNNING: usize = 1000;

/// Where the cookies of this scene live, and what they are sealed with.
const HERE: &str = "https://perses.example";
const KEY: &str = "V4mQ0Zt1yqk8n2u7Zr3oW5sXbC9dEfGh";

pub(crate) const REQUESTS: [Request; 2] = [
    Request {
        name: "read",
        method: "GET",
        path: "/api/v1/projects/team-a/dashboards/overview",
        content_type: "",
        body: "",
    },
    Request {
        name: "query",
        method: "POST",
        path: "/proxy/globaldatasources/p/api/v1/query",
        content_type: "application/x-www-form-urlencoded",
        body: "query=sum%28rate%28http_requests_total%5B5m%5D%29%29+by+%28job%29&time=1767607200",
    },
];

impl Request {
    pub(crate) fn named(name: &str) -> Self {
        REQUESTS.into_iter().chain(OTHERS).chain(HITS).find(|request| request.name == name).unwrap()
    }

    fn bytes(&self, token: &str, cookie: &str) -> Vec<u8> {
        let Self { method, path, content_type, body, name } = self;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: perses\r\n");
        match *name {
            "open" => {}
            "session" => head += &format!("Sec-Fetch-Site: same-origin\r\nCookie: {cookie}\r\n"),
            _ => head += &format!("Authorization: Bearer {token}\r\n"),
        }
        if !body.is_empty() {
            head += &format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
        }
        format!("{head}\r\n{body}").into_bytes()
    }
}

/// A cluster in which ada edits team-a, and a configuration that points to it.
pub(crate) struct Scene {
    pub(crate) folder: PathBuf,
    pub(crate) token: String,
    /// A session with that token.
    cookie: String,
    pub(crate) port: u16,
    admin: u16,
    config: PathBuf,
    openshift: OpenShift,
}

impl Scene {
    /// The ports are those of whoever plays Perses and Prometheus; `mode` is the cache's.
    pub(crate) async fn start([perses, metrics]: [u16; 2], mode: &str) -> Self {
        let folder = servers::run_folder("side-by-side").unwrap();
        let openshift = OpenShift::start(&folder.join("cluster")).await.unwrap();
        openshift.cluster().add_namespace("team-a");
        openshift.cluster().bind_role("team-a", "ada", "edit");
        let token = openshift.cluster().issue_token("ada");
        let (port, admin) = (servers::free_port().unwrap(), servers::free_port().unwrap());
        let config = folder.join("config.yaml");
        let text = format!(
            "listen:\n  gateway: 127.0.0.1:{port}\n  admin: 127.0.0.1:{admin}\n  control: 127.0.0.1:0\n\
             perses:\n  url: http://127.0.0.1:{perses}\n\
             cluster:\n  url: {}\n  ca_file: {}\n  token_file: {}\n\
             access:\n  token_ttl: 10m\n  allow_ttl: 10m\n  namespaces_ttl: 10m\n\
             metrics_backends:\n  - name: p\n    url: http://127.0.0.1:{metrics}\n    datasource: {{name: p}}\n\
             login:\n  external_url: {HERE}\n  openshift:\n    client_id: system:serviceaccount:perses:perses-sidecar\n  session:\n    key_files: [{}]\n\
             cache:\n  mode: {mode}\n\
             audit:\n  stream: \"off\"\n",
            openshift.url(),
            openshift.ca_file().display(),
            openshift.token_file().display(),
            folder.join("cookie.key").display(),
        );
        std::fs::write(&config, text).unwrap();
        std::fs::write(folder.join("cookie.key"), KEY).unwrap();
        let cookie = session(&token);
        Self { folder, token, cookie, port, admin, config, openshift }
    }

    /// The released gateway with one worker, under `wrapper` if there is one.
    pub(crate) async fn gateway(&self, name: &str, wrapper: &[String]) -> Server {
        let binary = servers::checkout().join("target/release/perses-sidecar");
        let binary = std::env::var_os("PERSES_SIDECAR").map_or(binary, PathBuf::from);
        let mut words = wrapper.to_vec();
        words.push(binary.to_string_lossy().into_owned());
        words.extend(["run", "--config", &self.config.to_string_lossy()].map(str::to_owned));
        let program = words.remove(0);
        let environment = [("TOKIO_WORKER_THREADS", "1")];
        let server =
            Server::start(Path::new(&program), &words, &self.folder.join(format!("{name}.log")), &environment).unwrap();
        server.ready(&format!("http://127.0.0.1:{}/readyz", self.admin), Duration::from_secs(60)).await.unwrap();
        server
    }

    /// Fills the cluster for a list.
    pub(crate) fn fill(&self, request: &Request) {
        if request.name != LIST {
            return;
        }
        let cluster = self.openshift.cluster();
        for number in 0..NAMESPACES {
            cluster.add_namespace(&namespace(number));
            cluster.bind_role(&namespace(number), "ada", "view");
        }
        for number in 0..RUNNING {
            cluster.put_object(serde_json::json!({
                "apiVersion": "kubeflow.org/v1", "kind": "Notebook",
                "metadata": { "name": format!("runs-{number}"), "namespace": namespace(number % NAMESPACES) },
                "spec": { "template": { "spec": { "containers": [{ "name": "x", "image": "x" }] } } },
                "status": { "readyReplicas": 1 } }));
        }
    }

    /// Waits until all of it is known.
    pub(crate) async fn is_filled(&self, request: &Request) {
        if request.name != LIST {
            return;
        }
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        for _ in 0..600 {
            let answer = exchange(&mut socket, &request.bytes(&self.token, &self.cookie)).await;
            let stored = answer.matches("\"stored-").count();
            if (stored, answer.matches("-notebook-runs-").count()) == (STORED, RUNNING) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not all is known after a minute");
    }

    /// Asks on one connection, one after the other.
    pub(crate) async fn ask(&self, request: &Request, times: usize) -> String {
        self.ask_at(self.port, request, times).await
    }

    /// Asks whoever is at a port; the last answer.
    pub(crate) async fn ask_at(&self, port: u16, request: &Request, times: usize) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut last = String::new();
        for _ in 0..times {
            last = exchange(&mut socket, &request.bytes(&self.token, &self.cookie)).await;
        }
        last
    }

    /// Connections that have each made one request, all at the same time, and are kept.
    pub(crate) async fn idle(&self, count: usize) -> Vec<TcpStream> {
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..count {
            let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
            let request = REQUESTS[0].bytes(&self.token, &self.cookie);
            asking.spawn(async move {
                exchange(&mut socket, &request).await;
                socket
            });
        }
        asking.join_all().await
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The cookie of somebody who has logged in, written some minutes ahead so that it is not written anew while it is counted.
fn session(token: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let session = Session {
        id: [7; 16],
        via: Via::OpenShift,
        began: now,
        written: now + 240,
        ends: now + 86_400,
        token: Secret::new(token),
        refresh: None,
        subject: String::new(),
    };
    let (names, key) = (CookieNames::new(""), CookieKey::new(KEY.as_bytes()).unwrap());
    let sealer = Sealer::new(&[key], &[0; 32], HERE).unwrap();
    let sealed = sealer.seal(Purpose::Session, &names.session, &session.encode()).unwrap();
    format!("theme=dark; {}=1.{sealed}", names.session)
}

fn namespace(number: usize) -> String {
    format!("long-{number}")
}

/// What Perses has stored, as it lists names.
fn stored() -> String {
    let one = |number: usize| {
        let (name, project) = (format!("stored-{number}"), namespace(number % NAMESPACES));
        serde_json::json!({ "kind": "Dashboard", "metadata": { "name": name, "createdAt": "2026-01-01T00:00:00Z",
            "updatedAt": "2026-01-01T00:00:00Z", "version": 0, "project": project },
            "spec": { "display": { "name": format!("What is stored, {number}") } } })
    };
    serde_json::Value::Array((0..STORED).map(one).collect()).to_string()
}

/// One request and its whole answer, which must be good.
async fn exchange(socket: &mut TcpStream, request: &[u8]) -> String {
    socket.write_all(request).await.unwrap();
    let mut answer = Vec::with_capacity(2 << 20);
    let (mut whole, mut body_at) = (usize::MAX, 0);
    while answer.len() < whole {
        assert!(socket.read_buf(&mut answer).await.unwrap() > 0, "closed: {}", String::from_utf8_lossy(&answer));
        if whole == usize::MAX
            && let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&answer[..end]).unwrap().to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200 "), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            body_at = end + 4;
            whole = body_at + length.parse::<usize>().unwrap();
        }
    }
    String::from_utf8(answer.split_off(body_at)).unwrap()
}

/// Plays Perses and Prometheus in this process: one answer for everything but the datasource, which it does not have.
pub(crate) async fn small_upstream() -> [u16; 2] {
    let mut ports = [0; 2];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        *port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(answer_all(socket));
            }
        });
    }
    ports
}

async fn answer_all(mut socket: TcpStream) {
    let (mut asked, stored) = (Vec::new(), stored());
    loop {
        let text = String::from_utf8_lossy(&asked).into_owned();
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            body.len() >= length.map_or(0, |length| length.parse().unwrap())
        });
        if whole {
            asked.clear();
            let (status, body) = if text.contains("globaldatasources") {
                ("404 Not Found", "{}")
            } else if text.starts_with("GET /api/v1/dashboards") {
                ("200 OK", stored.as_str())
            } else {
                ("200 OK", r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#)
            };
            let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
            if socket.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.is_err() {
                return;
            }
        } else if !socket.read_buf(&mut asked).await.is_ok_and(|read| read > 0) {
            return;
        }
    }
}
