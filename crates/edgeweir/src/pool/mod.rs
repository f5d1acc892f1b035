//! Who gets a connection, and which targets are healthy.
//!
//! | module | what it decides |
//! |---|---|
//! | [`connections`] | who gets a connection, and when one is opened, tested or closed |
//! | [`breaker`] | may a call go out, or has its target failed too often |

pub mod breaker;
pub mod connections;
