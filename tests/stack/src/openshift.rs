//! A stand-in for OpenShift: token reviews, access reviews over RBAC, projects and namespaces, and beside the API an OAuth
//! server with pages for people, on TLS.
//!
//! It behaves as the API server does where the product can see it, counts what it was asked, and can be told to fail.

mod accounts;
mod oauth;
mod objects;
mod own;
mod rbac;
mod remote;
mod reviews;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub use oauth::{Discovery, Grant, OAuthClient, Route};
use rbac::{Binding, Rbac};

use crate::http::Https;
pub use rbac::{Rule, Subject, Who};
use serve::Face;

/// The audience of tokens that say nothing else.
const API: &str = "https://kubernetes.default.svc";

/// The names in the OAuth server's certificate.
const ROUTED: [&str; 3] = ["127.0.0.1", "localhost", "oauth-openshift.apps.test"];

/// The service account of the sidecar.
pub const SIDECAR: &str = "system:serviceaccount:perses:perses-sidecar";

/// An endpoint that can be counted and told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the words are the API's own")]
pub enum Endpoint {
    TokenReviews,
    AccessReviews,
    Projects,
    Namespaces,
    /// Reviews of rights in one namespace, of one's own, and of all that one may do.
    OtherReviews,
    /// Reviews of rights in OpenShift's older words.
    OlderReviews,
    /// TokenRequest of service accounts.
    TokenRequests,
    /// `/.well-known/openid-configuration` and `/openid/v1/jwks`
    Issuer,
    /// `users/~`
    Users,
    SelfReviews,
    /// `oauthaccesstokens` and `useroauthaccesstokens`
    AccessTokens,
    /// `/.well-known/oauth-authorization-server`
    Discovery,
    Authorize,
    Token,
    /// Where an API server has the tokens of the OAuth server reviewed.
    Webhook,
    /// `/apis` and what lies one below: which kinds are served.
    Apis,
    /// Lists of workloads.
    WorkloadLists,
    /// Watches of workloads, as they begin.
    WorkloadWatches,
}

/// How an endpoint fails.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status and body.
    Status(u16, String),
    /// 429 with this many seconds in `Retry-After`.
    TooMany(u64),
    /// The answer comes late.
    Slow(Duration),
    /// The connection is closed without an answer.
    Reset,
    /// `allowed` and `denied` at once.
    Contradiction,
    /// The API group does not exist, as on plain Kubernetes.
    Missing,
    /// Anything at all.
    Raw {
        /// Status.
        status: u16,
        /// `Content-Type`
        kind: String,
        /// Body.
        body: String,
    },
    /// 302 to somewhere else.
    Redirect(String),
    /// JSON that ends within a token.
    Truncated,
}

#[derive(Clone, Debug)]
struct Token {
    user: String,
    /// Who it was given to; empty for those that no client asked for.
    client: String,
    expires: Option<SystemTime>,
    scopes: Vec<String>,
    audiences: Vec<String>,
    /// When it was presented last.
    seen: SystemTime,
    /// After how long without being presented it ends.
    idle: Option<Duration>,
}

#[derive(Default)]
struct State {
    namespaces: BTreeSet<String>,
    groups: BTreeMap<String, Vec<String>>,
    tokens: BTreeMap<String, Token>,
    rbac: Rbac,
    faults: BTreeMap<Endpoint, Fault>,
    counts: BTreeMap<Option<Endpoint>, u64>,
    last_bodies: BTreeMap<Endpoint, Vec<u8>>,
    advance: Duration,
    oauth: oauth::Oauth,
    objects: objects::Objects,
    keys: accounts::Keys,
    /// The real API server, if there is one.
    behind: Option<Arc<Https>>,
}

impl State {
    fn now(&self) -> SystemTime {
        SystemTime::now() + self.advance
    }
}

/// A handle to the state of the stand-in.
#[derive(Clone, Default)]
pub struct Cluster(Arc<Mutex<State>>);

impl Cluster {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn behind(&self) -> Option<Arc<Https>> {
        self.state().behind.clone()
    }

