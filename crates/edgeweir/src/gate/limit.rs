//! The limiter's part of an exchange.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Answer, Ask, Flow, Metric, MetricKind, Now, Reply, Request, SharedKey};
use crate::hash::HashSeed;
use crate::limit::{Attempt, Decision, Lease, Leases, Limit, Step};
use crate::time::nanos;

/// What a rule does with a request that it cannot decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Let it pass.
    Allow,
    /// Refuse it.
    Deny,
}

/// One limit, for each client address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRule {
    /// Its name, in header fields and metrics.
    pub name: String,
    /// What is allowed.
    pub limit: Limit,
    /// What happens when the host fails, or does not know the client's address.
    pub on_error: OnError,
    /// How many shared pages of 256 bytes (16 clients each) hold its state.
    pub pages: u32,
}

/// How many clients a worker remembers for each rule, in 64 bytes each.
const LOCAL_KEYS: usize = 16_384;

/// The property that holds the address of the client's end of the connection.
const SOURCE_ADDRESS: &[u8] = b"source\0address";

/// What the limiter knows of one exchange.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The rule in hand.
    rule: usize,
    /// The client's address in canonical bytes.
    client: Option<Vec<u8>>,
    /// A page that is about to be written.
    lease: Option<Lease>,
    /// The page in hand, and how often it was read.
    page: u32,
    tries: u32,
}

#[derive(Debug)]
struct Rule {
    rule: LimitRule,
    /// Names the rule's pages: another quota under the same name starts anew.
    fingerprint: u64,
    leases: Leases,
    allowed: u64,
    denied: u64,
    failed: u64,
}

#[derive(Debug)]
pub(super) struct LimitGate {
    rules: Vec<Rule>,
    seed: HashSeed,
}

impl LimitGate {
    pub(super) fn new(rules: Vec<LimitRule>, seed: HashSeed) -> Self {
        let rules = rules.into_iter().filter_map(|rule| {
            // Not keyed with the seed: it must come out the same after a restart of
            // one worker's VM.
            let text = format!("{}\0{:?}\0{}", rule.name, rule.limit, rule.pages);
            let fingerprint = HashSeed::from_bytes([0; 16]).hash64(text.as_bytes());
            let leases = Leases::new(rule.pages, LOCAL_KEYS).ok()?;
            Some(Rule { rule, fingerprint, leases, allowed: 0, denied: 0, failed: 0 })
        });
        Self { rules: rules.collect(), seed }
    }

    pub(super) fn metrics(&self, metrics: &mut Vec<Metric>) {
        for rule in &self.rules {
            for (what, value) in
                [("allowed", rule.allowed), ("denied", rule.denied), ("failed", rule.failed)]
            {
                let name = Cow::from(format!("edgeweir.limit.{}.{what}", rule.rule.name));
                metrics.push(Metric { name, kind: MetricKind::Counter, value });
            }
        }
    }

    /// Walks through the rules. In the end there is the refusal of the first rule
    /// that denies, or none.
    pub(super) fn step(
        &mut self,
        progress: &mut Progress,
        _request: &Request<'_>,
        mut answer: Option<Answer<'_>>,
        now: Now,
    ) -> Flow<Option<Reply>> {
        while let Some(rule) = self.rules.get_mut(progress.rule) {
            let decision = match rule.step(progress, self.seed, answer.take(), now) {
                Flow::Ask(ask) => return Flow::Ask(ask),
                Flow::Done(decision) => decision,
            };
            if let Some(refusal) = rule.conclude(decision) {
                return Flow::Done(Some(refusal));
            }
            progress.rule += 1;
            progress.tries = 0;
            progress.lease = None;
        }
        Flow::Done(None)
    }
}

impl Rule {
    /// One rule's decision; `None` if it cannot be had.
    fn step(
        &mut self,
        progress: &mut Progress,
        seed: HashSeed,
        answer: Option<Answer<'_>>,
        now: Now,
    ) -> Flow<Option<Decision>> {
        let Self { rule, fingerprint, leases, .. } = self;
        let page_key = |page| SharedKey::new(*b"ewlp", *fingerprint, page);
        let client = match (&progress.client, answer) {
            (Some(client), _) => client,
            (None, Some(Answer::Property(address))) => match address.and_then(canonical) {
                Some(client) => progress.client.insert(client),
                None => return Flow::Done(None),
            },
            (None, None) => return Flow::Ask(Ask::Property(Cow::Borrowed(SOURCE_ADDRESS))),
            (None, Some(_)) => return Flow::Done(None),
        };
        let mut key = fingerprint.to_le_bytes().to_vec();
        key.extend_from_slice(client);
        let hash = seed.hash64(&key);
        let read = |leases: &mut Leases, page: &mut u32, tries: &mut u32| {
            *tries += 1;
            if Leases::ATTEMPTS < *tries {
                return Flow::Done(Some(leases.give_up(&rule.limit)));
            }
            match leases.decide(&rule.limit, hash, 1, now.instant) {
                Step::Decided(decision) => Flow::Done(Some(decision)),
                Step::Page(number) => {
                    *page = number;
                    Flow::Ask(Ask::Read(page_key(number)))
                }
            }
        };
        match answer {
            None | Some(Answer::Property(_)) => {
                read(leases, &mut progress.page, &mut progress.tries)
            }
            Some(Answer::Shared(value)) => {
                let page = value.map(|(page, _)| page);
                match leases.attempt(&rule.limit, hash, 1, page, now.instant) {
                    Attempt::Decided(decision) => Flow::Done(Some(decision)),
                    Attempt::Write(lease) => {
                        let value = lease.page().to_vec();
                        let key = page_key(progress.page);
                        progress.lease = Some(lease);
                        Flow::Ask(Ask::Write { key, value, cas: cas(answer) })
                    }
                }
            }
            Some(Answer::Written(written)) => match progress.lease.take() {
                Some(lease) if written => {
                    Flow::Done(Some(leases.accept(&rule.limit, lease, now.instant)))
                }
                _ => read(leases, &mut progress.page, &mut progress.tries),
            },
            Some(Answer::Failed) => Flow::Done(None),
        }
    }

