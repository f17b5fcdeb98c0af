//! What a workload is to us: few fields, all bounded, the same for every kind.

use std::fmt;
use std::sync::Arc;

use super::time;
use crate::names::Namespace;

/// The longest text that is kept of an annotation or a reason, in characters.
const LONGEST: usize = 128;

macro_rules! kinds {
    ($($variant:ident $word:literal $group:literal $plural:literal $versions:expr;)*) => {
        /// A kind of workload, by its resource in the cluster.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "the words are the APIs' own")]
        pub enum Kind { $($variant,)* /// A namespace as a whole.
            Project }

        impl Kind {
            /// All that are resources of a cluster; [`Kind::Project`] is none.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The kind as objects of the cluster spell it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* Self::Project => "Project" }
            }

            /// Its API group; empty for a project.
            #[must_use]
            pub const fn group(self) -> &'static str {
                match self { $(Self::$variant => $group,)* Self::Project => "" }
            }

            /// Its resource, as paths and access reviews spell it; empty for a project.
            #[must_use]
            pub const fn plural(self) -> &'static str {
                match self { $(Self::$variant => $plural,)* Self::Project => "" }
            }

            /// The versions that we read, the one to prefer first; none for a project.
            #[must_use]
            pub const fn versions(self) -> &'static [&'static str] {
                match self { $(Self::$variant => $versions,)* Self::Project => &[] }
            }
        }
    };
}

kinds! {
    InferenceService "InferenceService" "serving.kserve.io" "inferenceservices" &["v1beta1"];
    LlmInferenceService "LLMInferenceService" "serving.kserve.io" "llminferenceservices" &["v1alpha2", "v1alpha1"];
    PyTorchJob "PyTorchJob" "kubeflow.org" "pytorchjobs" &["v1"];
    TfJob "TFJob" "kubeflow.org" "tfjobs" &["v1"];
    MpiJob "MPIJob" "kubeflow.org" "mpijobs" &["v1", "v2beta1"];
    XgBoostJob "XGBoostJob" "kubeflow.org" "xgboostjobs" &["v1"];
    PaddleJob "PaddleJob" "kubeflow.org" "paddlejobs" &["v1"];
    JaxJob "JAXJob" "kubeflow.org" "jaxjobs" &["v1"];
    TrainJob "TrainJob" "trainer.kubeflow.org" "trainjobs" &["v1alpha1"];
    RayCluster "RayCluster" "ray.io" "rayclusters" &["v1"];
    RayJob "RayJob" "ray.io" "rayjobs" &["v1"];
    RayService "RayService" "ray.io" "rayservices" &["v1"];
    LocalQueue "LocalQueue" "kueue.x-k8s.io" "localqueues" &["v1beta2", "v1beta1"];
    Notebook "Notebook" "kubeflow.org" "notebooks" &["v1"];
    Job "Job" "batch" "jobs" &["v1"];
}

impl Kind {
    /// Reads a kind as objects of the cluster spell it, in any case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().chain([&Self::Project]).find(|kind| kind.word().eq_ignore_ascii_case(word)).copied()
    }

    /// Whether it serves models.
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(self, Self::InferenceService | Self::LlmInferenceService)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What runs in a workload's pods, as far as it decides which metrics they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "products' own names")]
pub enum Engine {
    Vllm,
    LlmD,
    OpenVino,
    Tgis,
    Triton,
    MlServer,
    /// A server made with the Python SDK of KServe.
    KServe,
    /// None of these, or nobody knows.
    Other,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Vllm, Self::LlmD, Self::OpenVino, Self::Tgis, Self::Triton, Self::MlServer, Self::KServe, Self::Other];

    /// The engine in a word, as templates name it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Vllm => "vLLM",
            Self::LlmD => "llm-d",
            Self::OpenVino => "OpenVINO",
            Self::Tgis => "TGIS",
            Self::Triton => "Triton",
            Self::MlServer => "MLServer",
            Self::KServe => "KServe",
            Self::Other => "other",
        }
    }

    /// Reads such a word, in any case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.word().eq_ignore_ascii_case(word))
    }
}

