//! `limits`: a list of rules; `client`: whose address counts; `admin`: where operators
//! look.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::reader::{ConfigError, Reader};
use crate::gate::{
    Concurrency, Cost, Delay, Denial, KeyPart, LimitAdmin, LimitRule, LimitSettings, Matcher,
    Missing, OnError, PathPattern,
};
use crate::limit::{
    AdaptiveBounds, AddressPrefix, FieldsVersion, Limit, Networks, Quota, TrustedProxies,
};

/// The most rules that a configuration may have.
const MAX_RULES: usize = 64;

/// The most networks in one list.
const MAX_NETWORKS: usize = 10_000;

/// About a million keys, in pages of sixteen: 16 MiB, taken as they are used.
const DEFAULT_PAGES: u32 = 65_536;

/// Reads the parts of the document that are about limits.
pub(super) fn read(
    limits: Option<&Reader<'_>>,
    client: Option<&Reader<'_>>,
    admin: Option<&Reader<'_>>,
) -> Result<LimitSettings, ConfigError> {
    let mut settings = LimitSettings::default();
    if let Some(client) = client {
        client.only(&["trusted_proxies", "trusted_hops", "ipv4_prefix", "ipv6_prefix"])?;
        let hops = number(client, "trusted_hops", 0..=32)?.unwrap_or(0);
        settings.proxies = TrustedProxies {
            networks: networks(client, "trusted_proxies")?,
            hops: u8::try_from(hops).unwrap_or(0),
        };
        let bits = |name, most: u32| -> Result<Option<u8>, ConfigError> {
            Ok(number(client, name, 0..=most)?.and_then(|bits| u8::try_from(bits).ok()))
        };
        let (v4, v6) = (bits("ipv4_prefix", 32)?, bits("ipv6_prefix", 128)?);
        settings.prefix = AddressPrefix::new(v4.unwrap_or(32), v6.unwrap_or(64));
    }
    if let Some(admin) = admin {
        admin.only(&["path", "token"])?;
        let path = admin.required("path")?;
        let text = path.text()?;
        if text.len() < 2 || !text.starts_with('/') || text.ends_with('/') {
            return Err(path.wrong("must be a path such as \"/edgeweir\""));
        }
        let token = admin.required("token")?;
        if token.text()?.len() < 16 {
            return Err(ConfigError::new("admin.token", "must have at least 16 characters"));
        }
        settings.admin =
            Some(LimitAdmin { path: text.to_string(), token: token.text()?.to_string() });
    }
    let Some(limits) = limits else { return Ok(settings) };
    let mut waits: Option<String> = None;
    for item in limits.items(MAX_RULES)? {
        let rule = rule(&item)?;
        if settings.rules.iter().any(|other| other.name == rule.name) {
            return Err(item
                .required("name")?
                .wrong("must be another name than any rule's before"));
        }
        if let Some(name) = &waits {
            let fault = format!("must come before {name:?}: a rule with \"delay\" is the last");
            return Err(item.required("name")?.wrong(&fault));
        }
        waits = rule.delay.map(|_| rule.name.clone());
        settings.rules.push(rule);
    }
    if settings.rules.is_empty() {
        return Err(limits.wrong("must have at least one rule"));
    }
    Ok(settings)
}

#[inline(never)]
fn number(
    of: &Reader<'_>,
    name: &str,
    range: core::ops::RangeInclusive<u32>,
) -> Result<Option<u32>, ConfigError> {
    let Some(field) = of.optional(name) else { return Ok(None) };
    let range = u64::from(*range.start())..=u64::from(*range.end());
    Ok(u32::try_from(field.number(range)?).ok())
}

#[inline(never)]
fn flag(of: &Reader<'_>, name: &str) -> Result<bool, ConfigError> {
    of.optional(name).map_or(Ok(false), |field| field.boolean())
}

#[inline(never)]
fn networks(of: &Reader<'_>, name: &str) -> Result<Networks, ConfigError> {
    let Some(list) = of.optional(name) else { return Ok(Networks::default()) };
    let mut networks = Vec::new();
    for item in list.items(MAX_NETWORKS)? {
        networks.push(item.text()?.parse().map_err(|error| item.wrong(&format!("{error}")))?);
    }
    Ok(Networks::new(networks))
}

/// The name of a header field, in lower case.
#[inline(never)]
fn field_name(reader: &Reader<'_>) -> Result<String, ConfigError> {
    let text = reader.text()?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || 256 < text.len() || !text.bytes().all(token) {
        return Err(reader.wrong("must be the name of a header field"));
    }
    Ok(text.to_ascii_lowercase())
}

