//! Attacks on a shared cache, as an attacker makes them: whole exchanges through the
//! gate, and what the next client gets.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise, in its own functions too"
)]

use edgeweir::config;
use edgeweir::gate::{
    Action, Answer, Features, Gate, Now, Reply, Request, Response, Seeds, Step, StreamId, Verdict,
};
use edgeweir::hash::HashSeed;
use edgeweir::http::Fields;
use edgeweir::random::Random;
use edgeweir::time::{Instant, UnixTime};

type Pairs<'a> = &'a [(&'a str, &'a str)];

struct Proxy {
    gate: Gate,
    streams: u32,
    now: Now,
}

impl Proxy {
    fn new() -> Self {
        let seeds =
            Seeds { hash: HashSeed::from_bytes([7; 16]), random: Random::from_seed([1; 32]) };
        let document = br#"{"cache":{"max_bytes":65536,"max_entry_bytes":4096}}"#;
        let now = Now {
            instant: Instant::from_nanos(1_000_000_000),
            unix: UnixTime::from_secs(1_795_000_000),
        };
        let gate = config::build(document, Features::ALL, seeds).unwrap();
        Self { gate, streams: 0, now }
    }

    /// One exchange: the answer from the store, or none if upstream answered (with
    /// `response` and `body`).
    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        request: Pairs<'_>,
        response: Pairs<'_>,
        body: &str,
    ) -> Option<Reply> {
        fn bytes<'a>(pairs: Pairs<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
            pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        }
        self.streams += 1;
        let stream = StreamId(self.streams);
        let authority = request.iter().find(|(name, _)| *name == ":authority");
        let authority = authority.map_or("a.example", |(_, value)| *value);
        let head =
            [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path)];
        let rest: Vec<_> =
            request.iter().copied().filter(|(name, _)| !name.starts_with(':')).collect();
        let fields: Vec<_> = bytes(&head).chain(bytes(&rest)).collect();
        let end = !request.iter().any(|(name, _)| *name == "content-length");
        let request = Request { fields: Fields::new(&fields), end };
        let mut step = self.gate.request(stream, &request, self.now);
        let verdict = loop {
            match step {
                Step::Verdict(verdict) => break verdict,
                Step::Ask(_) => {
                    step = self.gate.answer(stream, &request, Answer::Property(None), self.now);
                }
            }
        };
        let reply = match verdict {
            Verdict::Reply(reply) => Some(reply),
            Verdict::Pass(_) if self.gate.wants_response(stream) => {
                let fields: Vec<_> = bytes(response).collect();
                let response = Response { fields: Fields::new(&fields), end: body.is_empty() };
                let verdict = self.gate.response(stream, &response, self.now);
                if self.gate.wants_body(stream) && !body.is_empty() {
                    self.gate.body(stream, body.as_bytes(), true, self.now);
                }
                match verdict {
                    Verdict::Reply(reply) => Some(reply),
                    _ => None,
                }
            }
            _ => None,
        };
        self.gate.finished(stream, self.now);
        while let Some(action) = self.gate.next_action() {
            if let Action::Tell(message) = action {
                self.gate.message(&message, self.now);
            }
        }
        reply
    }

    /// What the next plain GET gets from the store.
    fn stored(&mut self, path: &str) -> Option<Reply> {
        self.exchange("GET", path, &[], &[(":status", "503")], "")
    }
}

const GOOD: Pairs<'static> = &[(":status", "200"), ("cache-control", "public, max-age=60")];

#[test]
fn the_test_sees_what_is_stored() {
    let mut proxy = Proxy::new();
    assert_eq!(proxy.exchange("GET", "/", &[], GOOD, "good"), None);
    assert_eq!(&*proxy.stored("/").unwrap().body, b"good");
}

#[test]
fn what_no_key_tells_apart_reaches_nobody_else() {
    for (name, value) in [
        ("x-forwarded-host", "evil.example"),
        ("X-Forwarded-Scheme", "nothttps"),
        ("x-forwarded-prefix", "/evil"),
        ("x-original-url", "/evil"),
        ("x-rewrite-url", "/evil"),
        ("x-http-method-override", "POST"),
        ("x-host", "evil.example"),
        ("forwarded", "host=evil.example"),
        // A body with a GET: it may change the answer, and stay on the connection.
        ("content-length", "6"),
        ("transfer-encoding", "chunked"),
        (":authority", "evil.example"),
        (":authority", "a.example:8080"),
        (":authority", "a.example,evil.example"),
    ] {
        let mut proxy = Proxy::new();
        assert_eq!(proxy.exchange("GET", "/", &[(name, value)], GOOD, "evil"), None, "{name}");
        assert_eq!(proxy.stored("/"), None, "{name}: {value}");
    }
}

#[test]
fn a_hit_is_not_for_a_request_with_a_body() {
    let mut proxy = Proxy::new();
    proxy.exchange("GET", "/", &[], GOOD, "good");
    assert_eq!(proxy.exchange("GET", "/", &[("content-length", "30")], GOOD, "evil"), None);
    assert_eq!(&*proxy.stored("/").unwrap().body, b"good");
}

