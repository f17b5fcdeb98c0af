//! Real sockets, short limits: each bound is felt, and a well-behaved client is not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;

#[derive(Clone)]
struct Echo(Duration);

impl Handler for Echo {
    type Body = Full<Bytes>;

    async fn call(&self, request: Request<Incoming>, _: Peer) -> Response<Full<Bytes>> {
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        tokio::time::sleep(self.0).await;
        Response::new(Full::new(if body.is_empty() { Bytes::from_static(b"hello") } else { body }))
    }
}

struct Server {
    address: SocketAddr,
    settings: channel::Sender<Settings>,
    stop: channel::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

async fn start(change: impl FnOnce(&mut config::Limits), delay: u64) -> Server {
    let mut limits = config::Limits {
        first_byte: Duration::from_millis(150),
        header: Duration::from_millis(250),
        idle: Duration::from_millis(400),
        drain: Duration::from_secs(2),
        ..config::Limits::default()
    };
    change(&mut limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = channel::channel(false);
    let shared = Shared::new((1, usize::MAX), Arc::default());
    let (settings, read) = channel::channel(Settings { limits: Arc::new(limits) });
    let echo = Echo(Duration::from_millis(delay));
    let task = tokio::spawn(serve(listener, None, read, shared, echo, stopped));
    Server { address, settings, stop, task }
}

async fn talk(address: SocketAddr, parts: &[(&[u8], u64)]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    for (bytes, wait) in parts {
        if socket.write_all(bytes).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(*wait)).await;
    }
    let mut answer = Vec::new();
    let _ =
        tokio::time::timeout(Duration::from_secs(2), socket.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn silence_and_slow_heads_are_cut() {
    let server = start(|_| {}, 0).await;
    let began = Instant::now();
    assert_eq!(talk(server.address, &[]).await, "", "nothing said, nothing answered");
    assert!(began.elapsed() < Duration::from_millis(350));
    assert_eq!(talk(server.address, &[(b"GET / HTTP/1.1\r\n", 120), (b"a: b\r\n", 120), (b"c: d\r\n", 120)]).await, "");
    assert!(talk(server.address, &[(b"GET / HTTP/1.1\r\n", 100), (b"host: x\r\n\r\n", 0)]).await.ends_with("hello"));
}

#[tokio::test]
async fn kept_connections_end_after_idling_and_not_before() {
    let server = start(|_| {}, 0).await;
    let answer = talk(server.address, &[(GET, 300), (GET, 300), (GET, 0)]).await;
    assert_eq!(answer.matches("hello").count(), 3, "{answer}");
}

#[tokio::test]
async fn a_slow_answer_is_not_idleness() {
    let server = start(|_| {}, 700).await;
    assert_eq!(talk(server.address, &[(GET, 0)]).await.matches("hello").count(), 1);
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = start(|limits| limits.headers = 10, 0).await;
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(20));
    assert!(talk(server.address, &[(many.as_bytes(), 0)]).await.starts_with("HTTP/1.1 431"));
    let server = start(|limits| limits.header_bytes = 8192, 0).await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "b".repeat(10_000));
    assert!(talk(server.address, &[(long.as_bytes(), 0)]).await.starts_with("HTTP/1.1 431"));
    assert!(talk(server.address, &[(b"GET / HTTP/1.1\nhost : x\r\n\r\n", 0)]).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn connections_are_bounded() {
    let server = start(|limits| limits.connections = 1, 0).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(GET).await.unwrap();
    let mut buffer = [0; 16];
    assert!(first.read(&mut buffer).await.unwrap() > 0);
    assert_eq!(talk(server.address, &[(GET, 0)]).await, "", "closed unheard");
    let raised = config::Limits { connections: 2, ..(*server.settings.borrow().limits).clone() };
    server.settings.send_replace(Settings { limits: Arc::new(raised) });
    assert!(talk(server.address, &[(GET, 0)]).await.contains("hello"), "the bound is that of now");
    drop(first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(talk(server.address, &[(GET, 0)]).await.contains("hello"), "room again");
}

#[tokio::test]
async fn what_has_begun_is_finished_on_stop() {
    let server = start(|_| {}, 300).await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    let asked = tokio::spawn(talk(server.address, &[(GET, 0)]));
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.send(true).unwrap();
    assert!(asked.await.unwrap().contains("hello"));
    tokio::time::timeout(Duration::from_secs(1), server.task).await.expect("drained").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    drop(idle);
}

#[tokio::test]
async fn a_large_answer_that_is_read_slowly_and_steadily_comes_whole() {
    // All of it is there at once, and reading it takes several times limits.idle.
    const SIZE: usize = 12 << 20;
    let server = start(|limits| limits.idle = Duration::from_millis(900), 0).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let body = vec![b'x'; SIZE];
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {SIZE}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&body).await.unwrap();
    let (mut buffer, mut got) = (vec![0; 128 << 10], 0);
    let began = Instant::now();
    while let Ok(read) = socket.read(&mut buffer).await {
        got += read;
        if read == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(began.elapsed() > Duration::from_millis(1800), "too quick to show anything");
    assert!(got > SIZE, "cut after {got} bytes");
}

#[tokio::test]
async fn requests_that_are_sent_ahead_may_be_cut_anywhere() {
    // The second comes in two pieces, the first of them together with the first request.
    let second = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 12\r\n\r\nof\nsome\nline";
    let server = start(|_| {}, 0).await;
    for at in 1..second.len() {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(&[GET, &second[..at]].concat()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        socket.write_all(&second[at..]).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"of\nsome\nline") {
            let read = tokio::time::timeout(Duration::from_secs(2), socket.read_buf(&mut answer)).await;
            assert!(matches!(read, Ok(Ok(1..))), "cut at {at}: {}", String::from_utf8_lossy(&answer));
        }
    }
}
