//! Which series a request makes Prometheus look at, by its rules for forms and its grammar of selectors.

use super::go;

/// A request as Prometheus receives it.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub content_type: &'a str,
    pub body: &'a [u8],
}

/// Namespaces of the world; the last one stands for series without the label.
pub const WORLD: [&str; 6] = ["team-a", "team-b", "team-c", "shared", "perses", ""];

/// What is wrong with what ada's request would reach, if anything. `everything` is said of endpoints that are not
/// confined.
pub fn violation(asked: &Asked<'_>) -> Option<String> {
    let (path, query) = asked.target.split_once('?').unwrap_or((asked.target, ""));
    let mut pairs = Vec::new();
    let kind = asked.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // A body stands before the address; parts are read whatever the method.
    if matches!(asked.method, "POST" | "PUT" | "PATCH") && kind == "application/x-www-form-urlencoded" {
        pairs.extend(go::form(asked.body).0);
    }
    if kind == "multipart/form-data" && !asked.body.is_empty() {
        return Some("parts of a form, which are read on any method".to_owned());
    }
    pairs.extend(go::form(query.as_bytes()).0);
    let first = |name: &str| pairs.iter().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value.as_slice());
    let texts: Vec<&[u8]> = match path {
        "/api/v1/query" | "/api/v1/query_range" | "/api/v1/query_exemplars" => first("query").into_iter().collect(),
        "/api/v1/series" | "/api/v1/labels" | "/api/v1/rules" => matches(&pairs),
        // Its answer is filtered.
        "/api/v1/alerts" => return None,
        "/api/v1/metadata"
        | "/api/v1/parse_query"
        | "/api/v1/format_query"
        | "/api/v1/status/buildinfo"
        | "/-/healthy" => {
            return None;
        }
        _ => {
            let label = path.strip_prefix("/api/v1/label/").and_then(|rest| rest.strip_suffix("/values"));
            match label {
                Some(label) if label.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) => matches(&pairs),
                _ => return Some(format!("an endpoint that is not confined: {path}")),
            }
        }
    };
    if texts.is_empty() {
        return Some("everything: nothing selects".to_owned());
    }
    if let Some((name, _)) =
        pairs.iter().find(|(name, _)| [&b"replicaLabels[]"[..], b"storeMatch[]"].contains(&name.as_slice()))
    {
        return Some(format!("a parameter that changes what is read: {}", String::from_utf8_lossy(name)));
    }
    for text in texts {
        let text = String::from_utf8_lossy(text);
        let Some(selectors) = selectors(&text) else { return Some(format!("text that cannot be read: {text}")) };
        for selector in &selectors {
            let foreign = WORLD.iter().find(|namespace| {
                !["team-a", "team-b"].contains(*namespace) && selector.iter().all(|matcher| matcher.holds(namespace))
            });
            if let Some(foreign) = foreign {
                return Some(format!("series of {foreign:?} by {selector:?} in {text}"));
            }
        }
    }
    None
}

fn matches(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<&[u8]> {
    pairs.iter().filter(|(name, _)| name == b"match[]").map(|(_, value)| value.as_slice()).collect()
}

/// A matcher of the label `namespace`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matcher {
    operator: String,
    value: String,
}

impl Matcher {
    /// Whether a namespace passes. A pattern that is more than words and `|` counts as passing.
    fn holds(&self, namespace: &str) -> bool {
        let pattern = || {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'|';
            self.value.bytes().all(plain).then(|| self.value.split('|').any(|word| word == namespace))
        };
        match self.operator.as_str() {
            "=" => self.value == namespace,
            "!=" => self.value != namespace,
            "=~" => pattern().unwrap_or(true),
            _ => !pattern().unwrap_or(false),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(String),
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let characters: Vec<char> = text.chars().collect();
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&first) = characters.get(at) {
        let start = at;
        at += 1;
        match first {
            c if c.is_whitespace() => {}
            '#' => at = characters[at..].iter().position(|c| *c == '\n').map_or(characters.len(), |end| at + end),
            '"' | '\'' | '`' => {
                let mut value = String::new();
                loop {
                    let character = *characters.get(at)?;
                    at += 1;
                    match character {
                        '\\' if first != '`' => {
                            value.push('\\');
                            value.push(*characters.get(at)?);
                            at += 1;
                        }
                        c if c == first => break,
                        c => value.push(c),
                    }
                }
                out.push(Token::Text(value));
            }
            c if c.is_alphanumeric() || c == '_' || c == ':' || c == '.' => {
                let more = |c: &char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.');
                at = characters[at..].iter().position(|c| !more(c)).map_or(characters.len(), |end| at + end);
                out.push(Token::Word(characters[start..at].iter().collect()));
            }
            '=' | '!' if matches!(characters.get(at), Some('~' | '=')) => {
                at += 1;
                out.push(Token::Sign(characters[start..at].iter().collect()));
            }
            c => out.push(Token::Sign(c.to_string())),
        }
    }
    Some(out)
}

/// The matchers of `namespace` in every selector of an expression, those without any too.
pub fn selectors(text: &str) -> Option<Vec<Vec<Matcher>>> {
    const WORDS: [&str; 17] = [
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "offset",
        "bool",
        "and",
        "or",
        "unless",
        "atan2",
        "inf",
        "nan",
        "anchored",
        "smoothed",
        "fill",
    ];
    let tokens = tokens(text)?;
    let sign = |at: usize, wanted: &str| tokens.get(at) == Some(&Token::Sign(wanted.to_owned()));
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Word(word) if word.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {}
            // Brackets hold durations.
            Token::Sign(bracket) if bracket == "[" => {
                while !sign(at, "]") {
                    at += 1;
                    tokens.get(at)?;
                }
            }
            Token::Word(word) => {
                let lower = word.to_ascii_lowercase();
                if ["by", "without", "on", "ignoring", "group_left", "group_right"].contains(&lower.as_str())
                    && sign(at, "(")
                {
                    while !sign(at, ")") {
                        at += 1;
                        tokens.get(at)?;
                    }
                } else if !sign(at, "(") && !sign(at, "{") && !WORDS.contains(&lower.as_str()) {
                    // A name alone; a function or a modifier otherwise.
                    let is_call = matches!(
                        lower.as_str(),
                        "sum"
                            | "min"
                            | "max"
                            | "avg"
                            | "count"
                            | "group"
                            | "topk"
                            | "bottomk"
                            | "quantile"
                            | "stddev"
                            | "stdvar"
                            | "count_values"
                    ) && matches!(tokens.get(at), Some(Token::Word(next)) if next == "by" || next == "without");
                    if !is_call {
                        found.push(Vec::new());
                    }
                }
            }
            Token::Sign(brace) if brace == "{" => {
                let mut matchers = Vec::new();
                while !sign(at, "}") {
                    let (Some(Token::Word(name) | Token::Text(name)), Some(Token::Sign(operator))) =
                        (tokens.get(at), tokens.get(at + 1))
                    else {
                        return None;
                    };
                    if operator == "," || operator == "}" {
                        // A quoted name of a metric.
                        at += usize::from(operator == ",") + 1;
                        continue;
                    }
                    let Some(Token::Text(value)) = tokens.get(at + 2) else { return None };
                    if name == "namespace" {
                        matchers.push(Matcher { operator: operator.clone(), value: value.clone() });
                    }
                    at += 3;
                    if sign(at, ",") {
                        at += 1;
                    }
                }
                at += 1;
                found.push(matchers);
            }
            Token::Text(_) | Token::Sign(_) => {}
        }
    }
    Some(found)
}
