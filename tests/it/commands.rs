//! The command line: what it prints, and its exit codes.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_perses-sidecar"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("KUBERNETES_SERVICE_HOST")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> (i32, String, String) {
    let words = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), words(&output.stdout), words(&output.stderr))
}

#[test]
fn check_tells_all_problems_with_their_places() {
    let (code, stdout, _) = text(&run(&["check", "--config", "tests/golden/config/readme.yaml"], ""));
    assert_eq!((code, stdout.as_str()), (0, "tests/golden/config/readme.yaml: good\n"));
    let (code, stdout, _) = text(&run(&["check", "--print", "--config", "tests/golden/config/readme.yaml"], ""));
    assert!(code == 0 && stdout.contains("query_points: 11000"), "{stdout}");
    let (code, stdout, stderr) = text(&run(&["check", "--config", "config/minimal.yaml"], ""));
    assert_eq!((code, stdout.as_str()), (2, ""), "outside of a pod");
    assert!(stderr.starts_with("config/minimal.yaml:1:1: ") || stderr.contains("cluster.url: is required"), "{stderr}");
    let (code, _, stderr) = text(&run(&["run", "--config", "no-such-file"], ""));
    assert!(code == 2 && stderr.contains("cannot be read"), "{stderr}");
    let (code, _, stderr) = text(&run(&["chekc"], ""));
    assert!(code == 2 && stderr.contains("check"), "{stderr}");
    let (code, stdout, _) = text(&run(&["--version"], ""));
    assert!(code == 0 && stdout.contains("aws-lc-rs"), "{stdout}");
    assert_eq!(text(&run(&["--help"], "")).0, 0);
}

#[test]
fn confine_answers_line_by_line() {
    let input = "# a comment\n{\"q\": \"up\"}\n{\"q\": \"sum(\"}\n{\"q\": \"info(up)\"}\n";
    let (code, stdout, _) = text(&run(&["confine", "--namespace", "a", "--namespace", "b"], input));
    assert_eq!(code, 0);
    let lines: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], serde_json::json!({ "ok": true, "query": "up{namespace=~\"a|b\"}", "selectors": 1 }));
    assert_eq!(
        (&lines[1]["ok"], &lines[1]["code"], &lines[1]["position"]),
        (&false.into(), &"syntax".into(), &4.into())
    );
    assert_eq!(lines[2]["code"], "forbidden");
    let (_, stdout, _) = text(&run(&["confine", "--check-only"], "{\"q\": \"a + b\"}\n"));
    assert_eq!(stdout, "{\"ok\":true,\"selectors\":2}\n");
    let (_, stdout, _) = text(&run(&["confine", "--namespace", "Any Value", "--label", "tenant"], "{\"q\": \"up\"}\n"));
    assert!(stdout.contains("up{tenant=\\\"Any Value\\\"}"), "{stdout}");
    for bad in [
        &["confine"][..],
        &["confine", "--namespace", ""],
        &["confine", "--namespace", "a", "--namespace", "B"],
        &["confine", "--namespace", "a", "--label", "a b"],
    ] {
        assert_eq!(text(&run(bad, "")).0, 2, "{bad:?}");
    }
    let (code, _, stderr) = text(&run(&["confine", "--namespace", "a"], "nonsense\n"));
    assert!(code == 2 && stderr.contains("line 1"), "{stderr}");
}

#[test]
fn manifests_name_the_resources_that_are_reviewed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/rbac.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    for resource in [perses_sidecar::access::Resource::Dashboards, perses_sidecar::access::Resource::Datasources] {
        let (group, resource) = resource.group_and_resource();
        assert!(text.contains(group) && text.matches(resource).count() == 2, "{resource}");
    }
    for verb in ["get", "create", "patch", "delete"] {
        assert!(text.contains(&format!("\"{verb}\"")), "{verb}");
    }
    assert!(text.contains("system:auth-delegator") && text.contains("aggregate-to-view"));
}