    /// Counts a decision; gives the refusal if it is one.
    fn conclude(&mut self, decision: Option<Decision>) -> Option<Reply> {
        let decision = match (decision, self.rule.on_error) {
            (Some(decision), _) => decision,
            (None, OnError::Allow) => {
                self.failed += 1;
                return None;
            }
            (None, OnError::Deny) => {
                self.failed += 1;
                return Some(self.refusal(1, 0));
            }
        };
        if decision.is_allowed() {
            self.allowed += 1;
            return None;
        }
        self.denied += 1;
        // Rounded up: a client that comes back after this many seconds is served.
        let seconds = decision.retry_after().map_or(0, |wait| nanos(wait).div_ceil(1_000_000_000));
        Some(self.refusal(seconds.max(1), decision.level().remaining))
    }

    /// 429 with the fields of draft-ietf-httpapi-ratelimit-headers-10 and a problem
    /// document (RFC 9457).
    fn refusal(&self, seconds: u64, remaining: u32) -> Reply {
        let name = &self.rule.name;
        let mut policies = String::new();
        for quota in self.rule.limit.quotas() {
            let separator = if policies.is_empty() { "" } else { ", " };
            let (requests, window) = (quota.requests(), quota.per().as_secs().max(1));
            policies.push_str(&format!("{separator}\"{name}\";q={requests};w={window}"));
        }
        let body = format!(
            "{{\"type\":\"https://iana.org/assignments/http-problem-types#quota-exceeded\",\
             \"title\":\"Too many requests\",\"status\":429,\"violated-policies\":[\"{name}\"]}}\n"
        );
        let field = |name: &str, value: String| (name.as_bytes().to_vec(), value.into_bytes());
        Reply {
            status: 429,
            fields: [
                field("retry-after", format!("{seconds}")),
                field("ratelimit-policy", policies),
                field("ratelimit", format!("\"{name}\";r={remaining};t={seconds}")),
                field("content-type", "application/problem+json".into()),
                field("cache-control", "no-store".into()),
            ]
            .into(),
            body: body.into_bytes().into(),
            details: "edgeweir_limit",
            // RESOURCE_EXHAUSTED
            grpc_status: 8,
        }
    }
}

fn cas(answer: Option<Answer<'_>>) -> u32 {
    match answer {
        Some(Answer::Shared(Some((_, cas)))) => cas,
        _ => SharedKey::ABSENT,
    }
}

/// The address in "1.2.3.4:5678" or "[2001:db8::1]:5678" as bytes that are the same
/// for one client: an IPv4 address whole, of an IPv6 address the /64 that one
/// customer is given.
fn canonical(source: &[u8]) -> Option<Vec<u8>> {
    let text = core::str::from_utf8(source).ok()?;
    let (address, _port) = text.rsplit_once(':')?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(address) => Some(address.octets().to_vec()),
        IpAddr::V6(address) => Some(address.octets().iter().copied().take(8).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_one_key() {
        for (a, b, same) in [
            ("1.2.3.4:5", "1.2.3.4:6", true),
            ("1.2.3.4:5", "1.2.3.5:5", false),
            ("[::ffff:1.2.3.4]:5", "1.2.3.4:6", true),
            ("[2001:db8::1]:5", "[2001:db8::ffff:2]:6", true),
            ("[2001:db8:0:1::1]:5", "[2001:db8:0:2::1]:5", false),
        ] {
            let (x, y) = (canonical(a.as_bytes()).unwrap(), canonical(b.as_bytes()).unwrap());
            assert_eq!(x == y, same, "{a} {b}");
        }
        for bad in [&b""[..], b"/run/socket", b"\xff:1", b"1.2.3.4", b"[::1]"] {
            assert_eq!(canonical(bad), None, "{bad:?}");
        }
    }
}
