//! What must be added to this pod? A pod as it was sent, a profile and what is known of its namespace become another pod and
//! a JSON patch, or a refusal with a reason.
//!
//! Pure, and never through a typed pod: what we do not know stays as it is. A pod that has our sidecar is taken back to what
//! it was and built anew, so a second pass changes nothing, and no annotation can claim that the work is done. Whatever
//! would leave Perses reachable beside the sidecar is refused, never let through.

mod arguments;
mod asked;
mod built;
mod handlers;
mod patch;
mod perses;
mod ports;
mod profile;
mod quantity;
mod restored;
mod sidecar;
mod workload;

use serde_json::Value;

pub use asked::{Asked, KEYS, PREFIX, has_perses, is_native, is_past, without_past};
pub use built::Injected;
pub use handlers::is_sent;
pub use patch::{apply, between};
pub use perses::{HookOutcome, hook};
pub use profile::{ImageArguments, Profile, Profiles, Resources};
pub use quantity::Quantity;
pub use workload::{asks_elsewhere, template_path};

/// The container that is added.
pub const SIDECAR: &str = "perses-sidecar";
/// What a volume of ours begins with.
pub const VOLUMES: &str = "perses-sidecar-";
/// The variable of the environment in which the profile travels.
pub const PROFILE_VARIABLE: &str = "PERSES_SIDECAR_PROFILE";
/// The variable that holds the pod's own addresses, with commas between them.
pub const ADDRESSES_VARIABLE: &str = "PERSES_SIDECAR_POD_IPS";
/// Where the optional ConfigMap is mounted, and its key.
pub const CONFIG_FILE: &str = "/etc/perses-sidecar/config/config.yaml";
/// Where the optional Secret with cookie keys is mounted: the newest key and the one before.
pub const KEY_FILES: [&str; 2] = ["/etc/perses-sidecar/keys/current", "/etc/perses-sidecar/keys/previous"];

/// What is known beyond the pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'f> {
    /// The namespace of the request; the pod's own is often empty.
    pub namespace: &'f str,
    /// Whether the namespace says `inject-default`.
    pub inject_default: bool,
    /// The minor version of the API server, if it is known.
    pub minor: Option<u32>,
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing is asked for.
    Untouched,
    /// Another pod; its patch is empty when it was as it must be.
    Injected(Box<Injected>),
}

/// Why a pod is refused, for whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn refused<T>(message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(message.into()))
}

/// What the pod's own annotations ask for.
///
/// # Errors
/// An invalid value.
pub fn asked<'p>(pod: &Value, profiles: &'p Profiles) -> Result<Asked<'p>, Refused> {
    asked::read(pod, profiles)
}

/// Injects the sidecar, if that is asked for.
///
/// # Errors
/// What keeps the pod from being protected.
pub fn inject(pod: &Value, facts: &Facts<'_>, profiles: &Profiles) -> Result<Outcome, Refused> {
    if asked::is_past(pod) {
        return Ok(Outcome::Untouched);
    }
    let profile = match asked::read(pod, profiles)? {
        Asked::No => return Ok(Outcome::Untouched),
        Asked::Yes(profile) => profile,
        Asked::AsTheNamespaceSays if facts.inject_default && asked::has_perses(pod) => profiles.default_profile(),
        Asked::AsTheNamespaceSays => return Ok(Outcome::Untouched),
    };
    built::build(pod, facts, profile, profiles).map(|injected| Outcome::Injected(Box::new(injected)))
}

/// Looks at a pod after all webhooks: whatever decides who reaches Perses must be as we would build it.
///
/// # Errors
/// What another hand changed, or why the pod cannot be protected.
pub fn verify(pod: &Value, facts: &Facts<'_>, profiles: &Profiles) -> Result<bool, Refused> {
    let Outcome::Injected(injected) = inject(pod, facts, profiles)? else { return Ok(false) };
    built::differs(pod, &injected.pod, &injected.container).map_or(Ok(true), |what| {
        refused(format!(
            "{what} is not as perses-sidecar needs it: another webhook changed it, or ours was not called; \
             create the pod without a {SIDECAR} container of its own and let the webhook add it"
        ))
    })
}

#[cfg(test)]
mod tests;
