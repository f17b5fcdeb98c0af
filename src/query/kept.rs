//! Which answers may be kept, under which terms, and the question that is asked for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;

use super::asking::Way;
use super::lately::Words;
use super::params::Params;
use super::terms::InForce;
use super::{Behind, Queries, told};
use crate::access::{Grant, Granted};
use crate::cache::{self, Asked, How, Terms, Times, millis};
use crate::config::{Backend, BackendKind, CacheMode};
use crate::encoding;
use crate::extents::Grid;
use crate::promql::{Confined, Limits};
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::route::MetricsCall;
use crate::telemetry::metrics::{CacheKind, CacheReason};
use crate::upstream::Question;

/// A question of somebody, on its way to the cache.
pub(super) struct Keeping<'k> {
    pub(super) queries: &'k Queries,
    pub(super) grant: &'k Grant,
    pub(super) behind: &'k Behind,
    pub(super) params: &'k Params<'k>,
    /// As it came, if its answer is to be found by that.
    pub(super) words: Option<Words<'k>>,
    pub(super) began: Instant,
}

impl Keeping<'_> {
    /// A range query.
    pub(super) async fn range(&self, confined: &Granted<Confined>, limits: &Limits) -> Result<Reply, Refusal> {
        const PATH: &str = "/api/v1/query_range";
        let (queries, params) = (self.queries, self.params);
        let in_force = self.behind.terms.of(&confined.get().reach());
        if in_force.is_bypassed() {
            return self.pass(PATH, confined, CacheKind::Range).await;
        }
        let settings = self.behind.client.settings();
        let plan = queries.plans.of(confined.get(), settings, params.lookback_ms(), limits);
        let range = in_force.range;
        let terms = Terms { shadow: in_force.mode == CacheMode::Shadow, ..self.terms(range.fresh, range.ttl) };
        let reason = plan.unfit.or_else(|| self.unfit());
        let points = params.points().and_then(|points| Some((points, Grid::new(points.start, points.step)?)));
        let mut question = Question::query(PATH, confined);
        let times = match (reason, points) {
            (None, Some((points, grid))) => {
                params.write_without_times(&mut question);
                let rules = cache::rules(range, plan.looks);
                if question.push_step(points.step) {
                    Some(Times::Points(grid, grid.span(points.start, points.end), rules, plan.looks))
                } else {
                    None
                }
            }
            _ => None,
        };
        let times = times.unwrap_or_else(|| {
            question = Question::query(PATH, confined);
            params.write_without_timeout(&mut question);
            Times::Whole(None, reason.or(Some(CacheReason::Time)))
        });
        self.ask(CacheKind::Range, question, times, terms, || Some(vec![confined.get().text().to_owned()])).await
    }

    /// An instant query.
    pub(super) async fn instant(&self, confined: &Granted<Confined>, limits: &Limits) -> Result<Reply, Refusal> {
        const PATH: &str = "/api/v1/query";
        let (queries, params) = (self.queries, self.params);
        let in_force = self.behind.terms.of(&confined.get().reach());
        if in_force.is_bypassed() {
            return self.pass(PATH, confined, CacheKind::Instant).await;
        }
        let plan = queries.plans.of(confined.get(), self.behind.client.settings(), params.lookback_ms(), limits);
        let instant = in_force.instant;
        let terms = Terms { shadow: in_force.mode == CacheMode::Shadow, ..self.terms(instant.fresh, instant.ttl) };
        let reason = plan.unfit.or_else(|| self.unfit());
        let mut question = Question::query(PATH, confined);
        params.write_without_times(&mut question);
        let time = params.time_ms();
        if !time.is_some_and(|time| question.push_time("time", time)) {
            params.write_times(&mut question);
        }
        let settles = time.filter(|_| reason.is_none()).map(|time| {
            let fixed = plan.looks.fixed.map_or(i64::MIN, |(_, latest)| latest);
            let latest = fixed.max(time.saturating_add(plan.looks.forward));
            latest.saturating_add(millis(in_force.range.settle))
        });
        let sent = || Some(vec![confined.get().text().to_owned()]);
        self.ask(CacheKind::Instant, question, Times::Whole(settles, reason), terms, sent).await
    }

    /// Series, names or values of labels.
    pub(super) async fn matching(
        &self,
        call: &MetricsCall,
        selectors: &Granted<Vec<Confined>>,
        mut question: Question,
    ) -> Result<Reply, Refusal> {
        let (queries, params) = (self.queries, self.params);
        let texts = || -> Vec<String> { selectors.get().iter().map(|one| one.text().to_owned()).collect() };
        let (kind, window) = match call {
            MetricsCall::Series => (CacheKind::Series, queries.keeping.series),
            MetricsCall::LabelValues(_) => (CacheKind::Values, queries.keeping.labels),
            _ => (CacheKind::Labels, queries.keeping.labels),
        };
        let in_force = self.behind.terms.of_all(selectors.get());
        if !in_force.is_enforced() {
            params.write(&mut question);
            let texts = texts();
            let sent: Vec<&str> = texts.iter().map(String::as_str).collect();
            return queries.pass(&self.behind.client, question, &sent, self.began, kind, CacheReason::Mode).await;
        }
        let limited = params.limit().is_some_and(|limit| limit > 0);
        let reason = limited.then_some(CacheReason::Limit);
        // Of which a limit leaves some, they would be others in a wider window.
        let align = if limited { 0 } else { millis(window.align) };
        let settles = match params.window_ms(align) {
            Some([start, end]) => {
                params.write_without_times(&mut question);
                let written = [("start", start), ("end", end)];
                let written =
                    written.into_iter().all(|(name, time)| time.is_none_or(|time| question.push_time(name, time)));
                end.filter(|_| written).map(|end| end.saturating_add(millis(in_force.range.settle)))
            }
            None => {
                params.write_without_timeout(&mut question);
                None
            }
        };
        let terms = self.terms(window.fresh, in_force.instant.ttl);
        self.ask(kind, question, Times::Whole(settles, reason), terms, || Some(texts())).await
    }

    /// Something that is kept as a whole and filtered for each caller. Errors have no words of the backend.
    pub(super) async fn whole(
        &self,
        kind: CacheKind,
        question: Question,
        fresh: Duration,
        in_force: InForce,
    ) -> Result<(Bytes, How), Refusal> {
        let terms = self.terms(fresh, fresh);
        if !in_force.is_enforced() {
            let how = self.queries.passed(kind, CacheReason::Mode);
            let answer = self.behind.client.ask(question).await?;
            return Ok((super::answers::whole(answer, None, self.queries.limits.answer).await?, how));
        }
        let told = self.told(kind, question, Times::Whole(None, None), terms, || None).await?;
        Ok((told.body, told.how))
    }

    async fn ask(
        &self,
        kind: CacheKind,
        question: Question,
        times: Times,
        terms: Terms,
        sent: impl Fn() -> Option<Vec<String>> + Sync,
    ) -> Result<Reply, Refusal> {
        let answer = self.told(kind, question, times, terms, sent).await?;
        let reply = Reply { packed: Some(answer.packed), ..Reply::json(StatusCode::OK, answer.body) };
        Ok(told(reply, self.began, answer.how))
    }

    async fn told(
        &self,
        kind: CacheKind,
        question: Question,
        times: Times,
        terms: Terms,
        sent: impl Fn() -> Option<Vec<String>> + Sync,
    ) -> Result<cache::Told, Refusal> {
        let Behind { client, place, .. } = self.behind;
        let timeout = client.settings().timeout;
        let patience = self.params.timeout().map_or(timeout, |asked| asked.min(timeout));
        let asked = Asked {
            kind,
            question,
            times,
            place,
            terms,
            // What is filtered afterwards is asked for everybody at once.
            wide: matches!(kind, CacheKind::Metadata | CacheKind::Alerts) || self.grant.is_wide(),
            room: &|| self.grant.room(),
            deadline: (self.began + patience).into(),
            timeout,
        };
        // Only what is answered from the cache comes here.
        if let Some(words) = self.words {
            self.queries.remember(self.grant, client, words, &asked);
        }
        let largest = self.queries.limits.answer;
        // The keys of metadata are names of metrics; what else such an answer says is dropped when it is filtered.
        let says = kind != CacheKind::Metadata;
        let origin =
            || -> Arc<dyn cache::Origin> { Arc::new(Way { client: Arc::clone(client), sent: sent(), says, largest }) };
        self.queries.cache.answer(&asked, &origin).await
    }

    fn terms(&self, fresh: Duration, ttl: Duration) -> Terms {
        Terms { shadow: false, upstream: self.behind.terms.upstream, ..Terms::new(&self.queries.keeping, fresh, ttl) }
    }

    async fn pass(&self, path: &'static str, confined: &Granted<Confined>, kind: CacheKind) -> Result<Reply, Refusal> {
        let mut question = Question::query(path, confined);
        self.params.write(&mut question);
        let sent = [confined.get().text()];
        self.queries.pass(&self.behind.client, question, &sent, self.began, kind, CacheReason::Mode).await
    }

    /// Why parameters forbid to take an answer apart.
    fn unfit(&self) -> Option<CacheReason> {
        let (params, settings) = (self.params, self.behind.client.settings());
        if params.limit().is_some_and(|limit| limit > 0) {
            return Some(CacheReason::Limit);
        }
        if params.has("stats") {
            return Some(CacheReason::Stats);
        }
        // Data of another resolution take the place of others some time after they have settled.
        let resolution = settings.kind == BackendKind::Thanos
            && (params.has("max_source_resolution") || settings.parameters.contains_key("max_source_resolution"));
        resolution.then_some(CacheReason::Resolution)
    }
}

