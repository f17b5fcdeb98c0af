//! Generated queries, written in hostile ways, whose selectors are known by construction.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A query as pieces: tokens, and selectors by their metric's name and the label values that they ask for.
#[derive(Clone, Debug)]
enum Piece {
    Token(String),
    Selector(String, Vec<Vec<u8>>),
}

fn token(text: &str) -> Piece {
    Piece::Token(text.to_owned())
}

fn selector() -> impl Strategy<Value = Vec<Piece>> {
    let name = prop_oneof!["[a-z_]{1,8}:[a-z]{1,4}", "m_[a-z0-9_]{0,8}", Just("sum".to_owned()), Just("by".to_owned())];
    let value = prop::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), Just(b'}'), Just(b'#')], 0..6);
    (name, prop::collection::vec(value, 0..3)).prop_map(|(name, values)| vec![Piece::Selector(name, values)])
}

fn vector() -> impl Strategy<Value = Vec<Piece>> {
    selector().prop_recursive(4, 24, 3, |inner| {
        let around = |before: &'static [&'static str], after: &'static [&'static str]| {
            move |inner: Vec<Piece>| {
                before.iter().map(|text| token(text)).chain(inner).chain(after.iter().map(|text| token(text))).collect()
            }
        };
        prop_oneof![
            inner.clone().prop_map(around(&["("], &[")"])),
            inner.clone().prop_map(around(&["-", "("], &[")"])),
            inner.clone().prop_map(around(&["Sum", "bY", "(", "pod", ",", ")", "("], &[")"])),
            inner.clone().prop_map(around(&["count", "("], &[")", "WITHOUT", "(", ")"])),
            inner
                .clone()
                .prop_map(around(&["max_over_time", "(", "("], &[")", "[", "1h", ":", "5m", "]", "OFFSET", "1d", ")"])),
            selector()
                .prop_map(around(&["rate", "("], &["[", "5m", "]", "offset", "-", "3m", "@", "start", "(", ")", ")"])),
            (inner.clone(), inner.clone()).prop_map(|(parameter, of)| {
                let mut all = vec![token("quantile"), token("("), token("scalar"), token("(")];
                all.extend(parameter);
                all.extend([token(")"), token(",")]);
                all.extend(of);
                all.push(token(")"));
                all
            }),
            (inner.clone(), prop::sample::select(vec!["+", "^", "oR", "and", "==", "/ on (x) group_left (y)"]), inner)
                .prop_map(|(left, op, right)| {
                    let mut all = vec![token("(")];
                    all.extend(left);
                    all.extend([token(")"), token(op), token("(")]);
                    all.extend(right);
                    all.push(token(")"));
                    all
                }),
        ]
    })
}

/// White space and comments that nothing may come out of.
const GAPS: [&str; 6] = [" ", "\n\t", " # {namespace=\"z\"} \" ` '\n", "\r\n", "#\n", "  #)\r"];

fn quote(value: &[u8], style: usize) -> String {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.contains(['\u{fffd}', '\r']));
    match (style % 3, text) {
        (0, Some(text)) if !text.contains('`') => format!("`{text}`"),
        (1, _) => format!("'{}'", value.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>()),
        _ => format!("\"{}\"", value.iter().map(|byte| format!("\\{byte:03o}")).collect::<String>()),
    }
}

fn write(pieces: &[Piece], styles: &[usize]) -> String {
    let mut style = styles.iter().copied().cycle();
    let mut text = String::new();
    for piece in pieces {
        text.push_str(GAPS[style.next().unwrap_or(0) % GAPS.len()]);
        match piece {
            Piece::Token(token) => text.push_str(token),
            Piece::Selector(name, values) => {
                let gap = GAPS[style.next().unwrap_or(0) % GAPS.len()];
                text.push_str(&format!(
                    "{{{gap}__name__{gap}={gap}{}",
                    quote(name.as_bytes(), style.next().unwrap_or(0))
                ));
                for value in values {
                    text.push_str(&format!("{gap},{gap}'l'{gap}!={gap}{}", quote(value, style.next().unwrap_or(0))));
                }
                text.push_str(&format!(",{gap}}}"));
            }
        }
    }
    text
}

/// The selectors of a text that we printed: their matchers in order.
fn selectors_of(text: &str) -> Vec<Vec<(String, &'static str, Vec<u8>)>> {
    let (tree, _) = parse::parse(text, &wide(), ALL).unwrap();
    let selectors = tree.nodes.iter().filter_map(|node| match node {
        tree::Node::Selector(selector) => Some(selector.matchers.of(&tree.matchers)),
        _ => None,
    });
    selectors
        .map(|matchers| {
            matchers.iter().map(|found| (found.label.to_string(), found.op.text(), found.value.to_vec())).collect()
        })
        .collect()
}

fn names() -> impl Strategy<Value = BTreeSet<&'static str>> {
    prop::collection::btree_set(prop::sample::select(vec!["a", "b", "c", "team-d", "9"]), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_confined_is_what_was_written_and_one_matcher_a_selector(
        pieces in vector(), styles in prop::collection::vec(any::<usize>(), 1..20),
    ) {
        let text = write(&pieces, &styles);
        let plain = Labels::new("namespace", Vec::new()).unwrap();
        let limits = Limits { subquery_steps: u64::MAX, ..wide() };
        let confined = confine(&text, &reach(&["team-a"]), &plain, &limits, ALL);
        let confined = confined.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let expected: Vec<_> = pieces.iter().filter_map(|piece| match piece {
            Piece::Token(_) => None,
            Piece::Selector(name, values) => {
                let mut matchers = vec![
                    ("namespace".to_owned(), "=", b"team-a".to_vec()),
                    ("__name__".to_owned(), "=", name.clone().into_bytes()),
                ];
                matchers.extend(values.iter().map(|value| ("l".to_owned(), "!=", value.clone())));
                Some(matchers)
            }
        }).collect();
        prop_assert_eq!(selectors_of(confined.text()), expected, "{:?} became {:?}", text, confined.text());
        prop_assert_eq!(confined.selectors(), selectors_of(confined.text()).len());
        let twice = confine(confined.text(), &reach(&["team-a"]), &plain, &limits, ALL).unwrap();
        prop_assert_eq!(twice.text(), confined.text());
    }

    #[test]
    fn one_set_after_another_leaves_what_both_have(
        pieces in vector(), styles in prop::collection::vec(any::<usize>(), 1..20), first in names(), second in names(),
    ) {
        let text = write(&pieces, &styles);
        let plain = Labels::new("namespace", Vec::new()).unwrap();
        let limits = Limits { subquery_steps: u64::MAX, ..wide() };
        let to = |text: &str, names: &BTreeSet<&str>| {
            let names: Vec<&str> = names.iter().copied().collect();
            confine(text, &reach(&names), &plain, &limits, ALL).unwrap().into_text()
        };
        let both = first.intersection(&second).copied().collect();
        prop_assert_eq!(to(&to(&text, &first), &second), to(&text, &both), "{:?}", text);
    }
}
