//! Objects of the cluster as the API server lists and watches them: discovery, pages, versions, bookmarks, and versions
//! that it has forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::rbac::{Asked, Rbac, Who};
use super::serve::{reply, status};
use super::{Cluster, Endpoint};
use crate::encoding::pairs;

/// A resource: group and plural.
type Resource = (String, String);

/// An object's place: namespace, empty for none, and name.
type Place = (String, String);

#[derive(Default)]
pub(super) struct Objects {
    /// Grows with every change.
    version: u64,
    /// Kinds that are served, by group, version and plural.
    served: BTreeMap<(String, String, String), String>,
    stored: BTreeMap<Resource, BTreeMap<Place, Value>>,
    /// What happened, in order.
    log: Vec<(u64, Resource, Value)>,
    /// Up to here it is forgotten.
    forgotten: u64,
    watches: Vec<Watch>,
}

struct Watch {
    resource: Resource,
    namespace: String,
    events: UnboundedSender<Bytes>,
}

/// A path below `/apis`.
pub(super) struct Path {
    group: String,
    version: String,
    /// Empty when the versions of a group are asked for.
    plural: String,
    namespace: String,
    watch: bool,
}

impl Path {
    pub(super) fn read(path: &str, query: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix("/apis/")?.split('/').collect();
        let (group, version, namespace, plural) = match parts[..] {
            [group, version] => (group, version, "", ""),
            [group, version, plural] => (group, version, "", plural),
            [group, version, "namespaces", namespace, plural] => (group, version, namespace, plural),
            _ => return None,
        };
        let known = !["project.openshift.io", "user.openshift.io", "oauth.openshift.io"].contains(&group)
            && !group.ends_with("ization.k8s.io")
            && !group.ends_with("entication.k8s.io");
        let watch = pairs(query).iter().any(|(key, value)| key == "watch" && value == "true");
        let [group, version, namespace, plural] = [group, version, namespace, plural].map(str::to_owned);
        known.then_some(Self { group, version, plural, namespace, watch })
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        match (self.plural.is_empty(), self.watch) {
            (true, _) => Endpoint::Apis,
            (false, false) => Endpoint::WorkloadLists,
            (false, true) => Endpoint::WorkloadWatches,
        }
    }
}

fn kind_of(plural: &str, object: &Value) -> (String, String, String, String) {
    let (group, version) = object["apiVersion"].as_str().unwrap_or_default().split_once('/').unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    (group.to_owned(), version.to_owned(), plural.to_owned(), kind.to_owned())
}

fn plural_of(object: &Value) -> String {
    object["kind"].as_str().unwrap_or_default().to_lowercase() + "s"
}

impl Objects {
    fn tell(&mut self, resource: &Resource, place: &Place, kind: &str, object: &Value) {
        let event = json!({ "type": kind, "object": object });
        let line = Bytes::from(event.to_string() + "\n");
        self.watches.retain(|watch| {
            let theirs = watch.resource == *resource && (watch.namespace.is_empty() || watch.namespace == place.0);
            if theirs { watch.events.send(line.clone()).is_ok() } else { !watch.events.is_closed() }
        });
        self.log.push((self.version, resource.clone(), event));
    }

    fn put(&mut self, mut object: Value) {
        let (group, version, plural, kind) = kind_of(&plural_of(&object), &object);
        self.served.entry((group.clone(), version, plural.clone())).or_insert(kind);
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        let (resource, place) = ((group, plural), (text("namespace"), text("name")));
        let before = self.stored.entry(resource.clone()).or_default().insert(place.clone(), object.clone());
        self.tell(&resource, &place, if before.is_some() { "MODIFIED" } else { "ADDED" }, &object);
    }

    fn remove(&mut self, resource: &Resource, place: &Place) {
        let Some(mut object) = self.stored.get_mut(resource).and_then(|stored| stored.remove(place)) else { return };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell(resource, place, "DELETED", &object);
    }

    fn groups(&self) -> Value {
        let mut groups: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (group, version, _) in self.served.keys() {
            groups.entry(group).or_default().insert(version);
        }
        let versions = |group: &str, versions: &BTreeSet<&str>| -> Vec<Value> {
            let one = |version: &&str| json!({ "groupVersion": format!("{group}/{version}"), "version": version });
            versions.iter().map(one).collect()
        };
        let groups: Vec<Value> =
            groups.iter().map(|(group, all)| json!({ "name": group, "versions": versions(group, all) })).collect();
        json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
    }

    fn resources(&self, path: &Path) -> Response<Full<Bytes>> {
        let of_version = |key: &&(String, String, String)| key.0 == path.group && key.1 == path.version;
        let resources: Vec<Value> =
            self.served.keys().filter(of_version).map(|key| json!({ "name": key.2, "namespaced": true })).collect();
        if resources.is_empty() {
            return missing();
        }
        let version = format!("{}/{}", path.group, path.version);
        reply(200, json!({ "kind": "APIResourceList", "groupVersion": version, "resources": resources }).to_string())
    }

