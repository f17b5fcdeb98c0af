//! Strict `application/x-www-form-urlencoded`, for query strings and bodies.
//!
//! Servers disagree about `;`, broken escapes, repeated names and the order of body and URL. So whatever could be read in
//! two ways is refused here, and what goes upstream is written anew, each parameter once and in one place.

use std::borrow::Cow;
use std::fmt;

/// The most parameters a form may have.
const MOST: usize = 256;

/// Decoded pairs in the order received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// Why a form is refused; fit for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormError {
    /// `%` without two hexadecimal digits.
    BrokenEscape,
    /// `;`, which some servers take for `&`.
    Semicolon,
    /// Bytes that are not UTF-8, or NUL.
    NotText,
    /// A pair without a name.
    NoName,
    /// More pairs than any client of ours sends.
    TooMany,
    /// A parameter that must stand once.
    Repeated(String),
    /// A parameter that the route does not take.
    Unknown(String),
    /// A parameter whose value the route does not take.
    Value(&'static str, &'static str),
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BrokenEscape => f.write_str("broken percent escape in the parameters"),
            Self::Semicolon => f.write_str("\";\" in the parameters must be percent-encoded"),
            Self::NotText => f.write_str("the parameters are not UTF-8 text"),
            Self::NoName => f.write_str("a parameter without a name"),
            Self::TooMany => write!(f, "more than {MOST} parameters"),
            Self::Repeated(name) => write!(f, "parameter {name:?} stands more than once"),
            Self::Unknown(name) => write!(f, "parameter {name:?} is not taken here"),
            Self::Value(name, expected) => write!(f, "parameter {name:?}: expected {expected}"),
        }
    }
}

impl<'a> Form<'a> {
    /// Reads a query string or a body.
    ///
    /// # Errors
    /// See [`FormError`]. An empty text is an empty form.
    pub fn parse(text: &'a str) -> Result<Self, FormError> {
        let mut pairs = Vec::new();
        if text.is_empty() {
            return Ok(Self { pairs });
        }
        let mut rest = Some(text);
        while let Some(text) = rest {
            let (pair, behind) = split_at(b'&', text);
            rest = behind;
            if pairs.len() == MOST {
                return Err(FormError::TooMany);
            }
            let (name, value) = split_at(b'=', pair);
            let name = decode(name)?;
            if name.is_empty() {
                return Err(FormError::NoName);
            }
            pairs.push((name, decode(value.unwrap_or(""))?));
        }
        Ok(Self { pairs })
    }

    /// Reads a body.
    ///
    /// # Errors
    /// As [`Form::parse`], and for bytes that are not ASCII: those must be escaped.
    pub fn parse_bytes(bytes: &'a [u8]) -> Result<Self, FormError> {
        let text = std::str::from_utf8(bytes).map_err(|_| FormError::NotText)?;
        Self::parse(text)
    }

    /// Adds the pairs of another form behind these.
    pub fn extend(&mut self, other: Self) {
        self.pairs.extend(other.pairs);
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Takes a parameter that may stand at most once.
    ///
    /// # Errors
    /// When it stands more often.
    pub fn take(&mut self, name: &str) -> Result<Option<Cow<'a, str>>, FormError> {
        let Some(first) = self.pairs.iter().position(|(key, _)| key == name) else { return Ok(None) };
        let (_, value) = self.pairs.remove(first);
        if self.pairs.iter().any(|(key, _)| key == name) {
            return Err(FormError::Repeated(name.to_owned()));
        }
        Ok(Some(value))
    }

    /// Takes all values of a parameter that may repeat.
    pub fn take_all(&mut self, name: &str) -> Vec<Cow<'a, str>> {
        let mut values = Vec::new();
        self.pairs.retain_mut(|(key, value)| {
            let ours = key == name;
            if ours {
                values.push(std::mem::take(value));
            }
            !ours
        });
        values
    }

    /// Ends the reading: whatever nobody took is unknown.
    ///
    /// # Errors
    /// When a pair is left.
    pub fn finish(self) -> Result<(), FormError> {
        match self.pairs.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(FormError::Unknown(name.chars().take(64).collect())),
        }
    }
}

/// `true` and `false` as Go's `strconv.ParseBool` reads them.
pub(super) fn read_bool(name: &'static str, value: &str) -> Result<bool, FormError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(FormError::Value(name, "true or false")),
    }
}

/// What stands before an ASCII character, and what stands behind it if it is there.
fn split_at(byte: u8, text: &str) -> (&str, Option<&str>) {
    match memchr::memchr(byte, text.as_bytes()) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, FormError> {
    let bytes = text.as_bytes();
    if memchr::memchr3(b'%', b'+', b';', bytes).is_none() && memchr::memchr(0, bytes).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b';' => return Err(FormError::Semicolon),
            0 => return Err(FormError::NotText),
            b'+' => bytes.push(b' '),
            b'%' => {
                let pair = tail.first_chunk::<2>().ok_or(FormError::BrokenEscape)?;
                let (Some(high), Some(low)) = (hex(pair[0]), hex(pair[1])) else { return Err(FormError::BrokenEscape) };
                let byte = high << 4 | low;
                if byte == 0 {
                    return Err(FormError::NotText);
                }
                bytes.push(byte);
                rest = &tail[2..];
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| FormError::NotText)
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Writes one more pair of a form, escaping everything but unreserved characters.
pub fn push_pair(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push('&');
    }
    escape_into(out, name);
    out.push('=');
    escape_into(out, value);
}

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3).
fn escape_into(out: &mut String, text: &str) {
    // What needs no escape goes over in one piece. It is ASCII, and so is what stands before it: it begins and ends where
    // characters do.
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let index = usize::from(byte);
        if PLAIN[index] {
            continue;
        }
        if from < at {
            out.push_str(&text[from..at]);
        }
        out.push_str(&ESCAPES[index * 3..index * 3 + 3]);
        from = at + 1;
    }
    if from < text.len() {
        out.push_str(&text[from..]);
    }
}

/// Whether a byte is an unreserved character (RFC 3986, 2.3).
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        plain[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    plain
};

/// `%00` to `%FF`, one behind the other.
const ESCAPES: &str = {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    const BYTES: [u8; 768] = {
        let mut bytes = [b'%'; 768];
        let mut byte = 0;
        while byte < 256 {
            bytes[byte * 3 + 1] = HEX[byte >> 4];
            bytes[byte * 3 + 2] = HEX[byte & 15];
            byte += 1;
        }
        bytes
    };
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => panic!("ASCII is text"),
    }
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_but_unreserved_characters_are_escaped() {
        let mut out = String::new();
        push_pair(&mut out, "a b", "é=~&%\u{10ffff}x");
        push_pair(&mut out, "", "\0-._~09azAZ/");
        assert_eq!(out, "a%20b=%C3%A9%3D~%26%25%F4%8F%BF%BFx&=%00-._~09azAZ%2F");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(name in "[^\\x00]{1,40}", value in "[^\\x00]{0,80}") {
            let mut out = String::new();
            push_pair(&mut out, &name, &value);
            prop_assert!(out.bytes().all(|b| PLAIN[usize::from(b)] || b == b'%' || b == b'='));
            let form = Form::parse(&out).expect("a form");
            prop_assert_eq!(form.pairs, vec![(Cow::Owned(name), Cow::Owned::<str>(value))]);
        }
    }
}
