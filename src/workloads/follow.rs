//! One resource, in one namespace or everywhere: list it, watch it, and go on whatever happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Known;
use super::lines::Lines;
use super::pause::Pause;
use crate::cluster::{Cluster, ClusterError};
use crate::dashboards::{Change, Source};

/// Objects of one page; fewer after a page that was too large or too slow.
const PAGE: usize = 250;
/// Pages of one list; nobody has more.
const MOST_PAGES: usize = 100_000;
/// The API server ends a watch after so long.
const WATCH_SECONDS: u32 = 290;
/// It sends a bookmark each minute or so; after this silence nobody is there.
const SILENCE: Duration = Duration::from_secs(150);
/// A watch that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(10);
/// For so long we may be refused before what is known is forgotten: an API server that starts refuses everybody for a
/// moment.
const REFUSED: Duration = Duration::from_secs(10);
/// And for so long before we ask less often.
const SELDOM: Duration = Duration::from_secs(60);

/// Why something has ended.
enum End {
    /// As it should.
    Over,
    /// The API server has forgotten the version.
    Expired,
    /// We may not.
    Refused,
    /// The cluster does not serve it; the supervisor sees to that.
    Missing,
    Failed(String),
}

impl From<ClusterError> for End {
    fn from(error: ClusterError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a page of a list says besides its objects.
struct Page {
    /// Where the next one begins, if there is one.
    next: Option<String>,
    version: String,
}

struct Follower {
    known: Arc<Known>,
    cluster: Arc<Cluster>,
    source: Source,
    path: String,
    page: usize,
    pause: Pause,
    /// Since when we are refused.
    refused: Option<Instant>,
    /// Whether the trouble of now has been told.
    told: bool,
}

/// Follows for ever.
pub(super) async fn follow(known: Arc<Known>, cluster: Arc<Cluster>, source: Source, version: &'static str) {
    let watched = source.watched;
    let place = source.namespace.as_ref().map_or_else(String::new, |namespace| format!("namespaces/{namespace}/"));
    let path = format!("/apis/{}/{version}/{place}{}", watched.group(), watched.plural());
    let (pause, page) = (Pause::default(), PAGE);
    let mut follower = Follower { known, cluster, source, path, page, pause, refused: None, told: false };
    loop {
        let mut version = match follower.list().await {
            Ok(version) => version,
            Err(end) => {
                follower.trouble(&end);
                follower.rest().await;
                continue;
            }
        };
        follower.well();
        loop {
            let began = Instant::now();
            let end = follower.watch(&mut version).await;
            if began.elapsed() >= GOOD {
                follower.pause.reset();
                follower.well();
            }
            match end {
                End::Over if began.elapsed() >= GOOD => {}
                End::Expired => {
                    // Listing is dear, and all followers are told this at once when the API server has started anew.
                    follower.pause.wait().await;
                    break;
                }
                end => {
                    follower.trouble(&end);
                    follower.rest().await;
                }
            }
        }
    }
}

impl Follower {
    /// Reads everything; gives the version from which to watch.
    async fn list(&mut self) -> Result<String, End> {
        self.known.apply(&self.source, [Change::Begin]);
        let mut next = String::new();
        for _ in 0..MOST_PAGES {
            match self.page(&next).await {
                Ok(Page { next: None, version }) => {
                    self.known.apply(&self.source, [Change::Whole]);
                    self.known.metrics.workloads().listed(self.source.watched);
                    return Ok(version);
                }
                Ok(Page { next: Some(token), .. }) => {
                    next = format!("&continue={}", escaped(&token));
                    self.page = (self.page * 2).min(PAGE);
                }
                // It may have been too large or too slow: the same page again with less on it.
                Err(failed @ End::Failed(_)) => {
                    self.page = (self.page / 4).max(1);
                    self.trouble(&failed);
                    self.pause.wait().await;
                }
                Err(end) => return Err(end),
            }
        }
        Err(End::Failed("a list without an end".to_owned()))
    }

    async fn page(&self, next: &str) -> Result<Page, End> {
        #[derive(Deserialize)]
        struct List<'l> {
            metadata: Metadata,
            #[serde(borrow, default)]
            items: Option<Vec<&'l RawValue>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            #[serde(default)]
            resource_version: String,
            #[serde(default)]
            r#continue: String,
        }
        let (status, body) = self.cluster.read(&format!("{}?limit={}{next}", self.path, self.page)).await?;
        check(status)?;
        let list: List<'_> = serde_json::from_slice(&body).map_err(|error| End::Failed(error.to_string()))?;
        // One after the other: a page of objects as trees is many times as large as its text.
        let objects = list.items.unwrap_or_default().into_iter();
        let puts = objects.filter_map(|raw| serde_json::from_str(raw.get()).ok().map(Change::Put));
        self.known.apply(&self.source, puts);
        let next = Some(list.metadata.r#continue).filter(|token| !token.is_empty());
        Ok(Page { next, version: list.metadata.resource_version })
    }

    /// Hears what changes from a version on, which follows.
    async fn watch(&self, version: &mut String) -> End {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
            self.path,
            escaped(version)
        );
        let (status, mut body) = match self.cluster.watch(&path).await {
            Ok(answer) => answer,
            Err(error) => return error.into(),
        };
        if let Err(end) = check(status) {
            return end;
        }
        let mut lines = Lines::default();
        loop {
            let piece = match tokio::time::timeout(SILENCE, body.frame()).await {
                Err(_) => return End::Failed("the watch fell silent".to_owned()),
                Ok(None) => return End::Over,
                Ok(Some(Err(error))) => return End::Failed(error.to_string()),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            let (mut changes, mut end) = (Vec::new(), None);
            let skipped = lines.push(&piece, |line| {
                if end.is_none() {
                    match event(line, version) {
                        Ok(change) => changes.extend(change),
                        Err(why) => end = Some(why),
                    }
                }
            });
            if skipped {
                tracing::warn!(kind = self.source.watched.word(), "A workload is too large to be read");
                self.known.metrics.workloads().failed(self.source.watched);
            }
            if !changes.is_empty() {
                self.known.apply(&self.source, changes);
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Something failed: counted each time, told once, and when we are refused for long, all is forgotten.
    fn trouble(&mut self, end: &End) {
        let (kind, namespace) = (self.source.watched.word(), self.source.namespace.as_ref());
        let namespace = namespace.map_or("", |namespace| namespace.as_str());
        let first = !std::mem::replace(&mut self.told, true);
        if !matches!(end, End::Over | End::Missing) {
            self.known.metrics.workloads().failed(self.source.watched);
        }
        if !matches!(end, End::Refused) {
            self.refused = None;
        }
        match end {
            End::Over | End::Missing | End::Expired => {}
            End::Refused => {
                let since = *self.refused.get_or_insert_with(Instant::now);
                if since.elapsed() >= REFUSED {
                    self.known.apply(&self.source, [Change::Unserved]);
                }
                if first {
                    tracing::warn!(
                        kind,
                        namespace,
                        "Workloads of this kind may not be listed and watched: they are not shown. Give the sidecar's account \
                         that right, or name the namespaces where it has it under workloads.namespaces"
                    );
                }
            }
            End::Failed(cause) if first => {
                tracing::warn!(
                    kind,
                    namespace,
                    cause,
                    "Workloads of this kind cannot be followed; what is known stays"
                );
            }
            End::Failed(cause) => tracing::debug!(kind, namespace, cause, "Workloads still cannot be followed"),
        }
    }

    /// Waits before the next try. A right that was missing for a minute is asked for once a minute.
    async fn rest(&mut self) {
        if self.refused.is_some_and(|since| since.elapsed() >= SELDOM) {
            tokio::time::sleep(SELDOM).await;
        } else {
            self.pause.wait().await;
        }
    }

    fn well(&mut self) {
        self.page = PAGE;
        self.refused = None;
        if std::mem::take(&mut self.told) {
            tracing::info!(kind = self.source.watched.word(), "Workloads of this kind are followed again");
        }
    }
}

fn check(status: StatusCode) -> Result<(), End> {
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::GONE => Err(End::Expired),
        StatusCode::FORBIDDEN => Err(End::Refused),
        StatusCode::NOT_FOUND => Err(End::Missing),
        other => Err(End::Failed(format!("status {other}"))),
    }
}

/// One line of a watch.
fn event(line: &[u8], version: &mut String) -> Result<Option<Change>, End> {
    #[derive(Deserialize)]
    struct Event {
        r#type: String,
        object: Value,
    }
    let Event { r#type, object } = serde_json::from_slice(line).map_err(|error| End::Failed(error.to_string()))?;
    if r#type == "ERROR" {
        let code = object["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let status = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Err(check(status).err().unwrap_or(End::Over));
    }
    if let Some(newer) = object["metadata"]["resourceVersion"].as_str() {
        newer.clone_into(version);
    }
    Ok(match r#type.as_str() {
        "ADDED" | "MODIFIED" => Some(Change::Put(object)),
        "DELETED" => Some(Change::Gone(object)),
        // BOOKMARK, and whatever there will be.
        _ => None,
    })
}

/// One value of a query.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_move_the_version_on_and_errors_end_the_watch() {
        let mut version = "1".to_owned();
        let line = |kind: &str, object: &str| format!(r#"{{"type":"{kind}","object":{object}}}"#).into_bytes();
        let at = |number: u32| format!(r#"{{"metadata":{{"name":"x","resourceVersion":"{number}"}}}}"#);
        assert!(matches!(event(&line("ADDED", &at(2)), &mut version), Ok(Some(Change::Put(_)))));
        assert!(matches!(event(&line("MODIFIED", &at(3)), &mut version), Ok(Some(Change::Put(_)))));
        assert!(matches!(event(&line("DELETED", &at(4)), &mut version), Ok(Some(Change::Gone(_)))));
        assert!(matches!(event(&line("BOOKMARK", &at(9)), &mut version), Ok(None)));
        assert_eq!(version, "9");
        assert!(matches!(event(&line("ERROR", r#"{"code":410}"#), &mut version), Err(End::Expired)));
        assert!(matches!(event(&line("ERROR", r#"{"code":403}"#), &mut version), Err(End::Refused)));
        assert!(matches!(event(&line("ERROR", "{}"), &mut version), Err(End::Failed(_))));
        assert!(matches!(event(b"{", &mut version), Err(End::Failed(_))));
        assert_eq!(version, "9");
        assert_eq!(escaped("a/b+c=&"), "a%2Fb%2Bc%3D%26");
    }
}
