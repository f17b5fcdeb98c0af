//! Headers by which somebody could be taken for somebody else.

use super::{Row, all_refused, all_well, row};
use crate::support::{Gate, gate, speak, wire};

/// Names by which proxies tell servers who somebody is, or where a request came from and should go.
pub(super) const NAMES: [&str; 42] = [
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
    "X-Forwarded-Id-Token",
    "X-Auth-Request-User",
    "X-Auth-Request-Groups",
    "X-Auth-Username",
    "X-Auth-Roles",
    "X-Remote-User",
    "X-Remote-Group",
    "X-Remote-Groups",
    "X-Remote-Extra-Scopes",
    "X-Remote-Uid",
    "Remote-User",
    "X-User",
    "X-User-Id",
    "Impersonate-User",
    "Impersonate-Group",
    "Impersonate-Uid",
    "Impersonate-Extra-Scopes",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-SSL-Client-CN",
    "X-Client-Cert",
    "X-Forwarded-Client-Cert",
    "GAP-Signature",
    "GAP-Auth",
    "Proxy-Authorization",
    "X-HTTP-Method-Override",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Real-IP",
    "X-Scope-OrgID",
    "THANOS-TENANT",
    "Cookie",
];

/// What a request to an upstream may carry; all of it is ours.
pub(super) const OURS: [&str; 6] =
    ["accept", "accept-encoding", "content-length", "content-type", "host", "user-agent"];

