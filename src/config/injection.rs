//! The webhook's own file, and its section `injection`: the profiles of what is added to pods.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::decode::{Elsewhere, Surroundings, settings};
use super::section::{Notes, Section, quote};
use super::{Cluster, Limits, Telemetry, Tls, cluster, limits, listen, telemetry, tls};
use crate::injection::{ImageArguments, Profile, Profiles, Quantity, Resources};
use crate::yaml::{Node, Value};

/// The settings of `perses-sidecar webhook`.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// `listen.webhook`, default `0.0.0.0:9443`.
    pub listen: SocketAddr,
    /// `listen.admin`, default `0.0.0.0:9081`.
    pub admin: SocketAddr,
    /// `tls`, which must be given; `None` where the files of another machine are not read.
    pub tls: Option<Tls>,
    /// `cluster`, to look at namespaces; `None` as above.
    pub cluster: Option<Cluster>,
    /// `injection`.
    pub profiles: Profiles,
    /// `limits`.
    pub limits: Limits,
    /// `telemetry`.
    pub telemetry: Telemetry,
}

pub(super) fn webhook(mut root: Section<'_>, around: &dyn Surroundings, mut notes: Notes) -> (Option<Webhook>, Notes) {
    let mut section = root.section("listen", &mut notes);
    let show = ToString::to_string;
    let listen = section.value("webhook", SocketAddr::from(([0, 0, 0, 0], 9443)), &mut notes, listen::socket, show);
    let admin = section.value("admin", SocketAddr::from(([0, 0, 0, 0], 9081)), &mut notes, listen::socket, show);
    section.finish(&mut notes);
    let tls = tls::read(&mut root, around, &mut notes);
    if !root.has("tls") && !around.is_elsewhere() {
        root.problem(
            &mut notes,
            "tls",
            "is required: the API server calls webhooks by TLS; name certificate_file and key_file",
        );
    }
    let cluster = cluster::read(&mut root, around, &mut notes);
    let profiles = injection(&mut root, &mut notes);
    let limits = limits::read(&mut root, &mut notes);
    let telemetry = telemetry::telemetry(&mut root, &mut notes);
    root.finish(&mut notes);
    let whole = around.is_elsewhere() || tls.is_some() && cluster.is_some();
    let settings = profiles.filter(|_| whole);
    (settings.map(|profiles| Webhook { listen, admin, tls, cluster, profiles, limits, telemetry }), notes)
}

fn injection(root: &mut Section<'_>, notes: &mut Notes) -> Option<Profiles> {
    if !root.has("injection") {
        root.problem(notes, "injection", "is required: at least the sidecar's image and its metrics_backends");
        return None;
    }
    let mut section = root.section("injection", notes);
    let default = profile(&mut section, "default", None, notes);
    let mut named = BTreeMap::new();
    for (name, mut section) in section.named("profiles", notes) {
        if name.eq_ignore_ascii_case("true") || name.eq_ignore_ascii_case("false") || name == "default" {
            section.problem(notes, "", "true, false and default are no names of profiles");
        }
        let base = default.as_ref();
        if let Some((profile, _)) =
            profile(&mut section, name, base.map(|(profile, node)| (profile, node.as_ref())), notes)
        {
            named.insert(name.to_owned(), profile);
        }
        section.finish(notes);
    }
    section.finish(notes);
    default.map(|(default, _)| Profiles::new(default, named))
}

type Base<'b> = Option<(&'b Profile, Option<&'b Node>)>;

