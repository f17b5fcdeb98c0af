//! The sections of the file, one function each, in the order of `config/example.yaml`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::decode::Surroundings;
use super::section::{Notes, Section, quote};
use super::tls::{self, Fault, Policy, Profile};
use super::units;
use super::{
    Access, Audit, Backend, BackendKind, Cluster, Control, Fixed, Limits, Listen, LogLevel, Origin, Permission,
    Telemetry, Tls, VirtualDatasource,
};
use crate::names::{Namespace, ObjectName, Secret};
use crate::promql::{Features, LabelRule, Labels, MetricPattern};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("expected an address and port such as 0.0.0.0:8080 or [::]:8080, not {text:?}"))
}

fn word(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

pub(super) fn fixed(root: &mut Section<'_>, notes: &mut Notes) -> Fixed {
    let mut listen = root.section("listen", notes);
    listen.reserved(&["webhook"], notes);
    let show = ToString::to_string;
    let parsed = Listen {
        gateway: listen.value("gateway", SocketAddr::from(([0, 0, 0, 0], 8080)), notes, socket, show),
        gateway_tls: listen.flag("gateway_tls", false, notes),
        https: listen.optional("https", notes, socket, show),
        admin: listen.value("admin", SocketAddr::from(([0, 0, 0, 0], 9081)), notes, socket, show),
        control: listen.value("control", Control::DEFAULT, notes, Control::parse, ToString::to_string),
        trusted_proxies: listen.list("trusted_proxies", notes, units::cidr),
    };
    let control = match parsed.control {
        Control::Loopback(address) => Some(address),
        Control::Unix(_) => None,
    };
    let ports = [Some(parsed.gateway), parsed.https, Some(parsed.admin), control];
    for (index, left) in ports.iter().flatten().enumerate() {
        if ports.iter().flatten().skip(index + 1).any(|right| left == right && left.port() != 0) {
            listen.problem(notes, "gateway", format!("two listeners share {left}"));
        }
    }
    listen.finish(notes);

    let mut perses = root.section("perses", notes);
    let default = Origin { tls: false, host: "127.0.0.1".to_owned(), port: 8081, base: String::new() };
    let read = |text: &str| {
        let origin = units::origin(text)?;
        if !origin.base.is_empty() {
            return Err("must have no path; a prefix is given as api_prefix".to_owned());
        }
        if !origin.tls && !is_loopback(&origin.host) {
            return Err("plain http is spoken on the loopback only; use https for another host".to_owned());
        }
        Ok(origin)
    };
    let perses_url = perses.value("url", default, notes, read, ToString::to_string);
    let prefix = |text: &str| {
        let trimmed = text.trim_end_matches('/');
        let good = |segment: &str| {
            !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if trimmed.is_empty() {
            return Ok(String::new());
        }
        match trimmed.strip_prefix('/') {
            Some(rest) if rest.split('/').all(good) => Ok(trimmed.to_owned()),
            _ => Err(format!("expected a path such as /perses, not {text:?}")),
        }
    };
    let api_prefix = perses.value("api_prefix", String::new(), notes, prefix, Clone::clone);
    perses.finish(notes);
    Fixed { listen: parsed, perses_url, api_prefix }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads a file that must be there; an unreadable one is a problem with its key.
pub(super) fn contents(
    section: &Section<'_>,
    key: &str,
    path: &Path,
    around: &dyn Surroundings,
    notes: &mut Notes,
) -> Option<Vec<u8>> {
    match around.file(path) {
        Ok(bytes) if bytes.len() <= 4 << 20 => Some(bytes),
        Ok(_) => {
            section.problem(notes, key, format!("{} is larger than 4 MiB", path.display()));
            None
        }
        Err(error) => {
            section.problem(notes, key, format!("{} cannot be read: {error}", path.display()));
            None
        }
    }
}

/// Reads a file that must hold certificate authorities.
pub(super) fn bundle(
    section: &Section<'_>,
    key: &str,
    path: &Path,
    around: &dyn Surroundings,
    notes: &mut Notes,
) -> Option<Vec<u8>> {
    let pem = contents(section, key, path, around, notes)?;
    match tls::authorities(&pem) {
        Ok(_) => Some(pem),
        Err(problem) => {
            section.problem(notes, key, format!("{} {problem}", path.display()));
            None
        }
    }
}

pub(super) fn tls(root: &mut Section<'_>, around: &dyn Surroundings, notes: &mut Notes) -> Option<Tls> {
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
        let (suites, groups) = (custom.list("ciphers", notes, tls::cipher), custom.list("groups", notes, tls::group));
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
            let certificate = contents(&tls, "certificate_file", &certificate_file, around, notes);
            let key = contents(&tls, "key_file", &key_file, around, notes);
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

pub(super) fn cluster(root: &mut Section<'_>, around: &dyn Surroundings, notes: &mut Notes) -> Option<Cluster> {
    let mut cluster = root.section("cluster", notes);
    let pod = around.variable("KUBERNETES_SERVICE_HOST").and_then(|host| {
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let port = around.variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        units::origin(&format!("https://{host}:{port}")).ok()
    });
    let read = |text: &str| {
        let origin = units::origin(text)?;
        if origin.tls { Ok(Some(origin)) } else { Err("the Kubernetes API is asked over https only".to_owned()) }
    };
    let given = cluster.has("url");
    let url = cluster.value("url", pod, notes, read, |url| url.as_ref().map_or_else(String::new, ToString::to_string));
    if url.is_none() && !given {
        cluster.problem(notes, "url", "is required outside of a pod (KUBERNETES_SERVICE_HOST is not set)");
    }
    let ca_file = cluster.file("ca_file", notes).unwrap_or_else(|| Path::new(POD).join("ca.crt"));
    let token_file = cluster.file("token_file", notes).unwrap_or_else(|| Path::new(POD).join("token"));
    let ca = bundle(&cluster, "ca_file", &ca_file, around, notes);
    contents(&cluster, "token_file", &token_file, around, notes);
    let timeout = cluster.duration("timeout", 5 * SECOND, (SECOND / 10, 60 * SECOND), notes);
    let in_flight = cluster.count("reviews_in_flight", 64, (1, 10_000), notes);
    let per_second = cluster.count("reviews_per_second", 500, (1, 100_000), notes);
    cluster.finish(notes);
    Some(Cluster { url: url?, ca: ca?, token_file, timeout, in_flight, per_second })
}

pub(super) fn access(root: &mut Section<'_>, notes: &mut Notes) -> Access {
    let mut access = root.section("access", notes);
    let audiences =
        access.list(
            "audiences",
            notes,
            |text| if text.is_empty() { Err("must not be empty".to_owned()) } else { word(text) },
        );
    let narrow_to_project = access.flag("narrow_to_project", false, notes);
    let mut all = access.section("all_metrics", notes);
    let mut part = |key, default: &str| all.value(key, default.to_owned(), notes, word, |text| quote(text));
    let all_metrics = Permission {
        group: part("group", "monitoring.coreos.com"),
        resource: part("resource", "prometheuses"),
        subresource: part("subresource", "api"),
        name: part("name", "k8s"),
        namespace: part("namespace", "openshift-monitoring"),
        verb: part("verb", "get"),
    };
    if all_metrics.resource.is_empty() || all_metrics.verb.is_empty() {
        all.problem(notes, "resource", "resource and verb must not be empty");
    }
    all.finish(notes);
    let mut projects = BTreeMap::new();
    for (stored, namespace) in access.pairs("projects", notes) {
        match (ObjectName::parse(&stored), Namespace::parse(&namespace)) {
            (Some(stored), Some(namespace)) => {
                projects.insert(stored, namespace);
            }
            _ => access.problem(
                notes,
                "projects",
                format!("expected a stored project and a namespace, not {stored:?}: {namespace:?}"),
            ),
        }
    }
    let range = (SECOND, 600 * SECOND);
    let parsed = Access {
        audiences,
        narrow_to_project,
        all_metrics,
        projects,
        token_ttl: access.duration("token_ttl", 60 * SECOND, range, notes),
        token_failure_ttl: access.duration("token_failure_ttl", 5 * SECOND, range, notes),
        allow_ttl: access.duration("allow_ttl", 60 * SECOND, range, notes),
        deny_ttl: access.duration("deny_ttl", 10 * SECOND, range, notes),
        namespaces_ttl: access.duration("namespaces_ttl", 60 * SECOND, range, notes),
        jwt_check: access.flag("jwt_check", false, notes),
        jwt_audiences: access.list("jwt_audiences", notes, |text| {
            if text.is_empty() { Err("must not be empty".to_owned()) } else { word(text) }
        }),
    };
    access.finish(notes);
    parsed
}

pub(super) fn backends(
    root: &mut Section<'_>,
    fixed: &Fixed,
    around: &dyn Surroundings,
    notes: &mut Notes,
) -> Vec<Arc<Backend>> {
    let there = root.has("metrics_backends");
    let mut found: Vec<Arc<Backend>> = Vec::new();
    for mut section in root.sections("metrics_backends", notes) {
        if let Some(backend) = backend(&mut section, fixed, around, notes) {
            let urls = |backend: &Backend| {
                std::iter::once(backend.url.clone()).chain(backend.also_urls.clone()).collect::<Vec<_>>()
            };
            if found.iter().any(|other| other.name == backend.name) {
                section.problem(notes, "name", format!("two backends are called {:?}", backend.name));
            }
            if found.iter().any(|other| urls(other).iter().any(|url| urls(&backend).contains(url))) {
                section.problem(notes, "url", "two backends share a URL");
            }
            let shown = |backend: &Backend| backend.datasource.clone();
            if let Some(datasource) = shown(&backend) {
                if found.iter().filter_map(|other| shown(other)).any(|other| other.name == datasource.name) {
                    section.problem(notes, "datasource", "two backends show themselves under one name");
                }
                if datasource.default && found.iter().filter_map(|other| shown(other)).any(|other| other.default) {
                    section.problem(notes, "datasource", "only one backend can be the default");
                }
            }
            found.push(Arc::new(backend));
        }
        section.finish(notes);
    }
    if !there {
        root.problem(notes, "metrics_backends", "is required: a list with at least a name and a url");
    }
    found
}

fn backend(section: &mut Section<'_>, fixed: &Fixed, around: &dyn Surroundings, notes: &mut Notes) -> Option<Backend> {
    let name = section.required(
        "name",
        notes,
        |text| {
            ObjectName::parse(text)
                .map(|name| name.to_string())
                .ok_or_else(|| format!("expected a short name, not {text:?}"))
        },
        Clone::clone,
    );
    let kind = section.value(
        "kind",
        BackendKind::Prometheus,
        notes,
        |text| match text {
            "prometheus" => Ok(BackendKind::Prometheus),
            "thanos" => Ok(BackendKind::Thanos),
            other => Err(format!("expected prometheus or thanos, not {other:?}: no other kind can be confined")),
        },
        |kind| if *kind == BackendKind::Prometheus { "prometheus".to_owned() } else { "thanos".to_owned() },
    );
    let url = section.required("url", notes, units::origin, ToString::to_string);
    let also_urls = section.list("also_urls", notes, units::origin);
    for origin in url.iter().chain(&also_urls) {
        let control = match fixed.listen.control {
            Control::Loopback(address) => Some(address),
            Control::Unix(_) => None,
        };
        let ours = [Some(fixed.listen.gateway), fixed.listen.https, Some(fixed.listen.admin), control];
        let loops = is_loopback(&origin.host) && ours.iter().flatten().any(|socket| socket.port() == origin.port);
        let perses = origin.port == fixed.perses_url.port
            && (origin.host == fixed.perses_url.host
                || is_loopback(&origin.host) && is_loopback(&fixed.perses_url.host));
        if loops || perses {
            section.problem(notes, "url", format!("{origin} is Perses or this process itself, not a metrics backend"));
        }
    }
    let label = section.value("label", "namespace".to_owned(), notes, word, Clone::clone);
    let mut rules = Vec::new();
    for mut rule in section.sections("labels", notes) {
        let metrics = rule.list("metrics", notes, MetricPattern::parse);
        if metrics.is_empty() {
            rule.problem(notes, "metrics", "is required: metric names, or beginnings of them followed by \"*\"");
        }
        let label = rule.required("label", notes, word, Clone::clone);
        let matchers = rule.pairs("where", notes);
        rule.finish(notes);
        if let Some(label) = label {
            rules.push(LabelRule { metrics, label, matchers });
        }
    }
    let labels = match Labels::new(&label, rules) {
        Ok(labels) => Some(Arc::new(labels)),
        Err(message) => {
            section.problem(notes, "label", message);
            None
        }
    };
    let features = Features { experimental: section.flag("experimental", false, notes) };
    let datasource = if section.has("datasource") {
        let mut shown = section.section("datasource", notes);
        let name = shown.required(
            "name",
            notes,
            |text| ObjectName::parse(text).ok_or_else(|| format!("expected a name, not {text:?}")),
            ToString::to_string,
        );
        let default = shown.flag("default", false, notes);
        shown.finish(notes);
        name.map(|name| VirtualDatasource { name, default })
    } else {
        section.section("datasource", notes);
        None
    };
    let token = section.file("token_file", notes).and_then(|path| {
        let bytes = contents(section, "token_file", &path, around, notes)?;
        let token = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
        // As much as a header can hold.
        let good = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        if !good {
            section.problem(notes, "token_file", "does not hold one token");
        }
        good.then(|| Secret::new(token))
    });
    let ca = section.file("ca_file", notes).and_then(|path| bundle(section, "ca_file", &path, around, notes));
    let parameters: BTreeMap<String, String> = section.pairs("parameters", notes).into_iter().collect();
    for name in parameters.keys() {
        if !["partial_response", "dedup", "max_source_resolution", "timeout"].contains(&name.as_str()) {
            section.problem(
                notes,
                "parameters",
                format!("{name:?} cannot be sent; known: partial_response, dedup, max_source_resolution, timeout"),
            );
        }
    }
    let timeout = section.duration("timeout", 60 * SECOND, (SECOND / 10, HOUR), notes);
    let retention = section.duration("retention", 30 * 24 * HOUR, (HOUR, 3660 * 24 * HOUR), notes);
    let evaluation_interval = section.duration("evaluation_interval", 60 * SECOND, (SECOND, HOUR), notes);
    Some(Backend {
        name: name?,
        kind,
        url: url?,
        also_urls,
        labels: labels?,
        features,
        datasource,
        token,
        ca,
        parameters,
        timeout,
        retention,
        evaluation_interval,
    })
}

pub(super) fn limits(root: &mut Section<'_>, notes: &mut Notes) -> Limits {
    let mut section = root.section("limits", notes);
    let d = Limits::default();
    let short = (SECOND / 20, 300 * SECOND);
    let parsed = Limits {
        connections: section.count("connections", d.connections, (1, 1 << 20), notes),
        streams: section.count("streams", d.streams, (1, 10_000), notes),
        first_byte: section.duration("first_byte", d.first_byte, short, notes),
        handshake: section.duration("handshake", d.handshake, short, notes),
        header: section.duration("header", d.header, short, notes),
        idle: section.duration("idle", d.idle, (SECOND, HOUR), notes),
        total: section.duration("total", d.total, (SECOND, HOUR), notes),
        drain: section.duration("drain", d.drain, (Duration::ZERO, HOUR), notes),
        header_bytes: section.size("header_bytes", d.header_bytes, (8 << 10, 1 << 20), notes),
        headers: section.count("headers", d.headers, (10, 1000), notes),
        body: section.size("body", d.body, (1 << 10, 64 << 20), notes),
        query_body: section.size("query_body", d.query_body, (1 << 10, 10 << 20), notes),
        answer: section.size("answer", d.answer, (64 << 10, 4 << 30), notes),
        perses_timeout: section.duration("perses_timeout", d.perses_timeout, (SECOND / 10, HOUR), notes),
        upstream_connections: section.count("upstream_connections", d.upstream_connections, (1, 10_000), notes),
        namespaces: section.count("namespaces", d.namespaces, (1, 100_000), notes),
        cached_reviews: section.count("cached_reviews", d.cached_reviews, (100, 10_000_000), notes),
        query_points: section.count("query_points", d.query_points, (1, 1_000_000), notes),
        migrations: section.count("migrations", d.migrations, (1, 1000), notes),
        logins: section.count("logins", d.logins, (1, 10_000), notes),
        promql: crate::promql::Limits {
            text: section.size("query_text", d.promql.text, (256, 1 << 20), notes),
            depth: section.count("query_depth", d.promql.depth, (4, 200), notes),
            binary_operators: section.count("query_operators", d.promql.binary_operators, (1, 1000), notes),
            selectors: section.count("query_selectors", d.promql.selectors, (1, 10_000), notes),
            tokens: section.count("query_tokens", d.promql.tokens, (10, 1_000_000), notes),
            confined: section.size("confined_query", d.promql.confined, (1 << 10, 8 << 20), notes),
            subquery_steps: section.count("subquery_steps", d.promql.subquery_steps, (1, 100_000_000), notes),
            ..d.promql
        },
    };
    section.finish(notes);
    parsed
}

pub(super) fn telemetry(root: &mut Section<'_>, notes: &mut Notes) -> Telemetry {
    let mut section = root.section("telemetry", notes);
    let log_level = section.value("log_level", LogLevel::Info, notes, LogLevel::parse, |level| level.word().to_owned());
    section.finish(notes);
    Telemetry { log_level }
}

impl LogLevel {
    /// Reads a level's word.
    ///
    /// # Errors
    /// For any other word.
    pub fn parse(text: &str) -> Result<Self, String> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.word() == text)
            .ok_or_else(|| format!("expected error, warn, info, debug or trace, not {text:?}"))
    }

    /// The level's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

pub(super) fn audit(root: &mut Section<'_>, notes: &mut Notes) -> Audit {
    let mut section = root.section("audit", notes);
    let stream = |text: &str| match text {
        "stdout" => Ok(Audit::Stdout),
        "off" => Ok(Audit::Off),
        other => Err(format!("expected stdout or off, not {other:?}")),
    };
    let both = section.has("stream") && section.has("file");
    let audit = section.value("stream", Audit::Stdout, notes, stream, |audit| match audit {
        Audit::Off => "off".to_owned(),
        Audit::Stdout | Audit::File(_) => "stdout".to_owned(),
    });
    let file = section.file("file", notes);
    if both && file.is_some() {
        section.problem(notes, "file", "give stream or file, not both");
    }
    section.finish(notes);
    if file.is_some() {
        // What is printed must read back: the file stands alone.
        notes.effective.retain(|(key, _)| key != "audit.stream");
    }
    file.map_or(audit, Audit::File)
}
