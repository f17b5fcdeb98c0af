//! A tree becomes text again, in a small subset of PromQL that every version reads in one way.
//!
//! Only this text is sent. A query that we misread can therefore change what its author gets, but it cannot hold a selector
//! that we have not seen.

use std::fmt::Write as _;

use super::functions::{is_plain_label, is_plain_name};
use super::tree::{Binary, Id, Modifiers, Node, Selector, Tree};

pub(super) fn print(tree: &Tree<'_>, root: Id, capacity: usize) -> String {
    let mut out = String::with_capacity(capacity);
    node(&mut out, tree, root);
    out
}

fn node(out: &mut String, tree: &Tree<'_>, id: Id) {
    match &tree.nodes[id] {
        Node::Number(text) => out.push_str(text),
        Node::Text(value) => quoted(out, value),
        Node::Selector(found) => {
            selector(out, found);
            modifiers(out, &found.modifiers, false);
        }
        Node::Range { selector: id, range, modifiers: found } => {
            if let Node::Selector(found) = &tree.nodes[*id] {
                selector(out, found);
            }
            out.push('[');
            out.push_str(&range.text);
            out.push(']');
            modifiers(out, found, true);
        }
        Node::Subquery { inner, range, step, modifiers: found } => {
            node(out, tree, *inner);
            out.push('[');
            out.push_str(&range.text);
            out.push(':');
            if let Some(step) = step {
                out.push_str(&step.text);
            }
            out.push(']');
            modifiers(out, found, true);
        }
        Node::Call { function, arguments } => {
            out.push_str(function.name);
            out.push('(');
            for (index, argument) in arguments.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                node(out, tree, *argument);
            }
            out.push(')');
        }
        Node::Aggregate { word, grouping, parameter, inner } => {
            out.push_str(word);
            if let Some(grouping) = grouping {
                out.push_str(if grouping.without { " without " } else { " by " });
                labels(out, &grouping.labels);
                out.push(' ');
            }
            out.push('(');
            if let Some(parameter) = parameter {
                node(out, tree, *parameter);
                out.push_str(", ");
            }
            node(out, tree, *inner);
            out.push(')');
        }
        Node::Unary { minus, inner } => {
            out.push(if *minus { '-' } else { '+' });
            node(out, tree, *inner);
        }
        Node::Binary(found) => binary(out, tree, found),
        Node::Paren(inner) => {
            out.push('(');
            node(out, tree, *inner);
            out.push(')');
        }
    }
}

fn binary(out: &mut String, tree: &Tree<'_>, binary: &Binary<'_>) {
    node(out, tree, binary.left);
    out.push(' ');
    out.push_str(binary.op.text());
    if binary.bool {
        out.push_str(" bool");
    }
    if let Some(matching) = &binary.matching {
        out.push_str(if matching.on { " on " } else { " ignoring " });
        labels(out, &matching.labels);
        if let Some(group) = &matching.group {
            out.push_str(if group.left { " group_left " } else { " group_right " });
            labels(out, &group.include);
        }
    }
    for (word, value) in
        [("fill", &binary.fill.both), ("fill_left", &binary.fill.left), ("fill_right", &binary.fill.right)]
    {
        if let Some(value) = value {
            let _ = write!(out, " {word} ({value})");
        }
    }
    out.push(' ');
    node(out, tree, binary.right);
}

fn selector(out: &mut String, selector: &Selector<'_>) {
    let plain = selector.name.filter(|name| is_plain_name(name));
    if let Some(name) = plain {
        out.push_str(name);
        if selector.matchers.is_empty() {
            return;
        }
    }
    out.push('{');
    let mut first = true;
    let mut part = |out: &mut String, label: &str, op: &str, value: &[u8]| {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        if is_plain_label(label) {
            out.push_str(label);
        } else {
            quoted(out, label.as_bytes());
        }
        out.push_str(op);
        quoted(out, value);
    };
    for matcher in &selector.matchers {
        part(out, &matcher.label, matcher.op.text(), &matcher.value);
    }
    if let (None, Some(name)) = (plain, selector.name) {
        part(out, "__name__", "=", name.as_bytes());
    }
    out.push('}');
}

/// In upstream's order: `anchored` and `smoothed` stand behind `@`, but behind a range before it.
fn modifiers(out: &mut String, modifiers: &Modifiers<'_>, range: bool) {
    let edge = |out: &mut String, here: bool| {
        if let Some(word) = modifiers.edge.filter(|_| here) {
            out.push(' ');
            out.push_str(word);
        }
    };
    edge(out, range);
    if let Some(at) = &modifiers.at {
        out.push_str(" @ ");
        out.push_str(at);
    }
    edge(out, !range);
    if let Some(offset) = &modifiers.offset {
        out.push_str(" offset ");
        out.push_str(&offset.text);
    }
}

fn labels(out: &mut String, labels: &[impl AsRef<str>]) {
    out.push('(');
    for (index, label) in labels.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        let label = label.as_ref();
        if is_plain_label(label) {
            out.push_str(label);
        } else {
            quoted(out, label.as_bytes());
        }
    }
    out.push(')');
}

/// A string in double quotes. Printable UTF-8 stays, everything else is an escape.
pub(super) fn quoted(out: &mut String, value: &[u8]) {
    out.push('"');
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                // The replacement character is refused in a query's text, and may only come from an escape.
                '\u{fffd}' => out.push_str("\\xef\\xbf\\xbd"),
                other if other.is_control() => {
                    for byte in other.encode_utf8(&mut [0; 4]).bytes() {
                        let _ = write!(out, "\\x{byte:02x}");
                    }
                }
                other => out.push(other),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
}
