//! Rate limiting: may this request pass now, and if not, when.
//!
//! Everything rests on one number per key, its *theoretical arrival time* (TAT):
//! when the next request would come if all came evenly spaced.
//!
//! | module | what it decides |
//! |---|---|
//! | [`quota`] | one request against one key's state (GCRA), and several quotas together |
//! | [`limiter`] | many keys in a table of fixed size |
//! | [`lease`] | the same truth shared by several workers, in pages that they compare and swap |

pub mod lease;
pub mod limiter;
pub mod quota;
mod states;

pub use lease::{Attempt, Lease, Leases, Step};
pub use limiter::{Limiter, LimiterCounts};
pub use quota::{Decision, Level, Limit, LimitError, Quota, QuotaError};