#[test]
fn rfc_9111_3_3_a_head_never_answers_a_get() {
    let mut proxy = Proxy::new();
    proxy.exchange("HEAD", "/", &[], GOOD, "");
    assert_eq!(proxy.stored("/"), None);
}

#[test]
fn rfc_9111_3_3_a_body_cut_short_or_too_long_is_not_stored() {
    for length in ["3", "5", "4096"] {
        let response =
            [(":status", "200"), ("cache-control", "max-age=60"), ("content-length", length)];
        let mut proxy = Proxy::new();
        proxy.exchange("GET", "/", &[], &response, "good");
        assert_eq!(proxy.stored("/"), None, "{length}");
    }
    let mut proxy = Proxy::new();
    proxy.exchange("GET", "/", &[], GOOD, &"x".repeat(4097));
    assert_eq!(proxy.stored("/"), None);
}

#[test]
fn errors_that_an_attacker_provokes_are_not_stored() {
    for status in ["400", "403", "404", "413", "429", "431", "500", "502", "503"] {
        let mut proxy = Proxy::new();
        proxy.exchange("GET", "/", &[], &[(":status", status), ("etag", "\"a\"")], "error");
        assert_eq!(proxy.stored("/"), None, "{status}");
    }
}

#[test]
fn parts_are_not_stored_as_the_whole() {
    for (status, name, value) in
        [("206", "content-range", "bytes 0-3/10"), ("200", "content-range", "bytes 0-3/10")]
    {
        let response = [(":status", status), ("cache-control", "max-age=60"), (name, value)];
        let mut proxy = Proxy::new();
        proxy.exchange("GET", "/", &[("range", "bytes=0-3")], &response, "part");
        assert_eq!(proxy.stored("/"), None, "{status}");
    }
}

#[test]
fn what_is_for_one_hop_is_not_replayed() {
    let response = [
        (":status", "200"),
        ("cache-control", "max-age=60"),
        ("connection", "X-Hop, keep-alive"),
        ("x-hop", "secret"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("trailer", "x"),
        ("proxy-authenticate", "Basic"),
    ];
    let mut proxy = Proxy::new();
    proxy.exchange("GET", "/", &[], &response, "good");
    let reply = proxy.stored("/").unwrap();
    for (name, _) in &response[2..] {
        assert!(!reply.fields.iter().any(|(there, _)| there == name.as_bytes()), "{name}");
    }
}

#[test]
fn many_variants_take_a_bounded_number_of_bytes() {
    let mut proxy = Proxy::new();
    let response = [(":status", "200"), ("cache-control", "max-age=60"), ("vary", "User-Agent")];
    for agent in 0..2_000 {
        let agent = format!("agent-{agent}");
        proxy.exchange("GET", "/", &[("user-agent", &agent)], &response, "good");
    }
    let metrics = proxy.gate.metrics();
    let value = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap().value;
    assert!(value("edgeweir.cache.bytes") <= 65_536);
    assert!(0 < value("edgeweir.cache.evicted"));
}

#[test]
fn a_304_changes_no_body_and_no_framing() {
    let response = [
        (":status", "200"),
        ("cache-control", "no-cache"),
        ("etag", "\"a\""),
        ("content-encoding", "gzip"),
    ];
    let poison = [
        (":status", "304"),
        ("etag", "\"a\""),
        ("content-length", "999"),
        ("content-encoding", "br"),
        ("content-range", "bytes 0-0/1"),
        ("transfer-encoding", "chunked"),
        ("connection", "x-evil"),
        ("x-evil", "1"),
    ];
    let mut proxy = Proxy::new();
    proxy.exchange("GET", "/", &[], &response, "good");
    let reply = proxy.exchange("GET", "/", &[], &poison, "").unwrap();
    assert_eq!((reply.status, &*reply.body), (200, &b"good"[..]));
    let found = |name: &str| {
        let found = reply.fields.iter().find(|(there, _)| there == name.as_bytes());
        found.map(|(_, value)| &value[..])
    };
    assert_eq!(found("content-encoding"), Some(&b"gzip"[..]));
    for name in ["content-length", "content-range", "transfer-encoding", "connection", "x-evil"] {
        assert_eq!(found(name), None, "{name}");
    }
}

#[test]
fn rfc_9111_4_3_4_a_304_about_another_version_refreshes_nothing() {
    let response = [(":status", "200"), ("cache-control", "no-cache"), ("etag", "\"a\"")];
    let other = [(":status", "304"), ("etag", "\"b\""), ("cache-control", "max-age=60")];
    let mut proxy = Proxy::new();
    proxy.exchange("GET", "/", &[], &response, "good");
    proxy.exchange("GET", "/", &[], &other, "");
    assert_eq!(proxy.stored("/"), None);
}

#[test]
fn cookies_that_differ_by_an_empty_member_are_two() {
    let response = [(":status", "200"), ("cache-control", "max-age=60"), ("vary", "cookie")];
    let mut proxy = Proxy::new();
    proxy.exchange("GET", "/", &[("cookie", "id=a,")], &response, "good");
    let got = proxy.exchange("GET", "/", &[("cookie", "id=a")], &[(":status", "503")], "");
    assert_eq!(got, None);
}
