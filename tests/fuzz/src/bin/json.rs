//! Bodies: what passes, a loose reader reads the same, and what is written anew reads as what was checked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use perses_sidecar::document::{Kind, Object, read_strict};
use perses_sidecar_fuzz::go::{self, Json};
use serde_json::Value;

const KINDS: [Kind; 10] = [
    Kind::Dashboard,
    Kind::Datasource,
    Kind::Secret,
    Kind::Folder,
    Kind::Project,
    Kind::EphemeralDashboard,
    Kind::Variable,
    Kind::GlobalDatasource,
    Kind::GlobalSecret,
    Kind::GlobalVariable,
];

/// The same tree, each key once.
fn same(strict: &Value, loose: &Json) -> bool {
    match (strict, loose) {
        (Value::Null, Json::Null) => true,
        (Value::Bool(a), Json::Bool(b)) => a == b,
        (Value::Number(a), Json::Number(b)) => a.as_f64() == Some(*b),
        (Value::String(a), Json::Text(b)) => a == b,
        (Value::Array(a), Json::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Json::Map(b)) => {
            a.len() == b.len() && b.iter().all(|(key, b)| a.get(key).is_some_and(|a| same(a, b)))
        }
        _ => false,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let Ok(value) = read_strict(bytes) else { return };
    let loose = go::json(bytes).expect("what we take, a loose reader takes");
    assert!(same(&value, &loose), "{value}");
    let Ok(object) = Object::read(bytes, KINDS[usize::from(kind) % KINDS.len()]) else { return };
    let metadata = loose.field("metadata").expect("metadata");
    for (field, ours) in [("project", object.project()), ("name", object.name())] {
        let theirs = metadata.field(field);
        assert_eq!(theirs.as_ref().and_then(Json::text), ours, "metadata.{field}");
    }
    let _ = object.check_write(&|url| url == "http://backend");
    let written = object.clone().into_bytes();
    let again = Object::read(&written, KINDS[usize::from(kind) % KINDS.len()]).expect("what we wrote");
    assert!(same(&read_strict(&written).expect("what we wrote"), &go::json(&written).expect("what we wrote")));
    assert_eq!(again.into_bytes(), written);
});