/// `requests`, `per_ms`, `burst`, `strict`; `None` if there is no `requests`.
#[inline(never)]
fn quota(of: &Reader<'_>) -> Result<Option<Quota>, ConfigError> {
    let Some(requests) = number(of, "requests", 1..=u32::MAX)? else {
        for name in ["per_ms", "burst", "strict"] {
            if of.optional(name).is_some() {
                of.required("requests")?;
            }
        }
        return Ok(None);
    };
    let per = match of.optional("per_ms") {
        Some(per) => per.millis(1..=31_536_000_000)?,
        None => Duration::from_secs(1),
    };
    let burst = number(of, "burst", 1..=u32::MAX)?;
    let quota = if flag(of, "strict")? {
        Quota::strict(requests, per, burst.unwrap_or(requests.div_ceil(2)))
    } else {
        Quota::new(requests, per, burst.unwrap_or(requests))
    };
    quota.map(Some).map_err(|error| of.wrong(&format!("{error}; the quota is")))
}

/// One quota in the rule itself, or several under `quotas`.
#[inline(never)]
fn limit(of: &Reader<'_>) -> Result<Option<Limit>, ConfigError> {
    let own = quota(of)?;
    let Some(list) = of.optional("quotas") else { return Ok(own.map(Limit::from)) };
    if own.is_some() {
        return Err(list.wrong("must not stand beside \"requests\""));
    }
    let mut quotas = Vec::new();
    for item in list.items(Limit::MAX_QUOTAS)? {
        item.only(&["requests", "per_ms", "burst", "strict"])?;
        item.required("requests")?;
        quotas.extend(quota(&item)?);
    }
    Limit::new(quotas).map(Some).map_err(|error| list.wrong(&format!("{error}")))
}

fn rule(item: &Reader<'_>) -> Result<LimitRule, ConfigError> {
    item.only(&[
        "name",
        "requests",
        "per_ms",
        "burst",
        "strict",
        "quotas",
        "key",
        "missing_key",
        "match",
        "except",
        "allow",
        "deny",
        "cost",
        "mode",
        "percent",
        "concurrency",
        "delay",
        "on_error",
        "pages",
        "fields",
        "announce",
        "response",
        "overrides",
    ])?;
    let name = super::name(item.required("name")?)?;
    let limit = limit(item)?;
    let concurrency = item.optional("concurrency").map(|c| concurrency(&c)).transpose()?;
    if limit.is_none() && concurrency.is_none() {
        item.required("requests")?;
    }
    let key = key(item)?;
    let missing = match item.optional("missing_key") {
        Some(field) => match field.word(&["share", "skip", "deny"])? {
            0 => Missing::Share,
            1 => Missing::Skip,
            _ => Missing::Deny,
        },
        None => Missing::Share,
    };
    let on_error = match item.optional("on_error") {
        Some(field) => match field.word(&["allow", "deny"])? {
            0 => OnError::Allow,
            _ => OnError::Deny,
        },
        None => OnError::Allow,
    };
    let shadow = match item.optional("mode") {
        Some(field) => field.word(&["enforce", "shadow"])? == 1,
        None => false,
    };
    let percent = number(item, "percent", 0..=100)?.unwrap_or(100);
    let delay = item.optional("delay").map(|delay| read_delay(&delay)).transpose()?;
    if delay.is_some() && limit.is_none() {
        item.required("requests")?;
    }
    let cost = cost(item)?;
    if let (Some(most), Cost::Fixed(cost)) = (limit.as_ref().map(Limit::max_cost), &cost)
        && most < *cost
    {
        let fault = format!("must be at most the burst ({most}), or nothing ever passes");
        return Err(item.required("cost")?.wrong(&fault));
    }
    Ok(LimitRule {
        name,
        limit,
        concurrency,
        missing,
        applies: matcher(item, "match")?.unwrap_or_default(),
        except: matcher(item, "except")?,
        allow: networks(item, "allow")?,
        deny: networks(item, "deny")?,
        cost,
        shadow,
        percent: u8::try_from(percent).unwrap_or(100),
        delay,
        on_error,
        pages: number(item, "pages", 1..=1 << 22)?.unwrap_or(DEFAULT_PAGES),
        version: version(item)?,
        announce: flag(item, "announce")?,
        denial: denial(item)?,
        overrides: overrides(item, key.len())?,
        key,
    })
}

fn key(item: &Reader<'_>) -> Result<Vec<KeyPart>, ConfigError> {
    // One limit for all clients is seldom meant; it is had with `"key": []`.
    let Some(list) = item.optional("key") else { return Ok([KeyPart::ClientAddress].into()) };
    let mut parts = Vec::new();
    for part in list.items(8)? {
        parts.push(key_part(&part)?);
    }
    Ok(parts)
}

