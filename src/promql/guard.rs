//! The matchers that confine a selector, and the check that a printed query carries them.

use std::sync::Arc;

use super::regex::is_plain_name;
use super::tree::{Guard, MatchOp, Matcher, Names, Node, Run, Selector, Tree, count};
use super::{LabelRule, Labels, Reach};

/// Gives every selector of the tree its guard and marks the matchers that it makes superfluous.
pub(super) fn apply(tree: &mut Tree<'_>, reach: &Reach, labels: &Labels) {
    if *reach == Reach::Everything {
        return;
    }
    let Tree { nodes, matchers, picked, whole, .. } = tree;
    for node in nodes {
        let Node::Selector(selector) = node else { continue };
        let own = &mut matchers[selector.matchers.start as usize..selector.matchers.end as usize];
        let name = if labels.has_rules() { exact_name(selector.name, own) } else { None };
        let index = name.and_then(|name| labels.rule_index(name));
        let rule = index.map(|index| &labels.rules[index]);
        let label = rule.map_or(labels.default.as_str(), |rule| rule.label.as_str());
        let names = match reach {
            Reach::Namespaces(names) if !names.is_empty() => pick(names, label, own, picked),
            all => all_of(all),
        };
        *whole |= !matches!(names, Names::Some(_) | Names::Nothing);
        // What the guard says need not be said twice. A literal on the label has cut the names already.
        for matcher in own {
            let said = || match (names, matcher.op) {
                (Names::Everything, _) => false,
                (Names::Any, op) => op == MatchOp::NotEqual && matcher.value.is_empty(),
                (Names::Nothing, MatchOp::NotEqual) => matcher.value.is_empty(),
                (_, _) => literal(matcher),
            };
            let where_said = || {
                rule.is_some_and(|rule| {
                    rule.matchers.iter().any(|(label, value)| {
                        matcher.label == *label && matcher.op == MatchOp::Equal && *matcher.value == *value.as_bytes()
                    })
                })
            };
            matcher.implied = matcher.label == label && said() || where_said();
        }
        selector.guard = guard(names, index);
    }
}

/// What the guards of a query let through together, of a reach: all of it, or the names at these places.
pub(super) fn reached(reach: &Reach, picked: Option<&[u32]>) -> Reach {
    let (Reach::Namespaces(names), Some(picked)) = (reach, picked) else { return reach.clone() };
    let mut places = picked.to_vec();
    places.sort_unstable();
    places.dedup();
    if places.len() == names.len() {
        return reach.clone();
    }
    Reach::Namespaces(places.into_iter().filter_map(|place| names.get(place as usize)).cloned().collect())
}

fn guard(names: Names, rule: Option<usize>) -> Guard {
    Guard { names, rule: rule.map(|index| u32::try_from(index).unwrap_or(u32::MAX)) }
}

/// The guard of a selector that says nothing of its owner.
pub(super) fn of_all(reach: &Reach, rule: Option<usize>) -> Guard {
    guard(all_of(reach), rule)
}

fn all_of(reach: &Reach) -> Names {
    match reach {
        Reach::Everything => Names::Everything,
        Reach::AnyNamespace => Names::Any,
        Reach::Namespaces(names) if names.is_empty() => Names::Nothing,
        Reach::Namespaces(_) => Names::All,
    }
}

/// Whether another label than the default names a selector's owner.
pub(super) fn has_own_label(tree: &Tree<'_>, selector: &Selector<'_>, labels: &Labels) -> bool {
    let name = exact_name(selector.name, selector.matchers.of(&tree.matchers));
    name.and_then(|name| labels.rule_of(name)).is_some_and(|rule| rule.label != labels.default)
}

/// The literal metric name of a selector. A name that is matched in any other way, or twice, is none.
fn exact_name<'s>(name: Option<&'s str>, matchers: &'s [Matcher<'_>]) -> Option<&'s str> {
    let mut names = matchers.iter().filter(|matcher| matcher.label == "__name__");
    match (name, names.next(), names.next()) {
        (Some(name), None, _) => Some(name),
        (None, Some(matcher), None) if matcher.op == MatchOp::Equal => std::str::from_utf8(&matcher.value).ok(),
        _ => None,
    }
}

/// Whether a matcher is a literal or a plain list of names.
fn literal(matcher: &Matcher<'_>) -> bool {
    match matcher.op {
        MatchOp::Equal => true,
        MatchOp::Regex => alternatives(&matcher.value).all(is_plain_name),
        MatchOp::NotEqual | MatchOp::NotRegex => false,
    }
}

fn alternatives(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b'|')
}

fn place(names: &[Arc<str>], name: &[u8]) -> Option<u32> {
    names.binary_search_by(|other| other.as_bytes().cmp(name)).ok().and_then(|index| u32::try_from(index).ok())
}

