//! A session: what a browser keeps for us between two requests. Nothing else is needed, so any replica serves any request.
//!
//! It holds a token, which is reviewed like any other, and when all this ends. Who somebody is stands not in it: the cluster
//! says so, each time anew within the bounds of `access.token_ttl`.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::names::Secret;

/// How much the clocks of two replicas may differ.
const SKEW: u64 = 300;
/// How often a session is written anew, so that its last use is known.
const ANEW: u64 = 60;

/// Names a session, also after it was written anew.
pub(super) type SessionId = [u8; 16];

/// Which server made the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// OpenShift's own OAuth server.
    OpenShift,
    /// An external OpenID provider; the token is its ID token.
    Oidc,
}

/// What the cookie holds. Times are seconds since 1970.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// Who made the token.
    pub via: Via,
    /// When somebody logged in.
    pub began: u64,
    /// When the cookie was written.
    pub written: u64,
    /// When it ends, whatever happens.
    pub ends: u64,
    /// The token.
    pub token: Secret,
    /// What the next token is had for, where the provider gives such.
    pub refresh: Option<Secret>,
    /// The subject of an ID token, which the next one must have too.
    pub subject: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:?} from {} to {})", self.via, self.began, self.ends)
    }
}

/// Seconds since 1970.
#[must_use]
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Session {
    /// Whether it is over: past its end, idle for too long, or from a future that clocks do not explain.
    #[must_use]
    pub fn is_over(&self, now: SystemTime, idle: Duration) -> bool {
        let now = seconds(now);
        let idled = !idle.is_zero() && now.saturating_sub(self.written) >= idle.as_secs();
        now >= self.ends || idled || self.written > now.saturating_add(SKEW)
    }

    /// Whether it should be written anew, now that somebody uses it.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        seconds(now).saturating_sub(self.written) >= ANEW
    }

    /// The bytes to be sealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let refresh = self.refresh.as_ref().map_or("", Secret::expose);
        let mut out = Vec::with_capacity(64 + self.token.expose().len() + refresh.len() + self.subject.len());
        out.push(match self.via {
            Via::OpenShift => 1,
            Via::Oidc => 2,
        });
        out.extend_from_slice(&self.id);
        for time in [self.began, self.written, self.ends] {
            out.extend_from_slice(&time.to_be_bytes());
        }
        for text in [self.token.expose(), refresh, &self.subject] {
            // Whatever is longer does not fit into cookies either.
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
        }
        out
    }

    /// Reads what [`Self::encode`] wrote; nothing may be missing or left over.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (via, rest) = bytes.split_first()?;
        let via = match via {
            1 => Via::OpenShift,
            2 => Via::Oidc,
            _ => return None,
        };
        let (id, mut rest) = rest.split_first_chunk::<16>()?;
        let mut time = || {
            let (time, tail) = rest.split_first_chunk::<8>()?;
            rest = tail;
            Some(u64::from_be_bytes(*time))
        };
        let (began, written, ends) = (time()?, time()?, time()?);
        let mut text = || {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (text, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            rest = tail;
            std::str::from_utf8(text).ok()
        };
        let (token, refresh, subject) = (text()?, text()?, text()?.to_owned());
        if token.is_empty() || !rest.is_empty() {
            return None;
        }
        let refresh = (!refresh.is_empty()).then(|| Secret::new(refresh));
        Some(Self { id: *id, via, began, written, ends, token: Secret::new(token), refresh, subject })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400;

    fn session() -> Session {
        Session {
            id: [9; 16],
            via: Via::OpenShift,
            began: 1_000_000,
            written: 1_000_000,
            ends: 1_000_000 + DAY,
            token: Secret::new("sha256~token"),
            refresh: None,
            subject: String::new(),
        }
    }

    fn at(offset: i64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000_u64.saturating_add_signed(offset))
    }

    #[test]
    fn a_session_ends_by_our_clock_whatever_the_browser_thinks() {
        let (idle, never) = (Duration::from_secs(3600), Duration::ZERO);
        for (offset, idle, over) in [
            (0, idle, false),
            (3599, idle, false),
            (3600, idle, true),
            (3600, never, false),
            (DAY as i64 - 1, never, false),
            (DAY as i64, never, true),
            (10 * DAY as i64, never, true),
            (-300, idle, false),
            (-301, idle, true),
        ] {
            assert_eq!(session().is_over(at(offset), idle), over, "{offset} {idle:?}");
        }
        assert!(session().is_over(UNIX_EPOCH, never), "before our time");
    }

    #[test]
    fn it_is_written_anew_once_a_minute() {
        assert!(!session().is_due(at(59)) && session().is_due(at(60)) && !session().is_due(at(-100)));
        assert!(!format!("{:?}", session()).contains("token"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id in any::<[u8; 16]>(), times in any::<[u64; 3]>(), token in "[!-~]{1,300}", refresh in "[!-~]{0,300}", subject in "\\PC{0,40}", oidc in any::<bool>()) {
            let session = Session {
                id,
                via: if oidc { Via::Oidc } else { Via::OpenShift },
                began: times[0],
                written: times[1],
                ends: times[2],
                token: Secret::new(&token),
                refresh: (!refresh.is_empty()).then(|| Secret::new(&refresh)),
                subject,
            };
            let bytes = session.encode();
            let again = Session::decode(&bytes);
            prop_assert_eq!(again.as_ref(), Some(&session));
            prop_assert_eq!(Session::decode(&bytes[..bytes.len() - 1]), None);
            prop_assert_eq!(Session::decode(&[bytes.as_slice(), b"x"].concat()), None);
        }

        #[test]
        fn other_bytes_are_none_or_read_back(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Some(session) = Session::decode(&bytes) {
                prop_assert_eq!(session.encode(), bytes);
            }
        }
    }
}
