//! HTTP caching: may a response be stored, may an entry be reused (RFC 9111).
