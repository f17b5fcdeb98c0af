//! `listen` and `perses`: what needs a restart.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::decode::Surroundings;
use super::section::{Notes, Section};
use super::{Cidr, Origin, Probe, probes, units};
use crate::injection::ADDRESSES_VARIABLE;

/// Settings that are read once: sockets, and the server behind us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// `listen`: where we listen.
    pub listen: Listen,
    /// `perses.url`: the server behind us, an origin such as `http://127.0.0.1:8081`.
    pub perses_url: Origin,
    /// `perses.api_prefix`: empty, or a path such as `/perses`.
    pub api_prefix: String,
    /// `perses.probes`: what kubelet asks of Perses through us, by the word behind `/-/upstream/`.
    pub probes: BTreeMap<&'static str, Probe>,
    /// Our own addresses, where Perses must not answer: `PERSES_SIDECAR_POD_IPS`.
    pub addresses: Vec<IpAddr>,
}

/// `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// `listen.gateway`, default `0.0.0.0:8080`.
    pub gateway: SocketAddr,
    /// `listen.gateway_tls`: whether that port speaks TLS, default false.
    pub gateway_tls: bool,
    /// `listen.https`, default off.
    pub https: Option<SocketAddr>,
    /// `listen.admin`, default `0.0.0.0:9081`.
    pub admin: SocketAddr,
    /// `listen.control`, default `127.0.0.1:9901`.
    pub control: Control,
    /// `listen.trusted_proxies`: addresses or CIDR blocks that may set the client's address.
    pub trusted_proxies: Vec<Cidr>,
}

/// `listen.control`: where operators of this pod reach us, and nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// An address of the loopback.
    Loopback(SocketAddr),
    /// `unix:PATH`: a socket in the file system, for whoever may write to its folder and is us.
    Unix(PathBuf),
}

impl Control {
    /// `127.0.0.1:9901`
    pub const DEFAULT: Self =
        Self::Loopback(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9901));

    /// Reads `ADDRESS:PORT` of the loopback, or `unix:PATH` with a path from the root.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            // The system takes 108 bytes with the zero at their end, and a new socket has its name with 4 bytes more first.
            return match path.as_os_str().len() {
                ..=103 if path.is_absolute() && path.file_name().is_some() => Ok(Self::Unix(path)),
                ..=103 => Err(format!("expected a path from the root such as unix:/run/perses/control, not {text:?}")),
                _ => Err("the path is longer than the 103 bytes that a socket may have".to_owned()),
            };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Loopback(address)),
            Ok(_) => Err(format!("{text:?} can be reached from elsewhere; use the loopback or unix:PATH")),
            Err(_) => Err(format!("expected 127.0.0.1:9901, [::1]:9901 or unix:PATH, not {text:?}")),
        }
    }
}

impl std::fmt::Display for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loopback(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(super) fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("expected an address and port such as 0.0.0.0:8080 or [::]:8080, not {text:?}"))
}

pub(super) fn read(root: &mut Section<'_>, around: &dyn Surroundings, notes: &mut Notes) -> Fixed {
    let mut listen = root.section("listen", notes);
    listen.foreign("webhook", notes, "stands in the file of perses-sidecar webhook");
    let show = ToString::to_string;
    let parsed = Listen {
        gateway: listen.value("gateway", SocketAddr::from(([0, 0, 0, 0], 8080)), notes, socket, show),
        gateway_tls: listen.flag("gateway_tls", false, notes),
        https: listen.optional("https", notes, socket, show),
        admin: listen.value("admin", SocketAddr::from(([0, 0, 0, 0], 9081)), notes, socket, show),
        control: listen.value("control", Control::DEFAULT, notes, Control::parse, ToString::to_string),
        trusted_proxies: listen.list("trusted_proxies", notes, units::cidr),
    };
    let control = match parsed.control {
        Control::Loopback(address) => Some(address),
        Control::Unix(_) => None,
    };
    let ports = [Some(parsed.gateway), parsed.https, Some(parsed.admin), control];
    for (index, left) in ports.iter().flatten().enumerate() {
        if ports.iter().flatten().skip(index + 1).any(|right| left == right && left.port() != 0) {
            listen.problem(notes, "gateway", format!("two listeners share {left}"));
        }
    }
    listen.finish(notes);

    let mut perses = root.section("perses", notes);
    let default = Origin { tls: false, host: "127.0.0.1".to_owned(), port: 8081, base: String::new() };
    let read = |text: &str| {
        let origin = units::origin(text)?;
        if !origin.base.is_empty() {
            return Err("must have no path; a prefix is given as api_prefix".to_owned());
        }
        if !origin.tls && !origin.is_loopback() {
            return Err("plain http is spoken on the loopback only; use https for another host".to_owned());
        }
        Ok(origin)
    };
    let perses_url = perses.value("url", default, notes, read, ToString::to_string);
    let prefix = |text: &str| {
        let trimmed = text.trim_end_matches('/');
        let good = |segment: &str| {
            !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if trimmed.is_empty() {
            return Ok(String::new());
        }
        match trimmed.strip_prefix('/') {
            Some(rest) if rest.split('/').all(good) => Ok(trimmed.to_owned()),
            _ => Err(format!("expected a path such as /perses, not {text:?}")),
        }
    };
    let api_prefix = perses.value("api_prefix", String::new(), notes, prefix, Clone::clone);
    let probes = probes::read(&mut perses, notes);
    perses.finish(notes);
    // What is no address is none of ours; kubelet writes this one.
    let addresses = around.variable(ADDRESSES_VARIABLE).unwrap_or_default();
    let addresses = addresses.split(',').filter_map(|text| text.trim().parse().ok()).collect();
    Fixed { listen: parsed, perses_url, api_prefix, probes, addresses }
}
