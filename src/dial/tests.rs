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
                assert!(LARGE.ends_with(&body) && body.len() == 3_000_000);
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

#[tokio::test]
async fn what_was_closed_while_waiting_does_not_wait_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(OK).await.unwrap();
        tokio::time::sleep(SHORT).await;
    });
    let mut dial = dial(Origin { tls: false, host: "127.0.0.1".to_owned(), port, base: String::new() }, 4);
    dial.pool = Arc::new(Pool::new(8, LONG));
    assert!(get(&dial, LONG).await.unwrap().bytes(10).await.is_ok());
    tokio::time::timeout(LONG / 2, async {
        while dial.pool.len() > 0 {
            tokio::time::sleep(SHORT / 10).await;
        }
    })
    .await
    .expect("let go of long before its patience is over");
}

/// Random, and the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % most).unwrap()
    }
}

/// So many bytes that say whose they are.
fn text_of(id: &str, length: usize) -> Vec<u8> {
    let mut text = id.repeat(length / id.len() + 1).into_bytes();
    text.truncate(length);
    text
}

/// Says back `/id` and a body made of the id: late, in pieces, chunked or not, with interim answers, before it has read the
/// whole request, closing before, within or after it, or with something behind it that nobody asked for.
async fn moody_server() -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for seed in 0.. {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(mood(socket, Dice(seed)));
        }
    });
    Origin { tls: false, host: "127.0.0.1".to_owned(), port, base: String::new() }
}

async fn mood(mut socket: tokio::net::TcpStream, mut dice: Dice) -> std::io::Result<()> {
    let mut heard = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = memchr::memmem::find(&heard, b"\r\n\r\n") {
                break String::from_utf8_lossy(&heard.drain(..at + 4).collect::<Vec<_>>()).into_owned();
            }
            if socket.read_buf(&mut heard).await? == 0 {
                return Ok(());
            }
        };
        let id = head.split(' ').nth(1).unwrap()[1..].to_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        let early = dice.below(20) == 0;
        while !early && heard.len() < length {
            if socket.read_buf(&mut heard).await? == 0 {
                return Ok(());
            }
        }
        let sent: Vec<u8> = heard.drain(..length.min(heard.len())).collect();
        assert_eq!(sent, text_of(&id, sent.len()), "the body of another request");
        tokio::time::sleep(Duration::from_millis(dice.below(4) as u64)).await;
        let body = text_of(&id, dice.below(3) * dice.below(60_000));
        let mut answer = Vec::new();
        if dice.below(10) == 0 {
            answer.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
        }
        let close = early || dice.below(10) == 0;
        let closing = if close && dice.below(2) == 0 { "connection: close\r\n" } else { "" };
        match dice.below(4) {
            0 => answer.extend_from_slice(format!("HTTP/1.1 204 No Content\r\nid: {id}\r\n{closing}\r\n").as_bytes()),
            1 => {
                let head = format!("HTTP/1.1 200 OK\r\nid: {id}\r\n{closing}transfer-encoding: chunked\r\n\r\n");
                answer.extend_from_slice(head.as_bytes());
                for piece in body.chunks(7_000) {
                    answer.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    answer.extend_from_slice(piece);
                    answer.extend_from_slice(b"\r\n");
                }
                answer.extend_from_slice(if dice.below(2) == 0 { b"0\r\n\r\n" } else { b"0\r\na: b\r\n\r\n" });
            }
            _ => {
                let head = format!("HTTP/1.1 200 OK\r\nid: {id}\r\n{closing}content-length: {}\r\n\r\n", body.len());
                answer.extend_from_slice(head.as_bytes());
                answer.extend_from_slice(&body);
            }
        }
        let torn = dice.below(30) == 0;
        match dice.below(30) {
            _ if torn => answer.truncate(answer.len() / 2),
            0 => answer.extend_from_slice(b"HTTP/1.1 200 OK\r\nid: evil\r\ncontent-length: 4\r\n\r\nevil"),
            _ => {}
        }
        let whole = dice.below(2) == 0;
        for piece in answer.chunks(if whole { usize::MAX } else { 9_000 }) {
            socket.write_all(piece).await?;
            tokio::task::yield_now().await;
        }
        if close || torn || dice.below(30) == 0 {
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_gets_the_answer_of_another_and_every_slot_comes_back() {
    const SLOTS: usize = 24;
    let dial = Arc::new(dial(moody_server().await, SLOTS));
    let mut asking = tokio::task::JoinSet::new();
    for peer in 0..48_u64 {
        let dial = Arc::clone(&dial);
        asking.spawn(async move {
            let (mut dice, mut whole) = (Dice(peer + 1_000), 0);
            for turn in 0..60 {
                let id = format!("{peer}-{turn}.");
                let length = if dice.below(2) == 0 { 0 } else { dice.below(100_000) };
                let body = Bytes::from(text_of(&id, length));
                let method = if length == 0 { Method::GET } else { Method::POST };
                let exchange = async {
                    let deadline = Instant::now() + LONG;
                    let answer = dial.send(method, &format!("/{id}"), HeaderMap::new(), body, deadline).await?;
                    assert_eq!(answer.headers["id"], id.as_str());
                    let body = if turn % 2 == 0 {
                        answer.bytes(1 << 20).await?.2
                    } else {
                        answer.stream(1 << 20).collect().await?.to_bytes()
                    };
                    assert_eq!(body, text_of(&id, body.len()), "of another");
                    Ok::<_, DialError>(())
                };
                // Some go away at any point.
                let patience =
                    if dice.below(3) == 0 { Duration::from_micros(dice.below(6_000) as u64) } else { LONG * 2 };
                match tokio::time::timeout(patience, exchange).await {
                    Ok(Ok(())) => whole += 1,
                    Ok(Err(DialError::Broken(_))) | Err(_) => {}
                    Ok(Err(error)) => panic!("{id}: {error}"),
                }
            }
            whole
        });
    }
    let whole: i32 = asking.join_all().await.into_iter().sum();
    assert!(whole > 1_000, "{whole} whole answers are too few to say anything");
    assert_eq!(dial.slots.available_permits(), SLOTS);
}
