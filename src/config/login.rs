//! `login`: how people log in, and how long a session lasts.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::decode::Surroundings;
use super::section::{Notes, Section};
use super::{Cluster, Fixed, Origin, units};
use crate::encoding::jwt_part;
use crate::injection::{KEY_FILES, PROFILE_VARIABLE};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Fewer bytes than this are no key.
const SHORTEST_KEY: usize = 32;
/// A file with fewer different bytes was not made by chance.
const FEWEST_BYTES: usize = 12;

/// `login`, where there is a way to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The origin of `login.external_url` as a browser writes it: `https://perses.apps.example`.
    pub origin: String,
    /// `perses.api_prefix`, under which all paths and cookies live.
    pub prefix: String,
    /// `login.openshift`
    pub openshift: Option<OpenShift>,
    /// `login.oidc`
    pub oidc: Option<Oidc>,
    /// `login.session.key_files`: the first encrypts, all decrypt. Empty: a key is made at the start.
    pub keys: Vec<CookieKey>,
    /// `login.session.lifetime`, default 24 h: the longest session.
    pub lifetime: Duration,
    /// `login.session.idle_timeout`, default 8 h: a session without a request ends; 0 is never.
    pub idle_timeout: Duration,
}

/// `login.openshift`: the OAuth server of the cluster, found by the API server's own discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenShift {
    /// `login.openshift.client_id`, default the service account that `cluster.token_file` names.
    pub client_id: String,
    /// `login.openshift.client_secret_file`, default `cluster.token_file`; read anew for each login.
    pub client_secret_file: PathBuf,
    /// The PEM text of `login.openshift.ca_file`, which is believed besides the system's authorities and the API server's.
    pub ca: Vec<u8>,
    /// `login.openshift.scopes: honour`: reviews of rights are told the scopes that we chose ourselves.
    pub honour_scopes: bool,
}

/// `login.oidc`: an external OpenID provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oidc {
    /// `login.oidc.issuer`, an `https` URL without a trailing `/`.
    pub issuer: String,
    /// `login.oidc.client_id`
    pub client_id: String,
    /// `login.oidc.client_secret_file`; none for a public client. Read anew for each exchange.
    pub client_secret_file: Option<PathBuf>,
    /// The PEM text of `login.oidc.ca_file`; the system's authorities when there is none.
    pub ca: Option<Vec<u8>>,
    /// `login.oidc.scopes`, `openid` always among them.
    pub scopes: Vec<String>,
    /// `login.oidc.hosts`: hosts besides the issuer's own on which its endpoints may lie.
    pub hosts: Vec<String>,
}

/// A secret from which the key of cookies is derived. It does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct CookieKey(Arc<[u8]>);

impl CookieKey {
    /// Takes a secret that is long enough and was made by chance.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        let advice = "make one with: openssl rand -base64 48";
        let bytes = bytes.trim_ascii_end();
        if bytes.len() < SHORTEST_KEY {
            return Err(format!("is too short for a key: {} bytes, at least {SHORTEST_KEY}; {advice}", bytes.len()));
        }
        let different = bytes.iter().collect::<std::collections::BTreeSet<_>>().len();
        if different < FEWEST_BYTES {
            return Err(format!("was not made by chance; {advice}"));
        }
        Ok(Self(bytes.into()))
    }

    /// The secret, for the one place that derives a key.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}

/// What the section says.
#[derive(Default)]
pub(super) struct Read {
    pub(super) external_url: Option<String>,
    pub(super) login: Option<Arc<Login>>,
    pub(super) frame_ancestors: Vec<String>,
    pub(super) contact: String,
}

