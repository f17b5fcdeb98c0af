//! `tls`, as OpenShift's profiles name it: what our ports offer, and whom we believe elsewhere.
//!
//! A certificate that does not fit its key, a cipher that nobody knows, or a bundle without a certificate is a problem of the
//! file that names it, told by `check` and refused by a reload.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::{Error as NotPem, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::decode::Surroundings;
use super::section::{Notes, Section};

/// `tls`: what our TLS ports offer, built when the configuration is checked from `tls.certificate_file`, `tls.key_file` and
/// `tls.profile`.
#[derive(Clone, Debug)]
pub struct Tls {
    /// For new connections; those that stand keep what they began with.
    pub server: Arc<ServerConfig>,
}

pub(super) fn read(root: &mut Section<'_>, around: &dyn Surroundings, notes: &mut Notes) -> Option<Tls> {
    let mut tls = root.section("tls", notes);
    let certificate_file = tls.file("certificate_file", notes);
    let key_file = tls.file("key_file", notes);
    let profile =
        tls.value("profile", Profile::Intermediate, notes, Profile::parse, |profile| profile.word().to_owned());
    let mut policy = Policy::of(profile);
    let mut custom = tls.section("custom", notes);
    if profile == Profile::Custom {
        let version = |text: &str| match text {
            "VersionTLS12" => Ok(false),
            "VersionTLS13" => Ok(true),
            other => Err(format!("expected VersionTLS12 or VersionTLS13, not {other:?}: nothing older is spoken")),
        };
        let write = |only: &bool| if *only { "VersionTLS13" } else { "VersionTLS12" }.to_owned();
        policy.only_13 = custom.value("min_tls_version", false, notes, version, write);
        // An empty list is all of them.
        let (suites, groups) = (custom.list("ciphers", notes, cipher), custom.list("groups", notes, group));
        if !suites.is_empty() {
            policy.suites = suites;
        }
        if !groups.is_empty() {
            policy.groups = groups;
        }
        custom.finish(notes);
    } else if ["min_tls_version", "ciphers", "groups"].iter().any(|key| custom.has(key)) {
        custom.problem(notes, "", "is read only with profile: Custom");
    } else {
        custom.finish(notes);
    }
    let found = match (certificate_file, key_file) {
        (None, None) => None,
        (Some(_), None) => {
            tls.problem(notes, "key_file", "is required beside certificate_file");
            None
        }
        (None, Some(_)) => {
            tls.problem(notes, "certificate_file", "is required beside key_file");
            None
        }
        (Some(certificate_file), Some(key_file)) => {
            let certificate = tls.contents("certificate_file", &certificate_file, around, notes);
            let key = tls.contents("key_file", &key_file, around, notes);
            certificate.zip(key).and_then(|(certificate, key)| match policy.server(&certificate, &key) {
                Ok(server) => Some(Tls { server }),
                Err(fault) => {
                    let (key, message) = match fault {
                        Fault::Certificate(message) => ("certificate_file", message),
                        Fault::Key(message) => ("key_file", message),
                        Fault::Policy(message) => ("custom", message),
                    };
                    tls.problem(notes, key, message);
                    None
                }
            })
        }
    };
    tls.finish(notes);
    found
}

/// OpenShift's names of TLS profiles (`TLSSecurityProfile` of config.openshift.io/v1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    Intermediate,
    Modern,
    Custom,
}

impl Profile {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "Intermediate" => Ok(Self::Intermediate),
            "Modern" => Ok(Self::Modern),
            "Custom" => Ok(Self::Custom),
            "Old" => Err("Old needs TLS 1.0 and ciphers that are not built in; use Intermediate".to_owned()),
            other => Err(format!("expected Intermediate, Modern or Custom, not {other:?}")),
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Intermediate => "Intermediate",
            Self::Modern => "Modern",
            Self::Custom => "Custom",
        }
    }
}

/// What a port offers.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) only_13: bool,
    pub(super) suites: Vec<SupportedCipherSuite>,
    pub(super) groups: Vec<&'static dyn SupportedKxGroup>,
}

/// A cipher suite by its name in OpenSSL and OpenShift; those of TLS 1.3 are called as in RFC 8446.
pub(super) fn cipher(name: &str) -> Result<SupportedCipherSuite, String> {
    use aws_lc_rs::cipher_suite as suite;
    Ok(match name {
        "TLS_AES_128_GCM_SHA256" => suite::TLS13_AES_128_GCM_SHA256,
        "TLS_AES_256_GCM_SHA384" => suite::TLS13_AES_256_GCM_SHA384,
        "TLS_CHACHA20_POLY1305_SHA256" => suite::TLS13_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256" => suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256" => suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES256-GCM-SHA384" => suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES256-GCM-SHA384" => suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-CHACHA20-POLY1305" => suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-CHACHA20-POLY1305" => suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        other => return Err(format!("the cipher {other:?} is not known here, or not offered because it is weak")),
    })
}

