//! What the documents say of tests is true: each test that they name exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The names of all test functions of the checkout.
fn tests() -> BTreeSet<String> {
    fn collect(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for piece in text.split("#[test]").skip(1).chain(text.split("#[tokio::test").skip(1)) {
                    let name = piece.split("fn ").nth(1).and_then(|rest| rest.split('(').next());
                    found.extend(name.map(str::to_owned));
                }
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    collect(&root.join("src"), &mut found);
    collect(&root.join("tests"), &mut found);
    found
}

#[test]
fn tests_that_are_named_exist() {
    let known = tests();
    assert!(known.len() > 100, "{}", known.len());
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md")).unwrap();
    let mut named = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() == 3) {
        let Some(holders) = row.split('|').nth(2).filter(|holders| holders.contains('`') && !holders.contains('.'))
        else {
            continue;
        };
        for name in holders.split('`').skip(1).step_by(2) {
            assert!(known.contains(name), "docs/security.md names the test {name}, which does not exist");
            named += 1;
        }
    }
    assert!(named > 60, "{named}");
}

/// What the Containerfile copies and touches is enough for cargo: a target that is added must be there too.
#[test]
fn the_image_is_built_from_what_is_copied() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::temp_dir().join(format!("image-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let text = fs::read_to_string(root.join("Containerfile")).unwrap().replace("\\\n", " ");
    for line in text.lines().take_while(|line| !line.contains("cargo build")) {
        if let Some(copy) = line.strip_prefix("COPY ") {
            let words: Vec<&str> = copy.split_whitespace().collect();
            let (to, from) = words.split_last().unwrap();
            fs::create_dir_all(folder.join(to).parent().unwrap()).unwrap();
            for from in from {
                run("cp", &["-r", &root.join(from).to_string_lossy(), to]);
            }
        } else if let Some(touch) = line.strip_prefix("RUN ").filter(|run| run.contains("touch")) {
            run("sh", &["-c", touch]);
        }
    }
    // Cargo looks for all targets before it finds that there is none of this name.
    let asked = ["build", "--locked", "--offline", "--package=perses-sidecar", "--bin=none-of-this-name"];
    let output = Command::new(env!("CARGO")).args(asked).current_dir(&folder).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("no bin target named `none-of-this-name`"), "{told}");
    fs::remove_dir_all(&folder).unwrap();
}
