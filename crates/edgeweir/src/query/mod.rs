//! SQL as text: what a statement is, what is wrong with it, how often it runs.
//!
//! There is no parser here, on purpose: a grammar for four dialects costs 1.6 MB of
//! WebAssembly and still fails on up to a quarter of real statements. One linear
//! pass of a [`lexer`] feeds all the rest, so no text, however hostile, costs more
//! than its length.
//!
//! | module | what it decides |
//! |---|---|
//! | [`lexer`] | tokens and statements of PostgreSQL, MySQL, SQLite and T-SQL |
//! | [`fingerprint`] | which statements are the same query with other values |
//! | [`mask`] | which literals are secrets and must never be stored |

pub mod fingerprint;
pub mod lexer;
pub mod mask;
