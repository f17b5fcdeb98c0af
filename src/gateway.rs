//! The journey of a request, step by step.
//!
//! Each step is a call that returns what the next one takes; any early end is a [`Refusal`], and `answer` alone turns it
//! into bytes. Whatever happens, one audit record and one set of metrics close the request.

mod accepted;
mod answer;
mod body;
mod door;
mod gallery;
mod journal;

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::access::{Access, Grant};
use crate::catalog::{Brought, Catalog};
use crate::cluster::Cluster;
use crate::config;
use crate::identity::Identities;
use crate::identity::login::Login;
use crate::listen::{Handler, Peer};
use crate::query::Queries;
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::route::{self, Global, Guarded, Route, Scoped};
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Perses;
use crate::workloads::Workloads;
pub use body::Outgoing;
use journal::Journal;

/// Everything that one configuration made. A request takes one of these and never sees another.
pub struct Live {
    /// The settings.
    pub config: Arc<config::Live>,
    /// The Kubernetes API.
    pub cluster: Arc<Cluster>,
    /// Who.
    pub identities: Arc<Identities>,
    /// How people log in, if they do.
    pub login: Option<Arc<Login>>,
    /// May they.
    pub access: Arc<Access>,
    /// What runs in the cluster.
    pub workloads: Arc<Workloads>,
    /// The server behind us.
    pub perses: Arc<Perses>,
    /// The Perses API.
    pub catalog: Catalog,
    /// Questions to metrics backends.
    pub queries: Arc<Queries>,
    /// The audit stream.
    pub audit: Arc<Audit>,
}

/// The door: one for all connections.
#[derive(Clone)]
pub struct Gateway {
    live: watch::Receiver<Arc<Live>>,
    fixed: Arc<config::Fixed>,
    metrics: Arc<Metrics>,
}

impl Gateway {
    /// Serves whatever configuration `live` holds at the time of a request.
    #[must_use]
    pub fn new(live: watch::Receiver<Arc<Live>>, fixed: Arc<config::Fixed>, metrics: Arc<Metrics>) -> Self {
        Self { live, fixed, metrics }
    }
}

impl Handler for Gateway {
    type Body = Outgoing;

