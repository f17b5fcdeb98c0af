//! People with real browsers in front of the sidecar's own binary, and the stand-in's OAuth server before a client that
//! others wrote. What happens in a browser is written in `tests/browser`; here the worlds are made, and all that was
//! written down meanwhile is searched for secrets.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use perses_sidecar_stack::ground::{Ground, Kind};
use perses_sidecar_stack::openshift::{
    Certificates, Endpoint, Fault, OAuthClient, OpenShift, SIDECAR, Subject, random_text,
};
use perses_sidecar_stack::secrets;
use perses_sidecar_stack::servers::{self, Server};
use perses_sidecar_stack::world::{Options, World};
use serde_json::json;

/// The page and the plugins of the browser, built once.
fn built() -> (PathBuf, PathBuf) {
    static DIST: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let folder = DIST.get_or_init(|| {
        let folder = servers::home().join("browser");
        let checkout = servers::checkout().join("tests/browser");
        let done = Command::new("node").arg("build.mjs").arg(&folder).current_dir(checkout).status().unwrap();
        assert!(done.success(), "the page could not be built");
        folder
    });
    (folder.join("app"), folder.join("plugins"))
}

/// A UI that shows nothing: what matters in most tests is the way there.
fn plain() -> PathBuf {
    let folder = servers::run_folder("plain").unwrap();
    let page = "<!doctype html><html lang=en><title>Perses</title><link rel=icon href=\"data:,\"><p>the UI</p></html>";
    fs::write(folder.join("index.html"), page).unwrap();
    folder
}

/// How long one file of `tests/browser` may take, in milliseconds; the longest needs some two minutes.
const PATIENCE: &str = "--test-timeout=420000";
/// When it is ended from outside, in seconds.
const LIMIT: &str = "480";

