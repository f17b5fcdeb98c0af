//! Build from a configuration, run, reload, stop.

mod exposure;
pub mod webhook;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::access::Access;
use crate::admin::{Admin, Check, Probed};
use crate::cache::{Cache, Clock};
use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::config::{self, Config, Loaded, Reload, Watcher};
use crate::control::{self, Control, InUse};
use crate::dashboards::TemplateProblem;
use crate::dial::{self, Dial};
use crate::gateway::{Gateway, Live};
use crate::identity::Identities;
use crate::identity::login::{Login, Memory};
use crate::listen::{self, Settings, Shared};
use crate::query::Queries;
use crate::telemetry::audit::Audit;
use crate::telemetry::logs;
use crate::telemetry::metrics::{Metrics, ReloadOutcome};
use crate::upstream::{BackendClient, Perses};
use crate::workloads::Workloads;

/// How often the configuration is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What readiness says before the problem with a file.
const KEPT: &str = "the last good one is in use; the file is wrong: ";
/// Requests open at one server behind us; more wait.
const IN_FLIGHT: usize = 512;

/// What is told to listeners when a configuration changes.
struct Channels {
    live: watch::Sender<Arc<Live>>,
    limits: watch::Sender<Settings>,
    /// What the control listener shows.
    shown: watch::Sender<Arc<InUse>>,
    tls: Option<watch::Sender<Arc<rustls::ServerConfig>>>,
    /// What an operator should know of the newest file, for readiness; empty when it is in use.
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
    // First of all: what changes from here on is noticed.
    let mut watcher = Watcher::new(path, loaded.files, LOOK, loaded.again);
    let metrics = Arc::new(Metrics::new());
    let refused = refused_templates(&loaded.templates);
    let Config { fixed, live: settings } = loaded.config;
    let fixed = Arc::new(fixed);
    let audit = Arc::new(Audit::new(&settings.audit, Arc::clone(&metrics))?);
    let tls = settings.tls.as_ref().map(|tls| Arc::clone(&tls.server));
    let sessions = Arc::new(Memory::new()?);
    metrics.count_sessions({
        let sessions = Arc::clone(&sessions);
        move || sessions.sessions(SystemTime::now())
    });
    let live = Arc::new(build(Arc::new(settings), &fixed, audit, None, &metrics, &sessions)?);
    let config = Arc::clone(&live.config);

    let gateway = bind("gateway", fixed.listen.gateway).await?;
    let https = match fixed.listen.https {
        Some(address) => Some(bind("https", address).await?),
        None => None,
    };
    let admin = bind("admin", fixed.listen.admin).await?;
    let control = control::bind(&fixed.listen.control).await?;
    let address = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
    let ports = Ports {
        gateway: address(&gateway)?,
        https: https.as_ref().map(address).transpose()?,
        admin: address(&admin)?,
        control: match &control {
            listen::Listener::Tcp(listener) => Some(address(listener)?),
            listen::Listener::Unix(_) => None,
        },
    };

    let (live_sender, live_receiver) = watch::channel(live);
    let (limits_sender, limits_receiver) = watch::channel(Settings { limits: Arc::new(config.limits.clone()) });
    let (shown_sender, shown_receiver) = watch::channel(Arc::new(InUse { effective: loaded.effective }));
    let (tls_sender, tls_receiver) = tls.map(watch::channel).unzip();
    let (reload_sender, reload_receiver) = watch::channel(refused);
    let (stop_sender, stop_receiver) = watch::channel(false);
    let affordable = affordable(std::fs::read_to_string("/proc/self/limits").ok());
    if affordable < config.limits.connections {
        tracing::warn!(affordable, "limits.connections is lowered to what this process may open (ulimit -n)");
    }
    let shared = Shared::new((1, affordable), metrics.connections());
    // Probes and scrapes must get through when people have taken all connections.
    let probes = Shared::new((256, 256), metrics.connections());

