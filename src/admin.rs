//! The admin port: alive, ready, metrics, and the moved probes of Perses. Nothing else, and nothing about anybody.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::listen::{Handler, Peer};
use crate::telemetry::metrics::Metrics;

/// One thing that must hold before we are ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its word.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What an operator should know.
    pub detail: String,
}

/// Something that is asked when a probe comes.
pub type Asked<T> = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync>;

/// The admin port.
#[derive(Clone)]
pub struct Admin {
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// What must hold before we are ready.
    pub checks: Asked<Vec<Check>>,
    /// Whether Perses answers what kubelet asked under a word; `None` for words that are not known.
    pub perses: Probed,
}

/// Something that is asked under a word.
pub type Probed = Arc<dyn Fn(&str) -> Option<Pin<Box<dyn Future<Output = bool> + Send>>> + Send + Sync>;

impl Handler for Admin {
    type Body = Full<Bytes>;

    async fn call(&self, request: Request<Incoming>, _: Peer) -> Response<Full<Bytes>> {
        self.answer(request.method(), request.uri().path()).await
    }
}

impl Admin {
    /// Answers one probe.
    pub async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        // A probe that is made is not begun before it is awaited.
        let probe = path.strip_prefix("/-/upstream/").and_then(|word| (self.perses)(word));
        if probe.is_none() && !["/healthz", "/readyz", "/metrics"].contains(&path) {
            return text(StatusCode::NOT_FOUND, "not found\n".to_owned());
        }
        if *method != Method::GET && *method != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned());
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let mut response = match path {
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => {
                let checks = (self.checks)().await;
                let status =
                    if checks.iter().all(|check| check.ok) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                let word = |check: &Check| if check.ok { "ok" } else { "failed" };
                text(
                    status,
                    checks.iter().map(|check| format!("{} {}: {}\n", check.name, word(check), check.detail)).collect(),
                )
            }
            "/metrics" => {
                let mut response = text(StatusCode::OK, self.metrics.encode());
                let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(openmetrics));
                response
            }
            _ => {
                let answers = match probe {
                    Some(probe) => probe.await,
                    None => false,
                };
                if answers {
                    text(StatusCode::OK, "ok\n".to_owned())
                } else {
                    text(StatusCode::SERVICE_UNAVAILABLE, "Perses does not answer\n".to_owned())
                }
            }
        };
        if *method == Method::HEAD {
            *response.body_mut() = Full::default();
        }
        response
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn admin(ok: bool) -> Admin {
        Admin {
            metrics: Arc::new(Metrics::new()),
            checks: Arc::new(move || {
                Box::pin(async move { vec![Check { name: "config", ok, detail: "in use".to_owned() }] })
            }),
            perses: Arc::new(move |word| match word {
                "live" | "ready" => Some(Box::pin(async move { ok })),
                _ => None,
            }),
        }
    }

    async fn ask(admin: &Admin, method: Method, path: &str) -> (u16, String) {
        let response = admin.answer(&method, path).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn probes_tell_the_truth_and_nothing_else_is_there() {
        assert_eq!(ask(&admin(false), Method::GET, "/healthz").await, (200, "ok\n".to_owned()));
        assert_eq!(ask(&admin(true), Method::GET, "/readyz").await, (200, "config ok: in use\n".to_owned()));
        assert_eq!(ask(&admin(false), Method::GET, "/readyz").await.0, 503);
        assert_eq!(ask(&admin(true), Method::GET, "/-/upstream/live").await.0, 200);
        assert_eq!(ask(&admin(false), Method::GET, "/-/upstream/ready").await.0, 503);
        assert!(ask(&admin(true), Method::GET, "/metrics").await.1.contains("build_info"));
        assert_eq!(ask(&admin(true), Method::POST, "/metrics").await.0, 405);
        for path in ["/", "/debug/pprof", "/api/config", "/metrics/", "/healthz/x", "/-/upstream/", "/-/upstream/x"] {
            assert_eq!(ask(&admin(true), Method::GET, path).await.0, 404, "{path}");
        }
    }
}
