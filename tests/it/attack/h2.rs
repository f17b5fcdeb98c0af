//! HTTP/2 that no library would send.

use std::time::Duration;

use super::all_well;
use super::frames::{
    CONTINUATION, Conversation, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, Said, WINDOW_UPDATE, block, frame, request, setting,
};
use super::headers::{NAMES, OURS};
use crate::support::{Gate, gate};

const PATIENCE: Duration = Duration::from_secs(5);
const LIST: &str = "/api/v1/projects/team-a/dashboards";
const QUERY: &str = "/proxy/globaldatasources/p/api/v1/query";

/// A head that ends its stream.
fn head(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, block)
}

/// Every row is refused: by one of the codes, a reset, or the end of the connection. Nothing reaches an upstream.
async fn all_refused(gate: &Gate, rows: Vec<(&'static str, Vec<u8>, &'static [u16])>) {
    let ada = gate.token("ada");
    all_well(gate, &ada).await;
    let mut wrong = Vec::new();
    for (name, bytes, codes) in rows {
        let mut conversation = Conversation::begin(&gate.address).await;
        conversation.say(&bytes).await;
        let said = conversation.outcome(1, PATIENCE).await;
        let refused = match said {
            Said::Answer(code) => codes.contains(&code),
            Said::Reset(code) | Said::Away(code) => code != 0 && codes.contains(&0),
            Said::Closed => codes.contains(&0),
            Said::Silent => false,
        };
        if !refused {
            wrong.push(format!("{name}: {said:?} instead of {codes:?}"));
        }
        let seen = gate.upstream.lines();
        if !seen.is_empty() {
            wrong.push(format!("{name}: reached an upstream: {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    all_well(gate, &ada).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_none() {
    let gate = gate("").await;
    let authorization = format!("Bearer {}", gate.token("ada"));
    let ada = ("authorization", authorization.as_str());
    let get = |path: &str| head(&request("GET", path, &[ada]));
    let with = |name: &str, value: &str| head(&request("GET", LIST, &[ada, (name, value)]));
    let bytes = |name: &[u8], value: &[u8]| {
        let mut all = request("GET", LIST, &[ada]);
        all.extend(block(&[(name, value)]));
        head(&all)
    };
    let raw = |headers: &[(&str, &str)]| head(&block(headers));
    let (m, s, a, p) = ((":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", LIST));
    let post = |headers: &[(&str, &str)], data: &[u8]| {
        let mut all = vec![ada, ("content-type", "application/x-www-form-urlencoded")];
        all.extend_from_slice(headers);
        [frame(HEADERS, END_HEADERS, 1, &request("POST", QUERY, &all)), frame(DATA, END_STREAM, 1, data)].concat()
    };
    let rows: Vec<(&'static str, Vec<u8>, &'static [u16])> = vec![
        ("no slash in :path", get("api/v1/projects"), &[0, 400]),
        ("an empty :path", get(""), &[0, 400]),
        ("an asterisk", get("*"), &[0, 400]),
        ("absolute form in :path", get("http://x/api/v1/projects"), &[0, 400]),
        ("authority form in :path", get("x:80"), &[0, 400]),
        ("a fragment is not read", get("/api/v1/projects/team-c#/../team-a"), &[0, 400, 404]),
        ("dots in :path", get("/api/v1/projects/team-a/../team-c"), &[400]),
        ("escaped dots in :path", get("/api/v1/projects/%2e%2e"), &[400]),
        ("two slashes in :path", get("//api/v1/projects"), &[400]),
        ("a backslash in :path", get("/api/v1/projects\\..\\x"), &[0, 400]),
        ("a space in :path", get("/api/v1/projects HTTP/1.1"), &[0, 400]),
        ("a line break in :path", get("/api/v1/projects\r\nx: y"), &[0, 400]),
        ("NUL in :path", get("/api/v1/projects\0"), &[0, 400]),
        ("two :path", raw(&[m, s, a, p, p, ada]), &[0, 400]),
        ("two :method", raw(&[m, m, s, a, p, ada]), &[0, 400]),
        ("two :authority", raw(&[m, s, a, a, p, ada]), &[0, 400]),
        ("no :path", raw(&[m, s, a, ada]), &[0, 400]),
        ("no :method", raw(&[s, a, p, ada]), &[0, 400]),
        ("no :scheme", raw(&[m, a, p, ada]), &[0, 400]),
        ("another :scheme", raw(&[m, (":scheme", "a b"), a, p, ada]), &[0, 400]),
        ("an :authority with a path", raw(&[m, s, (":authority", "x/y"), p, ada]), &[0, 400]),
        ("a pseudo header behind", raw(&[m, s, a, ada, p]), &[0, 400]),
        ("an unknown pseudo header", raw(&[m, s, a, p, (":evil", "x"), ada]), &[0, 400]),
        ("a pseudo header of answers", raw(&[m, s, a, p, (":status", "200"), ada]), &[0, 400]),
        ("a websocket", raw(&[(":method", "CONNECT"), s, a, p, (":protocol", "websocket"), ada]), &[0, 400, 405]),
        ("CONNECT", raw(&[(":method", "CONNECT"), a, ada]), &[0, 400, 405]),
        ("a method that is none", raw(&[(":method", "G T"), s, a, p, ada]), &[0, 400]),
        ("TRACE", head(&request("TRACE", LIST, &[ada])), &[405]),
        ("a name in upper case", with("X-Forwarded-User", "root"), &[0, 400]),
        ("a space in a name", with("x y", "z"), &[0, 400]),
        ("a colon in a name", with("x:y", "z"), &[0, 400]),
        ("an empty name", with("", "z"), &[0, 400]),
        ("NUL in a name", bytes(b"x\0", b"y"), &[0, 400]),
        ("a line break in a name", bytes(b"x\r\ny", b"z"), &[0, 400]),
        ("NUL in a value", bytes(b"x", b"y\0"), &[0, 400]),
        ("a line break in a value", bytes(b"x", b"y\r\nz: a"), &[0, 400]),
        ("a lone LF in a value", bytes(b"x", b"y\nz"), &[0, 400]),
        ("connection", with("connection", "close"), &[0, 400]),
        ("connection that names another", with("connection", "x-forwarded-user"), &[0, 400]),
        ("keep-alive", with("keep-alive", "timeout=5"), &[0, 400]),
        ("proxy-connection", with("proxy-connection", "keep-alive"), &[0, 400]),
        ("transfer-encoding", with("transfer-encoding", "chunked"), &[0, 400]),
        ("upgrade", with("upgrade", "h2c"), &[0, 400]),
        ("te", with("te", "gzip"), &[0, 400]),
        ("two hosts", head(&request("GET", LIST, &[ada, ("host", "a"), ("host", "b")])), &[0, 400]),
        ("two credentials", head(&request("GET", LIST, &[ada, ada])), &[400]),
        ("no credential", head(&request("GET", LIST, &[])), &[401]),
        ("a compressed body", post(&[("content-encoding", "gzip")], b"query=up"), &[415]),
        ("more than content-length", post(&[("content-length", "3")], b"query=up"), &[0, 400]),
        ("less than content-length", post(&[("content-length", "30")], b"query=up"), &[0, 400]),
        ("two lengths", post(&[("content-length", "8"), ("content-length", "9")], b"query=up"), &[0, 400]),
        ("a length with a sign", post(&[("content-length", "+8")], b"query=up"), &[0, 400]),
        ("a length and no body", head(&request("POST", QUERY, &[ada, ("content-length", "8")])), &[0, 400]),
        (
            "a body on GET",
            [frame(HEADERS, END_HEADERS, 1, &request("GET", LIST, &[ada])), frame(DATA, END_STREAM, 1, b"{}")].concat(),
            &[400],
        ),
        (
            "trailers with a pseudo header",
            [
                frame(HEADERS, END_HEADERS, 1, &request("POST", QUERY, &[ada])),
                frame(DATA, 0, 1, b"query=up"),
                head(&block(&[(":path", "/api/v1/projects")])),
            ]
            .concat(),
            &[0, 400, 415],
        ),
        ("a value without end", with("x", &"y".repeat(100_000)), &[0, 431]),
        (
            "headers without end",
            {
                let all: Vec<(String, &str)> = (0..3000).map(|n| (format!("x-{n}"), "y")).collect();
                let mut all = [request("GET", LIST, &[ada]), block(&all)].concat();
                let rest = all.split_off(16_000.min(all.len()));
                let mut out = frame(HEADERS, END_STREAM, 1, &all);
                for piece in rest.chunks(16_000) {
                    out.extend(frame(CONTINUATION, 0, 1, piece));
                }
                out.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
                out
            },
            &[0, 431],
        ),
    ];
    all_refused(&gate, rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_none() {
    let gate = gate("").await;
    let authorization = format!("Bearer {}", gate.token("ada"));
    let block = request("GET", LIST, &[("authorization", &authorization)]);
    let after = |bytes: Vec<u8>| [bytes, head(&block)].concat();
    let rows: Vec<(&'static str, Vec<u8>, &'static [u16])> = vec![
        ("a stream of a server", frame(HEADERS, END_STREAM | END_HEADERS, 2, &block), &[0]),
        ("a head on stream 0", frame(HEADERS, END_STREAM | END_HEADERS, 0, &block), &[0]),
        ("data on stream 0", frame(DATA, 0, 0, b"x"), &[0]),
        ("data before a head", after(frame(DATA, 0, 1, b"x")), &[0]),
        ("data behind the end", [head(&block), frame(DATA, 0, 1, b"x")].concat(), &[0, 404]),
        ("a continuation of nothing", after(frame(CONTINUATION, END_HEADERS, 1, &block)), &[0]),
        ("a head that is not continued", [frame(HEADERS, 0, 1, &block), frame(DATA, 0, 1, b"x")].concat(), &[0]),
        (
            "a head continued elsewhere",
            [frame(HEADERS, 0, 1, &block), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            &[0],
        ),
        ("a frame that is too large", frame(DATA, 0, 1, &[0; 20_000]), &[0]),
        ("more padding than frame", frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[255, 1]), &[0]),
        ("a promise of a client", after(frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])), &[0]),
        ("settings of half a size", after(frame(SETTINGS, 0, 0, &[0, 1, 0])), &[0]),
        ("settings on a stream", after(frame(SETTINGS, 0, 1, &[])), &[0]),
        ("a window beyond all", after(frame(SETTINGS, 0, 0, &setting(4, 0x8000_0000))), &[0]),
        ("a frame size beyond all", after(frame(SETTINGS, 0, 0, &setting(5, 1))), &[0]),
        ("a push that is neither", after(frame(SETTINGS, 0, 0, &setting(2, 7))), &[0]),
        ("a window grown by nothing", after(frame(WINDOW_UPDATE, 0, 0, &[0; 4])), &[0]),
        (
            "a window grown beyond all",
            after([frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes())].concat().repeat(2)),
            &[0],
        ),
        ("a ping of half a size", after(frame(PING, 0, 0, &[0; 4])), &[0]),
        ("a reset of nothing", after(frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])), &[0]),
        ("a priority of half a size", frame(PRIORITY, 0, 1, &[0; 3]), &[0]),
        ("an index that is not there", head(&[0xff, 0xff, 0x7f]), &[0]),
        ("index zero", head(&[0x80]), &[0]),
        ("a number without end", head(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), &[0]),
        ("a text longer than its frame", head(&[0, 0x7f, 0xff, 0xff, 0x7f]), &[0]),
        ("a table beyond all", head(&[0x3f, 0xff, 0xff, 0xff, 0x7f]), &[0]),
        ("Huffman's code that is none", head(&[0, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), &[0]),
        ("the preface again", PREFACE.to_vec(), &[0]),
        ("HTTP/1.1 behind the preface", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), &[0]),
        ("away with an error", [frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1])].concat(), &[0]),
    ];
    all_refused(&gate, rows).await;
}

