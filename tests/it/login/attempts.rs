//! Whoever tries out tokens and logins is slowed down by their address, where one is known, and nobody else is.

use perses_sidecar_stack::http::Answer;
use perses_sidecar_stack::openshift::{Endpoint, Fault};

use crate::support::browser::{Browser, GOES, HERE, OPENSHIFT, register};
use crate::support::{Gate, More, gate_with};

const FEW: &str = "limits:\n  failed_attempts: 5\n";
const BEHIND: &str = "  trusted_proxies: [\"127.0.0.0/8\"]\n";

async fn few(listen: &str) -> Gate {
    let gate = gate_with(More { listen, rest: &format!("{OPENSHIFT}{FEW}"), ..More::default() }).await;
    register(&gate, HERE);
    gate
}

async fn from(gate: &Gate, address: &str, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("x-forwarded-for", address)];
    gate.http.send("GET", &format!("{}/-/whoami", gate.url), &headers, "").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_tries_out_tokens_waits() {
    let gate = few(BEHIND).await;
    let cluster = gate.openshift.cluster();
    let (ada, grace) = (gate.token("ada"), gate.token("grace"));
    assert_eq!(from(&gate, "192.0.2.1", &ada).await.status, 200);
    // One that is not good counts once, however often a forgotten program sends it.
    for _ in 0..20 {
        assert_eq!(from(&gate, "192.0.2.1", "sha256~forgotten").await.status, 401);
    }
    for number in 1..5 {
        assert_eq!(from(&gate, "192.0.2.1", &format!("sha256~{number}")).await.status, 401, "{number}");
    }
    let reviews = cluster.count(Endpoint::TokenReviews);
    let refused = from(&gate, "192.0.2.1", "sha256~one-more").await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    assert!(refused.json()["message"].as_str().unwrap().contains("from your address"), "{}", refused.text());
    // What it says before the proxy's own word is nothing, and what is known is known.
    assert_eq!(from(&gate, "198.51.100.7, 192.0.2.1", "sha256~hidden").await.status, 429);
    assert_eq!(from(&gate, "192.0.2.1", "sha256~forgotten").await.status, 401);
    assert_eq!(cluster.count(Endpoint::TokenReviews), reviews, "nobody was asked");
    assert_eq!(from(&gate, "192.0.2.1", &ada).await.status, 200, "who was good lately stays");
    assert_eq!(from(&gate, "192.0.2.1", &grace).await.status, 429);
    for other in ["192.0.2.2", "2001:db8::1", "192.0.2.1, 127.0.0.1, 203.0.113.9"] {
        assert_eq!(from(&gate, other, &gate.token("grace")).await.status, 200, "{other}");
    }
    let metrics = gate.http.send("GET", &format!("{}/metrics", gate.admin), &[], "").await.unwrap().text();
    assert!(metrics.contains("perses_sidecar_refusals_total{reason=\"attempts\"} 3"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_share_an_address_nobody_is_shut_out_by_it() {
    for listen in ["", "  trusted_proxies: [\"10.0.0.0/8\"]\n"] {
        let gate = few(listen).await;
        for number in 0..20 {
            assert_eq!(from(&gate, "192.0.2.1", &format!("sha256~{number}")).await.status, 401, "{number}");
        }
        assert_eq!(from(&gate, "192.0.2.1", &gate.token("ada")).await.status, 200);
    }
    // Nor where the proxy says nothing, or nothing that can be believed.
    let gate = few(BEHIND).await;
    for number in 0..20 {
        let said = ["", "127.0.0.9", "192.0.2.1, unknown"][number % 3];
        assert_eq!(from(&gate, said, &format!("sha256~{number}")).await.status, 401, "{number}");
    }
    assert_eq!(from(&gate, "", &gate.token("ada")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_whose_logins_fail_waits_and_reads_so() {
    let gate = few(BEHIND).await;
    let cluster = gate.openshift.cluster();
    let comes = async |address: &str| {
        let mut browser = Browser::of(&gate);
        let place = browser.begins("/projects/team-a").await;
        let back = cluster.log_in("ada", place.split_once('?').unwrap().1).unwrap();
        let headers = [GOES.as_slice(), &[("x-forwarded-for", address)]].concat();
        browser.send("GET", back.strip_prefix(HERE).unwrap(), &headers, "").await
    };
    // People who succeed are never too many.
    for _ in 0..10 {
        assert_eq!(comes("192.0.2.1").await.status, 302);
    }
    cluster.set_fault(Endpoint::Token, Some(Fault::Status(400, "{\"error\":\"invalid_grant\"}".to_owned())));
    for _ in 0..5 {
        assert_eq!(comes("192.0.2.1").await.status, 502);
    }
    cluster.set_fault(Endpoint::Token, None);
    let exchanges = cluster.count(Endpoint::Token);
    let refused = comes("192.0.2.1").await;
    assert_eq!(refused.status, 429);
    let text = refused.text();
    assert!(text.starts_with("<!doctype html>") && text.contains("from your address"), "{text}");
    assert!(text.contains(&format!("{HERE}/-/login?to=%2Fprojects%2Fteam-a")), "a way to try again: {text}");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(cluster.count(Endpoint::Token), exchanges, "no code was redeemed");
    assert_eq!(comes("192.0.2.2").await.status, 302);
}
