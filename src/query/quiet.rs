//! Take out of an answer, while it passes, what a store says of itself.
//!
//! Prometheus and Thanos write `warnings` and `infos` behind the data. Annotations of PromQL speak of the caller's own
//! query; other texts name stores, their addresses and labels, and become two words. So that large answers need not be
//! kept, only these two lists are: a value is a list behind such a key nowhere else in an answer, since all other keys that
//! somebody may choose are labels, whose values are strings.

use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use memchr::memmem::Finder;
use serde_json::Value;

use crate::dial::{self, DialError};

/// The most bytes of one list.
const LARGEST: usize = 64 << 10;

/// What Prometheus says when `limit` cuts an answer.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

const KEYS: [&[u8]; 2] = [b"\"warnings\"", b"\"infos\""];

static FINDERS: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| KEYS.map(Finder::new));

/// Keeps the texts that speak of the query; whatever else is said becomes two words. Nothing twice in a row.
pub(super) fn quiet(texts: &mut Vec<String>) {
    for text in texts.iter_mut() {
        let known = text.starts_with("PromQL warning:") || text.starts_with("PromQL info:") || text == TRUNCATED;
        if !known {
            "partial response".clone_into(text);
        }
        text.truncate(without_place(text));
    }
    texts.dedup();
}

/// The length without a place at the end, such as ` (1:23)`: it counts in the text that was sent, which nobody has seen.
fn without_place(text: &str) -> usize {
    let place = text.strip_suffix(')').and_then(|text| text.rsplit_once(" ("));
    let is_place = |inside: &str| {
        inside.contains(':') && inside.bytes().all(|byte| byte.is_ascii_digit() || byte == b':') && inside.len() > 2
    };
    place.filter(|(_, inside)| is_place(inside)).map_or(text.len(), |(before, _)| before.len())
}

/// The body of an answer with quiet lists. What cannot be read ends in an error, never in a valid end.
pub(super) struct Quiet {
    stream: dial::Stream,
    edit: Edit,
    ended: bool,
}

impl Quiet {
    pub(super) fn new(stream: dial::Stream) -> Self {
        Self { stream, edit: Edit::default(), ended: false }
    }
}

impl http_body::Body for Quiet {
    type Data = Bytes;
    type Error = DialError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DialError>>> {
        let this = &mut *self;
        let broken = |cause: &'static str| DialError::Broken(cause.to_owned());
        while !this.ended {
            let passed = match ready!(Pin::new(&mut this.stream).poll_frame(context)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    this.edit.piece(data)
                }
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    this.ended = true;
                    this.edit.end()
                }
            };
            match passed {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Err(cause) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(broken(cause))));
                }
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// The editor: pieces in, pieces out. It holds back only what it cannot judge yet.
#[derive(Default)]
pub(super) struct Edit {
    held: BytesMut,
}

impl Edit {
    /// A whole body at once.
    pub(super) fn whole(body: Bytes) -> Result<Bytes, &'static str> {
        let mut edit = Self::default();
        let passed = edit.piece(body)?;
        let rest = edit.end()?;
        Ok(if rest.is_empty() { passed } else { [passed, rest].concat().into() })
    }

    /// What may go on of this piece and what was held back before it.
    pub(super) fn piece(&mut self, data: Bytes) -> Result<Bytes, &'static str> {
        let data = if self.held.is_empty() {
            data
        } else {
            self.held.extend_from_slice(&data);
            std::mem::take(&mut self.held).freeze()
        };
        let find = |key: usize, from: usize| FINDERS[key].find(&data[from..]).map(|at| from + at);
        let mut next = [find(0, 0), find(1, 0)];
        let mut edited = Vec::new();
        let (mut written, mut hold) = (0, None);
        while let Some((key, at)) = (0..KEYS.len()).filter_map(|key| Some((key, next[key]?))).min_by_key(|(_, at)| *at)
        {
            let after = at + KEYS[key].len();
            next[key] = find(key, after);
            let Some((colon, opening)) = value_behind(&data, after) else {
                hold = Some(at);
                break;
            };
            if !colon || data[opening] != b'[' {
                continue;
            }
            let mut lists = serde_json::Deserializer::from_slice(&data[opening..]).into_iter::<Vec<Value>>();
            match lists.next() {
                Some(Ok(list)) => {
                    let text = |value| if let Value::String(text) = value { Some(text) } else { None };
                    let mut texts: Vec<String> = list.into_iter().filter_map(text).collect();
                    quiet(&mut texts);
                    edited.extend_from_slice(&data[written..opening]);
                    serde_json::to_writer(&mut edited, &texts).map_err(|_| "a list that cannot be written")?;
                    written = opening + lists.byte_offset();
                    // What stood in the list is gone.
                    for (key, next) in next.iter_mut().enumerate() {
                        if next.is_some_and(|at| at < written) {
                            *next = find(key, written);
                        }
                    }
                }
                Some(Err(error)) if error.is_eof() => {
                    hold = Some(at);
                    break;
                }
                Some(Err(_)) | None => return Err("a list of warnings that is none"),
            }
        }
        let hold = hold.unwrap_or_else(|| beginning(&data, written));
        if data.len() - hold > LARGEST {
            return Err("a list of warnings without end");
        }
        self.held.extend_from_slice(&data[hold..]);
        if edited.is_empty() {
            return Ok(data.slice(..hold));
        }
        edited.extend_from_slice(&data[written..hold]);
        Ok(edited.into())
    }

    /// What was held back, when nothing follows.
    pub(super) fn end(&mut self) -> Result<Bytes, &'static str> {
        if KEYS.iter().any(|key| self.held.starts_with(key)) {
            return Err("it ends within a list of warnings");
        }
        Ok(std::mem::take(&mut self.held).freeze())
    }
}

