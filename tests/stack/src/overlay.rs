//! Lays the keys of one YAML file over those of another: sections join, anything else replaces.

use std::io;

use granit_parser::{Event, Parser, ScalarStyle, StrInput};

enum Node {
    /// As it is written in a block: plain, or in double quotes.
    Word(String),
    List(Vec<Node>),
    Section(Vec<(String, Node)>),
}

/// The joined file. Comments are lost.
///
/// # Errors
/// When either is no YAML of the plain kind that the sidecar reads.
pub fn lay_over(under: &str, over: &str) -> io::Result<String> {
    let joined = join(parse(under)?, parse(over)?);
    let mut text = String::new();
    write(&joined, 0, &mut text);
    Ok(text.trim_start().to_owned())
}

fn join(under: Node, over: Node) -> Node {
    match (under, over) {
        (Node::Section(mut entries), Node::Section(more)) => {
            for (key, node) in more {
                let place = entries.iter().position(|(known, _)| *known == key);
                let node = match place {
                    Some(place) => join(entries.remove(place).1, node),
                    None => node,
                };
                entries.insert(place.unwrap_or(entries.len()), (key, node));
            }
            Node::Section(entries)
        }
        (_, over) => over,
    }
}

fn parse(text: &str) -> io::Result<Node> {
    let mut parser = Parser::new_from_str(text);
    loop {
        match next(&mut parser)? {
            Event::StreamStart | Event::DocumentStart(..) => {}
            Event::StreamEnd | Event::DocumentEnd => return Ok(Node::Section(Vec::new())),
            event => return read(&mut parser, event),
        }
    }
}

fn next<'t>(parser: &mut Parser<'t, StrInput<'t>>) -> io::Result<Event<'t>> {
    loop {
        match parser.next() {
            None => return Ok(Event::StreamEnd),
            Some(Ok((Event::Comment(..), _))) => {}
            Some(Ok((event, _))) => return Ok(event),
            Some(Err(error)) => return Err(io::Error::other(format!("not YAML: {error}"))),
        }
    }
}

fn read<'t>(parser: &mut Parser<'t, StrInput<'t>>, event: Event<'t>) -> io::Result<Node> {
    match event {
        Event::Scalar(text, ScalarStyle::Plain, ..) => Ok(Node::Word(text.into_owned())),
        Event::Scalar(text, ..) => Ok(Node::Word(serde_json::Value::from(&*text).to_string())),
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            loop {
                match next(parser)? {
                    Event::SequenceEnd => return Ok(Node::List(list)),
                    event => list.push(read(parser, event)?),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut entries = Vec::new();
            loop {
                match next(parser)? {
                    Event::MappingEnd => return Ok(Node::Section(entries)),
                    Event::Scalar(key, ..) => {
                        let event = next(parser)?;
                        entries.push((key.into_owned(), read(parser, event)?));
                    }
                    _ => return Err(io::Error::other("a key must be a plain word")),
                }
            }
        }
        _ => Err(io::Error::other("only plain YAML is read")),
    }
}

/// What stands behind a key or a dash.
fn write(node: &Node, depth: usize, text: &mut String) {
    let pad = "  ".repeat(depth);
    match node {
        Node::Word(word) => text.push_str(&format!(" {word}\n")),
        Node::List(list) if list.is_empty() => text.push_str(" []\n"),
        Node::Section(entries) if entries.is_empty() => text.push_str(" {}\n"),
        Node::List(list) => {
            text.push('\n');
            for node in list {
                text.push_str(&format!("{pad}-"));
                write(node, depth + 1, text);
            }
        }
        Node::Section(entries) => {
            text.push('\n');
            for (key, node) in entries {
                text.push_str(&format!("{pad}{key}:"));
                write(node, depth + 1, text);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn keys_join_and_lists_replace() {
        let under = "listen:\n  gateway: 127.0.0.1:1\n  admin: 127.0.0.1:2\nlimits:\n  body: 1MiB\naudit:\n  file: x\n\
                     metrics_backends:\n  - name: a\n    labels:\n      - metrics: [\"D*\"]\n        where:\n          a: b\n  - name: b\n";
        let over = "# mine\nlisten:\n  trusted_proxies: [127.0.0.1/32, \"::1/128\"]\n  admin: 127.0.0.1:3\naccess: {}\n\
                    limits: {body: 2KiB, headers: 7}\naudit: ~\n";
        let expected = "listen:\n  gateway: 127.0.0.1:1\n  admin: 127.0.0.1:3\n  trusted_proxies:\n    - 127.0.0.1/32\n    - \"::1/128\"\n\
                        limits:\n  body: 2KiB\n  headers: 7\naudit: ~\nmetrics_backends:\n  -\n    name: a\n    labels:\n      -\n        \
                        metrics:\n          - \"D*\"\n        where:\n          a: b\n  -\n    name: b\naccess: {}\n";
        let joined = lay_over(under, over).unwrap();
        assert_eq!(joined, expected);
        assert_eq!(lay_over(&joined, "").unwrap(), expected, "what is written reads the same again");
        let joined = lay_over(under, "metrics_backends:\n  - name: c\n").unwrap();
        assert!(joined.ends_with("metrics_backends:\n  -\n    name: c\n"), "{joined}");
    }

    #[test]
    fn nonsense_is_told() {
        assert!(lay_over("a: 1\n", "a: [1\n").is_err());
        assert!(lay_over("a: 1\n", "a: *b\n").is_err());
    }
}
