//! What needs no real server: the house rules, and the gateway between a recording upstream and the OpenShift stand-in.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests")]

mod colleagues;
mod floors;
mod gateway;
mod identity;
mod refused;
mod support;
