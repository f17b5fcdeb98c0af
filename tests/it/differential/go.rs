//! How a Go server reads forms and JSON: loosely. Written from the description of its rules.

/// Names and values, as bytes.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The pairs of a form in order, as `url.ParseQuery` keeps them: what holds `;` or a broken escape is dropped, and the
/// second value says whether anything was.
pub fn form(text: &[u8]) -> (Pairs, bool) {
    let (mut pairs, mut dropped) = (Vec::new(), false);
    for piece in text.split(|b| *b == b'&') {
        if piece.contains(&b';') {
            dropped = true;
            continue;
        }
        if piece.is_empty() {
            continue;
        }
        let cut = piece.iter().position(|b| *b == b'=');
        let (name, value) = cut.map_or((piece, &b""[..]), |at| (&piece[..at], &piece[at + 1..]));
        match (unescape(name), unescape(value)) {
            (Some(name), Some(value)) => pairs.push((name, value)),
            _ => dropped = true,
        }
    }
    (pairs, dropped)
}

/// `url.QueryUnescape`
pub fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(*bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => *other,
        });
    }
    Some(out)
}

/// JSON as it stands in the text: nothing about keys is decided yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    /// In order, repeated keys and all.
    Map(Vec<(String, Json)>),
}

/// The first value of a text, as `json.Decoder` reads it: whatever stands behind is not looked at.
pub fn json(text: &[u8]) -> Option<Json> {
    Reader { text, at: 0 }.value(0)
}

impl Json {
    /// A struct's field: the last key that is equal when case is folded; objects that stand twice are laid over each
    /// other.
    pub fn field(&self, name: &str) -> Option<Json> {
        let Self::Map(pairs) = self else { return None };
        let mut found: Option<Json> = None;
        for (_, value) in pairs.iter().filter(|(key, _)| fold(key) == fold(name)) {
            found = Some(match (found, value) {
                (Some(Self::Map(mut under)), Self::Map(over)) => {
                    under.extend(over.iter().cloned());
                    Self::Map(under)
                }
                (Some(before), Self::Null) => before,
                (_, value) => value.clone(),
            });
        }
        found
    }

    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// Keys are compared by folding: ASCII case, and the two other letters that fold into ASCII.
pub fn fold(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            'ſ' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn space(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn word(&mut self, word: &str, value: Json) -> Option<Json> {
        let found = self.text[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        found.then_some(value)
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > 10_000 {
            return None;
        }
        match self.space()? {
            b'n' => self.word("null", Json::Null),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'"' => self.string().map(Json::Text),
            b'[' => {
                self.at += 1;
                let mut values = Vec::new();
                if self.space()? == b']' {
                    self.at += 1;
                    return Some(Json::List(values));
                }
                loop {
                    values.push(self.value(depth + 1)?);
                    let next = self.space()?;
                    self.at += 1;
                    match next {
                        b',' => {}
                        b']' => return Some(Json::List(values)),
                        _ => return None,
                    }
                }
            }
            b'{' => {
                self.at += 1;
                let mut pairs = Vec::new();
                if self.space()? == b'}' {
                    self.at += 1;
                    return Some(Json::Map(pairs));
                }
                loop {
                    if self.space()? != b'"' {
                        return None;
                    }
                    let key = self.string()?;
                    if self.space()? != b':' {
                        return None;
                    }
                    self.at += 1;
                    pairs.push((key, self.value(depth + 1)?));
                    let next = self.space()?;
                    self.at += 1;
                    match next {
                        b',' => {}
                        b'}' => return Some(Json::Map(pairs)),
                        _ => return None,
                    }
                }
            }
            b'-' | b'0'..=b'9' => {
                let start = self.at;
                while matches!(self.text.get(self.at), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
                    self.at += 1;
                }
                std::str::from_utf8(&self.text[start..self.at]).ok()?.parse().ok().map(Json::Number)
            }
            _ => None,
        }
    }

    /// Broken surrogates and broken UTF-8 become the replacement character.
    fn string(&mut self) -> Option<String> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return Some(String::from_utf8_lossy(&out).into_owned()),
                0..=31 => return None,
                b'\\' => {
                    let escaped = *self.text.get(self.at)?;
                    self.at += 1;
                    let character = match escaped {
                        b'"' | b'\\' | b'/' => char::from(escaped),
                        b'b' => '\u{8}',
                        b'f' => '\u{c}',
                        b'n' => '\n',
                        b'r' => '\r',
                        b't' => '\t',
                        b'u' => {
                            let first = self.unit()?;
                            let pair = self.text[self.at..].starts_with(b"\\u");
                            match first {
                                0xd800..0xdc00 if pair => {
                                    let before = self.at;
                                    self.at += 2;
                                    let second = self.unit()?;
                                    if (0xdc00..0xe000).contains(&second) {
                                        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                                        char::from_u32(code).unwrap_or('\u{fffd}')
                                    } else {
                                        self.at = before;
                                        '\u{fffd}'
                                    }
                                }
                                code => char::from_u32(code).unwrap_or('\u{fffd}'),
                            }
                        }
                        _ => return None,
                    };
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                other => out.push(other),
            }
        }
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
    }
}
