//! The limiter's part of an exchange.
//!
//! A request meets the rules in their order. Each finds its key (asking the host for
//! properties it needs), takes a permit if it limits what is under way, and decides
//! with leases over shared pages. The first that refuses ends the walk, and what the
//! rules before it took is given back as far as it can be.

mod admin;
mod key;
mod rule;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use hashbrown::HashMap;

use self::key::{Head, push_part};
pub use self::key::{KeyPart, Matcher, PathPattern};
pub use self::rule::{
    Concurrency, Cost, Delay, Denial, LimitAdmin, LimitRule, LimitSettings, Missing, OnError,
};
use super::{Action, Answer, Ask, Change, Flow, Metric, MetricKind, Now, Reply, Request, Response};
use super::{SharedKey, StreamId};
use crate::hash::HashSeed;
use crate::limit::address::parse_address;
use crate::limit::fields::{problem_json, rate_limit_fields, retry_after};
use crate::limit::{
    Action as Turn, Adaptive, Attempt, Busy, Decision, HeavyKeys, Lease, Leases, Level, Limit,
    Permits, Problem, Queue, Refusal, Shown, Step, Ticket, Try,
};

/// How many keys a worker remembers for each rule, in 64 bytes each.
const LOCAL_KEYS: usize = 16_384;

/// How many heavy keys are shown for each rule.
const HEAVY_KEYS: usize = 32;

/// The property that holds the address of the client's end of the connection.
const SOURCE_ADDRESS: &[u8] = b"source\0address";

/// What the limiter says to a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It may go on.
    Pass,
    /// It is answered.
    Reply(Reply),
    /// It waits for its turn.
    Wait,
}

/// What the limiter knows of one exchange.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The rule in hand, and how far it is.
    rule: usize,
    deciding: Option<Deciding>,
    /// Properties that were asked for, and the one that is being asked for.
    properties: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    asking: Option<Vec<u8>>,
    /// What rules that let it pass took.
    spent: Vec<Spent>,
    /// Permits that it holds: rule and key.
    permits: Vec<(usize, u64)>,
    /// Its place in a rule's queue.
    ticket: Option<(usize, Ticket)>,
    /// When it went upstream.
    passed_at: Option<crate::time::Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Spent {
    rule: usize,
    hash: u64,
    cost: u32,
}

/// A decision that is being taken.
#[derive(Debug)]
struct Deciding {
    hash: u64,
    client: u64,
    cost: u32,
    page: u32,
    tries: u32,
    lease: Option<Lease>,
}

/// Why a rule refuses a request.
#[derive(Clone, Copy, Debug)]
enum Denied {
    Limit(Decision),
    Busy(Busy),
    List,
    Missing,
    Failed,
}

/// What one rule says.
enum Said {
    Ask(Ask),
    /// Not its business, or not limited in time.
    Pass,
    Allowed,
    Denied(Denied),
    Wait(Ticket),
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    allowed: u64,
    denied: u64,
    too_large: u64,
    busy: u64,
    listed: u64,
    missing: u64,
    failed: u64,
    shadow: u64,
}

#[derive(Debug)]
struct Rule {
    rule: LimitRule,
    /// Names the rule's pages: another quota under the same name starts anew, and a
    /// rule that a new configuration repeats goes on.
    fingerprint: u64,
    seed: HashSeed,
    leases: Leases,
    /// By the hash of the key: from the configuration or from an operator.
    overrides: HashMap<u64, Limit, HashSeed>,
    permits: Option<Permits>,
    adaptive: Option<Adaptive>,
    queue: Option<Queue>,
    /// Whose turn is being decided.
    serving: Option<Serving>,
    heavy: HeavyKeys,
    counts: Counts,
}

#[derive(Debug)]
struct Serving {
    tried: Try,
    lease: Option<Lease>,
    tries: u32,
}

/// A change of a shared page that is under way, by the number that the edge knows.
#[derive(Debug)]
enum Work {
    /// The next waiter's turn.
    Serve { rule: usize },
    /// A response cost more than was reserved.
    Charge { rule: usize, hash: u64, cost: u32 },
    /// An operator gives a key its burst again.
    Reset { rule: usize, hash: u64 },
    /// An operator changed a key's limit.
    CarryOver { rule: usize, hash: u64, old: Limit },
}

