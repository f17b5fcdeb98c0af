//! `ctl`: asks a running sidecar over its control listener, and prints what it says for people, or as JSON.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config;
use crate::query;

/// The variable that says where the control listener is, where the flag does not.
const VARIABLE: &str = "PERSES_SIDECAR_CONTROL";
/// Everything has its answer in this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// And within these bytes.
const LARGEST: usize = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct Ctl {
    /// The sidecar's `listen.control`: ADDRESS:PORT or unix:PATH [default: PERSES_SIDECAR_CONTROL, or 127.0.0.1:9901]
    #[arg(long, value_name = "WHERE", global = true)]
    control: Option<String>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The settings in use, with defaults and without secrets, and what is wrong with a newer file.
    Config,
    /// What the cache holds and how it has answered.
    Stats,
    /// Make the cache forget what fits to all that is given.
    Purge(Purge),
    /// How the answers to a query are kept, for how long and why, and what is kept of it now.
    Explain(Explain),
}

#[derive(Debug, Args)]
struct Explain {
    /// The query, as it is asked.
    query: String,
    /// The backend's name; not needed when there is only one.
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// A namespace of whoever asks; may be given again. Without any: of somebody who reads all series.
    #[arg(long = "namespace", value_name = "NS")]
    namespaces: Vec<String>,
    /// `lookback_delta`, if it is asked with one.
    #[arg(long, value_name = "DURATION")]
    lookback_delta: Option<String>,
}

impl Explain {
    fn body(&self) -> Value {
        serde_json::json!(query::Explain {
            backend: self.backend.clone(),
            namespaces: self.namespaces.clone(),
            query: self.query.clone(),
            lookback_delta: self.lookback_delta.clone(),
        })
    }
}

#[derive(Debug, Args)]
struct Purge {
    /// Everything.
    #[arg(long, conflicts_with_all = ["backend", "namespace", "metric", "from", "to"])]
    all: bool,
    /// Of the backend of this name.
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// What may hold data of this namespace.
    #[arg(long, value_name = "NS")]
    namespace: Option<String>,
    /// What may hold data of this metric.
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// What may depend on data from then on: seconds since 1970, or how long ago, such as 2h.
    #[arg(long, value_name = "WHEN")]
    from: Option<String>,
    /// And until then.
    #[arg(long, value_name = "WHEN")]
    to: Option<String>,
}

impl Purge {
    fn body(&self, now: Duration) -> Result<Value, Failed> {
        let mut body = serde_json::Map::new();
        for (key, value) in [("backend", &self.backend), ("namespace", &self.namespace), ("metric", &self.metric)] {
            if let Some(value) = value {
                body.insert(key.to_owned(), value.as_str().into());
            }
        }
        for (flag, key, value) in [("--from", "from_ms", &self.from), ("--to", "to_ms", &self.to)] {
            if let Some(text) = value {
                body.insert(
                    key.to_owned(),
                    millis(text, now).map_err(|why| Failed::Input(format!("{flag}: {why}")))?.into(),
                );
            }
        }
        if body.is_empty() && !self.all {
            return Err(Failed::Input(
                "purge: say what: --backend, --namespace, --metric, --from, --to, or --all".to_owned(),
            ));
        }
        if let (Some(from), Some(to)) = (body.get("from_ms"), body.get("to_ms"))
            && from.as_i64() > to.as_i64()
        {
            return Err(Failed::Input("purge: --from is after --to".to_owned()));
        }
        Ok(body.into())
    }
}

/// A moment in milliseconds since 1970, from seconds since 1970 or from how long ago it was.
fn millis(text: &str, now: Duration) -> Result<i64, String> {
    let whole = |duration: Duration| i64::try_from(duration.as_millis()).map_err(|error| error.to_string());
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..1e11).contains(&seconds) => whole(Duration::from_secs_f64(seconds)),
        Ok(_) => Err(format!("expected seconds since 1970, not {text}")),
        Err(_) => match config::duration(text) {
            Ok(ago) => whole(now.saturating_sub(ago)),
            Err(_) => Err(format!("expected seconds since 1970, or how long ago such as 2h, not {text:?}")),
        },
    }
}

