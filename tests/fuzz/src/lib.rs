//! What the targets share: how the servers behind us read what we write, as the differential test models it.

#[path = "../../it/differential/go.rs"]
pub mod go;