/// How a workload fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It waits for its turn or for room.
    Queued,
    /// It was let in, and is not yet what it should be.
    Starting,
    /// It serves: a model, a cluster, a notebook, a queue.
    Ready,
    /// It works at something that will end.
    Running,
    /// Somebody stopped it.
    Stopped,
    /// It ended well.
    Succeeded,
    /// It ended badly, or cannot begin.
    Failed,
    /// Its status does not say.
    Unknown,
    /// It is in the cluster no more; its metrics may be.
    Gone,
}

impl State {
    /// The state in a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Gone => "gone",
        }
    }
}

/// The name of an object of the cluster: a DNS-1123 subdomain (lower-case letters, digits, `-` and `.`, 1 to 253 bytes,
/// letters or digits at both ends of each part).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadName(Arc<str>);

impl WorkloadName {
    /// Reads a name exactly as it is spelt.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let part = |part: &str| {
            let bytes = part.as_bytes();
            let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
            bytes.iter().all(inner) && bytes.first().is_some_and(|b| *b != b'-') && bytes.last() != Some(&b'-')
        };
        (text.len() <= 253 && text.split('.').all(part)).then(|| Self(Arc::from(text)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The runtime that a served model names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Runtime {
    /// Its name.
    pub name: WorkloadName,
    /// Whether it is a ClusterServingRuntime; else it lies in the model's namespace.
    pub cluster: bool,
}

/// How far a training job is, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// From 0 to 100.
    pub percent: u8,
    /// Seconds that are left, if it says so.
    pub left: Option<u64>,
}

/// A workload. Every text is at most 128 characters long and holds no control character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub namespace: Namespace,
    /// What it is called; for a project the namespace again.
    pub name: WorkloadName,
    /// What people call it (annotation `openshift.io/display-name`).
    pub title: Option<Box<str>>,
    /// What runs in it.
    pub engine: Engine,
    /// The runtime of a served model, from which [`Workload::with_runtime`] takes the engine.
    pub runtime: Option<Runtime>,
    /// The name under which a model is served; metrics carry it.
    pub model: Option<Box<str>>,
    /// How it fares.
    pub state: State,
    /// Why, in the word or the short text of its status.
    pub reason: Option<Box<str>>,
    /// Since when it is in this state, in seconds since 1970.
    pub since: Option<i64>,
    /// When it was made, in seconds since 1970.
    pub created: Option<i64>,
    /// Who made it, if an annotation says so.
    pub owner: Option<Box<str>>,
    /// How many GPUs it asks for, all its pods together.
    pub gpus: u32,
    /// Its Kueue queue: the LocalQueue of a job, the ClusterQueue of a LocalQueue.
    pub queue: Option<Box<str>>,
    /// The RayCluster that a RayJob or RayService runs on; of a RayCluster its own name.
    pub ray_cluster: Option<Box<str>>,
    /// How far a training job is.
    pub progress: Option<Progress>,
}

impl Workload {
    /// One of which nothing but its name is known.
    #[must_use]
    pub fn bare(kind: Kind, namespace: Namespace, name: WorkloadName) -> Self {
        Self {
            kind,
            namespace,
            name,
            title: None,
            engine: if kind == Kind::LlmInferenceService { Engine::LlmD } else { Engine::Other },
            runtime: None,
            model: None,
            state: State::Unknown,
            reason: None,
            since: None,
            created: None,
            owner: None,
            gpus: 0,
            queue: None,
            ray_cluster: None,
            progress: None,
        }
    }

    /// A namespace as a whole, with the GPUs that its workloads ask for.
    #[must_use]
    pub fn project(namespace: &Namespace, gpus: u32) -> Self {
        let name = WorkloadName(namespace.shared());
        Self { gpus, state: State::Ready, ..Self::bare(Kind::Project, namespace.clone(), name) }
    }

    /// One that was there once: its dashboard shows everything that one of its kind can have.
    #[must_use]
    pub fn gone(kind: Kind, namespace: Namespace, name: WorkloadName, engine: Engine) -> Self {
        Self { state: State::Gone, engine, ..Self::bare(kind, namespace, name) }
    }

