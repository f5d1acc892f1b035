//! Rate limiting: may this request pass now, and if not, when.
//!
//! Everything rests on one number per key, its *theoretical arrival time* (TAT):
//! when the next request would come if all came evenly spaced.
//!
//! | module | what it decides |
//! |---|---|
//! | [`quota`] | one request against one key's state (GCRA), and several quotas together |
//! | [`limiter`] | many keys in a table of fixed size |
//! | [`address`] | which client a request comes from, behind proxies |
//! | [`queue`] | who waits for a turn, and whose it is |
//! | [`concurrency`] | how many requests may be under way |
//! | [`fields`] | what a client is told |
//! | [`heavy`] | which keys cost most |
//! | [`lease`] | the same truth shared by several workers, in pages that they compare and swap |

pub mod address;
pub mod concurrency;
pub mod fields;
pub mod heavy;
pub mod lease;
pub mod limiter;
pub mod queue;
pub mod quota;
mod states;

pub use address::{AddressPrefix, Network, NetworkError, Networks, TrustedProxies};
pub use concurrency::{Adaptive, AdaptiveBounds, Busy, Permits};
pub use fields::{FieldsVersion, Problem, Shown};
pub use heavy::{HeavyKey, HeavyKeys};
pub use lease::{Attempt, Lease, LeaseCounts, Leases, Step};
pub use limiter::{Limiter, LimiterCounts};
pub use queue::{Action, Answer, Queue, QueueCounts, Refusal, Ticket, Try, WaitingLimiter};
pub use quota::{Decision, Level, Limit, LimitError, Quota, QuotaError};
