//! A tree becomes text again, in a small subset of PromQL that every version reads in one way.
//!
//! Only this text is sent. A query that we misread can therefore change what its author gets, but it cannot hold a selector
//! that we have not seen.

use std::fmt::Write as _;

use super::guard::{self, Part};
use super::tree::{Binary, Id, Modifiers, Node, Run, Selector, Tree};
use super::words::{self, Word, is_plain_label};
use super::{Labels, Reach};

/// The text was to become longer than it may.
#[derive(Debug)]
pub(super) struct TooLong;

/// Prints a tree with the guards of its selectors, at most so many bytes and one guard.
pub(super) fn print(
    tree: &Tree<'_>,
    root: Id,
    (reach, labels): (&Reach, &Labels),
    capacity: usize,
    most: usize,
) -> Result<String, TooLong> {
    let mut printer =
        Printer { out: String::with_capacity(capacity.min(most)), tree, reach, labels, most, spine: Vec::new() };
    printer.node(root)?;
    if printer.out.len() > most { Err(TooLong) } else { Ok(printer.out) }
}

struct Printer<'p, 'a> {
    out: String,
    tree: &'p Tree<'a>,
    reach: &'p Reach,
    labels: &'p Labels,
    most: usize,
    /// The operators whose left side is being printed.
    spine: Vec<&'p Binary<'a>>,
}

impl<'p, 'a> Printer<'p, 'a> {
    /// Long chains of operators hang to the left: they are followed without recursion.
    fn node(&mut self, mut id: Id) -> Result<(), TooLong> {
        let tree = self.tree;
        let mark = self.spine.len();
        while let Node::Binary(binary) = tree.node(id) {
            self.spine.push(binary);
            id = binary.left;
        }
        self.operand(id)?;
        while self.spine.len() > mark
            && let Some(binary) = self.spine.pop()
        {
            self.operator(binary);
            self.node(binary.right)?;
        }
        Ok(())
    }

    fn operand(&mut self, id: Id) -> Result<(), TooLong> {
        let tree = self.tree;
        match tree.node(id) {
            Node::Number(text) => self.out.push_str(text),
            Node::Text(value) => quoted(&mut self.out, value),
            Node::Selector(found) => {
                self.selector(found)?;
                self.modifiers(found.modifiers.as_deref(), false);
            }
            Node::Range { selector, range, modifiers } => {
                if let Node::Selector(found) = tree.node(*selector) {
                    self.selector(found)?;
                }
                self.out.push('[');
                self.out.push_str(&range.text);
                self.out.push(']');
                self.modifiers(modifiers.as_deref(), true);
            }
            Node::Subquery(subquery) => {
                self.node(subquery.inner)?;
                self.out.push('[');
                self.out.push_str(&subquery.range.text);
                self.out.push(':');
                if let Some(step) = &subquery.step {
                    self.out.push_str(&step.text);
                }
                self.out.push(']');
                self.modifiers(subquery.modifiers.as_deref(), true);
            }
            Node::Call { function, arguments } => {
                self.out.push_str(function.name);
                self.out.push('(');
                for (index, argument) in tree.arguments(arguments).iter().enumerate() {
                    if index > 0 {
                        self.out.push_str(", ");
                    }
                    self.node(*argument)?;
                }
                self.out.push(')');
            }
            Node::Aggregate { word, grouping, parameter, inner } => {
                self.out.push_str(word);
                if let Some(grouping) = grouping {
                    self.out.push_str(if grouping.without { " without " } else { " by " });
                    self.list(grouping.labels);
                    self.out.push(' ');
                }
                self.out.push('(');
                if let Some(parameter) = parameter {
                    self.node(*parameter)?;
                    self.out.push_str(", ");
                }
                self.node(*inner)?;
                self.out.push(')');
            }
            Node::Unary { minus, inner, .. } => {
                self.out.push(if *minus { '-' } else { '+' });
                self.node(*inner)?;
            }
            Node::Paren { inner, .. } => {
                self.out.push('(');
                self.node(*inner)?;
                self.out.push(')');
            }
            // `node` has followed it.
            Node::Binary(_) => self.node(id)?,
        }
        Ok(())
    }

