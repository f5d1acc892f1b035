//! What the text of HTTP fields means.

pub mod cache_control;
pub mod date;
pub mod emit;
mod fields;
pub mod list;
pub mod structured;

pub use fields::{FieldList, Fields};
