//! Load on one server by `wrk`, and what it cost the server.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Table;
use crate::child::{output, say};

const ROUNDS: usize = 5;
const SECONDS: u64 = 3;
const CONNECTIONS: u32 = 16;

/// A server that is measured.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) path: String,
    /// The process whose time counts, with those that it started.
    pub(super) process: u32,
    /// The status that every answer must have.
    pub(super) status: u16,
}

/// One round of load on one server.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Processor time of the server per request.
    cpu_us: f64,
}

/// Says how to get `wrk` if it is not there.
pub(super) fn need_wrk() -> Result<()> {
    // wrk has no option that succeeds without work; its usage text is enough.
    Command::new("wrk")
        .arg("--version")
        .output()
        .map(|_| ())
        .context("wrk is needed to make load (Debian: apt-get install wrk)")
}

/// Measures the targets in turn and prints their table; the first row is what the
/// others are compared with.
pub(super) fn compare(title: &str, targets: &[Target]) -> Result<()> {
    say(&format!("\n== {title}"));
    say(&format!(
        "{ROUNDS} interleaved rounds of {SECONDS} s, wrk with {CONNECTIONS} connections; cpu is the \
         server's processor time per request (least and median round), x its least against the \
         first row's"
    ));
    for target in targets {
        let probe = crate::http::get(target.address, &target.path)?;
        ensure!(probe.status == target.status, "{}: status {}", target.name, probe.status);
    }
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); targets.len()];
    for round in 0..=ROUNDS {
        for (target, samples) in targets.iter().zip(&mut samples) {
            // The first round only warms up.
            let seconds = if round == 0 { 1 } else { SECONDS };
            let sample = measure(target, seconds).with_context(|| target.name.clone())?;
            if round > 0 {
                samples.push(sample);
            }
        }
        say(&format!("  ... round {round} of {ROUNDS}"));
    }
    print(targets, &samples);
    Ok(())
}

fn print(targets: &[Target], samples: &[Vec<Sample>]) {
    let mut table = Table::new(&[
        "",
        "req/s median",
        "req/s most",
        "p50 ms",
        "p99 ms",
        "cpu us",
        "cpu us median",
        "x",
    ]);
    let least = |samples: &[Sample]| sorted(samples, |sample| sample.cpu_us).first().copied();
    let base = samples.first().and_then(|samples| least(samples)).unwrap_or(f64::NAN);
    for (target, samples) in targets.iter().zip(samples) {
        let rates = sorted(samples, |sample| sample.per_second);
        let cpu = sorted(samples, |sample| sample.cpu_us);
        let p50 = sorted(samples, |sample| sample.p50_us);
        let p99 = sorted(samples, |sample| sample.p99_us);
        let first = |values: &[f64]| values.first().copied().unwrap_or(f64::NAN);
        table.row(vec![
            target.name.clone(),
            format!("{:.0}", median(&rates)),
            format!("{:.0}", rates.last().copied().unwrap_or(f64::NAN)),
            format!("{:.2}", median(&p50) / 1000.0),
            format!("{:.2}", median(&p99) / 1000.0),
            format!("{:.1}", first(&cpu)),
            format!("{:.1}", median(&cpu)),
            format!("{:.2}", first(&cpu) / base),
        ]);
    }
    table.print();
}

fn sorted(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn measure(target: &Target, seconds: u64) -> Result<Sample> {
    let url = format!("http://{}{}", target.address, target.path);
    let before = cpu_ns(target.process);
    let said = output(
        Duration::from_secs(seconds + 30),
        Command::new("wrk")
            .args(["--threads", "1", "--latency"])
            .args(["--connections", &CONNECTIONS.to_string()])
            .args(["--duration", &format!("{seconds}s")])
            .arg(url),
    )?;
    let spent = cpu_ns(target.process) - before;
    let report = parse(&said).with_context(|| format!("wrk said:\n{said}"))?;
    // Refusals are counted by wrk as answers that are not 2xx or 3xx.
    ensure!(report.errors == 0 || target.status >= 400, "{} errors:\n{said}", report.errors);
    Ok(Sample {
        per_second: report.per_second,
        p50_us: report.p50_us,
        p99_us: report.p99_us,
        cpu_us: spent / 1000.0 / report.requests,
    })
}

/// The time that the threads of a process and of its children have been on a processor,
/// in nanoseconds; not a number where the system does not say.
fn cpu_ns(process: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    let mut total = if threads.is_ok() { 0.0 } else { f64::NAN };
    for thread in threads.into_iter().flatten().filter_map(Result::ok) {
        let read = |name| std::fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let spent = read("schedstat");
        total += spent.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0);
        let children = read("children");
        total +=
            children.split_whitespace().filter_map(|id| id.parse().ok()).map(cpu_ns).sum::<f64>();
    }
    total
}

#[derive(Debug, PartialEq)]
struct Report {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    requests: f64,
    errors: u64,
}

fn parse(said: &str) -> Option<Report> {
    let mut report = Report { per_second: 0.0, p50_us: 0.0, p99_us: 0.0, requests: 0.0, errors: 0 };
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["Requests/sec:", rate] => report.per_second = rate.parse().ok()?,
            ["50%", time] => report.p50_us = microseconds(time)?,
            ["99%", time] => report.p99_us = microseconds(time)?,
            [count, "requests", "in", ..] => report.requests = count.parse().ok()?,
            ["Non-2xx", "or", "3xx", "responses:", count] => {
                report.errors += count.parse::<u64>().ok()?;
            }
            ["Socket", "errors:", counts @ ..] => {
                report.errors += counts
                    .iter()
                    .filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok())
                    .sum::<u64>();
            }
            _ => {}
        }
    }
    (report.per_second > 0.0 && report.requests > 0.0).then_some(report)
}

/// A time as wrk writes it: `812.00us`, `1.20ms`, `3.00s`.
fn microseconds(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Some(number.parse::<f64>().ok()? * factor);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
Running 1s test @ http://127.0.0.1:4711/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.05ms    1.20ms  20.33ms   90.00%
    Req/Sec    18.20k     2.00k   20.00k    80.00%
  Latency Distribution
     50%  812.00us
     75%    1.10ms
     90%    2.00ms
     99%    5.50ms
  18250 requests in 1.00s, 20.00MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 7
Requests/sec:  18123.45
Transfer/sec:     20.00MB
";

    #[test]
    fn the_report_of_wrk_is_read() {
        let report = parse(SAID).unwrap();
        let expected = Report {
            per_second: 18123.45,
            p50_us: 812.0,
            p99_us: 5500.0,
            requests: 18250.0,
            errors: 10,
        };
        assert_eq!(report, expected);
        assert_eq!(parse("unable to connect"), None);
    }

    #[test]
    fn the_median_is_the_middle_of_what_was_sorted() {
        let samples = [3.0, 1.0, 2.0].map(|cpu_us| Sample {
            per_second: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
            cpu_us,
        });
        let values = sorted(&samples, |sample| sample.cpu_us);
        assert_eq!(values, [1.0, 2.0, 3.0]);
        assert!((median(&values) - 2.0).abs() < f64::EPSILON);
    }
}
