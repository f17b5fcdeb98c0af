//! `/-/gallery`: what runs, how it fares, and new dashboards from templates. It runs nothing in the browser.

use bytes::Bytes;
use http::StatusCode;

use super::journal::Journal;
use super::{Live, door};
use crate::access::Grant;
use crate::catalog::{Brought, Hidden, Shelf, whom};
use crate::config;
use crate::dashboards::{Dashboard, Kind, State, Workload};
use crate::page::{Card, Field, Form, Input, Page, Part};
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::route::{GalleryCall, Wanted};

pub(super) async fn answer(
    live: &Live,
    fixed: &config::Fixed,
    journal: &mut Journal,
    grant: Grant,
    call: &GalleryCall,
    form: Bytes,
) -> Result<Reply, Refusal> {
    match call {
        GalleryCall::Show(wanted) => {
            let shelf = live.catalog.shelf(&grant, wanted.project.as_ref()).await?;
            let page = Page { request_id: journal.id(), ..page(live, fixed, &shelf, wanted) };
            Ok(door::paper(StatusCode::OK, &page, &live.config.frame_ancestors, None))
        }
        GalleryCall::Restore(project, name) => {
            let named = std::sync::Mutex::default();
            let brought = Brought { body: form, accept_encoding: None, knows: &|_| false, named: &named };
            let _changing = live.catalog.changing();
            let restored = live.catalog.restore(&grant, project, name, &brought).await;
            journal.named(named.into_inner().unwrap_or_default());
            restored?;
            door::sent_to(StatusCode::SEE_OTHER, &live.catalog.page_of(project.as_str(), name.as_str()))
        }
        GalleryCall::Make => {
            let knows = |url: &str| live.queries.sources().knows(url);
            let named = std::sync::Mutex::default();
            let brought = Brought { body: form, accept_encoding: None, knows: &knows, named: &named };
            let _changing = live.catalog.changing();
            let made = live.catalog.make(grant, brought).await;
            journal.named(named.into_inner().unwrap_or_default());
            let (project, name) = made?;
            door::sent_to(StatusCode::SEE_OTHER, &live.catalog.page_of(project.as_str(), name.as_str()))
        }
    }
}

fn page(live: &Live, fixed: &config::Fixed, shelf: &Shelf, wanted: &Wanted) -> Page {
    let here = format!("{}/-/gallery", fixed.api_prefix);
    let mut page = Page::new("What runs in your projects").wide();
    if shelf.projects.is_empty() {
        let asked = whom(&live.config.contact);
        return page
            .text(format!(
                "You may not see any project yet. Ask {asked} for the role \"view\" or \"edit\" in a namespace."
            ))
            .link(format!("{}/", fixed.api_prefix), "To the dashboards");
    }
    if shelf.projects.len() > 1 {
        page = page.with(Part::Form(Form {
            to: here.clone(),
            id: "show",
            post: false,
            fields: vec![Field::new("project", "Project", projects(shelf, wanted, Some("all of them")))],
            called: "Show",
        }));
    }
    let workloads = shelf.workloads.iter().filter(|(workload, _)| workload.kind != Kind::Project).count();
    if !live.config.workloads.enabled {
        page = page.text("Nobody looks here for what runs (workloads.enabled).");
    } else if workloads == 0 {
        page = page.text("Nothing runs here that has a dashboard of its own: no model server, training job, notebook, Ray cluster or queue.");
    }
    let mut cards: Vec<Card> = Vec::new();
    for (workload, dashboards) in &shelf.workloads {
        if workload.kind == Kind::Project {
            if !cards.is_empty() {
                page = page.with(Part::Cards(std::mem::take(&mut cards)));
            }
            page = page.with(Part::Heading(workload.namespace.to_string()));
        }
        let dashboards = shown(dashboards, shelf);
        // There is nothing to say of a project but its ways.
        if workload.kind != Kind::Project || !dashboards.is_empty() {
            cards.push(card(live, &here, workload, &dashboards));
        }
    }
    page = page.with(Part::Cards(cards));
    if shelf.more > 0 {
        page = page.text(format!("{} more are not shown; choose a project.", shelf.more));
    }
    if !shelf.hidden.is_empty() {
        page = page
            .with(Part::Heading("Hidden".to_owned()))
            .text("Somebody deleted these; they are shown to nobody in their project.")
            .with(Part::Cards(shelf.hidden.iter().map(|hidden| shown_again(&here, hidden)).collect()));
    }
    if shelf.templates.is_empty() {
        return page
            .text("There are no dashboards for what runs here, and no templates (dashboards.enabled).")
            .link(format!("{}/", fixed.api_prefix), "To the dashboards");
    }
    page.with(Part::Heading("A new dashboard from a template".to_owned()))
        .text("It is stored in the project, under its own name, and stays when the workload goes.")
        .with(Part::Form(new(&here, shelf, wanted)))
        .with(Part::Heading("The templates".to_owned()))
        .with(Part::Cards(
            shelf
                .templates
                .iter()
                .map(|template| Card {
                    title: template.title().to_owned(),
                    mark: None,
                    lines: vec![template.description().to_owned()],
                    links: vec![(format!("{here}?template={}#new", template.name()), "Use it".to_owned())],
                    button: None,
                })
                .collect(),
        ))
        .link(format!("{}/", fixed.api_prefix), "To the dashboards")
}

