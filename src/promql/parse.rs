//! Text becomes a checked tree: precedence climbing over the lexer, with the type rules of upstream Prometheus.
//!
//! Depth, operators, selectors and tokens are bounded before they cost anything, so no input can exhaust the stack. What
//! the grammar of Prometheus 3.16 does not know is refused; so are its experimental parts unless the backend has them.

mod brackets;
mod selector;

use std::borrow::Cow;

use super::functions::{self, Function, aggregation};
use super::lex::{Lexeme, Lexer, Token, number_value, unquote, unquote_text};
use super::tree::{Arguments, Binary, Fill, Group, Grouping, Id, Matching, Node, Op, Run, Tree, Type, UNARY, count};
use super::words::Word;
use super::{Error, ErrorKind, Features, Limits};
use super::{cost, regex};

/// Parses a whole query.
pub(super) fn parse<'a>(text: &'a str, limits: &Limits, features: Features) -> Result<(Tree<'a>, Id), Error> {
    // A guess that suits most queries; a large one grows.
    let tree = Tree::with_capacity((text.len() / 14).clamp(4, 32), (text.len() / 24).clamp(2, 64));
    parse_into(tree, text, limits, features)
}

/// Parses a whole query into an empty tree, whose vectors may have room already.
pub(super) fn parse_into<'a>(
    tree: Tree<'a>,
    text: &'a str,
    limits: &Limits,
    features: Features,
) -> Result<(Tree<'a>, Id), Error> {
    if text.len() > limits.text {
        return Err(Error::limit("limits.query_text", limits.text as u64, "", 0));
    }
    let replaced = |at: &usize| text.as_bytes()[*at..].starts_with("\u{fffd}".as_bytes());
    if let Some(at) = memchr::memchr_iter(0xef, text.as_bytes()).find(replaced) {
        return Err(Error::new(ErrorKind::Syntax, text, at, "invalid UTF-8 rune"));
    }
    let lexer = Lexer { text, head: Lexeme::NONE, at: 0, seconds: 0.0, tokens: 0, most_tokens: limits.tokens };
    let mut parser = Parser {
        lexer,
        tree,
        limits,
        features,
        operators: 0,
        given: Vec::new(),
        label_calls: Vec::new(),
        repetitions: 0,
    };
    parser.advance()?;
    if matches!(parser.lexer.head.token, Token::End) {
        return Err(parser.error_here("no expression found in input"));
    }
    let root = parser.expression(1, 0)?;
    if !matches!(parser.lexer.head.token, Token::End) {
        return Err(parser.unexpected(""));
    }
    if parser.tree.subqueries > 0 {
        cost::steps(&parser.tree, text, limits)?;
    }
    if !parser.label_calls.is_empty() {
        cost::labels(&parser.tree, &parser.label_calls, text, limits)?;
    }
    Ok((parser.tree, root))
}

struct Parser<'a, 'l> {
    lexer: Lexer<'a>,
    tree: Tree<'a>,
    limits: &'l Limits,
    features: Features,
    operators: usize,
    /// The arguments of the calls that are being read, with their positions.
    given: Vec<(Id, usize)>,
    /// The calls that make labels, with their positions.
    label_calls: Vec<(Id, usize)>,
    /// What the repetitions in regular expressions come to.
    repetitions: u64,
}

