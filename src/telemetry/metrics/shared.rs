//! What is counted of the memory that replicas share.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are the label's values")]
pub enum SharedOperation {
    Get,
    Put,
    Lock,
    Deny,
    Denied,
    /// What was forgotten, read and told.
    Journal,
}

/// How that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedOutcome {
    /// Known.
    Hit,
    /// Not known.
    Miss,
    /// Written.
    Stored,
    /// The name was taken.
    Exists,
    /// What came back was not sealed by us.
    Tampered,
    /// A value above `cache.shared.largest_value`.
    TooLarge,
    /// The server has no room.
    Full,
    /// Not in time.
    Slow,
    /// No connection, or a server that refuses.
    Error,
    /// The server is left alone for now.
    Open,
    /// We have too much under way.
    Busy,
}

const OPERATIONS: [&str; 6] = ["get", "put", "lock", "deny", "denied", "journal"];
const OUTCOMES: [&str; 11] =
    ["hit", "miss", "stored", "exists", "tampered", "too_large", "full", "slow", "error", "open", "busy"];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

/// The counters.
pub(super) struct Shared {
    pub(super) operations: Vec<Vec<Counter>>,
    pub(super) seconds: Vec<Histogram>,
    pub(super) open: Gauge,
}

impl Shared {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let family = Family::<Labels, Counter>::default();
        registry.register("cache_shared_operations", "Questions to the shared memory", family.clone());
        let operations = OPERATIONS
            .iter()
            .map(|operation| {
                OUTCOMES.iter().map(|outcome| family.get_or_create_owned(&Labels { operation, outcome })).collect()
            })
            .collect();
        let seconds = || Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5]);
        let family = Family::<OperationLabel, Histogram, fn() -> Histogram>::new_with_constructor(seconds);
        registry.register("cache_shared_duration_seconds", "Time until the shared memory answers", family.clone());
        let seconds =
            OPERATIONS.iter().map(|operation| family.get_or_create_owned(&OperationLabel { operation })).collect();
        let open = Gauge::default();
        registry.register(
            "cache_shared_open",
            "Whether the shared memory is left alone because it fails",
            open.clone(),
        );
        Self { operations, seconds, open }
    }
}

impl super::Metrics {
    /// A question to the shared memory ended.
    pub fn shared(&self, operation: SharedOperation, outcome: SharedOutcome) {
        self.shared.operations[operation as usize][outcome as usize].inc();
    }

    /// So long the server took.
    pub fn shared_seconds(&self, operation: SharedOperation, seconds: f64) {
        self.shared.seconds[operation as usize].observe(seconds);
    }

    /// Whether the shared memory is left alone.
    pub fn shared_open(&self, open: bool) {
        self.shared.open.set(i64::from(open));
    }
}