/// Those that are not hidden.
fn shown<'d>(dashboards: &'d [Dashboard], shelf: &Shelf) -> Vec<&'d Dashboard> {
    let is_hidden = |dashboard: &&Dashboard| {
        let of = |hidden: &&Hidden| hidden.namespace == dashboard.workload.namespace;
        shelf.hidden.iter().filter(of).any(|hidden| hidden.name.as_str() == dashboard.name())
    };
    dashboards.iter().filter(|dashboard| shelf.hidden.is_empty() || !is_hidden(dashboard)).collect()
}

/// A hidden one, and the way back.
fn shown_again(here: &str, hidden: &Hidden) -> Card {
    let Hidden { namespace, name, title } = hidden;
    Card {
        title: title.clone().unwrap_or_else(|| name.to_string()),
        lines: vec![format!("in {namespace}")],
        button: Some((format!("{here}/restore/{namespace}/{name}"), "Show it again")),
        ..Card::default()
    }
}

/// A workload with its ways: to each dashboard, and to a new one like it.
fn card(live: &Live, here: &str, workload: &Workload, dashboards: &[&Dashboard]) -> Card {
    let mut links = Vec::new();
    for dashboard in dashboards {
        let place = live.catalog.page_of(workload.namespace.as_str(), &dashboard.name());
        links.push((place, dashboard.template.title().to_owned()));
    }
    if workload.kind == Kind::Project {
        return Card { title: "The project as a whole".to_owned(), links, ..Card::default() };
    }
    if let Some(first) = dashboards.first() {
        let place = format!(
            "{here}?template={}&project={}&workload={}/{}#new",
            first.template.name(),
            workload.namespace,
            workload.kind,
            workload.name
        );
        links.push((place, "Make your own".to_owned()));
    }
    let mut facts = vec![workload.kind.word().to_owned()];
    if workload.kind.serves() {
        facts.push(workload.engine.word().to_owned());
    }
    match workload.gpus {
        0 => {}
        1 => facts.push("1 GPU".to_owned()),
        more => facts.push(format!("{more} GPUs")),
    }
    facts.extend(workload.queue.as_ref().map(|queue| format!("queue {queue}")));
    facts.extend(workload.owner.as_ref().map(|owner| format!("of {owner}")));
    let mut lines = vec![facts.join(" · ")];
    lines.extend(workload.since_words().map(|since| format!("{} since {since}", workload.state.word())));
    lines.extend(workload.reason.as_ref().map(ToString::to_string));
    let sign = match workload.state {
        State::Ready | State::Running => "●",
        State::Queued | State::Starting => "◐",
        State::Failed => "▲",
        State::Stopped | State::Succeeded => "■",
        State::Unknown | State::Gone => "○",
    };
    let mark = Some(format!("{sign} {}", workload.state.word()));
    Card { title: workload.title().to_owned(), mark, lines, links, button: None }
}

fn projects(shelf: &Shelf, wanted: &Wanted, all: Option<&str>) -> Input {
    let own = shelf.projects.iter().map(|project| (project.to_string(), project.to_string()));
    let choices = all.map(|all| (String::new(), all.to_owned())).into_iter().chain(own).collect();
    Input::Choice(choices, wanted.project.as_ref().map_or_else(String::new, |project| project.as_str().to_owned()))
}

fn new(here: &str, shelf: &Shelf, wanted: &Wanted) -> Form {
    let templates = shelf.templates.iter().map(|template| (template.name().to_owned(), template.title().to_owned()));
    let template = wanted.template.clone().unwrap_or_default();
    let workload = wanted.workload.clone().unwrap_or_default();
    let known = shelf
        .workloads
        .iter()
        .filter(|(workload, _)| workload.kind != Kind::Project)
        .map(|(workload, _)| format!("{}/{}", workload.kind, workload.name))
        .collect();
    Form {
        to: here.to_owned(),
        id: "new",
        post: true,
        fields: vec![
            Field::new("template", "Template", Input::Choice(templates.collect(), template)),
            Field::new("project", "Project", projects(shelf, wanted, None)),
            Field::new("workload", "Workload", Input::Text(workload, known))
                .hint("Its name, or kind and name such as Notebook/desk. Nothing for templates of a whole project"),
            Field::new("name", "Name of the dashboard", Input::Text(String::new(), Vec::new()))
                .hint("Made of template and workload if left out"),
            Field::new("title", "Title", Input::Text(String::new(), Vec::new())).hint("The template's if left out"),
        ],
        called: "Create",
    }
}
