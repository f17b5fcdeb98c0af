//! `metrics_backends`: the servers that answer PromQL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::decode::Surroundings;
use super::section::{HOUR, Notes, SECOND, Section, word};
use super::{Control, Fixed, Origin, units};
use crate::names::{ObjectName, Secret};
use crate::promql::{Features, LabelRule, Labels, MetricPattern};

/// Which API a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// Prometheus itself.
    Prometheus,
    /// Thanos Query.
    Thanos,
}

/// One of `metrics_backends`.
#[derive(Clone, Debug)]
pub struct Backend {
    /// `name`, for settings, logs and metrics.
    pub name: String,
    /// `kind`.
    pub kind: BackendKind,
    /// `url`: what we ask.
    pub url: Origin,
    /// `also_urls`: further spellings that datasources may use for the same server.
    pub also_urls: Vec<Origin>,
    /// `label` and `labels`: which label names the owner of a series.
    pub labels: Arc<Labels>,
    /// `experimental`: whether queries may use the parts of PromQL that not every backend knows.
    pub features: Features,
    /// `datasource`: show the backend as a virtual global datasource.
    pub datasource: Option<VirtualDatasource>,
    /// The contents of `token_file`: our credential there.
    pub token: Option<Secret>,
    /// The PEM text of `ca_file`: whom to believe there; default the system's.
    pub ca: Option<Vec<u8>>,
    /// `parameters`: sent with every query, such as `partial_response: "false"`.
    pub parameters: BTreeMap<String, String>,
    /// `timeout`, default 60 s: the whole answer.
    pub timeout: Duration,
    /// `retention`, default 30 d: how far a range or offset may look.
    pub retention: Duration,
    /// `evaluation_interval`, default 1 min: the step of a subquery that names none.
    pub evaluation_interval: Duration,
}

/// `datasource` of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualDatasource {
    /// `name`.
    pub name: ObjectName,
    /// `default`.
    pub default: bool,
}

pub(super) fn read(
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
        let loops = origin.is_loopback() && ours.iter().flatten().any(|socket| socket.port() == origin.port);
        let perses = origin.port == fixed.perses_url.port
            && (origin.host == fixed.perses_url.host || origin.is_loopback() && fixed.perses_url.is_loopback());
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
        let bytes = section.contents("token_file", &path, around, notes)?;
        let token = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
        // As much as a header can hold.
        let good = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        if !good {
            section.problem(notes, "token_file", "does not hold one token");
        }
        good.then(|| Secret::new(token))
    });
    let ca = section.file("ca_file", notes).and_then(|path| section.authorities("ca_file", &path, around, notes));
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