    /// A page; its token is the place of the last object on it, and the version of the list.
    fn list(&self, path: &Path, query: &str) -> Response<Full<Bytes>> {
        let pairs = pairs(query);
        let get = |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let limit: usize = get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
        let token: Option<(u64, String, String)> = get("continue").and_then(|token| serde_json::from_str(token).ok());
        if token.as_ref().is_some_and(|(version, ..)| *version < self.forgotten) {
            return status(410, "The provided continue parameter is too old");
        }
        let version = token.as_ref().map_or(self.version, |(version, ..)| *version);
        let after = token.map(|(_, namespace, name)| (namespace, name));
        let empty = BTreeMap::new();
        let all = self.stored.get(&(path.group.clone(), path.plural.clone())).unwrap_or(&empty);
        let here = |place: &Place| path.namespace.is_empty() || path.namespace == place.0;
        let wanted = |(place, _): &(&Place, &Value)| here(place) && after.as_ref().is_none_or(|after| **place > *after);
        let mut rest = all.iter().filter(wanted).peekable();
        let (mut items, mut last) = (Vec::new(), None);
        while items.len() < limit
            && let Some((place, object)) = rest.next()
        {
            items.push(object.clone());
            last = Some(place.clone());
        }
        let mut metadata = json!({ "resourceVersion": version.to_string() });
        if let (Some(_), Some((namespace, name))) = (rest.peek(), last) {
            metadata["continue"] = json!(json!([version, namespace, name]).to_string());
        }
        reply(200, json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items }).to_string())
    }

    fn watch(&mut self, path: &Path, query: &str) -> Events {
        let (events, receiver) = unbounded_channel();
        let pairs = pairs(query);
        let from = pairs.iter().find(|(known, _)| known == "resourceVersion");
        let from: u64 = from.and_then(|(_, version)| version.parse().ok()).unwrap_or_default();
        let resource = (path.group.clone(), path.plural.clone());
        if from < self.forgotten {
            let gone = json!({ "type": "ERROR", "object": { "kind": "Status", "code": 410, "reason": "Expired" } });
            let _ = events.send(Bytes::from(gone.to_string() + "\n"));
            return Events(receiver);
        }
        let here = |event: &Value| {
            path.namespace.is_empty() || event["object"]["metadata"]["namespace"] == json!(path.namespace)
        };
        for (_, _, event) in self.log.iter().filter(|(at, of, event)| *at > from && *of == resource && here(event)) {
            let _ = events.send(Bytes::from(event.to_string() + "\n"));
        }
        let bookmark =
            json!({ "type": "BOOKMARK", "object": { "metadata": { "resourceVersion": self.version.to_string() } } });
        let _ = events.send(Bytes::from(bookmark.to_string() + "\n"));
        self.watches.push(Watch { resource, namespace: path.namespace.clone(), events });
        Events(receiver)
    }
}

fn missing() -> Response<Full<Bytes>> {
    status(404, "the server could not find the requested resource")
}

/// What is answered to somebody who may ask.
pub(super) enum Answer {
    Whole(Response<Full<Bytes>>),
    Watch(Events),
}

pub(super) fn answer(objects: &mut Objects, rbac: &Rbac, caller: &Who, path: &Path, query: &str) -> Answer {
    // Everybody may ask which APIs there are.
    if path.plural.is_empty() {
        return Answer::Whole(objects.resources(path));
    }
    let asked = Asked {
        namespace: path.namespace.clone(),
        verb: if path.watch { "watch" } else { "list" }.to_owned(),
        group: path.group.clone(),
        resource: path.plural.clone(),
        ..Asked::default()
    };
    if !rbac.allows(caller, &asked) {
        return Answer::Whole(status(403, "forbidden"));
    }
    if !objects.served.contains_key(&(path.group.clone(), path.version.clone(), path.plural.clone())) {
        return Answer::Whole(missing());
    }
    if path.watch { Answer::Watch(objects.watch(path, query)) } else { Answer::Whole(objects.list(path, query)) }
}

pub(super) fn groups(objects: &Objects) -> Response<Full<Bytes>> {
    reply(200, objects.groups().to_string())
}

/// The events of a watch, as its body.
pub(super) struct Events(UnboundedReceiver<Bytes>);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

impl Cluster {
    /// Stores an object of a kind, which is served from then on.
    pub fn put_object(&self, object: Value) {
        self.state().objects.put(object);
    }

    /// Deletes an object; of the one given, kind, namespace and name count.
    pub fn remove_object(&self, object: &Value) {
        let (group, _, plural, _) = kind_of(&plural_of(object), object);
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        self.state().objects.remove(&(group, plural), &(text("namespace"), text("name")));
    }

    /// Serves a kind no more, with all objects of it, as when its CRD is deleted.
    pub fn stop_serving(&self, group: &str, plural: &str) {
        let mut state = self.state();
        let objects = &mut state.objects;
        objects.served.retain(|(known, _, other), _| known != group || other != plural);
        let resource = (group.to_owned(), plural.to_owned());
        objects.stored.remove(&resource);
        objects.watches.retain(|watch| watch.resource != resource);
    }

    /// Ends every watch, as an API server does that stops.
    pub fn end_watches(&self) {
        self.state().objects.watches.clear();
    }

    /// Forgets what happened until now: who watches from before must list anew.
    pub fn forget_versions(&self) {
        let mut state = self.state();
        let objects = &mut state.objects;
        objects.version += 1;
        objects.forgotten = objects.version;
        objects.log.clear();
        objects.watches.clear();
    }

    /// How many watch now.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.state().objects.watches.iter().filter(|watch| !watch.events.is_closed()).count()
    }
}
