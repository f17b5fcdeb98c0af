//! A look at a JWT before the API server is asked about it: what is forged, over, or meant for others costs it nothing.
//!
//! It only ever says no. Whoever passes is reviewed like everybody, because only the API server knows whether an account
//! still exists and who somebody is. A token of an issuer that we do not know, or of a kind that we cannot check, passes.
//!
//! What the library leaves open is decided here: the key names the algorithm, four claims must be there and be texts (RFC
//! 7519, 4.1; their wrong types would pass otherwise), nothing critical is ignored (RFC 7515, 4.1.11), and the time is ours.

mod source;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::session::seconds;
use crate::encoding::jwt_part;
pub(super) use source::sources;
use source::{Fetched, Source};

/// How much clocks may differ, in seconds.
const SKEW: u64 = 60;
/// How long keys are used without a look; issuers publish new ones at least an hour before they use them.
const FRESH: Duration = Duration::from_secs(3000);
/// How soon keys are looked at again when a token names one that we do not have: anybody may make up names.
const AGAIN: Duration = Duration::from_secs(30);
/// How long keys are used when nobody can be asked for newer ones.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// One key of an issuer.
struct Key {
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// The keys of one issuer, as last seen.
struct Keys {
    issuer: String,
    keys: Vec<Key>,
    seen: Instant,
}

/// One issuer.
struct Known {
    source: Source,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<Keys>>,
    asked: Option<Instant>,
}

/// Looks at tokens.
pub(super) struct Precheck {
    known: Vec<Known>,
}

impl Precheck {
    /// For tokens of these issuers. Asks nobody yet.
    pub(super) fn new(sources: Vec<Source>) -> Self {
        let known = sources.into_iter().map(|source| Known { source, state: Mutex::default() }).collect();
        Self { known }
    }

    /// Why a token is surely not good; `None` when the API server must decide.
    pub(super) async fn rejects(&self, token: &str, now: SystemTime, steady: Instant) -> Option<&'static str> {
        let seen = Seen::read(token)?;
        for known in &self.known {
            let mut state = known.state.lock().await;
            known.look(&mut state, None, steady).await;
            if !state.keys.as_ref().is_some_and(|keys| seen.names(&keys.issuer)) {
                continue;
            }
            let missing = |keys: &Keys| !keys.keys.iter().any(|key| Some(&key.id) == seen.header.kid.as_ref());
            if state.keys.as_deref().is_some_and(missing) {
                known.look(&mut state, seen.header.kid.as_deref(), steady).await;
            }
            let keys = state.keys.clone()?;
            drop(state);
            return check(token, &seen, &keys, &known.source.audiences(&keys.issuer), now).err();
        }
        None
    }
}

impl Known {
    /// Has the keys of the moment, if it is time: now and then, or, seldom, for a key that is missing.
    async fn look(&self, state: &mut State, missing: Option<&str>, now: Instant) {
        let age = |since: Option<Instant>| since.map(|since| now.saturating_duration_since(since));
        let asked_lately = age(state.asked).is_some_and(|age| age < AGAIN);
        let fresh = age(state.keys.as_ref().map(|keys| keys.seen)).is_some_and(|age| age < FRESH);
        if asked_lately || (fresh && missing.is_none()) {
            return;
        }
        state.asked = Some(now);
        match self.source.fetch().await {
            Ok(Fetched { issuer, keys }) => {
                state.keys = Some(Arc::new(Keys { issuer, keys: read_keys(&keys), seen: now }))
            }
            Err(cause) => {
                tracing::warn!(cause, "The keys of an issuer cannot be had; its tokens are reviewed without a look");
                if age(state.keys.as_ref().map(|keys| keys.seen)).is_some_and(|age| age > STALE) {
                    state.keys = None;
                }
            }
        }
    }
}

/// The keys of a set that can be used; what is of an unknown kind or for something else leaves the others as they are.
fn read_keys(set: &Value) -> Vec<Key> {
    let all = set.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    all.iter().take(64).filter_map(read_key).collect()
}

fn read_key(value: &Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    // The key says which algorithm; a token cannot choose another.
    let algorithm = match (text("kty")?, text("crv"), text("alg")) {
        ("RSA", None, None | Some("RS256")) => Algorithm::RS256,
        ("RSA", None, Some("RS384")) => Algorithm::RS384,
        ("RSA", None, Some("RS512")) => Algorithm::RS512,
        ("RSA", None, Some("PS256")) => Algorithm::PS256,
        ("EC", Some("P-256"), None | Some("ES256")) => Algorithm::ES256,
        ("EC", Some("P-384"), None | Some("ES384")) => Algorithm::ES384,
        ("OKP", Some("Ed25519"), None | Some("EdDSA" | "Ed25519")) => Algorithm::EdDSA,
        _ => return None,
    };
    Some(Key { id: text("kid")?.to_owned(), algorithm, key: DecodingKey::from_jwk(&jwk).ok()? })
}

/// What a token says of itself, believed by nobody.
struct Seen {
    header: Header,
    claims: Value,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl Seen {
    /// `None` for what is no JWT at all.
    fn read(token: &str) -> Option<Self> {
        let header = serde_json::from_slice(&jwt_part(token, 0)?).ok()?;
        let claims = serde_json::from_slice(&jwt_part(token, 1)?).ok()?;
        Some(Self { header, claims })
    }

    /// Whether it says that it is of an issuer, in whatever form.
    fn names(&self, issuer: &str) -> bool {
        match self.claims.get("iss") {
            Some(Value::String(iss)) => iss == issuer,
            Some(Value::Array(several)) => several.iter().any(|iss| iss == issuer),
            _ => false,
        }
    }
}

fn check(token: &str, seen: &Seen, keys: &Keys, audiences: &[String], now: SystemTime) -> Result<(), &'static str> {
    // Valid, but not of the library's kinds; the API server knows.
    if seen.header.alg == "ES512" {
        return Ok(());
    }
    if seen.header.crit.is_some() {
        return Err("something critical that is not known");
    }
    let kid = seen.header.kid.as_deref().ok_or("no key is named")?;
    let key = keys.keys.iter().find(|key| key.id == kid).ok_or("a key that its issuer does not have")?;
    let mut validation = Validation::new(key.algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[&keys.issuer]);
    validation.set_audience(audiences);
    validation.leeway = SKEW;
    // By our own clock, below.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    jsonwebtoken::decode::<Value>(token, &key.key, &validation)
        .map_err(|_| "a signature, issuer or audience that does not fit")?;
    let texts = ["iss", "sub"].iter().all(|name| seen.claims.get(name).is_some_and(Value::is_string));
    let audience = match seen.claims.get("aud") {
        Some(Value::String(_)) => true,
        Some(Value::Array(several)) => !several.is_empty() && several.iter().all(Value::is_string),
        _ => false,
    };
    if !texts || !audience {
        return Err("a claim of the wrong type");
    }
    let now = seconds(now);
    let time = |name: &str| seen.claims.get(name).map(|value| value.as_u64().ok_or("a time that is none"));
    match time("exp") {
        Some(exp) if exp?.saturating_add(SKEW) > now => {}
        _ => return Err("over, or without an end"),
    }
    match time("nbf") {
        Some(nbf) if nbf? > now.saturating_add(SKEW) => Err("not good yet"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
