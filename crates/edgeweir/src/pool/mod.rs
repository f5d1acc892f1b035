//! Who gets a connection, and which targets are healthy.
//!
//! | module | what it decides |
//! |---|---|
//! | [`breaker`] | may a call go out, or has its target failed too often |

pub mod breaker;
