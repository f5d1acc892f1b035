//! What the text of HTTP fields means.

mod fields;

pub use fields::Fields;
