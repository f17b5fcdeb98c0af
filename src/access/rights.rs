//! The words of a review: which verb on which resource stands for what Perses does.
//!
//! The mapping is upstream Perses' own for Kubernetes, so that roles written for it keep their meaning here.

use crate::config::Permission;
use crate::names::Namespace;
use crate::route::{Global, Scoped};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the words are Kubernetes' own")]
pub enum Verb {
    Get,
    Create,
    Patch,
    Delete,
}

impl Verb {
    /// The word in a review.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Create => "create",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// To what it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// `persesdashboards.perses.dev`; stands for variables, folders and ephemeral dashboards too.
    Dashboards,
    /// `persesdatasources.perses.dev`
    Datasources,
    /// `persesglobaldatasources.perses.dev`
    GlobalDatasources,
    /// `secrets` of the core group.
    Secrets,
    /// `pods.metrics.k8s.io`: the metrics of a namespace.
    PodMetrics,
}

impl Resource {
    /// What stands for a kind in projects.
    #[must_use]
    pub const fn of(kind: Scoped) -> Self {
        match kind {
            Scoped::Datasources => Self::Datasources,
            Scoped::Secrets => Self::Secrets,
            Scoped::Dashboards | Scoped::EphemeralDashboards | Scoped::Folders | Scoped::Variables => Self::Dashboards,
        }
    }

    /// What stands for a global kind.
    #[must_use]
    pub const fn of_global(kind: Global) -> Self {
        match kind {
            Global::Datasources => Self::GlobalDatasources,
            Global::Secrets => Self::Secrets,
            Global::Variables => Self::Dashboards,
        }
    }

    /// API group and resource.
    #[must_use]
    pub const fn group_and_resource(self) -> (&'static str, &'static str) {
        match self {
            Self::Dashboards => ("perses.dev", "persesdashboards"),
            Self::Datasources => ("perses.dev", "persesdatasources"),
            Self::GlobalDatasources => ("perses.dev", "persesglobaldatasources"),
            Self::Secrets => ("", "secrets"),
            Self::PodMetrics => ("metrics.k8s.io", "pods"),
        }
    }

    /// As `oc auth can-i` spells it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Dashboards => "persesdashboards.perses.dev",
            Self::Datasources => "persesdatasources.perses.dev",
            Self::GlobalDatasources => "persesglobaldatasources.perses.dev",
            Self::Secrets => "secrets",
            Self::PodMetrics => "pods.metrics.k8s.io",
        }
    }

    /// The attributes of a review; no namespace means the whole cluster.
    #[must_use]
    pub fn permission(self, verb: Verb, namespace: Option<&Namespace>) -> Permission {
        let (group, resource) = self.group_and_resource();
        Permission {
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: String::new(),
            name: String::new(),
            namespace: namespace.map_or_else(String::new, ToString::to_string),
            verb: verb.word().to_owned(),
        }
    }
}

/// One question to the cluster about one person.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// A verb on a resource, in a namespace or in the whole cluster.
    Held {
        /// What is done.
        verb: Verb,
        /// To what.
        resource: Resource,
        /// Where; `None` is the whole cluster.
        namespace: Option<Namespace>,
    },
    /// `access.all_metrics`
    AllMetrics,
    /// `get` on the nonResourceURL `/metrics`.
    OwnMetrics,
}

impl Right {
    /// In a namespace.
    #[must_use]
    pub fn namespaced(verb: Verb, resource: Resource, namespace: &Namespace) -> Self {
        Self::Held { verb, resource, namespace: Some(namespace.clone()) }
    }

    /// In the whole cluster.
    #[must_use]
    pub const fn cluster(verb: Verb, resource: Resource) -> Self {
        Self::Held { verb, resource, namespace: None }
    }
}

/// Which namespaces are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listing {
    /// Whose metrics may be read.
    Metrics,
    /// Whose objects of one resource may be read.
    Of(Resource),
    /// Whose project may be seen: any kind of object may be read.
    Projects,
}

impl Listing {
    /// One `get` of these is enough.
    #[must_use]
    pub const fn resources(self) -> &'static [Resource] {
        match self {
            Self::Metrics | Self::Of(Resource::PodMetrics) => &[Resource::PodMetrics],
            Self::Of(Resource::Dashboards) => &[Resource::Dashboards],
            Self::Of(Resource::Datasources) => &[Resource::Datasources],
            Self::Of(Resource::GlobalDatasources) => &[Resource::GlobalDatasources],
            Self::Of(Resource::Secrets) => &[Resource::Secrets],
            Self::Projects => &[Resource::Dashboards, Resource::Datasources, Resource::Secrets],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviews_are_in_the_words_of_upstream_roles() {
        let namespace = Namespace::parse("team-a");
        let permission = Resource::of(Scoped::Folders).permission(Verb::Patch, namespace.as_ref());
        assert_eq!((permission.group.as_str(), permission.resource.as_str()), ("perses.dev", "persesdashboards"));
        assert_eq!((permission.verb.as_str(), permission.namespace.as_str()), ("patch", "team-a"));
        assert_eq!(Resource::of_global(Global::Secrets).permission(Verb::Get, None).namespace, "");
    }
}
