//! `telemetry` and `audit`: what the process tells about itself.

use std::path::PathBuf;

use super::section::{Notes, Section};

/// `telemetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// `telemetry.log_level`, default `info`; the command line's `--log-level` wins.
    pub log_level: LogLevel,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words are tracing's own")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// Reads a level's word.
    ///
    /// # Errors
    /// For any other word.
    pub fn parse(text: &str) -> Result<Self, String> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.word() == text)
            .ok_or_else(|| format!("expected error, warn, info, debug or trace, not {text:?}"))
    }

    /// The level's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `audit`: where audit lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audit {
    /// `audit: {stream: stdout}`, the default.
    Stdout,
    /// `audit: {file: PATH}`, appended.
    File(PathBuf),
    /// `audit: {stream: off}`.
    Off,
}

pub(super) fn telemetry(root: &mut Section<'_>, notes: &mut Notes) -> Telemetry {
    let mut section = root.section("telemetry", notes);
    let log_level = section.value("log_level", LogLevel::Info, notes, LogLevel::parse, |level| level.word().to_owned());
    section.finish(notes);
    Telemetry { log_level }
}

pub(super) fn audit(root: &mut Section<'_>, notes: &mut Notes) -> Audit {
    let mut section = root.section("audit", notes);
    let stream = |text: &str| match text {
        "stdout" => Ok(Audit::Stdout),
        "off" => Ok(Audit::Off),
        other => Err(format!("expected stdout or off, not {other:?}")),
    };
    let both = section.has("stream") && section.has("file");
    let audit = section.value("stream", Audit::Stdout, notes, stream, |audit| match audit {
        Audit::Off => "off".to_owned(),
        Audit::Stdout | Audit::File(_) => "stdout".to_owned(),
    });
    let file = section.file("file", notes);
    if both && file.is_some() {
        section.problem(notes, "file", "give stream or file, not both");
    }
    section.finish(notes);
    if file.is_some() {
        // What is printed must read back: the file stands alone.
        notes.effective.retain(|(key, _)| key != "audit.stream");
    }
    file.map_or(audit, Audit::File)
}
