//! Ask the servers behind us. Every method takes a [`Granted`](crate::access::Granted) thing or a listed open route.

mod perses;
mod prometheus;

pub use perses::{Perses, PersesAnswer};
pub use prometheus::{About, BackendClient, Question};

use crate::dial::DialError;
use crate::refusal::{Reason, Refusal};

/// What a failed exchange means for the caller; the address stays in the log.
fn refuse(error: &DialError, who: &'static str) -> Refusal {
    let (reason, message) = match error {
        DialError::Busy => (Reason::Overload, "the gateway has too many requests open; try again soon"),
        DialError::Slow => (Reason::UpstreamSlow, "the server behind the gateway did not answer in time"),
        DialError::TooLarge => {
            (Reason::UpstreamTooLarge, "the answer is larger than the gateway passes on; ask for less")
        }
        DialError::Connect(_) | DialError::Broken(_) => {
            (Reason::UpstreamDown, "the server behind the gateway cannot be reached")
        }
    };
    let refusal = Refusal::new(reason, message).because(format!("{who}: {error}"));
    if reason == Reason::Overload { refusal.retry_after(std::time::Duration::from_secs(1)) } else { refusal }
}
