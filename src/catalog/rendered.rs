//! Dashboards of workloads that Perses has not stored: rendered when they are asked for, beside those that it has.
//!
//! What is stored under the name of one wins. Whoever saves one makes it stored, which takes the right to create besides;
//! whoever deletes what was saved has the workload's own back. Whoever deletes one that was never saved stores an empty
//! dashboard of its name with a tag, which lists leave out. Deleting that once more changes nothing, as a client that asks
//! again after a silence expects; the way back is [`Catalog::restore`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body::Frame;
use serde_json::json;

use super::scoped::{Listed, Stored, is_missing};
use super::{Brought, Catalog, Effect, pass, to_bytes};
use crate::access::{Access, Grant};
use crate::dashboards::{Dashboard, Library, Place};
use crate::dial::DialError;
use crate::document::{self, HIDDEN};
use crate::names::{Namespace, ObjectName};
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::route::{ListQuery, Project};
use crate::upstream::PersesAnswer;
use crate::workloads::Workloads;

/// How long a page waits for Perses to say what is hidden.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of a long list that are written at once.
const PIECE: usize = 64 << 10;

/// Which dashboards workloads have.
pub(super) struct Rendered {
    pub(super) workloads: Arc<Workloads>,
    /// None where `dashboards.enabled` is false.
    pub(super) library: Option<Arc<Library>>,
}

impl Rendered {
    /// The namespace whose workloads belong to a project: the one of its name, if that one's rights decide about it.
    pub(super) fn namespace(access: &Access, project: &Project) -> Option<Namespace> {
        project.namespace().filter(|own| access.namespace_of(project).as_ref() == Some(own))
    }

    /// Those of workloads that run in these namespaces, without those that are stored.
    pub(super) fn of(&self, namespaces: &[Namespace], query: &ListQuery, stored: &Stored) -> Vec<Dashboard> {
        let Some(library) = &self.library else { return Vec::new() };
        let prefix = query.name.as_ref().map_or("", |name| name.as_str());
        let wanted = |dashboard: &Dashboard| {
            if prefix.is_empty() && stored.is_empty() {
                return true;
            }
            let name = dashboard.name();
            name.starts_with(prefix) && !stored.contains(&(dashboard.workload.namespace.to_string(), name))
        };
        let places = self.workloads.places(namespaces);
        places.iter().flat_map(|place| library.dashboards(place)).filter(wanted).collect()
    }

    /// The dashboard of a name, also of a workload that is gone.
    pub(super) fn find(&self, namespace: &Namespace, name: &ObjectName) -> Option<Dashboard> {
        self.library.as_ref()?.find(self.place(namespace).as_deref(), namespace, name)
    }

    /// The dashboard of a name, if lists show it.
    fn listed(&self, namespace: &Namespace, name: &ObjectName) -> Option<Dashboard> {
        self.library.as_ref()?.listed(&*self.place(namespace)?, namespace, name)
    }

    fn place(&self, namespace: &Namespace) -> Option<Arc<Place>> {
        self.workloads.place(namespace)
    }
}

impl Catalog {
    /// The dashboard of a name in a project that was granted.
    pub(super) fn rendered_in(&self, project: &Project, name: &ObjectName) -> Option<Dashboard> {
        self.rendered.find(&Rendered::namespace(&self.access, project)?, name)
    }

    /// Those of the namespaces that were granted.
    pub(super) fn rendered_of(&self, namespaces: &[Namespace], query: &ListQuery, stored: &Stored) -> Vec<Dashboard> {
        let decided_elsewhere = |namespace: &Namespace| {
            Rendered::namespace(&self.access, &Project::from(namespace)).as_ref() != Some(namespace)
        };
        if namespaces.iter().any(decided_elsewhere) {
            let own: Vec<Namespace> = namespaces.iter().filter(|name| !decided_elsewhere(name)).cloned().collect();
            return self.rendered.of(&own, query, stored);
        }
        self.rendered.of(namespaces, query, stored)
    }

