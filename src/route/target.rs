//! Where somebody goes after logging in: a place on our own origin, or home.
//!
//! A target is kept only if every reading of it stays here: it begins with one `/`, its path is of the plain grammar of
//! the table (no escape, no `\`, no empty or dot segment), and it is no page of ours that would begin a login again.

use super::path;

/// The longest target that is kept.
const LONGEST: usize = 2048;

/// A path with its query, below `perses.api_prefix`, safe in a `Location` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(String);

impl Target {
    /// Reads a target as a client gave it, decoded once.
    #[must_use]
    pub fn parse(text: &str, prefix: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        // What stands behind `#` is the browser's own business and never reaches a server.
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        // The table lets one slash at the end go; two at the beginning name a host.
        if path.contains("//") {
            return None;
        }
        let inner = path::check(path).ok()?;
        path::no_escapes(inner).ok()?;
        let below = path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
        if query.is_some_and(|query| {
            !query.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'#' | b'"' | b'<' | b'>'))
        }) {
            return None;
        }
        let mut segments = below.split('/').filter(|segment| !segment.is_empty());
        // Of our own pages only those that show something.
        if segments.next() == Some("-")
            && !matches!((segments.next(), segments.next()), (Some("whoami" | "gallery"), None))
        {
            return None;
        }
        Some(Self(text.to_owned()))
    }

    /// Home.
    #[must_use]
    pub fn home(prefix: &str) -> Self {
        Self(format!("{prefix}/"))
    }

    /// The path and query, beginning with `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_places_of_ours() {
        for good in [
            "/",
            "/projects/team-a/dashboards/d",
            "/projects?x=1&y=%5C%2F",
            "/a?start=1h&var={x}|^`",
            "/explore?q=//x",
            "/-/whoami",
        ] {
            assert_eq!(Target::parse(good, "").map(|target| target.0).as_deref(), Some(good));
        }
        for bad in [
            "",
            "x",
            "//",
            "//?x",
            "/-/login",
            "/-/logout",
            "/-/callback?code=x",
            "/-",
            "/-/whoami/x",
            "/a#b",
            "/a?b#c",
            &format!("/{}", "a".repeat(2048)),
        ] {
            assert_eq!(Target::parse(bad, ""), None, "{bad}");
        }
        assert!(
            Target::parse("/perses/projects", "/perses").is_some() && Target::parse("/perses", "/perses").is_some()
        );
        for outside in ["/", "/persesx", "/projects", "/perses/-/login"] {
            assert_eq!(Target::parse(outside, "/perses"), None, "{outside}");
        }
        assert_eq!(Target::home("/perses").as_str(), "/perses/");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 20_000, failure_persistence: None, ..Default::default() })]

        /// Read by a browser's rules (the URL standard), a target that was kept stays on our origin and is what it was.
        #[test]
        fn properties_of_targets(
            text in "(/|//|\\\\|/\\\\|\t|\n|\r|%2f|%5c|%09|\\.|\\.\\.|@|:|;|\\?|#|https:|javascript:|evil\\.example|a|-|whoami|[ -~]|\\PC){0,8}",
            slash in proptest::bool::ANY,
        ) {
            let text = if slash { format!("/{text}") } else { text };
            let Some(target) = Target::parse(&text, "") else { return Ok(()) };
            let base = url::Url::parse("https://perses.example/-/callback?code=x").expect("a base");
            let there = base.join(target.as_str()).expect("a place");
            proptest::prop_assert_eq!(there.origin(), base.origin());
            proptest::prop_assert_eq!(there.path(), text.split('?').next().expect("a path"));
            proptest::prop_assert!(there.username().is_empty() && there.fragment().is_none());
        }
    }
}
