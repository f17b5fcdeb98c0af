//! Every dependency's licence fits ours, one TLS stack, and two versions of one crate only with a named culprit.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Licences that may stand in an Apache-2.0 product.
const FITTING: [&str; 12] = [
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "0BSD",
    "CC0-1.0",
    "MIT-0",
    "Unlicense",
    "OpenSSL",
];

/// Crates of which the product holds two versions, and because of whom.
const DOUBLED: [(&str, &str); 3] = [
    ("base64", "k8s-openapi lags behind kube-client"),
    ("syn", "tracing-attributes and derive_more lag behind clap_derive; build time only"),
    ("untrusted", "jsonwebtoken takes aws-lc-rs with ring-io, which lags behind webpki"),
];

/// The packages that the product is made of, as cargo builds them: name, version, licence.
fn product() -> BTreeSet<(String, String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package=perses-sidecar", "--edges=normal,build", "--prefix=none", "--locked", "--offline"])
        .args(["--format={p}|{l}", "--no-dedupe"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned(), licence.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// An SPDX expression of `OR`, `AND` and parentheses, without precedence games: every `AND` part needs one fitting choice.
fn fits(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    plain.split(" AND ").all(|part| {
        part.split(" OR ").any(|choice| {
            let name = choice.trim().split(" WITH ").next().unwrap_or_default();
            FITTING.contains(&name)
        })
    })
}

#[test]
fn licences_fit() {
    let product = product();
    assert!(product.len() > 100, "{} packages", product.len());
    for (name, version, licence) in &product {
        assert!(fits(licence), "{name} {version}: {licence:?}");
    }
    assert!(!fits("GPL-3.0-only") && !fits("") && fits("MIT OR GPL-3.0") && !fits("MIT AND GPL-3.0"));
}

#[test]
fn one_version_of_everything_but_the_named() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, version, _) in product() {
        versions.entry(name).or_default().insert(version);
    }
    for (name, versions) in &versions {
        let named = DOUBLED.iter().any(|(doubled, _)| doubled == name);
        assert!((versions.len() == 1) != named, "{name}: {versions:?}; name the culprit, or take the name away");
    }
    for foreign in ["ring", "openssl", "native-tls", "perses-sidecar-stack"] {
        assert!(!versions.contains_key(foreign), "{foreign} came in");
    }
}
