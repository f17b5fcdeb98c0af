//! All templates: those that are built in, and those of a folder, which add to them or stand for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::compile::{self, Source, TemplateProblem};
use super::index::Place;
use super::template::Template;
use super::workload::Workload;
use crate::names::{Namespace, ObjectName};

/// The template that reaches what is gone.
const PAST_RUNS: &str = "past-runs";

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        const BUILT_IN: &[(&str, &str)] =
            &[$((concat!("config/templates/", $name), include_str!(concat!("../../config/templates/", $name)))),*];
    };
}

built_in!(
    "gpus.yaml",
    "kserve.yaml",
    "kueue.yaml",
    "llm-d.yaml",
    "mlserver.yaml",
    "notebook.yaml",
    "openvino.yaml",
    "part-about.yaml",
    "part-gpus.yaml",
    "part-pods.yaml",
    "past-runs.yaml",
    "project.yaml",
    "pytorch.yaml",
    "ray.yaml",
    "tgis.yaml",
    "training.yaml",
    "trainjob.yaml",
    "triton.yaml",
    "vllm.yaml",
);

/// What all dashboards share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The datasource that queries name, if they name none; without it they mean the default.
    pub datasource: Option<String>,
    /// The least step of a query, as Prometheus writes durations: the scrape interval of most of what is shown.
    pub min_step: String,
    /// How often an open dashboard asks anew.
    pub refresh_interval: String,
    /// What an opened dashboard shows.
    pub duration: String,
    /// Names of templates that nobody gets.
    pub exclude: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            datasource: None,
            min_step: "30s".to_owned(),
            refresh_interval: "15s".to_owned(),
            duration: "1h".to_owned(),
            exclude: Vec::new(),
        }
    }
}

/// All templates, by order and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Library {
    templates: Vec<Arc<Template>>,
    /// Names of those that nobody gets.
    excluded: Vec<String>,
}

/// The dashboard of a workload, not yet written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dashboard {
    /// What it looks like.
    pub template: Arc<Template>,
    /// What it shows.
    pub workload: Arc<Workload>,
}

/// Sources by name, of which later ones stand for earlier ones.
#[derive(Default)]
struct Sources {
    templates: BTreeMap<String, Source>,
    parts: BTreeMap<String, Source>,
}

