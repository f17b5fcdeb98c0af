//! What would the query make a backend do? Steps of subqueries, and how far back it looks.

use super::tree::{Id, Modifiers, Node, Selector, Span, Tree};
use super::{Error, Limits};

/// Bounds the steps of nested subqueries, which multiply, and every range and offset.
pub(super) fn check(tree: &Tree<'_>, root: Id, text: &str, limits: &Limits) -> Result<(), Error> {
    walk(tree, root, 1.0, text, limits)
}

#[allow(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
fn walk(tree: &Tree<'_>, id: Id, outer: f64, text: &str, limits: &Limits) -> Result<(), Error> {
    match &tree.nodes[id] {
        Node::Number(_) | Node::Text(_) => Ok(()),
        Node::Selector(selector) => look_back(&selector.modifiers, None, text, limits),
        Node::Range { selector, range, modifiers } => {
            look_back(modifiers, Some(range), text, limits)?;
            walk(tree, *selector, outer, text, limits)
        }
        Node::Subquery { inner, range, step, modifiers } => {
            look_back(modifiers, Some(range), text, limits)?;
            let default = limits.subquery_default_step_ms as f64 / 1000.0;
            let step = step.as_ref().map_or(Some(default), |step| step.seconds);
            // What depends on the request is bounded by the points of the request.
            let steps = match (range.seconds, step) {
                (Some(range), Some(step)) if step > 0.0 => (range / step).ceil() * outer,
                _ => outer,
            };
            if steps > limits.subquery_steps as f64 {
                let at = position(tree, *inner);
                return Err(Error::limit("limits.subquery_steps", limits.subquery_steps, text, at));
            }
            walk(tree, *inner, steps.max(1.0), text, limits)
        }
        Node::Call { arguments, .. } => {
            arguments.iter().try_for_each(|argument| walk(tree, *argument, outer, text, limits))
        }
        Node::Aggregate { parameter, inner, .. } => {
            if let Some(parameter) = parameter {
                walk(tree, *parameter, outer, text, limits)?;
            }
            walk(tree, *inner, outer, text, limits)
        }
        Node::Unary { inner, .. } | Node::Paren(inner) => walk(tree, *inner, outer, text, limits),
        Node::Binary(binary) => {
            walk(tree, binary.left, outer, text, limits)?;
            walk(tree, binary.right, outer, text, limits)
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
fn look_back(modifiers: &Modifiers<'_>, range: Option<&Span<'_>>, text: &str, limits: &Limits) -> Result<(), Error> {
    let most = limits.lookback_ms as f64 / 1000.0;
    for span in modifiers.offset.iter().chain(range) {
        if span.seconds.is_some_and(|seconds| seconds.abs() > most) {
            let at = text.find(&*span.text).unwrap_or(0);
            return Err(Error::limit("metrics_backends[].retention (seconds)", limits.lookback_ms / 1000, text, at));
        }
    }
    Ok(())
}

/// Where the first selector below a node stands.
fn position(tree: &Tree<'_>, id: Id) -> usize {
    match &tree.nodes[id] {
        Node::Selector(Selector { position, .. }) => *position,
        Node::Range { selector: inner, .. }
        | Node::Subquery { inner, .. }
        | Node::Aggregate { inner, .. }
        | Node::Unary { inner, .. }
        | Node::Paren(inner) => position(tree, *inner),
        Node::Call { arguments, .. } => arguments.last().map_or(0, |argument| position(tree, *argument)),
        Node::Binary(binary) => position(tree, binary.left),
        Node::Number(_) | Node::Text(_) => 0,
    }
}
