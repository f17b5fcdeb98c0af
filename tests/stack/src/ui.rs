//! Perses with a web UI: a Perses built from its Go module has none, so this stands before one, serves a folder as the UI
//! as Perses would, and forwards everything else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::http::Http;

/// What is Perses' own, whatever the UI is.
const FORWARDED: [&str; 4] = ["/api/", "/proxy/", "/plugins/", "/metrics"];

/// Gives the address.
///
/// # Errors
/// When no port is free.
pub(crate) async fn serve(perses: &str, folder: &Path) -> io::Result<(String, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (perses, folder): (Arc<str>, Arc<Path>) = (perses.into(), folder.into());
    let http = Http::default();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let Ok((socket, _)) = listener.accept().await else { continue };
            let (http, perses, folder) = (http.clone(), Arc::clone(&perses), Arc::clone(&folder));
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let (http, perses, folder) = (http.clone(), Arc::clone(&perses), Arc::clone(&folder));
                    async move { answer(&http, &perses, &folder, request).await }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    Ok((url, task))
}

async fn answer(
    http: &Http,
    perses: &str,
    folder: &Path,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if !FORWARDED.iter().any(|own| path.starts_with(own)) {
        return page(folder, path);
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let headers: Vec<(&str, &str)> = head
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "host" | "content-length" | "transfer-encoding" | "connection"))
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    let answer = http.send(head.method.as_str(), &format!("{perses}{target}"), &headers, &text).await?;
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = http::StatusCode::from_u16(answer.status).map_err(io::Error::other)?;
    *response.headers_mut() = answer.headers;
    response.headers_mut().remove("transfer-encoding");
    Ok(response)
}

/// A file of the folder, or its first page, which finds its way by the address.
fn page(folder: &Path, path: &str) -> io::Result<Response<Full<Bytes>>> {
    let name = path.trim_start_matches('/');
    let plain = !name.is_empty() && !name.contains('/') && !name.contains("..");
    let file: PathBuf = folder.join(if plain && folder.join(name).is_file() { name } else { "index.html" });
    let kind = match file.extension().and_then(|kind| kind.to_str()) {
        Some("js") => "text/javascript",
        Some("css") => "text/css",
        _ => "text/html; charset=utf-8",
    };
    let mut response = Response::new(Full::new(Bytes::from(std::fs::read(file)?)));
    response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    Ok(response)
}