    /// One more namespace.
    pub fn add_namespace(&self, name: &str) {
        self.state().namespaces.insert(name.to_owned());
    }

    /// One less; its bindings go with it.
    pub fn remove_namespace(&self, name: &str) {
        let mut state = self.state();
        state.namespaces.remove(name);
        state.rbac.bindings.retain(|binding| binding.namespace.as_deref() != Some(name));
    }

    /// A person with their groups.
    pub fn add_user(&self, name: &str, groups: &[&str]) {
        self.state().groups.insert(name.to_owned(), groups.iter().map(|group| (*group).to_owned()).collect());
    }

    /// A person's full token.
    #[must_use]
    pub fn issue_token(&self, user: &str) -> String {
        self.issue_scoped_token(user, &["user:full"], None)
    }

    /// A person's token with scopes and a lifetime.
    #[must_use]
    pub fn issue_scoped_token(&self, user: &str, scopes: &[&str], lifetime: Option<Duration>) -> String {
        let mut state = self.state();
        let token = state.oauth.mint("sha256~", 43);
        let now = state.now();
        let record = Token {
            user: user.to_owned(),
            client: String::new(),
            expires: lifetime.map(|lifetime| now + lifetime),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            audiences: Vec::new(),
            seen: now,
            idle: None,
        };
        state.tokens.insert(token.clone(), record);
        token
    }

    /// Takes any text for a person's token, as an API server that believes an external provider does.
    pub fn adopt_token(&self, text: &str, user: &str, lifetime: Option<Duration>) {
        let mut state = self.state();
        let now = state.now();
        let record = Token {
            user: user.to_owned(),
            client: String::new(),
            expires: lifetime.map(|lifetime| now + lifetime),
            scopes: Vec::new(),
            audiences: Vec::new(),
            seen: now,
            idle: None,
        };
        state.tokens.insert(text.to_owned(), record);
    }

    /// A service account's token, meant for these audiences; for the API server's own if there are none, and then without
    /// an end, as one that lies in a Secret.
    #[must_use]
    pub fn service_account_token(&self, namespace: &str, name: &str, audiences: &[&str]) -> String {
        let audiences: Vec<String> = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        accounts::issue(&mut self.state(), namespace, name, &audiences, None)
    }

    /// A service account's token for the API server that ends `seconds` from now, which may be negative.
    #[must_use]
    pub fn service_account_token_ending(&self, namespace: &str, name: &str, seconds: i64) -> String {
        let mut state = self.state();
        let span = Duration::from_secs(seconds.unsigned_abs());
        let expires = if seconds < 0 { state.now() - span } else { state.now() + span };
        accounts::issue(&mut state, namespace, name, &[], Some(expires))
    }

    /// Tokens of service accounts are signed with another key from now on; the one before stays published.
    pub fn rotate_account_keys(&self) {
        self.state().keys.rotate();
    }

    /// Deletes a service account with its tokens.
    pub fn remove_account(&self, namespace: &str, name: &str) {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let mut state = self.state();
        state.tokens.retain(|_, token| token.user != user);
        state.groups.remove(&user);
    }

    /// Deletes a token.
    pub fn revoke_token(&self, token: &str) {
        self.state().tokens.remove(token);
    }

    /// Binds a cluster role to a user in a namespace.
    pub fn bind_role(&self, namespace: &str, user: &str, role: &str) {
        self.bind(Some(namespace), Subject::User(user.to_owned()), role);
    }

    /// Takes such a binding away.
    pub fn unbind_role(&self, namespace: &str, user: &str, role: &str) {
        self.unbind(Some(namespace), Subject::User(user.to_owned()), role);
    }

    /// Binds a cluster role to a user everywhere.
    pub fn bind_cluster_role(&self, user: &str, role: &str) {
        self.bind(None, Subject::User(user.to_owned()), role);
    }

