//! The bounds of staleness that the contract names, as configured unless somebody says otherwise, by a clock of our own: shortly
//! before each bound what was found out still holds and nobody is asked, shortly behind it the cluster's word counts.
//!
//! The binary runs with `libfaketime`, which adds what a file says to both of its clocks; the cluster's clock stays.

use std::path::PathBuf;

use perses_sidecar_stack::http::{Answer, Http};
use perses_sidecar_stack::openshift::{Endpoint, Fault};

use crate::support::browser::{Browser, HERE, OPENSHIFT};
use crate::support::{More, Process};

const PROJECT: &str = "/api/v1/projects/team-a/dashboards";

/// The binary and its clock.
struct Clocked {
    process: Process,
    clock: PathBuf,
    /// Seconds that the clock is ahead.
    ahead: u64,
}

impl Clocked {
    async fn start() -> Self {
        Self::with(More::default()).await
    }

    async fn with(more: More<'_>) -> Self {
        let library = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
            .map(|folder| format!("{folder}/faketime/libfaketime.so.1"))
            .into_iter()
            .find(|path| std::fs::exists(path).unwrap())
            .expect("the package faketime is needed");
        let clock = std::env::temp_dir().join(format!("clock-{}", perses_sidecar_stack::openshift::random_text(8)));
        std::fs::write(&clock, "+0").unwrap();
        let words = [
            "env".to_owned(),
            format!("LD_PRELOAD={library}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
        ];
        let process = Process::start("info", more, &words.each_ref().map(String::as_str)).await;
        process.stage.upstream.answers("GET /api/v1/projects/team-a/dashboards", 200, "[]");
        // What the start has left behind is older than any bound.
        let mut clocked = Self { process, clock, ahead: 0 };
        clocked.on(300).await;
        clocked
    }

    /// Lets seconds pass.
    async fn on(&mut self, seconds: u64) {
        self.ahead += seconds;
        // In one step, as it is read at every look at the clock.
        let next = self.clock.with_extension("next");
        std::fs::write(&next, format!("+{}", self.ahead)).unwrap();
        std::fs::rename(next, &self.clock).unwrap();
        // Connections that have been idle too long by the new clock end now.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }

    async fn get(&self, token: &str) -> u16 {
        self.send("GET", PROJECT, token, None).await.status
    }

    async fn send(&self, method: &str, path: &str, token: &str, form: Option<&[(&str, &str)]>) -> Answer {
        let url = format!("http://{}{path}", self.process.address);
        // Each over a connection of its own, whatever the clock did to earlier ones.
        let http = Http::default();
        match form {
            Some(form) => http.form(&url, token, form).await.unwrap(),
            None => http.send(method, &url, &[("authorization", &format!("Bearer {token}"))], "").await.unwrap(),
        }
    }

    /// The query that the backend gets for a query of all.
    async fn confined(&self, token: &str) -> String {
        self.process.stage.upstream.take();
        let path = "/proxy/globaldatasources/p/api/v1/query";
        assert_eq!(self.send("POST", path, token, Some(&[("query", "up")])).await.status, 200);
        let seen = self.process.stage.upstream.take();
        seen.into_iter().find(|seen| seen.line.contains("/query")).unwrap().body
    }

    fn reviews(&self) -> u64 {
        self.process.stage.openshift.cluster().count(Endpoint::TokenReviews)
    }
}

impl Drop for Clocked {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.clock);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_right_ends_within_a_minute_and_a_new_one_counts_after_ten_seconds() {
    let mut clocked = Clocked::start().await;
    let cluster = clocked.process.stage.openshift.cluster().clone();
    let (ada, eve) = (clocked.process.stage.token("ada"), clocked.process.stage.token("eve"));
    assert_eq!((clocked.get(&ada).await, clocked.get(&eve).await), (200, 404));
    cluster.unbind_role("team-a", "ada", "edit");
    cluster.bind_role("team-a", "eve", "view");
    clocked.on(5).await;
    assert_eq!((clocked.get(&ada).await, clocked.get(&eve).await), (200, 404), "remembered");
    clocked.on(6).await;
    assert_eq!(clocked.get(&eve).await, 200, "a refusal holds for 10 s");
    clocked.on(42).await;
    assert_eq!(clocked.get(&ada).await, 200, "after 53 s");
    clocked.on(8).await;
    assert_eq!(clocked.get(&ada).await, 404, "a permission holds for 60 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_token_ends_within_a_minute_and_a_bad_one_is_asked_about_again_after_five_seconds() {
    let mut clocked = Clocked::start().await;
    let cluster = clocked.process.stage.openshift.cluster().clone();
    let ada = clocked.process.stage.token("ada");
    assert_eq!(clocked.get(&ada).await, 200);
    let asked = clocked.reviews();
    cluster.revoke_token(&ada);
    clocked.on(53).await;
    assert_eq!((clocked.get(&ada).await, clocked.reviews()), (200, asked), "remembered");
    clocked.on(8).await;
    assert_eq!(clocked.get(&ada).await, 401, "an identity holds for 60 s");
    let asked = clocked.reviews();
    clocked.on(3).await;
    assert_eq!((clocked.get(&ada).await, clocked.reviews()), (401, asked), "that it is nobody's is remembered too");
    clocked.on(3).await;
    assert_eq!((clocked.get(&ada).await, clocked.reviews()), (401, asked + 1), "for 5 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_follow_the_rights_within_a_minute() {
    let mut clocked = Clocked::start().await;
    let cluster = clocked.process.stage.openshift.cluster().clone();
    let ada = clocked.process.stage.token("ada");
    let both = clocked.confined(&ada).await;
    assert!(both.contains("team-a%7Cteam-b"), "{both}");
    cluster.unbind_role("team-b", "ada", "view");
    clocked.on(53).await;
    assert_eq!(clocked.confined(&ada).await, both, "remembered");
    clocked.on(8).await;
    let one = clocked.confined(&ada).await;
    assert!(one.contains("team-a") && !one.contains("team-b"), "a set of namespaces holds for 60 s: {one}");
    cluster.bind_role("team-c", "ada", "view");
    clocked.on(61).await;
    let other = clocked.confined(&ada).await;
    assert!(other.contains("team-a%7Cteam-c"), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_its_bound_because_the_cluster_is_silent() {
    let mut clocked = Clocked::start().await;
    let cluster = clocked.process.stage.openshift.cluster().clone();
    let ada = clocked.process.stage.token("ada");
    assert_eq!(clocked.get(&ada).await, 200);
    for endpoint in [Endpoint::TokenReviews, Endpoint::AccessReviews] {
        cluster.set_fault(endpoint, Some(Fault::Status(500, "{}".to_owned())));
    }
    clocked.on(53).await;
    assert_eq!(clocked.get(&ada).await, 200, "remembered");
    clocked.on(8).await;
    assert_eq!(clocked.get(&ada).await, 503, "no verdict is no");
}

/// Where people log in.
async fn with_login(more: &str) -> Clocked {
    let rest = format!("{OPENSHIFT}{more}");
    let clocked = Clocked::with(More { rest: &rest, ..More::default() }).await;
    let address = format!("{HERE}/-/callback");
    let key = "serviceaccounts.openshift.io/oauth-redirecturi.first";
    clocked.process.stage.openshift.cluster().annotate_account("perses", "perses-sidecar", key, &address);
    clocked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_may_take_ten_minutes() {
    let mut clocked = with_login("").await;
    let cluster = clocked.process.stage.openshift.cluster().clone();
    let url = format!("http://{}", clocked.process.address);
    for (seconds, status) in [(593, 302), (601, 400)] {
        let mut browser = Browser::at(&url);
        let place = browser.begins("/projects/team-a").await;
        let back = cluster.log_in("ada", place.split_once('?').unwrap().1).unwrap();
        let exchanges = cluster.count(Endpoint::Token);
        clocked.on(seconds).await;
        // A browser that keeps what it was told to forget.
        browser = browser.anew();
        let answer = browser.comes_back(&back).await;
        assert_eq!(answer.status, status, "{seconds}: {}", answer.text());
        let redeemed = u64::from(status == 302);
        assert_eq!(cluster.count(Endpoint::Token), exchanges + redeemed, "{seconds}");
    }
}

/// By our clock and not the browser's: a cookie that somebody copied ends as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_nobody_uses_it_and_in_any_case() {
    let mut clocked = with_login("  session:\n    lifetime: 3h\n    idle_timeout: 1h\n").await;
    let cluster = clocked.process.stage.openshift.cluster().clone();
    let mut browser = Browser::at(&format!("http://{}", clocked.process.address));
    let place = browser.begins("/").await;
    let back = cluster.log_in("ada", place.split_once('?').unwrap().1).unwrap();
    assert_eq!(browser.comes_back(&back).await.status, 302);
    let copy = browser.clone();
    clocked.process.stage.upstream.answers("GET /", 200, "<html>");
    for minutes in [59, 118, 177] {
        clocked.on(59 * 60).await;
        browser = browser.anew();
        let page = browser.goes("/").await;
        assert_eq!((page.status, page.text().as_str()), (200, "<html>"), "used after {minutes} minutes");
        assert!(
            page.headers.contains_key("set-cookie") && page.headers["cache-control"] == "no-store",
            "kept by nobody"
        );
        assert_eq!(browser.who().await, "ada");
        assert_eq!(copy.anew().who().await == "ada", minutes == 59, "the first cookie after {minutes} minutes");
    }
    clocked.on(4 * 60).await;
    assert_eq!(browser.anew().who().await, "", "three hours are over");
    assert_eq!(cluster.tokens_of("ada").len(), 1, "though the token is good");
}
