//! Which trace a request belongs to, what is recorded of it, and how it is exported.