    /// Binds a cluster role to a user or group, in a namespace or everywhere.
    pub fn bind(&self, namespace: Option<&str>, subject: Subject, role: &str) {
        let binding = Binding { namespace: namespace.map(str::to_owned), subject, role: role.to_owned() };
        self.state().rbac.bindings.push(binding);
    }

    /// Takes such a binding away.
    pub fn unbind(&self, namespace: Option<&str>, subject: Subject, role: &str) {
        let gone = Binding { namespace: namespace.map(str::to_owned), subject, role: role.to_owned() };
        self.state().rbac.bindings.retain(|binding| *binding != gone);
    }

    /// Adds a cluster role.
    pub fn add_role(&self, name: &str, rules: Vec<Rule>) {
        self.state().rbac.roles.insert(name.to_owned(), rules);
    }

    /// How often an endpoint was asked.
    #[must_use]
    pub fn count(&self, endpoint: Endpoint) -> u64 {
        self.state().counts.get(&Some(endpoint)).copied().unwrap_or_default()
    }

    /// How often each endpoint was asked, and under `None` all that has no name here.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Option<Endpoint>, u64> {
        self.state().counts.clone()
    }

    /// The last body that an endpoint was sent.
    #[must_use]
    pub fn last_body(&self, endpoint: Endpoint) -> Vec<u8> {
        self.state().last_bodies.get(&endpoint).cloned().unwrap_or_default()
    }

    /// Makes an endpoint fail, or work again.
    pub fn set_fault(&self, endpoint: Endpoint, fault: Option<Fault>) {
        let mut state = self.state();
        match fault {
            Some(fault) => state.faults.insert(endpoint, fault),
            None => state.faults.remove(&endpoint),
        };
    }

    /// Lets time pass for tokens, codes and logins.
    pub fn advance(&self, time: Duration) {
        self.state().advance += time;
    }
}

/// The OAuth server.
impl Cluster {
    /// Lets somebody log in.
    pub fn set_password(&self, user: &str, password: &str) {
        let mut state = self.state();
        state.oauth.keep(password);
        state.oauth.passwords.insert(user.to_owned(), password.to_owned());
    }

    /// An annotation of a service account, such as `serviceaccounts.openshift.io/oauth-redirecturi.x`.
    pub fn annotate_account(&self, namespace: &str, name: &str, key: &str, value: &str) {
        let id = format!("system:serviceaccount:{namespace}:{name}");
        self.state().oauth.annotations.entry(id).or_default().insert(key.to_owned(), value.to_owned());
    }

    /// A route that such an annotation may point at.
    pub fn add_route(&self, namespace: &str, name: &str, route: Route) {
        self.state().oauth.routes.insert((namespace.to_owned(), name.to_owned()), route);
    }

    /// A client that an administrator makes.
    pub fn add_client(&self, id: &str, client: OAuthClient) {
        let mut state = self.state();
        state.oauth.keep(&client.secret);
        state.oauth.clients.insert(id.to_owned(), client);
    }

    /// What service accounts get as clients.
    pub fn set_grant(&self, grant: Grant) {
        self.state().oauth.grant = grant;
    }

    /// What the API server says about its OAuth server.
    pub fn set_discovery(&self, discovery: Discovery) {
        self.state().oauth.discovery = discovery;
    }

    /// How long new tokens live: a day at first. `Some(0)` is for ever and says so, `None` is for ever and says nothing.
    pub fn set_token_lifetime(&self, seconds: Option<u64>) {
        self.state().oauth.lifetime = seconds;
    }

    /// How long new tokens live without being presented; at least 300 s, as on a real cluster.
    pub fn set_inactivity(&self, idle: Option<Duration>) {
        self.state().oauth.idle = idle.map(|idle| idle.max(Duration::from_secs(300)));
    }

    /// A place elsewhere that may follow a logout.
    pub fn set_console(&self, url: &str) {
        self.state().oauth.console = Some(url.to_owned());
    }

    /// Every secret that was made here: passwords, clients' secrets, tokens, codes, logins.
    #[must_use]
    pub fn minted(&self) -> Vec<String> {
        self.state().oauth.minted.clone()
    }

