//! Text becomes a checked tree: precedence climbing over the lexer, with the type rules of upstream Prometheus.
//!
//! Depth, operators, selectors and tokens are bounded before they cost anything, so no input can exhaust the stack. What
//! the grammar of Prometheus 3.16 does not know is refused; so are its experimental parts unless the backend has them.

mod brackets;
mod selector;

use std::borrow::Cow;

use super::functions::{self, aggregation};
use super::lex::{Lexeme, Lexer, Token, number_value, unquote};
use super::tree::{Binary, Fill, Group, Grouping, Id, Matching, Node, Op, Tree, Type, UNARY};
use super::{Error, ErrorKind, Features, Limits};

/// Parses a whole query.
pub(super) fn parse<'a>(text: &'a str, limits: &Limits, features: Features) -> Result<(Tree<'a>, Id), Error> {
    if text.len() > limits.text {
        return Err(Error::limit("limits.query_text", limits.text as u64, "", 0));
    }
    if let Some(at) = text.find('\u{fffd}') {
        return Err(Error::new(ErrorKind::Syntax, text, at, "invalid UTF-8 rune"));
    }
    let lexer = Lexer { text, at: 0, tokens: 0, most_tokens: limits.tokens };
    let head = Lexeme { token: Token::End, start: 0, end: 0 };
    let mut parser = Parser { lexer, head, tree: Tree::default(), limits, features, operators: 0 };
    parser.advance()?;
    if parser.head.token == Token::End {
        return Err(parser.error_here("no expression found in input"));
    }
    let root = parser.expression(1, 0)?;
    if parser.head.token != Token::End {
        return Err(parser.unexpected(""));
    }
    super::cost::check(&parser.tree, root, text, limits)?;
    Ok((parser.tree, root))
}

struct Parser<'a, 'l> {
    lexer: Lexer<'a>,
    /// The token that was read and not yet used.
    head: Lexeme,
    tree: Tree<'a>,
    limits: &'l Limits,
    features: Features,
    operators: usize,
}

