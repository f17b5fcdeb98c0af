//! The gateway beside nginx.

use std::path::Path;
use std::time::Duration;

use perses_sidecar_stack::servers::{self, Server};
use serde::Deserialize;

use crate::scene::{REQUESTS, Request, Scene};

/// The most CPU time of a request, in that of nginx.
const MOST: f64 = 1.35;
/// The most resident memory with [`IDLE`] idle connections, in MiB.
const MOST_RESIDENT: u64 = 60;
const IDLE: usize = 1000;
/// Of USER_HZ, in which the kernel tells CPU times.
const TICKS_A_SECOND: f64 = 100.0;

/// One round.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    /// CPU time of the serving process a request, in microseconds.
    pub(crate) cpu: f64,
    /// How much of it the kernel used.
    pub(crate) system: f64,
    /// Requests a second.
    pub(crate) rate: f64,
}

pub(crate) async fn compare(arguments: &[String]) -> bool {
    let number = |name: &str, default: u32| {
        let at = arguments.iter().position(|word| word == name);
        at.map_or(default, |at| arguments[at + 1].parse().unwrap())
    };
    let (rounds, seconds) = (number("--rounds", 5), number("--seconds", 4));
    // Perses, the metrics backend, the other proxy.
    let ports = [(); 3].map(|()| servers::free_port().unwrap());
    let proxy_port = ports[2];
    let scene = Scene::start([ports[0], ports[1]], "bypass").await;
    let upstream = nginx(&scene, "upstream", ports).await;
    let proxy = nginx(&scene, "proxy", ports).await;
    let worker = worker_of(&proxy);
    let gateway = scene.gateway("gateway", &[]).await;
    let bare_port = servers::free_port().unwrap();
    let bare = bare(&scene, bare_port, ports[0]).await;
    // Who serves has a processor, and everybody else has another: otherwise each answer that is sent wakes somebody who takes
    // the processor away, more often from the slower one.
    pin(worker, 0);
    pin(gateway.pid(), 0);
    pin(bare.pid(), 0);
    pin(worker_of(&upstream), 1);

    println!(
        "CPU time a request in µs, median of {rounds} rounds of {seconds} s: all, the kernel's (requests a second)\n"
    );
    println!(
        "{:8} {:>22} {:>22} {:>22}  {:>8} {:>8} {:>8}",
        "", "gateway", "nginx", "hyper alone", "ratio", "at most", "alone"
    );
    let mut good = true;
    for request in &REQUESTS {
        let (mut ours, mut theirs, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        for port in [scene.port, proxy_port, bare_port] {
            round(&scene, request, port, gateway.pid(), 1).await;
        }
        for _ in 0..rounds {
            ours.push(round(&scene, request, scene.port, gateway.pid(), seconds).await);
            theirs.push(round(&scene, request, proxy_port, worker, seconds).await);
            alone.push(round(&scene, request, bare_port, bare.pid(), seconds).await);
        }
        let (ours, theirs, alone) = (median(ours), median(theirs), median(alone));
        let (ratio, theirs_cpu) = (ours.cpu / theirs.cpu, theirs.cpu);
        good &= ratio <= MOST;
        let column = |round: Round| format!("{:.2} {:.2} ({:.0})", round.cpu, round.system, round.rate);
        let [name, ours, theirs, bare] = [request.name.to_owned(), column(ours), column(theirs), column(alone)];
        let least = alone.cpu / theirs_cpu;
        println!("{name:8} {ours:>22} {theirs:>22} {bare:>22}  {ratio:>8.3} {MOST:>8.2} {least:>8.3}");
    }

    let resident = |server: &Server| server.resident().unwrap() / 1024;
    let loaded = resident(&gateway);
    drop((gateway, bare));
    let gateway = scene.gateway("idle", &[]).await;
    let fresh = resident(&gateway);
    let idle = scene.idle(IDLE).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let full = resident(&gateway);
    good &= full <= MOST_RESIDENT;
    println!(
        "\nresident in MiB: {fresh} at the start, {loaded} after the load, {full} with {} idle connections (at most {MOST_RESIDENT})",
        idle.len()
    );
    drop((idle, upstream));
    good
}

async fn nginx(scene: &Scene, name: &str, [perses, metrics, proxy]: [u16; 3]) -> Server {
    let template = servers::checkout().join(format!("benches/side_by_side/{name}.conf"));
    let text = std::fs::read_to_string(template)
        .unwrap()
        .replace("@FOLDER@", &scene.folder.to_string_lossy())
        .replace("@PERSES@", &perses.to_string())
        .replace("@METRICS@", &metrics.to_string())
        .replace("@PROXY@", &proxy.to_string());
    let path = scene.folder.join(format!("{name}.conf"));
    std::fs::write(&path, text).unwrap();
    let arguments = ["-p", &scene.folder.to_string_lossy(), "-c", &path.to_string_lossy()].map(str::to_owned);
    let log = scene.folder.join(format!("{name}.log"));
    let server = Server::start(Path::new("nginx"), &arguments, &log, &[]).unwrap();
    let port = if name == "proxy" { proxy } else { perses };
    server.ready(&format!("http://127.0.0.1:{port}/"), Duration::from_secs(10)).await.unwrap();
    server
}

/// The proxy of `bare.rs`, which this program is too.
async fn bare(scene: &Scene, port: u16, upstream: u16) -> Server {
    let program = std::env::current_exe().unwrap();
    let arguments = ["bare".to_owned(), port.to_string(), upstream.to_string()];
    let server = Server::start(&program, &arguments, &scene.folder.join("bare.log"), &[]).unwrap();
    server.ready(&format!("http://127.0.0.1:{port}/"), Duration::from_secs(10)).await.unwrap();
    server
}

/// Keeps a process, with all its threads, on one processor.
pub(crate) fn pin(pid: u32, processor: u32) {
    let words = ["-a", "-c", "-p", &processor.to_string(), &pid.to_string()];
    let output = std::process::Command::new("taskset").args(words).output().unwrap();
    assert!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
}

/// The one worker of an nginx.
pub(crate) fn worker_of(server: &Server) -> u32 {
    let pid = server.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    // Beside it may stand those who look after a cache.
    let is_worker =
        |child: &&str| std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap().contains("worker process");
    let workers: Vec<u32> = children.split_whitespace().filter(is_worker).map(|child| child.parse().unwrap()).collect();
    assert_eq!(workers.len(), 1, "one worker");
    workers[0]
}

/// CPU time that a process has used, all its threads, in seconds: user, system.
fn cpu_of(pid: u32) -> (f64, f64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which stands in parentheses, utime and stime are the 12th and 13th field.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() / TICKS_A_SECOND, fields[12].parse::<f64>().unwrap() / TICKS_A_SECOND)
}

