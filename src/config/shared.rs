//! `cache.shared`: the memory that replicas share, of final points and of sessions that were ended.

use std::time::Duration;

use super::CookieKey;
use super::decode::Surroundings;
use super::section::{Notes, Section};
use crate::names::Secret;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// `cache.shared`, where there is a `url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// `cache.shared.url`: `redis://HOST:PORT/DATABASE` or, with TLS, `rediss://…`; its parts.
    pub tls: bool,
    /// Host name or address, IPv6 in brackets.
    pub host: String,
    /// 6379 where none is named.
    pub port: u16,
    /// 0 where none is named.
    pub database: u16,
    /// `username`, for servers that know several.
    pub username: Option<String>,
    /// The contents of `password_file`.
    pub password: Option<Secret>,
    /// The PEM text of `ca_file`; the system's authorities when there is none.
    pub ca: Option<Vec<u8>>,
    /// `key_files`: the first seals what is stored, all open it.
    pub keys: Vec<CookieKey>,
    /// `prefix` of all names, default `perses-sidecar`.
    pub prefix: String,
    /// `timeout`, default 50 ms: what a request waits at most.
    pub timeout: Duration,
    /// `largest_value`, default 1 MiB.
    pub largest: usize,
    /// `in_flight`, default 16: connections, each with one command under way.
    pub in_flight: usize,
    /// `queue`, default 16 MiB: what waits to be written.
    pub queue: usize,
    /// `breaker.errors`, default 5: after so many failures in a row the server is left alone,
    pub breaker_errors: u32,
    /// `breaker.open`, default 10 s: for so long.
    pub breaker_open: Duration,
}

impl Shared {
    /// Where, without who.
    #[must_use]
    pub fn place(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        format!("{scheme}://{}:{}/{}", self.host, self.port, self.database)
    }
}

/// Scheme, host, port and database.
fn place(text: &str) -> Result<(bool, String, u16, u16), String> {
    let expected = || format!("expected redis://HOST:6379/0 or rediss://HOST:6379/0, not {text:?}");
    let (tls, rest) = match text.split_once("://") {
        Some(("redis", rest)) => (false, rest),
        Some(("rediss", rest)) => (true, rest),
        _ => return Err(expected()),
    };
    if rest.contains('@') {
        return Err("a password is given as the path of a file, by password_file, and a user by username".to_owned());
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let database = if database.is_empty() { 0 } else { database.parse().map_err(|_| expected())? };
    let with_port = if authority.rsplit(']').next().is_some_and(|end| end.contains(':')) {
        authority.to_owned()
    } else {
        format!("{authority}:6379")
    };
    let origin = super::Origin::parse(&format!("http://{with_port}")).map_err(|_| expected())?;
    if !origin.base.is_empty() {
        return Err(expected());
    }
    Ok((tls, origin.host, origin.port, database))
}

/// Reads the section below `cache`.
pub(super) fn shared(cache: &mut Section<'_>, around: &dyn Surroundings, notes: &mut Notes) -> Option<Shared> {
    let mut section = cache.section("shared", notes);
    let url = section.optional("url", notes, place, |(tls, host, port, database)| {
        format!("{}://{host}:{port}/{database}", if *tls { "rediss" } else { "redis" })
    });
    let name = |text: &str| {
        if text.is_empty() || text.chars().any(char::is_whitespace) {
            return Err(format!("expected a name, not {text:?}"));
        }
        Ok(text.to_owned())
    };
    let username = section.optional("username", notes, name, Clone::clone);
    let password = section.file("password_file", notes).and_then(|path| {
        let bytes = section.contents("password_file", &path, around, notes)?;
        let text = std::str::from_utf8(&bytes).map(|text| text.trim_end_matches(['\r', '\n'])).unwrap_or_default();
        if text.is_empty() || text.len() > 4096 {
            section.problem(notes, "password_file", "does not hold one password");
            return None;
        }
        Some(Secret::new(text))
    });
    let ca = section.file("ca_file", notes).and_then(|path| section.authorities("ca_file", &path, around, notes));
    let path = |text: &str| {
        if text.is_empty() { Err("expected a file's path".to_owned()) } else { Ok(std::path::PathBuf::from(text)) }
    };
    let mut keys = Vec::new();
    for path in section.list("key_files", notes, path) {
        match section.contents("key_files", &path, around, notes).map(|bytes| CookieKey::new(&bytes)) {
            Some(Ok(key)) => keys.push(key),
            Some(Err(problem)) => section.problem(notes, "key_files", format!("{} {problem}", path.display())),
            None => {}
        }
    }
    if url.is_some() && !section.has("key_files") {
        section.problem(
            notes,
            "key_files",
            "is required beside url: what is stored is encrypted, and believed only if it opens",
        );
    }
    if url.is_none() && !section.has("url") && (password.is_some() || username.is_some() || !keys.is_empty()) {
        section.problem(notes, "url", "is required, such as rediss://valkey.example:6379/0");
    }
    let prefix = |text: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(good) {
            return Err(format!("expected letters, digits, \"-\", \"_\" and \".\", not {text:?}"));
        }
        Ok(text.to_owned())
    };
    let prefix = section.value("prefix", "perses-sidecar".to_owned(), notes, prefix, Clone::clone);
    let timeout = section.duration("timeout", 50 * MILLISECOND, (MILLISECOND, 2 * SECOND), notes);
    let largest = section.size("largest_value", 1 << 20, (1 << 10, 64 << 20), notes);
    let in_flight = section.count("in_flight", 16, (1, 1024), notes);
    let queue = section.size("queue", 16 << 20, (1 << 20, 1 << 30), notes);
    let mut breaker = section.section("breaker", notes);
    let breaker_errors = breaker.count("errors", 5, (1, 1000), notes);
    let breaker_open = breaker.duration("open", 10 * SECOND, (SECOND / 10, 600 * SECOND), notes);
    breaker.finish(notes);
    section.finish(notes);
    let (tls, host, port, database) = url?;
    Some(Shared {
        tls,
        host,
        port,
        database,
        username,
        password,
        ca,
        keys,
        prefix,
        timeout,
        largest,
        in_flight,
        queue,
        breaker_errors,
        breaker_open,
    })
}