pub(super) fn read(
    root: &mut Section<'_>,
    fixed: &Fixed,
    cluster: Option<&Cluster>,
    around: &dyn Surroundings,
    notes: &mut Notes,
) -> Read {
    let mut login = root.section("login", notes);
    let read = |text: &str| units::origin(text).map(|origin| (text.trim_end_matches('/').to_owned(), origin));
    let external = login.optional("external_url", notes, read, |(text, _)| text.clone());
    let none = login.flag("none", false, notes);
    let wanted = (login.has("openshift"), login.has("oidc"));
    let mut section = login.section("openshift", notes);
    let openshift = if wanted.0 { openshift(&mut section, cluster, around, notes) } else { None };
    section.finish(notes);
    let mut section = login.section("oidc", notes);
    let oidc = if wanted.1 { oidc(&mut section, around, notes) } else { None };
    section.finish(notes);
    let mut session = login.section("session", notes);
    let files = session.list("key_files", notes, |text| {
        if text.is_empty() { Err("expected a file's path".to_owned()) } else { Ok(PathBuf::from(text)) }
    });
    let injected = files.is_empty() && around.variable(PROFILE_VARIABLE).is_some();
    let there = |path: &PathBuf| injected && around.file(path).is_ok();
    let mounted: Vec<PathBuf> = KEY_FILES.into_iter().map(PathBuf::from).filter(there).collect();
    let mut keys = Vec::new();
    for path in files.iter().chain(&mounted) {
        let key = session.contents("key_files", path, around, notes).map(|bytes| CookieKey::new(&bytes));
        match key {
            Some(Ok(key)) => keys.push(key),
            Some(Err(problem)) => session.problem(notes, "key_files", format!("{} {problem}", path.display())),
            None => {}
        }
    }
    let lifetime = session.duration("lifetime", DAY, (MINUTE, 30 * DAY), notes);
    let idle_timeout = session.duration("idle_timeout", DAY / 3, (Duration::ZERO, 30 * DAY), notes);
    if !idle_timeout.is_zero() && idle_timeout < 2 * MINUTE {
        session.problem(
            notes,
            "idle_timeout",
            "must be 0s (off) or at least 2m: a session is written anew once a minute",
        );
    }
    session.finish(notes);
    let frame_ancestors = login.list("frame_ancestors", notes, |text| {
        let origin = units::origin(text)?;
        if !origin.tls || !origin.base.is_empty() {
            return Err("expected an origin such as https://console.apps.example".to_owned());
        }
        Ok(plain(&origin))
    });
    let contact =
        login.value("contact", String::new(), notes, |text| Ok(text.to_owned()), |text| super::section::quote(text));
    if none && (wanted.0 || wanted.1) {
        login.problem(notes, "none", "nobody can log in with none; take it away, or openshift and oidc");
    }
    let mut found = None;
    if wanted.0 || wanted.1 {
        match &external {
            None if !login.has("external_url") => login.problem(
                notes,
                "external_url",
                "is required where people log in: the address at which browsers reach this, such as https://perses.apps.example",
            ),
            Some((_, origin)) if !origin.tls => {
                login.problem(notes, "external_url", "must be https where people log in: a session travels over TLS only");
            }
            Some((_, origin)) if !origin.base.is_empty() && origin.base != fixed.api_prefix => {
                login.problem(notes, "external_url", "its path must be perses.api_prefix, or none");
            }
            Some((_, origin)) => {
                found = Some(Arc::new(Login {
                    origin: plain(origin),
                    prefix: fixed.api_prefix.clone(),
                    openshift,
                    oidc,
                    keys,
                    lifetime,
                    idle_timeout,
                }));
            }
            None => {}
        }
    }
    login.finish(notes);
    Read { external_url: external.map(|(text, _)| text), login: found, frame_ancestors, contact }
}

/// An origin as browsers write it: without the port that its scheme implies.
fn plain(origin: &Origin) -> String {
    if origin.port == 443 {
        format!("https://{}", origin.host)
    } else {
        format!("https://{}:{}", origin.host, origin.port)
    }
}

