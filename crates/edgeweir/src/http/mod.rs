//! What the text of HTTP fields means.

pub mod emit;
mod fields;

pub use fields::Fields;
