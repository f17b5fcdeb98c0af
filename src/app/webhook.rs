//! `perses-sidecar webhook`: build, run, reload, stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OnceCell, watch};

use super::{KEPT, LOOK, affordable, bind};
use crate::admin::{Admin, Check};
use crate::cluster::Cluster;
use crate::config::{self, Loaded, Reload, Watcher};
use crate::listen::{self, Settings, Shared};
use crate::telemetry::logs;
use crate::telemetry::metrics::{Metrics, ReloadOutcome};
use crate::webhook::{Live, Webhook};

/// The addresses that are listened on.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// `listen.webhook`
    pub webhook: std::net::SocketAddr,
    /// `listen.admin`
    pub admin: std::net::SocketAddr,
}

/// Runs until `stop` resolves, then drains. `ready` is called once when everything listens.
///
/// # Errors
/// What kept it from starting, for a person.
pub async fn run(
    path: &Path,
    loaded: Loaded<config::Webhook>,
    logs: Option<logs::Handle>,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(&Ports),
) -> Result<(), String> {
    // First of all: what changes from here on is noticed.
    let mut watcher = Watcher::new(path, loaded.files, LOOK, loaded.again);
    let metrics = Arc::new(Metrics::new());
    let settings = loaded.config;
    let (webhook, admin) = (bind("webhook", settings.listen).await?, bind("admin", settings.admin).await?);
    let address = |listener: &tokio::net::TcpListener| listener.local_addr().map_err(|error| error.to_string());
    let ports = Ports { webhook: address(&webhook)?, admin: address(&admin)? };
    let fixed = (settings.listen, settings.admin);
    let (live, tls) = build(&settings, &metrics)?;
    let (live_sender, live_receiver) = watch::channel(live);
    let (tls_sender, tls_receiver) = watch::channel(tls);
    let (limits_sender, limits) = watch::channel(Settings { limits: Arc::new(settings.limits.clone()) });
    let (problem_sender, problem) = watch::channel(String::new());
    let (leaving_sender, leaving) = watch::channel(false);
    let (stop_sender, stop_receiver) = watch::channel(false);
    let affordable = affordable(std::fs::read_to_string("/proc/self/limits").ok());

    let checks = Arc::new(move || -> std::pin::Pin<Box<dyn Future<Output = Vec<Check>> + Send>> {
        let (problem, leaving) = (problem.borrow().clone(), *leaving.borrow());
        let config = if problem.is_empty() { "in use".to_owned() } else { problem };
        let mut checks = vec![Check { name: "config", ok: true, detail: config }];
        if leaving {
            checks.push(Check { name: "stopping", ok: false, detail: "asked to stop".to_owned() });
        }
        Box::pin(async move { checks })
    });
    let admin_door = Admin { metrics: Arc::clone(&metrics), checks, perses: Arc::new(|_| None) };
    let door = Webhook { live: live_receiver, metrics: Arc::clone(&metrics), minor: Arc::new(OnceCell::new()) };
    let mut servers = tokio::task::JoinSet::new();
    let shared = Shared::new((1, affordable), metrics.connections());
    servers.spawn(listen::serve(webhook, Some(tls_receiver), limits.clone(), shared, door, stop_receiver));
    let (keep, forever) = watch::channel(false);
    let mut watching = tokio::task::JoinSet::new();
    let probes = Shared::new((256, 256), metrics.connections());
    watching.spawn(listen::serve(admin, None, limits, probes, admin_door, forever));
    tracing::info!(webhook = %ports.webhook, admin = %ports.admin, "Ready");
    ready(&ports);

    tokio::pin!(stop);
    loop {
        let reload = tokio::select! {
            () = &mut stop => break,
            reload = watcher.next() => reload,
        };
        let taken = match reload {
            Reload::Good(loaded) => {
                build(&loaded.config, &metrics).map(|built| (loaded.config, built)).inspect_err(|_| watcher.retry())
            }
            Reload::Bad(problems) => Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        };
        match taken {
            Ok((settings, (live, tls))) => {
                live_sender.send_replace(live);
                tls_sender.send_replace(tls);
                limits_sender.send_replace(Settings { limits: Arc::new(settings.limits) });
                if let Some(logs) = &logs {
                    logs.set(settings.telemetry.log_level);
                }
                let same = fixed == (settings.listen, settings.admin);
                metrics.reload(if same { ReloadOutcome::Good } else { ReloadOutcome::Restart });
                problem_sender.send_replace(
                    if same { "" } else { "in use, but listen as it was at the start: restart" }.to_owned(),
                );
                tracing::info!("A changed configuration is in use");
            }
            Err(problem) => {
                let problem = format!("{KEPT}{problem}");
                if *problem_sender.borrow() != problem {
                    tracing::error!(problem, "The configuration is wrong; the last good one stays in use");
                    metrics.reload(ReloadOutcome::Bad);
                    problem_sender.send_replace(problem);
                }
            }
        }
    }
    // The API server goes on calling until it has heard that we leave.
    leaving_sender.send_replace(true);
    let linger = limits_sender.borrow().limits.linger;
    if linger > Duration::ZERO {
        tokio::time::sleep(linger).await;
    }
    tracing::info!("Stopping: no new connections, what has begun is finished");
    let _ = stop_sender.send(true);
    while servers.join_next().await.is_some() {}
    drop(keep);
    tracing::info!("Stopped");
    Ok(())
}

type Built = (Arc<Live>, Arc<rustls::ServerConfig>);

fn build(settings: &config::Webhook, metrics: &Arc<Metrics>) -> Result<Built, String> {
    let missing = |what: &str| format!("{what} is missing");
    let tls = settings.tls.as_ref().ok_or_else(|| missing("tls"))?;
    let cluster = settings.cluster.as_ref().ok_or_else(|| missing("cluster"))?;
    let cluster = Arc::new(Cluster::new(cluster, Arc::clone(metrics))?);
    let live = Live { profiles: settings.profiles.clone(), cluster, largest: settings.limits.body };
    Ok((Arc::new(live), Arc::clone(&tls.server)))
}
