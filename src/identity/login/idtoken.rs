//! What an ID token says, read after its provider gave it to us over TLS (OpenID Connect Core 1.0, 3.1.3.7).
//!
//! Nobody is let in by this: the API server checks the signature and says who it is. It keeps out a token that was made for
//! another login, another client or by another provider.

use std::time::SystemTime;

use serde::Deserialize;

use crate::encoding::jwt_part;
use crate::identity::seal::is_same;
use crate::identity::session::seconds;

/// How much the clocks may differ, in seconds.
const SKEW: u64 = 60;

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: u64,
    iat: Option<u64>,
    nonce: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

fn claims(token: &str) -> Option<Claims> {
    serde_json::from_slice(&jwt_part(token, 1)?).ok()
}

/// Gives the subject.
///
/// # Errors
/// What does not fit; for the log.
pub(super) fn check(
    token: &str,
    issuer: &str,
    client: &str,
    nonce: Option<&str>,
    now: SystemTime,
) -> Result<String, &'static str> {
    let claims = claims(token).ok_or("an ID token that cannot be read")?;
    if claims.iss != issuer {
        return Err("an ID token of another issuer");
    }
    let (ours, several) = match &claims.aud {
        Audience::One(audience) => (audience == client, false),
        Audience::Many(audiences) => (audiences.iter().any(|audience| audience == client), audiences.len() > 1),
    };
    if !ours || (several || claims.azp.is_some()) && claims.azp.as_deref() != Some(client) {
        return Err("an ID token for another client");
    }
    if claims.exp.saturating_add(SKEW) <= seconds(now) {
        return Err("an ID token that is over");
    }
    if claims.iat.is_some_and(|iat| iat > seconds(now).saturating_add(SKEW)) {
        return Err("an ID token from the future");
    }
    match (nonce, &claims.nonce) {
        (Some(wanted), Some(got)) if is_same(wanted, got) => {}
        (Some(_), _) => return Err("an ID token for another login"),
        (None, _) => {}
    }
    if claims.sub.is_empty() || claims.sub.len() > 255 {
        return Err("an ID token without a subject");
    }
    Ok(claims.sub)
}

/// Whether the next token should be had: with a fifth of this one's life left, or half a minute. `began` is when it came,
/// for tokens that do not say when they were made.
pub(super) fn is_due(token: &str, began: u64, now: SystemTime) -> bool {
    let Some(claims) = claims(token) else { return true };
    let life = claims.exp.saturating_sub(claims.iat.unwrap_or(began));
    seconds(now).saturating_add((life / 5).clamp(30, 600).min(life / 2)) >= claims.exp
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::{Value, json};

    use super::*;
    use crate::encoding::base64url;

    fn token(change: impl FnOnce(&mut Value)) -> String {
        let mut claims = json!({
            "iss": "https://idp.example", "sub": "ada", "aud": "perses", "exp": 2000, "iat": 1000, "nonce": "n",
        });
        change(&mut claims);
        format!("e30.{}.sig", base64url(claims.to_string().as_bytes()))
    }

    type Change = fn(&mut Value);

    fn checked(token: &str, nonce: Option<&str>, at: u64) -> Result<String, &'static str> {
        check(token, "https://idp.example", "perses", nonce, UNIX_EPOCH + Duration::from_secs(at))
    }

    #[test]
    fn a_token_is_for_this_login_this_client_and_this_provider() {
        assert_eq!(checked(&token(|_| {}), Some("n"), 1500).as_deref(), Ok("ada"));
        assert!(checked(&token(|c| c["aud"] = json!(["perses"])), Some("n"), 1500).is_ok());
        assert!(
            checked(&token(|c| (c["aud"], c["azp"]) = (json!(["perses", "x"]), json!("perses"))), Some("n"), 1500)
                .is_ok()
        );
        assert!(checked(&token(|_| {}), Some("n"), 2059).is_ok(), "clocks differ a little");
        assert!(checked(&token(|c| drop(c["nonce"].take())), None, 1500).is_ok(), "a refreshed one needs no nonce");
        let bad: [(&str, Change); 12] = [
            ("another issuer", |c| c["iss"] = json!("https://idp.example.evil")),
            ("an issuer that is a list", |c| c["iss"] = json!(["https://idp.example"])),
            ("another client", |c| c["aud"] = json!("grafana")),
            ("another client first", |c| c["aud"] = json!(["grafana", "perses"])),
            ("made for another party", |c| c["azp"] = json!("grafana")),
            ("no audience", |c| drop(c["aud"].take())),
            ("over", |c| c["exp"] = json!(1400)),
            ("without an end", |c| drop(c["exp"].take())),
            ("an end that is text", |c| c["exp"] = json!("2000")),
            ("from the future", |c| c["iat"] = json!(1600)),
            ("another login", |c| c["nonce"] = json!("m")),
            ("no nonce", |c| drop(c["nonce"].take())),
        ];
        for (what, change) in bad {
            assert!(checked(&token(change), Some("n"), 1500).is_err(), "{what}");
        }
        assert!(checked(&token(|c| c["sub"] = json!("")), Some("n"), 1500).is_err());
        assert!(checked("sha256~x", Some("n"), 1500).is_err());
    }

    #[test]
    fn the_next_token_is_had_in_time() {
        let due = |at: u64| is_due(&token(|_| {}), 1000, UNIX_EPOCH + Duration::from_secs(at));
        assert!(!due(1000) && !due(1799) && due(1800) && due(3000));
        // A token of a minute is not due when it comes.
        let short = token(|c| c["exp"] = json!(1060));
        let due = |at: u64| is_due(&short, 1000, UNIX_EPOCH + Duration::from_secs(at));
        assert!(!due(1000) && !due(1029) && due(1030));
        assert!(is_due("nonsense", 0, UNIX_EPOCH));
    }
}