/// Identity headers behind a body, on a question, a document and an open route.
#[tokio::test(flavor = "multi_thread")]
async fn no_identity_comes_in_trailers() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    gate.upstream.answers("GET /api/config", 200, "{}");
    gate.upstream.answers("POST /api/v1/projects/team-a/dashboards", 200, "{}");
    gate.upstream.answers("GET /api/v1/projects/team-a", 200, "{}");
    all_well(&gate, &ada).await;
    let authorization = format!("Bearer {ada}");
    let names: Vec<String> = NAMES.iter().map(|name| name.to_lowercase()).collect();
    let trailers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "evil")).collect();
    let body = r#"{"metadata":{"name":"d"},"spec":{}}"#;
    for (method, path, kind, body, allowed) in [
        ("POST", QUERY, "application/x-www-form-urlencoded", "query=up", 200),
        ("POST", LIST, "application/json", body, 200),
        ("GET", "/api/config", "", "", 200),
        ("GET", LIST, "", "", 400),
        ("POST", "/api/v1/projects/team-c/dashboards", "application/json", body, 404),
    ] {
        for named in [true, false] {
            let mut headers = vec![("authorization", authorization.as_str()), ("content-type", kind)];
            if named {
                headers.push(("trailer", "x-forwarded-user, x-remote-user"));
            }
            let mut conversation = Conversation::begin(&gate.address).await;
            let frames = [
                frame(HEADERS, END_HEADERS, 1, &request(method, path, &headers)),
                frame(DATA, 0, 1, body.as_bytes()),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&trailers)),
            ];
            conversation.say(&frames.concat()).await;
            assert_eq!(conversation.outcome(1, PATIENCE).await, Said::Answer(allowed), "{method} {path}");
            let seen = gate.upstream.take();
            assert_eq!(seen.is_empty(), allowed != 200, "{method} {path}: {seen:?}");
            for (name, value) in seen.iter().flat_map(|seen| &seen.headers) {
                assert!(OURS.contains(&name.as_str()) && value != "evil", "{method} {path}: {name}");
            }
        }
    }
}

/// What is allowed by one stream is not allowed by its neighbour.
#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_connection_are_strangers() {
    let gate = gate("").await;
    let (ada, eve) = (gate.token("ada"), gate.token("eve"));
    gate.upstream.answers("GET /api/v1/projects/team-a/dashboards/d", 200, "{}");
    let mut conversation = Conversation::begin(&gate.address).await;
    let path = "/api/v1/projects/team-a/dashboards/d";
    for (stream, token, code) in [(1, Some(&ada), 200), (3, Some(&eve), 404), (5, None, 401), (7, Some(&ada), 200)] {
        let authorization = format!("Bearer {}", token.map_or("", String::as_str));
        let headers = [("authorization", authorization.as_str())];
        let block = request("GET", path, if token.is_some() { &headers } else { &[] });
        conversation.say(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)).await;
        let said = conversation.outcome(stream, PATIENCE).await;
        // 200 may stand in the table of this connection by now; any other answer is spelt.
        assert_eq!(said, Said::Answer(code), "stream {stream}");
    }
    assert_eq!(gate.upstream.take().len(), 2);
}
