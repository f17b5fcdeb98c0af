//! Words with a meaning, and the bytes that words are made of.

/// What a word means outside braces. Keywords have no case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The name of a metric, a label or a function.
    Name,
    And,
    Or,
    Unless,
    Atan2,
    Offset,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Bool,
    Start,
    End,
    Anchored,
    Smoothed,
    Fill,
    FillLeft,
    FillRight,
    /// `Inf` and `NaN`.
    Number,
    /// An index into the table of aggregations.
    Aggregation(u8),
    /// It means something in some version of PromQL: a metric of such a name is printed as a matcher instead.
    Reserved,
}

/// Words by their length. The numbers of aggregations are places in `functions::AGGREGATIONS`.
const WORDS: [&[(&str, Word)]; 18] = [
    &[],
    &[],
    &[("by", Word::By), ("on", Word::On), ("or", Word::Or), ("if", Word::Reserved)],
    &[
        ("sum", Word::Aggregation(0)),
        ("avg", Word::Aggregation(1)),
        ("max", Word::Aggregation(4)),
        ("min", Word::Aggregation(3)),
        ("and", Word::And),
        ("inf", Word::Number),
        ("nan", Word::Number),
        ("end", Word::End),
    ],
    &[
        ("topk", Word::Aggregation(8)),
        ("bool", Word::Bool),
        ("fill", Word::Fill),
        ("step", Word::Reserved),
        ("with", Word::Reserved),
        ("info", Word::Reserved),
    ],
    &[
        ("count", Word::Aggregation(2)),
        ("group", Word::Aggregation(5)),
        ("atan2", Word::Atan2),
        ("start", Word::Start),
        ("range", Word::Reserved),
        ("ifnot", Word::Reserved),
        ("limit", Word::Reserved),
    ],
    &[
        ("offset", Word::Offset),
        ("unless", Word::Unless),
        ("stddev", Word::Aggregation(6)),
        ("stdvar", Word::Aggregation(7)),
        ("limitk", Word::Aggregation(12)),
        ("min_of", Word::Reserved),
        ("max_of", Word::Reserved),
    ],
    &[("without", Word::Without), ("bottomk", Word::Aggregation(9)), ("default", Word::Reserved)],
    &[
        ("ignoring", Word::Ignoring),
        ("quantile", Word::Aggregation(10)),
        ("anchored", Word::Anchored),
        ("smoothed", Word::Smoothed),
    ],
    &[("fill_left", Word::FillLeft)],
    &[("group_left", Word::GroupLeft), ("fill_right", Word::FillRight)],
    &[("group_right", Word::GroupRight), ("limit_ratio", Word::Aggregation(13))],
    &[("count_values", Word::Aggregation(11))],
    &[],
    &[],
    &[],
    &[],
    &[("keep_metric_names", Word::Reserved)],
];

/// The first letters of the words of each length, a bit each: most names need no further look.
const FIRST_LETTERS: [u32; 18] = {
    let mut letters = [0; 18];
    let mut length = 0;
    while length < 18 {
        let mut at = 0;
        while at < WORDS[length].len() {
            letters[length] |= 1 << (WORDS[length][at].0.as_bytes()[0] & 31);
            at += 1;
        }
        length += 1;
    }
    letters
};

/// What a word means.
pub(super) fn meaning(word: &str) -> Word {
    let (Some(first), Some(letters)) = (word.as_bytes().first(), FIRST_LETTERS.get(word.len())) else {
        return Word::Name;
    };
    if letters >> (first & 31) & 1 == 0 {
        return Word::Name;
    }
    let found = WORDS[word.len()].iter().find(|(text, _)| text.eq_ignore_ascii_case(word));
    found.map_or(Word::Name, |(_, meaning)| *meaning)
}

/// Begins a label's name.
const LETTER: u8 = 1;
/// In a label's name.
const LABEL: u8 = 2;
/// In a metric's name.
const METRIC: u8 = 4;
const DIGIT: u8 = 8;
/// In a number or a duration.
const NUMBER: u8 = 16;
/// Stands for itself in a string with double quotes.
const PRINTED: u8 = 32;
/// As above, and begins neither a counted repetition nor flags of a regular expression.
const PLAIN: u8 = 64;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut at = 0;
    while at < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "below 256")]
        let byte = at as u8;
        if byte.is_ascii_alphabetic() || byte == b'_' {
            classes[at] |= LETTER | LABEL | METRIC | NUMBER;
        }
        if byte.is_ascii_digit() {
            classes[at] |= DIGIT | LABEL | METRIC | NUMBER;
        }
        if byte == b':' {
            classes[at] |= METRIC;
        }
        if byte == b'.' {
            classes[at] |= NUMBER;
        }
        if byte >= 0x20 && byte < 0x7f && byte != b'"' && byte != b'\\' {
            classes[at] |= PRINTED;
            if byte != b'{' && byte != b'?' {
                classes[at] |= PLAIN;
            }
        }
        at += 1;
    }
    classes
};

/// How many of the first bytes are of a class; by four, since most of a query is words.
fn run(bytes: &[u8], class: u8) -> usize {
    let other = |byte: u8| CLASSES[usize::from(byte)] & class == 0;
    let mut at = 0;
    let mut rest = bytes;
    while let [a, b, c, d, behind @ ..] = rest {
        if other(*a) {
            return at;
        }
        if other(*b) {
            return at + 1;
        }
        if other(*c) {
            return at + 2;
        }
        if other(*d) {
            return at + 3;
        }
        (at, rest) = (at + 4, behind);
    }
    at + rest.iter().position(|byte| other(*byte)).unwrap_or(rest.len())
}

/// Whether a byte may stand in a number or a duration.
pub(super) fn in_number(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & NUMBER != 0
}

/// Whether a byte may stand first in a label's name.
pub(super) fn begins_name(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & LETTER != 0
}

/// The length of the word that bytes begin with, in which colons may be.
pub(super) fn metric_word(bytes: &[u8]) -> usize {
    run(bytes, METRIC)
}

/// The length of the word that bytes begin with, in which no colon is.
pub(super) fn label_word(bytes: &[u8]) -> usize {
    run(bytes, LABEL)
}

/// The length of the digits that bytes begin with.
pub(super) fn digits(bytes: &[u8]) -> usize {
    run(bytes, DIGIT)
}

/// The length of what could be a number or a duration.
pub(super) fn number_word(bytes: &[u8]) -> usize {
    run(bytes, NUMBER)
}

/// How many of the first bytes stand for themselves in a string with double quotes.
pub(super) fn printed(bytes: &[u8]) -> usize {
    run(bytes, PRINTED)
}

/// How many of them are, besides, neither an opening brace nor a question mark.
pub(super) fn plain(bytes: &[u8]) -> usize {
    run(bytes, PLAIN)
}

/// Whether a word may be printed as a label's name without quotes.
pub(super) fn is_plain_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|first| CLASSES[usize::from(*first)] & LETTER != 0) && label_word(bytes) == bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::functions::aggregation;

    #[test]
    fn words_stand_under_their_length() {
        for (length, words) in WORDS.iter().enumerate() {
            for (text, meant) in *words {
                assert_eq!((text.len(), meaning(&text.to_ascii_uppercase())), (length, *meant), "{text}");
                if let Word::Aggregation(index) = meant {
                    assert_eq!(aggregation(*index).word, *text);
                }
            }
        }
        assert_eq!(meaning("summ"), Word::Name);
        assert_eq!(meaning(""), Word::Name);
    }
}
