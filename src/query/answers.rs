//! What of a backend's answer may be passed on.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::quiet::{Edit, Quiet};
use crate::dial;
use crate::refusal::{Reason, Refusal};
use crate::reply::Reply;

/// Errors of a backend are short.
const LARGEST_ERROR: usize = 64 << 10;

pub(super) fn nonsense(cause: impl ToString) -> Refusal {
    Refusal::new(Reason::UpstreamNonsense, "the metrics backend answered something that cannot be passed on")
        .because(cause)
}

pub(super) fn too_large() -> Refusal {
    Refusal::new(Reason::UpstreamTooLarge, "the answer is larger than limits.answer; ask for less")
}

fn broken(error: dial::DialError) -> Refusal {
    match error {
        dial::DialError::TooLarge => too_large(),
        dial::DialError::Slow => Refusal::new(Reason::UpstreamSlow, "the metrics backend did not answer in time"),
        other => Refusal::new(Reason::UpstreamDown, "the metrics backend broke off").because(other),
    }
}

/// A good answer of at most this length is read before it is passed on, so that it keeps its length.
const SMALL: u64 = 16 << 10;

/// Passes an answer on: a good one as it arrives, an error in words that are safe. `sent` is the confined text.
pub(super) async fn pass(answer: dial::Answer, sent: &[&str], largest: usize) -> Result<Reply, Refusal> {
    let status = answer.status;
    if status != StatusCode::OK {
        return Err(error(answer, Some(sent)).await);
    }
    check_json(&answer)?;
    let length = answer.headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length <= SMALL) {
        let (_, _, body) = answer.bytes(largest).await.map_err(broken)?;
        return Ok(Reply::json(status, Edit::whole(body).map_err(nonsense)?));
    }
    Ok(Reply::json_edited(status, Box::pin(Quiet::new(answer.stream(largest)))))
}

/// Reads a whole good answer. What an error says passes only where `sent` says what was asked: an answer that must be
/// filtered has no words of its own.
pub(super) async fn whole(answer: dial::Answer, sent: Option<&[&str]>, largest: usize) -> Result<Bytes, Refusal> {
    if answer.status != StatusCode::OK {
        return Err(error(answer, sent).await);
    }
    check_json(&answer)?;
    let (_, _, body) = answer.bytes(largest).await.map_err(broken)?;
    Ok(body)
}

fn check_json(answer: &dial::Answer) -> Result<(), Refusal> {
    let kind = answer.headers.get(http::header::CONTENT_TYPE);
    if !kind.is_some_and(|value| value.as_bytes().starts_with(b"application/json")) {
        return Err(nonsense("the answer is not JSON"));
    }
    // None was asked for, and what cannot be read cannot be judged.
    if answer.headers.contains_key(http::header::CONTENT_ENCODING) {
        return Err(nonsense("the answer is compressed"));
    }
    Ok(())
}

