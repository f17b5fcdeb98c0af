//! Role-based access control as the API server evaluates it, over bindings of cluster roles.

use std::collections::BTreeMap;

/// One rule of a role. Empty lists match nothing; `*` matches all.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// API groups.
    pub groups: Vec<&'static str>,
    /// Resources, with `/subresource` where there is one.
    pub resources: Vec<&'static str>,
    /// Verbs.
    pub verbs: Vec<&'static str>,
    /// Names; empty for all.
    pub names: Vec<&'static str>,
    /// Paths that are no resources.
    pub paths: Vec<&'static str>,
}

/// Who holds a role.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are the API's own")]
pub enum Subject {
    User(String),
    Group(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) namespace: Option<String>,
    pub(super) subject: Subject,
    pub(super) role: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Rbac {
    pub(super) roles: BTreeMap<String, Vec<Rule>>,
    pub(super) bindings: Vec<Binding>,
}

/// Whose rights are asked for.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// Name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// `scopes.authorization.openshift.io`
    pub scopes: Option<Vec<String>>,
}

/// What is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) namespace: String,
    pub(super) verb: String,
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) name: String,
    pub(super) path: Option<String>,
}

/// What the sidecar watches, as our manifest gives it.
const WORKLOADS: [(&str, &[&str]); 6] = [
    ("serving.kserve.io", &["inferenceservices", "llminferenceservices", "servingruntimes", "clusterservingruntimes"]),
    ("kubeflow.org", &["pytorchjobs", "tfjobs", "mpijobs", "xgboostjobs", "paddlejobs", "jaxjobs", "notebooks"]),
    ("trainer.kubeflow.org", &["trainjobs"]),
    ("ray.io", &["rayclusters", "rayjobs", "rayservices"]),
    ("kueue.x-k8s.io", &["localqueues"]),
    ("batch", &["jobs"]),
];

fn rule(groups: &[&'static str], resources: &[&'static str], verbs: &[&'static str]) -> Rule {
    Rule { groups: groups.to_vec(), resources: resources.to_vec(), verbs: verbs.to_vec(), ..Rule::default() }
}

impl Rbac {
    /// The stock roles as far as the product can tell them apart, with ours aggregated into them.
    pub(super) fn stock() -> Self {
        let read = ["get", "list", "watch"];
        let all = ["create", "delete", "get", "list", "patch", "update", "watch"];
        let view = vec![
            rule(&[""], &["namespaces", "pods", "pods/log", "configmaps", "services"], &read),
            rule(&["metrics.k8s.io"], &["pods", "nodes"], &read),
            rule(&["perses.dev"], &["persesdashboards", "persesdatasources"], &["get"]),
        ];
        let mut edit = view.clone();
        edit.push(rule(&[""], &["secrets", "configmaps", "pods", "services"], &all));
        edit.push(rule(&[""], &["serviceaccounts/token"], &["create"]));
        edit.push(rule(&["perses.dev"], &["persesdashboards", "persesdatasources"], &["create", "patch", "delete"]));
        let mut admin = edit.clone();
        admin.push(rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], &all));
        for group in ["authorization.k8s.io", "authorization.openshift.io"] {
            admin.push(rule(&[group], &["localsubjectaccessreviews"], &["create"]));
        }
        let delegator = vec![
            rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
            rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
        ];
        let monitoring = vec![
            rule(&[""], &["namespaces"], &["get"]),
            rule(&["monitoring.coreos.com"], &["prometheuses/api"], &["get"]),
        ];
        let mut everything = rule(&["*"], &["*"], &["*"]);
        everything.paths = vec!["*"];
        let roles = [
            ("view", view),
            ("edit", edit),
            ("admin", admin),
            ("cluster-admin", vec![everything]),
            ("system:auth-delegator", delegator),
            ("namespace-reader", vec![rule(&[""], &["namespaces"], &["get", "list"])]),
            ("workload-reader", WORKLOADS.map(|(group, resources)| rule(&[group], resources, &read)).to_vec()),
            ("cluster-monitoring-view", monitoring),
            ("system:oauth-token-deleter", vec![rule(&["oauth.openshift.io"], &["oauthaccesstokens"], &["delete"])]),
        ];
        let roles = roles.into_iter().map(|(name, rules)| (name.to_owned(), rules)).collect();
        // People may delete the tokens whose names they know.
        let deleters = Binding {
            namespace: None,
            subject: Subject::Group("system:authenticated:oauth".to_owned()),
            role: "system:oauth-token-deleter".to_owned(),
        };
        Self { roles, bindings: vec![deleters] }
    }

    pub(super) fn allows(&self, who: &Who, asked: &Asked) -> bool {
        self.in_scope(who, asked)
            && self.bindings.iter().any(|binding| {
                let here = binding.namespace.as_ref().is_none_or(|namespace| *namespace == asked.namespace);
                let theirs = match &binding.subject {
                    Subject::User(user) => *user == who.user,
                    Subject::Group(group) => who.groups.contains(group),
                };
                here && theirs && self.covers(&binding.role, asked)
            })
    }

    /// The rules that somebody holds in a namespace, or everywhere.
    pub(super) fn held(&self, who: &Who, namespace: &str) -> Vec<&Rule> {
        let held = |binding: &&Binding| {
            let here = binding.namespace.as_ref().is_none_or(|bound| bound == namespace);
            here && match &binding.subject {
                Subject::User(user) => *user == who.user,
                Subject::Group(group) => who.groups.contains(group),
            }
        };
        let bound = self.bindings.iter().filter(held);
        bound.filter_map(|binding| self.roles.get(&binding.role)).flatten().collect()
    }

    fn covers(&self, role: &str, asked: &Asked) -> bool {
        self.roles.get(role).is_some_and(|rules| rules.iter().any(|rule| covers(rule, asked)))
    }

    /// A token's scopes cut its rights; no scopes at all cut nothing.
    fn in_scope(&self, who: &Who, asked: &Asked) -> bool {
        let Some(scopes) = &who.scopes else { return true };
        scopes.iter().any(|scope| match scope.as_str() {
            "user:full" => true,
            "user:list-projects" => match asked.resource.as_str() {
                "projects" => matches!(asked.verb.as_str(), "list" | "watch"),
                "namespaces" => asked.verb == "get",
                _ => false,
            },
            scope => {
                let mut parts = scope.strip_prefix("role:").unwrap_or_default().split(':');
                let (Some(role), Some(namespace)) = (parts.next(), parts.next()) else { return false };
                let escalating = parts.next() == Some("!");
                (namespace == "*" || namespace == asked.namespace)
                    && self.covers(role, asked)
                    && (escalating || asked.resource != "secrets")
            }
        })
    }
}

