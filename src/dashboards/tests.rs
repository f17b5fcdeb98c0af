//! Golden files, and what holds for whatever a cluster may hold.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

mod rendering;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::names::Namespace;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dashboards").join(name)
}

/// Whether what comes out is taken as what is expected.
fn writes() -> bool {
    std::env::var_os("GOLDEN").is_some()
}

/// Cases of input, a line of dashes, and output, parted by lines of equal signs. `GOLDEN=write` takes what comes out.
fn cases(name: &str, least: usize, answer: impl Fn(&str) -> String) {
    let text = fs::read_to_string(golden(name)).unwrap();
    let mut written = Vec::new();
    for case in text.trim_end().split("\n====\n") {
        let (input, expected) = case.split_once("\n----\n").unwrap_or((case, ""));
        let got = answer(input);
        if !writes() {
            assert_eq!(got, expected, "{input}");
        }
        written.push(format!("{input}\n----\n{got}"));
    }
    assert!(written.len() >= least, "{} cases", written.len());
    if writes() {
        fs::write(golden(name), written.join("\n====\n") + "\n").unwrap();
    }
}

/// A workload in one line; what is not known is left out.
fn line(workload: &Workload) -> String {
    let mut line = format!("{} {}/{}", workload.kind, workload.namespace, workload.name);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line.push_str(&format!(" {name}={value}"));
        }
    };
    let text = |value: &Option<Box<str>>| value.as_ref().map(|text| format!("{text:?}"));
    add("title", text(&workload.title));
    add("engine", (workload.engine != Engine::Other).then(|| workload.engine.word().to_owned()));
    let runtime = |runtime: &Runtime| format!("{}{}", if runtime.cluster { "cluster/" } else { "" }, runtime.name);
    add("runtime", workload.runtime.as_ref().map(runtime));
    add("model", text(&workload.model));
    add("state", Some(workload.state.word().to_owned()));
    add("reason", text(&workload.reason));
    add("since", workload.since.map(|since| since.to_string()));
    add("created", workload.created.map(|created| created.to_string()));
    add("owner", text(&workload.owner));
    add("gpus", (workload.gpus > 0).then(|| workload.gpus.to_string()));
    add("queue", text(&workload.queue));
    add("ray", text(&workload.ray_cluster));
    add("progress", workload.progress.map(|progress| format!("{}%/{:?}", progress.percent, progress.left)));
    line
}

#[test]
fn golden_workloads() {
    cases("workloads.txt", 45, |input| {
        let raw: Value = serde_json::from_str(input).unwrap();
        let word = raw["kind"].as_str().unwrap();
        if word.ends_with("ServingRuntime") {
            return engine_of_runtime(&raw).map_or("nobody knows".to_owned(), |engine| engine.word().to_owned());
        }
        read(Kind::parse(word).unwrap(), &raw).map_or_else(|unread| unread.to_string(), |workload| line(&workload))
    });
}

#[test]
fn kinds_and_words_read_back() {
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.word()), Some(*kind));
        assert!(!kind.versions().is_empty() && kind.plural() == kind.word().to_lowercase() + "s", "{kind}");
    }
    assert_eq!(Kind::parse("project"), Some(Kind::Project));
    for engine in Engine::ALL {
        assert_eq!(Engine::parse(engine.word()), Some(engine));
    }
    assert_eq!((Kind::parse("Pod"), Engine::parse("")), (None, None));
}

#[test]
fn names_are_those_of_the_cluster() {
    for good in [
        "a",
        "0",
        "a-b",
        "a.b",
        "granite-3.1-8b",
        &["x".repeat(63), "y".repeat(63), "z".repeat(63), "w".repeat(61)].join("."),
    ] {
        assert!(WorkloadName::parse(good).is_some(), "{good}");
    }
    for bad in ["", ".", "a.", ".a", "a..b", "-a", "a-", "A", "a_b", "a/b", "ä", "a\"", "a}", "a\n", &"x".repeat(254)]
    {
        assert!(WorkloadName::parse(bad).is_none(), "{bad}");
    }
}

