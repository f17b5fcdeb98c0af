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
fn dashboards_are_listed_and_rendered() {
    let (code, stdout, _) = text(&run(&["dashboards", "list"], ""));
    assert!(code == 0 && stdout.starts_with("NAME") && stdout.contains("\nvllm "), "{stdout}");
    let (_, stdout, _) = text(&run(&["dashboards", "list", "--json", "--folder", "tests/golden/dashboards"], ""));
    let lines: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let own = lines.iter().find(|line| line["name"] == "my-servers").unwrap();
    assert_eq!(
        (own["for"][0].as_str(), own["file"].as_str()),
        (Some("InferenceService"), Some("tests/golden/dashboards/example.yaml"))
    );

    let render = |more: &[&str]| {
        let mut arguments = vec!["dashboards", "render"];
        arguments.extend(more);
        text(&run(&arguments, ""))
    };
    let of = |kind: &'static str| vec![kind, "--name", "granite", "--namespace", "team-a"];
    let (code, stdout, stderr) = render(&of("Notebook"));
    let dashboard: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &dashboard["kind"], &dashboard["metadata"]["project"]),
        (0, &"Dashboard".into(), &"team-a".into()),
        "{stderr}"
    );
    assert_eq!(render(&of("notebook")).1, stdout, "in any case, and the same bytes each time");
    let (_, by_template, _) = render(&of("vllm"));
    let mut by_kind = of("InferenceService");
    by_kind.extend(["--engine", "vllm"]);
    assert_eq!(render(&by_kind).1, by_template);
    for (wrong, expected) in [
        (vec!["Pod", "--name", "a", "--namespace", "a"], "neither a kind"),
        (vec!["Project", "--name", "a", "--namespace", "a"], "name one of project, gpus, past-runs"),
        (vec!["Notebook", "--name", "A", "--namespace", "a"], "--name"),
        (vec!["Notebook", "--name", "a", "--namespace", "a b"], "--namespace"),
        (vec!["Notebook", "--name", "a", "--namespace", "a", "--engine", "x"], "known are vLLM"),
        (vec!["Notebook", "--name", "a", "--namespace", "a", "--folder", "no-such"], "cannot be read"),
        (vec!["Notebook", "--name", "a", "--namespace", "a", "--config", "no-such"], "cannot be read"),
        (vec!["Notebook", "--name", "a"], "--namespace"),
    ] {
        let (code, stdout, stderr) = render(&wrong);
        assert!(code == 2 && stdout.is_empty() && stderr.contains(expected), "{wrong:?}: {stderr}");
    }
    // A folder with a wrong template: each problem with file, line and column.
    let folder = std::env::temp_dir().join(format!("templates-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let example = std::fs::read_to_string("tests/golden/dashboards/example.yaml").unwrap();
    std::fs::write(folder.join("bad.yaml"), example.replace("<<namespace>>", "<<namespce>>")).unwrap();
    let (code, _, stderr) = text(&run(&["dashboards", "list", "--folder", &folder.to_string_lossy()], ""));
    assert!(code == 2 && stderr.contains("bad.yaml:") && stderr.contains("did you mean \"namespace\"?"), "{stderr}");
    let config = std::fs::read_to_string("tests/golden/config/readme.yaml").unwrap();
    let with = folder.join("config");
    std::fs::write(&with, format!("{config}\ndashboards:\n  folder: {}\n", folder.display())).unwrap();
    let (code, stdout, stderr) = text(&run(&["check", "--config", &with.to_string_lossy()], ""));
    assert!(code == 2 && stdout.is_empty() && stderr.contains("bad.yaml:"), "check tells it too: {stderr}");
    std::fs::remove_dir_all(&folder).unwrap();
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
fn confine_streams_and_keeps_order() {
    // Far more than a pipe holds, and in memory that does not grow with it.
    let lines = 200_000;
    let mut child = Command::new(env!("CARGO_BIN_EXE_perses-sidecar"))
        .args(["confine", "--namespace", "a"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let mut out = std::io::BufWriter::new(&mut stdin);
        for number in 0..lines {
            writeln!(out, "{{\"q\": \"up + {number}\"}}").unwrap();
        }
    });
    let mut peak = 0;
    let mut count = 0;
    for (number, line) in std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap())).enumerate() {
        assert_eq!(
            line.unwrap(),
            format!("{{\"ok\":true,\"query\":\"up{{namespace=\\\"a\\\"}} + {number}\",\"selectors\":1}}")
        );
        if number % 20_000 == 10_000 {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or("VmHWM: 0 kB");
            peak = peak.max(line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap());
        }
        count += 1;
    }
    writer.join().unwrap();
    assert_eq!((child.wait().unwrap().code(), count), (Some(0), lines));
    assert!(peak > 0 && peak < 64 << 10, "{peak} KiB at most");
}

