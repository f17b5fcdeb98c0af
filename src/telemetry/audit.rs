//! One JSON line for each decision, on its own stream or file.
//!
//! A request never waits for the disk: lines go through a bounded queue to one thread. A line that finds the queue full, or
//! that the disk does not take, is lost and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use serde::Serialize;

use super::metrics::Metrics;
use crate::config;

/// Lines that may wait for the disk.
const QUEUE: usize = 8192;
/// Bytes from which on no more lines go with one write.
const BATCH: usize = 64 << 10;

/// How long the end waits for lines to be written.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is written of one decision. No tokens, no query values.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When.
    pub time: SystemTime,
    /// The value of `X-Request-Id`.
    pub request_id: &'a str,
    /// Who, if known.
    pub user: Option<&'a str>,
    /// Their groups; a digest of them is written.
    pub groups: Option<&'a [String]>,
    /// How they proved it.
    pub authenticated_by: Option<&'a str>,
    /// From where.
    pub from: IpAddr,
    /// What was done.
    pub verb: &'a str,
    /// To what kind of thing.
    pub resource: &'a str,
    /// In which namespace.
    pub namespace: Option<&'a str>,
    /// To which thing.
    pub name: Option<&'a str>,
    /// Whether it was allowed.
    pub allowed: bool,
    /// Why not.
    pub reason: Option<&'a str>,
    /// What it came to, where the verb does not say it.
    pub effect: Option<&'a str>,
    /// The status of the answer.
    pub code: u16,
    /// How long it took.
    pub duration: Duration,
}

/// The audit stream.
pub struct Audit {
    queue: Option<SyncSender<String>>,
    /// Closed when everything that was queued has been written.
    written: Option<Mutex<Receiver<()>>>,
    metrics: Arc<Metrics>,
}

impl Audit {
    /// Opens the stream.
    ///
    /// # Errors
    /// When the file cannot be opened or no thread can be started: which setting, and why.
    pub fn new(settings: &config::Audit, metrics: Arc<Metrics>) -> Result<Self, String> {
        let target = match settings {
            config::Audit::Off => return Ok(Self { queue: None, written: None, metrics }),
            config::Audit::Stdout => Target::Stdout,
            config::Audit::File(path) => {
                let file = open(path).map_err(|error| {
                    format!("audit.file: {} cannot be opened to be appended to: {error}", path.display())
                })?;
                Target::File { file, path: path.clone() }
            }
        };
        let (queue, lines) = sync_channel(QUEUE);
        let (ended, written) = sync_channel(0);
        let counted = Arc::clone(&metrics);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                write_all(target, &lines, &counted);
                drop(ended);
            })
            .map_err(|error| format!("audit: no thread can be started: {error}"))?;
        Ok(Self { queue: Some(queue), written: Some(Mutex::new(written)), metrics })
    }

    /// Whether records go anywhere.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Writes a record, at some time soon.
    pub fn write(&self, record: &Record<'_>) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(line(record)) {
            self.metrics.audit_dropped(1);
        }
    }
}

impl Drop for Audit {
    /// Waits until everything that was queued has been written, but not for ever: a pipe that nobody reads must not keep the
    /// process from ending.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(Ok(written)) = self.written.take().map(Mutex::into_inner)
            && written.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout)
        {
            tracing::error!("Audit lines are lost: nobody takes them");
        }
    }
}

