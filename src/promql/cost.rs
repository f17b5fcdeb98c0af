//! What would the query make a backend do? Steps of subqueries, and how far back it looks.

use super::tree::{Id, Node, Span, Tree};
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

/// Bounds the steps of nested subqueries, which multiply.
#[allow(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
pub(super) fn steps(tree: &Tree<'_>, text: &str, limits: &Limits) -> Result<(), Error> {
    if tree.subqueries == 0 {
        return Ok(());
    }
    let default = limits.subquery_default_step_ms as f64 / 1000.0;
    let mut outer = vec![1.0; tree.nodes.len()];
    // What is above a node stands behind it, so its factor is known when we come to it.
    for (id, node) in tree.nodes.iter().enumerate().rev() {
        let mut factor: f64 = outer[id];
        if let Node::Subquery(subquery) = node {
            let step = subquery.step.as_ref().map_or(Some(default), |step| step.seconds);
            // What depends on the request is bounded by the points of the request.
            if let (Some(range), Some(step)) = (subquery.range.seconds, step)
                && step > 0.0
            {
                factor = (range / step).ceil() * outer[id];
            }
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
