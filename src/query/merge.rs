//! Put the answers to the parts of one question together. Which parts there are, only namespaces and selectors decide, so
//! that the union is what one question would have found.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answers::nonsense;
use super::quiet::{TRUNCATED, quiet};
use crate::refusal::Refusal;

#[derive(Deserialize)]
struct Part<T> {
    status: String,
    data: Option<Vec<T>>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    infos: Vec<String>,
}

#[derive(Serialize)]
struct Whole<T> {
    status: &'static str,
    data: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    infos: Vec<String>,
}

/// Names or values: sorted, each once, at most `limit` of them if that is not 0.
pub(super) fn texts(bodies: &[Bytes], limit: usize) -> Result<Vec<u8>, Refusal> {
    let parts = read::<String>(bodies)?;
    let (words, data) = split(parts);
    let data: BTreeSet<String> = data.into_iter().collect();
    write(data.into_iter().collect(), words, limit)
}

/// Series, each once: two parts may both hold one when several labels name owners.
pub(super) fn series(bodies: &[Bytes], limit: usize) -> Result<Vec<u8>, Refusal> {
    let parts = read::<&RawValue>(bodies)?;
    let (words, data) = split(parts);
    let mut known = HashSet::new();
    let data = data.into_iter().filter(|series| known.insert(series.get())).collect();
    write(data, words, limit)
}

fn read<'b, T: Deserialize<'b>>(bodies: &'b [Bytes]) -> Result<Vec<Part<T>>, Refusal> {
    let read = |body: &'b Bytes| -> Result<Part<T>, Refusal> {
        let part: Part<T> = serde_json::from_slice(body).map_err(nonsense)?;
        if part.status == "success" { Ok(part) } else { Err(nonsense("a part without success")) }
    };
    bodies.iter().map(read).collect()
}

type Words = (BTreeSet<String>, BTreeSet<String>);

fn split<T>(parts: Vec<Part<T>>) -> (Words, Vec<T>) {
    let mut words = Words::default();
    let mut data = Vec::new();
    for mut part in parts {
        quiet(&mut part.warnings);
        quiet(&mut part.infos);
        words.0.extend(part.warnings);
        words.1.extend(part.infos);
        data.extend(part.data.into_iter().flatten());
    }
    (words, data)
}

fn write<T: Serialize>(mut data: Vec<T>, words: Words, limit: usize) -> Result<Vec<u8>, Refusal> {
    let (mut warnings, infos) = words;
    if limit > 0 && data.len() > limit {
        data.truncate(limit);
        warnings.insert(TRUNCATED.to_owned());
    }
    let (warnings, infos) = (warnings.into_iter().collect(), infos.into_iter().collect());
    serde_json::to_vec(&Whole { status: "success", data, warnings, infos }).map_err(nonsense)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    fn text(merged: Result<Vec<u8>, Refusal>) -> String {
        String::from_utf8(merged.expect("good")).expect("text")
    }

    #[test]
    fn values_are_sorted_and_stand_once() {
        let parts = bodies(&[
            r#"{"status":"success","data":["b","d"],"warnings":["store 10.0.0.1"]}"#,
            r#"{"status":"success","data":null,"infos":["PromQL info: x"]}"#,
            r#"{"status":"success","data":["a","b"],"warnings":["store 10.0.0.2"]}"#,
        ]);
        let words = r#""warnings":["partial response"],"infos":["PromQL info: x"]}"#;
        assert_eq!(text(texts(&parts, 0)), format!(r#"{{"status":"success","data":["a","b","d"],{words}"#));
        assert_eq!(text(texts(&parts, 3)), format!(r#"{{"status":"success","data":["a","b","d"],{words}"#));
        let cut = text(texts(&parts, 2));
        assert!(cut.starts_with(r#"{"status":"success","data":["a","b"],"warnings":["#), "{cut}");
        assert!(cut.contains("results truncated due to limit"), "{cut}");
    }

    #[test]
    fn series_stand_once_as_they_were_written() {
        let parts = bodies(&[
            r#"{"status":"success","data":[{"a":"1","x":"é"},{"a":"2"}]}"#,
            r#"{"status":"success","data":[{"a":"2"},{"a":"3"}],"warnings":["results truncated due to limit"]}"#,
        ]);
        let cut = r#""warnings":["results truncated due to limit"]}"#;
        assert_eq!(
            text(series(&parts, 0)),
            format!(r#"{{"status":"success","data":[{{"a":"1","x":"é"}},{{"a":"2"}},{{"a":"3"}}],{cut}"#)
        );
        assert_eq!(text(series(&parts, 1)), format!(r#"{{"status":"success","data":[{{"a":"1","x":"é"}}],{cut}"#));
    }

    #[test]
    fn one_part_that_is_no_answer_spoils_all() {
        for bad in ["", "[]", r#"{"status":"error","data":[]}"#, r#"{"status":"success","data":{}}"#] {
            let parts = bodies(&[r#"{"status":"success","data":["a"]}"#, bad]);
            assert!(texts(&parts, 0).is_err() && series(&parts, 0).is_err(), "{bad}");
        }
    }
}
