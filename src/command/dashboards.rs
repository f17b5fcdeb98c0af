//! `dashboards list` and `dashboards render`: the templates without a cluster, for GitOps and for whoever writes one.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Failed;
use crate::config;
use crate::dashboards::{Engine, Kind, Library, Settings, Template, Workload, WorkloadName};
use crate::names::Namespace;

#[derive(Debug, Args)]
pub(super) struct Dashboards {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the templates and what they are for.
    List {
        #[command(flatten)]
        from: From,
        /// Print JSON, one template a line.
        #[arg(long)]
        json: bool,
    },
    /// Print the dashboard of a workload, one Perses object as JSON.
    Render(Render),
}

/// Which templates.
#[derive(Debug, Args)]
struct From {
    /// With the templates and settings of a configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    config: Option<PathBuf>,
    /// With the templates of a folder.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Render {
    /// The kind of the workload, such as Notebook or InferenceService, or the name of a template.
    #[arg(value_name = "KIND")]
    kind: String,
    /// The workload's name.
    #[arg(long)]
    name: String,
    /// The workload's namespace.
    #[arg(long, value_name = "NS")]
    namespace: String,
    /// What serves the model: vLLM, llm-d, OpenVINO, TGIS, Triton, MLServer, KServe or other.
    #[arg(long)]
    engine: Option<String>,
    /// The name under which the model is served, if it is another than the workload's.
    #[arg(long)]
    model: Option<String>,
    /// How many GPUs the workload asks for.
    #[arg(long, default_value = "1")]
    gpus: u32,
    /// The RayCluster of a RayJob or RayService.
    #[arg(long)]
    ray_cluster: Option<String>,
    /// The Kueue queue: a job's LocalQueue, a LocalQueue's ClusterQueue.
    #[arg(long)]
    queue: Option<String>,
    #[command(flatten)]
    from: From,
}

/// What is printed.
pub(super) fn answer(flags: &Dashboards) -> Result<String, Failed> {
    match &flags.command {
        Command::List { from, json } => from.library().map(|library| list(&library, *json)),
        Command::Render(render) => render.answer(),
    }
}

impl From {
    fn library(&self) -> Result<Arc<Library>, Failed> {
        let told = |file: Option<&PathBuf>, problems: Vec<String>| {
            let place = file.map(|file| format!("{}:", file.display())).unwrap_or_default();
            let lines: Vec<String> = problems.into_iter().map(|problem| format!("{place}{problem}")).collect();
            Failed::Input(lines.join("\n"))
        };
        let words = |problems: &[crate::dashboards::TemplateProblem]| {
            problems.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        if let Some(path) = &self.config {
            let loaded = config::load(path)
                .map_err(|problems| told(Some(path), problems.iter().map(ToString::to_string).collect()))?;
            if !loaded.templates.is_empty() {
                return Err(told(None, words(&loaded.templates)));
            }
            return Ok(loaded.config.live.dashboards.library);
        }
        let (files, unread) = match &self.folder {
            None => Default::default(),
            Some(folder) => config::template_files(folder, &config::System)
                .map_err(|message| Failed::Input(format!("--folder: {message}")))?,
        };
        let (library, mut problems) = Library::compile(&files, &Settings::default());
        problems.extend(unread);
        problems.sort();
        if problems.is_empty() { Ok(library) } else { Err(told(None, words(&problems))) }
    }
}

fn targets(template: &Template) -> Vec<String> {
    let word = |target: &crate::dashboards::Target| match target.engine {
        Some(engine) => format!("{} ({})", target.kind, engine.word()),
        None => target.kind.to_string(),
    };
    template.targets().iter().map(word).collect()
}

fn list(library: &Library, json: bool) -> String {
    let mut out = String::new();
    if json {
        for template in library.templates() {
            let line = json!({
                "name": template.name(),
                "title": template.title(),
                "description": template.description(),
                "order": template.order(),
                "for": targets(template),
                "file": template.file(),
            });
            let _ = writeln!(out, "{line}");
        }
        return out;
    }
    let rows: Vec<[String; 3]> =
        std::iter::once(["NAME", "TITLE", "FOR"].map(str::to_owned))
            .chain(library.templates().iter().map(|template| {
                [template.name().to_owned(), template.title().to_owned(), targets(template).join(", ")]
            }))
            .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let (first, second) = (width(0), width(1));
    for [name, title, targets] in &rows {
        let _ = writeln!(out, "{name:first$}  {title:second$}  {targets}");
    }
    out
}

impl Render {
    fn answer(&self) -> Result<String, Failed> {
        let wrong = |message: String| Failed::Input(message);
        let library = self.from.library()?;
        let namespace = Namespace::parse(&self.namespace)
            .ok_or_else(|| wrong(format!("--namespace {:?} is no namespace's name", self.namespace)))?;
        let name = WorkloadName::parse(&self.name)
            .ok_or_else(|| wrong(format!("--name {:?} is no name of an object of a cluster", self.name)))?;
        let engine = match &self.engine {
            None => None,
            Some(word) => {
                let words = Engine::ALL.map(Engine::word).join(", ");
                Some(Engine::parse(word).ok_or_else(|| wrong(format!("--engine {word:?}: known are {words}")))?)
            }
        };
        let (template, kind, engine) = match Kind::parse(&self.kind) {
            Some(kind) => (None, kind, engine),
            None => {
                let Some(template) = library.template(&self.kind) else {
                    let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
                    let names: Vec<&str> = library.templates().iter().map(|template| template.name()).collect();
                    let message = format!(
                        "{:?} is neither a kind ({}, Project) nor a template ({})",
                        self.kind,
                        kinds.join(", "),
                        names.join(", ")
                    );
                    return Err(wrong(message));
                };
                let target = template.targets()[0];
                (Some(template), target.kind, engine.or(target.engine))
            }
        };
        let mut workload = Workload::bare(kind, namespace.clone(), name).with_runtime(engine);
        if kind == Kind::Project {
            workload = Workload::project(&namespace, self.gpus);
        }
        let text = |value: &Option<String>| value.as_deref().and_then(Workload::text);
        workload.gpus = self.gpus;
        workload.model = text(&self.model);
        workload.queue = text(&self.queue);
        workload.ray_cluster = text(&self.ray_cluster);
        let found: Vec<&Arc<Template>> = match template {
            Some(template) => vec![template],
            None => library.of(&workload).collect(),
        };
        match found.as_slice() {
            [template] => {
                let value: Value = serde_json::from_str(&template.render(&workload))
                    .map_err(|error| wrong(format!("the template {}: {error}", template.name())))?;
                Ok(format!("{value:#}\n"))
            }
            [] => Err(wrong(format!("no template is for {kind}"))),
            several => {
                let names: Vec<&str> = several.iter().map(|template| template.name()).collect();
                Err(wrong(format!("several templates are for {kind}; name one of {}", names.join(", "))))
            }
        }
    }
}
