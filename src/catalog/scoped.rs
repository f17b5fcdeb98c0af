//! Kinds that live in projects: lists over all of them or one, single objects, writes.

use std::collections::HashSet;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;

use super::rendered::{self, Standing, is_down, without_perses};
use super::{Brought, Catalog, Effect, nonsense, pass, pass_document, refuse_document, to_bytes};
use crate::access::{Grant, Granted, Listing, PersesCall, Scope};
use crate::document::{self, Entry, Kind, Object};
use crate::names::{Namespace, ObjectName};
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::route::{ListQuery, Project, Scoped, ScopedCall};
use crate::upstream::PersesAnswer;

const fn kind_of(kind: Scoped) -> Kind {
    match kind {
        Scoped::Dashboards => Kind::Dashboard,
        Scoped::Datasources => Kind::Datasource,
        Scoped::EphemeralDashboards => Kind::EphemeralDashboard,
        Scoped::Folders => Kind::Folder,
        Scoped::Secrets => Kind::Secret,
        Scoped::Variables => Kind::Variable,
    }
}

impl Catalog {
    pub(super) async fn scoped(
        &self,
        grant: Grant,
        kind: Scoped,
        call: &ScopedCall,
        brought: &Brought<'_>,
    ) -> Result<Reply, Refusal> {
        match call {
            ScopedCall::ListAll(query) => self.list_all(&grant, kind, query).await,
            ScopedCall::List(project, query) => self.list_one(&grant, kind, project, query).await,
            ScopedCall::Read(project, name) => {
                let rendered = || if kind == Scoped::Dashboards { self.rendered_in(project, name) } else { None };
                let answer = match self.perses.ask(grant.request(Bytes::new())?).await {
                    Ok(answer) => answer,
                    Err(refusal) if is_down(&refusal) => {
                        let found = rendered().ok_or(refusal)?;
                        return Ok(without_perses(rendered::one(&found)));
                    }
                    Err(refusal) => return Err(refusal),
                };
                if is_missing(answer.status)
                    && let Some(found) = rendered()
                {
                    return Ok(rendered::one(&found));
                }
                if answer.status == StatusCode::BAD_REQUEST && !self.is_stored(&grant).await? {
                    return Err(Refusal::new(Reason::NotFound, "document not found"));
                }
                pass_document(answer)
            }
            ScopedCall::CreateAnywhere => {
                let object = Object::read(&brought.body, kind_of(kind)).map_err(|error| refuse_document(&error))?;
                let project = object.project().and_then(Project::parse).ok_or_else(|| {
                    Refusal::new(Reason::MalformedBody, "bad request: metadata.project must be the name of a project")
                })?;
                brought.names(Some(&project), object.name().and_then(ObjectName::parse).as_ref());
                let grant = grant.settle(&self.access, project.clone()).await?;
                self.create(&grant, &project, object, brought).await
            }
            ScopedCall::Create(project) => {
                let object = Object::read(&brought.body, kind_of(kind)).map_err(|error| refuse_document(&error))?;
                self.create(&grant, project, object, brought).await
            }
            ScopedCall::Update(project, name) => {
                let mut object = Object::read(&brought.body, kind_of(kind)).map_err(|error| refuse_document(&error))?;
                object.settle(Some(project.name()), name).map_err(|error| refuse_document(&error))?;
                object.check_write(&|url| (brought.knows)(url)).map_err(|error| refuse_document(&error))?;
                // What readers are not sent stays as it is when they save.
                if let Some(stored) = grant.stored() {
                    let stored = self.perses.ask(stored).await?;
                    if kind == Scoped::Dashboards
                        && is_missing(stored.status)
                        && self.rendered_in(project, name).is_some()
                    {
                        return self.store_rendered(&grant, project, object.into_bytes().into(), brought).await;
                    }
                    if stored.status == StatusCode::OK && document::may_need_strip(&stored.body) {
                        let stored: Value = serde_json::from_slice(&stored.body).map_err(nonsense)?;
                        object.keep_hidden(&stored);
                    }
                }
                pass_document(self.perses.ask(grant.request(object.into_bytes().into())?).await?)
            }
            ScopedCall::Delete(project, name) => {
                // What stands there is looked at first: who deletes blindly takes away what somebody else has hidden just now.
                let standing = match kind {
                    Scoped::Dashboards => self.standing(&grant, project, name).await?,
                    _ => Standing::NotOurs,
                };
                if standing == Standing::Hidden {
                    return Ok(Reply::empty(StatusCode::NO_CONTENT));
                }
                if standing == Standing::Rendered
                    && let Some(reply) = self.hide_rendered(&grant, project, name, brought).await?
                {
                    return Ok(reply);
                }
                let answer = self.perses.ask(grant.request(Bytes::new())?).await?;
                if standing == Standing::Saved && answer.status.is_success() {
                    brought.effect(Effect::Restored);
                }
                pass(answer)
            }
        }
    }

    pub(super) async fn create(
        &self,
        grant: &Grant,
        project: &Project,
        mut object: Object,
        brought: &Brought<'_>,
    ) -> Result<Reply, Refusal> {
        let name = object
            .name()
            .and_then(ObjectName::parse)
            .ok_or_else(|| Refusal::new(Reason::MalformedBody, "bad request: metadata.name must be a name"))?;
        brought.names(Some(project), Some(&name));
        object.settle(Some(project.name()), &name).map_err(|error| refuse_document(&error))?;
        object.check_write(&|url| (brought.knows)(url)).map_err(|error| refuse_document(&error))?;
        self.ensure_project(grant, project).await?;
        pass_document(self.perses.ask(grant.request(object.into_bytes().into())?).await?)
    }

