//! Against sockets of our own: reuse, caps, deadlines, broken transfers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use http_body_util::BodyExt;

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

/// Answers as many requests a connection as it says and then closes it; gives the origin and all that was asked.
async fn closing_server(each: usize, answer: &'static [u8]) -> (Origin, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (opened, asked) = (Arc::clone(&connections), Arc::clone(&requests));
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            opened.fetch_add(1, Ordering::Relaxed);
            let asked = Arc::clone(&asked);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                for _ in 0..each {
                    if !socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        return;
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                    socket.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (Origin { tls: false, host: "127.0.0.1".to_owned(), port, base: String::new() }, connections, requests)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_nobody_an_answer() {
    let (origin, connections, requests) = closing_server(1, OK).await;
    let dial = dial(origin, 4);
    for _ in 0..5 {
        assert_eq!(get(&dial, LONG).await.unwrap().bytes(10).await.unwrap().2, "ok");
        // Until the close has arrived.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((connections.load(Ordering::Relaxed), requests.load(Ordering::Relaxed)), (5, 5));
}

#[tokio::test]
async fn what_may_have_been_read_is_not_sent_again() {
    // The second request of a connection is read and not answered.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            assert!(socket.read(&mut buffer).await.unwrap() > 0);
            asked.fetch_add(1, Ordering::Relaxed);
            socket.write_all(OK).await.unwrap();
            if socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let dial = dial(Origin { tls: false, host: "127.0.0.1".to_owned(), port, base: String::new() }, 4);
    assert!(get(&dial, LONG).await.unwrap().bytes(10).await.is_ok());
    assert!(matches!(get(&dial, LONG).await.err(), Some(DialError::Broken(_))));
    assert_eq!(requests.load(Ordering::Relaxed), 2);
    assert!(get(&dial, LONG).await.unwrap().bytes(10).await.is_ok(), "a new connection");
}

#[tokio::test]
async fn a_connection_with_an_answer_left_unread_is_not_used_again() {
    let (origin, count) = server(OK, false).await;
    let dial = dial(origin, 4);
    drop(get(&dial, LONG).await.unwrap());
    drop(get(&dial, LONG).await.unwrap().stream(10));
    assert_eq!(get(&dial, LONG).await.unwrap().bytes(10).await.unwrap().2, "ok");
    assert_eq!(count.load(Ordering::Relaxed), 3);
    let (origin, count) = server(b"HTTP/1.1 204 No Content\r\n\r\n", false).await;
    let none = super::tests::dial(origin, 4);
    for _ in 0..3 {
        drop(get(&none, LONG).await.unwrap().stream(10));
    }
    assert_eq!(count.load(Ordering::Relaxed), 1, "an answer without a body is read with its head");
}

#[tokio::test]
async fn an_answer_that_says_more_than_it_should_ends_its_connection() {
    let (origin, count) = server(
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        false,
    )
    .await;
    let dial = dial(origin, 4);
    for _ in 0..3 {
        assert_eq!(get(&dial, LONG).await.unwrap().bytes(10).await.unwrap().2, "ok");
    }
    assert_eq!(count.load(Ordering::Relaxed), 3, "nobody gets what was left over");
}

#[tokio::test]
async fn large_answers_come_whole_in_many_pieces() {
    static LARGE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let mut text = b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n".to_vec();
        text.extend((0..3_000_000_u32).map(|at| u8::try_from(at % 251).unwrap()));
        text
    });
    let (origin, count) = server(&LARGE, false).await;
    let dial = Arc::new(dial(origin, 64));
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let dial = Arc::clone(&dial);
        asking.spawn(async move {
            for turn in 0..4 {
                let answer = get(&dial, LONG).await.unwrap();
                let body = if turn % 2 == 0 {
                    answer.bytes(3_000_000).await.unwrap().2
                } else {
                    answer.stream(3_000_000).collect().await.unwrap().to_bytes()
                };
                assert!(body.len() == 3_000_000 && body.iter().zip(0_u32..).all(|(b, at)| u32::from(*b) == at % 251));
            }
        });
    }
    asking.join_all().await;
    assert!(count.load(Ordering::Relaxed) <= 16 + 8, "connections are kept, at most eight of them");
}

#[tokio::test]
async fn each_exchange_has_a_deadline_of_its_own() {
    // Whatever the timer of a kept connection was set to before.
    let (origin, count) = server(OK, false).await;
    let dial = dial(origin, 4);
    for patience in [LONG, SHORT, LONG] {
        assert!(get(&dial, patience).await.unwrap().bytes(10).await.is_ok());
    }
    tokio::time::sleep(SHORT * 2).await;
    assert!(get(&dial, LONG).await.unwrap().bytes(10).await.is_ok(), "a deadline that is over means nothing");
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_connection_does_not_wait_for_ever() {
    let (origin, count) = server(OK, false).await;
    let mut dial = dial(origin, 4);
    dial.pool = Arc::new(Pool::new(8, SHORT));
    assert!(get(&dial, LONG).await.unwrap().bytes(10).await.is_ok());
    assert_eq!(dial.pool.len(), 1);
    tokio::time::timeout(LONG, async {
        while dial.pool.len() > 0 {
            tokio::time::sleep(SHORT / 10).await;
        }
    })
    .await
    .expect("closed without being taken");
    assert!(get(&dial, LONG).await.unwrap().bytes(10).await.is_ok());
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn no_more_wait_than_may() {
    let (origin, count) = server(OK, false).await;
    let mut dial = dial(origin, 8);
    dial.pool = Arc::new(Pool::new(2, LONG));
    let held = [get(&dial, LONG).await.unwrap(), get(&dial, LONG).await.unwrap(), get(&dial, LONG).await.unwrap()];
    for answer in held {
        assert!(answer.bytes(10).await.is_ok());
    }
    assert_eq!((dial.pool.len(), count.load(Ordering::Relaxed)), (2, 3));
}