fn openshift(
    section: &mut Section<'_>,
    cluster: Option<&Cluster>,
    around: &dyn Surroundings,
    notes: &mut Notes,
) -> Option<OpenShift> {
    let given = section.file("client_secret_file", notes);
    let file = given.clone().or_else(|| cluster.map(|cluster| cluster.token_file.clone()));
    let account = match (&given, &file) {
        (Some(path), _) => section.contents("client_secret_file", path, around, notes),
        (None, Some(path)) => around.file(path).ok(),
        (None, None) => None,
    };
    let named = account.as_deref().and_then(|bytes| account_of(std::str::from_utf8(bytes).ok()?.trim()));
    let client_id = section.optional("client_id", notes, client_id, Clone::clone).or(named);
    if client_id.is_none() && !section.has("client_id") && cluster.is_some() {
        section.problem(
            notes,
            "client_id",
            "is required: the token names no service account; give system:serviceaccount:NAMESPACE:NAME or an OAuthClient",
        );
    }
    let ca = section.file("ca_file", notes).and_then(|path| section.authorities("ca_file", &path, around, notes));
    let words = |text: &str| match text {
        "login-only" => Ok(false),
        "honour" => Ok(true),
        other => Err(format!("expected login-only or honour, not {other:?}")),
    };
    let honour_scopes =
        section.value("scopes", false, notes, words, |honour| if *honour { "honour" } else { "login-only" }.to_owned());
    Some(OpenShift { client_id: client_id?, client_secret_file: file?, ca: ca.unwrap_or_default(), honour_scopes })
}

fn oidc(section: &mut Section<'_>, around: &dyn Surroundings, notes: &mut Notes) -> Option<Oidc> {
    let issuer = |text: &str| {
        let origin = units::origin(text)?;
        if origin.tls { Ok(text.to_owned()) } else { Err("the issuer is asked over https only".to_owned()) }
    };
    let issuer = section.required("issuer", notes, issuer, Clone::clone);
    let id = section.required("client_id", notes, client_id, Clone::clone);
    let client_secret_file = section.file("client_secret_file", notes);
    if let Some(path) = &client_secret_file {
        section.contents("client_secret_file", path, around, notes);
    }
    let ca = section.file("ca_file", notes).and_then(|path| section.authorities("ca_file", &path, around, notes));
    let scope = |text: &str| {
        let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
        if good { Ok(text.to_owned()) } else { Err(format!("expected a scope such as profile, not {text:?}")) }
    };
    let mut scopes = section.list("scopes", notes, scope);
    if !scopes.iter().any(|scope| scope == "openid") {
        scopes.insert(0, "openid".to_owned());
    }
    let host = |text: &str| {
        let good =
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':'));
        if good {
            Ok(text.to_ascii_lowercase())
        } else {
            Err(format!("expected a host such as idp.example, not {text:?}"))
        }
    };
    let hosts = section.list("hosts", notes, host);
    Some(Oidc { issuer: issuer?, client_id: id?, client_secret_file, ca, scopes, hosts })
}

fn client_id(text: &str) -> Result<String, String> {
    let good = !text.is_empty() && text.len() <= 512 && text.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(text.to_owned()) } else { Err(format!("expected a client's name, not {text:?}")) }
}

/// The service account that a token says it is of. Only ever sent to the server that knows better.
fn account_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let claims: Claims = serde_json::from_slice(&jwt_part(token, 1)?).ok()?;
    claims.sub.starts_with("system:serviceaccount:").then_some(claims.sub).and_then(|sub| client_id(&sub).ok())
}

/// What is believed besides `ca`: nothing is taken from a path that may not be there.
#[must_use]
pub fn joined(bundles: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for bundle in bundles {
        out.extend_from_slice(bundle);
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_made_by_chance() {
        for bad in ["", "short", &"a".repeat(64), "0123401234012340123401234012340123401234"] {
            assert!(CookieKey::new(bad.as_bytes()).is_err(), "{bad}");
        }
        let good = CookieKey::new(b"V4mQ0Zt1yqk8n2u7Zr3oW5sXbC9dEfGh\n").expect("a key");
        assert_eq!(good.expose().len(), 32, "the line break is none of it");
        assert_eq!(format!("{good:?}"), "<key>");
    }

    #[test]
    fn a_token_names_its_service_account() {
        let token = |claims: &str| format!("e30.{}.sig", crate::encoding::base64url(claims.as_bytes()));
        let account = "system:serviceaccount:perses:perses-sidecar";
        assert_eq!(account_of(&token(&format!("{{\"sub\":\"{account}\"}}"))).as_deref(), Some(account));
        for none in ["e30.e30.sig".to_owned(), token("{\"sub\":\"ada\"}"), "sha256~x".to_owned(), token("{\"sub\":7}")]
        {
            assert_eq!(account_of(&none), None, "{none}");
        }
        assert_eq!(joined(&[b"a", b"b"]), b"a\nb\n");
    }
}
