//! The command line: flags, what they start, and exit codes. 0 done, 1 the work failed, 2 the input is wrong.

mod ctl;
mod dashboards;
mod inject;

use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::config::{self, Loader, LogLevel, Problem};
use crate::dashboards::TemplateProblem;
use crate::injection::{CONFIG_FILE, PROFILE_VARIABLE};
use crate::promql::{self, Features, Labels, Limits, Reach};
use crate::telemetry::logs;

/// An authenticating, namespace-confining reverse proxy beside an unmodified Perses.
#[derive(Debug, Parser)]
#[command(name = "perses-sidecar", version = version(), disable_help_subcommand = true)]
struct Flags {
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value = "json")]
    log_format: LogFormat,
    /// How much is logged; wins over `telemetry.log_level`.
    #[arg(long, global = true, value_parser = LogLevel::parse)]
    log_level: Option<LogLevel>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar. In an injected pod the configuration stands in the environment.
    Run(MaybeConfig),
    /// Run the webhook that adds the sidecar to pods.
    Webhook(ConfigFlag),
    /// Read a configuration as `run` would and print every problem with it.
    Check {
        #[command(flatten)]
        config: MaybeConfig,
        /// Print the settings in effect, with defaults and without secrets.
        #[arg(long)]
        print: bool,
    },
    /// Show what queries become when they are confined: one JSON object {"q": "<PromQL>"} a line on standard input.
    Confine(Confine),
    /// Ask a running sidecar, from its own pod.
    Ctl(ctl::Ctl),
    /// The templates of dashboards, and what they become.
    Dashboards(dashboards::Dashboards),
    /// Add the sidecar to pods and workloads on standard input, as the webhook does.
    Inject(inject::Inject),
}

#[derive(Debug, Args)]
struct MaybeConfig {
    /// The configuration, a YAML file; see config/example.yaml. A pod that the webhook made needs none.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl MaybeConfig {
    /// Which file, and who reads it.
    fn source(&self) -> Result<(PathBuf, Loader<config::Config>), String> {
        match &self.config {
            Some(path) => Ok((path.clone(), config::load)),
            None if std::env::var_os(PROFILE_VARIABLE).is_some() => {
                Ok((PathBuf::from(CONFIG_FILE), config::load_injected))
            }
            None => {
                Err(format!("--config FILE is required: {PROFILE_VARIABLE} is not set, so no webhook made this pod"))
            }
        }
    }
}

#[derive(Debug, Args)]
struct ConfigFlag {
    /// The configuration, a YAML file; see config/example.yaml.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Confine {
    /// A namespace that may be read; repeat for several.
    #[arg(long, value_name = "NS", required_unless_present = "check_only")]
    namespace: Vec<String>,
    /// The label that names the owner of a series.
    #[arg(long, default_value = "namespace")]
    label: String,
    /// Parse only.
    #[arg(long)]
    check_only: bool,
    /// Take experimental PromQL too.
    #[arg(long)]
    experimental: bool,
}

fn version() -> String {
    format!("{} (commit {}, TLS by rustls with aws-lc-rs)", env!("CARGO_PKG_VERSION"), crate::COMMIT)
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match &flags.command {
        Command::Run(config) => match config.source() {
            Ok((path, load)) => run(&flags, &path, load),
            Err(error) => fail(2, &error),
        },
        Command::Check { config, print } => match config.source() {
            Ok((path, load)) => check(&path, load, *print),
            Err(error) => fail(2, &error),
        },
        Command::Webhook(config) => webhook(&flags, &config.config),
        Command::Inject(flags) => inject::run(flags),
        Command::Confine(confine) => done(confine_lines(confine, std::io::stdin().lock(), std::io::stdout().lock())),
        Command::Ctl(ctl) => match ctl::run(ctl) {
            Ok(text) => print(&text),
            Err(ctl::Failed::Work(message)) => fail(1, &message),
            Err(ctl::Failed::Input(message)) => fail(2, &message),
        },
        Command::Dashboards(flags) => match dashboards::answer(flags) {
            Ok(text) => print(&text),
            Err(failed) => done(Err(failed)),
        },
    }
}

fn done(outcome: Result<(), Failed>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads us has seen enough.
        Err(Failed::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failed::Output(error)) => fail(1, &format!("standard output: {error}")),
        Err(Failed::Input(message)) => fail(2, &message),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "perses-sidecar: {message}");
    ExitCode::from(code)
}

