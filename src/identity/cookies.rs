//! Cookies as they go over the wire (RFC 6265bis): found in a head, split when they are large, set and taken away.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, header};

/// The longest value of one cookie. Browsers take 4096 bytes with name and attributes.
const LONGEST: usize = 3800;
/// The most cookies that one value is split into.
const MOST: usize = 5;

/// Names and place of our cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Of a session.
    pub session: String,
    /// What those of logins that have begun start with.
    pub login: String,
    path: String,
}

impl Names {
    /// Below a prefix, which may be empty. A browser takes a cookie called `__Host-` for the whole host only; with a prefix
    /// the host has other applications, which must not be sent ours.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let (kind, path) = if prefix.is_empty() { ("__Host-", "/") } else { ("__Secure-", prefix) };
        Self { session: format!("{kind}perses-session"), login: format!("{kind}perses-login-"), path: path.to_owned() }
    }

    /// The line that sets a cookie, for a time in seconds or until the browser is closed.
    #[must_use]
    pub fn set(&self, name: &str, value: &str, seconds: Option<u64>) -> Option<HeaderValue> {
        let age = seconds.map_or_else(String::new, |seconds| format!("; Max-Age={seconds}"));
        let line = format!("{name}={value}; Path={}; Secure; HttpOnly; SameSite=Lax{age}", self.path);
        let mut value = HeaderValue::try_from(line).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The line that takes a cookie away: of the same name and place, empty, and over.
    #[must_use]
    pub fn clear(&self, name: &str) -> Option<HeaderValue> {
        self.set(name, "", Some(0))
    }

    /// The lines that set a session: as many cookies as it needs, and the rest of those that the browser has are taken away.
    /// `None` when it is too large.
    #[must_use]
    pub fn set_session(&self, sealed: &str, headers: &HeaderMap) -> Option<Vec<HeaderValue>> {
        let count = sealed.len().div_ceil(LONGEST).max(1);
        if count > MOST {
            return None;
        }
        let mut lines = Vec::with_capacity(count);
        for (index, part) in sealed.as_bytes().chunks(LONGEST).enumerate() {
            let part = std::str::from_utf8(part).ok()?;
            let value = if index == 0 { format!("{count}.{part}") } else { part.to_owned() };
            lines.push(self.set(&self.part(index), &value, None)?);
        }
        lines.extend(
            (count..MOST)
                .map(|index| self.part(index))
                .filter(|name| has(headers, name))
                .filter_map(|name| self.clear(&name)),
        );
        Some(lines)
    }

    /// The lines that take a session away, as far as the browser has one.
    #[must_use]
    pub fn clear_session(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        (0..MOST)
            .map(|index| self.part(index))
            .filter(|name| has(headers, name))
            .filter_map(|name| self.clear(&name))
            .collect()
    }

    /// Whether the browser has a session's cookie, whatever is in it.
    #[must_use]
    pub fn has_session(&self, headers: &HeaderMap) -> bool {
        has(headers, &self.session)
    }

    /// The sealed session of a head, put together; what is missing or too much makes it none.
    #[must_use]
    pub fn session<'h>(&self, headers: &'h HeaderMap) -> Option<Cow<'h, str>> {
        let first = all(headers).find_map(|(name, value)| (name == self.session).then_some(value))?;
        let (count, first) = first.split_once('.')?;
        let count: usize = count.parse().ok().filter(|count| (1..=MOST).contains(count))?;
        if count == 1 {
            return Some(Cow::Borrowed(first));
        }
        let mut whole = first.to_owned();
        for index in 1..count {
            let wanted = self.part(index);
            whole.push_str(all(headers).find_map(|(name, value)| (name == wanted).then_some(value))?);
        }
        Some(Cow::Owned(whole))
    }

    fn part(&self, index: usize) -> String {
        if index == 0 { self.session.clone() } else { format!("{}-{index}", self.session) }
    }
}

/// All cookies of a head, in its order. HTTP/2 may send each in a line of its own.
///
/// Ours are ASCII. Others of the domain stand in the same line, and any application of it may write other letters into its own:
/// they are passed over, and nothing else with them.
pub(super) fn all(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b';'))
        .filter_map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.is_ascii()))
        .filter_map(|pair| pair.trim_matches([' ', '\t']).split_once('='))
}

