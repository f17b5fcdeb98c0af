//! The PromQL of a template: where values stand in it, and whether it is a query at all.

use std::sync::Arc;

use super::placeholder::{Place, Placeholder};
use crate::promql::{self, Features, Labels, Limits, Reach};

/// A text cut at its placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Value(Placeholder, Place),
}

/// Cuts words at their placeholders.
///
/// # Errors
/// What is wrong with one, for a person.
pub(super) fn cut(text: &str, place: Place) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    cut_into(&mut pieces, text, Ok(place))?;
    Ok(pieces)
}

fn cut_into(pieces: &mut Vec<Piece>, mut text: &str, place: Result<Place, &str>) -> Result<(), String> {
    while let Some((before, rest)) = text.split_once("<<") {
        let Some((word, after)) = rest.split_once(">>") else {
            return Err("a placeholder begins with << and has no >>".to_owned());
        };
        let Some(placeholder) = Placeholder::parse(word) else {
            return Err(unknown("placeholder", word, Placeholder::ALL.iter().map(|known| known.word())));
        };
        let place = place.map_err(|why| format!("<<{word}>> cannot stand here: {why}"))?;
        if placeholder.is_pattern() && place != Place::Regex {
            return Err(format!("<<{word}>> is a regular expression and stands only behind =~ or !~"));
        }
        push(pieces, before);
        pieces.push(Piece::Value(placeholder, place));
        text = after;
    }
    push(pieces, text);
    Ok(())
}

fn push(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(Piece::Text(last)) => last.push_str(text),
        _ if text.is_empty() => {}
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}

/// A word that nobody knows, and the nearest that somebody does.
pub(super) fn unknown<'k>(what: &str, word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let short: String = word.chars().take(40).collect();
    match crate::names::nearest(&short, known.iter().copied()) {
        Some(near) => format!("unknown {what} {short:?}, did you mean {near:?}?"),
        None => format!("unknown {what} {short:?}; known: {}", known.join(", ")),
    }
}

/// Cuts PromQL: a value stands only in the quoted string of a label matcher.
///
/// # Errors
/// What is wrong, for a person.
pub(super) fn cut_promql(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let nowhere = Err("a value enters a query only as the quoted string of a label matcher");
    let mut braces = 0_usize;
    let (mut from, mut at) = (0, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'#' => at += bytes[at..].iter().position(|b| *b == b'\n').unwrap_or(bytes.len() - at),
            b'{' => (braces, at) = (braces + 1, at + 1),
            b'}' => (braces, at) = (braces.saturating_sub(1), at + 1),
            quote @ (b'"' | b'\'' | b'`') => {
                let before = text[..at].trim_end();
                let place = if quote == b'`' || braces == 0 {
                    nowhere
                } else if before.ends_with("=~") || before.ends_with("!~") {
                    Ok(Place::Regex)
                } else if before.ends_with("!=") || before.ends_with('=') && !before.ends_with("==") {
                    Ok(Place::Literal)
                } else {
                    nowhere
                };
                let mut end = at + 1;
                while end < bytes.len() && bytes[end] != quote {
                    end += if bytes[end] == b'\\' && quote != b'`' { 2 } else { 1 };
                }
                let end = end.min(bytes.len());
                cut_into(&mut pieces, &text[from..=at], nowhere)?;
                let inner = text.get(at + 1..end).ok_or("a string has no end")?;
                cut_into(&mut pieces, inner, place)?;
                (from, at) = (end, end + 1);
            }
            _ => at += 1,
        }
    }
    cut_into(&mut pieces, text.get(from..).unwrap_or_default(), nowhere)?;
    Ok(pieces)
}

/// What the UI knows without a template's doing.
const BUILT_IN: [&str; 11] = [
    "__project",
    "__dashboard",
    "__interval",
    "__interval_ms",
    "__rate_interval",
    "__range",
    "__range_s",
    "__range_ms",
    "__from",
    "__to",
    "__all",
];

