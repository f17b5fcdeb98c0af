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
}
