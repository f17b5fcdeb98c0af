//! What was configured? One YAML file becomes a checked [`Config`]; nothing else in the program sees the text.
//!
//! [`Config`] is split by type into what is read once at the start ([`Fixed`]) and what may change while the process
//! runs ([`Live`]). A file that does not check is reported whole, every problem with its line and path, and never used.

mod decode;
mod login;
mod section;
mod sections;
mod tls;
mod tree;
mod units;
mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use decode::{Loaded, Problem, Surroundings, System, as_json, read};
pub use login::{CookieKey, Login, Oidc, OpenShift, joined};
pub use tls::authorities;
pub use watch::{Reload, Watcher, load};

use crate::names::{Namespace, ObjectName, Secret};
use crate::promql;

/// A whole checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What needs a restart.
    pub fixed: Fixed,
    /// What does not.
    pub live: Live,
}

/// Settings that are read once: sockets, and the server behind us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// `listen`: where we listen.
    pub listen: Listen,
    /// `perses.url`: the server behind us, an origin such as `http://127.0.0.1:8081`.
    pub perses_url: Origin,
    /// `perses.api_prefix`: empty, or a path such as `/perses`.
    pub api_prefix: String,
}

/// `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// `listen.gateway`, default `0.0.0.0:8080`.
    pub gateway: SocketAddr,
    /// `listen.gateway_tls`: whether that port speaks TLS, default false.
    pub gateway_tls: bool,
    /// `listen.https`, default off.
    pub https: Option<SocketAddr>,
    /// `listen.admin`, default `0.0.0.0:9081`.
    pub admin: SocketAddr,
    /// `listen.control`, default `127.0.0.1:9901`.
    pub control: Control,
    /// `listen.trusted_proxies`: addresses or CIDR blocks that may set the client's address.
    pub trusted_proxies: Vec<Cidr>,
}

/// `listen.control`: where operators of this pod reach us, and nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// An address of the loopback.
    Loopback(SocketAddr),
    /// `unix:PATH`: a socket in the file system, for whoever may write to its folder and is us.
    Unix(PathBuf),
}

impl Control {
    /// `127.0.0.1:9901`
    pub const DEFAULT: Self =
        Self::Loopback(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9901));

    /// Reads `ADDRESS:PORT` of the loopback, or `unix:PATH` with a path from the root.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            // The system takes 108 bytes with the zero at their end, and a new socket has its name with 4 bytes more first.
            return match path.as_os_str().len() {
                ..=103 if path.is_absolute() && path.file_name().is_some() => Ok(Self::Unix(path)),
                ..=103 => Err(format!("expected a path from the root such as unix:/run/perses/control, not {text:?}")),
                _ => Err("the path is longer than the 103 bytes that a socket may have".to_owned()),
            };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Loopback(address)),
            Ok(_) => Err(format!("{text:?} can be reached from elsewhere; use the loopback or unix:PATH")),
            Err(_) => Err(format!("expected 127.0.0.1:9901, [::1]:9901 or unix:PATH, not {text:?}")),
        }
    }
}

impl std::fmt::Display for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loopback(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Its first address.
    pub address: std::net::IpAddr,
    /// How many leading bits are fixed.
    pub prefix: u8,
}

impl Cidr {
    /// Whether an address lies in the block.
    #[must_use]
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        match (self.address, address.to_canonical()) {
            (V4(ours), V4(theirs)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                ours.to_bits() & mask == theirs.to_bits() & mask
            }
            (V6(ours), V6(theirs)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                ours.to_bits() & mask == theirs.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// Scheme, host and port of a server we speak to, with an optional base path; written without a trailing `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether to speak TLS.
    pub tls: bool,
    /// Host name or address, lower case, IPv6 in brackets.
    pub host: String,
    /// Port, always written out.
    pub port: u16,
    /// Empty, or a path that begins with `/` and does not end with one.
    pub base: String,
}

impl Origin {
    /// Reads an absolute `http` or `https` URL without user, query or fragment.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        units::origin(text)
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.base)
    }
}

