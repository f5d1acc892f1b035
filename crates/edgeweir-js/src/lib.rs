//! The raw layer below the npm package: the core's types as JS classes.
//!
//! Numbers, bytes and short strings only; everything that a user of the package
//! sees (options, promises, errors, types) is written by hand in `js/`. Time and
//! random bytes are arguments here too: milliseconds of the caller's clock as `f64`,
//! seeds as bytes, so this crate imports neither a clock nor entropy.
//!
//! What the border costs decides the shapes: a call with numbers is some
//! nanoseconds, a string or an object a hundred times that. So keys are written
//! by JS into a [`border::KeyBuffer`], and answers are read from a
//! [`border::Answer`], both through views over the memory of this module.

mod border;
mod limit;

pub use limit::{RawLimiter, address_key};
