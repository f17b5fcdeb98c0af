//! Bytes become tokens. PromQL's lexer is modal: inside braces and brackets other rules hold, so those two read their own
//! bytes through [`Lexer`]'s small steps and come back.

use std::borrow::Cow;

use super::tree::{MatchOp, Op};
use super::words::{self, Word};
use super::{Error, ErrorKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    End,
    LeftParen,
    RightParen,
    LeftBrace,
    LeftBracket,
    Comma,
    At,
    Assign,
    Op(Op),
    /// A quoted string, quotes included, and whether it has escapes.
    Text {
        escaped: bool,
    },
    Number,
    Duration,
    /// A word without a colon, and what it means.
    Word(Word),
    /// A word with a colon.
    MetricWord,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Lexeme {
    /// What stands before a text.
    pub(super) const NONE: Self = Self { token: Token::End, start: 0, end: 0 };
}

/// A token that is a sign, by its first byte; those of two bytes are looked at apart.
const fn sign(byte: u8) -> Option<Token> {
    Some(match byte {
        b'(' => Token::LeftParen,
        b')' => Token::RightParen,
        b'{' => Token::LeftBrace,
        b'[' => Token::LeftBracket,
        b',' => Token::Comma,
        b'@' => Token::At,
        b'+' => Token::Op(Op::Add),
        b'-' => Token::Op(Op::Sub),
        b'*' => Token::Op(Op::Mul),
        b'/' => Token::Op(Op::Div),
        b'%' => Token::Op(Op::Mod),
        b'^' => Token::Op(Op::Pow),
        _ => return None,
    })
}

pub(super) struct Lexer<'a> {
    pub(super) text: &'a str,
    /// The token that was read and not yet used.
    pub(super) head: Lexeme,
    pub(super) at: usize,
    /// The seconds of the last duration.
    pub(super) seconds: f64,
    pub(super) tokens: usize,
    pub(super) most_tokens: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn peek_byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn byte_at(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    pub(super) fn slice(&self, lexeme: Lexeme) -> &'a str {
        &self.text[lexeme.start..lexeme.end]
    }

    pub(super) fn error(&self, position: usize, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Syntax, self.text, position, message)
    }

    fn count(&mut self) -> Result<(), Error> {
        self.tokens += 1;
        if self.tokens > self.most_tokens {
            return Err(Error::limit("limits.query_tokens", self.most_tokens as u64, self.text, self.at));
        }
        Ok(())
    }

    /// Skips white space and comments; gives the byte behind them.
    pub(super) fn skip_space(&mut self) -> Option<u8> {
        loop {
            let byte = self.peek_byte()?;
            if byte > b'#' {
                return Some(byte);
            }
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                b'#' => {
                    let rest = &self.text.as_bytes()[self.at..];
                    let end = rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
                    self.at = end.map_or(self.text.len(), |end| self.at + end);
                }
                _ => return Some(byte),
            }
        }
    }

    /// Reads the next token outside braces and brackets.
    pub(super) fn next(&mut self) -> Result<(), Error> {
        let byte = self.skip_space();
        self.count()?;
        let start = self.at;
        let Some(byte) = byte else {
            self.head = Lexeme { token: Token::End, start, end: start };
            return Ok(());
        };
        if words::begins_name(byte) {
            let token = self.word();
            self.head = Lexeme { token, start, end: self.at };
            return Ok(());
        }
        if let Some(token) = sign(byte) {
            self.at += 1;
            self.head = Lexeme { token, start, end: self.at };
            return Ok(());
        }
        let one = |lexer: &mut Self, token| {
            lexer.at += 1;
            token
        };
        let two = |lexer: &mut Self, token| {
            lexer.at += 2;
            token
        };
        let next = self.byte_at(1);
        let token = match byte {
            b':' => self.word(),
            b'=' if next == Some(b'=') => two(self, Token::Op(Op::Eq)),
            b'=' if next == Some(b'~') => return Err(self.error(start + 1, "unexpected character after \"=\": '~'")),
            b'=' => one(self, Token::Assign),
            b'!' if next == Some(b'=') => two(self, Token::Op(Op::Ne)),
            b'!' => return Err(self.error(start, "unexpected character after \"!\"")),
            b'<' if next == Some(b'=') => two(self, Token::Op(Op::Le)),
            b'<' if next == Some(b'/') => two(self, Token::Op(Op::TrimUpper)),
            b'<' => one(self, Token::Op(Op::Lt)),
            b'>' if next == Some(b'=') => two(self, Token::Op(Op::Ge)),
            b'>' if next == Some(b'/') => two(self, Token::Op(Op::TrimLower)),
            b'>' => one(self, Token::Op(Op::Gt)),
            b'"' | b'\'' | b'`' => {
                let escaped = self.string()?;
                Token::Text { escaped }
            }
            b'0'..=b'9' => self.number()?,
            b'.' if next.is_some_and(|b| b.is_ascii_digit()) => self.number()?,
            _ => return Err(self.unexpected(start, "")),
        };
        self.head = Lexeme { token, start, end: self.at };
        Ok(())
    }

    pub(super) fn unexpected(&self, at: usize, place: &str) -> Error {
        match self.text[at..].chars().next() {
            None => self.error(at, format!("unexpected end of input{place}")),
            Some(character) => self.error(at, format!("unexpected character{place}: {character:?}")),
        }
    }

    fn word(&mut self) -> Token {
        let start = self.at;
        let bytes = &self.text.as_bytes()[start..];
        let length = words::label_word(bytes);
        if bytes.get(length) == Some(&b':') {
            self.at += words::metric_word(bytes);
            return Token::MetricWord;
        }
        self.at += length;
        Token::Word(words::meaning(&self.text[start..self.at]))
    }

    /// A word inside braces or brackets: no colon belongs to it.
    pub(super) fn narrow_word(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.at..];
        let first = *rest.as_bytes().first()?;
        if !(first.is_ascii_alphabetic() || first == b'_') {
            return None;
        }
        let end = words::label_word(rest.as_bytes());
        self.at += end;
        Some(&rest[..end])
    }

    /// A number or a duration; the cursor stands on its first byte.
    pub(super) fn number(&mut self) -> Result<Token, Error> {
        self.count()?;
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        // Most are a few digits, with a unit or without.
        let whole = words::digits(rest);
        if (1..=15).contains(&whole) {
            let unit = rest.get(whole).and_then(|byte| unit_seconds(*byte));
            let length = whole + usize::from(unit.is_some());
            if !rest.get(length).is_some_and(|byte| words::in_number(*byte)) {
                self.at = start + length;
                let Some(unit) = unit else { return Ok(Token::Number) };
                self.seconds = integer(&rest[..whole]) * unit;
                if self.seconds < LONGEST {
                    return Ok(Token::Duration);
                }
            }
        }
        let mut end = words::number_word(rest);
        // A sign belongs to the number only behind a decimal exponent.
        let hexadecimal = rest.len() > 1 && rest[0] == b'0' && matches!(rest[1], b'x' | b'X');
        if !hexadecimal
            && end > 1
            && matches!(rest[end - 1], b'e' | b'E')
            && rest[..end - 1].iter().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'_'))
            && matches!(rest.get(end), Some(b'+' | b'-'))
        {
            end += 1;
            end += words::number_word(&rest[end..]);
        }
        let word = &self.text[start..start + end];
        self.at = start + end;
        if plain_number(word) {
            return Ok(Token::Number);
        }
        if let Some(seconds) = duration_seconds(word) {
            self.seconds = seconds;
            return Ok(Token::Duration);
        }
        if number_value(word).is_some() {
            return Ok(Token::Number);
        }
        Err(self.error(start, format!("bad number or duration syntax: {:?}", short(word))))
    }

    /// A quoted string; the cursor stands on its quote and ends behind the closing one. Whether it has escapes.
    pub(super) fn string(&mut self) -> Result<bool, Error> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let quote = bytes[start];
        let raw = quote == b'`';
        let (mut at, mut escaped) = (start + 1, false);
        loop {
            if quote == b'"' {
                at += words::printed(bytes.get(at..).unwrap_or_default());
            }
            match bytes.get(at) {
                None => {
                    let message = if raw { "unterminated raw string" } else { "unterminated quoted string" };
                    return Err(self.error(start, message));
                }
                Some(b'\n') if !raw => return Err(self.error(start, "unterminated quoted string")),
                Some(b'\\') if !raw => {
                    escaped = true;
                    at += 2;
                }
                Some(byte) if *byte == quote => break,
                Some(_) => at += 1,
            }
        }
        // An escape may have jumped into a character.
        if !self.text.is_char_boundary(at + 1) {
            return Err(self.error(start, "escape sequence not terminated"));
        }
        self.at = at + 1;
        Ok(escaped)
    }

    /// A matcher as it is usually spelt, `label="value"` without spaces and escapes; nothing is read of any other.
    pub(super) fn plain_matcher(&mut self) -> Option<(&'a str, MatchOp, &'a str)> {
        let text = &self.text[self.at..];
        let bytes = text.as_bytes();
        if !words::begins_name(*bytes.first()?) {
            return None;
        }
        let label = words::label_word(bytes);
        let (op, length) = match bytes.get(label..)? {
            [b'=', b'"', ..] => (MatchOp::Equal, 2),
            [b'=', b'~', b'"', ..] => (MatchOp::Regex, 3),
            [b'!', b'=', b'"', ..] => (MatchOp::NotEqual, 3),
            [b'!', b'~', b'"', ..] => (MatchOp::NotRegex, 3),
            _ => return None,
        };
        let start = label + length;
        let end = start + words::plain(&bytes[start..]);
        if bytes.get(end) != Some(&b'"') {
            return None;
        }
        self.at += end + 1;
        Some((&text[..label], op, &text[start..end]))
    }

    /// The operator between a label and its value.
    pub(super) fn match_op(&mut self) -> Option<MatchOp> {
        let (op, length) = match (self.peek_byte(), self.byte_at(1)) {
            (Some(b'='), Some(b'~')) => (MatchOp::Regex, 2),
            (Some(b'='), _) => (MatchOp::Equal, 1),
            (Some(b'!'), Some(b'=')) => (MatchOp::NotEqual, 2),
            (Some(b'!'), Some(b'~')) => (MatchOp::NotRegex, 2),
            _ => return None,
        };
        self.at += length;
        Some(op)
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// The UTF-8 that a quoted string stands for.
pub(super) fn unquote_text(lexeme: &str, escaped: bool) -> Result<Cow<'_, str>, String> {
    let invalid = "invalid label name";
    match unquote(lexeme, escaped)? {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| invalid.to_owned()),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| invalid.to_owned()),
    }
}

