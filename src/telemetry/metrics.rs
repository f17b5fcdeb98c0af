//! The metrics of the product. Every label value comes from a closed set; nothing that a client sent becomes one.
//!
//! All series are made at the start and found by index, so that counting is one atomic addition.

mod cache;
mod shared;
mod workloads;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::refusal::Reason;
use crate::route;
pub use cache::{CacheKind, CacheMetrics, CacheReason, CacheResult, Verification};
pub use shared::{SharedOperation, SharedOutcome};
pub use workloads::WorkloadMetrics;

/// A server behind us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are the label's values")]
pub enum Upstream {
    Perses,
    Metrics,
    Cluster,
}

/// What a review was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are the label's values")]
pub enum ReviewKind {
    Token,
    Access,
    Projects,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are the label's values")]
pub enum ReviewOutcome {
    Allowed,
    Denied,
    Authenticated,
    Rejected,
    Error,
    Throttled,
    Cached,
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are the label's values")]
pub enum ReloadOutcome {
    Good,
    Bad,
    Restart,
}

/// How a login ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are the label's values")]
pub enum LoginOutcome {
    Ok,
    Refused,
    Stale,
    Failed,
    Rejected,
    Unavailable,
    Refreshed,
}

/// How a logout ended: with the token revoked, or closed here only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are the label's values")]
pub enum LogoutOutcome {
    Revoked,
    Closed,
}

/// Counts sessions when metrics are asked for.
type CountSessions = Box<dyn Fn() -> i64 + Send + Sync>;

const LOGINS: [&str; 7] = ["ok", "refused", "stale", "failed", "rejected", "unavailable", "refreshed"];
const LOGOUTS: [&str; 2] = ["revoked", "closed"];
/// What became of a review of the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are the label's values")]
pub enum InjectionOutcome {
    Injected,
    Unchanged,
    Untouched,
    Verified,
    Perses,
    Refused,
    Error,
}

impl InjectionOutcome {
    /// The label's value.
    #[must_use]
    pub const fn word(self) -> &'static str {
        INJECTIONS[self as usize]
    }
}

const INJECTIONS: [&str; 7] = ["injected", "unchanged", "untouched", "verified", "perses", "refused", "error"];
const UPSTREAMS: [&str; 3] = ["perses", "metrics", "cluster"];
const KINDS: [&str; 3] = ["token", "access", "projects"];
const OUTCOMES: [&str; 7] = ["allowed", "denied", "authenticated", "rejected", "error", "throttled", "cached"];
const RELOADS: [&str; 3] = ["good", "bad", "restart"];
const CONFINES: [&str; 6] = ["ok", "syntax", "type", "limit", "forbidden", "read_back"];
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "other"];
/// Statuses that we answer; any other counts by its class.
const CODES: [&str; 28] = [
    "200", "201", "204", "304", "400", "401", "403", "404", "405", "408", "409", "413", "415", "422", "429", "431",
    "499", "500", "502", "503", "504", "error", "1xx", "2xx", "3xx", "4xx", "5xx", "none",
];