/// The names of the set that a selector's own literals leave.
fn pick(names: &[Arc<str>], label: &str, own: &[Matcher<'_>], picked: &mut Vec<u32>) -> Names {
    let start = picked.len();
    let mut narrowed = false;
    for matcher in own.iter().filter(|matcher| matcher.label == label && literal(matcher)) {
        let before = picked.len();
        if matcher.op == MatchOp::Equal {
            picked.extend(place(names, &matcher.value));
        } else {
            picked.extend(alternatives(&matcher.value).filter_map(|name| place(names, name)));
            picked[before..].sort_unstable();
        }
        if narrowed {
            let these = picked.split_off(before);
            let kept = picked.split_off(start);
            picked.extend(kept.into_iter().filter(|place| these.binary_search(place).is_ok()));
        } else if matcher.op == MatchOp::Regex {
            // A list may name one twice.
            let mut last = None;
            let firsts = picked.split_off(start);
            picked.extend(firsts.into_iter().filter(|place| last.replace(*place) != Some(*place)));
        }
        narrowed = true;
    }
    match (narrowed, picked.len() - start) {
        (false, _) => Names::All,
        (true, 0) => Names::Nothing,
        (true, all) if all == names.len() => {
            picked.truncate(start);
            Names::All
        }
        (true, _) => Names::Some(Run { start: u32::try_from(start).unwrap_or(u32::MAX), end: count(picked) }),
    }
}

/// A part of a guard as it is printed.
pub(super) enum Part<'p> {
    Matcher(&'p str, MatchOp, &'p [u8]),
    /// The first of several names.
    First(&'p str, &'p str),
    Next(&'p str),
    Close,
}

/// The parts of a selector's guard, in their order. Labels are plain: [`Labels`] takes no others.
pub(super) fn parts<'p>(
    tree: &Tree<'_>,
    selector: &Selector<'_>,
    reach: &'p Reach,
    labels: &'p Labels,
    each: &mut impl FnMut(Part<'p>),
) {
    let rule = selector.guard.rule.and_then(|index| labels.rules.get(index as usize));
    let label = rule.map_or(labels.default.as_str(), |rule| rule.label.as_str());
    let set: &[Arc<str>] = if let Reach::Namespaces(names) = reach { names } else { &[] };
    let mut list = |names: &mut dyn Iterator<Item = &'p str>, several: bool| {
        for (index, name) in names.enumerate() {
            each(match (several, index) {
                (false, _) => Part::Matcher(label, MatchOp::Equal, name.as_bytes()),
                (true, 0) => Part::First(label, name),
                (true, _) => Part::Next(name),
            });
        }
        if several {
            each(Part::Close);
        }
    };
    match selector.guard.names {
        Names::Everything => return,
        Names::Any => each(Part::Matcher(label, MatchOp::NotEqual, b"")),
        // No series can have a label that is at once empty and not empty.
        Names::Nothing => {
            each(Part::Matcher(label, MatchOp::Equal, b""));
            each(Part::Matcher(label, MatchOp::NotEqual, b""));
        }
        Names::All => list(&mut set.iter().map(AsRef::as_ref), set.len() > 1),
        Names::Some(run) => {
            let places = run.of(&tree.picked);
            list(&mut places.iter().map(|place| set[*place as usize].as_ref()), places.len() > 1);
        }
    }
    for (label, value) in rule.iter().flat_map(|rule| &rule.matchers) {
        each(Part::Matcher(label, MatchOp::Equal, value.as_bytes()));
    }
}

/// Whether every selector of a tree that was read back begins with a guard that stays within the reach. Written apart from
/// [`apply`]: it asks what the text lets through, not what we meant to write.
pub(super) fn holds(tree: &Tree<'_>, reach: &Reach, labels: &Labels) -> bool {
    // Most selectors carry the same list, which needs to be looked through once.
    let mut known: Option<&[u8]> = None;
    tree.nodes.iter().all(|node| {
        let Node::Selector(selector) = node else { return true };
        let matchers = selector.matchers.of(&tree.matchers);
        let name = if labels.has_rules() { exact_name(selector.name, matchers) } else { None };
        let rule = name.and_then(|name| labels.rule_of(name));
        let label = rule.map_or(labels.default.as_str(), |rule| rule.label.as_str());
        let Some(first) = matchers.first() else { return *reach == Reach::Everything };
        let owner = match reach {
            Reach::Everything => return true,
            Reach::AnyNamespace => first.op == MatchOp::NotEqual && first.value.is_empty(),
            Reach::Namespaces(names) => {
                let nothing = || {
                    first.value.is_empty()
                        && first.op == MatchOp::Equal
                        && matchers.get(1).is_some_and(|second| {
                            second.label == label && second.op == MatchOp::NotEqual && second.value.is_empty()
                        })
                };
                match first.op {
                    MatchOp::Equal => place(names, &first.value).is_some() || nothing(),
                    MatchOp::Regex if known == Some(&*first.value) => true,
                    MatchOp::Regex => {
                        let good =
                            alternatives(&first.value).all(|name| is_plain_name(name) && place(names, name).is_some());
                        known = good.then_some(&*first.value);
                        good
                    }
                    MatchOp::NotEqual | MatchOp::NotRegex => false,
                }
            }
        };
        owner && first.label == label && rule.is_none_or(|rule| carries(rule, matchers))
    })
}

