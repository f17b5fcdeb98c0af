//! Kinds that live in no project. Whoever has a namespace may use global datasources and variables; only administrators
//! see where a datasource points.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::{Brought, Catalog, nonsense, pass, pass_document, refuse_document, to_bytes, write_array};
use crate::access::{Grant, Scope};
use crate::document::{self, Kind, Object};
use crate::names::ObjectName;
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;
use crate::route::{Global, GlobalCall, ListQuery};

const fn kind_of(kind: Global) -> Kind {
    match kind {
        Global::Datasources => Kind::GlobalDatasource,
        Global::Secrets => Kind::GlobalSecret,
        Global::Variables => Kind::GlobalVariable,
    }
}

impl Catalog {
    pub(super) async fn global(
        &self,
        grant: &Grant,
        kind: Global,
        call: &GlobalCall,
        brought: &Brought<'_>,
    ) -> Result<Reply, Refusal> {
        match call {
            GlobalCall::List(query) => self.list_global(grant, kind, query).await,
            GlobalCall::Read(name) => self.read_global(grant, kind, name).await,
            GlobalCall::Create | GlobalCall::Update(_) => {
                let mut object = Object::read(&brought.body, kind_of(kind)).map_err(|error| refuse_document(&error))?;
                let name = match call {
                    GlobalCall::Update(name) => name.clone(),
                    _ => object.name().and_then(ObjectName::parse).ok_or_else(|| {
                        Refusal::new(Reason::MalformedBody, "bad request: metadata.name must be a name")
                    })?,
                };
                brought.names(None, Some(&name));
                object.settle(None, &name).map_err(|error| refuse_document(&error))?;
                object.check_write(&|url| (brought.knows)(url)).map_err(|error| refuse_document(&error))?;
                if matches!(call, GlobalCall::Update(_))
                    && let Some(stored) = grant.stored()
                {
                    let stored = self.perses.ask(stored).await?;
                    if stored.status == StatusCode::OK && document::may_need_strip(&stored.body) {
                        let stored: Value = serde_json::from_slice(&stored.body).map_err(nonsense)?;
                        object.keep_hidden(&stored);
                    }
                }
                pass_document(self.perses.ask(grant.request(object.into_bytes().into())?).await?)
            }
            GlobalCall::Delete(_) => pass(self.perses.ask(grant.request(Bytes::new())?).await?),
        }
    }

    async fn list_global(&self, grant: &Grant, kind: Global, query: &ListQuery) -> Result<Reply, Refusal> {
        let blanked = match grant.scope() {
            Scope::Nothing => return Ok(Reply::json(StatusCode::OK, &b"[]"[..])),
            Scope::Cluster => false,
            _ => true,
        };
        let answer = self.lists.ask(grant.request(Bytes::new())?).await?;
        if answer.status != StatusCode::OK {
            return pass(answer);
        }
        let stored = document::list(&answer.body).map_err(nonsense)?;
        let mut pieces = Vec::with_capacity(stored.len());
        let mut names: Vec<&str> = Vec::with_capacity(stored.len());
        let strip = document::may_need_strip(&answer.body);
        for entry in &stored {
            names.push(&entry.name);
            if kind == Global::Datasources && blanked || strip {
                let mut value: Value = serde_json::from_str(entry.raw.get()).map_err(nonsense)?;
                document::strip(&mut value);
                if kind == Global::Datasources && blanked {
                    document::blank_global_datasource(&mut value);
                }
                pieces.push(value.to_string());
            } else {
                pieces.push(entry.raw.get().to_owned());
            }
        }
        if kind == Global::Datasources {
            let of_kind = query.kind.as_deref().is_none_or(|kind| kind.eq_ignore_ascii_case("PrometheusDatasource"));
            let prefix = query.name.as_ref().map_or("", |name| name.as_str());
            let stored_default = stored.iter().any(|entry| is_default(entry.raw.get()));
            for shown in self.shown.iter().filter(|shown| !names.contains(&shown.name.as_str())) {
                // Perses knows one default of a kind; a stored one wins.
                let default = shown.default && !stored_default;
                if of_kind
                    && shown.name.as_str().starts_with(prefix)
                    && query.default.is_none_or(|asked| asked == default)
                {
                    pieces.push(document::virtual_global_datasource(&shown.name, default).to_string());
                }
            }
        }
        Ok(Reply::json(StatusCode::OK, write_array(pieces.iter().map(String::as_str))))
    }

    async fn read_global(&self, grant: &Grant, kind: Global, name: &ObjectName) -> Result<Reply, Refusal> {
        let blanked = match grant.scope() {
            Scope::Nothing => return Err(Refusal::hidden()),
            Scope::Cluster => false,
            _ => true,
        };
        let answer = self.perses.ask(grant.request(Bytes::new())?).await?;
        if kind == Global::Datasources
            && answer.status == StatusCode::NOT_FOUND
            && let Some(shown) = self.shown.iter().find(|shown| shown.name == *name)
        {
            let value = document::virtual_global_datasource(&shown.name, shown.default);
            return Ok(Reply::json(StatusCode::OK, to_bytes(&value)?));
        }
        if kind == Global::Datasources && blanked && answer.status == StatusCode::OK {
            let mut value: Value = serde_json::from_slice(&answer.body).map_err(nonsense)?;
            document::strip(&mut value);
            document::blank_global_datasource(&mut value);
            return Ok(Reply::json(StatusCode::OK, to_bytes(&value)?));
        }
        pass_document(answer)
    }
}

fn is_default(raw: &str) -> bool {
    serde_json::from_str::<Value>(raw).is_ok_and(|value| value.pointer("/spec/default") == Some(&Value::Bool(true)))
}
