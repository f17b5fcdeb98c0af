//! Tokens of service accounts: signed, with keys that anybody can have from the API server, and made on request.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Response;
use http_body_util::Full;
use rcgen::{PublicKeyData, SigningKey};
use serde_json::{Value, json};

use super::rbac::{Asked, Who};
use super::serve::{object, reply, status, uid};
use super::{API, State, Token};
use crate::encoding::{base64url, from_base64url};
use crate::kubernetes::plain;

/// Tokens last so long unless somebody asks for another time, which may not be shorter than ten minutes.
const HOUR: u64 = 3600;
const SHORTEST: u64 = 600;

/// The keys, the one that signs last.
#[derive(Default)]
pub(super) struct Keys(Vec<rcgen::KeyPair>);

impl Keys {
    fn signing(&mut self) -> Option<&rcgen::KeyPair> {
        if self.0.is_empty() {
            self.rotate();
        }
        self.0.last()
    }

    /// Signs with another key from now on; what was signed before stays good.
    pub(super) fn rotate(&mut self) {
        self.0.extend(rcgen::KeyPair::generate());
    }
}

/// The name of a key, as the API server makes it: a digest of the whole public key.
fn name(key: &rcgen::KeyPair) -> String {
    let der = key.subject_public_key_info();
    base64url(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der).as_ref())
}