/// The backend's own words pass for a client's mistakes, unless they quote the text that we sent.
async fn error(answer: dial::Answer, sent: Option<&[&str]>) -> Refusal {
    #[derive(Deserialize)]
    struct Body {
        error: String,
    }
    let status = answer.status;
    let retry = answer.headers.get(http::header::RETRY_AFTER).is_some();
    let words = answer
        .bytes(LARGEST_ERROR)
        .await
        .ok()
        .and_then(|(_, _, body)| serde_json::from_slice::<Body>(&body).ok())
        .map(|body| body.error);
    let cause = format!("metrics backend: status {status}: {}", words.as_deref().unwrap_or("no message"));
    match status.as_u16() {
        // Thanos calls it an error of the query when one of its stores fails and no partial response was asked for.
        400 | 422 if words.as_deref().is_some_and(is_of_storage) => {
            Refusal::new(Reason::UpstreamDown, "a part of the metrics backend failed").because(cause)
        }
        400 | 422 => {
            let words = words.as_deref().zip(sent).and_then(|(words, sent)| told(words, sent)).map(str::to_owned);
            let words = words.unwrap_or_else(|| "the metrics backend refused the query".to_owned());
            Refusal::new(Reason::UpstreamRefused, words).with_status(status).because(cause)
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

/// Whether an error tells of what lies behind the query engine: which store, at which address, with which labels.
fn is_of_storage(words: &str) -> bool {
    ["expanding series", "rpc error", "dial tcp", "Addr: ", "fetch series for"].iter().any(|part| words.contains(part))
}

/// What of an error's words may be told: without a place in the text that was sent, and of a regular expression, which is
/// the caller's own, what is wrong with it.
fn told<'w>(words: &'w str, sent: &[&str]) -> Option<&'w str> {
    let words = words.find("error parsing regexp: ").map_or(words, |at| &words[at..]);
    let is_place = |part: &str| {
        let (line, column) = part.split_once(':').unwrap_or_default();
        [line, column].iter().all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let (mut behind, mut rest) = (words, words);
    while let Some((part, next)) = rest.split_once(": ") {
        if is_place(part) {
            behind = next;
        }
        rest = next;
    }
    is_safe(behind, sent).then_some(behind)
}

/// Whether an error's words say nothing of the text that was sent, nor of who was asked. Parse errors quote and count in a
/// text that the caller has never seen; other errors may print an expression with the list of namespaces.
fn is_safe(words: &str, sent: &[&str]) -> bool {
    let quotes = |text: &&str| {
        !text.is_empty()
            && (words.contains(*text) || text.split('"').any(|part| part.contains('|') && words.contains(part)))
    };
    words.len() <= 2000 && !words.contains("://") && !words.contains("parse error") && !sent.iter().any(quotes)
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
    fn a_store_that_fails_is_no_mistake_of_the_query() {
        for words in [
            "expanding series: proxy Series(): fetch series for {replica=\"1\"} Addr: 10.0.0.1:10901 MinTime: 0: rpc error: \
             code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial tcp 10.0.0.1:10901\"",
            "expanding series: context canceled",
            "proxy LabelNames(): fetch label names from store Addr: a:1: rpc error: code = Unavailable",
        ] {
            assert!(is_of_storage(words), "{words}");
        }
        for words in [
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
            "found duplicate series for the match group {pod=\"a\"} on the right hand-side of the operation",
            "query processing would load too many samples into memory in query execution",
        ] {
            assert!(!is_of_storage(words) && is_safe(words, &["up{namespace=~\"a|b\"}"]), "{words}");
        }
    }

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
    fn errors_that_quote_what_was_sent_are_not_passed_on() {
        let sent = r#"up{namespace=~"team-a|team-b",job="x"}"#;
        let safe = |words: &str| told(words, &[sent]) == Some(words);
        assert!(safe("found duplicate series for the match group {job=\"x\"}; many-to-many matching not allowed"));
        assert!(!safe(&format!("cannot run {sent}")));
        assert!(!safe("unsupported: up{job=\"x\",namespace=~\"team-a|team-b\"}"));
        assert!(!safe("invalid parameter \"query\": 1:5: parse error: unexpected identifier"));
        assert!(!safe("dial http://10.0.0.1:9090"));
        assert!(!safe(&"x".repeat(3000)));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_place_in_what_was_sent() {
        let told = |words: &'static str| told(words, &[r#"up{namespace=~"team-a|team-b",job=~"*"}"#]);
        for (words, expected) in [
            (
                "invalid parameter \"query\": 48:54: duration must be greater than 0",
                Some("duration must be greater than 0"),
            ),
            (
                "invalid parameter \"query\": 1:8: parse error: error parsing regexp: missing argument to repetition operator: `*`",
                Some("error parsing regexp: missing argument to repetition operator: `*`"),
            ),
            ("1:8: parse error: error parsing regexp: x: `^(?s:team-a|team-b)$`", None),
            ("1:8: parse error: unexpected \"x\"", None),
            ("at 10:45: late", Some("at 10:45: late")),
        ] {
            assert_eq!(told(words), expected, "{words}");
        }
    }
}
