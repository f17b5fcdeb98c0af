//! The sidecar's own binary in front of real Perses and real Prometheus: for every route one caller who gets through and
//! the neighbours who do not, what it costs at rest, and every command of the README.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

mod cached;
mod cluster;
mod dashboards;
mod limits;
mod percli;
mod perses;
mod replicas;
mod shared;
mod stage;
mod thanos;
mod workloads;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use perses_sidecar_stack::ground::Kind;
use perses_sidecar_stack::http::Http;
use perses_sidecar_stack::servers::{self, Server};
use perses_sidecar_stack::tour;
use perses_sidecar_stack::world::{Options, World};

use stage::{Stage, stage, stage_as_shipped};

/// The contract on both versions of Perses, and on a real API server. Servers are started once for each.
async fn contract(options: Options) {
    let version = options.perses_version.unwrap_or(servers::PERSES[0]);
    let stage = stage(options).await;
    perses::every_route(&stage, version).await;
    perses::every_question_to_a_backend(&stage).await;
    percli::life_of_a_dashboard(&stage, version);
    dashboards::taken_by_perses(&stage, version).await;
    if version == servers::PERSES[0] {
        dashboards::every_query_finds_data(&stage).await;
    }
    workloads::beside_the_stored_ones(&stage, version).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_with_the_newest_perses() {
    contract(Options { perses_version: Some(servers::PERSES[0]), ..Options::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_with_the_perses_before() {
    contract(Options { perses_version: Some(servers::PERSES[1]), ..Options::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_and_access_on_a_real_api_server() {
    let options = Options { cluster: Kind::Real, quick: true, ..Options::default() };
    let stage = stage(options).await;
    cluster::suite(&stage).await;
    perses::every_route(&stage, servers::PERSES[0]).await;
    perses::every_question_to_a_backend(&stage).await;
    percli::life_of_a_dashboard(&stage, servers::PERSES[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_of_a_real_api_server() {
    let options = Options { cluster: Kind::Real, quick: true, ..Options::default() };
    workloads::found_on_a_real_api_server(&mut stage(options).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_long_list_costs() {
    workloads::what_a_long_list_costs(&stage_as_shipped(Options::default()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ten_thousand_workloads_take() {
    workloads::what_ten_thousand_take(&stage_as_shipped(Options::default()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn access_on_the_stand_in_as_openshift() {
    cluster::suite(&stage(Options { cluster: Kind::OpenShift, quick: true, ..Options::default() }).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn access_on_the_stand_in_as_plain_kubernetes() {
    cluster::suite(&stage(Options { cluster: Kind::Plain, quick: true, ..Options::default() }).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_costs_at_rest_and_what_is_in_it() {
    let bytes = fs::read(servers::sidecar()).unwrap();
    eprintln!("binary: {} KiB", bytes.len() >> 10);
    assert!(bytes.len() <= 20_000_000, "{} bytes", bytes.len());
    for word in ["/-/stand-in", "cluster-monitoring-view", "namespace-reader", "finetune-worker", "granite-predictor"] {
        assert!(
            !bytes.windows(word.len()).any(|window| window == word.as_bytes()),
            "the test stack's {word:?} is in it"
        );
    }
    let stage = stage_as_shipped(Options::default()).await;
    let log = stage.sidecar.output();
    eprintln!("{}", log.lines().find(|line| line.contains("Ready")).unwrap());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let resident = stage.sidecar.resident().unwrap();
    eprintln!("resident: {resident} KiB");
    assert!(resident <= 25 * 1024, "{resident} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_as_it_should() {
    let stage = stage(Options::default()).await;
    stage.sidecar.signal("TERM");
    for _ in 0..100 {
        if !stage.sidecar.is_running() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!stage.sidecar.is_running());
    assert!(stage.sidecar.output().contains("Stopped"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_and_no_token_in_its_log() {
    let stage = stage(Options { quick: true, workloads: true, ..Options::default() }).await;
    let (passed, failed) = tour::walk(&stage.world, &|line| eprintln!("{line}")).await;
    assert!(failed == 0 && passed >= 25, "{passed} passed, {failed} failed");
    let log = stage.sidecar.output();
    let audit = fs::read_to_string(stage.world.folder.join("audit.log")).unwrap();
    assert!(audit.lines().count() > 5);
    for person in stage.world.people.values() {
        assert!(!log.contains(&person.token) && !audit.contains(&person.token), "a token was written down");
    }
}

/// TLS 1.2 and 1.3, HTTP/1.1 and h2, by curl.
#[tokio::test(flavor = "multi_thread")]
async fn tls_speaks_both_versions_of_both() {
    let stage = stage(Options::default()).await;
    let url = format!("https://localhost:{}/api/v1/projects", stage.world.ports[1]);
    for (flags, expected) in [
        (["--http1.1", "--tlsv1.2", "--tls-max", "1.2"], "200 1.1"),
        (["--http1.1", "--tlsv1.3", "--tls-max", "1.3"], "200 1.1"),
        (["--http2", "--tlsv1.2", "--tls-max", "1.2"], "200 2"),
        (["--http2", "--tlsv1.3", "--tls-max", "1.3"], "200 2"),
        (["--http1.1", "--tlsv1.0", "--tls-max", "1.1"], "000 0"),
    ] {
        let output = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--cacert"])
            .arg(&stage.world.ca_file)
            .args(flags)
            .args(["-H", &format!("Authorization: Bearer {}", stage.world.token("ada")), &url])
            .output()
            .unwrap();
        let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(text, expected, "{flags:?}: {error}");
    }
}

/// Every line of shell in the README that asks something is run as it stands.
#[tokio::test(flavor = "multi_thread")]
async fn commands_of_the_readme() {
    let stage = stage(Options::default()).await;
    let readme = fs::read_to_string(servers::checkout().join("README.md")).unwrap();
    let mut count = 0;
    for block in readme.split("```").skip(1).step_by(2) {
        let Some(code) = block.strip_prefix("sh\n") else { continue };
        for line in code.lines() {
            let mut shell = Command::new("bash");
            shell.args(["-o", "pipefail", "-ec", line]).current_dir(servers::checkout()).stdin(Stdio::null());
            shell.env("GATEWAY", stage.world.gateway()).env("ADMIN", stage.world.admin());
            for (name, person) in &stage.world.people {
                shell.env(name.to_uppercase(), &person.token);
            }
            let folder = servers::sidecar().parent().unwrap().to_owned();
            let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
            let output = shell.env("PATH", path).output().unwrap();
            let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && !text.is_empty(), "{line}: {text} {error}");
            assert!(!text.contains("\"status\":\"error\"") && !text.starts_with("{\"message\""), "{line}: {text}");
            count += 1;
        }
    }
    assert!(count >= 12, "{count} commands");
}

/// The wall clock steps by a day, there and back, while time itself goes on.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_step_let_nobody_in_or_out() {
    let world =
        World::start(&Options { quick: true, ..Options::default() }, &|line| eprintln!("{line}")).await.unwrap();
    let library = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
        .map(|folder| format!("{folder}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| fs::exists(path).unwrap())
        .expect("the package faketime is needed");
    let step = world.folder.join("step");
    fs::write(&step, "+0").unwrap();
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", step.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let log = world.folder.join("sidecar.log");
    let sidecar = Server::start(&servers::sidecar(), &world.sidecar_arguments(), &log, &environment).unwrap();
    sidecar.ready(&format!("{}/readyz", world.admin()), Duration::from_secs(20)).await.unwrap();
    let stage = Stage { world, sidecar, http: Http::default() };
    // A token that says when it ends, an hour from now.
    let bot = stage.world.ground.account_token_ending("team-a", "bot", 3600).await.unwrap();
    let both = async || {
        let list = "/api/v1/projects";
        (stage.send("ada", "GET", list, None).await.status, stage.present(&bot, "GET", list, None).await.status)
    };
    for by in ["+0", "+1d", "-1d", "+0", "-400d", "+400d", "+0"] {
        fs::write(&step, by).unwrap();
        for _ in 0..3 {
            assert_eq!(both().await, (200, 200), "{by}");
            tokio::time::sleep(Duration::from_millis(900)).await;
        }
        // What lies between two clocks opens nothing: who is not known stays so, and a right that is lost is lost.
        assert_eq!(stage.present("sha256~made-up", "GET", "/api/v1/projects", None).await.status, 401, "{by}");
        assert_eq!(stage.send("eve", "GET", "/api/v1/projects/team-a", None).await.status, 404, "{by}");
    }
    let audit = fs::read_to_string(stage.world.folder.join("audit.log")).unwrap();
    assert!(audit.contains("\"time\":\"2"), "records go on");
}
