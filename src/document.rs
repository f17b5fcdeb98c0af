//! Is this JSON a Perses object that may pass, and what must be left out of one that is read?
//!
//! Bodies are read strictly, because Perses reads them loosely: a key in another case, a key twice, or a second document
//! behind the first would mean one thing here and another there. What passes is written anew. Pure: no rights, no sockets.

mod object;
mod rules;
mod strict;
mod views;

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

pub use object::{Kind, Object};
pub use rules::{Target, datasource_target};
pub use strict::read_strict;
pub use views::{
    Told, blank_global_datasource, may_need_strip, minimal_config, strip, virtual_global_datasource, virtual_project,
};

/// Text that is not the JSON we take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong, for a person.
    pub message: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Why an object does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentError {
    /// It is not what its route takes.
    Malformed(Malformed),
    /// It names another project or object than the path.
    Mismatch {
        /// `metadata.project`, for example.
        field: &'static str,
        /// What the path says.
        path: String,
    },
    /// It has something that nobody may store through us.
    Unsupported {
        /// Where.
        path: String,
        /// What to do.
        message: &'static str,
    },
    /// A datasource of a kind that cannot be confined.
    DatasourceKind {
        /// The kind.
        kind: String,
    },
    /// A datasource whose URL is no configured backend.
    BackendUrl,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => write!(f, "bad request: {malformed}"),
            Self::Mismatch { field, path } => {
                write!(f, "bad request: {field} must be {path:?}, as in the path, or be left out")
            }
            Self::Unsupported { path, message } => write!(f, "{path}: {message}"),
            Self::DatasourceKind { kind } => {
                write!(
                    f,
                    "datasources of kind {kind:?} cannot be confined to namespaces; only PrometheusDatasource can (setting metrics_backends)"
                )
            }
            Self::BackendUrl => f.write_str(
                "its URL is not one of the configured metrics backends (setting metrics_backends, url and also_urls)",
            ),
        }
    }
}

impl From<Malformed> for DocumentError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// The tag of a dashboard that lists leave out.
pub const HIDDEN: &str = "perses-sidecar-hidden";

/// One entry of a list that Perses answered, in its own bytes.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// `metadata.project`
    pub project: Option<Cow<'a, str>>,
    /// `metadata.name`
    pub name: Cow<'a, str>,
    /// Whether lists leave it out: it is tagged [`HIDDEN`].
    pub hidden: bool,
    /// The whole entry.
    pub raw: &'a RawValue,
}

/// Reads a list that Perses answered. An entry without a name is left out: nobody could say whose it is.
///
/// # Errors
/// When it is no JSON array.
pub fn list(body: &[u8]) -> Result<Vec<Entry<'_>>, Malformed> {
    let items: Option<Vec<&RawValue>> =
        serde_json::from_slice(body).map_err(|error| Malformed { message: format!("not a list: {error}") })?;
    Ok(items
        .unwrap_or_default()
        .into_iter()
        .filter_map(|raw| {
            let item: Item<'_> = serde_json::from_str(raw.get()).ok()?;
            let hidden = item.metadata.is_hidden();
            Some(Entry { project: item.metadata.project, name: item.metadata.name, hidden, raw })
        })
        .collect())
}

/// Whether lists leave an object out that Perses answered by itself.
#[must_use]
pub fn is_left_out(object: &[u8]) -> bool {
    serde_json::from_slice::<Item<'_>>(object).is_ok_and(|item| item.metadata.is_hidden())
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    project: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tags: Option<Vec<Cow<'a, str>>>,
}

impl Metadata<'_> {
    fn is_hidden(&self) -> bool {
        self.tags.as_ref().is_some_and(|tags| tags.iter().any(|tag| tag == HIDDEN))
    }
}

#[cfg(test)]
mod tests;
