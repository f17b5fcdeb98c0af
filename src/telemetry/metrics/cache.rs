//! What the cache counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$why:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the words are the label's values")]
        pub enum $name { $($(#[$why])* $variant,)* }

        impl $name {
            /// All of them, in their order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word in metrics and answers.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// What was asked for.
    CacheKind {
        Range = "range",
        Instant = "instant",
        Labels = "labels",
        Values = "values",
        Series = "series",
        Metadata = "metadata",
        Rules = "rules",
        Alerts = "alerts",
        Other = "other",
    }
}

words! {
    /// How it was answered.
    CacheResult {
        Hit = "hit",
        /// Some of it was there, the rest was asked for.
        Partial = "partial",
        Miss = "miss",
        /// Somebody else had asked already.
        Collapsed = "collapsed",
        Bypass = "bypass",
        Error = "error",
    }
}

words! {
    /// Why an answer is kept as a whole only, for a short time, or not at all.
    CacheReason {
        /// `cache.mode` says so.
        Mode = "mode",
        /// Nobody keeps answers of this endpoint.
        Endpoint = "endpoint",
        /// The question is asked in several parts.
        Parts = "parts",
        /// The answer is larger than `cache.largest_answer`.
        TooLarge = "too_large",
        /// The query could not be analysed.
        Analysis = "analysis",
        /// Start, end or step cannot be written in whole milliseconds.
        Time = "time",
        /// Results depend on the window: `start()`, `end()`, `range()`, `step()`.
        Window = "window",
        /// Results depend on how far a sample reaches, which only the backend knows.
        Smoothed = "smoothed",
        /// `limit` speaks of a whole answer.
        Limit = "limit",
        /// `stats` speak of a whole answer.
        Stats = "stats",
        /// Which data are read depends on the resolution.
        Resolution = "resolution",
        /// The backend answered other points than those that were asked for.
        OffGrid = "off_grid",
        /// The backend's answer is not written as expected.
        Shape = "shape",
        /// A series stood twice in an answer.
        Duplicate = "duplicate",
        /// The backend warned.
        Warnings = "warnings",
    }
}

words! {
    /// What came of comparing something that is kept, and has settled, with what the backend says now.
    Verification {
        Same = "same",
        Different = "different",
        /// The backend did not answer.
        Failed = "failed",
        /// There was nothing to compare, no room for it, or it was forgotten meanwhile.
        Skipped = "skipped",
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TierLabel {
    tier: &'static str,
}

/// The cache's own metrics.
pub struct CacheMetrics {
    /// By kind, then by result.
    requests: Vec<Counter>,
    bypasses: Vec<Counter>,
    verifications: Vec<Counter>,
    memory: Gauge,
}

impl CacheMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let family = Family::<RequestLabels, Counter>::default();
        registry.register("cache_requests", "Questions and how the cache answered them", family.clone());
        let labels =
            |kind: &CacheKind, result: &CacheResult| RequestLabels { kind: kind.word(), result: result.word() };
        let requests = CacheKind::ALL
            .iter()
            .flat_map(|kind| CacheResult::ALL.iter().map(move |result| labels(kind, result)))
            .map(|labels| family.get_or_create_owned(&labels))
            .collect();
        let family = Family::<ReasonLabel, Counter>::default();
        let help = "Answers that were kept as a whole only, for a short time, or not at all, and why";
        registry.register("cache_bypass", help, family.clone());
        let bypasses = CacheReason::ALL
            .iter()
            .map(|reason| family.get_or_create_owned(&ReasonLabel { reason: reason.word() }))
            .collect();
        let family = Family::<OutcomeLabel, Counter>::default();
        let help = "Answers that were compared with what the backend says of the same settled time";
        registry.register("cache_verifications", help, family.clone());
        let verifications = Verification::ALL
            .iter()
            .map(|outcome| family.get_or_create_owned(&OutcomeLabel { outcome: outcome.word() }))
            .collect();
        let family = Family::<TierLabel, Gauge>::default();
        registry.register("cache_bytes", "What is kept", family.clone());
        Self { requests, bypasses, verifications, memory: family.get_or_create_owned(&TierLabel { tier: "memory" }) }
    }

    /// A question was answered.
    pub fn request(&self, kind: CacheKind, result: CacheResult) {
        self.requests[kind as usize * CacheResult::ALL.len() + result as usize].inc();
    }

    /// How often that was, for statistics.
    #[must_use]
    pub fn requests(&self, kind: CacheKind, result: CacheResult) -> u64 {
        self.requests[kind as usize * CacheResult::ALL.len() + result as usize].get()
    }

    /// An answer was not kept as well as it could be.
    pub fn bypass(&self, reason: CacheReason) {
        self.bypasses[reason as usize].inc();
    }

    /// How often that was.
    #[must_use]
    pub fn bypasses(&self, reason: CacheReason) -> u64 {
        self.bypasses[reason as usize].get()
    }

    /// Something was compared.
    pub fn verified(&self, outcome: Verification) {
        self.verifications[outcome as usize].inc();
    }

    /// How often that was.
    #[must_use]
    pub fn verifications(&self, outcome: Verification) -> u64 {
        self.verifications[outcome as usize].get()
    }

    /// What is kept in memory.
    pub fn memory(&self, bytes: u64) {
        self.memory.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
