//! What a template may leave open, and how each value is written where it stands.
//!
//! A value is never pasted: it enters a query as the literal of a label matcher, a text as text, a link as one part of its
//! path. Which of these it is was decided when the template was compiled.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::workload::{State, Workload, quoted};

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($variant:ident $word:literal)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $name { $($variant),* }

        impl $name {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),*];

            pub(super) const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            pub(super) fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().find(|known| known.word() == word).copied()
            }
        }
    };
}

words! {
    /// `<<word>>` in a template.
    Placeholder {
        Name "name"
        Namespace "namespace"
        Kind "kind"
        Title "title"
        Engine "engine"
        Runtime "runtime"
        Model "model"
        State "state"
        Reason "reason"
        Since "since"
        Owner "owner"
        Gpus "gpus"
        Queue "queue"
        Progress "progress"
        Pods "pods"
        RayCluster "ray_cluster"
    }
}

words! {
    /// What `when` may ask.
    Fact {
        Gpus "gpus"
        Queue "queue"
        Owner "owner"
        Runtime "runtime"
        Reason "reason"
        Since "since"
        Progress "progress"
        Gone "gone"
    }
}

/// Where a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Words for people.
    Text,
    /// Words for people in a Markdown panel.
    Markdown,
    /// One part of a URL.
    Url,
    /// The string of a matcher with `=` or `!=`.
    Literal,
    /// The string of a matcher with `=~` or `!~`.
    Regex,
}

/// A question of `when`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) fact: Fact,
    /// Asked with `!`.
    pub(super) not: bool,
}

impl Condition {
    pub(super) fn holds(self, workload: &Workload) -> bool {
        // Of what is gone nothing is known, so whatever such a workload can have is shown; not what tells how it fares.
        let gone = workload.state == State::Gone;
        let has = match self.fact {
            Fact::Gpus => gone || workload.gpus > 0,
            Fact::Queue => workload.queue.is_some(),
            Fact::Owner => workload.owner.is_some(),
            Fact::Runtime => workload.runtime.is_some(),
            Fact::Reason => workload.reason.is_some(),
            Fact::Since => workload.since.is_some(),
            Fact::Progress => workload.progress.is_some(),
            Fact::Gone => gone,
        };
        has != self.not
    }
}

impl Placeholder {
    /// Whether the value is a regular expression.
    pub(super) const fn is_pattern(self) -> bool {
        matches!(self, Self::Pods | Self::RayCluster)
    }

    /// The value for a workload; what is not known is empty in queries, and a dash for people.
    fn value(self, workload: &Workload) -> Cow<'_, str> {
        let known =
            |text: &'_ Option<Box<str>>| -> Cow<'static, str> { text.as_deref().unwrap_or("–").to_owned().into() };
        match self {
            Self::Name => workload.name.as_str().into(),
            Self::Namespace => workload.namespace.as_str().into(),
            Self::Kind => workload.kind.word().into(),
            Self::Title => workload.title().into(),
            Self::Engine => workload.engine.word().into(),
            Self::Runtime => workload.runtime.as_ref().map_or("–", |runtime| runtime.name.as_str()).into(),
            Self::Model => workload.model.as_deref().unwrap_or_else(|| workload.name.as_str()).into(),
            Self::State => workload.state.word().into(),
            Self::Reason => known(&workload.reason),
            Self::Since => workload.since_words().map_or("–".into(), Into::into),
            Self::Owner => known(&workload.owner),
            Self::Gpus => workload.gpus.to_string().into(),
            Self::Queue => known(&workload.queue),
            Self::Progress => workload.progress.map_or("–".into(), |progress| {
                let left = progress.left.map(|left| format!(", about {} min left", left.div_ceil(60)));
                format!("{} %{}", progress.percent, left.unwrap_or_default()).into()
            }),
            Self::Pods => workload.pods().into(),
            Self::RayCluster => workload.ray_clusters().into(),
        }
    }

    /// Writes the value into a JSON string that is open.
    pub(super) fn write(self, workload: &Workload, place: Place, out: &mut String) {
        let value = self.value(workload);
        match place {
            Place::Text => json(&value, out),
            Place::Markdown => markdown(&value, out),
            Place::Url => url(&value, out),
            Place::Regex if !self.is_pattern() => promql(&quoted(&value), out),
            Place::Regex | Place::Literal => promql(&value, out),
        }
    }
}

/// Text within a JSON string.
pub(super) fn json(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

/// Text within a string of PromQL within a JSON string. A dollar sign is escaped too: before it sends a query, the UI puts
/// its variables where it finds their names after one.
fn promql(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '"' | '\'' | '$' | '`' => {
                let _ = write!(out, "\\\\x{:02x}", u32::from(c));
            }
            '\\' => out.push_str("\\\\\\\\"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

/// Text that Markdown shows as it is: neither a link, nor emphasis, nor HTML, nor a variable of the UI.
fn markdown(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '$' => out.push_str("&#36;"),
            '"' => out.push_str("&quot;"),
            // The sign for a ratio: no scheme ends with it, however entities are read.
            ':' => out.push('\u{2236}'),
            // A backslash of Markdown is two in JSON.
            '\\' => out.push_str("\\\\\\\\"),
            '@' | '.' => out.push(c),
            c if c.is_ascii_punctuation() => {
                out.push_str("\\\\");
                out.push(c);
            }
            c if c < ' ' => out.push(' '),
            c => out.push(c),
        }
    }
}

/// One part of a path or query of a URL.
fn url(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}
