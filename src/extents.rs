//! Which points of a range are known, which are missing, and how do the answers to parts become one?
//!
//! A range request asks for the points of a [`Grid`]: its start and step. Points are counted from the beginning of time, so
//! that two requests on one grid speak of the same point by the same number, and a span of numbers is half open. What was
//! answered is kept as the bytes that the backend wrote: numbers are never read, never written. What cannot be read by the
//! strict reader of [`matrix`] is not taken apart at all.

pub mod grid;
mod kept;
pub mod matrix;
mod piece;
mod same;
mod series;

pub use grid::{BLOCK, Grid, Span};
pub use kept::{Extents, Fetched, Looks, Moment, Part, Rules, Written, alive, is_fresh};
pub use matrix::Unreadable;
pub use piece::Piece;
pub use same::same;

#[cfg(test)]
pub(crate) mod tests;