/// The place of "error", which the classes follow.
const ERROR: usize = 21;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabel {
    route: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UpstreamLabel {
    upstream: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReviewLabels {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    commit: &'static str,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    /// The counters of `requests` that have been needed, by route, method and code.
    request_counters: Vec<OnceLock<Counter>>,
    request_seconds: Vec<Histogram>,
    refusals: Family<ReasonLabel, Counter>,
    upstream_requests: Family<UpstreamLabels, Counter>,
    /// Those of `upstream_requests`, by upstream and code.
    upstream_counters: Vec<OnceLock<Counter>>,
    upstream_seconds: Vec<Histogram>,
    reviews: Vec<Vec<Counter>>,
    confines: Vec<Counter>,
    reloads: Vec<Counter>,
    reload_successful: Gauge,
    logins: Vec<Counter>,
    logouts: Vec<Counter>,
    sessions: Gauge,
    count_sessions: OnceLock<CountSessions>,
    injections: Vec<Counter>,
    review_seen: Gauge,
    exposed: Gauge,
    locked_out: Counter,
    audit_dropped: Counter,
    connections: Arc<AtomicI64>,
    shared: shared::Shared,
    open: Gauge,
    cache: CacheMetrics,
    workloads: WorkloadMetrics,
}

fn seconds() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Every series that is known beforehand begins at 0.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("perses_sidecar");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("requests", "Requests answered", requests.clone());
        let family = Family::<RouteLabel, Histogram, fn() -> Histogram>::new_with_constructor(seconds);
        registry.register("request_duration_seconds", "Time from head to last byte", family.clone());
        let request_seconds =
            route::WORDS.iter().map(|word| family.get_or_create_owned(&RouteLabel { route: word })).collect();
        let refusals = Family::<ReasonLabel, Counter>::default();
        for reason in Reason::ALL {
            drop(refusals.get_or_create(&ReasonLabel { reason: reason.word() }));
        }
        registry.register("refusals", "Requests that ended early", refusals.clone());
        let upstream_requests = Family::<UpstreamLabels, Counter>::default();
        registry.register("upstream_requests", "Requests to the servers behind us", upstream_requests.clone());
        let family = Family::<UpstreamLabel, Histogram, fn() -> Histogram>::new_with_constructor(seconds);
        registry.register("upstream_duration_seconds", "Time until an upstream's answer", family.clone());
        // What alerts are made of begins at 0, so that its first rise is seen.
        for upstream in UPSTREAMS {
            for code in ["200", "500", "502", "503", "504", "error", "5xx"] {
                drop(upstream_requests.get_or_create(&UpstreamLabels { upstream, code }));
            }
        }
        let upstream_seconds =
            UPSTREAMS.iter().map(|upstream| family.get_or_create_owned(&UpstreamLabel { upstream })).collect();
        let family = Family::<ReviewLabels, Counter>::default();
        registry.register("reviews", "Questions to the Kubernetes API about people and rights", family.clone());
        let reviews = KINDS
            .iter()
            .map(|kind| {
                OUTCOMES.iter().map(|outcome| family.get_or_create_owned(&ReviewLabels { kind, outcome })).collect()
            })
            .collect();
        let confines = outcomes(&mut registry, "confine", "Queries confined or refused", &CONFINES);
        let reloads = outcomes(&mut registry, "config_reloads", "Configurations read after the first", &RELOADS);
        let reload_successful = Gauge::default();
        reload_successful.set(1);
        registry.register(
            "config_last_reload_successful",
            "Whether the newest configuration is in use",
            reload_successful.clone(),
        );
        let logins = outcomes(&mut registry, "logins", "Logins that came to an end", &LOGINS);
        let logouts = outcomes(&mut registry, "logouts", "Sessions that people ended", &LOGOUTS);
        let sessions = Gauge::default();
        registry.register("sessions", "Sessions used within five minutes", sessions.clone());
        let injections = outcomes(&mut registry, "injections", "Reviews of the webhook", &INJECTIONS);
        let review_seen = Gauge::default();
        registry.register(
            "injection_last_review_timestamp_seconds",
            "When the API server asked last, 0 if it never did",
            review_seen.clone(),
        );
        let exposed = Gauge::default();
        registry.register("upstream_exposed", "Whether Perses answers on the pod's own address", exposed.clone());
        let locked_out = Counter::default();
        registry.register(
            "operator_locked_out",
            "Requests without a credential by what looks like the Perses operator",
            locked_out.clone(),
        );
        let audit_dropped = Counter::default();
        registry.register("audit_lines_dropped", "Audit lines lost to a full queue or disk", audit_dropped.clone());
        let shared = shared::Shared::register(&mut registry);
        let open = Gauge::default();
        registry.register("connections", "Open connections", open.clone());
        let cache = CacheMetrics::new(&mut registry);
        let workloads = WorkloadMetrics::new(&mut registry);
        let build = Family::<BuildLabels, Gauge>::default();
        let labels = BuildLabels { version: env!("CARGO_PKG_VERSION"), commit: crate::COMMIT };
        build.get_or_create(&labels).set(1);
        registry.register("build_info", "What this is", build);
        Self {
            registry,
            requests,
            request_counters: vec![OnceLock::new(); route::WORDS.len() * METHODS.len() * CODES.len()],
            request_seconds,
            refusals,
            upstream_requests,
            upstream_counters: vec![OnceLock::new(); UPSTREAMS.len() * CODES.len()],
            upstream_seconds,
            reviews,
            confines,
            reloads,
            reload_successful,
            logins,
            logouts,
            sessions,
            count_sessions: OnceLock::new(),
            injections,
            review_seen,
            exposed,
            locked_out,
            audit_dropped,
            connections: Arc::default(),
            shared,
            open,
            cache,
            workloads,
        }
    }

    /// A request was answered.
    pub fn request(&self, route: &'static str, method: &Method, status: u16, seconds: f64) {
        let method = METHODS.iter().position(|word| *word == method.as_str()).unwrap_or(METHODS.len() - 1);
        let Some(at) = route::WORDS.iter().position(|word| *word == route) else { return };
        let code = code_index(status);
        if let Some(counter) = self.request_counters.get((at * METHODS.len() + method) * CODES.len() + code) {
            let labels = || RequestLabels { route: route::WORDS[at], method: METHODS[method], code: CODES[code] };
            counter.get_or_init(|| self.requests.get_or_create_owned(&labels())).inc();
        }
        if let Some(histogram) = self.request_seconds.get(at) {
            histogram.observe(seconds);
        }
    }

    /// A request ended early.
    pub fn refusal(&self, reason: Reason) {
        self.refusals.get_or_create(&ReasonLabel { reason: reason.word() }).inc();
    }

    /// An exchange with a server behind us ended, with a status or without.
    pub fn upstream(&self, upstream: Upstream, status: Result<u16, ()>, seconds: f64) {
        let index = upstream as usize;
        let code = status.map_or(ERROR, code_index);
        if let Some(counter) = self.upstream_counters.get(index * CODES.len() + code) {
            let labels = UpstreamLabels { upstream: UPSTREAMS[index], code: CODES[code] };
            counter.get_or_init(|| self.upstream_requests.get_or_create_owned(&labels)).inc();
        }
        self.upstream_seconds[index].observe(seconds);
    }

    /// A review ended.
    pub fn review(&self, kind: ReviewKind, outcome: ReviewOutcome) {
        self.reviews[kind as usize][outcome as usize].inc();
    }

    /// A review was not needed.
    pub fn review_cached(&self, kind: ReviewKind) {
        self.review(kind, ReviewOutcome::Cached);
    }

    /// A query was confined, or refused with a code of `promql`.
    pub fn confine(&self, outcome: &str) {
        if let Some(index) = CONFINES.iter().position(|word| *word == outcome) {
            self.confines[index].inc();
        }
    }

    /// A configuration was read again.
    pub fn reload(&self, outcome: ReloadOutcome) {
        self.reloads[outcome as usize].inc();
        self.reload_successful.set(i64::from(outcome != ReloadOutcome::Bad));
    }

    /// A login ended.
    pub fn login(&self, outcome: LoginOutcome) {
        self.logins[outcome as usize].inc();
    }

    /// Somebody logged out.
    pub fn logout(&self, outcome: LogoutOutcome) {
        self.logouts[outcome as usize].inc();
    }

    /// Says how sessions are counted; once.
    pub fn count_sessions(&self, count: impl Fn() -> i64 + Send + Sync + 'static) {
        let _ = self.count_sessions.set(Box::new(count));
    }

    /// A review of the webhook was answered.
    pub fn injection(&self, outcome: InjectionOutcome) {
        self.injections[outcome as usize].inc();
    }

    /// The API server asked.
    pub fn review_seen(&self, now: std::time::SystemTime) {
        let seconds = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.review_seen.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Whether Perses answers where it must not.
    pub fn exposed(&self, exposed: bool) {
        self.exposed.set(i64::from(exposed));
    }

    /// What looks like the Perses operator came without a credential, for so many times.
    pub fn locked_out(&self) -> u64 {
        self.locked_out.inc() + 1
    }

    /// Audit lines were lost.
    pub fn audit_dropped(&self, lines: u64) {
        self.audit_dropped.inc_by(lines);
    }

    /// What the cache counts.
    #[must_use]
    pub fn cache(&self) -> &CacheMetrics {
        &self.cache
    }

    /// What is known of workloads.
    #[must_use]
    pub fn workloads(&self) -> &WorkloadMetrics {
        &self.workloads
    }

    /// Where listeners count their open connections.
    #[must_use]
    pub fn connections(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.connections)
    }

    /// OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        self.open.set(self.connections.load(Ordering::Relaxed));
        self.sessions.set(self.count_sessions.get().map_or(0, |count| count()));
        let mut out = String::with_capacity(32 << 10);
        if encode(&mut out, &self.registry).is_err() {
            out.clear();
            let _ = writeln!(out, "# EOF");
        }
        out
    }
}