/// A group for key exchange by its name in the TLS registry of IANA.
pub(super) fn group(name: &str) -> Result<&'static dyn SupportedKxGroup, String> {
    Ok(match name {
        "X25519MLKEM768" => aws_lc_rs::kx_group::X25519MLKEM768,
        "x25519" => aws_lc_rs::kx_group::X25519,
        "secp256r1" => aws_lc_rs::kx_group::SECP256R1,
        "secp384r1" => aws_lc_rs::kx_group::SECP384R1,
        other => {
            return Err(format!(
                "the group {other:?} is not known; expected X25519MLKEM768, x25519, secp256r1, secp384r1"
            ));
        }
    })
}

impl Policy {
    /// What a profile means, as far as it is spoken here: what is weak is left out of every profile.
    pub(super) fn of(profile: Profile) -> Self {
        let all = aws_lc_rs::default_provider();
        Self { only_13: profile == Profile::Modern, suites: all.cipher_suites, groups: all.kx_groups }
    }

    /// The TLS side of a listener: h2 and HTTP/1.1 by ALPN, no client certificates.
    pub(super) fn server(&self, certificate: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, Fault> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| Fault::Certificate(error.to_string()))?;
        if chain.is_empty() {
            return Err(Fault::Certificate("no certificate in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| Fault::Key(unread(key, &error)))?;
        let versions: &[&SupportedProtocolVersion] = if self.only_13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let provider = CryptoProvider {
            cipher_suites: self.suites.clone(),
            kx_groups: self.groups.clone(),
            ..aws_lc_rs::default_provider()
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .map_err(|error| Fault::Policy(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| Fault::Key(format!("does not fit certificate_file: {error}")))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Why a file is no private key, for whoever put it there.
fn unread(pem: &[u8], error: &NotPem) -> String {
    let has = |words: &[u8]| pem.windows(words.len()).any(|part| part == words);
    if has(b"ENCRYPTED") {
        "the key in it is encrypted, and nobody is here to say the passphrase: give it in the clear, as \"openssl pkey -in FILE\" \
         writes it"
            .to_owned()
    } else if has(b"BEGIN CERTIFICATE") {
        "there are certificates in it and no private key: is it the file for certificate_file?".to_owned()
    } else {
        format!("no private key in it; expected PEM, as \"openssl pkey -in FILE\" writes it ({error})")
    }
}

/// Which key of the file is at fault.
#[derive(Debug)]
pub(super) enum Fault {
    Certificate(String),
    Key(String),
    Policy(String),
}

/// Certificate authorities from PEM text: all that can be used, and at least one.
///
/// # Errors
/// When the text is no PEM, or no certificate in it can be used.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("is no PEM text: {error}"))?;
        // A bundle may hold one that this library does not take; the others still count.
        let _ = store.add(certificate);
    }
    if store.is_empty() { Err("holds no certificate authority that can be used".to_owned()) } else { Ok(store) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_openshifts() {
        for good in ["Intermediate", "Modern", "Custom"] {
            assert_eq!(Profile::parse(good).map(Profile::word), Ok(good));
        }
        assert!(Profile::parse("Old").is_err_and(|text| text.contains("Intermediate")));
        assert!(Profile::parse("modern").is_err());
        assert!(Policy::of(Profile::Modern).only_13 && !Policy::of(Profile::Intermediate).only_13);
    }

    #[test]
    fn every_suite_and_group_that_is_offered_has_a_name() {
        let names = [
            "TLS_AES_128_GCM_SHA256",
            "TLS_AES_256_GCM_SHA384",
            "TLS_CHACHA20_POLY1305_SHA256",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-RSA-CHACHA20-POLY1305",
        ];
        let offered = Policy::of(Profile::Intermediate);
        let named: Vec<_> = names.iter().filter_map(|name| cipher(name).ok()).map(|suite| suite.suite()).collect();
        assert!(offered.suites.iter().all(|suite| named.contains(&suite.suite())) && named.len() == names.len());
        for weak in ["AES128-SHA", "ECDHE-RSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256", "DES-CBC3-SHA", ""] {
            assert!(cipher(weak).is_err(), "{weak}");
        }
        let groups =
            ["X25519MLKEM768", "x25519", "secp256r1", "secp384r1"].map(|name| group(name).ok().map(|g| g.name()));
        assert!(offered.groups.iter().all(|group| groups.contains(&Some(group.name()))));
        assert!(group("secp521r1").is_err());
    }

    #[test]
    fn bundles_must_hold_an_authority() {
        assert!(authorities(b"").is_err() && authorities(b"nonsense").is_err());
        assert!(authorities(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }
}
