//! `perses.probes`: what kubelet asked of Perses itself, before it had to ask us.

use std::collections::BTreeMap;

use super::section::{Notes, Section, quote};
use crate::injection::is_sent;

/// One of `perses.probes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// `path`, with its query; `None` where a connection is enough (`tcp: true`).
    pub path: Option<String>,
    /// `headers`.
    pub headers: http::HeaderMap,
}

/// The words under which kubelet may ask Perses.
const PROBES: [&str; 5] = ["live", "ready", "startup", "started", "stopping"];

pub(super) fn read(perses: &mut Section<'_>, notes: &mut Notes) -> BTreeMap<&'static str, Probe> {
    let mut probes = perses.section("probes", notes);
    let mut found = BTreeMap::new();
    for word in PROBES {
        if !probes.has(word) {
            probes.section(word, notes);
            continue;
        }
        let mut probe = probes.section(word, notes);
        let read = |text: &str| match text.parse::<http::uri::PathAndQuery>() {
            Ok(_) if text.starts_with('/') => Ok(text.to_owned()),
            _ => Err(format!("expected a path such as /metrics, not {text:?}")),
        };
        let path = probe.optional("path", notes, read, |text| quote(text));
        let tcp = probe.flag("tcp", false, notes);
        if path.is_some() == tcp {
            probe.problem(notes, "path", "give a path, or tcp: true");
        }
        let mut headers = http::HeaderMap::new();
        for (name, value) in probe.pairs("headers", notes) {
            match (name.parse::<http::HeaderName>(), http::HeaderValue::try_from(value.as_str())) {
                // The host is Perses' on the loopback, whatever it was called before.
                (Ok(name), Ok(_)) if name == http::header::HOST => {}
                (Ok(known), Ok(line)) if is_sent(&name, &value) => drop(headers.append(known, line)),
                _ => probe.problem(notes, "headers", format!("the header {name:?} cannot be sent")),
            }
        }
        probe.finish(notes);
        found.insert(word, Probe { path, headers });
    }
    probes.finish(notes);
    found
}
