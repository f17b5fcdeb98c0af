//! JSON patches (RFC 6902): the smallest that turns one value into another without touching what is equal, so that nothing
//! which we did not read is ever written.

use serde_json::{Value, json};

/// The operations that turn `from` into `to`.
#[must_use]
pub fn between(from: &Value, to: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    differ(from, to, &mut String::new(), &mut operations);
    operations
}

fn differ(from: &Value, to: &Value, path: &mut String, out: &mut Vec<Value>) {
    let length = path.len();
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => {
            for (key, old) in from {
                push(path, key);
                match to.get(key) {
                    None => out.push(json!({ "op": "remove", "path": path })),
                    Some(new) => differ(old, new, path, out),
                }
                path.truncate(length);
            }
            for (key, new) in to.iter().filter(|(key, _)| !from.contains_key(*key)) {
                push(path, key);
                out.push(operation("add", path, new));
                path.truncate(length);
            }
        }
        (Value::Array(from), Value::Array(to)) => list(from, to, path, out),
        _ if from == to => {}
        _ => out.push(operation("replace", path, to)),
    }
}

/// `json!` would write the value down to copy it.
fn operation(op: &str, path: &str, value: &Value) -> Value {
    let mut operation = json!({ "op": op, "path": path });
    operation["value"] = value.clone();
    operation
}

/// Elements at the end come and go; one that comes or goes before is found by its neighbours.
fn list(from: &[Value], to: &[Value], path: &mut String, out: &mut Vec<Value>) {
    let length = path.len();
    let head = from.iter().zip(to).take_while(|(a, b)| same(a, b)).count();
    let tail = from[head..].iter().rev().zip(to[head..].iter().rev()).take_while(|(a, b)| same(a, b)).count();
    let (gone, come) = (&from[head..from.len() - tail], &to[head..to.len() - tail]);
    // From behind, so that places before stay what they are.
    for index in (0..gone.len()).rev() {
        push(path, &(head + index).to_string());
        out.push(json!({ "op": "remove", "path": path }));
        path.truncate(length);
    }
    for (index, new) in come.iter().enumerate() {
        push(path, &(head + index).to_string());
        out.push(operation("add", path, new));
        path.truncate(length);
    }
    let pairs = (0..head).map(|at| (at, at)).chain((1..=tail).rev().map(|back| (from.len() - back, to.len() - back)));
    for (before, after) in pairs {
        push(path, &after.to_string());
        differ(&from[before], &to[after], path, out);
        path.truncate(length);
    }
}

/// Whether two elements are one that may have changed: named things by their names, others if they are equal.
fn same(left: &Value, right: &Value) -> bool {
    match (left.get("name"), right.get("name")) {
        (Some(left), Some(right)) => left == right,
        (None, None) => left == right,
        _ => false,
    }
}

fn push(path: &mut String, key: &str) {
    path.push('/');
    path.push_str(&key.replace('~', "~0").replace('/', "~1"));
}

/// Applies a patch of ours.
///
/// # Errors
/// The operation that does not fit.
pub fn apply(value: &mut Value, operations: &[Value]) -> Result<(), String> {
    for operation in operations {
        let bad = || format!("the operation {operation} does not fit");
        let path = operation["path"].as_str().ok_or_else(bad)?;
        if path.is_empty() {
            *value = operation["value"].clone();
            continue;
        }
        let (parent, key) = path.rsplit_once('/').ok_or_else(bad)?;
        let key = key.replace("~1", "/").replace("~0", "~");
        let new = || operation.get("value").cloned().ok_or_else(bad);
        match (value.pointer_mut(parent).ok_or_else(bad)?, operation["op"].as_str()) {
            (Value::Object(map), Some("add" | "replace")) => drop(map.insert(key, new()?)),
            (Value::Object(map), Some("remove")) => drop(map.remove(&key).ok_or_else(bad)?),
            (Value::Array(list), Some(op)) => {
                let index: usize = key.parse().map_err(|_| bad())?;
                match op {
                    "add" if index <= list.len() => list.insert(index, new()?),
                    "replace" if index < list.len() => list[index] = new()?,
                    "remove" if index < list.len() => drop(list.remove(index)),
                    _ => return Err(bad()),
                }
            }
            _ => return Err(bad()),
        }
    }
    Ok(())
}
