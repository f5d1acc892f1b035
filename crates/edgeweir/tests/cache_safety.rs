//! The one safety invariant of a shared cache: in random histories of two users,
//! through the whole gate, neither ever receives bytes made for the other, and nothing
//! that must not be stored ever comes back out of the store.
//!
//! The origin knows what it means: every response is made for everyone, for one user
//! alone, or for whoever sends the same `Cookie`. What it says about that in fields is
//! what the gate sees; the test looks only at the meaning.
//!
//! 20 000 histories by default; 1 000 000 with `EDGEWEIR_DEEP=1`.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test may stop at the first surprise, in its own functions too"
)]

use edgeweir::config;
use edgeweir::gate::{
    Action, Answer, CallOutcome, Features, Gate, Now, Reply, Request, Response, Seeds, Step,
    StreamId, Verdict,
};
use edgeweir::hash::HashSeed;
use edgeweir::http::Fields;
use edgeweir::random::Random;
use edgeweir::time::{Instant, UnixTime};

type Pairs = Vec<(String, String)>;

const USERS: [&str; 2] = ["alice", "bob"];

/// What keeps a response for the user who asked, whatever the request had.
const FOR_ONE: [&[(&str, &str)]; 14] = [
    &[("cache-control", "no-store")],
    &[("cache-control", "no-store, max-age=60")],
    &[("cache-control", "NO-STORE"), ("cache-control", "public, max-age=60")],
    &[("cache-control", "max-age=60, private")],
    &[("cache-control", "private=\"\", max-age=60")],
    &[("cache-control", "Private, s-maxage=60, public")],
    &[("cache-control", "max-age=60"), ("set-cookie", "id=1")],
    &[("cache-control", "public, max-age=60"), ("set-cookie", "id=1")],
    &[("cache-control", "max-age=60, x=\"no-store")],
    &[("cache-control", "private;x, max-age=60")],
    &[("cache-control", "max-age=60"), ("vary", "*")],
    &[("cache-control", "max-age=60"), ("vary", "accept, *")],
    &[("cdn-cache-control", "private, max-age=60"), ("cache-control", "public, max-age=60")],
    // Without a lifetime: HTML of an account under a name that looks static.
    &[("content-type", "text/html")],
];

/// What keeps it for the user if the request had `Authorization` (RFC 9111 section 3.5).
const FOR_ONE_IF_AUTHORIZED: [&[(&str, &str)]; 3] = [
    &[("cache-control", "max-age=60")],
    &[("cache-control", "max-age=60, proxy-revalidate")],
    &[("cdn-cache-control", "max-age=60"), ("cache-control", "public")],
];

/// What lets everyone have it, with or without `Authorization`. The fields named in an
/// argument are for the user alone.
const FOR_ALL: [&[(&str, &str)]; 6] = [
    &[("cache-control", "public, max-age=3")],
    &[("cache-control", "s-maxage=3")],
    &[("cache-control", "public, max-age=1, stale-while-revalidate=5, stale-if-error=9")],
    &[("cache-control", "public, no-cache")],
    &[("cache-control", "public, max-age=3, private=\"x-user\""), ("x-user", "USER")],
    &[("cache-control", "public, max-age=3, no-cache=\"X-User\""), ("x-user", "USER")],
];

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }
}

struct World {
    gate: Gate,
    dice: Dice,
    now: Now,
    streams: u32,
    /// The tags of bodies made for everyone.
    tags: Vec<String>,
    replies: u64,
}

fn has(pairs: &Pairs, name: &str) -> bool {
    pairs.iter().any(|(there, _)| there == name)
}

fn borrowed(pairs: &Pairs) -> Vec<(&[u8], &[u8])> {
    pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
}

