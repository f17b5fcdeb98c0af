//! What may be said about a query's answer before it is asked: for somebody who keeps answers.
//!
//! Everything here errs on the side of "cannot be kept" and "cannot be split".

use super::tree::{Arguments, Matching, Modifiers, Node, Selector, Span, Tree};
use super::{Error, Features, Labels, Limits, Reach, guard, parse, print};

/// What a result point depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Horizon {
    /// How many milliseconds before its own timestamp.
    pub back_ms: u64,
    /// How many milliseconds after its own timestamp; from negative offsets and `smoothed`.
    pub forward_ms: u64,
    /// The earliest and latest millisecond of what stands under `@` with a time of its own, since 1970.
    pub fixed_ms: Option<(i64, i64)>,
}

/// What a query's text says about its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analysis {
    /// The text in our one spelling: queries that differ in white space, comments, quotes or the case of keywords alone
    /// share it.
    pub canonical: String,
    /// What a point depends on; `None` when a range or offset is an expression of the request's window.
    pub horizon: Option<Horizon>,
    /// Whether results depend on the request's start, end or step, beyond which points there are: `start()`, `end()`,
    /// `range()`, `step()`, also behind `@` and in durations.
    pub depends_on_window: bool,
    /// Whether every series of the answer carries the confining label and depends on nothing but series of the same value
    /// of it, so that an answer for several namespaces can be split by it.
    pub splits_by_label: bool,
}

/// Analyses a query. `lookback_ms` is how long a sample stands for its series when nothing newer is there, five minutes by
/// Prometheus' default.
///
/// # Errors
/// For what is no PromQL, is beyond a limit, or may not be asked.
pub fn analyse(
    text: &str,
    labels: &Labels,
    lookback_ms: u64,
    limits: &Limits,
    features: Features,
) -> Result<Analysis, Error> {
    let (tree, root) = parse::parse(text, limits, features)?;
    let canonical = print::print(&tree, root, (&Reach::Everything, labels), text.len() + 64, limits.confined)
        .map_err(|print::TooLong| Error::limit("limits.confined_query", limits.confined as u64, text, 0))?;
    let (horizon, times_depend) = times(&tree, root, i64::try_from(lookback_ms).unwrap_or(i64::MAX));
    let depends_on_window = times_depend || tree.nodes.iter().any(asks_for_window);
    let splits_by_label = ownership(&tree, labels)[root] == Owned::Yes;
    Ok(Analysis { canonical, horizon, depends_on_window, splits_by_label })
}

fn asks_for_window(node: &Node<'_>) -> bool {
    matches!(node, Node::Call { function, .. } if matches!(function.name, "start" | "end" | "range" | "step"))
}

/// When a node is evaluated, in milliseconds.
#[derive(Clone, Copy)]
enum Time {
    /// Relative to the point's own timestamp, from and to.
    Point(i64, i64),
    /// Since 1970, from and to.
    Fixed(i64, i64),
    /// At a time that only the request knows.
    Window,
}

impl Time {
    fn shifted(self, by_low: i64, by_high: i64) -> Self {
        match self {
            Self::Point(low, high) => Self::Point(low.saturating_add(by_low), high.saturating_add(by_high)),
            Self::Fixed(low, high) => Self::Fixed(low.saturating_add(by_low), high.saturating_add(by_high)),
            Self::Window => Self::Window,
        }
    }
}