/// The bytes that a quoted string stands for. `lexeme` has its quotes.
pub(super) fn unquote(lexeme: &str, escaped: bool) -> Result<Cow<'_, [u8]>, String> {
    let quote = lexeme.as_bytes()[0];
    let inner = &lexeme[1..lexeme.len() - 1];
    if !escaped {
        return Ok(Cow::Borrowed(inner.as_bytes()));
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let code = rest.as_bytes().first().copied().ok_or("escape sequence not terminated")?;
        let mut length = 1;
        match code {
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'\\' => out.push(b'\\'),
            byte if byte == quote => out.push(quote),
            b'x' | b'u' | b'U' => {
                let digits = match code {
                    b'x' => 2,
                    b'u' => 4,
                    _ => 8,
                };
                let text = rest.get(1..=digits).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
                let value = text
                    .and_then(|text| u32::from_str_radix(text, 16).ok())
                    .ok_or("illegal character in escape sequence")?;
                length += digits;
                push_code(&mut out, code == b'x', value)?;
            }
            b'0'..=b'7' => {
                let text = rest.get(..3).filter(|text| text.bytes().all(|b| matches!(b, b'0'..=b'7')));
                let value = text
                    .and_then(|text| u32::from_str_radix(text, 8).ok())
                    .ok_or("illegal character in escape sequence")?;
                length = 3;
                push_code(&mut out, true, value)?;
            }
            _ => {
                let character = rest.chars().next().unwrap_or('\\');
                return Err(format!("unknown escape sequence {character:?}"));
            }
        }
        rest = &rest[length..];
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(Cow::Owned(out))
}

