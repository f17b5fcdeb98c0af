//! What does a review cost the webhook? Two hundred pods a second come over TLS, as the API server sends them: HTTP/2, one
//! connection. The webhook's own binary answers, and beside it, in turns, an empty handler on the same listener: it reads what
//! comes and allows it. Each has a processor, and CPU time is what the serving process used.
//!
//! `cargo bench --bench reviews` prints a table and fails when a bound is broken three times in a row. Latencies are told and break nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a program for a terminal")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use perses_sidecar::config;
use perses_sidecar::listen::{self, Handler, Peer, Settings, Shared};
use perses_sidecar_stack::openshift::Certificates;
use perses_sidecar_stack::servers::{self, Server};
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// The most CPU time of a review, in that of an empty one.
const MOST: f64 = 3.0;
/// The most resident memory, in MiB.
const MOST_RESIDENT: u64 = 20;
/// Reviews a second.
const RATE: u32 = 200;
/// Reviews of a round, and how many rounds there are.
const ROUND: (u32, usize) = (800, 5);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let one = std::thread::available_parallelism().is_ok_and(|all| all.get() == 1);
    // As the product does.
    let mut runtime =
        if one { tokio::runtime::Builder::new_current_thread() } else { tokio::runtime::Builder::new_multi_thread() };
    let runtime = runtime.enable_all().build().unwrap();
    let good = match arguments.first().map(String::as_str) {
        Some("empty") => {
            runtime.block_on(empty(Path::new(&arguments[1])));
            true
        }
        // What else the machine does falls on one of both: a bad measure is taken again.
        _ => (0..3).any(|_| runtime.block_on(compare())),
    };
    std::process::exit(i32::from(!good));
}

/// Reads a review and allows whatever it is.
#[derive(Clone)]
struct Empty;

impl Handler for Empty {
    type Body = Full<Bytes>;