/// Why there is nothing to print.
#[derive(Debug)]
pub(super) enum Failed {
    /// The command line is wrong.
    Input(String),
    /// The work failed.
    Work(String),
}

/// What is to be printed.
pub(super) fn run(ctl: &Ctl) -> Result<String, Failed> {
    let place = match ctl.control.clone().or_else(|| std::env::var(VARIABLE).ok()) {
        Some(text) => {
            config::Control::parse(&text).map_err(|message| Failed::Input(format!("--control: {message}")))?
        }
        None => config::Control::DEFAULT,
    };
    let (method, path, body) = match &ctl.what {
        What::Config => (Method::GET, "/config", None),
        What::Stats => (Method::GET, "/cache/stats", None),
        What::Purge(purge) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (Method::POST, "/cache/purge", Some(purge.body(now)?))
        }
        What::Explain(explain) => (Method::POST, "/cache/explain", Some(explain.body())),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::Work(format!("no runtime: {error}")))?;
    let asked = async {
        tokio::time::timeout(PATIENCE, ask(&place, method, path, body))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
    };
    let answer: Value = runtime.block_on(asked).map_err(|cause| {
        Failed::Work(format!("{place}: {cause}; name the sidecar's listen.control by --control or {VARIABLE}"))
    })?;
    if ctl.json {
        return Ok(format!("{answer:#}\n"));
    }
    Ok(match &ctl.what {
        What::Config => config_text(&answer),
        What::Stats => stats_text(&answer),
        What::Explain(_) => explained_text(&answer, SystemTime::now()),
        What::Purge(_) => format!("{} entries went, or lost a part\n", answer["entries"]),
    })
}