fn push_code(out: &mut Vec<u8>, byte: bool, value: u32) -> Result<(), String> {
    if byte {
        out.push(u8::try_from(value).map_err(|_| "escape sequence is an invalid byte")?);
    } else {
        let character = char::from_u32(value).ok_or("escape sequence is an invalid Unicode code point")?;
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(())
}

/// Whether a word is a number of the usual kind, such as `5` and `0.95`: no more needs to be known to copy it.
fn plain_number(word: &str) -> bool {
    let bytes = word.as_bytes();
    let whole = words::digits(bytes);
    let rest = &bytes[whole..];
    bytes.len() < 300
        && whole > 0
        && (rest.is_empty() || rest[0] == b'.' && words::digits(&rest[1..]) == rest.len() - 1)
}

/// The value of a number in Go's syntax, if it is one and is finite.
pub(super) fn number_value(word: &str) -> Option<f64> {
    let bytes = word.as_bytes();
    let hexadecimal = bytes.len() > 2 && bytes[0] == b'0' && matches!(bytes[1], b'x' | b'X');
    let digits = if hexadecimal { &word[2..] } else { word };
    let is_digit = |b: u8| if hexadecimal { b.is_ascii_hexdigit() } else { b.is_ascii_digit() };
    // Underscores part digits and nothing else; behind the prefix of a hexadecimal number one may stand as well.
    let raw = digits.as_bytes();
    for (index, byte) in raw.iter().enumerate() {
        if *byte == b'_' {
            let before = if index == 0 { hexadecimal } else { is_digit(raw[index - 1]) };
            let after = raw.get(index + 1).is_some_and(|b| is_digit(*b));
            if !before || !after {
                return None;
            }
        }
    }
    let plain: Cow<'_, str> =
        if digits.contains('_') { Cow::Owned(digits.replace('_', "")) } else { Cow::Borrowed(digits) };
    if hexadecimal {
        let fits = !plain.is_empty() && plain.len() <= 16 && plain.bytes().all(|b| b.is_ascii_hexdigit());
        #[allow(clippy::cast_precision_loss, reason = "a number of the query is a float anyway")]
        return fits.then(|| u64::from_str_radix(&plain, 16).ok().map(|value| value as f64)).flatten();
    }
    let first = plain.bytes().next()?;
    if !(first.is_ascii_digit() || first == b'.') || !plain.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    if !plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-')) {
        return None;
    }
    // As in Go, a leading zero makes octal digits of what can be such.
    if plain.len() > 1 && first == b'0' && plain.bytes().all(|b| matches!(b, b'0'..=b'7')) {
        #[allow(clippy::cast_precision_loss, reason = "a number of the query is a float anyway")]
        return i64::from_str_radix(&plain, 8).map_or_else(|_| plain.parse().ok(), |value| Some(value as f64));
    }
    plain.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// Prometheus counts durations in nanoseconds of 63 bits.
const LONGEST: f64 = 9.2e9;

/// The seconds of a unit of one letter.
const fn unit_seconds(unit: u8) -> Option<f64> {
    Some(match unit {
        b's' => 1.0,
        b'm' => 60.0,
        b'h' => 3600.0,
        b'd' => 86_400.0,
        b'w' => 604_800.0,
        b'y' => 31_536_000.0,
        _ => return None,
    })
}

/// The value of at most 18 digits.
#[allow(clippy::cast_precision_loss, reason = "a length of time is a float anyway")]
fn integer(digits: &[u8]) -> f64 {
    digits.iter().fold(0_u64, |value, digit| value * 10 + u64::from(digit - b'0')) as f64
}

/// The seconds of a duration such as `1h30m`: units in falling order, each once.
pub(super) fn duration_seconds(word: &str) -> Option<f64> {
    let (mut total, mut rest, mut last) = (0.0, word, 8_u8);
    if word.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = words::digits(rest.as_bytes());
        if !(1..=18).contains(&digits) || digits == rest.len() {
            return None;
        }
        let number = integer(&rest.as_bytes()[..digits]);
        rest = &rest[digits..];
        let (length, order, seconds) = match rest.as_bytes() {
            [b'm', b's', ..] => (2, 1, 0.001),
            [b's', ..] => (1, 2, 1.0),
            [b'm', ..] => (1, 3, 60.0),
            [b'h', ..] => (1, 4, 3600.0),
            [b'd', ..] => (1, 5, 86_400.0),
            [b'w', ..] => (1, 6, 604_800.0),
            [b'y', ..] => (1, 7, 31_536_000.0),
            _ => return None,
        };
        if order >= last {
            return None;
        }
        (last, rest) = (order, &rest[length..]);
        total += number * seconds;
    }
    (total < LONGEST).then_some(total)
}
