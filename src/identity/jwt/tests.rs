//! Traps of JWTs, one row each. The keys are made here, the time is fixed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use std::sync::LazyLock;
use std::time::UNIX_EPOCH;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use jsonwebtoken::EncodingKey;
use serde_json::json;

use super::*;
use crate::encoding::base64url;

const ISSUER: &str = "https://kubernetes.default.svc";
const NOW: u64 = 2_000_000_000;

/// An RSA and an elliptic key, and what the issuer publishes of them.
struct Made {
    rsa: EncodingKey,
    elliptic: EncodingKey,
    set: Value,
    public_rsa: Vec<u8>,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let public = pair.public_key();
    let text = |bytes: &[u8]| base64url(bytes);
    let rsa = json!({
        "kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256",
        "n": text(public.modulus().big_endian_without_leading_zero()),
        "e": text(public.exponent().big_endian_without_leading_zero()),
    });
    let elliptic = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = elliptic.public_key().as_ref().to_vec();
    let ec = json!({ "kty": "EC", "crv": "P-256", "kid": "two", "x": text(&point[1..33]), "y": text(&point[33..]) });
    let unknown = json!({ "kty": "AKP", "kid": "three", "alg": "ML-DSA-44", "pub": "AAAA" });
    let other = json!({ "kty": "RSA", "kid": "one", "use": "enc", "n": "AQAB", "e": "AQAB" });
    Made {
        // The library wants PKCS #1 inside.
        rsa: EncodingKey::from_rsa_der(&inner_rsa(pkcs8.as_ref())),
        elliptic: EncodingKey::from_ec_der(elliptic.to_pkcs8v1().unwrap().as_ref()),
        set: json!({ "keys": [unknown, other, rsa, ec] }),
        public_rsa: public.as_ref().to_vec(),
    }
});

/// The RSAPrivateKey in a PKCS #8 of it: the last octet string.
fn inner_rsa(pkcs8: &[u8]) -> Vec<u8> {
    // SEQUENCE, version, algorithm, OCTET STRING with a length of two bytes.
    let at = pkcs8.windows(2).position(|pair| pair == [0x04, 0x82]).unwrap();
    pkcs8[at + 4..].to_vec()
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "system:serviceaccount:a:b", "aud": [ISSUER], "exp": NOW + 600, "iat": NOW - 60, "nbf": NOW - 60 })
}

fn signed(header: Value, claims: &Value, with: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), with, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn good(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims();
    change(&mut claims);
    signed(json!({ "alg": "RS256", "kid": "one" }), &claims, &MADE.rsa, Algorithm::RS256)
}

fn precheck(answers: Vec<Result<Fetched, String>>) -> Precheck {
    Precheck::new(vec![Source::Fixed { answers: std::sync::Mutex::new(answers), audiences: vec![ISSUER.to_owned()] }])
}

fn fetched(set: &Value) -> Result<Fetched, String> {
    Ok(Fetched { issuer: ISSUER.to_owned(), keys: set.clone() })
}

async fn rejects(token: &str) -> bool {
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    precheck(vec![fetched(&MADE.set), fetched(&MADE.set)]).rejects(token, now, Instant::now()).await.is_some()
}

#[tokio::test]
async fn good_tokens_pass_and_so_does_what_cannot_be_checked_here() {
    assert!(!rejects(&good(|_| {})).await);
    assert!(
        !rejects(&good(|c| c["aud"] = json!(ISSUER))).await
            && !rejects(&good(|c| c["aud"] = json!(["x", ISSUER]))).await
    );
    assert!(!rejects(&good(|c| c["exp"] = json!(NOW - 59))).await, "clocks differ a little");
    assert!(!rejects(&good(|c| drop(c.as_object_mut().unwrap().remove("nbf")))).await);
    let elliptic = signed(json!({ "alg": "ES256", "kid": "two" }), &claims(), &MADE.elliptic, Algorithm::ES256);
    assert!(!rejects(&elliptic).await, "beside a key of an unknown kind and one for something else");
    for foreign in ["sha256~abc", "a.b.c", "e30.e30.sig", &good(|c| c["iss"] = json!("kubernetes/serviceaccount"))] {
        assert!(!rejects(foreign).await, "{foreign} is the API server's to judge");
    }
    let large = signed(json!({ "alg": "ES512", "kid": "five" }), &claims(), &MADE.rsa, Algorithm::RS256);
    assert!(!rejects(&large).await, "valid, but not of a kind that is known here");
}