/// Whether a head has a cookie that is not empty.
fn has(headers: &HeaderMap, wanted: &str) -> bool {
    all(headers).any(|(name, _)| name == wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(lines: &[String]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, HeaderValue::try_from(line.as_str()).expect("a line"));
        }
        headers
    }

    /// What a browser would keep of some lines: name and value.
    fn kept(lines: &[HeaderValue]) -> Vec<String> {
        let text = |line: &HeaderValue| line.to_str().expect("text").split(';').next().expect("a pair").to_owned();
        lines.iter().filter(|line| !line.to_str().expect("text").ends_with("Max-Age=0")).map(text).collect()
    }

    #[test]
    fn attributes_are_exact() {
        let names = Names::new("");
        let line = names.set("a", "b", Some(600)).expect("a line");
        assert_eq!(line.to_str().ok(), Some("a=b; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600"));
        assert!(line.is_sensitive());
        assert_eq!(
            names.clear(&names.session).expect("a line").to_str().ok(),
            Some("__Host-perses-session=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
        );
        let below = Names::new("/perses");
        assert_eq!(
            below.set(&below.session, "x", None).expect("a line").to_str().ok(),
            Some("__Secure-perses-session=x; Path=/perses; Secure; HttpOnly; SameSite=Lax"),
        );
    }

    #[test]
    fn large_sessions_are_split_and_put_together_in_any_order() {
        let names = Names::new("");
        for (length, count) in [(1, 1), (3800, 1), (3801, 2), (7600, 2), (7601, 3), (19_000, 5)] {
            let sealed: String = ('a'..='z').cycle().take(length).collect();
            let lines = names.set_session(&sealed, &HeaderMap::new()).expect("not too large");
            assert_eq!(lines.len(), count, "{length}");
            assert!(lines.iter().all(|line| line.len() <= 4096), "{length}");
            let mut pairs = kept(&lines);
            assert_eq!(names.session(&head(&[pairs.join("; ")])).as_deref(), Some(sealed.as_str()), "{length}");
            pairs.reverse();
            assert_eq!(names.session(&head(&pairs)).as_deref(), Some(sealed.as_str()), "{length}, each in its line");
            // One part less is no session.
            for gone in 0..pairs.len() {
                let mut fewer = pairs.clone();
                fewer.remove(gone);
                assert_eq!(names.session(&head(&fewer)), None, "{length} without {gone}");
            }
        }
        assert_eq!(names.set_session(&"a".repeat(19_001), &HeaderMap::new()), None, "too large");
    }

    #[test]
    fn what_a_browser_has_too_much_harms_nothing_and_goes() {
        let names = Names::new("");
        let large = kept(&names.set_session(&"a".repeat(8000), &HeaderMap::new()).expect("lines"));
        let headers = head(&[large.join("; ")]);
        let lines = names.set_session("small", &headers).expect("lines");
        assert_eq!(lines.len(), 3, "one is set, two are taken away");
        assert_eq!(
            names.session(&head(&[format!("{}; {}; {}", kept(&lines)[0], large[1], large[2])])).as_deref(),
            Some("small")
        );
        assert_eq!(names.clear_session(&headers).len(), 3);
        assert!(names.clear_session(&HeaderMap::new()).is_empty());
        for none in [
            "",
            "__Host-perses-session",
            "__Host-perses-session=",
            "__Host-perses-session=x",
            "__Host-perses-session=0.x",
            "__Host-perses-session=6.x",
            "x__Host-perses-session=1.x",
            "__host-perses-session=1.x",
        ] {
            assert_eq!(names.session(&head(&[none.to_owned()])), None, "{none}");
        }
    }

    #[test]
    fn other_letters_in_the_cookies_of_others_lock_nobody_out() {
        let names = Names::new("");
        for foreign in ["x=\u{fc}".as_bytes(), b"x=\xff", "\u{fc}=x".as_bytes(), b"x=\xc3", b"x=\t\x80"] {
            for line in [[foreign, b"; __Host-perses-session=1.ours"], [b"__Host-perses-session=1.ours;", foreign]] {
                let mut headers = HeaderMap::new();
                headers.append(header::COOKIE, HeaderValue::from_bytes(&line.concat()).expect("a line"));
                assert_eq!(names.session(&headers).as_deref(), Some("ours"), "{foreign:?}");
                assert_eq!(names.clear_session(&headers).len(), 1, "{foreign:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_is_read_or_none(line in "[ -~]{0,80}", value in "[A-Za-z0-9_-]{1,40}") {
            let names = Names::new("");
            let _ = names.session(&head(std::slice::from_ref(&line)));
            let headers = head(&[line.replace("__", ""), format!("{}=1.{value}", names.session)]);
            let found = names.session(&headers);
            prop_assert_eq!(found.as_deref(), Some(value.as_str()));
        }
    }
}
