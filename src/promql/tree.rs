//! The tree of a query. Nodes live in one vector and name each other by index, so that dropping a tree never recurses.

use std::borrow::Cow;

use super::functions::Function;

/// An index into [`Tree::nodes`].
pub(super) type Id = usize;

#[derive(Debug, Default)]
pub(super) struct Tree<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) selectors: usize,
}

#[derive(Debug)]
pub(super) enum Node<'a> {
    /// A number or a duration, as spelt.
    Number(&'a str),
    Text(Vec<u8>),
    Selector(Selector<'a>),
    /// A selector with a range.
    Range {
        selector: Id,
        range: Span<'a>,
        modifiers: Modifiers<'a>,
    },
    Subquery {
        inner: Id,
        range: Span<'a>,
        step: Option<Span<'a>>,
        modifiers: Modifiers<'a>,
    },
    Call {
        function: &'static Function,
        arguments: Vec<Id>,
    },
    Aggregate {
        word: &'static str,
        grouping: Option<Grouping<'a>>,
        parameter: Option<Id>,
        inner: Id,
    },
    Unary {
        minus: bool,
        inner: Id,
    },
    Binary(Box<Binary<'a>>),
    Paren(Id),
}

#[derive(Debug)]
pub(super) struct Binary<'a> {
    pub(super) op: Op,
    pub(super) bool: bool,
    pub(super) matching: Option<Matching<'a>>,
    pub(super) fill: Fill<'a>,
    pub(super) left: Id,
    pub(super) right: Id,
}

#[derive(Debug)]
pub(super) struct Matching<'a> {
    pub(super) on: bool,
    pub(super) labels: Vec<Cow<'a, str>>,
    pub(super) group: Option<Group<'a>>,
}

#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) left: bool,
    pub(super) include: Vec<Cow<'a, str>>,
}

/// Values for missing series, as spelt with their signs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fill<'a> {
    pub(super) both: Option<Cow<'a, str>>,
    pub(super) left: Option<Cow<'a, str>>,
    pub(super) right: Option<Cow<'a, str>>,
}

#[derive(Debug)]
pub(super) struct Grouping<'a> {
    pub(super) without: bool,
    pub(super) labels: Vec<Cow<'a, str>>,
}

#[derive(Debug, Default)]
pub(super) struct Selector<'a> {
    /// Byte position in the text, for errors.
    pub(super) position: usize,
    /// A legacy name that stood before the braces.
    pub(super) name: Option<&'a str>,
    pub(super) matchers: Vec<Matcher<'a>>,
    pub(super) modifiers: Modifiers<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matcher<'a> {
    pub(super) label: Cow<'a, str>,
    pub(super) op: MatchOp,
    pub(super) value: Cow<'a, [u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

impl MatchOp {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A length of time, as it will be printed; its milliseconds when it is no expression of the request's window.
#[derive(Clone, Debug)]
pub(super) struct Span<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) seconds: Option<f64>,
}

#[derive(Debug, Default)]
pub(super) struct Modifiers<'a> {
    pub(super) offset: Option<Span<'a>>,
    pub(super) at: Option<Cow<'a, str>>,
    /// `anchored` or `smoothed`.
    pub(super) edge: Option<&'static str>,
}

impl Modifiers<'_> {
    pub(super) fn same(&self, other: &Self) -> bool {
        let text = |span: &Option<Span<'_>>| span.as_ref().map(|span| span.text.to_string());
        text(&self.offset) == text(&other.offset) && self.at == other.at && self.edge == other.edge
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Or,
    And,
    Unless,
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
    TrimUpper,
    TrimLower,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Atan2,
    Pow,
}

impl Op {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Unless => "unless",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Atan2 => "atan2",
            Self::Pow => "^",
        }
    }

    /// How tightly it binds; from upstream's table of precedences.
    pub(super) const fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Eq | Self::Ne | Self::Gt | Self::Ge | Self::Lt | Self::Le | Self::TrimUpper | Self::TrimLower => 3,
            Self::Add | Self::Sub => 4,
            Self::Mul | Self::Div | Self::Mod | Self::Atan2 => 5,
            Self::Pow => 6,
        }
    }

    pub(super) const fn is_set(self) -> bool {
        matches!(self, Self::Or | Self::And | Self::Unless)
    }

    pub(super) const fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Gt | Self::Ge | Self::Lt | Self::Le)
    }
}

/// The precedence of a sign: that of `*`, so `-a ^ b` is `-(a ^ b)`.
pub(super) const UNARY: u8 = 6;

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Scalar,
    Text,
    Vector,
    Matrix,
}

impl Type {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Text => "string",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
        }
    }
}

impl Tree<'_> {
    pub(super) fn kind(&self, mut id: Id) -> Type {
        loop {
            return match &self.nodes[id] {
                Node::Number(_) => Type::Scalar,
                Node::Text(_) => Type::Text,
                Node::Selector(_) | Node::Aggregate { .. } => Type::Vector,
                Node::Range { .. } | Node::Subquery { .. } => Type::Matrix,
                Node::Call { function, .. } => function.returns,
                Node::Binary(binary) => {
                    if self.kind(binary.left) == Type::Scalar && self.kind(binary.right) == Type::Scalar {
                        Type::Scalar
                    } else {
                        Type::Vector
                    }
                }
                Node::Unary { inner, .. } | Node::Paren(inner) => {
                    id = *inner;
                    continue;
                }
            };
        }
    }
}