fn key_part(part: &Reader<'_>) -> Result<KeyPart, ConfigError> {
    const WORDS: [&str; 5] = ["client_address", "path", "method", "host", "route"];
    const NAMED: [&str; 6] = ["header", "cookie", "query", "path", "claim", "property"];
    let Ok(mut fields) = part.fields() else {
        return Ok(match part.word(&WORDS)? {
            0 => KeyPart::ClientAddress,
            1 => KeyPart::Path,
            2 => KeyPart::Method,
            3 => KeyPart::Host,
            _ => KeyPart::Property(b"xds\0route_name".to_vec()),
        });
    };
    part.only(&NAMED)?;
    let (Some((kind, value)), None) = (fields.next(), fields.next()) else {
        return Err(
            part.wrong("must have exactly one of header, cookie, query, path, claim, property")
        );
    };
    let short = |value: &Reader<'_>| -> Result<String, ConfigError> {
        let text = value.text()?;
        if text.is_empty() || 256 < text.len() {
            return Err(value.wrong("must have 1 to 256 characters"));
        }
        Ok(text.to_string())
    };
    Ok(match kind {
        "header" => KeyPart::Header(field_name(&value)?),
        "cookie" => KeyPart::Cookie(short(&value)?),
        "query" => KeyPart::Query(short(&value)?),
        "path" => KeyPart::Template(patterns(&value)?),
        "claim" => {
            // Where Envoy's jwt_authn puts the payload, with `payload_in_metadata:
            // jwt_payload`.
            let mut path =
                b"metadata\0filter_metadata\0envoy.filters.http.jwt_authn\0jwt_payload\0".to_vec();
            path.extend_from_slice(short(&value)?.as_bytes());
            KeyPart::Property(path)
        }
        _ => {
            let mut path = Vec::new();
            for step in value.items(16)? {
                if !path.is_empty() {
                    path.push(0);
                }
                path.extend_from_slice(short(&step)?.as_bytes());
            }
            if path.is_empty() {
                return Err(value.wrong("must be a list of the parts of the property's path"));
            }
            KeyPart::Property(path)
        }
    })
}

#[inline(never)]
fn patterns(list: &Reader<'_>) -> Result<Vec<PathPattern>, ConfigError> {
    let mut patterns = Vec::new();
    for item in list.items(64)? {
        let pattern = PathPattern::parse(item.text()?);
        patterns.push(pattern.ok_or_else(|| {
            item.wrong("must be a path such as \"/users/{id}\" or \"/static/*\"")
        })?);
    }
    if patterns.is_empty() {
        return Err(list.wrong("must have at least one path"));
    }
    Ok(patterns)
}

#[inline(never)]
fn matcher(item: &Reader<'_>, name: &str) -> Result<Option<Matcher>, ConfigError> {
    let Some(matcher) = item.optional(name) else { return Ok(None) };
    matcher.only(&["methods", "hosts", "paths", "headers"])?;
    let texts = |name: &str| -> Result<Vec<String>, ConfigError> {
        let Some(list) = matcher.optional(name) else { return Ok(Vec::new()) };
        list.items(64)?.map(|item| item.text().map(String::from)).collect()
    };
    let mut headers = Vec::new();
    if let Some(list) = matcher.optional("headers") {
        for (name, value) in list.fields()? {
            // `true` is any value.
            let wanted = if value.boolean() == Ok(true) { None } else { Some(value.text()?) };
            headers.push((name.to_ascii_lowercase(), wanted.map(String::from)));
        }
    }
    let paths = matcher.optional("paths").map(|list| patterns(&list)).transpose()?;
    Ok(Some(Matcher {
        methods: texts("methods")?,
        hosts: texts("hosts")?.into_iter().map(|host| host.to_ascii_lowercase()).collect(),
        paths: paths.unwrap_or_default(),
        headers,
    }))
}

fn cost(item: &Reader<'_>) -> Result<Cost, ConfigError> {
    let Some(cost) = item.optional("cost") else { return Ok(Cost::Fixed(1)) };
    if cost.fields().is_err() {
        let fixed = cost.number(1..=u64::from(u32::MAX))?;
        return Ok(Cost::Fixed(u32::try_from(fixed).unwrap_or(u32::MAX)));
    }
    cost.only(&["header", "default", "response_header", "reserve", "max"])?;
    let max = number(&cost, "max", 1..=u32::MAX)?.unwrap_or(u32::MAX);
    if let Some(header) = cost.optional("header") {
        let default = number(&cost, "default", 1..=u32::MAX)?.unwrap_or(1);
        return Ok(Cost::Header { name: field_name(&header)?, default, max });
    }
    let name = field_name(&cost.required("response_header")?)?;
    let reserve = number(&cost, "reserve", 1..=u32::MAX)?.unwrap_or(1);
    Ok(Cost::Response { name, reserve, max })
}

