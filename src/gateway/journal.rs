//! What happened to one request. Closed exactly once, also when the client goes away.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime};

use http::{HeaderValue, Method, StatusCode};

use super::Client;
use crate::catalog::{Effect, Named};
use crate::dial::DialError;
use crate::identity::Caller;
use crate::refusal::{Reason, Refusal};
use crate::route::{
    Door, GalleryCall, Global, GlobalCall, Guarded, ProjectCall, Route, Scoped, ScopedCall, Source, WorkloadsCall,
};
use crate::telemetry::audit::{Audit, Record};
use crate::telemetry::metrics::Metrics;

/// In whose style an error is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `{"message": …}`
    Perses,
    /// `{"status":"error", …}`
    Prometheus,
}

/// A logout in the words of an audit record.
const LOGOUT: (&str, &str) = ("delete", "login");

/// The account of one request.
pub(super) struct Journal {
    metrics: Arc<Metrics>,
    audit: Arc<Audit>,
    began: Instant,
    id: [u8; 16],
    method: Method,
    from: Client,
    style: Style,
    word: &'static str,
    route: Option<Guarded>,
    /// A login or logout, by its word for the record.
    door: Option<(&'static str, &'static str)>,
    caller: Option<Arc<Caller>>,
    named: Named,
    status: StatusCode,
    reason: Option<Reason>,
    closed: bool,
}

impl Journal {
    pub(super) fn begin(metrics: Arc<Metrics>, audit: Arc<Audit>, method: Method, from: Client) -> Self {
        Self {
            metrics,
            audit,
            began: Instant::now(),
            id: new_id(),
            method,
            from,
            style: Style::Perses,
            word: "unknown",
            route: None,
            door: None,
            caller: None,
            named: Named::default(),
            // What stands if nobody comes to an answer: the client closed the request (nginx' 499).
            status: StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
            reason: None,
            closed: false,
        }
    }

    /// An error about a path below `/proxy/` is read by a Prometheus client.
    pub(super) fn style_of(&mut self, path: &str, prefix: &str) {
        if path.strip_prefix(prefix).unwrap_or(path).starts_with("/proxy/") {
            self.style = Style::Prometheus;
        }
    }

    pub(super) fn style(&self) -> Style {
        self.style
    }

    pub(super) fn route(&mut self, route: &Route) {
        self.word = route.word();
        if let Route::Guarded(guarded) = route {
            self.route = Some(guarded.clone());
        }
        self.door = match route {
            Route::Door(Door::Callback(_)) => Some(("create", "login")),
            Route::Door(Door::Logout) => Some(LOGOUT),
            Route::Door(Door::Login(_) | Door::LogoutPage) | Route::Open(_) | Route::Guarded(_) => None,
        };
    }

    pub(super) fn caller(&mut self, caller: &Arc<Caller>) {
        self.caller = Some(Arc::clone(caller));
    }

    /// Who it is, once that is known.
    pub(super) fn known(&self) -> Option<&Arc<Caller>> {
        self.caller.as_ref()
    }