fn owned(pairs: &[(&str, &str)]) -> Pairs {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let seeds =
            Seeds { hash: HashSeed::from_bytes([7; 16]), random: Random::from_seed([1; 32]) };
        let gate = config::build(
            br#"{"cache":{"max_bytes":65536,"max_entry_bytes":4096}}"#,
            Features::ALL,
            seeds,
        );
        let mut world = Self {
            gate: gate.unwrap(),
            dice: Dice(seed),
            now: Now::default(),
            streams: 0,
            tags: Vec::new(),
            replies: 0,
        };
        world.advance(1_795_000_000);
        world
    }

    fn advance(&mut self, seconds: u64) {
        let unix = self.now.unix.as_secs() + seconds;
        self.now.unix = UnixTime::from_secs(unix);
        self.now.instant = Instant::from_nanos((unix - 1_794_000_000) * 1_000_000_000);
    }

    /// What the origin makes of a request: the fields with `:status`, and the body.
    fn origin(&mut self, user: &str, request: &Pairs) -> (Pairs, String) {
        let wanted = request.iter().find(|(name, _)| name == "if-none-match");
        if let Some((_, tag)) = wanted.filter(|(_, tag)| self.tags.contains(tag)) {
            let pairs = [(":status", "304"), ("etag", tag), ("cache-control", "public, max-age=2")];
            return (owned(&pairs), String::new());
        }
        if self.dice.roll(12) == 0 {
            return (owned(&[(":status", "503")]), format!("only:{user}"));
        }
        let authorized = has(request, "authorization");
        let (meaning, fields) = match self.dice.roll(4) {
            0 => ("only", self.dice.pick(&FOR_ONE)),
            1 if authorized => ("only", self.dice.pick(&FOR_ONE_IF_AUTHORIZED)),
            1 if !authorized => {
                ("cookie", &[("cache-control", "max-age=5"), ("vary", "Cookie")][..])
            }
            _ if has(request, "x-forwarded-host") => {
                ("only", &[("cache-control", "public, max-age=60")][..])
            }
            _ => ("all", self.dice.pick(&FOR_ALL)),
        };
        let tag = format!("\"{}-{}\"", self.streams, self.dice.roll(1_000_000));
        let body = format!("{meaning}:{user}:{tag}");
        let mut pairs = owned(&[(":status", "200"), ("etag", &tag)]);
        pairs.push(("content-length".to_owned(), body.len().to_string()));
        for (name, value) in fields {
            pairs.push(((*name).to_owned(), value.replace("USER", &format!("only:{user}"))));
        }
        if meaning == "all" {
            self.tags.push(tag);
        }
        (pairs, body)
    }

    fn check(&mut self, user: &str, reply: &Reply, request: &Pairs) {
        self.replies += 1;
        let body = String::from_utf8(reply.body.to_vec()).unwrap();
        let mut all = body.clone();
        for (name, value) in &reply.fields {
            all.push_str(&format!(
                "\n{}: {}",
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value)
            ));
        }
        assert!(!all.contains("only:"), "stored, and must not be: {all}\nfor {user}: {request:?}");
        if body.starts_with("cookie:") {
            assert!(body.starts_with(&format!("cookie:{user}")), "{all}\nfor {user}: {request:?}");
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.gate.next_action() {
            match action {
                Action::Tell(message) => self.gate.message(&message, self.now),
                Action::Call(call) => {
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    let request: Pairs =
                        call.fields.iter().map(|(name, value)| (text(name), text(value))).collect();
                    let of = |user: &&str| request.iter().any(|(_, value)| value.contains(*user));
                    let user = USERS.into_iter().find(of).unwrap_or("nobody");
                    let (fields, body) = self.origin(user, &request);
                    let pairs = borrowed(&fields);
                    let outcome = CallOutcome::Response {
                        fields: Fields::new(&pairs),
                        body: body.as_bytes(),
                    };
                    self.gate.called(call.token, outcome, self.now);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// One exchange of a random user.
    fn exchange(&mut self) {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let user = self.dice.pick(&USERS);
        let method = self.dice.pick(&["GET", "GET", "GET", "GET", "HEAD", "POST"]);
        let path = self.dice.pick(&["/account", "/account/x.css"]);
        let mut request = owned(&[
            (":method", method),
            (":scheme", "http"),
            (":authority", "a.example"),
            (":path", path),
        ]);
        request.push(("cookie".to_owned(), format!("id={user}")));
        if self.dice.roll(3) == 0 {
            request.push(("authorization".to_owned(), format!("Bearer {user}")));
        }
        let more: &[(&str, &str)] = self.dice.pick(&[
            &[][..],
            &[],
            &[("cache-control", "no-cache")],
            &[("cache-control", "max-stale")],
            &[("cache-control", "only-if-cached, max-stale")],
            &[("range", "bytes=0-40")],
            &[("if-none-match", "*")],
            &[("x-forwarded-host", "evil.example")],
        ]);
        request.extend(owned(more));
        let fields = borrowed(&request);
        let head = Request { fields: Fields::new(&fields), end: method != "POST" };
        let mut step = self.gate.request(stream, &head, self.now);
        let verdict = loop {
            match step {
                Step::Verdict(verdict) => break verdict,
                Step::Ask(_) => {
                    let answer = Answer::Property(Some(b"origin"));
                    step = self.gate.answer(stream, &head, answer, self.now);
                }
            }
        };
        match verdict {
            Verdict::Wait => panic!("nothing waits here"),
            Verdict::Reply(reply) => self.check(user, &reply, &request),
            Verdict::Pass(changes) => self.upstream(user, stream, &request, changes),
        }
        self.gate.finished(stream, self.now);
        self.drain();
    }

    fn upstream(
        &mut self,
        user: &str,
        stream: StreamId,
        request: &Pairs,
        changes: Vec<edgeweir::gate::Change>,
    ) {
        let mut sent = request.clone();
        for change in changes {
            match change {
                edgeweir::gate::Change::Set(name, value) => {
                    sent.retain(|(there, _)| there != name);
                    sent.push((name.to_owned(), String::from_utf8(value).unwrap()));
                }
                edgeweir::gate::Change::Remove(name) => sent.retain(|(there, _)| there != name),
                other => panic!("{other:?}"),
            }
        }
        let (fields, body) = self.origin(user, &sent);
        if !self.gate.wants_response(stream) {
            return;
        }
        let pairs = borrowed(&fields);
        // One response in eight is cut short.
        let body = match self.dice.roll(8) {
            0 => &body[..body.len() / 2],
            _ => &body[..],
        };
        let response = Response { fields: Fields::new(&pairs), end: body.is_empty() };
        match self.gate.response(stream, &response, self.now) {
            Verdict::Reply(reply) => self.check(user, &reply, request),
            _ if self.gate.wants_body(stream) && !body.is_empty() => {
                self.gate.body(stream, body.as_bytes(), true, self.now);
            }
            _ => {}
        }
    }
}

#[test]
fn no_user_receives_bytes_made_for_the_other() {
    let deep = std::env::var_os("EDGEWEIR_DEEP").is_some();
    let histories = if deep { 1_000_000 } else { 20_000 };
    let mut replies = 0;
    for seed in 0..histories {
        let mut world = World::new(seed);
        for _ in 0..12 {
            world.exchange();
            let pause = world.dice.pick(&[0, 0, 1, 2, 4, 30]);
            world.advance(pause);
        }
        replies += world.replies;
    }
    // The invariant would hold in a cache that stores nothing.
    assert!(histories < replies, "{replies} answers from the store in {histories} histories");
}