/// Settings that a reload may change.
#[derive(Clone, Debug)]
pub struct Live {
    /// `tls`: certificate and policy of our TLS ports.
    pub tls: Option<Tls>,
    /// `cluster`: the Kubernetes API.
    pub cluster: Cluster,
    /// `login.external_url`: where people reach us.
    pub external_url: Option<String>,
    /// `login`: how people log in, if they do.
    pub login: Option<Arc<Login>>,
    /// `login.frame_ancestors`: origins that may show our pages and the UI in a frame.
    pub frame_ancestors: Vec<String>,
    /// `login.contact`: whom to ask for rights, in words for people; may be empty.
    pub contact: String,
    /// `access`.
    pub access: Access,
    /// `metrics_backends`, by name.
    pub backends: Vec<Arc<Backend>>,
    /// `limits`.
    pub limits: Limits,
    /// `telemetry`.
    pub telemetry: Telemetry,
    /// `audit`.
    pub audit: Audit,
}

/// `tls`: what our TLS ports offer, built when the configuration is checked from `tls.certificate_file`, `tls.key_file` and
/// `tls.profile`.
#[derive(Clone, Debug)]
pub struct Tls {
    /// For new connections; those that stand keep what they began with.
    pub server: Arc<rustls::ServerConfig>,
}

/// `cluster`: the Kubernetes API. All of it defaults to what a pod finds in its own file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `cluster.url`, default from `KUBERNETES_SERVICE_HOST` and `_PORT`.
    pub url: Origin,
    /// The PEM text of `cluster.ca_file`, in which there is an authority that can be used.
    pub ca: Vec<u8>,
    /// `cluster.token_file`: our own credential, read anew for every client that is built.
    pub token_file: PathBuf,
    /// `cluster.timeout`, default 5 s: one review.
    pub timeout: Duration,
    /// `cluster.reviews_in_flight`, default 64: how many requests we have open at the API server at most.
    pub in_flight: usize,
    /// `cluster.reviews_per_second`, default 500: and how many we begin in a second.
    pub per_second: u32,
}

/// `access`: who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `access.audiences`: further audiences a token may be meant for.
    pub audiences: Vec<String>,
    /// `access.narrow_to_project`: confine a query to the project in its path, default false.
    pub narrow_to_project: bool,
    /// `access.all_metrics`: the right that lifts confinement.
    pub all_metrics: Permission,
    /// `access.projects`: stored projects that are no namespace, and the namespace whose rights decide.
    pub projects: BTreeMap<ObjectName, Namespace>,
    /// `access.token_ttl`, default 60 s.
    pub token_ttl: Duration,
    /// `access.token_failure_ttl`, default 5 s.
    pub token_failure_ttl: Duration,
    /// `access.allow_ttl`, default 60 s.
    pub allow_ttl: Duration,
    /// `access.deny_ttl`, default 10 s.
    pub deny_ttl: Duration,
    /// `access.namespaces_ttl`, default 60 s.
    pub namespaces_ttl: Duration,
    /// `access.jwt_check`: whether a JWT is looked at here before the API server is asked about it, default false.
    pub jwt_check: bool,
    /// `access.jwt_audiences`: what the API server calls itself, if not as it calls its issuer.
    pub jwt_audiences: Vec<String>,
}

/// Resource attributes of an access review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// API group.
    pub group: String,
    /// Resource.
    pub resource: String,
    /// Subresource, may be empty.
    pub subresource: String,
    /// Object name, may be empty.
    pub name: String,
    /// Namespace, empty for the cluster.
    pub namespace: String,
    /// Verb.
    pub verb: String,
}

/// Which API a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// Prometheus itself.
    Prometheus,
    /// Thanos Query.
    Thanos,
}

