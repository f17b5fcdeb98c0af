//! A pod that has our sidecar already, taken back to what it was. What the status annotation says is used for nothing but
//! this: whatever it claims, the pod is built anew afterwards, as any other would be.

use serde_json::{Map, Value, json};

use super::asked::Wishes;
use super::profile::Profiles;
use super::{Refused, SIDECAR, VOLUMES, arguments, handlers, refused};

/// The lists in which a container may stand.
pub(super) const LISTS: [&str; 2] = ["containers", "initContainers"];

/// What was taken out, and where it stood.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Existing {
    pub(super) container: Option<(&'static str, usize, Value)>,
    pub(super) volumes: Vec<(usize, Value)>,
}

/// The hook that native mode gives to Perses.
pub(super) fn pause() -> Value {
    json!({ "sleep": { "seconds": 5 } })
}

fn named(list: &Value, name: &str) -> Vec<usize> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    (0..list.len()).filter(|at| list[*at].get("name").and_then(Value::as_str) == Some(name)).collect()
}

/// The container of a name in a list of the pod.
pub(super) fn container_mut<'p>(pod: &'p mut Value, list: &str, name: &str) -> Option<&'p mut Value> {
    let list = pod.get_mut("spec")?.get_mut(list)?.as_array_mut()?;
    list.iter_mut().find(|container| container.get("name").and_then(Value::as_str) == Some(name))
}

/// Takes our parts out of a pod, or finds that there are none.
pub(super) fn take_out(pod: &mut Value, wishes: &Wishes, profiles: &Profiles) -> Result<Existing, Refused> {
    let mut existing = Existing::default();
    for list in LISTS {
        let found = named(&pod["spec"][list], SIDECAR);
        if found.len() > 1 {
            return refused(format!("several containers are called {SIDECAR}"));
        }
        for at in found {
            let Some(containers) = pod["spec"][list].as_array_mut() else { continue };
            let image = containers[at].get("image").and_then(Value::as_str).unwrap_or_default();
            if !profiles.is_ours(image) || existing.container.is_some() {
                return refused(format!(
                    "a container is called {SIDECAR} already, with the image {image:?}; give it another name"
                ));
            }
            existing.container = Some((list, at, containers.remove(at)));
        }
    }
    let mut at = 0;
    let mut position = 0;
    while let Some(volume) = pod["spec"]["volumes"].get(at) {
        let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
        if !name.starts_with(VOLUMES) {
            at += 1;
        } else if existing.container.is_none() {
            return refused(format!("the volume {name:?} has a name of ours ({VOLUMES}…); give it another one"));
        } else if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
            existing.volumes.push((position, volumes.remove(at)));
        }
        position += 1;
    }
    if existing.container.is_some() {
        put_back(pod, wishes)?;
    }
    Ok(existing)
}

fn put_back(pod: &mut Value, wishes: &Wishes) -> Result<(), Refused> {
    let unfit = || {
        Refused(format!(
            "the pod has a container {SIDECAR}, but its status annotation is missing or does not fit; take the \
             sidecar's parts out of the template and let the webhook add them"
        ))
    };
    let status: Value = wishes.status.as_deref().and_then(|text| serde_json::from_str(text).ok()).ok_or_else(unfit)?;
    let before = status.get("before").and_then(Value::as_object).ok_or_else(unfit)?;
    let name = status.get("container").and_then(Value::as_str).ok_or_else(unfit)?;
    let strings = |key: &str| -> Vec<String> {
        let list = before.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let Some(container) = container_mut(pod, "containers", name) else {
        return Err(unfit());
    };
    arguments::put_back(
        container,
        strings("flags"),
        before.get("image_args").is_some().then(|| strings("image_args")),
    )?;
    if let Some(ports) = before.get("ports").and_then(Value::as_array) {
        match container.get_mut("ports") {
            Some(Value::Array(list)) => list.splice(0..0, ports.iter().cloned()).for_each(drop),
            _ => container["ports"] = json!(ports),
        }
    }
    let empty = Map::new();
    handlers::put_back(container, before.get("handlers").and_then(Value::as_object).unwrap_or(&empty))?;
    if before.get("pause").is_some()
        && container.pointer("/lifecycle/preStop") == Some(&pause())
        && let Some(Value::Object(lifecycle)) = container.get_mut("lifecycle")
    {
        lifecycle.remove("preStop");
        if lifecycle.is_empty()
            && let Value::Object(container) = container
        {
            container.remove("lifecycle");
        }
    }
    Ok(())
}