fn covers(rule: &Rule, asked: &Asked) -> bool {
    let has = |list: &[&str], word: &str| list.iter().any(|entry| *entry == "*" || *entry == word);
    if !has(&rule.verbs, &asked.verb) {
        return false;
    }
    match &asked.path {
        Some(path) => rule.paths.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == pattern,
        }),
        None => {
            has(&rule.groups, &asked.group)
                && has(&rule.resources, &asked.resource)
                && (rule.names.is_empty() || rule.names.contains(&asked.name.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rbac() -> Rbac {
        let mut rbac = Rbac::stock();
        let bind = |namespace: Option<&str>, subject, role: &str| Binding {
            namespace: namespace.map(str::to_owned),
            subject,
            role: role.to_owned(),
        };
        rbac.bindings = vec![
            bind(Some("a"), Subject::User("ada".to_owned()), "edit"),
            bind(Some("b"), Subject::Group("g".to_owned()), "view"),
            bind(None, Subject::User("root".to_owned()), "cluster-admin"),
        ];
        rbac
    }

    fn asks(user: &str, groups: &[&str], scopes: Option<&[&str]>, what: (&str, &str, &str, &str)) -> bool {
        let who = Who {
            user: user.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            scopes: scopes.map(|scopes| scopes.iter().map(|scope| (*scope).to_owned()).collect()),
        };
        let (verb, group, resource, namespace) = what;
        let asked = Asked {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            ..Asked::default()
        };
        rbac().allows(&who, &asked)
    }

    #[test]
    fn bindings_count_where_they_are() {
        let patch = ("patch", "perses.dev", "persesdashboards", "a");
        assert!(asks("ada", &[], None, patch));
        assert!(!asks("ada", &[], None, ("patch", "perses.dev", "persesdashboards", "b")));
        assert!(!asks("ada", &[], None, ("patch", "perses.dev", "persesdashboards", "")));
        assert!(!asks("grace", &[], None, patch));
        assert!(asks("grace", &["g"], None, ("get", "perses.dev", "persesdashboards", "b")));
        assert!(!asks("grace", &["g"], None, ("patch", "perses.dev", "persesdashboards", "b")));
        assert!(!asks("grace", &["g"], None, ("get", "", "secrets", "b")), "view reads no secrets");
        assert!(asks("root", &[], None, ("get", "x", "y", "")));
    }

    #[test]
    fn scopes_cut() {
        let get = ("get", "", "pods", "a");
        assert!(asks("ada", &[], Some(&["user:full"]), get));
        assert!(!asks("ada", &[], Some(&["user:info", "user:check-access"]), get));
        assert!(asks("ada", &[], Some(&["role:view:a"]), get));
        assert!(!asks("ada", &[], Some(&["role:view:b"]), get));
        assert!(!asks("ada", &[], Some(&["role:edit:a"]), ("get", "", "secrets", "a")));
        assert!(asks("ada", &[], Some(&["role:edit:a:!"]), ("get", "", "secrets", "a")));
    }
}
