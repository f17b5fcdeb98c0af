//! What runs in the namespaces of a caller, and new dashboards from templates.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::rendered::{Hidden, Rendered};
use super::{Brought, Catalog, bad_body, refuse_document, write_array};
use crate::access::{Grant, Scope};
use crate::dashboards::{Dashboard, Kind, Library, Place, State, Template, Workload, WorkloadName};
use crate::document::{self, Object};
use crate::names::{Namespace, ObjectName};
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::route::{Form, Project, WorkloadsCall};

/// How many workloads a page shows.
const MOST_SHOWN: usize = 200;

/// What a gallery shows.
pub struct Shelf {
    /// Workloads and the dashboards that they have, by namespace, kind and name.
    pub workloads: Vec<(Arc<Workload>, Vec<Dashboard>)>,
    /// How many more there are.
    pub more: usize,
    /// The namespaces of whoever looks.
    pub projects: Vec<Namespace>,
    /// All templates; none where there are no dashboards for workloads.
    pub templates: Vec<Arc<Template>>,
    /// What is hidden in what is shown.
    pub hidden: Vec<Hidden>,
}

impl Catalog {
    /// `/-/api/v1/workloads`
    pub(super) fn workloads(&self, grant: &Grant, call: &WorkloadsCall) -> Result<Reply, Refusal> {
        let places = self.rendered.workloads.places(&self.granted(grant)?);
        match call {
            WorkloadsCall::List { kind, .. } => {
                let kind = kind.as_deref();
                let wanted =
                    |workload: &&Arc<Workload>| kind.is_none_or(|kind| workload.kind.word().eq_ignore_ascii_case(kind));
                let all = places.iter().flat_map(|place| place.workloads()).filter(wanted);
                let pieces: Vec<String> = all.map(|workload| self.told(workload).to_string()).collect();
                Ok(Reply::json(StatusCode::OK, write_array(pieces.iter().map(String::as_str))))
            }
            WorkloadsCall::Read { kind, name, .. } => {
                let found = Kind::parse(kind)
                    .zip(WorkloadName::parse(name))
                    .and_then(|(kind, name)| places.first().and_then(|place| place.get(kind, &name).cloned()));
                let found = found.ok_or_else(|| Refusal::new(Reason::NotFound, "no such workload"))?;
                Ok(Reply::json(StatusCode::OK, self.told(&found).to_string()))
            }
        }
    }

    /// What a gallery shows, of one project or of all that the grant covers.
    ///
    /// # Errors
    /// 500 for a grant that covers no list.
    pub async fn shelf(&self, grant: &Grant, only: Option<&Project>) -> Result<Shelf, Refusal> {
        let projects = self.granted(grant)?;
        let shown: Vec<Namespace> = projects
            .iter()
            .filter(|namespace| only.is_none_or(|only| only.as_str() == namespace.as_str()))
            .cloned()
            .collect();
        let places = self.rendered.workloads.places(&shown);
        let count: usize = places.iter().map(|place| place.workloads().len()).sum();
        let mut workloads: Vec<(Arc<Workload>, Vec<Dashboard>)> = Vec::new();
        for place in &places {
            let room = MOST_SHOWN.saturating_sub(workloads.len());
            let all = [place.project()].into_iter().chain(place.workloads()).take(room);
            workloads.extend(all.map(|workload| (Arc::clone(workload), self.dashboards_of(workload))));
        }
        // Where nothing runs any more, people look for what ran: lists would be long for that, a page has the room.
        let empty = shown.iter().filter(|_| self.rendered.library.is_some());
        let empty = empty.filter(|name| places.iter().all(|place| place.project().namespace != **name));
        for namespace in empty.take(MOST_SHOWN.saturating_sub(workloads.len())) {
            let project = Arc::new(Workload::project(namespace, 0));
            workloads.push((Arc::clone(&project), self.dashboards_of(&project)));
        }
        let hidden = self.hidden_in(grant, &shown).await;
        let of_workloads = workloads.iter().filter(|(workload, _)| workload.kind != Kind::Project).count();
        let templates = self.rendered.library.as_ref().map_or_else(Vec::new, |library| library.templates().to_vec());
        Ok(Shelf { workloads, more: count - of_workloads, projects, templates, hidden })
    }

