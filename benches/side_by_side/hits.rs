//! Answers that are kept: ours beside those of nginx's cache and of Thanos' query frontend.

use std::path::Path;
use std::time::Duration;

use perses_sidecar_stack::servers::{self, Server};

use crate::compare::{Round, median, pin, round, worker_of};
use crate::scene::{HITS, Request, Scene};
use crate::{alone, matrix};

/// The most CPU time of a hit, in that of nginx: for each of the requests.
const MOST: [f64; 2] = [1.0 / 1.2, 1.0 / 1.4];

pub(crate) async fn compare(arguments: &[String]) -> bool {
    let number = |name: &str, default: u32| {
        let at = arguments.iter().position(|word| word == name);
        at.map_or(default, |at| arguments[at + 1].parse().unwrap())
    };
    let (rounds, seconds) = (number("--rounds", 5), number("--seconds", 3));
    let metrics = matrix::serve().await;
    let scene = Scene::start([matrix::serve().await, metrics], "enforce").await;
    let gateway = scene.gateway("gateway", &[]).await;
    let ports = [(); 2].map(|()| servers::free_port().unwrap());
    let nginx = nginx(&scene, metrics, ports).await;
    let worker = worker_of(&nginx);
    let frontend = match arguments.iter().any(|word| word == "--frontend") {
        true => Some(frontend(&scene, metrics).await),
        false => None,
    };
    // Who serves has a processor, and who asks has the other.
    pin(worker, 0);
    pin(gateway.pid(), 0);

    println!(
        "A kept answer: CPU time in µs, median of {rounds} rounds of {seconds} s: all, the kernel's (requests a second)\n"
    );
    println!(
        "{:>8} {:>22} {:>22} {:>22} {:>22} {:>22}  {:>6} {:>7} {:>6}",
        "KB",
        "gateway",
        "nginx, sendfile",
        "nginx, copied",
        "hyper alone",
        "query frontend",
        "ratio",
        "at most",
        "alone"
    );
    let mut good = true;
    for (request, most) in HITS.iter().zip(MOST) {
        let body = scene.ask(request, 2).await;
        for port in ports {
            assert_eq!(scene.ask_at(port, request, 2).await, body, "the same bytes");
        }
        let file = scene.folder.join("body");
        std::fs::write(&file, &body).unwrap();
        let (alone, alone_port) = alone(&scene, &file, &[]).await;
        pin(alone.pid(), 0);
        let who = [(scene.port, gateway.pid()), (ports[0], worker), (ports[1], worker), (alone_port, alone.pid())];
        let mut all: [Vec<Round>; 4] = Default::default();
        for (port, pid) in who {
            round(&scene, request, port, pid, 1).await;
        }
        for _ in 0..rounds {
            for ((port, pid), taken) in who.into_iter().zip(&mut all) {
                taken.push(round(&scene, request, port, pid, seconds).await);
            }
        }
        let [ours, sent, copied, bare] = all.map(median);
        let theirs = sent.cpu.min(copied.cpu);
        let ratio = ours.cpu / theirs;
        good &= ratio <= most;
        let column = |round: Round| format!("{:.2} {:.2} ({:.0})", round.cpu, round.system, round.rate);
        let slow = match &frontend {
            None => "-".to_owned(),
            Some((server, port)) => {
                let request = Request { path: "/api/v1/query_range", ..*request };
                // Its answers have no length, so that they are asked for by the load alone.
                round(&scene, &request, *port, server.pid(), 1).await;
                column(round(&scene, &request, *port, server.pid(), seconds).await)
            }
        };
        println!(
            "{:>8.1} {:>22} {:>22} {:>22} {:>22} {slow:>22}  {ratio:>6.3} {most:>7.3} {:>6.3}",
            body.len() as f64 / 1000.0,
            column(ours),
            column(sent),
            column(copied),
            column(bare),
            bare.cpu / theirs
        );
    }
    good
}

async fn nginx(scene: &Scene, metrics: u16, [sendfile, copied]: [u16; 2]) -> Server {
    let template = servers::checkout().join("benches/side_by_side/cache.conf");
    let text = std::fs::read_to_string(template)
        .unwrap()
        .replace("@FOLDER@", &scene.folder.to_string_lossy())
        .replace("@METRICS@", &metrics.to_string())
        .replace("@SENDFILE@", &sendfile.to_string())
        .replace("@COPIED@", &copied.to_string());
    let path = scene.folder.join("cache.conf");
    std::fs::write(&path, text).unwrap();
    let arguments = ["-p", &scene.folder.to_string_lossy(), "-c", &path.to_string_lossy()].map(str::to_owned);
    let server = Server::start(Path::new("nginx"), &arguments, &scene.folder.join("cache.log"), &[]).unwrap();
    server.ready(&format!("http://127.0.0.1:{copied}/"), Duration::from_secs(10)).await.unwrap();
    server
}

/// With one worker, and all in memory.
async fn frontend(scene: &Scene, metrics: u16) -> (Server, u16) {
    let thanos = servers::binary("thanos", servers::THANOS, &|line| println!("{line}")).unwrap();
    let port = servers::free_port().unwrap();
    let arguments = [
        "query-frontend",
        &format!("--http-address=127.0.0.1:{port}"),
        &format!("--query-frontend.downstream-url=http://127.0.0.1:{metrics}"),
        "--query-range.response-cache-config=type: IN-MEMORY\nconfig:\n  max_size: 256MB\n",
        "--query-range.split-interval=24h",
    ]
    .map(str::to_owned);
    let log = scene.folder.join("frontend.log");
    let server = Server::start(&thanos, &arguments, &log, &[("GOMAXPROCS", "1")]).unwrap();
    server.ready(&format!("http://127.0.0.1:{port}/-/ready"), Duration::from_secs(60)).await.unwrap();
    pin(server.pid(), 0);
    (server, port)
}
