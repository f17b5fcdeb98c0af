//! What needs no real server: the house rules, and the gateway between a recording upstream and the OpenShift stand-in.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, unreachable_pub, reason = "tests")]

mod admission;
mod attack;
mod cached;
mod clock;
mod colleagues;
mod commands;
mod control;
mod dashboard;
mod differential;
mod docs;
mod faults;
mod floors;
mod gateway;
mod identity;
mod login;
mod refused;
mod operator;
mod reload;
mod remembered;
mod shapes;
mod support;
mod tls;
mod workloads;
