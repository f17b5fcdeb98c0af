//! What was configured? One YAML file becomes a checked [`Config`]; nothing else in the program sees the text.
//!
//! [`Config`] is split by type into what is read once at the start ([`Fixed`]) and what may change while the process
//! runs ([`Live`]). Each section has a module here, with its types and how they are read. A file that does not check is
//! reported whole, every problem with its line and path, and never used.

mod access;
mod backends;
mod cache;
mod cluster;
mod dashboards;
mod decode;
mod injection;
mod limits;
mod listen;
mod login;
mod overrides;
mod probes;
mod section;
mod shared;
mod telemetry;
mod tls;
mod units;
mod watch;
mod workloads;

use std::net::IpAddr;
use std::sync::Arc;

pub use access::{Access, Permission};
pub use backends::{Backend, BackendKind, VirtualDatasource};
pub use cache::{Cache, CacheMode, ErrorTerms, InstantTerms, RangeTerms, Upstream, WindowTerms};
pub use cluster::Cluster;
pub use dashboards::{Dashboards, template_files};
pub use decode::{Elsewhere, Loaded, Loader, Surroundings, System, as_json, read, read_injected, read_webhook};
pub use injection::Webhook;
pub use limits::Limits;
pub use listen::{Control, Fixed, Listen};
pub use login::{CookieKey, Login, Oidc, OpenShift, joined};
pub use overrides::Override;
pub use probes::Probe;
pub use shared::Shared;
pub use telemetry::{Audit, LogLevel, Telemetry};
pub use tls::{Tls, authorities};
pub(crate) use units::{duration, write_duration as written};
pub use watch::{Reload, Watcher, load, load_injected, load_profiles, load_webhook};
pub use workloads::Workloads;

pub use crate::yaml::Problem;

/// A whole checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What needs a restart.
    pub fixed: Fixed,
    /// What does not.
    pub live: Live,
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Its first address.
    pub address: IpAddr,
    /// How many leading bits are fixed.
    pub prefix: u8,
}

impl Cidr {
    /// Whether an address lies in the block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        use IpAddr::{V4, V6};
        match (self.address, address.to_canonical()) {
            (V4(ours), V4(theirs)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                ours.to_bits() & mask == theirs.to_bits() & mask
            }
            (V6(ours), V6(theirs)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                ours.to_bits() & mask == theirs.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// Scheme, host and port of a server we speak to, with an optional base path; written without a trailing `/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether to speak TLS.
    pub tls: bool,
    /// Host name or address, lower case, IPv6 in brackets.
    pub host: String,
    /// Port, always written out.
    pub port: u16,
    /// Empty, or a path that begins with `/` and does not end with one.
    pub base: String,
}

impl Origin {
    /// Reads an absolute `http` or `https` URL without user, query or fragment.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        units::origin(text)
    }

    /// Whether the host is this machine by its name or address.
    fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.base)
    }
}

/// Settings that a reload may change.
#[derive(Clone, Debug)]
pub struct Live {
    /// `tls`: certificate and policy of our TLS ports.
    pub tls: Option<Tls>,
    /// `cluster`: the Kubernetes API.
    pub cluster: Cluster,
    /// `login.external_url`: where people reach us.
    pub external_url: Option<String>,
    /// `login`: how people log in, if they do.
    pub login: Option<Arc<Login>>,
    /// `login.frame_ancestors`: origins that may show our pages and the UI in a frame.
    pub frame_ancestors: Vec<String>,
    /// `login.contact`: whom to ask for rights, in words for people; may be empty.
    pub contact: String,
    /// `access`.
    pub access: Access,
    /// `metrics_backends`, by name.
    pub backends: Vec<Arc<Backend>>,
    /// `cache`.
    pub cache: Cache,
    /// `workloads`.
    pub workloads: Workloads,
    /// `dashboards`.
    pub dashboards: Dashboards,
    /// `limits`.
    pub limits: Limits,
    /// `telemetry`.
    pub telemetry: Telemetry,
    /// `audit`.
    pub audit: Audit,
}

#[cfg(test)]
mod tests;
