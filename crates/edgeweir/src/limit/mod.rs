//! Rate limiting: may this request pass now, and if not, when.
