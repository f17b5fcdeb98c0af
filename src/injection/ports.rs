//! Which ports the sidecar takes: Perses' own, and others that nobody in the pod has.

use std::collections::BTreeSet;

use serde_json::Value;

use super::asked::{PREFIX, Wishes};
use super::profile::Profile;
use super::{Refused, refused};

/// The ports of one injected pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) public: u16,
    pub(super) upstream: u16,
    pub(super) health: u16,
    pub(super) https: Option<u16>,
}

/// Every port that containers declare, or that kubelet asks, Perses' own among them.
fn declared(pod: &Value) -> BTreeSet<u16> {
    let mut found = BTreeSet::new();
    let mut take = |port: Option<&Value>| {
        let number = port.and_then(|port| port.as_u64().or_else(|| port.as_str()?.parse().ok()));
        found.extend(number.and_then(|port| u16::try_from(port).ok()));
    };
    let lists =
        ["/spec/containers", "/spec/initContainers"].into_iter().filter_map(|list| pod.pointer(list)?.as_array());
    for container in lists.flatten() {
        for entry in container.get("ports").and_then(Value::as_array).into_iter().flatten() {
            take(entry.get("containerPort"));
        }
        for place in
            ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"]
        {
            for kind in ["httpGet", "tcpSocket", "grpc"] {
                take(container.pointer(place).and_then(|handler| handler.get(kind)?.get("port")));
            }
        }
    }
    found
}

impl Ports {
    /// What the pod wishes for is taken or refused, what it leaves open is the next free one.
    pub(super) fn choose(pod: &Value, public: u16, wishes: &Wishes, profile: &Profile) -> Result<Self, Refused> {
        let mut taken = declared(pod);
        taken.insert(public);
        let wished = [
            ("upstream-port", wishes.upstream_port),
            ("health-port", wishes.health_port),
            ("https-port", wishes.https_port),
        ];
        for (word, port) in wished {
            if let Some(port) = port
                && !taken.insert(port)
            {
                return refused(format!(
                    "the annotation {PREFIX}{word} names port {port}, which is taken in this pod; choose another one"
                ));
            }
        }
        let mut free = |wished: Option<u16>, first: u16| match wished {
            Some(port) => Ok(port),
            None => (first..=u16::MAX)
                .chain(1024..first)
                .find(|port| taken.insert(*port))
                .ok_or_else(|| Refused("no port is free in this pod".to_owned())),
        };
        Ok(Self {
            public,
            upstream: free(wishes.upstream_port, profile.upstream_port)?,
            health: free(wishes.health_port, profile.health_port)?,
            https: match (wishes.https_port, profile.https_port) {
                (None, None) => None,
                (wished, first) => Some(free(wished, first.unwrap_or(8443))?),
            },
        })
    }
}
