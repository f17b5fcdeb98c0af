//! What would the query make a backend do? Steps of subqueries, and how far back it looks.

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
const SHORTEST: f64 = 0.001;

/// Bounds the steps of nested subqueries, which multiply.
#[allow(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
pub(super) fn steps(tree: &Tree<'_>, text: &str, limits: &Limits) -> Result<(), Error> {
    if tree.subqueries == 0 {
        return Ok(());
    }
    let mut outer = vec![1.0; tree.nodes.len()];
    // What is above a node stands behind it, so its factor is known when we come to it.
    for (id, node) in tree.nodes.iter().enumerate().rev() {
        let mut factor: f64 = outer[id];
        if let Node::Subquery(subquery) = node {
            factor *= steps_of(subquery, limits);
            if factor > limits.subquery_steps as f64 {
                let at = subquery.range.position;
                return Err(Error::limit("limits.subquery_steps", limits.subquery_steps, text, at));
            }
            factor = factor.max(1.0);
        }
        tree.below(node, |below: Id| outer[below] = factor);
    }
    Ok(())
}

/// The steps that a subquery takes. What depends on the request is taken from its window; where that is not told, a range
/// may be as long as what the backend keeps, and a step as short as a millisecond.
#[allow(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
fn steps_of(subquery: &Subquery<'_>, limits: &Limits) -> f64 {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let asked = |span: &Span<'_>| match (&*span.text, limits.window) {
        ("range()", Some(window)) => Some(seconds(window.range_ms)),
        ("step()", Some(window)) => Some(seconds(window.step_ms)),
        _ => span.seconds,
    };
    let range = asked(&subquery.range).unwrap_or(seconds(limits.lookback_ms));
    let step = match &subquery.step {
        None => seconds(limits.subquery_default_step_ms),
        Some(step) => asked(step).unwrap_or(SHORTEST),
    };
    (range / step.max(SHORTEST)).ceil()
}

#[cfg(test)]
mod tests {
    use crate::promql::{Features, Limits, Window, check};

    #[test]
    fn the_steps_of_subqueries_follow_the_window_or_the_worst() {
        let steps = |q: &str, window: Option<Window>| {
            check(q, &Limits { window, ..Limits::default() }, Features { experimental: true })
        };
        let hour = Some(Window { range_ms: 3_600_000, step_ms: 15_000 });
        for query in [
            "max_over_time(up[range():step()])",
            "max_over_time(up[1h:step()])",
            "max_over_time(up[range():1s])",
            "max_over_time(max_over_time(up[range():step()])[10m:1m])",
        ] {
            assert!(steps(query, hour).is_ok(), "{query}");
            let error = steps(query, None).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("limits.subquery_steps, which is 11000"), "{query}: {error}");
        }
        for query in [
            "max_over_time(up[range():1ms])",
            "max_over_time(up[30d:step()])",
            "max_over_time(up[range() * 1000000:step()])",
            "max_over_time(up[1h:min_of(step(), 1ms)])",
            "max_over_time(max_over_time(up[range():step()])[1h:1m])",
        ] {
            assert!(steps(query, hour).is_err(), "{query}");
        }
    }
}
