//! The Perses resource: its operator is a client of Perses, and must send a token once a sidecar stands before it.

use serde_json::{Value, json};

use super::asked::PREFIX;
use super::patch;
use super::profile::Profiles;

/// What became of a Perses resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HookOutcome {
    /// Operations, perhaps none (RFC 6902).
    pub patch: Vec<Value>,
    /// What its owner should know.
    pub warnings: Vec<String>,
}

/// Lets the operator of an annotated Perses send its own token, and gives the pod a service account, where nothing else is
/// said.
#[must_use]
pub fn hook(perses: &Value, profiles: &Profiles) -> HookOutcome {
    let key = format!("{PREFIX}inject");
    let of = |place: &str| perses.pointer(place).and_then(|map| map.get(&key)).and_then(Value::as_str);
    let Some(wish) = of("/spec/metadata/annotations") else {
        let mut outcome = HookOutcome::default();
        if of("/metadata/annotations").is_some_and(|wish| !wish.eq_ignore_ascii_case("false")) {
            outcome.warnings.push(format!(
                "{key} stands at the resource itself, of which its pod hears nothing: write it into spec.metadata.annotations"
            ));
        }
        return outcome;
    };
    if wish.eq_ignore_ascii_case("false") {
        return HookOutcome::default();
    }
    let profile = profiles.get(wish).unwrap_or_else(|| profiles.default_profile());
    let mut outcome = HookOutcome::default();
    let mut wanted = perses.clone();
    let client = &wanted["spec"]["client"];
    let other = ["basicAuth", "oauth"].iter().find(|kind| client.get(**kind).is_some_and(|value| !value.is_null()));
    if let Some(kind) = other {
        outcome.warnings.push(format!(
            "spec.client.{kind} is set, which the sidecar does not take: use spec.client.kubernetesAuth.enable: true"
        ));
    } else if client.pointer("/kubernetesAuth/enable") == Some(&json!(false)) {
        outcome.warnings.push("spec.client.kubernetesAuth.enable is false, so the operator will be refused".to_owned());
    } else {
        for step in ["client", "kubernetesAuth"] {
            let parent = if step == "client" { &mut wanted["spec"] } else { &mut wanted["spec"]["client"] };
            if !parent[step].is_object() {
                parent[step] = json!({});
            }
        }
        wanted["spec"]["client"]["kubernetesAuth"]["enable"] = json!(true);
    }
    if let Some(account) = &profile.service_account
        && wanted["spec"].get("serviceAccountName").is_none_or(|name| name.is_null() || name == "")
    {
        wanted["spec"]["serviceAccountName"] = json!(account);
    }
    outcome.patch = patch::between(perses, &wanted);
    outcome
}
