//! Rate limiting as a client of the proxy sees it: whole exchanges through the gates
//! of several workers that share pages.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test may stop at the first surprise, in its own functions too"
)]

use core::time::Duration;
use std::collections::BTreeMap;

use edgeweir::config;
use edgeweir::gate::{
    Action, Answer, Ask, Change, Features, Gate, MetricKind, Now, Reply, Request, Response, Seeds,
    SharedKey, Step, StreamId, Verdict,
};
use edgeweir::hash::HashSeed;
use edgeweir::http::Fields;
use edgeweir::random::Random;

/// A proxy whose workers run one configuration.
struct Proxy {
    workers: Vec<Gate>,
    shared: BTreeMap<SharedKey, (Vec<u8>, u32)>,
    properties: BTreeMap<Vec<u8>, Vec<u8>>,
    writes: u32,
    streams: u32,
    now: Now,
    /// What became of requests that waited.
    settled: BTreeMap<u32, u16>,
    broken: bool,
}

/// A request in a test: who, what, and its other fields.
#[derive(Clone, Copy)]
struct Get<'a> {
    worker: usize,
    client: &'a str,
    method: &'a str,
    path: &'a str,
    fields: &'a [(&'a str, &'a str)],
    body: bool,
}

const GET: Get<'static> =
    Get { worker: 0, client: "10.0.0.1:1", method: "GET", path: "/", fields: &[], body: false };

impl Proxy {
    fn new(workers: u8, document: &str) -> Self {
        let mut proxy = Self {
            workers: Vec::new(),
            shared: BTreeMap::new(),
            properties: BTreeMap::new(),
            writes: 0,
            streams: 0,
            now: Now::default(),
            settled: BTreeMap::new(),
            broken: false,
        };
        proxy.at(1_000);
        proxy.configure(workers, document);
        proxy
    }

    /// A new configuration in every worker, as a reload brings it.
    fn configure(&mut self, workers: u8, document: &str) {
        let seeds = |worker| Seeds {
            hash: HashSeed::from_bytes([7; 16]),
            random: Random::from_seed([worker; 32]),
        };
        let build = |worker| config::build(document.as_bytes(), Features::ALL, seeds(worker));
        self.workers = (0..workers).map(|worker| build(worker).unwrap()).collect();
    }

    fn at(&mut self, ms: u64) {
        self.now.instant = edgeweir::time::Instant::from_nanos(ms * 1_000_000);
    }

    fn tick(&mut self) {
        for worker in 0..self.workers.len() {
            self.workers[worker].tick(self.now);
            self.drain(worker);
        }
    }

    /// The status that a client gets: 0 if the request goes upstream, 1 if it waits.
    fn status(&mut self, get: Get<'_>) -> u16 {
        match self.verdict(get) {
            Verdict::Pass(_) => 0,
            Verdict::Reply(reply) => reply.status,
            Verdict::Wait => 1,
        }
    }

