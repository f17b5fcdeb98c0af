//! `dashboards`: what is shown for workloads that nobody made a dashboard for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::decode::Surroundings;
use super::section::{HOUR, Notes, SECOND, Section};
use super::units;
use crate::dashboards::{Library, Settings, TemplateProblem};
use crate::names::ObjectName;

/// The most files of templates.
const MOST_TEMPLATES: usize = 500;

/// `dashboards`: what is shown for workloads that nobody made a dashboard for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dashboards {
    /// `dashboards.enabled`, default true.
    pub enabled: bool,
    /// The templates that are built in, those of `dashboards.folder`, and the settings that all of them share.
    pub library: Arc<Library>,
}

pub(super) fn read(
    root: &mut Section<'_>,
    around: &dyn Surroundings,
    notes: &mut Notes,
) -> (Dashboards, Vec<TemplateProblem>) {
    let mut section = root.section("dashboards", notes);
    let enabled = section.flag("enabled", true, notes);
    let folder = section.file("folder", notes);
    let exclude = section.list("exclude", notes, |text| Ok(text.to_owned()));
    let name = |text: &str| {
        let name = ObjectName::parse(text).ok_or_else(|| format!("expected a datasource's name, not {text:?}"))?;
        Ok(name.to_string())
    };
    let settings = Settings {
        datasource: section.optional("datasource", notes, name, Clone::clone),
        min_step: lasting(&mut section, "min_step", 30 * SECOND, (SECOND, HOUR), notes),
        refresh_interval: lasting(&mut section, "refresh_interval", 15 * SECOND, (5 * SECOND, 24 * HOUR), notes),
        duration: lasting(&mut section, "duration", HOUR, (60 * SECOND, 31 * 24 * HOUR), notes),
        exclude,
    };
    // Templates of another machine are not here; the names of its own are not known either.
    let here = !around.is_elsewhere();
    let files = folder
        .filter(|_| here)
        .map_or(Ok(Vec::new()), |folder| template_files(&folder, around))
        .unwrap_or_else(|message| {
            section.problem(notes, "folder", message);
            Vec::new()
        });
    let (library, problems) = Library::compile(&files, &settings);
    for name in settings.exclude.iter().filter(|name| here && problems.is_empty() && !library.knows(name)) {
        section.problem(notes, "exclude", format!("there is no template {name:?}"));
    }
    section.finish(notes);
    (Dashboards { enabled, library }, problems)
}

/// A duration as Perses and Prometheus write it.
fn lasting(
    section: &mut Section<'_>,
    key: &'static str,
    default: Duration,
    range: (Duration, Duration),
    notes: &mut Notes,
) -> String {
    units::write_duration(section.duration(key, default, range, notes))
}

/// The files of a folder that can hold templates, by path and text, in the order of their names.
///
/// # Errors
/// When the folder or one of them cannot be read, for a person.
pub fn template_files(folder: &Path, around: &dyn Surroundings) -> Result<Vec<(String, String)>, String> {
    let mut names = around.folder(folder).map_err(|error| format!("{} cannot be read: {error}", folder.display()))?;
    names.retain(|name| [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end)));
    names.sort_unstable();
    if names.len() > MOST_TEMPLATES {
        return Err(format!("holds {} files; at most {MOST_TEMPLATES} are read", names.len()));
    }
    let one = |name: String| {
        let path = folder.join(name);
        let bytes = around.file(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))?;
        Ok((path.display().to_string(), text))
    };
    names.into_iter().map(one).collect()
}
