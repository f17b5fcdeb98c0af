//! What does a request cost the gateway, in CPU time beside nginx, in instructions, and in memory for idle connections?
//!
//! `benches/side_by_side/run` runs `compare`: the same requests through us and through nginx as a plain proxy (`proxy.conf`),
//! and through a proxy that hyper makes without us (`bare.rs`), each with one worker, in front of an nginx that only returns bytes (`upstream.conf`); CPU time is what the serving process
//! used, user and system, over a round. `benches/side_by_side/run hits` runs `hits`: answers that are kept, by us and by nginx's
//! own cache (`cache.conf`). `benches/count` runs `instructions`: the gateway alone under callgrind, and `own`: how many of
//! a hit's are not those of a server that hyper makes without us. Rights are
//! remembered in all: the stand-in for the cluster is asked once.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a program for a terminal")]

mod bare;
mod compare;
mod hits;
mod matrix;
mod scene;

use perses_sidecar_stack::servers::{self, Server};
use scene::{HITS, Request, Scene};

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let what = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let good = match what.as_str() {
        "compare" => runtime.block_on(compare::compare(&arguments)),
        "hits" => runtime.block_on(hits::compare(&arguments)),
        "bare" => {
            let [port, upstream] = [0, 1].map(|at: usize| arguments[at].parse().unwrap());
            runtime.block_on(bare::serve(port, upstream));
            true
        }
        "alone" => {
            runtime.block_on(matrix::alone(arguments[0].parse().unwrap(), &arguments[1]));
            true
        }
        "instructions" => {
            let request = Request::named(&arguments[0]);
            let times = arguments[1].parse().unwrap();
            println!("{}", runtime.block_on(instructions(&request, times)));
            true
        }
        "alone-instructions" => {
            let request = Request::named(&arguments[0]);
            let times = arguments[1].parse().unwrap();
            println!("{}", runtime.block_on(alone_instructions(&request, times)));
            true
        }
        _ => {
            println!(
                "compare [--rounds N] [--seconds N] | hits [--rounds N] [--seconds N] | \
                 instructions read|query|open|session|list|hit|hit-large|hit-instant N | \
                 alone-instructions hit|hit-large|hit-instant N | bare PORT UPSTREAM | alone PORT FILE"
            );
            true
        }
    };
    std::process::exit(i32::from(!good));
}

/// Instructions of the gateway for one request, over so many on one connection, once everything is warm.
async fn instructions(request: &Request, times: usize) -> u64 {
    let scene = scene(request).await;
    let profile = profile(&scene);
    scene.fill(request);
    let gateway = scene.gateway("gateway", &callgrind(&profile)).await;
    scene.is_filled(request).await;
    scene.ask(request, 20).await;
    control("--zero", gateway.pid());
    scene.ask(request, times).await;
    control("--dump", gateway.pid());
    counted(&profile, times)
}

/// Those of a server that answers the same with the same libraries and looks at nothing.
async fn alone_instructions(request: &Request, times: usize) -> u64 {
    let scene = scene(request).await;
    let profile = profile(&scene);
    let body = scene.folder.join("body");
    {
        let _gateway = scene.gateway("gateway", &[]).await;
        std::fs::write(&body, scene.ask(request, 1).await).unwrap();
    }
    let (alone, port) = alone(&scene, &body, &callgrind(&profile)).await;
    scene.ask_at(port, request, 20).await;
    control("--zero", alone.pid());
    scene.ask_at(port, request, times).await;
    control("--dump", alone.pid());
    counted(&profile, times)
}

async fn scene(request: &Request) -> Scene {
    if HITS.iter().any(|hit| hit.name == request.name) {
        Scene::start([matrix::serve().await, matrix::serve().await], "enforce").await
    } else {
        Scene::start(scene::small_upstream().await, "bypass").await
    }
}

/// The server of `matrix.rs`, which this program is too, under `wrapper` if there is one.
pub(crate) async fn alone(scene: &Scene, body: &std::path::Path, wrapper: &[String]) -> (Server, u16) {
    let port = servers::free_port().unwrap();
    let mut words = wrapper.to_vec();
    words.push(std::env::current_exe().unwrap().to_string_lossy().into_owned());
    words.extend(["alone".to_owned(), port.to_string(), body.to_string_lossy().into_owned()]);
    let program = words.remove(0);
    let server = Server::start(program.as_ref(), &words, &scene.folder.join("alone.log"), &[]).unwrap();
    server.ready(&format!("http://127.0.0.1:{port}/"), std::time::Duration::from_secs(30)).await.unwrap();
    (server, port)
}

fn profile(scene: &Scene) -> String {
    let file = std::env::var("CALLGRIND_OUT").map_or_else(|_| scene.folder.join("callgrind.out"), Into::into);
    file.to_string_lossy().into_owned()
}

fn callgrind(profile: &str) -> [String; 3] {
    ["valgrind", "--tool=callgrind", &format!("--callgrind-out-file={profile}")].map(str::to_owned)
}

fn counted(profile: &str, times: usize) -> u64 {
    let text = std::fs::read_to_string(format!("{profile}.1")).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a sum");
    total.trim().parse::<u64>().unwrap() / u64::try_from(times).unwrap()
}

fn control(what: &str, pid: u32) {
    let output = std::process::Command::new("callgrind_control").args([what, &pid.to_string()]).output().unwrap();
    assert!(output.status.success(), "callgrind_control {what}: {}", String::from_utf8_lossy(&output.stderr));
}
