//! The shipped files, golden problems, and reloading.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// A pod with these files.
struct Pod(BTreeMap<PathBuf, Vec<u8>>, bool);

impl Surroundings for Pod {
    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn folder(&self, path: &Path) -> io::Result<Vec<String>> {
        let names: Vec<String> = self
            .0
            .keys()
            .filter(|file| file.parent() == Some(path))
            .map(|file| file.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        if names.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(names) }
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "KUBERNETES_SERVICE_HOST" if self.1 => Some("10.0.0.1".to_owned()),
            "KUBERNETES_SERVICE_PORT" if self.1 => Some("443".to_owned()),
            _ => None,
        }
    }
}

const CA: &[u8] = include_bytes!("../../tests/golden/config/ca.crt");

fn pod() -> Pod {
    let folder = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
    let files = [(folder.join("ca.crt"), CA.to_vec()), (folder.join("token"), b"token".to_vec())];
    Pod(files.into_iter().collect(), true)
}

fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap()
}

fn problems(text: &str) -> String {
    match read(text, &pod()) {
        Ok(_) => "good".to_owned(),
        Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn a_key_that_stands_twice_hides_no_other_problem() {
    let text = "limits:\n  body: 1\n  body: 2\naudit: {strem: x}\nmetrics_backends:\n  - {name: a, url: 'http://a'}\n";
    assert_eq!(
        problems(text),
        "2:3: limits.body: must be from 1KiB to 64MiB\n3:3: body: this key stands twice in its section\n\
         4:9: audit.strem: unknown key \"strem\", did you mean \"stream\"?"
    );
}

#[test]
fn shipped_files_are_good() {
    for name in ["minimal.yaml", "example.yaml"] {
        assert_eq!(problems(&shipped(name)), "good", "{name}");
    }
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let example = shipped("example.yaml");
    let defaults =
        read("metrics_backends:\n  - name: prometheus\n    url: http://prometheus.example:9090\n", &pod()).unwrap();
    let shown = read(&example, &pod()).unwrap();
    // Keys, commented out or not, by their last word.
    for line in defaults.effective.lines().chain(shown.effective.lines()) {
        let key = line.trim_start_matches([' ', '-']).split(':').next().unwrap();
        let there = |line: &str| line.trim_start_matches([' ', '-', '#']).starts_with(&format!("{key}:"));
        assert!(example.lines().any(there), "{key} is not in the example");
    }
    let (mut shown, defaults) = (shown.config, defaults.config);
    assert_eq!(shown.fixed, defaults.fixed);
    assert_eq!(shown.live.limits, defaults.live.limits);
    assert_eq!(shown.live.access, defaults.live.access);
    assert_eq!(shown.live.dashboards, defaults.live.dashboards);
    assert_eq!(shown.live.cluster, defaults.live.cluster);
    assert_eq!((shown.live.telemetry, shown.live.audit), (defaults.live.telemetry, defaults.live.audit));
    let (ours, theirs) = (shown.live.backends.remove(0), &defaults.live.backends[0]);
    assert_eq!((ours.kind, ours.timeout, ours.retention), (theirs.kind, theirs.timeout, theirs.retention));
}

#[test]
fn what_is_in_effect_reads_back() {
    for name in ["minimal.yaml", "example.yaml"] {
        let once = read(&shipped(name), &pod()).unwrap();
        let twice = read(&once.effective, &pod()).unwrap_or_else(|problems| panic!("{problems:?}\n{}", once.effective));
        assert_eq!(once.effective, twice.effective);
        assert_eq!(once.config.fixed, twice.config.fixed);
        assert_eq!(once.config.live.limits, twice.config.live.limits);
        assert_eq!(once.config.live.backends.len(), twice.config.live.backends.len());
    }
}

/// Input, a line of dashes, the problems; cases are parted by lines of equal signs.
#[test]
fn golden_problems() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config/problems.txt");
    let text = fs::read_to_string(path).unwrap();
    let mut count = 0;
    for case in text.split("\n====\n") {
        let (input, expected) = case.split_once("\n----\n").unwrap();
        assert_eq!(problems(input), expected.trim_end(), "{input}");
        count += 1;
    }
    assert!(count >= 20, "{count} cases");
}

#[test]
fn outside_of_a_pod_the_cluster_must_be_named() {
    let text = "metrics_backends:\n  - name: a\n    url: http://a\n";
    let problems = read(text, &Pod(pod().0, false)).unwrap_err();
    assert!(problems[0].to_string().contains("cluster.url: is required outside of a pod"), "{problems:?}");
    assert!(read(text, &Pod(BTreeMap::new(), true)).unwrap_err()[0].message.contains("ca.crt cannot be read"));
}

#[test]
fn certificates_are_checked_where_they_are_named() {
    use perses_sidecar_stack::openshift::Certificates;
    let (one, other) = (Certificates::make(&["localhost"]).unwrap(), Certificates::make(&["localhost"]).unwrap());
    let told = |certificate: &str, key: &str, more: &str| {
        let mut pod = pod();
        pod.0.insert("/c".into(), certificate.into());
        pod.0.insert("/k".into(), key.into());
        let text = format!(
            "metrics_backends:\n  - name: a\n    url: http://a\ntls:\n  certificate_file: /c\n  key_file: /k\n{more}"
        );
        let all = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        read(&text, &pod).map(|loaded| loaded.effective).map_err(all)
    };
    assert!(told(&one.certificate, &one.key, "").is_ok_and(|text| text.contains("profile: Intermediate")));
    assert!(told(&one.certificate, &other.key, "").is_err_and(|text| text.contains("tls.key_file: does not fit")));
    assert!(told("nonsense", &one.key, "").is_err_and(|text| text.contains("tls.certificate_file: no certificate")));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (key, words) in [
        ("nonsense", "tls.key_file: no private key in it"),
        (encrypted, "tls.key_file: the key in it is encrypted"),
        (&one.certificate, "tls.key_file: there are certificates in it and no private key"),
    ] {
        let text = told(&one.certificate, key, "listen:\n  https: 127.0.0.1:1\n").expect_err(words);
        assert!(text.contains(words) && !text.contains("is required"), "{text}");
    }
    let custom = |keys: &str| told(&one.certificate, &one.key, &format!("  profile: Custom\n  custom:\n{keys}"));
    assert!(custom("    ciphers: [ECDHE-ECDSA-AES128-GCM-SHA256]\n    groups: [x25519]\n").is_ok());
    assert!(custom("    ciphers: [TLS_AES_128_GCM_SHA256]\n    min_tls_version: VersionTLS13\n").is_ok());
    // A version without a cipher, or a cipher without its version, would offer nothing.
    let nothing = custom("    ciphers: [ECDHE-ECDSA-AES128-GCM-SHA256]\n    min_tls_version: VersionTLS13\n");
    assert!(nothing.as_ref().is_err_and(|text| text.contains("tls.custom")), "{nothing:?}");
    for bad in ["    ciphers: [AES128-SHA]\n", "    groups: [secp521r1]\n", "    min_tls_version: VersionTLS11\n"] {
        assert!(custom(bad).is_err(), "{bad}");
    }
    let unread = told(&one.certificate, &one.key, "  custom:\n    ciphers: []\n");
    assert!(unread.is_err_and(|text| text.contains("profile: Custom")));
}

const TEMPLATE: &str = include_str!("../../tests/golden/dashboards/example.yaml");

#[test]
fn templates_of_a_folder_add_and_replace_and_wrong_ones_change_nothing() {
    let read_with = |files: &[(&str, &str)], more: &str| {
        let mut pod = pod();
        for (name, text) in files {
            pod.0.insert(Path::new("/templates").join(name), text.as_bytes().to_vec());
        }
        let text =
            format!("metrics_backends:\n  - name: a\n    url: http://a\ndashboards:\n  folder: /templates\n{more}");
        read(&text, &pod).unwrap()
    };
    let names = |loaded: &Loaded| {
        let templates = loaded.config.live.dashboards.library.templates().to_vec();
        templates
            .iter()
            .map(|template| (template.name().to_owned(), template.file().to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let built_in = read("metrics_backends:\n  - name: a\n    url: http://a\n", &pod()).unwrap();
    let own = TEMPLATE.replace("name: my-servers", "name: vllm");
    let loaded = read_with(&[("a.yaml", TEMPLATE), ("b.yml", &own), ("readme.txt", "no template")], "");
    assert_eq!(loaded.templates, []);
    assert_eq!(names(&loaded).len(), names(&built_in).len() + 1);
    assert_eq!(names(&loaded)["vllm"], "/templates/b.yml");
    assert!(
        loaded.files.contains(&PathBuf::from("/templates"))
            && loaded.files.contains(&PathBuf::from("/templates/a.yaml"))
    );
    // What is refused is told with its place, and what it would have stood for stays.
    let wrong = own.replace("<<namespace>>", "<<namespce>>");
    let loaded = read_with(
        &[("a.yaml", TEMPLATE), ("b.yaml", &wrong)],
        "  exclude: [tgis]\n  datasource: thanos\n  min_step: 1m30s\n",
    );
    assert!(loaded.templates[0].to_string().starts_with("/templates/b.yaml:"), "{:?}", loaded.templates);
    assert!(loaded.templates.iter().all(|problem| problem.problem.message.contains("did you mean \"namespace\"?")));
    assert_eq!(names(&loaded)["vllm"], "config/templates/vllm.yaml");
    assert!(names(&loaded).contains_key("my-servers") && !names(&loaded).contains_key("tgis"));
    // A file in another encoding is one of them, not the end of the configuration.
    let mut pod = pod();
    pod.0.insert(PathBuf::from("/templates/a.yaml"), TEMPLATE.as_bytes().to_vec());
    pod.0.insert(PathBuf::from("/templates/latin.yaml"), b"template:\n  title: caf\xe9\n".to_vec());
    let text = "metrics_backends:\n  - name: a\n    url: http://a\ndashboards:\n  folder: /templates\n";
    let other = read(text, &pod).unwrap();
    assert!(names(&other).contains_key("my-servers"));
    let told: Vec<String> = other.templates.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["/templates/latin.yaml:2:13: this is not UTF-8; save the file in that encoding"]);
    let template = loaded.config.live.dashboards.library.template("my-servers").unwrap().clone();
    let rendered = template.render(&crate::dashboards::Workload::bare(
        crate::dashboards::Kind::Notebook,
        crate::names::Namespace::parse("a").unwrap(),
        crate::dashboards::WorkloadName::parse("b").unwrap(),
    ));
    assert!(
        rendered.contains("\"minStep\":\"1m30s\"")
            && rendered.contains("{\"kind\":\"PrometheusDatasource\",\"name\":\"thanos\"}")
    );
}

#[test]
fn no_text_makes_the_reader_panic() {
    for text in [
        "",
        "\0",
        "[",
        "- - -",
        "a: &x 1\nb: *x",
        "{",
        "? a",
        "---\na: 1\n---\nb: 1",
        &"[".repeat(10_000),
        "\u{feff}a: 1",
        "a:\n\tb: 1",
        "!!map {}",
    ] {
        assert_ne!(problems(text), "good", "{text:?}");
    }
}

#[tokio::test]
async fn changes_are_noticed_by_content_through_links_too() {
    let folder = std::env::temp_dir().join(format!("config-watch-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("v1")).unwrap();
    fs::create_dir_all(folder.join("v2")).unwrap();
    fs::write(folder.join("ca"), CA).unwrap();
    fs::write(folder.join("token"), "a").unwrap();
    let text = |points: u32| {
        let folder = folder.display();
        format!(
            "cluster:\n  url: https://x\n  ca_file: {folder}/ca\n  token_file: {folder}/token\nmetrics_backends:\n  - name: a\n    url: http://a\nlimits:\n  query_points: {points}\n"
        )
    };
    // As kubelet lays a ConfigMap out: the file is a link through a link that is swapped.
    fs::write(folder.join("v1/c.yaml"), text(1)).unwrap();
    fs::write(folder.join("v2/c.yaml"), text(2)).unwrap();
    std::os::unix::fs::symlink("v1", folder.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/c.yaml", folder.join("c.yaml")).unwrap();
    let path = folder.join("c.yaml");
    let loaded = load(&path).unwrap();
    let mut watcher = Watcher::new(&path, loaded.files, Duration::from_millis(20), super::load);
    let quiet = tokio::time::timeout(Duration::from_millis(100), watcher.next()).await;
    assert!(quiet.is_err(), "nothing changed");
    std::os::unix::fs::symlink("v2", folder.join("..tmp")).unwrap();
    fs::rename(folder.join("..tmp"), folder.join("..data")).unwrap();
    let points = |reload: Reload| match reload {
        Reload::Good(loaded) => Ok(loaded.config.live.limits.query_points),
        Reload::Bad(problems) => Err(problems),
    };
    assert_eq!(points(watcher.next().await), Ok(2));
    fs::write(folder.join("v2/c.yaml"), &text(3)[..40]).unwrap();
    assert!(points(watcher.next().await).is_err(), "half a file is told");
    let quiet = tokio::time::timeout(Duration::from_millis(100), watcher.next()).await;
    assert!(quiet.is_err(), "and told once");
    fs::write(folder.join("v2/c.yaml"), text(3)).unwrap();
    assert_eq!(points(watcher.next().await), Ok(3));
    fs::write(folder.join("token"), "another").unwrap();
    assert_eq!(points(watcher.next().await), Ok(3), "a file that it names has changed");
    fs::write(folder.join("ca"), "nonsense").unwrap();
    assert!(points(watcher.next().await).is_err(), "and one that must not be used is told");
    fs::write(folder.join("ca"), CA).unwrap();
    assert_eq!(points(watcher.next().await), Ok(3));
    fs::write(folder.join("v2/c.yaml"), text(4).replace("/ca\n", "/later\n")).unwrap();
    assert!(points(watcher.next().await).is_err(), "it names a file that is not there");
    fs::write(folder.join("later"), CA).unwrap();
    assert_eq!(points(watcher.next().await), Ok(4), "a file that a wrong one names comes later");
    fs::create_dir_all(folder.join("templates/v1")).unwrap();
    std::os::unix::fs::symlink("v1", folder.join("templates/..data")).unwrap();
    fs::write(folder.join("v2/c.yaml"), text(4) + &format!("dashboards:\n  folder: {}/templates\n", folder.display()))
        .unwrap();
    assert_eq!(points(watcher.next().await), Ok(4));
    fs::write(folder.join("templates/v1/a.yaml"), TEMPLATE).unwrap();
    std::os::unix::fs::symlink("..data/a.yaml", folder.join("templates/a.yaml")).unwrap();
    let templates = |reload: Reload| match reload {
        Reload::Good(loaded) => (loaded.config.live.dashboards.library.knows("my-servers"), loaded.templates.len()),
        Reload::Bad(problems) => panic!("{problems:?}"),
    };
    assert_eq!(templates(watcher.next().await), (true, 0), "a template that comes");
    fs::write(folder.join("templates/v1/a.yaml"), "nonsense").unwrap();
    assert_eq!(templates(watcher.next().await), (false, 2), "one that turns wrong");
    fs::remove_file(folder.join("templates/a.yaml")).unwrap();
    assert_eq!(templates(watcher.next().await), (false, 0), "and one that goes");
    watcher.retry();
    assert_eq!(points(watcher.next().await), Ok(4), "what could not be put in place is tried again");
    let quiet = tokio::time::timeout(Duration::from_millis(100), watcher.next()).await;
    assert!(quiet.is_err(), "and once it is, all is quiet");
    fs::remove_dir_all(&folder).unwrap();
}

/// A pod with keys for cookies.
fn pod_with_keys() -> Pod {
    let mut pod = pod();
    let key = |letter: char| format!("{letter}0123456789abcdefghijklmnopqrstuvwxyz\n").into_bytes();
    for name in ["one", "two"] {
        pod.0.insert(PathBuf::from(format!("/keys/{name}")), key(name.chars().next().unwrap()));
    }
    pod.0.insert(PathBuf::from("/keys/weak"), b"changeme".to_vec());
    let claims = crate::encoding::base64url(br#"{"sub":"system:serviceaccount:perses:perses-sidecar"}"#);
    pod.0.insert(PathBuf::from("/token"), format!("e30.{claims}.sig").into_bytes());
    pod
}

const BACKEND: &str = "metrics_backends:\n  - name: a\n    url: http://a\n";

#[test]
fn the_service_account_is_the_client_and_keys_come_in_order() {
    let text = format!(
        "{BACKEND}cluster:\n  token_file: /token\nlogin:\n  external_url: https://Perses.example:443/\n  openshift:\n  session:\n    \
         key_files: [/keys/one, /keys/two]\n  frame_ancestors: [\"https://console.example:443\"]\n"
    );
    let read = |text: &str| read(text, &pod_with_keys());
    let loaded = read(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
    let login = loaded.config.live.login.unwrap();
    let openshift = login.openshift.clone().unwrap();
    assert_eq!(openshift.client_id, "system:serviceaccount:perses:perses-sidecar");
    assert_eq!((login.origin.as_str(), openshift.honour_scopes), ("https://perses.example", false));
    assert_eq!(openshift.client_secret_file, Path::new("/token"));
    assert_eq!(login.keys.iter().map(|key| key.expose()[0]).collect::<Vec<_>>(), [b'o', b't']);
    assert_eq!(loaded.config.live.frame_ancestors, ["https://console.example"]);
    assert!(loaded.files.iter().any(|file| file == Path::new("/keys/two")), "a changed key is noticed");
    assert!(!loaded.effective.contains("0123456789") && !format!("{login:?}").contains("0123456789"));
    let again = read(&loaded.effective).unwrap_or_else(|problems| panic!("{problems:?}\n{}", loaded.effective));
    assert_eq!(again.config.live.login.unwrap(), login);
    let weak = read(&text.replace("/keys/two", "/keys/weak")).unwrap_err();
    assert!(weak[0].message.contains("/keys/weak is too short for a key: 8 bytes"), "{weak:?}");
    let login = |text: &str| read(&format!("{BACKEND}{text}")).unwrap().config.live.login;
    assert_eq!(
        (login(""), login("login:\n  none: true\n"), login("login:\n  external_url: http://x\n")),
        (None, None, None)
    );
    let oidc = login(
        "login:\n  external_url: https://x\n  oidc:\n    issuer: https://idp.example/a\n    client_id: p\n    scopes: [groups]\n",
    );
    assert_eq!(oidc.unwrap().oidc.clone().unwrap().scopes, ["openid", "groups"]);
    let prefixed = format!(
        "{BACKEND}perses:\n  api_prefix: /perses\nlogin:\n  external_url: https://x/perses\n  openshift:\n    client_id: c\n"
    );
    assert_eq!(read(&prefixed).unwrap().config.live.login.unwrap().prefix, "/perses");
}

/// Every fragment of the README is a configuration that reads.
#[test]
fn the_login_modes_of_the_readme_read() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut pod = pod_with_keys();
    let secret = pod.0[Path::new("/token")].clone();
    for path in ["/var/run/secrets/perses-login/token", "/etc/oidc/client-secret"] {
        pod.0.insert(PathBuf::from(path), secret.clone());
    }
    pod.0.insert(PathBuf::from("/etc/oauth-ca/ca-bundle.crt"), CA.to_vec());
    for name in ["current", "previous"] {
        let key = pod.0[Path::new("/keys/one")].clone();
        pod.0.insert(PathBuf::from(format!("/etc/perses-sidecar-keys/{name}")), key);
    }
    let mut modes = Vec::new();
    for block in readme.split("```").skip(1).step_by(2) {
        let Some(fragment) = block.strip_prefix("yaml\n").filter(|text| text.starts_with("login:")) else { continue };
        let loaded =
            read(&format!("{BACKEND}{fragment}"), &pod).unwrap_or_else(|problems| panic!("{problems:?}\n{fragment}"));
        let login = loaded.config.live.login;
        modes.push(login.map(|login| (login.openshift.is_some(), login.oidc.is_some())));
    }
    assert_eq!(modes, [Some((true, false)), Some((false, true)), None]);
}

#[test]
fn an_injected_sidecar_lets_its_namespace_set_what_it_may() {
    let profile = "{\"metrics_backends\":[{\"name\":\"a\",\"url\":\"http://a:9090\"}],\"limits\":{\"linger\":\"5s\"}}";
    let read = |text: &str| super::read_injected(profile, text, &pod());
    let plain = read("").unwrap().config;
    assert_eq!((plain.live.limits.linger.as_secs(), plain.live.limits.query_points), (5, 11_000));
    let more = read("limits:\n  query_points: 7\ntelemetry: {log_level: debug}\n").unwrap().config;
    assert_eq!((more.live.limits.linger.as_secs(), more.live.limits.query_points), (5, 7));
    for section in
        ["access", "login", "metrics_backends", "perses", "listen", "tls", "cluster", "audit", "injection", "x"]
    {
        let told = read(&format!("# a line\n{section}: {{}}\n")).unwrap_err();
        assert!(
            told[0].to_string().starts_with(&format!("2:1: {section}: stands in the webhook's profile")),
            "{told:?}"
        );
    }
    for (key, meant) in [("limit", "limits"), ("Cache", "cache"), ("telemetri", "telemetry")] {
        let told = read(&format!("{key}: {{}}\n")).unwrap_err();
        assert_eq!(told[0].to_string(), format!("1:1: {key}: unknown key {key:?}, did you mean {meant:?}?"));
    }
    assert!(read("limits: {drian: 1s}").unwrap_err()[0].message.contains("drain"));
    assert!(read("just words").is_err() && read("[]").is_err());
}
