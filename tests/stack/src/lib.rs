//! Real servers and an OpenShift stand-in, for `cargo try` and the suites. Never part of the product.

pub mod data;
pub mod encoding;
pub mod ground;
pub mod http;
pub mod kubernetes;
pub mod openshift;
pub mod overlay;
pub mod pod;
pub mod secrets;
pub mod servers;
pub mod thanos;
pub mod tour;
mod ui;
pub mod workloads;
pub mod world;