impl Library {
    /// What is built in, and files of a folder by name and text. A file that is refused changes nothing: what it would have
    /// stood for stays.
    ///
    /// A configuration that is read again most often brings the same templates, so the last outcome is kept.
    #[must_use]
    pub fn compile(files: &[(String, String)], settings: &Settings) -> (Arc<Self>, Vec<TemplateProblem>) {
        type Outcome = (Vec<(String, String)>, Settings, (Arc<Library>, Vec<TemplateProblem>));
        static LAST: Mutex<Option<Outcome>> = Mutex::new(None);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of_files, of_settings, outcome)) = last.as_ref()
            && of_files == files
            && of_settings == settings
        {
            return outcome.clone();
        }
        let (library, problems) = Self::compile_all(files, settings);
        let outcome = (Arc::new(library), problems);
        *last = Some((files.to_vec(), settings.clone(), outcome.clone()));
        outcome
    }

    fn compile_all(files: &[(String, String)], settings: &Settings) -> (Self, Vec<TemplateProblem>) {
        let mut problems = Vec::new();
        let own = BUILT_IN.iter().map(|(file, text)| (*file, *text));
        let mut built_in = Sources::default();
        built_in.read(own, settings, true, &mut problems);
        let mut found = Sources::default();
        found.read(files.iter().map(|(file, text)| (file.as_str(), text.as_str())), settings, false, &mut problems);

        let part = |name: &str| found.parts.get(name).or_else(|| built_in.parts.get(name));
        let mut templates: BTreeMap<String, Template> = BTreeMap::new();
        let own = built_in.templates.values().map(|source| (source, true));
        for (source, trusted) in own.chain(found.templates.values().map(|source| (source, false))) {
            match with_parts(source, &part).and_then(|parts| compile::template(source, &parts, settings, trusted)) {
                Ok(template) => {
                    templates.insert(source.header.name.clone(), template);
                }
                Err(wrong) => problems.extend(wrong),
            }
        }
        let (excluded, templates): (Vec<_>, Vec<_>) =
            templates.into_values().partition(|template| settings.exclude.contains(&template.name));
        let mut templates: Vec<Arc<Template>> = templates.into_iter().map(Arc::new).collect();
        templates.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        problems.sort();
        problems.dedup();
        let excluded = excluded.into_iter().map(|template| template.name).collect();
        (Self { templates, excluded }, problems)
    }

    /// One file alone, with no part but its own.
    #[cfg(test)]
    pub(super) fn compile_one(file: &str, text: &str) -> Result<(), Vec<TemplateProblem>> {
        let source = compile::read(file, text)?;
        if source.header.part {
            let problems = compile::check_part(&source, &Settings::default(), false);
            return if problems.is_empty() { Ok(()) } else { Err(problems) };
        }
        compile::template(&source, &[], &Settings::default(), false).map(drop)
    }

    /// What is built in, with the default settings.
    #[must_use]
    pub fn built_in() -> Arc<Self> {
        Self::compile(&[], &Settings::default()).0
    }

    /// All of them, by order and name.
    #[must_use]
    pub fn templates(&self) -> &[Arc<Template>] {
        &self.templates
    }

    /// Whether there is a template of a name, excluded or not.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.template(name).is_some() || self.excluded.iter().any(|excluded| excluded == name)
    }

    /// The template of a name.
    #[must_use]
    pub fn template(&self, name: &str) -> Option<&Arc<Template>> {
        self.templates.iter().find(|template| template.name == name)
    }

    /// Those of a workload: all that name its kind and engine, or else all that name its kind without an engine.
    pub fn of<'l>(&'l self, workload: &'l Workload) -> impl Iterator<Item = &'l Arc<Template>> {
        let named = self.templates.iter().any(|template| template.fits(workload, Some(workload.engine)));
        let engine = named.then_some(workload.engine);
        self.templates.iter().filter(move |template| template.fits(workload, engine))
    }

    /// The dashboards of a namespace: of its workloads by kind and name, then of itself.
    pub fn dashboards<'l>(&'l self, place: &'l Place) -> impl Iterator<Item = Dashboard> + 'l {
        place.workloads().iter().chain([place.project()]).flat_map(|workload| {
            let make =
                |template: &Arc<Template>| Dashboard { template: Arc::clone(template), workload: Arc::clone(workload) };
            self.of(workload).map(make)
        })
    }

    /// The dashboard of a name, if it is one that some workload of the namespace has.
    #[must_use]
    pub fn listed(&self, place: &Place, namespace: &Namespace, name: &ObjectName) -> Option<Dashboard> {
        if let Some((template, named)) = self.resolve(namespace, name) {
            let workload = place.get(named.kind, &named.name)?;
            return self
                .of(workload)
                .any(|of| of.name == template.name)
                .then(|| Dashboard { template: Arc::clone(template), workload: Arc::clone(workload) });
        }
        // The name may have been cut.
        self.looks_ours(name).then(|| self.dashboards(place).find(|dashboard| dashboard.name() == name.as_str()))?
    }

    /// The dashboard of a name, also of a workload that is gone or never was: a link stays good. Where the workload's name
    /// was cut nobody knows the rest any more; then it is that of the namespace's past runs, which lists those that are gone.
    #[must_use]
    pub fn find(&self, place: Option<&Place>, namespace: &Namespace, name: &ObjectName) -> Option<Dashboard> {
        place.and_then(|place| self.listed(place, namespace, name)).or_else(|| {
            let (template, workload) = self.resolve(namespace, name).or_else(|| {
                self.templates.iter().find(|template| template.may_have_cut(name))?;
                Some((self.template(PAST_RUNS)?, Workload::project(namespace, 1)))
            })?;
            Some(Dashboard { template: Arc::clone(template), workload: Arc::new(workload) })
        })
    }

    /// Whether a name begins as those of our dashboards do.
    fn looks_ours(&self, name: &ObjectName) -> bool {
        self.templates.iter().any(|template| template.rest_of(name).is_some())
    }

    /// The template and the workload of a dashboard's name, for a link to something that is gone. See
    /// [`Template::workload_of`].
    #[must_use]
    pub fn resolve(&self, namespace: &Namespace, dashboard: &ObjectName) -> Option<(&Arc<Template>, Workload)> {
        self.templates.iter().find_map(|template| Some((template, template.workload_of(namespace, dashboard)?)))
    }
}

impl Dashboard {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.template.dashboard_name(&self.workload)
    }
}

/// The parts that a template takes in.
fn with_parts<'s>(
    source: &Source,
    part: &impl Fn(&str) -> Option<&'s Source>,
) -> Result<Vec<&'s Source>, Vec<TemplateProblem>> {
    let find = |name: &String| {
        part(name).ok_or_else(|| {
            let (line, column) = source.header.places[1];
            let message = format!("there is no part {name:?}");
            let problem = crate::yaml::Problem::new(line, column, "template.parts", message);
            vec![TemplateProblem { file: source.file.clone(), problem }]
        })
    };
    source.header.parts.iter().map(find).collect()
}

impl Sources {
    fn read<'f>(
        &mut self,
        files: impl Iterator<Item = (&'f str, &'f str)>,
        settings: &Settings,
        trusted: bool,
        problems: &mut Vec<TemplateProblem>,
    ) {
        for (file, text) in files {
            let source = match compile::read(file, text) {
                Ok(source) => source,
                Err(wrong) => {
                    problems.extend(wrong);
                    continue;
                }
            };
            let place = if source.header.part { &mut self.parts } else { &mut self.templates };
            if let Some(other) = place.get(&source.header.name) {
                let what = if source.header.part { "part" } else { "template" };
                let message = format!("{} has a {what} of this name too; that one counts", other.file);
                let (line, column) = source.header.places[0];
                let problem = crate::yaml::Problem::new(line, column, &format!("{what}.name"), message);
                problems.push(TemplateProblem { file: file.to_owned(), problem });
                continue;
            }
            let wrong = if source.header.part { compile::check_part(&source, settings, trusted) } else { Vec::new() };
            if wrong.is_empty() {
                place.insert(source.header.name.clone(), source);
            } else {
                problems.extend(wrong);
            }
        }
    }
}