/// `/openid/v1/jwks`. A key of a kind that nobody has heard of stands among them: it must not keep anybody from the others.
pub(super) fn keys(state: &mut State) -> Response<Full<bytes::Bytes>> {
    let _ = state.keys.signing();
    let mut keys = vec![json!({ "use": "sig", "kty": "XYZ", "kid": "another-kind", "alg": "XY256", "xyz": "AQAB" })];
    keys.extend(state.keys.0.iter().map(|key| {
        let point = key.der_bytes();
        let (x, y) = (base64url(&point[1..33]), base64url(&point[33..65]));
        json!({ "use": "sig", "kty": "EC", "kid": name(key), "alg": "ES256", "crv": "P-256", "x": x, "y": y })
    }));
    let mut response = reply(200, json!({ "keys": keys }).to_string());
    let kind = http::HeaderValue::from_static("application/jwk-set+json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// `/.well-known/openid-configuration`
pub(super) fn document() -> Response<Full<bytes::Bytes>> {
    let document = json!({
        "issuer": API,
        "jwks_uri": format!("{API}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    reply(200, document.to_string())
}

fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs().cast_signed(),
        Err(before) => -before.duration().as_secs().cast_signed(),
    }
}

/// A token of an account, which exists from now on. Without an end and an audience it is one that lies in a Secret; with an
/// end and without an audience it is meant for the API server.
pub(super) fn issue(
    state: &mut State,
    namespace: &str,
    account: &str,
    audiences: &[String],
    expires: Option<SystemTime>,
) -> String {
    let user = format!("system:serviceaccount:{namespace}:{account}");
    let groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    state.groups.insert(user.clone(), groups);
    let now = state.now();
    let id = super::random_text(22);
    let whose = uid(&user);
    let began = seconds(now).min(expires.map_or(i64::MAX, seconds) - 1);
    let claims = match expires {
        None if audiences.is_empty() => json!({
            "iss": "kubernetes/serviceaccount", "sub": user,
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": format!("{account}-token-{id}"),
            "kubernetes.io/serviceaccount/service-account.name": account,
            "kubernetes.io/serviceaccount/service-account.uid": whose,
        }),
        _ => json!({
            "iss": API, "sub": user, "jti": id,
            "aud": if audiences.is_empty() { vec![API.to_owned()] } else { audiences.to_vec() },
            "iat": began, "nbf": began,
            "exp": expires.map_or(i64::from(u32::MAX), seconds),
            "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": account, "uid": whose } },
        }),
    };
    let Some(key) = state.keys.signing() else { return String::new() };
    let head = json!({ "alg": "ES256", "kid": name(key) });
    let text = format!("{}.{}", base64url(head.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let signature = key.sign(text.as_bytes()).ok().and_then(|der| plain(&der)).unwrap_or_default();
    let token = format!("{text}.{}", base64url(&signature));
    state.oauth.keep(&token);
    let (client, audiences) = (String::new(), audiences.to_vec());
    state
        .tokens
        .insert(token.clone(), Token { user, client, expires, scopes: Vec::new(), audiences, seen: now, idle: None });
    token
}

/// What a token says of itself that reviews tell: its id.
pub(super) fn credential(token: &str) -> Option<String> {
    let claims: Value = serde_json::from_slice(&from_base64url(token.split('.').nth(1)?)?).ok()?;
    Some(format!("JTI={}", claims["jti"].as_str()?))
}

/// Namespace and account of `/api/v1/namespaces/NS/serviceaccounts/NAME/token`.
pub(super) fn asked(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/api/v1/namespaces/")?.strip_suffix("/token")?;
    let (namespace, rest) = rest.split_once('/')?;
    let account = rest.strip_prefix("serviceaccounts/")?;
    (!account.contains('/')).then_some((namespace, account))
}

/// TokenRequest.
pub(super) fn request(state: &mut State, caller: &Who, path: &str, body: &[u8]) -> Response<Full<bytes::Bytes>> {
    let Some((namespace, account)) = asked(path) else { return status(404, "not found") };
    let wanted = Asked {
        namespace: namespace.to_owned(),
        verb: "create".to_owned(),
        resource: "serviceaccounts/token".to_owned(),
        name: account.to_owned(),
        ..Asked::default()
    };
    if !state.rbac.allows(caller, &wanted) {
        return status(403, "forbidden");
    }
    let Some(mut review) = object(body) else { return status(400, "no JSON object") };
    if !state.groups.contains_key(&format!("system:serviceaccount:{namespace}:{account}")) {
        return status(404, &format!("serviceaccounts \"{account}\" not found"));
    }
    let lasts = review["spec"]["expirationSeconds"].as_u64().unwrap_or(HOUR);
    if lasts < SHORTEST {
        return status(422, "spec.expirationSeconds: may not specify a duration less than 10 minutes");
    }
    let audiences: Vec<String> = serde_json::from_value(review["spec"]["audiences"].clone()).unwrap_or_default();
    let own = audiences.is_empty() || audiences == [API];
    let expires = state.now() + Duration::from_secs(lasts);
    let token = issue(state, namespace, account, if own { &[] } else { &audiences }, Some(expires));
    review["spec"]["expirationSeconds"] = json!(lasts);
    review["spec"]["audiences"] = if own { json!([API]) } else { json!(audiences) };
    review["status"] = json!({ "token": token, "expirationTimestamp": rfc3339(seconds(expires)) });
    reply(201, review.to_string())
}

/// A moment in seconds since 1970, in UTC.
fn rfc3339(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years that begin in March have their leap day at the end.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::openshift::Cluster;

    #[test]
    fn moments_are_written_as_the_api_does() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_772_323_200, "2026-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn tokens_say_whose_they_are_and_are_signed_by_a_key_that_is_published() {
        let cluster = Cluster::default();
        let secret = cluster.service_account_token("team-a", "bot", &[]);
        let private = cluster.service_account_token("team-a", "bot", &["perses"]);
        let ending = cluster.service_account_token_ending("team-a", "bot", 600);
        let claims = |token: &str| -> Value {
            serde_json::from_slice(&from_base64url(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
        };
        assert_eq!((&claims(&secret)["iss"], claims(&secret).get("exp")), (&json!("kubernetes/serviceaccount"), None));
        assert_eq!(claims(&private)["aud"], json!(["perses"]));
        assert_eq!((&claims(&ending)["aud"], &claims(&ending)["iss"]), (&json!([API]), &json!(API)));
        assert!(credential(&secret).is_none() && credential(&ending).unwrap().starts_with("JTI="));
        cluster.rotate_account_keys();
        let after = cluster.service_account_token("team-a", "bot", &["perses"]);
        let mut state = cluster.state();
        let head = |token: &str| -> Value {
            serde_json::from_slice(&from_base64url(token.split('.').next().unwrap()).unwrap()).unwrap()
        };
        let published: Vec<String> = state.keys.0.iter().map(name).collect();
        assert_eq!(published.len(), 2);
        for token in [&secret, &private, &ending, &after] {
            let (text, signature) = token.rsplit_once('.').unwrap();
            let kid = head(token)["kid"].as_str().unwrap().to_owned();
            let at = published.iter().position(|known| *known == kid).unwrap();
            let point = state.keys.0[at].der_bytes().to_vec();
            let key =
                aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, point);
            key.verify(text.as_bytes(), &from_base64url(signature).unwrap()).unwrap();
            assert!(key.verify(b"another text", &from_base64url(signature).unwrap()).is_err());
        }
        assert_ne!(head(&after)["kid"], head(&private)["kid"]);
        assert_eq!(keys(&mut state).status(), 200);
    }
}
