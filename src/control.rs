//! The control listener: what an operator of this very pod may see and do. It has no credentials of its own, so it listens
//! on the loopback or on a socket in the file system, and answers nobody who comes by way of a browser.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::cache::Purge;
use crate::config;
use crate::listen::{Handler, Listener, Peer};
use crate::query::{Explain, Queries};

/// The largest question.
const LARGEST: usize = 64 << 10;
/// The largest with a query in it.
const LARGEST_QUERY: usize = 1 << 20;

/// The configuration in use, for whoever asks what it is.
#[derive(Debug)]
pub struct InUse {
    /// All settings with their defaults, as YAML; no secrets.
    pub effective: String,
}

/// The control listener.
#[derive(Clone)]
pub struct Control {
    /// What is in use.
    pub config: watch::Receiver<Arc<InUse>>,
    /// What answers queries, as of the configuration in use.
    pub queries: Arc<dyn Fn() -> Arc<Queries> + Send + Sync>,
    /// What is wrong with the newest file, or what waits for a restart; empty when all of it is in use.
    pub problem: watch::Receiver<String>,
}

impl Handler for Control {
    type Body = Full<Bytes>;

    async fn call(&self, request: Request<Incoming>, _: Peer) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        match Asked::read(&head.method, &head.uri, &head.headers) {
            Err(refusal) => *refusal,
            Ok(Asked::Config) => self.config(),
            Ok(Asked::Stats) => answer(StatusCode::OK, &json!((self.queries)().cache().stats())),
            Ok(Asked::Purge) => match Limited::new(body, LARGEST).collect().await {
                Err(_) => refuse(StatusCode::PAYLOAD_TOO_LARGE, "what is to be forgotten is said in 64 KiB"),
                Ok(body) => self.purge(&body.to_bytes()),
            },
            Ok(Asked::Explain) => match Limited::new(body, LARGEST_QUERY).collect().await {
                Err(_) => refuse(StatusCode::PAYLOAD_TOO_LARGE, "what is to be explained is said in 1 MiB"),
                Ok(body) => self.explain(&body.to_bytes()),
            },
        }
    }
}

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Config,
    Stats,
    Purge,
    Explain,
}

impl Asked {
    fn read(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Self, Box<Response<Full<Bytes>>>> {
        if !is_for_us(uri, headers) {
            let message =
                "only programs on the loopback are answered: the Host must be localhost or a loopback address";
            return Err(Box::new(refuse(StatusCode::FORBIDDEN, message)));
        }
        let (asked, allowed) = match uri.path() {
            "/config" => (Self::Config, Method::GET),
            "/cache/stats" => (Self::Stats, Method::GET),
            "/cache/purge" => (Self::Purge, Method::POST),
            "/cache/explain" => (Self::Explain, Method::POST),
            _ => {
                let message = "there are /config, /cache/stats, /cache/purge and /cache/explain";
                return Err(Box::new(refuse(StatusCode::NOT_FOUND, message)));
            }
        };
        if *method != allowed {
            let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, &format!("use {allowed}"));
            if let Ok(value) = HeaderValue::try_from(allowed.as_str()) {
                response.headers_mut().insert(header::ALLOW, value);
            }
            return Err(Box::new(response));
        }
        // A page can post any form across origins, but not this type.
        let json = |value: &HeaderValue| value.as_bytes().starts_with(b"application/json");
        if allowed == Method::POST && !headers.get(header::CONTENT_TYPE).is_some_and(json) {
            let message = "use Content-Type: application/json";
            return Err(Box::new(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)));
        }
        Ok(asked)
    }
}

impl Control {
    fn config(&self) -> Response<Full<Bytes>> {
        let config = Arc::clone(&self.config.borrow());
        let problem = self.problem.borrow().clone();
        let settings = config::as_json(&config.effective);
        answer(
            StatusCode::OK,
            &json!({ "version": env!("CARGO_PKG_VERSION"), "commit": crate::COMMIT, "problem": problem,
                "yaml": config.effective, "settings": settings }),
        )
    }

    /// An empty body says nothing, and to forget everything must be said: `{}`.
    fn purge(&self, body: &[u8]) -> Response<Full<Bytes>> {
        // A list would do for the type, and mean everything.
        let said = serde_json::from_slice::<serde_json::Map<String, Value>>(body);
        match said.and_then(|said| serde_json::from_value::<Purge>(said.into())) {
            Err(error) => refuse(StatusCode::BAD_REQUEST, &format!("what is to be forgotten: {error}")),
            Ok(purge) => {
                let purged = (self.queries)().cache().purge(&purge);
                tracing::info!(?purge, entries = purged.entries, "An operator made the cache forget");
                answer(StatusCode::OK, &json!(purged))
            }
        }
    }

    /// Asks nothing of anybody and changes nothing.
    fn explain(&self, body: &[u8]) -> Response<Full<Bytes>> {
        let said = serde_json::from_slice::<serde_json::Map<String, Value>>(body);
        match said.and_then(|said| serde_json::from_value::<Explain>(said.into())) {
            Err(error) => refuse(StatusCode::BAD_REQUEST, &format!("what is to be explained: {error}")),
            Ok(explain) => match (self.queries)().explain(&explain) {
                Ok(explained) => answer(StatusCode::OK, &json!(explained)),
                Err(refusal) => refuse(refusal.status(), refusal.message()),
            },
        }
    }
}

