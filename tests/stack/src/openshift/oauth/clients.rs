//! Who may ask for codes, where they may be sent, and for what.

use serde_json::Value;

use super::super::State;
use super::Grant;

const REDIRECT: &str = "serviceaccounts.openshift.io/oauth-redirecturi.";
const REFERENCE: &str = "serviceaccounts.openshift.io/oauth-redirectreference.";

/// A client that an administrator made.
#[derive(Clone, Debug, Default)]
pub struct OAuthClient {
    /// What it proves itself with.
    pub secret: String,
    /// Where codes may be sent.
    pub redirect_uris: Vec<String>,
    /// What it may have without asking the person.
    pub grant: Grant,
    /// Seconds that its tokens live; the server's own rule if there is none.
    pub lifetime: Option<u64>,
}

/// A route that a service account's annotation may point at.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its host.
    pub host: String,
    /// Its path.
    pub path: String,
    /// Whether it is TLS.
    pub tls: bool,
    /// Whether a router serves it.
    pub admitted: bool,
}

/// A client as the server sees it.
pub(super) struct Client {
    pub(super) redirect_uris: Vec<String>,
    pub(super) grant: Grant,
    pub(super) lifetime: Option<u64>,
    /// The namespace, when it is a service account.
    pub(super) account: Option<String>,
}

pub(super) fn find(state: &State, id: &str) -> Option<Client> {
    if let Some(client) = state.oauth.clients.get(id) {
        return Some(Client {
            redirect_uris: client.redirect_uris.clone(),
            grant: client.grant,
            lifetime: client.lifetime.or(state.oauth.lifetime),
            account: None,
        });
    }
    let (namespace, _) = id.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    state.groups.get(id)?;
    let redirect_uris = redirects(state, namespace, id);
    (!redirect_uris.is_empty()).then(|| Client {
        redirect_uris,
        grant: state.oauth.grant,
        lifetime: state.oauth.lifetime,
        account: Some(namespace.to_owned()),
    })
}

/// What a service account's annotations amount to: literal addresses, and routes, whose path a literal of the same
/// suffix replaces.
fn redirects(state: &State, namespace: &str, id: &str) -> Vec<String> {
    let Some(annotations) = state.oauth.annotations.get(id) else { return Vec::new() };
    let mut uris = Vec::new();
    for (key, text) in annotations {
        if let Some(suffix) = key.strip_prefix(REFERENCE) {
            let path = annotations.get(&format!("{REDIRECT}{suffix}")).filter(|literal| literal.starts_with('/'));
            uris.extend(route(state, namespace, text, path.map(String::as_str)));
        } else if key.starts_with(REDIRECT) && text.contains("://") {
            uris.push(text.clone());
        }
    }
    uris
}

fn route(state: &State, namespace: &str, reference: &str, path: Option<&str>) -> Option<String> {
    let reference: Value = serde_json::from_str(reference).ok()?;
    let reference = reference.get("reference")?;
    (reference["kind"] == "Route").then_some(())?;
    let name = reference["name"].as_str()?;
    let route = state.oauth.routes.get(&(namespace.to_owned(), name.to_owned()))?;
    let scheme = if route.tls { "https" } else { "http" };
    route.admitted.then(|| format!("{scheme}://{}{}", route.host, path.unwrap_or(&route.path)))
}

struct Address<'u> {
    scheme: &'u str,
    authority: &'u str,
    path: &'u str,
}

fn address(url: &str) -> Option<Address<'_>> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let path = rest.split('?').next().unwrap_or_default();
    (!url.contains('#') && !authority.contains('@') && !authority.is_empty()).then_some(Address {
        scheme,
        authority,
        path: if path.is_empty() { "/" } else { path },
    })
}

/// Same scheme and host, and the same path or one below it. Plain HTTP on the loopback may use any port.
pub(super) fn may_be_sent_to(registered: &str, asked: &str) -> bool {
    let (Some(registered), Some(asked)) = (address(registered), address(asked)) else { return false };
    let host = |authority: &str| authority.rsplit_once(':').map_or(authority, |(host, _)| host).to_owned();
    let own = |host: &str| matches!(host, "127.0.0.1" | "localhost" | "[::1]");
    let loopback = registered.scheme == "http" && own(&host(registered.authority));
    let same = if loopback {
        host(registered.authority) == host(asked.authority)
    } else {
        registered.authority == asked.authority
    };
    let folder = format!("{}/", registered.path.trim_end_matches('/'));
    let climbs = asked.path.split('/').any(|segment| matches!(segment, "." | ".."));
    registered.scheme == asked.scheme
        && same
        && !climbs
        && (asked.path == registered.path || asked.path.starts_with(&folder))
}

/// Whether a scope exists at all.
pub(super) fn is_scope(scope: &str) -> bool {
    let known = ["user:info", "user:check-access", "user:list-projects", "user:list-scoped-projects", "user:full"];
    known.contains(&scope) || role(scope).is_some()
}

/// `role:<cluster role>:<namespace>`, or with `:!` behind it; gives the namespace.
fn role(scope: &str) -> Option<&str> {
    let parts: Vec<&str> = scope.strip_prefix("role:")?.split(':').collect();
    match parts[..] {
        [role, namespace] | [role, namespace, "!"] if !role.is_empty() && !namespace.is_empty() => Some(namespace),
        _ => None,
    }
}

impl Client {
    /// A service account may not ask for everything.
    pub(super) fn may_ask_for(&self, scope: &str) -> bool {
        let Some(own) = &self.account else { return true };
        match role(scope) {
            Some(namespace) => namespace == own,
            None => scope != "user:full",
        }
    }
}
