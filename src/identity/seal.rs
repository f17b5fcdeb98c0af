//! What we give a browser to keep: encrypted, bound to one purpose, one cookie and one host, and opened by nobody else.
//!
//! AES-256-GCM with random nonces; keys are derived from the configured secrets (HKDF, RFC 5869). The first key seals, every
//! key opens, so that keys can be changed without logging anybody out.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::{constant_time, rand};

use crate::config::CookieKey;
use crate::encoding::{base64url, from_base64url};

const ID: usize = 4;
const NONCE: usize = 12;
const TAG: usize = 16;
/// Changed when what is sealed is written in another way: what was sealed before is then not opened.
const VERSION: &[u8] = b"perses-sidecar cookie 1";

/// What something was sealed for. What was sealed for one is nothing to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A session.
    Session,
    /// A login that has begun.
    Login,
}

/// Seals and opens.
pub struct Sealer {
    keys: Vec<Key>,
    host: String,
}

struct Key {
    id: [u8; ID],
    aead: RandomizedNonceKey,
}

impl Key {
    fn derive(secret: &[u8]) -> Result<Self, String> {
        let failed = |_| "a key could not be derived".to_owned();
        let prk = Salt::new(HKDF_SHA256, VERSION).extract(secret);
        let (mut key, mut id) = ([0; 32], [0; 32]);
        prk.expand(&[b"key"], HKDF_SHA256).and_then(|okm| okm.fill(&mut key)).map_err(failed)?;
        prk.expand(&[b"id"], HKDF_SHA256).and_then(|okm| okm.fill(&mut id)).map_err(failed)?;
        let mut short = [0; ID];
        short.copy_from_slice(&id[..ID]);
        Ok(Self { id: short, aead: RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(failed)? })
    }
}

/// A key for a process that was given none.
///
/// # Errors
/// When the system has no randomness.
pub(super) fn made_at_start() -> Result<[u8; 32], String> {
    let mut key = [0; 32];
    rand::fill(&mut key).map_err(|_| "no randomness".to_owned())?;
    Ok(key)
}

impl Sealer {
    /// With the configured keys, or the one that was made at the start. `host` is where the cookies live.
    ///
    /// # Errors
    /// When the library refuses a key.
    pub fn new(keys: &[CookieKey], made: &[u8; 32], host: &str) -> Result<Self, String> {
        let keys: Vec<Key> = if keys.is_empty() {
            vec![Key::derive(made)?]
        } else {
            keys.iter().map(|key| Key::derive(key.expose())).collect::<Result<_, _>>()?
        };
        Ok(Self { keys, host: host.to_owned() })
    }

    fn bound(&self, purpose: Purpose, name: &str) -> Aad<Vec<u8>> {
        let purpose = match purpose {
            Purpose::Session => 1,
            Purpose::Login => 2,
        };
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        Aad::from([VERSION, &[purpose, length], name.as_bytes(), self.host.as_bytes()].concat())
    }

    /// Seals for a purpose and a cookie's name.
    #[must_use]
    pub fn seal(&self, purpose: Purpose, name: &str, plain: &[u8]) -> Option<String> {
        let key = self.keys.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key.aead.seal_in_place_append_tag(self.bound(purpose, name), &mut sealed).ok()?;
        Some(base64url(&[&key.id, nonce.as_ref().as_slice(), &sealed].concat()))
    }

    /// Opens what was sealed for the same purpose and name, here or by a replica with the same key.
    #[must_use]
    pub fn open(&self, purpose: Purpose, name: &str, text: &str) -> Option<Vec<u8>> {
        let mut bytes = from_base64url(text)?;
        if bytes.len() < ID + NONCE + TAG {
            return None;
        }
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&bytes[ID..ID + NONCE]);
        let key = self.keys.iter().find(|key| key.id == bytes[..ID])?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = key.aead.open_in_place(nonce, self.bound(purpose, name), &mut bytes[ID + NONCE..]).ok()?.len();
        bytes.drain(..ID + NONCE);
        bytes.truncate(length);
        Some(bytes)
    }
}

/// In a time that tells nothing of where two secrets begin to differ.
#[must_use]
pub(super) fn is_same(left: &str, right: &str) -> bool {
    constant_time::verify_slices_are_equal(left.as_bytes(), right.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: [u8; 32] = [7; 32];

    fn key(letter: char) -> CookieKey {
        CookieKey::new(format!("{letter}0123456789abcdefghijklmnopqrstuvwxyz").as_bytes()).expect("a key")
    }

    fn sealer(keys: &[CookieKey]) -> Sealer {
        Sealer::new(keys, &MADE, "a.example").expect("a sealer")
    }

    #[test]
    fn what_was_sealed_is_opened_for_the_same_and_nothing_else() {
        let ours = sealer(&[key('a')]);
        let text = ours.seal(Purpose::Session, "s", b"plain").expect("sealed");
        assert_eq!(ours.open(Purpose::Session, "s", &text).as_deref(), Some(&b"plain"[..]));
        assert_eq!(ours.open(Purpose::Login, "s", &text), None, "another purpose");
        assert_eq!(ours.open(Purpose::Session, "t", &text), None, "another name");
        let elsewhere = Sealer::new(&[key('a')], &MADE, "b.example").expect("a sealer");
        assert_eq!(elsewhere.open(Purpose::Session, "s", &text), None, "another host");
        assert_ne!(Some(text), ours.seal(Purpose::Session, "s", b"plain"), "never the same twice");
    }

    #[test]
    fn every_bit_counts() {
        let ours = sealer(&[]);
        let text = ours.seal(Purpose::Session, "s", b"some plain text").expect("sealed");
        let bytes = from_base64url(&text).expect("base64url");
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                assert_eq!(ours.open(Purpose::Session, "s", &base64url(&other)), None, "byte {at}, bit {bit}");
            }
        }
        for cut in 0..text.len() {
            assert_eq!(ours.open(Purpose::Session, "s", &text[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn keys_change_without_ending_sessions_and_a_removed_key_opens_nothing() {
        let (old, both, new) = (sealer(&[key('a')]), sealer(&[key('b'), key('a')]), sealer(&[key('b')]));
        let before = old.seal(Purpose::Session, "s", b"x").expect("sealed");
        assert!(
            both.open(Purpose::Session, "s", &before).is_some() && new.open(Purpose::Session, "s", &before).is_none()
        );
        let after = both.seal(Purpose::Session, "s", b"x").expect("sealed");
        assert!(new.open(Purpose::Session, "s", &after).is_some(), "the first key seals");
        assert!(sealer(&[]).open(Purpose::Session, "s", &after).is_none(), "the key of the start is another");
        assert!(is_same("a", "a") && !is_same("a", "b") && !is_same("a", "ab"));
    }
}
