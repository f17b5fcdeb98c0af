//! Injected pods, run as kubelet would run them: real Perses by its rewritten command line, the sidecar by what was rendered
//! for it, each in a container with the pod's volumes. People walk the tour through the port that Perses had, nothing else
//! leads to Perses, and what has begun is finished when the pod goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use perses_sidecar_stack::http::{Http, Https};
use perses_sidecar_stack::openshift::{Certificates, random_text};
use perses_sidecar_stack::pod::{self, Pod, Root};
use perses_sidecar_stack::servers::{self, Server};
use perses_sidecar_stack::tour;
use perses_sidecar_stack::world::{Options, World};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::{case, find};

/// Another address of this machine: whoever listens on all addresses is reached by it, and on 127.0.0.1 alone is not.
const POD_ADDRESS: &str = "127.0.0.2";

/// A golden pod on another port than 8080, on which something else may run here.
fn golden(number: &str, public: u16) -> Value {
    // Of its suites, Perses itself takes the strong ones alone, and one must fit the certificate that is made here.
    let suites = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_CBC_SHA";
    let text = case(number, "perses-0").to_string().replace("8080", &public.to_string());
    let text = text.replace(suites, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    let mut pod: Value = serde_json::from_str(&text).unwrap();
    // The images of operators bring their plugins along; here they lie in the volume.
    let mounts = pod.pointer_mut("/spec/containers/0/volumeMounts").and_then(Value::as_array_mut).unwrap();
    if mounts.iter().all(|mount| mount["name"] != "plugins") {
        mounts.push(json!({ "name": "plugins", "mountPath": "/etc/perses/plugins" }));
    }
    pod
}

/// One that somebody has written: other names, flags in both forms, a port by its name.
fn by_hand(public: u16) -> Value {
    json!({
        "metadata": { "name": "dashboards", "annotations": { "perses-sidecar.io/inject": "true" } },
        "spec": { "serviceAccountName": "perses", "containers": [{
            "name": "dashboards",
            "image": "registry.example/own/dashboards:3",
            "command": ["/bin/perses", "--config", "/etc/perses/config/config.yaml"],
            "args": ["-web.listen-address", format!(":{public}"), "-web.hide-port"],
            "ports": [{ "name": "web", "containerPort": public }],
            "startupProbe": { "tcpSocket": { "port": "web" } },
            "livenessProbe": { "httpGet": { "path": "/api/v1/health", "port": "web" } },
            "volumeMounts": [
                { "name": "settings", "mountPath": "/etc/perses/config" },
                { "name": "plugins", "mountPath": "/etc/perses/plugins" },
                { "name": "storage", "mountPath": "/perses" }],
        }], "volumes": [
            { "name": "settings", "configMap": { "name": "data-science-perses-config" } },
            { "name": "plugins", "emptyDir": {} },
            { "name": "storage", "emptyDir": {} }] },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_pod_is_toured() {
    tour_of("operator", |public| golden("01", public)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_written_by_hand_is_toured() {
    tour_of("hand", by_hand).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_tls_of_its_own_is_toured() {
    tour_of("tls", |public| golden("04", public)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_native_sidecar_is_toured() {
    tour_of("native", |public| golden("44a", public)).await;
}

async fn tour_of(name: &str, write: impl Fn(u16) -> Value) {
    assert!(pod::can_run(), "bwrap cannot make a container here: install bubblewrap, and allow user namespaces");
    let world = World::start(&Options { quick: true, workloads: true, ..Options::default() }, &|_| {}).await.unwrap();
    let [public, upstream, health, https] = [(); 4].map(|()| servers::free_port().unwrap());
    let mut before = write(public);
    for (key, port) in [("upstream-port", upstream), ("health-port", health), ("https-port", https)] {
        before["metadata"]["annotations"][format!("perses-sidecar.io/{key}")] = json!(port.to_string());
    }
    let slow = Slow::start().await;
    let mut scene = Scene::lay_out(name, world, &before, slow.port);
    scene.unprotected(&before, public).await;
    scene.start([public, upstream, health, https]).await;
    scene.nothing_else_leads_to_perses().await;
    scene.probes().await;

    let (passed, failed) = tour::walk(&scene.world, &|line| eprintln!("{name}: {line}")).await;
    assert!(failed == 0 && passed >= 25, "{name}: {passed} passed, {failed} failed");
    scene.world.without_secrets(&scene.sidecar).unwrap();
    scene.ends(&slow).await;
    fs::remove_dir_all(&scene.folder).unwrap();
}

/// An injected pod with what is around it.
struct Scene {
    world: World,
    folder: PathBuf,
    injected: Value,
    pod: Pod,
    objects: Vec<Value>,
    /// The container of Perses.
    perses: String,
    token: String,
    pair: Certificates,
    sidecar: Server,
    ports: [u16; 4],
}

fn object(kind: &str, name: &str, data: &Value) -> Value {
    json!({ "kind": kind, "metadata": { "name": name }, "data": data })
}

/// A container's words behind the name of its program.
fn words(container: &Value) -> Vec<String> {
    let list = |key: &str| container[key].as_array().cloned().unwrap_or_default();
    let all = list("command").into_iter().skip(1).chain(list("args"));
    all.map(|word| word.as_str().unwrap().to_owned()).collect()
}

impl Scene {
    fn lay_out(name: &str, world: World, before: &Value, slow: u16) -> Self {
        let folder = servers::run_folder(&format!("toured-{name}")).unwrap();
        let injected = inject(&folder, before, &world.prometheus_url, slow);
        let status = &injected["metadata"]["annotations"]["perses-sidecar.io/status"];
        let status: Value = serde_json::from_str(status.as_str().unwrap()).unwrap();
        let perses = status["container"].as_str().unwrap().to_owned();
        let pair = Certificates::make(&["localhost"]).unwrap();
        let key = random_text(32);
        let config = format!(
            "security:\n  enable_auth: false\n  encryption_key: \"{key}\"\ndatabase:\n  file:\n    folder: /perses/data\n    extension: json\n    \
             case_sensitive: false\nplugin:\n  path: /etc/perses/plugins\n  archive_paths:\n    - /perses/archives\nephemeral_dashboard:\n  enable: true\n"
        );
        let tls = json!({ "tls.crt": pair.certificate, "tls.key": pair.key });
        let mut objects = vec![
            object("ConfigMap", "data-science-perses-config", &json!({ "config.yaml": config })),
            object(
                "ConfigMap",
                "kube-root-ca.crt",
                &json!({ "ca.crt": fs::read_to_string(world.ground.ca_file()).unwrap() }),
            ),
            object("ConfigMap", "perses-sidecar", &json!({ "config.yaml": "workloads:\n  discovery: 1s\n" })),
            object("Secret", "perses-sidecar-tls", &tls),
            object("Secret", "perses-sidecar-keys", &json!({ "current": random_text(48) })),
        ];
        // Perses' own pair, where it has one.
        let own = before["spec"]["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "tls");
        if let Some(secret) = own.and_then(|volume| volume.pointer("/secret/secretName")?.as_str()) {
            objects.push(object("Secret", secret, &tls));
        }
        let token = fs::read_to_string(world.ground.token_file()).unwrap();
        let pod = Pod::lay_out(&injected["spec"], &objects, &token, &folder.join("injected")).unwrap();
        furnish(&pod, &world);
        // Only to have one; the real one is started in the pod.
        let sidecar = Server::start(Path::new("true"), &[], &folder.join("nothing.log"), &[]).unwrap();
        Self { world, folder, injected, pod, objects, perses, token, pair, sidecar, ports: [0; 4] }
    }

    fn run_perses(&self, pod: &Pod, container: &Value, log: &str) -> Server {
        let program = servers::binary("perses", servers::PERSES[0], &|_| {}).unwrap();
        let root = Root::Program(&program);
        let words = pod.words(&self.perses, &root, "/perses-server", &words(container), &[], &[]).unwrap();
        Server::start(Path::new(&words[0]), &words[1..], &self.folder.join(log), &[]).unwrap()
    }

    /// As the pod was written: whoever comes gets everything.
    async fn unprotected(&self, before: &Value, public: u16) {
        let folder = self.folder.join("before");
        let pod = Pod::lay_out(&before["spec"], &self.objects, &self.token, &folder).unwrap();
        furnish(&pod, &self.world);
        let server = self.run_perses(&pod, find(before, &self.perses).unwrap(), "before.log");
        let began = Instant::now();
        while self.open_to_anybody(public).await != Some(200) {
            assert!(began.elapsed() < Duration::from_secs(30) && server.is_running(), "{}", server.output());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn tls(&self) -> bool {
        self.config()["listen"]["gateway_tls"] == "true"
    }

    /// The configuration that travels in the sidecar's environment.
    fn config(&self) -> Value {
        let env = self.pod.container("perses-sidecar")["env"].as_array().unwrap();
        let profile = env.iter().find(|entry| entry["name"] == "PERSES_SIDECAR_PROFILE").unwrap();
        serde_json::from_str(&profile["value"].as_str().unwrap().replace("$$", "$")).unwrap()
    }

    /// The status that a stranger gets by the pod's address; none when nobody answers there.
    async fn open_to_anybody(&self, port: u16) -> Option<u16> {
        let address = format!("{POD_ADDRESS}:{port}");
        TcpStream::connect(&address).await.ok()?;
        if self.tls() {
            let https = Https::new(&format!("https://{address}"), &self.pair.ca).unwrap();
            return https.send("GET", "/api/v1/projects", "", "", String::new()).await.ok().map(|answer| answer.status);
        }
        let answer = Http::default().send("GET", &format!("http://{address}/api/v1/projects"), &[], "").await;
        answer.ok().map(|answer| answer.status)
    }

    async fn start(&mut self, ports: [u16; 4]) {
        let [public, upstream, health, https] = ports;
        self.world.perses = self.run_perses(&self.pod, self.pod.container(&self.perses), "perses.log");
        self.world.perses_url = format!("http://127.0.0.1:{upstream}");
        let program = servers::sidecar();
        let api = self.world.ground.url().rsplit(':').next().unwrap().to_owned();
        let api = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", api.as_str())];
        let arguments = self.pod.arguments("perses-sidecar");
        let root = Root::Program(&program);
        let fields = [("status.podIPs", POD_ADDRESS)];
        let words = self.pod.words("perses-sidecar", &root, "/perses-sidecar", &arguments, &fields, &api).unwrap();
        self.sidecar = Server::start(Path::new(&words[0]), &words[1..], &self.folder.join("sidecar.log"), &[]).unwrap();
        let ready = self.sidecar.ready(&format!("http://127.0.0.1:{health}/readyz"), Duration::from_secs(30)).await;
        ready.unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.sidecar.output(), self.world.perses.output()));
        self.world.config_file = self.pod.volume("perses-sidecar-config").join("config.yaml");
        // The tour speaks plain HTTP.
        let gateway = if self.tls() { relay(public, &self.pair.ca).await } else { public };
        self.world.ports = [gateway, https, health, 0];
        self.ports = ports;
    }

    /// The old port asks who comes, and the new one is nobody's from outside.
    async fn nothing_else_leads_to_perses(&self) {
        let [public, upstream, health, https] = self.ports;
        assert_eq!(self.open_to_anybody(public).await, Some(401), "the old port");
        assert_eq!(self.open_to_anybody(upstream).await, None, "Perses itself");
        let http = Http::default();
        for port in [health, https] {
            let answer = http.send("GET", &format!("http://{POD_ADDRESS}:{port}/api/v1/projects"), &[], "").await;
            let status = answer.map_or(0, |answer| answer.status);
            assert!(matches!(status, 0 | 400 | 401 | 404), "{port}: {status}");
        }
        if self.tls() {
            let answer = http.send("GET", &format!("http://127.0.0.1:{public}/api/v1/projects"), &[], "").await;
            assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 400), "plain text on a TLS port");
        }
        // Perses itself is as open as ever, for whoever is in the pod: that is what the sidecar stands before.
        let inside = http.send("GET", &format!("{}/api/v1/projects", self.world.perses_url), &[], "").await.unwrap();
        assert_eq!(inside.status, 200);
    }

    /// What kubelet asks, and by it learns that all is well.
    async fn probes(&self) {
        let http = Http::default();
        let mut asked = 0;
        for list in ["containers", "initContainers"] {
            for container in self.injected["spec"][list].as_array().into_iter().flatten() {
                for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
                    let Some(get) = container.get(kind).map(|probe| &probe["httpGet"]) else { continue };
                    let url = format!("http://{POD_ADDRESS}:{}{}", get["port"], get["path"].as_str().unwrap());
                    let answer = http.send("GET", &url, &[], "").await.unwrap();
                    assert_eq!(answer.status, 200, "{kind} of {}: {}", container["name"], answer.text());
                    asked += 1;
                }
            }
        }
        assert!(asked >= 2, "{asked} probes");
    }

    /// The pod is deleted while a query runs: it is answered, nobody new is let in, and all is over in time.
    async fn ends(&mut self, slow: &Slow) {
        let gateway = self.world.gateway();
        let (url, ada) =
            (format!("{gateway}/proxy/globaldatasources/slow/api/v1/query"), self.world.token("ada").to_owned());
        let query = tokio::spawn(async move { Http::default().form(&url, &ada, &[("query", "up")]).await });
        let came = tokio::time::timeout(Duration::from_secs(10), slow.came.acquire()).await;
        came.expect("the query arrives at the backend").unwrap().forget();
        let perses = find(&self.injected, &self.perses).unwrap().clone();
        let grace = self.injected["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        let began = Instant::now();
        let native = self.injected["spec"]["initContainers"].as_array().is_some_and(|list| !list.is_empty());
        if native {
            // Kubelet waits for the hook, then ends Perses, and the sidecar when Perses is gone.
            let pause = perses.pointer("/lifecycle/preStop/sleep/seconds").and_then(Value::as_u64).expect("a pause");
            let dashboard = format!("{gateway}/api/v1/projects/team-a/dashboards/overview");
            while began.elapsed() < Duration::from_secs(pause) {
                let answer = Http::default().get(&dashboard, self.world.token("ada")).await.unwrap();
                assert_eq!(answer.status, 200, "people are served until Endpoints have heard of it");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            terminate(&self.world.perses);
            gone(&self.world.perses, Duration::from_secs(10)).await;
            terminate(&self.sidecar);
        } else {
            terminate(&self.world.perses);
            terminate(&self.sidecar);
        }
        let public = self.ports[0];
        while TcpStream::connect((POD_ADDRESS, public)).await.is_ok() {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "somebody new is still let in: {}",
                self.sidecar.output()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(!query.is_finished() && self.sidecar.is_running(), "what has begun is waited for");
        slow.answers.add_permits(1);
        let answer = tokio::time::timeout(Duration::from_secs(5), query).await.unwrap().unwrap().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        gone(&self.sidecar, Duration::from_secs(grace).saturating_sub(began.elapsed())).await;
        assert!(self.sidecar.output().contains("\"Stopped\""), "{}", self.sidecar.output());
        eprintln!("the pod was gone after {:.1?}, {grace} s are given", began.elapsed());
    }
}

/// What Perses finds in its volumes.
fn furnish(pod: &Pod, world: &World) {
    let storage = pod.volume("storage");
    servers::copy_folder(&world.folder.join("perses/data"), &storage.join("data")).unwrap();
    fs::create_dir_all(storage.join("archives")).unwrap();
    servers::copy_folder(&servers::checkout().join("tests/stack/schemas"), &pod.volume("plugins")).unwrap();
}

/// By the command that an administrator has, with a configuration that names what runs here.
fn inject(folder: &Path, pod: &Value, prometheus: &str, slow: u16) -> Value {
    use std::io::Write;
    let config = format!(
        "injection:\n  image: registry.example/perses/perses-sidecar:0.1.0\n  sidecar:\n    access:\n      token_ttl: 2s\n      token_failure_ttl: 1s\n      \
         allow_ttl: 2s\n      deny_ttl: 1s\n      namespaces_ttl: 2s\n    metrics_backends:\n      - name: prometheus\n        url: {prometheus}\n        \
         labels:\n          - metrics: [\"DCGM_*\"]\n            label: exported_namespace\n            where:\n              namespace: nvidia-gpu-operator\n      \
         - name: slow\n        url: http://127.0.0.1:{slow}\n        datasource:\n          name: slow\n"
    );
    fs::write(folder.join("webhook.yaml"), config).unwrap();
    let mut child = Command::new(servers::sidecar())
        .args(["inject", "--config"])
        .arg(folder.join("webhook.yaml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pod = pod.clone();
    (pod["apiVersion"], pod["kind"]) = (json!("v1"), json!("Pod"));
    child.stdin.take().unwrap().write_all(pod.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn terminate(container: &Server) {
    let id = pod::process(container.pid()).to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
}

async fn gone(container: &Server, patience: Duration) {
    let began = Instant::now();
    while container.is_running() {
        assert!(began.elapsed() < patience, "{}", container.output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Takes plain HTTP and speaks TLS to the pod.
async fn relay(to: u16, ca: &str) -> u16 {
    let https = Arc::new(Https::new(&format!("https://127.0.0.1:{to}"), ca).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let https = Arc::clone(&https);
            tokio::spawn(async move {
                if let Ok(mut far) = https.connect().await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    port
}

/// A metrics backend that answers when it is told to.
struct Slow {
    port: u16,
    came: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

impl Slow {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let slow = Self { port, came: Arc::new(Semaphore::new(0)), answers: Arc::new(Semaphore::new(0)) };
        let (came, answers) = (Arc::clone(&slow.came), Arc::clone(&slow.answers));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (came, answers) = (Arc::clone(&came), Arc::clone(&answers));
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 << 10];
                    let read = socket.read(&mut buffer).await.unwrap_or(0);
                    if !String::from_utf8_lossy(&buffer[..read]).contains("/api/v1/query ") {
                        return;
                    }
                    came.add_permits(1);
                    answers.acquire().await.unwrap().forget();
                    let body = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
                    let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
                    let _ = socket.write_all(answer.as_bytes()).await;
                });
            }
        });
        slow
    }
}