    async fn call(&self, request: Request<Incoming>, _: Peer) -> Response<Full<Bytes>> {
        let _ = request.into_body().collect().await;
        let body =
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u-1","allowed":true}}"#;
        let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// Serves the empty handler as the webhook's configuration says, until the process ends.
async fn empty(path: &Path) {
    let settings = config::load_webhook(path).unwrap_or_else(|problems| panic!("{problems:?}")).config;
    let listener = tokio::net::TcpListener::bind(settings.listen).await.unwrap();
    let (_tls, tls) = watch::channel(Arc::clone(&settings.tls.unwrap().server));
    let (_limits, limits) = watch::channel(Settings { limits: Arc::new(settings.limits) });
    let (_stop, stop) = watch::channel(false);
    listen::serve(listener, Some(tls), limits, Shared::new((1, 1024), Arc::default()), Empty, stop).await;
}

/// Who answers.
struct Answering {
    server: Server,
    sender: SendRequest<Full<Bytes>>,
    port: u16,
}

async fn compare() -> bool {
    let folder = servers::run_folder("reviews").unwrap();
    let certificates = Certificates::make(&["localhost"]).unwrap();
    for (name, text) in
        [("tls.crt", &certificates.certificate), ("tls.key", &certificates.key), ("ca.crt", &certificates.ca)]
    {
        fs::write(folder.join(name), text).unwrap();
    }
    // Nobody needs to be asked about a pod that says what it wants.
    fs::write(folder.join("token"), "nobody").unwrap();
    let own = start(&folder, &certificates.ca, "webhook", &servers::sidecar(), &["webhook", "--config"]).await;
    let peer = start(&folder, &certificates.ca, "empty", &std::env::current_exe().unwrap(), &["empty"]).await;
    leave_the_first_processor();
    let body = Bytes::from(review().to_string());

    let (mut ours, mut empties) = (Vec::new(), Vec::new());
    let (mut waits, mut empty_waits) = (Vec::new(), Vec::new());
    for round in 0..=ROUND.1 {
        for (who, cpu, latencies) in [(&own, &mut ours, &mut waits), (&peer, &mut empties, &mut empty_waits)] {
            // The first warms up.
            let count = if round == 0 { ROUND.0 / 4 } else { ROUND.0 };
            let before = used(who.server.pid());
            let took = send(&who.sender, who.port, &body, count, std::ptr::eq(who, &own)).await;
            if round > 0 {
                cpu.push((used(who.server.pid()) - before).as_secs_f64() * 1e6 / f64::from(count));
                latencies.extend(took);
            }
        }
    }
    let resident = own.server.resident().unwrap() >> 10;
    let (own_cpu, empty_cpu) = (median(ours), median(empties));
    let ratio = own_cpu / empty_cpu;
    let share = own_cpu * f64::from(RATE) / 1e4;
    println!("{RATE} pods a second, {} bytes each; median of {} rounds of {}\n", body.len(), ROUND.1, ROUND.0);
    println!("{:24} {:>10} {:>10} {:>8} {:>8}", "", "webhook", "empty", "ratio", "at most");
    println!("{:24} {own_cpu:>10.1} {empty_cpu:>10.1} {ratio:>8.2} {MOST:>8.2}", "CPU time a review, µs");
    for (name, part) in [("half within, ms", 0.5), ("99 of 100 within, ms", 0.99)] {
        let [ours, theirs] = [&mut waits, &mut empty_waits].map(|all| part_of(all, part) * 1e3);
        let bound = if part > 0.9 { "(5)" } else { "" };
        println!("{name:24} {ours:>10.2} {theirs:>10.2} {:>8} {bound:>8}", "");
    }
    println!("{:24} {resident:>10} {:>10} {:>8} {MOST_RESIDENT:>8}", "resident, MiB", "", "");
    println!("\nthat is {share:.1} % of a processor");
    fs::remove_dir_all(folder).unwrap();
    if ratio > MOST {
        println!("a review costs more than {MOST} times an empty one");
    }
    if resident > MOST_RESIDENT {
        println!("more than {MOST_RESIDENT} MiB are resident");
    }
    ratio <= MOST && resident <= MOST_RESIDENT
}

async fn start(folder: &Path, ca: &str, name: &str, program: &Path, words: &[&str]) -> Answering {
    let golden = fs::read_to_string(golden().join("webhook.yaml")).unwrap();
    let (port, admin) = (servers::free_port().unwrap(), servers::free_port().unwrap());
    let at = folder.display();
    let path = folder.join(format!("{name}.yaml"));
    let text = format!(
        "listen:\n  webhook: 127.0.0.1:{port}\n  admin: 127.0.0.1:{admin}\ntls:\n  certificate_file: {at}/tls.crt\n  \
         key_file: {at}/tls.key\ncluster:\n  url: https://127.0.0.1:1\n  ca_file: {at}/ca.crt\n  token_file: {at}/token\n{golden}"
    );
    fs::write(&path, text).unwrap();
    // One processor, from the start: the product sees how many it has.
    let program = program.to_string_lossy();
    let mut arguments: Vec<String> = ["-c", "0", &*program].map(str::to_owned).to_vec();
    arguments.extend(words.iter().map(|word| (*word).to_owned()));
    arguments.push(path.display().to_string());
    // As in the container.
    let environment = [("MALLOC_TRIM_THRESHOLD_", "1048576")];
    let server =
        Server::start(Path::new("taskset"), &arguments, &folder.join(format!("{name}.log")), &environment).unwrap();
    let began = Instant::now();
    let sender = loop {
        match connect(port, ca).await {
            Ok(sender) => break sender,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(20), "{error}\n{}", server.output()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    Answering { server, sender, port }
}

fn golden() -> PathBuf {
    servers::checkout().join("tests/golden/injection")
}

/// A connection as the API server keeps it.
async fn connect(port: u16, ca: &str) -> std::io::Result<SendRequest<Full<Bytes>>> {
    let other = std::io::Error::other::<Box<dyn std::error::Error + Send + Sync>>;
    let mut roots = rustls::RootCertStore::empty();
    let authority = rustls_pki_types::CertificateDer::from_pem_slice(ca.as_bytes()).map_err(|e| other(e.into()))?;
    roots.add(authority).map_err(|e| other(e.into()))?;
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| other(e.into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    socket.set_nodelay(true)?;
    let name = rustls_pki_types::ServerName::try_from("localhost").map_err(|e| other(e.into()))?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
    let (sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|e| other(e.into()))?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends so many, each when its time has come; how long each took from then on, in seconds.
async fn send(sender: &SendRequest<Full<Bytes>>, port: u16, body: &Bytes, count: u32, patched: bool) -> Vec<f64> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..count {
        let due = ticks.tick().await;
        let (mut sender, body) = (sender.clone(), body.clone());
        all.spawn(async move {
            let request = Request::post(format!("https://localhost:{port}/mutate?timeout=5s"))
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(body));
            let response = sender.send_request(request.unwrap()).await.unwrap();
            let status = response.status();
            let answer = response.into_body().collect().await.unwrap().to_bytes();
            let took = due.elapsed().as_secs_f64();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            assert!(status == 200 && answer["response"]["allowed"] == true, "{status} {answer}");
            assert_eq!(answer["response"]["patch"].is_string(), patched, "{answer}");
            took
        });
    }
    all.join_all().await
}

/// The operator's pod as the API server sends it when a StatefulSet makes one.
fn review() -> Value {
    let entries = fs::read_dir(golden()).unwrap().flatten().map(|entry| entry.path());
    let first =
        entries.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("01-")).unwrap();
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(first).unwrap()).unwrap();
    let mut pod = documents.swap_remove(1);
    let metadata = pod["metadata"].as_object_mut().unwrap();
    metadata.remove("name");
    metadata.insert("generateName".to_owned(), json!("data-science-perses-"));
    metadata.insert("creationTimestamp".to_owned(), Value::Null);
    let owner = json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "data-science-perses", "uid": "1b2c3d4e-0000-0000-0000-000000000000",
        "controller": true, "blockOwnerDeletion": true });
    metadata.insert("ownerReferences".to_owned(), json!([owner]));
    let spec = pod["spec"].as_object_mut().unwrap();
    let access = json!({ "name": "kube-api-access-x7b2p", "projected": { "defaultMode": 420, "sources": [
        { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } }] } });
    spec["volumes"].as_array_mut().unwrap().push(access);
    let mount = json!({ "name": "kube-api-access-x7b2p", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" });
    spec["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(mount);
    for (key, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        (
            "securityContext",
            json!({ "seLinuxOptions": { "level": "s0:c26,c5" }, "fsGroup": 1_000_650_000, "seccompProfile": { "type": "RuntimeDefault" } }),
        ),
        ("schedulerName", json!("default-scheduler")),
        (
            "tolerations",
            json!([
            { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
            { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }]),
        ),
        ("priority", json!(0)),
        ("enableServiceLinks", json!(true)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
    ] {
        spec.insert(key.to_owned(), value);
    }
    let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
    let resource = json!({ "group": "", "version": "v1", "resource": "pods" });
    json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": "u-1", "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "namespace": "redhat-ods-monitoring", "operation": "CREATE",
        "userInfo": { "username": "system:serviceaccount:kube-system:statefulset-controller", "uid": "2c3d4e5f-0000-0000-0000-000000000000",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"] },
        "object": pod, "oldObject": null, "dryRun": false,
        "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" } } })
}

/// Who answers has a processor for itself, where there is another for us.
fn leave_the_first_processor() {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    if all > 1 {
        let words = ["-a", "-c", "-p", &format!("1-{}", all - 1), &std::process::id().to_string()];
        let output = Command::new("taskset").args(words).output().unwrap();
        assert!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// CPU time that the threads of a process have used.
fn used(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let times = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    Duration::from_nanos(times.map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap()).sum())
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// The value that this part of all does not exceed.
fn part_of(all: &mut [f64], part: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    let place = (part * f64::from(u32::try_from(all.len()).unwrap())) as usize;
    all[place.min(all.len() - 1)]
}
