//! Heads that are refused whatever the route, addresses behind proxies, and who counts as a person.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use std::net::SocketAddr;

use super::*;

fn head(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> http::request::Parts {
    build(Request::builder().uri("/x").header("host", "perses.example:8080")).body(()).unwrap().into_parts().0
}

#[test]
fn heads_that_could_be_read_in_two_ways_are_refused() {
    assert!(check_head(&head(|b| b)).is_ok());
    for bad in [
        head(|b| b.method("CONNECT")),
        head(|b| b.header("upgrade", "websocket")),
        head(|b| b.uri("http://x/y")),
        head(|b| b.header("host", "b")),
        Request::builder().uri("/x").body(()).unwrap().into_parts().0,
        Request::builder().uri("/x").header("host", "a/b").body(()).unwrap().into_parts().0,
        Request::builder().uri("/x").header("host", "u@a").body(()).unwrap().into_parts().0,
        head(|b| b.header("content-type", "a").header("content-type", "b")),
        head(|b| b.header("content-length", "1").header("transfer-encoding", "chunked")),
        head(|b| b.header("content-encoding", "gzip")),
    ] {
        assert!(check_head(&bad).is_err(), "{bad:?}");
    }
    assert!(check_head(&head(|b| b.uri("https://x/y").version(Version::HTTP_2))).is_ok(), "h2 has an authority");
}

#[test]
fn only_trusted_proxies_name_the_client() {
    let address = |headers: &[&str], peer: &str, trusted: &[&str]| {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append("x-forwarded-for", value.parse().unwrap());
        }
        let trusted: Vec<config::Cidr> = trusted
            .iter()
            .map(|block| {
                let (address, prefix) = block.split_once('/').unwrap();
                config::Cidr { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
            })
            .collect();
        let peer = Peer { address: SocketAddr::new(peer.parse().unwrap(), 1), tls: false };
        let Client { address, named } = client_address(&map, peer, &trusted);
        assert_eq!(named, address.to_string() == "12.34.56.78", "who is named by a proxy, and nobody else");
        address.to_string()
    };
    assert_eq!(address(&["12.34.56.78"], "9.9.9.9", &["127.0.0.0/8"]), "9.9.9.9", "a stranger's word is nothing");
    assert_eq!(address(&["12.34.56.78"], "127.0.0.1", &["127.0.0.0/8"]), "12.34.56.78");
    assert_eq!(address(&["6.6.6.6, 12.34.56.78"], "127.0.0.1", &["127.0.0.0/8"]), "12.34.56.78", "the nearest counts");
    assert_eq!(address(&["6.6.6.6", "12.34.56.78, 127.0.0.2"], "::1", &["127.0.0.0/8", "::1/128"]), "12.34.56.78");
    assert_eq!(address(&["6.6.6.6, garbage"], "127.0.0.1", &["127.0.0.0/8"]), "127.0.0.1");
    assert_eq!(address(&[], "::ffff:10.0.0.1", &[]), "10.0.0.1");
}

#[test]
fn people_navigate_and_scripts_do_not() {
    assert!(answer::is_person(&head(|b| b.header("sec-fetch-dest", "document"))));
    assert!(answer::is_person(&head(|b| b.header("accept", "text/html,*/*"))));
    for script in [
        head(|b| b.header("sec-fetch-dest", "empty").header("accept", "text/html")),
        head(|b| b.header("sec-fetch-mode", "cors").header("accept", "text/html")),
        head(|b| b.header("accept", "application/json")),
        head(|b| b.header("accept", "text/html").header("x-requested-with", "x")),
        head(|b| b.method("POST").header("accept", "text/html")),
        head(|b| b),
    ] {
        assert!(!answer::is_person(&script), "{script:?}");
    }
}

#[test]
fn media_types_are_compared_whole() {
    let json = |value: &str| is_media_type(&HeaderValue::try_from(value).unwrap(), "application/json");
    assert!(
        json("application/json")
            && json("Application/JSON; charset=UTF-8")
            && json("application/json;charset=\"utf-8\"")
    );
    for other in [
        "application/xml; a=application/json",
        "text/plain",
        "application/json; charset=latin1",
        "application/jsonx",
        "",
        "application/json, text/plain",
    ] {
        assert!(!json(other), "{other}");
    }
}
