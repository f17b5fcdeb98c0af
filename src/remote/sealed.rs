//! What leaves for the server is encrypted and bound to its name, and believed on its way back only if it opens.
//!
//! `version (1) | key id (4) | nonce (12) | AES-256-GCM of the value, with everything before and the name as associated data`.
//! Each entry has a key of its own, derived from the configured one and the entry's name (HKDF, RFC 5869), so that random
//! nonces never wear one out. The first configured key seals and names, every one opens.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::hmac;
use bytes::{Buf, Bytes, BytesMut};

use crate::config::CookieKey;

const VERSION: u8 = 1;
const ID: usize = 4;
const NONCE: usize = 12;
const TAG: usize = 16;
const HEAD: usize = 1 + ID + NONCE;
/// What a value grows by.
pub(super) const GROWTH: usize = HEAD + TAG;

/// SHA-256.
pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

pub(super) struct Keys(Vec<Key>);

struct Key {
    id: [u8; ID],
    root: Prk,
    /// Names what is stored.
    names: hmac::Key,
}

impl Key {
    /// The key of one entry.
    fn of(&self, name: &str) -> Option<RandomizedNonceKey> {
        let mut key = [0; 32];
        self.root.expand(&[b"entry", name.as_bytes()], HKDF_SHA256).and_then(|okm| okm.fill(&mut key)).ok()?;
        RandomizedNonceKey::new(&AES_256_GCM, &key).ok()
    }
}

fn bound(id: [u8; ID], name: &str) -> Aad<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1 + ID + name.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&id);
    bytes.extend_from_slice(name.as_bytes());
    Aad::from(bytes)
}

impl Keys {
    pub(super) fn new(secrets: &[CookieKey]) -> Result<Self, String> {
        let keys = secrets.iter().map(|secret| {
            let root = Salt::new(HKDF_SHA256, b"perses-sidecar shared memory 1").extract(secret.expose());
            let (mut whole, mut id) = ([0; 32], [0; ID]);
            let filled = root.expand(&[b"id"], HKDF_SHA256).and_then(|okm| okm.fill(&mut whole));
            filled.map_err(|_| "a key could not be derived".to_owned())?;
            id.copy_from_slice(&whole[..ID]);
            let mut names = [0; 32];
            let filled = root.expand(&[b"names"], HKDF_SHA256).and_then(|okm| okm.fill(&mut names));
            filled.map_err(|_| "a key could not be derived".to_owned())?;
            Ok(Key { id, root, names: hmac::Key::new(hmac::HMAC_SHA256, &names) })
        });
        Ok(Self(keys.collect::<Result<_, String>>()?))
    }

    /// What stands for these bytes: without the first key nobody can tell from it what they are, or try.
    pub(super) fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        if let Some(key) = self.0.first() {
            out.copy_from_slice(hmac::sign(&key.names, bytes).as_ref());
        }
        out
    }

    pub(super) fn seal(&self, name: &str, value: &[u8]) -> Option<Vec<u8>> {
        let key = self.0.first()?;
        let mut out = Vec::with_capacity(value.len() + GROWTH);
        out.push(VERSION);
        out.extend_from_slice(&key.id);
        let mut sealed = value.to_vec();
        sealed.reserve(TAG);
        let nonce = key.of(name)?.seal_in_place_append_tag(bound(key.id, name), &mut sealed).ok()?;
        out.extend_from_slice(nonce.as_ref());
        out.extend_from_slice(&sealed);
        Some(out)
    }

    pub(super) fn open(&self, name: &str, mut bytes: BytesMut) -> Option<Bytes> {
        if bytes.len() < GROWTH || bytes[0] != VERSION {
            return None;
        }
        let id: [u8; ID] = bytes[1..=ID].try_into().ok()?;
        let key = self.0.iter().find(|key| key.id == id)?;
        let nonce = Nonce::try_assume_unique_for_key(&bytes[1 + ID..HEAD]).ok()?;
        bytes.advance(HEAD);
        let length = key.of(name)?.open_in_place(nonce, bound(id, name), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(seeds: &[u8]) -> Keys {
        let secrets: Vec<CookieKey> =
            seeds.iter().map(|seed| CookieKey::new(&digest(&[*seed])).expect("a key")).collect();
        Keys::new(&secrets).expect("keys")
    }

    #[test]
    fn what_is_sealed_opens_under_its_name_and_in_one_piece_only() {
        let ours = keys(&[1]);
        let sealed = ours.seal("p:b:1", b"value").expect("sealed");
        let open = |keys: &Keys, name, bytes: &[u8]| keys.open(name, BytesMut::from(bytes));
        assert_eq!(open(&ours, "p:b:1", &sealed).as_deref(), Some(&b"value"[..]));
        assert!(!sealed.windows(5).any(|part| part == b"value"));
        assert_ne!(Some(&sealed), ours.seal("p:b:1", b"value").as_ref(), "another nonce each time");
        assert_eq!(open(&ours, "p:b:2", &sealed), None, "moved to another name");
        for at in 0..sealed.len() {
            for bit in [1, 128] {
                let mut tampered = sealed.clone();
                tampered[at] ^= bit;
                assert_eq!(open(&ours, "p:b:1", &tampered), None, "byte {at}");
            }
            assert_eq!(open(&ours, "p:b:1", &sealed[..at]), None, "cut at {at}");
        }
        assert_eq!(open(&ours, "p:b:1", &[&sealed[..], b"x"].concat()), None);
    }

    #[test]
    fn keys_change_in_two_steps() {
        let (old, both, new) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
        let (first, second) = (old.seal("n", b"1").expect("sealed"), both.seal("n", b"2").expect("sealed"));
        let open = |keys: &Keys, bytes: &[u8]| keys.open("n", BytesMut::from(bytes)).is_some();
        assert_eq!([open(&old, &first), open(&both, &first), open(&new, &first)], [true, true, false]);
        assert_eq!([open(&old, &second), open(&both, &second), open(&new, &second)], [false, true, true]);
    }
}
