//! `limits`: the bounds on everything from outside.

use std::time::Duration;

use super::section::{HOUR, Notes, SECOND, Section};
use crate::promql;

/// `limits`: the bounds on everything from outside. [`Limits::default`] is what a file without them means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `limits.connections`, default 4096: open at once, over all listeners.
    pub connections: usize,
    /// `limits.streams`, default 100: of one h2 connection.
    pub streams: u32,
    /// `limits.first_byte`, default 10 s: until a new connection has said something.
    pub first_byte: Duration,
    /// `limits.handshake`, default 10 s: until TLS stands.
    pub handshake: Duration,
    /// `limits.header`, default 10 s: until a request head is complete.
    pub header: Duration,
    /// `limits.idle`, default 90 s: a kept connection without a request.
    pub idle: Duration,
    /// `limits.total`, default 5 min: one request, its answer included.
    pub total: Duration,
    /// `limits.linger`, default 0 s: how long new connections are taken after SIGTERM, until nobody sends any.
    pub linger: Duration,
    /// `limits.drain`, default 25 s: and how long what has begun may take then.
    pub drain: Duration,
    /// `limits.header_bytes`, default 64 KiB: a request head.
    pub header_bytes: usize,
    /// `limits.headers`, default 100: lines in it.
    pub headers: usize,
    /// `limits.body`, default 4 MiB: what a client may send to Perses.
    pub body: usize,
    /// `limits.query_body`, default 256 KiB: what a client may send with a query.
    pub query_body: usize,
    /// `limits.answer`, default 64 MiB: what an upstream may answer.
    pub answer: usize,
    /// `limits.perses_timeout`, default 30 s: one answer of Perses.
    pub perses_timeout: Duration,
    /// `limits.upstream_connections`, default 64: kept idle to one upstream.
    pub upstream_connections: usize,
    /// `limits.namespaces`, default 2000: reviewed one by one for a caller.
    pub namespaces: usize,
    /// `limits.cached_reviews`, default 10,000: entries in each review cache.
    pub cached_reviews: u64,
    /// `limits.query_points`, default 11,000: steps of a range request.
    pub query_points: u64,
    /// `limits.migrations`, default 2: migrate and validate calls at once.
    pub migrations: usize,
    /// `limits.logins`, default 64: logins that are being finished at once; more wait for their turn.
    pub logins: usize,
    /// `limits.failed_attempts`, default 100: tokens and logins of one address within a minute that were not good, where
    /// `listen.trusted_proxies` name addresses.
    pub failed_attempts: u32,
    /// The bounds of PromQL text: `limits.query_text`, `.query_depth`, `.query_operators`, `.query_selectors`,
    /// `.query_tokens`, `.confined_query`, `.subquery_steps`, `.query_label_bytes`, `.query_repetitions`.
    pub promql: promql::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            streams: 100,
            first_byte: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(90),
            total: Duration::from_secs(300),
            linger: Duration::ZERO,
            drain: Duration::from_secs(25),
            header_bytes: 64 << 10,
            headers: 100,
            body: 4 << 20,
            query_body: 256 << 10,
            answer: 64 << 20,
            perses_timeout: Duration::from_secs(30),
            upstream_connections: 64,
            namespaces: 2000,
            cached_reviews: 10_000,
            query_points: 11_000,
            migrations: 2,
            logins: 64,
            failed_attempts: 100,
            promql: promql::Limits::default(),
        }
    }
}

pub(super) fn read(root: &mut Section<'_>, notes: &mut Notes) -> Limits {
    let mut section = root.section("limits", notes);
    let d = Limits::default();
    let short = (SECOND / 20, 300 * SECOND);
    let parsed = Limits {
        connections: section.count("connections", d.connections, (1, 1 << 20), notes),
        streams: section.count("streams", d.streams, (1, 10_000), notes),
        first_byte: section.duration("first_byte", d.first_byte, short, notes),
        handshake: section.duration("handshake", d.handshake, short, notes),
        header: section.duration("header", d.header, short, notes),
        idle: section.duration("idle", d.idle, (SECOND, HOUR), notes),
        total: section.duration("total", d.total, (SECOND, HOUR), notes),
        linger: section.duration("linger", d.linger, (Duration::ZERO, 60 * SECOND), notes),
        drain: section.duration("drain", d.drain, (Duration::ZERO, HOUR), notes),
        header_bytes: section.size("header_bytes", d.header_bytes, (8 << 10, 1 << 20), notes),
        headers: section.count("headers", d.headers, (10, 1000), notes),
        body: section.size("body", d.body, (1 << 10, 64 << 20), notes),
        query_body: section.size("query_body", d.query_body, (1 << 10, 10 << 20), notes),
        answer: section.size("answer", d.answer, (64 << 10, 4 << 30), notes),
        perses_timeout: section.duration("perses_timeout", d.perses_timeout, (SECOND / 10, HOUR), notes),
        upstream_connections: section.count("upstream_connections", d.upstream_connections, (1, 10_000), notes),
        namespaces: section.count("namespaces", d.namespaces, (1, 100_000), notes),
        cached_reviews: section.count("cached_reviews", d.cached_reviews, (100, 10_000_000), notes),
        query_points: section.count("query_points", d.query_points, (1, 1_000_000), notes),
        migrations: section.count("migrations", d.migrations, (1, 1000), notes),
        logins: section.count("logins", d.logins, (1, 10_000), notes),
        failed_attempts: section.count("failed_attempts", d.failed_attempts, (1, 1_000_000), notes),
        promql: crate::promql::Limits {
            text: section.size("query_text", d.promql.text, (256, 1 << 20), notes),
            depth: section.count("query_depth", d.promql.depth, (4, 200), notes),
            binary_operators: section.count("query_operators", d.promql.binary_operators, (1, 1000), notes),
            selectors: section.count("query_selectors", d.promql.selectors, (1, 10_000), notes),
            tokens: section.count("query_tokens", d.promql.tokens, (10, 1_000_000), notes),
            confined: section.size("confined_query", d.promql.confined, (1 << 10, 8 << 20), notes),
            subquery_steps: section.count("subquery_steps", d.promql.subquery_steps, (1, 100_000_000), notes),
            label_bytes: section.size("query_label_bytes", d.promql.label_bytes, (1 << 10, 16 << 20), notes),
            repetitions: section.count("query_repetitions", d.promql.repetitions, (1, 1_000_000), notes),
            ..d.promql
        },
    };
    section.finish(notes);
    parsed
}