fn concurrency(of: &Reader<'_>) -> Result<Concurrency, ConfigError> {
    of.only(&["per_key", "total", "adaptive"])?;
    let per_key = number(of, "per_key", 1..=u32::MAX)?.unwrap_or(u32::MAX);
    let total = number(of, "total", 1..=u32::MAX)?.unwrap_or(u32::MAX);
    let adaptive = match of.optional("adaptive") {
        None => None,
        Some(adaptive) => {
            adaptive.only(&["min", "max", "probe_each_ms", "samples", "tolerance_percent"])?;
            let default = AdaptiveBounds::default();
            let min = number(&adaptive, "min", 1..=100_000)?.unwrap_or(default.min);
            let max = number(&adaptive, "max", min..=1_000_000)?.unwrap_or(default.max.max(min));
            let probe_each = match adaptive.optional("probe_each_ms") {
                Some(field) => field.millis(100..=86_400_000)?,
                None => default.probe_each,
            };
            let samples = number(&adaptive, "samples", 1..=100_000)?.unwrap_or(default.samples);
            let slower = number(&adaptive, "tolerance_percent", 0..=1000)?;
            let tolerance = slower.map_or(default.tolerance, |slower| 1000 + 10 * slower);
            Some(AdaptiveBounds { min, max, probe_each, samples, tolerance })
        }
    };
    if per_key == u32::MAX && total == u32::MAX && adaptive.is_none() {
        return Err(of.wrong("must have at least one of \"per_key\", \"total\", \"adaptive\""));
    }
    Ok(Concurrency { per_key, total, adaptive })
}

fn read_delay(of: &Reader<'_>) -> Result<Delay, ConfigError> {
    of.only(&["max_waiting", "max_wait_ms"])?;
    let max_waiting = number(of, "max_waiting", 1..=10_000)?.unwrap_or(100);
    let max_wait = match of.optional("max_wait_ms") {
        Some(field) => field.millis(1..=60_000)?,
        None => Duration::from_secs(1),
    };
    Ok(Delay { max_waiting: usize::try_from(max_waiting).unwrap_or(100), max_wait })
}

fn version(item: &Reader<'_>) -> Result<FieldsVersion, ConfigError> {
    const WORDS: [&str; 9] = [
        "draft-11",
        "draft-10",
        "draft-09",
        "draft-08",
        "draft-07",
        "draft-06",
        "draft-03",
        "x-ratelimit",
        "none",
    ];
    let Some(field) = item.optional("fields") else { return Ok(FieldsVersion::default()) };
    Ok(match field.word(&WORDS)? {
        // Drafts 08 to 11 have one syntax.
        0..=3 => FieldsVersion::Draft11,
        4 => FieldsVersion::Draft7,
        5 => FieldsVersion::Draft6,
        6 => FieldsVersion::Draft3,
        7 => FieldsVersion::XRateLimit,
        _ => FieldsVersion::None,
    })
}

fn denial(item: &Reader<'_>) -> Result<Denial, ConfigError> {
    let mut denial = Denial::default();
    let Some(response) = item.optional("response") else { return Ok(denial) };
    response.only(&["status", "headers", "body", "grpc_status"])?;
    if let Some(status) = number(&response, "status", 400..=599)? {
        denial.status = u16::try_from(status).unwrap_or(429);
    }
    if let Some(status) = number(&response, "grpc_status", 1..=16)? {
        denial.grpc_status = u8::try_from(status).unwrap_or(8);
    }
    if let Some(body) = response.optional("body") {
        denial.body = Some(body.text()?.to_string());
    }
    if let Some(headers) = response.optional("headers") {
        for (name, value) in headers.fields()? {
            let text = value.text()?;
            if !text.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
                return Err(value.wrong("must be printable ASCII"));
            }
            let name = name.to_ascii_lowercase();
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                return Err(value.wrong("must have the name of a header field"));
            }
            denial.fields.push((name, text.to_string()));
        }
    }
    Ok(denial)
}

fn overrides(item: &Reader<'_>, parts: usize) -> Result<Vec<(Vec<String>, Limit)>, ConfigError> {
    let Some(list) = item.optional("overrides") else { return Ok(Vec::new()) };
    let mut overrides = Vec::new();
    for item in list.items(10_000)? {
        item.only(&["key", "requests", "per_ms", "burst", "strict", "quotas"])?;
        let key = item.required("key")?;
        let texts: Vec<String> =
            key.items(8)?.map(|part| part.text().map(String::from)).collect::<Result<_, _>>()?;
        if texts.len() != parts {
            return Err(
                key.wrong(&format!("must have a text for each of the {parts} parts of the key"))
            );
        }
        let Some(limit) = limit(&item)? else {
            return Err(ConfigError::new("overrides", "requests: is missing"));
        };
        overrides.push((texts, limit));
    }
    Ok(overrides)
}
