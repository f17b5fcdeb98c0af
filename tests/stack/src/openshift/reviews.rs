//! May they? Asked about others by whom is trusted with that, in one namespace, about oneself, and in OpenShift's older
//! words.

use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use super::State;
use super::rbac::{Asked, Who};
use super::serve::{object, reply, status};

const KUBERNETES: &str = "/apis/authorization.k8s.io/v1/";
const OLDER: &str = "/apis/authorization.openshift.io/v1/";
const SCOPES: &str = "scopes.authorization.openshift.io";

/// One of the ways to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Review {
    /// About anybody, anywhere.
    Subject,
    /// About anybody, in this namespace.
    Local(String),
    /// About oneself.
    Own,
    /// All that one may do in a namespace.
    Rules,
    /// As before there was anything else: about oneself if nobody is named, in this namespace if there is one.
    Older(Option<String>),
}

impl Review {
    pub(super) fn read(path: &str) -> Option<Self> {
        if let Some(rest) = path.strip_prefix(KUBERNETES) {
            return match rest {
                "subjectaccessreviews" => Some(Self::Subject),
                "selfsubjectaccessreviews" => Some(Self::Own),
                "selfsubjectrulesreviews" => Some(Self::Rules),
                rest => local(rest).map(Self::Local),
            };
        }
        match path.strip_prefix(OLDER)? {
            "subjectaccessreviews" => Some(Self::Older(None)),
            rest => local(rest).map(|namespace| Self::Older(Some(namespace))),
        }
    }
}

fn local(rest: &str) -> Option<String> {
    let namespace = rest.strip_prefix("namespaces/")?.strip_suffix("/localsubjectaccessreviews")?;
    (!namespace.contains('/')).then(|| namespace.to_owned())
}

fn strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The question of a `spec`, or what is wrong with it.
fn question(spec: &Value) -> Result<Asked, &'static str> {
    if spec.get("resourceAttributes").is_some() == spec.get("nonResourceAttributes").is_some() {
        return Err("exactly one of nonResourceAttributes or resourceAttributes must be specified");
    }
    if let Some(path) = spec["nonResourceAttributes"]["path"].as_str() {
        let verb = text(&spec["nonResourceAttributes"]["verb"]);
        return Ok(Asked { path: Some(path.to_owned()), verb, ..Asked::default() });
    }
    let part = |key: &str| text(&spec["resourceAttributes"][key]);
    let (resource, subresource) = (part("resource"), part("subresource"));
    let resource = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
    Ok(Asked {
        namespace: part("namespace"),
        verb: part("verb"),
        group: part("group"),
        resource,
        name: part("name"),
        path: None,
    })
}

fn may(state: &State, caller: &Who, group: &str, resource: &str, namespace: &str) -> bool {
    let asked = Asked {
        namespace: namespace.to_owned(),
        verb: "create".to_owned(),
        group: group.to_owned(),
        resource: resource.to_owned(),
        ..Asked::default()
    };
    state.rbac.allows(caller, &asked)
}

/// Everybody may ask about themselves, with a token whose scopes reach there.
fn in_scope(caller: &Who) -> bool {
    let enough = |scope: &String| scope == "user:full" || scope == "user:check-access";
    caller.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(enough))
}

pub(super) fn answer(
    state: &State,
    review: &Review,
    caller: &Who,
    body: &[u8],
    contradiction: bool,
) -> Response<Full<bytes::Bytes>> {
    let group = "authorization.k8s.io";
    let allowed = match review {
        Review::Subject => may(state, caller, group, "subjectaccessreviews", ""),
        Review::Local(namespace) => may(state, caller, group, "localsubjectaccessreviews", namespace),
        Review::Own => in_scope(caller),
        // The small scopes reach the older rules review alone.
        Review::Rules => caller.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(|scope| scope == "user:full")),
        // Looked at below: whom it is about decides.
        Review::Older(_) => true,
    };
    if !allowed {
        return status(403, "forbidden");
    }
    let Some(mut asked) = object(body) else { return status(400, "no JSON object") };
    match review {
        Review::Rules => rules(state, caller, asked),
        Review::Older(namespace) => older(state, caller, namespace.as_deref(), &asked),
        Review::Subject | Review::Local(_) | Review::Own => {
            let spec = &asked["spec"];
            let what = match question(spec) {
                Ok(what) => what,
                Err(wrong) => return status(422, wrong),
            };
            if let Review::Local(namespace) = review {
                if what.path.is_some() || what.namespace != *namespace {
                    return status(422, "spec.resourceAttributes.namespace: must match metadata.namespace");
                }
                asked["metadata"]["namespace"] = json!(namespace);
            }
            let spec = &asked["spec"];
            let who = if *review == Review::Own {
                caller.clone()
            } else {
                let scopes = spec["extra"].get(SCOPES).map(strings);
                Who { user: text(&spec["user"]), groups: strings(&spec["groups"]), scopes }
            };
            if who.user.is_empty() && who.groups.is_empty() {
                return status(422, "at least one of user or group must be specified");
            }
            let allowed = state.rbac.allows(&who, &what);
            asked["status"] = if contradiction {
                json!({ "allowed": true, "denied": true })
            } else {
                json!({ "allowed": allowed, "reason": if allowed { "RBAC: allowed" } else { "" } })
            };
            reply(201, asked.to_string())
        }
    }
}