#[test]
fn confine_answers_whoever_waits() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_perses-sidecar"))
        .args(["confine", "--namespace", "a"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut answers = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    for _ in 0..3 {
        stdin.write_all(b"{\"q\": \"up\"}\n").unwrap();
        assert!(answers.next().unwrap().unwrap().contains("up{namespace="));
    }
    drop(stdin);
    assert!(answers.next().is_none() && child.wait().unwrap().success());
}

#[test]
fn confine_bounds_a_line_and_keeps_what_was_answered() {
    let arguments = ["confine", "--namespace", "a"];
    let long = format!("{{\"q\": \"up\"}}\n{{\"q\": \"{}\"}}\n", "a".repeat(2 << 20));
    let (code, stdout, stderr) = text(&run(&arguments, &long));
    assert_eq!((code, stdout.lines().count()), (2, 1), "{stderr}");
    assert!(stderr.contains("line 2: longer than 1048576 bytes"), "{stderr}");
    let (code, stdout, _) = text(&run(&arguments, &format!("{{\"q\": \"{}\"}}", "a".repeat(70_000))));
    assert!(code == 0 && stdout.contains("limits.query_text, which is 65536"), "{stdout}");
    let (code, stdout, stderr) = text(&run(&arguments, "{\"q\": \"up\"}\n{\"q\": 5}\n"));
    assert!(code == 2 && stdout.lines().count() == 1 && stderr.contains("line 2"), "{stderr}");
    // The last line needs no end, and a line may end as on other systems.
    assert_eq!(text(&run(&arguments, "{\"q\": \"up\"}\r\n\n# x\n{\"q\": \"up\"}")).1.lines().count(), 2);
    assert_eq!(text(&run(&arguments, "")), (0, String::new(), String::new()));
}

#[test]
fn manifests_name_the_resources_that_are_reviewed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/roles/roles.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    for resource in [perses_sidecar::access::Resource::Dashboards, perses_sidecar::access::Resource::Datasources] {
        let (group, resource) = resource.group_and_resource();
        assert!(text.contains(group) && text.matches(resource).count() == 2, "{resource}");
    }
    for verb in ["get", "create", "patch", "delete"] {
        assert!(text.contains(&format!("\"{verb}\"")), "{verb}");
    }
    assert!(text.contains("aggregate-to-view"));
}

const WEBHOOK: &str = "tests/golden/injection/webhook.yaml";

#[test]
fn inject_takes_files_and_gives_files() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: perses, namespace: team-a}\nspec:\n  template:\n    \
                      metadata: {annotations: {perses-sidecar.io/inject: \"true\"}}\n    spec:\n      containers:\n      - \
                      {name: perses, image: 'persesdev/perses:v0.54.0', args: ['--config=/c.yaml'], ports: [{containerPort: 8080}]}\n";
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: perses}\n";
    let (code, stdout, stderr) = text(&run(&["inject", "--config", WEBHOOK], &format!("{deployment}{service}")));
    assert!(code == 0 && stderr.contains("Deployment perses: the pod runs as the service account default"), "{stderr}");
    assert!(stdout.contains("--web.listen-address=127.0.0.1:9080") && stdout.contains("kind: Service"), "{stdout}");
    assert!(stdout.contains("https://perses-team-a.apps.example"), "{stdout}");
    // What came out goes in again, and stays.
    let (code, again, _) = text(&run(&["inject", "--config", WEBHOOK], &stdout));
    assert_eq!((code, &again), (0, &stdout));
    let (code, patch, _) = text(&run(&["inject", "--config", WEBHOOK, "--patch"], deployment));
    let patch: serde_json::Value = serde_json::from_str(&patch).unwrap();
    let path = |operation: &serde_json::Value| operation["path"].as_str().unwrap().starts_with("/spec/template/");
    assert!(code == 0 && patch.as_array().unwrap().iter().all(path), "{patch}");
    // JSON stays JSON, in lists too.
    let pod = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},
        "spec":{"serviceAccountName":"x","containers":[{"name":"perses","image":"i","args":["--config=c"]}]}}]}"#;
    let (code, stdout, stderr) = text(&run(&["inject", "--config", WEBHOOK, "--inject-default"], pod));
    let list: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(code == 0 && list["items"][0]["spec"]["containers"][1]["name"] == "perses-sidecar", "{stdout}{stderr}");
    let (_, stdout, _) = text(&run(&["inject", "--config", WEBHOOK], pod));
    assert!(!stdout.contains("perses-sidecar"), "nobody asked: {stdout}");
}

