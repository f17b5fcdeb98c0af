//! Against sockets of our own: reuse, caps, deadlines, broken transfers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Serves `answer` to every request on every connection; gives the origin and a count of connections.
async fn server(answer: &'static [u8], close: bool) -> (Origin, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    socket.write_all(answer).await.unwrap();
                    if close {
                        return;
                    }
                }
            });
        }
    });
    (Origin { tls: false, host: "127.0.0.1".to_owned(), port, base: String::new() }, count)
}

fn dial(origin: Origin, in_flight: usize) -> Dial {
    let connect = Duration::from_secs(1);
    Dial::new(&Settings { origin, roots: None, idle_connections: 8, in_flight, connect }).unwrap()
}

async fn get(dial: &Dial, patience: Duration) -> Result<Answer, DialError> {
    dial.send(Method::GET, "/x", HeaderMap::new(), Bytes::new(), Instant::now() + patience).await
}

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn connections_are_kept() {
    let (origin, count) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false).await;
    let dial = dial(origin, 4);
    for _ in 0..5 {
        assert_eq!(get(&dial, LONG).await.unwrap().bytes(10).await.unwrap().2, "ok");
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_too_large_is_refused_whole_or_in_part() {
    let (origin, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false).await;
    let known = dial(origin, 4);
    assert_eq!(get(&known, LONG).await.unwrap().bytes(1).await.unwrap_err(), DialError::TooLarge);
    assert_eq!(get(&known, LONG).await.unwrap().stream(1).collect().await.unwrap_err(), DialError::TooLarge);
    assert_eq!(get(&known, LONG).await.unwrap().stream(2).collect().await.unwrap().to_bytes(), "ok");
    let (origin, _) =
        server(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n2\r\nok\r\n0\r\n\r\n", false).await;
    let unknown = dial(origin, 4);
    assert_eq!(get(&unknown, LONG).await.unwrap().bytes(3).await.unwrap_err(), DialError::TooLarge);
    assert_eq!(get(&unknown, LONG).await.unwrap().stream(3).collect().await.unwrap_err(), DialError::TooLarge);
}

#[tokio::test]
async fn a_slow_or_broken_answer_is_an_error() {
    let (origin, _) = server(b"", false).await;
    assert_eq!(get(&dial(origin, 4), SHORT).await.err(), Some(DialError::Slow));
    let (origin, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", false).await;
    let slow = dial(origin, 4);
    assert_eq!(get(&slow, SHORT).await.unwrap().bytes(10).await.unwrap_err(), DialError::Slow);
    assert_eq!(get(&slow, SHORT).await.unwrap().stream(10).collect().await.unwrap_err(), DialError::Slow);
    let (origin, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", true).await;
    let torn = dial(origin, 4);
    assert!(matches!(get(&torn, LONG).await.unwrap().stream(10).collect().await, Err(DialError::Broken(_))));
    let (origin, _) = server(b"nonsense\r\n\r\n", true).await;
    assert!(matches!(get(&dial(origin, 4), LONG).await.err(), Some(DialError::Broken(_))));
}

#[tokio::test]
async fn nobody_there_and_too_many_here() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let origin = Origin { tls: false, host: "127.0.0.1".to_owned(), port, base: String::new() };
    assert!(matches!(get(&dial(origin, 4), LONG).await.err(), Some(DialError::Connect(_))));
    let (origin, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false).await;
    let dial = dial(origin, 1);
    let held = get(&dial, LONG).await.unwrap();
    assert_eq!(get(&dial, SHORT).await.err(), Some(DialError::Busy));
    drop(held);
    assert!(get(&dial, LONG).await.is_ok());
}
