//! Kinds that live in projects: lists over all of them or one, single objects, writes.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;

use super::{Brought, Catalog, nonsense, pass, pass_document, refuse_document, to_bytes, write_array};
use crate::access::{Grant, Listing, Scope};
use crate::document::{self, Entry, Kind, Object};
use crate::names::{Namespace, ObjectName};
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::route::{Project, Scoped, ScopedCall};

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
            ScopedCall::ListAll(_) => self.list_all(&grant).await,
            ScopedCall::List(project, _) => self.list_one(&grant, project).await,
            ScopedCall::Read(..) => {
                let answer = self.perses.ask(grant.request(Bytes::new())?).await?;
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
                    if stored.status == StatusCode::OK && document::may_need_strip(&stored.body) {
                        let stored: Value = serde_json::from_slice(&stored.body).map_err(nonsense)?;
                        object.keep_hidden(&stored);
                    }
                }
                pass_document(self.perses.ask(grant.request(object.into_bytes().into())?).await?)
            }
            ScopedCall::Delete(..) => pass(self.perses.ask(grant.request(Bytes::new())?).await?),
        }
    }

    async fn create(
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
    async fn ensure_project(&self, grant: &Grant, project: &Project) -> Result<(), Refusal> {
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
            return Err(Refusal::new(Reason::Internal, "internal error").because("a write without a project"));
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

    async fn list_one(&self, grant: &Grant, project: &Project) -> Result<Reply, Refusal> {
        let answer = self.lists.ask(grant.request(Bytes::new())?).await?;
        if answer.status == StatusCode::BAD_REQUEST && !self.is_stored(grant).await? {
            // A namespace that Perses does not know yet is an empty project.
            return Ok(Reply::json(StatusCode::OK, &b"[]"[..]));
        }
        if answer.status != StatusCode::OK {
            return pass(answer);
        }
        // The project was asked for by name; what is not of it does not pass all the same.
        filter(&answer.body, |entry| entry.project.as_deref() == Some(project.as_str()))
    }

    async fn list_all(&self, grant: &Grant) -> Result<Reply, Refusal> {
        let Scope::Listed(namespaces) = grant.scope() else {
            return Err(Refusal::new(Reason::Internal, "internal error").because("a list without namespaces"));
        };
        if namespaces.is_empty() {
            return Ok(Reply::json(StatusCode::OK, &b"[]"[..]));
        }
        let answer = self.lists.ask(grant.request(Bytes::new())?).await?;
        if answer.status != StatusCode::OK {
            return pass(answer);
        }
        filter(&answer.body, |entry| {
            let Some(project) = entry.project.as_deref().and_then(Project::parse) else { return false };
            namespaces.everywhere()
                || self.access.namespace_of(&project).is_some_and(|namespace| namespaces.contains(namespace.as_str()))
        })
    }
}

/// Keeps the entries of a list that pass, in their own bytes unless something must be left out of them.
pub(super) fn filter(body: &[u8], keep: impl Fn(&Entry<'_>) -> bool) -> Result<Reply, Refusal> {
    let entries = document::list(body).map_err(nonsense)?;
    let kept = entries.iter().filter(|entry| keep(entry));
    if !document::may_need_strip(body) {
        return Ok(Reply::json(StatusCode::OK, write_array(kept.map(|entry| entry.raw.get()))));
    }
    let mut pieces = Vec::new();
    for entry in kept {
        let mut value: Value = serde_json::from_str(entry.raw.get()).map_err(nonsense)?;
        pieces.push(if document::strip(&mut value) { value.to_string() } else { entry.raw.get().to_owned() });
    }
    Ok(Reply::json(StatusCode::OK, write_array(pieces.iter().map(String::as_str))))
}
