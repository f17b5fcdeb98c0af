//! A small OpenID provider for tests: it hands out what it is told to, counts, and can be told to refuse.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use perses_sidecar::encoding::base64url;
use perses_sidecar_stack::openshift::{Certificates, Cluster, random_text};
use perses_sidecar_stack::secrets::note;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How its tokens are.
#[derive(Clone)]
pub struct Manner {
    /// Seconds that an ID token lasts.
    pub lasts: u64,
    /// Whether there is a refresh token.
    pub refreshes: bool,
    /// Bytes that are added to each ID token.
    pub padding: usize,
    /// How long the token endpoint takes.
    pub takes: Duration,
    /// What the token endpoint answers instead: status and body.
    pub instead: Option<(u16, String)>,
    /// What is changed in the claims.
    pub claims: Value,
}

impl Default for Manner {
    fn default() -> Self {
        Self { lasts: 300, refreshes: true, padding: 0, takes: Duration::ZERO, instead: None, claims: json!({}) }
    }
}

#[derive(Default)]
struct State {
    manner: Manner,
    /// Nonce and person of each code.
    codes: BTreeMap<String, (String, String)>,
    /// Person of each refresh token; used once.
    refresh: BTreeMap<String, String>,
    asked: BTreeMap<String, u64>,
    forms: Vec<String>,
    minted: Vec<String>,
}

pub struct Issuer {
    pub url: String,
    pub ca: String,
    state: Arc<Mutex<State>>,
    cluster: Arc<Mutex<Option<Cluster>>>,
}

impl Issuer {
    pub async fn start() -> Self {
        let certificates = Certificates::make(&["127.0.0.1"]).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(certificates.server_config().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let issuer = Self { url: url.clone(), ca: certificates.ca, state: Arc::default(), cluster: Arc::default() };
        let (state, cluster) = (Arc::clone(&issuer.state), Arc::clone(&issuer.cluster));
        tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let (acceptor, state, cluster, url) =
                    (acceptor.clone(), Arc::clone(&state), Arc::clone(&cluster), url.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (state, cluster, url) = (Arc::clone(&state), Arc::clone(&cluster), url.clone());
                        async move { Ok::<_, std::convert::Infallible>(answer(&state, &cluster, &url, request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        issuer
    }

    /// Whose API server believes its tokens.
    pub fn believed_by(&self, cluster: &Cluster) {
        *self.cluster.lock().unwrap() = Some(cluster.clone());
    }

    pub fn manner(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.state.lock().unwrap().manner);
    }

    /// A code for somebody, asked for by the query of an authorize request; gives where the browser is sent.
    pub fn log_in(&self, user: &str, query: &str) -> String {
        let part = |name: &str| {
            let text = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap_or_default();
            text.replace("%3A", ":").replace("%2F", "/")
        };
        let code = random_text(30);
        self.state.lock().unwrap().codes.insert(code.clone(), (part("nonce"), user.to_owned()));
        format!(
            "{}?code={code}&state={}&iss={}",
            part("redirect_uri"),
            part("state"),
            self.url.replace(':', "%3A").replace('/', "%2F")
        )
    }

    pub fn asked(&self, what: &str) -> u64 {
        self.state.lock().unwrap().asked.get(what).copied().unwrap_or_default()
    }

    pub fn last_form(&self) -> String {
        self.state.lock().unwrap().forms.last().cloned().unwrap_or_default()
    }

    pub fn minted(&self) -> Vec<String> {
        self.state.lock().unwrap().minted.clone()
    }
}

async fn answer(
    state: &Mutex<State>,
    cluster: &Mutex<Option<Cluster>>,
    url: &str,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let form = String::from_utf8_lossy(&body).into_owned();
    let reply = |status: u16, body: String| {
        let response = Response::builder().status(status).header("content-type", "application/json");
        response.body(Full::new(Bytes::from(body))).unwrap()
    };
    match head.uri.path() {
        "/.well-known/openid-configuration" => {
            *state.lock().unwrap().asked.entry("discovery".to_owned()).or_default() += 1;
            let document = json!({
                "issuer": url, "authorization_endpoint": format!("{url}/auth"), "token_endpoint": format!("{url}/token"),
                "end_session_endpoint": format!("{url}/end"), "jwks_uri": format!("{url}/jwks"),
            });
            reply(200, document.to_string())
        }
        "/token" => {
            let takes = state.lock().unwrap().manner.takes;
            tokio::time::sleep(takes).await;
            let mut state = state.lock().unwrap();
            let part = |name: &str| {
                form.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap_or_default().to_owned()
            };
            let grant = part("grant_type");
            *state.asked.entry(grant.clone()).or_default() += 1;
            let secret = head.headers.get("authorization").map_or("", |value| value.to_str().unwrap());
            state.forms.push(format!("{form} {secret}"));
            if let Some((status, body)) = state.manner.instead.clone() {
                return reply(status, body);
            }
            let known = match grant.as_str() {
                "authorization_code" => state.codes.remove(&part("code")),
                _ => state.refresh.remove(&part("refresh_token")).map(|user| (String::new(), user)),
            };
            let Some((nonce, user)) = known else { return reply(400, r#"{"error":"invalid_grant"}"#.to_owned()) };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let mut claims = json!({
                "iss": url, "sub": format!("sub-{user}"), "aud": "perses", "exp": now + state.manner.lasts, "iat": now,
                "jti": random_text(8), "padding": random_text(state.manner.padding),
            });
            if !nonce.is_empty() {
                claims["nonce"] = json!(nonce);
            }
            for (name, value) in state.manner.claims.as_object().unwrap() {
                claims[name] = value.clone();
            }
            let token = format!("e30.{}.{}", base64url(claims.to_string().as_bytes()), random_text(43));
            if let Some(cluster) = &*cluster.lock().unwrap() {
                cluster.adopt_token(&token, &user, Some(Duration::from_secs(state.manner.lasts)));
            }
            let mut tokens =
                json!({ "access_token": random_text(20), "token_type": "Bearer", "expires_in": 60, "id_token": token });
            if state.manner.refreshes {
                let refresh = random_text(40);
                state.refresh.insert(refresh.clone(), user);
                note(&refresh);
                state.minted.push(refresh.clone());
                tokens["refresh_token"] = json!(refresh);
            }
            note(&token);
            state.minted.push(token);
            reply(200, tokens.to_string())
        }
        _ => reply(404, "{}".to_owned()),
    }
}
