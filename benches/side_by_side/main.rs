//! What does a request cost the gateway, in CPU time beside nginx, in instructions, and in memory for idle connections?
//!
//! `benches/side_by_side/run` runs `compare`: the same requests through us and through nginx as a plain proxy (`proxy.conf`),
//! and through a proxy that hyper makes without us (`bare.rs`), each with one worker, in front of an nginx that only returns bytes (`upstream.conf`); CPU time is what the serving process
//! used, user and system, over a round. `benches/count` runs `instructions`: the gateway alone under callgrind. Rights are
//! remembered in both: the stand-in for the cluster is asked once.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a program for a terminal")]

mod bare;
mod compare;
mod scene;

use scene::{Request, Scene};

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let what = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let good = match what.as_str() {
        "compare" => runtime.block_on(compare::compare(&arguments)),
        "bare" => {
            let [port, upstream] = [0, 1].map(|at: usize| arguments[at].parse().unwrap());
            runtime.block_on(bare::serve(port, upstream));
            true
        }
        "instructions" => {
            let request = Request::named(&arguments[0]);
            let times = arguments[1].parse().unwrap();
            println!("{}", runtime.block_on(instructions(&request, times)));
            true
        }
        _ => {
            println!(
                "compare [--rounds N] [--seconds N] | instructions read|query|open|session|list N | bare PORT UPSTREAM"
            );
            true
        }
    };
    std::process::exit(i32::from(!good));
}

/// Instructions of the gateway for one request, over so many on one connection, once everything is warm.
async fn instructions(request: &Request, times: usize) -> u64 {
    let scene = Scene::start(scene::small_upstream().await).await;
    let profile = std::env::var("CALLGRIND_OUT").map_or_else(|_| scene.folder.join("callgrind.out"), Into::into);
    let profile = profile.to_string_lossy();
    let valgrind = ["valgrind", "--tool=callgrind", &format!("--callgrind-out-file={profile}")].map(str::to_owned);
    scene.fill(request);
    let gateway = scene.gateway("gateway", &valgrind).await;
    scene.is_filled(request).await;
    scene.ask(request, 20).await;
    control("--zero", gateway.pid());
    scene.ask(request, times).await;
    control("--dump", gateway.pid());
    let text = std::fs::read_to_string(format!("{profile}.1")).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a sum");
    total.trim().parse::<u64>().unwrap() / u64::try_from(times).unwrap()
}

fn control(what: &str, pid: u32) {
    let output = std::process::Command::new("callgrind_control").args([what, &pid.to_string()]).output().unwrap();
    assert!(output.status.success(), "callgrind_control {what}: {}", String::from_utf8_lossy(&output.stderr));
}