/// One profile and the tree of its `sidecar`; what it leaves out is its base's.
fn profile(
    section: &mut Section<'_>,
    name: &str,
    base: Base<'_>,
    notes: &mut Notes,
) -> Option<(Profile, Option<Node>)> {
    let above = base.map(|(profile, _)| profile);
    let word = |text: &str| if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) };
    let object = |text: &str| {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if text.len() <= 253 && text.bytes().all(good) && edge(text.as_bytes().first()) && edge(text.as_bytes().last())
        {
            Ok(text.to_owned())
        } else {
            Err(format!("expected the name of an object, not {text:?}"))
        }
    };
    let image = match above {
        None => section.required("image", notes, word, |text| quote(text)),
        Some(base) => Some(section.value("image", base.image.clone(), notes, word, |text| quote(text))),
    };
    let policy = |text: &str| match text {
        "Always" | "IfNotPresent" | "Never" => Ok(text.to_owned()),
        other => Err(format!("expected Always, IfNotPresent or Never, not {other:?}")),
    };
    let or = |of: fn(&Profile) -> &String, text: &str| above.map_or_else(|| text.to_owned(), |base| of(base).clone());
    let pull_policy = section.value("pull_policy", or(|p| &p.pull_policy, "IfNotPresent"), notes, policy, Clone::clone);
    let inherit = |given: bool, own: Vec<String>, of: fn(&Profile) -> &Vec<String>| match above {
        Some(base) if !given => of(base).clone(),
        _ => own,
    };
    let given = section.has("pull_secrets");
    let pull_secrets = inherit(given, section.list("pull_secrets", notes, object), |p| &p.pull_secrets);
    let resources = resources(section, above, notes);
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port >= 1024 => Ok(port),
        _ => Err(format!("expected a port from 1024 to 65535, not {text:?}")),
    };
    let https_port = section.value(
        "https_port",
        above.map_or(Some(8443), |base| base.https_port),
        notes,
        |text| if text == "off" { Ok(None) } else { port(text).map(Some) },
        |port| port.map_or_else(|| "off".to_owned(), |port| port.to_string()),
    );
    let show = ToString::to_string;
    let health_port = section.value("health_port", above.map_or(9081, |base| base.health_port), notes, port, show);
    let upstream_port =
        section.value("upstream_port", above.map_or(9080, |base| base.upstream_port), notes, port, show);
    let mut named = |key, of: fn(&Profile) -> &String, text: &str, notes: &mut Notes| {
        section.value(key, or(of, text), notes, object, Clone::clone)
    };
    let tls_secret = named("tls_secret", |p| &p.tls_secret, "perses-sidecar-tls", notes);
    let keys_secret = named("keys_secret", |p| &p.keys_secret, "perses-sidecar-keys", notes);
    let config_map = named("config_map", |p| &p.config_map, "perses-sidecar", notes);
    let given = section.has("ca_bundles");
    let ca_bundles = inherit(given, section.list("ca_bundles", notes, object), |p| &p.ca_bundles);
    let mut image_arguments = above.map(|base| base.image_arguments.clone()).unwrap_or_default();
    for mut entry in section.sections("image_args", notes) {
        let image = entry.required("image", notes, word, |text| quote(text));
        let arguments = entry.list("args", notes, |text| Ok(text.to_owned()));
        if let Some(image) = image {
            image_arguments.retain(|known| known.image != image);
            image_arguments.push(ImageArguments { image, arguments });
        }
        entry.finish(notes);
    }
    let account = section.optional("service_account", notes, object, Clone::clone);
    let service_account = account.or_else(|| above.and_then(|base| base.service_account.clone()));
    let own = section.node("sidecar");
    let below = base.and_then(|(_, node)| node);
    let node = match (below, own) {
        (Some(below), Some(own)) => Some(lay_over(below, own)),
        (below, own) => own.or(below).cloned(),
    };
    match &node {
        Some(_) if own.is_none() => {}
        Some(node) => check(node, section.path("sidecar"), notes),
        None => section.problem(notes, "sidecar", "is required: the sidecar's own settings, at least metrics_backends"),
    }
    let sidecar = match node.as_ref().map(plain) {
        Some(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let profile = Profile {
        name: name.to_owned(),
        image: image?,
        pull_policy,
        pull_secrets,
        resources: resources?,
        https_port,
        health_port,
        upstream_port,
        tls_secret,
        keys_secret,
        config_map,
        ca_bundles,
        image_arguments,
        service_account,
        sidecar,
    };
    Some((profile, node))
}

fn resources(section: &mut Section<'_>, above: Option<&Profile>, notes: &mut Notes) -> Option<Resources> {
    let mut quantity = |key, of: fn(&Resources) -> &Quantity, text: &str| {
        let default = match above {
            Some(base) => of(&base.resources).clone(),
            None => Quantity::parse(text).ok()?,
        };
        Some(section.value(key, default, notes, Quantity::parse, |value| value.as_str().to_owned()))
    };
    let resources = Resources {
        cpu_request: quantity("cpu_request", |r| &r.cpu_request, "50m")?,
        cpu_limit: quantity("cpu_limit", |r| &r.cpu_limit, "1")?,
        memory_request: quantity("memory_request", |r| &r.memory_request, "128Mi")?,
        memory_limit: quantity("memory_limit", |r| &r.memory_limit, "512Mi")?,
    };
    if resources.cpu_request > resources.cpu_limit {
        section.problem(notes, "cpu_request", "is above cpu_limit");
    }
    if resources.memory_request > resources.memory_limit {
        section.problem(notes, "memory_request", "is above memory_limit");
    }
    Some(resources)
}

/// Reads the settings of a sidecar as it will read them itself, but for its files and variables, which are not here.
fn check(node: &Node, path: String, notes: &mut Notes) {
    let mut own = Notes::default();
    let filled = filled(node, &["login", "external_url"]);
    let section = Section::of(&filled, path, &mut own);
    let (_, own) = settings(section, &Elsewhere, own);
    notes.problems.extend(own.problems);
}

/// The tree with some namespace's name where it will stand.
fn filled(node: &Node, path: &[&str]) -> Node {
    let value = match (&node.value, path) {
        (Value::Map(map), [first, rest @ ..]) => Value::Map(
            map.iter()
                .map(|(key, node)| (key.clone(), if key == first { filled(node, rest) } else { node.clone() }))
                .collect(),
        ),
        (Value::Word(text), []) => Value::Word(text.replace("{namespace}", "namespace")),
        (other, _) => other.clone(),
    };
    Node { value, ..node.clone() }
}

/// The keys of one tree over those of another; lists and values are replaced.
pub(super) fn lay_over(below: &Node, above: &Node) -> Node {
    let (Value::Map(lower), Value::Map(upper)) = (&below.value, &above.value) else { return above.clone() };
    let mut merged = lower.clone();
    for (key, node) in upper {
        match merged.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = lay_over(old, node),
            None => merged.push((key.clone(), node.clone())),
        }
    }
    Node { value: Value::Map(merged), ..above.clone() }
}

/// The tree as JSON; every value is a text.
fn plain(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Nothing => serde_json::Value::Null,
        Value::Word(text) => serde_json::Value::String(text.clone()),
        Value::List(list) => list.iter().map(plain).collect(),
        Value::Map(map) => map.iter().map(|(key, node)| (key.clone(), plain(node))).collect(),
    }
}
