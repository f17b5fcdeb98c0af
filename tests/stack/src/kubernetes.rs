//! A real cluster as far as the product can see it: etcd, kube-apiserver, and of the controllers those that fill the
//! stock roles by aggregation and empty a deleted namespace.

mod token;

pub(crate) use token::plain;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ground::PEOPLE;
use crate::http::{Answer, Https};
use crate::openshift::{Certificates, OpenShift, Rule, SIDECAR, Subject, random_text};
use crate::secrets;
use crate::servers::{self, Server};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// What Debian calls etcd, wherever it puts it.
fn etcd() -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("etcd"))
        .find(|file| file.exists())
        .ok_or_else(|| io::Error::other("etcd is missing: install the package etcd-server"))
}

/// A running cluster; it stops when dropped.
pub struct Kubernetes {
    url: String,
    folder: PathBuf,
    /// What stands before it.
    front: Option<OpenShift>,
    admin: Admin,
    /// Signs the tokens of service accounts.
    key: rcgen::KeyPair,
    /// Of people, by name.
    tokens: Vec<(&'static str, String)>,
    // In the order in which they are stopped.
    controllers: Server,
    server: Server,
    /// How the API server is started.
    start: StartServer,
    _etcd: Server,
    _data: Scratch,
}

/// The API server's program and what it is told.
struct StartServer {
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
}

impl StartServer {
    fn start(&self) -> io::Result<Server> {
        Server::start(&self.program, &self.arguments, &self.log, &[])
    }
}

/// A folder that goes with this value: etcd's files are large and tell nothing afterwards.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Kubernetes {
    /// Starts everything on free ports of the loopback, with a certificate authority of its own, applies our manifest
    /// as it is shipped, and writes `ca.crt` and `token` (the sidecar's) into `folder`.
    ///
    /// `with_login` puts the stand-in before it: the stand-in answers what OpenShift adds to the API, forwards the rest, and
    /// reviews the tokens of its own OAuth server when the API server asks. An external provider can be named later, by
    /// [`Self::believe`].
    ///
    /// # Errors
    /// When something cannot be built or started; the text says what.
    pub async fn start(folder: &Path, with_login: bool, say: &dyn Fn(&str)) -> io::Result<Self> {
        let etcd = etcd()?;
        let program = servers::binary("kube-apiserver", servers::KUBERNETES, say)?;
        let controllers = servers::binary("kube-controller-manager", servers::KUBERNETES, say)?;
        fs::create_dir_all(folder)?;
        let (etcd, etcd_url) = start_etcd(&etcd, folder).await?;
        let admin_token = format!("sha256~{}", random_text(43));
        let tokens: Vec<(&str, String)> =
            PEOPLE.iter().map(|(name, _)| (*name, format!("sha256~{}", random_text(43)))).collect();
        let mut file = format!("{admin_token},stack,uid-stack,\"system:masters\"\n");
        for ((name, groups), (_, token)) in PEOPLE.iter().zip(&tokens) {
            file.push_str(&format!("{token},{name},uid-{name},\"{}\"\n", groups.join(",")));
        }
        fs::write(folder.join("tokens.csv"), file)?;
        let port = servers::free_port()?;
        let url = format!("https://127.0.0.1:{port}");
        let (ca, key) = write_certificates(folder)?;
        let mut more = Vec::new();
        let mut front = None;
        if with_login {
            let stand_in = OpenShift::start_before(&folder.join("front"), &url, &ca).await?;
            for (name, groups) in PEOPLE {
                stand_in.cluster().add_user(name, groups);
            }
            more = reviewed_by(&stand_in, folder)?;
            front = Some(stand_in);
        }
        let start = start_server(&program, &etcd_url, port, folder, &more);
        let server = start.start()?;
        let admin = Admin { https: Https::new(&url, &ca)?, token: admin_token.clone() };
        admin.ready(&server).await?;
        let fixed = ["clusterrole-aggregation-controller", "namespace-controller"];
        let controllers = start_controllers(&controllers, &url, &admin_token, folder, &fixed)?;
        let cluster = Self {
            url,
            folder: folder.to_owned(),
            front,
            admin,
            key,
            tokens,
            controllers,
            server,
            start,
            _etcd: etcd,
            _data: Scratch(folder.join("etcd")),
        };
        cluster.furnish().await?;
        Ok(cluster)
    }