    /// The living tokens of somebody that a client asked for.
    #[must_use]
    pub fn tokens_of(&self, user: &str) -> Vec<String> {
        let state = self.state();
        let own = |token: &Token| token.user == user && !token.client.is_empty();
        state.tokens.iter().filter(|(_, token)| own(token)).map(|(text, _)| text.clone()).collect()
    }

    /// The name of a token's object.
    #[must_use]
    pub fn token_name(token: &str) -> String {
        own::name(token)
    }

    /// What somebody gets who logs in and approves: the address with the code, for the query of an authorize request.
    #[must_use]
    pub fn log_in(&self, user: &str, query: &str) -> Option<String> {
        let mut state = self.state();
        let now = state.now();
        oauth::straight(&mut state, user, query, now)
    }
}

/// The OAuth server behind the cluster's routers: what it shows, and where its authority is published.
#[derive(Clone)]
struct Routed {
    cluster: Cluster,
    certificate: serve::Shown,
    ca_file: PathBuf,
}

impl Routed {
    fn publish(&self, certificates: &Certificates) -> io::Result<()> {
        self.cluster.state().oauth.authority.clone_from(&certificates.ca);
        std::fs::write(&self.ca_file, &certificates.ca)
    }

    fn rotate_authority(&self) -> io::Result<()> {
        let certificates = Certificates::make(&ROUTED)?;
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = certificates.server_config()?;
        self.publish(&certificates)
    }

    /// Gives the new address.
    async fn move_away(&self) -> io::Result<String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let issuer = format!("https://127.0.0.1:{}", listener.local_addr()?.port());
        self.cluster.state().oauth.issuer.clone_from(&issuer);
        tokio::spawn(serve::serve(listener, Arc::clone(&self.certificate), self.cluster.clone(), Face::Oauth));
        Ok(issuer)
    }
}

/// A running stand-in; it stops when dropped.
pub struct OpenShift {
    url: String,
    folder: PathBuf,
    cluster: Cluster,
    routed: Routed,
    remote: String,
    tasks: [tokio::task::JoinHandle<()>; 3],
}

impl OpenShift {
    /// Starts on a free port of the loopback, with a certificate authority of its own, and writes `ca.crt` and `token` (the
    /// sidecar's) into `folder`.
    ///
    /// # Errors
    /// When a file cannot be written or no port is free.
    pub async fn start(folder: &Path) -> io::Result<Self> {
        Self::begin(folder, None).await
    }

    /// Starts before a real API server, whose authority is `ca`, in PEM: it answers what OpenShift adds, and forwards the
    /// rest.
    ///
    /// # Errors
    /// As above.
    pub async fn start_before(folder: &Path, url: &str, ca: &str) -> io::Result<Self> {
        Self::begin(folder, Some(Https::new(url, ca)?)).await
    }

