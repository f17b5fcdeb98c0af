//! Our text against upstream's canonical text, query by query: the same tokens, up to the differences named in [`tokens`].

use super::*;
use crate::promql::lex;

/// A token of printed PromQL. Two texts with the same tokens say the same.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Printed {
    Word(String),
    /// Numbers and durations by value, in seconds: we copy the spelling, upstream formats anew (`0xc` becomes `12`).
    Number(f64),
    /// Strings by the bytes they stand for: our set of escapes is smaller.
    Text(Vec<u8>),
    Sign(String),
    /// Selectors by their sorted matchers, the name among them: our matcher comes first, upstream's test put it last, and
    /// a name that is a keyword somewhere stands in our braces.
    Selector(Vec<(String, String, Vec<u8>)>),
}

/// The tokens of a printed query. White space and the place of a metric's name are no difference.
fn tokens(text: &str) -> Vec<Printed> {
    let (bytes, mut at) = (text.as_bytes(), 0);
    let mut flat = Vec::new();
    while at < bytes.len() {
        let start = at;
        let run = |from: usize, more: &dyn Fn(u8) -> bool| {
            from + bytes[from..].iter().position(|b| !more(*b)).unwrap_or(bytes.len() - from)
        };
        match bytes[at] {
            b' ' => at += 1,
            b'"' => {
                at += 1;
                while bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                flat.push(Printed::Text(lex::unquote(&text[start..at], true).unwrap().into_owned()));
            }
            b'0'..=b'9' | b'.' => {
                at = run(at, &|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_');
                if matches!(bytes[at - 1], b'e' | b'E') && !text[start..].starts_with("0x") && at < bytes.len() {
                    at = run(at + 1, &|b| b.is_ascii_alphanumeric());
                }
                flat.push(Printed::Number(value(&text[start..at])));
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b':'
                if text[start..].starts_with(|c: char| c != ':') || metric(bytes, at) =>
            {
                at = run(at, &|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':');
                // A subquery without a step: the colon is no part of a word.
                flat.push(match text[start..at].to_ascii_lowercase().as_str() {
                    "inf" => Printed::Number(f64::INFINITY),
                    // NaN is not equal to itself, and this text is.
                    "nan" => Printed::Word("NaN".to_owned()),
                    _ => Printed::Word(text[start..at].to_owned()),
                });
            }
            _ => {
                let two = ["=~", "!~", "!=", "==", ">=", "<=", "</", ">/"].iter().any(|op| text[at..].starts_with(op));
                at += if two { 2 } else { 1 };
                flat.push(Printed::Sign(text[start..at].to_owned()));
            }
        }
    }
    [selectors, signs, parentheses, empty_lists, fills].into_iter().fold(flat, |tokens, step| step(tokens))
}

fn metric(bytes: &[u8], at: usize) -> bool {
    bytes.get(at + 1).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_' || *b == b':')
        && (at == 0 || !bytes[at - 1].is_ascii_alphanumeric())
}

/// Durations in whole milliseconds, since upstream writes `1001ms` as `1s1ms`.
fn value(text: &str) -> f64 {
    lex::number_value(text)
        .or_else(|| lex::duration_seconds(text).map(milliseconds))
        .unwrap_or_else(|| panic!("{text:?} is no number"))
}

fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn sign(token: &Printed, text: &str) -> bool {
    matches!(token, Printed::Sign(sign) if sign == text)
}

fn word(token: &Printed, text: &str) -> bool {
    matches!(token, Printed::Word(word) if word == text)
}

/// A sign before an operand: upstream drops `+` before numbers and durations and folds the signs of numbers. The time
/// behind `@` is rounded to milliseconds by upstream.
fn signs(tokens: Vec<Printed>) -> Vec<Printed> {
    let mut out: Vec<Printed> = Vec::new();
    let mut minus = 0;
    let mut prefix = false;
    for token in tokens {
        let before_operand = prefix
            || out.last().is_none_or(|last| match last {
                Printed::Sign(sign) => !matches!(sign.as_str(), ")" | "]"),
                Printed::Word(word) => ["offset", "and", "or", "unless", "atan2", "bool"].contains(&word.as_str()),
                _ => false,
            });
        if before_operand && (sign(&token, "+") || sign(&token, "-")) {
            minus += usize::from(sign(&token, "-"));
            prefix = true;
            continue;
        }
        let at = out.last().is_some_and(|last| sign(last, "@"));
        if minus % 2 == 1 {
            out.push(Printed::Sign("-".to_owned()));
        }
        (minus, prefix) = (0, false);
        out.push(match token {
            Printed::Number(number) if at => Printed::Number(milliseconds(number)),
            other => other,
        });
    }
    out
}

/// Upstream prints `((1h))` in a duration expression as `(1h)`.
fn parentheses(tokens: Vec<Printed>) -> Vec<Printed> {
    let mut partner = vec![0; tokens.len()];
    let mut open = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if sign(token, "(") {
            open.push(index);
        } else if sign(token, ")") {
            let start: usize = open.pop().unwrap();
            (partner[start], partner[index]) = (index, start);
        }
    }
    let superfluous = |index: usize| {
        index > 0
            && sign(&tokens[index], "(")
            && sign(&tokens[index - 1], "(")
            && partner[index - 1] == partner[index] + 1
    };
    let kept = |index: &usize| !(superfluous(*index) || sign(&tokens[*index], ")") && superfluous(partner[*index]));
    (0..tokens.len()).filter(kept).map(|index| tokens[index].clone()).collect()
}

/// Upstream leaves out `by ()`, and `ignoring ()` where no group follows.
fn empty_lists(tokens: Vec<Printed>) -> Vec<Printed> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let empty = at + 2 < tokens.len() && sign(&tokens[at + 1], "(") && sign(&tokens[at + 2], ")");
        let grouped = tokens.get(at + 3).is_some_and(|next| word(next, "group_left") || word(next, "group_right"));
        if empty && (word(&tokens[at], "by") || word(&tokens[at], "ignoring") && !grouped) {
            at += 3;
            continue;
        }
        out.push(tokens[at].clone());
        at += 1;
    }
    out
}

