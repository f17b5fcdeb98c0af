//! Peers that are slow, or say nothing, or do not listen. Each is let go in its time, and nobody else waits for them.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::all_well;
use super::frames::{Conversation, DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, Said, frame, request, setting};
use crate::support::{More, gate_with};

const QUICK: &str = "limits:\n  first_byte: 1s\n  handshake: 1s\n  header: 1s\n  idle: 1s\n  total: 2s\n";

/// How long the peer keeps a connection to which `say` is said again and again; at most 12 s.
async fn kept(address: &str, first: &[u8], again: &[u8]) -> Duration {
    let began = Instant::now();
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(first).await.unwrap();
    let mut buffer = [0; 1024];
    while began.elapsed() < Duration::from_secs(12) {
        match tokio::time::timeout(Duration::from_millis(200), socket.read(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => {}
            Ok(_) => break,
            Err(_) if socket.write_all(again).await.is_err() => break,
            Err(_) => {}
        }
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_waited_for() {
    let tls = "tls:\n  certificate_file: FOLDER/tls.crt\n  key_file: FOLDER/tls.key\n";
    let more = More { listen: "  https: 127.0.0.1:0\n", rest: &format!("{QUICK}{tls}"), ..More::default() };
    let gate = std::sync::Arc::new(gate_with(more).await);
    let ada = gate.token("ada");
    let head = format!("host: x\r\nauthorization: Bearer {ada}\r\n");
    let form = format!("{head}content-type: application/x-www-form-urlencoded\r\n");
    let query = "POST /proxy/globaldatasources/p/api/v1/query HTTP/1.1";
    let h2 = [super::frames::PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let authorization = format!("Bearer {ada}");
    let open = frame(
        HEADERS,
        END_HEADERS,
        1,
        &request("POST", "/proxy/globaldatasources/p/api/v1/query", &[("authorization", &authorization)]),
    );
    let tls = gate.https.unwrap().to_string();
    let rows: Vec<(&'static str, String, Vec<u8>, Vec<u8>)> = vec![
        ("nothing", gate.address.clone(), vec![], vec![]),
        ("a head without end", gate.address.clone(), b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".to_vec()),
        ("a head byte by byte", gate.address.clone(), b"G".to_vec(), b"E".to_vec()),
        ("line breaks", gate.address.clone(), b"\r\n".to_vec(), b"\r\n".to_vec()),
        (
            "a body byte by byte",
            gate.address.clone(),
            format!("{query}\r\n{form}content-length: 1000\r\n\r\n").into(),
            b"a".to_vec(),
        ),
        (
            "a chunk byte by byte",
            gate.address.clone(),
            format!("{query}\r\n{form}transfer-encoding: chunked\r\n\r\n3e8\r\n").into(),
            b"a".to_vec(),
        ),
        (
            "a size byte by byte",
            gate.address.clone(),
            format!("{query}\r\n{form}transfer-encoding: chunked\r\n\r\n").into(),
            b"0".to_vec(),
        ),
        (
            "a body that never comes",
            gate.address.clone(),
            format!("{query}\r\n{form}content-length: 10\r\n\r\n").into(),
            vec![],
        ),
        ("a kept connection", gate.address.clone(), format!("GET /-/whoami HTTP/1.1\r\n{head}\r\n").into(), vec![]),
        ("an h2 connection without a stream", gate.address.clone(), h2.clone(), vec![]),
        ("half a preface", gate.address.clone(), b"PRI * HT".to_vec(), vec![]),
        ("an h2 body that never comes", gate.address.clone(), [h2.clone(), open.clone()].concat(), vec![]),
        ("an h2 body byte by byte", gate.address.clone(), [h2.clone(), open].concat(), frame(DATA, 0, 1, b"a")),
        ("a head without end in h2", gate.address.clone(), [h2, frame(HEADERS, 0, 1, &[])].concat(), vec![]),
        ("TLS that says nothing", tls.clone(), vec![], vec![]),
        ("TLS byte by byte", tls.clone(), b"\x16\x03\x01\x02\x00".to_vec(), b"\x01".to_vec()),
        ("no TLS on the port for it", tls, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), vec![]),
    ];
    let mut peers = tokio::task::JoinSet::new();
    for (name, address, first, again) in rows {
        peers.spawn(async move { (name, kept(&address, &first, &again).await) });
    }
    // Meanwhile others are served.
    for _ in 0..20 {
        all_well(&gate, &ada).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut wrong = Vec::new();
    while let Some(done) = peers.join_next().await {
        let (name, time) = done.unwrap();
        if time > Duration::from_secs(6) {
            wrong.push(format!("{name}: kept for {time:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whoever does not read an answer holds neither the upstream nor anybody else.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads() {
    let gate = gate_with(More { rest: QUICK, ..More::default() }).await;
    let ada = gate.token("ada");
    let large = format!(r#"{{"status":"success","data":{{"x":"{}"}}}}"#, "y".repeat(32 << 20));
    gate.upstream.answers("POST /api/v1/labels", 200, &large);
    let path = "/proxy/globaldatasources/p/api/v1/labels";
    // HTTP/1.1: the peer's buffers are full.
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut socket = TcpStream::connect(&gate.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ada}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        deaf.push(socket);
    }
    // HTTP/2: no window, and windows of one byte.
    let authorization = format!("Bearer {ada}");
    let block = request("GET", path, &[("authorization", &authorization)]);
    let mut conversations = Vec::new();
    for window in [0, 1] {
        let mut conversation = Conversation::begin(&gate.address).await;
        conversation.say(&frame(SETTINGS, 0, 0, &setting(4, window))).await;
        for stream in [1, 3, 5] {
            conversation.say(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)).await;
        }
        conversations.push(conversation);
    }
    for _ in 0..20 {
        all_well(&gate, &ada).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for mut socket in deaf {
        let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
        while let Ok(Ok(read)) = tokio::time::timeout(Duration::from_secs(3), socket.read(&mut buffer)).await {
            if read == 0 {
                break;
            }
            total += read;
        }
        assert!(total < 32 << 20, "the answer was cut, not kept: {total}");
    }
    for mut conversation in conversations {
        // The heads came; then the streams or the connection end, in a few seconds.
        let mut last = Said::Silent;
        for _ in 0..20 {
            last = conversation.outcome(5, Duration::from_secs(1)).await;
            if matches!(last, Said::Closed | Said::Away(_) | Said::Reset(_)) {
                break;
            }
        }
        assert!(matches!(last, Said::Closed | Said::Away(_) | Said::Reset(_)), "{last:?}");
    }
}