fn outcomes(registry: &mut Registry, name: &str, help: &str, words: &[&'static str]) -> Vec<Counter<u64, AtomicU64>> {
    let family = Family::<OutcomeLabel, Counter>::default();
    registry.register(name, help, family.clone());
    words.iter().map(|outcome| family.get_or_create_owned(&OutcomeLabel { outcome })).collect()
}

/// The place of a status in [`CODES`].
fn code_index(status: u16) -> usize {
    if status == 200 {
        return 0;
    }
    let word = status.to_string();
    CODES.iter().position(|code| *code == word).unwrap_or(match status / 100 {
        class @ 1..=5 => ERROR + usize::from(class),
        _ => CODES.len() - 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_count_where_they_belong() {
        for (status, word) in
            [(200, "200"), (499, "499"), (504, "504"), (100, "1xx"), (206, "2xx"), (599, "5xx"), (999, "none")]
        {
            assert_eq!(CODES[code_index(status)], word);
        }
        assert_eq!((CODES[ERROR], CODES[0]), ("error", "200"));
    }

    #[test]
    fn names_and_labels_are_those_of_the_contract() {
        let metrics = Metrics::new();
        metrics.request("query", &Method::POST, 200, 0.002);
        metrics.request("unknown", &Method::TRACE, 418, 0.0);
        metrics.refusal(Reason::Hidden);
        metrics.upstream(Upstream::Perses, Err(()), 0.1);
        metrics.review(ReviewKind::Access, ReviewOutcome::Denied);
        metrics.confine("ok");
        metrics.reload(ReloadOutcome::Bad);
        metrics.cache().request(CacheKind::Values, CacheResult::Collapsed);
        metrics.cache().bypass(CacheReason::Shape);
        metrics.cache().memory(5);
        let text = metrics.encode();
        for line in [
            r#"perses_sidecar_requests_total{route="query",method="POST",code="200"} 1"#,
            r#"perses_sidecar_requests_total{route="unknown",method="other",code="4xx"} 1"#,
            r#"perses_sidecar_refusals_total{reason="hidden"} 1"#,
            r#"perses_sidecar_refusals_total{reason="upgrade"} 0"#,
            r#"perses_sidecar_upstream_requests_total{upstream="perses",code="error"} 1"#,
            r#"perses_sidecar_upstream_requests_total{upstream="cluster",code="error"} 0"#,
            r#"perses_sidecar_reviews_total{kind="access",outcome="denied"} 1"#,
            r#"perses_sidecar_confine_total{outcome="ok"} 1"#,
            r#"perses_sidecar_config_reloads_total{outcome="bad"} 1"#,
            "perses_sidecar_config_last_reload_successful 0",
            r#"perses_sidecar_cache_requests_total{kind="values",result="collapsed"} 1"#,
            r#"perses_sidecar_cache_requests_total{kind="range",result="hit"} 0"#,
            r#"perses_sidecar_cache_bypass_total{reason="shape"} 1"#,
            r#"perses_sidecar_cache_bytes{tier="memory"} 5"#,
            r#"perses_sidecar_request_duration_seconds_count{route="query"} 1"#,
            r#"perses_sidecar_build_info{version="#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
