//! Projects are namespaces. Each namespace that the caller may use is shown, whether or not Perses has stored it.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::StatusCode;

use super::{Brought, Catalog, nonsense, pass, refuse_document, to_bytes, write_array};
use crate::access::{Grant, Listing, NamespaceSet, Scope};
use crate::document::{self, Kind, Object};
use crate::names::Namespace;
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::route::{ListQuery, Project, ProjectCall};

impl Catalog {
    pub(super) async fn project(
        &self,
        grant: Grant,
        call: &ProjectCall,
        brought: &Brought<'_>,
    ) -> Result<Reply, Refusal> {
        match call {
            ProjectCall::List(query) => self.list_projects(&grant, query).await,
            ProjectCall::Read(project) => {
                let answer = self.perses.ask(grant.request(Bytes::new())?).await?;
                if answer.status == StatusCode::NOT_FOUND {
                    let namespaces = self.access.namespaces(grant.caller(), Listing::Projects).await?;
                    if let Some(namespace) = project.namespace().filter(|name| namespaces.contains(name.as_str())) {
                        return Ok(Reply::json(StatusCode::OK, to_bytes(&document::virtual_project(&namespace))?));
                    }
                }
                pass(answer)
            }
            ProjectCall::Create => {
                let mut object = Object::read(&brought.body, Kind::Project).map_err(|error| refuse_document(&error))?;
                let project = object.name().and_then(Project::parse).ok_or_else(|| {
                    Refusal::new(Reason::MalformedBody, "bad request: metadata.name must be the name of a namespace")
                })?;
                brought.names(Some(&project), Some(project.name()));
                object.settle(None, project.name()).map_err(|error| refuse_document(&error))?;
                let grant = grant.settle(&self.access, project.clone()).await?;
                let namespaces = self.access.namespaces(grant.caller(), Listing::Projects).await?;
                if !namespaces.contains(project.as_str()) {
                    return Err(Refusal::new(
                        Reason::Forbidden,
                        format!(
                            "a project is a namespace, and there is no namespace {}; create it first (oc new-project)",
                            project.as_str()
                        ),
                    ));
                }
                pass(self.perses.ask(grant.request(object.into_bytes().into())?).await?)
            }
            ProjectCall::Update(project) => {
                let mut object = Object::read(&brought.body, Kind::Project).map_err(|error| refuse_document(&error))?;
                object.settle(None, project.name()).map_err(|error| refuse_document(&error))?;
                pass(self.perses.ask(grant.request(object.into_bytes().into())?).await?)
            }
            ProjectCall::Delete(_) => pass(self.perses.ask(grant.request(Bytes::new())?).await?),
        }
    }

    async fn list_projects(&self, grant: &Grant, query: &ListQuery) -> Result<Reply, Refusal> {
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
        let stored = document::list(&answer.body).map_err(nonsense)?;
        let mut pieces = Vec::with_capacity(stored.len());
        let mut seen = BTreeSet::new();
        for entry in &stored {
            let Some(project) = Project::parse(&entry.name) else { continue };
            if self.is_visible(namespaces, &project) {
                pieces.push(entry.raw.get().to_owned());
                seen.insert(project.as_str().to_owned());
            }
        }
        let prefix = query.name.as_ref().map_or("", |name| name.as_str());
        let missing =
            |namespace: &&Namespace| namespace.as_str().starts_with(prefix) && !seen.contains(namespace.as_str());
        pieces.extend(
            namespaces.names().iter().filter(missing).map(|namespace| document::virtual_project(namespace).to_string()),
        );
        Ok(Reply::json(StatusCode::OK, write_array(pieces.iter().map(String::as_str))))
    }

    fn is_visible(&self, namespaces: &NamespaceSet, project: &Project) -> bool {
        namespaces.everywhere()
            || self.access.namespace_of(project).is_some_and(|namespace| namespaces.contains(namespace.as_str()))
    }
}
