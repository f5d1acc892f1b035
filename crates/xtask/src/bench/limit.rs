//! Whether a limit is one limit, however many workers Envoy has and wherever the load
//! comes in: what passes in ten seconds, against what may.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Table;
use super::proxy::{DIRECT, config, ours};
use crate::child::say;
use crate::envoy;
use crate::tree::Tree;

const RATE: u64 = 200;
const BURST: u64 = 100;
const WORKERS: u32 = 4;
const CONNECTIONS: usize = 16;
const SPAN: Duration = Duration::from_secs(10);

/// One bucket for all clients, in each worker its own: what a filter does that keeps
/// its state in variables.
fn per_worker() -> String {
    format!(
        r#"
- name: envoy.filters.http.lua
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
    default_source_code:
      inline_string: |
        local level, last = {BURST}, nil
        function envoy_on_request(handle)
          local now = handle:timestamp() / 1000
          level = math.min({BURST}, level + (now - (last or now)) * {RATE})
          last = now
          if level < 1 then
            handle:respond({{[":status"] = "429"}}, "")
          else
            level = level - 1
          end
        end
"#
    )
}

/// What came of a run: answers that passed, all answers, and how long it took.
struct Outcome {
    passed: u64,
    answers: u64,
    took: Duration,
}

pub(super) fn run(tree: &Tree, binary: &Path) -> Result<()> {
    say(&format!("\n== A limit of {RATE}/s, burst {BURST}, in Envoy with {WORKERS} workers\n"));
    let rule = format!(
        r#""limits": [{{ "name": "bench", "requests": {RATE}, "per_ms": 1000, "burst": {BURST}, "key": [] }}]"#
    );
    let filters =
        [("per worker (Lua)", per_worker()), ("Edgeweir limit", ours("edgeweir-limit", &rule))];
    let mut table = Table::new(&["filter, load", "offered/s", "passed", "may pass", "ratio"]);
    for (number, (name, filter)) in filters.into_iter().enumerate() {
        for (load, hot) in [("even", CONNECTIONS), ("2 busy of 16 connections", 2)] {
            let file = format!("bench-limit-{number}-{hot}");
            let envoy = envoy::start(tree, binary, &file, &config(&filter, DIRECT, ""), WORKERS)?;
            let Outcome { passed, answers, took } = drive(envoy.edge, hot)?;
            let may = BURST as f64 + RATE as f64 * took.as_secs_f64();
            table.row(vec![
                format!("{name}, {load}"),
                format!("{:.0}", answers as f64 / took.as_secs_f64()),
                passed.to_string(),
                format!("{may:.0}"),
                format!("{:.4}", passed as f64 / may),
            ]);
        }
    }
    table.print();
    Ok(())
}

/// Sends as fast as it can on `hot` connections, and 20 times a second on the others.
fn drive(edge: SocketAddr, hot: usize) -> Result<Outcome> {
    let (passed, answers, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(edge).context("cannot connect to Envoy")?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let began = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let mut clients = Vec::new();
        for (number, mut stream) in streams.into_iter().enumerate() {
            let (passed, answers, over) = (&passed, &answers, &over);
            clients.push(scope.spawn(move || -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    let status = exchange(&mut stream)?;
                    ensure!(status == 200 || status == 429, "status {status}");
                    answers.fetch_add(1, Ordering::Relaxed);
                    passed.fetch_add(u64::from(status == 200), Ordering::Relaxed);
                    if hot <= number {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
                Ok(())
            }));
        }
        std::thread::sleep(SPAN);
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client thread panicked"))??;
        }
        Ok(())
    })?;
    let took = began.elapsed();
    Ok(Outcome { passed: passed.into_inner(), answers: answers.into_inner(), took })
}

/// One request on a connection that stays; gives the status of its answer.
fn exchange(stream: &mut TcpStream) -> Result<u16> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 8 * 1024];
    loop {
        let length = stream.read(&mut piece).context("no answer")?;
        ensure!(length != 0, "the connection was closed");
        answer.extend_from_slice(piece.get(..length).unwrap_or_default());
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("an answer without its length")?.trim().parse()?;
        if length <= body.len() {
            let status = head.get(9..12).context("no status line")?;
            return Ok(status.parse()?);
        }
    }
}