    /// What an administrator does before the sidecar can work.
    async fn furnish(&self) -> io::Result<()> {
        self.add_namespace("perses").await?;
        for file in ["roles/roles.yaml", "components/tenant/binding.yaml"] {
            let manifest = fs::read_to_string(servers::checkout().join("manifests").join(file))?;
            for document in manifest.split("\n---\n") {
                let kind = document.lines().find_map(|line| line.strip_prefix("kind: ")).unwrap_or_default();
                let path = format!("{RBAC}/{}s", kind.to_lowercase());
                self.admin.done("POST", &path, "application/yaml", document.to_owned()).await?;
            }
        }
        // Every OpenShift has this role, and every Kubernetes with a metrics server: who views a namespace reads its
        // metrics.
        let labels = ["view", "edit", "admin"]
            .map(|role| (format!("rbac.authorization.k8s.io/aggregate-to-{role}"), json!("true")));
        let labels: serde_json::Map<String, Value> = labels.into_iter().collect();
        let read = ["get", "list", "watch"];
        let rule = json!({ "apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": read });
        let metadata = json!({ "name": "system:aggregated-metrics-reader", "labels": labels });
        self.admin.post(&format!("{RBAC}/clusterroles"), &json!({ "metadata": metadata, "rules": [rule] })).await?;
        let token = self.account_token("perses", "perses-sidecar", &[]).await?;
        fs::write(self.folder.join("token"), &token)?;
        if let Some(front) = &self.front {
            front.cluster().adopt_token(&token, SIDECAR, None);
        }
        self.aggregated().await
    }

    /// Waits until the stock roles hold their rules.
    async fn aggregated(&self) -> io::Result<()> {
        let began = Instant::now();
        loop {
            let mut filled = true;
            for role in ["view", "edit", "admin"] {
                let role = self.admin.done("GET", &format!("{RBAC}/clusterroles/{role}"), "", String::new()).await?;
                let rules = role.json()["rules"].to_string();
                filled &=
                    ["\"pods/log\"", "\"perses.dev\"", "\"metrics.k8s.io\""].iter().all(|word| rules.contains(word));
            }
            if filled {
                return Ok(());
            }
            if began.elapsed() > Duration::from_secs(30) {
                return Err(io::Error::other(format!(
                    "the stock roles were not filled within 30 s:\n{}",
                    self.controllers.output()
                )));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// `https://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> &str {
        self.front.as_ref().map_or(&self.url, OpenShift::url)
    }

    /// What stands before it, if people can log in.
    #[must_use]
    pub fn front(&self) -> Option<&OpenShift> {
        self.front.as_ref()
    }

    /// The authority of whoever answers at [`Self::url`].
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.front.as_ref().map_or_else(|| self.folder.join("ca.crt"), OpenShift::ca_file)
    }

    /// Lets the API server believe an external OpenID provider from now on; it reads the file again by itself.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn believe(&self, issuer: &str, authority: &str, audience: &str) -> io::Result<()> {
        fs::write(self.folder.join("authentication.yaml"), believing(Some((issuer, authority, audience))))
    }

    /// Where `ca.crt` and `token` are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The API server's process.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Kills the API server, which leaves nobody a word.
    pub fn kill_server(&self) {
        self.server.signal("KILL");
    }