/// Any JSON, of the keys that are read.
fn anything() -> impl Strategy<Value = Value> {
    let keys = "(metadata|name|namespace|spec|status|conditions|type|predictor|model|minReplicas|containers|resources|limits|nvidia.com/gpu|\
                labels|annotations|ownerReferences|template|pytorchReplicaSpecs|Worker|replicas|trainer|numNodes|workerGroupSpecs|progressPercentage|trainerStatus|args)";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("True")),
        Just(json!("Ready")),
        Just(json!("team-a")),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

#[test]
fn pods_are_those_of_the_workload_and_no_other() {
    let pods = |kind, name: &str, ray: Option<&str>| {
        let mut workload = Workload::bare(kind, Namespace::parse("a").unwrap(), WorkloadName::parse(name).unwrap());
        workload.ray_cluster = ray.map(Into::into);
        workload.pods()
    };
    assert_eq!(
        pods(Kind::InferenceService, "granite-3.1", None),
        "granite-3\\.1-predictor(-worker)?(-[0-9]{5}-deployment)?(-[0-9a-z]+){1,2}"
    );
    assert_eq!(pods(Kind::PyTorchJob, "bert", None), "bert-(master|worker)-[0-9]+");
    assert_eq!(pods(Kind::Notebook, "wb", None), "wb-0");
    assert_eq!(pods(Kind::RayJob, "rj", Some("rj-abcde")), "rj-abcde-(head|.+-worker)(-[0-9a-z]+)?");
    assert_eq!(pods(Kind::RayJob, "rj", None), "rj-[0-9a-z]{5}-(head|.+-worker)(-[0-9a-z]+)?");
    // What a status says is text of others.
    assert_eq!(pods(Kind::RayJob, "rj", Some("x\"}|.*")), "x\"\\}\\|\\.\\*-(head|.+-worker)(-[0-9a-z]+)?");
    assert_eq!(Workload::project(&Namespace::parse("a").unwrap(), 0).pods(), ".+");
}

#[test]
fn what_is_built_in_is_good() {
    let (library, problems) = Library::compile(&[], &Settings::default());
    assert!(problems.is_empty(), "{problems:?}");
    assert!(library.templates().len() >= 16, "{}", library.templates().len());
    // And again without trust, as an admin's own copies; there is a file for each, and no other.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/templates");
    let file = |entry: fs::DirEntry| (entry.path().display().to_string(), fs::read_to_string(entry.path()).unwrap());
    let files: Vec<(String, String)> = fs::read_dir(folder).unwrap().map(|entry| file(entry.unwrap())).collect();
    let (copies, problems) = Library::compile(&files, &Settings::default());
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{}", told.join("\n"));
    assert_eq!(copies.templates().len(), library.templates().len());
    for (copy, own) in copies.templates().iter().zip(library.templates()) {
        assert!(copy.file().starts_with('/'), "{} is built in and no file", copy.name());
        assert_eq!((copy.name(), &copy.spec), (own.name(), &own.spec));
    }
}

/// A template, a line of dashes, every problem with it. `BASE` stands for a whole small dashboard.
#[test]
fn golden_problems_of_templates() {
    const BASE: &str = "spec:\n  display: {name: A}\n  panels:\n    a:\n      kind: Panel\n      spec:\n        display: {name: A}\n        \
                        plugin: {kind: StatChart, spec: {calculation: last}}\n  layouts:\n    - kind: Grid\n      spec:\n        items:\n          \
                        - {x: 0, y: 0, width: 24, height: 8, content: {$ref: \"#/spec/panels/a\"}}";
    cases("problems.txt", 35, |input| {
        let text = input.replace("BASE", BASE);
        let files: Vec<(String, String)> = text
            .split("\n--- next file\n")
            .enumerate()
            .map(|(at, text)| (format!("{}.yaml", at + 1), text.to_owned()))
            .collect();
        let (library, problems) = Library::compile(&files, &Settings::default());
        assert!(library.templates().len() >= 16, "all others keep working");
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        if told.is_empty() { format!("good, {} templates", library.templates().len()) } else { told.join("\n") }
    });
}

