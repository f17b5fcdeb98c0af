//! `cluster`: the Kubernetes API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::decode::Surroundings;
use super::section::{Notes, SECOND, Section};
use super::{Origin, units};

const POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// `cluster`: the Kubernetes API. All of it defaults to what a pod finds in its own file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `cluster.url`, default from `KUBERNETES_SERVICE_HOST` and `_PORT`.
    pub url: Origin,
    /// The PEM text of `cluster.ca_file`, in which there is an authority that can be used.
    pub ca: Vec<u8>,
    /// `cluster.token_file`: our own credential, read anew for every client that is built.
    pub token_file: PathBuf,
    /// `cluster.timeout`, default 5 s: one review.
    pub timeout: Duration,
    /// `cluster.reviews_in_flight`, default 64: how many requests we have open at the API server at most.
    pub in_flight: usize,
    /// `cluster.reviews_per_second`, default 500: and how many we begin in a second.
    pub per_second: u32,
}

pub(super) fn read(root: &mut Section<'_>, around: &dyn Surroundings, notes: &mut Notes) -> Option<Cluster> {
    let mut cluster = root.section("cluster", notes);
    let pod = around.variable("KUBERNETES_SERVICE_HOST").and_then(|host| {
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let port = around.variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        units::origin(&format!("https://{host}:{port}")).ok()
    });
    let read = |text: &str| {
        let origin = units::origin(text)?;
        if origin.tls { Ok(Some(origin)) } else { Err("the Kubernetes API is asked over https only".to_owned()) }
    };
    let given = cluster.has("url");
    let url = cluster.value("url", pod, notes, read, |url| url.as_ref().map_or_else(String::new, ToString::to_string));
    if url.is_none() && !given && !around.is_elsewhere() {
        cluster.problem(notes, "url", "is required outside of a pod (KUBERNETES_SERVICE_HOST is not set)");
    }
    let ca_file = cluster.file("ca_file", notes).unwrap_or_else(|| Path::new(POD).join("ca.crt"));
    let token_file = cluster.file("token_file", notes).unwrap_or_else(|| Path::new(POD).join("token"));
    let ca = cluster.authorities("ca_file", &ca_file, around, notes);
    cluster.contents("token_file", &token_file, around, notes);
    let timeout = cluster.duration("timeout", 5 * SECOND, (SECOND / 10, 60 * SECOND), notes);
    let in_flight = cluster.count("reviews_in_flight", 64, (1, 10_000), notes);
    let per_second = cluster.count("reviews_per_second", 500, (1, 100_000), notes);
    cluster.finish(notes);
    Some(Cluster { url: url?, ca: ca?, token_file, timeout, in_flight, per_second })
}