    /// Starts it again, where it was and with what it knew; with a certificate of a new authority, which the same file
    /// names, if that is wanted.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_server_again(&mut self, with_new_authority: bool) -> io::Result<()> {
        if with_new_authority {
            let certificates = Certificates::make(&["127.0.0.1", "localhost", "kubernetes.default.svc"])?;
            fs::write(self.folder.join("server.crt"), &certificates.certificate)?;
            fs::write(self.folder.join("server.key"), &certificates.key)?;
            fs::write(self.folder.join("ca.crt"), &certificates.ca)?;
            self.admin.https = Https::new(&self.url, &certificates.ca)?;
        }
        let began = Instant::now();
        loop {
            self.server = self.start.start()?;
            match self.admin.ready(&self.server).await {
                // Somebody else has the port for a moment, or the server before has it still.
                Err(error)
                    if error.to_string().contains("address already in use")
                        && began.elapsed() < Duration::from_secs(20) =>
                {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Runs further controllers of Kubernetes, such as `statefulset-controller`, until they are dropped.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn run_controllers(&self, names: &[&str]) -> io::Result<Server> {
        let program = servers::binary("kube-controller-manager", servers::KUBERNETES, &|_| {})?;
        start_controllers(&program, &self.url, &self.admin.token, &self.folder, names)
    }

    /// Serves the kind of an object, as a CRD without a schema does, and stores the object with its status.
    ///
    /// # Errors
    /// As the API server says.
    pub async fn put_object(&self, object: &Value) -> io::Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (api, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (group, version) = api.split_once('/').unwrap_or_default();
        let plural = kind.to_lowercase() + "s";
        let list = format!("/apis/{api}/namespaces/{}/{plural}", text(&object["metadata"]["namespace"]));
        if self.admin.send("GET", &format!("{list}?limit=1"), "", String::new()).await?.status == 404 {
            self.serve(group, version, &plural, &kind).await?;
        }
        let one = format!("{list}/{}", text(&object["metadata"]["name"]));
        let known = self.admin.send("GET", &one, "", String::new()).await?;
        if known.status == 404 {
            return self.admin.post(&list, object).await.map(drop);
        }
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = known.json()["metadata"]["resourceVersion"].clone();
        self.admin.done("PUT", &one, "application/json", object.to_string()).await.map(drop)
    }

    async fn serve(&self, group: &str, version: &str, plural: &str, kind: &str) -> io::Result<()> {
        let schema = json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
        let names = json!({ "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List") });
        let body = json!({
            "metadata": { "name": format!("{plural}.{group}") },
            "spec": {
                "group": group, "scope": "Namespaced", "names": names,
                "versions": [{ "name": version, "served": true, "storage": true, "schema": schema }],
            },
        });
        self.admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &body).await?;
        for _ in 0..300 {
            let path = format!("/apis/{group}/{version}/{plural}?limit=1");
            if self.admin.send("GET", &path, "", String::new()).await?.status == 200 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(io::Error::other(format!("{plural}.{group} is not served within 30 s")))
    }

    /// The token of one of [`PEOPLE`].
    #[must_use]
    pub fn token(&self, name: &str) -> &str {
        self.tokens.iter().find(|(known, _)| *known == name).map_or("", |(_, token)| token)
    }

    /// Anything, as an administrator: JSON, or YAML as `kind` says.
    ///
    /// # Errors
    /// When there is no answer; what it says is the caller's to judge.
    pub async fn ask(&self, method: &str, path: &str, kind: &str, body: String) -> io::Result<Answer> {
        self.admin.send(method, path, kind, body).await
    }

    /// One more namespace.
    ///
    /// # Errors
    /// As the API server says; so for all of these.
    pub async fn add_namespace(&self, name: &str) -> io::Result<()> {
        self.admin.post("/api/v1/namespaces", &json!({ "metadata": { "name": name } })).await.map(drop)
    }

    /// Deletes a namespace and waits until it is gone with everything in it.
    ///
    /// # Errors
    /// As above, or after half a minute.
    pub async fn remove_namespace(&self, name: &str) -> io::Result<()> {
        let path = format!("/api/v1/namespaces/{name}");
        self.admin.done("DELETE", &path, "", String::new()).await?;
        for _ in 0..300 {
            if self.admin.send("GET", &path, "", String::new()).await?.status == 404 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(io::Error::other(format!("namespace {name} did not go away within 30 s")))
    }

    /// Binds a cluster role, in a namespace or everywhere.
    ///
    /// # Errors
    /// As above.
    pub async fn bind(&self, namespace: Option<&str>, subject: &Subject, role: &str) -> io::Result<()> {
        let (kind, name) = match subject {
            Subject::User(name) => ("User", name),
            Subject::Group(name) => ("Group", name),
        };
        let body = json!({
            "metadata": { "name": binding_name(subject, role) },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name }],
        });
        self.admin.post(&bindings(namespace), &body).await.map(drop)
    }

    /// Takes such a binding away.
    ///
    /// # Errors
    /// As above.
    pub async fn unbind(&self, namespace: Option<&str>, subject: &Subject, role: &str) -> io::Result<()> {
        let path = format!("{}/{}", bindings(namespace), binding_name(subject, role));
        self.admin.done("DELETE", &path, "", String::new()).await.map(drop)
    }

    /// Adds a cluster role.
    ///
    /// # Errors
    /// As above.
    pub async fn add_role(&self, name: &str, rules: &[Rule]) -> io::Result<()> {
        let rules: Vec<Value> = rules
            .iter()
            .map(|rule| {
                json!({ "apiGroups": rule.groups, "resources": rule.resources, "verbs": rule.verbs,
                        "resourceNames": rule.names, "nonResourceURLs": rule.paths })
            })
            .collect();
        let body = json!({ "metadata": { "name": name }, "rules": rules });
        self.admin.post(&format!("{RBAC}/clusterroles"), &body).await.map(drop)
    }

    /// A service account's token by TokenRequest, meant for these audiences; for the API server's own if there are
    /// none. The account is made when there is none.
    ///
    /// # Errors
    /// As above.
    pub async fn account_token(&self, namespace: &str, name: &str, audiences: &[&str]) -> io::Result<String> {
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let made =
            self.admin.send("POST", &accounts, "application/json", json!({ "metadata": { "name": name } }).to_string());
        let made = made.await?;
        if !matches!(made.status, 201 | 409) {
            return Err(io::Error::other(format!("{accounts}: {} {}", made.status, made.text())));
        }
        let body = json!({ "spec": { "audiences": audiences, "expirationSeconds": 3600 } });
        let answer = self.admin.post(&format!("{accounts}/{name}/token"), &body).await?;
        let token = answer.json()["status"]["token"].as_str().map(str::to_owned);
        let token = token.ok_or_else(|| io::Error::other(format!("no token: {}", answer.text())))?;
        secrets::note(&token);
        Ok(token)
    }

    /// Such a token that ends `seconds` from now, which may be negative.
    ///
    /// # Errors
    /// As above.
    pub async fn account_token_ending(&self, namespace: &str, name: &str, seconds: i64) -> io::Result<String> {
        let token = token::ending_in(&self.account_token(namespace, name, &[]).await?, seconds, &self.key)?;
        secrets::note(&token);
        Ok(token)
    }

    /// Deletes a service account; its tokens end.
    ///
    /// # Errors
    /// As above.
    pub async fn remove_account(&self, namespace: &str, name: &str) -> io::Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}");
        self.admin.done("DELETE", &path, "", String::new()).await.map(drop)
    }
}

