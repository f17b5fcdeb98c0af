//! Questions about oneself, answered in the shapes that the stock UI and `percli` read.

use std::time::UNIX_EPOCH;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Catalog, nonsense, to_bytes};
use crate::access::{Grant, Listing, Resource, Right, Verb};
use crate::names::Namespace;
use crate::refusal::Refusal;
use crate::reply::Reply;
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
    /// `/-/whoami`
    pub(super) async fn whoami(&self, grant: &Grant) -> Result<Reply, Refusal> {
        let caller = grant.caller();
        let metrics = self.access.namespaces(caller, Listing::Metrics).await?;
        let projects = self.access.namespaces(caller, Listing::Projects).await?;
        let names = |names: &[Namespace]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let until = caller.until().and_then(|until| until.duration_since(UNIX_EPOCH).ok());
        let body = json!({
            "user": caller.identity().username,
            "groups": caller.identity().groups,
            "authenticated_by": caller.how().word(),
            "until": until.map(|until| until.as_secs()),
            "metrics": { "everywhere": metrics.everywhere(), "namespaces": names(metrics.names()) },
            "projects": { "everywhere": projects.everywhere(), "namespaces": names(projects.names()) },
        });
        Ok(Reply::json(StatusCode::OK, to_bytes(&body)?))
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
