//! What would the query make a backend do? Steps of subqueries, how far back it looks, how long the labels grow that it
//! makes, and how large its regular expressions are once they are written out. None of it stops at a backend's own timeout
//! or sample limit before the memory is gone.

use super::functions::Function;
use super::tree::{Id, Node, Span, Subquery, Tree};
use super::{Error, Limits};

/// Bounds a range or an offset by what the backend keeps.
#[allow(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
pub(super) fn look_back(span: &Span<'_>, text: &str, limits: &Limits) -> Result<(), Error> {
    if span.seconds.is_some_and(|seconds| seconds.abs() > limits.lookback_ms as f64 / 1000.0) {
        let name = "metrics_backends[].retention (seconds)";
        return Err(Error::limit(name, limits.lookback_ms / 1000, text, span.position));
    }
    Ok(())
}

/// The shortest step there is, in seconds.
pub(super) const SHORTEST: f64 = 0.001;

/// Bounds the steps of all subqueries together. A backend computes a subquery once, over all that is asked of it: the
/// request's window or the steps of the subquery around it, and its own range before that; for each step it takes memory
/// before it reads a sample.
#[allow(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
pub(super) fn steps(tree: &Tree<'_>, text: &str, limits: &Limits) -> Result<(), Error> {
    let mut asked_of = vec![seconds(limits.window.range_ms); tree.nodes.len()];
    let mut steps = 0.0;
    // What is above a node stands behind it, so what is asked of it is known when we come to it.
    for (id, node) in tree.nodes.iter().enumerate().rev() {
        let mut span: f64 = asked_of[id];
        if let Node::Subquery(subquery) = node {
            // One that stands at a time of its own is computed for that time only.
            if subquery.modifiers.as_ref().is_some_and(|modifiers| modifiers.at.is_some()) {
                span = 0.0;
            }
            let (range, step) = range_and_step(subquery, limits);
            span += range;
            steps += (span / step).ceil();
            if steps > limits.subquery_steps as f64 {
                let at = subquery.range.position;
                return Err(Error::limit("limits.subquery_steps", limits.subquery_steps, text, at));
            }
        }
        tree.below(node, |below: Id| asked_of[below] = span);
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// In seconds. An expression of the request's window other than the window itself may be as long as what the backend keeps,
/// and as a step as short as a millisecond.
fn range_and_step(subquery: &Subquery<'_>, limits: &Limits) -> (f64, f64) {
    let asked = |span: &Span<'_>| match &*span.text {
        "range()" => Some(seconds(limits.window.range_ms)),
        "step()" => Some(seconds(limits.window.step_ms)),
        _ => span.seconds,
    };
    let range = asked(&subquery.range).unwrap_or(seconds(limits.lookback_ms));
    let step = match &subquery.step {
        None => seconds(limits.subquery_default_step_ms),
        Some(step) => asked(step).unwrap_or(SHORTEST),
    };
    (range, step.max(SHORTEST))
}

/// What a label of a stored series is taken for, in bytes.
const LABEL: u64 = 128;

/// Whether a function makes a label out of others.
pub(super) fn makes_labels(function: &Function) -> bool {
    matches!(function.name, "label_join" | "label_replace")
}

/// Bounds the bytes of the labels that a query makes for one series. Each function that makes one can repeat what others
/// made, so that a text doubles with every call around it. `calls` are those functions, with their positions, inner ones
/// first.
pub(super) fn labels(tree: &Tree<'_>, calls: &[(Id, usize)], text: &str, limits: &Limits) -> Result<(), Error> {
    // The longest label behind each node; what is below a node stands before it.
    let mut longest = vec![LABEL; tree.nodes.len()];
    let mut made = 0_u64;
    let mut next = calls.iter().copied().peekable();
    for (id, node) in tree.nodes.iter().enumerate() {
        let mut below = LABEL;
        tree.below(node, |inner| below = below.max(longest[inner]));
        longest[id] = below;
        let Some((_, position)) = next.next_if(|(call, _)| *call == id) else { continue };
        let Node::Call { function, arguments } = node else { continue };
        let arguments = tree.arguments(arguments);
        let third = arguments.get(2).map(|id| tree.node(*id));
        let third: &[u8] = if let Some(Node::Text(third)) = third { third } else { &[] };
        let size = third.len() as u64;
        let length = if function.name == "label_join" {
            // The third is the separator, and the fourth the first label that is joined.
            (arguments.len().saturating_sub(3) as u64).saturating_mul(below.saturating_add(size))
        } else {
            // The third is what it is replaced by, where a dollar stands for as much as all of the source.
            (memchr::memchr_iter(b'$', third).count() as u64).saturating_mul(below).saturating_add(size)
        };
        longest[id] = below.max(length);
        made = made.saturating_add(length);
        if made > limits.label_bytes as u64 {
            return Err(Error::limit("limits.query_label_bytes", limits.label_bytes as u64, text, position));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::promql::{Features, Limits, Window, check};

    const INSTANT: Window = Window { range_ms: 0, step_ms: 0 };
    const HOUR: Window = Window { range_ms: 3_600_000, step_ms: 15_000 };
    const MONTH: Window = Window { range_ms: 30 * 24 * 3_600_000, step_ms: 3_600_000 };
    const YEAR: Window = Window { range_ms: 365 * 24 * 3_600_000, step_ms: 3_600_000 };

    fn refusal(query: &str, window: Window) -> Option<String> {
        let limits = Limits { window, ..Limits::default() };
        check(query, &limits, Features { experimental: true }).err().map(|error| error.to_string())
    }

    #[test]
    fn subqueries_are_counted_over_all_that_is_asked_of_them() {
        for (query, window) in [
            ("max_over_time(up[range():step()])", HOUR),
            ("max_over_time(up[1h:step()])", HOUR),
            ("max_over_time(up[range():1s])", HOUR),
            ("max_over_time(up[range():1ms])", Window { range_ms: 400_000, ..HOUR }),
            ("max_over_time(up[1h:1m])", MONTH),
            ("max_over_time(up[1h:1m])", YEAR),
            // A month of minutes, as objectives ask for it.
            ("avg_over_time((up > bool 0)[30d:])", INSTANT),
            ("avg_over_time((up > bool 0)[30d:])", MONTH),
            ("max_over_time(max_over_time(up[1h:1m])[30d:1h])", INSTANT),
            // At a time of its own it is computed once.
            ("max_over_time(up[1s:1ms] @ 1700000000)", YEAR),
            ("max_over_time(up[900s:1ms])", INSTANT),
        ] {
            assert_eq!(refusal(query, window), None, "{query}");
        }
        for (query, window) in [
            ("max_over_time(up[1s:1ms])", YEAR),
            ("max_over_time(up[10s:1ms])", MONTH),
            ("max_over_time(max_over_time((up > 1e9)[10ms:1ms])[30d:1d])", INSTANT),
            ("max_over_time(max_over_time((up > 1e9)[10ms:1ms])[366d:1d])", INSTANT),
            ("max_over_time(max_over_time(up[10ms:1ms])[30d:1d] @ 1700000000)", INSTANT),
            ("max_over_time(up[range():1ms])", HOUR),
            ("max_over_time(up[30d:step()])", INSTANT),
            ("max_over_time(up[range() * 1000000:step()])", HOUR),
            ("max_over_time(up[1h:min_of(step(), 1ms)])", HOUR),
            // Each is below the limit, all together are not.
            ("max_over_time(up[900s:1ms]) + max_over_time(up[900s:1ms])", INSTANT),
        ] {
            let refusal = refusal(query, window).unwrap_or_default();
            assert!(refusal.contains("limits.subquery_steps, which is 1000000"), "{query}: {refusal}");
        }
    }

    #[test]
    fn labels_that_a_query_makes_are_bounded() {
        let doubled = |times: usize| {
            let start = "label_replace(vector(1), \"a\", \"x\", \"\", \"\")".to_owned();
            (0..times).fold(start, |inner, _| format!("label_join({inner}, \"a\", \"\", \"a\", \"a\")"))
        };
        let long = "x".repeat(60_000);
        for good in [
            doubled(8),
            format!("label_join(up, \"a\", \"-\"{})", ", \"pod\"".repeat(100)),
            format!("label_replace(up, \"a\", \"{long}\", \"pod\", \".*\")"),
            "label_replace(label_replace(up, \"a\", \"$1-$2\", \"pod\", \"(.*)-(.*)\"), \"b\", \"$1\", \"a\", \"(.*)\")".to_owned(),
        ] {
            assert_eq!(refusal(&good, HOUR), None, "{good:.80}");
        }
        let spread = (0..20).map(|_| doubled(7)).collect::<Vec<_>>().join(" or ");
        for bad in [
            doubled(12),
            doubled(60),
            format!("label_join(up, \"a\", \"{}\"{})", &long[..10_000], ", \"pod\"".repeat(7)),
            format!("label_replace(up, \"a\", \"{}\", \"pod\", \"(.*)\")", "$1".repeat(1000)),
            format!("sum by (a) ((label_join(-{}, \"b\", \"\"{})))", doubled(7), ", \"a\"".repeat(9)),
            spread,
        ] {
            let refusal = refusal(&bad, HOUR).unwrap_or_default();
            assert!(refusal.contains("limits.query_label_bytes, which is 65536"), "{bad:.80}: {refusal}");
        }
    }

    #[test]
    fn repetitions_in_regular_expressions_are_bounded_over_the_whole_query() {
        let many = |pattern: &str, times: usize| {
            let matchers: Vec<String> = (0..times).map(|_| format!("pod=~\"{pattern}\"")).collect();
            format!("up{{{}}}", matchers.join(","))
        };
        for good in [
            many("x-[a-z0-9]{10}-[a-z0-9]{5}", 20),
            many(".{1000}", 4),
            many(&"a|".repeat(5000), 2),
            many("(?i)[^/]+/[a-z]+\\\\W?", 20),
            many(&"[^b]\\\\W\\\\x{3042}".repeat(200), 1),
            "up{pod=\".{1000}.{1000}.{1000}.{1000}.{1000}.{1000}\"}".to_owned(),
        ] {
            assert_eq!(refusal(&good, HOUR), None, "{good:.80}");
        }
        for bad in [
            many(".{1000}", 6),
            many(&"^{1000}".repeat(6), 1),
            many(&format!("(?:{})(?i){{1000}}", "a".repeat(60)), 1),
            many(&format!("(?:{})\\\\Q\\\\E{{1000}}", "a".repeat(60)), 1),
            many(&format!("(?:\\\\Q)\\\\E{}){{1000}}", "a".repeat(60)), 1),
            // Each takes milliseconds to write down.
            many(&format!("(?i){}", "[^b]".repeat(110)), 1),
            many(&format!("(?i){}", "\\\\W".repeat(110)), 1),
            many("(?i)[^b]", 110),
            many(&"\\\\pL".repeat(110), 1),
            many(&".{1000}".repeat(60), 1),
            many("(?:(?:a{10}){10}){100}", 1),
            many(&".\\x7b1000}".repeat(6), 1),
            "label_replace(up, \"a\", \"$1\", \"pod\", \"(.{1000}){9}\")".to_owned(),
            format!("{} or {}", many(".{1000}", 3), "up{a!~\"(?:.?.?){2000}\"}"),
        ] {
            let refusal = refusal(&bad, HOUR).unwrap_or_default();
            assert!(refusal.contains("limits.query_repetitions, which is 5000"), "{bad:.80}: {refusal}");
        }
    }
}