    async fn call(&self, request: Request<Incoming>, peer: Peer) -> Response<Outgoing> {
        // 1. One snapshot of the configuration for the whole journey.
        let live = Arc::clone(&self.live.borrow());
        let (head, body) = request.into_parts();
        let from = client_address(&head.headers, peer, &self.fixed.listen.trusted_proxies);
        let mut journal = Journal::begin(Arc::clone(&self.metrics), Arc::clone(&live.audit), head.method.clone(), from);
        let total = live.config.limits.total;
        let mut cookies = Vec::new();
        let outcome = {
            let journey = pin!(journey(&live, &self.fixed, &mut journal, &head, body, &mut cookies));
            tokio::time::timeout(total, journey).await
        };
        let outcome = outcome.unwrap_or_else(|_| {
            Err(Refusal::new(Reason::UpstreamSlow, "this took longer than limits.total allows").because("limits.total"))
        });
        let mut response = match outcome {
            Ok(reply) => answer::reply(reply),
            Err(refusal) => {
                // Told ever more rarely: whoever has no credential must not fill our log.
                if refusal.reason() == Reason::NoCredential
                    && looks_like_the_operator(&head)
                    && self.metrics.locked_out().is_power_of_two()
                {
                    tracing::warn!(
                        from = %from.address,
                        "What looks like the Perses operator sends no credential; set spec.client.kubernetesAuth.enable: true \
                         on the Perses resource"
                    );
                }
                answer::refusal(&refusal, &live, &head, &mut journal)
            }
        };
        if !cookies.is_empty() {
            // Whoever stands between keeps pages, and would give one person's cookie to the next.
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        for cookie in cookies {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        answer::finish(response, &head, journal)
    }

    fn refused(&self, reason: Reason) {
        self.metrics.refusal(reason);
    }
}

async fn journey(
    live: &Live,
    fixed: &config::Fixed,
    journal: &mut Journal,
    head: &http::request::Parts,
    body: Incoming,
    cookies: &mut Vec<HeaderValue>,
) -> Result<Reply, Refusal> {
    let now = SystemTime::now();
    // 2. What HTTP itself asks of a head; hyper has refused the rest.
    check_head(head)?;
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    journal.style_of(head.uri.path(), &fixed.api_prefix);

    // 3. Which route? From here on the received path is not used again.
    let route = route::read(&head.method, target, &fixed.api_prefix)?;
    journal.route(&route);
    let guarded = match route {
        // What seldom runs is not carried about by what often does.
        Route::Open(open) => return Box::pin(door::open(live, fixed, journal, head, &open, cookies, now)).await,
        Route::Door(door) => {
            body::none(&body)?;
            return Box::pin(door::door(live, journal, head, door, cookies, now)).await;
        }
        Route::Guarded(guarded) => guarded,
    };

    // 4. Who is this?
    let arrived = door::arrive(live, journal, head, cookies, now).await?;
    let caller = Arc::clone(&arrived.caller);
    journal.caller(&caller);

    // 5. May they?
    let grant = live.access.admit(&caller, guarded).await?;

    // 6. Answer.
    if let Guarded::Metrics(..) = grant.route() {
        let form = body::form(head, body, &live.config.limits).await?;
        let mut reply = live.queries.answer(&grant, head.uri.query().unwrap_or(""), &form).await?;
        accepted::choose(&mut reply, &head.headers, caller.how().is_session());
        return Ok(reply);
    }
    Box::pin(catalog(live, fixed, journal, head, body, (arrived, grant))).await
}

/// Everything that is asked of Perses.
async fn catalog(
    live: &Live,
    fixed: &config::Fixed,
    journal: &mut Journal,
    head: &http::request::Parts,
    body: Incoming,
    (arrived, grant): (door::Arrived, Grant),
) -> Result<Reply, Refusal> {
    let writes = head.method != Method::GET && head.method != Method::HEAD;
    if let Guarded::Gallery(call) = grant.route() {
        let call = call.clone();
        let form = body::form(head, body, &live.config.limits).await?;
        return gallery::answer(live, fixed, journal, grant, &call, form).await;
    }
    if matches!(grant.route(), Guarded::Whoami) {
        body::none(&body)?;
        let facts = live.catalog.whoami(&grant, arrived.until).await?;
        if answer::is_person(head) {
            return Ok(door::profile(live, fixed, &arrived, &facts, journal.id()));
        }
        return Ok(Reply::json(StatusCode::OK, facts.to_string()));
    }
    let body = if grant.route().takes_body() {
        body::json(head, body, &live.config.limits).await?
    } else {
        body::none(&body)?;
        Bytes::new()
    };
    let knows = |url: &str| live.queries.sources().knows(url);
    let named = std::sync::Mutex::default();
    let accept_encoding = head.headers.get(header::ACCEPT_ENCODING);
    let brought = Brought { body, accept_encoding, knows: &knows, named: &named };
    let changes = writes && !matches!(grant.route(), Guarded::View | Guarded::Migrate | Guarded::Validate(_));
    let _changing = changes.then(|| (live.queries.sources().changing(), live.catalog.changing()));
    let of_datasources = changes && is_about_datasources(grant.route());
    let reply = live.catalog.answer(grant, brought).await;
    if of_datasources && reply.is_ok() {
        live.queries.forget();
    }
    journal.named(named.into_inner().unwrap_or_default());
    reply
}

/// Whether a change says where or how a backend is asked.
fn is_about_datasources(route: &Guarded) -> bool {
    matches!(
        route,
        Guarded::Scoped(Scoped::Datasources | Scoped::Secrets, _)
            | Guarded::Global(Global::Datasources | Global::Secrets, _)
    )
}

/// The Perses operator is a program in Go without a name of its own, and asks for objects of Perses.
fn looks_like_the_operator(head: &http::request::Parts) -> bool {
    let agent = head.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    agent.starts_with("Go-http-client/") && head.uri.path().contains("/api/v1/")
}

/// What is refused whatever the route: tunnels, and heads that two servers could read differently.
fn check_head(head: &http::request::Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT || head.headers.contains_key(header::UPGRADE) {
        return Err(Refusal::new(Reason::Upgrade, "protocol upgrades and tunnels are not available"));
    }
    let malformed = |message: &'static str| Refusal::new(Reason::MalformedHead, message);
    // Absolute form is for forward proxies; h2 always has an authority.
    if head.version < Version::HTTP_2 && (head.uri.scheme().is_some() || head.uri.authority().is_some()) {
        return Err(malformed("the request target must be an absolute path"));
    }
    // Each header is looked at once.
    let (mut hosts, mut types, mut length, mut framing, mut encoding) = (0, 0, false, false, false);
    for (name, value) in &head.headers {
        match *name {
            header::HOST if is_host(value.as_bytes()) => hosts += 1,
            header::HOST => return Err(malformed("the Host header names no host")),
            header::CONTENT_TYPE => types += 1,
            header::CONTENT_LENGTH => length = true,
            header::TRANSFER_ENCODING => framing = true,
            header::CONTENT_ENCODING => encoding = true,
            _ => {}
        }
    }
    if hosts > 1 {
        return Err(malformed("more than one Host header"));
    }
    if hosts == 0 && head.version == Version::HTTP_11 {
        return Err(malformed("the Host header is missing"));
    }
    if types > 1 {
        return Err(malformed("more than one Content-Type header"));
    }
    if framing && length {
        return Err(malformed("both Transfer-Encoding and Content-Length"));
    }
    if encoding {
        return Err(Refusal::new(Reason::MediaType, "a compressed body is not taken here"));
    }
    Ok(())
}

/// Whether the characters are those of a host and port (RFC 3986, 3.2.2); none at all is allowed.
fn is_host(text: &[u8]) -> bool {
    text.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(b))
}

/// Where a request comes from.
#[derive(Clone, Copy)]
struct Client {
    address: IpAddr,
    /// Whether a trusted proxy named the address: it is then the client's own, and not the one of a router that all share.
    named: bool,
}

/// The client's address: the peer's, or behind trusted proxies the nearest one that is not one of them.
fn client_address(headers: &HeaderMap, peer: Peer, trusted: &[config::Cidr]) -> Client {
    let peer = peer.address.ip().to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|block| block.contains(address));
    if trusted.is_empty() || !is_trusted(peer) {
        return Client { address: peer, named: false };
    }
    let mut nearest = peer;
    for line in headers.get_all("x-forwarded-for").iter().rev() {
        for hop in line.to_str().unwrap_or("").rsplit(',') {
            // Whatever is no address ends the chain: nothing before it can be believed.
            let Ok(address) = hop.trim().parse::<IpAddr>() else { return Client { address: nearest, named: false } };
            nearest = address.to_canonical();
            if !is_trusted(nearest) {
                return Client { address: nearest, named: true };
            }
        }
    }
    Client { address: nearest, named: false }
}

/// Whether a media type is the wanted one, with no parameter but UTF-8 as its charset.
fn is_media_type(value: &HeaderValue, wanted: &str) -> bool {
    let Ok(text) = value.to_str() else { return false };
    if text == wanted {
        return true;
    }
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let parameters = parameters.trim();
    essence.trim().eq_ignore_ascii_case(wanted)
        && (parameters.is_empty()
            || parameters.eq_ignore_ascii_case("charset=utf-8")
            || parameters.eq_ignore_ascii_case("charset=\"utf-8\""))
}

/// The status that tells a client about a body in a media type that is not taken.
const fn no_body_for(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

#[cfg(test)]
mod tests;
