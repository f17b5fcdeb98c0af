//! Where does a request end? Whatever could be framed in two ways is refused, and no body is ever taken for a request.

use super::{ADA, Row, all_refused, all_well, row};
use crate::support::{gate, speak, wire};

const CREATE: &str = "POST /api/v1/projects/team-a/dashboards HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\n\
    content-type: application/json\n";
/// A request that would be answered; it must never be found in a body.
const INNER: &str = "GET /api/v1/projects/team-a/dashboards/stolen HTTP/1.1\nhost: x\nauthorization: Bearer TOKEN\n\n";

fn create(name: &'static str, headers: &str, body: &str, refused: &'static [u16]) -> Row {
    row(name, format!("{CREATE}{headers}\n{body}"), refused)
}

fn chunks(name: &'static str, body: &str) -> Row {
    create(name, "transfer-encoding: chunked\n", body, &[0, 400])
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_end_in_two_places() {
    let gate = gate("").await;
    let both = format!("0\n\n{INNER}");
    let rows = [
        create("CL.TE", "content-length: 6\ntransfer-encoding: chunked\n", &both, &[400]),
        create("TE.CL", "transfer-encoding: chunked\ncontent-length: 4\n", &format!("5c\n{INNER}0\n\n"), &[400]),
        create("TE.TE, the second unknown", "transfer-encoding: chunked\ntransfer-encoding: cow\n", &both, &[400]),
        create("TE.TE, the first unknown", "transfer-encoding: cow\ntransfer-encoding: chunked\n", &both, &[400]),
        create("chunked is not last", "transfer-encoding: chunked, identity\n", &both, &[400]),
        create("identity", "transfer-encoding: identity\n", &both, &[400]),
        create("gzip and chunked", "transfer-encoding: gzip, chunked\n", &both, &[400]),
        create("chunked twice", "transfer-encoding: chunked, chunked\n", &both, &[400]),
        create("chunked in two lines", "transfer-encoding: chunked\ntransfer-encoding: chunked\n", &both, &[400]),
        create("a vertical tab before chunked", "transfer-encoding: \u{b}chunked\n", &both, &[400]),
        create("chunked with quotes", "transfer-encoding: \"chunked\"\n", &both, &[400]),
        create("chunked with something behind", "transfer-encoding: chunkedx\n", &both, &[400]),
        create("chunked with a parameter", "transfer-encoding: chunked;x=1\n", &both, &[400]),
        create("an empty coding", "transfer-encoding:\ncontent-length: 6\n", &both, &[400]),
        create("a space before the colon of TE", "transfer-encoding : chunked\n", &both, &[400]),
        create("a tab before the colon of TE", "transfer-encoding\t: chunked\n", &both, &[400]),
        create("a folded TE", "transfer-encoding:\n chunked\n", &both, &[400]),
        create("a space before TE", "x: y\n transfer-encoding: chunked\n", &both, &[400]),
        create("a lone LF hides TE", "x: y␊transfer-encoding: chunked\n", &both, &[400]),
        create("a lone CR hides TE", "x: y␍transfer-encoding: chunked\n", &both, &[400]),
        create("NUL hides TE", "x: y␀\ntransfer-encoding: chunked\n", &both, &[400]),
        create("an underscore", "transfer_encoding: chunked\n", "", &[400]),
        create("two lengths", "content-length: 2\ncontent-length: 3\n", "{}", &[400]),
        create("one length twice", "content-length: 2\ncontent-length: 2\n", "{}", &[400]),
        create("two lengths in one line", "content-length: 2, 3\n", "{}", &[400]),
        create("one length twice in one line", "content-length: 2, 2\n", "{}", &[400]),
        create("a length with a sign", "content-length: +2\n", "{}", &[400]),
        create("a negative length", "content-length: -2\n", "{}", &[400]),
        create("a hexadecimal length", "content-length: 0x2\n", "{}", &[400]),
        create("a length with a point", "content-length: 2.0\n", "{}", &[400]),
        create("no length", "content-length:\n", "{}", &[400]),
        create("a length in words", "content-length: two\n", "{}", &[400]),
        create("a length beyond 64 bits", "content-length: 18446744073709551618\n", "{}", &[400]),
        create("the largest length", "content-length: 18446744073709551615\n", "{}", &[400, 413, 431]),
        create("a length with a space within", "content-length: 1 2\n", "{}", &[400]),
        create("a space before the colon of CL", "content-length : 2\n", "{}", &[400]),
        create("a folded length", "content-length:\n 2\n", "{}", &[400]),
        create("NUL in a length", "content-length: 2␀\n", "{}", &[400]),
        row(
            "chunks in HTTP/1.0",
            format!("{}transfer-encoding: chunked\n\n{both}", CREATE.replace("HTTP/1.1", "HTTP/1.0")),
            &[400],
        ),
        // Chunks.
        chunks("a size with a sign", "+2\n{}\n0\n\n"),
        chunks("a negative size", "-2\n{}\n0\n\n"),
        chunks("a size with 0x", "0x2\n{}\n0\n\n"),
        chunks("a space before a size", " 2\n{}\n0\n\n"),
        chunks("no size", "\n{}\n0\n\n"),
        chunks("a size beyond 64 bits", "10000000000000002\n{}\n0\n\n"),
        chunks("a size of many digits", "fffffffffffffffffffffffff\n{}\n0\n\n"),
        chunks("a size that is none", "zz\n{}\n0\n\n"),
        chunks("a lone LF behind a size", "2␊{}\n0\n\n"),
        chunks("a lone CR behind a size", "2␍{}\n0\n\n"),
        chunks("a lone LF behind a chunk", "2\n{}␊0\n\n"),
        chunks("nothing behind a chunk", "2\n{}0\n\n"),
        chunks("a chunk that is too long", "2\n{}x\n0\n\n"),
        chunks("a lone LF in an extension", "2;x␊\n{}\n0\n\n"),
        chunks("an extension without end", &format!("2;{}\n{{}}\n0\n\n", "x".repeat(20_000))),
        chunks("a lone LF at the end", "2\n{}\n0␊␊"),
        chunks("trailers without end", &format!("2\n{{}}\n0\n{}\n", "a: b\n".repeat(5_000))),
    ];
    all_refused(&gate, &rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_none() {
    let gate = gate("").await;
    let line = |name, request: &str, refused| row(name, request.to_owned(), refused);
    let head = |name, headers: &str, refused| row(name, format!("GET /-/whoami HTTP/1.1\n{ADA}{headers}\n"), refused);
    let rows = [
        line("HTTP/0.9", "GET /-/whoami\n\n", &[0, 400]),
        line("HTTP/0.9 with a head", "GET /-/whoami\nhost: x\nauthorization: Bearer TOKEN\n\n", &[0, 400]),
        line("HTTP/2.0 in words", "GET /-/whoami HTTP/2.0\nhost: x\n\n", &[0, 400]),
        line("HTTP/1.2", "GET /-/whoami HTTP/1.2\nhost: x\n\n", &[0, 400]),
        line("HTTP/11", "GET /-/whoami HTTP/11\nhost: x\n\n", &[0, 400]),
        line("http/1.1", "GET /-/whoami http/1.1\nhost: x\n\n", &[0, 400]),
        line("two spaces in the first line", "GET  /-/whoami HTTP/1.1\nhost: x\n\n", &[0, 400]),
        line("two spaces before the version", "GET /-/whoami  HTTP/1.1\nhost: x\n\n", &[0, 400]),
        line("a tab in the first line", "GET\t/-/whoami HTTP/1.1\nhost: x\n\n", &[0, 400]),
        line("a space in the target", "GET /-/who ami HTTP/1.1\nhost: x\n\n", &[0, 400]),
        line("something behind the version", "GET /-/whoami HTTP/1.1 x\nhost: x\n\n", &[0, 400]),
        line("no method", " /-/whoami HTTP/1.1\nhost: x\n\n", &[0, 400]),
        line("a method that is none", "G@T\u{1} /-/whoami HTTP/1.1\nhost: x\n\n", &[0, 400]),
        line("NUL in the target", "GET /-/who␀ami HTTP/1.1\nhost: x\n\n", &[0, 400]),
        line(
            "a lone LF in the first line",
            "GET /-/whoami HTTP/1.1␊host: x\nauthorization: Bearer TOKEN\n\n",
            &[0, 400],
        ),
        line("lone LFs throughout", "GET /-/whoami HTTP/1.1␊host: x␊authorization: Bearer TOKEN␊␊", &[0, 400]),
        line("a lone CR in the first line", "GET /-/whoami HTTP/1.1␍host: x\n\n", &[0, 400]),
        line("TLS on a plain port", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\n\n", &[0, 400]),
        line("nonsense", "\u{0}\u{1}\u{2}\n\n", &[0, 400]),
        line("no Host", "GET /-/whoami HTTP/1.1\nauthorization: Bearer TOKEN\n\n", &[400]),
        head("two Hosts", "host: y\n", &[400]),
        line("a Host that is none", "GET /-/whoami HTTP/1.1\nhost: a/b@c\nauthorization: Bearer TOKEN\n\n", &[400]),
        head("a space before a colon", "x : y\n", &[400]),
        head("a tab before a colon", "x\t: y\n", &[400]),
        head("a space in a name", "x y: z\n", &[400]),
        head("no name", ": y\n", &[400]),
        head("no colon", "xyz\n", &[400]),
        head("a colon in front", ":authorization: x\n", &[400]),
        head("a pseudo header", ":path: /api/v1/projects\n", &[400]),
        head("NUL in a name", "x␀: y\n", &[400]),
        head("NUL in a value", "x: y␀z\n", &[400]),
        head("a lone LF in a value", "x: y␊z: a\n", &[400]),
        head("a lone CR in a value", "x: y␍z: a\n", &[400]),
        head("a byte beyond ASCII in a name", "xÿ: y\n", &[400]),
        head("a folded value", "x: y\n z\n", &[400]),
        head("a folded value with a tab", "x: y\n\tz\n", &[400]),
        line("a folded first header", "GET /-/whoami HTTP/1.1\n host: x\n\n", &[400]),
        head("a control character in a value", "x: y\u{1}z\n", &[400]),
        head(
            "an upgrade",
            "connection: upgrade\nupgrade: websocket\nsec-websocket-key: x\nsec-websocket-version: 13\n",
            &[400],
        ),
        head(
            "an upgrade to h2c",
            "connection: upgrade, http2-settings\nupgrade: h2c\nhttp2-settings: AAMAAABkAAQAAP__\n",
            &[400],
        ),
        head("an upgrade without a connection", "upgrade: h2c\n", &[400]),
        head("a value without end", &format!("x: {}\n", "y".repeat(100_000)), &[431]),
        head("a name without end", &format!("{}: y\n", "x".repeat(100_000)), &[400, 431]),
        head("headers without end", &"a: b\n".repeat(150), &[431]),
        line(
            "a first line without end",
            &format!("GET /{} HTTP/1.1\nhost: x\n\n", "a".repeat(200_000)),
            &[400, 414, 431],
        ),
    ];
    all_refused(&gate, &rows).await;
}

/// However the first request is refused, what stands in its body is never taken for a second one.
#[tokio::test(flavor = "multi_thread")]
async fn no_body_is_taken_for_a_request() {
    let gate = gate("limits:\n  body: 2KiB\n  query_body: 2KiB\n").await;
    let ada = gate.token("ada");
    gate.upstream.answers("GET /api/v1/projects/team-a/dashboards/stolen", 200, "{}");
    let length = wire(&INNER.replace("TOKEN", &ada)).len();
    let (plain, named) = ("host: x\n", "host: x\nauthorization: Bearer TOKEN\n");
    let json = "content-type: application/json\n";
    for (name, line, headers) in [
        ("no credential", "POST /api/v1/projects/team-a/dashboards", plain.to_owned() + json),
        ("a bad credential", "POST /api/v1/dashboards", format!("{plain}authorization: Bearer x\n{json}")),
        ("two credentials", "POST /api/v1/dashboards", format!("{named}authorization: Bearer x\n{json}")),
        ("an unknown route", "POST /api/v1/nothing", named.to_owned() + json),
        ("another method", "PATCH /api/v1/dashboards", named.to_owned() + json),
        ("a malformed path", "POST /api/v1/../dashboards", named.to_owned() + json),
        ("a foreign project", "POST /api/v1/projects/team-c/dashboards", named.to_owned() + json),
        ("a viewed project", "POST /api/v1/projects/team-b/dashboards", named.to_owned() + json),
        ("something closed", "POST /proxy/unsaved/globaldatasources/api/v1/query", named.to_owned() + json),
        ("another media type", "POST /api/v1/projects/team-a/dashboards", named.to_owned()),
        ("no JSON", "POST /api/v1/projects/team-a/dashboards", named.to_owned() + json),
        ("a body that is not taken", "GET /api/v1/projects", named.to_owned() + json),
        ("a body on an open route", "GET /api/v1/health", plain.to_owned()),
        ("a body on HEAD", "HEAD /-/whoami", named.to_owned()),
        ("a body on DELETE", "DELETE /api/v1/projects/team-a/dashboards/d", named.to_owned()),
        ("compressed", "POST /api/v1/projects/team-a/dashboards", format!("{named}{json}content-encoding: gzip\n")),
        ("an upgrade", "POST /api/v1/dashboards", format!("{named}upgrade: h2c\n")),
        ("waiting for 100", "POST /api/v1/nothing", format!("{named}expect: 100-continue\n")),
        ("HTTP/1.0", "POST /api/v1/nothing HTTP/1.0", format!("{named}connection: keep-alive\n")),
    ] {
        let version = if line.ends_with("HTTP/1.0") { "" } else { " HTTP/1.1" };
        for framing in ["length", "chunked", "large"] {
            let request = match framing {
                "length" => format!("{line}{version}\n{headers}content-length: {length}\n\n{INNER}"),
                "chunked" if version.is_empty() => continue,
                "chunked" => {
                    format!("{line}{version}\n{headers}transfer-encoding: chunked\n\n{length:x}\n{INNER}\n0\n\n")
                }
                // More than we read before we refuse: the inner one follows what was not taken.
                _ => {
                    let total = length + 300_000;
                    let filler = "x".repeat(300_000);
                    format!("{line}{version}\n{headers}content-length: {total}\n\n{filler}{INNER}")
                }
            };
            let heard = speak(&gate.address, &wire(&request.replace("TOKEN", &ada))).await;
            let codes = heard.codes();
            assert!(codes.len() == 1 || framing == "large" && codes.is_empty(), "{name}, {framing}: {codes:?}");
            let seen = gate.upstream.lines();
            assert!(!seen.iter().any(|line| line.contains("stolen")), "{name}, {framing}: {seen:?}");
        }
    }
    all_well(&gate, &ada).await;
}

/// Requests one behind the other are each answered, in order, until one is refused for its framing.
#[tokio::test(flavor = "multi_thread")]
async fn requests_in_a_row() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    let whoami = format!("GET /-/whoami HTTP/1.1\n{ADA}\n");
    let foreign = format!("GET /api/v1/projects/team-c/dashboards HTTP/1.1\n{ADA}\n");
    let nobody = "GET /-/whoami HTTP/1.1\nhost: x\n\n";
    let climbing = format!("GET /api/v1/../x HTTP/1.1\n{ADA}\n");
    let old = format!("GET /-/whoami HTTP/1.0\n{ADA}\n");
    let old_kept = format!("GET /-/whoami HTTP/1.0\n{ADA}connection: keep-alive\n\n");
    for (name, requests, codes) in [
        ("each is answered", vec![&whoami, &foreign, &whoami], vec![200, 404, 200]),
        ("nobody is never the one before", vec![&whoami, &nobody.to_owned(), &whoami], vec![200, 401, 200]),
        ("none behind a malformed one", vec![&whoami, &climbing, &whoami], vec![200, 400]),
        ("none behind HTTP/1.0", vec![&old, &whoami], vec![200]),
        ("HTTP/1.0 that is kept", vec![&old_kept, &whoami], vec![200, 200]),
    ] {
        let text: String = requests.into_iter().map(String::as_str).collect();
        let heard = speak(&gate.address, &wire(&text.replace("TOKEN", &ada))).await;
        assert_eq!(heard.codes(), codes, "{name}: {}", heard.text);
    }
    assert!(gate.upstream.take().is_empty());
}

/// What a connection begins with is known only when enough of it has come.
#[tokio::test(flavor = "multi_thread")]
async fn first_bytes_one_by_one() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let gate = gate("").await;
    let ada = gate.token("ada");
    for (text, expected) in [
        ("POST /-/whoami HTTP/1.1␊host: x\n\n", "HTTP/1.1 400 "),
        ("PRX /-/whoami HTTP/1.1\nhost: x␊\n\n", "HTTP/1.1 400 "),
        ("POST /-/whoami HTTP/1.1\nhost: x\n\n", "HTTP/1.1 405 "),
        ("PUT /-/whoami HTTP/1.1\nhost: x\n\n", "HTTP/1.1 405 "),
    ] {
        let mut socket = tokio::net::TcpStream::connect(&gate.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let bytes = wire(text);
        for byte in &bytes[..4] {
            socket.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        socket.write_all(&bytes[4..]).await.unwrap();
        let mut answer = [0; 13];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), expected, "{text}");
    }
    // The preface of h2 in single bytes.
    let mut socket = tokio::net::TcpStream::connect(&gate.address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for byte in super::frames::PREFACE {
        socket.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    socket.write_all(&super::frames::frame(super::frames::SETTINGS, 0, 0, &[])).await.unwrap();
    let mut answer = [0; 4];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[3], super::frames::SETTINGS, "the server's settings");
    all_well(&gate, &ada).await;
}