enum Target {
    Stdout,
    File { file: File, path: PathBuf },
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes what is queued until nobody can queue any more.
fn write_all(mut target: Target, lines: &Receiver<String>, metrics: &Metrics) {
    let mut batch = String::new();
    // Lines lost since the last that was written; a full disk is told once, not with every line.
    let mut lost = 0_u64;
    loop {
        match lines.recv_timeout(Duration::from_secs(2)) {
            Ok(line) => {
                batch.clear();
                // A line that was cut short is ended, so that the next stands alone.
                if lost > 0 {
                    batch.push('\n');
                }
                batch.push_str(&line);
                batch.push('\n');
                let mut count = 1;
                // Whatever else is there goes with the same write.
                while batch.len() < BATCH
                    && let Ok(line) = lines.try_recv()
                {
                    batch.push_str(&line);
                    batch.push('\n');
                    count += 1;
                }
                match write(&mut target, batch.as_bytes()) {
                    Ok(()) if lost == 0 => {}
                    Ok(()) => {
                        tracing::warn!(lost, "Audit lines are written again; some were lost");
                        lost = 0;
                    }
                    Err(error) => {
                        if lost == 0 {
                            let to = target.name();
                            tracing::error!(to, cause = %error, "Audit lines are lost until they can be written again");
                        }
                        lost += count;
                        metrics.audit_dropped(count);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // The file may have been moved away by whoever rotates it.
        if let Target::File { file, path } = &mut target
            && !path.exists()
            && let Ok(opened) = open(path)
        {
            *file = opened;
        }
    }
}

impl Target {
    fn name(&self) -> String {
        match self {
            Self::Stdout => "standard output".to_owned(),
            Self::File { path, .. } => path.display().to_string(),
        }
    }
}

fn write(target: &mut Target, bytes: &[u8]) -> io::Result<()> {
    match target {
        Target::Stdout => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()
        }
        Target::File { file, .. } => file.write_all(bytes),
    }
}

fn line(record: &Record<'_>) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        request_id: &'a str,
        who: Option<Who<'a>>,
        from: String,
        verb: &'a str,
        resource: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'a str>,
        verdict: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        effect: Option<&'a str>,
        code: u16,
        duration_ms: f64,
    }
    #[derive(Serialize)]
    struct Who<'a> {
        name: &'a str,
        groups_digest: String,
        authenticated_by: Option<&'a str>,
    }
    let line = Line {
        time: rfc3339(record.time),
        request_id: record.request_id,
        who: record.user.map(|name| Who {
            name,
            groups_digest: digest_of(record.groups.unwrap_or_default()),
            authenticated_by: record.authenticated_by,
        }),
        from: record.from.to_string(),
        verb: record.verb,
        resource: record.resource,
        namespace: record.namespace,
        name: record.name,
        verdict: if record.allowed { "allowed" } else { "refused" },
        reason: record.reason,
        effect: record.effect,
        code: record.code,
        duration_ms: (record.duration.as_secs_f64() * 1_000_000.0).round() / 1000.0,
    };
    serde_json::to_string(&line).unwrap_or_default()
}

/// Tells equal sets of groups from different ones without spelling them out in every line.
fn digest_of(groups: &[String]) -> String {
    let mut sorted: Vec<&str> = groups.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut context = digest::Context::new(&digest::SHA256);
    for group in sorted {
        context.update(&group.len().to_le_bytes());
        context.update(group.as_bytes());
    }
    context.finish().as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// UTC with milliseconds (RFC 3339).
/// A time in UTC, as RFC 3339 writes it.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil from days, in the proleptic Gregorian calendar, with years that begin in March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_208_000_123, "2024-02-29T12:00:00.123Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_line_says_who_what_where_and_why() {
        let groups = ["b".to_owned(), "a".to_owned()];
        let record = Record {
            time: UNIX_EPOCH,
            request_id: "1",
            user: Some("ada \"x\"\n"),
            groups: Some(&groups),
            authenticated_by: Some("bearer"),
            from: IpAddr::from([127, 0, 0, 1]),
            verb: "get",
            resource: "dashboards",
            namespace: Some("team-a"),
            name: Some("d"),
            allowed: false,
            reason: Some("forbidden"),
            effect: None,
            code: 403,
            duration: Duration::from_micros(1500),
        };
        let text = line(&record);
        assert!(!text.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["who"]["name"], "ada \"x\"\n");
        assert_eq!(value["who"]["groups_digest"], digest_of(&["a".to_owned(), "b".to_owned()]));
        assert_eq!((&value["verdict"], &value["code"]), (&"refused".into(), &403.into()));
        assert_eq!(value["duration_ms"], 1.5);
    }

    fn record(code: u16) -> Record<'static> {
        Record {
            time: UNIX_EPOCH,
            request_id: "1",
            user: None,
            groups: None,
            authenticated_by: None,
            from: IpAddr::from([127, 0, 0, 1]),
            verb: "get",
            resource: "x",
            namespace: None,
            name: None,
            allowed: true,
            reason: None,
            effect: None,
            code,
            duration: Duration::ZERO,
        }
    }

    #[test]
    fn lines_reach_the_file() {
        let folder = std::env::temp_dir().join(format!("audit-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("audit.log");
        let audit = Audit::new(&config::Audit::File(path.clone()), Arc::new(Metrics::new())).expect("a file");
        audit.write(&record(200));
        audit.write(&record(201));
        drop(audit);
        assert_eq!(std::fs::read_to_string(&path).expect("a file").lines().count(), 2);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn lines_that_a_full_disk_does_not_take_are_counted() {
        let metrics = Arc::new(Metrics::new());
        let audit = Audit::new(&config::Audit::File("/dev/full".into()), Arc::clone(&metrics)).expect("it opens");
        for _ in 0..3 {
            audit.write(&record(200));
        }
        drop(audit);
        assert!(metrics.encode().contains("perses_sidecar_audit_lines_dropped_total 3\n"));
    }

    #[test]
    fn a_pipe_that_nobody_reads_does_not_keep_the_end_waiting() {
        let path = std::env::temp_dir().join(format!("audit-pipe-{}", std::process::id()));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        let held = OpenOptions::new().read(true).write(true).open(&path).expect("a pipe");
        let audit = Audit::new(&config::Audit::File(path.clone()), Arc::new(Metrics::new())).expect("it opens");
        for _ in 0..2000 {
            audit.write(&record(200));
        }
        let began = std::time::Instant::now();
        drop(audit);
        assert!(began.elapsed() < PATIENCE * 2);
        drop(held);
        std::fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named_with_its_setting() {
        let settings = config::Audit::File("/nowhere/audit.log".into());
        let error = Audit::new(&settings, Arc::new(Metrics::new())).err().expect("no such folder");
        assert!(error.starts_with("audit.file: /nowhere/audit.log cannot be opened"), "{error}");
    }
}
