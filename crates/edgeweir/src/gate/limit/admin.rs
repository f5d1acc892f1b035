//! The operators' path: what the rules did, whose keys are heavy, and changes.
//!
//! | request | does |
//! |---|---|
//! | `GET {path}` | counts of this worker by rule, and the heaviest keys |
//! | `POST {path}/reset?rule=R&key=K` | gives a key its full burst again |
//! | `POST {path}/limit?rule=R&key=K&requests=N&per_ms=M&burst=B` | gives a key another limit |
//! | `POST {path}/limit?rule=R&key=K` | gives it the rule's limit again |
//!
//! `key` stands once for each part of the rule's key. All workers hear of a change; in
//! each it lasts until the configuration changes or its VM ends.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::key::{Head, KeyPart};
use super::{LimitGate, Rule, Work};
use crate::gate::{Action, Now, Reply};
use crate::limit::{Limit, Quota};

/// The first bytes of a message between limiters.
const MESSAGE: &[u8] = b"ewlimit1";

impl LimitGate {
    /// The answer, if the request is an operator's.
    pub(super) fn administer(&mut self, head: &Head<'_>, now: Now) -> Option<Reply> {
        let admin = self.settings.admin.as_ref()?;
        let below = head.path().strip_prefix(admin.path.as_bytes())?;
        let command = match below {
            b"" | b"/reset" | b"/limit" => below.to_vec(),
            _ => return None,
        };
        let expected = format!("Bearer {}", admin.token);
        let mut given = head.fields.all("authorization");
        let known = given.next().is_some_and(|given| same(given, expected.as_bytes()));
        if !known || given.next().is_some() {
            return Some(answer(403, "{\"title\":\"Forbidden\",\"status\":403}\n".into()));
        }
        let changes = head.method() == Some(b"POST");
        Some(match (&command[..], changes) {
            (b"", false) => answer(200, self.report()),
            (b"/reset" | b"/limit", true) => match self.change(&command, head, now) {
                Ok(()) => answer(200, "{\"changed\":true}\n".into()),
                Err(fault) => {
                    let fault = json(fault.as_bytes());
                    answer(400, format!("{{\"title\":{fault},\"status\":400}}\n"))
                }
            },
            _ => answer(405, "{\"title\":\"Method not allowed\",\"status\":405}\n".into()),
        })
    }

    fn change(&mut self, command: &[u8], head: &Head<'_>, now: Now) -> Result<(), String> {
        let one = |name: &str| {
            let value = head.part(&KeyPart::Query(name.into()))?;
            core::str::from_utf8(&value).ok().map(String::from)
        };
        let name = one("rule").ok_or("rule: is missing")?;
        let at = self.rules.iter().position(|rule| rule.rule.name == name);
        let rule = at.and_then(|at| self.rules.get(at));
        let (Some(at), Some(rule)) = (at, rule) else {
            return Err(format!("rule: there is no rule {name:?}"));
        };
        let keys: Vec<String> = match one("key") {
            None => Vec::new(),
            Some(keys) => keys.split(", ").map(String::from).collect(),
        };
        let parts = rule.rule.key.len();
        if keys.len() != parts {
            return Err(format!("key: must be given {parts} times, got {}", keys.len()));
        }
        let hash = rule.hash_of_texts(&keys, &self.settings);
        let number = |name: &str| -> Result<Option<u32>, String> {
            let Some(text) = one(name) else { return Ok(None) };
            let fault = || format!("{name}: must be a whole number, got {text:?}");
            text.parse().map(Some).map_err(|_| fault())
        };
        let limit = match (command, number("requests")?) {
            (b"/limit", Some(requests)) => {
                let per = Duration::from_millis(number("per_ms")?.unwrap_or(1000).into());
                let burst = number("burst")?.unwrap_or(requests);
                Some((requests, per, burst))
            }
            _ => None,
        };
        if let Some((requests, per, burst)) = limit {
            Quota::new(requests, per, burst).map_err(|error| format!("{error}"))?;
        }
        let mut message = MESSAGE.to_vec();
        message.push(u8::from(command == b"/limit"));
        message.extend_from_slice(&rule.fingerprint.to_le_bytes());
        message.extend_from_slice(&hash.to_le_bytes());
        let (requests, per, burst) = limit.unwrap_or_default();
        let per = u64::try_from(per.as_millis()).unwrap_or(u64::MAX);
        for number in [u64::from(requests), per, u64::from(burst)] {
            message.extend_from_slice(&number.to_le_bytes());
        }
        // This worker changes the shared page, and now; the others must forget what
        // they know of the key.
        let old = rule.limit_of(hash).cloned();
        self.heed(&message);
        let work = match old {
            Some(old) if command == b"/limit" => Work::CarryOver { rule: at, hash, old },
            _ => Work::Reset { rule: at, hash },
        };
        self.start(work);
        if let Some(queue) = self.rules.get_mut(at).and_then(|rule| rule.queue.as_mut()) {
            queue.wake(hash, now.instant);
        }
        self.actions.push(Action::Tell(message));
        Ok(())
    }