/// The ways in which a name is sent.
fn variants(name: &str) -> Vec<(&'static str, String)> {
    let mixed = |(at, c): (usize, char)| if at % 2 == 0 { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
    let spelt = |name: &str| format!("{name}: evil\n");
    let mixed: String = name.chars().enumerate().map(mixed).collect();
    vec![
        ("exact", spelt(name)),
        ("lower", spelt(&name.to_lowercase())),
        ("upper", spelt(&name.to_uppercase())),
        ("mixed", spelt(&mixed)),
        ("underscores", spelt(&name.replace('-', "_"))),
        ("one underscore", spelt(&name.replacen('-', "_", 1))),
        ("twice", spelt(name).repeat(2)),
        ("empty", format!("{name}:\n")),
        ("named in Connection", format!("{}connection: close, {name}\n", spelt(name))),
        (
            "named in Connection with a tab",
            format!("{}connection: keep-alive,\t{} \n", spelt(name), name.to_uppercase()),
        ),
        ("named in two Connection lines", format!("{}connection: keep-alive\nconnection: {name}\n", spelt(name))),
    ]
}

/// No upstream has seen anything but our own headers.
fn check_seen(gate: &Gate, what: &str, most: usize) -> usize {
    let seen = gate.upstream.take();
    assert!(seen.len() <= most, "{what}: {seen:?}");
    for seen in &seen {
        for (name, value) in &seen.headers {
            assert!(OURS.contains(&name.as_str()), "{what}: {name} reached an upstream");
            assert!(!String::from_utf8_lossy(value.as_bytes()).contains("evil"), "{what}: {name} is the client's");
        }
    }
    seen.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_identity_of_a_client_s_making_reaches_an_upstream() {
    let gate = gate("").await;
    let ada = gate.token("ada");
    gate.upstream.answers("GET /api/config", 200, "{}");
    gate.upstream.answers("GET /api/v1/projects/team-a/dashboards/d", 200, "{}");
    all_well(&gate, &ada).await;
    let authorized = format!("authorization: Bearer {ada}\n");
    let mut reached = 0;
    for name in NAMES {
        for (variant, headers) in variants(name) {
            for (route, line, credential, code, most) in [
                ("open", "GET /api/config", "", 200, 1),
                ("a document", "GET /api/v1/projects/team-a/dashboards/d", authorized.as_str(), 200, 1),
                ("a question", "GET /proxy/globaldatasources/p/api/v1/query?query=up", authorized.as_str(), 200, 1),
                ("refused: nobody", "GET /api/v1/projects/team-a/dashboards/d", "", 401, 0),
                ("refused: foreign", "GET /api/v1/projects/team-c/dashboards/d", authorized.as_str(), 404, 0),
            ] {
                // All variants on one kind of route; the others for the first of them only where there is nothing to
                // see.
                if most == 0 && !matches!(variant, "exact" | "named in Connection") {
                    continue;
                }
                let request = format!("{line} HTTP/1.1\nhost: x\n{credential}{headers}\n");
                let heard = speak_quickly(&gate, &request).await;
                let what = format!("{name}, {variant}, {route}");
                assert_eq!(heard, code, "{what}");
                reached += check_seen(&gate, &what, most);
            }
        }
    }
    assert!(reached > 1000, "{reached}: the upstream was there to see");
}

/// The first code, without waiting for a second answer.
async fn speak_quickly(gate: &Gate, request: &str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(&gate.address).await.unwrap();
    socket.write_all(&wire(request)).await.unwrap();
    let mut buffer = [0; 64];
    let read = socket.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..read]).split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_none() {
    let gate = gate("").await;
    let with = |name, value: &str, refused| -> Row {
        row(name, format!("GET /api/v1/projects HTTP/1.1\nhost: x\n{value}\n"), refused)
    };
    let rows = [
        with("none", "", &[401]),
        with("a scheme alone", "authorization: Bearer\n", &[401]),
        with("a scheme and a space", "authorization: Bearer \n", &[401]),
        with("a colon behind the scheme", "authorization: Bearer: TOKEN\n", &[401]),
        with("half a scheme", "authorization: bear TOKEN\n", &[401]),
        with("a token without a scheme", "authorization: TOKEN\n", &[401]),
        with("two spaces", "authorization: Bearer  TOKEN\n", &[400]),
        with("a tab", "authorization: Bearer\tTOKEN\n", &[400, 401]),
        with("two tokens", "authorization: Bearer TOKEN x\n", &[401]),
        with("two tokens, the second good", "authorization: Bearer x TOKEN\n", &[401]),
        with("two tokens with a comma", "authorization: Bearer x, Bearer TOKEN\n", &[400, 401]),
        with("two lines", "authorization: Bearer TOKEN\nauthorization: Bearer TOKEN\n", &[400]),
        with("two lines, the second good", "authorization: Bearer x\nauthorization: Bearer TOKEN\n", &[400]),
        with("two lines, one empty", "authorization: Bearer TOKEN\nauthorization:\n", &[400]),
        with("two lines in two cases", "authorization: Bearer TOKEN\nAUTHORIZATION: Basic x\n", &[400]),
        with("an underscore", "authorization_: Bearer TOKEN\n", &[401]),
        with("Basic with a token as the name", "authorization: Basic c2hhMjU2fng6\n", &[401]),
        with("Basic with a token and a word", "authorization: Basic c2hhMjU2fng6eC1vYXV0aC1iYXNpYw==\n", &[401]),
        with("Basic that is none", "authorization: Basic !!\n", &[401]),
        with("Negotiate", "authorization: Negotiate TOKEN\n", &[401]),
        with("a token of 64 KiB", &format!("authorization: Bearer {}\n", "a".repeat(60 << 10)), &[400, 431]),
        with("a token with a control character", "authorization: Bearer a\u{1}b\n", &[400]),
        with("a token with a quote", "authorization: Bearer \"TOKEN\"\n", &[400]),
        with("a token beyond ASCII", "authorization: Bearer aÿ\n", &[400]),
        with("a token in the query", "", &[401]),
        with("a token in a cookie", "cookie: token=TOKEN; Authorization=Bearer TOKEN\n", &[401]),
        with("a good cookie does not mend a bad token", "authorization: Bearer x\ncookie: session=TOKEN\n", &[401]),
        with(
            "a websocket protocol",
            "sec-websocket-protocol: base64url.bearer.authorization.k8s.io.dG9rZW4, dummy\n",
            &[401],
        ),
        row("an access_token parameter", "GET /api/v1/projects?access_token=TOKEN HTTP/1.1\nhost: x\n\n", &[400]),
    ];
    let cluster = gate.openshift.cluster().clone();
    all_refused(&gate, &rows).await;
    // One for ada, and one for each text that could be a token.
    let reviews = cluster.count(perses_sidecar_stack::openshift::Endpoint::TokenReviews);
    assert!(reviews <= 2, "{reviews} reviews: what cannot be a token is not reviewed");
    for scheme in ["Bearer", "bearer", "BEARER", "BeArEr"] {
        let request = format!("GET /-/whoami HTTP/1.1\nhost: x\nauthorization:  {scheme} TOKEN \n\n");
        let heard = speak(&gate.address, &wire(&request.replace("TOKEN", &gate.token("ada")))).await;
        assert_eq!(heard.codes(), [200], "{scheme}");
    }
}

/// Only trusted peers say where a request came from, and only in an unbroken chain.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_a_client_made_up() {
    for (trusted, headers, expected) in [
        ("[]", "x-forwarded-for: 1.2.3.4\nx-real-ip: 1.2.3.4\nforwarded: for=1.2.3.4\n", "127.0.0.1"),
        ("[\"10.0.0.0/8\"]", "x-forwarded-for: 1.2.3.4\n", "127.0.0.1"),
        ("[\"127.0.0.0/8\"]", "x-forwarded-for: 6.6.6.6, 1.2.3.4\n", "1.2.3.4"),
        ("[\"127.0.0.0/8\", \"10.0.0.0/8\"]", "x-forwarded-for: 6.6.6.6, 1.2.3.4, 10.0.0.1\n", "1.2.3.4"),
        ("[\"127.0.0.0/8\"]", "x-forwarded-for: 6.6.6.6\nx-forwarded-for: 1.2.3.4\n", "1.2.3.4"),
        ("[\"127.0.0.0/8\"]", "x-forwarded-for: 6.6.6.6, garbage\n", "127.0.0.1"),
        ("[\"127.0.0.0/8\"]", "x-forwarded-for: \n", "127.0.0.1"),
        ("[\"127.0.0.0/8\"]", "x-real-ip: 6.6.6.6\nx-forwarded_for: 6.6.6.6\n", "127.0.0.1"),
    ] {
        let listen = format!("  trusted_proxies: {trusted}\n");
        let gate = crate::support::gate_with(crate::support::More { listen: &listen, ..Default::default() }).await;
        let request = format!("GET /api/v1/projects HTTP/1.1\nhost: x\n{headers}\n");
        assert_eq!(speak(&gate.address, &wire(&request)).await.codes(), [401]);
        let mut lines = String::new();
        for _ in 0..100 {
            lines = std::fs::read_to_string(&gate.audit).unwrap_or_default();
            if lines.contains("no_credential") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(lines.contains(&format!("\"from\":\"{expected}\"")), "{trusted}, {headers}: {lines}");
    }
}
