//! What the cache makes of a query, for an operator who asks why.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::params::read_duration;
use super::terms::{InForce, overrides};
use super::{Behind, Queries};
use crate::cache::{self, Entry, millis};
use crate::config::CacheMode;
use crate::names::Namespace;
use crate::promql::{self, Reach};
use crate::refusal::{Reason, Refusal};

/// A query to explain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Explain {
    /// The backend's name; not needed when there is only one.
    pub backend: Option<String>,
    /// The namespaces of whoever asks; none for somebody who reads all series.
    pub namespaces: Vec<String>,
    /// The query as it is asked.
    pub query: String,
    /// `lookback_delta`, if it is asked with one.
    pub lookback_delta: Option<String>,
}

/// What there is to say of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The backend.
    pub backend: String,
    /// What is sent, and kept under.
    pub sent: String,
    /// `points`: a range is kept by its points; `whole`: answers are kept as they are; `shadow` and
    /// `bypass`: the mode says so.
    pub kept: &'static str,
    /// Why not by points, in the word of `cache_bypass_total`.
    pub reason: Option<&'static str>,
    /// How many milliseconds a point looks back, and ahead.
    pub back_ms: i64,
    /// See above.
    pub ahead_ms: i64,
    /// The earliest and latest time at which all points look, in milliseconds since 1970.
    pub fixed_ms: Option<(i64, i64)>,
    /// After how many milliseconds a point no longer changes.
    pub settles_after_ms: i64,
    /// For how many milliseconds what may still change is used, and what no longer changes is kept.
    pub fresh_ms: i64,
    /// See above.
    pub ttl_ms: i64,
    /// The same of an instant query.
    pub instant_fresh_ms: i64,
    /// See above.
    pub instant_ttl_ms: i64,
    /// The overrides that have a say in it, as paths of the configuration.
    pub overrides: Vec<String>,
    /// Whether an answer for several namespaces could be divided by the label.
    pub divisible: bool,
    /// What is kept of it at the moment.
    pub entries: Vec<Entry>,
}

impl Queries {
    /// Explains a query. Nothing is asked of anybody.
    ///
    /// # Errors
    /// 404 for a backend that there is not, 400 for what is no query.
    pub fn explain(&self, explain: &Explain) -> Result<Explained, Refusal> {
        let named = |name: &str| explain.backend.as_deref().is_none_or(|wanted| wanted == name);
        let mut fitting = self.backends.iter().filter(|behind| named(behind.place.name()));
        let (Some(Behind { client, place, terms }), None) = (fitting.next(), fitting.next()) else {
            let names: Vec<&str> = self.backends.iter().map(|behind| behind.place.name()).collect();
            return Err(Refusal::new(Reason::NotFound, format!("name one backend of: {}", names.join(", ")))
                .with_status(StatusCode::NOT_FOUND));
        };
        let malformed = |message: String| Refusal::new(Reason::Query, message);
        let settings = client.settings();
        let mut names = Vec::with_capacity(explain.namespaces.len());
        for name in &explain.namespaces {
            let namespace = Namespace::parse(name).ok_or_else(|| malformed(format!("{name:?} is no namespace")))?;
            names.push(std::sync::Arc::from(namespace.as_str()));
        }
        names.sort_unstable();
        names.dedup();
        let reach = if names.is_empty() { Reach::Everything } else { Reach::Namespaces(names.into()) };
        let limits = promql::Limits {
            lookback_ms: super::millis(settings.retention),
            subquery_default_step_ms: super::millis(settings.evaluation_interval),
            ..self.limits.promql
        };
        let confined = promql::confine(&explain.query, &reach, &settings.labels, &limits, settings.features)
            .map_err(|error| malformed(error.to_string()))?;
        let lookback = match &explain.lookback_delta {
            None => None,
            Some(text) => Some(read_duration(text).ok_or_else(|| malformed(format!("{text:?} is no duration")))?),
        };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a float stops at the ends"
        )]
        let lookback = lookback.map(|seconds| (seconds * 1000.0).ceil() as u64);
        let plan = self.plans.of(&confined, settings, lookback, &limits);
        let InForce { mode, range, instant } = terms.of(&confined.reach());
        let kept = match (mode, plan.unfit) {
            (CacheMode::Bypass, _) => "bypass",
            (CacheMode::Shadow, _) => "shadow",
            (CacheMode::Enforce, Some(_)) => "whole",
            (CacheMode::Enforce, None) => "points",
        };
        Ok(Explained {
            backend: place.name().to_owned(),
            kept,
            reason: plan.unfit.map(|reason| reason.word()),
            back_ms: plan.looks.back,
            ahead_ms: plan.looks.forward,
            fixed_ms: plan.looks.fixed,
            settles_after_ms: cache::rules(range, plan.looks).settle,
            fresh_ms: millis(range.fresh),
            ttl_ms: millis(range.ttl),
            instant_fresh_ms: millis(instant.fresh),
            instant_ttl_ms: millis(instant.ttl),
            overrides: overrides(&self.keeping, place.name(), &confined.reach()),
            divisible: plan.divisible,
            entries: self.cache.entries(place, confined.text()),
            sent: confined.into_text(),
        })
    }
}
