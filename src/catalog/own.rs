//! Questions about oneself, answered in the shapes that the stock UI and `percli` read.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Catalog, nonsense, to_bytes};
use crate::access::{Caller, Grant, Listing, Resource, Right, Verb};
use crate::document::{self, Told};
use crate::names::Namespace;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::route::Open;
use crate::upstream::PersesAnswer;

const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Perses' words for what may be done, and the verbs of a review that stand for them.
const ACTIONS: [(&str, Verb); 4] =
    [("read", Verb::Get), ("create", Verb::Create), ("update", Verb::Patch), ("delete", Verb::Delete)];

/// Perses' words for kinds in a project, and the resource that stands for them.
const SCOPES: [(&str, Resource); 6] = [
    ("Dashboard", Resource::Dashboards),
    ("EphemeralDashboard", Resource::Dashboards),
    ("Folder", Resource::Dashboards),
    ("Variable", Resource::Dashboards),
    ("Datasource", Resource::Datasources),
    ("Secret", Resource::Secrets),
];

/// The same for global kinds.
const GLOBAL_SCOPES: [(&str, Resource); 3] = [
    ("GlobalDatasource", Resource::GlobalDatasources),
    ("GlobalVariable", Resource::Dashboards),
    ("GlobalSecret", Resource::Secrets),
];

/// Where the UI tells people to go.
pub struct Places {
    /// The page of what runs, where workloads are looked for.
    pub gallery: Option<String>,
    /// The page about oneself.
    pub profile: String,
    /// The page that ends a session, for those who have one.
    pub logout: Option<String>,
    /// `login.contact`
    pub contact: String,
}

/// Whom to ask for rights.
#[must_use]
pub fn whom(contact: &str) -> &str {
    if contact.is_empty() { "an administrator of your project" } else { contact }
}

/// One line of Markdown for the UI's home page: it has no entry of its own for a session that is not Perses'.
fn greeting(name: &str, places: &Places) -> String {
    let mut line = format!("Logged in as **{}**", plain(name));
    if let Some(gallery) = &places.gallery {
        line.push_str(&format!(" · [what runs]({gallery})"));
    }
    line.push_str(&format!(" · [profile]({})", places.profile));
    if let Some(logout) = &places.logout {
        line.push_str(&format!(" · [log out]({logout})"));
    }
    line
}

/// Text that Markdown and HTML leave as it is.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars().filter(|character| !character.is_control()) {
        match character {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            other => {
                if other.is_ascii_punctuation() {
                    out.push('\\');
                }
                out.push(other);
            }
        }
    }
    out
}

/// Perses' health, in our words.
pub(super) fn health(answer: &PersesAnswer) -> Result<Reply, Refusal> {
    #[derive(Deserialize)]
    struct Health {
        #[serde(default)]
        version: String,
        #[serde(default)]
        database: bool,
    }
    let health: Health = serde_json::from_slice(&answer.body).map_err(nonsense)?;
    let body = json!({ "buildTime": "", "version": health.version, "commit": "", "database": health.database });
    Ok(Reply::json(StatusCode::OK, to_bytes(&body)?))
}

/// Who the stock UI greets.
pub(super) fn user_whoami(grant: &Grant) -> Result<Reply, Refusal> {
    let body = json!({
        "kind": "User",
        "metadata": {
            "name": grant.caller().identity().username,
            "createdAt": ZERO_TIME,
            "updatedAt": ZERO_TIME,
            "version": 0,
        },
        "spec": {},
    });
    Ok(Reply::json(StatusCode::OK, to_bytes(&body)?))
}

impl Catalog {
    /// `/-/whoami`: who, how, where, and until when.
    ///
    /// # Errors
    /// 503 when the cluster gives no verdict.
    pub async fn whoami(&self, grant: &Grant, until: Option<SystemTime>) -> Result<Value, Refusal> {
        let caller = grant.caller();
        let metrics = self.access.namespaces(caller, Listing::Metrics).await?;
        let projects = self.access.namespaces(caller, Listing::Projects).await?;
        let names = |names: &[Namespace]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let until = until.and_then(|until| until.duration_since(UNIX_EPOCH).ok());
        Ok(json!({
            "user": caller.identity().username,
            "groups": caller.identity().groups,
            "authenticated_by": caller.how().word(),
            "until": until.map(|until| until.as_secs()),
            "metrics": { "everywhere": metrics.everywhere(), "namespaces": names(metrics.names()) },
            "projects": { "everywhere": projects.everywhere(), "namespaces": names(projects.names()) },
        }))
    }