    async fn begin(folder: &Path, behind: Option<Https>) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let cluster = Cluster::default();
        cluster.state().behind = behind.map(Arc::new);
        {
            let mut state = cluster.state();
            state.rbac = Rbac::stock();
            state.oauth.lifetime = Some(86_400);
        }
        cluster.add_namespace("perses");
        let token = cluster.service_account_token("perses", "perses-sidecar", &[]);
        cluster.bind_cluster_role(SIDECAR, "system:auth-delegator");
        cluster.bind_cluster_role(SIDECAR, "namespace-reader");
        cluster.bind_cluster_role(SIDECAR, "workload-reader");
        std::fs::write(folder.join("token"), &token)?;
        let certificates = Certificates::make(&["127.0.0.1", "localhost", "kubernetes.default.svc"])?;
        std::fs::write(folder.join("ca.crt"), &certificates.ca)?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://127.0.0.1:{}", listener.local_addr()?.port());
        let config = Arc::new(Mutex::new(certificates.server_config()?));
        let api = tokio::spawn(serve::serve(listener, config, cluster.clone(), Face::Api));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let issuer = format!("https://127.0.0.1:{}", listener.local_addr()?.port());
        let certificates = Certificates::make(&ROUTED)?;
        let oauth_certificate = Arc::new(Mutex::new(certificates.server_config()?));
        let shown = Arc::clone(&oauth_certificate);
        let oauth = tokio::spawn(serve::serve(listener, shown, cluster.clone(), Face::Oauth));
        cluster.state().oauth.issuer = issuer;
        let ca_file = folder.join("oauth-ca.crt");
        let routed = Routed { cluster: cluster.clone(), certificate: oauth_certificate, ca_file };
        routed.publish(&certificates)?;
        let (remote, control) = remote::serve(routed.clone()).await?;
        let tasks = [api, oauth, control];
        Ok(Self { url, folder: folder.to_owned(), cluster, routed, remote, tasks })
    }

    /// Where another process may change the state.
    #[must_use]
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// Whether the API says that people log in here.
    #[must_use]
    pub fn lets_in(&self) -> bool {
        self.cluster.state().oauth.document().is_some()
    }

    /// `https://127.0.0.1:PORT` of the OAuth server.
    #[must_use]
    pub fn oauth_url(&self) -> String {
        self.cluster.state().oauth.issuer.clone()
    }

    /// The file of the authority of the OAuth server, which stands behind the cluster's routers.
    #[must_use]
    pub fn oauth_ca_file(&self) -> PathBuf {
        self.routed.ca_file.clone()
    }

    /// Gives the OAuth server a certificate of another authority, and publishes that.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn rotate_oauth_authority(&self) -> io::Result<()> {
        self.routed.rotate_authority()
    }

    /// The OAuth server also answers on another port, which the API names from now on.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn move_oauth(&self) -> io::Result<()> {
        self.routed.move_away().await.map(drop)
    }

    /// `https://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default()
    }

    /// The same cluster on another port, with a certificate of another authority; gives the port and the authority.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_again(&self) -> io::Result<(u16, String)> {
        let certificates = Certificates::make(&["127.0.0.1"])?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let shown = Arc::new(Mutex::new(certificates.server_config()?));
        tokio::spawn(serve::serve(listener, shown, self.cluster.clone(), Face::Api));
        Ok((port, certificates.ca))
    }

    /// The certificate authority's file.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The sidecar's token's file.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.folder.join("token")
    }

    /// The state.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for OpenShift {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// A certificate authority and a certificate of it, in PEM.
pub struct Certificates {
    /// The authority.
    pub ca: String,
    /// The chain.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Certificates {
    /// Makes both for these names.
    ///
    /// # Errors
    /// When the library refuses.
    pub fn make(names: &[&str]) -> io::Result<Self> {
        let mut params = rcgen::CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // Two authorities must not have one name.
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("stand-in {}", random_text(8)));
        let ca_key = rcgen::KeyPair::generate().map_err(io::Error::other)?;
        let ca = params.self_signed(&ca_key).map_err(io::Error::other)?;
        let issuer = rcgen::Issuer::new(params, ca_key);
        let key = rcgen::KeyPair::generate().map_err(io::Error::other)?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let leaf = rcgen::CertificateParams::new(names).map_err(io::Error::other)?;
        let leaf = leaf.signed_by(&key, &issuer).map_err(io::Error::other)?;
        Ok(Self { ca: ca.pem(), certificate: leaf.pem(), key: key.serialize_pem() })
    }

    /// The TLS side of a server with this certificate.
    ///
    /// # Errors
    /// When it cannot be read back.
    pub fn server_config(&self) -> io::Result<Arc<rustls::ServerConfig>> {
        use rustls_pki_types::pem::PemObject;
        let chain = rustls_pki_types::CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)?;
        let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Letters and digits that nobody guesses within a test.
#[must_use]
pub fn random_text(length: usize) -> String {
    use std::hash::{BuildHasher, Hasher};
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..length)
        .map(|_| {
            let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
            char::from(LETTERS[usize::try_from(random % 62).unwrap_or_default()])
        })
        .collect()
}
