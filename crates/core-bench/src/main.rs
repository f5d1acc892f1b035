//! `cargo xtask bench core`: the core, compiled for this machine, beside Rust crates that
//! do the like. One file per subject; a subject is a list of rows.

mod limit;

use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 11;

/// One implementation doing one thing: `work(n)` does it `n` times.
struct Row {
    name: &'static str,
    work: Box<dyn FnMut(u64)>,
}

fn main() {
    for (title, rows) in limit::subjects() {
        compare(title, rows);
    }
}

/// Measures the rows in turn, round after round, and prints their table.
fn compare(title: &str, mut rows: Vec<Row>) {
    const TIMES: u64 = 200_000;
    let mut nanos: Vec<Vec<u128>> = vec![Vec::new(); rows.len()];
    for round in 0..=ROUNDS {
        for (row, nanos) in rows.iter_mut().zip(&mut nanos) {
            let started = Instant::now();
            (row.work)(black_box(TIMES));
            // The first round fills tables and caches.
            if round > 0 {
                nanos.push(started.elapsed().as_nanos());
            }
        }
    }
    println!("\n{title}\n");
    println!("| {:<34} | ns least | ns median |    x |", "");
    println!("| :{:-<33} | -------: | --------: | ---: |", "");
    let each = |total: u128| total as f64 / TIMES as f64;
    let mut base = f64::NAN;
    for (row, mut nanos) in rows.into_iter().zip(nanos) {
        nanos.sort_unstable();
        let least = nanos.first().copied().map_or(f64::NAN, each);
        let median = nanos.get(nanos.len() / 2).copied().map_or(f64::NAN, each);
        if base.is_nan() {
            base = least;
        }
        println!("| {:<34} | {least:>8.1} | {median:>9.1} | {:>4.2} |", row.name, least / base);
    }
}
