//! The image: built from the Containerfile by buildah, looked into, and its file system run by a user that nobody knows,
//! read-only. UBI cannot be had here: the builder is this machine's own tools, and the base is made of two packages of Debian.
//!
//! To compile takes the most of the time, so the builder's cargo hands out the binary that the other suites have built.
//! With `IMAGE_TWICE` set the image is compiled twice instead, from nothing, and both must have the same layers.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use perses_sidecar_stack::openshift::{Certificates, random_text};
use perses_sidecar_stack::pod::{self, Pod, Root};
use perses_sidecar_stack::servers::{self, Server};
use serde_json::{Value, json};

const COMMIT: &str = "0123abc";

fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}\n{out}\n{err}");
    out.into_owned()
}

/// A store of images of its own.
struct Images(PathBuf);

impl Images {
    fn buildah(&self, arguments: &[&str]) -> String {
        let (root, run_root) = (self.0.join("root"), self.0.join("run-root"));
        let mut words =
            vec!["--storage-driver", "vfs", "--root", root.to_str().unwrap(), "--runroot", run_root.to_str().unwrap()];
        words.extend(arguments);
        run("buildah", &words, &self.0)
    }

    /// An image of a folder, or of nothing.
    fn base(&self, name: &str, folder: Option<&Path>, config: &[&str]) {
        let container = self.buildah(&["from", "scratch"]).trim().to_owned();
        if let Some(folder) = folder {
            self.buildah(&["copy", "--quiet", &container, folder.to_str().unwrap(), "/"]);
        }
        let config = [&["config"], config, &[container.as_str()]].concat();
        self.buildah(&config);
        self.buildah(&["commit", "--quiet", &container, name]);
        self.buildah(&["rm", &container]);
    }

