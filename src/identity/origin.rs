//! Which requests of a browser are ours to serve with its cookie?
//!
//! A browser sends the cookie with whatever a page makes it ask, and other applications of the cluster are "same-site". So a
//! cookie counts only where the browser says that our own pages ask, or that a person goes somewhere to look.

use http::{HeaderMap, Method, header};

use crate::refusal::{Reason, Refusal};

/// Checks a request that a cookie vouches for. `ours` is the origin of `login.external_url`.
///
/// # Errors
/// 403 when another origin asks, or when a change is asked for and nothing says who asks.
pub(super) fn check(method: &Method, headers: &HeaderMap, ours: &str) -> Result<(), Refusal> {
    let refused = || {
        Err(Refusal::new(
            Reason::CrossOrigin,
            "a session is taken from our own pages only; open this address yourself, or send a token instead of the cookie",
        ))
    };
    let one = |name: &str| {
        let mut lines = headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Ok(None),
            (Some(line), None) => Ok(Some(line.as_bytes())),
            // Whatever says two things says nothing.
            (Some(_), Some(_)) => Err(()),
        }
    };
    let (Ok(site), Ok(mode), Ok(origin)) = (one("sec-fetch-site"), one("sec-fetch-mode"), one(header::ORIGIN.as_str()))
    else {
        return refused();
    };
    let looks = *method == Method::GET || *method == Method::HEAD;
    let from_us = origin.is_some_and(|origin| origin.eq_ignore_ascii_case(ours.as_bytes()));
    // A navigation to look has no origin in any browser, but one that says it comes from elsewhere is none of ours.
    if origin.is_some() && !from_us {
        return refused();
    }
    let good = match site {
        Some(b"same-origin") => true,
        // Typed, or a bookmark: nobody can be made to do that but to look.
        Some(b"none") => looks,
        Some(_) => looks && mode == Some(b"navigate"),
        // Browsers before 2023 send no such thing, but always an origin with a change.
        None => looks || from_us,
    };
    if good { Ok(()) } else { refused() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "https://perses.example";

    fn asked(method: &str, lines: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("a value"));
        }
        check(&method.parse().expect("a method"), &headers, OURS).is_ok()
    }

    #[test]
    fn only_our_own_pages_change_anything_with_a_cookie() {
        let (site, origin, mode) = ("sec-fetch-site", "origin", "sec-fetch-mode");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert!(asked(method, &[(site, "same-origin"), (origin, OURS)]) && asked(method, &[(origin, OURS)]));
            assert!(asked(method, &[(site, "same-origin")]));
            for bad in [
                &[][..],
                &[(site, "none")],
                &[(site, "same-site"), (origin, OURS)],
                &[(site, "cross-site"), (mode, "navigate")],
                &[(site, "same-origin"), (origin, "https://evil.example")],
                &[(origin, "https://evil.example")],
                &[(origin, "null")],
                &[(origin, "http://perses.example")],
                &[(origin, "https://perses.example:8443")],
                &[(origin, "https://perses.example.evil.example")],
                &[(site, "same-origin"), (site, "same-origin")],
                &[(origin, OURS), (origin, OURS)],
            ] {
                assert!(!asked(method, bad), "{method} {bad:?}");
            }
        }
    }

    #[test]
    fn people_may_come_from_anywhere_to_look() {
        let (site, mode) = ("sec-fetch-site", "sec-fetch-mode");
        assert!(asked("GET", &[]) && asked("HEAD", &[(site, "none")]) && asked("GET", &[(site, "same-origin")]));
        assert!(asked("GET", &[(site, "cross-site"), (mode, "navigate")]));
        assert!(asked("GET", &[(site, "same-site"), (mode, "navigate")]));
        // Images, scripts and fetches of other pages are none.
        assert!(!asked("GET", &[(site, "cross-site"), (mode, "no-cors")]));
        assert!(!asked("GET", &[(site, "same-site"), (mode, "cors")]));
        assert!(!asked("GET", &[(site, "cross-site")]));
        assert!(!asked("GET", &[("origin", "https://evil.example")]));
    }
}