/// One of `metrics_backends`.
#[derive(Clone, Debug)]
pub struct Backend {
    /// `name`, for settings, logs and metrics.
    pub name: String,
    /// `kind`.
    pub kind: BackendKind,
    /// `url`: what we ask.
    pub url: Origin,
    /// `also_urls`: further spellings that datasources may use for the same server.
    pub also_urls: Vec<Origin>,
    /// `label` and `labels`: which label names the owner of a series.
    pub labels: Arc<promql::Labels>,
    /// `experimental`: whether the backend knows PromQL's experimental parts.
    pub features: promql::Features,
    /// `datasource`: show the backend as a virtual global datasource.
    pub datasource: Option<VirtualDatasource>,
    /// The contents of `token_file`: our credential there.
    pub token: Option<Secret>,
    /// The PEM text of `ca_file`: whom to believe there; default the system's.
    pub ca: Option<Vec<u8>>,
    /// `parameters`: sent with every query, such as `partial_response: "false"`.
    pub parameters: BTreeMap<String, String>,
    /// `timeout`, default 60 s: the whole answer.
    pub timeout: Duration,
    /// `retention`, default 30 d: how far a range or offset may look.
    pub retention: Duration,
    /// `evaluation_interval`, default 1 min: the step of a subquery that names none.
    pub evaluation_interval: Duration,
}

/// `datasource` of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualDatasource {
    /// `name`.
    pub name: ObjectName,
    /// `default`.
    pub default: bool,
}

/// `limits`: the bounds on everything from outside. [`Limits::default`] is what a file without them means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `limits.connections`, default 4096: open at once, over all listeners.
    pub connections: usize,
    /// `limits.streams`, default 100: of one h2 connection.
    pub streams: u32,
    /// `limits.first_byte`, default 10 s: until a new connection has said something.
    pub first_byte: Duration,
    /// `limits.handshake`, default 10 s: until TLS stands.
    pub handshake: Duration,
    /// `limits.header`, default 10 s: until a request head is complete.
    pub header: Duration,
    /// `limits.idle`, default 90 s: a kept connection without a request.
    pub idle: Duration,
    /// `limits.total`, default 5 min: one request, its answer included.
    pub total: Duration,
    /// `limits.drain`, default 25 s: after SIGTERM.
    pub drain: Duration,
    /// `limits.header_bytes`, default 64 KiB: a request head.
    pub header_bytes: usize,
    /// `limits.headers`, default 100: lines in it.
    pub headers: usize,
    /// `limits.body`, default 4 MiB: what a client may send to Perses.
    pub body: usize,
    /// `limits.query_body`, default 256 KiB: what a client may send with a query.
    pub query_body: usize,
    /// `limits.answer`, default 64 MiB: what an upstream may answer.
    pub answer: usize,
    /// `limits.perses_timeout`, default 30 s: one answer of Perses.
    pub perses_timeout: Duration,
    /// `limits.upstream_connections`, default 64: kept idle to one upstream.
    pub upstream_connections: usize,
    /// `limits.namespaces`, default 2000: reviewed one by one for a caller.
    pub namespaces: usize,
    /// `limits.cached_reviews`, default 10,000: entries in each review cache.
    pub cached_reviews: u64,
    /// `limits.query_points`, default 11,000: steps of a range request.
    pub query_points: u64,
    /// `limits.migrations`, default 2: migrate and validate calls at once.
    pub migrations: usize,
    /// `limits.logins`, default 64: logins that are being finished at once; more wait for their turn.
    pub logins: usize,
    /// The bounds of PromQL text: `limits.query_text`, `.query_depth`, `.query_operators`, `.query_selectors`,
    /// `.query_tokens`, `.confined_query`, `.subquery_steps`.
    pub promql: promql::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            streams: 100,
            first_byte: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(90),
            total: Duration::from_secs(300),
            drain: Duration::from_secs(25),
            header_bytes: 64 << 10,
            headers: 100,
            body: 4 << 20,
            query_body: 256 << 10,
            answer: 64 << 20,
            perses_timeout: Duration::from_secs(30),
            upstream_connections: 64,
            namespaces: 2000,
            cached_reviews: 10_000,
            query_points: 11_000,
            migrations: 2,
            logins: 64,
            promql: promql::Limits::default(),
        }
    }
}

/// `telemetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// `telemetry.log_level`, default `info`; the command line's `--log-level` wins.
    pub log_level: LogLevel,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are tracing's own")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `audit`: where audit lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audit {
    /// `audit: {stream: stdout}`, the default.
    Stdout,
    /// `audit: {file: PATH}`, appended.
    File(PathBuf),
    /// `audit: {stream: off}`.
    Off,
}

#[cfg(test)]
mod tests;