fn carries(rule: &LabelRule, matchers: &[Matcher<'_>]) -> bool {
    rule.matchers.iter().all(|(label, value)| {
        matchers.iter().any(|matcher| {
            matcher.label == *label && matcher.op == MatchOp::Equal && *matcher.value == *value.as_bytes()
        })
    })
}

/// Whether a text that was read back says what the tree says that it was printed from, with nothing before or between but
/// guards. Both trees were made bottom-up, left to right, so the same expression has the same vectors.
pub(super) fn same(meant: &Tree<'_>, read: &Tree<'_>, labels: &Labels) -> bool {
    // A grouping may have stood behind what it groups, so lists of labels have their own order.
    let lists = |a: Run, b: Run| a.of(&meant.labels) == b.of(&read.labels);
    meant.selectors == read.selectors
        && meant.nodes.len() == read.nodes.len()
        && meant.arguments == read.arguments
        && meant.nodes.iter().zip(&read.nodes).all(|(a, b)| match (a, b) {
            (Node::Selector(a), Node::Selector(b)) => {
                a.modifiers == b.modifiers && same_selector(meant, a, read, b, labels)
            }
            (Node::Number(a), Node::Number(b)) => a == b,
            (Node::Text(a), Node::Text(b)) => a == b,
            (
                Node::Range { selector: a, range: range_a, modifiers: modifiers_a },
                Node::Range { selector: b, range: range_b, modifiers: modifiers_b },
            ) => a == b && range_a == range_b && modifiers_a == modifiers_b,
            (Node::Subquery(a), Node::Subquery(b)) => a == b,
            (Node::Call { function: f, arguments: a }, Node::Call { function: g, arguments: b }) => {
                std::ptr::eq(*f, *g) && a == b
            }
            (
                Node::Aggregate { word: word_a, grouping: grouping_a, parameter: parameter_a, inner: a },
                Node::Aggregate { word: word_b, grouping: grouping_b, parameter: parameter_b, inner: b },
            ) => {
                let groupings = match (grouping_a, grouping_b) {
                    (None, None) => true,
                    (Some(a), Some(b)) => a.without == b.without && lists(a.labels, b.labels),
                    _ => false,
                };
                word_a == word_b && groupings && parameter_a == parameter_b && a == b
            }
            (
                Node::Unary { minus: minus_a, inner: a, kind: kind_a },
                Node::Unary { minus: minus_b, inner: b, kind: kind_b },
            ) => minus_a == minus_b && a == b && kind_a == kind_b,
            (Node::Binary(a), Node::Binary(b)) => {
                let matchings = match (&a.matching, &b.matching) {
                    (None, None) => true,
                    (Some(a), Some(b)) => {
                        let groups = match (&a.group, &b.group) {
                            (None, None) => true,
                            (Some(a), Some(b)) => a.left == b.left && lists(a.include, b.include),
                            _ => false,
                        };
                        a.on == b.on && lists(a.labels, b.labels) && groups
                    }
                    _ => false,
                };
                (a.op, a.bool, a.left, a.right, a.kind) == (b.op, b.bool, b.left, b.right, b.kind)
                    && a.fill == b.fill
                    && matchings
            }
            (Node::Paren { inner: a, kind: kind_a }, Node::Paren { inner: b, kind: kind_b }) => {
                a == b && kind_a == kind_b
            }
            (
                Node::Number(_)
                | Node::Text(_)
                | Node::Selector(_)
                | Node::Range { .. }
                | Node::Subquery(_)
                | Node::Call { .. }
                | Node::Aggregate { .. }
                | Node::Unary { .. }
                | Node::Binary(_)
                | Node::Paren { .. },
                _,
            ) => false,
        })
}

/// The matchers that were meant, behind the guard. A name may stand before the braces or in them.
fn same_selector(meant: &Tree<'_>, a: &Selector<'_>, read: &Tree<'_>, b: &Selector<'_>, labels: &Labels) -> bool {
    let guard =
        match a.guard.names {
            Names::Everything => 0,
            Names::Any | Names::All | Names::Some(_) => 1,
            Names::Nothing => 2,
        } + a.guard.rule.and_then(|index| labels.rules.get(index as usize)).map_or(0, |rule| rule.matchers.len());
    let Some(own) = b.matchers.of(&read.matchers).get(guard..) else { return false };
    let own = match (a.name, b.name, own.split_last()) {
        (a, b, _) if a == b => own,
        (Some(name), None, Some((last, own)))
            if last.label == "__name__" && last.op == MatchOp::Equal && *last.value == *name.as_bytes() =>
        {
            own
        }
        _ => return false,
    };
    let wanted = a.matchers.of(&meant.matchers).iter().filter(|matcher| !matcher.implied);
    wanted.eq(own)
}
