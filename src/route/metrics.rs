//! The part of a backend's API that may be asked through Perses' datasource paths.
//!
//! A path names where the datasource is described ([`Source`]) and what is asked ([`MetricsCall`]). The endpoints of
//! Prometheus and Thanos that cannot be confined are in the table too, as refused, so that the answer can say so.

use http::Method;

use super::{Never, Project, path};
use crate::names::ObjectName;
use crate::refusal::{Reason, Refusal};

/// Where the datasource is described.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A global datasource.
    Global(ObjectName),
    /// A datasource of a project.
    Project(Project, ObjectName),
    /// A datasource inside a dashboard; its key is case-sensitive.
    Dashboard(Project, ObjectName, String),
}

/// What is asked of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsCall {
    /// `query`
    Query,
    /// `query_range`
    QueryRange,
    /// `query_exemplars`
    Exemplars,
    /// `series`
    Series,
    /// `labels`
    Labels,
    /// `label/<name>/values`
    LabelValues(LabelName),
    /// `metadata`
    Metadata,
    /// `rules`
    Rules,
    /// `alerts`
    Alerts,
    /// `parse_query`
    ParseQuery,
    /// `format_query`
    FormatQuery,
    /// `status/buildinfo`
    BuildInfo,
    /// `status/flags`, answered empty.
    Flags,
    /// `/-/healthy`
    Healthy,
}

/// A label's name as it stands in a path to a backend: a legacy name or the `U__` form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelName(String);

impl LabelName {
    /// Reads a decoded path segment. Any other UTF-8 name is written in the `U__` form that Prometheus unescapes.
    fn parse(decoded: &str) -> Option<Self> {
        if decoded.is_empty() || decoded.len() > 256 {
            return None;
        }
        let legacy = |text: &str| {
            text.bytes().enumerate().all(|(i, b)| b == b'_' || b.is_ascii_alphabetic() || (i > 0 && b.is_ascii_digit()))
        };
        if legacy(decoded) {
            return Some(Self(decoded.to_owned()));
        }
        let mut escaped = String::from("U__");
        for (index, character) in decoded.chars().enumerate() {
            if character == '_' {
                escaped.push_str("__");
            } else if character.is_ascii_alphabetic() || (index > 0 && character.is_ascii_digit()) {
                escaped.push(character);
            } else {
                escaped.push_str(&format!("_{:X}_", u32::from(character)));
            }
        }
        Some(Self(escaped))
    }

    /// The segment to send.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl MetricsCall {
    /// The call's word for metrics and audit.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::QueryRange => "query_range",
            Self::Exemplars => "query_exemplars",
            Self::Series => "series",
            Self::Labels => "labels",
            Self::LabelValues(_) => "label_values",
            Self::Metadata => "metadata",
            Self::Rules => "rules",
            Self::Alerts => "alerts",
            Self::ParseQuery => "parse_query",
            Self::FormatQuery => "format_query",
            Self::BuildInfo => "buildinfo",
            Self::Flags => "flags",
            Self::Healthy => "healthy",
        }
    }

    const fn allow(&self) -> &'static str {
        match self {
            Self::Query
            | Self::QueryRange
            | Self::Exemplars
            | Self::Series
            | Self::Labels
            | Self::ParseQuery
            | Self::FormatQuery => "GET, POST",
            Self::LabelValues(_)
            | Self::Metadata
            | Self::Rules
            | Self::Alerts
            | Self::BuildInfo
            | Self::Flags
            | Self::Healthy => "GET",
        }
    }
}

/// What a path below `/proxy/` asks.
pub(super) enum Proxied {
    /// Something to answer.
    Call(Source, MetricsCall),
    /// Something that is refused by name.
    Never(Never),
}

/// Reads the segments behind `/proxy/`.
pub(super) fn find(method: &Method, segments: &[&str]) -> Result<Proxied, Refusal> {
    let (source, tail) = match segments {
        ["unsaved", ..] => return Ok(Proxied::Never(Never::Unsaved)),
        ["globaldatasources", name, tail @ ..] => (Source::Global(object(name)?), tail),
        ["projects", project, "datasources", name, tail @ ..] => {
            (Source::Project(project_of(project)?, object(name)?), tail)
        }
        ["projects", project, "dashboards", dashboard, "datasources", name, tail @ ..] => {
            // The name is a key inside the dashboard: kept as spelt, but of the grammar of names.
            object(name)?;
            (Source::Dashboard(project_of(project)?, object(dashboard)?, (*name).to_owned()), tail)
        }
        _ => return Err(Refusal::unknown_route()),
    };
    let call = match tail {
        ["api", "v1", "query"] => MetricsCall::Query,
        ["api", "v1", "query_range"] => MetricsCall::QueryRange,
        ["api", "v1", "query_exemplars"] => MetricsCall::Exemplars,
        ["api", "v1", "series"] => MetricsCall::Series,
        ["api", "v1", "labels"] => MetricsCall::Labels,
        ["api", "v1", "label", name, "values"] => {
            let decoded = path::decode(name)?;
            let Some(name) = LabelName::parse(&decoded) else {
                return Err(Refusal::new(Reason::MalformedPath, "not a label name"));
            };
            MetricsCall::LabelValues(name)
        }
        ["api", "v1", "metadata"] => MetricsCall::Metadata,
        ["api", "v1", "rules"] => MetricsCall::Rules,
        ["api", "v1", "alerts"] => MetricsCall::Alerts,
        ["api", "v1", "parse_query"] => MetricsCall::ParseQuery,
        ["api", "v1", "format_query"] => MetricsCall::FormatQuery,
        ["api", "v1", "status", "buildinfo"] => MetricsCall::BuildInfo,
        ["api", "v1", "status", "flags"] => MetricsCall::Flags,
        ["-", "healthy"] => MetricsCall::Healthy,
        tail if is_refused(tail) => return Ok(Proxied::Never(Never::Backend)),
        _ => return Err(Refusal::unknown_route()),
    };
    let get = method == Method::GET || method == Method::HEAD;
    if get || (method == Method::POST && call.allow() == "GET, POST") {
        Ok(Proxied::Call(source, call))
    } else {
        Err(Refusal::method(call.allow()))
    }
}

/// The rest of the HTTP APIs of Prometheus 3.16 and Thanos Query 0.43: known, and refused by name.
fn is_refused(tail: &[&str]) -> bool {
    match tail {
        ["api", "v1", rest @ ..] => matches!(
            rest,
            ["alertmanagers" | "targets" | "scrape_pools" | "notifications"]
                | ["query_explain" | "query_range_explain" | "stores" | "blocks" | "features" | "openapi.yaml"]
                | ["read" | "write"]
                | ["otlp" | "admin", ..]
                | ["search", _]
                | ["targets", "metadata" | "relabel_steps"]
                | ["scrape_pools", "config"]
                | ["notifications", "live"]
                | ["blocks", "mark"]
                | ["status", "config" | "runtimeinfo" | "tsdb" | "walreplay" | "self_metrics"]
                | ["status", "tsdb", "blocks"]
        ),
        ["federate" | "metrics" | "version" | "graph"] | ["debug" | "consoles" | "user", ..] => true,
        ["-", "ready" | "quit" | "reload"] => true,
        _ => false,
    }
}

fn object(segment: &str) -> Result<ObjectName, Refusal> {
    ObjectName::parse(segment).ok_or_else(|| Refusal::new(Reason::MalformedPath, "not a name of a Perses object"))
}

fn project_of(segment: &str) -> Result<Project, Refusal> {
    Project::parse(segment).ok_or_else(|| Refusal::new(Reason::MalformedPath, "not a name of a project"))
}
