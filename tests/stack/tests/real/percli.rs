//! `percli`, unmodified, for somebody with rights and somebody without.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use perses_sidecar_stack::servers;
use perses_sidecar_stack::world::dashboard;
use serde_json::json;

use crate::stage::Stage;

/// Who, the command line, the exit code, words of the output, and words that must not be there.
type Step<'s> = (&'static str, &'s [&'s str], i32, &'s [&'s str], &'s [&'s str]);

/// The binary, and a folder for what it remembers of each person.
pub(crate) struct Percli {
    binary: PathBuf,
    folder: PathBuf,
}

impl Percli {
    pub(crate) fn new(stage: &Stage, version: &str) -> Self {
        let binary = servers::binary("percli", version, &|line| eprintln!("{line}")).unwrap();
        Self { binary, folder: stage.world.folder.clone() }
    }

    /// The exit code, and all that it says.
    pub(crate) fn run(&self, who: &str, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(&self.binary)
            .args(["--percliconfig", &self.folder.join(format!("percli-{who}.json")).to_string_lossy()])
            .args(arguments)
            .env("HOME", &self.folder)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), text)
    }
}

pub(crate) fn life_of_a_dashboard(stage: &Stage, version: &str) {
    let folder = &stage.world.folder;
    let percli = Percli::new(stage, version);
    let run = |who: &str, arguments: &[&str]| percli.run(who, arguments);
    let gateway = stage.world.gateway();
    for who in ["ada", "grace", "eve", "nobody"] {
        let token = if who == "nobody" { "sha256~nobody" } else { stage.world.token(who) };
        let (code, text) = run(who, &["login", &gateway, "--token", token]);
        assert!(code == 0 && text.contains("successfully logged in"), "{version} {who}: {code} {text}");
    }
    let file = folder.join("d.json");
    let mut body = dashboard("bycli", "up");
    body["metadata"]["project"] = json!("team-a");
    fs::write(&file, body.to_string()).unwrap();
    let file = file.to_string_lossy();
    let (apply, all) = (["apply", "-f", &*file], ["get", "dashboards", "--all"]);
    let list = ["get", "dashboards", "--project", "team-a"];
    let describe = ["describe", "dashboard", "bycli", "--project", "team-a"];
    let delete = ["delete", "dashboard", "bycli", "--project", "team-a"];
    let foreign = ["delete", "dashboard", "overview", "--project", "team-b"];
    let steps: [Step<'_>; 32] = [
        ("nobody", &["whoami"], 1, &["401", "the token is not valid"], &[]),
        ("nobody", &all, 1, &["401", "the token is not valid"], &["overview"]),
        ("ada", &["whoami"], 0, &["ada"], &[]),
        ("eve", &["whoami"], 0, &["eve"], &[]),
        ("ada", &["get", "projects"], 0, &["team-a", "team-b"], &["team-c", "shared"]),
        ("grace", &["get", "projects"], 0, &["team-b"], &["team-a", "team-c", "shared"]),
        ("eve", &["get", "projects"], 0, &[], &["team-", "shared"]),
        ("ada", &["project", "team-a"], 0, &["team-a"], &[]),
        ("eve", &["project", "team-a"], 1, &["doesn't exist"], &[]),
        ("ada", &all, 0, &["overview", "team-a", "team-b"], &["shared"]),
        ("grace", &all, 0, &["overview", "team-b"], &["team-a", "shared"]),
        ("eve", &all, 0, &[], &["overview", "team-", "shared"]),
        ("ada", &list, 0, &["overview"], &["bycli"]),
        ("grace", &list, 1, &["404"], &["overview"]),
        ("eve", &list, 1, &["404"], &["overview"]),
        ("ada", &describe, 1, &["404"], &[]),
        ("eve", &apply, 1, &["404"], &["applied"]),
        ("grace", &apply, 1, &["404"], &["applied"]),
        ("ada", &describe, 1, &["404"], &[]),
        ("ada", &apply, 0, &["\"bycli\" has been applied in the project \"team-a\""], &[]),
        ("ada", &apply, 0, &["\"bycli\" has been applied in the project \"team-a\""], &[]),
        ("eve", &apply, 1, &["404"], &["applied"]),
        ("ada", &list, 0, &["bycli", "overview"], &[]),
        ("ada", &describe, 0, &["name: bycli", "project: team-a", "query: up"], &[]),
        ("eve", &describe, 1, &["404"], &["query: up"]),
        ("grace", &describe, 1, &["404"], &["query: up"]),
        // To those without a right it is not there, and percli takes that for done.
        ("eve", &delete, 0, &["is not found"], &["deleted"]),
        ("grace", &delete, 0, &["is not found"], &["deleted"]),
        ("ada", &describe, 0, &["name: bycli"], &[]),
        ("ada", &foreign, 1, &["403", "you may not delete", "team-b"], &["has been deleted"]),
        ("ada", &delete, 0, &["\"bycli\" has been deleted in the project \"team-a\""], &[]),
        ("ada", &describe, 1, &["404"], &[]),
    ];
    for (who, arguments, expected, there, not_there) in steps {
        let (code, text) = run(who, arguments);
        assert_eq!(code, expected, "percli {version} as {who}: {arguments:?}: {text}");
        for word in there {
            assert!(text.contains(word), "percli {version} as {who}: {arguments:?}: no {word:?} in {text}");
        }
        for word in not_there {
            assert!(!text.contains(word), "percli {version} as {who}: {arguments:?}: {word:?} in {text}");
        }
    }
}