impl<'a> Parser<'a, '_> {
    fn advance(&mut self) -> Result<(), Error> {
        self.lexer.next()
    }

    fn head_text(&self) -> &'a str {
        self.lexer.slice(self.lexer.head)
    }

    fn head_is(&self, word: Word) -> bool {
        matches!(self.lexer.head.token, Token::Word(found) if found == word)
    }

    fn error_here(&self, message: impl Into<String>) -> Error {
        self.lexer.error(self.lexer.head.start, message)
    }

    fn type_error(&self, position: usize, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Type, self.lexer.text, position, message)
    }

    fn unexpected(&self, place: &str) -> Error {
        let what = match self.lexer.head.token {
            Token::End => "end of input".to_owned(),
            Token::Word(_) | Token::MetricWord => format!("identifier {:?}", short(self.head_text())),
            Token::Number | Token::Duration => format!("number {:?}", short(self.head_text())),
            Token::Text { .. } => format!("string {}", short(self.head_text())),
            Token::Op(op) => format!("<op:{}>", op.text()),
            _ => format!("{:?}", self.head_text()),
        };
        self.error_here(format!("unexpected {what}{place}"))
    }

    fn add(&mut self, node: Node<'a>) -> Id {
        self.tree.add(node)
    }

    fn experimental(&self, what: &str, position: usize) -> Result<(), Error> {
        if self.features.experimental {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Forbidden,
            self.lexer.text,
            position,
            format!("{what} is experimental and not enabled for this backend (metrics_backends[].experimental)"),
        ))
    }

    fn deeper(&self, depth: usize) -> Result<usize, Error> {
        if depth >= self.limits.depth {
            return Err(Error::limit(
                "limits.query_depth",
                self.limits.depth as u64,
                self.lexer.text,
                self.lexer.head.start,
            ));
        }
        Ok(depth + 1)
    }

    fn expression(&mut self, least: u8, depth: usize) -> Result<Id, Error> {
        let depth = self.deeper(depth)?;
        let start = self.lexer.head.start;
        let mut left = self.unary(depth)?;
        while let Some(op) = self.operator().filter(|op| op.precedence() >= least) {
            self.operators += 1;
            if self.operators > self.limits.binary_operators {
                let most = self.limits.binary_operators as u64;
                return Err(Error::limit("limits.query_operators", most, self.lexer.text, self.lexer.head.start));
            }
            let at = self.lexer.head.start;
            self.advance()?;
            left = self.binary(op, at, start, left, depth)?;
        }
        Ok(left)
    }

    fn operator(&self) -> Option<Op> {
        match self.lexer.head.token {
            Token::Op(op) => Some(op),
            Token::Word(Word::Or) => Some(Op::Or),
            Token::Word(Word::And) => Some(Op::And),
            Token::Word(Word::Unless) => Some(Op::Unless),
            Token::Word(Word::Atan2) => Some(Op::Atan2),
            _ => None,
        }
    }

    fn binary(&mut self, op: Op, at: usize, start: usize, left: Id, depth: usize) -> Result<Id, Error> {
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

    /// A number or duration with an optional sign, as it will be printed.
    fn signed_number(&mut self, place: &str) -> Result<Cow<'a, str>, Error> {
        let start = self.lexer.head.start;
        let sign = match self.lexer.head.token {
            Token::Op(op @ (Op::Add | Op::Sub)) => {
                self.advance()?;
                Some(op)
            }
            _ => None,
        };
        if !self.head_is_number() {
            return Err(self.unexpected(&format!(" in {place}, expected number")));
        }
        let number = self.lexer.head;
        self.advance()?;
        let text = &self.lexer.text[number.start..number.end];
        Ok(match sign {
            None => Cow::Borrowed(text),
            Some(_) if number.start == start + 1 => Cow::Borrowed(&self.lexer.text[start..number.end]),
            Some(op) => Cow::Owned(format!("{}{text}", op.text())),
        })
    }

    fn head_is_number(&self) -> bool {
        matches!(self.lexer.head.token, Token::Number | Token::Duration | Token::Word(Word::Number))
    }

    fn unary(&mut self, depth: usize) -> Result<Id, Error> {
        let Token::Op(op @ (Op::Add | Op::Sub)) = self.lexer.head.token else { return self.postfix(depth) };
        let at = self.lexer.head.start;
        self.advance()?;
        let inner = self.expression(UNARY, depth)?;
        let kind = self.tree.kind(inner);
        if !matches!(kind, Type::Scalar | Type::Vector) {
            return Err(
                self.type_error(at, "unary expression only allowed on expressions of type scalar or instant vector")
            );
        }
        Ok(self.add(Node::Unary { minus: op == Op::Sub, inner, kind }))
    }

    /// A primary expression and what is hung behind it: ranges, `offset`, `@`.
    fn postfix(&mut self, depth: usize) -> Result<Id, Error> {
        let start = self.lexer.head.start;
        let mut id = self.primary(depth)?;
        let mut levels = depth;
        loop {
            match self.lexer.head.token {
                Token::LeftBracket => {
                    levels = self.deeper(levels)?;
                    id = self.range(id, start)?;
                }
                Token::Word(Word::Offset) => self.offset(id, start)?,
                Token::At => self.at(id, start)?,
                Token::Word(Word::Anchored | Word::Smoothed) if self.takes_edge(id) => self.edge(id)?,
                _ => return Ok(id),
            }
        }
    }

    fn primary(&mut self, depth: usize) -> Result<Id, Error> {
        let head = self.lexer.head;
        match head.token {
            Token::LeftParen => {
                self.advance()?;
                if matches!(self.lexer.head.token, Token::End) {
                    return Err(self.error_here("unclosed left parenthesis"));
                }
                let inner = self.expression(1, depth)?;
                self.close()?;
                let kind = self.tree.kind(inner);
                Ok(self.add(Node::Paren { inner, kind }))
            }
            Token::Text { escaped } => {
                let value =
                    unquote(self.head_text(), escaped).map_err(|message| self.lexer.error(head.start, message))?;
                self.advance()?;
                Ok(self.add(Node::Text(value)))
            }
            Token::Number | Token::Duration => {
                self.advance()?;
                Ok(self.add(Node::Number(self.lexer.slice(head))))
            }
            Token::LeftBrace => self.selector(None, head.start),
            Token::MetricWord => {
                self.advance()?;
                self.selector(Some(self.lexer.slice(head)), head.start)
            }
            Token::Word(meaning) => self.word(meaning, depth),
            Token::RightParen => Err(self.error_here("unexpected right parenthesis ')'")),
            _ => Err(self.unexpected("")),
        }
    }

    fn word(&mut self, meaning: Word, depth: usize) -> Result<Id, Error> {
        let head = self.lexer.head;
        self.advance()?;
        let word = self.lexer.slice(head);
        match meaning {
            Word::Number if !matches!(self.lexer.head.token, Token::LeftBrace | Token::LeftParen) => {
                return Ok(self.add(Node::Number(word)));
            }
            Word::Aggregation(index) => {
                let modified = self.head_is(Word::By) || self.head_is(Word::Without);
                if matches!(self.lexer.head.token, Token::LeftParen) || modified {
                    let aggregation = aggregation(index);
                    if aggregation.experimental {
                        self.experimental(aggregation.word, head.start)?;
                    }
                    return self.aggregate(aggregation, head.start, depth);
                }
            }
            _ if matches!(self.lexer.head.token, Token::LeftParen) => return self.call(word, head.start, depth),
            Word::Bool | Word::On | Word::Ignoring | Word::GroupLeft | Word::GroupRight | Word::Atan2 => {
                return Err(self.lexer.error(head.start, format!("unexpected <{}>", word.to_ascii_lowercase())));
            }
            _ => {}
        }
        self.selector(Some(word), head.start)
    }

    fn close(&mut self) -> Result<(), Error> {
        match self.lexer.head.token {
            Token::RightParen => {
                self.advance()?;
                Ok(())
            }
            Token::End => Err(self.error_here("unclosed left parenthesis")),
            _ => Err(self.unexpected("")),
        }
    }

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

    fn call(&mut self, word: &str, at: usize, depth: usize) -> Result<Id, Error> {
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

    fn check_repetitions(&self, at: usize) -> Result<(), Error> {
        if self.repetitions > self.limits.repetitions {
            return Err(Error::limit("limits.query_repetitions", self.limits.repetitions, self.lexer.text, at));
        }
        Ok(())
    }

    fn aggregate(
        &mut self,
        aggregation: &'static functions::Aggregation,
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
    fn labels(&mut self, clause: &str) -> Result<Run, Error> {
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

/// The value of a printed number or duration with an optional sign.
pub(super) fn signed_value(text: &str) -> Option<f64> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = if rest.eq_ignore_ascii_case("inf") {
        f64::INFINITY
    } else if rest.eq_ignore_ascii_case("nan") {
        f64::NAN
    } else {
        number_value(rest).or_else(|| super::lex::duration_seconds(rest))?
    };
    Some(sign * value)
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}