    /// The client's address, where a trusted proxy named it; elsewhere it is one that many share.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.from.named.then_some(self.from.address)
    }

    /// Whether a form of ours was sent.
    pub(super) fn is_form(&self) -> bool {
        self.door == Some(LOGOUT)
            || matches!(self.route, Some(Guarded::Gallery(GalleryCall::Make | GalleryCall::Restore(..))))
    }

    /// What a body turned out to be about.
    pub(super) fn named(&mut self, named: Named) {
        self.named = named;
    }

    pub(super) fn refused(&mut self, refusal: &Refusal) {
        self.reason = Some(refusal.reason());
        self.metrics.refusal(refusal.reason());
        let id = self.id();
        let (reason, status) = (refusal.reason().word(), refusal.status().as_u16());
        let cause = refusal.cause().unwrap_or("");
        if refusal.status().is_server_error() {
            tracing::warn!(request_id = id, route = self.word, reason, status, cause, "A request could not be served");
        } else {
            tracing::debug!(request_id = id, route = self.word, reason, status, cause, "A request was refused");
        }
    }

    pub(super) fn status(&mut self, status: StatusCode) {
        self.status = status;
    }

    pub(super) fn broken(&mut self, error: &DialError) {
        tracing::warn!(request_id = self.id(), route = self.word, cause = %error, "An answer broke off");
    }

    pub(super) fn complete(&mut self) {
        self.close();
    }

    /// The value of `X-Request-Id`.
    pub(super) fn header(&self) -> HeaderValue {
        let hex = self.id_bytes();
        HeaderValue::from_bytes(&hex).unwrap_or(HeaderValue::from_static("none"))
    }

    pub(super) fn id(&self) -> String {
        self.id_bytes().iter().map(|b| char::from(*b)).collect()
    }

    fn id_bytes(&self) -> [u8; 32] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut out = [b'0'; 32];
        for (pair, byte) in out.chunks_exact_mut(2).zip(self.id) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        out
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let took = self.began.elapsed();
        if tracing::enabled!(tracing::Level::DEBUG) {
            let (status, ms) = (self.status.as_u16(), took.as_secs_f64() * 1000.0);
            tracing::debug!(request_id = self.id(), route = self.word, status, ms, "A request has ended");
        }
        self.metrics.request(self.word, &self.method, self.status.as_u16(), took.as_secs_f64());
        if !self.audit.is_on() || !self.is_audited() {
            return;
        }
        let id = self.id();
        let facts = self.route.as_ref().map(facts).unwrap_or_default();
        let identity = self.caller.as_ref().map(|caller| caller.identity());
        self.audit.write(&Record {
            time: SystemTime::now(),
            request_id: &id,
            user: identity.map(|identity| identity.username.as_str()),
            groups: identity.map(|identity| identity.groups.as_slice()),
            authenticated_by: self.caller.as_ref().map(|caller| caller.how().word()),
            from: self.from.address,
            verb: self.door.map(|(verb, _)| verb).or(facts.verb).unwrap_or(verb_of(&self.method)),
            resource: self.door.map(|(_, resource)| resource).or(facts.resource).unwrap_or(self.word),
            namespace: facts.namespace.as_deref().or(self.named.project.as_deref()),
            name: facts.name.as_deref().or(self.named.name.as_deref()),
            allowed: self.reason.is_none(),
            reason: self.reason.map(Reason::word),
            effect: self.named.effect.map(Effect::word),
            code: self.status.as_u16(),
            duration: took,
        });
    }

    /// Reads of dashboards, every change, every login and logout, every refusal.
    fn is_audited(&self) -> bool {
        if self.reason.is_some() || self.door.is_some() {
            return true;
        }
        match &self.route {
            None => false,
            Some(Guarded::Scoped(Scoped::Dashboards | Scoped::EphemeralDashboards, _)) => true,
            Some(Guarded::Scoped(..) | Guarded::Global(..) | Guarded::Project(_)) => {
                self.method != Method::GET && self.method != Method::HEAD
            }
            Some(Guarded::Gallery(call)) => !matches!(call, GalleryCall::Show(_)),
            Some(Guarded::Migrate | Guarded::Validate(_)) => false,
            Some(_) => false,
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

#[derive(Default)]
struct Facts {
    verb: Option<&'static str>,
    resource: Option<&'static str>,
    namespace: Option<String>,
    name: Option<String>,
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// What a record says about a route: names from the parsed route, never what a client sent.
fn facts(route: &Guarded) -> Facts {
    let mut facts = Facts::default();
    match route {
        Guarded::Project(call) => match call {
            ProjectCall::List(_) => facts.verb = Some("list"),
            ProjectCall::Create => {}
            ProjectCall::Read(project) | ProjectCall::Update(project) | ProjectCall::Delete(project) => {
                facts.namespace = Some(project.as_str().to_owned());
                facts.name = Some(project.as_str().to_owned());
            }
        },
        Guarded::Scoped(_, call) => match call {
            ScopedCall::ListAll(_) => facts.verb = Some("list"),
            ScopedCall::CreateAnywhere => {}
            ScopedCall::List(project, _) => {
                facts.verb = Some("list");
                facts.namespace = Some(project.as_str().to_owned());
            }
            ScopedCall::Create(project) => facts.namespace = Some(project.as_str().to_owned()),
            ScopedCall::Read(project, name) | ScopedCall::Update(project, name) | ScopedCall::Delete(project, name) => {
                facts.namespace = Some(project.as_str().to_owned());
                facts.name = Some(name.as_str().to_owned());
            }
        },
        Guarded::Global(Global::Datasources | Global::Secrets | Global::Variables, call) => match call {
            GlobalCall::List(_) => facts.verb = Some("list"),
            GlobalCall::Create => {}
            GlobalCall::Read(name) | GlobalCall::Update(name) | GlobalCall::Delete(name) => {
                facts.name = Some(name.as_str().to_owned());
            }
        },
        Guarded::Metrics(source, _) => {
            facts.verb = Some("get");
            match source {
                Source::Global(name) => facts.name = Some(name.as_str().to_owned()),
                Source::Project(project, name) => {
                    facts.namespace = Some(project.as_str().to_owned());
                    facts.name = Some(name.as_str().to_owned());
                }
                Source::Dashboard(project, _, name) => {
                    facts.namespace = Some(project.as_str().to_owned());
                    facts.name = Some(name.clone());
                }
            }
        }
        Guarded::Gallery(call) => match call {
            GalleryCall::Show(_) => {}
            GalleryCall::Make => facts.resource = Some("dashboards"),
            GalleryCall::Restore(project, name) => {
                facts.verb = Some("delete");
                facts.resource = Some("dashboards");
                facts.namespace = Some(project.as_str().to_owned());
                facts.name = Some(name.as_str().to_owned());
            }
        },
        Guarded::Workloads(call) => match call {
            WorkloadsCall::List { project, .. } => {
                facts.verb = Some("list");
                facts.namespace = project.as_ref().map(|project| project.as_str().to_owned());
            }
            WorkloadsCall::Read { project, name, .. } => {
                facts.namespace = Some(project.as_str().to_owned());
                facts.name = Some(name.clone());
            }
        },
        Guarded::Whoami
        | Guarded::UserWhoami
        | Guarded::Permissions(_)
        | Guarded::View
        | Guarded::Migrate
        | Guarded::Validate(_)
        | Guarded::Plugins
        | Guarded::PluginFile(_)
        | Guarded::OwnMetrics
        | Guarded::Never(_) => {}
    }
    facts
}

/// Eight bytes of this process, random, so that ids of several replicas do not collide; eight of a count that is mixed, so
/// that no two are the same. Nobody is let in by an id, so it need not be hard to guess; zeros stand in when the
/// system has no randomness to give.
fn new_id() -> [u8; 16] {
    static PROCESS: LazyLock<[u8; 16]> = LazyLock::new(|| {
        let mut random = [0; 16];
        if aws_lc_rs::rand::fill(&mut random).is_err() {
            random = [0; 16];
        }
        random
    });
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut id = *PROCESS;
    let seed = u64::from_le_bytes([id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]]);
    // The steps of SplitMix64, each of which can be undone: different counts stay different.
    let mut mixed = seed.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    id[8..].copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    id
}

#[cfg(test)]
mod tests {
    use super::new_id;

    #[test]
    fn no_two_requests_have_the_same_id() {
        let ids: std::collections::HashSet<[u8; 16]> = (0..10_000).map(|_| new_id()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| *id != [0; 16]));
    }
}
