//! The stand-in's state in the hands of another process: plain HTTP on the loopback, for tests in other languages.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{Discovery, Endpoint, Fault, Grant, Routed};
use crate::encoding::pairs;

/// Longer than any client of the tests waits.
const HANGS: Duration = Duration::from_secs(600);

/// `POST /-/stand-in/WHAT?…`; gives the address.
///
/// # Errors
/// When no port is free.
pub(super) async fn serve(routed: Routed) -> io::Result<(String, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let Ok((socket, _)) = listener.accept().await else { continue };
            let routed = routed.clone();
            connections.spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let routed = routed.clone();
                    async move {
                        let (done, text) = obey(&routed, &request).await;
                        Response::builder().status(if done { 200 } else { 400 }).body(Full::new(Bytes::from(text)))
                    }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    Ok((url, task))
}

fn done() -> (bool, String) {
    (true, String::new())
}

/// Whether it was understood, and what there is to say.
async fn obey(routed: &Routed, request: &Request<Incoming>) -> (bool, String) {
    let cluster = &routed.cluster;
    let pairs = pairs(request.uri().query().unwrap_or_default());
    let get = |name: &str| pairs.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
    let seconds = Duration::from_secs(get("seconds").parse().unwrap_or_default());
    match request.uri().path().strip_prefix("/-/stand-in/").unwrap_or_default() {
        "advance" => cluster.advance(seconds),
        "revoke" => cluster.tokens_of(get("user")).iter().for_each(|token| cluster.revoke_token(token)),
        "tokens" => return (true, cluster.tokens_of(get("user")).len().to_string()),
        "bind" => cluster.bind_role(get("namespace"), get("user"), get("role")),
        "unbind" => cluster.unbind_role(get("namespace"), get("user"), get("role")),
        "put" => cluster.put_object(serde_json::json!({
            "apiVersion": get("api"), "kind": get("kind"),
            "metadata": { "name": get("name"), "namespace": get("namespace") }, "spec": {},
        })),
        "authority" => return routed.rotate_authority().map_or_else(|error| (false, error.to_string()), |()| done()),
        "move" => return routed.move_away().await.map_or_else(|error| (false, error.to_string()), |to| (true, to)),
        "keys" => cluster.rotate_account_keys(),
        "lifetime" => cluster.set_token_lifetime(get("seconds").parse().ok()),
        "inactivity" => cluster.set_inactivity((!get("seconds").is_empty()).then_some(seconds)),
        "grant" => cluster.set_grant(match get("to") {
            "prompt" => Grant::Prompt,
            "deny" => Grant::Deny,
            _ => Grant::Auto,
        }),
        "discovery" => cluster.set_discovery(match get("to") {
            "missing" => Discovery::Missing,
            _ => Discovery::Present,
        }),
        "fault" => {
            let endpoint = match get("at") {
                "token" => Endpoint::Token,
                "authorize" => Endpoint::Authorize,
                "discovery" => Endpoint::Discovery,
                "tokenreviews" => Endpoint::TokenReviews,
                _ => return (false, "no such endpoint".to_owned()),
            };
            let raw = |status: u16| Fault::Raw { status, kind: get("kind").to_owned(), body: get("body").to_owned() };
            cluster.set_fault(
                endpoint,
                match get("how") {
                    "hang" => Some(Fault::Slow(HANGS)),
                    "reset" => Some(Fault::Reset),
                    "truncated" => Some(Fault::Truncated),
                    "redirect" => Some(Fault::Redirect(get("to").to_owned())),
                    _ => get("status").parse().ok().map(raw),
                },
            );
        }
        _ => return (false, "nothing is called so".to_owned()),
    }
    done()
}
