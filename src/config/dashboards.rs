//! `dashboards`: what is shown for workloads that nobody made a dashboard for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::decode::Surroundings;
use super::section::{HOUR, Notes, SECOND, Section};
use super::units;
use crate::dashboards::{Library, Settings, TemplateProblem};
use crate::names::ObjectName;
use crate::yaml::Problem;

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
    let (files, unread) = folder
        .filter(|_| here)
        .map_or(Ok(Default::default()), |folder| template_files(&folder, around))
        .unwrap_or_else(|message| {
            section.problem(notes, "folder", message);
            Default::default()
        });
    let (library, mut problems) = Library::compile(&files, &settings);
    problems.extend(unread);
    problems.sort();
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

/// Files by path and text, and what is wrong with those that hold no text.
type Files = (Vec<(String, String)>, Vec<TemplateProblem>);

/// The files of a folder that can hold templates, in the order of their names.
///
/// # Errors
/// When the folder or one of them cannot be read, for a person.
pub fn template_files(folder: &Path, around: &dyn Surroundings) -> Result<Files, String> {
    let mut names = around.folder(folder).map_err(|error| format!("{} cannot be read: {error}", folder.display()))?;
    names.retain(|name| [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end)));
    names.sort_unstable();
    if names.len() > MOST_TEMPLATES {
        return Err(format!("holds {} files; at most {MOST_TEMPLATES} are read", names.len()));
    }
    let (mut files, mut problems) = Files::default();
    for name in names {
        let path = folder.join(name);
        let bytes = around.file(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let file = path.display().to_string();
        match String::from_utf8(bytes) {
            Ok(text) => files.push((file, text)),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let before = String::from_utf8_lossy(good);
                let line = before.rsplit('\n').next().unwrap_or_default();
                let (row, column) = (before.matches('\n').count() + 1, line.chars().count() + 1);
                let problem = Problem::new(row, column, "", "this is not UTF-8; save the file in that encoding");
                problems.push(TemplateProblem { file, problem });
            }
        }
    }
    Ok((files, problems))
}
