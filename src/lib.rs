//! An authenticating, namespace-confining reverse proxy beside an unmodified Perses. This page is its architecture.
//!
//! The modules stand in floors. **One rule: a module may use any module above it in this list, none below it**; a test
//! (`tests/it/floors.rs`) holds them to it.
//!
//! | floor | modules | what they answer |
//! | --- | --- | --- |
//! | words | [`names`], [`encoding`], [`refusal`], [`yaml`] | which strings are names; bytes as text; in how many ways a request can end early; what a file says where |
//! | rules, pure | [`promql`], [`route`], [`document`], [`extents`], [`dashboards`], [`injection`], [`page`] | which series a query may touch; what is asked; which JSON may pass; which points are known; which dashboard a workload has; what is added to a pod; what people read |
//! | setting | [`config`], [`telemetry`] | what was configured; what happened |
//! | hands | [`memo`], [`dial`], [`reply`], [`listen`], [`remote`], [`cluster`], [`workloads`] | HTTP outwards and inwards; what the Kubernetes API says; what runs in the cluster |
//! | guards | [`identity`], [`access`] | who is this; may they |
//! | behind the guards | [`upstream`], [`cache`], [`query`], [`catalog`] | the servers behind us, what they said lately, and answers made of theirs |
//! | doors | [`gateway`], [`admin`], [`control`], [`webhook`] | the journey of a request; probes and metrics; operators; the API server |
//! | roof | [`app`], [`command`] | build, run, reload, stop; the command line |
//!
//! # The journey of one request
//!
//! 1. [`listen`] accepts, shakes hands, bounds time and connections.
//! 2. [`gateway`] takes one snapshot of the configuration; this request never sees another.
//! 3. [`route::read`] turns the head into a [`route::Route`], or refuses. The received path is not used again.
//! 4. [`identity`] turns the credential, a bearer token or the cookie of a session, into a [`identity::Caller`]; there is
//!    no anonymous one. Logging in and out, which makes and ends sessions, branches off here ([`route::Door`]).
//! 5. [`access`] turns caller and route into a [`access::Grant`]. The requirement of each route stands in one `match`.
//! 6. [`query`] or [`catalog`] answer. Whatever goes to a server behind us is a [`access::Granted`] thing, which only a
//!    grant makes: a query is confined on the way, a request is written from the parsed route, a body is written anew.
//! 7. Any early end is a [`refusal::Refusal`]; [`gateway`] alone turns it into bytes.
//! 8. One audit record and one set of metrics close the request, also when the client goes away.

pub mod names;
pub mod encoding;
pub mod refusal;
pub mod yaml;

pub mod promql;
pub mod route;
pub mod document;
pub mod extents;
pub mod dashboards;
pub mod injection;
pub mod page;

pub mod config;
pub mod telemetry;

pub mod memo;
pub mod dial;
pub mod reply;
pub mod listen;
pub mod remote;
pub mod cluster;
pub mod workloads;

pub mod identity;
pub mod access;

pub mod upstream;
pub mod cache;
pub mod query;
pub mod catalog;

pub mod gateway;
pub mod admin;
pub mod control;
pub mod webhook;

pub mod app;
pub mod command;

/// The commit that was built, if the builder said so.
pub const COMMIT: &str = match option_env!("PERSES_SIDECAR_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