    /// `/api/config`: what the stock UI is made of, and for somebody who is known, what it should tell them.
    ///
    /// # Errors
    /// 502 and 504 when Perses does not answer.
    pub async fn config(&self, caller: Option<&Arc<Caller>>, places: &Places) -> Result<Reply, Refusal> {
        let answer = self.perses.ask_open(&Open::Config).await?;
        let mut told = Told::default();
        if let Some(caller) = caller {
            // What cannot be found out now is as without a caller: the UI offers what a save then decides.
            told.readonly = matches!(self.writes_somewhere(caller).await, Ok(false));
            told.information = Some(greeting(&caller.identity().username, places));
            if told.readonly && self.access.namespaces(caller, Listing::Projects).await.is_ok_and(|set| set.is_empty())
            {
                told.banner = Some(format!(
                    "You may not see any project yet. Ask {} for the role \"view\" or \"edit\" in a namespace.",
                    whom(&places.contact)
                ));
            }
        }
        let body = document::minimal_config(&answer.body, &told).map_err(nonsense)?;
        Ok(Reply::json(StatusCode::OK, body))
    }

    /// Whether somebody may change anything anywhere.
    async fn writes_somewhere(&self, caller: &Arc<Caller>) -> Result<bool, Refusal> {
        let projects = self.access.namespaces(caller, Listing::Projects).await?;
        for namespace in std::iter::once(None).chain(projects.names().iter().map(Some)) {
            for resource in [Resource::Dashboards, Resource::Datasources] {
                for verb in [Verb::Patch, Verb::Create] {
                    let right = Right::Held { verb, resource, namespace: namespace.cloned() };
                    if self.access.holds(caller, right).await? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// The map from which the stock UI decides which buttons to show.
    pub(super) async fn permissions(&self, grant: &Grant) -> Result<Reply, Refusal> {
        let caller = grant.caller();
        let mut everywhere = Vec::new();
        for (scope, resource) in SCOPES.iter().chain(&GLOBAL_SCOPES) {
            let actions = self.actions(grant, *resource, None).await?;
            if !actions.is_empty() {
                everywhere.push(json!({ "actions": actions, "scopes": [scope] }));
            }
        }
        let projects = self.access.namespaces(caller, Listing::Projects).await?;
        let mut map = Map::new();
        if !everywhere.is_empty() {
            map.insert("*".to_owned(), Value::Array(everywhere));
        }
        for namespace in projects.names() {
            let mut here = Vec::new();
            for (scope, resource) in &SCOPES {
                let actions = self.actions(grant, *resource, Some(namespace)).await?;
                if !actions.is_empty() {
                    here.push(json!({ "actions": actions, "scopes": [scope] }));
                }
            }
            if !here.is_empty() {
                map.insert(namespace.to_string(), Value::Array(here));
            }
        }
        Ok(Reply::json(StatusCode::OK, to_bytes(&Value::Object(map))?))
    }

    async fn actions(
        &self,
        grant: &Grant,
        resource: Resource,
        namespace: Option<&Namespace>,
    ) -> Result<Vec<&'static str>, Refusal> {
        let mut actions = Vec::new();
        for (action, verb) in ACTIONS {
            let right = Right::Held { verb, resource, namespace: namespace.cloned() };
            if self.access.holds(grant.caller(), right).await? {
                actions.push(action);
            }
        }
        Ok(actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_in_markdown_too() {
        let places = Places {
            gallery: Some("/-/gallery".to_owned()),
            profile: "/-/whoami".to_owned(),
            logout: Some("/-/logout".to_owned()),
            contact: String::new(),
        };
        assert_eq!(
            greeting("kube:admin", &places),
            "Logged in as **kube\\:admin** · [what runs](/-/gallery) · [profile](/-/whoami) · [log out](/-/logout)"
        );
        let hostile = greeting("[x](javascript:alert(1))<img src=x>\n# a", &Places { logout: None, ..places });
        assert!(!hostile.contains("](javascript") && !hostile.contains("<img") && !hostile.contains('\n'), "{hostile}");
        assert_eq!((whom(""), whom("#platform")), ("an administrator of your project", "#platform"));
    }
}
