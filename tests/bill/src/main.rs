//! `perses-sidecar-bill FOLDER` writes what the product is made of: `sbom.cdx.json`, a bill of materials (CycloneDX 1.6), and
//! `THIRD-PARTY.txt`, the licence of each dependency in its own words. The same lock file gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

const PRODUCT: &str = "perses-sidecar";

fn main() -> ExitCode {
    let outcome = std::env::args_os()
        .nth(1)
        .map_or_else(|| Err("give the folder to write to".to_owned()), |to| write(Path::new(&to)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("perses-sidecar-bill: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> Result<(), String> {
    let metadata = metadata()?;
    let packages = linked(&metadata)?;
    let checksums = checksums(&metadata)?;
    let said = |error: std::io::Error| error.to_string();
    fs::create_dir_all(folder).map_err(said)?;
    let bill = serde_json::to_string_pretty(&bill(&packages, &checksums)).map_err(|error| error.to_string())?;
    fs::write(folder.join("sbom.cdx.json"), format!("{bill}\n")).map_err(said)?;
    fs::write(folder.join("THIRD-PARTY.txt"), licences(&packages)?).map_err(said)
}

/// What cargo says of this workspace, for the platform that it builds for.
fn metadata() -> Result<Value, String> {
    let version = Command::new("rustc").arg("-vV").output().map_err(|error| format!("rustc: {error}"))?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc does not name its host")?;
    let output = cargo()
        .args(["metadata", "--locked", "--format-version=1", "--filter-platform", host])
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// The packages that the product is built of, itself among them, by name and version, as `cargo tree` lists them: the
/// metadata hold what other members of the workspace and tests switch on, too.
fn linked(metadata: &Value) -> Result<Vec<&Value>, String> {
    let output = cargo()
        .args(["tree", "--package", PRODUCT, "--edges=normal,build", "--prefix=none", "--locked", "--format={p}"])
        .arg("--no-dedupe")
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    let named = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
    };
    let wanted: BTreeSet<(String, String)> = tree.lines().filter_map(named).collect();
    let is =
        |package: &&Value| wanted.contains(&(text(package, "name").to_owned(), text(package, "version").to_owned()));
    let mut packages: Vec<&Value> = list(metadata, "packages").iter().filter(is).collect();
    packages.sort_by_key(|package| (text(package, "name"), text(package, "version")));
    if packages.len() != wanted.len() {
        return Err(format!("{} packages are built, of which {} are described", wanted.len(), packages.len()));
    }
    Ok(packages)
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// SHA-256 by name and version, as the lock file has it.
fn checksums(metadata: &Value) -> Result<BTreeMap<(String, String), String>, String> {
    let lock = fs::read_to_string(Path::new(text(metadata, "workspace_root")).join("Cargo.lock"))
        .map_err(|e| e.to_string())?;
    let mut found = BTreeMap::new();
    for entry in lock.split("[[package]]") {
        let value = |key: &str| {
            let line = entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) = (value("name"), value("version"), value("checksum")) {
            found.insert((name, version), checksum);
        }
    }
    Ok(found)
}

fn licence(package: &Value) -> String {
    // An old way to write "or".
    text(package, "license").replace('/', " OR ")
}

fn bill(packages: &[&Value], checksums: &BTreeMap<(String, String), String>) -> Value {
    let reference = |package: &Value| format!("pkg:cargo/{}@{}", text(package, "name"), text(package, "version"));
    let component = |package: &Value| {
        let (name, version) = (text(package, "name"), text(package, "version"));
        let ours = name == PRODUCT;
        let mut component = json!({
            "type": if ours { "application" } else { "library" },
            "bom-ref": reference(package),
            "name": name,
            "version": version,
            "purl": reference(package),
            "licenses": [{ "expression": licence(package) }],
        });
        if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        if let Some(source) = package["repository"].as_str() {
            component["externalReferences"] = json!([{ "type": "vcs", "url": source }]);
        }
        component
    };
    let (own, others): (Vec<&&Value>, Vec<&&Value>) =
        packages.iter().partition(|package| text(package, "name") == PRODUCT);
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": own.first().map(|package| component(package)) },
        "components": others.iter().map(|package| component(package)).collect::<Vec<_>>(),
    })
}

/// A file that holds a licence or who wrote what.
fn tells(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
    let source = path.extension().is_some_and(|extension| extension == "rs");
    path.is_file()
        && !source
        && ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"].iter().any(|word| name.starts_with(word))
}

fn licences(packages: &[&Value]) -> Result<String, String> {
    let mut out = String::from(
        "What perses-sidecar is built of, under which licences, and their texts as the packages carry them.\n",
    );
    for package in packages.iter().filter(|package| text(package, "name") != PRODUCT) {
        let (name, version) = (text(package, "name"), text(package, "version"));
        let folder = Path::new(text(package, "manifest_path")).parent().unwrap_or(Path::new("."));
        let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| tells(path)).collect();
        files.sort();
        let _ = write!(out, "\n{}\n{name} {version}: {}\n", "=".repeat(100), licence(package));
        let authors: Vec<&str> = list(package, "authors").iter().filter_map(Value::as_str).collect();
        if !authors.is_empty() {
            let _ = writeln!(out, "by {}", authors.join(", "));
        }
        if files.is_empty() {
            let _ = writeln!(out, "The package carries no text of its licence.");
        }
        for file in files {
            let bytes = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            let _ = write!(out, "\n{}\n", String::from_utf8_lossy(&bytes).trim_end());
        }
    }
    Ok(out)
}