fn tell(path: &Path, problems: &[Problem]) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    for problem in problems {
        let _ = writeln!(stderr, "{}:{problem}", path.display());
    }
    ExitCode::from(2)
}

fn tell_templates(problems: &[TemplateProblem]) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    for problem in problems {
        let _ = writeln!(stderr, "{problem}");
    }
    ExitCode::from(2)
}

fn check(path: &Path, load: Loader<config::Config>, print: bool) -> ExitCode {
    let show = |effective: String| self::print(&if print { effective } else { format!("{}: good\n", path.display()) });
    match load(path) {
        Ok(loaded) if !loaded.templates.is_empty() => tell_templates(&loaded.templates),
        Ok(loaded) => show(loaded.effective),
        // The webhook's file has a section of its own.
        Err(problems) if problems.iter().any(|problem| problem.path == "injection") => match config::load_webhook(path)
        {
            Ok(loaded) => show(loaded.effective),
            Err(problems) => tell(path, &problems),
        },
        Err(problems) => tell(path, &problems),
    }
}

/// Writes an answer; whoever reads us may have seen enough.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => fail(1, &format!("standard output: {error}")),
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

fn run(flags: &Flags, path: &Path, load: Loader<config::Config>) -> ExitCode {
    let loaded = match load(path) {
        Ok(loaded) => loaded,
        Err(problems) => return tell(path, &problems),
    };
    let level = loaded.config.live.telemetry.log_level;
    serve(flags, level, async |handle, stop| crate::app::run(path, loaded, handle, stop, |_| {}).await)
}

fn webhook(flags: &Flags, path: &Path) -> ExitCode {
    let loaded = match config::load_webhook(path) {
        Ok(loaded) => loaded,
        Err(problems) => return tell(path, &problems),
    };
    let level = loaded.config.telemetry.log_level;
    serve(flags, level, async |handle, stop| crate::app::webhook::run(path, loaded, handle, stop, |_| {}).await)
}

/// What ends when a first signal has come.
type Stop = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs something until it ends, with logs, a runtime and signals.
fn serve(
    flags: &Flags,
    level: LogLevel,
    work: impl AsyncFnOnce(Option<logs::Handle>, Stop) -> Result<(), String>,
) -> ExitCode {
    let format = match flags.log_format {
        LogFormat::Json => logs::Format::Json,
        LogFormat::Text => logs::Format::Text,
    };
    let handle = match logs::init(format, flags.log_level.unwrap_or(level)) {
        Ok(handle) => flags.log_level.is_none().then_some(handle),
        Err(error) => return fail(1, &error),
    };
    let runtime = match runtime().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("no runtime: {error}")),
    };
    let outcome = runtime.block_on(async {
        let (ask, asked) = tokio::sync::oneshot::channel::<()>();
        let stop: Stop = Box::pin(async {
            let _ = asked.await;
        });
        tokio::select! {
            outcome = work(handle, stop) => outcome,
            () = signals(ask) => Err("asked twice to stop: what had begun was cut".to_owned()),
        }
    });
    // Nothing is waited for that a second signal has cut.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}

/// One worker for each CPU that the cgroup allows, or as many as `TOKIO_WORKER_THREADS` says. A single one needs none of what
/// several need to share their work.
fn runtime() -> tokio::runtime::Builder {
    let wanted = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|text| text.parse().ok());
    let workers = wanted.or_else(|| std::thread::available_parallelism().ok()).map_or(1, std::num::NonZero::get);
    if workers == 1 {
        return tokio::runtime::Builder::new_current_thread();
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(workers);
    builder
}

/// Passes on the first SIGTERM, as kubelet sends it, or Ctrl-C, and resolves at the second. SIGHUP does nothing: a changed
/// configuration is noticed without it, and nobody who asks for a reload means to end the process.
async fn signals(ask: tokio::sync::oneshot::Sender<()>) {
    use tokio::signal::unix::{SignalKind, signal};
    let of = |kind| signal(kind).map_err(|cause| tracing::warn!(%cause, "A signal cannot be listened to")).ok();
    let (mut terminate, mut interrupt) = (of(SignalKind::terminate()), of(SignalKind::interrupt()));
    // To listen is to be no longer ended by it.
    let _hangup = of(SignalKind::hangup());
    let mut ask = Some(ask);
    loop {
        tokio::select! {
            Some(()) = next(terminate.as_mut()) => {}
            Some(()) = next(interrupt.as_mut()) => {}
            else => return std::future::pending().await,
        }
        match ask.take() {
            Some(ask) => drop(ask.send(())),
            None => return,
        }
    }
}

