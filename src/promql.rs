//! Which series may this query touch? Text and a [`Reach`] become [`Confined`] text, or an error with its place.
//!
//! The text is parsed, every selector gets our matchers in front of its own, and the tree is printed anew in a subset that
//! leaves nothing to interpret. What was printed is read back and compared before anybody may use it. Nothing here looks at
//! regular expressions of a user beyond two harmless questions, and nothing here asks anybody anything.

pub mod analysis;
mod cost;
mod functions;
mod guard;
mod lex;
mod parse;
mod print;
mod regex;
mod tree;
mod words;

use std::fmt;
use std::sync::Arc;

/// Bounds on a query, before and after confinement, and on what it makes a backend do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the text.
    pub text: usize,
    /// How deeply expressions may nest.
    pub depth: usize,
    /// Binary operators.
    pub binary_operators: usize,
    /// Selectors.
    pub selectors: usize,
    /// Tokens.
    pub tokens: usize,
    /// Bytes of the confined text.
    pub confined: usize,
    /// Steps of all subqueries, each over all that is asked of it.
    pub subquery_steps: u64,
    /// Bytes of the labels that a query makes for one series.
    pub label_bytes: usize,
    /// What the repetitions and large classes in regular expressions come to when they are written out.
    pub repetitions: u64,
    /// The step of a subquery that names none.
    pub subquery_default_step_ms: u64,
    /// The longest range and offset.
    pub lookback_ms: u64,
    /// The request's window, which subqueries are computed over.
    pub window: Window,
}

/// What a range request spans, in milliseconds; an instant one spans nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// From its first point to its last.
    pub range_ms: u64,
    /// From one point to the next.
    pub step_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            text: 64 << 10,
            depth: 100,
            binary_operators: 500,
            selectors: 200,
            tokens: 10_000,
            confined: 1 << 20,
            subquery_steps: 1_000_000,
            label_bytes: 64 << 10,
            repetitions: 5000,
            subquery_default_step_ms: 60_000,
            lookback_ms: 366 * 24 * 3600 * 1000,
            window: Window::default(),
        }
    }
}

/// What a backend knows beyond the default language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Experimental functions, duration expressions, `anchored`, `smoothed`, `fill`. Prometheus 3.16 takes the middle ones
    /// without a switch, servers a little older and Thanos do not: one setting stands for all that may be missing.
    pub experimental: bool,
}

/// Which series somebody may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them; no matcher.
    Everything,
    /// Those of any namespace; `namespace!=""`.
    AnyNamespace,
    /// Those of these namespaces, sorted; of none, if there are none.
    Namespaces(Arc<[Arc<str>]>),
}

/// Metrics by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricPattern {
    /// This one.
    Exact(String),
    /// All that begin so.
    Prefix(String),
}

impl MetricPattern {
    /// Reads `name` or `beginning*`.
    ///
    /// # Errors
    /// For anything but a legacy metric name with at most one `*`, at its end.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, prefix) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
        let legacy = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
        if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(legacy) {
            return Err(format!("{text:?} is no metric name, nor the beginning of one followed by \"*\""));
        }
        Ok(if prefix { Self::Prefix(name.to_owned()) } else { Self::Exact(name.to_owned()) })
    }

    /// In RE2 syntax. A legacy name has no letter that means anything there.
    fn regex(&self) -> String {
        match self {
            Self::Exact(exact) => exact.clone(),
            Self::Prefix(prefix) => format!("{prefix}.*"),
        }
    }

    fn covers(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.starts_with(prefix),
        }
    }
}

/// Metrics whose owner stands in another label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRule {
    /// Which metrics.
    pub metrics: Vec<MetricPattern>,
    /// The label that names the owner.
    pub label: String,
    /// Further labels that such series have.
    pub matchers: Vec<(String, String)>,
}

/// The labels that name the owner of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    default: String,
    rules: Vec<LabelRule>,
}

impl Labels {
    /// A default, and rules of which the first that covers a name counts.
    ///
    /// # Errors
    /// For a label that is no legacy label name, or that is the metric's name.
    pub fn new(default: &str, rules: Vec<LabelRule>) -> Result<Self, String> {
        let names = rules.iter().flat_map(|rule| {
            std::iter::once(rule.label.as_str()).chain(rule.matchers.iter().map(|(label, _)| label.as_str()))
        });
        for name in names.chain([default]) {
            if !words::is_plain_label(name) || name == "__name__" {
                return Err(format!("{name:?} is no label name"));
            }
        }
        if rules.iter().flat_map(|rule| &rule.matchers).any(|(_, value)| value.is_empty()) {
            return Err("a value under where must not be empty".to_owned());
        }
        Ok(Self { default: default.to_owned(), rules })
    }