    /// Another worker's change, or this one's own. False if the message is not for the
    /// limiter.
    pub(in crate::gate) fn heed(&mut self, message: &[u8]) -> bool {
        let Some(message) = message.strip_prefix(MESSAGE) else { return false };
        let Some((&kind, rest)) = message.split_first() else { return true };
        let mut numbers =
            rest.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok().map(u64::from_le_bytes));
        let mut next = || numbers.next().unwrap_or(0);
        let (fingerprint, hash) = (next(), next());
        let (requests, per, burst) = (next(), next(), next());
        let Some(rule) = self.rules.iter_mut().find(|rule| rule.fingerprint == fingerprint) else {
            return true;
        };
        rule.leases.forget();
        if kind == 1 {
            let quota = Quota::new(
                u32::try_from(requests).unwrap_or(0),
                Duration::from_millis(per),
                u32::try_from(burst).unwrap_or(0),
            );
            match quota {
                Ok(quota) if rule.overrides.len() < crate::limit::Limiter::MAX_OVERRIDES => {
                    rule.overrides.insert(hash, Limit::from(quota));
                }
                _ => {
                    rule.overrides.remove(&hash);
                }
            }
        }
        true
    }

    fn report(&self) -> String {
        let mut text = String::from("{\"rules\":[");
        for (n, rule) in self.rules.iter().enumerate() {
            if n != 0 {
                text.push(',');
            }
            text.push_str(&one_rule(rule));
        }
        text.push_str("]}\n");
        text
    }
}

fn one_rule(rule: &Rule) -> String {
    let counts = rule.counts;
    let heavy: Vec<_> = rule
        .heavy
        .heaviest()
        .iter()
        .map(|entry| {
            let key = json(&entry.key);
            format!("{{\"key\":{key},\"count\":{},\"error\":{}}}", entry.count, entry.error)
        })
        .collect();
    format!(
        "{{\"name\":{},\"allowed\":{},\"denied\":{},\"denied_too_large\":{},\"denied_busy\":{},\
         \"denied_list\":{},\"denied_missing_key\":{},\"failed\":{},\"shadow_denied\":{},\
         \"waiting\":{},\"under_way\":{},\"overrides\":{},\"heavy_keys\":[{}]}}",
        json(rule.rule.name.as_bytes()),
        counts.allowed,
        counts.denied,
        counts.too_large,
        counts.busy,
        counts.listed,
        counts.missing,
        counts.failed,
        counts.shadow,
        rule.queue.as_ref().map_or(0, |queue| queue.counts().waiting),
        rule.permits.as_ref().map_or(0, |permits| permits.under_way()),
        rule.overrides.len(),
        heavy.join(","),
    )
}

/// A JSON string. Bytes that are not UTF-8, and everything that could start something
/// in a terminal, are written as escapes.
fn json(bytes: &[u8]) -> String {
    let text: Cow<'_, str> = String::from_utf8_lossy(bytes);
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            other => {
                let mut units = [0; 2];
                for unit in other.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
    out
}

/// Compares without telling by the time it takes how much was right.
fn same(given: &[u8], expected: &[u8]) -> bool {
    let differences = given.iter().zip(expected).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == expected.len() && differences == 0
}

fn answer(status: u16, body: String) -> Reply {
    Reply {
        status,
        fields: [
            (b"content-type".to_vec(), b"application/json".to_vec()),
            (b"cache-control".to_vec(), b"no-store".to_vec()),
        ]
        .into(),
        body: body.into_bytes().into(),
        details: "edgeweir_limit_admin",
        grpc_status: -1,
    }
}
