//! What of a backend's answer may be passed on.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config::BackendKind;
use crate::dial;
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;

/// Errors of a backend are short.
const LARGEST_ERROR: usize = 64 << 10;

fn nonsense(cause: impl ToString) -> Refusal {
    Refusal::new(Reason::UpstreamNonsense, "the metrics backend answered something that cannot be passed on")
        .because(cause)
}

fn broken(error: dial::DialError) -> Refusal {
    match error {
        dial::DialError::TooLarge => {
            Refusal::new(Reason::UpstreamTooLarge, "the answer is larger than limits.answer; ask for less")
        }
        dial::DialError::Slow => Refusal::new(Reason::UpstreamSlow, "the metrics backend did not answer in time"),
        other => Refusal::new(Reason::UpstreamDown, "the metrics backend broke off").because(other),
    }
}

/// Passes an answer on: a good one as it arrives, an error in words that are safe.
pub(super) async fn pass(
    answer: dial::Answer,
    kind: BackendKind,
    confined: &str,
    largest: usize,
) -> Result<Reply, Refusal> {
    let status = answer.status;
    if status == StatusCode::OK {
        let json = answer
            .headers
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        if !json {
            return Err(nonsense("the answer is not JSON"));
        }
        return match kind {
            BackendKind::Prometheus => Ok(Reply::json_stream(status, answer.stream(largest))),
            // Its warnings name stores and their addresses, and stand behind the data.
            BackendKind::Thanos => {
                let (_, _, body) = answer.bytes(largest).await.map_err(broken)?;
                Ok(Reply::json(status, quiet_warnings(body)?))
            }
        };
    }
    Err(error(answer, status, confined).await)
}

/// Reads a whole good answer.
pub(super) async fn whole(answer: dial::Answer, largest: usize) -> Result<Bytes, Refusal> {
    let status = answer.status;
    if status != StatusCode::OK {
        return Err(error(answer, status, "").await);
    }
    let (_, _, body) = answer.bytes(largest).await.map_err(broken)?;
    Ok(body)
}

/// The backend's own words pass for a client's mistakes, unless they quote the text that we sent.
async fn error(answer: dial::Answer, status: StatusCode, confined: &str) -> Refusal {
    #[derive(Deserialize)]
    struct Body {
        error: String,
    }
    let retry = answer.headers.get(http::header::RETRY_AFTER).is_some();
    let words = answer
        .bytes(LARGEST_ERROR)
        .await
        .ok()
        .and_then(|(_, _, body)| serde_json::from_slice::<Body>(&body).ok())
        .map(|body| body.error);
    let cause = format!("metrics backend: status {status}: {}", words.as_deref().unwrap_or("no message"));
    match status.as_u16() {
        400 | 422 => {
            let quotes = |words: &str| (!confined.is_empty() && words.contains(confined)) || words.contains("://");
            let words = words.filter(|words| words.len() <= 2000 && !quotes(words));
            Refusal::new(
                Reason::UpstreamRefused,
                words.unwrap_or_else(|| "the metrics backend refused the query".to_owned()),
            )
            .with_status(status)
            .because(cause)
        }
        429 | 503 => {
            let refusal =
                Refusal::new(Reason::Overload, "the metrics backend is at its limit; try again soon").because(cause);
            refusal.retry_after(std::time::Duration::from_secs(if retry { 5 } else { 1 }))
        }
        504 => Refusal::new(Reason::UpstreamSlow, "the metrics backend did not answer in time").because(cause),
        500..=599 => Refusal::new(Reason::UpstreamDown, "the metrics backend failed").because(cause),
        _ => nonsense(cause),
    }
}

/// Keeps annotations of PromQL itself; whatever else a store says becomes two words.
fn quiet_warnings(body: Bytes) -> Result<Bytes, Refusal> {
    if memchr::memmem::find(&body, b"\"warnings\"").is_none() && memchr::memmem::find(&body, b"\"infos\"").is_none() {
        return Ok(body);
    }
    #[derive(Deserialize, Serialize)]
    struct Answer<'a> {
        status: String,
        #[serde(borrow)]
        data: &'a RawValue,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        infos: Vec<String>,
    }
    let mut answer: Answer<'_> = serde_json::from_slice(&body).map_err(nonsense)?;
    for text in answer.warnings.iter_mut().chain(&mut answer.infos) {
        if !text.starts_with("PromQL warning:") && !text.starts_with("PromQL info:") {
            *text = "partial response".to_owned();
        }
    }
    answer.warnings.dedup();
    answer.infos.dedup();
    serde_json::to_vec(&answer).map(Bytes::from).map_err(nonsense)
}

/// Keeps the metadata of the metrics whose series the caller may see.
pub(super) fn filter_metadata(
    known: &[u8],
    names: &[u8],
    metric: Option<&str>,
    limit: Option<usize>,
) -> Result<Vec<u8>, Refusal> {
    #[derive(Deserialize)]
    struct Names {
        data: Vec<String>,
    }
    #[derive(Deserialize, Serialize)]
    struct Known<'a> {
        status: String,
        #[serde(borrow)]
        data: BTreeMap<String, &'a RawValue>,
    }
    let names: Names = serde_json::from_slice(names).map_err(nonsense)?;
    let mut own: HashSet<&str> = names.data.iter().map(String::as_str).collect();
    // The series of histograms and counters carry a suffix that their metadata do not.
    for name in &names.data {
        for suffix in ["_bucket", "_count", "_sum", "_total", "_created", "_info"] {
            if let Some(stem) = name.strip_suffix(suffix) {
                own.insert(stem);
            }
        }
    }
    let mut known: Known<'_> = serde_json::from_slice(known).map_err(nonsense)?;
    known.data.retain(|name, _| own.contains(name.as_str()) && metric.is_none_or(|metric| metric == name));
    if let Some(limit) = limit {
        known.data = known.data.into_iter().take(limit).collect();
    }
    serde_json::to_vec(&known).map_err(nonsense)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_are_those_of_own_series() {
        let known = br#"{"status":"success","data":{"a":[1],"lat":[2],"secret":[3]}}"#;
        let names = br#"{"status":"success","data":["a","lat_bucket","lat_sum"]}"#;
        let read = |metric, limit| {
            String::from_utf8(filter_metadata(known, names, metric, limit).expect("good")).expect("text")
        };
        assert_eq!(read(None, None), r#"{"status":"success","data":{"a":[1],"lat":[2]}}"#);
        assert_eq!(read(Some("secret"), None), r#"{"status":"success","data":{}}"#);
        assert_eq!(read(None, Some(1)), r#"{"status":"success","data":{"a":[1]}}"#);
        assert!(filter_metadata(b"[]", names, None, None).is_err());
    }

    #[test]
    fn warnings_of_stores_lose_their_words() {
        let body = br#"{"status":"success","data":{"result":[]},"warnings":["No StoreAPIs matched 10.0.0.1:10901","x","PromQL warning: y"]}"#;
        let quiet = quiet_warnings(Bytes::from_static(body)).expect("good");
        assert_eq!(
            &*quiet,
            br#"{"status":"success","data":{"result":[]},"warnings":["partial response","PromQL warning: y"]}"#
        );
        let same = Bytes::from_static(br#"{"status":"success","data":{"result":[]}}"#);
        assert_eq!(quiet_warnings(same.clone()).expect("good"), same);
    }
}
