//! Too much of everything, against the binary as a process of its own: its memory is looked at from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use perses_sidecar_stack::openshift::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::{
    CONTINUATION, Conversation, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, Said,
    WINDOW_UPDATE, block, frame, request, setting,
};
use crate::support::{More, Process};

/// What may stay of an attack, in MiB: an allocator keeps some of what it once had.
const STAYS: u64 = 48;

impl Process {
    /// Runs an attack while ada asks on and on; each of her questions is answered within a second, and afterwards the
    /// memory is back. Gives the most that was resident, in MiB.
    async fn survives(&self, name: &str, most: u64, attack: impl Future<Output = ()>) {
        let before = self.memory();
        let done = AtomicBool::new(false);
        let slowest = async {
            let (mut slowest, mut peak) = (Duration::ZERO, 0);
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                assert_eq!(self.ask(&self.ada).await, 200, "{name}");
                slowest = slowest.max(began.elapsed());
                peak = peak.max(self.memory());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (slowest, peak)
        };
        let attack = async {
            attack.await;
            done.store(true, Ordering::Relaxed);
        };
        let ((slowest, peak), ()) = tokio::join!(slowest, attack);
        let mut after = self.memory();
        for _ in 0..50 {
            if after <= before + STAYS {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            after = self.memory();
        }
        eprintln!("{name}: {before} MiB before, {peak} at most, {after} after; the slowest answer took {slowest:?}");
        assert!(slowest < super::QUICK, "{name}: somebody waited {slowest:?}");
        assert!(peak <= before + most, "{name}: {before} MiB before, {peak} at most");
        assert!(after <= before + STAYS, "{name}: {before} MiB before, {after} after");
    }

    fn seen(&self) -> Vec<String> {
        let lines = self.stage.upstream.lines();
        lines
            .into_iter()
            .filter(|line| line != "POST /api/v1/query" && !line.ends_with("globaldatasources/p"))
            .collect()
    }
}

/// Says something many times over; stops when the peer has had enough.
async fn say_again(conversation: &mut Conversation, piece: &[u8], times: usize) {
    let many = piece.repeat(100);
    for _ in 0..times / 100 {
        if !conversation.say(&many).await {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_frames() {
    let process = Process::start(
        "info",
        More { rest: "limits:\n  first_byte: 2s\n  header: 2s\n  idle: 2s\n", ..More::default() },
        &[],
    )
    .await;
    let authorization = format!("Bearer {}", process.ada);
    let list = request("GET", "/api/v1/projects/team-c/dashboards", &[("authorization", &authorization)]);
    let begin = || Conversation::begin(&process.address);

    process
        .survives("rapid reset", 64, async {
            let mut conversation = begin().await;
            for number in 0..10_000_u32 {
                let stream = 2 * number + 1;
                let mut frames = frame(HEADERS, END_STREAM | END_HEADERS, stream, &list);
                frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                if !conversation.say(&frames).await {
                    break;
                }
            }
        })
        .await;
    process
        .survives("streams without end", 64, async {
            let mut conversation = begin().await;
            let open = request("POST", "/api/v1/projects/team-c/dashboards", &[("authorization", &authorization)]);
            for number in 0..10_000_u32 {
                if !conversation.say(&frame(HEADERS, END_HEADERS, 2 * number + 1, &open)).await {
                    break;
                }
            }
        })
        .await;
    process
        .survives("a head without end", 64, async {
            let mut conversation = begin().await;
            conversation.say(&frame(HEADERS, END_STREAM, 1, &list)).await;
            let piece = block(&[("x".repeat(100), "y".repeat(15_000))]);
            say_again(&mut conversation, &frame(CONTINUATION, 0, 1, &piece), 2_000).await;
            let said = conversation.outcome(1, Duration::from_secs(5)).await;
            assert!(matches!(said, Said::Away(_) | Said::Closed | Said::Reset(_) | Said::Answer(431)), "{said:?}");
        })
        .await;
    process
        .survives("a head without end, in empty pieces", 64, async {
            let mut conversation = begin().await;
            conversation.say(&frame(HEADERS, END_STREAM, 1, &list)).await;
            say_again(&mut conversation, &frame(CONTINUATION, 0, 1, &[]), 100_000).await;
        })
        .await;
    process
        .survives("a bomb of indexed headers", 64, async {
            let mut conversation = begin().await;
            // One large value in the table, then named again and again.
            let mut bomb = list.clone();
            bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
            bomb.extend([b'y'; 4000]);
            bomb.extend([0xbe; 10_000]);
            for stream in [1, 3, 5, 7, 9] {
                conversation.say(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &bomb)).await;
            }
        })
        .await;
    for (name, piece) in [
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &setting(3, 100))),
        ("empty settings", frame(SETTINGS, 0, 0, &[])),
        ("priorities", frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 16])),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("unknown frames", frame(0xbe, 0, 0, b"x")),
        ("resets of nothing", frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())),
    ] {
        process
            .survives(name, 64, async {
                let mut conversation = begin().await;
                say_again(&mut conversation, &piece, 100_000).await;
            })
            .await;
    }
    process
        .survives("empty data", 64, async {
            let mut conversation = begin().await;
            let open = request("POST", "/proxy/globaldatasources/p/api/v1/query", &[("authorization", &authorization)]);
            conversation.say(&frame(HEADERS, END_HEADERS, 1, &open)).await;
            say_again(&mut conversation, &frame(DATA, 0, 1, &[]), 100_000).await;
        })
        .await;
    assert!(process.seen().is_empty(), "{:?}", process.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_bytes_and_connections() {
    let process = Process::start(
        "info",
        More {
            cluster: "",
            rest: "limits:\n  first_byte: 1s\n  header: 1s\n  idle: 1s\n  connections: 300\n",
            ..More::default()
        },
        &[],
    )
    .await;
    let json = format!("host: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n", process.ada);
    process
        .survives("a body of a gigabyte, in chunks", 64, async {
            let mut socket = TcpStream::connect(&process.address).await.unwrap();
            let head =
                format!("POST /api/v1/projects/team-a/dashboards HTTP/1.1\r\n{json}transfer-encoding: chunked\r\n\r\n");
            socket.write_all(head.as_bytes()).await.unwrap();
            let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
            for _ in 0..16_384 {
                let written = tokio::time::timeout(Duration::from_secs(2), socket.write_all(&chunk)).await;
                if !matches!(written, Ok(Ok(()))) {
                    return;
                }
            }
            panic!("all of it was taken");
        })
        .await;
    process
        .survives("fifty large bodies at once", 320, async {
            let body = " ".repeat(4 << 20);
            let request = format!(
                "POST /api/v1/projects/team-a/dashboards HTTP/1.1\r\n{json}content-length: {}\r\n\r\n{body}",
                body.len()
            );
            let request = Arc::new(request);
            let mut peers = tokio::task::JoinSet::new();
            for _ in 0..50 {
                let (address, request) = (process.address.clone(), Arc::clone(&request));
                peers.spawn(async move { crate::support::speak(&address, request.as_bytes()).await.codes() });
            }
            while let Some(codes) = peers.join_next().await {
                assert_eq!(codes.unwrap(), [400]);
            }
        })
        .await;
    process
        .survives("heads without end", 64, async {
            for _ in 0..20 {
                let mut socket = TcpStream::connect(&process.address).await.unwrap();
                let _ = socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx: ").await;
                for _ in 0..100 {
                    if socket.write_all(&[b'y'; 64 << 10]).await.is_err() {
                        break;
                    }
                }
            }
        })
        .await;
    // Connections that say nothing take the room of others for at most limits.first_byte.
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.extend(TcpStream::connect(&process.address).await);
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let began = Instant::now();
    assert_eq!(process.ask(&process.ada).await, 200);
    assert!(began.elapsed() < super::QUICK);
    assert!(process.seen().is_empty());
}

/// What is known of ada runs out during the flood, again and again.
const KEPT_BRIEFLY: &str = "access:\n  token_ttl: 1s\n  allow_ttl: 1s\n  deny_ttl: 1s\n  namespaces_ttl: 1s\n\
    limits:\n  cached_reviews: 1000\n";

/// Random tokens: so many as `ATTACK_TOKENS` says, or 2,000. Memory is bounded, the API server is asked no more than
/// the limiter allows, and whoever is known already does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_tokens() {
    let tokens: usize = std::env::var("ATTACK_TOKENS").map_or(2_000, |text| text.parse().unwrap());
    let rate = if tokens > 10_000 { 1_000 } else { 100 };
    let cluster = format!("  reviews_per_second: {rate}\n");
    let process = Process::start("info", More { cluster: &cluster, rest: KEPT_BRIEFLY, ..More::default() }, &[]).await;
    let reviews = || process.stage.openshift.cluster().count(Endpoint::TokenReviews);
    let (before, began) = (reviews(), Instant::now());
    let (sent, refused) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    process
        .survives("random tokens", 64, async {
            let mut peers = tokio::task::JoinSet::new();
            for peer in 0..400 {
                let (address, sent) = (process.address.clone(), Arc::clone(&sent));
                peers.spawn(async move {
                    let mut refused = 0;
                    let mut socket = TcpStream::connect(&address).await.unwrap();
                    let mut buffer = [0; 4096];
                    loop {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        if number >= tokens {
                            return refused;
                        }
                        let request = format!(
                            "GET /-/whoami HTTP/1.1\r\nhost: x\r\n\
                             authorization: Bearer sha256~{peer}-{number}-{}\r\n\r\n",
                            "x".repeat(1000)
                        );
                        socket.write_all(request.as_bytes()).await.unwrap();
                        let read = socket.read(&mut buffer).await.unwrap();
                        let answer = String::from_utf8_lossy(&buffer[..read]);
                        assert!(answer.starts_with("HTTP/1.1 401 ") || answer.starts_with("HTTP/1.1 503 "), "{answer}");
                        refused += 1;
                    }
                });
            }
            while let Some(peer) = peers.join_next().await {
                refused.fetch_add(peer.unwrap(), Ordering::Relaxed);
            }
        })
        .await;
    assert_eq!(refused.load(Ordering::Relaxed), tokens);
    let (asked, seconds) = (reviews() - before, began.elapsed().as_secs_f64());
    // Two seconds of rate may come at once.
    let most = f64::from(rate) * (seconds + 3.0);
    eprintln!("{tokens} tokens in {seconds:.1} s: {asked} reviews, at most {most:.0} were allowed");
    #[allow(clippy::cast_precision_loss, reason = "a count of a test")]
    let asked = asked as f64;
    assert!(asked > 0.0 && asked <= most, "{asked} reviews, {most} allowed");
    // Somebody new is heard as soon as the flood is over.
    let began = Instant::now();
    assert_eq!(process.ask(&process.stage.token("grace")).await, 200);
    assert!(began.elapsed() < super::QUICK);
    assert!(process.seen().is_empty());
}

