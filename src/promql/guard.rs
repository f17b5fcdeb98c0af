//! The matchers that confine a selector, and the check that a printed query carries them.

use std::borrow::Cow;

use super::regex::plain_list;
use super::tree::{Id, MatchOp, Matcher, Node, Selector, Tree};
use super::{LabelRule, Labels, Reach};

/// What a selector must begin with.
type Guard<'a> = Vec<Matcher<'a>>;

/// Puts the guard in front of every selector of the tree and takes out what it makes superfluous.
pub(super) fn apply<'a>(tree: &mut Tree<'a>, reach: &'a Reach, labels: &'a Labels) {
    if *reach == Reach::Everything {
        return;
    }
    for node in &mut tree.nodes {
        if let Node::Selector(selector) = node {
            let (guard, narrowed) = guard_of(selector, reach, labels);
            let label = label_of(selector, labels).0;
            let users = std::mem::take(&mut selector.matchers);
            // A literal on the label is part of the guard now, and what the guard says need not be said twice.
            let implied = |matcher: &Matcher<'_>| {
                narrowed && matcher.label == label && literals(matcher).is_some() || guard.contains(matcher)
            };
            let kept: Vec<_> = users.into_iter().filter(|matcher| !implied(matcher)).collect();
            selector.matchers = guard;
            selector.matchers.extend(kept);
        }
    }
}

/// The label that names a selector's owner, and the rule that says so.
fn label_of<'l>(selector: &Selector<'_>, labels: &'l Labels) -> (&'l str, Option<&'l LabelRule>) {
    let rule = exact_name(selector).and_then(|name| labels.rule_of(name));
    (rule.map_or(labels.default.as_str(), |rule| rule.label.as_str()), rule)
}

/// The literal metric name of a selector. A name that is matched in any other way, or twice, is none.
fn exact_name<'s>(selector: &'s Selector<'_>) -> Option<&'s str> {
    let mut names = selector.matchers.iter().filter(|matcher| matcher.label == "__name__");
    match (selector.name, names.next(), names.next()) {
        (Some(name), None, _) => Some(name),
        (None, Some(matcher), None) if matcher.op == MatchOp::Equal => std::str::from_utf8(&matcher.value).ok(),
        _ => None,
    }
}

/// The guard of one selector, and whether it is already cut by the selector's own literal matchers.
fn guard_of<'a>(selector: &Selector<'a>, reach: &'a Reach, labels: &'a Labels) -> (Guard<'a>, bool) {
    let (label, rule) = label_of(selector, labels);
    let matcher = |op, value: Cow<'a, [u8]>| Matcher { label: Cow::Borrowed(label), op, value };
    let mut guard = Vec::with_capacity(2);
    let mut narrowed = false;
    match reach {
        Reach::Everything => return (guard, false),
        Reach::AnyNamespace => guard.push(matcher(MatchOp::NotEqual, Cow::Borrowed(b""))),
        Reach::Namespaces(names) => {
            let mut own = selector.matchers.iter().filter(|found| found.label == label).filter_map(literals).peekable();
            narrowed = own.peek().is_some();
            let asked: Vec<Vec<&[u8]>> = own.collect();
            let kept: Vec<&'a str> = names
                .iter()
                .map(AsRef::as_ref)
                .filter(|name| asked.iter().all(|list| list.contains(&name.as_bytes())))
                .collect();
            match kept.as_slice() {
                // No series can have a label that is at once empty and not empty.
                [] => {
                    guard.push(matcher(MatchOp::Equal, Cow::Borrowed(b"")));
                    guard.push(matcher(MatchOp::NotEqual, Cow::Borrowed(b"")));
                }
                [one] => guard.push(matcher(MatchOp::Equal, Cow::Borrowed(one.as_bytes()))),
                several => guard.push(matcher(MatchOp::Regex, Cow::Owned(several.join("|").into_bytes()))),
            }
        }
    }
    if let Some(rule) = rule {
        for (label, value) in &rule.matchers {
            guard.push(Matcher {
                label: Cow::Borrowed(label),
                op: MatchOp::Equal,
                value: Cow::Borrowed(value.as_bytes()),
            });
        }
    }
    (guard, narrowed)
}

/// The values that a matcher lets pass, if it is a literal or a plain list of names.
fn literals<'m>(matcher: &'m Matcher<'_>) -> Option<Vec<&'m [u8]>> {
    match matcher.op {
        MatchOp::Equal => Some(vec![matcher.value.as_ref()]),
        MatchOp::Regex => plain_list(&matcher.value).map(|names| names.into_iter().map(str::as_bytes).collect()),
        MatchOp::NotEqual | MatchOp::NotRegex => None,
    }
}