    /// Builds the Containerfile, from nothing; the folder of an OCI layout.
    fn build(&self, name: &str) -> PathBuf {
        let began = Instant::now();
        let home = std::env::var("HOME").unwrap();
        let mut words: Vec<String> =
            ["build-using-dockerfile", "--quiet", "--no-cache", "--isolation", "chroot", "--timestamp", "0"]
                .map(str::to_owned)
                .to_vec();
        words.extend(["--file".to_owned(), "Containerfile".to_owned()]);
        for argument in ["BUILDER=localhost/builder", "RUNTIME=localhost/runtime", &format!("COMMIT={COMMIT}")] {
            words.extend(["--build-arg".to_owned(), argument.to_owned()]);
        }
        // The builder is this machine.
        for folder in ["/usr", "/bin", "/lib", "/lib64", "/etc/alternatives", &home] {
            if Path::new(folder).exists() {
                words.extend(["--volume".to_owned(), format!("{folder}:{folder}:ro")]);
            }
        }
        words.extend(["--tag".to_owned(), format!("localhost/{name}"), self.0.join("context").display().to_string()]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.buildah(&words);
        let layout = self.0.join(name);
        self.buildah(&["push", "--quiet", &format!("localhost/{name}"), &format!("oci:{}", layout.display())]);
        eprintln!("built by buildah, in chroot isolation, in {:.0?}", began.elapsed());
        layout
    }
}

/// What the file system of the builder holds besides this machine's: for a quick build, a cargo that has built already.
fn builder(folder: &Path, quick: bool) -> PathBuf {
    let root = folder.join("builder");
    fs::create_dir_all(root.join("tmp")).unwrap();
    fs::create_dir_all(root.join("built")).unwrap();
    if quick {
        fs::copy(servers::sidecar(), root.join("built/perses-sidecar")).unwrap();
        let cargo = root.join("built/cargo");
        // What else cargo is asked for, it does itself.
        let text = "#!/bin/sh\nset -e\nif [ \"$*\" = \"build --release --locked --bin perses-sidecar\" ]; then\n    \
                    mkdir -p target/release\n    exec cp /built/perses-sidecar target/release/\nfi\nPATH=${PATH#/built:}\nexec cargo \"$@\"\n";
        fs::write(&cargo, text).unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    }
    root
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The manifest and the configuration of an image.
fn manifest(layout: &Path) -> (Value, Value) {
    let index = read(&layout.join("index.json"));
    let manifest = read(&blob(layout, index["manifests"][0]["digest"].as_str().unwrap()));
    let config = read(&blob(layout, manifest["config"]["digest"].as_str().unwrap()));
    (manifest, config)
}

/// glibc and libgcc, and nothing else: what a micro image has.
fn debian(folder: &Path) -> PathBuf {
    let (packages, root) = (folder.join("packages"), folder.join("runtime"));
    fs::create_dir_all(&packages).unwrap();
    run("apt-get", &["download", "-qq", "libc6", "libgcc-s1"], &packages);
    for entry in fs::read_dir(&packages).unwrap().flatten() {
        run("dpkg-deb", &["--extract", entry.path().to_str().unwrap(), root.to_str().unwrap()], &packages);
    }
    root
}

/// What git knows of this checkout, as whoever builds has it.
fn context(to: &Path) {
    let checkout = servers::checkout();
    let files = run("git", &["ls-files", "--cached", "--others", "--exclude-standard"], &checkout);
    for file in files.lines().filter(|file| checkout.join(file).is_file()) {
        fs::create_dir_all(to.join(file).parent().unwrap()).unwrap();
        fs::copy(checkout.join(file), to.join(file)).unwrap();
        // Cargo goes by times: what has not changed is not built anew.
        let changed = fs::metadata(checkout.join(file)).unwrap().modified().unwrap();
        fs::File::options().write(true).open(to.join(file)).unwrap().set_modified(changed).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image() {
    let folder = servers::run_folder("image").unwrap();
    let images = Images(folder.clone());
    context(&folder.join("context"));
    let quick = std::env::var_os("IMAGE_TWICE").is_none();
    let home = std::env::var("HOME").unwrap();
    let cargo_home = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    images.base(
        "builder",
        Some(&builder(&folder, quick)),
        &[
            "--env",
            &format!("PATH=/built:/usr/bin:/bin:{cargo_home}/bin"),
            "--env",
            &format!("HOME={home}"),
            "--env",
            "CARGO_NET_OFFLINE=true",
        ],
    );
    images.base("runtime", Some(&debian(&folder)), &["--label", "from=debian"]);

    let first = images.build("first");
    let (manifest_of_first, config) = manifest(&first);
    told(&config);
    if !quick {
        let (manifest_of_second, _) = manifest(&images.build("second"));
        assert_eq!(manifest_of_first["layers"], manifest_of_second["layers"]);
        assert_eq!(manifest_of_first["config"], manifest_of_second["config"]);
    }

    let root = folder.join("unpacked");
    fs::create_dir_all(&root).unwrap();
    for layer in manifest_of_first["layers"].as_array().unwrap() {
        let layer = blob(&first, layer["digest"].as_str().unwrap());
        run("tar", &["--extract", "--file", layer.to_str().unwrap(), "--no-same-owner"], &root);
    }
    inside(&root);
    if !quick {
        without_paths(&root);
    }
    runs(&folder, &root, (!quick).then_some(COMMIT)).await;
    fs::remove_dir_all(folder).unwrap();
}

fn told(config: &Value) {
    let config = &config["config"];
    assert_eq!(config["User"], "65532:0");
    assert_eq!(config["Entrypoint"], json!(["/usr/bin/perses-sidecar"]));
    for label in [
        "name",
        "com.redhat.component",
        "version",
        "release",
        "summary",
        "description",
        "maintainer",
        "io.k8s.display-name",
        "io.k8s.description",
        "io.openshift.tags",
        "io.openshift.expose-services",
    ] {
        assert!(config["Labels"][label].as_str().is_some_and(|value| !value.is_empty()), "{label}: {config}");
    }
    assert_eq!(config["Labels"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(config["Labels"]["org.opencontainers.image.revision"], COMMIT);
    for port in ["8080/tcp", "8443/tcp", "9081/tcp", "9443/tcp"] {
        assert!(config["ExposedPorts"].get(port).is_some(), "{port}");
    }
}

/// The binary tells nothing of where it was built.
fn without_paths(root: &Path) {
    let binary = fs::read(root.join("usr/bin/perses-sidecar")).unwrap();
    let holds = |what: &str| binary.windows(what.len()).any(|window| window == what.as_bytes());
    let home = std::env::var("HOME").unwrap();
    for path in [&format!("{home}/.cargo"), "/build/src", "/build/target"] {
        assert!(!holds(path), "the binary tells of {path}");
    }
    assert!(holds("cargo/registry") || holds("perses-sidecar/src"), "paths are told in another form");
}

/// What is in the file system, and what is not.
fn inside(root: &Path) {
    for absent in ["bin/sh", "usr/bin/sh", "bin/bash", "usr/bin/apt", "usr/bin/dpkg", "build", "image"] {
        assert!(!root.join(absent).exists(), "{absent}");
    }
    // As cargo itself lists what the product is made of.
    let tree = run(
        "cargo",
        &[
            "tree",
            "--package=perses-sidecar",
            "--edges=normal,build",
            "--prefix=none",
            "--locked",
            "--offline",
            "--format={p}",
            "--no-dedupe",
        ],
        &servers::checkout(),
    );
    let named = |line: &str| {
        let mut words = line.split_whitespace();
        Some(format!("pkg:cargo/{}@{}", words.next()?, words.next()?.trim_start_matches('v')))
    };
    let known: BTreeSet<String> =
        tree.lines().filter_map(named).filter(|name| !name.starts_with("pkg:cargo/perses-sidecar@")).collect();
    let bill = read(&root.join("usr/share/perses-sidecar/sbom.cdx.json"));
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&json!("CycloneDX"), &json!("1.6")));
    assert_eq!(bill["metadata"]["component"]["name"], "perses-sidecar");
    let components = bill["components"].as_array().unwrap();
    let listed: BTreeSet<String> =
        components.iter().map(|component| component["purl"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, known);
    assert!(!listed.iter().any(|name| name.contains("/ring@") || name.contains("/proptest@")), "of tests alone");
    let third = fs::read_to_string(root.join("licenses/THIRD-PARTY.txt")).unwrap();
    for component in components {
        let (name, version) = (component["name"].as_str().unwrap(), component["version"].as_str().unwrap());
        assert!(
            third.contains(&format!(
                "\n{name} {version}: {}\n",
                component["licenses"][0]["expression"].as_str().unwrap()
            )),
            "{name}"
        );
        assert_eq!(component["hashes"][0]["content"].as_str().map(str::len), Some(64), "{name} has no checksum");
    }
    assert!(third.contains("Permission is hereby granted") && third.contains("aws-lc-sys "));
    for file in ["LICENSE", "NOTICE"] {
        assert_eq!(
            fs::read(root.join("licenses").join(file)).unwrap(),
            fs::read(servers::checkout().join(file)).unwrap()
        );
    }
}

/// The image's own file system, read-only, as a user without a name.
async fn runs(folder: &Path, root: &Path, commit: Option<&str>) {
    assert!(pod::can_run(), "bwrap cannot make a container here: install bubblewrap, and allow user namespaces");
    let container = json!({ "name": "sidecar", "volumeMounts": [
        { "name": "config", "mountPath": "/etc/perses-sidecar", "readOnly": true },
        { "name": "run", "mountPath": "/run/perses-sidecar" } ] });
    let spec = json!({ "containers": [container], "volumes": [{ "name": "config", "configMap": { "name": "config" } }, { "name": "run", "emptyDir": {} }] });
    let pair = Certificates::make(&["localhost"]).unwrap();
    let ports: Vec<u16> = (0..2).map(|_| servers::free_port().unwrap()).collect();
    let config = format!(
        "listen:\n  gateway: 127.0.0.1:{}\n  admin: 127.0.0.1:{}\n  control: unix:/run/perses-sidecar/control.sock\nperses:\n  url: http://127.0.0.1:1\n\
         metrics_backends:\n  - name: prometheus\n    url: http://127.0.0.1:2\n",
        ports[0], ports[1]
    );
    let objects = [
        json!({ "kind": "ConfigMap", "metadata": { "name": "config" }, "data": { "config.yaml": config } }),
        json!({ "kind": "ConfigMap", "metadata": { "name": "kube-root-ca.crt" }, "data": { "ca.crt": pair.ca } }),
    ];
    let pod = Pod::lay_out(&spec, &objects, &random_text(20), &folder.join("pod")).unwrap();
    let api = [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", "1")];
    let words = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        pod.words("sidecar", &Root::Image(root), "/usr/bin/perses-sidecar", &arguments, &[], &api).unwrap()
    };
    let said = |arguments: &[&str]| {
        let words = words(arguments);
        let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    assert_eq!(
        said(&["check", "--config", "/etc/perses-sidecar/config.yaml"]),
        (Some(0), "/etc/perses-sidecar/config.yaml: good\n".to_owned())
    );
    let (code, version) = said(&["--version"]);
    assert!(code == Some(0) && version.contains("commit "), "{version}");
    assert!(commit.is_none_or(|commit| version.contains(&format!("commit {commit}"))), "{version}");
    let (code, text) = said(&["check", "--config", "/nothing.yaml"]);
    assert!(code == Some(2) && text.contains("cannot be read"), "{text}");

    let mut words = words(&["run", "--config", "/etc/perses-sidecar/config.yaml"]);
    let program = words.remove(0);
    let server = Server::start(Path::new(&program), &words, &folder.join("sidecar.log"), &[]).unwrap();
    server.ready(&format!("http://127.0.0.1:{}/healthz", ports[1]), Duration::from_secs(20)).await.unwrap();
    let http = perses_sidecar_stack::http::Http::default();
    let answer = http.send("GET", &format!("http://127.0.0.1:{}/api/v1/projects", ports[0]), &[], "").await.unwrap();
    assert_eq!(answer.status, 401);
    let answer = http.send("GET", &format!("http://127.0.0.1:{}/readyz", ports[1]), &[], "").await.unwrap();
    assert_eq!(answer.status, 503, "there is no Perses");
    // Its process has the user it was given, no capability, and cannot write where no volume is.
    let status = of_process(server.pid(), "status");
    assert!(
        status.lines().any(|line| line.starts_with("CapEff:") && line.trim_end().ends_with("0000000000000000")),
        "{status}"
    );
    let map = of_process(server.pid(), "uid_map");
    assert_eq!(map.split_whitespace().next(), Some(pod::USER.to_string().as_str()), "{map}");
    let mounts = of_process(server.pid(), "mounts");
    let options = |place: &str| {
        mounts
            .lines()
            .rev()
            .find_map(|line| (line.split(' ').nth(1)? == place).then(|| line.split(' ').nth(3))?)
            .unwrap_or_default()
    };
    assert!(options("/").starts_with("ro,") && options("/etc/perses-sidecar").starts_with("ro,"), "{mounts}");
    assert!(options("/run/perses-sidecar").starts_with("rw,"), "{mounts}");
    assert!(pod.volume("run").join("control.sock").exists());
}

/// A file of `/proc` of the process that a container is.
fn of_process(bwrap: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{file}", pod::process(bwrap))).unwrap()
}
