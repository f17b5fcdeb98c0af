//! Binary operators: their types, `bool`, and how series are matched and filled in.

use super::{Parser, short};
use crate::promql::Error;
use crate::promql::lex::{Lexer, Token};
use crate::promql::tree::{Binary, Fill, Group, Id, Matching, Node, Op, Run, Type, count};
use crate::promql::words::Word;

impl<'a> Parser<'a, '_> {
    pub(super) fn binary(&mut self, op: Op, at: usize, start: usize, left: Id, depth: usize) -> Result<Id, Error> {
        let bool = self.head_is(Word::Bool);
        if bool {
            self.advance()?;
        }
        let matching = self.matching()?;
        let fill = self.fill()?;
        // `^` alone is right-associative.
        let right = self.expression(if op == Op::Pow { op.precedence() } else { op.precedence() + 1 }, depth)?;
        let (left_kind, right_kind) = (self.tree.kind(left), self.tree.kind(right));
        if bool && !op.is_comparison() {
            return Err(self.type_error(at, "bool modifier can only be used on comparison operators"));
        }
        if op.is_comparison() && !bool && left_kind == Type::Scalar && right_kind == Type::Scalar {
            return Err(self.type_error(at, "comparisons between scalars must use BOOL modifier"));
        }
        for kind in [left_kind, right_kind] {
            if !matches!(kind, Type::Scalar | Type::Vector) {
                return Err(
                    self.type_error(start, "binary expression must contain only scalar and instant vector types")
                );
            }
        }
        let vectors = left_kind == Type::Vector && right_kind == Type::Vector;
        if op.is_set() && !vectors {
            let message = format!("set operator {:?} not allowed in binary scalar expression", op.text());
            return Err(self.type_error(start, message));
        }
        if let Some(matching) = &matching {
            if !vectors && matching.labels.start < matching.labels.end {
                return Err(self.type_error(start, "vector matching only allowed between instant vectors"));
            }
            if op.is_set() && matching.group.is_some() {
                return Err(self.type_error(start, format!("no grouping allowed for {:?} operation", op.text())));
            }
            if let (true, Some(group)) = (matching.on, &matching.group)
                && let Some(label) = self.shared_label(matching.labels, group.include)
            {
                let message = format!("label {:?} must not occur in ON and GROUP clause at once", short(label));
                return Err(self.type_error(at, message));
            }
        }
        if fill.is_some() && (op.is_set() || !vectors) {
            return Err(self.type_error(
                start,
                "filling in missing series is only allowed between instant vectors and not for set operators",
            ));
        }
        let kind = if left_kind == Type::Scalar && right_kind == Type::Scalar { Type::Scalar } else { Type::Vector };
        Ok(self.add(Node::Binary(Binary { op, bool, matching, fill, left, right, kind })))
    }

    /// A label that stands in both lists.
    fn shared_label(&self, on: Run, include: Run) -> Option<&str> {
        let (on, include) = (on.of(&self.tree.labels), include.of(&self.tree.labels));
        if include.is_empty() {
            return None;
        }
        let mut sorted: Vec<&str> = include.iter().map(AsRef::as_ref).collect();
        sorted.sort_unstable();
        on.iter().map(AsRef::as_ref).find(|label| sorted.binary_search(label).is_ok())
    }

    fn matching(&mut self) -> Result<Option<Matching>, Error> {
        let on = self.head_is(Word::On);
        if !on && !self.head_is(Word::Ignoring) {
            return Ok(None);
        }
        self.advance()?;
        let labels = self.labels(if on { "on" } else { "ignoring" })?;
        let left = self.head_is(Word::GroupLeft);
        let group = if left || self.head_is(Word::GroupRight) {
            self.advance()?;
            let include = if matches!(self.lexer.head.token, Token::LeftParen) {
                self.labels(if left { "group_left" } else { "group_right" })?
            } else {
                Run { start: count(&self.tree.labels), end: count(&self.tree.labels) }
            };
            Some(Group { left, include })
        } else {
            None
        };
        Ok(Some(Matching { on, labels, group }))
    }

    /// `fill (1)`, or `fill_left (1)` and `fill_right (2)` in either order.
    fn fill(&mut self) -> Result<Option<Box<Fill<'a>>>, Error> {
        let mut fill: Option<Box<Fill<'a>>> = None;
        loop {
            let slot = match self.lexer.head.token {
                Token::Word(Word::Fill) => 0,
                Token::Word(Word::FillLeft) => 1,
                Token::Word(Word::FillRight) => 2,
                _ => break,
            };
            // A metric may be called so: only a parenthesis makes it a modifier.
            let mut ahead = Lexer { tokens: 0, most_tokens: 1, ..self.lexer };
            ahead.skip_space();
            if ahead.peek_byte() != Some(b'(') {
                break;
            }
            self.experimental("fill", self.lexer.head.start)?;
            let at = self.lexer.head.start;
            self.advance()?;
            self.advance()?;
            let value = self.signed_number("fill")?;
            if !matches!(self.lexer.head.token, Token::RightParen) {
                return Err(self.unexpected(" in fill modifier, expected \")\""));
            }
            self.advance()?;
            let fill = fill.get_or_insert_default();
            let target = match slot {
                0 => &mut fill.both,
                1 => &mut fill.left,
                _ => &mut fill.right,
            };
            if target.replace(value).is_some() || (fill.both.is_some() && (fill.left.is_some() || fill.right.is_some()))
            {
                return Err(self.lexer.error(at, "fill modifiers may not be set multiple times"));
            }
        }
        Ok(fill)
    }
}
