//! Selectors: a name, braces, and the rules that keep a selector from meaning everything.

use std::borrow::Cow;

use super::Parser;
use crate::promql::lex::{Token, unquote, unquote_text};
use crate::promql::regex;
use crate::promql::tree::{Id, MatchOp, Matcher, Node, Run, Selector, count};
use crate::promql::{Error, ErrorKind};

impl<'a> Parser<'a, '_> {
    /// A selector whose name, if it has one, was read; the head is what stands behind the name.
    pub(super) fn selector(&mut self, name: Option<&'a str>, position: usize) -> Result<Id, Error> {
        self.tree.selectors += 1;
        if self.tree.selectors > self.limits.selectors {
            let most = self.limits.selectors as u64;
            return Err(Error::limit("limits.query_selectors", most, self.lexer.text, position));
        }
        let start = count(&self.tree.matchers);
        let mut selector = Selector { position, name, ..Selector::default() };
        if matches!(self.lexer.head.token, Token::LeftBrace) {
            self.braces(&selector)?;
            self.advance()?;
        }
        selector.matchers = Run { start, end: count(&self.tree.matchers) };
        self.check_selector(&selector)?;
        Ok(self.add(Node::Selector(selector)))
    }

    /// Reads from behind `{` to behind `}`; the head is stale until the caller advances.
    fn braces(&mut self, selector: &Selector<'a>) -> Result<(), Error> {
        let mut first = true;
        loop {
            let byte = self.lexer.skip_space();
            let at = self.lexer.at;
            match byte {
                Some(b'}') => {
                    self.lexer.at += 1;
                    return Ok(());
                }
                Some(b',') if !first => {
                    self.lexer.at += 1;
                    let byte = self.lexer.skip_space();
                    if byte == Some(b',') {
                        return Err(self
                            .lexer
                            .error(self.lexer.at, "unexpected \",\" in label matching, expected identifier or \"}\""));
                    }
                    if byte == Some(b'}') {
                        continue;
                    }
                }
                Some(b',') => {
                    return Err(self
                        .lexer
                        .error(at, "unexpected \",\" in label matching, expected identifier or \"}\""));
                }
                Some(_) if !first => {
                    let what = self
                        .lexer
                        .narrow_word()
                        .map_or_else(|| "token".to_owned(), |word| format!("identifier {word:?}"));
                    return Err(self
                        .lexer
                        .error(at, format!("unexpected {what} in label matching, expected \",\" or \"}}\"")));
                }
                Some(_) => {}
                None => return Err(self.lexer.error(at, "unexpected end of input inside braces")),
            }
            first = false;
            self.matcher(selector)?;
        }
    }

    fn matcher(&mut self, selector: &Selector<'a>) -> Result<(), Error> {
        self.lexer.tokens += 3;
        if self.lexer.tokens > self.limits.tokens {
            return Err(Error::limit("limits.query_tokens", self.limits.tokens as u64, self.lexer.text, self.lexer.at));
        }
        if let Some((label, op, value)) = self.lexer.plain_matcher() {
            let (label, value) = (Cow::Borrowed(label), Cow::Borrowed(value.as_bytes()));
            self.tree.matchers.push(Matcher { label, op, value, implied: false });
            return Ok(());
        }
        let at = self.lexer.at;
        let quoted = matches!(self.lexer.peek_byte(), Some(b'"' | b'\'' | b'`'));
        let label: Cow<'a, str> = if quoted {
            let escaped = self.lexer.string()?;
            unquote_text(&self.lexer.text[at..self.lexer.at], escaped)
                .map_err(|message| self.lexer.error(at, message))?
        } else {
            Cow::Borrowed(self.lexer.narrow_word().ok_or_else(|| self.lexer.unexpected(at, " inside braces"))?)
        };
        self.lexer.skip_space();
        let Some(op) = self.lexer.match_op() else {
            // A string alone is the metric's name.
            if quoted && matches!(self.lexer.peek_byte(), Some(b',' | b'}')) {
                if selector.name.is_some() {
                    return Err(self.lexer.error(at, "metric name must not be set twice"));
                }
                let value = match label {
                    Cow::Borrowed(name) => Cow::Borrowed(name.as_bytes()),
                    Cow::Owned(name) => Cow::Owned(name.into_bytes()),
                };
                let label = Cow::Borrowed("__name__");
                self.tree.matchers.push(Matcher { label, op: MatchOp::Equal, value, implied: false });
                return Ok(());
            }
            let at = self.lexer.at;
            return Err(match self.lexer.peek_byte() {
                Some(b'}' | b',' | b'a'..=b'z' | b'A'..=b'Z' | b'_') => {
                    self.lexer.error(at, "unexpected token in label matching, expected label matching operator")
                }
                _ => self.lexer.unexpected(at, " inside braces"),
            });
        };
        self.lexer.skip_space();
        let at = self.lexer.at;
        if !matches!(self.lexer.peek_byte(), Some(b'"' | b'\'' | b'`')) {
            let what =
                self.lexer.narrow_word().map_or_else(|| "token".to_owned(), |word| format!("identifier {word:?}"));
            return Err(self.lexer.error(at, format!("unexpected {what} in label matching, expected string")));
        }
        let escaped = self.lexer.string()?;
        let value =
            unquote(&self.lexer.text[at..self.lexer.at], escaped).map_err(|message| self.lexer.error(at, message))?;
        // A value that could be large when it is written out comes this way.
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) {
            self.repeats(&value, selector.position)?;
        }
        self.tree.matchers.push(Matcher { label, op, value, implied: false });
        Ok(())
    }

    /// Counts the repetitions of a regular expression.
    #[cold]
    fn repeats(&mut self, pattern: &[u8], at: usize) -> Result<(), Error> {
        self.repetitions = self.repetitions.saturating_add(regex::repetitions(pattern));
        self.check_repetitions(at)
    }

    /// What upstream asks of a selector, checked before our own matcher makes it legal.
    fn check_selector(&self, selector: &Selector<'a>) -> Result<(), Error> {
        let matchers = selector.matchers.of(&self.tree.matchers);
        if selector.name.is_some() {
            // Any matcher on the name but "not this one" would set it twice.
            if let Some(matcher) = matchers.iter().find(|matcher| matcher.label == "__name__") {
                let other = String::from_utf8_lossy(&matcher.value);
                let message =
                    format!("metric name must not be set twice: {:?} or {other:?}", selector.name.unwrap_or_default());
                return Err(Error::new(ErrorKind::Syntax, self.lexer.text, selector.position, message));
            }
            return Ok(());
        }
        let selects = |matcher: &Matcher<'_>| match matcher.op {
            MatchOp::Equal => !matcher.value.is_empty(),
            MatchOp::NotEqual => matcher.value.is_empty(),
            MatchOp::Regex => !regex::matches_empty(&matcher.value),
            MatchOp::NotRegex => regex::matches_empty(&matcher.value),
        };
        if matchers.iter().any(selects) {
            return Ok(());
        }
        let message = "vector selector must contain at least one non-empty matcher";
        Err(Error::new(ErrorKind::Syntax, self.lexer.text, selector.position, message))
    }
}