    /// Makes the project of a namespace exist in Perses before the first thing is written to it.
    pub(super) async fn ensure_project(&self, grant: &Grant, project: &Project) -> Result<(), Refusal> {
        if self.is_stored(grant).await? {
            return Ok(());
        }
        // A project for a namespace that does not exist yet would wait there for whoever creates the namespace.
        let namespaces = self.access.namespaces(grant.caller(), Listing::Projects).await?;
        let namespace = Namespace::parse(project.as_str())
            .filter(|namespace| namespaces.contains(namespace.as_str()))
            .ok_or_else(Refusal::hidden)?;
        let body = to_bytes(&document::virtual_project(&namespace))?;
        let Some(call) = grant.own_project(Method::POST, body) else {
            return Err(Refusal::internal("a write without a project"));
        };
        let answer = self.perses.ask(call).await?;
        // Somebody else may have been quicker.
        if answer.status.is_success() || answer.status == StatusCode::CONFLICT {
            Ok(())
        } else {
            pass(answer).map(|_| ())
        }
    }

    /// Whether Perses has the project of the route.
    async fn is_stored(&self, grant: &Grant) -> Result<bool, Refusal> {
        let Some(call) = grant.own_project(Method::GET, Bytes::new()) else { return Ok(false) };
        Ok(self.perses.ask(call).await?.status == StatusCode::OK)
    }

    async fn list_one(
        &self,
        grant: &Grant,
        kind: Scoped,
        project: &Project,
        query: &ListQuery,
    ) -> Result<Reply, Refusal> {
        let namespace = match kind {
            Scoped::Dashboards => rendered::Rendered::namespace(&self.access, project),
            _ => None,
        };
        let namespaces = namespace.as_slice();
        let answer = match self.asked(grant.request(Bytes::new())?, namespaces, query).await {
            Ok(answer) => answer,
            Err(instead) => return instead,
        };
        if answer.status == StatusCode::BAD_REQUEST && !self.is_stored(grant).await? {
            // A namespace that Perses does not know yet is an empty project.
            let rendered = self.rendered_of(namespaces, query, &Stored::new());
            return Ok(rendered::list(Listed::default(), rendered, query));
        }
        if answer.status != StatusCode::OK {
            return pass(answer);
        }
        // The project was asked for by name; what is not of it does not pass all the same.
        let stored = filter(&answer.body, |entry| entry.project.as_deref() == Some(project.as_str()))?;
        let rendered = self.rendered_of(namespaces, query, &stored.names);
        Ok(rendered::list(stored, rendered, query))
    }

    async fn list_all(&self, grant: &Grant, kind: Scoped, query: &ListQuery) -> Result<Reply, Refusal> {
        let Scope::Listed(namespaces) = grant.scope() else {
            return Err(Refusal::internal("a list without namespaces"));
        };
        if namespaces.is_empty() {
            return Ok(Reply::json(StatusCode::OK, &b"[]"[..]));
        }
        let shown = if kind == Scoped::Dashboards { namespaces.names() } else { &[] };
        let answer = match self.asked(grant.request(Bytes::new())?, shown, query).await {
            Ok(answer) => answer,
            Err(instead) => return instead,
        };
        if answer.status != StatusCode::OK {
            return pass(answer);
        }
        let stored = filter(&answer.body, |entry| {
            let Some(project) = entry.project.as_deref().and_then(Project::parse) else { return false };
            namespaces.everywhere()
                || self.access.namespace_of(&project).is_some_and(|namespace| namespaces.contains(namespace.as_str()))
        })?;
        let rendered = self.rendered_of(shown, query, &stored.names);
        Ok(rendered::list(stored, rendered, query))
    }

    /// The list that Perses answers, or what to answer without it.
    async fn asked(
        &self,
        call: Granted<PersesCall>,
        shown: &[Namespace],
        query: &ListQuery,
    ) -> Result<PersesAnswer, Result<Reply, Refusal>> {
        let refusal = match self.lists.ask(call).await {
            Ok(answer) => return Ok(answer),
            Err(refusal) => refusal,
        };
        let rendered = if is_down(&refusal) { self.rendered_of(shown, query, &Stored::new()) } else { Vec::new() };
        if rendered.is_empty() {
            return Err(Err(refusal));
        }
        Err(Ok(without_perses(rendered::list(Listed::default(), rendered, query))))
    }
}

/// Perses has nothing of this name, or not even the project.
pub(super) fn is_missing(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST)
}

/// Names of stored dashboards that could be names of workloads' dashboards, each with its project.
pub(super) type Stored = HashSet<(String, String)>;

/// The entries of a list that pass.
pub(super) struct Listed {
    /// A JSON array that is still open.
    pub(super) text: String,
    pub(super) names: Stored,
}

impl Default for Listed {
    fn default() -> Self {
        Self { text: "[".to_owned(), names: Stored::new() }
    }
}

/// Keeps the entries of a list that pass, in their own bytes unless something must be left out of them.
fn filter(body: &[u8], keep: impl Fn(&Entry<'_>) -> bool) -> Result<Listed, Refusal> {
    let entries = document::list(body).map_err(nonsense)?;
    let strip = document::may_need_strip(body);
    let mut kept = Listed::default();
    for entry in entries.iter().filter(|entry| keep(entry)) {
        if let Some(project) = &entry.project
            && entry.name.starts_with("dashboard-")
        {
            kept.names.insert((project.clone().into_owned(), entry.name.clone().into_owned()));
        }
        if entry.hidden {
            continue;
        }
        if kept.text.len() > 1 {
            kept.text.push(',');
        }
        if strip {
            let mut value: Value = serde_json::from_str(entry.raw.get()).map_err(nonsense)?;
            if document::strip(&mut value) {
                kept.text.push_str(&value.to_string());
                continue;
            }
        }
        kept.text.push_str(entry.raw.get());
    }
    Ok(kept)
}