    let door = Gateway::new(live_receiver.clone(), Arc::clone(&fixed), Arc::clone(&metrics));
    let (leaving_sender, leaving) = watch::channel(false);
    let checks = {
        let (live, reload, fixed) = (live_receiver.clone(), reload_receiver.clone(), Arc::clone(&fixed));
        let metrics = Arc::clone(&metrics);
        Arc::new(move || -> std::pin::Pin<Box<dyn Future<Output = Vec<Check>> + Send>> {
            let (live, problem) = (Arc::clone(&live.borrow()), reload.borrow().clone());
            let (fixed, metrics, leaving) = (Arc::clone(&fixed), Arc::clone(&metrics), *leaving.borrow());
            Box::pin(async move {
                let mut checks = readiness(&live, problem).await;
                checks.extend(exposure::check(&fixed, &metrics).await);
                if leaving {
                    checks.push(Check { name: "stopping", ok: false, detail: "asked to stop".to_owned() });
                }
                checks
            })
        })
    };
    let probe = probes_of_perses(live_receiver.clone(), Arc::clone(&fixed));
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
    // These two outlive the others, so that a drain can be watched.
    let (keep, forever) = watch::channel(false);
    let operators = Shared::new((16, 16), metrics.connections());
    let queries = {
        let live = live_receiver;
        Arc::new(move || Arc::clone(&live.borrow().queries))
    };
    let control_door = Control { config: shown_receiver, queries, problem: reload_receiver };
    let mut watching = tokio::task::JoinSet::new();
    watching.spawn(listen::serve(admin, None, limits_receiver.clone(), probes, admin_door, forever.clone()));
    watching.spawn(listen::serve(control, None, limits_receiver, operators, control_door, forever));
    tracing::info!(gateway = %ports.gateway, admin = %ports.admin, ms = began.elapsed().as_millis(), "Ready");
    ready(&ports);

    let channels = Channels {
        live: live_sender,
        limits: limits_sender,
        shown: shown_sender,
        tls: tls_sender,
        reload: reload_sender,
    };
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            reload = watcher.next() => {
                let (good, told) = (matches!(reload, Reload::Good(_)), channels.reload.borrow().clone());
                if let Err(problem) = apply(reload, &fixed, &channels, &metrics, &sessions, logs.as_ref()) {
                    if good {
                        watcher.retry();
                    }
                    let problem = format!("{KEPT}{problem}");
                    if problem != told {
                        tracing::error!(problem, "The configuration is wrong; the last good one stays in use");
                        metrics.reload(ReloadOutcome::Bad);
                        channels.reload.send_replace(problem);
                    }
                }
            }
        }
    }
    // Those who send us requests learn of it later than we do.
    leaving_sender.send_replace(true);
    let linger = channels.live.borrow().config.limits.linger;
    if !linger.is_zero() {
        tracing::info!(
            seconds = linger.as_secs(),
            "Asked to stop: not ready any more, new connections are still taken"
        );
        tokio::time::sleep(linger).await;
    }
    tracing::info!("Stopping: no new connections, what has begun is finished");
    let _ = stop_sender.send(true);
    while servers.join_next().await.is_some() {}
    watching.abort_all();
    drop(keep);
    if let config::Control::Unix(path) = &fixed.listen.control {
        let _ = std::fs::remove_file(path);
    }
    tracing::info!("Stopped");
    Ok(())
}

async fn bind(key: &str, address: std::net::SocketAddr) -> Result<TcpListener, String> {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let bound = match TcpListener::bind(address).await {
        // [::] takes both kinds of addresses, where there are both.
        Err(error) if address.ip() == std::net::Ipv6Addr::UNSPECIFIED && error.kind() != AddrInUse => {
            TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|error| {
        let advice = match error.kind() {
            AddrInUse => "; stop what listens there, or choose another port",
            AddrNotAvailable => "; this machine has no such address",
            PermissionDenied => "; choose a port from 1024 on",
            _ => "",
        };
        format!("listen.{key}: {address} cannot be listened on: {error}{advice}")
    })
}

/// How many connections the open files of the process are enough for: each may need another one to a server behind us, and
/// some are kept for everything else. `limits` is the text of `/proc/self/limits`, where there is one.
fn affordable(limits: Option<String>) -> usize {
    const SPARE: usize = 96;
    let files = limits.as_deref().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_whitespace().next()?.parse::<usize>().ok()
    });
    files.map_or(usize::MAX, |files| (files.saturating_sub(SPARE) / 2).max(8))
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
    /// `listen.control`, if it is no socket in the file system.
    pub control: Option<std::net::SocketAddr>,
}