fn bindings(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("{RBAC}/namespaces/{namespace}/rolebindings"),
        None => format!("{RBAC}/clusterrolebindings"),
    }
}

fn binding_name(subject: &Subject, role: &str) -> String {
    let (Subject::User(name) | Subject::Group(name)) = subject;
    format!("{name}:{role}")
}

/// The authority, and the key of service accounts' tokens.
fn write_certificates(folder: &Path) -> io::Result<(String, rcgen::KeyPair)> {
    let certificates = Certificates::make(&["127.0.0.1", "localhost", "kubernetes.default.svc"])?;
    fs::write(folder.join("ca.crt"), &certificates.ca)?;
    fs::write(folder.join("server.crt"), &certificates.certificate)?;
    fs::write(folder.join("server.key"), &certificates.key)?;
    let key = rcgen::KeyPair::generate().map_err(io::Error::other)?;
    fs::write(folder.join("accounts.key"), key.serialize_pem())?;
    fs::write(folder.join("accounts.pub"), key.public_key_pem())?;
    Ok((certificates.ca, key))
}

async fn start_etcd(program: &Path, folder: &Path) -> io::Result<(Server, String)> {
    let [client, peer] = [servers::free_port()?, servers::free_port()?].map(|port| format!("http://127.0.0.1:{port}"));
    let arguments = [
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--logger=zap".to_owned(),
    ];
    let server = Server::start(program, &arguments, &folder.join("etcd.log"), &[])?;
    server.ready(&format!("{client}/health"), Duration::from_secs(30)).await?;
    Ok((server, client))
}

/// Whom the API server believes besides its own accounts and its token file, in the words of its structured
/// configuration. As on OpenShift, names come without a prefix.
fn believing(provider: Option<(&str, &str, &str)>) -> String {
    let jwt = provider.map(|(issuer, authority, audience)| {
        json!({
            "issuer": { "url": issuer, "audiences": [audience], "certificateAuthority": authority },
            "claimMappings": {
                "username": { "claim": "preferred_username", "prefix": "" },
                "groups": { "claim": "groups", "prefix": "" },
            },
        })
    });
    let jwt: Vec<Value> = jwt.into_iter().collect();
    json!({ "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": jwt }).to_string()
}

