//! `percli`, unmodified, for somebody with rights and somebody without.

use std::fs;
use std::process::{Command, Stdio};

use perses_sidecar_stack::servers;
use perses_sidecar_stack::world::dashboard;
use serde_json::json;

use crate::stage::Stage;

pub(crate) fn life_of_a_dashboard(stage: &Stage, version: &str) {
    let percli = servers::binary("percli", version, &|line| eprintln!("{line}")).unwrap();
    let run = |who: &str, arguments: &[&str]| {
        let output = Command::new(&percli)
            .args(["--percliconfig", &stage.world.folder.join(format!("percli-{who}.json")).to_string_lossy()])
            .args(arguments)
            .env("HOME", &stage.world.folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        eprintln!("{who} {arguments:?}: {:?} {text}", output.status.code());
        (output.status.code().unwrap(), text)
    };
    let gateway = stage.world.gateway();
    let (code, text) = run("nobody", &["login", &gateway, "--token", "sha256~nobody"]);
    let _ = (code, text);
    run("nobody", &["get", "dashboards", "-a"]);
    for who in ["ada", "eve"] {
        run(who, &["login", &gateway, "--token", stage.world.token(who)]);
        run(who, &["whoami"]);
        run(who, &["get", "projects"]);
        run(who, &["get", "dashboards", "-a", "-ojson"]);
        run(who, &["project", "team-a"]);
        run(who, &["get", "dashboards", "--project", "team-a"]);
        run(who, &["describe", "dashboard", "overview", "--project", "team-a"]);
    }
    let file = stage.world.folder.join("d.json");
    let mut body = dashboard("bycli", "up");
    body["metadata"]["project"] = json!("team-a");
    fs::write(&file, body.to_string()).unwrap();
    for who in ["eve", "ada", "eve"] {
        run(who, &["apply", "-f", &file.to_string_lossy()]);
    }
    for who in ["ada", "eve"] {
        run(who, &["describe", "dashboard", "bycli", "--project", "team-a"]);
    }
    for who in ["eve", "ada", "ada"] {
        run(who, &["delete", "dashboard", "bycli", "--project", "team-a"]);
        run(who, &["remove", "dashboard", "bycli", "--project", "team-a"]);
    }
    run("ada", &["delete", "dashboard", "overview", "--project", "team-b"]);
    run("ada", &["describe", "dashboard", "bycli", "--project", "team-a"]);
}
