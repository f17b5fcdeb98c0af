//! What an administrator chose for the pods of one annotation value.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::quantity::Quantity;

/// Requests and limits of the sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Resources {
    /// `cpu_request`, default `50m`.
    pub cpu_request: Quantity,
    /// `cpu_limit`, default `1`.
    pub cpu_limit: Quantity,
    /// `memory_request`, default `128Mi`.
    pub memory_request: Quantity,
    /// `memory_limit`, default `512Mi`.
    pub memory_limit: Quantity,
}

/// What an image runs when its container gives neither command nor arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageArguments {
    /// The image without tag and digest.
    pub image: String,
    /// Its own arguments (CMD).
    pub arguments: Vec<String>,
}

/// One named block of `injection`.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// `default`, or the name under `profiles`.
    pub name: String,
    /// `image`: the sidecar's, with tag or digest.
    pub image: String,
    /// `pull_policy`, default `IfNotPresent`.
    pub pull_policy: String,
    /// `pull_secrets`: names of Secrets, added to the pod's own.
    pub pull_secrets: Vec<String>,
    /// Requests and limits.
    pub resources: Resources,
    /// `https_port`, default 8443; `off` adds none.
    pub https_port: Option<u16>,
    /// `health_port`, default 9081.
    pub health_port: u16,
    /// `upstream_port`, default 9080: where Perses listens on the loopback.
    pub upstream_port: u16,
    /// `tls_secret`, default `perses-sidecar-tls`: the pair of the HTTPS port.
    pub tls_secret: String,
    /// `keys_secret`, default `perses-sidecar-keys`: cookie keys.
    pub keys_secret: String,
    /// `config_map`, default `perses-sidecar`: what the namespace may set.
    pub config_map: String,
    /// `ca_bundles`: ConfigMaps whose keys are mounted, each if it is there.
    pub ca_bundles: Vec<String>,
    /// `image_args`, behind those that are known.
    pub image_arguments: Vec<ImageArguments>,
    /// `service_account`, for the Perses resource.
    pub service_account: Option<String>,
    /// `sidecar`: the sidecar's own configuration.
    pub sidecar: Map<String, Value>,
}

/// All of `injection`.
#[derive(Clone, Debug, PartialEq)]
pub struct Profiles {
    default: Profile,
    named: BTreeMap<String, Profile>,
}

impl Profiles {
    /// The profile of `"true"`, and the others by name.
    #[must_use]
    pub fn new(default: Profile, named: BTreeMap<String, Profile>) -> Self {
        Self { default, named }
    }

    /// What `"true"` means.
    #[must_use]
    pub fn default_profile(&self) -> &Profile {
        &self.default
    }

    /// One by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.named.get(name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    /// Whether an image, of whatever version, is one of ours.
    pub(super) fn is_ours(&self, image: &str) -> bool {
        let wanted = repository(image);
        std::iter::once(&self.default).chain(self.named.values()).any(|profile| repository(&profile.image) == wanted)
    }
}

/// An image's name without tag and digest, in full: `perses` of Docker's registry is `docker.io/library/perses`.
pub(super) fn repository(image: &str) -> String {
    let image = image.split('@').next().unwrap_or_default();
    let slash = image.rfind('/').map_or(0, |at| at + 1);
    let bare = match image[slash..].rfind(':') {
        Some(at) => &image[..slash + at],
        None => image,
    };
    match bare.split_once('/') {
        None => format!("docker.io/library/{bare}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => bare.to_owned(),
        Some(_) => format!("docker.io/{bare}"),
    }
}

#[cfg(test)]
mod tests {
    use super::repository;

    #[test]
    fn images_are_compared_without_their_versions() {
        for (image, name) in [
            ("persesdev/perses", "docker.io/persesdev/perses"),
            ("persesdev/perses:v0.54.0", "docker.io/persesdev/perses"),
            ("docker.io/persesdev/perses@sha256:00", "docker.io/persesdev/perses"),
            ("localhost:5000/x/perses:1@sha256:00", "localhost:5000/x/perses"),
            ("perses:1", "docker.io/library/perses"),
            ("registry.example/perses", "registry.example/perses"),
            ("", "docker.io/library/"),
        ] {
            assert_eq!(repository(image), name, "{image}");
        }
    }
}