    fn operator(&mut self, binary: &Binary<'_>) {
        self.out.push(' ');
        self.out.push_str(binary.op.text());
        if binary.bool {
            self.out.push_str(" bool");
        }
        if let Some(matching) = &binary.matching {
            self.out.push_str(if matching.on { " on " } else { " ignoring " });
            self.list(matching.labels);
            if let Some(group) = &matching.group {
                self.out.push_str(if group.left { " group_left " } else { " group_right " });
                self.list(group.include);
            }
        }
        if let Some(fill) = &binary.fill {
            for (word, value) in [("fill", &fill.both), ("fill_left", &fill.left), ("fill_right", &fill.right)] {
                if let Some(value) = value {
                    let _ = write!(self.out, " {word} ({value})");
                }
            }
        }
        self.out.push(' ');
    }

    fn selector(&mut self, selector: &Selector<'_>) -> Result<(), TooLong> {
        // The lexer takes nothing but a word for a name.
        let plain = selector.name.filter(|name| words::meaning(name) == Word::Name);
        if let Some(name) = plain {
            self.out.push_str(name);
        }
        let out = &mut self.out;
        let mut open = '{';
        guard::parts(self.tree, selector, self.reach, self.labels, &mut |part| {
            match part {
                Part::Matcher(label, op, value) => {
                    out.push(std::mem::replace(&mut open, ','));
                    out.push_str(label);
                    out.push_str(op.text());
                    quoted(out, value);
                }
                // Several names need no escapes: they are Kubernetes names.
                Part::First(label, name) => {
                    out.push(std::mem::replace(&mut open, ','));
                    out.push_str(label);
                    out.push_str("=~\"");
                    out.push_str(name);
                }
                Part::Next(name) => {
                    out.push('|');
                    out.push_str(name);
                }
                Part::Close => out.push('"'),
            }
        });
        for matcher in selector.matchers.of(&self.tree.matchers).iter().filter(|matcher| !matcher.implied) {
            self.out.push(std::mem::replace(&mut open, ','));
            label(&mut self.out, &matcher.label);
            self.out.push_str(matcher.op.text());
            quoted(&mut self.out, &matcher.value);
        }
        if let (None, Some(name)) = (plain, selector.name) {
            self.out.push(std::mem::replace(&mut open, ','));
            self.out.push_str("__name__=");
            quoted(&mut self.out, name.as_bytes());
        }
        if open == ',' {
            self.out.push('}');
        } else if plain.is_none() {
            self.out.push_str("{}");
        }
        if self.out.len() > self.most { Err(TooLong) } else { Ok(()) }
    }

    /// In upstream's order: `anchored` and `smoothed` stand behind `@`, but behind a range before it.
    fn modifiers(&mut self, modifiers: Option<&Modifiers<'_>>, range: bool) {
        let Some(modifiers) = modifiers else { return };
        let edge = |out: &mut String, here: bool| {
            if let Some(word) = modifiers.edge.filter(|_| here) {
                out.push(' ');
                out.push_str(word);
            }
        };
        // An operator behind an offset in parentheses would belong to the offset, so something else must stand between.
        let first = modifiers.offset.as_ref().filter(|offset| offset.text.starts_with('('));
        if let Some(offset) = first {
            self.out.push_str(" offset ");
            self.out.push_str(&offset.text);
        }
        edge(&mut self.out, range);
        if let Some(at) = &modifiers.at {
            self.out.push_str(" @ ");
            self.out.push_str(at);
        }
        edge(&mut self.out, !range);
        if let (None, Some(offset)) = (first, &modifiers.offset) {
            self.out.push_str(" offset ");
            self.out.push_str(&offset.text);
        }
    }

    fn list(&mut self, run: Run) {
        self.out.push('(');
        for (index, name) in run.of(&self.tree.labels).iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            // Outside of braces `inf` and `nan` are numbers.
            if words::meaning(name) == Word::Number {
                quoted(&mut self.out, name.as_bytes());
            } else {
                label(&mut self.out, name);
            }
        }
        self.out.push(')');
    }
}

fn label(out: &mut String, name: &str) {
    if is_plain_label(name) {
        out.push_str(name);
    } else {
        quoted(out, name.as_bytes());
    }
}

/// A string in double quotes. Printable UTF-8 stays, everything else is an escape.
pub(super) fn quoted(out: &mut String, value: &[u8]) {
    out.push('"');
    if words::printed(value) == value.len()
        && let Ok(plain) = std::str::from_utf8(value)
    {
        out.push_str(plain);
        out.push('"');
        return;
    }
    for chunk in value.utf8_chunks() {
        let mut rest = chunk.valid();
        loop {
            let plain = words::printed(rest.as_bytes());
            out.push_str(&rest[..plain]);
            rest = &rest[plain..];
            let Some(character) = rest.chars().next() else { break };
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
            rest = &rest[character.len_utf8()..];
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
}
