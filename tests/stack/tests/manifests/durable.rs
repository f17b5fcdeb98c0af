//! The overlay for two replicas, on the servers that it names: Perses with a real MariaDB, and Valkey's command line.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use perses_sidecar_stack::http::Http;
use perses_sidecar_stack::pod::{Pod, Root};
use perses_sidecar_stack::servers::{self, Server};
use perses_sidecar_stack::world::dashboard;
use serde_json::{Value, json};

use crate::configured::surroundings;
use crate::{build, name, of_kind, word};

const OVERLAY: &str = "overlays/stand-alone-mariadb";

/// MariaDB with an empty database `perses` for a user of that name.
fn mariadb(folder: &Path, password: &str) -> (Server, u16) {
    let data = folder.join("data");
    let made = Command::new("mariadb-install-db")
        .args(["--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .arg(format!("--datadir={}", data.display()))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let statements = format!(
        "CREATE DATABASE perses;\nCREATE USER 'perses'@'%' IDENTIFIED BY '{password}';\nGRANT ALL ON perses.* TO 'perses'@'%';\n"
    );
    fs::write(folder.join("init.sql"), statements).unwrap();
    let port = servers::free_port().unwrap();
    let arguments = [
        "--no-defaults".to_owned(),
        "--user=root".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        "--skip-name-resolve".to_owned(),
        format!("--port={port}"),
        format!("--datadir={}", data.display()),
        // The name of a socket must be short.
        format!("--socket={}", std::env::temp_dir().join(format!("perses-sidecar-{port}.sock")).display()),
        format!("--pid-file={}", folder.join("mariadb.pid").display()),
        format!("--init-file={}", folder.join("init.sql").display()),
    ];
    let server = Server::start(Path::new("mariadbd"), &arguments, &folder.join("mariadb.log"), &[]).unwrap();
    (server, port)
}

/// Perses as the overlay runs it, in a container of its own; its address.
async fn perses(pod: &Pod, folder: &Path, number: u8) -> (Server, String) {
    let port = servers::free_port().unwrap();
    let mut arguments = pod.arguments("perses");
    let at = arguments.iter_mut().find(|word| word.starts_with("--web.listen-address=")).unwrap();
    *at = format!("--web.listen-address=127.0.0.1:{port}");
    let program = servers::binary("perses", servers::PERSES[0], &|line| eprintln!("{line}")).unwrap();
    let words = pod.words("perses", &Root::Program(&program), "/perses-server", &arguments, &[], &[]).unwrap();
    let log = folder.join(format!("perses-{number}.log"));
    let server = Server::start(Path::new(&words[0]), &words[1..], &log, &[]).unwrap();
    let url = format!("http://127.0.0.1:{port}");
    server.ready(&format!("{url}/api/v1/health"), Duration::from_secs(60)).await.unwrap();
    (server, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_of_two_replicas_are_in_mariadb() {
    let folder = servers::run_folder("mariadb").unwrap();
    let mut objects = surroundings(&build(OVERLAY));
    let secret = of_kind(&objects, "Secret").find(|object| name(object) == "perses-database").unwrap();
    let (database, port) = mariadb(&folder, word(secret, "/data/password"));
    // The admin's part: where the database is.
    let here = "mariadb.perses.svc:3306";
    for object in &mut objects {
        if let Some(text) = object["data"]["config.yaml"].as_str().filter(|text| text.contains(here)) {
            object["data"]["config.yaml"] = json!(text.replace(here, &format!("127.0.0.1:{port}")));
        }
    }
    for _ in 0..200 {
        if database.output().contains("ready for connections") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(database.output().contains("ready for connections"), "{}", database.output());
    let deployment = of_kind(&objects, "Deployment").find(|deployment| name(deployment) == "perses").unwrap();
    let mut spec = deployment["spec"]["template"]["spec"].clone();
    // What the image of Perses has besides the program.
    spec["volumes"].as_array_mut().unwrap().push(json!({ "name": "archive", "emptyDir": {} }));
    let containers = spec["containers"].as_array_mut().unwrap();
    let container = containers.iter_mut().find(|container| container["name"] == "perses").unwrap();
    let mounts = container["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({ "name": "archive", "mountPath": "/etc/perses/plugins-archive" }));
    let pod = |number: u8| {
        let pod = Pod::lay_out(&spec, &objects, "token", &folder.join(format!("pod-{number}"))).unwrap();
        servers::copy_folder(&servers::checkout().join("tests/stack/schemas"), &pod.volume("plugins")).unwrap();
        pod
    };
    let (first, one) = perses(&pod(0), &folder, 0).await;
    let (_second, two) = perses(&pod(1), &folder, 1).await;
    let http = Http::default();
    let project = json!({ "kind": "Project", "metadata": { "name": "team-a" }, "spec": {} });
    let made = http.json("POST", &format!("{one}/api/v1/projects"), "none", &project).await.unwrap();
    assert_eq!(made.status, 200, "{}", made.text());
    let mut board = dashboard("kept", "up");
    board["metadata"]["project"] = json!("team-a");
    let path = "/api/v1/projects/team-a/dashboards";
    let made = http.json("POST", &format!("{one}{path}"), "none", &board).await.unwrap();
    assert_eq!(made.status, 200, "{}", made.text());
    let stored: Value = made.json();
    let seen = http.send("GET", &format!("{two}{path}/kept"), &[], "").await.unwrap();
    assert_eq!((seen.status, seen.json()), (200, stored.clone()), "the other replica has it");
    // The first one goes, with all that it had in files.
    drop(first);
    let (_third, three) = perses(&pod(2), &folder, 2).await;
    let seen = http.send("GET", &format!("{three}{path}/kept"), &[], "").await.unwrap();
    assert_eq!((seen.status, seen.json()), (200, stored), "and one that starts anew has it");
}

/// The command line of the component is one that the server takes, with the password from the Secret. Redis takes the same;
/// where no Valkey is installed it stands in.
#[tokio::test(flavor = "multi_thread")]
async fn the_shared_memory_starts_as_it_is_written() {
    let folder = servers::run_folder("valkey").unwrap();
    let objects = surroundings(&build(OVERLAY));
    let deployment = of_kind(&objects, "Deployment").find(|deployment| name(deployment) == "perses-valkey").unwrap();
    let script = word(deployment, "/spec/template/spec/containers/0/args/0");
    let secret = of_kind(&objects, "Secret").find(|object| name(object) == "perses-valkey").unwrap();
    let password = word(secret, "/data/password");
    fs::write(folder.join("password"), password).unwrap();
    let port = servers::free_port().unwrap();
    let program = ["valkey-server", "redis-server"].into_iter().find(|name| is_installed(name)).unwrap();
    let script = script
        .replace("/etc/valkey", &folder.display().to_string())
        .replace("valkey-server", &format!("{program} --bind 127.0.0.1 --port {port}"));
    let arguments = ["-c".to_owned(), script];
    let server = Server::start(Path::new("sh"), &arguments, &folder.join("valkey.log"), &[]).unwrap();
    let ask = async |lines: &str| {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        socket.write_all(format!("{lines}QUIT\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    let mut alone = None;
    for _ in 0..100 {
        alone = ask("PING\r\n").await;
        if alone.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(alone.as_ref().is_some_and(|text| text.starts_with("-NOAUTH")), "{alone:?} {}", server.output());
    let asked = format!("AUTH {password}\r\nPING\r\nCONFIG GET maxmemory*\r\n");
    let answer = ask(&asked).await.unwrap_or_default();
    assert!(answer.starts_with("+OK\r\n+PONG\r\n"), "{answer}");
    // What ends a session must not be dropped for something younger: docs/tuning.md says so.
    assert!(answer.contains("\r\nnoeviction\r\n") && answer.contains("\r\n209715200\r\n"), "{answer}");
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
