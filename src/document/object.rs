//! A Perses object that a client sent: read, made to agree with its path, checked, and written anew.

use serde_json::{Map, Value};

use super::{DocumentError, Malformed, read_strict, rules, views};
use crate::names::ObjectName;

/// What kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are Perses' own")]
pub enum Kind {
    Project,
    Dashboard,
    EphemeralDashboard,
    Datasource,
    Folder,
    Secret,
    Variable,
    GlobalDatasource,
    GlobalSecret,
    GlobalVariable,
}

impl Kind {
    /// Perses' word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Project => "Project",
            Self::Dashboard => "Dashboard",
            Self::EphemeralDashboard => "EphemeralDashboard",
            Self::Datasource => "Datasource",
            Self::Folder => "Folder",
            Self::Secret => "Secret",
            Self::Variable => "Variable",
            Self::GlobalDatasource => "GlobalDatasource",
            Self::GlobalSecret => "GlobalSecret",
            Self::GlobalVariable => "GlobalVariable",
        }
    }
}

/// An object of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    kind: Kind,
    metadata: Map<String, Value>,
    spec: Value,
}

fn malformed(message: impl Into<String>) -> DocumentError {
    DocumentError::Malformed(Malformed { message: message.into() })
}

impl Object {
    /// Reads an object: `kind` absent or as expected, `metadata` an object of known keys, `spec` an object (a list for
    /// folders of older versions), nothing else.
    ///
    /// # Errors
    /// [`DocumentError::Malformed`]
    pub fn read(bytes: &[u8], kind: Kind) -> Result<Self, DocumentError> {
        let Value::Object(mut map) = read_strict(bytes)? else { return Err(malformed("expected a JSON object")) };
        match map.remove("kind") {
            None => {}
            Some(Value::String(word)) if word.is_empty() || word == kind.word() => {}
            Some(other) => return Err(malformed(format!("kind must be {:?}, not {other}", kind.word()))),
        }
        let Some(Value::Object(metadata)) = map.remove("metadata") else {
            return Err(malformed("metadata is missing"));
        };
        for (key, value) in &metadata {
            let good = match key.as_str() {
                "name" | "project" | "createdAt" | "updatedAt" => value.is_string(),
                "version" => value.is_u64(),
                "tags" => value.as_array().is_some_and(|tags| tags.iter().all(Value::is_string)),
                _ => return Err(malformed(format!("metadata.{key} is not known"))),
            };
            if !good {
                return Err(malformed(format!("metadata.{key} has the wrong type")));
            }
        }
        let spec = map.remove("spec").unwrap_or_else(|| Value::Object(Map::new()));
        if !(spec.is_object() || kind == Kind::Folder && spec.is_array()) {
            return Err(malformed("spec must be an object"));
        }
        if let Some(key) = map.keys().next() {
            return Err(malformed(format!("the key {key:?} is not known")));
        }
        Ok(Self { kind, metadata, spec })
    }

    /// `metadata.project`, as given.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.metadata.get("project").and_then(Value::as_str)
    }

    /// `metadata.name`, as given.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.metadata.get("name").and_then(Value::as_str)
    }

    /// Makes the metadata agree with the path: what is empty is filled, what is equal is written as the path spells it.
    ///
    /// # Errors
    /// [`DocumentError::Mismatch`] for another name or project.
    pub fn settle(&mut self, project: Option<&ObjectName>, name: &ObjectName) -> Result<(), DocumentError> {
        let agree = |given: Option<&str>, field, path: &ObjectName| match given {
            None | Some("") => Ok(()),
            Some(text) if ObjectName::parse(text).as_ref() == Some(path) => Ok(()),
            Some(_) => Err(DocumentError::Mismatch { field, path: path.to_string() }),
        };
        agree(self.name(), "metadata.name", name)?;
        self.metadata.insert("name".to_owned(), Value::String(name.to_string()));
        match project {
            Some(project) => {
                agree(self.project(), "metadata.project", project)?;
                self.metadata.insert("project".to_owned(), Value::String(project.to_string()));
            }
            None => {
                self.metadata.remove("project");
            }
        }
        Ok(())
    }

    /// Refuses what nobody may store through us. `knows` says whether a URL is one of the configured backends'.
    ///
    /// # Errors
    /// [`DocumentError`], with the path.
    pub fn check_write(&self, knows: &dyn Fn(&str) -> bool) -> Result<(), DocumentError> {
        match self.kind {
            Kind::Datasource | Kind::GlobalDatasource => rules::datasource(&self.spec, "spec", knows),
            Kind::Dashboard | Kind::EphemeralDashboard => {
                rules::no_active_content(&self.spec, "spec")?;
                let datasources = self.spec.get("datasources").and_then(Value::as_object);
                for (name, spec) in datasources.into_iter().flatten() {
                    rules::datasource(spec, &format!("spec.datasources.{name}"), knows)?;
                }
                Ok(())
            }
            Kind::Secret | Kind::GlobalSecret => rules::secret(&self.spec, "spec"),
            Kind::Variable | Kind::GlobalVariable | Kind::Folder | Kind::Project => {
                rules::no_active_content(&self.spec, "spec")
            }
        }
    }

    /// Puts back what [`strip`](super::strip) leaves out of reads, where its place still exists.
    pub fn keep_hidden(&mut self, stored: &Value) {
        if let Some(stored) = stored.get("spec") {
            views::restore(&mut self.spec, stored);
        }
    }

    /// The object, written anew.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        let mut map = Map::new();
        map.insert("kind".to_owned(), Value::String(self.kind.word().to_owned()));
        map.insert("metadata".to_owned(), Value::Object(self.metadata));
        map.insert("spec".to_owned(), self.spec);
        Value::Object(map).to_string().into_bytes()
    }
}
