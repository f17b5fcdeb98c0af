//! Does Perses answer where it must not: on an address that others reach? It catches every way in which moving it to the
//! loopback failed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::admin::Check;
use crate::config::Fixed;
use crate::telemetry::metrics::Metrics;

/// An own address answers at once or not at all.
const PATIENCE: Duration = Duration::from_millis(500);

/// Nothing where our own addresses are not known.
pub(super) async fn check(fixed: &Fixed, metrics: &Metrics) -> Option<Check> {
    if fixed.addresses.is_empty() {
        return None;
    }
    // Where we ask it ourselves it may answer.
    let bare = fixed.perses_url.host.trim_start_matches('[').trim_end_matches(']');
    let ours = |address: &IpAddr| match bare.parse::<IpAddr>() {
        Ok(host) => host == *address,
        Err(_) => address.is_loopback(),
    };
    let mut answers = false;
    for address in fixed.addresses.iter().filter(|address| !ours(address)) {
        let place = SocketAddr::from((*address, fixed.perses_url.port));
        let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(place)).await;
        answers |= connected.is_ok_and(|connected| connected.is_ok());
    }
    metrics.exposed(answers);
    let detail = if answers {
        tracing::error!(
            "Perses answers on the pod's own address, so anybody reaches it past the sidecar; it must listen on 127.0.0.1"
        );
        "Perses answers on the pod's own address; it must listen on 127.0.0.1"
    } else {
        "on the loopback alone"
    };
    Some(Check { name: "exposure", ok: !answers, detail: detail.to_owned() })
}
