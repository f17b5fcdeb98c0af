//! `access`: who may do what.

use std::collections::BTreeMap;
use std::time::Duration;

use super::section::{Notes, SECOND, Section, quote, word};
use crate::names::{Namespace, ObjectName};

/// `access`: who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `access.audiences`: further audiences a token may be meant for.
    pub audiences: Vec<String>,
    /// `access.narrow_to_project`: confine a query to the project in its path, default false.
    pub narrow_to_project: bool,
    /// `access.all_metrics`: the right that lifts confinement.
    pub all_metrics: Permission,
    /// `access.projects`: stored projects that are no namespace, and the namespace whose rights decide.
    pub projects: BTreeMap<ObjectName, Namespace>,
    /// `access.token_ttl`, default 60 s.
    pub token_ttl: Duration,
    /// `access.token_failure_ttl`, default 5 s.
    pub token_failure_ttl: Duration,
    /// `access.allow_ttl`, default 60 s.
    pub allow_ttl: Duration,
    /// `access.deny_ttl`, default 10 s.
    pub deny_ttl: Duration,
    /// `access.namespaces_ttl`, default 60 s.
    pub namespaces_ttl: Duration,
    /// `access.jwt_check`: whether a JWT is looked at here before the API server is asked about it, default false.
    pub jwt_check: bool,
    /// `access.jwt_audiences`: what the API server calls itself, if not as it calls its issuer.
    pub jwt_audiences: Vec<String>,
}

/// Resource attributes of an access review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// API group.
    pub group: String,
    /// Resource.
    pub resource: String,
    /// Subresource, may be empty.
    pub subresource: String,
    /// Object name, may be empty.
    pub name: String,
    /// Namespace, empty for the cluster.
    pub namespace: String,
    /// Verb.
    pub verb: String,
}

pub(super) fn read(root: &mut Section<'_>, notes: &mut Notes) -> Access {
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