/// The flags of an API server that lets the stand-in review the tokens it does not know, as OpenShift's does. Verdicts are
/// not remembered, so that the tests see what is deleted at once.
fn reviewed_by(stand_in: &OpenShift, folder: &Path) -> io::Result<Vec<String>> {
    let reviewer = stand_in.cluster().service_account_token("openshift-oauth-apiserver", "reviewer", &[]);
    stand_in
        .cluster()
        .bind_cluster_role("system:serviceaccount:openshift-oauth-apiserver:reviewer", "system:auth-delegator");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "webhook",
        "clusters": [{ "name": "webhook", "cluster": {
            "server": format!("{}/apis/oauth.openshift.io/v1/tokenreviews", stand_in.url()),
            "certificate-authority": stand_in.ca_file() } }],
        "users": [{ "name": "webhook", "user": { "token": reviewer } }],
        "contexts": [{ "name": "webhook", "context": { "cluster": "webhook", "user": "webhook" } }],
    });
    let file = |name: &str| folder.join(name);
    fs::write(file("webhook.kubeconfig"), text.to_string())?;
    fs::write(file("authentication.yaml"), believing(None))?;
    Ok(vec![
        format!("--authentication-token-webhook-config-file={}", file("webhook.kubeconfig").display()),
        "--authentication-token-webhook-version=v1".to_owned(),
        "--authentication-token-webhook-cache-ttl=0s".to_owned(),
        format!("--authentication-config={}", file("authentication.yaml").display()),
    ])
}

fn start_server(program: &Path, etcd: &str, port: u16, folder: &Path, more: &[String]) -> StartServer {
    let file = |name: &str| folder.join(name).display().to_string();
    let arguments = [
        format!("--etcd-servers={etcd}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--cert-dir={}", file("certificates")),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!("--service-account-signing-key-file={}", file("accounts.key")),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        // Nothing runs pods here.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ];
    let arguments = [&arguments[..], more].concat();
    StartServer { program: program.to_owned(), arguments, log: folder.join("kube-apiserver.log") }
}

fn start_controllers(program: &Path, url: &str, token: &str, folder: &Path, names: &[&str]) -> io::Result<Server> {
    let kubeconfig = folder.join("kubeconfig");
    let ca = folder.join("ca.crt");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "stack",
        "clusters": [{ "name": "stack", "cluster": { "server": url, "certificate-authority": ca } }],
        "users": [{ "name": "stack", "user": { "token": token } }],
        "contexts": [{ "name": "stack", "context": { "cluster": "stack", "user": "stack" } }],
    });
    fs::write(&kubeconfig, text.to_string())?;
    let arguments = [
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--controllers={}", names.join(",")),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", servers::free_port()?),
        format!("--cert-dir={}", folder.join("certificates").display()),
        "--authentication-skip-lookup=true".to_owned(),
    ];
    Server::start(program, &arguments, &folder.join(format!("{}.log", names[0])), &[])
}

/// Asks the API server as its first administrator.
struct Admin {
    https: Https,
    token: String,
}

impl Admin {
    async fn send(&self, method: &str, path: &str, kind: &str, body: String) -> io::Result<Answer> {
        self.https.send(method, path, &self.token, kind, body).await
    }

    /// As [`Self::send`], and anything but success is an error.
    async fn done(&self, method: &str, path: &str, kind: &str, body: String) -> io::Result<Answer> {
        let answer = self.send(method, path, kind, body).await?;
        if matches!(answer.status, 200..=202) {
            return Ok(answer);
        }
        Err(io::Error::other(format!("{method} {path}: {} {}", answer.status, answer.text())))
    }

    async fn post(&self, path: &str, body: &Value) -> io::Result<Answer> {
        self.done("POST", path, "application/json", body.to_string()).await
    }

    async fn ready(&self, server: &Server) -> io::Result<()> {
        let began = Instant::now();
        loop {
            if self.send("GET", "/readyz", "", String::new()).await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if !server.is_running() || began.elapsed() > Duration::from_secs(60) {
                let output = server.output();
                let tail: Vec<&str> = output.lines().rev().take(12).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                return Err(io::Error::other(format!("the API server did not become ready:\n{}", tail.join("\n"))));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