fn rules(state: &State, caller: &Who, mut asked: Value) -> Response<Full<bytes::Bytes>> {
    let namespace = text(&asked["spec"]["namespace"]);
    if namespace.is_empty() {
        return status(400, "no namespace on request");
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in state.rbac.held(caller, &namespace) {
        if !rule.resources.is_empty() {
            let names = if rule.names.is_empty() { Value::Null } else { json!(rule.names) };
            let mut told = json!({ "verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources });
            if !names.is_null() {
                told["resourceNames"] = names;
            }
            resources.push(told);
        }
        if !rule.paths.is_empty() {
            paths.push(json!({ "verbs": rule.verbs, "nonResourceURLs": rule.paths }));
        }
    }
    asked["status"] = json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false });
    reply(201, asked.to_string())
}

/// `scopes: null` cuts the rights of whoever asks about themselves by their token's scopes, `[]` by nothing, and others
/// by these.
fn older(state: &State, caller: &Who, namespace: Option<&str>, asked: &Value) -> Response<Full<bytes::Bytes>> {
    let (user, groups) = (text(&asked["user"]), strings(&asked["groups"]));
    let own = user.is_empty() && groups.is_empty();
    let place = namespace.map_or_else(|| text(&asked["namespace"]), str::to_owned);
    let resource = if namespace.is_some() { "localsubjectaccessreviews" } else { "subjectaccessreviews" };
    let allowed = if own {
        in_scope(caller)
    } else {
        may(state, caller, "authorization.openshift.io", resource, namespace.unwrap_or_default())
    };
    if !allowed {
        return status(403, "forbidden");
    }
    if text(&asked["verb"]).is_empty() {
        return status(422, "verb: Required value");
    }
    let given = asked.get("scopes").filter(|scopes| !scopes.is_null()).map(strings);
    let who = if own {
        let scopes = match given {
            None => caller.scopes.clone(),
            Some(scopes) => Some(scopes).filter(|scopes| !scopes.is_empty()),
        };
        Who { scopes, ..caller.clone() }
    } else {
        Who { user, groups, scopes: given.filter(|scopes| !scopes.is_empty()) }
    };
    let what = Asked {
        namespace: place.clone(),
        verb: text(&asked["verb"]),
        group: text(&asked["resourceAPIGroup"]),
        resource: text(&asked["resource"]),
        name: text(&asked["resourceName"]),
        path: asked["isNonResourceURL"].as_bool().filter(|is| *is).map(|_| text(&asked["path"])),
    };
    let allowed = state.rbac.allows(&who, &what);
    let answer = json!({ "kind": "SubjectAccessReviewResponse", "apiVersion": "authorization.openshift.io/v1",
        "namespace": place, "allowed": allowed, "reason": if allowed { "RBAC: allowed" } else { "" } });
    reply(201, answer.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_ask() {
        for (path, review) in [
            ("/apis/authorization.k8s.io/v1/subjectaccessreviews", Some(Review::Subject)),
            ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", Some(Review::Own)),
            ("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", Some(Review::Rules)),
            (
                "/apis/authorization.k8s.io/v1/namespaces/a/localsubjectaccessreviews",
                Some(Review::Local("a".to_owned())),
            ),
            ("/apis/authorization.openshift.io/v1/subjectaccessreviews", Some(Review::Older(None))),
            (
                "/apis/authorization.openshift.io/v1/namespaces/a/localsubjectaccessreviews",
                Some(Review::Older(Some("a".to_owned()))),
            ),
            ("/apis/authorization.k8s.io/v1/namespaces/a/b/localsubjectaccessreviews", None),
            ("/apis/authorization.k8s.io/v1beta1/subjectaccessreviews", None),
        ] {
            assert_eq!(Review::read(path), review, "{path}");
        }
    }
}
