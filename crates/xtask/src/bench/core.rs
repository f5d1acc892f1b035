//! The core by itself, compiled for this machine, against Rust crates that do the like.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::child::{followed, say};
use crate::tree::Tree;

const LIMIT: Duration = Duration::from_secs(1800);

/// Builds and runs the crate that has the rows.
pub(super) fn run(tree: &Tree) -> Result<()> {
    say("\n== The core, natively");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut bench = Command::new(cargo);
    bench.current_dir(tree.root()).args(["run", "--quiet", "--release", "--package", "core-bench"]);
    let status = followed(LIMIT, &mut bench, |_| ())?;
    ensure!(status.success(), "the measurement ended with {status}");
    Ok(())
}