#[tokio::test]
async fn what_is_forged_over_or_for_others_is_refused() {
    type Change = fn(&mut Value);
    let bad: [(&str, Change); 17] = [
        ("another audience", |c| c["aud"] = json!(["vault"])),
        ("no audience", |c| drop(c.as_object_mut().unwrap().remove("aud"))),
        ("an audience that is a number", |c| c["aud"] = json!(42)),
        ("an empty list of audiences", |c| c["aud"] = json!([])),
        ("a list with a number", |c| c["aud"] = json!([ISSUER, 42])),
        ("two issuers", |c| c["iss"] = json!(["bad", ISSUER])),
        ("one issuer in a list", |c| c["iss"] = json!([ISSUER])),
        ("no subject", |c| drop(c.as_object_mut().unwrap().remove("sub"))),
        ("a subject that is a number", |c| c["sub"] = json!(42)),
        ("over", |c| c["exp"] = json!(NOW - 61)),
        ("no end", |c| drop(c.as_object_mut().unwrap().remove("exp"))),
        ("an end that is text", |c| c["exp"] = json!("2000000600")),
        ("an end before time", |c| c["exp"] = json!(-1)),
        ("an end beyond time", |c| c["exp"] = json!(1e30)),
        ("not yet", |c| c["nbf"] = json!(NOW + 61)),
        ("a beginning that is text", |c| c["nbf"] = json!("2000000600")),
        ("a beginning that is a fraction", |c| c["nbf"] = json!(0.5)),
    ];
    for (what, change) in bad {
        assert!(rejects(&good(change)).await, "{what}");
    }
    let claims = claims();
    let secret = EncodingKey::from_secret(&MADE.public_rsa);
    let (rs, hs, es) = (Algorithm::RS256, Algorithm::HS256, Algorithm::ES256);
    for (what, token) in [
        (
            "signed with the public key as a secret",
            signed(json!({ "alg": "HS256", "kid": "one" }), &claims, &secret, hs),
        ),
        (
            "another algorithm of the same key",
            signed(json!({ "alg": "RS512", "kid": "one" }), &claims, &MADE.rsa, Algorithm::RS512),
        ),
        ("the key of another", signed(json!({ "alg": "RS256", "kid": "two" }), &claims, &MADE.rsa, rs)),
        ("an unknown key", signed(json!({ "alg": "RS256", "kid": "four" }), &claims, &MADE.rsa, rs)),
        ("no key", signed(json!({ "alg": "RS256" }), &claims, &MADE.rsa, rs)),
        (
            "something critical",
            signed(json!({ "alg": "RS256", "kid": "one", "crit": ["x"], "x": 1 }), &claims, &MADE.rsa, rs),
        ),
        (
            "a key of its own",
            signed(
                json!({ "alg": "ES256", "kid": "x", "jku": "https://evil.example/keys", "jwk": MADE.set["keys"][3] }),
                &claims,
                &MADE.elliptic,
                es,
            ),
        ),
        (
            "no signature",
            format!("{}.{}.", base64url(br#"{"alg":"none","kid":"one"}"#), base64url(claims.to_string().as_bytes())),
        ),
    ] {
        assert!(rejects(&token).await, "{what}");
    }
    let token = good(|_| {});
    let (rest, signature) = token.rsplit_once('.').unwrap();
    let swapped = if signature.starts_with('A') { "B" } else { "A" };
    assert!(rejects(&format!("{rest}.{swapped}{}", &signature[1..])).await, "a bit of the signature");
}

#[tokio::test]
async fn keys_are_looked_at_seldom_however_many_are_made_up() {
    let none = json!({ "keys": [] });
    let checker =
        precheck(vec![fetched(&none), fetched(&none), fetched(&MADE.set), Err("down".to_owned()), fetched(&none)]);
    let left = || match &checker.known[0].source {
        Source::Fixed { answers, .. } => answers.lock().unwrap().len(),
        _ => unreachable!("it is fixed"),
    };
    let (token, mut steady) = (good(|_| {}), Instant::now());
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    for _ in 0..1000 {
        assert!(checker.rejects(&token, now, steady).await.is_some(), "its key is not there yet");
    }
    assert_eq!(left(), 4, "one look");
    steady += Duration::from_secs(31);
    assert!(checker.rejects(&token, now, steady).await.is_some());
    steady += Duration::from_secs(31);
    assert!(checker.rejects(&token, now, steady).await.is_none(), "the new key is found");
    assert_eq!(left(), 2);
    steady += FRESH + Duration::from_secs(1);
    assert!(checker.rejects(&token, now, steady).await.is_none(), "the last good ones are kept while nobody answers");
    steady += Duration::from_secs(31);
    assert!(checker.rejects(&token, now, steady).await.is_some(), "a key that is taken back is none");
    assert_eq!(left(), 0);
    steady += STALE + Duration::from_secs(31);
    assert!(checker.rejects(&token, now, steady).await.is_none(), "without keys the API server decides");
}