/// A text with the UI's variables, each handed to `put` with what stands for it; `put` says what is written instead.
fn each_variable(text: &str, mut put: impl FnMut(&str) -> Result<String, String>) -> Result<String, String> {
    let word = |text: &str| text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (open, inner) = after.strip_prefix('{').map_or((false, after), |inner| (true, inner));
        let length = word(inner);
        let end = if open { inner.find('}') } else { Some(length) };
        match end.filter(|_| length > 0) {
            Some(end) => {
                out.push_str(&put(&inner[..length])?);
                rest = &inner[end + usize::from(open)..];
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The names of the UI's variables that stand in a text and that `known` does not know.
///
/// # Errors
/// The first of them, for a person.
pub(super) fn check_variables(text: &str, known: &dyn Fn(&str) -> bool) -> Result<(), String> {
    each_variable(text, |name| {
        // $1 is a group of a regular expression.
        let fine = BUILT_IN.contains(&name) || known(name) || name.bytes().all(|b| b.is_ascii_digit());
        if fine { Ok(String::new()) } else { Err(format!("the variable ${name} is defined nowhere")) }
    })
    .map(drop)
}

/// Checks PromQL in which all placeholders have a value, as a request of the UI will bring it.
///
/// # Errors
/// The words of the parser.
pub(super) fn check(text: &str, selector: bool) -> Result<(), String> {
    // A variable can stand for a name or a number; where, only the parser knows.
    let with = |user: &str| {
        each_variable(text, |name| {
            let word = match name {
                "__interval" | "__rate_interval" | "__range" => "5m",
                "__interval_ms" | "__range_s" | "__range_ms" | "__from" | "__to" => "300",
                _ => user,
            };
            Ok(word.to_owned())
        })
    };
    let reach = Reach::Namespaces([Arc::from("a")].into());
    let labels = Labels::new("namespace", Vec::new())?;
    let ask = |text: &str| {
        let (limits, features) = (Limits::default(), Features::default());
        let outcome = if selector {
            promql::confine_selector(text, &reach, &labels, &limits, features)
        } else {
            promql::confine(text, &reach, &labels, &limits, features)
        };
        outcome.map(drop).map_err(|error| error.to_string())
    };
    let first = ask(&with("x")?);
    if first.is_err() && (ask(&with("1")?).is_ok() || ask(&with("5m")?).is_ok()) { Ok(()) } else { first }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

    use super::*;

    #[test]
    fn values_stand_in_matchers_only() {
        let text = "sum(rate(a{b=\"<<namespace>>\", c =~ 'x-<<name>>.*'}[5m])) > 1 # \"<<\n";
        let pieces = cut_promql(text).unwrap_err();
        assert!(pieces.contains("no >>"), "{pieces}");
        let pieces = cut_promql("sum(a{b=\"<<namespace>>\",c=~'x-<<name>>.*'}[5m]) # '").unwrap();
        assert_eq!(
            pieces,
            [
                Piece::Text("sum(a{b=\"".to_owned()),
                Piece::Value(Placeholder::Namespace, Place::Literal),
                Piece::Text("\",c=~'x-".to_owned()),
                Piece::Value(Placeholder::Name, Place::Regex),
                Piece::Text(".*'}[5m]) # '".to_owned()),
            ]
        );
        for bad in [
            "up{<<name>>=\"a\"}",
            "<<name>>",
            "up{a=`<<name>>`}",
            "up{\"<<name>>\"=\"a\"}",
            "label_replace(up, \"a\", \"<<name>>\", \"b\", \"\")",
            "up == \"<<name>>\"",
            "up{a=\"b\"}[<<name>>]",
            "up{a=\"\\\\\"} or <<name>>{b=\"\"}",
            "up{a=\"<<nam>>\"}",
            "up{a=\"<<pods>>\"}",
            "up{a=\"<<name\"}",
            "up # {a=\"<<name>>",
            "up{a=\"<<na\"me>>\"}",
        ] {
            assert!(cut_promql(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_of_the_ui_are_known_or_told() {
        let known = |name: &str| name == "model";
        for good in ["a{b=~\"$model\"}[$__rate_interval]", "${model:regex}", "\"(x)\", \"$1\"", "a$", "$", "${", "x$-y"]
        {
            assert_eq!(check_variables(good, &known), Ok(()), "{good}");
        }
        for bad in ["$modell", "${x}", "$__nothing"] {
            assert!(check_variables(bad, &known).is_err(), "{bad}");
        }
        for good in [
            "rate(a{b=~\"$model\"}[$__rate_interval])",
            "topk($n, a)",
            "sum by ($l) (a)",
            "increase(a[$__range])",
            "rate(a[$w])",
        ] {
            assert_eq!(check(good, false), Ok(()), "{good}");
        }
        assert!(
            check("rate(a)", false).is_err() && check("a + b", true).is_err() && check("a{b=\"$x\"}", true).is_ok()
        );
    }
}