    /// A text from outside as a workload keeps it: without control characters and marks of direction, at most 128
    /// characters; `None` if nothing is left.
    #[must_use]
    pub fn text(text: &str) -> Option<Box<str>> {
        kept(text)
    }

    /// With the engine of its runtime, if that says which it is; its own fields only let us guess.
    #[must_use]
    pub fn with_runtime(mut self, engine: Option<Engine>) -> Self {
        if let Some(engine) = engine {
            self.engine = engine;
        }
        self
    }

    /// The names of its pods, as a regular expression of Prometheus, which matches whole values. It tells `bert` from
    /// `bert-large`, whose pods a mere beginning would take in.
    #[must_use]
    pub fn pods(&self) -> String {
        let name = quoted(self.name.as_str());
        match self.kind {
            Kind::InferenceService => {
                format!("{name}-predictor(-worker)?(-[0-9]{{5}}-deployment)?(-[0-9a-z]+){{1,2}}")
            }
            Kind::LlmInferenceService => {
                format!("{name}-kserve(-prefill|-mn|-mn-prefill|-router-scheduler)?(-[0-9a-z]+){{1,3}}")
            }
            Kind::PyTorchJob | Kind::XgBoostJob | Kind::PaddleJob => format!("{name}-(master|worker)-[0-9]+"),
            Kind::TfJob => format!("{name}-(chief|master|ps|worker|evaluator)-[0-9]+"),
            Kind::MpiJob => format!("{name}-(launcher(-[0-9a-z]{{5}})?|worker-[0-9]+)"),
            Kind::JaxJob => format!("{name}-worker-[0-9]+"),
            Kind::TrainJob => {
                format!("{name}-(node|launcher|dataset-initializer|model-initializer)-[0-9]+-[0-9]+-[0-9a-z]{{5}}")
            }
            Kind::RayCluster | Kind::RayJob | Kind::RayService => {
                format!("{}-(head|.+-worker)(-[0-9a-z]+)?", self.ray_clusters())
            }
            Kind::Notebook => format!("{name}-0"),
            Kind::Job => format!("{name}(-[0-9]+)?-[0-9a-z]{{5}}"),
            Kind::LocalQueue | Kind::Project => ".+".to_owned(),
        }
    }

    /// The names of the RayClusters that it may run on, as a regular expression: the one that its status names, or until
    /// then by the form of the operator's names.
    #[must_use]
    pub fn ray_clusters(&self) -> String {
        let name = quoted(self.name.as_str());
        match (&self.ray_cluster, self.kind) {
            (Some(cluster), _) => quoted(cluster),
            (None, Kind::RayJob) => format!("{name}-[0-9a-z]{{5}}"),
            (None, Kind::RayService) => format!("{name}(-raycluster)?-[0-9a-z]{{5}}"),
            (None, _) => name,
        }
    }

    /// Since when it is in its state, and when it was made, for machines (RFC 3339).
    #[must_use]
    pub fn times(&self) -> [Option<String>; 2] {
        [self.since, self.created].map(|time| time.map(time::rfc3339))
    }

    /// Since when it is in its state, for people, in UTC.
    #[must_use]
    pub fn since_words(&self) -> Option<String> {
        self.since.and_then(time::words)
    }

    /// What people call it: its title, or else its name.
    #[must_use]
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or_else(|| self.name.as_str())
    }
}

/// A text as a regular expression that matches it and nothing else (RE2's syntax).
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if matches!(c, '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A text from outside as the model keeps it; `None` if nothing of it is left.
pub(super) fn kept(text: &str) -> Option<Box<str>> {
    // Marks that change the direction of what follows would let one text change how others read.
    let unseen =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let chars = text.trim().chars().filter(|c| !unseen(*c)).take(LONGEST);
    // The sign for what could not be read is no text to a backend.
    let kept: String = chars.map(|c| if c.is_control() || c == '\u{fffd}' { ' ' } else { c }).collect();
    let kept = kept.trim();
    (!kept.is_empty()).then(|| kept.into())
}