/// The horizon, and whether times depend on the request's window.
fn times(tree: &Tree<'_>, root: usize, lookback: i64) -> (Option<Horizon>, bool) {
    let mut found = Found::default();
    let mut at = vec![Time::Point(0, 0); tree.nodes.len()];
    // What is above a node stands behind it, so when it is evaluated is known when we come to it.
    for id in (0..=root).rev() {
        let node = tree.node(id);
        let mut time = at[id];
        match node {
            // A selector with a range is looked at with its range; a second look without it sees less.
            Node::Selector(Selector { modifiers, .. }) => {
                let time = found.moved(time, modifiers.as_deref());
                found.reads(time.shifted(lookback.saturating_neg(), smoothed(modifiers.as_deref(), lookback)));
            }
            Node::Range { range, modifiers, .. } => {
                time = found.moved(time, modifiers.as_deref());
                let edge = if modifiers.as_ref().is_some_and(|found| found.edge.is_some()) { lookback } else { 0 };
                let back = found.length(range).saturating_add(edge);
                found.reads(time.shifted(back.saturating_neg(), smoothed(modifiers.as_deref(), lookback)));
                continue_below(&mut at, node, tree, Time::Window);
                continue;
            }
            Node::Subquery(subquery) => {
                time = found.moved(time, subquery.modifiers.as_deref());
                time = time.shifted(found.length(&subquery.range).saturating_neg(), 0);
                if let Some(step) = &subquery.step {
                    found.length(step);
                }
            }
            Node::Number(_)
            | Node::Text(_)
            | Node::Call { .. }
            | Node::Aggregate { .. }
            | Node::Unary { .. }
            | Node::Binary(_)
            | Node::Paren { .. } => {}
        }
        continue_below(&mut at, node, tree, time);
    }
    (found.known.then_some(found.horizon), found.window || !found.known)
}

fn continue_below(at: &mut [Time], node: &Node<'_>, tree: &Tree<'_>, time: Time) {
    tree.below(node, |below| at[below] = time);
}

fn smoothed(modifiers: Option<&Modifiers<'_>>, lookback: i64) -> i64 {
    if modifiers.is_some_and(|modifiers| modifiers.edge == Some("smoothed")) { lookback } else { 0 }
}

struct Found {
    horizon: Horizon,
    /// Whether all lengths are known.
    known: bool,
    window: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self { horizon: Horizon::default(), known: true, window: false }
    }
}

impl Found {
    /// Milliseconds of a length, away from zero.
    fn length(&mut self, span: &Span<'_>) -> i64 {
        let Some(seconds) = span.seconds else {
            self.known = false;
            return 0;
        };
        #[allow(clippy::cast_possible_truncation, reason = "bounded by the parser")]
        let milliseconds = (seconds.abs() * 1000.0).ceil() as i64;
        if seconds < 0.0 { -milliseconds } else { milliseconds }
    }

    /// `@` first, whatever their order, then the offset.
    fn moved(&mut self, time: Time, modifiers: Option<&Modifiers<'_>>) -> Time {
        let Some(modifiers) = modifiers else { return time };
        let time = match modifiers.at.as_deref() {
            None => time,
            Some("start()" | "end()") => {
                self.window = true;
                Time::Window
            }
            Some(text) => {
                // The parser has checked that it is a time.
                let seconds = parse::signed_value(text).unwrap_or_default();
                #[allow(clippy::cast_possible_truncation, reason = "bounded by the parser")]
                let milliseconds = (seconds * 1000.0).round() as i64;
                Time::Fixed(milliseconds, milliseconds)
            }
        };
        let offset = modifiers.offset.as_ref().map_or(0, |offset| self.length(offset));
        time.shifted(offset.saturating_neg(), offset.saturating_neg())
    }

    fn reads(&mut self, time: Time) {
        match time {
            Time::Point(low, high) => {
                self.horizon.back_ms = self.horizon.back_ms.max(low.min(0).unsigned_abs());
                self.horizon.forward_ms = self.horizon.forward_ms.max(high.max(0).unsigned_abs());
            }
            Time::Fixed(low, high) => {
                let (earliest, latest) = self.horizon.fixed_ms.unwrap_or((low, high));
                self.horizon.fixed_ms = Some((earliest.min(low), latest.max(high)));
            }
            Time::Window => {}
        }
    }
}

/// Whether what a node gives belongs to one value of the label each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owned {
    Yes,
    No,
    /// It holds no data of series: numbers, strings, the time.
    Constant,
}

