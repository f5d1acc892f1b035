//! `limits`: a list of rules, each with a quota and a key.

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use super::reader::{ConfigError, Reader};
use crate::gate::{LimitRule, OnError};
use crate::limit::{Limit, Quota};

/// The most rules that a configuration may have.
const MAX_RULES: usize = 64;

pub(super) fn read(limits: Reader<'_>) -> Result<Vec<LimitRule>, ConfigError> {
    let mut rules: Vec<LimitRule> = Vec::new();
    for item in limits.items(MAX_RULES)? {
        let rule = rule(&item)?;
        if rules.iter().any(|other| other.name == rule.name) {
            return Err(item
                .required("name")?
                .wrong("must be another name than any rule's before"));
        }
        rules.push(rule);
    }
    if rules.is_empty() {
        return Err(limits.wrong("must have at least one rule"));
    }
    Ok(rules)
}

fn rule(item: &Reader<'_>) -> Result<LimitRule, ConfigError> {
    item.only(&["name", "requests", "per_ms", "burst", "key", "on_error", "pages"])?;
    let number = |name: &str, end: u32| -> Result<Option<u32>, ConfigError> {
        let Some(field) = item.optional(name) else { return Ok(None) };
        Ok(u32::try_from(field.number(1..=u64::from(end))?).ok())
    };
    let name = super::name(item.required("name")?)?;
    item.required("requests")?;
    let requests = number("requests", u32::MAX)?.unwrap_or(1);
    let per = match item.optional("per_ms") {
        Some(per) => per.millis(1..=31_536_000_000)?,
        None => Duration::from_secs(1),
    };
    let burst = number("burst", u32::MAX)?.unwrap_or(requests);
    let quota = Quota::new(requests, per, burst)
        .map_err(|error| item.wrong(&format!("{error}; the rule {name:?} is")))?;
    if let Some(key) = item.optional("key") {
        for part in key.items(8)? {
            part.word(&["client_address"])?;
        }
    }
    let on_error = match item.optional("on_error") {
        Some(field) => match field.word(&["allow", "deny"])? {
            0 => OnError::Allow,
            _ => OnError::Deny,
        },
        None => OnError::Allow,
    };
    let pages = number("pages", 1 << 20)?.unwrap_or(16_384);
    Ok(LimitRule { name, limit: Limit::from(quota), on_error, pages })
}