    /// Saves what was never stored.
    pub(super) async fn store_rendered(
        &self,
        grant: &Grant,
        project: &Project,
        body: Bytes,
        brought: &Brought<'_>,
    ) -> Result<Reply, Refusal> {
        let creating = grant.storing(&self.access).await?;
        self.ensure_project(&creating, project).await?;
        let answer = self.perses.ask(creating.request(body.clone())?).await?;
        // Somebody else may have been quicker.
        let answer = match answer.status {
            StatusCode::CONFLICT => self.perses.ask(grant.request(body)?).await?,
            _ => answer,
        };
        if answer.status.is_success() {
            brought.effect(Effect::Copied);
        }
        super::pass_document(answer)
    }

    /// Deletes what Perses has not stored: if lists show it, they shall not any more.
    pub(super) async fn hide_rendered(
        &self,
        grant: &Grant,
        project: &Project,
        name: &ObjectName,
        brought: &Brought<'_>,
    ) -> Result<Option<Reply>, Refusal> {
        let namespace = Rendered::namespace(&self.access, project);
        let Some(dashboard) = namespace.and_then(|namespace| self.rendered.listed(&namespace, name)) else {
            return Ok(None);
        };
        let creating = grant.storing(&self.access).await?;
        self.ensure_project(&creating, project).await?;
        let marker = marker(&dashboard, project, name, &self.prefix);
        let answer = self.perses.ask(creating.request(to_bytes(&marker)?)?).await?;
        // Somebody else may have been quicker.
        if answer.status == StatusCode::CONFLICT && self.standing(grant, project, name).await? == Standing::Hidden {
            return Ok(Some(Reply::empty(StatusCode::NO_CONTENT)));
        }
        if !answer.status.is_success() {
            return pass(answer).map(Some);
        }
        brought.effect(Effect::Hidden);
        Ok(Some(Reply::empty(StatusCode::NO_CONTENT)))
    }

    /// What stands under the name of a dashboard.
    pub(super) async fn standing(
        &self,
        grant: &Grant,
        project: &Project,
        name: &ObjectName,
    ) -> Result<Standing, Refusal> {
        if self.rendered_in(project, name).is_none() {
            return Ok(Standing::NotOurs);
        }
        let Some(stored) = grant.stored() else { return Ok(Standing::NotOurs) };
        let stored = self.perses.ask(stored).await?;
        Ok(match stored.status {
            StatusCode::OK if document::is_left_out(&stored.body) => Standing::Hidden,
            StatusCode::OK => Standing::Saved,
            status if is_missing(status) => Standing::Rendered,
            _ => Standing::NotOurs,
        })
    }

    /// Shows a dashboard again that is hidden in a project; nothing happens to one that is shown.
    ///
    /// # Errors
    /// 404 where there is nothing of that name, 409 where the project has one of its own.
    pub async fn restore(
        &self,
        grant: &Grant,
        project: &Project,
        name: &ObjectName,
        brought: &Brought<'_>,
    ) -> Result<(), Refusal> {
        let stored = grant.stored().ok_or_else(|| Refusal::internal("not a route of what is stored"))?;
        let stored = self.perses.ask(stored).await?;
        if is_missing(stored.status) {
            return match self.rendered_in(project, name) {
                Some(_) => Ok(()),
                None => Err(Refusal::new(Reason::NotFound, "document not found")),
            };
        }
        if stored.status != StatusCode::OK {
            return pass(stored).map(drop);
        }
        if !document::is_left_out(&stored.body) {
            return Err(Refusal::new(
                Reason::Conflict,
                format!("{name} is not hidden: the project has a dashboard of its own under this name; delete that"),
            ));
        }
        let answer = self.perses.ask(grant.request(Bytes::new())?).await?;
        if is_missing(answer.status) {
            return Ok(());
        }
        pass(answer)?;
        brought.effect(Effect::Restored);
        Ok(())
    }

