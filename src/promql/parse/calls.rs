//! Calls and aggregations: their arguments, with their types, and the lists of labels.

use std::borrow::Cow;

use super::{Parser, short};
use crate::promql::functions::{self, Aggregation, Function};
use crate::promql::lex::{Token, unquote_text};
use crate::promql::tree::{Arguments, Grouping, Id, Node, Run, Type, count};
use crate::promql::words::Word;
use crate::promql::{Error, ErrorKind, cost, regex};

impl Parser<'_, '_> {
    /// The arguments of a call, with their positions: one alone is given back, of others all are pushed on `given`. The
    /// head is the opening parenthesis.
    fn arguments(&mut self, depth: usize) -> Result<Option<(Id, usize)>, Error> {
        self.advance()?;
        if matches!(self.lexer.head.token, Token::RightParen) {
            self.advance()?;
            return Ok(None);
        }
        let mut alone = true;
        loop {
            if matches!(self.lexer.head.token, Token::End) {
                return Err(self.error_here("unclosed left parenthesis"));
            }
            let position = self.lexer.head.start;
            let id = self.expression(1, depth)?;
            let last = !matches!(self.lexer.head.token, Token::Comma);
            if last && alone {
                self.close()?;
                return Ok(Some((id, position)));
            }
            alone = false;
            self.given.push((id, position));
            if last {
                self.close()?;
                return Ok(None);
            }
            let comma = self.lexer.head;
            self.advance()?;
            if matches!(self.lexer.head.token, Token::RightParen) {
                return Err(self.lexer.error(comma.start, "trailing commas not allowed in function call args"));
            }
        }
    }

    pub(super) fn call(&mut self, word: &str, at: usize, depth: usize) -> Result<Id, Error> {
        if word == "info" {
            let message = "info() reads series that no matcher of the query can confine and is not available here";
            return Err(Error::new(ErrorKind::Forbidden, self.lexer.text, at, message));
        }
        let known = functions::find(word).or_else(|| {
            // These are keywords, and keywords have no case.
            let keywords = ["start", "end", "step", "range", "min_of", "max_of"];
            let keyword = keywords.into_iter().find(|keyword| keyword.eq_ignore_ascii_case(word));
            keyword.filter(|_| self.features.experimental).and_then(functions::find)
        });
        let Some(function) = known else {
            return Err(self.lexer.error(at, format!("unknown function with name {:?}", short(word))));
        };
        if function.experimental {
            self.experimental(&format!("function {:?}", function.name), at)?;
        }
        let mark = self.given.len();
        let one = self.arguments(depth)?;
        let list = one.as_ref().map_or(&self.given[mark..], std::slice::from_ref);
        let (most, least) = (function.arguments.len(), function.arguments.len() - function.optional);
        let given = list.len();
        let wrong = |expected: String| {
            self.type_error(at, format!("expected {expected} argument(s) in call to {:?}, got {given}", function.name))
        };
        if given < least {
            return Err(wrong(if function.optional > 0 || function.repeats {
                format!("at least {least}")
            } else {
                most.to_string()
            }));
        }
        if given > most && !function.repeats {
            return Err(wrong(if function.optional > 0 { format!("at most {most}") } else { most.to_string() }));
        }
        for (index, (argument, position)) in list.iter().copied().enumerate() {
            let Some(expected) = function.arguments.get(index).or(function.arguments.last()) else { break };
            let kind = self.tree.kind(argument);
            if kind != *expected {
                let message = format!(
                    "expected type {} in call to function {:?}, got {}",
                    expected.words(),
                    function.name,
                    kind.words()
                );
                return Err(self.type_error(position, message));
            }
        }
        let arguments = if let Some((id, _)) = one {
            Arguments::One(id)
        } else {
            let start = count(&self.tree.arguments);
            self.tree.arguments.extend(self.given.drain(mark..).map(|(id, _)| id));
            Arguments::Many(Run { start, end: count(&self.tree.arguments) })
        };
        if function.arguments.len() > 3 && cost::makes_labels(function) {
            self.label_call(function, &arguments, at)?;
        }
        Ok(self.add(Node::Call { function, arguments }))
    }

