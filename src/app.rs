//! Build from a configuration, run, reload, stop.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::access::Access;
use crate::admin::{Admin, Check};
use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::config::{self, Config, Loaded, Reload, Watcher};
use crate::dial::{self, Dial};
use crate::gateway::{Gateway, Live};
use crate::identity::Identities;
use crate::listen::{self, Settings, Shared};
use crate::query::Queries;
use crate::telemetry::audit::Audit;
use crate::telemetry::logs;
use crate::telemetry::metrics::{Metrics, ReloadOutcome};
use crate::upstream::{BackendClient, Perses};

/// How often the configuration is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Requests open at one server behind us; more wait.
const IN_FLIGHT: usize = 512;

/// What is told to listeners when a configuration changes.
struct Channels {
    live: watch::Sender<Arc<Live>>,
    limits: watch::Sender<Settings>,
    tls: Option<watch::Sender<Arc<rustls::ServerConfig>>>,
    /// What is wrong with the newest file, for readiness.
    reload: watch::Sender<String>,
}

/// Runs until `stop` resolves, then drains. `ready` is called once when everything listens.
///
/// # Errors
/// What kept it from starting, for a person.
pub async fn run(
    path: &Path,
    loaded: Loaded,
    logs: Option<logs::Handle>,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(&Ports),
) -> Result<(), String> {
    let began = Instant::now();
    let metrics = Arc::new(Metrics::new());
    let Config { fixed, live: settings } = loaded.config;
    let fixed = Arc::new(fixed);
    let audit = Arc::new(Audit::new(&settings.audit, Arc::clone(&metrics)).map_err(|error| format!("audit: {error}"))?);
    let perses = perses_of(&fixed, &settings, &metrics)?;
    let tls = settings.tls.as_ref().map(|tls| Arc::clone(&tls.server));
    let live = Arc::new(build(Arc::new(settings), &perses, audit, None, &metrics)?);
    let config = Arc::clone(&live.config);

    let bind =
        async |address| TcpListener::bind(address).await.map_err(|error| format!("listen on {address}: {error}"));
    let gateway = bind(fixed.listen.gateway).await?;
    let https = match fixed.listen.https {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let admin = bind(fixed.listen.admin).await?;
    let address = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
    let ports =
        Ports { gateway: address(&gateway)?, https: https.as_ref().map(address).transpose()?, admin: address(&admin)? };

    let (live_sender, live_receiver) = watch::channel(live);
    let (limits_sender, limits_receiver) = watch::channel(Settings { limits: Arc::new(config.limits.clone()) });
    let (tls_sender, tls_receiver) = tls.map(watch::channel).unzip();
    let (reload_sender, reload_receiver) = watch::channel(String::new());
    let (stop_sender, stop_receiver) = watch::channel(false);
    let connections = affordable(config.limits.connections, std::fs::read_to_string("/proc/self/limits").ok());
    if connections < config.limits.connections {
        tracing::warn!(connections, "limits.connections is lowered to what this process may open (ulimit -n)");
    }
    let shared = Shared::new(connections, metrics.connections());
    // Probes and scrapes must get through when people have taken all connections.
    let probes = Shared::new(256, metrics.connections());

    let door = Gateway::new(live_receiver.clone(), Arc::clone(&fixed), Arc::clone(&metrics));
    let probe = {
        let perses = Arc::clone(&perses);
        Arc::new(move || -> std::pin::Pin<Box<dyn Future<Output = bool> + Send>> {
            let perses = Arc::clone(&perses);
            Box::pin(async move { perses.is_healthy().await })
        })
    };
    let checks = {
        let (perses, reload) = (Arc::clone(&perses), reload_receiver);
        Arc::new(move || -> std::pin::Pin<Box<dyn Future<Output = Vec<Check>> + Send>> {
            let (perses, problem) = (Arc::clone(&perses), reload.borrow().clone());
            Box::pin(async move { readiness(&perses, problem).await })
        })
    };
    let admin_door = Admin { metrics: Arc::clone(&metrics), checks, perses: probe };

    let mut servers = tokio::task::JoinSet::new();
    let gateway_tls = if fixed.listen.gateway_tls { tls_receiver.clone() } else { None };
    servers.spawn(listen::serve(
        gateway,
        gateway_tls,
        limits_receiver.clone(),
        shared.clone(),
        door.clone(),
        stop_receiver.clone(),
    ));
    if let Some(https) = https {
        servers.spawn(listen::serve(https, tls_receiver, limits_receiver.clone(), shared, door, stop_receiver.clone()));
    }
    let admin_task = tokio::spawn(listen::serve(admin, None, limits_receiver, probes, admin_door, {
        // Outlives the others, so that a drain can be watched.
        let (keep, forever) = watch::channel(false);
        std::mem::forget(keep);
        forever
    }));
    tracing::info!(gateway = %ports.gateway, admin = %ports.admin, ms = began.elapsed().as_millis(), "Ready");
    ready(&ports);

    let channels = Channels { live: live_sender, limits: limits_sender, tls: tls_sender, reload: reload_sender };
    let mut watcher = Watcher::new(path, loaded.files, LOOK);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            reload = watcher.next() => apply(reload, &fixed, &channels, &metrics, logs.as_ref()),
        }
    }
    tracing::info!("Stopping: no new connections, what has begun is finished");
    let _ = stop_sender.send(true);
    while servers.join_next().await.is_some() {}
    admin_task.abort();
    tracing::info!("Stopped");
    Ok(())
}