    /// What is hidden in these namespaces, by namespace and name, with what it is called. Nothing while Perses does not
    /// say so soon: a page that tells what runs does not wait for it.
    pub(super) async fn hidden_in(&self, grant: &Grant, namespaces: &[Namespace]) -> Vec<Hidden> {
        let Some(call) = grant.stored_names() else { return Vec::new() };
        let asked = tokio::time::timeout(PATIENCE, self.lists.ask(call)).await;
        let Ok(Ok(PersesAnswer { status: StatusCode::OK, body, .. })) = asked else { return Vec::new() };
        let Ok(entries) = document::list(&body) else { return Vec::new() };
        let mut found: Vec<Hidden> = entries
            .iter()
            .filter(|entry| entry.hidden)
            .filter_map(|entry| {
                let namespace = namespaces.iter().find(|name| entry.project.as_deref() == Some(name.as_str()))?;
                let name = ObjectName::parse(&entry.name)?;
                let of = self.rendered.find(namespace, &name);
                let title = of.map(|of| of.template.display_name(&of.workload));
                Some(Hidden { namespace: namespace.clone(), name, title })
            })
            .collect();
        found.sort_unstable_by(|a, b| (&a.namespace, a.name.as_str()).cmp(&(&b.namespace, b.name.as_str())));
        found
    }
}

/// What stands under the name of a dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No workload has one of this name, or Perses does not say.
    NotOurs,
    /// A workload's, which nobody has stored.
    Rendered,
    /// A workload's that the project has saved as its own.
    Saved,
    /// A workload's that is hidden in the project.
    Hidden,
}

/// A dashboard that is hidden in a project.
pub struct Hidden {
    /// The project's namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: ObjectName,
    /// What the workload's own is called, unless no template makes it any more.
    pub title: Option<String>,
}

/// What stands for a dashboard that a project does not want to see.
fn marker(dashboard: &Dashboard, project: &Project, name: &ObjectName, prefix: &str) -> serde_json::Value {
    let project = project.as_str();
    json!({
        "kind": "Dashboard",
        "metadata": { "name": name.as_str(), "project": project, "tags": [HIDDEN] },
        "spec": {
            "display": {
                "name": dashboard.template.display_name(&dashboard.workload),
                "description": format!(
                    "Hidden in this project. The gallery ({prefix}/-/gallery?project={project}) shows it again."
                ),
            },
            "duration": "1h",
            "variables": [],
            "panels": {},
            "layouts": [],
        },
    })
}

/// Whether a refusal means that Perses cannot be asked.
pub(super) fn is_down(refusal: &Refusal) -> bool {
    matches!(refusal.reason(), Reason::UpstreamDown | Reason::UpstreamSlow | Reason::UpstreamNonsense)
}

/// Says that an answer was made without Perses.
pub(super) fn without_perses(mut reply: Reply) -> Reply {
    let text = "299 perses-sidecar \"Perses does not answer: what is stored there is missing here\"";
    reply.headers.insert(HeaderName::from_static("warning"), HeaderValue::from_static(text));
    reply
}

/// One dashboard.
pub(super) fn one(dashboard: &Dashboard) -> Reply {
    Reply::json(StatusCode::OK, dashboard.template.render(&dashboard.workload))
}

/// A list: what is stored, in its own bytes, and then what is rendered. Names alone are written at once; whole dashboards
/// while the client reads.
pub(super) fn list(stored: Listed, rendered: Vec<Dashboard>, query: &ListQuery) -> Reply {
    let mut out = stored.text;
    if query.metadata_only == Some(true) {
        for dashboard in &rendered {
            comma(&mut out);
            dashboard.template.write_entry(&dashboard.workload, &mut out);
        }
    } else if !rendered.is_empty() {
        return Reply::json_edited(StatusCode::OK, Box::pin(Whole { out, rest: rendered.into_iter(), ended: false }));
    }
    out.push(']');
    Reply::json(StatusCode::OK, out)
}

/// Unless nothing stands there but the bracket that opened the list.
fn comma(out: &mut String) {
    if out != "[" {
        out.push(',');
    }
}

/// A list of whole dashboards, as it is read.
struct Whole {
    out: String,
    rest: std::vec::IntoIter<Dashboard>,
    ended: bool,
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = DialError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DialError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut out = std::mem::take(&mut self.out);
        while out.len() < PIECE {
            match self.rest.next() {
                Some(dashboard) => {
                    comma(&mut out);
                    out.push_str(&dashboard.template.render(&dashboard.workload));
                }
                None => {
                    out.push(']');
                    self.ended = true;
                    break;
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