/// Bottom-up, in the order of the nodes.
fn ownership(tree: &Tree<'_>, labels: &Labels) -> Vec<Owned> {
    let label = labels.default_label();
    let mut owned: Vec<Owned> = Vec::with_capacity(tree.nodes.len());
    for node in &tree.nodes {
        let this = match node {
            Node::Number(_) | Node::Text(_) => Owned::Constant,
            Node::Selector(selector) => yes(!guard::has_own_label(tree, selector, labels)),
            Node::Range { selector: inner, .. } | Node::Unary { inner, .. } | Node::Paren { inner, .. } => {
                owned[*inner]
            }
            Node::Subquery(subquery) => owned[subquery.inner],
            Node::Call { function, arguments } => call(tree, function.name, arguments, label, &owned),
            Node::Aggregate { word, grouping, parameter, inner } => {
                let groups = grouping.is_some_and(|grouping| {
                    grouping.without != grouping.labels.of(&tree.labels).iter().any(|found| found == label)
                });
                let constant = parameter.is_none_or(|id| owned[id] == Owned::Constant && !names(tree, id, label));
                // Which series a limit leaves is upstream's secret.
                yes(groups && constant && !word.starts_with("limit") && owned[*inner] == Owned::Yes)
            }
            Node::Binary(binary) => match (owned[binary.left], owned[binary.right]) {
                (Owned::Constant, Owned::Constant) => Owned::Constant,
                (Owned::Yes, Owned::Constant) | (Owned::Constant, Owned::Yes) => Owned::Yes,
                (Owned::Yes, Owned::Yes) => yes(binary.fill.is_none() && matches_label(tree, binary.matching, label)),
                (Owned::No, _) | (_, Owned::No) => Owned::No,
            },
        };
        owned.push(this);
    }
    owned
}

fn yes(condition: bool) -> Owned {
    if condition { Owned::Yes } else { Owned::No }
}

/// Whether a node is this very string.
fn names(tree: &Tree<'_>, id: usize, label: &str) -> bool {
    match tree.node(id) {
        Node::Text(value) => **value == *label.as_bytes(),
        Node::Paren { inner, .. } => names(tree, *inner, label),
        _ => false,
    }
}

fn matches_label(tree: &Tree<'_>, matching: Option<Matching>, label: &str) -> bool {
    let Some(matching) = matching else { return true };
    let listed = matching.labels.of(&tree.labels).iter().any(|found| found == label);
    let copied = matching.group.is_some_and(|group| group.include.of(&tree.labels).iter().any(|found| found == label));
    matching.on == listed && !copied
}

fn call(tree: &Tree<'_>, name: &str, arguments: &Arguments, label: &str, owned: &[Owned]) -> Owned {
    let arguments = tree.arguments(arguments);
    let (mut data, mut constant) = (0, 0);
    for argument in arguments {
        match owned[*argument] {
            Owned::Yes => data += 1,
            Owned::Constant => constant += 1,
            Owned::No => return Owned::No,
        }
    }
    match name {
        "time" | "pi" | "start" | "end" | "range" | "step" | "min_of" | "max_of" if data == 0 => Owned::Constant,
        // They answer with series that the backend does not have, for all of them at once, or in an order among them.
        "absent"
        | "absent_over_time"
        | "scalar"
        | "vector"
        | "sort"
        | "sort_desc"
        | "sort_by_label"
        | "sort_by_label_desc"
        | "histogram_quantiles" => Owned::No,
        "histogram_quantile" | "histogram_fraction" if label == "le" => Owned::No,
        "label_replace" | "label_join" => {
            yes(data == 1 && !arguments.get(1).is_some_and(|target| names(tree, *target, label)))
        }
        _ => yes(data == 1 && data + constant == arguments.len()),
    }
}

#[cfg(test)]
#[path = "analysis/tests.rs"]
mod tests;
