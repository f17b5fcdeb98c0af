//! Logs on standard error: key-value fields, a full sentence, no secrets.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::LogLevel;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For a terminal.
    Text,
}

/// Changes the level of a running process.
pub struct Handle(reload::Handle<EnvFilter, Registry>);

/// Starts logging.
///
/// # Errors
/// When somebody has started it before.
pub fn init(format: Format, level: LogLevel) -> Result<Handle, String> {
    let (filter, handle) = reload::Layer::new(filter(level));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(true);
    match format {
        Format::Json => {
            registry.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
        }
        Format::Text => registry.with(lines.with_ansi(false)).try_init(),
    }
    .map_err(|error| format!("logging: {error}"))?;
    Ok(Handle(handle))
}

impl Handle {
    /// Logs from this level on.
    pub fn set(&self, level: LogLevel) {
        if let Err(error) = self.0.reload(filter(level)) {
            tracing::warn!(cause = %error, "The log level could not be changed");
        }
    }
}

/// Our own level; libraries only warn, whatever is asked.
fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    EnvFilter::new(format!("warn,perses_sidecar={level}"))
}