#[derive(Debug)]
pub(super) struct LimitGate {
    rules: Vec<Rule>,
    settings: LimitSettings,
    seed: HashSeed,
    works: HashMap<u64, Work, HashSeed>,
    next_work: u64,
    waiting: HashMap<(usize, Ticket), StreamId, HashSeed>,
    actions: Vec<Action>,
    /// Requests that waited and may now go on.
    resumed: Vec<StreamId>,
    /// And those that may not.
    refused: Vec<(StreamId, Reply)>,
}

impl LimitGate {
    pub(super) fn new(mut settings: LimitSettings, seed: HashSeed) -> Self {
        let rules = core::mem::take(&mut settings.rules).into_iter();
        let rules = rules.filter_map(|rule| Rule::new(rule, &settings, seed)).collect();
        Self {
            rules,
            settings,
            seed,
            works: HashMap::with_hasher(seed),
            next_work: 0,
            waiting: HashMap::with_hasher(seed),
            actions: Vec::new(),
            resumed: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Whether requests may wait here: then ticks should come often.
    pub(super) fn delays(&self) -> bool {
        self.rules.iter().any(|rule| rule.queue.is_some())
    }

    /// Whether operators can change things: then all workers must hear of it.
    pub(super) const fn has_admin(&self) -> bool {
        self.settings.admin.is_some()
    }

    /// Whether a response matters to this exchange.
    pub(super) fn wants_response(&self, progress: &Progress) -> bool {
        let of = |rule: usize| self.rules.get(rule);
        progress.permits.iter().any(|(rule, _)| of(*rule).is_some_and(|r| r.adaptive.is_some()))
            || progress.spent.iter().any(|spent| {
                of(spent.rule).is_some_and(|rule| {
                    rule.rule.announce || matches!(rule.rule.cost, Cost::Response { .. })
                })
            })
    }

    pub(super) fn metrics(&self, metrics: &mut Vec<Metric>) {
        for rule in &self.rules {
            let (counts, leases) = (rule.counts, rule.leases.counts());
            let queue = rule.queue.as_ref().map(Queue::counts).unwrap_or_default();
            let under_way = rule.permits.as_ref().map_or(0, Permits::under_way);
            let mut push = |kind, what: &str, value| {
                let name = Cow::from(format!("edgeweir.limit.{}.{what}", rule.rule.name));
                metrics.push(Metric { name, kind, value });
            };
            for (what, value) in [
                ("allowed", counts.allowed),
                ("denied", counts.denied),
                ("denied_too_large", counts.too_large),
                ("denied_busy", counts.busy),
                ("denied_list", counts.listed),
                ("denied_missing_key", counts.missing),
                ("failed", counts.failed),
                ("shadow_denied", counts.shadow),
                ("delayed", queue.passed),
                ("delay_timed_out", queue.timed_out),
                ("delay_dropped", queue.dropped),
                ("page_reads", leases.reads),
                ("page_writes", leases.writes),
                ("decided_locally", leases.local),
                ("slots_lost", leases.lost),
                ("keys_evicted", leases.evicted),
                ("keys_refused", leases.refused),
            ] {
                push(MetricKind::Counter, what, value);
            }
            if rule.queue.is_some() {
                push(MetricKind::Gauge, "waiting", queue.waiting as u64);
            }
            if rule.permits.is_some() {
                push(MetricKind::Gauge, "under_way", u64::from(under_way));
            }
            if let Some(adaptive) = &rule.adaptive {
                push(MetricKind::Gauge, "concurrency_limit", u64::from(adaptive.limit()));
            }
        }
    }

    /// Walks through the rules.
    pub(super) fn step(
        &mut self,
        progress: &mut Progress,
        stream: StreamId,
        request: &Request<'_>,
        mut answer: Option<Answer<'_>>,
        now: Now,
    ) -> Flow<Outcome> {
        let head = Head::new(request.fields);
        if answer.is_none()
            && progress.rule == 0
            && let Some(reply) = self.administer(&head, now)
        {
            return Flow::Done(Outcome::Reply(reply));
        }
        while let Some(rule) = self.rules.get_mut(progress.rule) {
            let number = progress.rule;
            let said = rule.step(progress, &self.settings, &head, request.end, answer.take(), now);
            match said {
                Said::Ask(ask) => return Flow::Ask(ask),
                Said::Pass => {}
                Said::Allowed => {
                    if let Some(deciding) = &progress.deciding {
                        let (hash, cost) = (deciding.hash, deciding.cost);
                        progress.spent.push(Spent { rule: number, hash, cost });
                    }
                }
                Said::Wait(ticket) => {
                    progress.ticket = Some((number, ticket));
                    self.waiting.insert((number, ticket), stream);
                    self.turns(number, now);
                    return Flow::Done(Outcome::Wait);
                }
                Said::Denied(denied) => {
                    let reply = rule.refusal(progress, denied, now);
                    if let Some(reply) = reply {
                        self.take_back(progress, now);
                        return Flow::Done(Outcome::Reply(reply));
                    }
                }
            }
            progress.rule += 1;
            progress.deciding = None;
        }
        progress.passed_at = Some(now.instant);
        Flow::Done(Outcome::Pass)
    }

    /// Gives back what earlier rules took for a request that did not pass.
    fn take_back(&mut self, progress: &mut Progress, now: Now) {
        for spent in progress.spent.drain(..) {
            if let Some(rule) = self.rules.get_mut(spent.rule)
                && let Some(limit) = rule.limit_of(spent.hash).cloned()
            {
                rule.leases.give_back(&limit, spent.hash, spent.cost, now.instant);
            }
        }
        self.release(progress);
    }

    fn release(&mut self, progress: &mut Progress) {
        for (rule, hash) in progress.permits.drain(..) {
            if let Some(permits) = self.rules.get_mut(rule).and_then(|rule| rule.permits.as_mut()) {
                permits.release(hash);
            }
        }
    }

    /// The head of the response is here: settles what it really cost, and tells the
    /// client what is left.
    pub(super) fn response(
        &mut self,
        progress: &mut Progress,
        stream: StreamId,
        response: &Response<'_>,
        now: Now,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        // Another number in each stream and worker is all that a jitter has to be.
        let clocks = [u64::from(stream.0), now.instant.as_nanos()].map(u64::to_le_bytes);
        let jitter = self.seed.hash64(clocks.as_flattened()) >> 32;
        let jitter = u32::try_from(jitter).unwrap_or(0);
        for &(rule, _) in &progress.permits {
            let adaptive = self.rules.get_mut(rule).and_then(|rule| rule.adaptive.as_mut());
            if let (Some(adaptive), Some(sent)) = (adaptive, progress.passed_at) {
                adaptive.handle_response(sent, jitter, now.instant);
            }
        }
        for spent in core::mem::take(&mut progress.spent) {
            let Some(rule) = self.rules.get_mut(spent.rule) else { continue };
            let Some(limit) = rule.limit_of(spent.hash).cloned() else { continue };
            if let Cost::Response { name, max, .. } = &rule.rule.cost
                && let Some(truth) = response.fields.all(name).map(number).max().flatten()
            {
                let truth = truth.min(u64::from(*max));
                let truth = u32::try_from(truth).unwrap_or(u32::MAX);
                if spent.cost < truth {
                    let (rule, hash, cost) = (spent.rule, spent.hash, truth - spent.cost);
                    self.start(Work::Charge { rule, hash, cost });
                } else {
                    let unused = spent.cost - truth;
                    rule.leases.give_back(&limit, spent.hash, unused, now.instant);
                }
            }
            let Some(rule) = self.rules.get_mut(spent.rule) else { continue };
            if rule.rule.announce && changes.is_empty() {
                let fields = rule.shown(&limit, spent.hash, 0, None, now);
                let change =
                    |(name, value): (&'static str, String)| Change::Set(name, value.into_bytes());
                changes.extend(fields.into_iter().map(change));
            }
        }
        changes
    }

    /// The exchange is over, however it ended.
    pub(super) fn finished(&mut self, progress: &mut Progress) {
        self.release(progress);
        if let Some((rule, ticket)) = progress.ticket.take()
            && self.waiting.remove(&(rule, ticket)).is_some()
            && let Some(queue) = self.rules.get_mut(rule).and_then(|rule| rule.queue.as_mut())
        {
            queue.cancel(ticket);
        }
    }

    /// Time has passed: serves those whose turn it is.
    pub(super) fn tick(&mut self, now: Now) {
        for rule in 0..self.rules.len() {
            self.turns(rule, now);
        }
    }

    /// Lets waiters of a rule pass until the limit says no or a page is needed.
    fn turns(&mut self, number: usize, now: Now) {
        let mut wants_page = false;
        let Some(rule) = self.rules.get_mut(number) else { return };
        let Some(mut queue) = rule.queue.take() else { return };
        if rule.serving.is_none() {
            while let Some(tried) = queue.next_try(now.instant) {
                let decision = match rule.limit_of(tried.pool).cloned() {
                    Some(limit) => rule.leases.decide(&limit, tried.pool, tried.cost, now.instant),
                    None => break,
                };
                match decision {
                    Step::Decided(decision) => queue.settle(tried, decision, now.instant),
                    Step::Page(_) => {
                        rule.serving = Some(Serving { tried, lease: None, tries: 0 });
                        wants_page = true;
                        break;
                    }
                }
            }
        }
        if rule.serving.is_none() {
            queue.expire(now.instant);
        }
        rule.queue = Some(queue);
        self.tell_waiters(number, now);
        if wants_page {
            self.start(Work::Serve { rule: number });
        }
    }

    /// Passes on what has become of a rule's waiters.
    fn tell_waiters(&mut self, number: usize, now: Now) {
        let Some(rule) = self.rules.get_mut(number) else { return };
        while let Some(turn) = rule.queue.as_mut().and_then(Queue::next_action) {
            let (ticket, refusal) = match turn {
                Turn::Pass { ticket, .. } => (ticket, None),
                Turn::Refuse { ticket, reason } => (ticket, Some(reason)),
            };
            let Some(stream) = self.waiting.remove(&(number, ticket)) else { continue };
            match refusal {
                None => {
                    rule.counts.allowed += 1;
                    self.resumed.push(stream);
                }
                Some(reason) => {
                    rule.counts.denied += 1;
                    self.refused.push((stream, rule.given_up(reason, now)));
                }
            }
        }
    }

    fn start(&mut self, work: Work) {
        let (rule, hash) = match &work {
            Work::Serve { rule } => {
                let serving = self.rules.get(*rule).and_then(|rule| rule.serving.as_ref());
                (*rule, serving.map_or(0, |serving| serving.tried.pool))
            }
            Work::Charge { rule, hash, .. }
            | Work::Reset { rule, hash }
            | Work::CarryOver { rule, hash, .. } => (*rule, *hash),
        };
        let Some(rule) = self.rules.get(rule) else { return };
        let key = rule.page_key(rule.leases.page_of(hash));
        let token = self.next_work;
        self.next_work += 1;
        self.works.insert(token, work);
        self.actions.push(Action::Update(key, token));
    }

    /// The page that a work needs is here; gives what to write, if anything.
    pub(super) fn update(&mut self, token: u64, page: Option<&[u8]>, now: Now) -> Option<Vec<u8>> {
        let now_at = now.instant;
        let charge = match self.works.get(&token)? {
            Work::Serve { rule } => {
                let number = *rule;
                let rule = self.rules.get_mut(number)?;
                let mut serving = rule.serving.take()?;
                let tried = serving.tried;
                serving.tries += 1;
                let limit = rule.limit_of(tried.pool)?.clone();
                let decision = if Leases::ATTEMPTS < serving.tries {
                    rule.leases.give_up(&limit)
                } else {
                    match rule.leases.attempt(&limit, tried.pool, tried.cost, page, now_at) {
                        Attempt::Write(lease) => {
                            let page = lease.page().to_vec();
                            serving.lease = Some(lease);
                            rule.serving = Some(serving);
                            return Some(page);
                        }
                        Attempt::Decided(decision) => decision,
                    }
                };
                if let Some(queue) = &mut rule.queue {
                    queue.settle(tried, decision, now_at);
                }
                self.works.remove(&token);
                self.turns(number, now);
                return None;
            }
            Work::Charge { rule, hash, cost } => {
                let limit = self.rules.get(*rule)?.limit_of(*hash)?;
                Leases::charged(limit, *hash, *cost, page, now_at)
            }
            Work::Reset { rule, hash } => {
                let limit = self.rules.get(*rule)?.limit_of(*hash)?;
                Leases::reset(limit, *hash, page, now_at)
            }
            Work::CarryOver { rule, hash, old } => {
                let limit = self.rules.get(*rule)?.limit_of(*hash)?;
                Leases::carried_over(old, limit, *hash, page, now_at)
            }
        };
        Some(charge)
    }

    /// What [`LimitGate::update`] gave was written, or could not be.
    pub(super) fn updated(&mut self, token: u64, written: bool, now: Now) {
        let Some(Work::Serve { rule: number }) = self.works.remove(&token) else { return };
        let Some(rule) = self.rules.get_mut(number) else { return };
        if let Some(Serving { tried, lease, .. }) = rule.serving.take()
            && let Some(limit) = rule.limit_of(tried.pool).cloned()
        {
            let decision = match (lease, rule.rule.on_error) {
                (Some(lease), _) if written => rule.leases.accept(&limit, lease, now.instant),
                (_, OnError::Allow) => {
                    rule.counts.failed += 1;
                    Decision::Allow(Level::default())
                }
                (_, OnError::Deny) => {
                    rule.counts.failed += 1;
                    rule.leases.give_up(&limit)
                }
            };
            if let Some(queue) = &mut rule.queue {
                queue.settle(tried, decision, now.instant);
            }
        }
        if written {
            self.turns(number, now);
        } else {
            // A host that fails is asked again at the next tick, not in a loop.
            self.tell_waiters(number, now);
        }
    }

    /// Requests that waited and may now go on.
    pub(super) fn take_resumed(&mut self) -> Vec<StreamId> {
        core::mem::take(&mut self.resumed)
    }

    /// Requests that waited in vain, and their answers.
    pub(super) fn take_refused(&mut self) -> Vec<(StreamId, Reply)> {
        core::mem::take(&mut self.refused)
    }

    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        core::mem::take(&mut self.actions)
    }
}

impl Rule {
    fn new(rule: LimitRule, settings: &LimitSettings, seed: HashSeed) -> Option<Self> {
        // Not keyed with the seed: it must come out the same after a restart of one
        // worker's VM. It covers what the meaning of a stored state depends on.
        let meaning = format!(
            "{}\0{:?}\0{:?}\0{}\0{:?}",
            rule.name, rule.limit, rule.key, rule.pages, settings.prefix
        );
        let fingerprint = HashSeed::from_bytes([0; 16]).hash64(meaning.as_bytes());
        let leases = Leases::new(rule.pages, LOCAL_KEYS).ok()?;
        let permits = rule.concurrency.map(|c| Permits::new(c.per_key, c.total, seed));
        let adaptive = rule.concurrency.and_then(|c| c.adaptive);
        let adaptive = adaptive.map(|bounds| Adaptive::new(bounds, crate::time::Instant::ZERO));
        let queue = rule.delay.map(|delay| Queue::new(delay.max_waiting, seed));
        let mut this = Self {
            rule,
            fingerprint,
            seed,
            leases,
            overrides: HashMap::with_hasher(seed),
            permits,
            adaptive,
            queue,
            serving: None,
            heavy: HeavyKeys::new(HEAVY_KEYS, seed),
            counts: Counts::default(),
        };
        for (texts, limit) in core::mem::take(&mut this.rule.overrides) {
            let hash = this.hash_of_texts(&texts, settings);
            this.overrides.insert(hash, limit);
        }
        Some(this)
    }

    const fn page_key(&self, page: u32) -> SharedKey {
        SharedKey::new(*b"ewlp", self.fingerprint, page)
    }

    fn limit_of(&self, hash: u64) -> Option<&Limit> {
        if self.overrides.is_empty() {
            return self.rule.limit.as_ref();
        }
        self.overrides.get(&hash).or(self.rule.limit.as_ref())
    }

    /// The hash of a key whose parts an operator wrote.
    fn hash_of_texts(&self, texts: &[String], settings: &LimitSettings) -> u64 {
        let mut key = self.fingerprint.to_le_bytes().to_vec();
        for (n, part) in self.rule.key.iter().enumerate() {
            let text = texts.get(n).map(String::as_bytes);
            let address = text.filter(|_| *part == KeyPart::ClientAddress).and_then(parse_address);
            match address {
                Some(address) => push_part(&mut key, Some(&settings.prefix.key(address))),
                None => push_part(&mut key, text),
            }
        }
        self.seed.hash64(&key)
    }

    /// One step of this rule with a request.
    fn step(
        &mut self,
        progress: &mut Progress,
        settings: &LimitSettings,
        head: &Head<'_>,
        bodiless: bool,
        answer: Option<Answer<'_>>,
        now: Now,
    ) -> Said {
        let page_answer = match answer {
            Some(Answer::Property(value)) => {
                if let Some(path) = progress.asking.take() {
                    progress.properties.push((path, value.map(<[u8]>::to_vec)));
                }
                None
            }
            other => other,
        };
        let mut deciding = match progress.deciding.take() {
            Some(deciding) => deciding,
            None => match self.begin(progress, settings, head, now) {
                Ok(deciding) => deciding,
                Err(said) => return said,
            },
        };
        let said = self.decide(&mut deciding, bodiless, page_answer, now);
        progress.deciding = Some(deciding);
        said
    }

    /// Everything before the limit itself.
    fn begin(
        &mut self,
        progress: &mut Progress,
        settings: &LimitSettings,
        head: &Head<'_>,
        now: Now,
    ) -> Result<Deciding, Said> {
        let rule = &self.rule;
        if !rule.applies.matches(head) || rule.except.as_ref().is_some_and(|m| m.matches(head)) {
            return Err(Said::Pass);
        }
        let mut ask = |path: &[u8]| -> Result<Option<Vec<u8>>, Said> {
            match progress.properties.iter().find(|(known, _)| known == path) {
                Some((_, value)) => Ok(value.clone()),
                None => {
                    progress.asking = Some(path.to_vec());
                    Err(Said::Ask(Ask::Property(Cow::Owned(path.to_vec()))))
                }
            }
        };
        let needs_client = rule.key.contains(&KeyPart::ClientAddress)
            || rule.delay.is_some()
            || !rule.allow.is_empty()
            || !rule.deny.is_empty();
        let client = if needs_client {
            let peer = ask(SOURCE_ADDRESS)?.and_then(|peer| parse_address(&peer));
            let forwarded: Vec<_> = head.fields.all("x-forwarded-for").collect();
            peer.map(|peer| settings.proxies.client(peer, forwarded))
        } else {
            None
        };
        if let Some(client) = client {
            if rule.deny.contain(client) {
                return Err(Said::Denied(Denied::List));
            }
            if rule.allow.contain(client) {
                return Err(Said::Pass);
            }
        }
        let mut key = self.fingerprint.to_le_bytes().to_vec();
        let mut missing = false;
        for part in &rule.key {
            let value = match part {
                KeyPart::ClientAddress => {
                    client.map(|client| Cow::Owned(settings.prefix.key(client).to_vec()))
                }
                KeyPart::Property(path) => ask(path)?.filter(|v| !v.is_empty()).map(Cow::Owned),
                part => head.part(part),
            };
            missing |= value.is_none();
            push_part(&mut key, value.as_deref());
        }
        match rule.missing {
            Missing::Skip if missing => return Err(Said::Pass),
            Missing::Deny if missing => return Err(Said::Denied(Denied::Missing)),
            _ => {}
        }
        let cost = match &rule.cost {
            Cost::Fixed(cost) => *cost,
            Cost::Header { name, default, max } => {
                // The largest of several: nobody gets cheaper by saying it twice.
                let values = head.fields.all(name).map(number).max().flatten();
                let cost = values.unwrap_or(u64::from(*default)).clamp(1, u64::from(*max));
                u32::try_from(cost).unwrap_or(u32::MAX)
            }
            Cost::Response { reserve, .. } => *reserve,
        };
        let hash = self.seed.hash64(&key);
        if settings.admin.is_some() {
            let text = shown_key(&rule.key, head, client, settings);
            self.heavy.count(&text, u64::from(cost));
        }
        if let Some(permits) = &mut self.permits {
            if let Some(adaptive) = &self.adaptive {
                permits.set_total(adaptive.limit());
            }
            match permits.acquire(hash) {
                Ok(()) => progress.permits.push((progress.rule, hash)),
                Err(busy) => return Err(Said::Denied(Denied::Busy(busy))),
            }
        }
        if self.limit_of(hash).is_none() {
            progress.passed_at = Some(now.instant);
            return Err(Said::Pass);
        }
        let client = client.map_or(hash, |client| self.seed.hash64(&settings.prefix.key(client)));
        Ok(Deciding { hash, client, cost, page: 0, tries: 0, lease: None })
    }

    fn decide(
        &mut self,
        deciding: &mut Deciding,
        bodiless: bool,
        answer: Option<Answer<'_>>,
        now: Now,
    ) -> Said {
        let (hash, cost) = (deciding.hash, deciding.cost);
        let Some(limit) = self.limit_of(hash).cloned() else { return Said::Pass };
        let leases = &mut self.leases;
        let decision = match answer {
            None | Some(Answer::Property(_)) => {
                if self.queue.as_ref().is_some_and(|queue| queue.is_waited_for(hash)) {
                    // Nobody passes those who wait.
                    let level = Level { remaining: 0, reset: Duration::ZERO };
                    Decision::Deny { level, retry_after: Duration::ZERO }
                } else {
                    match leases.decide(&limit, hash, cost, now.instant) {
                        Step::Decided(decision) => decision,
                        Step::Page(page) => {
                            deciding.page = page;
                            return Said::Ask(Ask::Read(self.page_key(page)));
                        }
                    }
                }
            }
            Some(Answer::Shared(value)) => {
                let page = value.map(|(page, _)| page);
                match leases.attempt(&limit, hash, cost, page, now.instant) {
                    Attempt::Decided(decision) => decision,
                    Attempt::Write(lease) => {
                        let value = lease.page().to_vec();
                        deciding.lease = Some(lease);
                        let cas = cas(answer);
                        return Said::Ask(Ask::Write {
                            key: self.page_key(deciding.page),
                            value,
                            cas,
                        });
                    }
                }
            }
            Some(Answer::Written(written)) => match deciding.lease.take() {
                Some(lease) if written => leases.accept(&limit, lease, now.instant),
                _ => {
                    deciding.tries += 1;
                    if deciding.tries < Leases::ATTEMPTS {
                        return Said::Ask(Ask::Read(self.page_key(deciding.page)));
                    }
                    leases.give_up(&limit)
                }
            },
            Some(Answer::Failed) => return Said::Denied(Denied::Failed),
        };
        match decision {
            Decision::Allow(_) => {
                self.counts.allowed += 1;
                Said::Allowed
            }
            Decision::Deny { retry_after, .. } if bodiless && self.is_enforced(hash) => self
                .wait(deciding, retry_after, now)
                .unwrap_or(Said::Denied(Denied::Limit(decision))),
            Decision::Deny { .. } | Decision::TooLarge(_) => Said::Denied(Denied::Limit(decision)),
        }
    }

    /// A place in the queue, if there is a queue and the place is worth something. A
    /// request with a body never waits: what it holds costs too much memory.
    fn wait(&mut self, deciding: &Deciding, retry_after: Duration, now: Now) -> Option<Said> {
        let (queue, delay) = (self.queue.as_mut()?, self.rule.delay?);
        let deadline = now.instant.after(delay.max_wait);
        let place = (deciding.hash, deciding.client);
        let ticket = queue.push(place, deciding.cost, retry_after, deadline, now.instant).ok()?;
        Some(Said::Wait(ticket))
    }

    fn is_enforced(&self, hash: u64) -> bool {
        // Other bits than those that choose the page.
        let share = ((hash & 0xffff_ffff) * 100) >> 32;
        !self.rule.shadow && share < u64::from(self.rule.percent)
    }

    /// Counts a refusal; gives the answer, unless the rule only watches.
    fn refusal(&mut self, progress: &Progress, denied: Denied, now: Now) -> Option<Reply> {
        let enforced = match &progress.deciding {
            Some(deciding) => self.is_enforced(deciding.hash),
            None => !self.rule.shadow,
        };
        if matches!(denied, Denied::Failed) {
            self.counts.failed += 1;
            if self.rule.on_error == OnError::Allow {
                return None;
            }
        }
        if !enforced {
            self.counts.shadow += 1;
            return None;
        }
        let second = Duration::from_secs(1);
        let counts = &mut self.counts;
        let (count, status, problem, wait, details) = match denied {
            Denied::Limit(Decision::TooLarge(_)) => {
                (&mut counts.too_large, 0, Problem::QuotaExceeded, None, "edgeweir_limit_too_large")
            }
            Denied::Limit(decision) => {
                let wait = decision.retry_after().unwrap_or(second);
                (&mut counts.denied, 0, Problem::QuotaExceeded, Some(wait), "edgeweir_limit")
            }
            Denied::Busy(busy) => {
                let status = if busy == Busy::Total { 503 } else { 0 };
                let problem = Problem::ReducedCapacity;
                (&mut counts.busy, status, problem, Some(second), "edgeweir_limit_busy")
            }
            Denied::List => {
                (&mut counts.listed, 403, Problem::QuotaExceeded, None, "edgeweir_limit_list")
            }
            Denied::Missing => {
                (&mut counts.missing, 403, Problem::QuotaExceeded, None, "edgeweir_limit_key")
            }
            Denied::Failed => {
                let problem = Problem::ReducedCapacity;
                (&mut counts.denied, 503, problem, Some(second), "edgeweir_limit_failed")
            }
        };
        *count += 1;
        let mut fields = Vec::new();
        if let (Some(deciding), Denied::Limit(decision)) = (&progress.deciding, denied)
            && let Some(limit) = self.limit_of(deciding.hash).cloned()
        {
            fields = self.shown(&limit, deciding.hash, deciding.cost, decision.retry_after(), now);
        }
        Some(self.reply(status, problem, wait, details, fields))
    }

    /// The answer to a request that waited in vain.
    fn given_up(&self, reason: Refusal, _now: Now) -> Reply {
        let details = match reason {
            Refusal::Timeout => "edgeweir_limit_waited",
            Refusal::Full | Refusal::TooLarge | Refusal::Closed => "edgeweir_limit_dropped",
        };
        let wait = self
            .rule
            .limit
            .as_ref()
            .and_then(|limit| limit.quotas().iter().map(|quota| quota.interval()).max());
        self.reply(0, Problem::QuotaExceeded, wait, details, Vec::new())
    }

    /// `status` 0 is the rule's own.
    fn reply(
        &self,
        status: u16,
        problem: Problem,
        wait: Option<Duration>,
        details: &'static str,
        shown: Vec<(&'static str, String)>,
    ) -> Reply {
        let denial = &self.rule.denial;
        let status = if status == 0 { denial.status } else { status };
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut push = |name: &str, value: String| {
            fields.push((name.as_bytes().to_vec(), value.into_bytes()));
        };
        if let Some(wait) = wait {
            push("retry-after", retry_after(wait));
        }
        for (name, value) in shown {
            push(name, value);
        }
        // Nobody's cache may answer others with this.
        push("cache-control", "no-store".into());
        for (name, value) in &denial.fields {
            push(name, value.clone());
        }
        let body = match &denial.body {
            Some(body) => body.clone(),
            None => {
                push("content-type", "application/problem+json".into());
                match status {
                    403 => "{\"title\":\"Forbidden\",\"status\":403}\n".into(),
                    status => problem_json(problem, status, &[&self.rule.name]),
                }
            }
        };
        let grpc_status = match status {
            403 => 7,
            _ => i32::from(denial.grpc_status),
        };
        Reply { status, fields, body: body.into_bytes().into(), details, grpc_status }
    }

    /// The fields that tell a client about its quota.
    fn shown(
        &mut self,
        limit: &Limit,
        hash: u64,
        cost: u32,
        wait: Option<Duration>,
        now: Now,
    ) -> Vec<(&'static str, String)> {
        let levels = self.leases.levels(limit, hash, now.instant);
        let name = &self.rule.name;
        let names: Vec<String> = match limit.quotas() {
            [_] => [name.clone()].into(),
            // One name for each quota: requests and milliseconds.
            quotas => quotas
                .iter()
                .map(|quota| format!("{name}-{}-{}", quota.requests(), quota.per().as_millis()))
                .collect(),
        };
        let each = limit.quotas().iter().zip(levels).zip(&names);
        let shown: Vec<_> = each
            .map(|((quota, level), name)| {
                let retry_after = wait.filter(|_| level.remaining < cost);
                Shown { name, quota: *quota, level, retry_after }
            })
            .collect();
        rate_limit_fields(self.rule.version, &shown)
    }
}

/// A key as operators read it.
fn shown_key(
    parts: &[KeyPart],
    head: &Head<'_>,
    client: Option<IpAddr>,
    settings: &LimitSettings,
) -> Vec<u8> {
    let mut text = Vec::new();
    for part in parts {
        if !text.is_empty() {
            text.push(b' ');
        }
        match part {
            KeyPart::ClientAddress => {
                let address = client.map(|client| key::shown_address(settings.prefix.key(client)));
                let address = address.map(|address| format!("{address}"));
                text.extend_from_slice(address.as_deref().unwrap_or("-").as_bytes());
            }
            part => text.extend_from_slice(head.part(part).as_deref().unwrap_or(b"-")),
        }
    }
    text
}

/// A whole number in a field: digits only.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || 19 < digits.len() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

fn cas(answer: Option<Answer<'_>>) -> u32 {
    match answer {
        Some(Answer::Shared(Some((_, cas)))) => cas,
        _ => SharedKey::ABSENT,
    }
}