/// Whose token it is. One that is renewed, or another pod's, is the same one's; what is no JWT is nobody's but its own.
fn owner(token: &str) -> Vec<u8> {
    // What concerns one token alone, and the pod that it was made for.
    const OF_ONE: [&str; 5] = ["exp", "iat", "nbf", "jti", "kubernetes.io"];
    let claims = || {
        let mut claims: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&encoding::jwt_part(token, 1)?).ok()?;
        claims.retain(|name, _| !OF_ONE.contains(&name.as_str()));
        let is_known = ["iss", "sub"].iter().all(|name| claims.get(*name).is_some_and(serde_json::Value::is_string));
        is_known.then(|| serde_json::to_vec(&claims).ok()).flatten()
    };
    claims().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// Everything of a backend's settings that can change what it answers to us, each behind its length.
pub(super) fn describe(settings: &Backend) -> Vec<u8> {
    let mut out = Vec::new();
    let mut field = |text: &[u8]| {
        out.extend_from_slice(&(text.len() as u64).to_le_bytes());
        out.extend_from_slice(text);
    };
    field(settings.name.as_bytes());
    field(if settings.kind == BackendKind::Thanos { b"thanos" } else { b"prometheus" });
    field(settings.url.to_string().as_bytes());
    field(&settings.token.as_ref().map_or_else(Vec::new, |token| owner(token.expose())));
    field(settings.ca.as_deref().unwrap_or_default());
    for (name, value) in &settings.parameters {
        field(name.as_bytes());
        field(value.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::owner;
    use crate::encoding::base64url;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", base64url(claims.as_bytes()))
    }

    #[test]
    fn a_token_that_is_renewed_is_the_same_ones() {
        let first = token(r#"{"iss":"i","sub":"a","exp":1,"jti":"x","kubernetes.io":{"pod":{"name":"p"}}}"#);
        let same = owner(&first);
        assert_eq!(same, owner(&token(r#"{"sub":"a","iat":7,"nbf":7,"exp":2,"iss":"i"}"#)));
        let others =
            [r#"{"iss":"i","sub":"b"}"#, r#"{"iss":"j","sub":"a"}"#, r#"{"iss":"i","sub":"a","groups":["g"]}"#];
        for other in others {
            assert_ne!(same, owner(&token(other)), "{other}");
        }
        // What does not say whose it is stands for itself.
        for text in [token(r#"{"sub":"a"}"#), token(r#"{"iss":1,"sub":"a"}"#), token("x"), "sha256~abc".to_owned()] {
            assert_eq!(owner(&text), text.as_bytes());
        }
    }
}
