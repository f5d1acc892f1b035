//! `cargo xtask test`: everything that must hold before a change lands.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::child::{followed, say};
use crate::tree::Tree;
use crate::{npm, wasm};

/// No suite may take longer; the slowest compiles wasmtime first.
const LIMIT: Duration = Duration::from_secs(1500);

/// How the cases of one suite ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    fn one(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed), skipped: 0 }
    }

    fn add(&mut self, other: Self) {
        self.passed = self.passed.saturating_add(other.passed);
        self.failed = self.failed.saturating_add(other.failed);
        self.skipped = self.skipped.saturating_add(other.skipped);
    }

    fn line(self) -> String {
        let Self { passed, failed, skipped } = self;
        let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
        format!("{passed} passed, {failed} failed{skipped}")
    }
}

/// Sets up, builds, and runs every suite, also after one has failed.
pub(crate) fn run(tree: &Tree) -> Result<()> {
    let mut total = Tally::default();
    let mut broken: Vec<String> = Vec::new();
    let started = Instant::now();
    let mut note = |name: &str, tally: Tally| {
        total.add(tally);
        if tally.failed > 0 {
            broken.push(name.to_owned());
        }
    };
    match crate::prepare(tree) {
        Ok((compiler, envoy)) => {
            for (name, mut command) in cargo_suites(tree, &envoy) {
                note(name, suite(name, &mut command)?);
            }
            let alone = step("core without std", || compiler.build_core_without_std(tree));
            note("core without std", alone);
            for script in npm::checks(tree)? {
                let name = format!("npm run {script}");
                let tally = suite(&name, &mut npm::npm(tree, &["run", "--silent", &script]))?;
                note(&name, tally);
            }
        }
        Err(error) => {
            say(&format!("error: {error:#}"));
            note("preparation", Tally::one(false));
        }
    }
    say(&format!("\ntook {} s", started.elapsed().as_secs()));
    if !broken.is_empty() {
        say(&format!("failed in: {}", broken.join(", ")));
    }
    say(&total.line());
    if total.failed > 0 {
        bail!("not everything passed");
    }
    Ok(())
}

/// Rewrites the expected outputs of the tests that have any, by running those with
/// `UPDATE_EXPECT=1`. What changed is then for a person to read.
pub(crate) fn bless(tree: &Tree) -> Result<()> {
    let (_, envoy) = crate::prepare(tree)?;
    for (name, mut command) in cargo_suites(tree, &envoy) {
        if name.ends_with("tests") {
            let tally = suite(name, command.env("UPDATE_EXPECT", "1"))?;
            ensure!(tally.failed == 0, "{name}: {}", tally.line());
        }
    }
    say("blessed; `git diff` shows what changed");
    Ok(())
}

fn cargo_suites(tree: &Tree, envoy: &std::path::Path) -> Vec<(&'static str, Command)> {
    let cargo = |arguments: &[&str]| {
        // The cargo that runs this tool, so that both share what is built.
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(tree.root())
            .env("EDGEWEIR_ENVOY", envoy)
            .env("EDGEWEIR_FILTER_WASM", wasm::filter(tree, "edgeweir"))
            .args(arguments);
        cargo
    };
    vec![
        ("format", cargo(&["fmt", "--all", "--check"])),
        (
            "lints",
            cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-Dwarnings"]),
        ),
        ("unit tests", cargo(&["test", "--quiet", "--no-fail-fast"])),
        ("host tests", cargo(&["test", "--quiet", "--no-fail-fast", "--package", "host-tests"])),
    ]
}

/// Runs one suite and counts its cases; a suite that counts none is one case itself.
fn suite(name: &str, command: &mut Command) -> Result<Tally> {
    say(&format!("\n== {name}"));
    let started = Instant::now();
    let mut tally = Tally::default();
    let status = followed(LIMIT, command, |line| tally.add(count(line)));
    let passed = match &status {
        Ok(status) => status.success(),
        Err(error) => {
            say(&format!("error: {error:#}"));
            false
        }
    };
    let tally = settle(tally, passed);
    say(&format!("-- {name}: {} ({} s)", tally.line(), started.elapsed().as_secs()));
    Ok(tally)
}

/// The tally of a suite that has ended: one that failed without a failed case did not
/// compile, crashed or hung.
fn settle(mut tally: Tally, passed: bool) -> Tally {
    if tally == Tally::default() || (!passed && tally.failed == 0) {
        tally.add(Tally::one(passed));
    }
    tally
}

fn step(name: &str, act: impl FnOnce() -> Result<()>) -> Tally {
    say(&format!("\n== {name}"));
    let done = act();
    if let Err(error) = &done {
        say(&format!("error: {error:#}"));
    }
    let tally = Tally::one(done.is_ok());
    say(&format!("-- {name}: {}", tally.line()));
    tally
}

/// What one line of a test runner's output reports: cargo's summary of a test binary,
/// or one line of the summary of Node's test runner.
fn count(line: &str) -> Tally {
    let mut tally = Tally::default();
    if let Some(summary) = line.trim().strip_prefix("test result: ") {
        for part in summary.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(kind)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse() else { continue };
            match kind {
                "passed" => tally.passed = number,
                "failed" => tally.failed = number,
                "ignored" => tally.skipped = number,
                _ => {}
            }
        }
        return tally;
    }
    let mut words = line.split_whitespace();
    if let (Some("#" | "ℹ"), Some(kind), Some(number), None) =
        (words.next(), words.next(), words.next(), words.next())
        && let Ok(number) = number.parse()
    {
        match kind {
            "pass" => tally.passed = number,
            "fail" | "cancelled" => tally.failed = number,
            "skipped" | "todo" => tally.skipped = number,
            _ => {}
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_test_runners_are_counted_and_nothing_else() {
        let cases = [
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; \
                 finished in 0.05s",
                (12, 0, 1),
            ),
            (
                "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
                (1, 2, 0),
            ),
            ("# pass 7", (7, 0, 0)),
            ("ℹ fail 2", (0, 2, 0)),
            ("ℹ skipped 1", (0, 0, 1)),
            ("ℹ tests 9", (0, 0, 0)),
            ("ok 1 - 12 passed", (0, 0, 0)),
            ("# pass the parcel", (0, 0, 0)),
            ("", (0, 0, 0)),
        ];
        for (line, (passed, failed, skipped)) in cases {
            assert_eq!(count(line), Tally { passed, failed, skipped }, "{line}");
        }
    }

    #[test]
    fn the_closing_line_names_skipped_cases_only_if_there_are_any() {
        assert_eq!(Tally { passed: 3, failed: 0, skipped: 0 }.line(), "3 passed, 0 failed");
        let some = Tally { passed: 3, failed: 1, skipped: 2 };
        assert_eq!(some.line(), "3 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn a_suite_that_fails_without_a_count_is_one_failure() {
        let counted = |passed, failed| Tally { passed, failed, skipped: 0 };
        let cases = [
            (counted(0, 0), true, counted(1, 0)),
            (counted(0, 0), false, counted(0, 1)),
            (counted(4, 0), true, counted(4, 0)),
            (counted(4, 0), false, counted(4, 1)),
            (counted(4, 2), false, counted(4, 2)),
        ];
        for (tally, passed, settled) in cases {
            assert_eq!(settle(tally, passed), settled);
        }
    }
}
