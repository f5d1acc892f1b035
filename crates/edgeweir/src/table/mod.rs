//! Bounded keyed storage: what is kept, and what is evicted when it is full.
