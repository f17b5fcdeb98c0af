//! The tree of a query. Its nodes, and what hangs at them, live in a few vectors and name each other by index: a tree costs
//! few allocations, dropping it never recurses, and two trees are the same when their vectors are.

use std::borrow::Cow;

use super::functions::Function;

/// An index into [`Tree::nodes`]. A node stands behind all that is below it.
pub(super) type Id = usize;

/// A run of one of the vectors of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Run {
    pub(super) fn of<T>(self, all: &[T]) -> &[T] {
        &all[self.start as usize..self.end as usize]
    }
}

#[derive(Debug, Default)]
pub(super) struct Tree<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) matchers: Vec<Matcher<'a>>,
    pub(super) labels: Vec<Cow<'a, str>>,
    pub(super) arguments: Vec<Id>,
    /// Names that guards pick out of a set, by their places in it.
    pub(super) picked: Vec<u32>,
    /// Whether a selector is not cut to some of them.
    pub(super) whole: bool,
    pub(super) selectors: usize,
    pub(super) subqueries: usize,
}

#[derive(Debug)]
pub(super) enum Node<'a> {
    /// A number or a duration, as spelt.
    Number(&'a str),
    Text(Cow<'a, [u8]>),
    Selector(Selector<'a>),
    /// A selector with a range.
    Range {
        selector: Id,
        range: Span<'a>,
        modifiers: Option<Box<Modifiers<'a>>>,
    },
    Subquery(Box<Subquery<'a>>),
    Call {
        function: &'static Function,
        arguments: Arguments,
    },
    Aggregate {
        word: &'static str,
        grouping: Option<Grouping>,
        parameter: Option<Id>,
        inner: Id,
    },
    Unary {
        minus: bool,
        inner: Id,
        kind: Type,
    },
    Binary(Binary<'a>),
    Paren {
        inner: Id,
        kind: Type,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arguments {
    /// What most functions take.
    One(Id),
    /// Of [`Tree::arguments`].
    Many(Run),
}

#[derive(Debug, PartialEq)]
pub(super) struct Subquery<'a> {
    pub(super) inner: Id,
    pub(super) range: Span<'a>,
    pub(super) step: Option<Span<'a>>,
    pub(super) modifiers: Option<Box<Modifiers<'a>>>,
}

#[derive(Debug)]
pub(super) struct Binary<'a> {
    pub(super) op: Op,
    pub(super) bool: bool,
    pub(super) matching: Option<Matching>,
    pub(super) fill: Option<Box<Fill<'a>>>,
    pub(super) left: Id,
    pub(super) right: Id,
    pub(super) kind: Type,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Matching {
    pub(super) on: bool,
    /// Of [`Tree::labels`].
    pub(super) labels: Run,
    pub(super) group: Option<Group>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) left: bool,
    /// Of [`Tree::labels`].
    pub(super) include: Run,
}

/// Values for missing series, as spelt with their signs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fill<'a> {
    pub(super) both: Option<Cow<'a, str>>,
    pub(super) left: Option<Cow<'a, str>>,
    pub(super) right: Option<Cow<'a, str>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Grouping {
    pub(super) without: bool,
    /// Of [`Tree::labels`].
    pub(super) labels: Run,
}

#[derive(Debug, Default)]
pub(super) struct Selector<'a> {
    /// Byte position in the text, for errors.
    pub(super) position: usize,
    /// A legacy name that stood before the braces.
    pub(super) name: Option<&'a str>,
    /// Of [`Tree::matchers`].
    pub(super) matchers: Run,
    pub(super) guard: Guard,
    pub(super) modifiers: Option<Box<Modifiers<'a>>>,
}

/// What confines a selector, beside its own matchers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Guard {
    pub(super) names: Names,
    /// The rule that says which label names the owner.
    pub(super) rule: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Names {
    /// No guard.
    #[default]
    Everything,
    /// Any but the empty one.
    Any,
    Nothing,
    /// The whole set.
    All,
    /// These of the set, of [`Tree::picked`].
    Some(Run),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matcher<'a> {
    pub(super) label: Cow<'a, str>,
    pub(super) op: MatchOp,
    pub(super) value: Cow<'a, [u8]>,
    /// The guard says it already.
    pub(super) implied: bool,
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

/// A length of time, as it will be printed; its seconds when it is no expression of the request's window.
#[derive(Clone, Debug)]
pub(super) struct Span<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) seconds: Option<f64>,
    /// Byte position in the text, for errors.
    pub(super) position: usize,
}

impl PartialEq for Span<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Modifiers<'a> {
    pub(super) offset: Option<Span<'a>>,
    pub(super) at: Option<Cow<'a, str>>,
    /// `anchored` or `smoothed`.
    pub(super) edge: Option<&'static str>,
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

impl<'a> Tree<'a> {
    pub(super) fn with_capacity(nodes: usize, matchers: usize) -> Self {
        Self { nodes: Vec::with_capacity(nodes), matchers: Vec::with_capacity(matchers), ..Self::default() }
    }

    pub(super) fn arguments<'t>(&'t self, arguments: &'t Arguments) -> &'t [Id] {
        match arguments {
            Arguments::One(id) => std::slice::from_ref(id),
            Arguments::Many(run) => run.of(&self.arguments),
        }
    }

    pub(super) fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id]
    }

    /// What a node evaluates to. Nodes that take it from below remember it.
    pub(super) fn kind(&self, id: Id) -> Type {
        match self.node(id) {
            Node::Number(_) => Type::Scalar,
            Node::Text(_) => Type::Text,
            Node::Selector(_) | Node::Aggregate { .. } => Type::Vector,
            Node::Range { .. } | Node::Subquery(_) => Type::Matrix,
            Node::Call { function, .. } => function.returns,
            Node::Binary(binary) => binary.kind,
            Node::Unary { kind, .. } | Node::Paren { kind, .. } => *kind,
        }
    }

    /// Calls for each node directly below another.
    pub(super) fn below(&self, node: &Node<'_>, mut each: impl FnMut(Id)) {
        match node {
            Node::Number(_) | Node::Text(_) | Node::Selector(_) => {}
            Node::Range { selector: inner, .. } | Node::Unary { inner, .. } | Node::Paren { inner, .. } => each(*inner),
            Node::Subquery(subquery) => each(subquery.inner),
            Node::Call { arguments, .. } => self.arguments(arguments).iter().for_each(|id| each(*id)),
            Node::Aggregate { parameter, inner, .. } => {
                parameter.iter().for_each(|id| each(*id));
                each(*inner);
            }
            Node::Binary(binary) => {
                each(binary.left);
                each(binary.right);
            }
        }
    }

    /// Adds a node, all below which is there already.
    pub(super) fn add(&mut self, node: Node<'a>) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

/// How many there are. A text is bounded far below the reach of this type.
pub(super) fn count<T>(all: &[T]) -> u32 {
    u32::try_from(all.len()).unwrap_or(u32::MAX)
}