/// Whether a colon follows, and where what comes then is; `None` when the data end before that.
fn value_behind(data: &[u8], from: usize) -> Option<(bool, usize)> {
    let skip = |from: usize| Some(from + data.get(from..)?.iter().position(|b| !b.is_ascii_whitespace())?);
    let colon = skip(from)?;
    if data[colon] != b':' {
        return Some((false, colon));
    }
    Some((true, skip(colon + 1)?))
}

/// Where the beginning of a key stands at the end of the data; their length if there is none.
fn beginning(data: &[u8], from: usize) -> usize {
    let first = data.len().saturating_sub(KEYS[0].len() - 1).max(from);
    let begins = |at: &usize| KEYS.iter().any(|key| key.starts_with(&data[*at..]));
    (first..data.len()).find(begins).unwrap_or(data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: &str = r#"{"status":"success","data":{"result":[{"metric":{"warnings":"w","infos":"\"infos\"","x":"y\\"},"value":[1,"2"]}]},"warnings":["No StoreAPIs matched 10.0.0.1:10901","x","PromQL warning: y [\"]","results truncated due to limit"],"infos":["PromQL info: z","10.0.0.2"]}"#;
    const QUIET: &str = r#"{"status":"success","data":{"result":[{"metric":{"warnings":"w","infos":"\"infos\"","x":"y\\"},"value":[1,"2"]}]},"warnings":["partial response","PromQL warning: y [\"]","results truncated due to limit"],"infos":["PromQL info: z","partial response"]}"#;

    fn in_pieces(text: &str, size: usize) -> Result<String, &'static str> {
        let mut edit = Edit::default();
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            out.extend_from_slice(&edit.piece(Bytes::copy_from_slice(piece))?);
        }
        out.extend_from_slice(&edit.end()?);
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn stores_lose_their_words_however_the_answer_is_cut() {
        for size in 1..=LOUD.len() {
            assert_eq!(in_pieces(LOUD, size).as_deref(), Ok(QUIET), "in pieces of {size}");
        }
        let spaced = LOUD.replace("\"warnings\":[", "\"warnings\" :\n [");
        assert!(!in_pieces(&spaced, 7).expect("good").contains("10.0.0.1"));
        let first = r#"{"warnings":["10.0.0.1",{"address":"10.0.0.3"}],"status":"success","data":{"warnings":[]}}"#;
        let quiet = r#"{"warnings":["partial response"],"status":"success","data":{"warnings":[]}}"#;
        assert_eq!(in_pieces(first, 5).as_deref(), Ok(quiet));
    }

    #[test]
    fn places_in_what_was_sent_are_left_out() {
        let mut texts = [
            "PromQL warning: quantile value should be between 0 and 1, got 2 (1:23)",
            "PromQL info: metric might not be a counter: \"x\" (3:120)",
            "PromQL info: of (1:x) (:) (12)",
            "PromQL info: (1:2)x",
        ]
        .map(str::to_owned)
        .to_vec();
        quiet(&mut texts);
        let expected = [
            "PromQL warning: quantile value should be between 0 and 1, got 2",
            "PromQL info: metric might not be a counter: \"x\"",
            "PromQL info: of (1:x) (:) (12)",
            "PromQL info: (1:2)x",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn an_answer_without_words_passes_as_it_is() {
        let body = Bytes::from_static(br#"{"status":"success","data":{"result":["\"warnings"]}}"#);
        let passed = Edit::whole(body.clone()).expect("good");
        assert_eq!(passed.as_ptr(), body.as_ptr(), "no copy");
        assert_eq!(passed, body);
    }

    #[test]
    fn what_cannot_be_read_has_no_valid_end() {
        assert!(in_pieces(r#"{"data":1,"warnings":["10.0.0.1"#, 8).is_err());
        assert!(in_pieces(r#"{"data":1,"warnings":[10.0.0.1]}"#, 8).is_err());
        assert!(in_pieces(r#"{"data":1,"warnings":"#, 8).is_err());
        let endless = format!(r#"{{"data":1,"warnings":["{}"#, "x".repeat(2 * LARGEST));
        assert!(in_pieces(&endless, 1000).is_err());
    }
}
