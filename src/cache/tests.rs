//! The cache before a backend that is a function of time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

mod backend;
mod model;
mod odd;
mod packed;
mod replicas;
mod scenes;
mod sets;
mod shelf;
mod viewers;