    /// The next node is a call that makes labels.
    #[cold]
    fn label_call(&mut self, function: &Function, arguments: &Arguments, at: usize) -> Result<(), Error> {
        self.label_calls.push((self.tree.nodes.len(), at));
        let last = self.tree.arguments(arguments).last().map(|id| self.tree.node(*id));
        if let (Some(Node::Text(pattern)), "label_replace") = (last, function.name) {
            self.repetitions = self.repetitions.saturating_add(regex::repetitions(pattern));
        }
        self.check_repetitions(at)
    }

    pub(super) fn check_repetitions(&self, at: usize) -> Result<(), Error> {
        if self.repetitions > self.limits.repetitions {
            return Err(Error::limit("limits.query_repetitions", self.limits.repetitions, self.lexer.text, at));
        }
        Ok(())
    }

    pub(super) fn aggregate(
        &mut self,
        aggregation: &'static Aggregation,
        at: usize,
        depth: usize,
    ) -> Result<Id, Error> {
        let mut grouping = self.grouping()?;
        if !matches!(self.lexer.head.token, Token::LeftParen) {
            return Err(self.unexpected(" in aggregation, expected \"(\""));
        }
        let mark = self.given.len();
        let one = self.arguments(depth)?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let expected = 1 + usize::from(aggregation.parameter.is_some());
        let given = usize::from(one.is_some()) + self.given.len() - mark;
        if given == 0 {
            return Err(self.type_error(at, "no arguments for aggregate expression provided"));
        }
        if given != expected {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {expected}, got {given}"
            );
            return Err(self.type_error(at, message));
        }
        let (inner, inner_at) = one.or_else(|| self.given.pop()).unwrap_or_default();
        let mut parameter = None;
        if let Some(expected) = aggregation.parameter {
            let (id, position) = self.given.pop().unwrap_or_default();
            let kind = self.tree.kind(id);
            if kind != expected {
                let message =
                    format!("expected type {} in aggregation parameter, got {}", expected.words(), kind.words());
                return Err(self.type_error(position, message));
            }
            parameter = Some(id);
        }
        let kind = self.tree.kind(inner);
        if kind != Type::Vector {
            let message = format!("expected type instant vector in aggregation expression, got {}", kind.words());
            return Err(self.type_error(inner_at, message));
        }
        Ok(self.add(Node::Aggregate { word: aggregation.word, grouping, parameter, inner }))
    }

    fn grouping(&mut self) -> Result<Option<Grouping>, Error> {
        let without = self.head_is(Word::Without);
        if !without && !self.head_is(Word::By) {
            return Ok(None);
        }
        self.advance()?;
        Ok(Some(Grouping { without, labels: self.labels(if without { "without" } else { "by" })? }))
    }

    /// A list of labels in parentheses; a comma may stand behind the last.
    pub(super) fn labels(&mut self, clause: &str) -> Result<Run, Error> {
        let start = count(&self.tree.labels);
        if !matches!(self.lexer.head.token, Token::LeftParen) {
            return Err(self.unexpected_in(clause, "\"(\""));
        }
        self.advance()?;
        loop {
            let label = match self.lexer.head.token {
                Token::RightParen => break,
                // These are numbers to upstream wherever they stand.
                Token::Word(Word::Number) => return Err(self.unexpected_in(clause, "label name")),
                Token::Word(_) | Token::MetricWord => Cow::Borrowed(self.head_text()),
                Token::Text { escaped } => {
                    let label = unquote_text(self.head_text(), escaped).map_err(|message| self.error_here(message))?;
                    if label.is_empty() {
                        return Err(self.error_here("invalid label name"));
                    }
                    label
                }
                _ => return Err(self.unexpected_in(clause, "label name")),
            };
            self.tree.labels.push(label);
            self.advance()?;
            if !matches!(self.lexer.head.token, Token::Comma) {
                break;
            }
            self.advance()?;
        }
        if !matches!(self.lexer.head.token, Token::RightParen) {
            return Err(self.unexpected_in(clause, "\",\" or \")\""));
        }
        self.advance()?;
        Ok(Run { start, end: count(&self.tree.labels) })
    }

    fn unexpected_in(&self, clause: &str, expected: &str) -> Error {
        self.unexpected(&format!(" in {clause}(...) clause, expected {expected}"))
    }
}
