//! JSON that two readers cannot read in two ways.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Malformed;

/// How deeply values may nest; dashboards need about fifteen.
const DEEPEST: usize = 64;

/// Keys that decide something. Another spelling that Go's decoder would take for one of them is refused.
const KNOWN: [&str; 17] = [
    "kind",
    "metadata",
    "spec",
    "name",
    "project",
    "plugin",
    "proxy",
    "url",
    "directUrl",
    "secret",
    "headers",
    "queryParams",
    "actions",
    "datasources",
    "links",
    "version",
    "tags",
];

/// Objects whose keys users choose.
const FREE: [&str; 4] = ["panels", "datasources", "headers", "queryParams"];

/// Reads one JSON value: no byte order mark, nothing behind it, no key twice in any object (as Go folds keys), no key that
/// only folds to one that decides something, at most 64 levels.
///
/// # Errors
/// [`Malformed`], with the place.
pub fn read_strict(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let malformed = |error: serde_json::Error| Malformed { message: error.to_string() };
    let value = Strict { depth: 0, free: false }.deserialize(&mut reader).map_err(malformed)?;
    reader.end().map_err(malformed)?;
    Ok(value)
}

/// As Go's `encoding/json` folds keys to find fields: ASCII case, and two letters that fold into ASCII.
pub(super) fn fold(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
    /// The keys of this object are a user's own.
    free: bool,
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Strict {
    fn inner<E: de::Error>(self, free: bool) -> Result<Self, E> {
        if self.depth == DEEPEST {
            return Err(E::custom(format!("nested more than {DEEPEST} levels deep")));
        }
        Ok(Self { depth: self.depth + 1, free })
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let seed = self.inner(false)?;
        let mut values = Vec::new();
        while let Some(value) = access.next_element_seed(seed)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut seen = BTreeSet::new();
        while let Some(key) = access.next_key::<String>()? {
            let folded = fold(&key);
            let known = KNOWN.iter().find(|known| fold(known) == folded);
            if let Some(known) = known.filter(|known| !self.free && **known != key) {
                return Err(de::Error::custom(format!("the key {key:?} must be spelt {known:?}")));
            }
            if !seen.insert(folded) {
                return Err(de::Error::custom(format!("the key {key:?} stands twice in one object")));
            }
            let seed = self.inner(!self.free && FREE.contains(&key.as_str()))?;
            map.insert(key, access.next_value_seed(seed)?);
        }
        Ok(Value::Object(map))
    }
}
