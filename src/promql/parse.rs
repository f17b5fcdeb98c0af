//! Text becomes a checked tree: precedence climbing over the lexer, with the type rules of upstream Prometheus.
//!
//! Depth, operators, selectors and tokens are bounded before they cost anything, so no input can exhaust the stack. What
//! the grammar of Prometheus 3.16 does not know is refused; so are its experimental parts unless the backend has them.

mod binary;
mod brackets;
mod calls;
mod selector;

use std::borrow::Cow;

use super::functions::aggregation;
use super::lex::{Lexeme, Lexer, Token, number_value, unquote};
use super::tree::{Id, Node, Op, Tree, Type, UNARY};
use super::words::Word;
use super::{Error, ErrorKind, Features, Limits, cost};

/// Parses a whole query.
pub(super) fn parse<'a>(text: &'a str, limits: &Limits, features: Features) -> Result<(Tree<'a>, Id), Error> {
    // A guess that suits most queries; a large one grows.
    let mut tree = Tree::with_capacity((text.len() / 14).clamp(4, 32), (text.len() / 24).clamp(2, 64));
    let root = parse_into(&mut tree, text, limits, features)?;
    Ok((tree, root))
}

/// Parses a whole query into an empty tree, whose vectors may have room already.
pub(super) fn parse_into<'a>(
    tree: &mut Tree<'a>,
    text: &'a str,
    limits: &Limits,
    features: Features,
) -> Result<Id, Error> {
    if text.len() > limits.text {
        return Err(Error::limit("limits.query_text", limits.text as u64, "", 0));
    }
    // It begins with a byte that few texts have.
    if memchr::memchr(0xef, text.as_bytes()).is_some()
        && let Some(at) = text.find('\u{fffd}')
    {
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
        cost::steps(parser.tree, text, limits)?;
    }
    if !parser.label_calls.is_empty() {
        cost::labels(parser.tree, &parser.label_calls, text, limits)?;
    }
    Ok(root)
}

struct Parser<'a, 'l> {
    lexer: Lexer<'a>,
    tree: &'l mut Tree<'a>,
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
