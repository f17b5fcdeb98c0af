//! What stands behind an expression: `[range]`, `[range:step]`, `offset`, `@`, `anchored` and `smoothed`.
//!
//! Durations are a small language of their own. A literal is printed as spelt; an expression is printed anew, its value
//! known unless it depends on the request.

use std::borrow::Cow;

use super::{Parser, signed_value};
use crate::promql::Error;
use crate::promql::cost;
use crate::promql::lex::{Token, number_value};
use crate::promql::tree::{Id, Modifiers, Node, Op, Span, Subquery, Type};
use crate::promql::words::Word;

/// The most seconds that Prometheus can hold in a duration.
const LONGEST: f64 = 9_223_372_036.0;

impl<'a> Parser<'a, '_> {
    /// A range or subquery; the head is `[`.
    pub(super) fn range(&mut self, id: Id, start: usize) -> Result<Id, Error> {
        let bracket = self.lexer.head.start;
        let range = self.bracket_span(true)?;
        self.lexer.skip_space();
        let subquery = self.lexer.peek_byte() == Some(b':');
        let mut step = None;
        if subquery {
            self.lexer.at += 1;
            self.lexer.skip_space();
            if self.lexer.peek_byte() != Some(b']') {
                let at = self.lexer.at;
                let span = self.bracket_span(true)?;
                // Upstream counts in milliseconds, and divides by none.
                if span.seconds.is_some_and(|seconds| seconds < cost::SHORTEST) {
                    return Err(self.lexer.error(at, "the step of a subquery is at least 1ms"));
                }
                step = Some(span);
                self.lexer.skip_space();
            }
        }
        if self.lexer.peek_byte() != Some(b']') {
            return Err(self.lexer.unexpected(self.lexer.at, " in subquery or range selector"));
        }
        self.lexer.at += 1;
        self.advance()?;
        if subquery {
            let kind = self.tree.kind(id);
            if kind != Type::Vector {
                let message = format!("subquery is only allowed on instant vector, got {} instead", kind.words());
                return Err(self.type_error(start, message));
            }
            self.tree.subqueries += 1;
            return Ok(self.add(Node::Subquery(Box::new(Subquery { inner: id, range, step, modifiers: None }))));
        }
        let Node::Selector(selector) = self.tree.node(id) else {
            return Err(self.type_error(bracket, "ranges only allowed for vector selectors"));
        };
        if let Some(modifiers) = &selector.modifiers {
            if modifiers.offset.is_some() {
                return Err(self.type_error(bracket, "no offset modifiers allowed before range"));
            }
            return Err(self.type_error(bracket, "no @ modifiers allowed before range"));
        }
        Ok(self.add(Node::Range { selector: id, range, modifiers: None }))
    }

    pub(super) fn offset(&mut self, id: Id, start: usize) -> Result<(), Error> {
        // The lexer stands behind the word: durations are read by its small steps.
        let span = self.bracket_offset()?;
        self.advance()?;
        let position = start;
        let message =
            "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery";
        let Some(modifiers) = self.modifiers(id) else { return Err(self.type_error(position, message)) };
        if modifiers.offset.replace(span).is_some() {
            return Err(self.type_error(position, "offset may not be set multiple times"));
        }
        Ok(())
    }

    pub(super) fn at(&mut self, id: Id, start: usize) -> Result<(), Error> {
        self.advance()?;
        let text: Cow<'a, str> = if self.head_is(Word::Start) || self.head_is(Word::End) {
            let word = if self.head_is(Word::Start) { "start()" } else { "end()" };
            self.advance()?;
            for (token, expected) in [(Token::LeftParen, "\"(\""), (Token::RightParen, "\")\"")] {
                if self.lexer.head.token != token {
                    return Err(self.unexpected(&format!(" in @, expected {expected}")));
                }
                self.advance()?;
            }
            Cow::Borrowed(word)
        } else {
            let text = self.signed_number("@")?;
            // Prometheus counts milliseconds in 63 bits.
            let seconds = signed_value(&text).unwrap_or(f64::NAN);
            if !seconds.is_finite() || seconds.abs() >= 9_223_372_036_854_775.0 {
                return Err(self.type_error(start, format!("timestamp out of bounds for @ modifier: {text}")));
            }
            text
        };
        let message =
            "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
        let Some(modifiers) = self.modifiers(id) else { return Err(self.type_error(start, message)) };
        if modifiers.at.replace(text).is_some() {
            return Err(self.type_error(start, "@ <timestamp> may not be set multiple times"));
        }
        Ok(())
    }

    pub(super) fn takes_edge(&self, id: Id) -> bool {
        matches!(self.tree.node(id), Node::Selector(_) | Node::Range { .. })
    }

    pub(super) fn edge(&mut self, id: Id) -> Result<(), Error> {
        let at = self.lexer.head.start;
        let word = if self.head_is(Word::Anchored) { "anchored" } else { "smoothed" };
        self.experimental(word, at)?;
        self.advance()?;
        if let Some(modifiers) = self.modifiers(id)
            && modifiers.edge.replace(word).is_some_and(|before| before != word)
        {
            return Err(self.type_error(at, "anchored and smoothed modifiers cannot be used together"));
        }
        Ok(())
    }

    fn modifiers(&mut self, id: Id) -> Option<&mut Modifiers<'a>> {
        let modifiers = match &mut self.tree.nodes[id] {
            Node::Selector(selector) => &mut selector.modifiers,
            Node::Range { modifiers, .. } => modifiers,
            Node::Subquery(subquery) => &mut subquery.modifiers,
            _ => return None,
        };
        Some(modifiers.get_or_insert_default())
    }

    /// A length in brackets: a literal, or an expression where the backend knows them.
    fn bracket_span(&mut self, positive: bool) -> Result<Span<'a>, Error> {
        self.lexer.skip_space();
        let start = self.lexer.at;
        // Most lengths are a literal and nothing else.
        let mut span = None;
        if matches!(self.lexer.peek_byte(), Some(b'0'..=b'9')) {
            let literal = self.duration_atom(0, false)?;
            if matches!(self.lexer.peek_byte(), Some(b']' | b':')) {
                span = Some(literal);
            } else {
                self.lexer.at = start;
            }
        }
        let span = match span {
            Some(span) => span,
            None => self.duration_sum(0)?,
        };
        if let Some(seconds) = span.seconds {
            if positive && seconds <= 0.0 {
                return Err(self.lexer.error(start, "duration must be greater than 0"));
            }
            if !seconds.is_finite() || seconds.abs() >= LONGEST {
                return Err(self.lexer.error(start, "duration out of range"));
            }
        }
        cost::look_back(&span, self.lexer.text, self.limits)?;
        Ok(span)
    }

    /// The length behind `offset`: a literal with or without a sign; only parentheses hold an expression.
    fn bracket_offset(&mut self) -> Result<Span<'a>, Error> {
        self.lexer.skip_space();
        let start = self.lexer.at;
        // Behind a parenthesis, an operator belongs to the duration and not to the series.
        let span = if self.lexer.peek_byte() == Some(b'(') { self.duration_sum(0)? } else { self.duration_signed(0)? };
        if span.seconds.is_some_and(|seconds| !seconds.is_finite() || seconds.abs() >= LONGEST) {
            return Err(self.lexer.error(start, "duration out of range"));
        }
        cost::look_back(&span, self.lexer.text, self.limits)?;
        Ok(span)
    }

    fn duration_sum(&mut self, depth: usize) -> Result<Span<'a>, Error> {
        let mut left = self.duration_product(depth)?;
        while let Some(op) = self.duration_op(&[(b'+', Op::Add), (b'-', Op::Sub)])? {
            let right = self.duration_product(depth)?;
            left = self.combine(op, left, right)?;
        }
        Ok(left)
    }

    fn duration_product(&mut self, depth: usize) -> Result<Span<'a>, Error> {
        let mut left = self.duration_power(depth)?;
        while let Some(op) = self.duration_op(&[(b'*', Op::Mul), (b'/', Op::Div), (b'%', Op::Mod)])? {
            let right = self.duration_power(depth)?;
            left = self.combine(op, left, right)?;
        }
        Ok(left)
    }

    fn duration_op(&mut self, ops: &[(u8, Op)]) -> Result<Option<Op>, Error> {
        self.lexer.skip_space();
        let found = self.lexer.peek_byte().and_then(|byte| ops.iter().find(|(sign, _)| *sign == byte));
        let Some((_, op)) = found else { return Ok(None) };
        self.experimental("a duration expression", self.lexer.at)?;
        self.count_operator()?;
        self.lexer.at += 1;
        Ok(Some(*op))
    }

    fn count_operator(&mut self) -> Result<(), Error> {
        self.operators += 1;
        if self.operators > self.limits.binary_operators {
            let most = self.limits.binary_operators as u64;
            return Err(Error::limit("limits.query_operators", most, self.lexer.text, self.lexer.at));
        }
        Ok(())
    }

    fn combine(&self, op: Op, left: Span<'a>, right: Span<'a>) -> Result<Span<'a>, Error> {
        if right.seconds == Some(0.0) && matches!(op, Op::Div | Op::Mod) {
            let message = if op == Op::Div { "division by zero" } else { "modulo by zero" };
            return Err(self.lexer.error(self.lexer.at, message));
        }
        let seconds = left.seconds.zip(right.seconds).map(|(left, right)| match op {
            Op::Add => left + right,
            Op::Sub => left - right,
            Op::Mul => left * right,
            Op::Div => left / right,
            Op::Mod => left % right,
            _ => left.powf(right),
        });
        // The left text grows in place: a long chain would be copied over and over otherwise.
        let mut text = left.text.into_owned();
        for piece in [" ", op.text(), " ", &right.text] {
            text.push_str(piece);
        }
        Ok(Span { text: Cow::Owned(text), seconds, position: left.position })
    }

    /// Here a sign binds more tightly than `^`, other than between series.
    fn duration_power(&mut self, depth: usize) -> Result<Span<'a>, Error> {
        let depth = self.deeper(depth)?;
        let left = self.duration_signed(depth)?;
        if let Some(op) = self.duration_op(&[(b'^', Op::Pow)])? {
            let right = self.duration_power(depth)?;
            return self.combine(op, left, right);
        }
        Ok(left)
    }

    fn duration_signed(&mut self, depth: usize) -> Result<Span<'a>, Error> {
        self.lexer.skip_space();
        let position = self.lexer.at;
        let sign = match self.lexer.peek_byte() {
            Some(b'-') => "-",
            Some(b'+') => "+",
            _ => return self.duration_atom(depth, false),
        };
        self.lexer.at += 1;
        self.lexer.skip_space();
        let span = if matches!(self.lexer.peek_byte(), Some(b'-' | b'+')) {
            self.experimental("a duration expression", self.lexer.at)?;
            // Behind `offset` and two signs upstream takes an operator for a part of the duration, behind one it does not.
            if depth == 0 {
                return Err(self.lexer.error(position, "put a duration with two signs into parentheses"));
            }
            let depth = self.deeper(depth)?;
            self.duration_signed(depth)?
        } else {
            self.duration_atom(depth, true)?
        };
        let seconds = span.seconds.map(|seconds| if sign == "-" { -seconds } else { seconds });
        Ok(Span { text: Cow::Owned(format!("{sign}{}", span.text)), seconds, position })
    }

    fn duration_atom(&mut self, depth: usize, signed: bool) -> Result<Span<'a>, Error> {
        self.lexer.skip_space();
        let start = self.lexer.at;
        match self.lexer.peek_byte() {
            Some(b'0'..=b'9' | b'.') => {
                let token = self.lexer.number()?;
                let text = &self.lexer.text[start..self.lexer.at];
                let seconds = if token == Token::Duration { Some(self.lexer.seconds) } else { number_value(text) };
                Ok(Span { text: Cow::Borrowed(text), seconds, position: start })
            }
            Some(b'(') => {
                // Behind a sign, parentheses are part of the default language.
                if !signed {
                    self.experimental("a duration expression", start)?;
                }
                self.lexer.at += 1;
                let depth = self.deeper(depth)?;
                let inner = self.duration_sum(depth)?;
                self.expect_byte(b')')?;
                Ok(Span { text: Cow::Owned(format!("({})", inner.text)), seconds: inner.seconds, position: start })
            }
            _ => {
                let Some(word) = self.lexer.narrow_word() else {
                    return Err(self.lexer.unexpected(start, " in duration expression"));
                };
                let word = word.to_ascii_lowercase();
                if !["step", "range", "min_of", "max_of"].contains(&word.as_str()) {
                    return Err(self
                        .lexer
                        .error(start, "unexpected word in duration expression, expected number or duration"));
                }
                self.experimental("a duration expression", start)?;
                self.expect_byte(b'(')?;
                if word == "step" || word == "range" {
                    self.expect_byte(b')')?;
                    return Ok(Span { text: Cow::Owned(format!("{word}()")), seconds: None, position: start });
                }
                let left = self.duration_sum(depth)?;
                self.expect_byte(b',')?;
                let right = self.duration_sum(depth)?;
                self.expect_byte(b')')?;
                let seconds = left
                    .seconds
                    .zip(right.seconds)
                    .map(|(left, right)| if word == "min_of" { left.min(right) } else { left.max(right) });
                Ok(Span {
                    text: Cow::Owned(format!("{word}({}, {})", left.text, right.text)),
                    seconds,
                    position: start,
                })
            }
        }
    }

    fn expect_byte(&mut self, byte: u8) -> Result<(), Error> {
        self.lexer.skip_space();
        if self.lexer.peek_byte() != Some(byte) {
            let place = format!(" in duration expression, expected {:?}", char::from(byte));
            return Err(self.lexer.unexpected(self.lexer.at, &place));
        }
        self.lexer.at += 1;
        Ok(())
    }
}