async fn ask(place: &config::Control, method: Method, path: &str, body: Option<Value>) -> Result<Value, String> {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    match place {
        config::Control::Loopback(address) => {
            let stream = TcpStream::connect(address).await.map_err(|error| format!("cannot be reached: {error}"))?;
            exchange(stream, request).await
        }
        config::Control::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| format!("cannot be reached: {error}"))?;
            exchange(stream, request).await
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Value, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broke = |error: hyper::Error| format!("speaks no HTTP: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(broke)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|error| error.to_string())?.to_bytes();
    let value: Value = serde_json::from_slice(&body).map_err(|_| format!("answered {status} and no JSON"))?;
    if status.is_success() {
        return Ok(value);
    }
    Err(value["message"].as_str().map_or_else(|| format!("answered {status}"), str::to_owned))
}

fn config_text(answer: &Value) -> String {
    let mut out = String::new();
    let word = |key: &str| answer[key].as_str().unwrap_or_default();
    let _ = writeln!(out, "# perses-sidecar {} (commit {})", word("version"), word("commit"));
    for line in word("problem").lines() {
        let _ = writeln!(out, "# {line}");
    }
    out.push_str(word("yaml"));
    out
}

/// Columns under their heads; what is a number stands right.
fn table(out: &mut String, heads: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let heads = [heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>()];
    for row in heads.iter().chain(rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 {
                let _ = write!(line, "{cell:<width$}");
            } else {
                let _ = write!(line, "  {cell:>width$}");
            }
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// Bytes, as people read them.
#[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[allow(clippy::cast_precision_loss, reason = "a share is shown in whole percents")]
fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.0}%", 100.0 * part as f64 / whole as f64) }
}

fn stats_text(answer: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let (bytes, limit) = (number(&answer["bytes"]), number(&answer["limit"]));
    let mut out = String::new();
    let _ = writeln!(out, "memory    {} of {} ({})", size(bytes), size(limit), share(bytes, limit));
    let _ = writeln!(out, "entries   {}", number(&answer["entries"]));
    let _ = writeln!(out, "flights   {} under way", number(&answer["flights"]));
    let _ = writeln!(out, "purges    {}", number(&answer["purges"]));
    let verified = |outcome: &str| number(&answer["verifications"][outcome]);
    let outcomes = ["same", "different", "failed", "skipped"];
    let verified: Vec<String> = outcomes.iter().map(|outcome| format!("{} {outcome}", verified(outcome))).collect();
    let _ = writeln!(out, "compared  {}", verified.join(", "));
    let section = |key: &str| answer[key].as_object().cloned().unwrap_or_default();
    let rows: Vec<Vec<String>> = section("backends")
        .iter()
        .map(|(name, of)| {
            let word = |key: &str| number(&of[key]).to_string();
            vec![name.clone(), word("asked"), word("waiting"), word("generation")]
        })
        .collect();
    if !rows.is_empty() {
        out.push('\n');
        table(&mut out, &["backend", "asked", "waiting", "generation"], &rows);
    }
    let results = ["hit", "partial", "collapsed", "miss", "bypass", "error"];
    let rows: Vec<Vec<String>> = section("requests")
        .iter()
        .map(|(kind, by)| {
            let counts = results.map(|result| number(&by[result]));
            let all = by.as_object().map_or(0, |by| by.values().map(number).sum());
            let mut row = vec![kind.clone(), all.to_string()];
            row.extend(counts.map(|count| count.to_string()));
            // What did not cost the backend a question of its own.
            row.push(share(counts[0] + counts[2], all));
            row
        })
        .collect();
    if !rows.is_empty() {
        out.push('\n');
        let mut heads = vec!["requests", "all"];
        heads.extend(results);
        heads.push("saved");
        table(&mut out, &heads, &rows);
    }
    let rows: Vec<Vec<String>> =
        section("bypasses").iter().map(|(reason, count)| vec![reason.clone(), number(count).to_string()]).collect();
    if !rows.is_empty() {
        out.push('\n');
        table(&mut out, &["not kept, or not for long, because of", "requests"], &rows);
    }
    out
}

/// Milliseconds, as people read them.
fn length(value: &Value) -> String {
    config::written(Duration::from_millis(value.as_u64().unwrap_or_default()))
}

/// How long ago a time since 1970 was, or how long until it comes.
fn ago(time: &Value, now: i64) -> String {
    let ms = now.saturating_sub(time.as_i64().unwrap_or_default());
    // Nobody reads milliseconds of an hour.
    let whole = if ms.abs() < 10_000 { ms } else { ms / 1000 * 1000 };
    let length = config::written(Duration::from_millis(whole.unsigned_abs()));
    if ms < 0 { format!("in {length}") } else { format!("{length} ago") }
}

fn explained_text(answer: &Value, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let word = |key: &str| answer[key].as_str().unwrap_or_default();
    let list = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let mut out = String::new();
    let mut line = |head: &str, text: &str| {
        let _ = writeln!(out, "{head:<10}{text}");
    };
    line("backend", word("backend"));
    line("sent", word("sent"));
    line(
        "kept",
        &match word("kept") {
            "points" => "by its points; a range is put together from what is known of them".to_owned(),
            "whole" => format!("as a whole, because of {}", word("reason")),
            "bypass" => "not at all: the mode in force is bypass".to_owned(),
            other => other.to_owned(),
        },
    );
    let range = |fresh: &str, ttl: &str| {
        format!("{} while it may change, {} when it no longer does", length(&answer[fresh]), length(&answer[ttl]))
    };
    line("range", &range("fresh_ms", "ttl_ms"));
    line("instant", &range("instant_fresh_ms", "instant_ttl_ms"));
    line("settles", &format!("a point no longer changes after {}", length(&answer["settles_after_ms"])));
    let looks = format!("{} back, {} ahead", length(&answer["back_ms"]), length(&answer["ahead_ms"]));
    let fixed = answer["fixed_ms"]
        .as_array()
        .map_or_else(String::new, |times| format!(", and {} to {}", ago(&times[0], now), ago(&times[1], now)));
    line("looks", &format!("{looks}{fixed}"));
    let overrides = list("overrides");
    let named: Vec<&str> = overrides.iter().filter_map(Value::as_str).collect();
    line("overrides", if named.is_empty() { "none".to_owned() } else { named.join(", ") }.as_str());
    let rows: Vec<Vec<String>> = list("entries")
        .iter()
        .map(|entry| {
            let word = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            let known: Vec<String> = entry["known_ms"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|times| format!("{} to {}", ago(&times[0], now), ago(&times[1], now)))
                .collect();
            let newest = match entry["newest_ms"].as_array() {
                Some(times) => {
                    format!("{} to {}, asked {} ago", ago(&times[0], now), ago(&times[1], now), length(&times[2]))
                }
                None => String::new(),
            };
            let bytes = size(entry["bytes"].as_u64().unwrap_or_default());
            vec![word("what"), bytes, word("parameters"), known.join("; "), newest]
        })
        .collect();
    if rows.is_empty() {
        out.push_str("\nNothing is kept of it at the moment.\n");
    } else {
        out.push('\n');
        table(&mut out, &["entry", "bytes", "parameters", "known for good", "may change"], &rows);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn moments_are_told_by_the_clock_or_from_now() {
        let now = Duration::from_secs(1_700_000_000);
        assert_eq!(millis("1600000000.5", now), Ok(1_600_000_000_500));
        assert_eq!(millis("2h", now), Ok(1_699_992_800_000));
        for bad in ["", "-1", "yesterday", "NaN", "1e300", "2026-01-01"] {
            assert!(millis(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn statistics_are_a_page_for_people() {
        let text = stats_text(&json!({
            "bytes": 3_145_728, "limit": 268_435_456, "entries": 12, "flights": 1, "purges": 0,
            "backends": { "prometheus": { "generation": 0, "asked": 1, "waiting": 0 } },
            "requests": { "range": { "hit": 90, "partial": 8, "miss": 2 }, "instant": { "miss": 1 } },
            "bypasses": { "stats": 3 }, "verifications": { "same": 7, "different": 1 },
        }));
        let expected = "\
memory    3.0 MiB of 256.0 MiB (1%)
entries   12
flights   1 under way
purges    0
compared  7 same, 1 different, 0 failed, 0 skipped

backend     asked  waiting  generation
prometheus      1        0           0

requests  all  hit  partial  collapsed  miss  bypass  error  saved
instant     1    0        0          0     1       0      0     0%
range     100   90        8          0     2       0      0    90%

not kept, or not for long, because of  requests
stats                                         3
";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_explanation_is_a_page_for_people() {
        let mut answer = json!({
            "backend": "edge", "sent": "up{namespace=\"a\"}", "kept": "points", "reason": null,
            "back_ms": 300_000, "ahead_ms": 0, "fixed_ms": null, "settles_after_ms": 300_000,
            "fresh_ms": 15_000, "ttl_ms": 43_200_000, "instant_fresh_ms": 10_000, "instant_ttl_ms": 3_600_000,
            "divisible": true, "overrides": ["cache.overrides[0]", "cache.overrides[2]"],
            "entries": [{
                "what": "points", "parameters": "step=60", "bytes": 2048, "grid_ms": [60_000, 0],
                "known_ms": [[1_699_996_400_000_i64, 1_699_999_640_000_i64]],
                "newest_ms": [1_699_999_700_000_i64, 1_699_999_940_000_i64, 4000],
            }],
        });
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let expected = "\
backend   edge
sent      up{namespace=\"a\"}
kept      by its points; a range is put together from what is known of them
range     15s while it may change, 12h when it no longer does
instant   10s while it may change, 1h when it no longer does
settles   a point no longer changes after 5m
looks     5m back, 0s ahead
overrides cache.overrides[0], cache.overrides[2]

entry     bytes  parameters    known for good                      may change
points  2.0 KiB     step=60  1h ago to 6m ago  5m ago to 1m ago, asked 4s ago
";
        assert_eq!(explained_text(&answer, now), expected);
        answer["kept"] = "whole".into();
        answer["reason"] = "window".into();
        answer["overrides"] = json!([]);
        answer["entries"] = json!([]);
        answer["fixed_ms"] = json!([1_700_000_060_000_i64, 1_700_000_060_000_i64]);
        let text = explained_text(&answer, now);
        for line in [
            "kept      as a whole, because of window\n",
            "overrides none\n",
            "ahead, and in 1m to in 1m\n",
            "Nothing is kept",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
