//! Which dashboard belongs to a workload, and what stands in it? Raw objects of the cluster become a small [`Workload`];
//! a template and a workload become one Perses dashboard.
//!
//! Pure: nothing here asks a cluster or reads a folder. What comes from objects of the cluster is hostile until it stands in
//! the model, and a value of the model enters a dashboard as a typed thing, never as a piece of text.

mod compile;
mod index;
mod library;
mod placeholder;
mod query;
mod read;
mod template;
mod time;
mod workload;

pub use compile::TemplateProblem;
pub use index::{Change, Changed, Index, Most, Place, Source, Watched};
pub use library::{Dashboard, Library, Settings};
pub use read::{Unread, engine_of_runtime, read};
pub use template::{Target, Template};
pub use workload::{Engine, Kind, Progress, Runtime, State, Workload, WorkloadName};

#[cfg(test)]
mod tests;
