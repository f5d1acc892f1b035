//! HTTP caching: may a response be stored, may an entry be reused (RFC 9111).
//!
//! Pure decisions over bytes. For one exchange, in this order:
//!
//! 1. [`key::Target`] names what is asked for; [`key::bypass`] says whether the cache
//!    must stay out of it.
//! 2. [`store::Store::find`] gives the entry whose `Vary` fits the request.
//! 3. [`reuse::decide`] says whether it answers the request now, or must be validated
//!    first ([`reuse::conditions`] are the fields that ask upstream).
//! 4. [`answer::answer`] is what the client gets of it: all, a range, 304.
//! 5. Upstream's response may refresh the entry ([`entry::Entry::refresh`]), stand in
//!    for it ([`policy::judge`] and [`entry::Entry::new`]), or make it invalid
//!    ([`invalidate::targets`]).
//!
//! | module | what it decides |
//! |---|---|
//! | [`key`] | what a request asks for, and who must stay out |
//! | [`policy`] | may this response be stored, and for how long is it fresh |
//! | [`vary`] | which requests a stored response answers |
//! | [`entry`] | what is kept of a response |
//! | [`reuse`] | may an entry answer this request now |
//! | [`answer`] | what the client gets of an entry: whole, part, or "not modified" |
//! | [`invalidate`] | what an unsafe request makes invalid |
//! | [`store`] | many entries in a bounded number of bytes |
//! | [`status`] | the `Cache-Status` field |

pub mod answer;
pub mod entry;
pub mod invalidate;
pub mod key;
pub mod policy;
pub mod reuse;
pub mod status;
pub mod store;
pub mod vary;
