//! `ctl`: asks a running sidecar over its control listener, and prints what it says for people, or as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config;

/// The variable that says where the control listener is, where the flag does not.
const VARIABLE: &str = "PERSES_SIDECAR_CONTROL";
/// Everything has its answer in this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// And within these bytes.
const LARGEST: usize = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct Ctl {
    /// The sidecar's `listen.control`: ADDRESS:PORT or unix:PATH [default: PERSES_SIDECAR_CONTROL, or 127.0.0.1:9901]
    #[arg(long, value_name = "WHERE", global = true)]
    control: Option<String>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The settings in use, with defaults and without secrets, and what is wrong with a newer file.
    Config,
}

/// Why there is nothing to print.
#[derive(Debug)]
pub(super) enum Failed {
    /// The command line is wrong.
    Input(String),
    /// The work failed.
    Work(String),
}

/// What is to be printed.
pub(super) fn run(ctl: &Ctl) -> Result<String, Failed> {
    let place = match ctl.control.clone().or_else(|| std::env::var(VARIABLE).ok()) {
        Some(text) => {
            config::Control::parse(&text).map_err(|message| Failed::Input(format!("--control: {message}")))?
        }
        None => config::Control::DEFAULT,
    };
    let (method, path, body) = match &ctl.what {
        What::Config => (Method::GET, "/config", None),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::Work(format!("no runtime: {error}")))?;
    let asked = async {
        tokio::time::timeout(PATIENCE, ask(&place, method, path, body))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
    };
    let answer: Value = runtime.block_on(asked).map_err(|cause| {
        Failed::Work(format!("{place}: {cause}; name the sidecar's listen.control by --control or {VARIABLE}"))
    })?;
    if ctl.json {
        return Ok(format!("{answer:#}\n"));
    }
    Ok(match &ctl.what {
        What::Config => config_text(&answer),
    })
}

async fn ask(place: &config::Control, method: Method, path: &str, body: Option<Value>) -> Result<Value, String> {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    match place {
        config::Control::Loopback(address) => {
            let stream = TcpStream::connect(address).await.map_err(|error| format!("cannot be reached: {error}"))?;
            exchange(stream, request).await
        }
        config::Control::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| format!("cannot be reached: {error}"))?;
            exchange(stream, request).await
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Value, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broke = |error: hyper::Error| format!("speaks no HTTP: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(broke)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|error| error.to_string())?.to_bytes();
    let value: Value = serde_json::from_slice(&body).map_err(|_| format!("answered {status} and no JSON"))?;
    if status.is_success() {
        return Ok(value);
    }
    Err(value["message"].as_str().map_or_else(|| format!("answered {status}"), str::to_owned))
}

fn config_text(answer: &Value) -> String {
    let mut out = String::new();
    let word = |key: &str| answer[key].as_str().unwrap_or_default();
    let _ = writeln!(out, "# perses-sidecar {} (commit {})", word("version"), word("commit"));
    for line in word("problem").lines() {
        let _ = writeln!(out, "# {line}");
    }
    out.push_str(word("yaml"));
    out
}
