//! The metrics backend as the cache sees it.

use std::sync::Arc;

use http::header;
use tokio::time::Instant;

use super::answers;
use super::params::read_rfc3339;
use super::quiet::Edit;
use crate::cache::{Asking, Given, Origin};
use crate::upstream::{BackendClient, Question};

/// A way to ask one question, or parts of it.
pub(super) struct Way {
    pub(super) client: Arc<BackendClient>,
    /// The confined text, if errors may be told in the backend's words.
    pub(super) sent: Option<Vec<String>>,
    /// Whether lists behind `warnings` and `infos` are what a store says.
    pub(super) says: bool,
    pub(super) largest: usize,
}

impl Origin for Way {
    fn ask(self: Arc<Self>, question: Question, deadline: Instant) -> Asking {
        Box::pin(async move {
            let answer = self.client.ask_until(question, deadline.into_std()).await?;
            let date = answer.headers.get(header::DATE).and_then(|date| read_date(date.to_str().ok()?));
            let sent: Option<Vec<&str>> = self.sent.as_ref().map(|sent| sent.iter().map(String::as_str).collect());
            let body = answers::whole(answer, sent.as_deref(), self.largest).await?;
            let body = if self.says { Edit::whole(body).map_err(answers::nonsense)? } else { body };
            Ok(Given { body, date })
        })
    }
}

/// Milliseconds since 1970 of a date as servers write it today (RFC 9110, 5.6.7).
fn read_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rest = text.get(5..).filter(|_| text.len() == 29 && text.ends_with(" GMT"))?;
    let month = MONTHS.iter().position(|month| rest.get(3..6) == Some(month))? + 1;
    let seconds = read_rfc3339(&format!("{}-{month:02}-{}T{}Z", rest.get(7..11)?, rest.get(0..2)?, rest.get(12..20)?))?;
    #[allow(clippy::cast_possible_truncation, reason = "whole seconds of a year of four digits")]
    Some(seconds as i64 * 1000)
}

#[cfg(test)]
mod tests {
    use super::read_date;

    #[test]
    fn dates_of_servers_are_read() {
        assert_eq!(read_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000));
        for bad in
            ["", "Sun, 06 Nov 1994 08:49:37 UTC", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Xxx 1994 08:49:37 GMT"]
        {
            assert_eq!(read_date(bad), None, "{bad}");
        }
    }
}
