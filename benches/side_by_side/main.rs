//! What does a request cost the gateway, in CPU time beside nginx, in instructions, and in memory for idle connections?
//!
//! `benches/side_by_side/run` runs `compare`: the same requests through us and through nginx as a plain proxy (`proxy.conf`),
//! both with one worker, in front of an nginx that only returns bytes (`upstream.conf`); CPU time is what the serving process
//! used, user and system, over a round. `benches/count` runs `instructions`: the gateway alone under callgrind. Rights are
//! remembered in both: the stand-in for the cluster is asked once.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a program for a terminal")]

mod compare;
mod scene;

use scene::{Request, Scene};

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let what = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let good = match what.as_str() {
        "compare" => runtime.block_on(compare::compare(&arguments)),
        "instructions" => {
            let request = Request::named(&arguments[0]);
            let times = arguments[1].parse().unwrap();
            println!("{}", runtime.block_on(instructions(&request, times)));
            true
        }
        _ => {
            println!("compare [--rounds N] [--seconds N] | instructions read|query N");
            true
        }
    };
    std::process::exit(i32::from(!good));
}

/// Instructions of a gateway that starts, answers so many requests on one connection, and stops.
async fn instructions(request: &Request, times: usize) -> u64 {
    let scene = Scene::start(scene::small_upstream().await).await;
    let profile = std::env::var("CALLGRIND_OUT").unwrap_or_else(|_| "/dev/null".to_owned());
    let valgrind =
        ["valgrind", "--tool=callgrind", &format!("--callgrind-out-file={profile}")].map(str::to_owned).to_vec();
    let gateway = scene.gateway("gateway", &valgrind).await;
    scene.ask(request, times).await;
    gateway.signal("TERM");
    while gateway.is_running() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let output = gateway.output();
    let collected = output.lines().find_map(|line| line.split_once("Collected : ")).unwrap_or_else(|| panic!("{output}"));
    collected.1.trim().parse().unwrap()
}