/// However much is logged, no credential is.
#[tokio::test(flavor = "multi_thread")]
async fn no_log_holds_a_secret() {
    let process = Process::start("trace", More { rest: "", ..More::default() }, &[]).await;
    let ada = &process.ada;
    for (line, headers) in [
        ("GET /-/whoami", format!("authorization: Bearer {ada}\n")),
        ("GET /api/v1/projects", format!("authorization: Bearer {ada} x\ncookie: session=SECRET\n")),
        ("GET /api/v1/projects", format!("authorization: Bearer {ada}\nauthorization: Bearer SECRET\n")),
        ("GET /api/v1/projects", "authorization: Basic SECRET\nproxy-authorization: SECRET\n".to_owned()),
        ("GET /api/v1/projects?access_token=SECRET", String::new()),
        ("GET /-/whoami", "authorization: Bearer sha256~SECRET\n".to_owned()),
        ("GET /proxy/globaldatasources/p/api/v1/query?query=SECRET(", format!("authorization: Bearer {ada}\n")),
        ("POST /api/v1/projects/team-a/secrets", format!("authorization: Bearer {ada}\ncontent-length: 6\n")),
    ] {
        let request = crate::support::wire(&format!("{line} HTTP/1.1\nhost: x\n{headers}\nSECRET"));
        crate::support::speak(&process.address, &request).await;
    }
    let sidecar = std::fs::read_to_string(process.stage.openshift.token_file()).unwrap();
    let mut text = std::fs::read_to_string(process.stage.config.with_file_name("log")).unwrap();
    text.push_str(&std::fs::read_to_string(&process.stage.audit).unwrap_or_default());
    assert!(text.matches("request_id").count() > 5, "{text}");
    for secret in [ada.as_str(), sidecar.trim(), "SECRET"] {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{}", line.unwrap_or_default());
    }
}
