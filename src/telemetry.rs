//! What happened? Logs for people, metrics for machines, audit records for whoever must account for it.

pub mod audit;
pub mod logs;
pub mod metrics;