    fn reply(&mut self, get: Get<'_>) -> Reply {
        match self.verdict(get) {
            Verdict::Reply(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn verdict(&mut self, get: Get<'_>) -> Verdict {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let head = [
            (":method", get.method),
            (":scheme", "http"),
            (":authority", "a.example"),
            (":path", get.path),
        ];
        let fields: Vec<(&[u8], &[u8])> =
            head.iter().chain(get.fields).map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let request = Request { fields: Fields::new(&fields), end: !get.body };
        let mut step = self.workers[get.worker].request(stream, &request, self.now);
        let verdict = loop {
            let ask = match step {
                Step::Verdict(verdict) => break verdict,
                Step::Ask(ask) => ask,
            };
            let value;
            let answer = match ask {
                Ask::Property(path) if &*path == b"source\0address" => {
                    Answer::Property(Some(get.client.as_bytes()))
                }
                Ask::Property(path) => {
                    value = self.properties.get(&*path).cloned().map(|value| (value, 0));
                    Answer::Property(value.as_ref().map(|(value, _)| value.as_slice()))
                }
                _ if self.broken => Answer::Failed,
                Ask::Read(key) => {
                    value = self.shared.get(&key).cloned();
                    Answer::Shared(value.as_ref().map(|(value, cas)| (&value[..], *cas)))
                }
                Ask::Write { key, value, cas } => Answer::Written(self.write(key, value, cas)),
            };
            step = self.workers[get.worker].answer(stream, &request, answer, self.now);
        };
        self.drain(get.worker);
        verdict
    }

    fn write(&mut self, key: SharedKey, value: Vec<u8>, cas: u32) -> bool {
        let fits = self.shared.get(&key).is_none_or(|(_, there)| cas == 0 || cas == *there);
        if fits {
            self.writes += 1;
            self.shared.insert(key, (value, self.writes));
        }
        fits
    }

    fn drain(&mut self, worker: usize) {
        while let Some(action) = self.workers[worker].next_action() {
            match action {
                Action::Resume(stream, _) => {
                    assert_eq!(self.settled.insert(stream.0, 0), None);
                }
                Action::Reply(stream, reply) => {
                    assert_eq!(self.settled.insert(stream.0, reply.status), None);
                }
                Action::Update(key, token) => {
                    let there = self.shared.get(&key).cloned();
                    let value = there.as_ref().map(|(value, _)| value.as_slice());
                    let cas = there.as_ref().map_or(SharedKey::ABSENT, |(_, cas)| *cas);
                    if let Some(value) = self.workers[worker].update(token, value, self.now) {
                        assert!(self.write(key, value, cas));
                        self.workers[worker].updated(token, true, self.now);
                    }
                }
                Action::Tell(message) => {
                    for gate in &mut self.workers {
                        gate.message(&message, self.now);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The response to the last request, and the end of its exchange.
    fn respond(&mut self, worker: usize, fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let stream = StreamId(self.streams);
        let fields: Vec<(&[u8], &[u8])> =
            fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let mut set = Vec::new();
        if self.workers[worker].wants_response(stream) {
            let response = Response { fields: Fields::new(&fields), end: true };
            let verdict = self.workers[worker].response(stream, &response, self.now);
            let Verdict::Pass(changes) = verdict else { panic!("{verdict:?}") };
            for change in changes {
                let Change::Set(name, value) = change else { panic!("{change:?}") };
                set.push((name.to_owned(), String::from_utf8(value).unwrap()));
            }
        }
        self.drain(worker);
        self.end(worker, self.streams);
        set
    }

    fn end(&mut self, worker: usize, stream: u32) {
        self.workers[worker].finished(StreamId(stream), self.now);
        self.drain(worker);
    }

    fn metric(&self, name: &str) -> u64 {
        let of = |gate: &Gate| gate.metrics().into_iter().filter(|metric| metric.name == name);
        self.workers.iter().flat_map(of).map(|metric| metric.value).sum()
    }
}

fn field(reply: &Reply, name: &str) -> Option<String> {
    let found = reply.fields.iter().find(|(there, _)| there == name.as_bytes());
    found.map(|(_, value)| String::from_utf8(value.clone()).unwrap())
}

/// `rule` with a quota of two at once, one each second.
fn two(rule: &str) -> String {
    format!(r#"{{"limits": [{{"name": "r", "requests": 1, "per_ms": 1000, "burst": 2{rule}}}]}}"#)
}

/// The statuses of requests, one after the other.
fn statuses<const N: usize>(document: &str, requests: [Get<'_>; N]) -> [u16; N] {
    let mut proxy = Proxy::new(3, document);
    requests.map(|get| proxy.status(get))
}

#[test]
fn the_same_key_has_one_bucket_over_all_workers() {
    let by = |worker| Get { worker, ..GET };
    assert_eq!(statuses(&two(""), [by(0), by(1), by(2), by(0)]), [0, 0, 429, 429]);
}

#[test]
fn each_kind_of_key_tells_requests_apart() {
    let with = |fields: &'static [(&str, &str)]| Get { fields, ..GET };
    let at = |path| Get { path, ..GET };
    let same = [0, 0, 429, 429];
    let other = [0, 0, 0, 0];
    let header = two(r#", "key": [{"header": "X-Key"}]"#);
    let (a, b) = (with(&[("x-key", "a")]), with(&[("x-key", "b")]));
    assert_eq!(statuses(&header, [a, b, a, b]), other);
    assert_eq!(statuses(&header, [a, a, a, a]), same);
    // A second value does not hide behind the first, nor the first before it.
    let both = with(&[("x-key", "a"), ("x-key", "b")]);
    assert_eq!(statuses(&header, [both, both, both, a]), [0, 0, 429, 0]);
    let cookie = two(r#", "key": [{"cookie": "sid"}]"#);
    let (a, b) = (with(&[("cookie", "x=1; sid=a")]), with(&[("cookie", "sid=b")]));
    assert_eq!(statuses(&cookie, [a, b, a, b]), other);
    let query = two(r#", "key": [{"query": "k"}]"#);
    assert_eq!(statuses(&query, [at("/?k=1"), at("/?k=2"), at("/?k=1"), at("/?k=2")]), other);
    assert_eq!(statuses(&query, [at("/?k=1"), at("/?x&k=1"), at("/?k=%31"), at("/?%6b=1")]), same);
    let path = two(r#", "key": ["path"]"#);
    assert_eq!(statuses(&path, [at("/a"), at("/b"), at("/a"), at("/b")]), other);
    assert_eq!(statuses(&path, [at("/a"), at("//a/"), at("/%61?x"), at("/b/../a;c")]), same);
    let template = two(r#", "key": [{"path": ["/users/{id}", "/files/*"]}]"#);
    assert_eq!(
        statuses(&template, [at("/users/1"), at("/users/2"), at("/users/3"), at("/files/x/y")]),
        [0, 0, 429, 0]
    );
    let method = two(r#", "key": ["method"]"#);
    let post = Get { method: "POST", ..GET };
    assert_eq!(statuses(&method, [GET, post, GET, post]), other);
    let composed = two(r#", "key": ["client_address", {"header": "x-key"}]"#);
    let there = Get { client: "10.0.0.2:9", ..a };
    assert_eq!(statuses(&composed, [a, there, a, there]), other);
    let everybody = two(r#", "key": []"#);
    assert_eq!(statuses(&everybody, [a, there, post, b]), same);
}

#[test]
fn properties_of_the_host_are_keys_too() {
    for (key, path) in [
        (r#"["route"]"#, &b"xds\0route_name"[..]),
        (
            r#"[{"claim": "sub"}]"#,
            b"metadata\0filter_metadata\0envoy.filters.http.jwt_authn\0jwt_payload\0sub",
        ),
        (r#"[{"property": ["xds", "cluster_name"]}]"#, b"xds\0cluster_name"),
    ] {
        let mut proxy = Proxy::new(1, &two(&format!(r#", "key": {key}"#)));
        for (value, expected) in [("a", 0), ("a", 0), ("a", 429), ("b", 0), ("b", 0), ("b", 429)] {
            proxy.properties.insert(path.to_vec(), value.as_bytes().to_vec());
            assert_eq!(proxy.status(GET), expected, "{key}");
        }
    }
}

#[test]
fn a_request_without_its_key_gets_what_the_rule_says() {
    let key = r#", "key": [{"header": "x-key"}], "missing_key": "#;
    for (policy, expected) in
        [("share", [0, 0, 429]), ("skip", [0, 0, 0]), ("deny", [403, 403, 403])]
    {
        let document = two(&format!("{key}{policy:?}"));
        assert_eq!(statuses(&document, [GET; 3]), expected, "{policy}");
    }
}

#[test]
fn nobody_gets_a_bucket_by_writing_a_forwarded_address() {
    let client = r#""client": {"trusted_proxies": ["10.0.0.0/8"]}"#;
    let document = two("").replacen('{', &format!("{{{client}, "), 1);
    let from = |client, fields: &'static [(&str, &str)]| Get { client, fields, ..GET };
    // A stranger's field is not read; a proxy's is, from the right.
    let spoofed = [
        from("192.0.2.1:1", &[("x-forwarded-for", "1.1.1.1")]),
        from("192.0.2.1:2", &[("x-forwarded-for", "2.2.2.2")]),
        from("192.0.2.1:3", &[("x-real-ip", "3.3.3.3"), ("forwarded", "for=4.4.4.4")]),
    ];
    assert_eq!(statuses(&document, spoofed), [0, 0, 429]);
    let proxied = [
        from("10.0.0.1:1", &[("x-forwarded-for", "1.1.1.1, 192.0.2.1")]),
        from("10.0.0.2:1", &[("x-forwarded-for", "2.2.2.2"), ("x-forwarded-for", "192.0.2.1")]),
        from("10.0.0.3:1", &[("x-forwarded-for", "192.0.2.1, 10.9.9.9")]),
        from("10.0.0.3:1", &[("x-forwarded-for", "192.0.2.7")]),
    ];
    assert_eq!(statuses(&document, proxied), [0, 0, 429, 0]);
    let six = |client| Get { client, ..GET };
    let household = [six("[2001:db8::1]:1"), six("[2001:db8::2]:1"), six("[2001:db8::ffff:3]:1")];
    assert_eq!(statuses(&document, household), [0, 0, 429]);
}

#[test]
fn lists_and_matchers_choose_who_is_limited() {
    let document = two(r#", "allow": ["10.1.0.0/16"], "deny": ["10.2.0.0/16"],
            "match": {"paths": ["/api/*"], "methods": ["GET"]},
            "except": {"headers": {"x-internal": "yes"}}"#);
    let api = Get { path: "/api/x", ..GET };
    let allowed = Get { client: "10.1.2.3:1", ..api };
    let denied = Get { client: "10.2.2.3:1", ..api };
    let internal = Get { fields: &[("x-internal", "yes")], ..api };
    assert_eq!(statuses(&document, [api; 3]), [0, 0, 429]);
    assert_eq!(statuses(&document, [allowed; 3]), [0, 0, 0]);
    assert_eq!(statuses(&document, [denied; 3]), [403, 403, 403]);
    assert_eq!(statuses(&document, [GET; 3]), [0, 0, 0]);
    assert_eq!(statuses(&document, [internal; 3]), [0, 0, 0]);
}

#[test]
fn no_spelling_of_a_path_slips_past_a_rule() {
    let document = two(r#", "key": [], "match": {"paths": ["/api/login"]}"#);
    let forms = [
        "/api/login",
        "//api/login",
        "/./api/login",
        "/x/../api/login",
        "/api/%2e/login",
        "/api%2flogin",
        "/api\\login",
        "/api/login;p=1",
        "/%61pi/login",
        "/%2561pi/login",
        "/api/login/",
        "/api/login?x",
        "/api/x/%2e%2e/login",
        "/api;a/login;b?c",
    ];
    let mut proxy = Proxy::new(1, &document);
    for (n, path) in forms.into_iter().enumerate() {
        let expected = if n < 2 { 0 } else { 429 };
        assert_eq!(proxy.status(Get { path, ..GET }), expected, "{path}");
    }
}

#[test]
fn a_cost_is_what_the_rule_says_and_never_nothing() {
    let document = r#"{"limits": [{"name": "r", "requests": 1, "per_ms": 1000, "burst": 10,
        "cost": {"header": "x-cost", "default": 2, "max": 6}}]}"#;
    let left = |cost: &'static [(&str, &str)]| {
        let mut proxy = Proxy::new(1, document);
        assert_eq!(proxy.status(Get { fields: cost, ..GET }), 0);
        (0..20).filter(|_| proxy.status(Get { fields: &[("x-cost", "1")], ..GET }) == 0).count()
    };
    for (cost, expected) in [
        (&[("x-cost", "3")][..], 7),
        (&[], 8),
        (&[("x-cost", "0")], 9),
        (&[("x-cost", "-5")], 8),
        (&[("x-cost", "NaN")], 8),
        (&[("x-cost", "1e3")], 8),
        (&[("x-cost", "9223372036854775808")], 4),
        (&[("x-cost", "99999999999999999999999")], 8),
        (&[("x-cost", "1"), ("x-cost", "5")], 5),
    ] {
        assert_eq!(left(cost), expected, "{cost:?}");
    }
}

#[test]
fn a_price_known_from_the_response_is_settled_then() {
    let document = r#"{"limits": [{"name": "r", "requests": 1, "per_ms": 1000, "burst": 10,
        "cost": {"response_header": "x-tokens", "reserve": 4, "max": 100}}]}"#;
    for (tokens, then) in [
        // What was reserved stays reserved if the response does not say.
        (&[][..], [0, 429]),
        (&[("x-tokens", "junk")], [0, 429]),
        (&[("x-tokens", "4")], [0, 429]),
        (&[("x-tokens", "1")], [0, 0]),
        (&[("x-tokens", "7")], [429, 429]),
        (&[("x-tokens", "1"), ("x-tokens", "7")], [429, 429]),
    ] {
        let mut proxy = Proxy::new(2, document);
        assert_eq!(proxy.status(GET), 0);
        proxy.respond(0, tokens);
        let after = [0, 1].map(|_| proxy.status(GET));
        assert_eq!(after, then, "{tokens:?}");
    }
    // More than there was is a debt, which the other workers see, too.
    let mut proxy = Proxy::new(2, document);
    assert_eq!(proxy.status(GET), 0);
    proxy.respond(0, &[("x-tokens", "18")]);
    let denied = proxy.reply(Get { worker: 1, ..GET });
    assert_eq!(field(&denied, "retry-after").unwrap(), "12");
}

#[test]
fn several_quotas_are_all_or_nothing_also_over_workers() {
    let document = r#"{"limits": [{"name": "r", "quotas": [
        {"requests": 1, "per_ms": 1000, "burst": 2},
        {"requests": 10, "per_ms": 60000, "burst": 4}]}]}"#;
    let mut proxy = Proxy::new(2, document);
    let mut run = |ms, worker| {
        proxy.at(ms);
        proxy.status(Get { worker, ..GET })
    };
    assert_eq!([run(1_000, 0), run(1_000, 1), run(1_000, 0), run(1_000, 1)], [0, 0, 429, 429]);
    // The second quota was not charged for the denials.
    assert_eq!([run(3_000, 0), run(3_000, 1), run(3_000, 0)], [0, 0, 429]);
    assert_eq!([run(5_000, 0), run(5_000, 1)], [429, 429]);
    let denied = proxy.reply(GET);
    let policy = r#""r-1-1000";q=1;w=1, "r-10-60000";q=10;w=60"#;
    assert_eq!(field(&denied, "ratelimit-policy").unwrap(), policy);
    assert_eq!(field(&denied, "ratelimit").unwrap(), r#""r-1-1000";r=2;t=1, "r-10-60000";r=0;t=2"#);
    assert_eq!(field(&denied, "retry-after").unwrap(), "2");
}

#[test]
fn what_earlier_rules_took_comes_back_when_a_later_one_refuses() {
    let document = r#"{"limits": [
        {"name": "wide", "requests": 1, "per_ms": 60000, "burst": 5, "key": []},
        {"name": "narrow", "requests": 1, "per_ms": 60000, "burst": 1}]}"#;
    let mut proxy = Proxy::new(1, document);
    assert_eq!(proxy.status(GET), 0);
    for _ in 0..20 {
        assert_eq!(proxy.status(GET), 429);
    }
    // One client that is refused does not use up what is for all.
    let others = ["10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1", "10.0.0.5:1", "10.0.0.6:1"];
    let statuses = others.map(|client| proxy.status(Get { client, ..GET }));
    assert_eq!(statuses, [0, 0, 0, 0, 429]);
}

#[test]
fn a_shadow_rule_only_counts() {
    let mut proxy = Proxy::new(1, &two(r#", "mode": "shadow""#));
    assert_eq!([0; 4].map(|_| proxy.status(GET)), [0; 4]);
    assert_eq!(proxy.metric("edgeweir.limit.r.shadow_denied"), 2);
    assert_eq!(proxy.metric("edgeweir.limit.r.denied"), 0);
    assert_eq!(proxy.metric("edgeweir.limit.r.allowed"), 2);
}

#[test]
fn a_percentage_is_of_keys_and_stays_with_them() {
    let mut proxy = Proxy::new(1, &two(r#", "percent": 30, "key": [{"header": "x-key"}]"#));
    let mut enforced = 0;
    for n in 0..1000 {
        let name = format!("k{n}");
        let fields = [("x-key", name.as_str())];
        let mut last = || proxy.status(Get { fields: &fields, ..GET });
        let third = [last(), last(), last(), last()];
        assert!(third == [0, 0, 0, 0] || third == [0, 0, 429, 429], "{third:?}");
        enforced += u32::from(third[3] == 429);
    }
    assert!((250..350).contains(&enforced), "{enforced} of 1000");
}

#[test]
fn a_denial_carries_what_the_rule_says() {
    let document = two(r#", "fields": "x-ratelimit", "response": {"status": 503, "body": "later",
            "headers": {"X-Why": "limit"}, "grpc_status": 14}"#);
    let mut proxy = Proxy::new(1, &document);
    let _ = [proxy.status(GET), proxy.status(GET)];
    let reply = proxy.reply(GET);
    assert_eq!((reply.status, &*reply.body, reply.grpc_status), (503, &b"later"[..], 14));
    for (name, value) in [
        ("x-why", "limit"),
        ("x-ratelimit-limit", "1"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "1"),
        ("retry-after", "1"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(field(&reply, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(reply.details, "edgeweir_limit");
}

#[test]
fn a_rule_that_announces_tells_what_is_left() {
    let mut proxy = Proxy::new(1, &two(r#", "announce": true"#));
    assert_eq!(proxy.status(GET), 0);
    let expected = [
        ("ratelimit-policy".to_owned(), r#""r";q=1;w=1"#.to_owned()),
        ("ratelimit".to_owned(), r#""r";r=1;t=1"#.to_owned()),
    ];
    assert_eq!(proxy.respond(0, &[(":status", "200")]), expected);
    let mut silent = Proxy::new(1, &two(""));
    assert_eq!(silent.status(GET), 0);
    assert_eq!(silent.respond(0, &[(":status", "200")]), []);
}

#[test]
fn permits_come_back_however_an_exchange_ends() {
    let document = r#"{"limits": [{"name": "r", "concurrency": {"per_key": 2, "total": 3}}]}"#;
    let mut proxy = Proxy::new(1, document);
    let (a, b) = (GET, Get { client: "10.0.0.2:1", ..GET });
    assert_eq!([a, a, a, b, b].map(|get| proxy.status(get)), [0, 0, 429, 0, 503]);
    assert_eq!(proxy.metric("edgeweir.limit.r.under_way"), 3);
    // Refused ones hold nothing; the first is reset, the second ends after a response.
    for stream in [3, 5, 1, 2, 4] {
        proxy.end(0, stream);
    }
    assert_eq!(proxy.metric("edgeweir.limit.r.under_way"), 0);
    assert_eq!([a, a, b, b].map(|get| proxy.status(get)), [0, 0, 0, 503]);
    // A rule after it that refuses gives the permit back at once.
    let document = r#"{"limits": [{"name": "c", "concurrency": {"total": 1}},
        {"name": "r", "requests": 1, "per_ms": 60000, "burst": 1}]}"#;
    let mut proxy = Proxy::new(1, document);
    assert_eq!(proxy.status(GET), 0);
    proxy.end(0, 1);
    assert_eq!([proxy.status(GET), proxy.status(GET)], [429, 429]);
}

#[test]
fn an_adaptive_total_follows_the_latency() {
    let document = r#"{"limits": [{"name": "r", "concurrency": {"adaptive":
        {"min": 2, "max": 50, "samples": 5}}}]}"#;
    let mut proxy = Proxy::new(1, document);
    let mut ms = 1_000;
    let mut exchange = |proxy: &mut Proxy, latency| {
        assert_eq!(proxy.status(GET), 0);
        ms += latency;
        proxy.at(ms);
        proxy.respond(0, &[(":status", "200")]);
    };
    for _ in 0..100 {
        exchange(&mut proxy, 10);
    }
    let grown = proxy.metric("edgeweir.limit.r.concurrency_limit");
    for _ in 0..100 {
        exchange(&mut proxy, 40);
    }
    let shrunk = proxy.metric("edgeweir.limit.r.concurrency_limit");
    assert!(10 < grown && shrunk < 10, "{grown} then {shrunk}");
}

#[test]
fn a_request_waits_for_its_turn_and_goes_on_from_a_tick() {
    let document = two(r#", "delay": {"max_waiting": 3, "max_wait_ms": 2500}"#);
    let mut proxy = Proxy::new(2, &document);
    assert_eq!(proxy.workers[0].tick_period(), Duration::from_millis(10));
    // Two pass, two wait, the fifth could not be served in time.
    assert_eq!([0; 5].map(|_| proxy.status(GET)), [0, 0, 1, 1, 1]);
    // A body is never held.
    assert_eq!(proxy.status(Get { body: true, ..GET }), 429);
    assert_eq!(proxy.status(GET), 429, "the queue is full");
    proxy.at(1_990);
    proxy.tick();
    assert!(proxy.settled.is_empty());
    proxy.at(2_000);
    proxy.tick();
    assert_eq!(proxy.settled, BTreeMap::from([(3, 0)]));
    // The next in line has gone; its place is not lost for the one behind it.
    proxy.end(0, 4);
    proxy.at(3_000);
    proxy.tick();
    assert_eq!(proxy.settled, BTreeMap::from([(3, 0), (5, 0)]));
    assert_eq!(proxy.metric("edgeweir.limit.r.delayed"), 2);
    assert_eq!(proxy.metric("edgeweir.limit.r.waiting"), 0);
    // A newcomer does not pass one that waits; and who waits in vain is told.
    assert_eq!([proxy.status(GET), proxy.status(GET)], [1, 1]);
    proxy.at(6_000);
    proxy.workers[1].tick(proxy.now);
    proxy.at(5_600);
    proxy.tick();
    assert_eq!(proxy.settled.get(&8), Some(&429));
    assert_eq!(proxy.settled.get(&9), Some(&429));
}

#[test]
fn clients_of_one_pool_take_turns() {
    let document = r#"{"limits": [{"name": "r", "requests": 100, "per_ms": 1000, "burst": 1,
        "key": [], "delay": {"max_waiting": 50, "max_wait_ms": 10000}}]}"#;
    let mut proxy = Proxy::new(1, document);
    assert_eq!(proxy.status(GET), 0);
    for _ in 0..30 {
        assert_eq!(proxy.status(GET), 1);
    }
    let light = Get { client: "10.0.0.2:1", ..GET };
    assert_eq!(proxy.status(light), 1);
    let number = proxy.streams;
    for step in 1..=3 {
        proxy.at(1_000 + step * 10);
        proxy.tick();
    }
    assert!(proxy.settled.contains_key(&number), "it waited behind another's backlog");
}

#[test]
fn ten_thousand_waiters_that_leave_at_random_leave_nothing_behind() {
    let document = r#"{"limits": [{"name": "r", "requests": 10, "per_ms": 1000, "burst": 1,
        "key": [], "concurrency": {"total": 1000},
        "delay": {"max_waiting": 40, "max_wait_ms": 3000}}]}"#;
    let mut proxy = Proxy::new(1, document);
    let mut random = Random::from_seed([5; 32]);
    let mut open = Vec::new();
    for ms in 0..10_000 {
        proxy.at(1_000 + ms * 5);
        let client = format!("10.0.0.{}:1", random.below(9));
        let _ = proxy.status(Get { client: &client, ..GET });
        open.push(proxy.streams);
        if random.below(3) != 0 {
            let at = random.below(open.len() as u64) as usize;
            proxy.end(0, open.swap_remove(at));
        }
        if ms % 2 == 0 {
            proxy.tick();
        }
        assert!(proxy.metric("edgeweir.limit.r.waiting") <= 40);
    }
    for stream in open {
        proxy.end(0, stream);
    }
    for gauge in ["waiting", "under_way"] {
        assert_eq!(proxy.metric(&format!("edgeweir.limit.r.{gauge}")), 0, "{gauge}");
    }
    assert_eq!(proxy.workers[0].streams(), 0);
    assert!(100 < proxy.metric("edgeweir.limit.r.delayed"));
}

const ADMIN: &str = r#"{"admin": {"path": "/edgeweir", "token": "0123456789abcdef"},
    "limits": [{"name": "r", "requests": 1, "per_ms": 1000, "burst": 2}]}"#;

#[test]
fn operators_see_reset_and_change_and_nobody_else_does() {
    let mut proxy = Proxy::new(2, ADMIN);
    let operator: &[(&str, &str)] = &[("authorization", "Bearer 0123456789abcdef")];
    let post = |path| Get { method: "POST", path, fields: operator, ..GET };
    assert_eq!([GET, GET, GET].map(|get| proxy.status(get)), [0, 0, 429]);
    // Without the token, or with two.
    let tries: [&[(&str, &str)]; 4] = [
        &[],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "Bearer 0123456789abcdefg")],
        &[("authorization", "Bearer 0123456789abcdef"), ("authorization", "x")],
    ];
    for fields in tries {
        let get =
            Get { method: "POST", path: "/edgeweir/reset?rule=r&key=10.0.0.1", fields, ..GET };
        assert_eq!(proxy.status(get), 403);
    }
    assert_eq!(proxy.status(Get { worker: 1, ..GET }), 429);
    assert_eq!(proxy.status(post("/edgeweir/reset?rule=r&key=10.0.0.1")), 200);
    let other = Get { worker: 1, ..GET };
    assert_eq!([other, GET, other].map(|get| proxy.status(get)), [0, 0, 429]);
    // A raised limit refills nothing, but its rate helps at once, in every worker.
    let raise = "/edgeweir/limit?rule=r&key=10.0.0.1&requests=100&per_ms=1000&burst=50";
    assert_eq!(proxy.status(post(raise)), 200);
    assert_eq!([GET, other].map(|get| proxy.status(get)), [429, 429]);
    proxy.at(1_020);
    assert_eq!([GET, other, GET].map(|get| proxy.status(get)), [0, 0, 429]);
    assert_eq!(proxy.status(post("/edgeweir/limit?rule=r&key=10.0.0.1")), 200);
    proxy.at(1_040);
    assert_eq!(proxy.status(other), 429, "the rule's own limit again");
    for (path, status) in [
        ("/edgeweir/reset", 400),
        ("/edgeweir/reset?rule=x&key=10.0.0.1", 400),
        ("/edgeweir/reset?rule=r", 400),
        ("/edgeweir/limit?rule=r&key=10.0.0.1&requests=0", 400),
        ("/edgeweir/limit?rule=r&key=10.0.0.1&requests=x", 400),
        ("/edgeweir", 405),
    ] {
        assert_eq!(proxy.status(post(path)), status, "{path}");
    }
    let report = proxy.reply(Get { path: "/edgeweir", fields: operator, ..GET });
    let report: serde_json::Value = serde_json::from_slice(&report.body).unwrap();
    let rule = &report["rules"][0];
    assert_eq!((&rule["name"], &rule["heavy_keys"][0]["key"]), (&"r".into(), &"10.0.0.1".into()));
}

#[test]
fn a_reload_keeps_the_counters_of_rules_that_did_not_change() {
    let rules = |burst| {
        format!(
            r#"{{"limits": [{{"name": "a", "requests": 1, "per_ms": 60000, "burst": 2}},
                {{"name": "b", "requests": 1, "per_ms": 60000, "burst": {burst}, "key": []}}]}}"#
        )
    };
    let mut proxy = Proxy::new(2, &rules(9));
    assert_eq!([GET, GET, GET].map(|get| proxy.status(get)), [0, 0, 429]);
    proxy.configure(2, &rules(8));
    assert_eq!(proxy.status(GET), 429, "the first rule is the same");
    let other = Get { client: "10.0.0.9:1", ..GET };
    assert_eq!([other, other, other].map(|get| proxy.status(get)), [0, 0, 429]);
}

#[test]
fn a_host_that_fails_is_met_as_the_rule_says() {
    for (policy, expected) in [("allow", 0), ("deny", 503)] {
        let mut proxy = Proxy::new(1, &two(&format!(r#", "on_error": {policy:?}"#)));
        proxy.broken = true;
        assert_eq!(proxy.status(GET), expected, "{policy}");
        assert_eq!(proxy.metric("edgeweir.limit.r.failed"), 1);
    }
}

#[test]
fn overrides_in_the_configuration_hold_for_their_keys() {
    let document = two(r#", "key": ["client_address", {"header": "x-key"}], "overrides": [
            {"key": ["10.0.0.1", "vip"], "requests": 1, "per_ms": 1000, "burst": 4}]"#);
    let vip = Get { fields: &[("x-key", "vip")], ..GET };
    let other = Get { fields: &[("x-key", "other")], ..GET };
    assert_eq!(statuses(&document, [vip; 5]), [0, 0, 0, 0, 429]);
    assert_eq!(statuses(&document, [other; 3]), [0, 0, 429]);
}

#[test]
fn wrong_rules_are_refused_with_their_path() {
    let table = [
        (r#"{"name": "r"}"#, "limits[0].requests: is missing"),
        (
            r#"{"name": "r", "requests": 1, "cost": 2}"#,
            "limits[0].cost: must be at most the burst (1), or nothing ever passes, got 2",
        ),
        (r#"{"name": "r", "requests": 1, "key": ["ip"]}"#, "limits[0].key[0]: must be one of"),
        (
            r#"{"name": "r", "requests": 1, "key": [{"header": "a b"}]}"#,
            "limits[0].key[0].header: must be the name of a header field",
        ),
        (
            r#"{"name": "r", "requests": 1, "key": [{"path": ["x"]}]}"#,
            "limits[0].key[0].path[0]: must be a path",
        ),
        (
            r#"{"name": "r", "requests": 1, "allow": ["10.0.0.1/8"]}"#,
            "limits[0].allow[0]: has bits set behind its prefix",
        ),
        (
            r#"{"name": "r", "requests": 5, "strict": true, "burst": 6}"#,
            "limits[0]: burst: must be at most requests (5) in a strict window, got 6",
        ),
        (
            r#"{"name": "r", "requests": 1, "quotas": [{"requests": 1}]}"#,
            "limits[0].quotas: must not stand beside",
        ),
        (
            r#"{"name": "r", "quotas": []}"#,
            "limits[0].quotas: quotas: must be 1 to 4 of them, got 0",
        ),
        (
            r#"{"name": "r", "burst": 1, "concurrency": {"total": 1}}"#,
            "limits[0].requests: is missing",
        ),
        (
            r#"{"name": "r", "requests": 1, "fields": "draft-5"}"#,
            "limits[0].fields: must be one of",
        ),
        (
            r#"{"name": "r", "requests": 1, "response": {"status": 200}}"#,
            "limits[0].response.status: must be a whole number from 400 to 599, got 200",
        ),
        (
            r#"{"name": "r", "requests": 1, "response": {"headers": {"x": "a\r\nb"}}}"#,
            "limits[0].response.headers.x: must be printable ASCII",
        ),
        (
            r#"{"name": "r", "requests": 1, "overrides": [{"key": [], "requests": 1}]}"#,
            "limits[0].overrides[0].key: must have a text for each of the 1 parts",
        ),
        (
            r#"{"name": "r", "requests": 1, "delay": {}}, {"name": "s", "requests": 1}"#,
            "limits[1].name: must come before \"r\"",
        ),
        (
            r#"{"name": "r", "requests": 4000000000}"#,
            "limits[0]: requests: must be at most 1000000",
        ),
    ];
    for (rules, fault) in table {
        let document = format!(r#"{{"limits": [{rules}]}}"#);
        let seeds =
            Seeds { hash: HashSeed::from_bytes([0; 16]), random: Random::from_seed([0; 32]) };
        let error = config::build(document.as_bytes(), Features::ALL, seeds).unwrap_err();
        assert!(error.to_string().starts_with(fault), "{rules}: {error}");
    }
}

#[test]
fn every_number_of_a_rule_is_shown_and_gauges_are_gauges() {
    let document = two(r#", "delay": {}, "concurrency": {"total": 9}"#);
    let proxy = Proxy::new(1, &document);
    let metrics = proxy.workers[0].metrics();
    let limit: Vec<_> =
        metrics.iter().filter(|m| m.name.starts_with("edgeweir.limit.r.")).collect();
    let gauges = limit.iter().filter(|metric| metric.kind == MetricKind::Gauge).count();
    assert_eq!((limit.len(), gauges), (19, 2));
}

#[test]
fn hostile_bytes_in_every_field_that_is_read_are_only_keys() {
    let document = r#"{"client": {"trusted_hops": 2}, "limits": [{"name": "r", "requests": 1,
        "per_ms": 1000, "burst": 2, "cost": {"header": "x-cost"},
        "key": ["client_address", "path", "host", "method", {"header": "x"}, {"cookie": "c"}, {"query": "q"}]}]}"#;
    let bad: [&[u8]; 6] = [b"", b"\xff\xfe\x80", b"\0", b"%", b"%%%%2525;;==,,", b"\r\nx: y"];
    let names: [&[u8]; 8] = [
        b":method",
        b":path",
        b":authority",
        b"x",
        b"cookie",
        b"x-forwarded-for",
        b"x-cost",
        b"host",
    ];
    let seeds = Seeds { hash: HashSeed::from_bytes([0; 16]), random: Random::from_seed([0; 32]) };
    let mut gate = config::build(document.as_bytes(), Features::ALL, seeds).unwrap();
    let mut stream = 0;
    for value in bad {
        for name in names {
            stream += 1;
            let fields = [(name, value), (name, value)];
            let request = Request { fields: Fields::new(&fields), end: true };
            let now = Now::default();
            let mut step = gate.request(StreamId(stream), &request, now);
            for _ in 0..8 {
                let Step::Ask(ask) = &step else { break };
                let answer = match ask {
                    Ask::Property(_) => Answer::Property(Some(value)),
                    Ask::Read(_) => Answer::Shared(Some((value, 1))),
                    Ask::Write { .. } => Answer::Written(true),
                };
                step = gate.answer(StreamId(stream), &request, answer, now);
            }
            assert!(matches!(step, Step::Verdict(_)), "{name:?} {value:?}");
            gate.finished(StreamId(stream), now);
        }
    }
    assert_eq!(gate.streams(), 0);
}