/// Whether every selector of a tree that was read back begins with a guard that stays within the reach. Written apart from
/// [`apply`]: it asks what the text lets through, not what we meant to write.
pub(super) fn holds(tree: &Tree<'_>, reach: &Reach, labels: &Labels) -> bool {
    tree.nodes.iter().all(|node| {
        let Node::Selector(selector) = node else { return true };
        let (label, rule) = label_of(selector, labels);
        let owner = match reach {
            Reach::Everything => return true,
            Reach::AnyNamespace => selector
                .matchers
                .first()
                .is_some_and(|first| first.label == label && first.op == MatchOp::NotEqual && first.value.is_empty()),
            Reach::Namespaces(names) => selector.matchers.first().is_some_and(|first| {
                let within = |value: &&[u8]| names.iter().any(|name| name.as_bytes() == *value);
                let nothing = first.value.is_empty()
                    && first.op == MatchOp::Equal
                    && selector.matchers.get(1).is_some_and(|second| {
                        second.label == label && second.op == MatchOp::NotEqual && second.value.is_empty()
                    });
                first.label == label
                    && (nothing
                        || literals(first).is_some_and(|values| !values.is_empty() && values.iter().all(within)))
            }),
        };
        owner
            && rule.is_none_or(|rule| {
                rule.matchers.iter().all(|(label, value)| {
                    selector.matchers.iter().any(|matcher| {
                        matcher.label == *label && matcher.op == MatchOp::Equal && *matcher.value == *value.as_bytes()
                    })
                })
            })
    })
}

/// Whether two trees say the same.
pub(super) fn same(left: &Tree<'_>, left_id: Id, right: &Tree<'_>, right_id: Id) -> bool {
    let same_ids = |a: Id, b: Id| same(left, a, right, b);
    match (&left.nodes[left_id], &right.nodes[right_id]) {
        (Node::Number(a), Node::Number(b)) => a == b,
        (Node::Text(a), Node::Text(b)) => a == b,
        (Node::Selector(a), Node::Selector(b)) => same_selector(a, b) && a.modifiers.same(&b.modifiers),
        (
            Node::Range { selector: a, range: range_a, modifiers: modifiers_a },
            Node::Range { selector: b, range: range_b, modifiers: modifiers_b },
        ) => same_ids(*a, *b) && range_a.text == range_b.text && modifiers_a.same(modifiers_b),
        (
            Node::Subquery { inner: a, range: range_a, step: step_a, modifiers: modifiers_a },
            Node::Subquery { inner: b, range: range_b, step: step_b, modifiers: modifiers_b },
        ) => {
            same_ids(*a, *b)
                && range_a.text == range_b.text
                && step_a.as_ref().map(|step| &step.text) == step_b.as_ref().map(|step| &step.text)
                && modifiers_a.same(modifiers_b)
        }
        (Node::Call { function: f, arguments: a }, Node::Call { function: g, arguments: b }) => {
            f.name == g.name && a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_ids(*a, *b))
        }
        (
            Node::Aggregate { word: word_a, grouping: grouping_a, parameter: parameter_a, inner: a },
            Node::Aggregate { word: word_b, grouping: grouping_b, parameter: parameter_b, inner: b },
        ) => {
            let groupings = match (grouping_a, grouping_b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.without == b.without && a.labels == b.labels,
                _ => false,
            };
            let parameters = match (parameter_a, parameter_b) {
                (None, None) => true,
                (Some(a), Some(b)) => same_ids(*a, *b),
                _ => false,
            };
            word_a == word_b && groupings && parameters && same_ids(*a, *b)
        }
        (Node::Unary { minus: minus_a, inner: a }, Node::Unary { minus: minus_b, inner: b }) => {
            minus_a == minus_b && same_ids(*a, *b)
        }
        (Node::Binary(a), Node::Binary(b)) => {
            let matchings = match (&a.matching, &b.matching) {
                (None, None) => true,
                (Some(a), Some(b)) => {
                    let groups = match (&a.group, &b.group) {
                        (None, None) => true,
                        (Some(a), Some(b)) => a.left == b.left && a.include == b.include,
                        _ => false,
                    };
                    a.on == b.on && a.labels == b.labels && groups
                }
                _ => false,
            };
            a.op == b.op
                && a.bool == b.bool
                && a.fill == b.fill
                && matchings
                && same_ids(a.left, b.left)
                && same_ids(a.right, b.right)
        }
        (Node::Paren(a), Node::Paren(b)) => same_ids(*a, *b),
        (
            Node::Number(_)
            | Node::Text(_)
            | Node::Selector(_)
            | Node::Range { .. }
            | Node::Subquery { .. }
            | Node::Call { .. }
            | Node::Aggregate { .. }
            | Node::Unary { .. }
            | Node::Binary(_)
            | Node::Paren(_),
            _,
        ) => false,
    }
}

/// A name may stand before the braces or in them.
fn same_selector(a: &Selector<'_>, b: &Selector<'_>) -> bool {
    if a.name == b.name {
        return a.matchers == b.matchers;
    }
    match (a.name, b.name, b.matchers.split_last()) {
        (Some(name), None, Some((last, rest))) => {
            last.label == "__name__"
                && last.op == MatchOp::Equal
                && *last.value == *name.as_bytes()
                && rest == a.matchers
        }
        _ => false,
    }
}