/// Upstream prints `fill (NaN)` as `fill_left (NaN) fill_right (NaN)`.
fn fills(tokens: Vec<Printed>) -> Vec<Printed> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if word(&tokens[at], "fill") && tokens.get(at + 1).is_some_and(|next| sign(next, "(")) {
            let end = at + tokens[at..].iter().position(|token| sign(token, ")")).unwrap();
            for side in ["fill_left", "fill_right"] {
                out.push(Printed::Word(side.to_owned()));
                out.extend_from_slice(&tokens[at + 1..=end]);
            }
            at = end + 1;
            continue;
        }
        out.push(tokens[at].clone());
        at += 1;
    }
    out
}

fn selectors(flat: Vec<Printed>) -> Vec<Printed> {
    let mut out = Vec::new();
    let mut rest = flat.into_iter().peekable();
    while let Some(token) = rest.next() {
        if token != Printed::Sign("{".to_owned()) {
            out.push(token);
            continue;
        }
        let mut matchers = Vec::new();
        if let Some(Printed::Word(name)) = out.last() {
            matchers.push(("__name__".to_owned(), "=".to_owned(), name.clone().into_bytes()));
            out.pop();
        }
        loop {
            let label = match rest.next() {
                Some(Printed::Word(label)) => label,
                Some(Printed::Text(label)) => String::from_utf8(label).unwrap(),
                Some(Printed::Sign(sign)) if sign == "," => continue,
                Some(Printed::Sign(sign)) if sign == "}" => break,
                other => panic!("{other:?} in braces"),
            };
            if let Some(Printed::Sign(op)) =
                rest.next_if(|token| matches!(token, Printed::Sign(op) if op != "," && op != "}"))
            {
                let Some(Printed::Text(value)) = rest.next() else { panic!("no value") };
                matchers.push((label, op, value));
            } else {
                matchers.push(("__name__".to_owned(), "=".to_owned(), label.into_bytes()));
            }
        }
        matchers.sort_by(|a, b| a.partial_cmp(b).unwrap());
        matchers.dedup();
        // A literal of the query that is not in the set leaves nothing, and we say so; upstream's test says both.
        let ours = |(label, op, value): &(String, String, Vec<u8>)| label == "namespace" && op == "=" && value == b"NS";
        let other = |(label, op, value): &(String, String, Vec<u8>)| {
            label == "namespace" && op == "=" && value != b"NS" && !value.is_empty()
        };
        if matchers.iter().any(ours) && matchers.iter().any(other) {
            matchers.retain(|matcher| !ours(matcher) && !other(matcher));
            for op in ["=", "!="] {
                matchers.push(("namespace".to_owned(), op.to_owned(), Vec::new()));
            }
            matchers.sort_by(|a, b| a.partial_cmp(b).unwrap());
        }
        match matchers.as_slice() {
            [(label, op, name)] if label == "__name__" && op == "=" => {
                out.push(Printed::Word(String::from_utf8(name.clone()).unwrap()));
            }
            _ => out.push(Printed::Selector(matchers)),
        }
    }
    out
}

#[test]
fn our_text_is_upstreams_text() {
    let plain = Labels::new("namespace", Vec::new()).unwrap();
    let (mut count, mut wrong) = ((0, 0), Vec::new());
    for case in upstream() {
        if case["ok"] != true {
            continue;
        }
        let q = case["q"].as_str().unwrap();
        for (reach, recorded) in [(Reach::Everything, "printed"), (reach(&["NS"]), "enforced")] {
            let ours = match confine(q, &reach, &plain, &wide(), ALL) {
                Ok(ours) => ours,
                Err(_) if calls_info(q) => continue,
                Err(error) => panic!("{q:?}: {error}"),
            };
            let theirs = case[recorded].as_str().unwrap();
            count.0 += 1;
            count.1 += usize::from(ours.text() == theirs);
            if tokens(ours.text()) != tokens(theirs) {
                wrong.push(format!("{q}\n  ours   {}\n  theirs {theirs}", ours.text()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count:?} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count.0 > 4700 && count.1 > 3600, "{count:?}: texts, equal to the byte");
}