impl<'a> Parser<'a, '_> {
    fn advance(&mut self) -> Result<Lexeme, Error> {
        let before = self.head;
        self.head = self.lexer.next()?;
        Ok(before)
    }

    fn head_text(&self) -> &'a str {
        self.lexer.slice(self.head)
    }

    fn head_is(&self, word: &str) -> bool {
        self.head.token == Token::Word && self.head_text().eq_ignore_ascii_case(word)
    }

    fn error_here(&self, message: impl Into<String>) -> Error {
        self.lexer.error(self.head.start, message)
    }

    fn type_error(&self, position: usize, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Type, self.lexer.text, position, message)
    }

    fn unexpected(&self, place: &str) -> Error {
        let what = match self.head.token {
            Token::End => "end of input".to_owned(),
            Token::Word | Token::MetricWord => format!("identifier {:?}", short(self.head_text())),
            Token::Number | Token::Duration => format!("number {:?}", short(self.head_text())),
            Token::Text => format!("string {}", short(self.head_text())),
            Token::Op(op) => format!("<op:{}>", op.text()),
            _ => format!("{:?}", self.head_text()),
        };
        self.error_here(format!("unexpected {what}{place}"))
    }

    fn add(&mut self, node: Node<'a>) -> Id {
        self.tree.nodes.push(node);
        self.tree.nodes.len() - 1
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
            return Err(Error::limit("limits.query_depth", self.limits.depth as u64, self.lexer.text, self.head.start));
        }
        Ok(depth + 1)
    }

    fn expression(&mut self, least: u8, depth: usize) -> Result<Id, Error> {
        let depth = self.deeper(depth)?;
        let start = self.head.start;
        let mut left = self.unary(depth)?;
        while let Some(op) = self.operator().filter(|op| op.precedence() >= least) {
            self.operators += 1;
            if self.operators > self.limits.binary_operators {
                let most = self.limits.binary_operators as u64;
                return Err(Error::limit("limits.query_operators", most, self.lexer.text, self.head.start));
            }
            let at = self.advance()?.start;
            left = self.binary(op, at, start, left, depth)?;
        }
        Ok(left)
    }

    fn operator(&self) -> Option<Op> {
        match self.head.token {
            Token::Op(op) => Some(op),
            Token::Word => {
                let word = self.head_text();
                [("or", Op::Or), ("and", Op::And), ("unless", Op::Unless), ("atan2", Op::Atan2)]
                    .into_iter()
                    .find(|(text, _)| text.eq_ignore_ascii_case(word))
                    .map(|(_, op)| op)
            }
            _ => None,
        }
    }

    fn binary(&mut self, op: Op, at: usize, start: usize, left: Id, depth: usize) -> Result<Id, Error> {
        let bool = self.head_is("bool");
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
            if !vectors && !matching.labels.is_empty() {
                return Err(self.type_error(start, "vector matching only allowed between instant vectors"));
            }
            if op.is_set() && matching.group.is_some() {
                return Err(self.type_error(start, format!("no grouping allowed for {:?} operation", op.text())));
            }
            if let (true, Some(group)) = (matching.on, &matching.group) {
                for label in &matching.labels {
                    if group.include.contains(label) {
                        let message = format!("label {label:?} must not occur in ON and GROUP clause at once");
                        return Err(self.type_error(start, message));
                    }
                }
            }
        }
        if fill != Fill::default() && (op.is_set() || !vectors) {
            return Err(self.type_error(
                start,
                "filling in missing series is only allowed between instant vectors and not for set operators",
            ));
        }
        Ok(self.add(Node::Binary(Box::new(Binary { op, bool, matching, fill, left, right }))))
    }

    fn matching(&mut self) -> Result<Option<Matching<'a>>, Error> {
        let on = self.head_is("on");
        if !on && !self.head_is("ignoring") {
            return Ok(None);
        }
        self.advance()?;
        let labels = self.labels(if on { "on" } else { "ignoring" })?;
        let left = self.head_is("group_left");
        let group = if left || self.head_is("group_right") {
            self.advance()?;
            let include = if self.head.token == Token::LeftParen { self.labels("group")? } else { Vec::new() };
            Some(Group { left, include })
        } else {
            None
        };
        Ok(Some(Matching { on, labels, group }))
    }

    /// `fill (1)`, or `fill_left (1)` and `fill_right (2)` in either order.
    fn fill(&mut self) -> Result<Fill<'a>, Error> {
        let mut fill = Fill::default();
        while self.head.token == Token::Word {
            let word = self.head_text();
            let slot = if word.eq_ignore_ascii_case("fill") {
                0
            } else if word.eq_ignore_ascii_case("fill_left") {
                1
            } else if word.eq_ignore_ascii_case("fill_right") {
                2
            } else {
                break;
            };
            // A metric may be called so: only a parenthesis makes it a modifier.
            let mut ahead = Lexer { text: self.lexer.text, at: self.lexer.at, tokens: 0, most_tokens: 1 };
            ahead.skip_space();
            if ahead.peek_byte() != Some(b'(') {
                break;
            }
            self.experimental("fill", self.head.start)?;
            let at = self.advance()?.start;
            self.advance()?;
            let value = self.signed_number("fill")?;
            if self.head.token != Token::RightParen {
                return Err(self.unexpected(" in fill modifier, expected \")\""));
            }
            self.advance()?;
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
        let start = self.head.start;
        let sign = match self.head.token {
            Token::Op(op @ (Op::Add | Op::Sub)) => {
                self.advance()?;
                Some(op)
            }
            _ => None,
        };
        if !self.head_is_number() {
            return Err(self.unexpected(&format!(" in {place}, expected number")));
        }
        let number = self.advance()?;
        let text = &self.lexer.text[number.start..number.end];
        Ok(match sign {
            None => Cow::Borrowed(text),
            Some(_) if number.start == start + 1 => Cow::Borrowed(&self.lexer.text[start..number.end]),
            Some(op) => Cow::Owned(format!("{}{text}", op.text())),
        })
    }

    fn head_is_number(&self) -> bool {
        match self.head.token {
            Token::Number | Token::Duration => true,
            Token::Word => is_named_number(self.head_text()),
            _ => false,
        }
    }

    fn unary(&mut self, depth: usize) -> Result<Id, Error> {
        let Token::Op(op @ (Op::Add | Op::Sub)) = self.head.token else { return self.postfix(depth) };
        let at = self.advance()?.start;
        let inner = self.expression(UNARY, depth)?;
        if !matches!(self.tree.kind(inner), Type::Scalar | Type::Vector) {
            return Err(
                self.type_error(at, "unary expression only allowed on expressions of type scalar or instant vector")
            );
        }
        Ok(self.add(Node::Unary { minus: op == Op::Sub, inner }))
    }

    /// A primary expression and what is hung behind it: ranges, `offset`, `@`.
    fn postfix(&mut self, depth: usize) -> Result<Id, Error> {
        let start = self.head.start;
        let mut id = self.primary(depth)?;
        let mut levels = depth;
        loop {
            if self.head.token == Token::LeftBracket {
                levels = self.deeper(levels)?;
                id = self.range(id, start)?;
            } else if self.head_is("offset") {
                self.offset(id, start)?;
            } else if self.head.token == Token::At {
                self.at(id, start)?;
            } else if (self.head_is("anchored") || self.head_is("smoothed")) && self.takes_edge(id) {
                self.edge(id)?;
            } else {
                return Ok(id);
            }
        }
    }

    fn primary(&mut self, depth: usize) -> Result<Id, Error> {
        let head = self.head;
        match head.token {
            Token::LeftParen => {
                self.advance()?;
                if self.head.token == Token::End {
                    return Err(self.error_here("unclosed left parenthesis"));
                }
                let inner = self.expression(1, depth)?;
                self.close()?;
                Ok(self.add(Node::Paren(inner)))
            }
            Token::Text => {
                let value = unquote(self.head_text()).map_err(|message| self.lexer.error(head.start, message))?;
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
            Token::Word => self.word(depth),
            Token::RightParen => Err(self.error_here("unexpected right parenthesis ')'")),
            _ => Err(self.unexpected("")),
        }
    }

    fn word(&mut self, depth: usize) -> Result<Id, Error> {
        let head = self.advance()?;
        let word = self.lexer.slice(head);
        if is_named_number(word) && !matches!(self.head.token, Token::LeftBrace | Token::LeftParen) {
            return Ok(self.add(Node::Number(word)));
        }
        if let Some(aggregation) = aggregation(word) {
            let modified = self.head_is("by") || self.head_is("without");
            if self.head.token == Token::LeftParen || modified {
                if aggregation.experimental {
                    self.experimental(aggregation.word, head.start)?;
                }
                return self.aggregate(aggregation, head.start, depth);
            }
        } else if self.head.token == Token::LeftParen {
            return self.call(word, head.start, depth);
        }
        if ["bool", "on", "ignoring", "group_left", "group_right", "atan2"]
            .iter()
            .any(|keyword| keyword.eq_ignore_ascii_case(word))
        {
            return Err(self.lexer.error(head.start, format!("unexpected <{}>", word.to_ascii_lowercase())));
        }
        self.selector(Some(word), head.start)
    }

    fn close(&mut self) -> Result<(), Error> {
        match self.head.token {
            Token::RightParen => {
                self.advance()?;
                Ok(())
            }
            Token::End => Err(self.error_here("unclosed left parenthesis")),
            _ => Err(self.unexpected("")),
        }
    }

    /// The arguments of a call; the head is the opening parenthesis. Positions come along for errors.
    fn arguments(&mut self, depth: usize) -> Result<(Vec<Id>, Vec<usize>), Error> {
        self.advance()?;
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        if self.head.token == Token::RightParen {
            self.advance()?;
            return Ok((ids, positions));
        }
        loop {
            if self.head.token == Token::End {
                return Err(self.error_here("unclosed left parenthesis"));
            }
            positions.push(self.head.start);
            ids.push(self.expression(1, depth)?);
            if self.head.token != Token::Comma {
                self.close()?;
                return Ok((ids, positions));
            }
            let comma = self.advance()?;
            if self.head.token == Token::RightParen {
                return Err(self.lexer.error(comma.start, "trailing commas not allowed in function call args"));
            }
        }
    }

    fn call(&mut self, word: &str, at: usize, depth: usize) -> Result<Id, Error> {
        if word == "info" {
            let message = "info() reads series that no matcher of the query can confine and is not available here";
            return Err(Error::new(ErrorKind::Forbidden, self.lexer.text, at, message));
        }
        let spelt = if self.features.experimental { word.to_ascii_lowercase() } else { word.to_owned() };
        let known = functions::find(word).or_else(|| {
            // These are keywords, and keywords have no case.
            ["start", "end", "step", "range", "min_of", "max_of"]
                .contains(&spelt.as_str())
                .then(|| functions::find(&spelt))?
        });
        let Some(function) = known else {
            return Err(self.lexer.error(at, format!("unknown function with name {:?}", short(word))));
        };
        if function.experimental {
            self.experimental(&format!("function {:?}", function.name), at)?;
        }
        let (arguments, positions) = self.arguments(depth)?;
        let (most, least) = (function.arguments.len(), function.arguments.len() - function.optional);
        let given = arguments.len();
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
        for (index, (argument, position)) in arguments.iter().zip(positions).enumerate() {
            let Some(expected) = function.arguments.get(index).or(function.arguments.last()) else { break };
            let kind = self.tree.kind(*argument);
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
        Ok(self.add(Node::Call { function, arguments }))
    }

    fn aggregate(
        &mut self,
        aggregation: &'static functions::Aggregation,
        at: usize,
        depth: usize,
    ) -> Result<Id, Error> {
        let mut grouping = self.grouping()?;
        if self.head.token != Token::LeftParen {
            return Err(self.unexpected(" in aggregation, expected \"(\""));
        }
        let (mut arguments, positions) = self.arguments(depth)?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let expected = 1 + usize::from(aggregation.parameter.is_some());
        if arguments.is_empty() {
            return Err(self.type_error(at, "no arguments for aggregate expression provided"));
        }
        if arguments.len() != expected {
            let given = arguments.len();
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {expected}, got {given}"
            );
            return Err(self.type_error(at, message));
        }
        let inner = arguments.pop().unwrap_or_default();
        let parameter = arguments.pop();
        if let (Some(expected), Some(parameter)) = (aggregation.parameter, parameter) {
            let kind = self.tree.kind(parameter);
            if kind != expected {
                let message =
                    format!("expected type {} in aggregation parameter, got {}", expected.words(), kind.words());
                return Err(self.type_error(positions.first().copied().unwrap_or(at), message));
            }
        }
        let kind = self.tree.kind(inner);
        if kind != Type::Vector {
            let message = format!("expected type instant vector in aggregation expression, got {}", kind.words());
            return Err(self.type_error(positions.last().copied().unwrap_or(at), message));
        }
        Ok(self.add(Node::Aggregate { word: aggregation.word, grouping, parameter, inner }))
    }

    fn grouping(&mut self) -> Result<Option<Grouping<'a>>, Error> {
        let without = self.head_is("without");
        if !without && !self.head_is("by") {
            return Ok(None);
        }
        self.advance()?;
        Ok(Some(Grouping { without, labels: self.labels(if without { "without" } else { "by" })? }))
    }

    /// A list of labels in parentheses; a comma may stand behind the last.
    fn labels(&mut self, clause: &str) -> Result<Vec<Cow<'a, str>>, Error> {
        let place = |expected: &str| format!(" in {clause}(...) clause, expected {expected}");
        if self.head.token != Token::LeftParen {
            return Err(self.unexpected(&place("\"(\"")));
        }
        self.advance()?;
        let mut labels = Vec::new();
        loop {
            match self.head.token {
                Token::RightParen => break,
                Token::Word | Token::MetricWord => labels.push(Cow::Borrowed(self.head_text())),
                Token::Text => {
                    let value = unquote(self.head_text()).map_err(|message| self.error_here(message))?;
                    let label = String::from_utf8(value).ok().filter(|label| !label.is_empty());
                    labels.push(Cow::Owned(label.ok_or_else(|| self.error_here("invalid label name"))?));
                }
                _ => return Err(self.unexpected(&place("label name"))),
            }
            self.advance()?;
            if self.head.token != Token::Comma {
                break;
            }
            self.advance()?;
        }
        if self.head.token != Token::RightParen {
            return Err(self.unexpected(&place("\",\" or \")\"")));
        }
        self.advance()?;
        Ok(labels)
    }
}

/// `Inf` and `NaN` in any case.
fn is_named_number(word: &str) -> bool {
    word.eq_ignore_ascii_case("inf") || word.eq_ignore_ascii_case("nan")
}

/// The value of a printed number or duration with an optional sign.
fn signed_value(text: &str) -> Option<f64> {
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