pub(crate) async fn round(scene: &Scene, request: &Request, port: u16, pid: u32, seconds: u32) -> Round {
    #[derive(Deserialize)]
    struct Load {
        requests: f64,
        micros: f64,
        errors: u64,
    }
    let mut load = std::process::Command::new("taskset");
    load.args(["-c", "1", "wrk"])
        .args(["-t1", "-c16", &format!("-d{seconds}s"), "-s"])
        .arg(servers::checkout().join("benches/side_by_side/load.lua"))
        .arg(format!("http://127.0.0.1:{port}{}", request.path))
        .env("LOAD_METHOD", request.method)
        .env("LOAD_BODY", request.body)
        .env("LOAD_CONTENT_TYPE", request.content_type)
        .env("LOAD_AUTHORIZATION", format!("Bearer {}", scene.token));
    let before = cpu_of(pid);
    // The stand-in for the cluster lives on this thread and may be asked meanwhile.
    let output = tokio::task::spawn_blocking(move || load.output().unwrap()).await.unwrap();
    let after = cpu_of(pid);
    let (user, system) = (after.0 - before.0, after.1 - before.1);
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("LOAD ")).unwrap_or_else(|| panic!("{text}"));
    let load: Load = serde_json::from_str(line).unwrap();
    assert_eq!(load.errors, 0, "every answer must be good: {text}");
    let each = |seconds: f64| seconds * 1e6 / load.requests;
    Round { cpu: each(user + system), system: each(system), rate: load.requests * 1e6 / load.micros }
}

/// Of the CPU times; its own rate with it.
pub(crate) fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|one, other| one.cpu.total_cmp(&other.cpu));
    rounds[rounds.len() / 2]
}