    /// The default label.
    #[must_use]
    pub fn default_label(&self) -> &str {
        &self.default
    }

    /// The rules, in their order.
    #[must_use]
    pub fn rules(&self) -> &[LabelRule] {
        &self.rules
    }

    fn rule_index(&self, name: &str) -> Option<usize> {
        self.rules.iter().position(|rule| rule.metrics.iter().any(|pattern| pattern.covers(name)))
    }

    fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    fn rule_of(&self, name: &str) -> Option<&LabelRule> {
        self.rule_index(name).map(|index| &self.rules[index])
    }
}

/// A query that reads nothing beyond a reach. Only this module makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    text: String,
    selectors: usize,
    reach: Reach,
    /// Where the query's own literals leave some names of the reach in every selector: their places, in any order.
    picked: Option<Vec<u32>>,
}

impl Confined {
    /// The text to send.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text to send.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    /// How many selectors it has.
    #[must_use]
    pub fn selectors(&self) -> usize {
        self.selectors
    }

    /// Which series its selectors read together, by their owners: of a list, what the query's own literals leave. It
    /// follows from the text, whoever asks.
    #[must_use]
    pub fn reach(&self) -> Reach {
        guard::reached(&self.reach, self.picked.as_deref())
    }
}

/// What kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text is no PromQL.
    Syntax,
    /// Its parts do not fit together.
    Type,
    /// It is beyond a limit.
    Limit,
    /// It may not be asked.
    Forbidden,
    /// What we printed does not read back as what we meant. A fault of ours.
    ReadBack,
}

/// Why a query was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Fault>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    kind: ErrorKind,
    position: usize,
    character: usize,
    message: String,
}

impl Error {
    #[cold]
    pub(crate) fn new(kind: ErrorKind, text: &str, position: usize, message: impl Into<String>) -> Self {
        let position = position.min(text.len());
        let character = text.as_bytes()[..position].iter().filter(|byte| (**byte & 0xc0) != 0x80).count() + 1;
        Self(Box::new(Fault { kind, position, character, message: message.into() }))
    }

    #[cold]
    pub(crate) fn limit(name: &str, value: u64, text: &str, position: usize) -> Self {
        Self::new(ErrorKind::Limit, text, position, format!("the query goes beyond {name}, which is {value}"))
    }

    /// What kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The byte where it is, from 0.
    #[must_use]
    pub fn position(&self) -> usize {
        self.0.position
    }

    /// The kind in a word of a closed set.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.0.kind {
            ErrorKind::Syntax => "syntax",
            ErrorKind::Type => "type",
            ErrorKind::Limit => "limit",
            ErrorKind::Forbidden => "forbidden",
            ErrorKind::ReadBack => "read_back",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.0.kind {
            ErrorKind::Syntax | ErrorKind::Type => "invalid PromQL",
            ErrorKind::Limit | ErrorKind::Forbidden | ErrorKind::ReadBack => "PromQL refused",
        };
        write!(f, "{what} at character {}: {}", self.0.character, self.0.message)
    }
}

impl std::error::Error for Error {}

/// Parses only; gives the number of selectors.
///
/// # Errors
/// See [`Error`].
pub fn check(text: &str, limits: &Limits, features: Features) -> Result<usize, Error> {
    parse::parse(text, limits, features).map(|(tree, _)| tree.selectors)
}

/// Confines a query.
///
/// # Errors
/// See [`Error`].
pub fn confine(
    text: &str,
    reach: &Reach,
    labels: &Labels,
    limits: &Limits,
    features: Features,
) -> Result<Confined, Error> {
    let (tree, root) = parse::parse(text, limits, features)?;
    write(tree, root, text, (reach, labels), limits, features)
}

/// Confines one `match[]`, which must be a selector and nothing else.
///
/// # Errors
/// See [`Error`].
pub fn confine_selector(
    text: &str,
    reach: &Reach,
    labels: &Labels,
    limits: &Limits,
    features: Features,
) -> Result<Confined, Error> {
    let (tree, root) = parse::parse(text, limits, features)?;
    match tree.node(root) {
        tree::Node::Selector(selector) if selector.modifiers.is_none() => {}
        _ => {
            let message = "match[] must be a series selector and nothing else";
            return Err(Error::new(ErrorKind::Syntax, text, 0, message));
        }
    }
    write(tree, root, text, (reach, labels), limits, features)
}

