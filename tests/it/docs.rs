//! What the documents say of tests is true: each test that they name exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
