//! A metrics backend that knows every time: it answers a range query with as many series as the query's text says, and the
//! same bytes for the same times. It counts what it is asked.

use std::fmt::Write as _;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Six hours at a minute, long past: 83 KB of nine series and 1.2 MB of 132.
pub(crate) const SMALL: &str =
    "query=sum%28rate%28series_9%5B5m%5D%29%29+by+%28pod%29&start=1767600000&end=1767621600&step=60";
pub(crate) const LARGE: &str =
    "query=sum%28rate%28series_132%5B5m%5D%29%29+by+%28pod%29&start=1767600000&end=1767621600&step=60";

const VECTOR: &str = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"namespace":"team-a","job":"api"},"value":[1767607200,"1"]},{"metric":{"namespace":"team-a","job":"web"},"value":[1767607200,"1"]}]}}"#;

/// Serves on a port of its own; there is no datasource and no dashboard behind any other path.
pub(crate) async fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let service = service_fn(answer);
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    port
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let mut form = String::from_utf8(body.collect().await?.to_bytes().to_vec()).unwrap_or_default();
    if let Some(query) = head.uri.query() {
        form = format!("{query}&{form}");
    }
    let (status, text) = match head.uri.path() {
        path if path.ends_with("/api/v1/query_range") => (200, matrix(&form)),
        path if path.ends_with("/api/v1/query") => (200, VECTOR.to_owned()),
        // No stored datasource: the backend shows itself as one.
        path if path.contains("globaldatasources") => (404, r#"{"message":"document not found"}"#.to_owned()),
        _ => (200, "[]".to_owned()),
    };
    let answer = Response::builder().status(status).header("content-type", "application/json");
    Ok(answer.body(Full::new(Bytes::from(text))).unwrap())
}

fn matrix(form: &str) -> String {
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
    let number = |name: &str| field(name).parse::<f64>().unwrap();
    let (start, end, step) = (number("start") as u64, number("end") as u64, number("step") as u64);
    let digits = field("query").split("series_").nth(1).unwrap_or("1");
    let count: u64 = digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().unwrap();
    let mut text = String::from(r#"{"status":"success","data":{"resultType":"matrix","result":["#);
    for series in 0..count {
        let comma = if series == 0 { "" } else { "," };
        let _ = write!(text, r#"{comma}{{"metric":{{"namespace":"team-a","pod":"server-{series:04}"}},"values":["#);
        let mut time = start;
        while time <= end {
            let comma = if time == start { "" } else { "," };
            let value = (time / 15).wrapping_mul(7_919).wrapping_add(series * 104_729) % 9_000_000 + 1_000_000;
            let _ = write!(text, r#"{comma}[{time},"{}.{:05}"]"#, value / 100_000, value % 100_000);
            time += step;
        }
        text.push_str("]}");
    }
    text.push_str("]}}");
    text
}

/// The least that can be done with the same libraries: hyper reads the request with its body and answers what was read from
/// `FILE`. It looks at nothing.
pub(crate) async fn alone(port: u16, file: &str) {
    let body = Bytes::from(std::fs::read(file).unwrap());
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let body = body.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let body = body.clone();
                async move {
                    request.into_body().collect().await?;
                    let answer = Response::builder().header("content-type", "application/json");
                    Ok::<_, hyper::Error>(answer.body(Full::new(body)).unwrap())
                }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}