/// The next signal of a kind that can be listened to.
async fn next(signal: Option<&mut tokio::signal::unix::Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

enum Failed {
    Input(String),
    Output(std::io::Error),
}

#[derive(Serialize)]
struct Confined<'a> {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selectors: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
}

/// The most bytes of a line of standard input: any query within `limits.query_text`, however it is escaped.
const LONGEST_LINE: u64 = 1 << 20;

/// The answers to the lines before a bad one go out before its error.
fn flushed<T>(result: Result<T, Failed>, output: &mut impl Write) -> Result<T, Failed> {
    if result.is_err() {
        output.flush().map_err(Failed::Output)?;
    }
    result
}

/// One answer a line, in order, in constant memory.
fn confine_lines(flags: &Confine, input: impl Read, output: impl Write) -> Result<(), Failed> {
    #[derive(Deserialize)]
    struct Line {
        q: String,
    }
    let labels =
        Labels::new(&flags.label, Vec::new()).map_err(|message| Failed::Input(format!("--label: {message}")))?;
    let mut names: Vec<Arc<str>> = flags.namespace.iter().map(|name| Arc::from(name.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    if let Some(bad) =
        names.iter().find(|name| name.is_empty() || names.len() > 1 && crate::names::Namespace::parse(name).is_none())
    {
        return Err(Failed::Input(format!(
            "--namespace {bad:?}: several namespaces must be Kubernetes names, and none may be empty"
        )));
    }
    let reach = Reach::Namespaces(names.into());
    let (limits, features) = (Limits::default(), Features { experimental: flags.experimental });
    let mut input = BufReader::with_capacity(64 << 10, input);
    let mut output = std::io::BufWriter::new(output);
    let mut bytes = Vec::new();
    let mut number = 0_u64;
    loop {
        bytes.clear();
        // Whoever waits for an answer has sent a line and no more: what is ready goes out before we wait.
        if input.buffer().is_empty() {
            output.flush().map_err(Failed::Output)?;
        }
        let length = input
            .by_ref()
            .take(LONGEST_LINE + 1)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| Failed::Input(format!("standard input, line {}: {error}", number + 1)))?;
        if length == 0 {
            break;
        }
        number += 1;
        if bytes.len() as u64 > LONGEST_LINE && bytes.last() != Some(&b'\n') {
            output.flush().map_err(Failed::Output)?;
            return Err(Failed::Input(format!(
                "standard input, line {number}: longer than {LONGEST_LINE} bytes; split the input into one query a line"
            )));
        }
        let line = std::str::from_utf8(&bytes)
            .map_err(|error| Failed::Input(format!("standard input, line {number}: not UTF-8: {error}")));
        let line = flushed(line, &mut output)?.trim_end_matches(['\n', '\r']);
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let read = serde_json::from_str(line).map_err(|error| {
            Failed::Input(format!("standard input, line {number}: expected {{\"q\": \"…\"}}: {error}"))
        });
        let Line { q } = flushed(read, &mut output)?;
        let empty = Confined { ok: true, query: None, selectors: None, code: None, message: None, position: None };
        let confined;
        let outcome = if flags.check_only {
            promql::check(&q, &limits, features).map(|selectors| Confined { selectors: Some(selectors), ..empty })
        } else {
            match promql::confine(&q, &reach, &labels, &limits, features) {
                Ok(found) => {
                    confined = found;
                    Ok(Confined { query: Some(confined.text()), selectors: Some(confined.selectors()), ..empty })
                }
                Err(error) => Err(error),
            }
        };
        let answer = outcome.unwrap_or_else(|error| Confined {
            ok: false,
            query: None,
            selectors: None,
            code: Some(error.code()),
            message: Some(error.to_string()),
            position: Some(error.position()),
        });
        serde_json::to_writer(&mut output, &answer).map_err(|error| Failed::Output(error.into()))?;
        output.write_all(b"\n").map_err(Failed::Output)?;
    }
    output.flush().map_err(Failed::Output)
}
