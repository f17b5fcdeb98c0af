//! The order of floors, and the purity of rules.

use std::fs;
use std::path::{Path, PathBuf};

const PURE: [&str; 11] = [
    "names",
    "encoding",
    "refusal",
    "yaml",
    "promql",
    "route",
    "document",
    "extents",
    "dashboards",
    "injection",
    "page",
];
const IMPURE: [&str; 12] = [
    "tokio",
    "hyper::",
    "kube::",
    "SystemTime::now",
    "Instant::now",
    "std::env",
    "std::fs",
    "std::net::Tcp",
    "rand::",
    "aws_lc_rs",
    "moka",
    "tracing",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Modules in the order in which `lib.rs` declares them.
fn floors() -> Vec<String> {
    let text = fs::read_to_string(root().join("lib.rs")).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

/// The code of a module without its tests: text and path of each file.
fn sources(module: &str) -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                collect(&entry.path(), found);
            } else if entry.file_name() != "tests.rs" {
                found.push(entry.path());
            }
        }
    }
    let mut paths = vec![root().join(format!("{module}.rs"))];
    collect(&root().join(module), &mut paths);
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap().lines();
            let code: Vec<&str> = code.filter(|line| !line.trim_start().starts_with("//")).collect();
            (path, code.join("\n"))
        })
        .collect()
}

#[test]
fn every_module_stands_on_a_floor() {
    let floors = floors();
    assert!(floors.len() >= 18, "{floors:?}");
    for entry in fs::read_dir(root()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| !["lib", "main"].contains(module)) {
            assert!(floors.iter().any(|floor| floor == module), "{module} is not declared in lib.rs");
        }
    }
}

#[test]
fn no_module_names_one_on_a_higher_floor() {
    let floors = floors();
    for (height, module) in floors.iter().enumerate() {
        for (path, code) in sources(module) {
            for higher in &floors[height + 1..] {
                let named = code.contains(&format!("crate::{higher}::")) || code.contains(&format!("crate::{higher};"));
                assert!(!named, "{} names {higher}, which stands higher than {module}", path.display());
            }
            assert!(
                !code.contains("use crate::{"),
                "{}: one use a module, so that this test can read it",
                path.display()
            );
        }
    }
}

#[test]
fn rules_touch_nothing_outside() {
    for module in PURE {
        for (path, code) in sources(module) {
            for word in IMPURE {
                assert!(!code.contains(word), "{} names {word}; rules take such things as arguments", path.display());
            }
        }
    }
}

#[test]
fn identity_query_and_catalog_do_not_know_each_other() {
    for (module, others) in
        [("identity", ["query", "catalog"]), ("query", ["identity", "catalog"]), ("catalog", ["identity", "query"])]
    {
        for (path, code) in sources(module) {
            for other in others {
                assert!(!code.contains(&format!("crate::{other}")), "{} names {other}", path.display());
            }
        }
    }
}