/// How many connections the open files of the process are enough for: each may need another one to a server behind us, and
/// some are kept for everything else. `limits` is the text of `/proc/self/limits`, where there is one.
fn affordable(wanted: usize, limits: Option<String>) -> usize {
    const KEPT: usize = 96;
    let files = limits.as_deref().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_whitespace().next()?.parse::<usize>().ok()
    });
    files.map_or(wanted, |files| wanted.min((files.saturating_sub(KEPT) / 2).max(8)))
}

/// The addresses that are listened on.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// `listen.gateway`
    pub gateway: std::net::SocketAddr,
    /// `listen.https`
    pub https: Option<std::net::SocketAddr>,
    /// `listen.admin`
    pub admin: std::net::SocketAddr,
}

async fn readiness(perses: &Perses, problem: String) -> Vec<Check> {
    let healthy = perses.is_healthy().await;
    let config = if problem.is_empty() {
        "in use".to_owned()
    } else {
        format!("the last good one is in use; the file is wrong: {problem}")
    };
    vec![
        Check { name: "perses", ok: healthy, detail: if healthy { "answers" } else { "does not answer" }.to_owned() },
        Check { name: "config", ok: true, detail: config },
    ]
}

/// Puts a new configuration in place, or says why not. Everything is built before anything is replaced.
fn apply(
    reload: Reload,
    fixed: &config::Fixed,
    channels: &Channels,
    metrics: &Arc<Metrics>,
    logs: Option<&logs::Handle>,
) {
    let refuse = |problem: String| {
        tracing::error!(problem, "The configuration is wrong; the last good one stays in use");
        metrics.reload(ReloadOutcome::Bad);
        channels.reload.send_replace(problem);
    };
    let loaded = match reload {
        Reload::Good(loaded) => loaded,
        Reload::Bad(problems) => {
            return refuse(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        }
    };
    let Config { fixed: new_fixed, live: settings } = loaded.config;
    let tls = settings.tls.as_ref().map(|tls| Arc::clone(&tls.server));
    let before = Arc::clone(&channels.live.borrow());
    let audit = if before.config.audit == settings.audit {
        Arc::clone(&before.audit)
    } else {
        match Audit::new(&settings.audit, Arc::clone(metrics)) {
            Ok(audit) => Arc::new(audit),
            Err(error) => return refuse(format!("audit: {error}")),
        }
    };
    // It takes its bounds along, and keeps its connections as long as they are the same.
    let bounds = |limits: &config::Limits| (limits.perses_timeout, limits.answer, limits.upstream_connections);
    let perses = if bounds(&before.config.limits) == bounds(&settings.limits) {
        Arc::clone(&before.perses)
    } else {
        match perses_of(fixed, &settings, metrics) {
            Ok(perses) => perses,
            Err(problem) => return refuse(problem),
        }
    };
    let level = settings.telemetry.log_level;
    let limits = Settings { limits: Arc::new(settings.limits.clone()) };
    let live = match build(Arc::new(settings), &perses, audit, Some(&before), metrics) {
        Ok(live) => live,
        Err(problem) => return refuse(problem),
    };
    channels.live.send_replace(Arc::new(live));
    channels.limits.send_replace(limits);
    if let (Some(channel), Some(tls)) = (&channels.tls, tls) {
        channel.send_replace(tls);
    }
    if let Some(logs) = logs {
        logs.set(level);
    }
    if new_fixed == *fixed {
        metrics.reload(ReloadOutcome::Good);
        channels.reload.send_replace(String::new());
        tracing::info!("A changed configuration is in use");
    } else {
        metrics.reload(ReloadOutcome::Restart);
        channels.reload.send_replace("listen and perses.url take effect after a restart".to_owned());
        tracing::warn!("A changed configuration is in use, but listen and perses take effect after a restart only");
    }
}

/// Builds what a configuration says. What is remembered about people survives as long as nothing that decides it changed.
fn build(
    settings: Arc<config::Live>,
    perses: &Arc<Perses>,
    audit: Arc<Audit>,
    before: Option<&Live>,
    metrics: &Arc<Metrics>,
) -> Result<Live, String> {
    let kept = before.filter(|before| {
        config::Cluster { ca: settings.cluster.ca.clone(), ..before.config.cluster.clone() } == settings.cluster
            && before.config.access == settings.access
            && before.config.limits.namespaces == settings.limits.namespaces
            && before.config.limits.cached_reviews == settings.limits.cached_reviews
    });
    let (cluster, identities, access) = match kept {
        Some(before) => (Arc::clone(&before.cluster), Arc::clone(&before.identities), Arc::clone(&before.access)),
        None => {
            let cluster = Arc::new(Cluster::new(&settings.cluster, Arc::clone(metrics))?);
            let entries = settings.limits.cached_reviews;
            let identities = Identities::new(Arc::clone(&cluster), &settings.access, entries, Arc::clone(metrics))?;
            let access = Access::new(Arc::clone(&cluster), &settings.access, &settings.limits, Arc::clone(metrics));
            (cluster, Arc::new(identities), Arc::new(access))
        }
    };
    let mut clients = Vec::with_capacity(settings.backends.len());
    for backend in &settings.backends {
        let dial = dial_to(&backend.url, backend.ca.clone(), &settings)?;
        let client = BackendClient::new(Arc::clone(backend), dial, Arc::clone(metrics))?;
        clients.push(Arc::new(client));
    }
    // The last that can fail, and the only thing that is changed in place.
    if kept.is_some_and(|before| before.config.cluster.ca != settings.cluster.ca) {
        cluster.renew(&settings.cluster)?;
    }
    Ok(Live {
        catalog: Catalog::new(Arc::clone(perses), Arc::clone(&access), &settings),
        queries: Queries::new(Arc::clone(perses), clients, &settings.limits, Arc::clone(metrics)),
        perses: Arc::clone(perses),
        config: settings,
        cluster,
        identities,
        access,
        audit,
    })
}

fn perses_of(fixed: &config::Fixed, settings: &config::Live, metrics: &Arc<Metrics>) -> Result<Arc<Perses>, String> {
    let dial = dial_to(&fixed.perses_url, None, settings)?;
    let limits = &settings.limits;
    let perses = Perses::new(dial, &fixed.api_prefix, limits.perses_timeout, limits.answer, Arc::clone(metrics));
    Ok(Arc::new(perses))
}

fn dial_to(origin: &config::Origin, roots: Option<Vec<u8>>, settings: &config::Live) -> Result<Dial, String> {
    Dial::new(&dial::Settings {
        origin: origin.clone(),
        roots,
        idle_connections: settings.limits.upstream_connections,
        in_flight: IN_FLIGHT,
        connect: Duration::from_secs(3),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_what_lies_behind() {
        let limits = |files: &str| {
            Some(format!(
                "Max processes             95931   95931  processes\nMax open files            {files}  1048576  files\n"
            ))
        };
        assert_eq!(affordable(4096, limits("1048576")), 4096);
        assert_eq!(affordable(4096, limits("1024")), 464);
        assert_eq!(affordable(4096, limits("20")), 8, "a few in any case");
        assert_eq!(affordable(4, limits("1048576")), 4, "never more than configured");
        assert_eq!((affordable(4096, limits("unlimited")), affordable(4096, None)), (4096, 4096));
    }
}
