//! YAML, and so JSON, becomes a small tree with places. Only the plain part of YAML is read: no anchors, aliases, tags, or
//! second document.

use std::fmt;

use granit_parser::{Event, Parser, ScalarStyle};

/// The largest file.
pub const LARGEST: usize = 1 << 20;

/// Something that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// Such as `metrics_backends[0].url`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(line: usize, column: usize, path: &str, message: impl Into<String>) -> Self {
        Self { line, column, path: path.to_owned(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// A value and where it stands; line and column count from 1.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// A single value that stands in quotes, or as a block: text, whatever it looks like.
    pub(crate) text: bool,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Nothing,
    Word(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Value {
    pub(crate) const fn words(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Word(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a section",
        }
    }
}

/// The tree, at most so deep, and the keys that stand twice in a section, of which it holds the first.
pub(crate) fn parse(text: &str, deepest: usize) -> Result<(Node, Vec<Problem>), Problem> {
    if text.len() > LARGEST {
        return Err(Problem::new(1, 1, "", format!("the file is larger than {LARGEST} bytes")));
    }
    let mut reader = Reader { parser: Parser::new_from_str(text), left: deepest, twice: Vec::new() };
    let mut root = None;
    loop {
        let (event, line, column) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentEnd => {}
            Event::DocumentStart(..) if root.is_some() => {
                return Err(Problem::new(line, column, "", "only one YAML document is read"));
            }
            Event::DocumentStart(..) => {}
            event => root = Some(reader.node(event, line, column)?),
        }
    }
    Ok((root.unwrap_or(Node { line: 1, column: 1, text: false, value: Value::Nothing }), reader.twice))
}

struct Reader<'t> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    /// How much deeper it may nest.
    left: usize,
    twice: Vec<Problem>,
}

impl<'t> Reader<'t> {
    /// The next event that is no comment.
    fn next(&mut self) -> Result<(Event<'t>, usize, usize), Problem> {
        loop {
            match self.parser.next() {
                None => return Ok((Event::StreamEnd, 1, 1)),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, span))) => return Ok((event, span.start.line(), span.start.col() + 1)),
                Some(Err(error)) => {
                    let mark = error.marker();
                    return Err(Problem::new(mark.line(), mark.col() + 1, "", format!("not YAML: {}", error.kind())));
                }
            }
        }
    }

    fn node(&mut self, event: Event<'t>, line: usize, column: usize) -> Result<Node, Problem> {
        let fail = |message: &str| Err(Problem::new(line, column, "", message));
        if self.left == 0 {
            return fail("nested too deeply");
        }
        self.left -= 1;
        let quoted = matches!(&event, Event::Scalar(_, style, ..) if *style != ScalarStyle::Plain);
        let value = match event {
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(_, anchor, _) | Event::MappingStart(_, anchor, _)
                if anchor != 0 =>
            {
                return fail("anchors (&) are not read; write the value out");
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, _, Some(_))
            | Event::MappingStart(_, _, Some(_)) => {
                return fail("tags (!) are not read");
            }
            Event::Scalar(text, ScalarStyle::Plain, ..) if matches!(&*text, "" | "~" | "null") => Value::Nothing,
            Event::Scalar(text, ..) => Value::Word(text.into_owned()),
            Event::SequenceStart(..) => {
                let mut list = Vec::new();
                loop {
                    let (event, line, column) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        break Value::List(list);
                    }
                    list.push(self.node(event, line, column)?);
                }
            }
            Event::MappingStart(..) => {
                let mut map: Vec<(String, Node)> = Vec::new();
                loop {
                    let (event, line, column) = self.next()?;
                    if matches!(event, Event::MappingEnd) {
                        break Value::Map(map);
                    }
                    let Node { value: Value::Word(key), .. } = self.node(event, line, column)? else {
                        return Err(Problem::new(line, column, "", "a key must be a plain word"));
                    };
                    let (event, below, across) = self.next()?;
                    let mut node = self.node(event, below, across)?;
                    if map.iter().any(|(known, _)| *known == key) {
                        self.twice.push(Problem::new(line, column, &key, "this key stands twice in its section"));
                        continue;
                    }
                    // Problems with an entry are told where its key stands.
                    (node.line, node.column) = (line, column);
                    map.push((key, node));
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                return fail("aliases (*) are not read; write the value out");
            }
            _ => return fail("not understood"),
        };
        self.left += 1;
        Ok(Node { line, column, text: quoted, value })
    }
}