    /// Stores a new dashboard from a template, as a form asks for it; gives where it is.
    ///
    /// # Errors
    /// As the creation of any dashboard; 400 for a form that asks for no such thing.
    pub async fn make(&self, grant: Grant, brought: Brought<'_>) -> Result<(Project, ObjectName), Refusal> {
        let form = brought.body.clone();
        let wish = Wish::read(&form)?;
        brought.names(Some(&wish.project), wish.name.as_ref());
        let grant = grant.settle(&self.access, wish.project.clone()).await?;
        // From here on it is theirs to know what runs there.
        let library = self.rendered.library.as_ref();
        let library = library.ok_or_else(|| bad_body(&"there are no templates (dashboards.enabled)"))?;
        let namespace = Rendered::namespace(&self.access, &wish.project)
            .ok_or_else(|| bad_body(&"the project is not the one of a namespace"))?;
        let place = self.rendered.workloads.place(&namespace);
        let (template, workload) = wish.workload(library, place.as_deref(), &namespace)?;
        let name = wish.name_for(&template, &workload)?;
        let mut value: Value = serde_json::from_str(&template.render(&workload)).map_err(Refusal::internal)?;
        value["metadata"] = json!({ "name": name.as_str(), "project": wish.project.as_str() });
        if let Some(title) = &wish.title {
            value["spec"]["display"]["name"] = json!(title);
        }
        let object = Object::read(value.to_string().as_bytes(), document::Kind::Dashboard)
            .map_err(|error| refuse_document(&error))?;
        self.create(&grant, &wish.project, object, &brought).await.map_err(|refusal| match refusal.reason() {
            Reason::Conflict => Refusal::new(
                Reason::Conflict,
                format!("the project has a dashboard that is called {name} already; go back and choose another name"),
            ),
            _ => refusal,
        })?;
        Ok((wish.project, name))
    }

    /// The namespaces of a grant whose workloads belong to the projects of their names.
    fn granted(&self, grant: &Grant) -> Result<Vec<Namespace>, Refusal> {
        let own = |project: &Project| Rendered::namespace(&self.access, project);
        match (grant.scope(), grant.project()) {
            (Scope::Listed(set), _) => Ok(set.names().iter().filter_map(|name| own(&Project::from(name))).collect()),
            (Scope::Project, Some(project)) => Ok(own(project).into_iter().collect()),
            _ => Err(Refusal::internal("a list without namespaces")),
        }
    }

    fn dashboards_of(&self, workload: &Arc<Workload>) -> Vec<Dashboard> {
        let Some(library) = &self.rendered.library else { return Vec::new() };
        let of =
            |template: &Arc<Template>| Dashboard { template: Arc::clone(template), workload: Arc::clone(workload) };
        library.of(workload).map(of).collect()
    }

    /// A workload in JSON; what is not known is left out.
    fn told(&self, workload: &Arc<Workload>) -> Value {
        let mut map = Map::new();
        let mut add = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        };
        let text = |value: &Option<Box<str>>| value.as_deref().map(|text| json!(text));
        add("kind", Some(json!(workload.kind.word())));
        add("namespace", Some(json!(workload.namespace.as_str())));
        add("name", Some(json!(workload.name.as_str())));
        add("title", text(&workload.title));
        add("state", Some(json!(workload.state.word())));
        add("reason", text(&workload.reason));
        let [since, created] = workload.times();
        add("since", since.map(Value::from));
        add("created", created.map(Value::from));
        add("owner", text(&workload.owner));
        add("gpus", Some(json!(workload.gpus)));
        add("engine", workload.kind.serves().then(|| json!(workload.engine.word())));
        add("model", text(&workload.model));
        add("queue", text(&workload.queue));
        add("rayCluster", text(&workload.ray_cluster));
        add(
            "progress",
            workload.progress.map(|progress| json!({ "percent": progress.percent, "secondsLeft": progress.left })),
        );
        let link = |dashboard: Dashboard| {
            let (name, project) = (dashboard.name(), workload.namespace.as_str());
            json!({
                "name": name,
                "template": dashboard.template.name(),
                "title": dashboard.template.title(),
                "url": self.page_of(project, &name),
            })
        };
        add("dashboards", Some(self.dashboards_of(workload).into_iter().map(link).collect()));
        Value::Object(map)
    }

    /// Where the UI shows a dashboard.
    #[must_use]
    pub fn page_of(&self, project: &str, dashboard: &str) -> String {
        format!("{}/projects/{project}/dashboards/{dashboard}", self.prefix)
    }
}

