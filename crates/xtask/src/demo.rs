//! `cargo xtask demo`: a real Envoy with the filter in front of a real service, on live
//! traffic. What it shows is checked: a demo that would lie ends with an error.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::child::{Running, say};
use crate::envoy::{self, Envoy};
use crate::http::{self, LOCALHOST, Response};
use crate::tree::{self, Tree};

const OTHER_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// More than the limit of `envoy/all.yaml` lets one client make at once.
const TOO_MANY: usize = 30;

/// Connections go to either of two workers: after this many, one has surely seen two.
const PATIENCE: usize = 3;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// How long the service may take to say where it listens.
const START: Duration = Duration::from_secs(30);

/// Shows the product; with `keep`, leaves it running until a signal.
pub(crate) fn run(tree: &Tree, binary: &Path, keep: bool) -> Result<()> {
    let (_service, service) = start_service(tree)?;
    let config = tree::read(&tree.path("envoy/all.yaml"))?;
    let config = envoy::on_free_ports(&config, service)?;
    let mut envoy = envoy::start(tree, binary, "demo", &config, 2)?;
    say(&format!("\nclient -> Envoy at {} -> Node service at {service}", envoy.edge));

    cache(envoy.edge)?;
    trace(envoy.edge)?;
    limit(envoy.edge)?;

    advise(&envoy, keep);
    if keep {
        while envoy.running.ended()?.is_none() {
            std::thread::sleep(Duration::from_millis(200));
        }
        bail!("Envoy ended; see {}", tree.shown(&tree.notes("run/demo.log")));
    }
    Ok(())
}

/// Starts the example service on a free port, which it prints.
fn start_service(tree: &Tree) -> Result<(Running, SocketAddr)> {
    let mut node = Command::new("node");
    node.current_dir(tree.path("js"))
        .args(["examples/demo-service.js", "0"])
        .stdout(Stdio::piped());
    let mut running = Running::start(&mut node)?;
    let out = running.output().context("the service has no output")?;
    let (send, receive) = std::sync::mpsc::channel();
    // Reads on after the first line: a full pipe would stop the service.
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    let deadline = Instant::now() + START;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = receive.recv_timeout(left).context("the example service did not start")?;
        if let Some(port) = port_in(&line) {
            return Ok((running, SocketAddr::new(LOCALHOST, port)));
        }
    }
}

/// The port in a line like `listening on http://127.0.0.1:4711`.
fn port_in(line: &str) -> Option<u16> {
    let after = line.split("http://").nth(1)?.split_once(':')?.1;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn cache(edge: SocketAddr) -> Result<()> {
    say("\n== Cache: the next answer comes out of Envoy's memory (each worker has its own)");
    for _ in 0..PATIENCE {
        let response = http::get(edge, "/news")?;
        show("GET /news", &response, &["cache-status", "age", "cache-control"]);
        let status = response.field("cache-status").unwrap_or_default();
        if status.starts_with("edgeweir; hit") {
            return Ok(());
        }
    }
    bail!("none of {PATIENCE} answers was a cache hit")
}

fn trace(edge: SocketAddr) -> Result<()> {
    say("\n== Trace: one trace from the client through Envoy into the service");
    let sent = format!("00-{TRACE_ID}-{CLIENT_SPAN}-01");
    let response = http::get_as(LOCALHOST, edge, "/", &[("traceparent", &sent)])?;
    let received: Value =
        serde_json::from_slice(&response.body).context("the service's answer is not JSON")?;
    let id = |name: &str| received.get(name).and_then(Value::as_str).unwrap_or("none");
    let (trace, parent) = (id("traceId"), id("parentId"));
    say(&format!("  the client sent       trace {TRACE_ID}, span {CLIENT_SPAN}"));
    say(&format!("  the service received  trace {trace}, span {parent}"));
    ensure!(trace == TRACE_ID, "the service saw another trace");
    ensure!(parent != CLIENT_SPAN, "Envoy did not put a span of its own in between");
    say("  one trace on both sides; the second span is Envoy's own");
    Ok(())
}

fn limit(edge: SocketAddr) -> Result<()> {
    say("\n== Limit: one client overdoes it, another is not touched");
    let mut passed = 0;
    let mut refused: Vec<Response> = Vec::new();
    for _ in 0..TOO_MANY {
        let response = http::get(edge, "/")?;
        match response.status {
            200 => passed += 1,
            429 => refused.push(response),
            other => bail!("the service answered {other}"),
        }
    }
    say(&format!("  {LOCALHOST} sent {TOO_MANY}: {passed} passed, {} were refused", refused.len()));
    let first = refused.first().context("nobody was refused")?;
    show("GET /", first, &["retry-after", "ratelimit", "ratelimit-policy"]);
    ensure!(first.field("retry-after").is_some(), "the refusal does not say when to come again");
    match http::get_as(OTHER_CLIENT, edge, "/", &[]) {
        Ok(other) => {
            show(&format!("GET / from {OTHER_CLIENT}"), &other, &["ratelimit"]);
            ensure!(other.status == 200, "the other client was refused too");
        }
        Err(error) => say(&format!("  the other client is left out: {error:#}")),
    }
    Ok(())
}

fn show(what: &str, response: &Response, fields: &[&str]) {
    say(&format!("  {what}  ->  {}", response.status));
    for name in fields {
        if let Some(value) = response.field(name) {
            say(&format!("      {name}: {value}"));
        }
    }
}

fn advise(envoy: &Envoy, keep: bool) {
    let edge = envoy.edge;
    if !keep {
        say("\nEverything worked. `cargo xtask demo --keep` leaves it running to try by hand.");
        return;
    }
    say("\nEverything worked, and runs until Ctrl-C. Try:");
    say(&format!("  curl -i http://{edge}/news"));
    say(&format!(
        "  for i in $(seq {TOO_MANY}); do curl -so /dev/null -w '%{{http_code}} ' http://{edge}/; done"
    ));
    say(&format!("  curl -i --interface {OTHER_CLIENT} http://{edge}/"));
    say(&format!("  curl -s -H 'traceparent: 00-{TRACE_ID}-{CLIENT_SPAN}-01' http://{edge}/"));
    say(&format!("  curl -s http://{}/stats?filter=edgeweir", envoy.admin));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_what_the_service_prints() {
        let cases = [
            ("listening on http://127.0.0.1:4711", Some(4711)),
            ("http://localhost:80/ is up", Some(80)),
            ("http://localhost is up", None),
            ("starting", None),
            ("http://127.0.0.1:99999", None),
        ];
        for (line, port) in cases {
            assert_eq!(port_in(line), port, "{line}");
        }
    }
}