/// Runs one file of `tests/browser` with a world, shows what it writes as it comes, and gives it. A file that hangs is ended,
/// with all its browsers, and has failed.
fn node(world: &Path, script: &str) -> String {
    let folder = servers::checkout().join("tests/browser");
    assert!(folder.join("node_modules").exists(), "npm ci is needed in {}", folder.display());
    let mut child = Command::new("timeout")
        .args(["--kill-after=10", LIMIT, "node", "--test", PATIENCE, "--test-reporter=spec", script])
        .current_dir(&folder)
        .env("WORLD", world)
        .env("PICTURES", servers::home().join("pictures"))
        .env("NODE_EXTRA_CA_CERTS", world.with_file_name("gateway-ca.crt"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut text = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        eprintln!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait().unwrap();
    assert_ne!(status.code(), Some(124), "{script} took more than {LIMIT} s");
    assert!(status.success(), "{script} failed");
    assert!(!text.contains("ℹ tests 0") && text.contains("ℹ fail 0") && text.contains("ℹ skipped 0"), "{script}");
    text
}

/// A world at trace level, and the sidecar in it.
async fn world(options: Options) -> (World, Server, PathBuf) {
    let world = servers_of(options).await;
    let (sidecar, file) = sidecar_of(&world, "/readyz").await;
    (world, sidecar, file)
}

async fn servers_of(options: Options) -> World {
    let options = Options { ui: options.ui.or_else(|| Some(plain())), quick: true, ..options };
    World::start(&options, &|line| eprintln!("{line}")).await.unwrap()
}

/// The sidecar, once `path` of its admin port answers 200, and the file that tells the browser of all.
async fn sidecar_of(world: &World, path: &str) -> (Server, PathBuf) {
    let sidecar =
        Server::start(&servers::sidecar(), &world.arguments_at("trace"), &world.folder.join("sidecar.log"), &[])
            .unwrap();
    sidecar.ready(&format!("{}{path}", world.admin()), Duration::from_secs(20)).await.unwrap();
    let file = world.folder.join("world.json");
    fs::write(&file, world.environment(Some(&sidecar)).to_string()).unwrap();
    (sidecar, file)
}

/// Nothing that was made here, or in the browser, stands in what the sidecar, Perses and Prometheus wrote.
fn no_secrets(world: &World, sidecar: &Server) {
    let noted = fs::read_to_string(world.folder.join("secrets.txt")).unwrap_or_default();
    noted.lines().for_each(secrets::note);
    assert!(secrets::count() > 10, "{} secrets", secrets::count());
    let searched = world.without_secrets(sidecar).unwrap_or_else(|found| panic!("{found}"));
    eprintln!("{} secrets, none of them in {searched} bytes", secrets::count());
}

/// The stand-in alone, asked by a library that knows the standards and nothing of us.
#[tokio::test(flavor = "multi_thread")]
async fn the_oauth_server_as_another_client_meets_it() {
    let folder = servers::run_folder("conformance").unwrap();
    let stand_in = OpenShift::start(&folder).await.unwrap();
    let cluster = stand_in.cluster();
    cluster.add_user("ada", &["devs"]);
    cluster.set_password("ada", "lovelace");
    cluster.add_namespace("team-a");
    cluster.bind_role("team-a", "ada", "edit");
    cluster.bind_role("team-a", "system:serviceaccount:team-a:chief", "admin");
    cluster.bind_cluster_role("root", "cluster-admin");
    let key = "serviceaccounts.openshift.io/oauth-redirecturi.app";
    let callback = "https://app.example/-/callback";
    // Two accounts that may log people in at the same address, and one that names none.
    cluster.annotate_account("perses", "perses-sidecar", key, callback);
    cluster.annotate_account("perses", "other", key, callback);
    let foreign = cluster.service_account_token("perses", "other", &[]);
    let bare = cluster.service_account_token("perses", "bare", &[]);
    for (id, uri) in [("console", callback), ("native", "http://127.0.0.1/back")] {
        let redirect_uris = vec![uri.to_owned()];
        cluster.add_client(id, OAuthClient { secret: format!("{id}-secret"), redirect_uris, ..OAuthClient::default() });
    }
    let file = folder.join("world.json");
    let world = json!({
        "cluster": stand_in.url(), "oauth": stand_in.oauth_url(), "stand_in": stand_in.remote(), "folder": folder,
        "ca_files": [stand_in.ca_file(), stand_in.oauth_ca_file()],
        "client": SIDECAR, "secret": fs::read_to_string(stand_in.token_file()).unwrap(),
        "private": cluster.service_account_token("perses", "perses-sidecar", &["login"]),
        "ended": cluster.service_account_token_ending("perses", "perses-sidecar", -1),
        "other": "system:serviceaccount:perses:other", "foreign": foreign,
        "bare": "system:serviceaccount:perses:bare", "bare_secret": bare,
        "console_secret": "console-secret",
        "full": cluster.issue_token("ada"),
        "chief": cluster.service_account_token("team-a", "chief", &[]),
        "root": cluster.issue_token("root"),
        "users": { "ada": { "password": "lovelace" } },
    });
    fs::write(&file, world.to_string()).unwrap();
    node(&file, "standin.test.mjs");
    // The last: it moves the OAuth server elsewhere.
    node(&file, "conformance.test.mjs");
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_in_and_out_in_a_browser() {
    let (world, sidecar, file) = world(Options::default()).await;
    node(&file, "login.test.mjs");
    no_secrets(&world, &sidecar);
}

/// The API server fails when it is asked where people log in, from before the sidecar starts on.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_knows_yet_where_to_log_in() {
    let world = servers_of(Options::default()).await;
    let Some(stand_in) = world.ground.stand_in() else { panic!("no stand-in") };
    let fault = Fault::Status(500, "Error: something".to_owned());
    stand_in.cluster().set_fault(Endpoint::Discovery, Some(fault));
    let (sidecar, file) = sidecar_of(&world, "/healthz").await;
    node(&file, "discovery.test.mjs");
    no_secrets(&world, &sidecar);
}

/// A real API server behind the stand-in, and `oidc-provider` beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_and_a_provider() {
    let folder = servers::run_folder("provider").unwrap();
    let certificates = Certificates::make(&["127.0.0.1"]).unwrap();
    let issuer = format!("https://127.0.0.1:{}", servers::free_port().unwrap());
    let secret = random_text(40);
    for (name, text) in [
        ("ca.crt", &certificates.ca),
        ("tls.crt", &certificates.certificate),
        ("tls.key", &certificates.key),
        ("secret", &secret),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    let overlay = folder.join("overlay.yaml");
    let place = folder.display();
    let text = format!(
        "login:\n  oidc:\n    issuer: {issuer}\n    client_id: perses\n    client_secret_file: {place}/secret\n    \
         ca_file: {place}/ca.crt\n"
    );
    fs::write(&overlay, text).unwrap();
    let options = Options { cluster: Kind::RealWithLogin, config: Some(overlay), ..Options::default() };
    let (world, sidecar, file) = world(options).await;
    let Ground::Real(real) = &world.ground else { panic!("no real API server") };
    world.ground.bind(Some("team-c"), Subject::Group("devs".to_owned()), "view").await.unwrap();
    let mut environment = world.environment(Some(&sidecar));
    let settings = json!({
        "url": issuer, "certificate": folder.join("tls.crt"), "key": folder.join("tls.key"), "client": "perses",
        "secret": secret, "here": environment["https"], "people": { "lin": ["devs"] },
    });
    fs::write(folder.join("settings.json"), settings.to_string()).unwrap();
    let script = servers::checkout().join("tests/browser/provider.mjs").display().to_string();
    let arguments = [script, folder.join("settings.json").display().to_string()];
    let log = folder.join("provider.log");
    let provider = Server::start(Path::new("node"), &arguments, &log, &[("NO_COLOR", "1")]).unwrap();
    for _ in 0..200 {
        if provider.output().contains("ready at") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(provider.output().contains("ready at"), "{}", provider.output());
    real.believe(&issuer, &certificates.ca, "perses").unwrap();
    environment["provider"] = json!(issuer);
    fs::write(&file, environment.to_string()).unwrap();
    node(&file, "real.test.mjs");
    assert!(!sidecar.output().contains(&secret), "the client's secret was written down");
    no_secrets(&world, &sidecar);
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_of_the_published_packages() {
    let (ui, plugins) = built();
    let options = Options { ui: Some(ui), plugins: Some(plugins), workloads: true, ..Options::default() };
    let (world, sidecar, file) = world(options).await;
    node(&file, "panels.test.mjs");
    node(&file, "gallery.test.mjs");
    no_secrets(&world, &sidecar);
}