/// What a form of the gallery asks for.
struct Wish {
    template: String,
    project: Project,
    /// The workload's name, and its kind if that is said too: `Notebook/desk`.
    workload: Option<(Option<Kind>, WorkloadName)>,
    model: Option<Box<str>>,
    name: Option<ObjectName>,
    title: Option<Box<str>>,
}

impl Wish {
    fn read(body: &Bytes) -> Result<Self, Refusal> {
        let mut form = Form::parse_bytes(body).map_err(|error| bad_body(&error))?;
        let mut take = |name: &'static str| -> Result<Option<String>, Refusal> {
            let value = form.take(name).map_err(|error| bad_body(&error))?;
            Ok(value.map(|value: Cow<'_, str>| value.trim().to_owned()).filter(|value| !value.is_empty()))
        };
        let template = take("template")?.ok_or_else(|| bad_body(&"choose a template"))?;
        let project = take("project")?.as_deref().and_then(Project::parse);
        let project = project.ok_or_else(|| bad_body(&"choose a project"))?;
        let workload = match take("workload")? {
            None => None,
            Some(text) => {
                let (kind, name) =
                    text.split_once('/').map_or((None, text.as_str()), |(kind, name)| (Some(kind), name));
                let kind =
                    kind.map(|kind| Kind::parse(kind).ok_or_else(|| bad_body(&"there is no such kind of workload")));
                let name = WorkloadName::parse(name).ok_or_else(|| {
                    bad_body(
                        &"the workload's name is none: small letters, digits, \"-\" and \".\", as the cluster has it",
                    )
                })?;
                Some((kind.transpose()?, name))
            }
        };
        let name = match take("name")? {
            None => None,
            Some(text) => Some(ObjectName::parse(&text).ok_or_else(|| {
                bad_body(&"the dashboard's name is none: letters, digits, \"_\", \"-\" and \".\", 75 at most")
            })?),
        };
        let (model, title) = (take("model")?, take("title")?);
        form.finish().map_err(|error| bad_body(&error))?;
        let text = |text: Option<String>| text.as_deref().and_then(Workload::text);
        Ok(Self { template, project, workload, model: text(model), name, title: text(title) })
    }

    /// The template and the workload that it shall show: the one that runs, or one of that name as it would be.
    fn workload(
        &self,
        library: &Library,
        place: Option<&Place>,
        namespace: &Namespace,
    ) -> Result<(Arc<Template>, Arc<Workload>), Refusal> {
        let template = library.template(&self.template).ok_or_else(|| bad_body(&"there is no such template"))?;
        let mut targets = template.targets().iter();
        if targets.any(|target| target.kind == Kind::Project) {
            let whole = || Arc::new(Workload::project(namespace, 1));
            let project = place.map_or_else(whole, |place| Arc::clone(place.project()));
            return Ok((Arc::clone(template), project));
        }
        let Some((kind, name)) = &self.workload else {
            return Err(bad_body(&"this template shows one workload: say its name"));
        };
        let kinds = || template.targets().iter().filter(|target| kind.is_none_or(|kind| kind == target.kind));
        let running = kinds().find_map(|target| place?.get(target.kind, name).cloned());
        let target = kinds().next().or_else(|| template.targets().first());
        let workload = match (running, target) {
            (Some(running), _) => (*running).clone(),
            (None, Some(target)) => Workload {
                gpus: 1,
                state: State::Unknown,
                ..Workload::bare(target.kind, namespace.clone(), name.clone()).with_runtime(target.engine)
            },
            (None, None) => return Err(Refusal::internal("a template for nothing")),
        };
        let model = self.model.clone().or_else(|| workload.model.clone());
        Ok((Arc::clone(template), Arc::new(Workload { model, ..workload })))
    }

    /// The name that was chosen, or one made of template and workload.
    fn name_for(&self, template: &Template, workload: &Workload) -> Result<ObjectName, Refusal> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let of = if workload.kind == Kind::Project { "own" } else { workload.name.as_str() };
        let text: String = format!("{}-{of}", template.name()).chars().take(75).collect();
        ObjectName::parse(text.trim_end_matches(['.', '-'])).ok_or_else(|| bad_body(&"give the dashboard a name"))
    }
}