#[test]
fn inject_leaves_nobody_out_who_asks() {
    let pod = |more: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p","annotations":{{"perses-sidecar.io/inject":"true"}}}},
            "spec":{{"serviceAccountName":"x","containers":[{{"name":"perses","image":"i","args":["--config=c"]}}]}}{more}}}"#
        )
    };
    let inject = |input: &str| text(&run(&["inject", "--config", WEBHOOK], input));
    // For kubectl all of these are lists.
    let list = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","items":[{{"apiVersion":"v1","kind":"List","items":[{}]}}]}}"#,
        pod("")
    );
    let (code, stdout, stderr) = inject(&list);
    let out: serde_json::Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{code} {stderr}"));
    assert_eq!(out["items"][0]["items"][0]["spec"]["containers"][1]["name"], "perses-sidecar");
    // The status is what the API server says, and none that one could come with.
    let (code, stdout, stderr) = inject(&pod(r#","status":{"phase":"Running"}"#));
    assert!(code == 1 && stdout.is_empty() && stderr.contains("Pod p: runs or ends already"), "{stdout}{stderr}");
    // One that has its sidecar may run.
    let (_, injected, _) = inject(&pod(""));
    let running = injected.trim_end().trim_end_matches('}').to_owned() + r#","status":{"phase":"Running"}}"#;
    let (code, stdout, stderr) = inject(&running);
    assert!(code == 0 && stdout.contains(r#""phase": "Running""#), "{stdout}{stderr}");
    let workload = |version: &str, kind: &str, wish: &str| {
        format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: w}}\nspec:\n  template:\n    metadata: {{annotations: \
             {{perses-sidecar.io/inject: \"{wish}\"}}}}\n    spec: {{serviceAccountName: x, containers: [{{name: perses, image: i, args: [x]}}]}}\n"
        )
    };
    let (code, stdout, stderr) = inject(&workload("apps.openshift.io/v1", "DeploymentConfig", "true"));
    assert!(code == 0 && stdout.contains("name: perses-sidecar"), "{stdout}{stderr}");
    let (code, stdout, stderr) = inject(&workload("example.com/v1", "Rollout", "true"));
    assert!(code == 1 && stdout.is_empty() && stderr.contains("Rollout w: asks for the sidecar"), "{stdout}{stderr}");
    let (code, stdout, stderr) = inject(&workload("example.com/v1", "Rollout", "false"));
    assert!(code == 0 && !stdout.contains("name: perses-sidecar"), "{stdout}{stderr}");
}

#[test]
fn inject_says_no_and_writes_nothing() {
    let bad = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {perses-sidecar.io/inject: \"true\"}}\nspec:\n  \
               hostNetwork: true\n  containers: [{name: perses, image: i, args: [x]}]\n";
    let good = "apiVersion: v1\nkind: Pod\nmetadata: {name: q}\nspec: {}\n---\n";
    let (code, stdout, stderr) = text(&run(&["inject", "--config", WEBHOOK], &format!("{good}{bad}")));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("perses-sidecar: Pod p: hostNetwork is true"), "{stderr}");
    for (input, config) in [("a: [", WEBHOOK), ("", WEBHOOK), (bad, "no-such-file"), (bad, "config/minimal.yaml")] {
        let (code, stdout, stderr) = text(&run(&["inject", "--config", config], input));
        assert!(code == 2 && stdout.is_empty() && !stderr.is_empty(), "{config}: {stderr}");
    }
}
