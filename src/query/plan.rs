//! How an answer to a query may be kept. What is analysed is the text that is sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Backend;
use crate::extents::Looks;
use crate::memo::Memo;
use crate::promql::analysis::{Horizon, analyse};
use crate::promql::{Confined, Limits};
use crate::telemetry::metrics::CacheReason;

/// So many texts, and how long each may be.
const PLACES: usize = 512;
const LONGEST: usize = 8 << 10;
/// What follows from a text never changes.
const KEPT: Duration = Duration::from_secs(3600);
/// How far a sample reaches where nobody says so: Prometheus' default.
const LOOKBACK_MS: u64 = 300_000;

/// What is known of a query's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Which times a point looks at.
    pub(super) looks: Looks,
    /// Whether an answer for several namespaces could be divided by the label.
    pub(super) divisible: bool,
    /// Why it may be kept as a whole only, and is never final.
    pub(super) unfit: Option<CacheReason>,
}

struct Planned {
    text: String,
    lookback: u64,
    backend: Arc<Backend>,
}

/// Plans, and remembers.
pub(super) struct Plans(Memo<Planned, Plan>);

impl Plans {
    pub(super) fn new() -> Self {
        Self(Memo::new(PLACES))
    }

    pub(super) fn of(
        &self,
        confined: &Confined,
        backend: &Arc<Backend>,
        lookback: Option<u64>,
        limits: &Limits,
    ) -> Plan {
        let (text, lookback) = (confined.text(), lookback.unwrap_or(LOOKBACK_MS));
        let is_it =
            |known: &Planned| known.lookback == lookback && Arc::ptr_eq(&known.backend, backend) && known.text == text;
        if let Some(plan) = self.0.get(&text, is_it) {
            return plan;
        }
        let plan = plan(text, backend, lookback, limits);
        if text.len() <= LONGEST && plan.unfit != Some(CacheReason::Analysis) {
            let planned = Planned { text: text.to_owned(), lookback, backend: Arc::clone(backend) };
            self.0.put(self.0.ticket(), &text, planned, plan, Instant::now() + KEPT);
        }
        plan
    }
}

fn plan(text: &str, backend: &Backend, lookback: u64, limits: &Limits) -> Plan {
    let unfit = |reason| Plan { looks: Looks::default(), divisible: false, unfit: Some(reason) };
    // Confinement makes a text longer.
    let limits = Limits { text: limits.confined, tokens: usize::MAX, ..*limits };
    let analysed = |lookback| analyse(text, &backend.labels, lookback, &limits, backend.features);
    let Ok(analysis) = analysed(lookback) else { return unfit(CacheReason::Analysis) };
    if analysis.depends_on_window {
        return unfit(CacheReason::Window);
    }
    let Some(Horizon { forward_ms, fixed_ms, back_ms }) = analysis.horizon else { return unfit(CacheReason::Window) };
    // A point that looks ahead as far as a sample reaches: how far that is, only the backend knows.
    let farther = analysed(lookback.saturating_add(60_000)).ok().and_then(|other| other.horizon);
    let latest = |fixed: Option<(i64, i64)>| fixed.map(|(_, latest)| latest);
    if farther.is_none_or(|other| other.forward_ms != forward_ms || latest(other.fixed_ms) != latest(fixed_ms)) {
        return unfit(CacheReason::Smoothed);
    }
    let (Ok(back), Ok(forward)) = (i64::try_from(back_ms), i64::try_from(forward_ms)) else {
        return unfit(CacheReason::Analysis);
    };
    let divisible = analysis.splits_by_label;
    Plan { looks: Looks { back, forward, fixed: fixed_ms }, divisible, unfit: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::{BackendKind, Origin};
    use crate::promql::{Features, Labels, Reach, confine};

    #[test]
    fn what_looks_ahead_settles_later_and_what_depends_on_the_window_never() {
        let backend = Arc::new(Backend {
            name: "b".to_owned(),
            kind: BackendKind::Prometheus,
            url: Origin::parse("http://b").unwrap(),
            also_urls: Vec::new(),
            labels: Arc::new(Labels::new("namespace", Vec::new()).unwrap()),
            features: Features { experimental: true },
            datasource: None,
            token: None,
            ca: None,
            parameters: std::collections::BTreeMap::new(),
            timeout: Duration::from_secs(60),
            retention: Duration::from_secs(3600),
            evaluation_interval: Duration::from_secs(60),
        });
        let plans = Plans::new();
        let limits = Limits::default();
        let reach = Reach::Namespaces([Arc::from("a")].into());
        let of = |text: &str| {
            let confined = confine(text, &reach, &backend.labels, &limits, backend.features).unwrap();
            let plan = plans.of(&confined, &backend, None, &limits);
            assert_eq!(plans.of(&confined, &backend, None, &limits), plan, "remembered");
            plan
        };
        let good = |text: &str| {
            let plan = of(text);
            assert_eq!(plan.unfit, None, "{text}");
            (plan.looks.forward, plan.looks.fixed)
        };
        assert_eq!(good("sum(rate(up[5m]))"), (0, None));
        assert_eq!(of("up offset 1h").looks, Looks { back: 3_900_000, forward: 0, fixed: None });
        assert_eq!(good("up offset -1h"), (3_600_000, None));
        assert_eq!(good("up + up offset -10ms"), (10, None));
        assert_eq!(good("up @ 127"), (0, Some((127_000 - 300_000, 127_000))));
        assert_eq!(good("up{offset=\"offset -1h @ end()\"}"), (0, None), "words in a string");
        for window in ["up @ end()", "up @ start()", "rate(up[5m] @ end())", "up + end()", "up * step()"] {
            assert_eq!(of(window).unfit, Some(CacheReason::Window), "{window}");
        }
        assert_eq!(of("rate(up[5m] smoothed)").unfit, Some(CacheReason::Smoothed));
    }
}