/// The example of the documentation is a whole template, and good; what the text promises of it is so.
#[test]
fn the_example_of_the_documentation_works() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(folder.join("docs/templates.md")).unwrap();
    let example =
        text.split("```yaml\n").find(|block| block.starts_with("template:")).unwrap().split("```").next().unwrap();
    assert_eq!(example, fs::read_to_string(golden("example.yaml")).unwrap());
    let (library, problems) =
        Library::compile(&[("example.yaml".to_owned(), example.to_owned())], &Settings::default());
    assert_eq!(problems, []);
    let namespace = Namespace::parse("team-a").unwrap();
    let workload = Workload::bare(Kind::Notebook, namespace.clone(), WorkloadName::parse("wb").unwrap());
    let names: Vec<&str> = library.of(&workload).map(|template| template.name()).collect();
    assert_eq!(names, ["notebook", "my-servers"]);
    let rendered = library.template("my-servers").unwrap().render(&workload);
    assert!(rendered.contains("{namespace=\\\"team-a\\\",pod=~\\\"wb-0\\\"}"), "{rendered}");
    // Every word of the tables is known, and every known word stands in them.
    for word in placeholder::Placeholder::ALL.iter().map(|known| known.word()) {
        assert!(text.contains(&format!("<<{word}>>")), "{word}");
    }
    for word in placeholder::Fact::ALL.iter().map(|known| known.word()) {
        assert!(text.contains(&format!("`{word}`")), "{word}");
    }
    for word in Kind::ALL.iter().map(|kind| kind.word()).chain(Engine::ALL.map(Engine::word)) {
        assert!(text.contains(&format!("`{word}`")), "{word}");
    }
    let template = library.template("vllm").unwrap();
    let granite = Workload {
        engine: Engine::Vllm,
        ..Workload::bare(Kind::InferenceService, namespace, WorkloadName::parse("granite").unwrap())
    };
    assert!(text.contains(&template.dashboard_name(&granite)));
}

#[test]
fn no_text_makes_the_compiler_panic() {
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/templates")).unwrap().flatten() {
        let text = fs::read_to_string(file.path()).unwrap();
        // Cut anywhere, and with any line left out.
        for at in (0..text.len()).step_by(997).filter(|at| text.is_char_boundary(*at)) {
            let _ = Library::compile_one("cut.yaml", &text[..at]);
        }
        let lines: Vec<&str> = text.lines().collect();
        for left_out in (0..lines.len()).step_by(29) {
            let rest: Vec<&str> =
                lines.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, line)| *line).collect();
            let _ = Library::compile_one("less.yaml", &rest.join("\n"));
        }
    }
}

proptest! {
    #[test]
    fn no_object_harms_its_reader(mut raw in anything(), named in any::<bool>()) {
        if named && raw.is_object() {
            if !raw["metadata"].is_object() { raw["metadata"] = json!({}); }
            raw["metadata"]["name"] = json!("x");
            raw["metadata"]["namespace"] = json!("team-a");
        }
        let _ = engine_of_runtime(&raw);
        for kind in Kind::ALL {
            if let Ok(workload) = read(*kind, &raw) {
                let texts = [&workload.title, &workload.model, &workload.reason, &workload.owner, &workload.queue, &workload.ray_cluster];
                for text in texts.into_iter().flatten() {
                    prop_assert!(!text.is_empty() && text.chars().count() <= 128 && !text.chars().any(char::is_control));
                }
            }
        }
    }
}