/// What kubelet asks of Perses through us. A hook at the start of Perses is asked before Perses listens, and waits for it.
fn probes_of_perses(live: watch::Receiver<Arc<Live>>, fixed: Arc<config::Fixed>) -> Probed {
    Arc::new(move |word| {
        let asked = fixed.probes.get(word).cloned();
        if asked.is_none() && !["live", "ready"].contains(&word) {
            return None;
        }
        let perses = Arc::clone(&live.borrow().perses);
        let tries = if word == "started" { 100 } else { 1 };
        Some(Box::pin(async move {
            for _ in 1..tries {
                if perses.is_healthy().await {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            match &asked {
                Some(probe) => perses.probe(probe).await,
                None => perses.is_healthy().await,
            }
        }))
    })
}

async fn readiness(live: &Live, problem: String) -> Vec<Check> {
    let healthy = live.perses.is_healthy().await;
    let config = if problem.is_empty() { "in use".to_owned() } else { problem };
    let mut checks = vec![
        Check { name: "perses", ok: healthy, detail: if healthy { "answers" } else { "does not answer" }.to_owned() },
        Check { name: "config", ok: true, detail: config },
    ];
    if let Some(login) = &live.login {
        let (ok, detail) = login.readiness().await;
        checks.push(Check { name: "login", ok, detail });
    }
    checks
}

/// Puts a new configuration in place, or says why not. Everything is built before anything is replaced.
fn apply(
    reload: Reload,
    fixed: &config::Fixed,
    channels: &Channels,
    metrics: &Arc<Metrics>,
    sessions: &Arc<Memory>,
    logs: Option<&logs::Handle>,
) -> Result<(), String> {
    let loaded = match reload {
        Reload::Good(loaded) => loaded,
        Reload::Bad(problems) => {
            return Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        }
    };
    let effective = loaded.effective;
    let refused = refused_templates(&loaded.templates);
    let Config { fixed: new_fixed, live: settings } = loaded.config;
    let tls = settings.tls.as_ref().map(|tls| Arc::clone(&tls.server));
    let before = Arc::clone(&channels.live.borrow());
    let audit = if before.config.audit == settings.audit {
        Arc::clone(&before.audit)
    } else {
        Arc::new(Audit::new(&settings.audit, Arc::clone(metrics))?)
    };
    let level = settings.telemetry.log_level;
    let limits = Settings { limits: Arc::new(settings.limits.clone()) };
    let live = build(Arc::new(settings), fixed, audit, Some(&before), metrics, sessions)?;
    channels.live.send_replace(Arc::new(live));
    channels.limits.send_replace(limits);
    channels.shown.send_replace(Arc::new(InUse { effective }));
    if let (Some(channel), Some(tls)) = (&channels.tls, tls) {
        channel.send_replace(tls);
    }
    if let Some(logs) = logs {
        logs.set(level);
    }
    if new_fixed == *fixed {
        metrics.reload(ReloadOutcome::Good);
        channels.reload.send_replace(refused);
        tracing::info!("A changed configuration is in use");
    } else {
        metrics.reload(ReloadOutcome::Restart);
        channels.reload.send_replace("in use, but listen and perses as they were at the start: restart".to_owned());
        tracing::warn!("A changed configuration is in use, but listen and perses take effect after a restart only");
    }
    Ok(())
}

/// Tells each problem with a template in the log; gives them in one line, empty if there are none.
fn refused_templates(problems: &[TemplateProblem]) -> String {
    for problem in problems {
        tracing::warn!(%problem, "A template is refused; all others are in use");
    }
    let Some(first) = problems.first() else { return String::new() };
    format!("in use, but templates with {} problems are refused; the first: {first}", problems.len())
}

/// Builds what a configuration says. What is remembered about people survives as long as nothing that decides it changed.
fn build(
    settings: Arc<config::Live>,
    fixed: &config::Fixed,
    audit: Arc<Audit>,
    before: Option<&Live>,
    metrics: &Arc<Metrics>,
    sessions: &Arc<Memory>,
) -> Result<Live, String> {
    let kept = before.filter(|before| {
        config::Cluster { ca: settings.cluster.ca.clone(), ..before.config.cluster.clone() } == settings.cluster
            && before.config.access == settings.access
            && before.config.login == settings.login
            && before.config.limits.namespaces == settings.limits.namespaces
            && before.config.limits.cached_reviews == settings.limits.cached_reviews
            && before.config.limits.failed_attempts == settings.limits.failed_attempts
    });
    let (cluster, identities, access) = match kept {
        Some(before) => (Arc::clone(&before.cluster), Arc::clone(&before.identities), Arc::clone(&before.access)),
        None => {
            let cluster = Arc::new(Cluster::new(&settings.cluster, Arc::clone(metrics))?);
            let (login, counted) = (settings.login.as_deref(), Arc::clone(metrics));
            let (access, limits) = (&settings.access, &settings.limits);
            let identities = Identities::new(Arc::clone(&cluster), access, login, limits, counted)?;
            let access = Access::new(Arc::clone(&cluster), &settings.access, &settings.limits, Arc::clone(metrics));
            (cluster, Arc::new(identities), Arc::new(access))
        }
    };
    let limits = &settings.limits;
    let perses = match before.filter(|before| of_perses(&before.config.limits) == of_perses(limits)) {
        Some(before) => Arc::clone(&before.perses),
        None => {
            let dial = dial_to(&fixed.perses_url, None, &settings)?;
            let (timeout, prefix) = (limits.perses_timeout, &fixed.api_prefix);
            Arc::new(Perses::new(dial, prefix, timeout, limits.answer, Arc::clone(metrics)))
        }
    };
    let mut clients = Vec::with_capacity(settings.backends.len());
    for backend in &settings.backends {
        let dial = dial_to(&backend.url, backend.ca.clone(), &settings)?;
        let client = BackendClient::new(Arc::clone(backend), dial, Arc::clone(metrics))?;
        clients.push(Arc::new(client));
    }
    let login = match &settings.login {
        Some(login) => {
            let (cluster, sessions) = (Arc::clone(&cluster), Arc::clone(sessions));
            Some(Arc::new(Login::new(login, &settings, cluster, sessions, Arc::clone(metrics))?))
        }
        None => None,
    };
    // What is kept survives, unless there is more or less room for it now.
    let cache = before.map(|before| before.queries.cache()).filter(|cache| cache.memory() == settings.cache.memory);
    let cache =
        cache.cloned().unwrap_or_else(|| Cache::new(settings.cache.memory, Clock::default(), Arc::clone(metrics)));
    let shared = sessions.shared_for(settings.cache.shared.as_ref(), metrics)?;
    let watching =
        before.filter(|before| Arc::ptr_eq(&before.cluster, &cluster) && before.config.workloads == settings.workloads);
    // The last that can fail, and the only thing that is changed in place.
    if kept.is_some_and(|before| before.config.cluster.ca != settings.cluster.ca) {
        cluster.renew(&settings.cluster)?;
    }
    cache.share(shared.clone().map(|shared| shared as _));
    sessions.share(shared);
    let workloads = match watching {
        Some(before) => Arc::clone(&before.workloads),
        None => Arc::new(Workloads::start(&cluster, &settings.workloads, metrics)),
    };
    let (shared_access, watched) = (Arc::clone(&access), Arc::clone(&workloads));
    Ok(Live {
        catalog: Catalog::new(Arc::clone(&perses), shared_access, watched, &fixed.api_prefix, &settings),
        queries: Arc::new(Queries::new(Arc::clone(&perses), clients, &settings, cache, Arc::clone(metrics))),
        perses,
        config: settings,
        cluster,
        workloads,
        identities,
        login,
        access,
        audit,
    })
}

/// The limits that the client of Perses is made with.
fn of_perses(limits: &config::Limits) -> (Duration, usize, usize) {
    (limits.perses_timeout, limits.answer, limits.upstream_connections)
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
        assert_eq!(affordable(limits("1048576")), 524_240);
        assert_eq!(affordable(limits("1024")), 464);
        assert_eq!(affordable(limits("20")), 8, "a few in any case");
        assert_eq!((affordable(limits("unlimited")), affordable(None)), (usize::MAX, usize::MAX));
    }
}
