//! What people ask the API about themselves: who they are, what they may do, their tokens.

use http::{Method, Response};
use http_body_util::Full;
use serde_json::{Value, json};

use super::rbac::{Asked, Who};
use super::serve::{object, reply, status, uid};
use super::{Endpoint, State, Token};
use crate::encoding::digest;

const OAUTH: &str = "/apis/oauth.openshift.io/v1/";

/// The place of a request in this API, if it is one of these.
pub(super) fn endpoint(method: &Method, path: &str) -> Option<Endpoint> {
    match (method.as_str(), path) {
        ("GET", "/apis/user.openshift.io/v1/users/~") => Some(Endpoint::Users),
        ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews") => Some(Endpoint::SelfReviews),
        ("GET" | "DELETE", path) => {
            let kind = path.strip_prefix(OAUTH)?.split('/').next()?;
            matches!(kind, "oauthaccesstokens" | "useroauthaccesstokens").then_some(Endpoint::AccessTokens)
        }
        _ => None,
    }
}

/// The object's name of a token: a digest of what stands behind its prefix, so that the name is no secret.
pub(super) fn name(token: &str) -> String {
    format!("sha256~{}", digest(token.strip_prefix("sha256~").unwrap_or(token)))
}

pub(super) fn answer(
    state: &mut State,
    endpoint: Endpoint,
    caller: &Who,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Response<Full<bytes::Bytes>> {
    match endpoint {
        Endpoint::Users => users(state, caller),
        Endpoint::SelfReviews => self_review(caller, body),
        _ => tokens(state, caller, method, path.strip_prefix(OAUTH).unwrap_or_default()),
    }
}

fn scoped(caller: &Who, enough: &[&str]) -> bool {
    caller.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(|scope| enough.contains(&scope.as_str())))
}

fn users(state: &State, caller: &Who) -> Response<Full<bytes::Bytes>> {
    if !scoped(caller, &["user:full", "user:info"]) {
        return status(403, "scopes prevent this action");
    }
    let mut metadata = json!({ "name": caller.user });
    if let Some(uid) = uid(&caller.user) {
        metadata["uid"] = json!(uid);
    }
    let mut groups = state.groups.get(&caller.user).cloned().unwrap_or_default();
    groups.extend(caller.groups.iter().filter(|group| group.starts_with("system:authenticated")).cloned());
    groups.sort();
    reply(
        200,
        json!({ "kind": "User", "apiVersion": "user.openshift.io/v1", "metadata": metadata, "groups": groups })
            .to_string(),
    )
}

fn self_review(caller: &Who, body: &[u8]) -> Response<Full<bytes::Bytes>> {
    let Some(mut review) = object(body) else { return status(400, "no JSON object") };
    // The scope of a small token does not reach here.
    if !scoped(caller, &["user:full"]) {
        return status(403, "scopes prevent this action");
    }
    review["status"] = json!({ "userInfo": { "username": caller.user, "groups": caller.groups } });
    reply(201, review.to_string())
}

fn described(text: &str, token: &Token) -> Value {
    json!({ "metadata": { "name": name(text) }, "clientName": token.client, "userName": token.user, "scopes": token.scopes })
}

/// `oauthaccesstokens/NAME` may be deleted by whom RBAC lets; of `useroauthaccesstokens` one sees and deletes one's own.
fn tokens(state: &mut State, caller: &Who, method: &Method, path: &str) -> Response<Full<bytes::Bytes>> {
    let (kind, wanted) = path.split_once('/').unwrap_or((path, ""));
    let own = kind == "useroauthaccesstokens";
    let asked = Asked {
        verb: if method == Method::DELETE { "delete" } else { "get" }.to_owned(),
        group: "oauth.openshift.io".to_owned(),
        resource: kind.to_owned(),
        name: wanted.to_owned(),
        ..Asked::default()
    };
    if !(state.rbac.allows(caller, &asked) || own && scoped(caller, &["user:full"])) {
        return status(403, "forbidden");
    }
    let visible = |token: &Token| !own || token.user == caller.user;
    if wanted.is_empty() {
        let items: Vec<Value> = state
            .tokens
            .iter()
            .filter(|(text, token)| text.starts_with("sha256~") && visible(token))
            .map(|(text, token)| described(text, token))
            .collect();
        return match *method {
            Method::GET => reply(200, json!({ "kind": "List", "items": items }).to_string()),
            _ => status(405, "deletecollection is not served here"),
        };
    }
    let found = state.tokens.iter().find(|(text, token)| visible(token) && name(text) == wanted);
    let Some((text, described)) = found.map(|(text, token)| (text.clone(), described(text, token))) else {
        return status(404, &format!("{kind} \"{wanted}\" not found"));
    };
    if *method == Method::DELETE {
        state.tokens.remove(&text);
        return reply(200, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }).to_string());
    }
    reply(200, described.to_string())
}