/// The selectors that together find everything within a reach: one for the default label, and one for each rule that names
/// another. None when everything there is may be read.
#[must_use]
pub fn confined_selectors_for(reach: &Reach, labels: &Labels) -> Vec<Confined> {
    if *reach == Reach::Everything {
        return Vec::new();
    }
    let mut all = vec![selector_for(reach, labels, None)];
    if matches!(reach, Reach::Namespaces(names) if names.is_empty()) {
        return all;
    }
    let elsewhere = labels.rules.iter().enumerate().filter(|(_, rule)| rule.label != labels.default);
    all.extend(elsewhere.map(|(index, _)| selector_for(reach, labels, Some(index))));
    all
}

/// The selector of everything that a rule or the default label owns.
fn selector_for(reach: &Reach, labels: &Labels, rule: Option<usize>) -> Confined {
    let mut tree = tree::Tree::default();
    if let Some(index) = rule {
        // Of two rules that cover a metric the first counts.
        let (before, own) = (&labels.rules[..index], &labels.rules[index..=index]);
        for (op, rules) in [(tree::MatchOp::Regex, own), (tree::MatchOp::NotRegex, before)] {
            let names = rules.iter().flat_map(|rule| &rule.metrics).map(MetricPattern::regex).collect::<Vec<_>>();
            if !names.is_empty() {
                let value = std::borrow::Cow::Owned(names.join("|").into_bytes());
                tree.matchers.push(tree::Matcher { label: "__name__".into(), op, value, implied: false });
            }
        }
    }
    let matchers = tree::Run { start: 0, end: tree::count(&tree.matchers) };
    let mut selector = tree::Selector { matchers, ..tree::Selector::default() };
    selector.guard = guard::of_all(reach, rule);
    let root = tree.add(tree::Node::Selector(selector));
    // It is never too long; if it were, it would select nothing.
    let text = print::print(&tree, root, (reach, labels), 256, usize::MAX)
        .unwrap_or_else(|print::TooLong| format!("{{{0}=\"\",{0}!=\"\"}}", labels.default));
    Confined { text, selectors: 1, reach: reach.clone(), picked: None }
}

/// Several names become a plain alternation, which only Kubernetes names can be.
fn check_names(reach: &Reach, text: &str) -> Result<(), Error> {
    let Reach::Namespaces(names) = reach else { return Ok(()) };
    let good = match names.as_ref() {
        [one] => !one.is_empty(),
        several => several.iter().all(|name| regex::is_plain_name(name.as_bytes())),
    };
    if good {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Forbidden,
        text,
        0,
        "several namespaces must all be Kubernetes names, and one must not be empty",
    ))
}

/// Guards, prints, reads back, compares.
fn write(
    mut tree: tree::Tree<'_>,
    root: tree::Id,
    text: &str,
    (reach, labels): (&Reach, &Labels),
    limits: &Limits,
    features: Features,
) -> Result<Confined, Error> {
    check_names(reach, text)?;
    guard::apply(&mut tree, reach, labels);
    let names = if let Reach::Namespaces(names) = reach { names.iter().map(|name| name.len() + 1).sum() } else { 0 };
    let capacity = text.len() + (text.len() >> 3) + tree.selectors.saturating_mul(labels.default.len() + 8 + names);
    let printed = print::print(&tree, root, (reach, labels), capacity, limits.confined)
        .map_err(|print::TooLong| Error::limit("limits.confined_query", limits.confined as u64, text, 0))?;
    read_back(&tree, root, &printed, text, (reach, labels), limits, features)?;
    let picked = (!tree.whole).then(|| std::mem::take(&mut tree.picked));
    Ok(Confined { text: printed, selectors: tree.selectors, reach: reach.clone(), picked })
}

/// Whether the printed text says what was meant and stays within the reach, to whoever reads it next.
fn read_back(
    tree: &tree::Tree<'_>,
    root: tree::Id,
    printed: &str,
    text: &str,
    (reach, labels): (&Reach, &Labels),
    limits: &Limits,
    features: Features,
) -> Result<(), Error> {
    let own = Limits {
        // They were counted.
        repetitions: u64::MAX,
        text: limits.confined,
        tokens: limits.tokens.saturating_add(tree.selectors.saturating_mul(8 + labels.rules.len() * 4)),
        ..*limits
    };
    let failed = |message: &str| Error::new(ErrorKind::ReadBack, text, 0, message);
    let mut again = tree::Tree::with_capacity(tree.nodes.len(), tree.matchers.len() + 2 * tree.selectors);
    let again_root = parse::parse_into(&mut again, printed, &own, features)
        .map_err(|error| failed(&format!("the confined text: {error}")))?;
    if again_root != root || !guard::same(tree, &again, labels) {
        return Err(failed("the confined text does not read back as it was meant"));
    }
    if !guard::holds(&again, reach, labels) {
        return Err(failed("the confined text has a selector without its matcher"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