/// A page in somebody's browser can send requests to the loopback too. It says so by `Origin` or `Sec-Fetch-Site`, and if it
/// came by a name that was pointed at the loopback, by that name.
fn is_for_us(uri: &Uri, headers: &HeaderMap) -> bool {
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return false;
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next(), uri.authority()) {
        (Some(host), None, None) => host.to_str().ok().and_then(|host| host.parse().ok()),
        (None, None, Some(authority)) => Some(authority.clone()),
        (Some(host), None, Some(authority)) if host.as_bytes() == authority.as_str().as_bytes() => {
            Some(authority.clone())
        }
        _ => None,
    };
    let Some(host): Option<http::uri::Authority> = host else { return false };
    if host.as_str().contains('@') {
        return false;
    }
    let bare = host.host().trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn refuse(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    answer(status, &json!({ "message": message }))
}

fn answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Listens where `listen.control` says.
///
/// # Errors
/// What kept it from listening, for a person.
pub async fn bind(place: &config::Control) -> Result<Listener, String> {
    let fail =
        |error: io::Error, advice: &str| Err(format!("listen.control: {place} cannot be listened on: {error}{advice}"));
    match place {
        config::Control::Loopback(address) => match TcpListener::bind(address).await {
            Ok(listener) => Ok(listener.into()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                fail(error, "; stop what listens there, or choose another port or unix:PATH")
            }
            Err(error) => fail(error, ""),
        },
        config::Control::Unix(path) => match socket(path).await {
            Ok(listener) => Ok(listener.into()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => fail(error, "; stop what listens there"),
            Err(error) => fail(error, "; its folder must exist and be writable"),
        },
    }
}

/// A socket that only our own user may open from its first moment on. One that is left over is replaced, one that answers is
/// not, and neither is anything else of that name.
async fn socket(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket has this name"));
        }
        Ok(_) if tokio::net::UnixStream::connect(path).await.is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) | Err(_) => {}
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        match Asked::read(&head.method, &head.uri, &head.headers) {
            Ok(_) => 200,
            Err(refusal) => refusal.status().as_u16(),
        }
    }

    #[test]
    fn only_programs_on_the_loopback_are_answered() {
        for host in ["localhost", "LOCALHOST:9901", "127.0.0.1:9901", "127.9.9.9", "[::1]", "[::1]:9901"] {
            assert_eq!(ask("GET", "/config", &[("host", host)]), 200, "{host}");
            assert_eq!(ask("GET", "/config", &[("host", host), ("origin", "null")]), 403, "{host}");
            assert_eq!(ask("GET", "/config", &[("host", host), ("sec-fetch-site", "none")]), 403, "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "10.0.0.1", "0.0.0.0", "[::]", "a@localhost", "127.0.0.1.x"]
        {
            assert_eq!(ask("GET", "/config", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(ask("GET", "/config", &[]), 403, "no host");
        assert_eq!(ask("GET", "/config", &[("host", "localhost"), ("host", "evil.example")]), 403, "two hosts");
        assert_eq!(ask("GET", "http://evil.example/config", &[("host", "localhost")]), 403, "two names");
        assert_eq!(ask("GET", "http://localhost/config", &[]), 200, "as h2 names it");
        assert_eq!(ask("POST", "/config", &[("host", "localhost")]), 405);
        assert_eq!(ask("GET", "/metrics", &[("host", "localhost")]), 404);
        assert_eq!(ask("GET", "/cache/purge", &[("host", "localhost")]), 405);
        assert_eq!(ask("GET", "/cache/explain", &[("host", "localhost")]), 405);
        assert_eq!(ask("POST", "/cache/explain", &[("host", "localhost")]), 415);
        assert_eq!(ask("POST", "/cache/purge", &[("host", "localhost")]), 415);
        let form = ("content-type", "application/x-www-form-urlencoded");
        assert_eq!(ask("POST", "/cache/purge", &[("host", "localhost"), form]), 415, "as a page can send it");
        assert_eq!(ask("POST", "/cache/purge", &[("host", "localhost"), ("content-type", "application/json")]), 200);
    }

    #[tokio::test]
    async fn a_socket_is_ours_alone_and_replaces_only_one_that_is_left_over() {
        let folder = std::env::temp_dir().join(format!("control-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("socket");
        let place = config::Control::Unix(path.clone());
        let first = bind(&place).await.expect("a socket");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let error = bind(&place).await.expect_err("somebody listens");
        assert!(error.starts_with("listen.control: unix:/") && error.contains("stop what listens"), "{error}");
        drop(first);
        drop(bind(&place).await.expect("what is left over is replaced"));
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "mine").expect("written");
        let error = bind(&place).await.expect_err("a file");
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("kept"), "mine");
        std::fs::remove_dir_all(&folder).expect("removed");
        assert!(bind(&place).await.expect_err("no folder").contains("its folder must exist"));
    }
}
